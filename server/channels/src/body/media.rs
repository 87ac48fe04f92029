//! What a Content-Type says, reduced to what decoding needs (RFC 9110, section 8.3).

use http::HeaderValue;

/// A request body's media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// No Content-Type.
    Absent,
    /// `application/json`, `text/json`, `…+json`.
    Json,
    /// `application/xml`, `text/xml`, `…+xml`.
    Xml,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `multipart/form-data` with its boundary; empty when it names none.
    Multipart(String),
    /// Any other `text/*`.
    Text(Charset),
    /// `application/octet-stream`.
    Octets,
    /// Something else, or not parseable.
    Other,
}

/// A character encoding bodies may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8, or its subset US-ASCII.
    Utf8,
    /// ISO-8859-1.
    Latin1,
}

impl Media {
    /// Reads a Content-Type. A charset other than UTF-8 makes structured types [`Media::Other`]: JSON has no
    /// other (RFC 8259, section 8.1), and for the rest one is enough.
    #[must_use]
    pub fn of(content_type: Option<&HeaderValue>) -> Self {
        let Some(value) = content_type else { return Self::Absent };
        // What nearly every client sends, without a parse.
        if value.as_bytes() == b"application/json" {
            return Self::Json;
        }
        let parsed = value.to_str().ok().and_then(|text| text.parse::<mime::Mime>().ok());
        let Some(media) = parsed else { return Self::Other };
        let charset = media.get_param(mime::CHARSET).map(|name| name.as_str().to_ascii_lowercase());
        let charset = match charset.as_deref() {
            None | Some("utf-8" | "utf8" | "us-ascii") => Charset::Utf8,
            Some("iso-8859-1" | "latin1") => Charset::Latin1,
            Some(_) => return Self::Other,
        };
        let structured = |this: Self| if charset == Charset::Utf8 { this } else { Self::Other };
        let suffix = media.suffix().map(|suffix| suffix.as_str());
        match (media.type_().as_str(), media.subtype().as_str()) {
            ("application" | "text", "json") => structured(Self::Json),
            ("application" | "text", "xml") => structured(Self::Xml),
            ("application", "x-www-form-urlencoded") => structured(Self::Form),
            ("multipart", "form-data") => {
                let boundary = media.get_param(mime::BOUNDARY).map_or("", |name| name.as_str());
                Self::Multipart(boundary.to_owned())
            }
            _ if suffix == Some("json") => structured(Self::Json),
            _ if suffix == Some("xml") => structured(Self::Xml),
            ("text", _) => Self::Text(charset),
            ("application", "octet-stream") => Self::Octets,
            _ => Self::Other,
        }
    }
}

/// The charset that a Content-Type names, as it is written there.
pub(crate) fn charset(content_type: Option<&HeaderValue>) -> Option<String> {
    let media: mime::Mime = content_type?.to_str().ok()?.parse().ok()?;
    media.get_param(mime::CHARSET).map(|charset| charset.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_told_apart() {
        let of = |text: &str| Media::of(Some(&HeaderValue::from_str(text).unwrap()));
        assert_eq!(Media::of(None), Media::Absent);
        assert_eq!(of("application/json"), Media::Json);
        assert_eq!(of("Application/JSON; charset=UTF-8"), Media::Json);
        assert_eq!(of("application/vnd.api+json"), Media::Json);
        assert_eq!(of("application/json; charset=utf-16"), Media::Other);
        assert_eq!(of("text/xml"), Media::Xml);
        assert_eq!(of("application/atom+xml"), Media::Xml);
        assert_eq!(of("application/x-www-form-urlencoded"), Media::Form);
        assert_eq!(of("multipart/form-data; boundary=\"x y\""), Media::Multipart("x y".into()));
        assert_eq!(of("multipart/form-data"), Media::Multipart(String::new()));
        assert_eq!(of("text/plain; charset=iso-8859-1"), Media::Text(Charset::Latin1));
        assert_eq!(of("application/octet-stream"), Media::Octets);
        assert_eq!(of("image/png"), Media::Other);
        assert_eq!(of("nonsense"), Media::Other);
    }
}
