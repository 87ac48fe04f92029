//! One request to an endpoint, read and checked, and the answers endpoints give.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use crosstie_model::{Revision, TraceContext, UnitName};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Api;
use super::gate::Peer;
use super::problem::Problem;
use crate::access::Caller;
use crate::operations::{Intent, Operations};
use crate::serving::ServingState;

/// How long a change is waited for to be served when the caller does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// The longest a caller may wait for that.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What an endpoint answers.
pub(crate) type Outcome = Result<Response, Problem>;

/// One request.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    /// Who calls; `None` for endpoints that are open to everybody.
    pub(crate) caller: Option<Caller>,
    /// The other end of the connection.
    pub(crate) peer: Peer,
    pub(crate) trace: TraceContext,
    pub(crate) uri: Uri,
    pub(crate) path: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// How long a change is waited for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct Wait {
    /// How long to wait until all workers of the server serve the change, in milliseconds; 10,000 by
    /// default, 60,000 at most. A change that is not served by then is answered with 202.
    #[serde(default)]
    #[schemars(range(max = 60_000))]
    pub wait_ms: Option<u64>,
}

impl Call {
    /// The operations.
    pub(crate) fn operations(&self) -> &Operations {
        &self.api.operations
    }

    /// Who calls.
    pub(crate) fn caller(&self) -> Result<&Caller, Problem> {
        self.caller.as_ref().ok_or_else(Problem::unauthorized)
    }

    /// The path parameter `name`, of a type that checks itself.
    pub(crate) fn path<T: FromStr>(&self, name: &str) -> Result<T, Problem>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.path.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
        text.parse().map_err(|error| Problem::bad_request(format!("{name} in the path: {error}")))
    }

    /// The query parameters.
    pub(crate) fn query<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        axum::extract::Query::try_from_uri(&self.uri)
            .map(|query| query.0)
            .map_err(|error| Problem::bad_request(error.body_text()))
    }

    /// The JSON body, which fitted its schema; an empty one is `{}`.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let text: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
        // serde quotes values in its messages; what the schema let through must not reach a log that way.
        serde_json::from_slice(text).map_err(|_| Problem::bad_request("the body does not fit its schema"))
    }

    /// Who changes what for, and the revision the caller looked at (If-Match, RFC 9110, section 13.1.1).
    pub(crate) fn intent(&self) -> Result<Intent, Problem> {
        let expected = match self.headers.get(header::IF_MATCH) {
            None => None,
            Some(value) if value.as_bytes() == b"*" => None,
            Some(value) => Some(revision_of_tag(value).ok_or_else(|| {
                Problem::bad_request("If-Match must be the ETag of an earlier answer, such as \"42\"")
            })?),
        };
        Ok(Intent { author: self.caller()?.name.clone(), message: String::new(), expected })
    }

    /// Answers a change at `revision` once all workers serve it: 200 (or `done`) then, 202 when that takes
    /// longer than the caller waits.
    ///
    /// # Errors
    /// A worker could not apply the revision, or not load one of `units`: the change is stored and does not
    /// work, which must not look like success.
    pub(crate) async fn served<T: Serialize>(
        &self,
        done: StatusCode,
        revision: Revision,
        units: &[&UnitName],
        outcome: &T,
    ) -> Outcome {
        let wait: Wait = self.query()?;
        let wait = wait.wait_ms.map_or(DEFAULT_WAIT, Duration::from_millis).min(MAX_WAIT);
        let serving = self.operations().wait_until_served(revision, wait).await;
        let mut failures = serving.failures.iter().filter(|failure| match &failure.unit {
            Some(unit) => units.contains(&unit),
            None => true,
        });
        if let Some(failure) = failures.next() {
            return Err(Problem::not_served(revision, failure));
        }
        let status = if serving.complete { done } else { StatusCode::ACCEPTED };
        let answer = with_serving(outcome, &serving)?;
        json(status, &answer).map(|response| tagged(response, revision))
    }
}

fn with_serving<T: Serialize>(outcome: &T, serving: &ServingState) -> Result<Value, Problem> {
    let mut value = serde_json::to_value(outcome).map_err(Problem::unserializable)?;
    let serving = serde_json::to_value(serving).map_err(Problem::unserializable)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("serving".to_owned(), serving);
    }
    Ok(value)
}

/// A JSON answer.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Outcome {
    let body = serde_json::to_vec(value).map_err(Problem::unserializable)?;
    Ok(text(status, "application/json", body))
}

/// An answer of any media type.
pub(crate) fn text(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = (status, body.into()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An answer without a body.
pub(crate) fn nothing() -> Outcome {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The same answer with the revision as its ETag.
pub(crate) fn tagged(mut response: Response, revision: Revision) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Marks an answer that shows more than its revision says, such as whether a channel is open: the caller that
/// has the revision may still not have this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShowsStates;

fn revision_of_tag(value: &HeaderValue) -> Option<Revision> {
    let text = value.to_str().ok()?.trim();
    text.strip_prefix('"')?.strip_suffix('"')?.parse().ok().map(Revision)
}
