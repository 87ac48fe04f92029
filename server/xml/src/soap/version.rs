//! What differs between the two versions everywhere.

/// A version of SOAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// SOAP 1.1 (W3C Note, 2000).
    V11,
    /// SOAP 1.2 (W3C Recommendation, second edition, 2007).
    V12,
}

impl Version {
    /// Both, the older first.
    pub const ALL: [Self; 2] = [Self::V11, Self::V12];

    /// The namespace of its envelope.
    #[must_use]
    pub fn namespace(self) -> &'static str {
        match self {
            Self::V11 => "http://schemas.xmlsoap.org/soap/envelope/",
            Self::V12 => "http://www.w3.org/2003/05/soap-envelope",
        }
    }

    /// The version whose envelopes are in `namespace`.
    #[must_use]
    pub fn of_namespace(namespace: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.namespace() == namespace)
    }

    /// The media type of its messages over HTTP.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::V11 => "text/xml",
            Self::V12 => "application/soap+xml",
        }
    }

    /// The namespace of its binding in WSDL 1.1.
    #[must_use]
    pub fn binding_namespace(self) -> &'static str {
        match self {
            Self::V11 => "http://schemas.xmlsoap.org/wsdl/soap/",
            Self::V12 => "http://schemas.xmlsoap.org/wsdl/soap12/",
        }
    }
}
