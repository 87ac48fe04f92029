//! From bytes and a media type to a payload.

use bytes::Bytes;
use crosstie_model::definition::DataFormat;
use crosstie_model::limits::MAX_DOCUMENT_DEPTH;
use crosstie_model::message::Payload;
use crosstie_model::{Failure, FailureKind, Fault, Origin};
use serde_json::Value;

use super::media::{Charset, Media};
use super::{coerce, multipart, pairs, xml};

/// What a REST channel makes of bodies.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// The format it insists on.
    pub format: Option<DataFormat>,
    /// The schema of the service's declared input. XML takes its types from it; unstructured bodies are
    /// refused when there is one.
    pub input: Option<&'a Value>,
    /// How deep JSON and XML may nest, at most [`MAX_DOCUMENT_DEPTH`].
    pub depth: usize,
}

/// Decodes a body. Empty bodies are [`Payload::Empty`] whatever their type.
///
/// Without a format the media type decides: JSON (also when there is none), XML, forms, multipart, text,
/// `application/octet-stream`; others get 415, as does a type other than the format insisted on.
///
/// # Errors
/// 415 for the wrong media type, 400 for a malformed body.
pub fn decode(body: Bytes, media: &Media, expected: Expectation<'_>) -> Result<Payload, Failure> {
    if body.is_empty() {
        return Ok(Payload::Empty);
    }
    let structured_only = expected.input.is_some();
    match (expected.format, media) {
        (Some(DataFormat::Raw), _) => Ok(Payload::Bytes(body)),
        (None | Some(DataFormat::Json), Media::Json | Media::Absent) => {
            json(&body, expected.depth).map(Payload::Json)
        }
        (None | Some(DataFormat::Xml), Media::Xml) | (Some(DataFormat::Xml), Media::Absent) => {
            let value =
                xml::to_json(text(&body)?, expected.depth).map_err(|error| malformed(error.to_string()))?;
            Ok(Payload::Json(match expected.input {
                Some(schema) => coerce::coerce(value, schema),
                None => value,
            }))
        }
        (None | Some(DataFormat::Form), Media::Form) | (Some(DataFormat::Form), Media::Absent) => {
            pairs::parse(&body).map(Payload::Form).map_err(|error| malformed(error.to_string()))
        }
        (None | Some(DataFormat::Form), Media::Multipart(boundary)) => multipart::parse(body, boundary)
            .map(Payload::Multipart)
            .map_err(|error| malformed(error.to_string())),
        (None, Media::Text(charset)) if !structured_only => match charset {
            Charset::Utf8 => text(&body).map(|text| Payload::Text(text.to_owned())),
            Charset::Latin1 => Ok(Payload::Text(body.iter().map(|byte| char::from(*byte)).collect())),
        },
        (None, Media::Octets) if !structured_only => Ok(Payload::Bytes(body)),
        (format, _) => Err(unsupported(format, structured_only)),
    }
}

/// Parses JSON text that nests at most `depth` deep. Its size is limited by the body limit.
///
/// # Errors
/// 400 saying where the text breaks.
pub fn json(body: &[u8], depth: usize) -> Result<Value, Failure> {
    // A byte order mark is no JSON, but some clients send one (RFC 8259, section 8.1 lets us ignore it).
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let value = serde_json::from_slice(body)
        .map_err(|error| malformed(format!("The body is not valid JSON: {error}")))?;
    match too_deep(&value, depth) {
        None => Ok(value),
        Some(detail) => Err(malformed(detail)),
    }
}

/// What to say of a value that nests more than `depth` deep. The parser refuses what is beyond
/// [`MAX_DOCUMENT_DEPTH`], so the walk is bounded and needed only where the settings allow less.
pub(crate) fn too_deep(value: &Value, depth: usize) -> Option<String> {
    (depth < MAX_DOCUMENT_DEPTH && nests_beyond(value, depth))
        .then(|| format!("The body nests deeper than {depth}"))
}

fn nests_beyond(value: &Value, depth: usize) -> bool {
    let inner = depth.checked_sub(1);
    match (value, inner) {
        (Value::Array(_) | Value::Object(_), None) => true,
        (Value::Array(items), Some(inner)) => items.iter().any(|item| nests_beyond(item, inner)),
        (Value::Object(members), Some(inner)) => members.values().any(|member| nests_beyond(member, inner)),
        _ => false,
    }
}

fn text(body: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(body).map_err(|error| malformed(format!("The body is not valid UTF-8: {error}")))
}

fn malformed(detail: String) -> Failure {
    let mut failure =
        Failure::new(FailureKind::BadRequest, Origin::Client).with_text("The body is malformed");
    failure.faults = vec![Fault { pointer: String::new(), detail }];
    failure
}

