//! What the message log keeps of calls.

use std::path::PathBuf;
use std::time::Instant;

use crosstie_model::settings::MessageLogSection;
use crosstie_telemetry::messages::{Limits, MessageLog, MessageQuery, Side, StoredMessage, search};
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::support::{PATIENCE, Upstream, World, answer, exchange, get, post, until, whole};

struct Log {
    log: MessageLog,
    directory: PathBuf,
}

impl Log {
    /// Keeps the messages of what `world` opens from now on.
    fn of(world: &mut World) -> Self {
        let directory = world.directory.path().join("messages");
        let limits = Limits::new(&MessageLogSection::default(), 1);
        let log = MessageLog::open(directory.clone(), 0, limits).unwrap();
        world.messages = Some(log.clone());
        Self { log, directory }
    }

    /// All messages so far, newest first.
    fn all(&self) -> Vec<StoredMessage> {
        assert!(self.log.flush(PATIENCE));
        let query = MessageQuery { bodies: true, limit: 100, ..MessageQuery::default() };
        search(&self.directory, &query, Instant::now() + PATIENCE).unwrap().messages
    }
}

fn texts(message: &StoredMessage) -> (Option<String>, Option<String>) {
    let text = |part: &Option<crosstie_telemetry::messages::StoredPart>| {
        let body = part.as_ref()?.body.as_ref()?;
        Some(String::from_utf8(body.bytes.clone()).unwrap())
    };
    (text(&message.request), text(&message.response))
}

#[tokio::test]
async fn a_call_is_kept_with_what_its_definition_says_and_without_its_credentials() {
    let mut world = World::new()
        .file("key", "s3cr3t")
        .security("key", json!({"type": "api_key", "in": "query", "name": "k", "key": "file:key"}));
    let log = Log::of(&mut world);
    let upstream = Upstream::start(|_| async { answer(404, "nothing here") }).await;
    let kept =
        world.open(&upstream, json!({"security": "key", "message_log": {"bodies": "both", "headers": true}}));
    let metadata = world.open(&upstream, json!({"message_log": {}}));
    let nothing = world.open(&upstream, json!({}));
    let call = post("/a/b?c=d", "asked");
    let trace = call.trace;
    exchange(&kept, call).await.unwrap();
    exchange(&metadata, post("/a", "asked")).await.unwrap();
    exchange(&nothing, post("/a", "asked")).await.unwrap();
    let all = log.all();
    assert_eq!(all.len(), 2);
    let message = &all[1];
    assert_eq!((message.id.cid, message.parent, message.side), (trace.cid, Some(trace.span), Side::Outgoing));
    assert_eq!((message.name.as_str(), message.kind.as_str(), message.status), ("crm", "http", 404));
    assert_eq!((message.method.as_deref(), message.path.as_str()), (Some("POST"), "/a/b"));
    assert_eq!((message.query.as_deref(), &message.problem), (Some("c=d"), &None));
    assert_eq!((message.bytes_in, message.bytes_out), (5, 12));
    assert_eq!(texts(message), (Some("asked".into()), Some("nothing here".into())));
    assert_eq!(texts(&all[0]), (None, None));
    for entry in std::fs::read_dir(&log.directory).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("s3cr3t"));
    }
}

#[tokio::test]
async fn calls_that_come_to_no_end_are_kept_as_such() {
    let mut world = World::new();
    let log = Log::of(&mut world);
    let upstream = Upstream::start(|request| async move {
        if request.uri().path() == "/hangs" {
            tokio::time::sleep(PATIENCE).await;
        }
        http::Response::new(whole("x".repeat(1_000_000)))
    })
    .await;
    let settings = json!({"deadline_ms": 300, "message_log": {"bodies": "response", "max_body_bytes": 10}});
    let outgoing = world.open(&upstream, settings);
    exchange(&outgoing, post("/hangs", "")).await.unwrap_err();
    let mut left = outgoing.send(crate::support::call(http::Method::GET, "/left")).await.unwrap();
    left.body.frame().await.unwrap().unwrap();
    drop(left);
    until("both are kept", || log.all().len() == 2).await;
    let all = log.all();
    assert_eq!((all[0].problem.as_deref(), all[0].status), (Some("abandoned"), 200));
    let body = all[0].response.clone().unwrap().body.unwrap();
    assert!(body.is_broken && body.kept == 10 && body.length > 10, "{body:?}");
    assert_eq!((all[1].problem.as_deref(), all[1].status), (Some("deadline"), 0));
    get(&outgoing, "/whole").await.unwrap();
    until("the last is kept", || log.all().len() == 3).await;
    let body = log.all()[0].response.clone().unwrap().body.unwrap();
    assert_eq!((body.is_broken, body.is_cut, body.length), (false, true, 1_000_000));
}
