//! Content codings: taken off requests with the size limit applied to the result, put on replies that a
//! client accepts so and that are worth it (RFC 9110, section 8.4).
//!
//! Work is cut into pieces with a yield between, and large replies are compressed as they are sent, so that
//! one body never holds the reactor for long.

use std::pin::Pin;

use async_compression::Level;
use async_compression::tokio::bufread::{
    BrotliDecoder, BrotliEncoder, DeflateDecoder, GzipDecoder, GzipEncoder, ZlibDecoder, ZstdDecoder,
    ZstdEncoder,
};
use async_compression::zstd::DParameter;
use bytes::{BufMut, Bytes, BytesMut};
use crosstie_model::{Failure, FailureKind, Fault, Origin};
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::aside::INLINE_BYTES;
use crate::response::Outgoing;

/// The codings requests may have, as a 415 lists them.
pub(crate) const ACCEPTED: &str = "gzip, deflate, br, zstd";

const CHUNK: usize = 16 * 1024;
/// Work between two yields.
const SLICE: usize = 256 * 1024;
/// 8 MiB: what RFC 8878, section 3.1.1.1.2, asks decoders to support and lets them refuse beyond.
const ZSTD_WINDOW_LOG: u32 = 23;

type Reader<'r> = Pin<Box<dyn AsyncRead + Send + 'r>>;

/// Takes the content coding off a request body of at most `limit` bytes once decoded.
///
/// # Errors
/// 415 for an unknown coding or more than one, 413 beyond the limit, 400 for data that is not of its coding.
pub async fn decode(headers: &HeaderMap, body: Bytes, limit: usize) -> Result<Bytes, Failure> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let (Some(value), more) = (codings.next(), codings.next()) else { return Ok(body) };
    let coding = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
    if body.is_empty() || (coding == "identity" && more.is_none()) {
        return Ok(body);
    }
    if more.is_some() {
        return Err(unknown_coding());
    }
    let source = &*body;
    let reader: Reader<'_> = match coding.as_str() {
        "gzip" | "x-gzip" => Box::pin(GzipDecoder::new(source)),
        // The standard says zlib; some senders leave its two bytes out.
        "deflate" if is_zlib(source) => Box::pin(ZlibDecoder::new(source)),
        "deflate" => Box::pin(DeflateDecoder::new(source)),
        "br" => Box::pin(BrotliDecoder::new(source)),
        "zstd" => Box::pin(ZstdDecoder::with_params(source, &[DParameter::window_log_max(ZSTD_WINDOW_LOG)])),
        _ => return Err(unknown_coding()),
    };
    inflate(reader, limit).await
}

fn is_zlib(body: &[u8]) -> bool {
    match body {
        [first, second, ..] => {
            first & 0x0f == 8 && (u16::from(*first) * 256 + u16::from(*second)).is_multiple_of(31)
        }
        _ => false,
    }
}

async fn inflate(mut reader: Reader<'_>, limit: usize) -> Result<Bytes, Failure> {
    let mut out = BytesMut::new();
    let mut since_yield = 0;
    loop {
        let room = limit.saturating_sub(out.len()).saturating_add(1).min(CHUNK);
        out.reserve(room);
        let read = reader.read_buf(&mut (&mut out).limit(room)).await.map_err(|_| undecodable())?;
        if read == 0 {
            return Ok(out.freeze());
        }
        if out.len() > limit {
            return Err(Failure::new(FailureKind::PayloadTooLarge, Origin::Client));
        }
        since_yield += read;
        if since_yield >= SLICE {
            since_yield = 0;
            tokio::task::yield_now().await;
        }
    }
}

fn unknown_coding() -> Failure {
    Failure::new(FailureKind::UnsupportedMediaType, Origin::Client)
        .with_text(format!("The content coding is not supported; use one of {ACCEPTED}, or none"))
}

fn undecodable() -> Failure {
    let detail = "The body is not what its Content-Encoding says".to_owned();
    Failure::new(FailureKind::BadRequest, Origin::Client)
        .with_text("The body is malformed")
        .with_faults(vec![Fault { pointer: String::new(), detail }])
}

/// What a client says about codings, as one value; a clone of a handle in all but odd cases.
pub(crate) fn accept_encoding(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(ACCEPT_ENCODING).iter();
    let first = lines.next()?;
    let more: Vec<_> = lines.filter_map(|value| value.to_str().ok()).collect();
    if more.is_empty() {
        return Some(first.clone());
    }
    HeaderValue::from_str(&format!("{}, {}", first.to_str().ok()?, more.join(", "))).ok()
}

