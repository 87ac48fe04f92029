//! The sockets clients connect to. The agent binds them and HAProxy inherits them, so that connections wait
//! in the kernel's queue, and are not refused, while HAProxy is started again.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use crosstie_process::descriptor;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::render::{HTTP_VARIABLE, HTTPS_VARIABLE};
use crate::settings::LbSettings;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entrance {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Entrance {
    /// The environment variable by which HAProxy learns the socket's number.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Self::Http => HTTP_VARIABLE,
            Self::Https => HTTPS_VARIABLE,
        }
    }
}

/// The addresses that settings ask for.
#[must_use]
pub fn addresses(settings: &LbSettings) -> BTreeMap<Entrance, SocketAddr> {
    let wanted = [(Entrance::Http, settings.lb.http), (Entrance::Https, settings.lb.https)];
    wanted.into_iter().filter_map(|(entrance, address)| Some((entrance, address?))).collect()
}

/// Why a socket is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

impl ListenError {
    /// Whether somebody else listens there.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// A socket and its place in the table of HAProxy's descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// What it is for.
    pub entrance: Entrance,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its number.
    pub descriptor: i32,
}

/// The sockets this process holds.
#[derive(Debug, Default)]
pub struct Listening {
    sockets: BTreeMap<Entrance, (SocketAddr, OwnedFd)>,
}

impl Listening {
    /// Binds what `wanted` asks for and is not held yet, and lets go of what it does not ask for.
    ///
    /// # Errors
    /// An address that cannot be had; what was held before stays.
    pub fn bind(&mut self, wanted: &BTreeMap<Entrance, SocketAddr>, backlog: u16) -> Result<(), ListenError> {
        let mut bound = Vec::new();
        for (entrance, address) in wanted {
            if self.sockets.get(entrance).is_none_or(|(held, _)| held != address) {
                let socket =
                    listen(*address, backlog).map_err(|source| ListenError { address: *address, source })?;
                bound.push((*entrance, (*address, socket)));
            }
        }
        self.sockets.extend(bound);
        self.sockets.retain(|entrance, _| wanted.contains_key(entrance));
        Ok(())
    }

    /// Takes the sockets up from the process that has them as `passed` says, unless they are held already.
    /// Those that cannot be taken are bound when they are needed.
    pub fn take(&mut self, process: impl AsFd + Copy, passed: &[Passed]) {
        for socket in passed {
            if self.sockets.get(&socket.entrance).is_some_and(|(held, _)| *held == socket.address) {
                continue;
            }
            match take(process, socket) {
                Ok(taken) => {
                    self.sockets.insert(socket.entrance, (socket.address, taken));
                }
                Err(error) => {
                    tracing::info!(address = %socket.address, %error, "HAProxy's socket cannot be taken up");
                }
            }
        }
    }

    /// The sockets as a child process finds them.
    #[must_use]
    pub fn passed(&self) -> Vec<Passed> {
        let passed = |(entrance, (address, socket)): (&Entrance, &(SocketAddr, OwnedFd))| Passed {
            entrance: *entrance,
            address: *address,
            descriptor: socket.as_raw_fd(),
        };
        self.sockets.iter().map(passed).collect()
    }

    /// Stops listening at once, in every process that has the sockets: who connects from now on is refused
    /// and not left waiting.
    pub fn shut(&mut self) {
        for (address, socket) in std::mem::take(&mut self.sockets).into_values() {
            let shut = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
            if let Err(error) = shut {
                tracing::debug!(%address, %error, "a socket could not be shut");
            }
        }
    }
}

/// A listening socket that children inherit.
pub(crate) fn listen(address: SocketAddr, backlog: u16) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::from(backlog))?;
    socket.set_cloexec(false)?;
    Ok(socket.into())
}

fn take(process: impl AsFd, passed: &Passed) -> io::Result<OwnedFd> {
    let listener = TcpListener::from(descriptor::take(process, passed.descriptor)?);
    if listener.local_addr()? != passed.address {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is another socket"));
    }
    let socket = Socket::from(listener);
    socket.set_cloexec(false)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn only_what_changed_is_bound_anew() {
        let mut listening = Listening::default();
        let mut wanted = BTreeMap::from([(Entrance::Http, free())]);
        listening.bind(&wanted, 16).unwrap();
        let first = listening.passed();
        wanted.insert(Entrance::Https, free());
        listening.bind(&wanted, 16).unwrap();
        assert_eq!(listening.passed()[0], first[0]);
        assert_eq!(listening.passed().len(), 2);
        wanted.remove(&Entrance::Http);
        listening.bind(&wanted, 16).unwrap();
        assert_eq!(listening.passed().len(), 1);
    }

    #[test]
    fn an_address_that_is_taken_changes_nothing() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut listening = Listening::default();
        listening.bind(&BTreeMap::from([(Entrance::Http, free())]), 16).unwrap();
        let before = listening.passed();
        let taken = BTreeMap::from([(Entrance::Http, other.local_addr().unwrap())]);
        assert!(listening.bind(&taken, 16).unwrap_err().is_taken());
        assert_eq!(listening.passed(), before);
    }

    #[test]
    fn whoever_connects_to_a_shut_socket_is_refused() {
        let mut listening = Listening::default();
        let address = free();
        listening.bind(&BTreeMap::from([(Entrance::Http, address)]), 16).unwrap();
        let process = descriptor::of_process(std::process::id()).unwrap();
        let mut copy = Listening::default();
        copy.take(&process, &listening.passed());
        assert_eq!(copy.passed().len(), 1);
        listening.shut();
        assert!(std::net::TcpStream::connect(address).is_err(), "though the copy is still open");
    }
}
