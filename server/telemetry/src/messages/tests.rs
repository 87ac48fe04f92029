//! Writing segments and reading them back, also what a killed writer, a full disk or an older release left.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use crosstie_model::TraceContext;
use crosstie_model::definition::KeptMessages;
use crosstie_model::kept::{KeepPolicy, MessageBody, MessageId, MessagePart};
use crosstie_model::message::Principal;
use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::log::{MessageLog, Room};
use super::search::{Found, MessageQuery, messages, search};
use super::segment::{Limits, SegmentWriter, prune, segments};
use super::{MessageRecord, Side, format};
use crate::access::LoggedQuery;

const MIB: u64 = 1024 * 1024;

fn limits() -> Limits {
    Limits::exact(64 * MIB, 1, Duration::from_secs(3_600))
}

/// A message that began so many microseconds after 1970.
fn record(time: u64) -> MessageRecord {
    MessageRecord {
        time: UNIX_EPOCH + Duration::from_micros(time),
        micros: 1_500,
        trace: TraceContext::new_root(),
        side: Side::Channel,
        name: "orders".into(),
        kind: "rest",
        service: Some("shop.order".parse().unwrap()),
        method: Some(Method::POST),
        path: "/orders/7".into(),
        query: None,
        status: 201,
        problem: None,
        bytes_in: 3,
        bytes_out: 0,
        client: Some("192.0.2.7".parse().unwrap()),
        principal: None,
        replay_of: None,
        policy: KeepPolicy::new(&KeptMessages::default()),
        request: None,
        response: None,
    }
}

fn with_body(time: u64, body: impl Into<Bytes>) -> MessageRecord {
    let part = MessagePart {
        content_type: Some(HeaderValue::from_static("text/plain")),
        headers: Vec::new(),
        body: Some(MessageBody::whole(body.into())),
    };
    MessageRecord { request: Some(Box::new(part)), ..record(time) }
}

fn frames(records: &[MessageRecord]) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.iter().for_each(|record| format::append(record, &mut bytes));
    bytes
}

fn write(directory: &Path, records: &[MessageRecord]) {
    SegmentWriter::new(directory.to_owned(), 0, limits()).append(&frames(records)).unwrap();
}

fn find(directory: &Path, query: MessageQuery) -> Found {
    let query = MessageQuery { limit: if query.limit == 0 { 100 } else { query.limit }, ..query };
    search(directory, &query, Instant::now() + Duration::from_secs(60)).unwrap()
}

fn times(found: &Found) -> Vec<u64> {
    found.messages.iter().map(|message| message.time).collect()
}

