//! From a definition to a channel that is ready: what is decided when routes are built.

use std::sync::Arc;
use std::time::Duration;

use crosstie_model::Snapshot;
use crosstie_model::definition::{
    DefinitionBody, DefinitionId, DefinitionKind, DefinitionName, HttpEndpoint, OutgoingDefinition,
    PassthroughChannel,
};
use crosstie_model::names::ServiceName;
use crosstie_model::outgoing::{FoundOutgoing, HttpOutgoing, Outgoing, OutgoingError, PathTemplate, Trouble};
use crosstie_model::ports::ServiceDirectory;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Passthrough;
use super::forward::{Forward, Place};
use super::headers::{Changes, Withheld};
use super::observe::Observers;
use super::routing::{Route, Router};
use crate::target::Target;
use crate::transform::Pipelines;

/// What a query's names and values keep as it is: the unreserved characters (RFC 3986, section 2.3).
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Limits of a channel, from its definition and the settings.
pub(crate) struct PassthroughLimits {
    pub(crate) deadline: Duration,
    pub(crate) max_body: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) max_depth: usize,
}

impl Passthrough {
    /// The channel that `definition` describes; `target` makes services of names.
    pub(crate) fn new(
        definition: &PassthroughChannel,
        snapshot: &Snapshot,
        directory: &dyn ServiceDirectory,
        limits: &PassthroughLimits,
        target: impl Fn(&ServiceName) -> Target,
    ) -> Self {
        let forward = |name: &DefinitionName| forward(definition, name, snapshot, directory);
        let routes = definition.routes.iter().map(|route| Route::new(route, forward(&route.outgoing)));
        let credentials = definition.entrance.security.as_ref();
        let credentials = credentials.map(|name| snapshot.credentials_for(name)).unwrap_or_default();
        Self {
            router: Arc::new(Router::new(routes.collect(), forward(&definition.outgoing))),
            request_headers: Changes::of(&definition.request_headers),
            response_headers: Changes::of(&definition.response_headers),
            withheld: Withheld::of(credentials.into_iter().map(|(_, body)| body)),
            observers: Observers {
                before: definition.before.as_ref().map(&target),
                after: definition.after.as_ref().map(&target),
                bodies: definition.bodies,
            },
            transforms: Pipelines::new(&definition.transforms, directory, limits.max_depth),
            deadline: limits.deadline,
            max_body: limits.max_body,
            body_timeout: limits.body_timeout,
        }
    }
}

fn forward(
    channel: &PassthroughChannel,
    name: &DefinitionName,
    snapshot: &Snapshot,
    directory: &dyn ServiceDirectory,
) -> Forward {
    let found = directory.outgoing(name.as_str());
    let definition = defined(snapshot, name);
    let endpoint = definition.and_then(OutgoingDefinition::http);
    let is_soap = matches!(definition, Some(OutgoingDefinition::Soap(_)));
    let own = channel.forward_path.as_ref().and_then(|path| PathTemplate::parse(path).ok());
    let place = match own {
        Some(template) => Place::Template(template),
        // A SOAP service has one address, whatever the path was.
        None if is_soap || endpoint.is_some_and(|endpoint| endpoint.path != "/") => Place::Own,
        None => Place::AsItCame,
    };
    Forward { outgoing: http_of(name, found), place, query: endpoint.map(own_query).unwrap_or_default() }
}

/// The outgoing called `name`.
pub(crate) fn defined<'s>(snapshot: &'s Snapshot, name: &DefinitionName) -> Option<&'s OutgoingDefinition> {
    let id = DefinitionId { kind: DefinitionKind::Outgoing, name: name.clone() };
    match snapshot.definitions.get(&id) {
        Some(DefinitionBody::Outgoing(definition)) => Some(definition),
        _ => None,
    }
}

fn http_of(
    name: &DefinitionName,
    found: Option<FoundOutgoing>,
) -> Result<Arc<dyn HttpOutgoing>, OutgoingError> {
    let missing = |detail: &str| OutgoingError::new(Trouble::Closed, format!("{name} {detail}"));
    match found.ok_or_else(|| missing("is not there"))?.state? {
        Outgoing::Http(outgoing) => Ok(outgoing),
        Outgoing::Soap(outgoing) => Ok(outgoing.http()),
        _ => Err(missing("is of a type that takes no requests")),
    }
}

/// The query parameters that an outgoing's definition has, encoded.
fn own_query(endpoint: &HttpEndpoint) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, QUERY).to_string();
    let pairs = endpoint.query.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}
