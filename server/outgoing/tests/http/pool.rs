//! Connections: kept, shared out, limited, given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crosstie_model::outgoing::{HttpCall, Trouble};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Upstream, World, answer, call, exchange, get, post, until};

#[tokio::test]
async fn a_connection_serves_one_call_after_the_other() {
    let upstream = Upstream::start(|_| async { answer(200, "ok") }).await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({}));
    for _ in 0..20 {
        get(&outgoing, "/").await.unwrap();
    }
    assert_eq!((upstream.requests(), upstream.connections()), (20, 1));
    assert_eq!(world.gauge("connections"), 1);
    drop(outgoing);
    until("an outgoing that is gone leaves no connection", || world.gauge("connections") == 0).await;
}

#[tokio::test]
async fn there_are_never_more_connections_than_allowed_and_whoever_waits_gets_one() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (Arc::clone(&now), Arc::clone(&most));
    let upstream = Upstream::start(move |_| {
        let (now, most) = counted.clone();
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            answer(200, "ok")
        }
    })
    .await;
    let outgoing = World::new().open(&upstream, json!({"max_connections": 3}));
    let calls: Vec<_> = (0..60)
        .map(|_| {
            let outgoing = outgoing.clone();
            tokio::spawn(async move { get(&outgoing, "/").await.unwrap().0 })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn a_call_that_gets_no_connection_in_time_says_so_and_leaves_its_place() {
    let upstream = Upstream::start(|request| async move {
        if request.uri().path() == "/hang" {
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
        answer(200, "ok")
    })
    .await;
    let outgoing = World::new().open(&upstream, json!({"max_connections": 1}));
    let hanging = {
        let outgoing = outgoing.clone();
        tokio::spawn(async move { get(&outgoing, "/hang").await })
    };
    until("the only connection is busy", || upstream.requests() == 1).await;
    let deadline = Instant::now() + Duration::from_millis(50);
    let hurried = HttpCall { deadline, ..call(Method::GET, "/") };
    let error = exchange(&outgoing, hurried).await.unwrap_err();
    assert_eq!((error.trouble, error.failure.http_status()), (Trouble::Busy, 503));
    assert_eq!(get(&outgoing, "/").await.unwrap().0, 200, "who waits longer gets it");
    assert_eq!(hanging.await.unwrap().unwrap().0, 200);
}

#[tokio::test]
async fn a_caller_that_leaves_gives_its_connection_up() {
    let upstream = Upstream::start(|request| async move {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        answer(200, "ok")
    })
    .await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({"max_connections": 1}));
    for round in 1..=5 {
        let leaving = {
            let outgoing = outgoing.clone();
            tokio::spawn(async move { get(&outgoing, "/hang").await })
        };
        until("it is there", || upstream.requests() == 2 * round - 1).await;
        leaving.abort();
        assert_eq!(get(&outgoing, "/").await.unwrap().0, 200);
    }
    assert_eq!(world.outcomes("abandoned"), 5);
    assert_eq!(world.gauge("calls"), 0);
}

#[tokio::test]
async fn connections_that_nobody_uses_are_closed() {
    let upstream = Upstream::start(|_| async { answer(200, "ok") }).await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({"idle_ms": 100}));
    get(&outgoing, "/").await.unwrap();
    assert_eq!(world.gauge("connections"), 1);
    until("the idle connection is closed", || world.gauge("connections") == 0).await;
    get(&outgoing, "/").await.unwrap();
    assert_eq!(upstream.connections(), 2);
    let outgoing = world.open(&upstream, json!({"idle_ms": 0}));
    get(&outgoing, "/").await.unwrap();
    get(&outgoing, "/").await.unwrap();
    assert_eq!(upstream.connections(), 4, "none is kept");
}

/// Answers every request as if there were another one to come, and closes the connection.
#[tokio::test]
async fn a_kept_connection_that_the_other_end_closed_costs_no_call() {
    let upstream = Upstream::raw(|mut stream| async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n{}") && !request.ends_with(b"GET / HTTP/1.1\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => return,
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({"retry": {"max": 0}}));
    for round in 1..=5 {
        assert_eq!(exchange(&outgoing, post("/", "{}")).await.unwrap(), (200, "ok".to_owned()));
        assert_eq!(upstream.connections(), round);
        until("this end has noticed", || world.gauge("connections") == 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_was_read_leaves_no_broken_connection_behind() {
    // Says no at once and never reads the body, which is larger than any buffer.
    let upstream = Upstream::raw(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let outgoing = World::new().open(&upstream, json!({"max_connections": 1}));
    for _ in 0..2 {
        let body = crosstie_model::outgoing::CallBody::Full(vec![0; 32 << 20].into());
        let request = HttpCall { body, ..call(Method::POST, "/") };
        assert_eq!(exchange(&outgoing, request).await.unwrap(), (413, "no".to_owned()));
    }
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn an_outgoing_serves_callers_of_several_reactors() {
    let reactor = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let serving = reactor();
    let upstream = serving.block_on(Upstream::start(|_| async { answer(200, "ok") }));
    std::thread::spawn(move || serving.block_on(std::future::pending::<()>()));
    let outgoing = World::new().open(&upstream, json!({"max_connections": 2}));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let outgoing = outgoing.clone();
            std::thread::spawn(move || {
                reactor().block_on(async {
                    for _ in 0..50 {
                        // A connection ends with the reactor it was opened on, in the middle of a call at worst.
                        let _ = get(&outgoing, "/").await;
                    }
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(reactor().block_on(get(&outgoing, "/")).unwrap().0, 200);
}
