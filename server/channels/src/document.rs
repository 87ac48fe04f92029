//! A generated document of one snapshot: made when it is first asked for, kept as long as the routes that hold
//! it. OpenAPI's and the JSON-RPC channels' are such documents.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use crosstie_model::Failure;
use serde_json::Value;

use crate::aside::aside;

/// How a document is made.
type Make = Box<dyn Fn() -> Value + Send + Sync>;

/// One document.
pub(crate) struct Document {
    make: Make,
    made: OnceLock<Bytes>,
}

impl Document {
    pub(crate) fn new(make: impl Fn() -> Value + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { make: Box::new(make), made: OnceLock::new() })
    }

    /// The document as JSON text.
    ///
    /// # Errors
    /// 500 when it could not be made.
    pub(crate) async fn text(self: &Arc<Self>) -> Result<Bytes, Failure> {
        if let Some(known) = self.made.get() {
            return Ok(known.clone());
        }
        let document = Arc::clone(self);
        // Milliseconds for thousands of channels: not the reactor's work.
        aside(move || document.made.get_or_init(|| (document.make)().to_string().into()).clone()).await
    }
}
