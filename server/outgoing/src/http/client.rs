//! One outgoing that speaks HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use crosstie_model::definition::{
    HttpEndpoint, HttpVersions, OutgoingDefinition, OutgoingFormat, PingSettings, Redirects,
    SecurityDefinition,
};
use crosstie_model::outgoing::{
    CallBody, Connection, ExpandError, HttpAnswer, HttpCall, HttpOutgoing, OutgoingError, Pace, PathTemplate,
    Ping, Pong, Trouble,
};
use crosstie_security::tls::{ALPN_HTTP, ALPN_HTTP1};
use crosstie_telemetry::metrics::CallOutcome;
use crosstie_telemetry::traces::{AttributeValue, SpanKind};
use http::header::{ACCEPT, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use percent_encoding::utf8_percent_encode;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::answer::{Ongoing, Receiving, verdict_of};
use super::body::SendBody;
use super::circuit::{Circuit, Verdict};
use super::connect::{Connector, Proxy, Tls};
use super::credentials::{Credentials, basic};
use super::exchange::{Inbound, Outbound, Progress};
use super::headers::{strip_answer, strip_request};
use super::origin::Origin;
use super::pool::Pool;
use super::retry::Retry;
use super::token::TokenSource;
use super::{AGENT, QUERY};
use crate::blueprint::{self, Blueprint, OpenError};
use crate::environment::Environment;
use crate::observe::{Observed, Observer};
use crate::tls;

/// ALPN of a client that speaks HTTP/2 alone.
const ALPN_HTTP2: &[&[u8]] = &[b"h2"];
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// A caller that waited so long has a say about the other system, even if it gave up before the definition's
/// own deadline.
const PATIENT: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct HttpClient {
    format: OutgoingFormat,
    /// The address's path as it was given.
    address_path: String,
    /// The same without the slash at its end.
    base_path: String,
    template: PathTemplate,
    is_root: bool,
    /// The definition's query parameters, encoded.
    query: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    ping: PingSettings,
    deadline: Duration,
    max_response: u64,
    circuit: Arc<Circuit>,
    pub(super) redirects: Redirects,
    pub(super) connector: Connector,
    /// TLS to other origins that redirects lead to.
    pub(super) foreign_tls: Option<Arc<ClientConfig>>,
    pub(super) pool: Pool,
    pub(super) credentials: Credentials,
    pub(super) retry: Retry,
    pub(super) observer: Arc<Observer>,
}

/// Whether an open circuit refuses a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OpenCircuit {
    Refuses,
    LetsThrough,
}

impl HttpClient {
    /// The outgoing that `blueprint` describes.
    pub(crate) fn open(
        blueprint: &Blueprint,
        endpoint: &HttpEndpoint,
        format: OutgoingFormat,
        environment: &Environment,
    ) -> Result<Self, OpenError> {
        let name = blueprint.name().to_shared();
        let definition = blueprint.definition();
        let (type_name, kept) = (definition.type_name(), definition.message_log());
        let observer = Observer::new(Arc::clone(&name), type_name, environment, kept);
        let (origin, url) = Origin::parse("address", &endpoint.address)?;
        let proxy = endpoint.proxy.as_ref().map(|proxy| {
            let (origin, _) = Origin::parse("proxy/address", &proxy.address)?;
            let authorization = proxy_authorization(blueprint.credentials("/proxy/security"))?;
            Ok::<_, OpenError>(Proxy { origin, authorization })
        });
        let alpn = match endpoint.versions {
            HttpVersions::Auto => ALPN_HTTP,
            HttpVersions::Http1 => ALPN_HTTP1,
            HttpVersions::Http2 => ALPN_HTTP2,
        };
        let settings = endpoint.tls.as_ref();
        let own = origin.is_tls().then(|| tls::config(settings, blueprint.secrets(), blueprint, alpn));
        let own = own.transpose()?;
        let connector = Connector {
            tls: own
                .map(|config| Ok::<_, OpenError>(Tls { config, name: server_name(&origin, endpoint)? }))
                .transpose()?,
            origin,
            proxy: proxy.transpose()?,
            versions: endpoint.versions,
            deadline: Duration::from_millis(endpoint.connect_deadline_ms),
        };
        let foreign_tls = match endpoint.redirects {
            Redirects::Any => Some(foreign_tls(endpoint, blueprint, alpn)?),
            Redirects::None | Redirects::SameOrigin => None,
        };
        let tokens =
            |found: &blueprint::Credentials| token_source(found, blueprint, &connector, endpoint, &observer);
        let presented = blueprint.credentials("/security").filter(|found| !is_in_message(blueprint, found));
        let credentials = Credentials::of(presented, tokens)?;
        let template = PathTemplate::parse(&endpoint.path)
            .map_err(|error| OpenError::field("path", error.to_string()))?;
        let max_connections = usize::try_from(endpoint.max_connections).unwrap_or(usize::MAX);
        Ok(Self {
            format,
            address_path: url.path().to_owned(),
            base_path: url.path().trim_end_matches('/').to_owned(),
            is_root: endpoint.path == "/",
            template,
            query: static_query(endpoint),
            headers: static_headers(endpoint, format)?,
            ping: endpoint.ping.clone(),
            deadline: Duration::from_millis(endpoint.deadline_ms),
            max_response: endpoint.max_response_bytes,
            circuit: Circuit::new(&endpoint.circuit, name, observer.metrics().clone()),
            redirects: endpoint.redirects,
            connector,
            foreign_tls,
            pool: Pool::new(max_connections, Duration::from_millis(endpoint.idle_ms)),
            credentials,
            retry: Retry::new(&endpoint.retry, Instant::now()),
            observer,
        })
    }

