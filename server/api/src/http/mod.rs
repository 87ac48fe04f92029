//! The management API over HTTP: `/api/v1`, made of the [`table`] of endpoints.
//!
//! A request goes `route → authenticate → role → read the body within its limits → check it against its
//! schema → run → answer`; nothing is read from a caller who is not let in. Every answer that is no success
//! is a problem document; what went wrong inside is in the log under its cid.

mod attempts;
mod call;
mod endpoints;
mod gate;
mod openapi;
mod problem;
mod serve;
mod table;
mod upload;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};
use bytes::Bytes;
use crosstie_model::schema::Schema;
use crosstie_model::{Cid, TraceContext};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use crate::access::Caller;
use crate::operations::{OperationError, Operations};
use call::{Call, Outcome, ShowsStates};
use gate::{Gate, Peer};
use problem::Problem;
use table::{Body, Endpoint};

pub use serve::{ServeOptions, serve};

/// Where the API lives.
const BASE: &str = "/api/v1";
/// Largest ordinary JSON body, in bytes.
const MAX_JSON: u64 = 1024 * 1024;
/// Largest body of documents, in bytes: what `apply` takes and its JSON escapes.
const MAX_DOCUMENTS: u64 = 64 * 1024 * 1024;
/// What a form adds to the artifact it carries, in bytes.
const FORM_OVERHEAD: u64 = 64 * 1024;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);
/// How long one request may take: a change of the shared library checks every unit that uses it.
const REQUEST_TIME: Duration = Duration::from_secs(900);

/// What all requests share.
pub(crate) struct Api {
    pub(crate) operations: Operations,
    /// The OpenAPI document, as it is sent.
    pub(crate) document: Bytes,
    gate: Gate,
    schemas: HashMap<&'static str, Schema>,
}

/// The management API as an axum router. Knows no transport: who is at the other end comes in as a request
/// extension that [`serve`] sets.
///
/// # Errors
/// A schema of the table is not valid, which no release has.
pub fn router(operations: Operations) -> Result<Router, OperationError> {
    let internal = |error: &dyn std::fmt::Display| OperationError::Internal(error.to_string());
    let api = Arc::new(Api {
        operations,
        document: serde_json::to_vec(&openapi::document()).map_err(|e| internal(&e))?.into(),
        gate: Gate::new(),
        schemas: openapi::body_schemas().map_err(|e| internal(&e))?,
    });
    let mut methods: HashMap<&'static str, MethodRouter> = HashMap::new();
    for endpoint in table::endpoints() {
        let filter = MethodFilter::try_from(endpoint.method.http()).map_err(|e| internal(&e))?;
        let api = Arc::clone(&api);
        let handler = move |path: Result<RawPathParams, RawPathParamsRejection>, request: Request| {
            dispatch(Arc::clone(&api), endpoint, path, request)
        };
        let known = methods.remove(endpoint.path).unwrap_or_else(|| {
            MethodRouter::new().fallback(|| async { Problem::no_method().into_response() })
        });
        methods.insert(endpoint.path, known.on(filter, handler));
    }
    let routes =
        methods.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    Ok(Router::new().nest(BASE, routes).fallback(|| async { Problem::no_endpoint().into_response() }))
}

/// One request from its head to its answer.
async fn dispatch(
    api: Arc<Api>,
    endpoint: &'static Endpoint,
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let trace = trace_of(request.headers());
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let if_none_match = request.headers().get(header::IF_NONE_MATCH).cloned();
    let mut author = None;
    let work = run(api, endpoint, path, request, &peer, trace, &mut author);
    let outcome = tokio::time::timeout(REQUEST_TIME, work).await.unwrap_or_else(|_| Err(Problem::timeout()));
    let response = match outcome {
        Ok(response) => not_modified(endpoint, response, if_none_match.as_ref()),
        Err(problem) => problem.with_cid(trace.cid).into_response(),
    };
    let status = response.status().as_u16();
    let caller = author.as_ref().map_or("", |caller: &Caller| caller.name.as_str());
    let (operation, micros) = (endpoint.operation, started.elapsed().as_micros());
    if endpoint.method.http() == Method::GET {
        tracing::debug!(cid = %trace.cid, operation, caller, address = %peer.address, status, micros, "management call");
    } else {
        tracing::info!(cid = %trace.cid, operation, caller, address = %peer.address, status, micros, "management call");
    }
    harden(response)
}

async fn run(
    api: Arc<Api>,
    endpoint: &'static Endpoint,
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    peer: &Peer,
    trace: TraceContext,
    author: &mut Option<Caller>,
) -> Outcome {
    let (head, body) = request.into_parts();
    refuse_cross_site(endpoint, &head.headers)?;
    if let Some(role) = endpoint.role {
        let caller = api.gate.authenticate(&api.operations, peer, &head.headers).await?;
        let allowed = caller.role >= role;
        let detail = format!("{} is {}; this needs {role}", caller.name, caller.role);
        *author = Some(caller);
        if !allowed {
            return Err(Problem::forbidden(detail));
        }
    }
    let path = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    check_query(endpoint, head.uri.query().unwrap_or_default())?;
    let body = read_body(&api, endpoint, &head.headers, body).await?;
    let caller = author.clone();
    let call =
        Call { api, caller, peer: peer.clone(), trace, uri: head.uri, path, headers: head.headers, body };
    match complete(endpoint, call).await {
        Err(problem) if problem.status >= 500 => {
            log_failure(trace.cid, endpoint, &problem);
            Err(problem)
        }
        done => done,
    }
}

