//! XML for integrators: documents, schemas, descriptions of services, and the messages of SOAP.
//!
//! Layer 1. No I/O: bytes and text come in and go out. Nothing here follows a reference to another document,
//! defines an entity, or costs more than its [`Limits`] allow; what is compiled is then only read, by any
//! number of threads.
//!
//! | to … | see |
//! |---|---|
//! | read a document | [`decode`], [`Document`] |
//! | write one | [`Writer`] |
//! | map XML and JSON without a schema | [`untyped`] |
//! | map them by a schema | [`SchemaSet`], [`convert`] |
//! | make a schema of JSON Schema | [`xsd::SchemaWriter`] |
//! | find a value in a document | [`xpath`] |
//! | read or write the description of a service | [`wsdl`] |
//! | read or write messages of SOAP | [`soap`] |

mod attachment;
mod chars;
pub mod convert;
mod document;
mod encoding;
mod error;
mod lexical;
mod limits;
pub mod namespace;
pub mod soap;
mod sources;
pub mod untyped;
mod writer;
pub mod wsdl;
pub mod xpath;
pub mod xsd;

pub use attachment::Attachment;
pub use chars::{encode_name, is_ncname};
pub use document::{Attribute, Document, Element, Node};
pub use encoding::decode;
pub use error::{Reason, XmlError};
pub use limits::Limits;
pub use namespace::QName;
pub use sources::{DescriptionError, Resolver};
pub use writer::{Mark, Writer};
pub use wsdl::Wsdl;
pub use xsd::SchemaSet;
