//! The bytes of a segment: a magic word, then frames.
//!
//! A frame is `metadata length, body length, CRC-32 of the metadata, CRC-32 of the bodies` (32 bits each, little
//! endian), the metadata, and the bodies one after the other. Metadata is 44 bytes of fixed layout, which a search
//! looks at first, and then fields `tag, length, value` with lengths in LEB128. A reader skips tags it does not
//! know, so that fields can be added; what is there never changes its meaning.

use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use crosstie_model::kept::{MessageBody, MessageId, MessagePart};

use super::mask;
use super::record::{MessageRecord, Side};
use super::stored::{StoredBody, StoredMessage, StoredPart};

/// What a segment begins with; the last byte is the format's version.
pub(super) const MAGIC: [u8; 8] = *b"ctmsgs\0\x01";
/// Bytes before a frame's metadata.
pub(super) const HEADER: usize = 16;
/// Bytes of metadata with a fixed layout.
pub(super) const FIXED: usize = 44;
/// Longest metadata of one frame, in bytes.
pub(super) const MAX_META: usize = 4 * 1024 * 1024;
/// Longest bodies of one frame, in bytes.
pub(super) const MAX_BODIES: usize = 64 * 1024 * 1024;
/// Longest value of a header field that is kept, in bytes.
const MAX_HEADER_VALUE: usize = 8 * 1024;
/// Most header fields that are kept.
const MAX_HEADERS: usize = 200;

const NAME: u8 = 1;
const KIND: u8 = 2;
const SERVICE: u8 = 3;
const METHOD: u8 = 4;
const PATH: u8 = 5;
const QUERY: u8 = 6;
const CLIENT: u8 = 7;
const SECURITY: u8 = 8;
const SECURITY_KIND: u8 = 9;
const USERNAME: u8 = 10;
const PROBLEM: u8 = 11;
const BYTES_IN: u8 = 12;
const BYTES_OUT: u8 = 13;
const PARENT: u8 = 14;
const REPLAY_OF: u8 = 15;
const REQUEST: u8 = 32;
const RESPONSE: u8 = 48;
/// Within a request or an answer.
const CONTENT_TYPE: u8 = 0;
const HEADER_FIELD: u8 = 1;
const BODY: u8 = 2;

const CUT: u64 = 1;
const MASKED: u64 = 2;
const DROPPED: u64 = 4;
const BROKEN: u64 = 8;

/// Appends the frame of `record`.
pub(super) fn append(record: &MessageRecord, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + HEADER, 0);
    fixed(record, out);
    described(record, out);
    let mut bodies = Vec::new();
    part(record, REQUEST, record.request.as_deref(), out, &mut bodies);
    part(record, RESPONSE, record.response.as_deref(), out, &mut bodies);
    let meta = out.get(start + HEADER..).unwrap_or_default();
    let lengths = [meta.len(), bodies.len()].map(|length| u32::try_from(length).unwrap_or(u32::MAX));
    let sums = [crc32fast::hash(meta), crc32fast::hash(&bodies)];
    let words = lengths.into_iter().chain(sums).flat_map(u32::to_le_bytes);
    if let Some(header) = out.get_mut(start..start + HEADER) {
        header.iter_mut().zip(words).for_each(|(place, byte)| *place = byte);
    }
    out.append(&mut bodies);
}

fn fixed(record: &MessageRecord, out: &mut Vec<u8>) {
    let time = record.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    out.extend_from_slice(record.trace.cid.as_bytes());
    out.extend_from_slice(&record.trace.span);
    out.extend_from_slice(&u64::try_from(time).unwrap_or(u64::MAX).to_le_bytes());
    out.extend_from_slice(&record.micros.to_le_bytes());
    out.extend_from_slice(&record.status.to_le_bytes());
    out.push(match record.side {
        Side::Channel => 0,
        Side::Outgoing => 1,
    });
    out.push(0);
}

fn described(record: &MessageRecord, out: &mut Vec<u8>) {
    field(NAME, record.name.as_bytes(), out);
    field(KIND, record.kind.as_bytes(), out);
    if let Some(service) = &record.service {
        field(SERVICE, service.as_str().as_bytes(), out);
    }
    if let Some(method) = &record.method {
        field(METHOD, method.as_str().as_bytes(), out);
    }
    field(PATH, record.path.as_bytes(), out);
    if let Some(query) = &record.query {
        field(QUERY, query.shown_without(|name| record.policy.masks(name)).as_bytes(), out);
    }
    if let Some(client) = &record.client {
        let mut text = String::with_capacity(40);
        let _ = write!(text, "{client}");
        field(CLIENT, text.as_bytes(), out);
    }
    if let Some(principal) = &record.principal {
        field(SECURITY, principal.definition.as_bytes(), out);
        field(SECURITY_KIND, principal.kind.as_bytes(), out);
        if let Some(username) = &principal.username {
            field(USERNAME, username.as_bytes(), out);
        }
    }
    if let Some(problem) = record.problem {
        field(PROBLEM, problem.as_bytes(), out);
    }
    number(BYTES_IN, record.bytes_in, out);
    number(BYTES_OUT, record.bytes_out, out);
    if let Some(parent) = &record.trace.parent {
        field(PARENT, parent, out);
    }
    if let Some(replayed) = &record.replay_of {
        let mut id = [0; 24];
        let bytes = replayed.cid.as_bytes().iter().chain(&replayed.span);
        id.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        field(REPLAY_OF, &id, out);
    }
}

