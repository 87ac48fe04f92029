//! A request's way: limits on its head, route, address, credentials, rate limits, admission, body, channel,
//! and back. Each step either goes on or ends in a failure, which the channel's kind renders.
//!
//! Costs per request beyond hyper's: one load of the routes, one clone of the channel's handle, the header
//! map's sizes summed once, and allocations only for what the service is given anyway (path, parameters,
//! query) and for the cid's header.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crosstie_model::message::HttpRequest;
use crosstie_model::{Failure, FailureKind, Fault, Origin, TraceContext};
use crosstie_security::credentials::{ClientChain, Presented, ShownCertificate};
use futures_util::future::Either;
use http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, EXPECT, HOST, ORIGIN, USER_AGENT,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio::task::{JoinError, JoinHandle};

use crate::body::coding::{self, Coding};
use crate::body::media::Media;
use crate::body::{PatientBody, pairs, read};
use crate::client_address::Neighbour;
use crate::entrance::{Entrance, EntranceKind};
use crate::exchange::{Exchange, Keeping};
use crate::methods::{self, Taken, Way};
use crate::negotiate;
use crate::passthrough::{Passing, Passthrough};
use crate::pattern::{PathError, Segments};
use crate::rate::RateState;
use crate::response::{Outgoing, ResponseBody};
use crate::rest::{self, Arrived};
use crate::routes::Routes;
use crate::server::{ConnectionState, Purpose};
use crate::staged::Staged;
use crate::target::Permit;
use crate::{jsonrpc, problem, soap};

/// Longest request target in bytes; more gets 414. Twice what RFC 9110, section 4.1, asks everybody to take.
pub(crate) const MAX_URI_BYTES: usize = 16 * 1024;
/// How far above the header limit hyper still reads a head, so that it can be answered properly.
pub(crate) const HEAD_SLACK: usize = 64 * 1024;

/// The response header that carries the correlation id.
pub(crate) const CID: HeaderName = HeaderName::from_static("x-crosstie-cid");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The other end of a connection.
pub(crate) struct Peer {
    pub(crate) routes: Arc<Staged<Routes>>,
    pub(crate) address: IpAddr,
    pub(crate) secure: bool,
    pub(crate) neighbour: Neighbour,
    /// The certificate the client itself showed.
    pub(crate) certificate: Option<ClientChain>,
    pub(crate) state: Arc<ConnectionState>,
}

impl Peer {
    /// What is known of the client's certificate.
    fn shown(&self) -> ShownCertificate<'_> {
        match (self.neighbour, &self.certificate) {
            (Neighbour::LoadBalancer, _) => ShownCertificate::ToldByLoadBalancer,
            (Neighbour::Anybody, Some(chain)) => ShownCertificate::Direct(chain),
            (Neighbour::Anybody, None) => ShownCertificate::None,
        }
    }
}

/// Where a request goes.
enum Destination {
    Way(Way),
    /// OPTIONS that the server answers itself; a preflight brings the channel it asks about.
    Options {
        allow: HeaderValue,
        preflight: Option<Arc<Entrance>>,
    },
    Nowhere(Failure),
}

/// What the response gets besides what its maker put in.
#[derive(Default)]
pub(crate) struct Seal {
    entrance: Option<Arc<Entrance>>,
    origin: Option<HeaderValue>,
    rate: Option<RateState>,
    accept_encoding: Option<HeaderValue>,
    /// The request body was not read to its end, so the connection cannot carry another request.
    close: bool,
    /// The body's content coding was the reason for a 415. Only then may Accept-Encoding be in it (RFC 9110,
    /// section 12.5.3), or a client would take its media type for right.
    codings: bool,
}

/// In which words a channel's caller is told what went wrong.
#[derive(Clone, Copy)]
enum Speaks {
    Http,
    JsonRpc,
    Soap(crosstie_xml::soap::Version),
}

impl Speaks {
    fn of(kind: &EntranceKind, head: &Parts) -> Self {
        match kind {
            EntranceKind::JsonRpc(_) => Self::JsonRpc,
            // Who asks for the description is no SOAP client yet.
            EntranceKind::Soap(_) if head.method == Method::POST => {
                Self::Soap(soap::version_of(&head.headers))
            }
            _ => Self::Http,
        }
    }

    fn render(self, failure: &Failure, cid: crosstie_model::cid::Cid) -> Response<Outgoing> {
        match self {
            Self::Http => problem::render(failure, cid),
            Self::JsonRpc => jsonrpc::render_failure(failure, cid),
            Self::Soap(version) => soap::render_failure(version, failure, cid),
        }
    }
}

