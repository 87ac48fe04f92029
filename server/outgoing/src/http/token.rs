//! Tokens of the OAuth 2.0 client credentials grant (RFC 6749, section 4.4): fetched when the first call needs
//! one, kept, and replaced before they end.
//!
//! One fetch at a time, on a task of its own: a caller who leaves does not cut it off for the others. While the
//! token is still good, calls go on with it and nobody waits for the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::definition::{CredentialsIn, Oauth2ClientCredentials};
use crosstie_model::outgoing::{OutgoingError, Trouble};
use crosstie_model::secret::SecretValue;
use crosstie_telemetry::metrics::OutgoingMetrics;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde::Deserialize;
use tokio::sync::watch;

use super::body::SendBody;
use super::connect::{Connector, Fresh};
use super::credentials::bearer;
use super::{AGENT, credentials};
use crate::blueprint::{self, OpenError};

/// How long a token is good whose answer does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);
/// How long before its end a token is replaced, at most: a fifth of its life where that is shorter.
const MAX_LEAD: Duration = Duration::from_secs(60);
/// How long a failed fetch answers for the next ones.
const PATIENCE: Duration = Duration::from_secs(1);
/// Largest answer of an authorization server.
const MAX_ANSWER: usize = 64 * 1024;

/// The tokens of one outgoing.
#[derive(Debug)]
pub(crate) struct TokenSource {
    endpoint: Endpoint,
    state: Mutex<State>,
}

/// Where and how tokens are fetched.
#[derive(Debug, Clone)]
struct Endpoint {
    connector: Connector,
    target: Uri,
    authorization: Option<HeaderValue>,
    form: SecretValue,
    deadline: Duration,
    metrics: OutgoingMetrics,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    fetching: Option<watch::Receiver<Option<Fetched>>>,
    failed: Option<(Instant, OutgoingError)>,
}

#[derive(Debug, Clone)]
struct Token {
    field: HeaderValue,
    /// From when on the next one is fetched.
    renew: Instant,
    /// From when on it is no good.
    ends: Instant,
}

type Fetched = Result<HeaderValue, OutgoingError>;

/// A successful answer (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<f64>,
}

/// A refusal (RFC 6749, section 5.2).
#[derive(Deserialize)]
struct Denied {
    error: String,
    error_description: Option<String>,
}

impl TokenSource {
    /// Tokens that `connector` fetches from `target`, each within `deadline`.
    pub(crate) fn new(
        settings: &Oauth2ClientCredentials,
        found: &blueprint::Credentials,
        connector: Connector,
        target: Uri,
        deadline: Duration,
        metrics: OutgoingMetrics,
    ) -> Result<Self, OpenError> {
        let secret = found.secret("client_secret")?;
        let encode = |bytes: &[u8]| percent_encode(bytes, NON_ALPHANUMERIC).to_string();
        let mut form = "grant_type=client_credentials".to_owned();
        if !settings.scopes.is_empty() {
            form.push_str(&format!("&scope={}", encode(settings.scopes.join(" ").as_bytes())));
        }
        if let Some(audience) = &settings.audience {
            form.push_str(&format!("&audience={}", encode(audience.as_bytes())));
        }
        let authorization = match settings.credentials_in {
            CredentialsIn::Header => {
                // Both halves are encoded before they become HTTP Basic (RFC 6749, section 2.3.1).
                let secret = SecretValue::new(encode(secret.expose()).into_bytes());
                Some(credentials::basic(&encode(settings.client_id.as_bytes()), &secret)?)
            }
            CredentialsIn::Body => {
                let id = encode(settings.client_id.as_bytes());
                form.push_str(&format!("&client_id={id}&client_secret={}", encode(secret.expose())));
                None
            }
        };
        let form = SecretValue::new(form.into_bytes());
        let endpoint = Endpoint { connector, target, authorization, form, deadline, metrics };
        Ok(Self { endpoint, state: Mutex::default() })
    }

