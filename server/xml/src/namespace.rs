//! Names with namespaces, and the namespaces that standards fix.

use std::fmt;
use std::sync::Arc;

/// `xml:`, bound in every document.
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// `xmlns:`, which declares the others.
pub const XMLNS: &str = "http://www.w3.org/2000/xmlns/";
/// XML Schema.
pub const XSD: &str = "http://www.w3.org/2001/XMLSchema";
/// Attributes of XML Schema in documents: `xsi:nil`, `xsi:type`.
pub const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// A name in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QName {
    /// The namespace; empty when the name is in none.
    pub namespace: Arc<str>,
    /// The name without prefix.
    pub local: Arc<str>,
}

impl QName {
    /// The name `local` in `namespace`, which is empty for none.
    #[must_use]
    pub fn new(namespace: impl Into<Arc<str>>, local: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), local: local.into() }
    }

    /// Whether this is the name `local` in `namespace`.
    #[must_use]
    pub fn is(&self, namespace: &str, local: &str) -> bool {
        *self.local == *local && *self.namespace == *namespace
    }
}

/// `{namespace}local`, or `local` alone when it is in none.
impl fmt::Display for QName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{{{}}}", self.namespace)?;
        }
        f.write_str(&self.local)
    }
}
