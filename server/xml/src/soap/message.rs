//! Messages as they come and go over HTTP: a plain envelope, or one with attachments (MTOM, SwA).

use bytes::Bytes;

use super::Version;
use super::media_type::MediaType;
use super::multipart::{self, MultipartError, MultipartLimits, Part};
use crate::attachment::Attachment;
use crate::document::Document;
use crate::encoding::decode;
use crate::error::XmlError;
use crate::limits::Limits;

const XOP: &str = "application/xop+xml";
const ROOT: &str = "envelope@crosstie";

/// A message as it was received, before its envelope is read.
#[derive(Debug, Clone)]
pub struct Received {
    /// The version that its media type speaks of; the envelope itself decides.
    pub version: Option<Version>,
    /// What the transport says the message is for: `SOAPAction`, or the `action` of the media type. Empty text
    /// counts as nothing.
    pub action: Option<String>,
    /// What stands beside the envelope.
    pub attachments: Vec<Attachment>,
    envelope: Bytes,
    charset: Option<String>,
}

/// A message that cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Its media type is none of SOAP.
    #[error("the media type {0:?} is none of SOAP: use text/xml, application/soap+xml or multipart/related")]
    MediaType(String),
    /// It has parts, and they are not put together as it says.
    #[error(transparent)]
    Multipart(#[from] MultipartError),
}

impl Received {
    /// Takes a message apart, by the values of its `Content-Type` and `SOAPAction` header fields. Attachments
    /// are not copied.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn new(
        content_type: &str,
        soap_action: Option<&str>,
        body: &Bytes,
        limits: &MultipartLimits,
    ) -> Result<Self, MessageError> {
        let outer = MediaType::parse(content_type);
        let (inner, envelope, attachments) = if outer.essence == "multipart/related" {
            let (root, attachments) = multipart::parse(&outer, body, limits)?;
            (root.media_type, root.content, attachments)
        } else {
            (outer.clone(), body.clone(), Vec::new())
        };
        // An XOP package says in its `type`, and the message in its `start-info`, what the envelope is.
        let essence = match inner.essence.as_str() {
            XOP => inner.parameter("type").or(outer.parameter("start-info")).unwrap_or("text/xml"),
            other => other,
        };
        let version = match MediaType::parse(essence).essence.as_str() {
            "text/xml" => Some(Version::V11),
            "application/soap+xml" => Some(Version::V12),
            "application/xml" => None,
            other => return Err(MessageError::MediaType(other.chars().take(80).collect())),
        };
        let in_media_type = inner.parameter("action").or(outer.parameter("action"));
        let nested = MediaType::parse(essence);
        let action = soap_action
            .map(|action| action.trim().trim_matches('"'))
            .filter(|action| !action.is_empty())
            .or(in_media_type)
            .or(nested.parameter("action"));
        Ok(Self {
            version,
            action: action.filter(|action| !action.is_empty()).map(str::to_owned),
            attachments,
            charset: inner.parameter("charset").map(str::to_owned),
            envelope,
        })
    }

    /// The envelope as a document.
    ///
    /// # Errors
    /// It is no XML, or passes one of the `limits`.
    pub fn document(&self, limits: &Limits) -> Result<Document<'_>, XmlError> {
        Document::parse(decode(&self.envelope, self.charset.as_deref())?, limits)
    }
}

/// A message to be sent.
#[derive(Debug)]
pub struct Package {
    /// The value of its `Content-Type` field.
    pub content_type: String,
    /// The value of its `SOAPAction` field, which only SOAP 1.1 has, and requests only.
    pub soap_action: Option<String>,
    /// Its body, in pieces.
    pub body: Vec<Bytes>,
}