    /// Whether redirects are followed.
    pub(super) fn follows(&self) -> bool {
        self.redirects != Redirects::None
    }

    /// The call as it goes out.
    fn outbound(&self, call: HttpCall, observed: &Observed) -> Result<Outbound, OutgoingError> {
        let HttpCall { method, target, mut headers, body, .. } = call;
        let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).ok();
        let target = target.filter(|target| target.as_str().starts_with('/'));
        let target = target.ok_or_else(|| OutgoingError::new(Trouble::Misuse, "the target is no path"))?;
        strip_request(&mut headers);
        for (name, value) in &self.headers {
            if !headers.contains_key(name) {
                headers.insert(name.clone(), value.clone());
            }
        }
        if let Ok(value) = HeaderValue::from_str(&observed.trace().to_traceparent()) {
            headers.insert(TRACEPARENT, value);
        }
        Ok(Outbound { method, target, headers, body: SendBody::from(body) })
    }

    async fn call(
        &self,
        call: HttpCall,
        circuit: OpenCircuit,
        observed: &mut Observed,
    ) -> Result<(Inbound, Waited), OutgoingError> {
        let started = observed.started();
        let own = started + self.deadline;
        let deadline = call.deadline.min(own);
        let pace = call.pace;
        let request = self.outbound(call, observed)?;
        if let Some(kept) = observed.kept() {
            kept.sends(&request.method, &request.target, &request.headers, request.body.whole());
        }
        let admitted = match (self.circuit.admit(started), circuit) {
            (Ok(admitted), _) => Some(admitted),
            (Err(_), OpenCircuit::LetsThrough) => None,
            (Err(after), OpenCircuit::Refuses) => {
                let detail = format!("the circuit of {} is open", self.observer.name());
                return Err(OutgoingError::new(Trouble::Circuit, detail).retry_after(after));
            }
        };
        self.retry.begin();
        observed.attribute("http.request.method", || AttributeValue::Text(request.method.to_string()));
        observed.attribute("server.address", || AttributeValue::Text(self.connector.origin.host.clone()));
        observed.attribute("server.port", || AttributeValue::Int(i64::from(self.connector.origin.port)));
        let mut sleep = Box::pin(tokio::time::sleep_until(deadline.into()));
        let progress = Progress::default();
        let done = tokio::select! {
            biased;
            done = self.follow(request, deadline, observed, &progress) => done,
            () = progress.expire_with(sleep.as_mut()) => Err(progress.overdue(self.observer.name())),
        };
        let is_own_deadline = own <= deadline || started.elapsed() >= PATIENT;
        match done {
            Ok(inbound) => Ok((inbound, Waited { sleep, pace, is_own_deadline, admitted })),
            Err(error) => {
                if let Some(admitted) = admitted {
                    admitted.judge(verdict(&error, is_own_deadline), Instant::now());
                }
                Err(error)
            }
        }
    }

    /// An answer that says itself that it is larger than allowed is none.
    fn check_size(&self, inbound: &Inbound) -> Result<(), OutgoingError> {
        let limit = self.max_response;
        if inbound.response.body().size_hint().lower() <= limit {
            return Ok(());
        }
        let detail = format!("the answer of {} has more than {limit} bytes", self.observer.name());
        Err(OutgoingError::new(Trouble::TooLarge, detail))
    }

    /// The answer for the caller.
    fn answer(&self, inbound: Inbound, waited: Waited, mut observed: Observed) -> HttpAnswer {
        let Inbound { response, lease } = inbound;
        let (mut head, incoming) = response.into_parts();
        let status = i64::from(head.status.as_u16());
        observed.attribute("http.response.status_code", || AttributeValue::Int(status));
        strip_answer(&mut head.headers);
        if let Some(kept) = observed.kept() {
            kept.answers(head.status, &head.headers);
        }
        let outcome = match head.status.as_u16() {
            400..=499 => CallOutcome::ClientError,
            500.. => CallOutcome::ServerError,
            _ => CallOutcome::Ok,
        };
        let Waited { sleep, pace, is_own_deadline, mut admitted } = waited;
        if matches!(head.status.as_u16(), 502..=504)
            && let Some(admitted) = admitted.take()
        {
            admitted.judge(Verdict::Fails, Instant::now());
        }
        let (limit, patience) = (self.max_response, self.deadline);
        let ongoing = Ongoing { pace, patience, is_own_deadline, limit, outcome, observed, admitted };
        let body = Receiving::new(incoming, lease, self.pool.clone(), sleep, ongoing);
        HttpAnswer { status: head.status, version: head.version, headers: head.headers, body: Box::pin(body) }
    }

    async fn observed(&self, call: HttpCall, circuit: OpenCircuit) -> Result<HttpAnswer, OutgoingError> {
        self.observer.wait_for_room(call.deadline).await?;
        let mut observed = self.observer.begin(&call.trace, SpanKind::Client);
        let called = self.call(call, circuit, &mut observed).await;
        let checked = called.and_then(|(inbound, waited)| {
            self.check_size(&inbound)?;
            Ok((inbound, waited))
        });
        match checked {
            Ok((inbound, waited)) => Ok(self.answer(inbound, waited, observed)),
            Err(error) => {
                observed.failed(&error);
                Err(error)
            }
        }
    }

    /// What a ping asks for: what the definition says, or its own path where that needs no parameters.
    fn ping_target(&self) -> String {
        match &self.ping.path {
            Some(path) => format!("{}{path}", self.base_path),
            None => self.target(&[], &[]).unwrap_or_else(|_| format!("{}/", self.base_path)),
        }
    }
}

