//! Questions that authenticators ask other systems: the same pools, deadlines, circuits, metrics and traces as
//! outgoings have, each under `security:` and the name of the definition that asks.

use std::path::PathBuf;
use std::sync::Arc;

use crosstie_model::Snapshot;
use crosstie_model::definition::{DefinitionName, HttpEndpoint, OutgoingDefinition, PlainHttpOutgoing};
use crosstie_model::inquiry::Inquiries;
use crosstie_model::outgoing::{HttpOutgoing, Outgoing};
use crosstie_outgoing::{Blueprint, Environment, open};
use crosstie_security::SecretResolver;

/// See the module.
#[derive(Debug)]
pub(crate) struct OutgoingInquiries {
    resolver: SecretResolver,
    directory: PathBuf,
    environment: Environment,
}

impl OutgoingInquiries {
    /// Questions from the server in `directory`.
    pub(crate) fn new(resolver: SecretResolver, directory: PathBuf, environment: Environment) -> Self {
        Self { resolver, directory, environment }
    }
}

impl Inquiries for OutgoingInquiries {
    fn open(
        &self,
        name: &DefinitionName,
        endpoint: &HttpEndpoint,
        snapshot: &Snapshot,
    ) -> Result<Arc<dyn HttpOutgoing>, String> {
        let definition = OutgoingDefinition::Http(PlainHttpOutgoing { endpoint: endpoint.clone() });
        let blueprint = Blueprint::draw(name, &definition, snapshot, &self.resolver, &self.directory);
        let blueprint = blueprint.map_err(|error| error.to_string())?;
        match open(&blueprint, &self.environment) {
            Ok(Outgoing::Http(outgoing)) => Ok(outgoing),
            Ok(_) => Err("is no HTTP".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
