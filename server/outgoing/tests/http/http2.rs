//! HTTP/2: many calls over one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crosstie_test_support::{Pki, Validity};
use http::{Method, Version};
use serde_json::json;

use crate::support::{Upstream, World, acceptor, answer, body_of, call, exchange, get, post, until};

/// A server behind TLS that answers with the version it was spoken to in.
async fn telling(pki: &Pki, alpn: &[&[u8]]) -> Upstream {
    let issued = pki.issue("crm", 1, Validity::Now).unwrap();
    Upstream::start_tls(acceptor(&issued, None, alpn), |request| async move {
        answer(200, format!("{:?} {}", request.version(), request.uri().authority().is_some()))
    })
    .await
}

#[tokio::test]
async fn the_version_is_what_both_ends_speak_and_the_definition_allows() {
    let pki = Pki::new("Own").unwrap();
    let both = telling(&pki, &[b"h2", b"http/1.1"]).await;
    let old = telling(&pki, &[b"http/1.1"]).await;
    let world = World::new();
    for (upstream, versions, spoken) in [
        (&both, "auto", "HTTP/2.0 true"),
        (&both, "http1", "HTTP/1.1 false"),
        (&both, "http2", "HTTP/2.0 true"),
        (&old, "auto", "HTTP/1.1 false"),
    ] {
        let settings = json!({"tls": {"ca": pki.certificate()}, "versions": versions});
        let outgoing = world.open(upstream, settings);
        assert_eq!(get(&outgoing, "/").await.unwrap(), (200, spoken.to_owned()), "{versions}");
    }
    let plain =
        Upstream::start(|request| async move { answer(200, format!("{:?}", request.version())) }).await;
    for (versions, spoken) in [("auto", "HTTP/1.1"), ("http2", "HTTP/2.0")] {
        let outgoing = world.open(&plain, json!({"versions": versions}));
        assert_eq!(get(&outgoing, "/").await.unwrap().1, spoken);
    }
}

#[tokio::test]
async fn many_calls_at_a_time_share_one_connection_and_no_call_waits_for_a_slow_one() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (Arc::clone(&now), Arc::clone(&most));
    let upstream = Upstream::start(move |request| {
        let (now, most) = counted.clone();
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let pause = if request.uri().path() == "/slow" { 2_000 } else { 5 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            answer(200, "ok")
        }
    })
    .await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({"versions": "http2", "max_connections": 2}));
    get(&outgoing, "/").await.unwrap();
    let slow = {
        let outgoing = outgoing.clone();
        tokio::spawn(async move { get(&outgoing, "/slow").await })
    };
    let calls: Vec<_> = (0..300)
        .map(|_| {
            let outgoing = outgoing.clone();
            tokio::spawn(async move { exchange(&outgoing, post("/", "{}")).await.unwrap().0 })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert!(!slow.is_finished(), "the slow one was still under way");
    assert_eq!(slow.await.unwrap().unwrap().0, 200);
    // 100 calls fit on one; the rest needs the second, and no more are allowed.
    assert_eq!(upstream.connections(), 2);
    assert!((100..=200).contains(&most.load(Ordering::SeqCst)), "{most:?}");
}

#[tokio::test]
async fn a_connection_that_does_not_answer_is_not_used_again() {
    let upstream = Upstream::start(|request| async move {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        answer(200, "ok")
    })
    .await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({"versions": "http2"}));
    let mut hanging = call(Method::GET, "/hang");
    hanging.deadline = std::time::Instant::now() + Duration::from_millis(100);
    exchange(&outgoing, hanging).await.unwrap_err();
    get(&outgoing, "/").await.unwrap();
    assert_eq!(upstream.connections(), 2);
    until("the one that hung is gone", || world.gauge("connections") == 1).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_new_one_made() {
    let upstream = Upstream::start(|_| async { answer(200, "ok") }).await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({"versions": "http2", "idle_ms": 50}));
    let answer = outgoing.send(call(Method::GET, "/")).await.unwrap();
    assert_eq!(answer.version, Version::HTTP_2);
    body_of(answer).await.unwrap();
    until("it is closed", || world.gauge("connections") == 0).await;
    get(&outgoing, "/").await.unwrap();
    assert_eq!(upstream.connections(), 2);
}
