//! The worker's end of the control channel, on tokio.
//!
//! Reading and writing may be cancelled at any await: what was read stays in the reader's buffer, and a
//! frame is queued whole before its first byte is written, so a dropped `send` never cuts a frame in two.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BytesMut};
use tokio::net::UnixStream;

use super::frame::{self, FrameError};
use super::{ToSupervisor, ToWorker};

const READ_BYTES: usize = 16 * 1024;

/// Why the control channel is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket failed.
    #[error("the control channel failed")]
    Socket(#[from] io::Error),
    /// The supervisor sent something that is no message, or ours is too long.
    #[error("the control channel carried a bad frame")]
    Frame(#[from] FrameError),
    /// The channel ended in the middle of a frame.
    #[error("the control channel ended within a frame")]
    CutOff,
}

/// A worker's end of the control channel, not yet in use.
#[derive(Debug)]
pub struct ControlStream {
    stream: StdUnixStream,
}

impl ControlStream {
    /// Takes over a connected stream. It becomes non-blocking when split.
    #[must_use]
    pub fn new(stream: StdUnixStream) -> Self {
        Self { stream }
    }

    /// The two halves, registered with the tokio runtime of the calling thread.
    ///
    /// # Errors
    /// There is no runtime here, or it cannot take the socket.
    pub fn split(self) -> io::Result<(ControlReader, ControlWriter)> {
        self.stream.set_nonblocking(true)?;
        let stream = Arc::new(UnixStream::from_std(self.stream)?);
        let reader = ControlReader { stream: Arc::clone(&stream), buffer: BytesMut::new() };
        Ok((reader, ControlWriter { stream, outbox: Arc::default() }))
    }

    /// Sends one message, waiting for room in the socket. For the first message, before a runtime exists.
    ///
    /// # Errors
    /// The socket failed.
    pub(crate) fn send_now(&mut self, message: &ToSupervisor) -> Result<(), ControlError> {
        use std::io::Write as _;
        let frame = frame::encode(message)?;
        self.stream.set_nonblocking(false)?;
        self.stream.write_all(&frame)?;
        Ok(())
    }
}

/// The half that hears the supervisor.
#[derive(Debug)]
pub struct ControlReader {
    stream: Arc<UnixStream>,
    buffer: BytesMut,
}

impl ControlReader {
    /// The next message; `None` when the supervisor closed the channel or died, which means: drain.
    /// Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The socket failed or carried no frame; the channel is of no more use.
    pub async fn next(&mut self) -> Result<Option<ToWorker>, ControlError> {
        loop {
            if let Some(message) = frame::decode(&mut self.buffer)? {
                return Ok(Some(message));
            }
            self.stream.readable().await?;
            self.buffer.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(ControlError::CutOff),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A supervisor that was killed with our bytes unread resets the channel instead of ending it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Frames queued and not yet written. `end` and `written` count bytes since the channel was opened.
#[derive(Debug, Default)]
struct Outbox {
    bytes: BytesMut,
    end: u64,
    written: u64,
}

/// The half that speaks to the supervisor. Clones share one ordered queue.
#[derive(Debug, Clone)]
pub struct ControlWriter {
    stream: Arc<UnixStream>,
    outbox: Arc<Mutex<Outbox>>,
}

impl ControlWriter {
    /// Sends `message` after everything queued before it, and returns when the kernel has all of it. A
    /// message whose future was dropped goes out with the next one.
    ///
    /// # Errors
    /// The supervisor is gone, or the message exceeds the frame limit.
    pub async fn send(&self, message: &ToSupervisor) -> Result<(), ControlError> {
        let end = self.queue(&frame::encode(message)?);
        loop {
            if self.write_some()? >= end {
                return Ok(());
            }
            self.stream.writable().await?;
        }
    }

    fn queue(&self, frame: &[u8]) -> u64 {
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.bytes.extend_from_slice(frame);
        outbox.end += frame.len() as u64;
        outbox.end
    }

    /// Writes what the socket takes now; gives how far the channel has been written.
    fn write_some(&self) -> io::Result<u64> {
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        while !outbox.bytes.is_empty() {
            match self.stream.try_write(&outbox.bytes) {
                Ok(count) => {
                    outbox.bytes.advance(count);
                    outbox.written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(outbox.written)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::time::Duration;

    use crosstie_model::event::Event;
    use crosstie_model::names::Revision;

    use super::*;

    fn on_runtime<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_closed_channel_reads_as_the_end() {
        let (mut ours, theirs) = StdUnixStream::pair().unwrap();
        ours.write_all(&frame::encode(&ToWorker::Drain { deadline_ms: 5 }).unwrap()).unwrap();
        drop(ours);
        on_runtime(async {
            let (mut reader, _writer) = ControlStream::new(theirs).split().unwrap();
            assert_eq!(reader.next().await.unwrap(), Some(ToWorker::Drain { deadline_ms: 5 }));
            assert_eq!(reader.next().await.unwrap(), None);
        });
    }

    #[test]
    fn a_channel_cut_within_a_frame_is_an_error() {
        let (mut ours, theirs) = StdUnixStream::pair().unwrap();
        ours.write_all(&[0, 0, 0, 50, 1]).unwrap();
        drop(ours);
        on_runtime(async {
            let (mut reader, _writer) = ControlStream::new(theirs).split().unwrap();
            assert!(matches!(reader.next().await, Err(ControlError::CutOff)));
        });
    }

    #[test]
    fn a_send_that_was_dropped_midway_leaves_whole_frames_in_order() {
        let (mut ours, theirs) = StdUnixStream::pair().unwrap();
        let message = |n: u64| ToSupervisor::Replace { reason: format!("{n}{}", "x".repeat(700_000)) };
        let reader = std::thread::spawn(move || {
            let mut wire = BytesMut::new();
            let mut piece = vec![0; 65536];
            let mut received = Vec::new();
            while received.len() < 4 {
                while let Some(message) = frame::decode::<ToSupervisor>(&mut wire).unwrap() {
                    received.push(message);
                }
                if received.len() < 4 {
                    let count = ours.read(&mut piece).unwrap();
                    wire.extend_from_slice(&piece[..count]);
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            received
        });
        on_runtime(async {
            let (_reader, writer) = ControlStream::new(theirs).split().unwrap();
            for n in 0..3 {
                let _cancelled =
                    tokio::time::timeout(Duration::from_millis(1), writer.send(&message(n))).await;
            }
            let last = ToSupervisor::Event(Event::RevisionChanged { revision: Revision(1) });
            writer.send(&last).await.unwrap();
        });
        let received = reader.join().unwrap();
        assert_eq!(received[0], message(0));
        assert_eq!(received[2], message(2));
    }
}
