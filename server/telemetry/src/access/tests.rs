//! The access log as a whole: from a record to a line.

use std::net::Ipv4Addr;
use std::time::Instant;

use crosstie_model::refusal::RefusalReason;

use super::*;

fn record(number: u64) -> AccessRecord {
    AccessRecord {
        time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_769_903_999_000_123),
        cid: "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap(),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        method: Method::GET,
        path: format!("/customers/{number}"),
        query: Some(LoggedQuery {
            raw: "page=2&api_key=s3cret".to_owned(),
            masked: Arc::new(BTreeSet::from(["api_key".to_owned()])),
        }),
        version: Version::HTTP_11,
        channel: Some("crm.customer.get".into()),
        service: Some(ServiceName::new("crm.customer.get").unwrap()),
        status: 200,
        bytes_in: 0,
        bytes_out: 512,
        micros: 1234,
        principal: Some(Arc::new(Principal::new("crm.clients", "basic_auth").named("crm"))),
        refused: None,
        user_agent: Some(HeaderValue::from_static("curl/8")),
        headers: vec![(HeaderName::from_static("x-tenant"), HeaderValue::from_static("acme"))],
    }
}

fn lines(directory: &Path) -> Vec<String> {
    std::fs::read_to_string(path_in(directory)).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_request_is_one_line_of_json_without_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::open(directory.path(), &LogSettings::default()).unwrap();
    log.record(record(7));
    drop(log);
    assert_eq!(
        lines(directory.path()),
        [concat!(
            r#"{"time":"2026-01-31T23:59:59.000123Z","cid":"4bf92f3577b34da6a3ce929d0e0e4736","#,
            r#""client":"127.0.0.1","method":"GET","path":"/customers/7","query":"page=2&api_key=***","#,
            r#""protocol":"HTTP/1.1","status":200,"bytes_in":0,"bytes_out":512,"us":1234,"#,
            r#""channel":"crm.customer.get","service":"crm.customer.get","security":"crm.clients","#,
            r#""username":"crm","user_agent":"curl/8","header.x-tenant":"acme"}"#
        )]
    );
}

#[test]
fn a_refused_request_says_which_credentials_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::open(directory.path(), &LogSettings::default()).unwrap();
    let refused = RefusedCredentials {
        definition: "shop.tokens".into(),
        kind: "jwt",
        reason: RefusalReason::Expired,
        username: None,
    };
    log.record(AccessRecord { principal: None, refused: Some(Box::new(refused)), status: 401, ..record(7) });
    drop(log);
    let line = lines(directory.path()).remove(0);
    assert!(line.contains(r#""security":"shop.tokens","refused":"expired","user_agent""#), "{line}");
}

#[test]
fn a_request_is_one_line_of_text_where_that_is_set() {
    let directory = tempfile::tempdir().unwrap();
    let settings = LogSettings { format: BodyFormat::Text, ..LogSettings::default() };
    let log = AccessLog::open(directory.path(), &settings).unwrap();
    log.record(record(7));
    drop(log);
    let expected = concat!(
        "2026-01-31T23:59:59.000123Z 127.0.0.1 crm \"GET /customers/7?page=2&api_key=*** HTTP/1.1\" 200 512 ",
        "1234 crm.customer.get crm.customer.get 4bf92f3577b34da6a3ce929d0e0e4736 \"curl/8\""
    );
    assert_eq!(lines(directory.path()), [expected]);
}

#[test]
fn a_masked_parameter_is_found_however_it_is_written() {
    let shown = |raw: &str| {
        let masked = Arc::new(BTreeSet::from(["api key".to_owned(), "k".to_owned()]));
        LoggedQuery { raw: raw.to_owned(), masked }.shown()
    };
    assert_eq!(
        shown("api%20key=x&%61pi+key=y&k=1=2&k=&other=k&k"),
        "api%20key=***&%61pi+key=***&k=***&k=***&other=k&k"
    );
    assert_eq!(shown("%=1&%zz&%4=&é=1"), "%=1&%zz&%4=&é=1");
    assert_eq!(
        shown("Access_Token=x&pass%77ord=y&token&page=2"),
        "Access_Token=***&pass%77ord=***&token&page=2"
    );
}

#[test]
fn nothing_is_written_while_the_access_log_is_off() {
    let directory = tempfile::tempdir().unwrap();
    let off = LogSettings { access: false, ..LogSettings::default() };
    let log = AccessLog::open(directory.path(), &off).unwrap();
    log.record(record(1));
    log.apply(&LogSettings::default());
    log.record(record(2));
    log.apply(&off);
    log.record(record(3));
    drop(log);
    let lines = lines(directory.path());
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("/customers/2"));
}

#[test]
fn a_line_reaches_the_file_within_moments() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::open(directory.path(), &LogSettings::default()).unwrap();
    log.record(record(1));
    let started = Instant::now();
    while lines(directory.path()).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
}

/// The bound is generous for a busy machine and an unoptimized build; what it guards against is formatting or
/// I/O on the request's thread, which costs several times as much.
#[test]
fn recording_costs_the_request_about_a_microsecond() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::open(directory.path(), &LogSettings::default()).unwrap();
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let records: Vec<_> = (0..1000).map(record).collect();
        let started = Instant::now();
        for record in records {
            log.record(record);
        }
        best = best.min(started.elapsed() / 1000);
        assert!(log.flush(Duration::from_secs(10)));
    }
    println!("{best:?} per record");
    assert!(best < Duration::from_micros(2), "{best:?} per record");
}

#[test]
fn hostile_texts_stay_one_line_and_are_cut() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::open(directory.path(), &LogSettings::default()).unwrap();
    let mut hostile = record(1);
    hostile.path = format!("/{}", "x".repeat(100_000));
    hostile.user_agent = Some(HeaderValue::from_bytes(b"\xff\t\"quoted\"").unwrap());
    log.record(hostile);
    drop(log);
    let lines = lines(directory.path());
    assert_eq!(lines.len(), 1);
    let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(value["path"].as_str().unwrap().len(), MAX_TEXT);
    assert_eq!(value["user_agent"], "\u{fffd}\t\"quoted\"");
}