#[test]
fn a_message_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let settings = KeptMessages { headers: true, mask: vec!["pin".into()], ..KeptMessages::default() };
    let mut trace = TraceContext::new_root();
    trace.parent = Some([1, 2, 3, 4, 5, 6, 7, 8]);
    let earlier = MessageId { cid: trace.cid, span: [9; 8] };
    let part = |body: &'static str| {
        Some(Box::new(MessagePart {
            content_type: Some(HeaderValue::from_static("application/json")),
            headers: vec![
                (HeaderName::from_static("authorization"), HeaderValue::from_static("Bearer x")),
                (HeaderName::from_static("accept"), HeaderValue::from_static("*/*")),
            ],
            body: Some(MessageBody::whole(Bytes::from_static(body.as_bytes()))),
        }))
    };
    let masked = Arc::new(BTreeSet::from(["key".to_owned()]));
    let written = MessageRecord {
        trace,
        query: Some(LoggedQuery { raw: "key=k&pin=1&a=b".into(), masked }),
        problem: Some("Not found"),
        principal: Some(Arc::new(Principal::new("shops", "basic_auth").named("ada"))),
        replay_of: Some(earlier),
        policy: KeepPolicy::new(&settings),
        request: part(r#"{"pin":1}"#),
        response: part(r#"{"a":1}"#),
        ..record(7)
    };
    write(directory.path(), std::slice::from_ref(&written));
    let mut found = find(directory.path(), MessageQuery { bodies: true, ..MessageQuery::default() });
    let read = found.messages.pop().unwrap();
    assert_eq!((read.id.cid, read.id.span, read.parent), (trace.cid, trace.span, trace.parent));
    assert_eq!((read.time, read.micros, read.status, read.side), (7, 1_500, 201, Side::Channel));
    assert_eq!((read.name.as_str(), read.kind.as_str()), ("orders", "rest"));
    assert_eq!(read.service.as_deref(), Some("shop.order"));
    assert_eq!((read.method.as_deref(), read.path.as_str()), (Some("POST"), "/orders/7"));
    assert_eq!(read.query.as_deref(), Some("key=***&pin=***&a=b"));
    assert_eq!((read.bytes_in, read.bytes_out), (3, 0));
    assert_eq!(read.client.as_deref(), Some("192.0.2.7"));
    assert_eq!((read.security.as_deref(), read.username.as_deref()), (Some("shops"), Some("ada")));
    assert_eq!((read.problem.as_deref(), read.replay_of), (Some("Not found"), Some(earlier)));
    let request = read.request.unwrap();
    assert_eq!(request.headers[0], ("authorization".to_owned(), "***".to_owned()));
    assert_eq!(request.headers[1], ("accept".to_owned(), "*/*".to_owned()));
    let body = request.body.unwrap();
    assert_eq!((body.bytes.as_slice(), body.is_masked), (&br#"{"pin":"***"}"#[..], true));
    let body = read.response.unwrap().body.unwrap();
    assert_eq!((body.bytes.as_slice(), body.difference()), (&br#"{"a":1}"#[..], None));

    let listed = find(directory.path(), MessageQuery::default()).messages.pop().unwrap();
    let body = listed.response.unwrap().body.unwrap();
    assert_eq!((body.bytes.len(), body.kept, body.length), (0, 7, 7), "a list has no bodies");
}

#[test]
fn a_body_is_kept_up_to_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let policy = KeepPolicy::new(&KeptMessages { max_body_bytes: 4, ..KeptMessages::default() });
    write(directory.path(), &[MessageRecord { policy, ..with_body(1, "abcdef") }]);
    let found = find(directory.path(), MessageQuery { bodies: true, ..MessageQuery::default() });
    let body = found.messages[0].request.clone().unwrap().body.unwrap();
    assert_eq!((body.bytes.as_slice(), body.kept, body.length, body.is_cut), (&b"abcd"[..], 4, 6, true));
}

#[test]
fn a_search_gives_what_fits_and_the_newest_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let call =
        |time| MessageRecord { side: Side::Outgoing, name: "crm".into(), service: None, ..record(time) };
    let wanted = record(3);
    let id = MessageId { cid: wanted.trace.cid, span: wanted.trace.span };
    let second = MessageRecord { trace: wanted.trace.child(), ..call(4) };
    write(directory.path(), &[record(1), MessageRecord { status: 503, ..record(2) }, wanted, second]);
    write(directory.path(), &[MessageRecord { problem: Some("deadline"), status: 0, ..call(6) }, record(5)]);
    let all = |query| times(&find(directory.path(), query));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(all(MessageQuery::default()), [6, 5, 4, 3, 2, 1]);
    assert_eq!(all(MessageQuery { limit: 2, ..Default::default() }), [6, 5]);
    assert_eq!(all(MessageQuery { cid: Some(id.cid), ..Default::default() }), [4, 3]);
    assert_eq!(all(MessageQuery { cid: Some(id.cid), span: Some(id.span), ..Default::default() }), [3]);
    assert_eq!(
        all(MessageQuery { side: Some(Side::Outgoing), name: text("crm"), ..Default::default() }),
        [6, 4]
    );
    assert_eq!(all(MessageQuery { service: text("shop.order"), limit: 1, ..Default::default() }), [5]);
    assert_eq!(all(MessageQuery { status: Some((500, 599)), ..Default::default() }), [2]);
    assert_eq!(all(MessageQuery { failed: true, ..Default::default() }), [6, 2]);
    assert_eq!(all(MessageQuery { from: Some(2), to: Some(4), ..Default::default() }), [4, 3, 2]);
    let mut seen = 0;
    messages(directory.path(), |_| seen += 1).unwrap();
    assert_eq!(seen, 6);
}

#[test]
fn the_torn_end_of_a_killed_writer_costs_its_last_message_alone() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &[with_body(1, "first"), with_body(2, "second")]);
    let path = segments(directory.path()).unwrap().pop().unwrap().path;
    let whole = std::fs::read(&path).unwrap();
    let first = 8 + frames(&[with_body(1, "first")]).len();
    for length in first..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let found = find(directory.path(), MessageQuery { bodies: true, ..MessageQuery::default() });
        assert_eq!((times(&found), found.damaged), (vec![1], 0), "cut at {length}");
    }
    // A power cut leaves zeros where data was on its way.
    let mut zeros = whole[..first].to_vec();
    zeros.resize(whole.len(), 0);
    std::fs::write(&path, &zeros).unwrap();
    let found = find(directory.path(), MessageQuery::default());
    assert_eq!((times(&found), found.damaged), (vec![1], 0));
}

