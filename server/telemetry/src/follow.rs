//! Reading logs that are being written: what `crosstie logs` and `crosstie logs -f` show.
//!
//! A follower reads whole lines in order and survives rotation: it keeps the file it reads open, reads it to
//! its end when it has been renamed, then every file rotated since, then the new one. It does no waiting of
//! its own; the caller polls as often as it likes (a poll without news costs two system calls).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crosstie_model::settings::LogLevel;
use serde::Deserialize;

use crate::files::rotated_files;
use crate::record::LogRecord;

/// How long a rotated file is still read: a writer that raced with the rotation may append to it.
const AFTERGLOW: Duration = Duration::from_secs(2);
/// Longest line kept; the rest of a longer one is skipped. Records are bounded far below this.
const MAX_LINE: usize = 1024 * 1024;

/// Which lines are wanted; all that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// This severity or worse. Lines without one, such as those of the access log, count as info.
    pub level: Option<LogLevel>,
    /// Of this service.
    pub service: Option<String>,
    /// Of this message.
    pub cid: Option<String>,
}

/// What a filter looks at, in the lines of either log.
#[derive(Deserialize)]
struct Marks {
    level: Option<LogLevel>,
    service: Option<String>,
    cid: Option<String>,
}

impl LogFilter {
    /// Whether a line of a log, JSON or text, is wanted. Costs one parse, none if nothing is set.
    #[must_use]
    pub fn matches(&self, line: &str) -> bool {
        if *self == Self::default() {
            return true;
        }
        // Cheaper than a parse, and true of nearly all lines in a search for one cid.
        let mentions =
            |wanted: &Option<String>| wanted.as_ref().is_none_or(|text| line.contains(text.as_str()));
        if !mentions(&self.service) || !mentions(&self.cid) {
            return false;
        }
        let marks = if line.starts_with('{') {
            serde_json::from_str(line).ok()
        } else {
            LogRecord::parse(line).map(|record| Marks {
                level: Some(record.level),
                service: record.service,
                cid: record.cid,
            })
        };
        let Some(marks) = marks else { return false };
        self.level.is_none_or(|least| marks.level.unwrap_or(LogLevel::Info) >= least)
            && (self.service.is_none() || self.service == marks.service)
            && (self.cid.is_none() || self.cid == marks.cid)
    }
}

/// Where a follower begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest line there is, rotated files included.
    Beginning,
    /// With the last so many lines that the filter wants.
    Last(usize),
}

/// Reads one log and goes on reading it.
#[derive(Debug)]
pub struct LogFollower {
    path: PathBuf,
    filter: LogFilter,
    current: Option<Source>,
    /// Rotated files that are still watched, with the time until which.
    rotated: Vec<(Source, Instant)>,
    /// The rotated file with the newest name that was read, or was there at the start.
    newest_seen: Option<PathBuf>,
    /// Lines found when the follower was made.
    backlog: Vec<String>,
}

/// A file being read.
#[derive(Debug)]
struct Source {
    reader: BufReader<File>,
    identity: (u64, u64),
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl LogFollower {
    /// Reads the log at `path` from `start` on. A log that does not exist yet is waited for.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn open(path: PathBuf, start: Start, filter: LogFilter) -> io::Result<Self> {
        let mut follower =
            Self { path, filter, current: None, rotated: Vec::new(), newest_seen: None, backlog: Vec::new() };
        // Newest first, so that the last few lines are found without reading everything.
        let mut found: VecDeque<Vec<String>> = VecDeque::new();
        let mut wanted = match start {
            Start::Beginning => usize::MAX,
            Start::Last(count) => count,
        };
        let mut newest = Source::open(&follower.path)?;
        if let Some(source) = &mut newest {
            let lines = follower.last_lines(source, wanted)?;
            wanted = wanted.saturating_sub(lines.len());
            found.push_front(lines);
        }
        follower.current = newest;
        let rotated = older(&follower.path)?;
        follower.newest_seen = rotated.last().cloned();
        for path in rotated.into_iter().rev() {
            if wanted == 0 {
                break;
            }
            let Some(mut source) = Source::open(&path)? else { continue };
            if follower.current.as_ref().is_some_and(|current| current.identity == source.identity) {
                // Rotated between the two looks.
                continue;
            }
            let lines = follower.last_lines(&mut source, wanted)?;
            wanted = wanted.saturating_sub(lines.len());
            found.push_front(lines);
        }
        follower.backlog = found.into_iter().flatten().collect();
        Ok(follower)
    }

