//! Questions to other systems from crates that may not import the one that asks them: authenticators fetch the
//! keys of issuers and ask authorization servers about tokens.

use std::fmt;
use std::sync::Arc;

use crate::definition::{DefinitionName, HttpEndpoint};
use crate::outgoing::HttpOutgoing;
use crate::snapshot::Snapshot;

/// Opens ways to other systems.
pub trait Inquiries: Send + Sync + fmt::Debug {
    /// A way to `endpoint`, called `name` in metrics and traces. `snapshot` holds the secrets that its TLS refers
    /// to. Makes no connection: the first question does.
    ///
    /// # Errors
    /// What it is made of cannot be used; fit for a report.
    fn open(
        &self,
        name: &DefinitionName,
        endpoint: &HttpEndpoint,
        snapshot: &Snapshot,
    ) -> Result<Arc<dyn HttpOutgoing>, String>;
}

/// Asks nobody: for processes that check no such credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoInquiries;

impl Inquiries for NoInquiries {
    fn open(
        &self,
        _: &DefinitionName,
        _: &HttpEndpoint,
        _: &Snapshot,
    ) -> Result<Arc<dyn HttpOutgoing>, String> {
        Err("this process asks no other systems".to_owned())
    }
}
