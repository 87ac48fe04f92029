//! Where requests are handed on to, and what is made of the answers.

use std::sync::Arc;

use crosstie_model::Failure;
use crosstie_model::outgoing::{
    ExpandError, HttpAnswer, HttpCall, HttpOutgoing, OutgoingError, PathTemplate,
};
use http::Response;
use http_body::Body as _;

use super::Passing;
use super::headers::Withheld;
use crate::response::Outgoing;

/// An outgoing as a channel reaches it.
pub(super) struct Forward {
    /// The outgoing; or, where it is inactive or cannot be opened, what each call of it fails with.
    pub(super) outgoing: Result<Arc<dyn HttpOutgoing>, OutgoingError>,
    pub(super) place: Place,
    /// The outgoing's own query, encoded.
    pub(super) query: String,
}

/// The path there.
pub(super) enum Place {
    /// The one that the channel says, below the outgoing's address.
    Template(PathTemplate),
    /// The outgoing's own.
    Own,
    /// The request's, below the outgoing's address.
    AsItCame,
}

impl Forward {
    /// Path and query there.
    ///
    /// # Errors
    /// A parameter of the path is missing or would lead elsewhere; the outgoing is closed.
    pub(super) fn target(&self, passing: &Passing, withheld: &Withheld) -> Result<String, Failure> {
        let outgoing = self.open()?;
        let uri = &passing.head.uri;
        let mut target = String::with_capacity(64 + uri.path().len());
        let value_of = |name: &str| {
            passing.params.iter().find(|(own, _)| **own == *name).map(|(_, value)| value.as_str())
        };
        match &self.place {
            Place::Template(template) => {
                target.push_str(outgoing.base_path());
                template.expand(value_of, &mut target).map_err(|error| unfit(&error))?;
            }
            Place::AsItCame => {
                target.push_str(outgoing.base_path());
                target.push_str(uri.path());
            }
            Place::Own => {
                // Parameters that have no place in the path would go into the query.
                let params: Vec<_> =
                    passing.params.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
                let own = outgoing.target(&params, &[]).map_err(|error| unfit(&error))?;
                target.push_str(own.split('?').next().unwrap_or_default());
            }
        }
        if !self.query.is_empty() {
            target.push('?');
            target.push_str(&self.query);
        }
        if let Some(query) = uri.query() {
            withheld.append_query(&mut target, query);
        }
        Ok(target)
    }

    /// Calls the outgoing.
    ///
    /// # Errors
    /// There is no answer.
    pub(super) async fn send(&self, call: HttpCall) -> Result<HttpAnswer, Failure> {
        Ok(self.open()?.send(call).await?)
    }

    fn open(&self) -> Result<&Arc<dyn HttpOutgoing>, Failure> {
        self.outgoing.as_ref().map_err(|error| error.clone().into())
    }
}

/// A value of the caller's that the path there cannot hold is the caller's mistake.
fn unfit(error: &ExpandError) -> Failure {
    tracing::debug!(%error, "a request has no path there");
    Failure::bad_request("The path cannot be handed on")
}

/// The answer as it came.
pub(super) fn response(answer: HttpAnswer) -> Response<Outgoing> {
    let HttpAnswer { status, headers, body, .. } = answer;
    // A body that is over has nothing to be watched for.
    let body = if body.is_end_stream() { Outgoing::empty() } else { Outgoing::Passed(body) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