    /// The wanted lines written since the last call, in order, without their line ends. Also finds rotations.
    ///
    /// # Errors
    /// A file cannot be read; the next call tries again where this one stopped.
    pub fn poll(&mut self) -> io::Result<Vec<String>> {
        self.poll_at(Instant::now())
    }

    fn poll_at(&mut self, now: Instant) -> io::Result<Vec<String>> {
        let mut lines = std::mem::take(&mut self.backlog);
        let filter = &self.filter;
        for (source, _) in &mut self.rotated {
            source.read_lines(|line| keep(filter, line, &mut lines))?;
        }
        self.rotated.retain(|(_, until)| now < *until);
        let here = identity_of(&self.path)?;
        if let Some(current) = &mut self.current {
            // Looked at before reading: a file that was still in place then is read to an end that no
            // later file precedes.
            current.read_lines(|line| keep(filter, line, &mut lines))?;
            if here == Some(current.identity) {
                return Ok(lines);
            }
        }
        if here.is_some() {
            self.follow_rotation(now, &mut lines)?;
        }
        Ok(lines)
    }

    /// The log was rotated: reads every file since, oldest first, and takes up the new one.
    fn follow_rotation(&mut self, now: Instant, lines: &mut Vec<String>) -> io::Result<()> {
        // The new file is opened before the old ones are listed, so that none can slip in between; if it was
        // itself rotated by then, it is among them and the next poll finds its successor.
        let Some(mut fresh) = Source::open(&self.path)? else { return Ok(()) };
        let mut since = Vec::new();
        for path in older(&self.path)? {
            if self.newest_seen.as_ref().is_some_and(|seen| path <= *seen) {
                continue;
            }
            if let Some(source) = Source::open(&path)? {
                if source.identity == fresh.identity {
                    return Ok(());
                }
                since.push((path, source));
            }
        }
        let known = self.current.as_ref().map(|current| current.identity);
        for (path, mut source) in since {
            self.newest_seen = Some(path);
            if Some(source.identity) != known {
                source.read_lines(|line| keep(&self.filter, line, lines))?;
                self.rotated.push((source, now + AFTERGLOW));
            }
        }
        fresh.read_lines(|line| keep(&self.filter, line, lines))?;
        if let Some(old) = self.current.replace(fresh) {
            self.rotated.push((old, now + AFTERGLOW));
        }
        Ok(())
    }

    /// The last `count` wanted lines of `source`, read to its present end.
    fn last_lines(&self, source: &mut Source, count: usize) -> io::Result<Vec<String>> {
        if count == 0 {
            source.skip_to_end()?;
            return Ok(Vec::new());
        }
        let mut last = VecDeque::new();
        source.read_lines(|line| {
            if self.filter.matches(&line) {
                if last.len() == count {
                    last.pop_front();
                }
                last.push_back(line);
            }
        })?;
        Ok(last.into())
    }
}

fn keep(filter: &LogFilter, line: String, lines: &mut Vec<String>) {
    if filter.matches(&line) {
        lines.push(line);
    }
}

/// The rotated files of a log; none if its directory does not exist yet.
fn older(path: &Path) -> io::Result<Vec<PathBuf>> {
    match rotated_files(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

fn identity_of(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Source {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Some(Self { reader: BufReader::with_capacity(64 * 1024, file), identity, partial: Vec::new() }))
    }

    /// Goes to the end, then back to the beginning of a line that is not complete.
    fn skip_to_end(&mut self) -> io::Result<()> {
        let end = self.reader.seek(SeekFrom::End(0))?;
        let back = end.min(u64::try_from(MAX_LINE).unwrap_or(u64::MAX));
        self.reader.seek(SeekFrom::Start(end - back))?;
        let mut tail = Vec::new();
        (&mut self.reader).take(back).read_to_end(&mut tail)?;
        let line = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.partial = tail.split_off(line.min(tail.len()));
        Ok(())
    }

    /// Gives every line that is complete by now.
    fn read_lines(&mut self, mut give: impl FnMut(String)) -> io::Result<()> {
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                return Ok(());
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let piece = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            let room = MAX_LINE.saturating_sub(self.partial.len()).min(piece.len());
            self.partial.extend_from_slice(piece.get(..room).unwrap_or_default());
            let used = piece.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                let line = String::from_utf8_lossy(&self.partial).into_owned();
                self.partial.clear();
                if !line.is_empty() {
                    give(line);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
