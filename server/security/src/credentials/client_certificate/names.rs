//! Names in certificates: as text for people and services, and compared with what a definition wants.

use std::fmt::Write as _;
use std::net::IpAddr;

use crosstie_model::definition::{DistinguishedName, attribute_name};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::X509Name;

/// A name as RFC 4514 writes it: the most specific part first.
pub(super) fn text_of(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in name.iter_rdn() {
        let attributes: Vec<String> = part
            .iter()
            .map(|attribute| {
                let oid = attribute.attr_type().to_id_string();
                let value = match attribute.as_str() {
                    Ok(text) => escaped(text),
                    // Section 2.4 wants the encoding of what has no text.
                    Err(_) => format!("#{}", hex::encode(attribute.as_slice())),
                };
                format!("{}={value}", attribute_name(&oid).unwrap_or(&oid))
            })
            .collect();
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    parts.join(",")
}

/// RFC 4514, section 2.4.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let is_end = (c == ' ' && (index == 0 || index == last)) || (c == '#' && index == 0);
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            c if is_end => text.extend(['\\', c]),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\{byte:02x}");
                }
            }
            c => text.push(c),
        }
    }
    text
}

/// The common name, if there is one.
pub(super) fn common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    name.iter_common_name().next().and_then(|attribute| attribute.as_str().ok())
}

/// The other names of a certificate that a definition can ask for.
pub(super) fn sans_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(text) => Some(format!("dns:{text}")),
            GeneralName::RFC822Name(text) => Some(format!("email:{text}")),
            GeneralName::URI(text) => Some(format!("uri:{text}")),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| format!("ip:{address}")),
            _ => None,
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A distinguished name that a definition wants: attributes by object identifier with their values.
#[derive(Debug)]
pub(super) struct WantedName(Vec<(String, String)>);

impl WantedName {
    pub(super) fn new(name: &DistinguishedName) -> Self {
        Self(name.attributes().map(|(oid, value)| (oid.to_owned(), value.to_owned())).collect())
    }

    /// Whether `name` has every attribute with its value.
    pub(super) fn matches(&self, name: &X509Name<'_>) -> bool {
        self.0.iter().all(|(oid, value)| {
            name.iter_attributes().any(|attribute| {
                attribute.attr_type().to_id_string() == *oid
                    && attribute.as_str().is_ok_and(|text| text == value)
            })
        })
    }
}

/// Another name that a definition wants.
#[derive(Debug)]
pub(super) struct WantedSan(String);

impl WantedSan {
    pub(super) fn new(text: &str) -> Self {
        Self(normal(text))
    }

    /// Whether `san`, as [`sans_of`] writes it, is this one.
    pub(super) fn matches(&self, san: &str) -> bool {
        normal(san) == self.0
    }
}

/// Host names do not differ by case, and addresses are written in one way.
fn normal(san: &str) -> String {
    match san.split_once(':') {
        Some(("dns", _)) => san.to_ascii_lowercase(),
        Some(("ip", text)) => text.parse().map_or(san.to_owned(), |address: IpAddr| format!("ip:{address}")),
        _ => san.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_means_something_in_a_name_is_escaped() {
        for (value, text) in [
            ("Acme, Inc.", "Acme\\, Inc."),
            (" a ", "\\ a\\ "),
            ("#1", "\\#1"),
            ("a#1=b", "a#1=b"),
            ("a\0b\n", "a\\00b\\0a"),
            ("\"+;<>\\", "\\\"\\+\\;\\<\\>\\\\"),
            ("Ünï", "Ünï"),
        ] {
            assert_eq!(escaped(value), text);
        }
    }

    #[test]
    fn other_names_are_compared_as_they_are_meant() {
        assert!(WantedSan::new("dns:Shop.Example").matches("dns:shop.example"));
        assert!(WantedSan::new("ip:2001:db8:0::1").matches("ip:2001:db8::1"));
        assert!(WantedSan::new("uri:spiffe://a/B").matches("uri:spiffe://a/B"));
        for other in ["uri:spiffe://a/b", "dns:spiffe://a/B", "uri:spiffe://a/B/c"] {
            assert!(!WantedSan::new("uri:spiffe://a/B").matches(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn an_escaped_value_has_no_bare_separator(value in "\\PC{0,30}") {
            let text = escaped(&value);
            let mut escaping = false;
            for c in text.chars() {
                prop_assert!(escaping || !",+;<>\"".contains(c), "{}", text);
                escaping = c == '\\' && !escaping;
            }
        }
    }
}