fn part(
    record: &MessageRecord,
    base: u8,
    part: Option<&MessagePart>,
    out: &mut Vec<u8>,
    bodies: &mut Vec<u8>,
) {
    let Some(part) = part else { return };
    if let Some(content_type) = &part.content_type {
        field(base | CONTENT_TYPE, content_type.as_bytes(), out);
    }
    for (name, value) in part.headers.iter().take(MAX_HEADERS) {
        let value = mask::header(name, value, &record.policy);
        let value = value.get(..MAX_HEADER_VALUE).unwrap_or(value);
        let mut text = Vec::with_capacity(name.as_str().len() + 1 + value.len());
        text.extend_from_slice(name.as_str().as_bytes());
        text.push(0);
        text.extend_from_slice(value);
        field(base | HEADER_FIELD, &text, out);
    }
    if let Some(body) = &part.body {
        append_body(record, base, part, body, out, bodies);
    }
}

fn append_body(
    record: &MessageRecord,
    base: u8,
    part: &MessagePart,
    body: &MessageBody,
    out: &mut Vec<u8>,
    bodies: &mut Vec<u8>,
) {
    let most = record.policy.max_body();
    let is_cut = !body.is_dropped && (body.bytes.len() > most || body.length > body.bytes.len() as u64);
    let shown = body.bytes.get(..most).unwrap_or(&body.bytes);
    let media_type = part.content_type.as_ref().map(http::HeaderValue::as_bytes).unwrap_or_default();
    let masked = mask::body(shown, media_type, &record.policy);
    let kept = masked.as_deref().unwrap_or(shown);
    let flag = |is: bool, bit: u64| if is { bit } else { 0 };
    let state = flag(is_cut, CUT)
        | flag(masked.is_some(), MASKED)
        | flag(body.is_dropped, DROPPED)
        | flag(body.is_broken, BROKEN);
    let mut value = Vec::with_capacity(12);
    [state, body.length, kept.len() as u64].into_iter().for_each(|number| leb128(number, &mut value));
    field(base | BODY, &value, out);
    bodies.extend_from_slice(kept);
}

fn field(tag: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    leb128(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn number(tag: u8, value: u64, out: &mut Vec<u8>) {
    out.push(tag);
    let at = out.len();
    out.push(0);
    leb128(value, out);
    // Ten bytes at most, so that one byte holds the length.
    let length = u8::try_from(out.len() - at - 1).unwrap_or_default();
    if let Some(place) = out.get_mut(at) {
        *place = length;
    }
}

fn leb128(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(0x80 | low_bits(value));
        value >>= 7;
    }
    out.push(low_bits(value));
}

fn low_bits(value: u64) -> u8 {
    value.to_le_bytes().first().copied().unwrap_or_default() & 0x7f
}

/// The head of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHead {
    pub(super) meta: usize,
    pub(super) bodies: usize,
    meta_sum: u32,
    body_sum: u32,
}

impl FrameHead {
    /// Reads it; nothing where no frame can begin.
    pub(super) fn read(bytes: [u8; HEADER]) -> Option<Self> {
        let mut words = bytes.chunks_exact(4).map(|word| word.try_into().map_or(0, u32::from_le_bytes));
        let (meta, bodies) = (usize::try_from(words.next()?).ok()?, usize::try_from(words.next()?).ok()?);
        let head = Self { meta, bodies, meta_sum: words.next()?, body_sum: words.next()? };
        let is_possible = (FIXED..=MAX_META).contains(&meta) && bodies <= MAX_BODIES;
        is_possible.then_some(head)
    }

    /// Whether this is the metadata that was written.
    pub(super) fn fits(&self, meta: &[u8]) -> bool {
        crc32fast::hash(meta) == self.meta_sum
    }

    /// Whether these are the bodies that were written.
    pub(super) fn fits_bodies(&self, bodies: &[u8]) -> bool {
        crc32fast::hash(bodies) == self.body_sum
    }
}