/// Answers one request. Dropping what this gives means that the caller left, and ends the request: hyper does so as
/// soon as a client ends its side, even where it has sent all there is to say. A request that goes on without its
/// caller has a task of its own, from before anything of it is awaited.
pub(crate) fn handle(
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<ResponseBody>> {
    if !goes_on_alone(&peer, &request) {
        return Either::Left(respond(peer, request));
    }
    let held = peer.state.hold();
    Either::Right(joined(tokio::spawn(async move {
        let _held = held;
        respond(peer, request).await
    })))
}

/// Whether a request is answered to the end although its caller leaves.
fn goes_on_alone(peer: &Peer, request: &Request<Incoming>) -> bool {
    let routes = peer.routes.load();
    routes.outlive_callers
        && Segments::of(request.uri().path())
            .ok()
            .and_then(|segments| methods::find(&routes.trie, request.method(), &segments))
            .is_some_and(|way| way.entrance.outlives_callers())
}

/// What a task gives. It panics where the task did.
async fn joined<T>(task: JoinHandle<T>) -> T {
    match task.await.map_err(JoinError::try_into_panic) {
        Ok(given) => given,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The process ends.
        Err(Err(_)) => std::future::pending().await,
    }
}

async fn respond(peer: Arc<Peer>, request: Request<Incoming>) -> Response<ResponseBody> {
    let started = Instant::now();
    let (mut head, body) = request.into_parts();
    let (mut exchange, destination) = begin(&peer, &mut head, started);
    let mut body = Some(PatientBody::new(body, head.version));
    let expects_continue = head.headers.contains_key(EXPECT);
    let mut seal = Seal::default();
    let response = match destination {
        Destination::Nowhere(failure) => {
            exchange.failed(&failure);
            problem::render(&failure, exchange.trace.cid)
        }
        Destination::Options { allow, preflight } => options(&head, &allow, preflight.as_deref()),
        Destination::Way(way) => {
            let entrance = Arc::clone(&way.entrance);
            seal.entrance = Some(Arc::clone(&entrance));
            seal.origin = entrance.cors.as_ref().and_then(|cors| cors.allow(&head.headers));
            seal.accept_encoding = coding::accept_encoding(&head.headers);
            let speaks = Speaks::of(&entrance.kind, &head);
            let result = serve(&peer, way, head, &mut body, &mut exchange, &mut seal).await;
            result.unwrap_or_else(|failure| {
                exchange.failed(&failure);
                speaks.render(&failure, exchange.trace.cid)
            })
        }
    };
    if let Some(body) = body {
        seal.close |= !read::discard(body, expects_continue).await;
    }
    conclude(exchange, response, seal).await
}

/// Makes out what the request is and where it goes. The routes are let go of before anything is awaited.
fn begin(peer: &Peer, head: &mut Parts, started: Instant) -> (Exchange, Destination) {
    let routes = peer.routes.load();
    let mut trace = head
        .headers
        .get(TRACEPARENT)
        .and_then(|value| TraceContext::from_traceparent(value.to_str().ok()?))
        .unwrap_or_else(TraceContext::new_root);
    let (client, secure) = routes.proxies.client(peer, &head.headers);
    routes.proxies.remove_hearsay(peer, &mut head.headers);
    let destination = route(&routes, head);
    let observer = match &destination {
        Destination::Way(way) => way.entrance.observer(),
        _ => &routes.unmatched,
    };
    trace.sampled = observer.samples(&trace);
    let logged = |name: &HeaderName| Some((name.clone(), head.headers.get(name)?.clone()));
    let purpose = match &destination {
        Destination::Way(way) => way.entrance.purpose(),
        _ => Purpose::Service,
    };
    peer.state.request_started(purpose);
    let exchange = Exchange {
        trace,
        started,
        client,
        secure,
        version: head.version,
        method: head.method.clone(),
        target: head.uri.path_and_query().cloned(),
        principal: None,
        refused: None,
        user_agent: head.headers.get(USER_AGENT).cloned(),
        masked: head.uri.query().map(|_| Arc::clone(&routes.masked_parameters)),
        logged_headers: routes.logged_headers.iter().filter_map(logged).collect(),
        bytes_in: 0,
        keeping: Keeping::begin(&**observer, &head.headers, &routes.masked_headers, None),
        observer: Arc::clone(observer),
        connection: Arc::clone(&peer.state),
        purpose,
        failure: None,
        reported: false,
    };
    (exchange, destination)
}

fn route(routes: &Routes, head: &Parts) -> Destination {
    if let Some(failure) = oversized(routes, head).or_else(|| hostless(head)) {
        return Destination::Nowhere(failure);
    }
    let path = head.uri.path();
    if path == "*" && head.method == Method::OPTIONS {
        let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        return Destination::Options { allow, preflight: None };
    }
    let segments = match Segments::of(path) {
        Ok(segments) => segments,
        Err(error) => return Destination::Nowhere(bad_path(error)),
    };
    if let Some(way) = methods::find(&routes.trie, &head.method, &segments) {
        return Destination::Way(way);
    }
    let Some(allowed) = methods::allowed(&routes.trie, &segments) else {
        return Destination::Nowhere(Failure::new(FailureKind::NotFound, Origin::Client));
    };
    let names: Vec<_> = allowed.iter().map(Method::as_str).collect();
    if head.method != Method::OPTIONS {
        let mut failure = Failure::new(FailureKind::MethodNotAllowed, Origin::Client);
        failure.allow = names.into_iter().map(str::to_owned).collect();
        return Destination::Nowhere(failure);
    }
    let wanted =
        head.headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| head.headers.contains_key(ORIGIN));
    let preflight = wanted
        .and_then(|method| Method::from_bytes(method.as_bytes()).ok())
        .and_then(|method| methods::find(&routes.trie, &method, &segments))
        .map(|way| way.entrance);
    // Method names are header-safe tokens.
    let allow = HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"));
    Destination::Options { allow, preflight }
}

