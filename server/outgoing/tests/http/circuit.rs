//! Circuits: open when a system fails, closed again when it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crosstie_model::FailureKind;
use crosstie_model::TraceContext;
use crosstie_model::outgoing::{HttpCall, Ping, Trouble};
use http::Method;
use serde_json::json;

use crate::support::{Upstream, World, answer, call, exchange, get, trouble_of, until};

/// A server that answers 503 while it is down.
async fn switched() -> (Upstream, Arc<AtomicBool>) {
    let down = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&down);
    let upstream = Upstream::start(move |_| {
        let status = if asked.load(Ordering::SeqCst) { 503 } else { 200 };
        async move { answer(status, "text") }
    })
    .await;
    (upstream, down)
}

#[tokio::test]
async fn a_circuit_opens_refuses_and_closes() {
    let (upstream, down) = switched().await;
    let world = World::new();
    let settings =
        json!({"circuit": {"failures": 3, "pause_ms": 300, "max_pause_ms": 300}, "retry": {"max": 0}});
    let outgoing = world.open(&upstream, settings);
    get(&outgoing, "/").await.unwrap();
    down.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(get(&outgoing, "/").await.unwrap().0, 503);
    }
    assert_eq!(world.gauge("circuits"), 1);
    let reached = upstream.requests();
    let error = exchange(&outgoing, call(Method::GET, "/")).await.unwrap_err();
    assert_eq!((error.trouble, error.failure.kind), (Trouble::Circuit, FailureKind::Unavailable));
    assert!(error.failure.retry_after.is_some_and(|after| after <= Duration::from_millis(300)));
    assert_eq!(upstream.requests(), reached, "it is left alone");
    assert_eq!(world.outcomes("circuit"), 1);

    // A person who asks is let through.
    let ping = Ping { trace: TraceContext::new_root(), deadline: call(Method::GET, "/").deadline };
    assert_eq!(outgoing.ping(ping).await.unwrap_err().trouble, Trouble::Refused);

    down.store(false, Ordering::SeqCst);
    let limit = Instant::now() + Duration::from_secs(30);
    while get(&outgoing, "/").await.is_err() {
        assert!(Instant::now() < limit, "the circuit never closed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.gauge("circuits"), 0);
    for _ in 0..10 {
        assert_eq!(get(&outgoing, "/").await.unwrap().0, 200);
    }
}

#[tokio::test]
async fn hanging_and_broken_answers_open_it_and_hurried_callers_do_not() {
    let upstream = Upstream::start(|_| std::future::pending()).await;
    let world = World::new();
    let settings = json!({"circuit": {"failures": 2, "pause_ms": 60_000}, "deadline_ms": 100});
    let outgoing = world.open(&upstream, settings.clone());
    let hurried =
        || HttpCall { deadline: Instant::now() + Duration::from_millis(10), ..call(Method::GET, "/") };
    for _ in 0..5 {
        assert_eq!(trouble_of(&outgoing, hurried()).await, Trouble::Deadline);
    }
    assert_eq!(world.gauge("circuits"), 0);
    for _ in 0..2 {
        assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Deadline);
    }
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Circuit);

    // A body that hangs, though its head came in time.
    let upstream = Upstream::raw(|mut stream| async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut head).await;
    })
    .await;
    let outgoing = world.open(&upstream, settings);
    for _ in 0..2 {
        assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Deadline);
    }
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Circuit);
}

#[tokio::test]
async fn a_circuit_ends_with_its_outgoing() {
    let world = World::new();
    let outgoing =
        world.open_at("http://127.0.0.1:1", json!({"circuit": {"failures": 1}, "retry": {"max": 0}}));
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Connect);
    assert_eq!(world.gauge("circuits"), 1);
    drop(outgoing);
    until("the gauge forgets it", || world.gauge("circuits") == 0).await;
}
