//! One outgoing that speaks SOAP.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use crosstie_model::TraceContext;
use crosstie_model::definition::{OutgoingFormat, SoapEndpoint};
use crosstie_model::outgoing::{
    CallBody, Connection, EnvelopeCall, HttpAnswer, HttpCall, HttpOutgoing, OutgoingError, Pace, Ping, Pong,
    SoapAnswer, SoapCall, SoapError, SoapOutgoing, Trouble, whole_answer,
};
use crosstie_xml::soap::{Package, Version};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};

use super::INLINE_BYTES;
use super::answer::Arrived;
use super::description::Description;
use super::request::{Request, SOAP_ACTION, Style};
use super::token::Token;
use crate::blueprint::{Blueprint, OpenError};
use crate::environment::Environment;
use crate::http::HttpClient;

/// What is understood, as servers are told.
const UNDERSTOOD: HeaderValue = HeaderValue::from_static("text/xml, application/soap+xml, multipart/related");
/// How much of an envelope is looked at to tell its version.
const HEAD: usize = 4 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct SoapClient {
    http: Arc<HttpClient>,
    inner: Arc<Inner>,
    /// Where messages go.
    target: String,
}

/// What messages are made and read by.
#[derive(Debug)]
struct Inner {
    description: Description,
    style: Style,
}

impl SoapClient {
    /// The outgoing that `blueprint` describes.
    pub(crate) fn open(
        blueprint: &Blueprint,
        soap: &SoapEndpoint,
        environment: &Environment,
    ) -> Result<Self, OpenError> {
        let description = Description::compile(blueprint, soap)?;
        let http = HttpClient::open(blueprint, &soap.endpoint, OutgoingFormat::Raw, environment)?;
        let target = http.target(&[], &[]).map_err(|error| OpenError::field("path", error.to_string()))?;
        let address = match soap.endpoint.path.as_str() {
            "/" => soap.endpoint.address.clone(),
            path => format!("{}{path}", soap.endpoint.address.trim_end_matches('/')),
        };
        let style = Style {
            token: Token::of(blueprint, soap)?,
            address: soap.addressing.then_some(address),
            mtom_from: soap.mtom_from_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        };
        Ok(Self { http: Arc::new(http), inner: Arc::new(Inner { description, style }), target })
    }

    /// Makes the message of a call.
    async fn request(&self, call: &mut SoapCall) -> Result<Request, SoapError> {
        let inner = Arc::clone(&self.inner);
        let (operation, message) = (call.operation.clone(), std::mem::take(&mut call.message));
        let headers = std::mem::take(&mut call.headers);
        aside(message.len(), move || {
            let operation = inner.description.operation(&operation)?;
            Request::make(&inner.description, &inner.style, operation, &message, &headers)
        })
        .await
    }

    async fn post(
        &self,
        fields: HeaderMap,
        body: Bytes,
        trace: TraceContext,
        deadline: Instant,
        pace: Pace,
    ) -> Result<HttpAnswer, OutgoingError> {
        let mut headers = fields;
        headers.entry(ACCEPT).or_insert(UNDERSTOOD);
        let (method, target) = (Method::POST, self.target.clone());
        self.http
            .send(HttpCall { method, target, headers, body: CallBody::Full(body), trace, deadline, pace })
            .await
    }
}

/// Does `work` over a message of so many bytes where it holds nobody up.
async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, SoapError> + Send + 'static,
) -> Result<T, SoapError> {
    if bytes <= INLINE_BYTES {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(OutgoingError::new(Trouble::Broken, "the server stops").into()))
}

/// The version that an envelope is of, as far as its beginning tells.
fn version_of(envelope: &[u8]) -> Option<Version> {
    let head = envelope.get(..envelope.len().min(HEAD)).unwrap_or_default();
    let head = String::from_utf8_lossy(head);
    Version::ALL.into_iter().find(|version| head.contains(version.namespace()))
}

#[async_trait]
impl Connection for SoapClient {
    fn name(&self) -> &str {
        self.http.name()
    }

    async fn ping(&self, ping: Ping) -> Result<Pong, OutgoingError> {
        self.http.ping(ping).await
    }
}

#[async_trait]
impl SoapOutgoing for SoapClient {
    fn operations(&self) -> &[String] {
        &self.inner.description.operations
    }

    fn http(&self) -> Arc<dyn HttpOutgoing> {
        Arc::clone(&self.http) as _
    }

    async fn call(&self, mut call: SoapCall) -> Result<SoapAnswer, SoapError> {
        let Request { mut fields, body } = self.request(&mut call).await?;
        for (name, value) in &call.fields {
            fields.insert(name.clone(), value.clone());
        }
        let answer = self.post(fields, body, call.trace, call.deadline, Pace::Whole).await?;
        let HttpAnswer { status, headers: fields, body, .. } = answer;
        let body = whole_answer(body).await?;
        let (inner, name, operation) = (Arc::clone(&self.inner), self.name().to_owned(), call.operation);
        let arrived = Arrived { status, fields, body };
        aside(arrived.body.len(), move || {
            let operation = inner.description.operation(&operation)?;
            arrived.read(&name, &inner.description, operation)
        })
        .await
    }

    async fn send(&self, call: EnvelopeCall) -> Result<HttpAnswer, OutgoingError> {
        let EnvelopeCall { envelope, action, fields: own, trace, deadline } = call;
        let version = version_of(&envelope).unwrap_or(self.inner.description.version);
        let package =
            Package::new(version, Some(action.as_deref().unwrap_or_default()), String::new(), &[], "");
        let mut fields = HeaderMap::new();
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| {
                OutgoingError::new(Trouble::Misuse, "the action holds what a header field cannot")
            })
        };
        fields.insert(CONTENT_TYPE, value(&package.content_type)?);
        if let Some(action) = &package.soap_action {
            fields.insert(SOAP_ACTION, value(action)?);
        }
        for (name, value) in &own {
            fields.insert(name.clone(), value.clone());
        }
        self.post(fields, envelope, trace, deadline, Pace::Pieces).await
    }
}
