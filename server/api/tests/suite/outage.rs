//! The ODB is away: management says so, clearly, and keeps what needs no ODB.

use std::time::Duration;

use axum::body::Body;
use crosstie_api::operations::{DeployRequest, DeploySource, OperationError};
use crosstie_model::unit::{Artifact, ArtifactKind};
use crosstie_model::{Revision, UnitName};
use http::Request;

use crate::world::{VIEWER, World, basic, unit};

#[tokio::test]
async fn a_call_while_the_odb_is_away_says_so_and_nothing_else() {
    let world = World::without_odb();
    let answer = world.get("/deployments").await;
    assert_eq!((answer.status, answer.problem()), (503, "odb-unreachable"));
    assert!(answer.detail().contains("traffic goes on"), "{}", answer.text);
    assert!(answer.headers.contains_key("retry-after"));
    let path = world.directory.path().display().to_string();
    assert!(
        !answer.text.contains(&path) && !answer.text.to_lowercase().contains("sqlite"),
        "{}",
        answer.text
    );
    assert!(answer.json["cid"].is_string());
}

#[tokio::test]
async fn status_needs_no_odb_and_says_that_it_is_degraded() {
    let world = World::without_odb();
    let status = world.operations.status().await;
    assert_eq!((status.state.as_str(), status.odb.reachable, status.pid), ("degraded", false, 99));
    assert_eq!(status.workers.len(), 3);
    assert_eq!(world.operations.certificate_metrics().await, "", "what needs the ODB is left out of metrics");
    *world.host.degraded.lock().unwrap() = Some("it runs from its last good snapshot".into());
    assert!(world.operations.status().await.degraded.unwrap().contains("last good"));
    let waited = world.operations.wait_until_served(Revision(1), Duration::from_millis(10)).await;
    assert!(!waited.complete);
}

#[tokio::test]
async fn a_deployment_that_cannot_be_stored_is_worth_trying_again() {
    let world = World::without_odb();
    let content = unit(&[("demo.a", "")]);
    let name = UnitName::new("hello").unwrap();
    let artifact = Artifact::new(name, ArtifactKind::PythonFile, content.into());
    let source = DeploySource::Pickup { path: "hello.py".into() };
    let error =
        world.operations.deploy(DeployRequest { artifact, source, expected: None }).await.unwrap_err();
    assert!(matches!(error, OperationError::OdbUnreachable(_)) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn the_document_of_the_api_needs_neither_odb_nor_credentials() {
    let world = World::without_odb();
    let request = Request::get("/api/v1/openapi.json").body(Body::empty()).unwrap();
    let answer = world.send(request).await;
    assert_eq!((answer.status, answer.json["openapi"].clone()), (200, "3.1.0".into()));
    let request =
        Request::get("/api/v1/status").header("authorization", basic(VIEWER)).body(Body::empty()).unwrap();
    assert_eq!(world.send(request).await.status, 503);
}
