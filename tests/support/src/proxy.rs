//! A wire that can be cut: a TCP relay between a server and something it depends on.
//!
//! A cut wire neither carries nor refuses anything, as when a switch between two hosts fails: what was sent
//! stays unanswered, and connections that are made hang. Healing lets the bytes that waited go on, or those of
//! new connections.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How often a relay looks whether its wire is cut.
const LOOK: Duration = Duration::from_millis(10);

/// A relay to one address.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    cut: AtomicBool,
    gone: AtomicBool,
}

impl Wire {
    /// A wire to `target`, whole.
    ///
    /// # Errors
    /// No port is free.
    pub fn to(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a wire")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State { target, cut: AtomicBool::new(false), gone: AtomicBool::new(false) });
        let relaying = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if relaying.gone.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&relaying);
                std::thread::spawn(move || state.carry(&stream));
            }
        });
        Ok(Self { address, state })
    }

    /// Where the near end is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it: from now on nothing passes, in either direction, and nothing is told.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::Relaxed);
    }

    /// Mends it.
    pub fn heal(&self) {
        self.state.cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.gone.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl State {
    fn carry(self: &Arc<Self>, near: &TcpStream) {
        self.wait_while_cut();
        let Ok(far) = TcpStream::connect(self.target) else { return };
        let (Ok(near_again), Ok(far_again)) = (near.try_clone(), far.try_clone()) else { return };
        let state = Arc::clone(self);
        let back = std::thread::spawn(move || state.copy(far_again, near_again));
        if let Ok(near) = near.try_clone() {
            self.copy(near, far);
        }
        // A relay that panicked has nothing left to carry.
        let _ = back.join();
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        if from.set_read_timeout(Some(LOOK)).is_err() {
            return;
        }
        let mut piece = [0u8; 16 * 1024];
        while !self.gone.load(Ordering::Relaxed) {
            self.wait_while_cut();
            match from.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    // What arrived while the wire was being cut stays on this side of it.
                    self.wait_while_cut();
                    if to.write_all(piece.get(..count).unwrap_or_default()).is_err() {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        self.wait_while_cut();
        // The other side may be gone already.
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = from.shutdown(std::net::Shutdown::Both);
    }

    fn wait_while_cut(&self) {
        while self.cut.load(Ordering::Relaxed) && !self.gone.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_wire_is_silent_and_a_mended_one_carries_what_waited() {
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wire = Wire::to(echo.local_addr().unwrap()).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = echo.accept().unwrap();
            let mut piece = [0u8; 16];
            while let Ok(count @ 1..) = stream.read(&mut piece) {
                stream.write_all(&piece[..count]).unwrap();
            }
        });
        let mut stream = TcpStream::connect(wire.address()).unwrap();
        let mut answer = [0u8; 3];
        stream.write_all(b"one").unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"one");
        wire.cut();
        std::thread::sleep(LOOK * 3);
        stream.write_all(b"two").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(stream.read(&mut answer).is_err());
        wire.heal();
        stream.set_read_timeout(None).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"two");
    }
}
