//! Transformation of XML by stylesheets: XSLT 1.0 with parts of EXSLT, by libxslt.
//!
//! Layer 1. A stylesheet is compiled once ([`Sheet::open`]) and then used by any number of transformations at once,
//! each on a thread of its own kind ([`threads`]): libxslt is written in C, recurses as deep as stylesheets do, and
//! is not to be waited for on a reactor. What a transformation may cost in time, depth and memory is bounded, and it
//! reaches nothing but what it is given: see `libxslt.c`, which is all that is unsafe here together with the
//! functions that call it.
//!
//! Documents and stylesheets are read by [`crosstie_xml`] first, which refuses what is malformed, defines entities
//! or is beyond its limits, and says where. libxml2 reads only what passed.

mod check;
mod libxslt;
mod report;
mod sheet;
mod threads;

pub use sheet::{Sheet, faults};
