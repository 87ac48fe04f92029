//! Calling services and lifting quarantines.

use axum::body::Body;
use crosstie_api::Quarantined;
use crosstie_model::{Event, ServiceName};
use http::Request;
use serde_json::{Value, json};

use crate::world::{OPERATOR, World, basic, unit};

#[tokio::test]
async fn a_service_is_called_and_knows_who_calls() {
    let world = World::new().await;
    let answer = world.post("/services/echo/invoke", json!({"a": 1})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json, json!({"payload": {"a": 1}, "by": "olga", "kind": "invoke"}));
    let text = world.post("/services/text/invoke", Value::Null).await;
    assert_eq!(
        (text.text.as_str(), &text.headers["x-content-type-options"]),
        ("<b>hi</b>", &"nosniff".parse().unwrap())
    );
    let failed = world.post("/services/fail/invoke", json!({})).await;
    assert_eq!(
        (failed.status, failed.problem(), failed.detail()),
        (400, "service-failed", "no such customer")
    );
    assert_eq!(failed.json["title"], "The service refused");
    let missing = world.post("/services/nobody/invoke", json!({})).await;
    assert_eq!((missing.status, missing.problem()), (404, "not-found"));
    let request = Request::post("/api/v1/services/echo/invoke")
        .header("authorization", basic(OPERATOR))
        .header("content-type", "application/json")
        .body(Body::from("{\"a\": "))
        .unwrap();
    assert_eq!(world.send(request).await.status, 400);
}

#[tokio::test]
async fn an_inactive_or_quarantined_service_is_not_called() {
    let world = World::new().await;
    world.apply("service:\n  echo:\n    active: false\n").await;
    let answer = world.post("/services/echo/invoke", json!({})).await;
    assert_eq!((answer.status, answer.detail()), (503, "the service echo is not active"));

    world.upload("hello", unit(&[("demo.hello", "")])).await;
    let quarantined =
        Quarantined { name: "demo.hello".into(), reason: "3 × SIGABRT".into(), since: 1_700_000_000 };
    world.host.quarantined.lock().unwrap().push(quarantined);
    let shown = world.get("/services/demo.hello").await;
    assert_eq!(shown.json["quarantined"]["reason"], "3 × SIGABRT");
    let answer = world.post("/services/demo.hello/invoke", json!({})).await;
    assert_eq!((answer.status, answer.detail()), (503, "the service demo.hello is quarantined"));

    assert_eq!(world.post("/services/demo.hello/release", Value::Null).await.status, 204);
    let service = ServiceName::new("demo.hello").unwrap();
    assert!(world.host.events.lock().unwrap().contains(&Event::QuarantineReleased { service }));
    assert_eq!(world.post("/services/demo.hello/invoke", json!({})).await.status, 200);
    let again = world.post("/services/demo.hello/release", Value::Null).await;
    assert_eq!((again.status, again.problem()), (404, "not-found"));
}
