//! The systemd notify protocol (sd_notify(3)): datagrams to the socket that `NOTIFY_SOCKET` names. Without
//! that variable nothing is sent; a failure to send is never the server's problem.

use std::env;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::clock;

/// Environment variables of the protocol; workers do not inherit them.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", WATCHDOG_PID];
/// Names the one process that signs of life are wanted of; without it any that the manager listens to.
pub(super) const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The service manager, if there is one.
pub(super) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often the manager wants a sign of life, and when the next one is due.
    watchdog: Option<(Duration, Instant)>,
}

impl Notifier {
    /// Reads the environment.
    pub(super) fn from_environment(now: Instant) -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = address(&name)?;
            let socket = UnixDatagram::unbound().ok()?;
            // The manager may be slow; a sign of life is not worth waiting for.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number(WATCHDOG_PID).is_none_or(|pid| pid == u64::from(std::process::id()));
        // Half the interval, as sd_watchdog_enabled(3) advises.
        let interval = number("WATCHDOG_USEC").filter(|_| ours).map(|us| Duration::from_micros(us / 2));
        let watchdog = interval.filter(|interval| !interval.is_zero()).map(|interval| (interval, now));
        Self { socket, watchdog }
    }

    /// Start-up, or a reload, is finished.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// A reload begins. `Type=notify-reload` demands the time.
    pub(super) fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_ns() / 1_000));
    }

    /// The server stops.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    /// Another process is the server from now on. Nothing is sent after this: the manager would not listen.
    pub(super) fn succeeded_by(&mut self, pid: u32) {
        self.send(&format!("MAINPID={pid}\nREADY=1"));
        self.socket = None;
        self.watchdog = None;
    }

    /// What the manager shows.
    pub(super) fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// Gives a sign of life when one is due.
    pub(super) fn alive(&mut self, now: Instant) {
        if let Some((interval, due)) = self.watchdog
            && due <= now
        {
            self.watchdog = Some((interval, now + interval));
            self.send("WATCHDOG=1");
        }
    }

    /// When the next sign of life is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.watchdog.map(|(_, due)| due)
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

/// A path, or with a leading `@` a name in the abstract namespace.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes().split_first()? {
        (b'/', _) => SocketAddr::from_pathname(name).ok(),
        (b'@', rest) => SocketAddr::from_abstract_name(rest).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_and_abstract_names_are_addresses() {
        assert!(address(OsStr::new("/run/systemd/notify")).unwrap().as_pathname().is_some());
        assert_eq!(address(OsStr::new("@manager")).unwrap().as_abstract_name(), Some(&b"manager"[..]));
        assert!(address(OsStr::new("relative")).is_none() && address(OsStr::new("")).is_none());
    }

    #[test]
    fn messages_reach_the_manager_and_signs_of_life_keep_their_interval() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let receive = || {
            let mut text = [0; 200];
            let count = manager.recv(&mut text).unwrap();
            String::from_utf8_lossy(&text[..count]).into_owned()
        };
        let now = Instant::now();
        let socket = (UnixDatagram::unbound().unwrap(), address(path.as_os_str()).unwrap());
        let interval = Duration::from_secs(5);
        let mut notifier = Notifier { socket: Some(socket), watchdog: Some((interval, now)) };
        notifier.ready("2 of 2 workers serve");
        assert_eq!(receive(), "READY=1\nSTATUS=2 of 2 workers serve");
        notifier.reloading();
        assert!(receive().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        notifier.alive(now);
        notifier.alive(now + interval / 2);
        notifier.stopping();
        assert_eq!((receive(), receive()), ("WATCHDOG=1".into(), "STOPPING=1\nSTATUS=draining".into()));
        assert_eq!(notifier.next_due(), Some(now + interval));
        notifier.succeeded_by(7);
        assert_eq!((receive(), notifier.next_due()), ("MAINPID=7\nREADY=1".into(), None));
    }

    #[test]
    fn a_manager_that_is_gone_is_no_failure() {
        let socket = (UnixDatagram::unbound().unwrap(), address(OsStr::new("/nonexistent")).unwrap());
        Notifier { socket: Some(socket), watchdog: None }.status("x");
    }
}
