//! What a channel keeps of its messages, and that a request waits for room.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::support::{Setup, eventually};

fn setup() -> Setup {
    let kept = |service: &str, path: &str, log: serde_json::Value| json!({"type": "http", "path": path, "service": service, "message_log": log});
    Setup::new()
        .channel("all", kept("echo", "/all", json!({"bodies": "both", "headers": true})))
        .channel("answers", kept("echo", "/answers", json!({"bodies": "response"})))
        .channel("stream", kept("stream", "/stream", json!({"bodies": "both", "max_body_bytes": 10})))
        .channel("metadata", kept("echo", "/metadata", json!({})))
        .channel("nothing", json!({"type": "http", "path": "/nothing", "service": "echo"}))
}

#[test]
fn a_channel_keeps_what_it_says() {
    let server = setup().start();
    let mut client = server.connect();
    for (index, (path, request, response)) in [
        ("/all", Some("hello"), true),
        ("/answers", None, true),
        ("/metadata", None, false),
        ("/nothing", None, false),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = client.post(path, "Authorization: Basic eDp5\r\nX-Shop: north\r\n", "hello");
        assert_eq!(answer.status, 200, "{path}");
        let seen = server.fakes().seen_at_least(index + 1).pop().unwrap();
        let kept = seen.kept;
        assert_eq!(kept.request.as_deref(), request, "{path}");
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(kept.response, response.then_some((body, false)), "{path}");
        let headers: Vec<_> = kept.headers.iter().filter(|(name, _)| name == "x-shop").collect();
        assert_eq!(headers.len(), usize::from(path == "/all"), "{path}");
    }
}

#[test]
fn a_stream_is_kept_as_far_as_it_came_and_as_its_channel_says() {
    let server = setup().start();
    let answer = server.connect().get("/stream?pieces=3", "");
    assert!(answer.body.len() > 10);
    let kept = server.fakes().seen_at_least(1).pop().unwrap().kept;
    let beginning = String::from_utf8(answer.body[..10].to_vec()).unwrap();
    assert_eq!(kept.response, Some((beginning, false)));
}

#[test]
fn a_request_waits_for_room_and_others_do_not() {
    let server = setup().start();
    let fakes = server.fakes();
    fakes.full.store(true, Ordering::SeqCst);
    let mut waiting = server.connect();
    let share = server.setup.share.clone();
    std::thread::scope(|scope| {
        let answer = scope.spawn(move || waiting.post("/metadata", "", "x").status);
        eventually("the request has come", || share.started.load(Ordering::SeqCst) == 1);
        assert_eq!(server.connect().post("/nothing", "", "x").status, 200);
        assert_eq!(fakes.seen().len(), 1, "only the one that keeps nothing is done");
        fakes.full.store(false, Ordering::SeqCst);
        assert_eq!(answer.join().unwrap(), 200);
    });
}

#[test]
fn a_request_that_finds_no_room_in_time_is_refused_and_keeps_nothing() {
    let server = setup().start();
    server.fakes().full.store(true, Ordering::SeqCst);
    let answer = server.connect().post("/all", "", "x");
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    let seen = server.fakes().seen_at_least(1).pop().unwrap();
    assert!(seen.kept.is_refused, "{seen:?}");
}
