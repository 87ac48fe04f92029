//! One request and the head of its answer: the connection it takes, and what each error says about whether the
//! request reached the other system.

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crosstie_model::Failure;
use crosstie_model::outgoing::{OutgoingError, Trouble};
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::body::SendBody;
use super::connect::{Connector, Fresh};
use super::pool::{Exclusive, Handle, Pool, Stream, Taken};
use crosstie_telemetry::metrics::OutgoingMetrics;

/// A request that may have to be sent more than once.
pub(crate) struct Outbound {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: SendBody,
}

/// The head of an answer, and what its body comes over.
pub(crate) struct Inbound {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
}

/// What an answer comes over.
pub(crate) enum Lease {
    /// A connection of HTTP/1, which goes back to the pool.
    Exclusive(Exclusive),
    /// A place on a connection of HTTP/2.
    Stream(Stream),
    /// A connection that ends with this answer.
    Single(Fresh),
}

/// Why there is no answer.
pub(crate) struct Failed {
    pub(crate) error: OutgoingError,
    /// Whether the request reached the other system, as far as anybody can tell.
    pub(crate) reached: Reached,
}

/// Whether a request reached the other system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// It did not: it can be sent again, whatever it asks for.
    No,
    /// It may have.
    Maybe,
    /// It makes no difference: the next try would end the same.
    Pointless,
}

/// How far a call got, for whoever tells that its time is up.
#[derive(Default)]
pub(crate) struct Progress {
    step: AtomicU8,
    is_over: AtomicBool,
}

impl Progress {
    const CONNECTING: u8 = 1;
    const WAITING: u8 = 2;
    const CREDENTIALS: u8 = 3;

    pub(crate) fn for_connection(&self) {
        self.step.store(0, Ordering::Relaxed);
    }

    pub(crate) fn for_credentials(&self) {
        self.step.store(Self::CREDENTIALS, Ordering::Relaxed);
    }

    /// Ends with `deadline`, and remembers that it did.
    pub(crate) async fn expire_with(&self, deadline: impl Future<Output = ()>) {
        deadline.await;
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// The error when time is up.
    pub(crate) fn overdue(&self, name: &str) -> OutgoingError {
        match self.step.load(Ordering::Relaxed) {
            Self::CONNECTING => {
                OutgoingError::new(Trouble::Deadline, format!("no connection to {name} in time"))
            }
            Self::WAITING => OutgoingError::new(Trouble::Deadline, format!("{name} did not answer in time")),
            Self::CREDENTIALS => {
                OutgoingError::new(Trouble::Deadline, format!("no token for {name} in time"))
            }
            _ => OutgoingError::new(Trouble::Busy, format!("all connections to {name} were busy")),
        }
    }
}

/// Sends `request` over a connection of `pool`, or a new one. Leaves `request` without body and headers where
/// `keep` does not ask for them and they were sent.
pub(crate) async fn exchange(
    name: &str,
    request: &mut Outbound,
    keep: Keep,
    pool: &Pool,
    connector: &Connector,
    metrics: &OutgoingMetrics,
    progress: &Progress,
) -> Result<Inbound, Failed> {
    loop {
        progress.for_connection();
        let taken = pool.take().await;
        let is_used = !matches!(taken, Taken::Place(_));
        let lease = match taken {
            Taken::Exclusive(connection) => Lease::Exclusive(connection),
            Taken::Stream(stream) => Lease::Stream(stream),
            Taken::Place(place) => {
                progress.step.store(Progress::CONNECTING, Ordering::Relaxed);
                match connector.connect(metrics).await.map_err(unconnected)? {
                    Fresh::Http1(sender) => Lease::Exclusive(Pool::exclusive(sender, place)),
                    Fresh::Http2(sender) => Lease::Stream(pool.share(sender, place)),
                }
            }
        };
        progress.step.store(Progress::WAITING, Ordering::Relaxed);
        match send(lease, request, keep, connector, progress).await {
            Ok(inbound) => return Ok(inbound),
            // A kept connection that the other end has closed: the next one.
            Err(Unanswered { was_sent: false, .. }) if is_used => {}
            Err(unanswered) => return Err(unanswered.failed(name)),
        }
    }
}

/// Sends `request` over a connection of its own.
pub(crate) async fn exchange_once(
    name: &str,
    request: &mut Outbound,
    keep: Keep,
    connector: &Connector,
    metrics: &OutgoingMetrics,
    progress: &Progress,
) -> Result<Inbound, Failed> {
    let fresh = connector.connect(metrics).await.map_err(unconnected)?;
    let sent = send(Lease::Single(fresh), request, keep, connector, progress).await;
    sent.map_err(|unanswered| unanswered.failed(name))
}

/// Whether a request is kept while it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It may have to be sent again.
    Yes,
    /// It is sent once.
    No,
}

