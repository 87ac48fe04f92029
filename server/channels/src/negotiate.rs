//! Content negotiation for replies (RFC 9110, section 12.5.1): JSON or XML.

use crosstie_model::definition::DataFormat;
use http::HeaderMap;
use http::header::ACCEPT;

/// A format a structured reply can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Xml,
}

/// What the client makes of the formats a channel offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// This one is best.
    Take(Format),
    /// None is acceptable: 406, unless the service chooses a media type itself.
    Nothing,
}

/// Chooses for a channel that insists on `format`, or on none.
pub(crate) fn choose(headers: &HeaderMap, format: Option<DataFormat>) -> Choice {
    let offered: &[Format] = match format {
        None => &[Format::Json, Format::Xml],
        Some(DataFormat::Xml) => &[Format::Xml],
        Some(DataFormat::Json | DataFormat::Form) => &[Format::Json],
        // Whatever the service makes is sent as it is.
        Some(DataFormat::Raw) => return Choice::Take(Format::Json),
    };
    let first = offered.first().copied().unwrap_or(Format::Json);
    let Some(accept) = headers.get(ACCEPT) else { return Choice::Take(first) };
    if accept.as_bytes() == b"*/*" || (first == Format::Json && accept.as_bytes() == b"application/json") {
        return Choice::Take(first);
    }
    let mut best: Option<(u16, Format)> = None;
    for format in offered {
        let quality = quality_of(headers, *format);
        if quality > 0 && best.is_none_or(|(known, _)| quality > known) {
            best = Some((quality, *format));
        }
    }
    best.map_or(Choice::Nothing, |(_, format)| Choice::Take(format))
}

fn quality_of(headers: &HeaderMap, format: Format) -> u16 {
    let names: [&str; 2] = match format {
        Format::Json => ["application/json", "text/json"],
        Format::Xml => ["application/xml", "text/xml"],
    };
    // The most specific range that covers the format decides.
    let mut found: Option<(u8, u16)> = None;
    let lines = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for item in lines.flat_map(|line| line.split(',')) {
        let (range, quality) = with_quality(item);
        let specificity = if names.iter().any(|name| range.eq_ignore_ascii_case(name)) {
            2
        } else if range.eq_ignore_ascii_case("application/*") {
            1
        } else if range == "*/*" {
            0
        } else {
            continue;
        };
        if found.is_none_or(|(known, _)| specificity > known) {
            found = Some((specificity, quality));
        }
    }
    found.map_or(0, |(_, quality)| quality)
}

/// One item of a list with its `q` in thousandths (RFC 9110, section 12.4.2). Other parameters are passed
/// over; a `q` that is none counts as 0.
pub(crate) fn with_quality(item: &str) -> (&str, u16) {
    let mut parts = item.split(';');
    let token = parts.next().unwrap_or_default().trim();
    let mut quality = 1000;
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case("q") {
            quality = thousandths(value.trim());
        }
    }
    (token, quality)
}

fn thousandths(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    match (whole, digits) {
        ("1", true) => 1000,
        ("0", true) => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: Option<&str>, format: Option<DataFormat>) -> Choice {
        let headers = accept.map(|text| (ACCEPT, text.parse().unwrap())).into_iter().collect();
        choose(&headers, format)
    }

    #[test]
    fn the_client_chooses_among_what_is_offered() {
        use Choice::{Nothing, Take};
        use Format::{Json, Xml};
        assert_eq!(chosen(None, None), Take(Json));
        assert_eq!(chosen(Some("*/*"), None), Take(Json));
        assert_eq!(chosen(Some("application/xml"), None), Take(Xml));
        assert_eq!(chosen(Some("text/html, application/xml;q=0.9, */*;q=0.8"), None), Take(Xml));
        assert_eq!(chosen(Some("application/json;q=0.5, text/xml;q=0.6"), None), Take(Xml));
        assert_eq!(chosen(Some("application/*;q=0.1, application/json;q=0"), None), Take(Xml));
        assert_eq!(chosen(Some("text/html"), None), Nothing);
        assert_eq!(chosen(Some("application/json"), Some(DataFormat::Xml)), Nothing);
        assert_eq!(chosen(Some("image/png"), Some(DataFormat::Raw)), Take(Json));
    }

    #[test]
    fn quality_is_read_in_thousandths() {
        assert_eq!(with_quality(" gzip ; q=0.25"), ("gzip", 250));
        assert_eq!(with_quality("a/b;level=1;Q=1.000"), ("a/b", 1000));
        assert_eq!(with_quality("x;q=2").1, 0);
        assert_eq!(with_quality("x;q=0.1234").1, 0);
    }
}
