//! When a change in the pickup directory is finished: a clock-free state machine the watcher drives.
//!
//! A writer that closes or renames says it is done, so its file is due after a short pause that lets the
//! events of one `cp` or `git checkout` fall together. A write without a close waits longer, and the reader
//! still asks the kernel whether somebody has the file open for writing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::layout::Candidate;

/// How long after a close or rename a candidate is due. Copying a package closes many files in a row.
const SETTLE: Duration = Duration::from_millis(15);

/// What an event said about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    /// Its writer closed it, or it was moved into place.
    Finished,
    /// It was created or written to, and its writer may go on.
    Ongoing,
}

/// Candidates that changed and when each is due.
#[derive(Debug)]
pub(crate) struct Debounce {
    pause: Duration,
    due: BTreeMap<Candidate, Instant>,
}

impl Debounce {
    /// `pause` is how long an unfinished file must be left alone.
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, due: BTreeMap::new() }
    }

    /// `candidate` was touched at `now`. For a file the last word counts; in a directory another file may
    /// still be written, so a close never shortens a pause that is running.
    pub(super) fn touch(&mut self, candidate: Candidate, touch: Touch, now: Instant) {
        let after = match touch {
            Touch::Finished => SETTLE.min(self.pause),
            Touch::Ongoing => self.pause,
        };
        self.due.insert(candidate, now + after);
    }

    /// Takes out what is due at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Candidate> {
        let due: Vec<_> =
            self.due.iter().filter(|(_, at)| **at <= now).map(|(found, _)| found.clone()).collect();
        for candidate in &due {
            self.due.remove(candidate);
        }
        due
    }

    /// When [`Debounce::take_due`] next has something; `None` while nothing waits.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::unit::ArtifactKind;

    fn hello() -> Candidate {
        Candidate { path: "hello.py".into(), unit: "hello".into(), kind: ArtifactKind::PythonFile }
    }

    #[test]
    fn a_closed_file_is_due_at_once_and_only_once() {
        let start = Instant::now();
        let mut debounce = Debounce::new(Duration::from_millis(100));
        debounce.touch(hello(), Touch::Ongoing, start);
        debounce.touch(hello(), Touch::Finished, start);
        assert!(debounce.take_due(start).is_empty());
        assert_eq!(debounce.next(), Some(start + SETTLE));
        assert_eq!(debounce.take_due(start + SETTLE), [hello()]);
        assert_eq!(debounce.next(), None);
    }

    #[test]
    fn a_file_written_slowly_waits_for_its_writer() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut debounce = Debounce::new(Duration::from_millis(100));
        for ms in [0, 80, 160, 240] {
            debounce.touch(hello(), Touch::Ongoing, at(ms));
            assert!(debounce.take_due(at(ms + 79)).is_empty());
        }
        debounce.touch(hello(), Touch::Finished, at(320));
        assert_eq!(debounce.take_due(at(320) + SETTLE), [hello()]);
    }
}