/// What a call has left to wait with once its answer's head has come.
struct Waited {
    sleep: std::pin::Pin<Box<tokio::time::Sleep>>,
    pace: Pace,
    is_own_deadline: bool,
    admitted: Option<super::circuit::Admitted>,
}

/// What an error says about the other system.
fn verdict(error: &OutgoingError, is_own_deadline: bool) -> Verdict {
    match error.trouble {
        Trouble::Deadline | Trouble::Busy if !is_own_deadline => Verdict::Nothing,
        // That all connections were busy is what calls do that it did not answer; those say so themselves.
        // Whoever grants tokens is another system.
        Trouble::Busy
        | Trouble::Credentials
        | Trouble::Misuse
        | Trouble::Caller
        | Trouble::Closed
        | Trouble::Circuit => Verdict::Nothing,
        Trouble::TooLarge | Trouble::Redirect | Trouble::Refused => Verdict::Works,
        Trouble::Connect
        | Trouble::Tls
        | Trouble::Proxy
        | Trouble::Deadline
        | Trouble::Broken
        | Trouble::Protocol => verdict_of(CallOutcome::Failed(error.trouble)),
    }
}

/// Whether credentials stand in the messages of an outgoing, which HTTP knows nothing of.
fn is_in_message(blueprint: &Blueprint, found: &blueprint::Credentials) -> bool {
    matches!(blueprint.definition(), OutgoingDefinition::Soap(_))
        && matches!(found.definition, SecurityDefinition::WssUsernameToken(_))
}

fn server_name(origin: &Origin, endpoint: &HttpEndpoint) -> Result<ServerName<'static>, OpenError> {
    match endpoint.tls.as_ref().and_then(|tls| tls.server_name.clone()) {
        Some(name) => {
            ServerName::try_from(name).map_err(|error| OpenError::field("tls/server_name", error.to_string()))
        }
        None => origin.server_name().map_err(|detail| OpenError::field("address", detail)),
    }
}

