//! Finding kept messages: all segments of a server, from the newest to the oldest.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;
use std::time::Instant;

use crosstie_model::Cid;

use super::format::{self, Fixed, FrameHead, HEADER, MAGIC};
use super::record::Side;
use super::segment::{Segment, segments};
use super::stored::StoredMessage;

/// How much of a segment is read at once, in bytes.
const READ: usize = 256 * 1024;
/// How many frames pass between looks at the clock.
const LOOK: u64 = 4_096;

/// Which messages are looked for: all that fit everything which is given.
#[derive(Debug, Clone, Default)]
pub struct MessageQuery {
    /// The correlation id.
    pub cid: Option<Cid>,
    /// The span, within a cid.
    pub span: Option<[u8; 8]>,
    /// Which way they went.
    pub side: Option<Side>,
    /// The channel or outgoing.
    pub name: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// The least and the greatest status.
    pub status: Option<(u16, u16)>,
    /// Only those that ended in an error.
    pub failed: bool,
    /// The earliest and the latest time at which they began, in microseconds since 1970.
    pub from: Option<u64>,
    /// See `from`.
    pub to: Option<u64>,
    /// Most messages that are given, the newest of all that fit.
    pub limit: usize,
    /// Whether bodies are read as well.
    pub bodies: bool,
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// The messages, newest first.
    pub messages: Vec<StoredMessage>,
    /// Whether everything was looked at; time was up otherwise.
    pub is_complete: bool,
    /// Segments with a place that cannot be read, after which nothing could be either.
    pub damaged: usize,
}

impl MessageQuery {
    fn fits_fixed(&self, fixed: &Fixed) -> bool {
        let inside = |range: Option<(u16, u16)>| {
            range.is_none_or(|(least, most)| (least..=most).contains(&fixed.status))
        };
        self.cid.is_none_or(|cid| cid == fixed.id.cid)
            && self.span.is_none_or(|span| span == fixed.id.span)
            && self.side.is_none_or(|side| side == fixed.side)
            && inside(self.status)
            && self.from.is_none_or(|from| fixed.time >= from)
            && self.to.is_none_or(|to| fixed.time <= to)
    }

    fn fits(&self, message: &StoredMessage) -> bool {
        self.name.as_ref().is_none_or(|name| *name == message.name)
            && self.service.as_ref().is_none_or(|service| Some(service) == message.service.as_ref())
            && (!self.failed || message.is_failed())
    }
}

/// Looks for messages in the segments of `directory`, at most until `until`.
///
/// # Errors
/// The directory or a segment cannot be read.
pub fn search(directory: &Path, query: &MessageQuery, until: Instant) -> io::Result<Found> {
    let mut all = segments(directory)?;
    all.sort_by_key(|segment| std::cmp::Reverse(segment.modified));
    let mut found = Found { is_complete: true, ..Found::default() };
    for segment in all {
        let is_too_old = |from: u64| segment.modified < from;
        let has_newer = found.messages.len() >= query.limit
            && found
                .messages
                .get(query.limit.saturating_sub(1))
                .is_some_and(|last| last.time > segment.modified);
        if query.from.is_some_and(is_too_old) || has_newer {
            // Those after it are older still.
            break;
        }
        search_one(&segment, query, until, &mut found)?;
        keep_newest(&mut found.messages, query.limit);
        if !found.is_complete {
            break;
        }
    }
    Ok(found)
}

fn keep_newest(messages: &mut Vec<StoredMessage>, limit: usize) {
    messages.sort_by_key(|message| std::cmp::Reverse(message.time));
    messages.truncate(limit);
}

fn search_one(segment: &Segment, query: &MessageQuery, until: Instant, found: &mut Found) -> io::Result<()> {
    let Some(mut reader) = Reader::open(&segment.path)? else { return Ok(()) };
    let mut frames = 0_u64;
    loop {
        frames += 1;
        if frames.is_multiple_of(LOOK) && Instant::now() >= until {
            found.is_complete = false;
            return Ok(());
        }
        match reader.next(query)? {
            Next::Fits(message) => {
                found.messages.push(*message);
                if found.messages.len() >= query.limit.saturating_mul(2).max(64) {
                    keep_newest(&mut found.messages, query.limit);
                }
            }
            Next::Other => {}
            Next::End => return Ok(()),
            Next::Damaged => {
                found.damaged += 1;
                return Ok(());
            }
        }
    }
}

/// Gives every message of `directory` to `each`, without bodies, oldest segment first.
///
/// # Errors
/// The directory or a segment cannot be read.
pub fn messages(directory: &Path, mut each: impl FnMut(StoredMessage)) -> io::Result<()> {
    let everything = MessageQuery { limit: usize::MAX, ..MessageQuery::default() };
    for segment in segments(directory)? {
        let Some(mut reader) = Reader::open(&segment.path)? else { continue };
        while let Next::Fits(message) = reader.next(&everything)? {
            each(*message);
        }
    }
    Ok(())
}

/// Reads one segment.
struct Reader {
    input: BufReader<File>,
    meta: Vec<u8>,
    bodies: Vec<u8>,
}

/// What stands next in a segment.
enum Next {
    /// A message that is looked for.
    Fits(Box<StoredMessage>),
    /// Another one.
    Other,
    /// Nothing, or what its writer did not get to the end of.
    End,
    /// Something that nobody wrote.
    Damaged,
}

impl Reader {
    /// Nothing where the file is gone, or no segment of a format that is known.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut input = BufReader::with_capacity(READ, file);
        let mut magic = [0; MAGIC.len()];
        let is_known = fill(&mut input, &mut magic)? && magic == MAGIC;
        Ok(is_known.then(|| Self { input, meta: Vec::new(), bodies: Vec::new() }))
    }

    fn next(&mut self, query: &MessageQuery) -> io::Result<Next> {
        let mut header = [0; HEADER];
        // After a power cut the end of a file may hold zeros that were never written.
        if !fill(&mut self.input, &mut header)? || header == [0; HEADER] {
            return Ok(Next::End);
        }
        let Some(head) = FrameHead::read(header) else { return Ok(Next::Damaged) };
        self.meta.resize(head.meta, 0);
        if !fill(&mut self.input, &mut self.meta)? {
            return Ok(Next::End);
        }
        let fixed = Fixed::read(&self.meta).filter(|_| head.fits(&self.meta));
        let Some(fixed) = fixed else { return Ok(Next::Damaged) };
        let message = query.fits_fixed(&fixed).then(|| format::read(fixed, &self.meta, &[])).flatten();
        let fitting = message.filter(|message| query.fits(message));
        let Some(mut message) = fitting else {
            self.input.seek_relative(i64::try_from(head.bodies).unwrap_or(i64::MAX))?;
            return Ok(Next::Other);
        };
        if query.bodies {
            self.bodies.resize(head.bodies, 0);
            if !fill(&mut self.input, &mut self.bodies)? {
                return Ok(Next::End);
            }
            if !head.fits_bodies(&self.bodies) {
                return Ok(Next::Damaged);
            }
            message = format::read(fixed, &self.meta, &self.bodies).unwrap_or(message);
        } else {
            self.input.seek_relative(i64::try_from(head.bodies).unwrap_or(i64::MAX))?;
        }
        Ok(Next::Fits(Box::new(message)))
    }
}

/// Reads as many bytes as `place` has; says whether there were so many.
fn fill(input: &mut impl Read, place: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(place) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