/// A coding replies can have, best first where a client likes several equally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    const ALL: [(Self, &'static str); 3] = [(Self::Zstd, "zstd"), (Self::Brotli, "br"), (Self::Gzip, "gzip")];

    /// The coding a client likes best (RFC 9110, section 12.5.3); `None` for no coding.
    pub(crate) fn choose(accepted: &HeaderValue) -> Option<Self> {
        let mut best: Option<(u16, Self)> = None;
        let accepted = accepted.to_str().ok()?;
        for (coding, name) in Self::ALL {
            let mut quality = 0;
            for item in accepted.split(',') {
                let (token, q) = crate::negotiate::with_quality(item);
                if token.eq_ignore_ascii_case(name)
                    || (name == "gzip" && token.eq_ignore_ascii_case("x-gzip"))
                {
                    quality = q;
                }
            }
            if quality > 0 && best.is_none_or(|(known, _)| quality > known) {
                best = Some((quality, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }

    fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        })
    }

    fn encoder(self, source: std::io::Cursor<Bytes>) -> Reader<'static> {
        match self {
            // Levels at which the ratio is near its best and the cost near its least.
            Self::Zstd => Box::pin(ZstdEncoder::with_quality(source, Level::Precise(3))),
            Self::Brotli => Box::pin(BrotliEncoder::with_quality(source, Level::Precise(4))),
            Self::Gzip => Box::pin(GzipEncoder::with_quality(source, Level::Precise(5))),
        }
    }
}

/// Whether and from which size on replies are compressed, from `[http]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CompressionPolicy {
    pub(crate) enabled: bool,
    pub(crate) min_bytes: u64,
}

/// Compresses a whole reply where that is worth it. Streams are left alone: their pieces must arrive as they
/// are made, and their size is not known.
pub(crate) async fn compress(
    policy: CompressionPolicy,
    coding: Option<Coding>,
    headers: &mut HeaderMap,
    body: Outgoing,
) -> Outgoing {
    let Outgoing::Whole(bytes) = body else { return body };
    if !policy.enabled || (bytes.len() as u64) < policy.min_bytes.max(1) || !compressible(headers) {
        return Outgoing::Whole(bytes);
    }
    // Caches must know that the answer depends on this header, compressed or not.
    headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    let Some(coding) = coding else { return Outgoing::Whole(bytes) };
    headers.insert(CONTENT_ENCODING, coding.name());
    let size = bytes.len();
    let mut reader = coding.encoder(std::io::Cursor::new(bytes));
    if size > INLINE_BYTES {
        return Outgoing::Stream(Box::pin(futures_util::stream::unfold(Some(reader), pieces)));
    }
    let mut out = BytesMut::with_capacity(size / 2);
    while matches!(reader.read_buf(&mut out).await, Ok(read) if read > 0) {}
    Outgoing::Whole(out.freeze())
}

async fn pieces(
    reader: Option<Reader<'static>>,
) -> Option<(Result<Bytes, crate::response::StreamError>, Option<Reader<'static>>)> {
    let mut reader = reader?;
    let mut out = BytesMut::with_capacity(CHUNK);
    // Gathers a whole piece: encoders hand out what they have in small ones.
    while out.len() < CHUNK {
        match reader.read_buf(&mut (&mut out).limit(CHUNK)).await {
            Ok(0) => return (!out.is_empty()).then(|| (Ok(out.freeze()), None)),
            Ok(_) => {}
            Err(error) => return Some((Err(error.into()), None)),
        }
    }
    tokio::task::yield_now().await;
    Some((Ok(out.freeze()), Some(reader)))
}

