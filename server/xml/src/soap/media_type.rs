//! Media types with their parameters, as lenient as senders of SOAP need it.

use std::fmt;

/// How many parameters are looked at.
const MAX_PARAMETERS: usize = 32;

/// A media type, such as `multipart/related; boundary="x"` (RFC 9110, section 8.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType {
    /// Type and subtype in small letters.
    pub essence: String,
    /// Its parameters: names in small letters, values without quotes.
    pub parameters: Vec<(String, String)>,
}

impl MediaType {
    /// A media type without parameters.
    #[must_use]
    pub fn new(essence: &str) -> Self {
        Self { essence: essence.to_ascii_lowercase(), parameters: Vec::new() }
    }

    /// Reads the value of a `Content-Type` field. Values that should be quoted and are not are taken up to the
    /// next semicolon: senders write boundaries and ids that way.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (essence, mut rest) = text.split_once(';').unwrap_or((text, ""));
        let mut media_type = Self::new(essence.trim());
        while media_type.parameters.len() < MAX_PARAMETERS {
            rest = rest.trim_start_matches([';', ' ', '\t', '\r', '\n']);
            let Some((name, value)) = rest.split_once('=') else { break };
            let value = value.trim_start();
            let (value, after) = match value.strip_prefix('"') {
                Some(quoted) => unquoted(quoted),
                None => {
                    let (value, after) = value.split_once(';').unwrap_or((value, ""));
                    (value.trim_end().to_owned(), after)
                }
            };
            media_type.parameters.push((name.trim().to_ascii_lowercase(), value));
            rest = after;
        }
        media_type
    }

    /// The value of a parameter, the first if it is there twice.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The same with a parameter more.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The text up to the closing quote, and what follows it.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return (value, characters.as_str()),
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    (value, "")
}

/// Every value in quotes, which all readers understand; nothing that could end the field.
impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.essence)?;
        for (name, value) in &self.parameters {
            write!(f, "; {name}=\"")?;
            for character in value.chars().filter(|c| !c.is_control()) {
                if matches!(character, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{character}")?;
            }
            f.write_str("\"")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_however_they_are_written() {
        let media_type = MediaType::parse(
            "Multipart/Related; Type=\"application/xop+xml\";start=<a@b>; boundary=----=_Part_1:2 ;start-info=\"a\\\"b;c\"",
        );
        assert_eq!(media_type.essence, "multipart/related");
        assert_eq!(media_type.parameter("type"), Some("application/xop+xml"));
        assert_eq!(media_type.parameter("start"), Some("<a@b>"));
        assert_eq!(media_type.parameter("boundary"), Some("----=_Part_1:2"));
        assert_eq!(media_type.parameter("start-info"), Some("a\"b;c"));
        assert_eq!(media_type.parameter("none"), None);
        for odd in ["", ";", "a/b;", "a/b;=", "a/b; x", "a/b; x=\"", "a/b; x=\"\\"] {
            let again = MediaType::parse(&MediaType::parse(odd).to_string());
            assert_eq!(again, MediaType::parse(odd), "{odd}");
        }
    }

    #[test]
    fn what_is_written_ends_no_field() {
        let text = MediaType::new("text/xml").with("action", "urn:\r\nX: \"y\\").to_string();
        assert_eq!(text, "text/xml; action=\"urn:X: \\\"y\\\\\"");
        assert_eq!(MediaType::parse(&text).parameter("action"), Some("urn:X: \"y\\"));
    }
}
