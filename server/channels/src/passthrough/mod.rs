//! Passthrough channels: straight from a request to an outgoing and from its answer back, with no service between.
//!
//! What can be decided before a request arrives is decided when the routes are built: the outgoings, the paths there,
//! the changes of header fields. Bodies go on as they come, in both directions, on the reactor that the request came
//! in on; only a condition on a body, a service that asks for one, or a transformation makes it wait to be whole. A
//! small body is taken whole as well: it has arrived with its head, and a call with a whole body can be repeated.

mod compile;
mod forward;
mod headers;
mod observe;
mod pointers;
mod routing;
mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::definition::PassthroughChannel;
use crosstie_model::message::HttpRequest;
use crosstie_model::outgoing::{CallBody, HttpCall, Pace};
use crosstie_model::{Failure, Fault, Origin, Principal, Snapshot, TraceContext};
use http::header::{ACCEPT_ENCODING, IF_RANGE, RANGE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Response, Uri};
use http_body::Body as _;

use crate::aside::{INLINE_BYTES, aside};
use crate::body::{PatientBody, coding, read};
use crate::exchange::Exchange;
use crate::methods::MethodSet;
use crate::response::Outgoing;
use crate::rest::Arrived;
use crate::transform::{Errand, Pipelines};

pub(crate) use compile::PassthroughLimits;
use compile::defined;
use forward::Forward;
use headers::{Changes, Withheld};
use observe::Observers;
use routing::Router;
use upload::{Upload, Uploaded};

/// Bodies of a known size up to this one are taken whole.
const SMALL: u64 = 16 * 1024;

/// A passthrough channel, compiled.
pub(crate) struct Passthrough {
    router: Arc<Router>,
    request_headers: Changes,
    response_headers: Changes,
    /// What callers show to the channel and nobody else.
    withheld: Withheld,
    observers: Observers,
    transforms: Pipelines,
    deadline: Duration,
    max_body: usize,
    body_timeout: Duration,
}

/// A request on its way through.
pub(crate) struct Passing {
    head: Parts,
    params: Vec<(Arc<str>, String)>,
    query: Vec<(String, String)>,
    trace: TraceContext,
    principal: Option<Arc<Principal>>,
    client: std::net::IpAddr,
    /// The other end of the connection.
    peer: std::net::IpAddr,
    secure: bool,
}

/// What came of a request.
pub(crate) struct Passed {
    pub(crate) result: Result<Response<Outgoing>, Failure>,
    /// The request's body, where it was taken whole.
    pub(crate) body: Option<Bytes>,
    /// How much of it there was, as far as it was read.
    pub(crate) bytes_in: u64,
    /// Whether it was read to its end, so that the connection can carry another request.
    pub(crate) is_read: bool,
}

impl Passthrough {
    /// Hands a request on, and its answer back.
    pub(crate) async fn carry(&self, passing: Passing, body: Option<PatientBody>) -> Passed {
        let uploaded = Uploaded::default();
        let mut whole = None;
        let result = self.pass(passing, body, &uploaded, &mut whole).await;
        let bytes_in = whole.as_ref().map_or_else(|| uploaded.bytes(), |body| body.len() as u64);
        Passed { result, bytes_in, is_read: uploaded.is_ended(), body: whole }
    }

    /// Hands on once more what was handed on before: a message that was kept, with its whole body.
    pub(crate) async fn repeat(
        &self,
        arrived: Arrived,
        target: Option<PathAndQuery>,
    ) -> Result<Response<Outgoing>, Failure> {
        let Arrived { trace, http, raw, principal, .. } = arrived;
        let HttpRequest { method, params, query, headers, client, secure, .. } = *http;
        let (mut head, ()) = http::Request::new(()).into_parts();
        (head.method, head.headers) = (method, headers);
        head.uri = target.map(Uri::from).unwrap_or_default();
        let passing = Passing { head, params, query, trace, principal, client, peer: client, secure };
        let body = if raw.is_empty() { CallBody::Empty } else { CallBody::Full(raw.clone()) };
        self.hand_on(passing, body, Some(&raw)).await
    }

    async fn pass(
        &self,
        passing: Passing,
        body: Option<PatientBody>,
        uploaded: &Uploaded,
        whole: &mut Option<Bytes>,
    ) -> Result<Response<Outgoing>, Failure> {
        let body = self.take_body(body, uploaded, whole).await?;
        self.hand_on(passing, body, whole.as_ref()).await
    }

    /// Hands `body` on, of which `whole` is all where that is known.
    async fn hand_on(
        &self,
        mut passing: Passing,
        mut body: CallBody,
        whole: Option<&Bytes>,
    ) -> Result<Response<Outgoing>, Failure> {
        let deadline = Instant::now() + self.deadline;
        let route = self.route(&passing.head.headers, whole, &passing.trace).await?;
        // Cloned for the service after alone: it sees the request as it came.
        let seen = self.observers.after().map(|_| (passing.request(), passing.trace));
        if let Some(service) = self.observers.before() {
            let seen = whole.filter(|_| self.observers.bodies.of_requests());
            let message = observe::message(service, &passing, seen, deadline);
            match observe::before(service, message, &mut passing.head.headers).await? {
                observe::Before::Answer(response) => return Ok(response),
                observe::Before::Body(replaced) => body = CallBody::Full(replaced),
                observe::Before::Nothing => {}
            }
        }
        let response = self.exchange(passing, route, body, deadline).await?;
        match (self.observers.after(), seen) {
            (Some(service), Some(seen)) => {
                self.observers.after_answer(service, seen, response, deadline).await
            }
            _ => Ok(response),
        }
    }

