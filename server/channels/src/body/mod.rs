//! Request bodies: read within limits, freed of content codings, decoded by media type.
//!
//! Decoding is synchronous and pure, `bytes in, Payload or Failure out`; large bodies are decoded on a
//! blocking thread so that the reactor stays free.

pub mod coding;
mod coerce;
pub mod decode;
pub mod media;
pub mod multipart;
pub mod pairs;
mod patient;
pub(crate) mod read;
pub mod xml;

pub use patient::PatientBody;
pub(crate) use patient::{FAREWELL, SILENCE};