impl Package {
    /// A message with an envelope alone, or with attachments as an XOP package (MTOM). `action` is for requests;
    /// `boundary` is only used with attachments, and should be random.
    #[must_use]
    pub fn new(
        version: Version,
        action: Option<&str>,
        envelope: String,
        attachments: &[Attachment],
        boundary: &str,
    ) -> Self {
        let soap_action = match version {
            Version::V11 => action.map(|action| {
                let clean: String = action.chars().filter(|c| !c.is_control() && *c != '"').collect();
                format!("\"{clean}\"")
            }),
            Version::V12 => None,
        };
        let in_media_type = action.filter(|action| version == Version::V12 && !action.is_empty());
        let with_action = |media_type: MediaType| match in_media_type {
            Some(action) => media_type.with("action", action),
            None => media_type,
        };
        if attachments.is_empty() {
            let media_type = with_action(MediaType::new(version.media_type()).with("charset", "utf-8"));
            // No quotes where none are needed: some read them as part of the name.
            let content_type = media_type.to_string().replacen("charset=\"utf-8\"", "charset=utf-8", 1);
            return Self { content_type, soap_action, body: vec![envelope.into()] };
        }
        let root = Part {
            content_id: ROOT.to_owned(),
            media_type: MediaType::new(XOP).with("charset", "UTF-8").with("type", version.media_type()),
            content: envelope.into(),
        };
        let (boundary, body) = multipart::build(&root, attachments, boundary);
        let media_type = MediaType::new("multipart/related")
            .with("type", XOP)
            .with("start", &format!("<{ROOT}>"))
            .with("start-info", version.media_type())
            .with("boundary", &boundary);
        Self { content_type: with_action(media_type).to_string(), soap_action, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVELOPE: &str = "<Envelope xmlns=\"http://www.w3.org/2003/05/soap-envelope\"><Body/></Envelope>";

    fn received(
        content_type: &str,
        soap_action: Option<&str>,
        body: &[u8],
    ) -> Result<Received, MessageError> {
        Received::new(content_type, soap_action, &Bytes::copy_from_slice(body), &MultipartLimits::default())
    }

    #[test]
    fn version_and_action_are_told_by_the_transport() {
        let read = |content_type, soap_action| {
            let received = received(content_type, soap_action, ENVELOPE.as_bytes()).unwrap();
            assert!(received.document(&Limits::default()).is_ok());
            (received.version, received.action)
        };
        let (old, new) = (Some(Version::V11), Some(Version::V12));
        assert_eq!(read("text/xml; charset=utf-8", Some("\"urn:a\"")), (old, Some("urn:a".into())));
        assert_eq!(read("TEXT/XML", Some("\"\"")), (old, None));
        assert_eq!(read("application/soap+xml; action=\"urn:b\"", None), (new, Some("urn:b".into())));
        assert_eq!(read("application/xml", None), (None, None));
        assert!(matches!(received("application/json", None, b"{}"), Err(MessageError::MediaType(_))));
        assert!(matches!(received("multipart/related", None, b""), Err(MessageError::Multipart(_))));
    }

    #[test]
    fn the_charset_of_the_protocol_counts() {
        let latin = "<?xml version='1.0'?><é/>"
            .chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect::<Vec<_>>();
        let received = received("text/xml; charset=ISO-8859-1", None, &latin).unwrap();
        assert_eq!(received.document(&Limits::default()).unwrap().root().local(), "é");
    }

    #[test]
    fn plain_messages_have_the_fields_of_their_version() {
        let old = Package::new(Version::V11, Some("urn:\"a\r\n"), ENVELOPE.into(), &[], "");
        assert_eq!(
            (old.content_type.as_str(), old.soap_action.as_deref()),
            ("text/xml; charset=utf-8", Some("\"urn:a\""))
        );
        let new = Package::new(Version::V12, Some("urn:a"), ENVELOPE.into(), &[], "");
        assert_eq!(new.content_type, "application/soap+xml; charset=utf-8; action=\"urn:a\"");
        assert_eq!((new.soap_action, new.body.len()), (None, 1));
        assert_eq!(Package::new(Version::V11, None, String::new(), &[], "").soap_action, None);
    }

    #[test]
    fn packages_are_read_as_they_were_made() {
        let attachments = [Attachment {
            content_id: "a@b".into(),
            content_type: "image/png".into(),
            content: vec![0, 255].into(),
        }];
        for version in Version::ALL {
            let package =
                Package::new(version, Some("urn:a"), ENVELOPE.into(), &attachments, "0123456789abcdef");
            let read =
                received(&package.content_type, package.soap_action.as_deref(), &package.body.concat())
                    .unwrap();
            assert_eq!((read.version, read.action.as_deref()), (Some(version), Some("urn:a")));
            assert_eq!(read.attachments, attachments);
            assert_eq!(read.document(&Limits::default()).unwrap().source(), ENVELOPE);
        }
    }
}