/// TLS to where redirects lead: trusted alike, but the client's certificate is for its own system alone.
fn foreign_tls(
    endpoint: &HttpEndpoint,
    blueprint: &Blueprint,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, OpenError> {
    let mut settings = endpoint.tls.clone();
    if let Some(settings) = &mut settings {
        settings.certificate = None;
    }
    tls::config(settings.as_ref(), blueprint.secrets(), blueprint, alpn)
}

fn proxy_authorization(found: Option<&blueprint::Credentials>) -> Result<Option<HeaderValue>, OpenError> {
    match found.map(|found| (found, &found.definition)) {
        None => Ok(None),
        Some((found, SecurityDefinition::BasicAuth(body))) => {
            basic(&body.username, found.secret("password")?).map(Some)
        }
        Some((found, _)) => Err(found.unfit("a proxy")),
    }
}

/// Where the tokens of an outgoing come from: by the same proxy, within the same deadlines.
fn token_source(
    found: &blueprint::Credentials,
    blueprint: &Blueprint,
    connector: &Connector,
    endpoint: &HttpEndpoint,
    observer: &Observer,
) -> Result<Arc<TokenSource>, OpenError> {
    let SecurityDefinition::Oauth2ClientCredentials(settings) = &found.definition else {
        return Err(found.unfit("an outgoing that speaks HTTP"));
    };
    let (origin, url) = Origin::parse("token_url", &settings.token_url)?;
    let tls = match origin.is_tls() {
        false => None,
        true => {
            let config = tls::config(settings.tls.as_ref(), found.secrets(), blueprint, ALPN_HTTP)?;
            let name = match settings.tls.as_ref().and_then(|tls| tls.server_name.clone()) {
                Some(name) => ServerName::try_from(name).map_err(|error| error.to_string()),
                None => origin.server_name(),
            };
            Some(Tls { config, name: name.map_err(|detail| OpenError::field("token_url", detail))? })
        }
    };
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let target = target.parse().map_err(|_| OpenError::field("token_url", "its path is none"))?;
    let connector = Connector { origin, tls, versions: HttpVersions::Auto, ..connector.clone() };
    let deadline = Duration::from_millis(endpoint.deadline_ms);
    let metrics = observer.metrics().clone();
    TokenSource::new(settings, found, connector, target, deadline, metrics).map(Arc::new)
}

fn static_query(endpoint: &HttpEndpoint) -> String {
    let mut query = String::new();
    for (name, value) in &endpoint.query {
        push_pair(&mut query, name, value);
    }
    query
}

fn static_headers(
    endpoint: &HttpEndpoint,
    format: OutgoingFormat,
) -> Result<Vec<(HeaderName, HeaderValue)>, OpenError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|error| OpenError::field("headers", error.to_string()))?;
        let value =
            HeaderValue::from_str(value).map_err(|error| OpenError::field("headers", error.to_string()))?;
        headers.insert(name, value);
    }
    headers.entry(USER_AGENT).or_insert(AGENT);
    if format == OutgoingFormat::Json {
        headers.entry(ACCEPT).or_insert(JSON);
    }
    Ok(headers.into_iter().filter_map(|(name, value)| Some((name?, value))).collect())
}

fn push_pair(query: &mut String, name: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.extend(utf8_percent_encode(name, QUERY));
    query.push('=');
    query.extend(utf8_percent_encode(value, QUERY));
}

#[async_trait]
impl Connection for HttpClient {
    fn name(&self) -> &str {
        self.observer.name()
    }

    async fn ping(&self, ping: Ping) -> Result<Pong, OutgoingError> {
        let started = Instant::now();
        let method = Method::from_bytes(self.ping.method.as_bytes())
            .map_err(|_| OutgoingError::new(Trouble::Misuse, "the method of pings is none"))?;
        let target = self.ping_target();
        let shown = target.split('?').next().unwrap_or_default().to_owned();
        let call = HttpCall {
            method,
            target,
            headers: HeaderMap::new(),
            body: CallBody::Empty,
            trace: ping.trace,
            deadline: ping.deadline,
            pace: Pace::Whole,
        };
        let method = call.method.clone();
        let mut answer = self.observed(call, OpenCircuit::LetsThrough).await?;
        while let Some(frame) = answer.body.frame().await {
            frame?;
        }
        let status = answer.status.as_u16();
        let detail = format!("{method} {shown} answered {status} over {:?}", answer.version);
        match status {
            401 | 403 | 407 => Err(OutgoingError::new(Trouble::Credentials, detail)),
            500.. => Err(OutgoingError::new(Trouble::Refused, detail)),
            _ => Ok(Pong { detail, elapsed: started.elapsed() }),
        }
    }
}

#[async_trait]
impl HttpOutgoing for HttpClient {
    fn data_format(&self) -> OutgoingFormat {
        self.format
    }

    fn base_path(&self) -> &str {
        &self.base_path
    }

    fn target(&self, params: &[(String, String)], query: &[(String, String)]) -> Result<String, ExpandError> {
        let mut target = String::with_capacity(64);
        if self.is_root {
            target.push_str(&self.address_path);
        } else {
            let value_of =
                |name: &str| params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
            target.push_str(&self.base_path);
            self.template.expand(value_of, &mut target)?;
        }
        let mut pairs = self.query.clone();
        let others = params.iter().filter(|(name, _)| !self.template.parameters().any(|known| known == name));
        for (name, value) in others.chain(query) {
            push_pair(&mut pairs, name, value);
        }
        if !pairs.is_empty() {
            target.push('?');
            target.push_str(&pairs);
        }
        Ok(target)
    }

    async fn send(&self, call: HttpCall) -> Result<HttpAnswer, OutgoingError> {
        self.observed(call, OpenCircuit::Refuses).await
    }
}