/// Checks the head's size. hyper reads somewhat more than the limits so that this answer can be given.
fn oversized(routes: &Routes, head: &Parts) -> Option<Failure> {
    let limits = routes.limits();
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_URI_BYTES {
        return Some(Failure::new(FailureKind::UriTooLong, Origin::Client));
    }
    // Name, colon, space, value, CR LF; the request line is small beside it.
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let too_many = head.headers.len() > usize::from(limits.max_headers);
    (too_many || fields.saturating_add(target) > limits.max_header_bytes)
        .then(|| Failure::new(FailureKind::HeaderTooLarge, Origin::Client))
}

/// RFC 9112, section 3.2: an HTTP/1.1 request has exactly one Host field.
fn hostless(head: &Parts) -> Option<Failure> {
    if head.version != Version::HTTP_11 {
        return None;
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let one = hosts.next().is_some() && hosts.next().is_none();
    (!one).then(|| {
        Failure::new(FailureKind::BadRequest, Origin::Client)
            .with_text("An HTTP/1.1 request has exactly one Host header")
    })
}

fn bad_path(error: PathError) -> Failure {
    Failure::new(FailureKind::BadRequest, Origin::Client)
        .with_faults(vec![Fault { pointer: String::new(), detail: error.to_string() }])
}

/// Carries a request that found its channel.
async fn serve(
    peer: &Peer,
    way: Way,
    mut head: Parts,
    body: &mut Option<PatientBody>,
    exchange: &mut Exchange,
    seal: &mut Seal,
) -> Result<Response<Outgoing>, Failure> {
    let entrance = &*way.entrance;
    take_in(entrance, exchange).await?;
    let query = query_of(&head)?;
    let presented = Presented::now(&head.headers, &query).with_certificate(peer.shown());
    if !entrance.authenticates_messages() {
        identify(entrance, &presented, exchange, seal).await?;
    }
    let permits = permits(entrance)?;
    if let EntranceKind::Passthrough(channel) = &entrance.kind {
        let passing = Passing::new(head, way.params, query, peer.address, exchange);
        let passed = Box::pin(pass(channel, passing, body.take(), exchange, seal)).await;
        return passed.map(|response| rest::hold(response, permits));
    }
    let raw = whole(body, entrance, seal).await?;
    let raw = decoded(&mut head.headers, raw, entrance, seal).await?;
    exchange.bytes_in = raw.len() as u64;
    exchange.keep_request(&raw);
    let media = if raw.is_empty() { Media::Absent } else { Media::of(head.headers.get(CONTENT_TYPE)) };
    let format = if let EntranceKind::Rest { format, .. } = &entrance.kind { *format } else { None };
    let choice = negotiate::choose(&head.headers, format);
    let base = soap::base(&entrance.kind, &head, exchange.secure);
    let arrived = Arrived {
        trace: exchange.trace,
        http: Box::new(HttpRequest {
            method: if way.taken == Taken::HeadAsGet { Method::GET } else { head.method },
            path: exchange.path().to_owned(),
            params: way.params,
            query,
            headers: head.headers,
            client: exchange.client,
            secure: exchange.secure,
        }),
        raw,
        media,
        principal: exchange.principal.clone(),
    };
    let response = match &entrance.kind {
        EntranceKind::Rest { target, format, transforms } => {
            rest::answer_rest(target, (*format, entrance.max_depth), transforms, arrived, choice).await?
        }
        EntranceKind::Plain { target, transforms } => rest::answer_plain(target, transforms, arrived).await?,
        EntranceKind::Builtin(page) => page.answer().await?,
        EntranceKind::JsonRpc(channel) => {
            // Boxed: its future is large, and the other channels should not carry its size about.
            let answer = Box::pin(jsonrpc::answer(entrance, channel, exchange.client, arrived));
            let (result, target) = answer.await;
            if let Some(target) = target {
                exchange.observer = Arc::clone(&target.observer);
            }
            result?
        }
        EntranceKind::Passthrough(_) => return Err(Failure::new(FailureKind::Internal, Origin::Platform)),
        EntranceKind::Soap(channel) => {
            Box::pin(serve_soap(peer, (entrance, channel), (arrived, &base), exchange, seal)).await?
        }
    };
    Ok(rest::hold(response, permits))
}

fn query_of(head: &Parts) -> Result<Vec<(String, String)>, Failure> {
    let query = head.uri.query().map(|text| pairs::parse(text.as_bytes()).map_err(bad_query));
    Ok(query.transpose()?.unwrap_or_default())
}

/// The places under limits of concurrency that a request takes before its body is read.
fn permits(entrance: &Entrance) -> Result<Vec<Permit>, Failure> {
    let mut permits: Vec<_> = entrance.acquire()?.into_iter().collect();
    if let EntranceKind::Rest { target, .. } | EntranceKind::Plain { target, .. } = &entrance.kind {
        permits.extend(target.admit()?);
    }
    Ok(permits)
}

/// All of a request's body.
async fn whole(
    body: &mut Option<PatientBody>,
    entrance: &Entrance,
    seal: &mut Seal,
) -> Result<bytes::Bytes, Failure> {
    let Some(incoming) = body.take() else { return Ok(bytes::Bytes::new()) };
    // From here on the body is read or lost; only a whole one leaves the connection usable.
    seal.close = true;
    let raw = read::read(incoming, entrance.max_body, entrance.body_timeout).await?;
    seal.close = false;
    Ok(raw)
}

/// Hands a request on to another system.
async fn pass(
    channel: &Passthrough,
    passing: Passing,
    body: Option<PatientBody>,
    exchange: &mut Exchange,
    seal: &mut Seal,
) -> Result<Response<Outgoing>, Failure> {
    // Dropped before its end, should the caller go away, the body is lost.
    seal.close = true;
    let passed = channel.carry(passing, body).await;
    seal.close = !passed.is_read;
    exchange.bytes_in = passed.bytes_in;
    if let Some(body) = &passed.body {
        exchange.keep_request(body);
    }
    passed.result
}

/// Carries a request to a SOAP channel, whose credentials may stand in its message.
async fn serve_soap(
    peer: &Peer,
    (entrance, channel): (&Entrance, &Arc<soap::Soap>),
    (mut arrived, base): (Arrived, &str),
    exchange: &mut Exchange,
    seal: &mut Seal,
) -> Result<Response<Outgoing>, Failure> {
    let is_late = entrance.authenticates_messages();
    if arrived.http.method == Method::GET {
        if is_late {
            // A GET has no message that credentials could stand in.
            let (outcome, rate) = entrance.take(exchange.client, None);
            seal.rate = rate;
            outcome?;
        }
        return soap::page(channel, &arrived.http, base);
    }
    let heard = soap::hear(channel, entrance.max_depth, &arrived).await?;
    if is_late {
        let presented = Presented::now(&arrived.http.headers, &arrived.http.query)
            .with_certificate(peer.shown())
            .with_username_token(heard.token());
        if let Err(failure) = identify(entrance, &presented, exchange, seal).await {
            if !heard.is_readable() {
                // What is wrong with the message comes first; it told nobody's credentials.
                exchange.refused = None;
            } else {
                exchange.failed(&failure);
                let reason = exchange.refused.as_ref().map(|refused| refused.reason);
                return Ok(heard.refuse(&failure, reason, channel, exchange.trace.cid));
            }
            if failure.kind != FailureKind::Unauthorized {
                return Err(failure);
            }
        }
        arrived.principal = exchange.principal.clone();
    }
    let answer = soap::answer(channel, heard, arrived).await;
    if let Some(failure) = &answer.failure {
        exchange.failed(failure);
    }
    if let Some(target) = answer.target {
        exchange.observer = Arc::clone(&target.observer);
    }
    Ok(answer.response)
}

/// Lets a request in as far as its address goes, once there is room for what is kept of it.
async fn take_in(entrance: &Entrance, exchange: &mut Exchange) -> Result<(), Failure> {
    if exchange.must_wait() {
        Box::pin(exchange.wait_for_room()).await?;
    }
    entrance.check_address(exchange.client)
}

/// Finds out who sent a request, and takes it from the rate limits.
async fn identify(
    entrance: &Entrance,
    presented: &Presented<'_>,
    exchange: &mut Exchange,
    seal: &mut Seal,
) -> Result<(), Failure> {
    match entrance.authenticate(presented).await {
        Ok(principal) => {
            let (outcome, rate) = entrance.take(exchange.client, principal.as_deref());
            exchange.principal = principal;
            seal.rate = rate;
            outcome
        }
        Err(refusal) => {
            let (outcome, rate) = entrance.take_refused(exchange.client);
            exchange.refused = Some(Box::new(refusal.credentials));
            seal.rate = rate;
            outcome.and(Err(refusal.failure))
        }
    }
}

async fn decoded(
    headers: &mut HeaderMap,
    raw: bytes::Bytes,
    entrance: &Entrance,
    seal: &mut Seal,
) -> Result<bytes::Bytes, Failure> {
    if raw.is_empty() || !headers.contains_key(CONTENT_ENCODING) {
        return Ok(raw);
    }
    let plain = Box::pin(coding::decode(headers, raw, entrance.max_body)).await;
    let plain =
        plain.inspect_err(|failure| seal.codings = failure.kind == FailureKind::UnsupportedMediaType)?;
    // They describe bytes that the service does not see.
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    Ok(plain)
}

fn bad_query(error: pairs::PairsError) -> Failure {
    Failure::new(FailureKind::BadRequest, Origin::Client)
        .with_faults(vec![Fault { pointer: String::new(), detail: format!("the query string: {error}") }])
}

fn options(head: &Parts, allow: &HeaderValue, preflight: Option<&Entrance>) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ALLOW, allow.clone());
    if let Some(cors) = preflight.and_then(|entrance| entrance.cors.as_ref()) {
        cors.write_preflight(&head.headers, allow, headers);
    }
    response
}

