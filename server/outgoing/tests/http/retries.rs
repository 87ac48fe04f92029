//! Calls that are tried again, where that is safe and within the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::Failure;
use crosstie_model::outgoing::{CallBody, HttpCall};
use http::{HeaderValue, Method};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;

use crate::support::{PATIENCE, Upstream, World, answer, call, exchange, get, post};

/// A server whose first `bad` answers have `status`.
async fn failing(bad: usize, status: u16, retry_after: Option<&'static str>) -> Upstream {
    let count = Arc::new(AtomicUsize::new(0));
    Upstream::start(move |_| {
        let is_bad = count.fetch_add(1, Ordering::SeqCst) < bad;
        async move {
            let mut response = answer(if is_bad { status } else { 200 }, "text");
            if let (true, Some(after)) = (is_bad, retry_after) {
                response.headers_mut().insert("retry-after", HeaderValue::from_static(after));
            }
            response
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_that_gives_hope_is_asked_for_again() {
    let world = World::new();
    let upstream = failing(2, 503, None).await;
    let outgoing = world.open(&upstream, json!({"retry": {"max": 2, "pause_ms": 1}}));
    assert_eq!(get(&outgoing, "/").await.unwrap().0, 200);
    assert_eq!(upstream.requests(), 3);
    assert_eq!(world.counted("crosstie_outgoing_retries_total"), 2);

    let upstream = failing(3, 503, None).await;
    let outgoing = world.open(&upstream, json!({"retry": {"max": 2, "pause_ms": 1}}));
    assert_eq!(get(&outgoing, "/").await.unwrap().0, 503, "the last answer is given");
}

#[tokio::test]
async fn nothing_is_repeated_that_might_happen_twice() {
    let retry = json!({"retry": {"pause_ms": 1}});
    let world = World::new();
    let upstream = failing(1, 503, None).await;
    assert_eq!(exchange(&world.open(&upstream, retry.clone()), post("/", "{}")).await.unwrap().0, 503);
    assert_eq!(upstream.requests(), 1);

    // Not every failure passes.
    let upstream = failing(1, 500, None).await;
    assert_eq!(get(&world.open(&upstream, retry.clone()), "/").await.unwrap().0, 500);

    // A stream cannot be sent twice.
    let upstream = failing(1, 503, None).await;
    let pieces = vec![Ok::<_, Failure>(Frame::data(Bytes::from_static(b"x")))];
    let body = CallBody::Stream(Box::pin(StreamBody::new(futures_util::stream::iter(pieces))));
    let put = HttpCall { body, ..call(Method::PUT, "/") };
    assert_eq!(exchange(&world.open(&upstream, retry), put).await.unwrap().0, 503);

    // A definition may know better.
    let upstream = failing(1, 500, None).await;
    let retry = json!({"retry": {"pause_ms": 1, "methods": ["POST"], "statuses": [500]}});
    assert_eq!(exchange(&world.open(&upstream, retry), post("/", "{}")).await.unwrap().0, 200);
}

#[tokio::test]
async fn a_call_that_never_left_is_repeated_whatever_it_asks_for() {
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = reserved.local_addr().unwrap();
    let settings = json!({"retry": {"max": 10, "pause_ms": 50, "max_pause_ms": 50}});
    let world = World::new();
    let outgoing = world.open_at(&format!("http://{address}"), settings);
    let waiting = tokio::spawn(async move { exchange(&outgoing, post("/", "{}")).await });
    crate::support::until("it was tried", || world.counted("crosstie_outgoing_retries_total") > 0).await;
    let listener = reserved.listen(8).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(|_| async { Ok::<_, Failure>(answer(200, "ok")) });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
            .await;
    });
    assert_eq!(tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap().0, 200);
}

#[tokio::test]
async fn retry_after_is_obeyed_or_the_answer_given() {
    let world = World::new();
    let settings = json!({"retry": {"max": 1, "pause_ms": 1, "max_pause_ms": 2_000}});
    let upstream = failing(1, 503, Some("1")).await;
    let begin = Instant::now();
    assert_eq!(get(&world.open(&upstream, settings.clone()), "/").await.unwrap().0, 200);
    assert!(begin.elapsed() >= Duration::from_secs(1), "asked too early");
    let upstream = failing(1, 503, Some("3")).await;
    assert_eq!(get(&world.open(&upstream, settings), "/").await.unwrap().0, 503, "longer than allowed");
    // No pause reaches beyond the deadline.
    let upstream = failing(1, 503, Some("60")).await;
    let settings = json!({"deadline_ms": 5_000, "retry": {"max": 1, "max_pause_ms": 600_000}});
    assert_eq!(get(&world.open(&upstream, settings), "/").await.unwrap().0, 503);
}

#[tokio::test]
async fn a_system_that_is_down_is_not_flooded() {
    let upstream = failing(usize::MAX, 503, None).await;
    let settings = json!({
        "retry": {"max": 5, "pause_ms": 1, "max_pause_ms": 1, "budget_percent": 10},
        "circuit": {"failures": 0}
    });
    let outgoing = World::new().open(&upstream, settings);
    for _ in 0..200 {
        assert_eq!(get(&outgoing, "/").await.unwrap().0, 503);
    }
    // 10 % of 200, a reserve of 10, and one a second.
    let extra = upstream.requests() - 200;
    assert!((25..=60).contains(&extra), "{extra} repetitions");
}