#[test]
fn a_damaged_place_is_told_and_what_was_before_it_given() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &[record(1), record(2), record(3)]);
    let path = segments(directory.path()).unwrap().pop().unwrap().path;
    let mut bytes = std::fs::read(&path).unwrap();
    let second = 8 + frames(&[record(1)]).len() + 20;
    bytes[second] ^= 0xff;
    std::fs::write(&path, &bytes).unwrap();
    let found = find(directory.path(), MessageQuery::default());
    assert_eq!((times(&found), found.damaged), (vec![1], 1));
}

#[test]
fn a_search_that_takes_too_long_gives_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let many: Vec<_> = (0..10_000).map(record).collect();
    write(directory.path(), &many);
    let query = MessageQuery { limit: 5, ..MessageQuery::default() };
    let found = search(directory.path(), &query, Instant::now()).unwrap();
    assert!(!found.is_complete && found.messages.len() == 5);
}

#[test]
fn nobody_else_can_read_what_is_kept() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("messages");
    write(&kept, &[record(1)]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&kept), 0o700);
    assert_eq!(mode(&segments(&kept).unwrap()[0].path), 0o600);
}

#[test]
fn the_oldest_segments_go_when_there_is_too_much() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits::exact(64 * 1024, 1, Duration::from_secs(3_600));
    let mut writer = SegmentWriter::new(directory.path().to_owned(), 0, limits);
    for time in 0..5_000 {
        writer.append(&frames(&[record(time)])).unwrap();
    }
    let all = segments(directory.path()).unwrap();
    let total: u64 = all.iter().map(|segment| segment.length).sum();
    assert!(total <= 64 * 1024 && all.len() >= 6, "{total} bytes in {} segments", all.len());
    let found = find(directory.path(), MessageQuery { limit: 5_000, ..MessageQuery::default() });
    let kept = times(&found);
    assert_eq!((kept[0], kept.is_sorted_by(|a, b| a > b)), (4_999, true));
}

#[test]
fn writers_of_large_messages_keep_to_the_size_together() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits::exact(MIB, 2, Duration::from_secs(3_600));
    let mut writers = [0, 1].map(|worker| SegmentWriter::new(directory.path().to_owned(), worker, limits));
    let large = frames(&(0..400).map(record).collect::<Vec<_>>());
    assert!(large.len() > 40_000 && large.len() < 250_000, "{} bytes", large.len());
    for turn in 0..200 {
        // One is often far ahead of the other.
        writers[usize::from(turn % 3 == 0)].append(&large).unwrap();
        let total: u64 = segments(directory.path()).unwrap().iter().map(|segment| segment.length).sum();
        assert!(total <= MIB, "{total} bytes after {turn} turns");
    }
}

