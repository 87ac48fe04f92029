//! Segments on disk: `START-WORKER-PID.messages`, named after when they were begun, so that names sort by age.
//!
//! A process appends to segments of its own alone, and never to one that it did not begin: the torn end of a
//! writer that was killed stays where it is, and readers end there. Segments are deleted whole, the oldest first,
//! by whoever sees that there are too many.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crosstie_model::settings::MessageLogSection;

use super::format::MAGIC;

/// The directory of segments, below a server's log directory.
pub const DIRECTORY: &str = "messages";
const EXTENSION: &str = "messages";
/// Messages are for the server's user alone.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// Into how many segments the disk space and the time are divided at least: so much finer is what is deleted.
const DIVISIONS: u32 = 8;
/// Largest segment, in bytes.
const MAX_SEGMENT: u64 = 64 * 1024 * 1024;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    max_bytes: u64,
    max_age: Duration,
    writers: u64,
}

impl Limits {
    /// What `[message_log]` says, for a server of so many workers.
    #[must_use]
    pub fn new(settings: &MessageLogSection, workers: u16) -> Self {
        let max_age = Duration::from_secs(settings.max_age_h.saturating_mul(3_600));
        let max_bytes = settings.max_mib.saturating_mul(1024 * 1024);
        Self { max_bytes, max_age, writers: u64::from(workers.max(1)) }
    }

    #[cfg(test)]
    pub(super) fn exact(max_bytes: u64, writers: u64, max_age: Duration) -> Self {
        Self { max_bytes, max_age, writers }
    }

    /// The last division of the disk space is what all workers are writing just then.
    fn segment_bytes(self) -> u64 {
        (self.max_bytes / u64::from(DIVISIONS) / self.writers).min(MAX_SEGMENT)
    }

    fn segment_age(self) -> Duration {
        self.max_age / DIVISIONS
    }
}

/// Appends to segments of this process.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    directory: PathBuf,
    worker: u16,
    limits: Limits,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
    begun: Instant,
}

impl SegmentWriter {
    pub(super) fn new(directory: PathBuf, worker: u16, limits: Limits) -> Self {
        Self { directory, worker, limits, open: None }
    }

    /// Appends whole frames, in a new segment where the old one is full, old or gone. What could not be written to
    /// its end is taken back, so that it can be tried again.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        let added = frames.len() as u64;
        drop(self.open.take_if(|open| open.is_done(added, self.limits)));
        if self.open.is_none()
            && let Err(error) = make_room(&self.directory, self.limits, added)
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "old segments of the message log cannot be deleted");
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(begin(&self.directory, self.worker)?),
        };
        match open.file.write_all(frames) {
            Ok(()) => {
                open.length += added;
                Ok(())
            }
            Err(error) => {
                use std::io::Seek as _;
                let length = open.length;
                let undone =
                    open.file.set_len(length).and_then(|()| open.file.seek(io::SeekFrom::Start(length)));
                if undone.is_err() {
                    // Its end is torn, which readers know how to take.
                    self.open = None;
                }
                Err(error)
            }
        }
    }
}

impl Open {
    /// Whether the next frames go into another segment.
    fn is_done(&self, added: u64, limits: Limits) -> bool {
        let is_full = self.length > MAGIC.len() as u64 && self.length + added > limits.segment_bytes();
        // One that is old may be deleted any time, and one that was deleted keeps nothing.
        let is_gone = || self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        is_full || self.begun.elapsed() >= limits.segment_age() || is_gone()
    }
}

fn begin(directory: &Path, worker: u16) -> io::Result<Open> {
    std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let name = format!("{now:020}-{worker:03}-{}.{EXTENSION}", std::process::id());
    let path = directory.join(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(&MAGIC)?;
    Ok(Open { file, length: MAGIC.len() as u64, begun: Instant::now() })
}

/// A segment, as its directory shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) length: u64,
    /// When it was last written to, in microseconds since 1970: no message in it began later.
    pub(super) modified: u64,
}

/// All segments, oldest first; none where nothing was ever written.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<Segment>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if !is_segment(&path) {
            continue;
        }
        // Another process may delete it meanwhile.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let modified = u64::try_from(modified).unwrap_or(u64::MAX);
        found.push(Segment { path, length: metadata.len(), modified });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(&format!(".{EXTENSION}")).unwrap_or_default();
    let parts: Vec<_> = stem.split('-').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    parts.len() == 3 && parts.iter().all(is_number)
}

/// Deletes the segments that are too old, and the oldest of too many.
///
/// # Errors
/// The directory cannot be read, or a segment not be deleted.
pub fn prune(directory: &Path, limits: Limits) -> io::Result<()> {
    make_room(directory, limits, 0)
}

/// The same, so that `next` bytes have room, which may be more than a segment should have: messages are not
/// divided.
fn make_room(directory: &Path, limits: Limits, next: u64) -> io::Result<()> {
    let segments = segments(directory)?;
    let mut total: u64 = segments.iter().map(|segment| segment.length).sum();
    let oldest = SystemTime::now().checked_sub(limits.max_age).unwrap_or(UNIX_EPOCH);
    let oldest = oldest.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    // Leaves room for what the writers append until the next time; any of them may be where this one is.
    let room = limits.segment_bytes().max(next).saturating_mul(limits.writers);
    let most = limits.max_bytes.saturating_sub(room);
    for segment in &segments {
        if total <= most && u128::from(segment.modified) >= oldest {
            continue;
        }
        match std::fs::remove_file(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => total = total.saturating_sub(segment.length),
        }
    }
    Ok(())
}