/// A change runs to its end even when its caller hangs up: it is announced and noted then as well.
async fn complete(endpoint: &'static Endpoint, call: Call) -> Outcome {
    if endpoint.method.http() == Method::GET {
        return (endpoint.run)(call).await;
    }
    let running = tokio::spawn((endpoint.run)(call));
    running.await.unwrap_or_else(|error| Err(OperationError::Internal(error.to_string()).into()))
}

fn log_failure(cid: Cid, endpoint: &Endpoint, problem: &Problem) {
    let source = problem.source.as_deref().unwrap_or(&problem.detail);
    tracing::error!(%cid, operation = endpoint.operation, kind = problem.r#type, reason = source, "a management call failed");
}

/// A browser sends a user's remembered password along whatever page makes it ask (Fetch Metadata, W3C,
/// section 2.3): pages of other sites may not change anything.
fn refuse_cross_site(endpoint: &Endpoint, headers: &HeaderMap) -> Result<(), Problem> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let foreign = !matches!(site, None | Some(b"same-origin" | b"none"));
    if foreign && endpoint.method.http() != Method::GET {
        return Err(Problem::forbidden("pages of other sites cannot call this API"));
    }
    Ok(())
}

/// Unknown parameters are mistakes, and a mistyped `chek=true` must not deploy.
fn check_query(endpoint: &Endpoint, query: &str) -> Result<(), Problem> {
    if query.is_empty() {
        return Ok(());
    }
    let known = openapi::query_properties(endpoint);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap_or_default();
        if !known.contains_key(name) {
            let names: Vec<_> = known.keys().map(String::as_str).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Problem::bad_request(format!(
                "unknown query parameter {name:?}; there are: {known}"
            )));
        }
    }
    Ok(())
}

async fn read_body(
    api: &Api,
    endpoint: &Endpoint,
    headers: &HeaderMap,
    body: HttpBody,
) -> Result<Bytes, Problem> {
    let settings = api.operations.host().settings();
    let limit = match endpoint.body {
        Body::None => return Ok(Bytes::new()),
        Body::Json(_) | Body::Definition => MAX_JSON,
        Body::Documents(_) => MAX_DOCUMENTS,
        Body::Artifact => settings.deploy.max_artifact_bytes.saturating_add(FORM_OVERHEAD),
        Body::Payload => settings.http.max_body_bytes,
    };
    let body = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX));
    let collected =
        tokio::time::timeout(BODY_TIME, body.collect()).await.map_err(|_| Problem::slow_body())?;
    let body = collected.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<LengthLimitError>() {
            Problem::too_large(limit)
        } else {
            Problem::bad_request("the body broke off")
        }
    })?;
    if matches!(endpoint.body, Body::Json(_) | Body::Definition | Body::Documents(_)) {
        check_json(api, endpoint, headers, &body)?;
    }
    Ok(body)
}

fn check_json(api: &Api, endpoint: &Endpoint, headers: &HeaderMap, body: &Bytes) -> Result<(), Problem> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !body.is_empty() && !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::unsupported_media_type("application/json"));
    }
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        Problem::bad_request(format!(
            "the body is not JSON (line {}, column {})",
            error.line(),
            error.column()
        ))
    })?;
    let faults = api.schemas.get(endpoint.operation).map(|schema| schema.faults(&value)).unwrap_or_default();
    if faults.is_empty() { Ok(()) } else { Err(Problem::invalid_body(faults)) }
}

fn trace_of(headers: &HeaderMap) -> TraceContext {
    let given = headers.get("traceparent").and_then(|value| value.to_str().ok());
    given.and_then(TraceContext::from_traceparent).unwrap_or_else(TraceContext::new_root)
}

/// Answers 304 to a caller that has this revision already (RFC 9110, section 13.1.2).
fn not_modified(endpoint: &Endpoint, response: Response, if_none_match: Option<&HeaderValue>) -> Response {
    let is_of_revision = response.extensions().get::<ShowsStates>().is_none();
    let conditional = is_of_revision && endpoint.method.http() == Method::GET;
    let Some(tag) = response.headers().get(header::ETAG).filter(|_| conditional) else { return response };
    let known = if_none_match.and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !known.split(',').any(|known| known.trim().as_bytes() == tag.as_bytes()) {
        return response;
    }
    let tag = tag.clone();
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    response.headers_mut().insert(header::ETAG, tag);
    response
}

/// An answer is data for the program that asked, whatever a service or a file holds.
fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox"),
    );
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