struct Unanswered {
    error: hyper::Error,
    was_sent: bool,
}

/// An answer that is waited for. When time is up meanwhile, a connection of HTTP/2 is not used for more calls:
/// one of HTTP/1 ends by itself.
struct Waiting<'a> {
    over: Option<Handle>,
    progress: &'a Progress,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(handle) = self.over.as_ref().filter(|_| self.progress.is_over.load(Ordering::Relaxed)) {
            handle.avoid();
        }
    }
}

async fn send(
    mut lease: Lease,
    request: &mut Outbound,
    keep: Keep,
    connector: &Connector,
    progress: &Progress,
) -> Result<Inbound, Unanswered> {
    let is_http2 = matches!(lease, Lease::Stream(_) | Lease::Single(Fresh::Http2(_)));
    let outgoing = build(request, keep, connector, is_http2);
    let over = if let Lease::Stream(stream) = &lease { Some(stream.handle()) } else { None };
    let waiting = Waiting { over, progress };
    let sent = match &mut lease {
        Lease::Exclusive(connection) => connection.sender.try_send_request(outgoing).await,
        Lease::Stream(stream) => stream.sender().try_send_request(outgoing).await,
        Lease::Single(Fresh::Http1(sender)) => sender.try_send_request(outgoing).await,
        Lease::Single(Fresh::Http2(sender)) => sender.try_send_request(outgoing).await,
    };
    match sent {
        Ok(response) => Ok(Inbound { response, lease }),
        Err(mut error) => {
            if let Some(handle) = &waiting.over {
                handle.avoid();
            }
            let was_sent = take_back(&mut error, request);
            Err(Unanswered { error: error.into_error(), was_sent })
        }
    }
}

/// Puts a request that never left back where it came from; says whether it left.
fn take_back(error: &mut TrySendError<Request<SendBody>>, request: &mut Outbound) -> bool {
    let Some(unsent) = error.take_message() else { return true };
    let (head, body) = unsent.into_parts();
    request.headers = head.headers;
    request.headers.remove(HOST);
    request.headers.remove(PROXY_AUTHORIZATION);
    request.body = body;
    false
}

fn build(request: &mut Outbound, keep: Keep, connector: &Connector, is_http2: bool) -> Request<SendBody> {
    let again = if keep == Keep::Yes { request.body.again() } else { None };
    let (headers, body) = match again {
        Some(body) => (request.headers.clone(), body),
        None => (std::mem::take(&mut request.headers), std::mem::replace(&mut request.body, SendBody::Done)),
    };
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = request.method.clone();
    *outgoing.headers_mut() = headers;
    let origin = &connector.origin;
    let is_absolute = is_http2 || (connector.proxy.is_some() && !origin.is_tls());
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(request.target.clone());
    if is_absolute {
        uri.scheme = Some(origin.scheme.clone());
        uri.authority = Some(origin.authority.clone());
    }
    // These parts always make one.
    *outgoing.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    if !is_http2 {
        outgoing.headers_mut().insert(HOST, origin.host_field.clone());
    }
    if let Some(authorization) = connector.forwarding_authorization() {
        outgoing.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
    }
    outgoing
}

fn unconnected(error: OutgoingError) -> Failed {
    let reached = match error.trouble {
        Trouble::Connect | Trouble::Deadline => Reached::No,
        _ => Reached::Pointless,
    };
    Failed { error, reached }
}

impl Unanswered {
    fn failed(self, name: &str) -> Failed {
        let error = broken(name, &self.error);
        let reached = match error.trouble {
            Trouble::Broken if self.was_sent => Reached::Maybe,
            Trouble::Broken => Reached::No,
            _ => Reached::Pointless,
        };
        Failed { error, reached }
    }
}

/// What an error of the connection to `name` means.
pub(crate) fn broken(name: &str, error: &hyper::Error) -> OutgoingError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            // The caller's own data broke off, and its caller is told why.
            let detail = format!("what was sent to {name} broke off: {failure}");
            let mut error = OutgoingError::new(Trouble::Caller, detail);
            error.failure = Box::new(failure.clone());
            return error;
        }
        source = cause.source();
    }
    let trouble = if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() {
        Trouble::Protocol
    } else {
        Trouble::Broken
    };
    let why = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    OutgoingError::new(trouble, format!("{name}: {why}"))
}