    /// The Authorization field to send.
    pub(crate) async fn token(self: &Arc<Self>) -> Result<HeaderValue, OutgoingError> {
        let mut fetching = {
            let now = Instant::now();
            let mut state = self.lock();
            let good = state.token.clone().filter(|token| now < token.ends);
            if let Some(token) = good.as_ref().filter(|token| now < token.renew) {
                return Ok(token.field.clone());
            }
            let failed = state.failed.clone().filter(|(at, _)| now < *at + PATIENCE);
            match (good, failed) {
                (Some(token), Some(_)) => return Ok(token.field),
                (Some(token), None) => {
                    self.fetch(&mut state);
                    return Ok(token.field);
                }
                (None, Some((_, error))) => return Err(error),
                (None, None) => self.fetch(&mut state),
            }
        };
        match fetching.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(fetched)) => fetched.clone(),
            _ => Err(self.endpoint.failed("the fetch ended without a word")),
        }
    }

    /// The other system refused `presented`: it is not used again. Says whether another may do better.
    pub(crate) fn refused(&self, presented: &HeaderValue) -> bool {
        let mut state = self.lock();
        if state.token.as_ref().is_some_and(|token| token.field == presented) {
            state.token = None;
        }
        true
    }

    /// Joins the fetch that runs, or starts one.
    fn fetch(self: &Arc<Self>, state: &mut State) -> watch::Receiver<Option<Fetched>> {
        if let Some(running) = state.fetching.as_ref().filter(|running| running.has_changed().is_ok()) {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(None);
        state.fetching = Some(receiver.clone());
        let source = Arc::clone(self);
        tokio::spawn(async move {
            let limit = source.endpoint.deadline;
            let fetched = match tokio::time::timeout(limit, source.endpoint.fetch()).await {
                Ok(fetched) => fetched,
                Err(_) => Err(source.endpoint.failed(&format!("no answer within {} ms", limit.as_millis()))),
            };
            let mut state = source.lock();
            state.fetching = None;
            let told = match fetched {
                Ok(token) => {
                    state.failed = None;
                    let field = token.field.clone();
                    state.token = Some(token);
                    Ok(field)
                }
                Err(error) => {
                    state.failed = Some((Instant::now(), error.clone()));
                    Err(error)
                }
            };
            drop(state);
            sender.send_replace(Some(told));
        });
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint {
    fn failed(&self, detail: &str) -> OutgoingError {
        let origin = &self.connector.origin;
        OutgoingError::new(Trouble::Credentials, format!("no token from {origin}: {detail}"))
    }

    async fn fetch(&self) -> Result<Token, OutgoingError> {
        let fresh = self.connector.connect(&self.metrics).await;
        let fresh = fresh.map_err(|error| self.failed(&error.detail))?;
        let asked = Instant::now();
        let request = self.request(matches!(fresh, Fresh::Http2(_)))?;
        let answered = match fresh {
            Fresh::Http1(mut sender) => sender.send_request(request).await,
            Fresh::Http2(mut sender) => sender.send_request(request).await,
        };
        let (head, body) = answered.map_err(|error| self.failed(&error.to_string()))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body =
            SecretValue::new(body.map_err(|error| self.failed(&error.to_string()))?.to_bytes().to_vec());
        self.read(head.status, body.expose(), asked)
    }

    fn request(&self, is_http2: bool) -> Result<Request<SendBody>, OutgoingError> {
        let origin = &self.connector.origin;
        let mut request = Request::new(SendBody::Full(Bytes::copy_from_slice(self.form.expose())));
        *request.method_mut() = Method::POST;
        let is_absolute = is_http2 || (self.connector.proxy.is_some() && !origin.is_tls());
        let mut uri = self.target.clone().into_parts();
        if is_absolute {
            uri.scheme = Some(origin.scheme.clone());
            uri.authority = Some(origin.authority.clone());
        }
        *request.uri_mut() = Uri::from_parts(uri).map_err(|error| self.failed(&error.to_string()))?;
        let headers = request.headers_mut();
        if !is_http2 {
            headers.insert(HOST, origin.host_field.clone());
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, AGENT);
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(authorization) = self.connector.forwarding_authorization() {
            headers.insert(http::header::PROXY_AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// The token in an answer. No text of the answer but the server's own error is repeated.
    fn read(&self, status: StatusCode, body: &[u8], asked: Instant) -> Result<Token, OutgoingError> {
        if !status.is_success() {
            let why = match serde_json::from_slice::<Denied>(body) {
                Ok(Denied { error, error_description: Some(text) }) => format!(": {error} ({text})"),
                Ok(Denied { error, error_description: None }) => format!(": {error}"),
                Err(_) => String::new(),
            };
            return Err(self.failed(&format!("it answered {}{why}", status.as_u16())));
        }
        let granted: Granted =
            serde_json::from_slice(body).map_err(|_| self.failed("its answer is no token"))?;
        let is_bearer = granted.token_type.is_none_or(|name| name.eq_ignore_ascii_case("bearer"));
        if !is_bearer || granted.access_token.is_empty() {
            return Err(self.failed("its token is no bearer token"));
        }
        let token = SecretValue::new(granted.access_token.into_bytes());
        let field = bearer(&token).map_err(|error| self.failed(&error.to_string()))?;
        let life = granted.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let life = life.unwrap_or(DEFAULT_LIFE).min(Duration::from_secs(365 * 86_400));
        let lead = (life / 5).min(MAX_LEAD);
        Ok(Token { field, renew: asked + (life - lead), ends: asked + life })
    }
}
