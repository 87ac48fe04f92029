//! The correlation id and its W3C Trace Context form.
//!
//! A cid *is* a trace id (W3C Trace Context, section 3.2.2.3): 16 random bytes, written as 32 lower-case
//! hexadecimal digits. A message that arrives with a valid `traceparent` keeps its caller's id.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Correlation id of one message through everything it touches. Never all zeroes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cid([u8; 16]);

impl Cid {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = random_bytes::<16>();
        bytes[0] |= 1;
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 32];
        f.write_str(hex_text(&self.0, &mut text))
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is no cid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cid is 32 lower-case hexadecimal digits, not all zero")]
pub struct CidError;

impl FromStr for Cid {
    type Err = CidError;
    fn from_str(text: &str) -> Result<Self, CidError> {
        let bytes = parse_hex::<16>(text).ok_or(CidError)?;
        if bytes == [0; 16] { Err(CidError) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<[u8; 16]> for Cid {
    type Error = CidError;

    fn try_from(bytes: [u8; 16]) -> Result<Self, CidError> {
        if bytes == [0; 16] { Err(CidError) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for Cid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where one message stands in a distributed trace: its cid, this hop's span and the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace id, which is the cid.
    pub cid: Cid,
    /// The span of the work done here; never zero.
    pub span: [u8; 8],
    /// The caller's span, when a valid `traceparent` came in.
    pub parent: Option<[u8; 8]>,
    /// The sampled flag: whether the caller records this trace.
    pub sampled: bool,
}

impl TraceContext {
    /// A trace that starts here.
    #[must_use]
    pub fn new_root() -> Self {
        Self { cid: Cid::random(), span: random_span(), parent: None, sampled: false }
    }

    /// Reads a `traceparent` header (W3C Trace Context, section 3.2) and opens a span below it.
    /// Anything invalid gives `None`: the receiver must then start a new trace.
    #[must_use]
    pub fn from_traceparent(header: &str) -> Option<Self> {
        let header = header.trim();
        let mut parts = header.split('-');
        let version = parse_hex::<1>(parts.next()?)?[0];
        let cid = parts.next()?.parse::<Cid>().ok()?;
        let parent = parse_hex::<8>(parts.next()?)?;
        let flags = parse_hex::<1>(parts.next()?)?[0];
        // Version 255 is forbidden; version 0 has exactly four fields, later ones may add some.
        if version == 0xff || (version == 0 && parts.next().is_some()) || parent == [0; 8] {
            return None;
        }
        Some(Self { cid, span: random_span(), parent: Some(parent), sampled: flags & 1 == 1 })
    }

    /// The context of a call made on behalf of this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { cid: self.cid, span: random_span(), parent: Some(self.span), sampled: self.sampled }
    }

    /// The header that tells the next hop: version 00.
    #[must_use]
    pub fn to_traceparent(&self) -> String {
        let mut span = [0u8; 16];
        let span = hex_text(&self.span, &mut span);
        format!("00-{}-{span}-{:02x}", self.cid, u8::from(self.sampled))
    }
}

fn random_span() -> [u8; 8] {
    let mut bytes = random_bytes::<8>();
    bytes[0] |= 1;
    bytes
}

/// Random bytes for ids, from a per-thread block that the kernel's generator refills: one system call
/// serves about 40 requests. Not for keys or secrets; those ask the kernel directly.
fn random_bytes<const N: usize>() -> [u8; N] {
    const BLOCK: usize = 1024;
    thread_local! {
        static POOL: RefCell<(usize, [u8; BLOCK])> = const { RefCell::new((BLOCK, [0; BLOCK])) };
    }
    POOL.with_borrow_mut(|(used, block)| {
        if *used + N > BLOCK {
            // The kernel's generator does not fail once it is seeded; a block left as it was would only
            // make ids repeat, which correlation survives.
            let _ = getrandom::fill(block);
            *used = 0;
        }
        let mut bytes = [0u8; N];
        if let Some(fresh) = block.get(*used..*used + N) {
            bytes.copy_from_slice(fresh);
        }
        *used += N;
        bytes
    })
}

/// Writes `bytes` into `out`, which has two places for each, as lower-case hexadecimal digits.
fn hex_text<'a>(bytes: &[u8], out: &'a mut [u8]) -> &'a str {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) };
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    std::str::from_utf8(out).unwrap_or_default()
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if text.len() != 2 * N || !text.as_bytes().iter().all(lower) {
        return None;
    }
    let mut bytes = [0u8; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_kept_and_passed_on() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::from_traceparent(header).unwrap();
        assert_eq!(context.cid.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.sampled);
        let onward = context.to_traceparent();
        assert!(onward.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && onward.ends_with("-01"));
        assert!(!onward.contains("00f067aa0ba902b7"));
    }

    #[test]
    fn an_invalid_traceparent_starts_a_new_trace() {
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert_eq!(TraceContext::from_traceparent(bad), None, "{bad}");
        }
        assert!(
            TraceContext::from_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x")
                .is_some()
        );
    }

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<Cid> = (0..1000).map(|_| Cid::random()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
