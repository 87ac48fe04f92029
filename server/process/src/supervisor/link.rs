//! The supervisor's end of one channel, to a worker or to the other supervisor of an upgrade: two bounded
//! buffers around a non-blocking socket.
//!
//! A child may send anything, fast or slowly, and may stop reading. A turn of the loop takes at most one
//! piece from each channel, so none starves the others; events for a worker that does not read are dropped
//! once its outbox is full (a lost event costs its worker one comparison of revisions), while `Start` and
//! `Drain` are always queued, being few and small.

use std::io::{self, Read as _, Write as _};
use std::marker::PhantomData;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use bytes::{Buf, BytesMut};
use nix::poll::{PollFd, PollFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::control::{self, FrameError, MAX_FRAME_BYTES, ToSupervisor, ToWorker};

/// Bytes taken from a channel per turn.
const PIECE_BYTES: usize = 64 * 1024;
/// Events wait in the outbox only up to this many bytes.
const OUTBOX_BYTES: usize = 2 * MAX_FRAME_BYTES;

/// What can be sent over a link.
pub(super) trait Message: Serialize {
    /// Whether the other end comes to no harm when it misses this one.
    fn is_droppable(&self) -> bool;
}

impl Message for ToWorker {
    fn is_droppable(&self) -> bool {
        matches!(self, Self::Event(_))
    }
}

/// The control channel of a worker.
pub(super) type WorkerLink = Link<ToSupervisor, ToWorker>;

/// One channel, on which `In` is heard and `Out` is said.
#[derive(Debug)]
pub(super) struct Link<In, Out> {
    speaks: PhantomData<fn(Out) -> In>,
    socket: UnixStream,
    inbox: BytesMut,
    outbox: BytesMut,
    state: LinkState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Open,
    Closed,
}

/// What one turn brought from a channel.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing to read, or not yet.
    Quiet,
    /// Bytes; there may be more.
    Something,
    /// The worker closed its end. Said once.
    End,
}

/// Whether a message was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    /// It was.
    Yes,
    /// The worker does not read; the event is lost to it.
    Dropped,
    /// The channel is closed.
    Closed,
}

impl<In: DeserializeOwned, Out: Message> Link<In, Out> {
    /// Takes over the supervisor's end of a socket pair.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (inbox, outbox) = (BytesMut::new(), BytesMut::new());
        Ok(Self { speaks: PhantomData, socket, inbox, outbox, state: LinkState::Open })
    }

    /// What `poll` is to wait for, while there is anything to be expected.
    pub(super) fn interest(&self) -> Option<PollFd<'_>> {
        let outgoing = if self.has_outgoing() { PollFlags::POLLOUT } else { PollFlags::empty() };
        (self.state == LinkState::Open)
            .then(|| PollFd::new(self.socket.as_fd(), PollFlags::POLLIN | outgoing))
    }

    /// Whether messages wait to be written.
    fn has_outgoing(&self) -> bool {
        self.state == LinkState::Open && !self.outbox.is_empty()
    }

    /// Reads one piece of what the worker sent.
    pub(super) fn read(&mut self) -> Heard {
        if self.state == LinkState::Closed {
            return Heard::Quiet;
        }
        let before = self.inbox.len();
        self.inbox.resize(before + PIECE_BYTES, 0);
        let space = self.inbox.get_mut(before..).unwrap_or_default();
        let result = self.socket.read(space);
        self.inbox.truncate(before + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(0) => self.close(),
            Ok(_) => Heard::Something,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Heard::Quiet
            }
            Err(_) => self.close(),
        }
    }

    fn close(&mut self) -> Heard {
        self.state = LinkState::Closed;
        self.outbox.clear();
        Heard::End
    }

    /// Ends the conversation with a worker that cannot be understood.
    pub(super) fn shut(&mut self) {
        self.close();
        self.inbox.clear();
    }

    /// The next message among the bytes read.
    pub(super) fn next_message(&mut self) -> Result<Option<In>, FrameError> {
        control::decode(&mut self.inbox)
    }

    /// Queues `message` and writes what the socket takes now.
    pub(super) fn send(&mut self, message: &Out) -> Result<Queued, FrameError> {
        if self.state == LinkState::Closed {
            return Ok(Queued::Closed);
        }
        let frame = control::encode(message)?;
        if message.is_droppable() && self.outbox.len() + frame.len() > OUTBOX_BYTES {
            return Ok(Queued::Dropped);
        }
        self.outbox.extend_from_slice(&frame);
        self.flush();
        Ok(Queued::Yes)
    }

    /// Writes what the socket takes now. A failure shows as the end of the channel when it is read.
    pub(super) fn flush(&mut self) {
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(count) if count > 0 => self.outbox.advance(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The reader went away: its bytes to us may still be unread, so only the outbox ends here.
                Ok(_) | Err(_) => self.outbox.clear(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crosstie_model::event::Event;

    use super::*;

    fn pair() -> (WorkerLink, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::new(ours).unwrap(), theirs)
    }

    #[test]
    fn what_a_worker_said_before_it_died_is_heard_before_its_end() {
        let (mut link, mut worker) = pair();
        worker.write_all(&control::encode(&ToSupervisor::Drained).unwrap()).unwrap();
        drop(worker);
        assert!(matches!(link.read(), Heard::Something));
        assert_eq!(link.next_message().unwrap(), Some(ToSupervisor::Drained));
        assert!(matches!(link.read(), Heard::End));
        assert!(matches!(link.read(), Heard::Quiet));
        assert_eq!(link.send(&ToWorker::Drain { deadline_ms: 1 }).unwrap(), Queued::Closed);
    }

    #[test]
    fn a_worker_that_does_not_read_loses_events_but_not_its_drain() {
        let (mut link, worker) = pair();
        let event = ToWorker::Event(Event::CertificatesChanged);
        while link.send(&event).unwrap() == Queued::Yes {
            assert!(link.outbox.len() <= OUTBOX_BYTES);
        }
        assert_eq!(link.send(&ToWorker::Drain { deadline_ms: 1 }).unwrap(), Queued::Yes);
        worker.set_nonblocking(true).unwrap();
        let (mut received, mut last) = (BytesMut::new(), None);
        while last != Some(ToWorker::Drain { deadline_ms: 1 }) {
            let mut piece = vec![0; 65536];
            let count = (&worker).read(&mut piece).unwrap();
            received.extend_from_slice(&piece[..count]);
            link.flush();
            while let Some(message) = control::decode(&mut received).unwrap() {
                last = Some(message);
            }
        }
        assert!(!link.has_outgoing());
    }

    #[test]
    fn a_worker_that_went_away_ends_the_writing_quietly() {
        let (mut link, worker) = pair();
        drop(worker);
        link.send(&ToWorker::Drain { deadline_ms: 1 }).unwrap();
        assert!(!link.has_outgoing());
        assert!(matches!(link.read(), Heard::End));
    }
}
