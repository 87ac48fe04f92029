//! The registry of types: from a blueprint to an open outgoing.

use std::sync::Arc;

use crosstie_model::definition::{OutgoingDefinition, OutgoingFormat};
use crosstie_model::outgoing::Outgoing;

use crate::amqp::MessageBroker;
use crate::blueprint::{Blueprint, OpenError};
use crate::environment::Environment;
use crate::http::HttpClient;
use crate::soap::SoapClient;
use crate::sql::Database;

/// Opens an outgoing. Makes no connection: the first call does.
///
/// # Errors
/// What it is made of cannot be used: a certificate that is none, a key that does not fit.
pub fn open(blueprint: &Blueprint, environment: &Environment) -> Result<Outgoing, OpenError> {
    match blueprint.definition() {
        OutgoingDefinition::Rest(rest) => {
            HttpClient::open(blueprint, &rest.endpoint, rest.data_format, environment)
                .map(|client| Outgoing::Http(Arc::new(client)))
        }
        OutgoingDefinition::Http(plain) => {
            HttpClient::open(blueprint, &plain.endpoint, OutgoingFormat::Raw, environment)
                .map(|client| Outgoing::Http(Arc::new(client)))
        }
        OutgoingDefinition::Soap(soap) => {
            SoapClient::open(blueprint, soap, environment).map(|client| Outgoing::Soap(Arc::new(client)))
        }
        OutgoingDefinition::Amqp(endpoint) => MessageBroker::open(blueprint, endpoint, environment)
            .map(|broker| Outgoing::Amqp(Arc::new(broker))),
        OutgoingDefinition::Sql(endpoint) => {
            Database::open(blueprint, endpoint, environment).map(|database| Outgoing::Sql(Arc::new(database)))
        }
    }
}
