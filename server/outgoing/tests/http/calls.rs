//! What reaches the other system, and what comes back.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use crosstie_model::outgoing::{CallBody, HttpCall, Pace, Ping, Trouble};
use crosstie_model::{Failure, TraceContext};
use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::json;

use crate::support::{Upstream, World, answer, body_of, call, exchange, field, get, post, trouble_of, whole};

type Seen = Arc<Mutex<Vec<(Method, Uri, HeaderMap)>>>;

/// A server that remembers what it was asked.
async fn watching() -> (Upstream, Seen) {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let upstream = Upstream::start(move |request| {
        let (head, _) = request.into_parts();
        kept.lock().unwrap().push((head.method, head.uri, head.headers));
        async { answer(200, "ok") }
    })
    .await;
    (upstream, seen)
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_call_has_the_definitions_path_query_headers_and_credentials() {
    let (upstream, seen) = watching().await;
    let world = World::new()
        .file("password", "open sesame")
        .security("login", json!({"type": "basic_auth", "username": "Aladdin", "password": "file:password"}));
    let address = format!("{}/v2/", upstream.address());
    let outgoing = world
        .try_open(json!({
            "type": "rest", "address": address, "path": "/customers/{id}",
            "query": {"fixed": "a b"}, "headers": {"X-Tenant": "acme", "X-Other": "definition"},
            "security": "login"
        }))
        .unwrap();
    let target = outgoing
        .target(&owned(&[("id", "7/8"), ("expand", "yes")]), &owned(&[("tag", "x"), ("tag", "y")]))
        .unwrap();
    assert_eq!(target, "/v2/customers/7%2F8?fixed=a%20b&expand=yes&tag=x&tag=y");
    let mut request = post(&target, "{}");
    request.headers.insert("x-other", HeaderValue::from_static("caller"));
    request.headers.insert("connection", HeaderValue::from_static("close, x-hop"));
    request.headers.insert("x-hop", HeaderValue::from_static("1"));
    let trace = request.trace;
    assert_eq!(exchange(&outgoing, request).await.unwrap(), (200, "ok".to_owned()));

    let (method, uri, headers) = seen.lock().unwrap().pop().unwrap();
    assert_eq!((method, uri.to_string()), (Method::POST, target));
    assert_eq!(field(&headers, "authorization"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!((field(&headers, "x-tenant"), field(&headers, "x-other")), ("acme".into(), "caller".into()));
    assert_eq!(field(&headers, "host"), format!("127.0.0.1:{}", upstream.port));
    assert_eq!(field(&headers, "content-length"), "2");
    assert_eq!(field(&headers, "accept"), "application/json");
    assert!(field(&headers, "user-agent").starts_with("crosstie/"));
    assert!(!headers.contains_key("x-hop") && !headers.contains_key("connection"));

    let own = TraceContext::from_traceparent(&field(&headers, "traceparent")).unwrap();
    assert_eq!(own.cid, trace.cid);
    assert_ne!(own.parent, Some(trace.span), "the call is a span of its own");
}

#[tokio::test]
async fn keys_and_tokens_go_where_they_belong() {
    let (upstream, seen) = watching().await;
    let world = World::new()
        .file("key", "k&y")
        .security("header", json!({"type": "api_key", "name": "X-Key", "key": "file:key"}))
        .security("query", json!({"type": "api_key", "in": "query", "name": "key", "key": "file:key"}))
        .security("bearer", json!({"type": "bearer", "token": "file:key"}));
    let mut found = Vec::new();
    for security in ["header", "query", "bearer"] {
        get(&world.open(&upstream, json!({"security": security})), "/a?b=c").await.unwrap();
        let (_, uri, headers) = seen.lock().unwrap().pop().unwrap();
        found.push((uri.to_string(), field(&headers, "x-key"), field(&headers, "authorization")));
    }
    let text = |uri: &str, key: &str, authorization: &str| (uri.into(), key.into(), authorization.into());
    assert_eq!(found[0], text("/a?b=c", "k&y", ""));
    assert_eq!(found[1], text("/a?b=c&key=k%26y", "", ""));
    assert_eq!(found[2], text("/a?b=c", "", "Bearer k&y"));
}

#[tokio::test]
async fn an_outgoing_without_its_secret_does_not_open_and_says_which() {
    let world = World::new().security("bearer", json!({"type": "bearer", "token": "file:absent"}));
    let body = json!({"type": "http", "address": "http://127.0.0.1:1", "security": "bearer"});
    let error = world.try_open(body).err().unwrap().to_string();
    assert!(error.contains("bearer") && error.contains("token") && error.contains("absent"), "{error}");
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let upstream = Upstream::start(|request| async {
        let echoed = request.into_body().map_err(|error| -> Infallible { panic!("{error}") }).boxed();
        http::Response::new(echoed)
    })
    .await;
    let outgoing = World::new().open(&upstream, json!({}));
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (Ok::<_, Failure>(Frame::data(piece)), receiver))
    });
    let body = CallBody::Stream(Box::pin(StreamBody::new(pieces)));
    let request = HttpCall { body, pace: Pace::Pieces, ..call(Method::POST, "/") };
    let mut answer = outgoing.send(request).await.unwrap();
    // Each piece comes back before the next one is sent: nothing is gathered on the way.
    for number in 0..20 {
        let piece = Bytes::from(format!("piece {number}"));
        sender.send(piece.clone()).await.unwrap();
        assert_eq!(answer.body.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
    }
    drop(sender);
    assert!(answer.body.frame().await.is_none());
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_the_call_and_tells_why() {
    let upstream = Upstream::start(|request| async {
        // Ends with an error, as the request does.
        let read = request.into_body().collect().await;
        answer(if read.is_ok() { 200 } else { 400 }, "")
    })
    .await;
    let outgoing = World::new().open(&upstream, json!({}));
    let failure = Failure::bad_request("the client went away");
    let pieces = vec![Ok(Frame::data(Bytes::from_static(b"half"))), Err(failure.clone())];
    let body = CallBody::Stream(Box::pin(StreamBody::new(futures_util::stream::iter(pieces))));
    let error = outgoing.send(HttpCall { body, ..call(Method::POST, "/") }).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Caller, "{error}");
    assert_eq!(*error.failure, failure);
}

#[tokio::test]
async fn an_answer_larger_than_allowed_is_an_error_whether_it_says_so_or_not() {
    let upstream = Upstream::start(|request| async move {
        let body = if request.uri().path() == "/declared" {
            whole("x".repeat(1_001))
        } else {
            let pieces =
                futures_util::stream::iter((0..1_001).map(|_| Ok(Frame::data(Bytes::from_static(b"x")))));
            http_body_util::combinators::BoxBody::new(StreamBody::new(pieces))
        };
        http::Response::new(body)
    })
    .await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({"max_response_bytes": 1_000}));
    for target in ["/declared", "/undeclared"] {
        assert_eq!(trouble_of(&outgoing, call(Method::GET, target)).await, Trouble::TooLarge, "{target}");
    }
    assert_eq!(world.outcomes("too_large"), 2);
    let outgoing = world.open(&upstream, json!({"max_response_bytes": 1_001}));
    for target in ["/declared", "/undeclared"] {
        assert_eq!(get(&outgoing, target).await.unwrap().1.len(), 1_001, "{target}");
    }
}

