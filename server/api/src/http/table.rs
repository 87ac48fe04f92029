//! The table of endpoints. The router, the checks of requests and the OpenAPI document are all made of it,
//! so what is documented is what is served.

use std::future::Future;
use std::pin::Pin;

use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::call::{Call, Outcome};
use super::endpoints;
use crate::access::Role;

/// Makes a type's schema within a generator, as a reference where it has a name.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of `T`.
pub(crate) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A running endpoint.
pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Endpoint {
    /// The HTTP method.
    pub method: Verb,
    /// The path below `/api/v1`, with `{parameters}`.
    pub path: &'static str,
    /// The OpenAPI operation id.
    pub operation: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Who may; `None` for everybody.
    pub role: Option<Role>,
    /// Query parameters: the properties of this object schema.
    pub query: Option<SchemaOf>,
    /// What body it takes.
    pub body: Body,
    /// What it answers when all goes well.
    pub answer: Answer,
    /// What runs.
    pub run: fn(Call) -> Running,
}

/// The methods endpoints have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    /// The method as HTTP knows it.
    pub(crate) fn http(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }
}

/// What body an endpoint takes.
#[derive(Clone, Copy)]
pub(crate) enum Body {
    /// None; what is sent is not read.
    None,
    /// JSON of this schema; empty stands for `{}`.
    Json(SchemaOf),
    /// A definition in its YAML shape, as JSON.
    Definition,
    /// JSON documents of this schema that may be as large as a configuration.
    Documents(SchemaOf),
    /// The bytes of an artifact, raw or as the one file of a `multipart/form-data` body.
    Artifact,
    /// Whatever a service takes.
    Payload,
}

/// What an endpoint answers.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// JSON of this schema.
    Json(SchemaOf),
    /// JSON of this schema, once all workers serve the change; 202 when that takes too long.
    Change(SchemaOf),
    /// As `Change`, with 201.
    Created(SchemaOf),
    /// Text or bytes of this media type.
    Text(&'static str),
    /// Whatever a service answers.
    Payload,
    /// Nothing.
    Nothing,
}

/// All endpoints.
pub(crate) fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    [
        endpoints::server::ENDPOINTS,
        endpoints::deployment::ENDPOINTS,
        endpoints::service::ENDPOINTS,
        endpoints::definition::ENDPOINTS,
        endpoints::configuration::ENDPOINTS,
        endpoints::account::ENDPOINTS,
        endpoints::member::ENDPOINTS,
        endpoints::certificate::ENDPOINTS,
        endpoints::message::ENDPOINTS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn operation_ids_and_routes_are_unique() {
        let ids: HashSet<_> = endpoints().map(|endpoint| endpoint.operation).collect();
        let routes: HashSet<_> = endpoints().map(|e| (e.method.http(), e.path)).collect();
        assert_eq!(ids.len(), endpoints().count());
        assert_eq!(routes.len(), endpoints().count());
    }

    #[test]
    fn only_reading_is_open_to_viewers_and_to_everybody_only_what_strangers_need() {
        for endpoint in endpoints() {
            match endpoint.role {
                None => assert!(["getOpenApi", "getAuthority", "join"].contains(&endpoint.operation)),
                Some(Role::Viewer) => assert_eq!(endpoint.method, Verb::Get, "{}", endpoint.operation),
                Some(_) => {}
            }
        }
    }
}