fn unsupported(format: Option<DataFormat>, structured_only: bool) -> Failure {
    let supported = match format {
        Some(DataFormat::Json) => "application/json",
        Some(DataFormat::Xml) => "application/xml or text/xml",
        Some(DataFormat::Form) => "application/x-www-form-urlencoded or multipart/form-data",
        _ if structured_only => "JSON, XML, application/x-www-form-urlencoded or multipart/form-data",
        _ => {
            "JSON, XML, application/x-www-form-urlencoded, multipart/form-data, text or \
             application/octet-stream"
        }
    };
    Failure::new(FailureKind::UnsupportedMediaType, Origin::Client)
        .with_text(format!("The media type is not supported here; send {supported} in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ANY: Expectation<'static> = Expectation { format: None, input: None, depth: MAX_DOCUMENT_DEPTH };

    fn kind(result: Result<Payload, Failure>) -> FailureKind {
        result.unwrap_err().kind
    }

    #[test]
    fn bodies_are_decoded_by_their_type() {
        let decode = |body: &'static str, media| decode(Bytes::from_static(body.as_bytes()), &media, ANY);
        assert_eq!(decode("", Media::Json).unwrap(), Payload::Empty);
        assert_eq!(decode("{\"a\":1}", Media::Json).unwrap(), Payload::Json(json!({"a": 1})));
        assert_eq!(decode("[1]", Media::Absent).unwrap(), Payload::Json(json!([1])));
        assert_eq!(decode("<r><a>1</a></r>", Media::Xml).unwrap(), Payload::Json(json!({"a": "1"})));
        assert_eq!(decode("a=1", Media::Form).unwrap(), Payload::Form(vec![("a".into(), "1".into())]));
        assert_eq!(decode("hi", Media::Text(Charset::Utf8)).unwrap(), Payload::Text("hi".into()));
        assert_eq!(decode("hi", Media::Octets).unwrap(), Payload::Bytes("hi".into()));
        assert_eq!(kind(decode("hi", Media::Other)), FailureKind::UnsupportedMediaType);
    }

    #[test]
    fn a_format_is_insisted_on() {
        let of = |format, media| {
            decode(Bytes::from_static(b"{}"), &media, Expectation { format: Some(format), ..ANY })
        };
        assert_eq!(kind(of(DataFormat::Json, Media::Form)), FailureKind::UnsupportedMediaType);
        assert_eq!(kind(of(DataFormat::Xml, Media::Json)), FailureKind::UnsupportedMediaType);
        assert_eq!(kind(of(DataFormat::Form, Media::Json)), FailureKind::UnsupportedMediaType);
        assert_eq!(of(DataFormat::Raw, Media::Other).unwrap(), Payload::Bytes("{}".into()));
    }

    #[test]
    fn a_declared_input_types_xml_and_refuses_what_has_no_structure() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let declared = Expectation { input: Some(&schema), ..ANY };
        let xml = decode(Bytes::from_static(b"<r><a>1</a></r>"), &Media::Xml, declared).unwrap();
        assert_eq!(xml, Payload::Json(json!({"a": 1})));
        let text = decode(Bytes::from_static(b"x"), &Media::Text(Charset::Utf8), declared);
        assert_eq!(kind(text), FailureKind::UnsupportedMediaType);
    }

    #[test]
    fn documents_nest_as_deep_as_they_may() {
        let of = |body: &str, media, depth| {
            decode(Bytes::copy_from_slice(body.as_bytes()), &media, Expectation { depth, ..ANY })
        };
        for (body, media) in [
            ("[[{}]]", Media::Json),
            ("{\"a\":{\"b\":[1]}}", Media::Json),
            ("<a><b><c/></b></a>", Media::Xml),
        ] {
            assert!(of(body, media.clone(), 3).is_ok(), "{body}");
            let refused = of(body, media, 2).unwrap_err();
            assert_eq!(refused.kind, FailureKind::BadRequest, "{body}");
            assert!(refused.faults[0].detail.contains('2'), "{:?}", refused.faults);
        }
        assert!(of("1", Media::Json, 1).is_ok());
    }

    #[test]
    fn malformed_bodies_are_400_and_say_where() {
        let failure = decode(Bytes::from_static(b"{\"a\":\n}"), &Media::Json, ANY).unwrap_err();
        assert_eq!(failure.kind, FailureKind::BadRequest);
        assert!(failure.faults[0].detail.contains("line 2"), "{:?}", failure.faults);
        for (body, media) in [
            (&b"\"\xff\""[..], Media::Json),
            (b"<a>\xff</a>", Media::Xml),
            (b"a=%ff", Media::Form),
            (b"\xff", Media::Text(Charset::Utf8)),
            (b"x", Media::Multipart("b".into())),
        ] {
            assert_eq!(kind(decode(Bytes::from_static(body), &media, ANY)), FailureKind::BadRequest);
        }
        let deep = "[".repeat(100_000);
        assert_eq!(kind(decode(deep.into(), &Media::Json, ANY)), FailureKind::BadRequest);
    }

    proptest! {
        #[test]
        fn no_body_makes_a_decoder_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            for media in [Media::Json, Media::Xml, Media::Form, Media::Multipart("X".into()),
                Media::Text(Charset::Utf8), Media::Text(Charset::Latin1)] {
                let _ = decode(Bytes::from(body.clone()), &media, ANY);
            }
        }
    }
}
