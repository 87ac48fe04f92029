//! Systems that hang, break off, talk nonsense or never end: each costs its caller the deadline at most, and
//! others nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::FailureKind;
use crosstie_model::outgoing::{HttpCall, Pace, Trouble};
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{PATIENCE, Upstream, World, answer, call, exchange, get, post, trouble_of, until};

/// Reads the head of a request.
async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
}

/// A system that reads each request and then sends `text`, and nothing more.
async fn saying(text: &'static str) -> Upstream {
    Upstream::raw(move |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(text.as_bytes()).await.unwrap();
        // Open until the other end has enough.
        let _ = stream.read_u8().await;
    })
    .await
}

#[tokio::test]
async fn a_system_that_hangs_costs_its_caller_the_deadline_and_others_nothing() {
    let upstream = Upstream::start(|request| async move {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        answer(200, "ok")
    })
    .await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({"deadline_ms": 60_000, "max_connections": 4}));
    let hanging = {
        let outgoing = outgoing.clone();
        let deadline = Instant::now() + Duration::from_millis(500);
        let hanging = HttpCall { deadline, ..call(Method::GET, "/hang") };
        tokio::spawn(async move { exchange(&outgoing, hanging).await })
    };
    until("it hangs", || upstream.requests() == 1).await;
    for _ in 0..50 {
        assert_eq!(get(&outgoing, "/").await.unwrap().0, 200);
    }
    let error = tokio::time::timeout(PATIENCE, hanging).await.unwrap().unwrap().unwrap_err();
    assert_eq!((error.trouble, error.failure.kind), (Trouble::Deadline, FailureKind::Timeout));
    assert!(!error.failure.text.contains("127.0.0.1"));
    until("the connection that hung is closed", || world.gauge("connections") == 1).await;
}

#[tokio::test]
async fn the_definitions_own_deadline_counts_where_it_is_earlier() {
    let upstream = Upstream::start(|_| std::future::pending()).await;
    let outgoing = World::new().open(&upstream, json!({"deadline_ms": 100, "retry": {"max": 5}}));
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Deadline);
    assert_eq!(upstream.requests(), 1, "time that is up is no reason to ask again");
}

#[tokio::test]
async fn a_system_that_breaks_off_is_asked_again_only_where_that_is_safe() {
    let upstream = Upstream::raw(|mut stream| async move { read_head(&mut stream).await }).await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({"retry": {"max": 2, "pause_ms": 1}}));
    assert_eq!(trouble_of(&outgoing, post("/", "{}")).await, Trouble::Broken);
    assert_eq!(upstream.connections(), 1);
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Broken);
    assert_eq!(upstream.connections(), 4);
    assert_eq!(world.counted("crosstie_outgoing_retries_total"), 2);
}

#[tokio::test]
async fn a_reset_is_a_broken_connection() {
    let upstream = Upstream::raw(|mut stream| async move {
        read_head(&mut stream).await;
        // With no time to linger, closing resets.
        let stream = stream.into_std().unwrap();
        nix::sys::socket::setsockopt(
            &stream,
            nix::sys::socket::sockopt::Linger,
            &nix::libc::linger { l_onoff: 1, l_linger: 0 },
        )
        .unwrap();
    })
    .await;
    let outgoing = World::new().open(&upstream, json!({}));
    let error = exchange(&outgoing, post("/", "{}")).await.unwrap_err();
    assert_eq!((error.trouble, error.failure.kind), (Trouble::Broken, FailureKind::BadGateway), "{error}");
}

#[tokio::test]
async fn nonsense_is_a_protocol_error_and_is_not_asked_for_again() {
    for nonsense in [
        "220 mail.example ESMTP\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbroken header\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    ] {
        let upstream = saying(nonsense).await;
        let outgoing = World::new().open(&upstream, json!({"retry": {"max": 3, "pause_ms": 1}}));
        assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Protocol, "{nonsense}");
        assert_eq!(upstream.connections(), 1, "{nonsense}");
    }
}

#[tokio::test]
async fn headers_that_never_end_are_refused_in_bounded_memory() {
    let upstream = Upstream::raw(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(format!("X-More: {}\r\n", "x".repeat(1_000)).as_bytes()).await.is_ok() {}
    })
    .await;
    let outgoing = World::new().open(&upstream, json!({}));
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Protocol);
}

