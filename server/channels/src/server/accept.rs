//! The accept loop of one listener. It never ends before draining begins: no error of accept(2) stops it, a
//! handshake never runs inside it, and while this worker holds more than its share it leaves connections in
//! the kernel's queue for its siblings.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::connection::carry;
use super::tracking::ConnectionState;
use super::{Shared, Transport};
use crate::client_address::Neighbour;

/// First pause while this worker may not accept; doubles up to [`LONGEST_PAUSE`]. Other workers' figures
/// change without notice, so they have to be asked; at 40 ms that costs 25 cheap wake-ups a second, and only
/// in a worker that is above its share.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(40);
/// Pause after an error that only others can mend (no descriptors, no memory).
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until draining begins.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, transport: Transport) {
    let mut stop = pin!(shared.stop.notified());
    // Registered before the flag is read, so that a drain in between is not missed.
    stop.as_mut().enable();
    let mut short = false;
    while !shared.connections.is_draining() {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return,
            accepted = next(&shared, &listener) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                short = false;
                let guard = Guard::enter(&shared, Neighbour::behind(&transport));
                let (shared, transport) = (Arc::clone(&shared), transport.clone());
                tokio::spawn(async move {
                    carry(shared, transport, stream, peer, Arc::clone(&guard.state)).await;
                    drop(guard);
                });
                // Siblings on the same queue get a turn before this worker takes the next.
                tokio::task::yield_now().await;
            }
            Err(error) if is_shortage(&error) => {
                if !short {
                    tracing::warn!(%error, "cannot accept connections now; trying again");
                }
                short = true;
                tokio::time::sleep(SHORTAGE_PAUSE).await;
            }
            // The peer gave up in the queue, or a packet was refused: the next one may be fine.
            Err(error) => tracing::debug!(%error, "a connection was lost before it was accepted"),
        }
    }
}

async fn next(
    shared: &Shared,
    listener: &TcpListener,
) -> io::Result<(tokio::net::TcpStream, std::net::SocketAddr)> {
    let mut pause = FIRST_PAUSE;
    loop {
        let ended = shared.connections.ended.notified();
        let limit = shared.routes.load().limits().max_connections;
        let full = shared.connections.open() >= limit;
        if !full && shared.share.may_accept() {
            break;
        }
        // Its own connections' ends are announced; a full worker needs nothing else.
        if full {
            ended.await;
        } else {
            let _ = tokio::time::timeout(pause, ended).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    listener.accept().await
}

/// No descriptors (EMFILE, ENFILE) or no memory (ENOBUFS, ENOMEM): retrying at once would only spin.
fn is_shortage(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}

/// A connection's place in the accounts, given back however its task ends.
struct Guard {
    shared: Arc<Shared>,
    state: Arc<ConnectionState>,
}

impl Guard {
    fn enter(shared: &Arc<Shared>, neighbour: Neighbour) -> Self {
        shared.share.opened();
        Self { shared: Arc::clone(shared), state: shared.connections.enter(neighbour) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.share.closed();
        self.state.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_descriptors_is_a_shortage_and_a_lost_peer_is_not() {
        assert!(is_shortage(&io::Error::from_raw_os_error(24)));
        assert!(!is_shortage(&io::Error::from_raw_os_error(103)));
    }
}
