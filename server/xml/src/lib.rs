//! XML for integrators: reading and writing it safely.
//!
//! Layer 1. No I/O: bytes and text come in and go out. Nothing here follows a reference to another document,
//! defines an entity, or costs more than its [`Limits`] allow.

mod chars;
mod document;
mod encoding;
mod error;
mod limits;
pub mod namespace;
mod writer;

pub use chars::{encode_name, is_ncname};
pub use document::{Attribute, Document, Element, Node};
pub use encoding::decode;
pub use error::{Reason, XmlError};
pub use limits::Limits;
pub use namespace::QName;
pub use writer::{Mark, Writer};
