//! Brokers that are not there, not trusted, silent or slow: each costs its caller the deadline and no more.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use crosstie_model::outgoing::{AmqpConsume, AmqpQueue, AmqpQueueKind, AmqpSource, Trouble};
use crosstie_test_support::parts::Authority;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use support::{Broker, PATIENCE, failing, open, publish, tls};

/// A system that accepts connections and says nothing; gives its address.
async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("amqp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut received = Vec::new();
                let _ = socket.read_to_end(&mut received).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_broker_that_says_nothing_costs_the_deadline_of_a_step_or_of_the_call() {
    let address = silent().await;
    for (settings, trouble) in [
        (json!({"connect_deadline_ms": 200, "deadline_ms": 60_000}), Trouble::Connect),
        (json!({"connect_deadline_ms": 60_000, "deadline_ms": 300}), Trouble::Deadline),
    ] {
        let mut settings = settings;
        settings["address"] = json!(address);
        let broker = open(&settings, &[("password", "x")]);
        let began = Instant::now();
        // A publisher tries again until its deadline; a sign of life is asked for once.
        let error = failing(&broker, PATIENCE).await;
        assert_eq!(error.trouble, trouble, "{error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        let said = publish(&broker, "q", b"x", Duration::from_millis(700)).await.unwrap_err();
        assert_eq!(said.trouble, Trouble::Deadline, "{said}");
    }
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so_without_a_secret() {
    let part = Broker::secured();
    let good = part.settings();
    let files = [("password", "it's a secret")];
    open(&good, &files).ping(support::ping(PATIENCE)).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Authority::new(elsewhere.path()).unwrap().issue("a", &["a"]).unwrap();
    let own = part.client();
    for (key, value, password, trouble) in [
        ("address", json!(part.address().replace("127.0.0.1", "localhost")), "it's a secret", Trouble::Tls),
        ("tls", tls(&stranger, own), "it's a secret", Trouble::Tls),
        ("tls", tls(own, &stranger), "it's a secret", Trouble::Tls),
        ("username", json!("nobody"), "it's a secret", Trouble::Credentials),
        ("username", json!("crosstie"), "hunter2-4d1c", Trouble::Credentials),
        ("address", json!("amqp://127.0.0.1:1"), "it's a secret", Trouble::Connect),
    ] {
        let mut settings = good.clone();
        settings[key] = value.clone();
        if value.as_str().is_some_and(|address| address.starts_with("amqp:")) {
            settings.as_object_mut().unwrap().remove("tls");
        }
        let error = failing(&open(&settings, &[("password", password)]), PATIENCE).await;
        assert_eq!(error.trouble, trouble, "{key} {value}: {error}");
        assert!(!error.detail.contains(password), "{error}");
    }
    // The name that the certificate has can be another than the host's.
    let mut named = good.clone();
    named["address"] = json!(part.address().replace("127.0.0.1", "localhost"));
    named["tls"]["server_name"] = json!("127.0.0.1");
    open(&named, &files).ping(support::ping(PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn only_so_many_messages_are_on_their_way_and_all_arrive() {
    let part = Broker::plain();
    let mut settings = part.settings();
    settings["max_publishing"] = json!(2);
    let broker = open(&settings, &[("password", "it's a secret")]);
    let mut consumer = broker.consume(&consume("many", 100)).await.unwrap();
    let sending = (0..200).map(|n: u32| {
        let broker = std::sync::Arc::clone(&broker);
        tokio::spawn(async move { publish(&broker, "many", &n.to_be_bytes(), PATIENCE).await })
    });
    for sent in sending.collect::<Vec<_>>() {
        sent.await.unwrap().unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 200 {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
        seen.insert(next.body.to_vec());
        next.settle.acknowledge().await.unwrap();
    }
    assert_eq!(part.connections(), 2, "one consumes and one publishes");
    // With all places taken by a broker that holds them, the next is told so.
    let silent_one = open(
        &json!({"address": silent().await, "max_publishing": 1, "deadline_ms": 1_000, "connect_deadline_ms": 900}),
        &[("password", "x")],
    );
    let held = tokio::spawn({
        let broker = std::sync::Arc::clone(&silent_one);
        async move { publish(&broker, "q", b"x", PATIENCE).await }
    });
    tokio::task::yield_now().await;
    let error = publish(&silent_one, "q", b"x", Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Busy, "{error}");
    assert_eq!(held.await.unwrap().unwrap_err().trouble, Trouble::Deadline);
}

fn source(queue: &str, make: AmqpQueueKind, prefetch: u16) -> AmqpSource {
    AmqpSource { queue: AmqpQueue { name: queue.to_owned(), make }, prefetch }
}

fn consume(queue: &str, prefetch: u16) -> AmqpConsume {
    let sources = vec![source(queue, AmqpQueueKind::Classic, prefetch)];
    AmqpConsume { sources, binding: None, beside: Vec::new(), place: None }
}

#[tokio::test]
async fn a_consumer_has_so_many_messages_at_once_and_gives_back_what_it_does_not_acknowledge() {
    let part = Broker::plain();
    let broker = open(&part.settings(), &[("password", "it's a secret")]);
    let mut first = broker.consume(&consume("q", 3)).await.unwrap();
    for _ in 0..5 {
        publish(&broker, "q", b"x", PATIENCE).await.unwrap();
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        let next = tokio::time::timeout(PATIENCE, first.next()).await.unwrap().unwrap().unwrap();
        assert!(!next.redelivered);
        held.push(next);
    }
    let more = tokio::time::timeout(Duration::from_millis(300), first.next()).await;
    assert!(more.is_err(), "the fourth waits for an acknowledgement");
    held.pop().unwrap().settle.acknowledge().await.unwrap();
    held.pop().unwrap().settle.put_back().await.unwrap();
    let next = tokio::time::timeout(PATIENCE, first.next()).await.unwrap().unwrap().unwrap();
    drop((next, held, first));
    let mut second = broker.consume(&consume("q", 10)).await.unwrap();
    let mut redelivered = 0;
    for _ in 0..4 {
        let next = tokio::time::timeout(PATIENCE, second.next()).await.unwrap().unwrap().unwrap();
        redelivered += u32::from(next.redelivered);
        next.settle.acknowledge().await.unwrap();
    }
    assert!(redelivered >= 2, "what was held came again");
    second.cancel().await.unwrap();
    assert!(second.next().await.is_none());
    second.close().await;
}

#[tokio::test]
async fn one_consumer_has_several_queues_each_with_what_it_may_have_at_once() {
    let part = Broker::plain();
    let broker = open(&part.settings(), &[("password", "it's a secret")]);
    let mut call = consume("first", 1);
    call.sources.push(source("second", AmqpQueueKind::Classic, 2));
    let mut consumer = broker.consume(&call).await.unwrap();
    for queue in ["first", "second"] {
        for _ in 0..3 {
            publish(&broker, queue, queue.as_bytes(), PATIENCE).await.unwrap();
        }
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap());
    }
    held.sort_by_key(|delivery| delivery.source);
    let came: Vec<_> = held.iter().map(|delivery| (delivery.source, &*delivery.body)).collect();
    assert_eq!(came, [(0, &b"first"[..]), (1, b"second"), (1, b"second")]);
    let more = tokio::time::timeout(Duration::from_millis(300), consumer.next()).await;
    assert!(more.is_err(), "the others wait for acknowledgements");
    consumer.cancel().await.unwrap();
    for delivery in held {
        delivery.settle.acknowledge().await.unwrap();
    }
    assert!(consumer.next().await.is_none(), "both are cancelled");
    consumer.close().await;
    // A queue that is deleted is told of, whichever it is.
    let mut consumer = broker.consume(&call).await.unwrap();
    let url = part.address().replace("://", "://crosstie:it%27s%20a%20secret@");
    let deleted = Command::new("amqp-delete-queue").args(["-u", &url, "-q", "second"]).output().unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
    loop {
        match tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap() {
            Ok(delivery) => delivery.settle.acknowledge().await.unwrap(),
            Err(error) => {
                assert!(error.detail.contains("deleted"), "{error}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_queue_that_must_be_there_is_not_made() {
    let part = Broker::plain();
    let broker = open(&part.settings(), &[("password", "it's a secret")]);
    let mut call = consume("absent", 1);
    call.sources[0].queue.make = AmqpQueueKind::Expected;
    let error = broker.consume(&call).await.err().expect("there is none");
    assert_eq!(error.trouble, Trouble::Refused);
    assert!(error.detail.contains("absent"), "{error}");
    call.sources = vec![source("quorate", AmqpQueueKind::Quorum, 1)];
    call.place = Some("quorate.place".to_owned());
    let holder = broker.consume(&call).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(1_500), broker.consume(&call)).await;
    assert!(waiting.is_err(), "the place is taken");
    drop(holder);
    tokio::time::timeout(PATIENCE, broker.consume(&call)).await.unwrap().unwrap();
}