/// The part of metadata that a search looks at first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fixed {
    pub(super) id: MessageId,
    pub(super) time: u64,
    pub(super) micros: u64,
    pub(super) status: u16,
    pub(super) side: Side,
}

impl Fixed {
    /// Reads it from the beginning of metadata.
    pub(super) fn read(meta: &[u8]) -> Option<Self> {
        let (cid, rest) = meta.split_first_chunk::<16>()?;
        let (span, rest) = rest.split_first_chunk::<8>()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let (micros, rest) = rest.split_first_chunk::<8>()?;
        let (status, rest) = rest.split_first_chunk::<2>()?;
        let side = if *rest.first()? == 0 { Side::Channel } else { Side::Outgoing };
        Some(Self {
            id: MessageId { cid: (*cid).try_into().ok()?, span: *span },
            time: u64::from_le_bytes(*time),
            micros: u64::from_le_bytes(*micros),
            status: u16::from_le_bytes(*status),
            side,
        })
    }
}

/// The message of `fixed`, `meta` and, where they are wanted, the bodies.
pub(super) fn read(fixed: Fixed, meta: &[u8], bodies: &[u8]) -> Option<StoredMessage> {
    let mut message = StoredMessage {
        id: fixed.id,
        parent: None,
        time: fixed.time,
        micros: fixed.micros,
        side: fixed.side,
        name: String::new(),
        kind: String::new(),
        service: None,
        method: None,
        path: String::new(),
        query: None,
        status: fixed.status,
        problem: None,
        bytes_in: 0,
        bytes_out: 0,
        client: None,
        security: None,
        security_kind: None,
        username: None,
        replay_of: None,
        request: None,
        response: None,
    };
    let mut rest = meta.get(FIXED..)?;
    let mut bodies = bodies;
    while let Some((tag, after)) = rest.split_first() {
        rest = after;
        let length = usize::try_from(read_leb128(&mut rest)?).ok()?;
        let (value, after) = rest.split_at_checked(length)?;
        rest = after;
        take(&mut message, *tag, value, &mut bodies)?;
    }
    Some(message)
}

fn take(message: &mut StoredMessage, tag: u8, value: &[u8], bodies: &mut &[u8]) -> Option<()> {
    let text = || String::from_utf8_lossy(value).into_owned();
    match tag {
        NAME => message.name = text(),
        KIND => message.kind = text(),
        SERVICE => message.service = Some(text()),
        METHOD => message.method = Some(text()),
        PATH => message.path = text(),
        QUERY => message.query = Some(text()),
        CLIENT => message.client = Some(text()),
        SECURITY => message.security = Some(text()),
        SECURITY_KIND => message.security_kind = Some(text()),
        USERNAME => message.username = Some(text()),
        PROBLEM => message.problem = Some(text()),
        BYTES_IN => message.bytes_in = read_leb128(&mut &*value)?,
        BYTES_OUT => message.bytes_out = read_leb128(&mut &*value)?,
        PARENT => message.parent = value.try_into().ok(),
        REPLAY_OF => {
            let (cid, span) = value.split_first_chunk::<16>()?;
            message.replay_of = Some(MessageId { cid: (*cid).try_into().ok()?, span: span.try_into().ok()? });
        }
        _ => {
            let (part, inner) = match tag & 0xf0 {
                REQUEST => (message.request.get_or_insert_default(), tag & 0x0f),
                RESPONSE => (message.response.get_or_insert_default(), tag & 0x0f),
                // A field of a later release.
                _ => return Some(()),
            };
            take_part(part, inner, value, bodies)?;
        }
    }
    Some(())
}

fn take_part(part: &mut StoredPart, tag: u8, value: &[u8], bodies: &mut &[u8]) -> Option<()> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match tag {
        CONTENT_TYPE => part.content_type = Some(text(value)),
        HEADER_FIELD => {
            let end = value.iter().position(|byte| *byte == 0)?;
            let (name, rest) = value.split_at_checked(end)?;
            part.headers.push((text(name), text(rest.get(1..)?)));
        }
        BODY => {
            let mut value = value;
            let state = read_leb128(&mut value)?;
            let (length, kept) = (read_leb128(&mut value)?, read_leb128(&mut value)?);
            let (bytes, rest) = if bodies.is_empty() {
                (&[][..], &[][..])
            } else {
                bodies.split_at_checked(usize::try_from(kept).ok()?)?
            };
            *bodies = rest;
            part.body = Some(StoredBody {
                bytes: bytes.to_vec(),
                kept,
                length,
                is_cut: state & CUT != 0,
                is_masked: state & MASKED != 0,
                is_dropped: state & DROPPED != 0,
                is_broken: state & BROKEN != 0,
            });
        }
        _ => {}
    }
    Some(())
}

fn read_leb128(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0_u64, 0_u32);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}
