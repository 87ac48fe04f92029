//! The broker is killed, is full, or says nothing.

use std::fs;
use std::time::{Duration, Instant};

use crosstie_bus::Heard;

use crate::support::{Broker, PASSWORD, Server, changed};

/// Publishes many revisions at once, which must take no time.
fn publish_many(server: &Server, last: u64) {
    let began = Instant::now();
    (last - 9_999..=last).for_each(|revision| server.publish(revision));
    assert!(began.elapsed() < Duration::from_secs(1), "publishing waited for {:?}", began.elapsed());
}

#[tokio::test]
async fn a_killed_broker_is_found_again_and_many_changes_arrive_as_the_newest() {
    let broker = Broker::secured();
    let (mut a, mut b) = (broker.bus("a"), broker.bus("b"));
    a.connects().await;
    b.connects().await;
    a.publish(1);
    assert_eq!(b.hears().await, changed(1));
    a.reaches("confirmed", |state| state.counts.sent == 1).await;

    broker.kill();
    for server in [&a, &b] {
        let state = server.reaches("away", |state| !state.connected).await;
        assert!(state.last_error.is_some());
    }
    publish_many(&a, 10_001);

    broker.restart().await;
    a.connects().await;
    b.reaches("connected", |state| state.connected).await;
    // Whichever was there first: `b` looks, and then or before hears the newest alone.
    let mut heard = vec![b.hears().await];
    if heard == [Heard::CompareNow] && a.bus.state().since < b.bus.state().since {
        // `a` spoke before `b` listened: looking is what finds it.
        a.publish(10_002);
    }
    heard.push(b.hears().await);
    assert!(heard.contains(&Heard::CompareNow), "{heard:?}");
    assert!(heard.contains(&changed(10_001)) || heard.contains(&changed(10_002)), "{heard:?}");
    a.reaches("confirmed", |state| (2..=3).contains(&state.counts.sent)).await;
    assert!(b.hears_nothing());
    assert_eq!(b.bus.state().counts.connections, 2);
}

#[tokio::test]
async fn a_broker_that_takes_nothing_blocks_nobody() {
    let broker = Broker::secured();
    // A disk that can never be free enough raises the same alarm as a lack of memory.
    broker.set(Some("disk_free_limit.absolute = 100000GB\n"));
    broker.kill();
    broker.restart().await;
    let (mut a, mut b) = (broker.bus("a"), broker.bus("b"));
    a.connects().await;
    b.connects().await;
    publish_many(&a, 10_000);
    let blocked = a.reaches("blocked", |state| state.blocked.is_some()).await;
    assert!(blocked.connected && blocked.counts.sent == 0, "{blocked:?}");
    publish_many(&a, 20_000);
    assert!(b.hears_nothing());

    broker.set(None);
    broker.kill();
    a.reaches("away", |state| !state.connected && state.blocked.is_none()).await;
    b.reaches("away", |state| !state.connected).await;
    broker.restart().await;
    b.connects().await;
    a.connects().await;
    a.publish(20_001);
    a.reaches("confirmed", |state| state.counts.sent > 0).await;
    let mut last = b.hears().await;
    while last != changed(20_001) {
        assert_eq!(last, changed(20_000));
        last = b.hears().await;
    }
}

/// The threads that the library made for connections.
fn connection_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin")).count()
}

#[tokio::test]
async fn a_broker_that_says_nothing_is_given_up_with_its_thread_and_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://crosstie@{}", listener.local_addr().unwrap());
    let server = Server::start("a", &url, PASSWORD, None);
    let (mut socket, _) = listener.accept().await.unwrap();
    let said = server.fails().await;
    assert!(said.contains("did not answer within 10 s (login)"), "{said}");
    // The protocol header, and then the end of the connection.
    let mut received = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut received).await.unwrap();
    assert_eq!(received, b"AMQP\x00\x00\x09\x01");
    server.bus.close().await;
    let began = Instant::now();
    while connection_threads() > 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "a thread was left behind");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
