//! Asking an outgoing's other end for a sign of life.

use std::time::{Duration, Instant};

use crosstie_model::TraceContext;
use crosstie_model::definition::DefinitionName;
use crosstie_model::outgoing::{OutgoingError, Ping, Pong};
use schemars::JsonSchema;
use serde::Serialize;

use super::{OperationError, Operations};

/// How long a ping may take; the outgoing's own deadline counts where it is earlier.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of a ping.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PingView {
    /// The outgoing.
    pub outgoing: DefinitionName,
    /// Its type.
    pub r#type: String,
    /// Whether calls may be expected to work.
    pub ok: bool,
    /// What the other system said, or what went wrong.
    pub detail: String,
    /// What went wrong, in a word; absent when nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took, in milliseconds.
    pub elapsed_ms: f64,
}

impl Operations {
    /// Pings the other end of an outgoing from this server, whatever its circuit says.
    ///
    /// # Errors
    /// There is no such outgoing here.
    pub async fn ping(&self, name: &DefinitionName, trace: TraceContext) -> Result<PingView, OperationError> {
        let found = self.host().services().outgoing(name.as_str());
        let found = found.ok_or_else(|| OperationError::NotFound(format!("outgoing/{name}")))?;
        let started = Instant::now();
        let ping = Ping { trace, deadline: started + PATIENCE };
        let answered = match found.state {
            Ok(outgoing) => outgoing.ping(ping).await,
            Err(error) => Err(error),
        };
        let (ok, detail, reason) = match answered {
            Ok(Pong { detail, .. }) => (true, detail, None),
            Err(OutgoingError { detail, trouble, .. }) => (false, detail, Some(trouble.as_str().to_owned())),
        };
        Ok(PingView {
            outgoing: name.clone(),
            r#type: found.type_name.to_owned(),
            ok,
            detail,
            reason,
            elapsed_ms: started.elapsed().as_secs_f64() * 1_000.0,
        })
    }
}