#[test]
fn old_segments_go_and_other_files_stay() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &[record(1)]);
    let path = segments(directory.path()).unwrap().pop().unwrap().path;
    let old = SystemTime::now() - Duration::from_secs(2 * 3_600);
    OpenOptions::new().append(true).open(&path).unwrap().set_modified(old).unwrap();
    let other = directory.path().join("1-2-3.messages.bak");
    File::create(&other).unwrap().set_modified(old).unwrap();
    write(directory.path(), &[record(2)]);
    prune(directory.path(), limits()).unwrap();
    assert_eq!(times(&find(directory.path(), MessageQuery::default())), [2]);
    assert!(other.exists() && !path.exists());
}

#[test]
fn a_segment_that_was_deleted_is_not_written_to_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::new(directory.path().to_owned(), 0, limits());
    writer.append(&frames(&[record(1)])).unwrap();
    std::fs::remove_file(&segments(directory.path()).unwrap()[0].path).unwrap();
    writer.append(&frames(&[record(2)])).unwrap();
    assert_eq!(times(&find(directory.path(), MessageQuery::default())), [2]);
}

#[test]
fn what_is_recorded_is_written_soon_and_by_the_end_at_the_latest() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("messages");
    let log = MessageLog::open(kept.clone(), 3, limits()).unwrap();
    assert!(log.flush(Duration::from_secs(60)) && !kept.exists(), "nothing is made for nothing");
    log.record(record(1));
    let began = Instant::now();
    while find(&kept, MessageQuery::default()).messages.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    (2..2_000).for_each(|time| log.record(record(time)));
    drop(log);
    let found = find(&kept, MessageQuery { limit: 5_000, ..MessageQuery::default() });
    assert_eq!(found.messages.len(), 1_999);
}

#[test]
fn bodies_that_find_no_room_are_dropped_and_counted_but_no_message_is() {
    let directory = tempfile::tempdir().unwrap();
    let room = Room { records: 1_000, bodies: 100 };
    let log = MessageLog::with_room(directory.path().to_owned(), 0, limits(), room).unwrap();
    // One alone is too much, so that none of this depends on how fast the writer is.
    (0..10).for_each(|time| log.record(with_body(time, vec![b'x'; 101])));
    log.record(with_body(10, "small"));
    assert!(log.flush(Duration::from_secs(60)));
    let found = find(directory.path(), MessageQuery { bodies: true, ..MessageQuery::default() });
    assert_eq!((found.messages.len(), log.dropped_bodies()), (11, 10));
    let body = |index: usize| found.messages[index].request.clone().unwrap().body.unwrap();
    assert_eq!(body(0).bytes, b"small");
    assert!(body(1).is_dropped && body(1).length == 101 && body(1).bytes.is_empty());
}

#[test]
fn who_makes_messages_waits_while_the_disk_refuses_and_none_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    // A file is where the directory should be: nothing can be written.
    let place = directory.path().join("messages");
    File::create(&place).unwrap().write_all(b"x").unwrap();
    let room = Room { records: 8, bodies: 100 };
    let log = MessageLog::with_room(place.clone(), 0, limits(), room).unwrap();
    (0..8).for_each(|time| log.record(record(time)));
    assert!(!log.has_room());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let waited = tokio::time::timeout(Duration::from_millis(100), log.wait_for_room()).await;
        assert!(waited.is_err(), "there is no room");
        std::fs::remove_file(&place).unwrap();
        tokio::time::timeout(Duration::from_secs(60), log.wait_for_room()).await.unwrap();
    });
    log.record(record(8));
    assert!(log.flush(Duration::from_secs(60)));
    assert_eq!(find(&place, MessageQuery::default()).messages.len(), 9);
}

proptest! {
    #[test]
    fn whatever_a_segment_holds_is_read_in_its_bounds(
        cut in 0_usize..2_000,
        flips in prop::collection::vec((0_usize..2_000, any::<u8>()), 0..4),
        tail in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &[with_body(1, "first"), with_body(2, "second"), record(3)]);
        let path = segments(directory.path()).unwrap().pop().unwrap().path;
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, value) in flips {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        bytes.truncate(cut.max(8));
        bytes.extend_from_slice(&tail);
        std::fs::write(&path, &bytes).unwrap();
        let found = find(directory.path(), MessageQuery { bodies: true, ..MessageQuery::default() });
        prop_assert!(found.messages.len() <= 3);
    }

    #[test]
    fn no_metadata_makes_it_panic(mut meta in prop::collection::vec(any::<u8>(), 44..200), bodies in prop::collection::vec(any::<u8>(), 0..40)) {
        meta[0] = 1;
        if let Some(fixed) = format::Fixed::read(&meta) {
            let _ = format::read(fixed, &meta, &bodies);
        }
    }
}