#[tokio::test]
async fn answers_are_given_whatever_their_status_and_counted_by_it() {
    let upstream = Upstream::start(|request| async move {
        answer(request.uri().path().trim_start_matches('/').parse().unwrap(), "text")
    })
    .await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({}));
    for status in [200, 404, 500] {
        assert_eq!(get(&outgoing, &format!("/{status}")).await.unwrap(), (status, "text".to_owned()));
    }
    // An answer without a body ends with its head.
    let answer = outgoing.send(call(Method::HEAD, "/200")).await.unwrap();
    assert!(body_of(answer).await.unwrap().is_empty());
    let counted = ["ok", "client_error", "server_error"].map(|outcome| world.outcomes(outcome));
    assert_eq!(counted, [2, 1, 1]);
    assert_eq!(world.gauge("calls"), 0);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_ping_asks_for_what_the_definition_says() {
    let (upstream, seen) = watching().await;
    let world = World::new();
    let ping = || Ping { trace: TraceContext::new_root(), deadline: call(Method::GET, "/").deadline };
    for (settings, asked) in [
        (json!({}), "HEAD /"),
        (json!({"path": "/a/b", "query": {"c": "d"}}), "HEAD /a/b?c=d"),
        (json!({"path": "/a/{b}"}), "HEAD /"),
        (json!({"ping": {"method": "GET", "path": "/health"}}), "GET /health"),
    ] {
        let pong = world.open(&upstream, settings).ping(ping()).await.unwrap();
        let (method, uri, _) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(format!("{method} {uri}"), asked);
        assert!(pong.detail.contains("answered 200"), "{}", pong.detail);
    }
}

#[tokio::test]
async fn a_ping_tells_what_calls_would_meet() {
    let upstream = Upstream::start(|request| async move {
        answer(request.uri().path().trim_start_matches('/').parse().unwrap(), "")
    })
    .await;
    let world = World::new();
    let ping = |path: &str| {
        let outgoing = world.open(&upstream, json!({"ping": {"path": path}, "retry": {"max": 0}}));
        let deadline = call(Method::GET, "/").deadline;
        async move { outgoing.ping(Ping { trace: TraceContext::new_root(), deadline }).await }
    };
    assert!(ping("/404").await.is_ok(), "it is there, and that is what was asked");
    assert_eq!(ping("/401").await.unwrap_err().trouble, Trouble::Credentials);
    assert_eq!(ping("/503").await.unwrap_err().trouble, Trouble::Refused);
    let nobody = world.open_at("http://127.0.0.1:1", json!({"retry": {"max": 0}}));
    let deadline = call(Method::GET, "/").deadline;
    let error = nobody.ping(Ping { trace: TraceContext::new_root(), deadline }).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Connect, "{error}");
}
