//! The three pipes of a scratch process, fed and drained without blocking.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};

/// Bytes moved per pipe and round.
const ROUND: usize = 64 * 1024;

/// What flows between a scratch process and its caller.
pub(super) struct Pipes {
    stdin: Option<File>,
    /// What the process is to read, once that is known.
    input: Option<Vec<u8>>,
    written: usize,
    stdout: Sink,
    stderr: Sink,
    limit: usize,
}

struct Sink {
    pipe: Option<File>,
    bytes: Vec<u8>,
}

impl Pipes {
    /// Takes the pipes from `child`. Its standard input stays open and empty until [`Self::give`].
    pub(super) fn new(child: &mut Child, limit: usize) -> io::Result<Self> {
        let stdin = child.stdin.take().map(|pipe| unblocked(pipe.into())).transpose()?;
        let stdout = child.stdout.take().map(|pipe| unblocked(pipe.into())).transpose()?;
        let stderr = child.stderr.take().map(|pipe| unblocked(pipe.into())).transpose()?;
        let sink = |pipe| Sink { pipe, bytes: Vec::new() };
        Ok(Self { stdin, input: None, written: 0, stdout: sink(stdout), stderr: sink(stderr), limit })
    }

    /// Says what goes to standard input, which ends after it.
    pub(super) fn give(&mut self, input: Vec<u8>) {
        self.input = Some(input);
    }

    /// Adds the open pipes to what poll waits for.
    pub(super) fn watch<'a>(&'a self, watched: &mut Vec<PollFd<'a>>) {
        if let (Some(pipe), Some(_)) = (&self.stdin, &self.input) {
            watched.push(PollFd::new(pipe.as_fd(), PollFlags::POLLOUT));
        }
        for pipe in [&self.stdout.pipe, &self.stderr.pipe].into_iter().flatten() {
            watched.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        }
    }

    /// Moves what can be moved now; gives how many bytes arrived from the process.
    pub(super) fn transfer(&mut self) -> io::Result<usize> {
        self.feed()?;
        // One byte beyond the limit tells "too much" from "just enough".
        let arrived = self.stdout.drain(self.limit.saturating_add(1), Excess::Stop)?;
        Ok(arrived + self.stderr.drain(self.limit, Excess::Discard)?)
    }

    fn feed(&mut self) -> io::Result<()> {
        let (Some(pipe), Some(input)) = (&mut self.stdin, &self.input) else { return Ok(()) };
        let rest = input.get(self.written..).unwrap_or_default();
        match pipe.write(rest) {
            Ok(count) => self.written += count,
            Err(error) if would_wait(&error) => return Ok(()),
            // The process does not read all of its input; that is its affair.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.written = input.len(),
            Err(error) => return Err(error),
        }
        if self.written >= input.len() {
            self.stdin = None;
        }
        Ok(())
    }

    /// Whether standard output exceeded the limit.
    pub(super) fn too_large(&self) -> bool {
        self.stdout.bytes.len() > self.limit
    }

    /// Standard output and standard error.
    pub(super) fn into_output(self) -> (Vec<u8>, Vec<u8>) {
        (self.stdout.bytes, self.stderr.bytes)
    }
}

/// What happens to bytes beyond a sink's limit.
enum Excess {
    /// They stay in the pipe.
    Stop,
    /// They are read and dropped, so that the process does not stall on them.
    Discard,
}

impl Sink {
    fn drain(&mut self, limit: usize, excess: Excess) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipe else { return Ok(0) };
        let room = limit.saturating_sub(self.bytes.len());
        let wanted = match excess {
            Excess::Stop => room.min(ROUND),
            Excess::Discard => ROUND,
        };
        let mut piece = vec![0; wanted];
        match pipe.read(&mut piece) {
            Ok(0) if wanted > 0 => {
                self.pipe = None;
                Ok(0)
            }
            Ok(count) => {
                self.bytes.extend(piece.iter().take(count.min(room)));
                Ok(count)
            }
            Err(error) if would_wait(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

fn would_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn unblocked(pipe: OwnedFd) -> io::Result<File> {
    let flags = OFlag::from_bits_truncate(fcntl(&pipe, FcntlArg::F_GETFL)?);
    fcntl(&pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(File::from(pipe))
}
