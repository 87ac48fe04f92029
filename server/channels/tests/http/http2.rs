use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use crate::support::{Server, Setup, eventually};

fn server() -> Server {
    let mut setup = Setup::new()
        .http(|http| {
            http.max_header_bytes = 10_000;
            http.max_h2_streams = 3;
            http.max_body_bytes = 100_000;
        })
        .channel("echo", json!({"type": "rest", "path": "/echo", "service": "echo"}))
        .channel("slow", json!({"type": "rest", "path": "/slow", "service": "slow"}));
    setup.linger = Duration::from_secs(20);
    setup.start()
}

type Sender = SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr) -> (Sender, tokio::task::JoinHandle<Result<(), hyper::Error>>) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(path: &str, body: Bytes) -> http::Request<Full<Bytes>> {
    let method = if body.is_empty() { "GET" } else { "POST" };
    http::Request::builder().method(method).uri(format!("http://test{path}")).body(Full::new(body)).unwrap()
}

async fn answer(
    response: impl Future<Output = hyper::Result<hyper::Response<hyper::body::Incoming>>>,
) -> (u16, http::HeaderMap, Value) {
    let (head, body) = response.await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.expect("a hang") })
}

#[test]
fn http2_with_prior_knowledge_carries_requests_side_by_side() {
    let server = server();
    run(async {
        let (mut sender, _connection) = connect(server.address).await;
        let slow = sender.send_request(request("/slow?ms=300", Bytes::new()));
        let (status, headers, body) =
            answer(sender.clone().send_request(request("/echo", "[1]".into()))).await;
        assert_eq!((status, &body["payload"]), (200, &json!({"json": [1]})));
        assert!(headers.contains_key("x-crosstie-cid"));
        assert_eq!(answer(slow).await.0, 200);
        assert_eq!(server.http.connections(), 1);
    });
}

#[test]
fn limits_hold_on_http2() {
    let server = server();
    run(async {
        let (mut sender, _connection) = connect(server.address).await;
        let big = Bytes::from(vec![b'x'; 500_000]);
        assert_eq!(answer(sender.send_request(request("/echo", big))).await.0, 413);
        let mut long = request("/echo", Bytes::new());
        long.headers_mut().insert("x-long", "x".repeat(12_000).parse().unwrap());
        assert_eq!(answer(sender.send_request(long)).await.0, 431);
        // One refused request does not end the connection.
        assert_eq!(answer(sender.send_request(request("/echo", Bytes::new()))).await.0, 200);
    });
}

/// curl and httpx report a broken stream instead of the answer when it is reset while they still send.
#[test]
fn a_client_that_still_sends_a_refused_body_is_heard_out() {
    let server = server();
    run(async {
        let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for (path, status) in [("/echo", 413), ("/nowhere", 404)] {
            let (pieces, body) = tokio::sync::mpsc::channel(1);
            let body = futures_util::stream::unfold(body, |mut body| async move {
                Some((Ok::<_, Infallible>(Frame::data(body.recv().await?)), body))
            });
            let request =
                http::Request::post(format!("http://test{path}")).body(StreamBody::new(body.boxed()));
            let response = sender.send_request(request.unwrap());
            let piece = Bytes::from(vec![b'x'; 50_000]);
            for _ in 0..3 {
                pieces.send(piece.clone()).await.unwrap();
            }
            assert_eq!(answer(response).await.0, status);
            // Much more than any window holds: it arrives only if it is read.
            for _ in 0..100 {
                pieces.send(piece.clone()).await.expect("the stream was reset while the client still sent");
            }
        }
    });
    eventually("nothing is in hand", || server.http.in_flight() == 0);
}

#[test]
fn a_connection_carries_no_more_streams_at_once_than_it_may() {
    let server = server();
    run(async {
        let (sender, _connection) = connect(server.address).await;
        // The client learns the limit with the server's first frame.
        answer(sender.clone().send_request(request("/echo", Bytes::new()))).await;
        let slow: Vec<_> = (0..6)
            .map(|_| tokio::spawn(answer(sender.clone().send_request(request("/slow?ms=200", Bytes::new())))))
            .collect();
        let mut most = 0;
        for _ in 0..30 {
            most = most.max(server.http.in_flight());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(most, 3);
        for one in slow {
            assert_eq!(one.await.unwrap().0, 200);
        }
    });
}

#[test]
fn a_draining_server_says_goaway_and_finishes_what_runs() {
    let server = server();
    run(async {
        let (mut sender, connection) = connect(server.address).await;
        let slow = tokio::spawn(answer(sender.send_request(request("/slow?ms=400", Bytes::new()))));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (_idle, idle_connection) = connect(server.address).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.http.drain();
        assert!(idle_connection.await.unwrap().is_ok(), "an idle connection ends cleanly");
        assert_eq!(slow.await.unwrap().0, 200);
        assert!(connection.await.unwrap().is_ok());
    });
    eventually("drained", || server.http.connections() == 0);
}
