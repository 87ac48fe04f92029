//! SOAP 1.1 and 1.2.

mod version;

pub use version::Version;