/// Adds what every response has, and closes the exchange.
pub(crate) async fn conclude(
    mut exchange: Exchange,
    response: Response<Outgoing>,
    seal: Seal,
) -> Response<ResponseBody> {
    let (mut head, mut body) = response.into_parts();
    let passing = exchange.keep_reply(&head.headers, &body);
    let headers = &mut head.headers;
    if let Some(entrance) = &seal.entrance {
        let worth_a_look = matches!(&body, Outgoing::Whole(bytes)
            if bytes.len() as u64 >= entrance.compression.min_bytes);
        if worth_a_look {
            let coding = seal.accept_encoding.as_ref().and_then(Coding::choose);
            body = Box::pin(coding::compress(entrance.compression, coding, headers, body)).await;
        }
        if let Some(cors) = &entrance.cors {
            cors.write(seal.origin, headers);
        }
    }
    if let Some(rate) = seal.rate {
        rate.write(headers);
    }
    if seal.codings {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(coding::ACCEPTED));
    }
    headers.insert(CID, cid_value(&exchange.trace));
    // HTTP/2 has GOAWAY for this, and no such header.
    if (seal.close || exchange.connection.is_draining()) && exchange.version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if exchange.method == Method::HEAD {
        // Another system's answer to a HEAD has no body either, and says itself how long it would be.
        if let Outgoing::Whole(bytes) = &body
            && !bytes.is_empty()
            && head.status != StatusCode::NO_CONTENT
            && head.status != StatusCode::NOT_MODIFIED
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        body = Outgoing::empty();
    }
    let status = head.status.as_u16();
    Response::from_parts(head, ResponseBody::close(exchange, status, body, passing))
}

fn cid_value(trace: &TraceContext) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'0'; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(trace.cid.as_bytes()) {
        if let [high, low] = pair {
            *high = DIGITS.get(usize::from(byte >> 4)).copied().unwrap_or(b'0');
            *low = DIGITS.get(usize::from(byte & 15)).copied().unwrap_or(b'0');
        }
    }
    // Hexadecimal digits are valid in a header.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The future is moved into its connection for every request; what it holds it pays for.
    #[test]
    fn a_requests_future_stays_small() {
        fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(|(peer, request)| handle(peer, request));
        assert!(bytes <= 3 * 1024, "{bytes} bytes");
    }

    #[test]
    fn the_cid_header_is_the_cid() {
        let trace = TraceContext::new_root();
        assert_eq!(cid_value(&trace).to_str().unwrap(), trace.cid.to_string());
    }
}
