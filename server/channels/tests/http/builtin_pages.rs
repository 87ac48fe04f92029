use std::sync::atomic::Ordering;

use serde_json::json;

use crate::support::{Setup, eventually};

fn setup() -> Setup {
    Setup::new().channel(
        "echo",
        json!({"type": "rest", "path": "/echo/{n:int}", "methods": ["GET"], "service": "echo"}),
    )
}

#[test]
fn health_tells_alive_from_ready() {
    let server = setup().start();
    let mut client = server.connect();
    assert_eq!(client.get("/health/live", "").json(), json!({"live": true}));
    assert_eq!(client.get("/health/ready", "").json(), json!({"ready": true, "detail": {"revision": 1}}));
    server.fakes().unready.store(true, Ordering::SeqCst);
    assert_eq!(client.get("/health/ready", "").status, 503);
    assert_eq!(client.get("/health/live", "").status, 200);
    assert_eq!(client.request("HEAD", "/health/live", "", b"").status, 200);
    assert_eq!(client.post("/health/live", "", "").status, 405);
}

#[test]
fn health_checks_are_no_traffic() {
    let server = setup().start();
    let share = &server.setup.share;
    let mut client = server.connect();
    client.get("/health/live", "");
    client.get("/health/ready", "");
    assert_eq!(share.started.load(Ordering::SeqCst), 0, "a drained server is asked, too");
    client.get("/echo/1", "");
    client.get("/nowhere", "");
    client.get("/openapi", "");
    eventually("their end", || share.ended.load(Ordering::SeqCst) == 3);
    assert_eq!(share.started.load(Ordering::SeqCst), 3);
}

#[test]
fn metrics_are_shown_only_where_the_settings_say() {
    let mut with = setup();
    with.metrics_path = "/metrics".into();
    let server = with.start();
    let answer = server.connect().get("/metrics", "");
    assert_eq!((answer.status, answer.text()), (200, "crosstie_up 1\n"));
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(setup().start().connect().get("/metrics", "").status, 404);
}

#[test]
fn the_openapi_document_and_its_page_need_nothing_from_outside() {
    let server = setup().start();
    let mut client = server.connect();
    let document = client.get("/openapi", "").json();
    assert_eq!(document["paths"]["/echo/{n}"]["get"]["summary"], "Says what it heard.");
    let page = client.get("/openapi/ui", "Accept: text/html\r\n");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    for (path, media) in
        [("ui/app.js", "text/javascript; charset=utf-8"), ("ui/style.css", "text/css; charset=utf-8")]
    {
        assert!(page.text().contains(path));
        let file = client.get(&format!("/openapi/{path}"), "");
        assert_eq!((file.status, file.header("content-type")), (200, Some(media)));
        assert!(!file.text().contains("://"), "{path} refers to another place");
    }
    assert!(
        !page.text().contains("://") && !page.text().contains("style=") && !page.text().contains("onclick")
    );
}

#[test]
fn the_openapi_path_can_be_moved_and_taken_away() {
    let server = setup().http(|http| http.openapi_path = "/docs/api".into()).start();
    let mut client = server.connect();
    assert_eq!(client.get("/docs/api", "").status, 200);
    assert_eq!(client.get("/docs/api/ui/app.js", "").status, 200);
    assert_eq!(client.get("/openapi", "").status, 404);
    let server = setup().http(|http| http.openapi_path = String::new()).start();
    assert_eq!(server.connect().get("/openapi", "").status, 404);
}
