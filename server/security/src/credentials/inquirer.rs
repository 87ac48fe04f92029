//! Asking another system on behalf of one security definition: one address, answers of bounded size, no
//! redirects. A question has the same effect twice as once, so that one which met a connection that just ended
//! is asked again, within its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::definition::{CircuitPolicy, ClientTls, DefinitionName, HttpEndpoint, Redirects};
use crosstie_model::inquiry::Inquiries;
use crosstie_model::outgoing::{CallBody, HttpCall, HttpOutgoing, OutgoingError, Pace};
use crosstie_model::ports::Nonces;
use crosstie_model::{Snapshot, TraceContext};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;
use url::{Position, Url};

use super::material::CredentialError;

/// How long nobody is asked after many questions in a row had no answer: requests get their 503 at once then.
/// Short, as it is also how long they get it when the other system is there again.
const PAUSE_MS: u64 = 1_000;
const LONGEST_PAUSE_MS: u64 = 5_000;

/// Where and how to ask.
pub(super) struct Place<'a> {
    /// The field that holds the address.
    pub(super) field: &'static str,
    pub(super) address: &'a str,
    pub(super) tls: Option<&'a ClientTls>,
    pub(super) deadline: Duration,
    pub(super) max_bytes: u64,
    pub(super) connections: u32,
}

/// What the makers of authenticators share.
pub(super) struct Workshop<'a> {
    pub(super) name: &'a DefinitionName,
    pub(super) snapshot: &'a Snapshot,
    pub(super) inquiries: &'a dyn Inquiries,
    pub(super) nonces: &'a Arc<dyn Nonces>,
}

/// A way to one other system.
pub(super) struct Inquirer {
    outgoing: Arc<dyn HttpOutgoing>,
    target: String,
    deadline: Duration,
}

impl std::fmt::Debug for Inquirer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inquirer")
    }
}

impl Inquirer {
    /// Opens a way to `place`.
    pub(super) fn open(workshop: &Workshop<'_>, place: &Place<'_>) -> Result<Self, CredentialError> {
        let refuse = |detail: String| CredentialError::field(place.field, detail);
        let url = Url::parse(place.address).map_err(|error| refuse(error.to_string()))?;
        let origin = url[..Position::BeforePath].to_owned();
        let endpoint = serde_json::from_value(json!({"address": origin}));
        let mut endpoint: HttpEndpoint = endpoint.map_err(|error| refuse(error.to_string()))?;
        let deadline = u64::try_from(place.deadline.as_millis()).unwrap_or(u64::MAX);
        endpoint.tls = place.tls.cloned();
        (endpoint.deadline_ms, endpoint.connect_deadline_ms) = (deadline, deadline);
        endpoint.max_response_bytes = place.max_bytes;
        endpoint.max_connections = place.connections;
        endpoint.redirects = Redirects::None;
        endpoint.retry.methods = vec![Method::GET.to_string(), Method::POST.to_string()];
        let circuit = endpoint.circuit;
        endpoint.circuit = CircuitPolicy { pause_ms: PAUSE_MS, max_pause_ms: LONGEST_PAUSE_MS, ..circuit };
        let name = DefinitionName::new(&format!("security:{}", workshop.name));
        let name = name.unwrap_or_else(|_| workshop.name.clone());
        let outgoing = workshop.inquiries.open(&name, &endpoint, workshop.snapshot).map_err(refuse)?;
        let target = url[Position::BeforePath..Position::AfterQuery].to_owned();
        Ok(Self { outgoing, target, deadline: place.deadline })
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), OutgoingError> {
        let body = if body.is_empty() { CallBody::Empty } else { CallBody::Full(body) };
        let answer = self.outgoing.send(HttpCall {
            method,
            target: self.target.clone(),
            headers,
            body,
            trace: TraceContext::new_root(),
            deadline: Instant::now() + self.deadline,
            pace: Pace::Whole,
        });
        let answer = answer.await?;
        let body = answer.body.collect().await?.to_bytes();
        Ok((answer.status, body))
    }
}
