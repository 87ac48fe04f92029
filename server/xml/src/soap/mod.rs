//! SOAP 1.1 and 1.2: envelopes, faults, the headers that every toolkit sends, and attachments.
//!
//! A message goes through here in steps, each of which can be had alone: [`Received`] takes it apart as it
//! comes over HTTP, [`Envelope`] reads headers and body, [`Addressing`] and [`UsernameToken`] read what stands
//! in headers, [`write_envelope`] and [`Package`] make a message.

pub mod addressing;
mod envelope;
mod fault;
mod media_type;
mod message;
mod multipart;
pub mod security;
mod version;

pub use addressing::{Addressing, AddressingError, Endpoint};
pub use envelope::{Envelope, EnvelopeError, HeaderBlock, Target, must_understand, write_envelope};
pub use fault::{Detail, FaultCode, SoapFault, write_fault_detail, write_not_understood, write_upgrade};
pub use media_type::MediaType;
pub use message::{MessageError, Package, Received};
pub use multipart::{MultipartError, MultipartLimits};
pub use security::{Password, SecurityError, Timestamp, UsernameToken};
pub use version::Version;