#[tokio::test]
async fn headers_that_come_drop_by_drop_cost_the_deadline() {
    let upstream = Upstream::raw(|mut stream| async move {
        read_head(&mut stream).await;
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
            if stream.write_u8(*byte).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let outgoing = World::new().open(&upstream, json!({"deadline_ms": 300}));
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Deadline);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_no_shorter_body() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let upstream = Upstream::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(text.as_bytes()).await.unwrap();
        })
        .await;
        let outgoing = World::new().open(&upstream, json!({}));
        assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Broken, "{text}");
    }
}

/// A system whose answers never end: a piece every few milliseconds.
async fn endless() -> Upstream {
    Upstream::start(|_| async {
        let pieces = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok(Frame::data(Bytes::from_static(b"more"))), ()))
        });
        http::Response::new(http_body_util::combinators::BoxBody::new(SyncStream::of(pieces)))
    })
    .await
}

use sync::SyncStream;

mod sync {
    //! A stream's body that may be shared, as hyper's boxed bodies must be.
    use super::{Bytes, Frame, StreamBody};
    use futures_util::Stream;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll};

    type Boxed = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

    pub(super) struct SyncStream(Mutex<StreamBody<Boxed>>);

    impl SyncStream {
        pub(super) fn of(
            stream: impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static,
        ) -> Self {
            Self(Mutex::new(StreamBody::new(Box::pin(stream))))
        }
    }

    impl http_body::Body for SyncStream {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Pin::new(self.get_mut().0.get_mut().unwrap()).poll_frame(context)
        }
    }
}

#[tokio::test]
async fn an_answer_that_never_ends_costs_the_deadline_or_ends_at_its_limit() {
    let upstream = endless().await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({"deadline_ms": 300}));
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Deadline);
    let outgoing = world.open(&upstream, json!({"max_response_bytes": 100}));
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::TooLarge);
    until("its connections are closed", || world.gauge("connections") == 0).await;
}

#[tokio::test]
async fn an_answer_read_in_pieces_may_take_long_as_long_as_pieces_come() {
    let upstream = endless().await;
    let outgoing = World::new().open(&upstream, json!({"deadline_ms": 400}));
    let mut answer = outgoing.send(HttpCall { pace: Pace::Pieces, ..call(Method::GET, "/") }).await.unwrap();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1_000) {
        answer.body.frame().await.unwrap().unwrap();
    }

    let upstream = saying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    let outgoing = World::new().open(&upstream, json!({"deadline_ms": 200}));
    let mut answer = outgoing.send(HttpCall { pace: Pace::Pieces, ..call(Method::GET, "/") }).await.unwrap();
    assert_eq!(answer.body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    let ended = tokio::time::timeout(PATIENCE, answer.body.frame()).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().trouble, Trouble::Deadline);
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let world = World::new();
    let outgoing = world.open_at(&address, json!({"retry": {"max": 0}}));
    let error = exchange(&outgoing, call(Method::GET, "/")).await.unwrap_err();
    assert_eq!((error.trouble, error.failure.kind), (Trouble::Connect, FailureKind::BadGateway));
    assert!(error.detail.contains(&address), "{error}");
    let outgoing = world.open_at("http://nobody.invalid", json!({"retry": {"max": 0}}));
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Connect);
    assert_eq!(world.counted("crosstie_outgoing_connections_total"), 2);
}

#[tokio::test]
async fn a_connection_that_is_never_made_costs_the_connect_deadline() {
    // It accepts, and never says a word of TLS.
    let upstream = Upstream::raw(|mut stream| async move {
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let address = format!("https://127.0.0.1:{}", upstream.port);
    let settings = json!({"connect_deadline_ms": 200, "retry": {"max": 1, "pause_ms": 1}});
    let outgoing = World::new().open_at(&address, settings);
    let begin = Instant::now();
    let error = exchange(&outgoing, call(Method::GET, "/")).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Deadline, "{error}");
    assert!(error.detail.contains("200 ms"), "{error}");
    // The whole call may take 30 s; this is far from it, and still no assertion of a time.
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(upstream.connections(), 2, "a call that never left may be repeated");
}