    /// Sends a request as the other system is to see it; gives its answer as the caller is to see it.
    async fn exchange(
        &self,
        mut passing: Passing,
        route: &Forward,
        mut body: CallBody,
        deadline: Instant,
    ) -> Result<Response<Outgoing>, Failure> {
        let cid = passing.trace.cid;
        let headers = &mut passing.head.headers;
        if self.transforms.response.is_some() {
            // What is to be transformed comes whole and uncoded.
            for name in [ACCEPT_ENCODING, RANGE, IF_RANGE] {
                headers.remove(name);
            }
        }
        if let (Some(pipeline), CallBody::Full(coded)) = (&self.transforms.request, &body)
            && !coded.is_empty()
        {
            let errand = Errand { cid, origin: Origin::Client, deadline };
            let plain = Box::pin(coding::decode(headers, coded.clone(), self.max_body)).await?;
            body = CallBody::Full(Box::pin(pipeline.transform(headers, plain, errand)).await?);
        }
        let answer = route.send(self.call(passing, route, body, deadline)?).await?;
        let mut response = forward::response(answer);
        if self.transforms.response.is_some() {
            let errand = Errand { cid, origin: Origin::Upstream, deadline };
            response = Box::pin(self.transforms.give_out(response, errand)).await?;
        }
        self.response_headers.apply(response.headers_mut());
        Ok(response)
    }

    /// Whether requests' bodies have to be whole.
    fn reads_bodies(&self) -> bool {
        self.router.reads_bodies() || self.observers.bodies.of_requests() || self.transforms.request.is_some()
    }

    /// The request's body as it is handed on: whole where anything has to be known of it, or it is small.
    async fn take_body(
        &self,
        body: Option<PatientBody>,
        uploaded: &Uploaded,
        whole: &mut Option<Bytes>,
    ) -> Result<CallBody, Failure> {
        let Some(body) = body.filter(|body| !body.is_end_stream()) else {
            uploaded.end();
            return Ok(CallBody::Empty);
        };
        let is_small = body.size_hint().exact().is_some_and(|bytes| bytes <= SMALL);
        if is_small || self.reads_bodies() {
            let read = read::read(body, self.max_body, self.body_timeout).await?;
            uploaded.end();
            *whole = Some(read.clone());
            return Ok(CallBody::Full(read));
        }
        let upload = Upload::new(body, self.max_body, self.body_timeout, uploaded.clone())?;
        Ok(CallBody::Stream(Box::pin(upload)))
    }

    /// Where the request goes. A body that is looked at is freed of its content coding; it is handed on with it.
    async fn route(
        &self,
        headers: &HeaderMap,
        body: Option<&Bytes>,
        trace: &TraceContext,
    ) -> Result<&Forward, Failure> {
        let router = &self.router;
        if !router.reads_bodies() {
            return Ok(router.forward(router.choose(headers, &Bytes::new(), trace)));
        }
        let coded = body.cloned().unwrap_or_default();
        let plain = Box::pin(coding::decode(headers, coded, self.max_body)).await?;
        if plain.len() <= INLINE_BYTES {
            return Ok(router.forward(router.choose(headers, &plain, trace)));
        }
        let (chooser, headers, trace) = (Arc::clone(router), headers.clone(), *trace);
        let way = aside(move || chooser.choose(&headers, &plain, &trace)).await?;
        Ok(router.forward(way))
    }

    fn call(
        &self,
        passing: Passing,
        route: &Forward,
        body: CallBody,
        deadline: Instant,
    ) -> Result<HttpCall, Failure> {
        let target = route.target(&passing, &self.withheld)?;
        let Passing { head, trace, peer, client, secure, .. } = passing;
        let mut headers = head.headers;
        self.withheld.remove_from(&mut headers);
        headers::tell_forwarded(&mut headers, peer, client, secure);
        self.request_headers.apply(&mut headers);
        Ok(HttpCall { method: head.method, target, headers, body, trace, deadline, pace: Pace::Pieces })
    }
}

impl Passing {
    /// The request that `exchange` is about, which came from `peer`.
    pub(crate) fn new(
        head: Parts,
        params: Vec<(Arc<str>, String)>,
        query: Vec<(String, String)>,
        peer: std::net::IpAddr,
        exchange: &Exchange,
    ) -> Self {
        let Exchange { trace, client, secure, .. } = *exchange;
        Self { head, params, query, trace, principal: exchange.principal.clone(), client, peer, secure }
    }

    /// The request as services see it.
    fn request(&self) -> HttpRequest {
        HttpRequest {
            method: self.head.method.clone(),
            path: self.head.uri.path().to_owned(),
            params: self.params.clone(),
            query: self.query.clone(),
            headers: self.head.headers.clone(),
            client: self.client,
            secure: self.secure,
        }
    }
}

/// The methods that a channel takes: a HEAD is handed on as what it is.
pub(crate) fn methods(listed: &[String]) -> MethodSet {
    let all = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].map(str::to_owned);
    MethodSet::of(if listed.is_empty() { &all } else { listed })
}

/// What keeps a channel from opening that only a whole snapshot can tell.
pub(crate) fn faults(snapshot: &Snapshot, channel: &PassthroughChannel) -> Vec<Fault> {
    let mut faults = routing::faults(channel);
    for (pointer, name) in channel.outgoings() {
        let detail = match defined(snapshot, name) {
            None => format!("there is no outgoing {name}"),
            Some(outgoing) if outgoing.http().is_none() => {
                format!("the outgoing {name} is of type {}, which takes no requests", outgoing.type_name())
            }
            Some(_) => continue,
        };
        faults.push(Fault { pointer, detail });
    }
    faults
}
