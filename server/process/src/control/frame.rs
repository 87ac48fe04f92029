//! The frame format: a 32-bit big-endian length, a version byte, and that many bytes less one of JSON.
//!
//! Pure functions over bytes, so that fuzzing reaches everything a hostile peer could send. A frame costs
//! one copy of its JSON when it arrives in pieces and none otherwise.

use bytes::{Buf, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version byte of every frame.
pub const PROTOCOL_VERSION: u8 = 1;

/// Largest value of a frame's length field: version byte and JSON together.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;

const LENGTH_BYTES: usize = 4;

/// Why bytes are no frame. The stream cannot be read on after any of these.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length field is 0 or beyond [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is outside the limits of 1 to {MAX_FRAME_BYTES}")]
    Length(usize),
    /// The peer speaks another version.
    #[error("the frame has protocol version {0}, not {PROTOCOL_VERSION}")]
    Version(u8),
    /// The content is not the message that was expected.
    #[error("the frame's content is not a known message")]
    Content(#[source] serde_json::Error),
}

/// Takes one message off the front of `buffer`. `None` when the frame there is not complete yet; nothing is
/// consumed then.
///
/// # Errors
/// The bytes are not a frame; `buffer` is left as it was.
pub fn decode<T: DeserializeOwned>(buffer: &mut BytesMut) -> Result<Option<T>, FrameError> {
    let Some((header, rest)) = buffer.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
    if length == 0 || length > MAX_FRAME_BYTES {
        return Err(FrameError::Length(length));
    }
    // The version is judged as soon as it is there: a stranger need not send a whole frame to be refused.
    match rest.first() {
        Some(&version) if version != PROTOCOL_VERSION => return Err(FrameError::Version(version)),
        _ => {}
    }
    let Some(content) = rest.get(1..length) else { return Ok(None) };
    let message = serde_json::from_slice(content).map_err(FrameError::Content)?;
    buffer.advance(LENGTH_BYTES + length);
    Ok(Some(message))
}

/// The frame that carries `message`.
///
/// # Errors
/// The message is longer than [`MAX_FRAME_BYTES`], or cannot be written as JSON.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; LENGTH_BYTES];
    frame.push(PROTOCOL_VERSION);
    serde_json::to_writer(&mut frame, message).map_err(FrameError::Content)?;
    let length = frame.len() - LENGTH_BYTES;
    match u32::try_from(length) {
        Ok(field) if length <= MAX_FRAME_BYTES => {
            for (to, from) in frame.iter_mut().zip(field.to_be_bytes()) {
                *to = from;
            }
            Ok(frame)
        }
        _ => Err(FrameError::Length(length)),
    }
}

#[cfg(test)]
mod tests {
    use crosstie_model::event::Event;
    use crosstie_model::names::Revision;
    use proptest::prelude::*;

    use super::*;
    use crate::control::{ToSupervisor, ToWorker};

    fn changed(revision: u64) -> ToSupervisor {
        ToSupervisor::Event(Event::RevisionChanged { revision: Revision(revision) })
    }

    #[test]
    fn messages_survive_the_wire() {
        for message in [
            ToSupervisor::Hello { version: 1, pid: 7 },
            ToSupervisor::Ready,
            ToSupervisor::Singleton(true),
            changed(12),
            ToSupervisor::Replace { reason: "lost threads".into() },
            ToSupervisor::Drained,
        ] {
            let mut wire = BytesMut::from(&encode(&message).unwrap()[..]);
            assert_eq!(decode::<ToSupervisor>(&mut wire).unwrap(), Some(message));
            assert!(wire.is_empty());
        }
    }

    #[test]
    fn the_wire_format_is_pinned() {
        let frame = encode(&ToWorker::Drain { deadline_ms: 30_000 }).unwrap();
        let json = br#"{"message":"drain","body":{"deadline_ms":30000}}"#;
        assert_eq!(&frame[..5], &[0, 0, 0, u8::try_from(json.len() + 1).unwrap(), 1]);
        assert_eq!(&frame[5..], json);
    }

    #[test]
    fn a_frame_too_long_is_refused_before_its_content_arrives() {
        let mut wire = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert!(matches!(decode::<ToWorker>(&mut wire), Err(FrameError::Length(_))));
        let mut wire = BytesMut::from(&[0u8; 4][..]);
        assert!(matches!(decode::<ToWorker>(&mut wire), Err(FrameError::Length(0))));
        let long = ToSupervisor::Replace { reason: "x".repeat(MAX_FRAME_BYTES) };
        assert!(matches!(encode(&long), Err(FrameError::Length(_))));
    }

    #[test]
    fn another_version_is_refused_by_its_first_byte() {
        let mut wire = BytesMut::from(&[0, 0, 0, 9, 2][..]);
        assert!(matches!(decode::<ToWorker>(&mut wire), Err(FrameError::Version(2))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_never_grow(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut wire = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode::<ToSupervisor>(&mut wire) {}
            prop_assert!(wire.len() <= bytes.len());
        }

        #[test]
        fn frames_cut_anywhere_arrive_whole_and_in_order(
            revisions in prop::collection::vec(any::<u64>(), 1..20),
            cut in 1usize..40,
        ) {
            let sent: Vec<_> = revisions.into_iter().map(changed).collect();
            let stream: Vec<u8> = sent.iter().flat_map(|m| encode(m).unwrap()).collect();
            let mut wire = BytesMut::new();
            let mut received = Vec::new();
            for piece in stream.chunks(cut) {
                wire.extend_from_slice(piece);
                while let Some(message) = decode::<ToSupervisor>(&mut wire).unwrap() {
                    received.push(message);
                }
            }
            prop_assert_eq!(received, sent);
        }
    }
}
