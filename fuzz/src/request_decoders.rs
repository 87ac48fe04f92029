//! Request bodies: every decoder, with every media type. The first byte chooses.

#![no_main]

use bytes::Bytes;
use crosstie_channels::body::decode::{Expectation, decode};
use crosstie_channels::body::media::Media;
use crosstie_channels::body::{pairs, xml};
use crosstie_channels::jsonrpc::{self, BodyLimits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    // The most, and sometimes so little that real bodies are refused.
    let depth = if choice % 3 == 0 { 2 } else { 128 };
    let media = match choice % 7 {
        0 => Media::Json,
        1 => Media::Xml,
        2 => Media::Form,
        3 => Media::Multipart("x".into()),
        4 => Media::Absent,
        5 => Media::Octets,
        _ => {
            let _ = jsonrpc::parse(body, BodyLimits { batch: 50, depth });
            return;
        }
    };
    let expected = Expectation { format: None, input: None, depth };
    let _ = decode(Bytes::copy_from_slice(body), &media, expected);
    let _ = pairs::parse(body);
    if media == Media::Xml
        && let Ok(text) = std::str::from_utf8(body)
        && let Ok(value) = xml::to_json(text, 128)
    {
        // What came from XML can be written as XML, and that is read again.
        let written = xml::from_json(&value);
        assert!(xml::to_json(&written, 128).is_ok(), "{written}");
    }
});
