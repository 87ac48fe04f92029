//! The listening sockets: bound once, at start, and kept as long as the supervisor lives. Workers come and
//! go; connections that wait in the kernel's queue survive all of them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::ListenerSpec;

/// How long a start waits for an address that is in use: killed workers of a predecessor give theirs back a
/// moment after it is gone.
const BIND_PATIENCE: Duration = Duration::from_secs(5);
const BIND_INTERVAL: Duration = Duration::from_millis(20);

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {name}")]
pub struct ListenError {
    /// What the socket is for.
    name: &'static str,
    /// Where it should listen.
    address: SocketAddr,
    /// Why it cannot.
    #[source]
    source: io::Error,
}

/// The bound sockets, in the order of the plan.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<(&'static str, SocketAddr, TcpListener)>,
}

impl Listeners {
    /// Binds every socket of the plan, or none.
    #[cfg(test)]
    fn bind(specs: &[ListenerSpec]) -> Result<Self, ListenError> {
        Self::take_over(specs, Vec::new())
    }

    /// The sockets of the plan, or none: those of `inherited` that have the same name and address, and for the
    /// rest new ones. What is inherited and not wanted is closed.
    pub(super) fn take_over(
        specs: &[ListenerSpec],
        mut inherited: Vec<(String, SocketAddr, TcpListener)>,
    ) -> Result<Self, ListenError> {
        let deadline = Instant::now() + BIND_PATIENCE;
        let sockets = specs.iter().map(|spec| {
            let refused = |source| ListenError { name: spec.name, address: spec.address, source };
            let fits = |(name, address, _): &(String, SocketAddr, TcpListener)| {
                name == spec.name && *address == spec.address
            };
            let socket = match inherited.iter().position(fits) {
                Some(position) => listen(inherited.swap_remove(position).2.into(), spec),
                None => bind_patiently(spec, deadline),
            };
            socket.map(|socket| (spec.name, spec.address, socket)).map_err(refused)
        });
        Ok(Self { sockets: sockets.collect::<Result<_, _>>()? })
    }

    /// Closes this process's copies. Workers keep theirs.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
    }

    /// Name, address and descriptor of each.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = (&'static str, SocketAddr, RawFd)> {
        self.sockets.iter().map(|(name, address, socket)| (*name, *address, socket.as_raw_fd()))
    }
}

fn bind_patiently(spec: &ListenerSpec, deadline: Instant) -> io::Result<TcpListener> {
    loop {
        match bind(spec) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(BIND_INTERVAL);
            }
            result => return result,
        }
    }
}

fn bind(spec: &ListenerSpec) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(spec.address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier run that linger in TIME_WAIT must not keep the address.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&spec.address.into())?;
    listen(socket, spec)
}

/// Also of a socket that listens already: its queue gets the plan's length.
fn listen(socket: Socket, spec: &ListenerSpec) -> io::Result<TcpListener> {
    socket.listen(i32::try_from(spec.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(address: SocketAddr) -> ListenerSpec {
        ListenerSpec { name: "http", address, backlog: 16 }
    }

    #[test]
    fn an_address_that_is_given_back_soon_is_waited_for() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let waiting = thread::spawn(move || Listeners::bind(&[spec(address)]).map(|_| ()));
        assert!(bind(&spec(address)).is_err());
        drop(holder);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn an_address_of_another_host_is_refused_by_name() {
        let error = Listeners::bind(&[spec("192.0.2.1:1".parse().unwrap())]).unwrap_err();
        assert_eq!(error.to_string(), "cannot listen on 192.0.2.1:1 for http");
    }
}