fn compressible(headers: &HeaderMap) -> bool {
    // A strong validator names the bytes as the service made them.
    if headers.contains_key(CONTENT_ENCODING)
        || headers.contains_key(CONTENT_RANGE)
        || headers.contains_key(ETAG)
        || headers.get(CACHE_CONTROL).is_some_and(|v| v.to_str().is_ok_and(|t| t.contains("no-transform")))
    {
        return false;
    }
    let Some(media) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (media.starts_with("text/") && media != "text/event-stream")
        || media.ends_with("json")
        || media.ends_with("xml")
        || media.ends_with("javascript")
        || media == "application/x-ndjson"
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use http::HeaderName;
    use std::io::{Read, Write};

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    fn taken_off(coding: &str, body: Bytes, limit: usize) -> Result<Bytes, Failure> {
        run(decode(&headers(&[(CONTENT_ENCODING, coding)]), body, limit))
    }

    #[test]
    fn each_coding_is_taken_off() {
        let text = b"hello hello hello hello";
        assert_eq!(&taken_off("GZIP", gzip(text), 100).unwrap()[..], text);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(text).unwrap();
        assert_eq!(&taken_off("deflate", zlib.finish().unwrap().into(), 100).unwrap()[..], text);
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        raw.write_all(text).unwrap();
        assert_eq!(&taken_off("deflate", raw.finish().unwrap().into(), 100).unwrap()[..], text);
        for (coding, name) in [(Coding::Brotli, "br"), (Coding::Zstd, "zstd")] {
            let packed = run(async {
                let mut out = Vec::new();
                coding
                    .encoder(std::io::Cursor::new(Bytes::from_static(text)))
                    .read_to_end(&mut out)
                    .await
                    .unwrap();
                Bytes::from(out)
            });
            assert_eq!(&taken_off(name, packed, 100).unwrap()[..], text);
        }
        assert_eq!(&taken_off("identity", Bytes::from_static(text), 100).unwrap()[..], text);
    }

    #[test]
    fn the_limit_counts_decoded_bytes() {
        let bomb = gzip(&vec![0; 10_000_000]);
        assert!(bomb.len() < 20_000);
        assert_eq!(
            taken_off("gzip", bomb.clone(), 1_000_000).unwrap_err().kind,
            FailureKind::PayloadTooLarge
        );
        assert_eq!(taken_off("gzip", bomb, 10_000_000).unwrap().len(), 10_000_000);
    }

    #[test]
    fn wrong_codings_are_refused() {
        let kind = |coding, body| taken_off(coding, body, 100).unwrap_err().kind;
        assert_eq!(kind("lzma", "x".into()), FailureKind::UnsupportedMediaType);
        assert_eq!(kind("gzip, gzip", "x".into()), FailureKind::UnsupportedMediaType);
        assert_eq!(kind("gzip", "not gzip at all".into()), FailureKind::BadRequest);
        let cut = gzip(b"hello hello").slice(..12);
        assert_eq!(kind("gzip", cut), FailureKind::BadRequest);
    }

    #[test]
    fn the_client_chooses_the_coding() {
        let choose = |text: &str| Coding::choose(&text.parse().unwrap());
        assert_eq!(choose("gzip, deflate, br, zstd"), Some(Coding::Zstd));
        assert_eq!(choose("gzip;q=1, br;q=0.5"), Some(Coding::Gzip));
        assert_eq!(choose("br;q=0, identity"), None);
        assert_eq!(choose("*"), None);
        assert_eq!(accept_encoding(&HeaderMap::new()), None);
        let mut lines = headers(&[(ACCEPT_ENCODING, "gzip")]);
        lines.append(ACCEPT_ENCODING, "br".parse().unwrap());
        assert_eq!(accept_encoding(&lines).unwrap(), "gzip, br");
    }

    fn packed(size: usize, media: &str, coding: Option<Coding>) -> (HeaderMap, Vec<u8>) {
        let mut headers = headers(&[(CONTENT_TYPE, media)]);
        let policy = CompressionPolicy { enabled: true, min_bytes: 1000 };
        let body = Outgoing::Whole(Bytes::from(vec![b'a'; size]));
        let bytes = run(async {
            match compress(policy, coding, &mut headers, body).await {
                Outgoing::Whole(bytes) => bytes.to_vec(),
                Outgoing::Passed(_) => panic!("nobody else's answer"),
                Outgoing::Stream(pieces) => {
                    pieces.map(|piece| piece.unwrap().to_vec()).collect::<Vec<_>>().await.concat()
                }
            }
        });
        (headers, bytes)
    }

    #[test]
    fn replies_are_compressed_when_worth_it() {
        for size in [1000, 1_000_000] {
            let (headers, bytes) = packed(size, "application/json", Some(Coding::Gzip));
            assert_eq!(
                (&headers[CONTENT_ENCODING], &headers[VARY]),
                (&"gzip".parse().unwrap(), &"accept-encoding".parse().unwrap())
            );
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
            assert_eq!(text, vec![b'a'; size]);
        }
        for (size, media, coding) in [
            (999, "text/plain", Some(Coding::Gzip)),
            (1000, "image/png", Some(Coding::Gzip)),
            (1000, "text/event-stream", Some(Coding::Gzip)),
            (1000, "text/plain", None),
        ] {
            let (headers, bytes) = packed(size, media, coding);
            assert!(!headers.contains_key(CONTENT_ENCODING) && bytes.len() == size, "{size} {media}");
        }
    }
}
