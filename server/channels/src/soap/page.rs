//! The description of a SOAP channel by GET: `?wsdl`, and `?xsd=LOCATION` for the documents that it imports.

use std::sync::LazyLock;

use crosstie_model::definition::WsdlDefinition;
use crosstie_model::message::HttpRequest;
use crosstie_model::{Failure, FailureKind, Origin};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderValue, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Soap;
use super::description::Source;
use crate::entrance::EntranceKind;
use crate::response::Outgoing;

/// What a location keeps in a query.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'/');

/// Attributes that refer to other documents, as they are written.
static REFERENCES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let names = ["schemaLocation", "location"];
    names.iter().flat_map(|name| ["\"", "'"].map(|quote| format!("{name}={quote}"))).collect()
});

/// Scheme and authority that the client knows the server by; nothing for other kinds of channels.
pub(crate) fn base(kind: &EntranceKind, head: &Parts, secure: bool) -> String {
    if !matches!(kind, EntranceKind::Soap(_)) {
        return String::new();
    }
    let host = head.headers.get(HOST).and_then(|value| value.to_str().ok());
    let authority = host.or(head.uri.authority().map(http::uri::Authority::as_str)).unwrap_or("localhost");
    format!("{}://{authority}", if secure { "https" } else { "http" })
}

/// Answers a GET. `base` is what [`base`] made of the request.
///
/// # Errors
/// 404 for anything but the description and its documents.
pub(crate) fn page(channel: &Soap, http: &HttpRequest, base: &str) -> Result<Response<Outgoing>, Failure> {
    let asked = |name: &str| {
        let mut query = http.query.iter();
        query.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    };
    let address = format!("{base}{}", http.path);
    let text = match (&channel.compiled.source, asked("wsdl"), asked("xsd")) {
        (Source::Declared(description), Some(_), _) => Some(description.document(&address)),
        (Source::Written(wsdl), Some(_), _) => {
            Some(placed(channel, wsdl, WsdlDefinition::LOCATION, &address))
        }
        (Source::Written(wsdl), None, Some(location)) if wsdl.documents.contains_key(location) => {
            Some(placed(channel, wsdl, location, &address))
        }
        _ => None,
    };
    let text = text.ok_or_else(|| {
        Failure::new(FailureKind::NotFound, Origin::Client)
            .with_text("This is a SOAP endpoint: messages come by POST, its description is at ?wsdl")
    })?;
    let mut response = Response::new(Outgoing::Whole(text.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

/// A document of somebody else's description, with the service's address and the places of its other documents as
/// they are here.
fn placed(channel: &Soap, wsdl: &WsdlDefinition, location: &str, address: &str) -> String {
    let text = wsdl.document(location).unwrap_or_default();
    // What is given out is UTF-8, whatever the document says of itself.
    let text = without_declaration(text);
    let own = channel.compiled.addresses();
    let mut out = String::with_capacity(text.len() + 256);
    let mut rest = text;
    while let Some((before, name, after)) = next_reference(rest) {
        let quote = if name.ends_with('"') { '"' } else { '\'' };
        let Some((value, tail)) = after.split_once(quote) else { break };
        out.push_str(before);
        out.push_str(name);
        let document = resolve(location, value.trim());
        let value = if own.contains(&value.trim()) {
            escape(address)
        } else if wsdl.documents.contains_key(&document) {
            format!("{}?xsd={}", escape(address), utf8_percent_encode(&document, KEPT))
        } else {
            value.to_owned()
        };
        out.push_str(&value);
        out.push(quote);
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn without_declaration(text: &str) -> &str {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    match text.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")) {
        Some((_, rest)) => rest.trim_start(),
        None => text,
    }
}

/// The next attribute that refers to a document: what stands before it, its name up to the quote, and the rest.
fn next_reference(text: &str) -> Option<(&str, &str, &str)> {
    let found = REFERENCES.iter().filter_map(|name| Some((text.find(name.as_str())?, name.len())));
    let (at, length) = found.min()?;
    Some((text.get(..at)?, text.get(at..at + length)?, text.get(at + length..)?))
}

/// Where `reference` in the document at `base` leads to.
fn resolve(base: &str, reference: &str) -> String {
    if reference.contains("://") || reference.starts_with('/') {
        return reference.to_owned();
    }
    let mut segments: Vec<&str> = base.split('/').collect();
    segments.pop();
    for segment in reference.split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    segments.join("/")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_refer_to_each_other_relative_to_where_they_are() {
        assert_eq!(resolve("service.wsdl", "a.xsd"), "a.xsd");
        assert_eq!(resolve("sub/a.wsdl", "../b/./c.xsd"), "b/c.xsd");
        assert_eq!(resolve("sub/a.wsdl", "http://x/y.xsd"), "http://x/y.xsd");
    }

    #[test]
    fn references_are_found_in_their_order() {
        let text = "<a location='1'/><b schemaLocation=\"2\"/>";
        let (before, name, after) = next_reference(text).unwrap();
        assert_eq!((before, name), ("<a ", "location='"));
        let (before, name, _) = next_reference(after).unwrap();
        assert_eq!((before, name), ("1'/><b ", "schemaLocation=\""));
        assert!(next_reference("<a/>").is_none());
    }
}