/// A segment as the first release wrote it: one message that has everything.
const FIRST_RELEASE: &[u8] = include_bytes!("first-release.messages");

#[test]
fn segments_of_the_first_release_are_read() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("00000000000000000001-000-1.messages"), FIRST_RELEASE).unwrap();
    let found = find(directory.path(), MessageQuery { bodies: true, ..MessageQuery::default() });
    let message = &found.messages[0];
    assert_eq!(found.messages.len(), 1);
    let id = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
    assert_eq!(message.id.to_string(), id);
    assert_eq!(message.parent, Some([1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!(message.replay_of.map(|id| id.to_string()).as_deref(), Some(id));
    assert_eq!((message.time, message.micros, message.status), (1_700_000_000_123_456, 1_500, 404));
    assert_eq!(
        (message.name.as_str(), message.kind.as_str(), message.side),
        ("orders", "rest", Side::Channel)
    );
    assert_eq!(message.service.as_deref(), Some("shop.order"));
    assert_eq!((message.method.as_deref(), message.path.as_str()), (Some("POST"), "/orders/7"));
    assert_eq!(message.query.as_deref(), Some("a=b"));
    assert_eq!((message.security.as_deref(), message.username.as_deref()), (Some("shops"), Some("ada")));
    assert_eq!(
        (message.security_kind.as_deref(), message.client.as_deref()),
        (Some("basic_auth"), Some("192.0.2.7"))
    );
    assert_eq!(
        (message.problem.as_deref(), message.bytes_in, message.bytes_out),
        (Some("Not found"), 300, 5)
    );
    let request = message.request.clone().unwrap();
    assert_eq!(request.content_type.as_deref(), Some("text/plain"));
    assert_eq!(request.headers, [("accept".to_owned(), "*/*".to_owned())]);
    let body = request.body.unwrap();
    assert_eq!((body.bytes.len(), body.length, body.is_cut), (200, 300, true));
    assert_eq!(message.response.clone().unwrap().body.unwrap().bytes, b"hello");
}

/// What made the file that [`FIRST_RELEASE`] holds, and what this release writes for the same message.
#[test]
fn this_release_writes_what_the_first_one_wrote() {
    let headers = vec![(HeaderName::from_static("accept"), HeaderValue::from_static("*/*"))];
    let content_type = Some(HeaderValue::from_static("text/plain"));
    let body = MessageBody { bytes: vec![b'x'; 200].into(), length: 300, ..MessageBody::default() };
    let request = MessagePart { content_type, headers, body: Some(body) };
    let response = MessagePart {
        body: Some(MessageBody::whole(Bytes::from_static(b"hello"))),
        ..MessagePart::default()
    };
    let mut trace =
        TraceContext::from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-0102030405060708-00").unwrap();
    trace.span = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];
    let id = MessageId { cid: trace.cid, span: trace.span };
    let written = MessageRecord {
        trace,
        status: 404,
        query: Some(LoggedQuery { raw: "a=b".into(), masked: Arc::default() }),
        problem: Some("Not found"),
        bytes_in: 300,
        bytes_out: 5,
        principal: Some(Arc::new(Principal::new("shops", "basic_auth").named("ada"))),
        replay_of: Some(id),
        request: Some(Box::new(request)),
        response: Some(Box::new(response)),
        ..record(1_700_000_000_123_456)
    };
    let mut bytes = format::MAGIC.to_vec();
    format::append(&written, &mut bytes);
    if std::env::var_os("CROSSTIE_WRITE_SEGMENT").is_some() {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/messages/first-release.messages");
        std::fs::write(place, &bytes).unwrap();
    }
    assert_eq!(bytes, FIRST_RELEASE);
}
