//! Deploying, rolling back, taking away, and everything that is refused.

use crosstie_api::operations::{DeployRequest, DeploySource, OperationError};
use crosstie_model::unit::{Artifact, ArtifactKind};
use crosstie_model::{Event, Revision, UnitName};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

use crate::world::{OPERATOR, Workers, World, library, library_user, unit};

#[tokio::test]
async fn an_uploaded_file_is_deployed_announced_and_listed() {
    let world = World::new().await;
    let answer = world.upload("hello", unit(&[("demo.hello", "/hello/{name}")])).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.json["services"], json!(["demo.hello"]));
    assert_eq!(
        answer.json["serving"],
        json!({
            "revision": 1, "complete": true, "serving": [0, 1], "pending": [], "failures": []
        })
    );
    assert_eq!(answer.headers["etag"], "\"1\"");
    let events = world.host.events.lock().unwrap().clone();
    assert_eq!(events, [Event::RevisionChanged { revision: Revision(1) }]);

    let listed = world.get("/deployments").await;
    assert_eq!(listed.json[0]["unit"], "hello");
    assert_eq!(listed.json[0]["active"], true);
    assert_eq!(listed.json[0]["author"], "olga");
    let live = json!([{"server": "server1", "state": "serving", "serving": 2, "workers": 2}]);
    assert_eq!(listed.json[0]["live"], live);
    let services = world.get("/services/demo.hello").await;
    assert_eq!(services.json["unit"], "hello");
    assert_eq!(services.json["channels"][0]["path"], "/hello/{name}");
}

#[tokio::test]
async fn deploying_the_same_file_again_changes_nothing() {
    let world = World::new().await;
    let text = unit(&[("demo.hello", "/hello")]);
    world.upload("hello", text.clone()).await;
    let again = world.upload("hello", text).await;
    assert_eq!((again.status, again.json["changed"].clone()), (200, json!(false)), "{}", again.text);
    assert_eq!(world.revision().await, 1);
}

#[tokio::test]
async fn a_file_that_fails_its_check_is_refused_and_the_list_says_why() {
    let world = World::new().await;
    world.upload("hello", unit(&[("demo.hello", "/hello")])).await;
    for (content, reason) in [
        ("def broken(", "invalid syntax"),
        ("hang", "did not end within 20 s"),
        ("exit", "exit code 3"),
        (r#"{"services": []}"#, "defines no service"),
    ] {
        let answer = world.upload("hello", content).await;
        assert_eq!((answer.status, answer.problem()), (422, "refused"), "{}", answer.text);
        assert!(answer.detail().contains(reason), "{}", answer.text);
        let listed = world.get("/deployments/hello").await;
        assert_eq!(listed.json["active"], true);
        assert_eq!(listed.json["refused"]["outcome"], "refused");
        assert!(listed.json["refused"]["reason"].as_str().unwrap().contains(reason), "{}", listed.text);
    }
    assert_eq!(world.revision().await, 1);
    let attempts = world.get("/attempts?limit=2").await;
    assert_eq!(attempts.json.as_array().unwrap().len(), 2);
    assert_eq!(attempts.json[1]["detail"], "bye");
}

#[tokio::test]
async fn a_refusal_for_several_faults_lists_them_one_by_one() {
    let world = World::new().await;
    world.upload("hello", unit(&[("demo.hello", "/hello"), ("demo.bye", "/bye")])).await;
    let answer = world.upload("other", unit(&[("other.hello", "/hello"), ("other.bye", "/bye")])).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"), "{}", answer.text);
    let refused = world.get("/deployments/other").await.json["refused"].clone();
    let faults: Vec<_> =
        refused["faults"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert!(faults.len() > 1, "{refused}");
    assert_eq!(faults.len(), answer.json["faults"].as_array().unwrap().len());
    assert!(
        faults.iter().any(|fault| fault.contains("/hello"))
            && faults.iter().any(|fault| fault.contains("/bye"))
    );
    let reason = format!("{} (and {} more)", faults[0], faults.len() - 1);
    assert_eq!((refused["reason"].as_str(), answer.detail()), (Some(reason.as_str()), reason.as_str()));
}

#[tokio::test]
async fn a_check_that_cannot_be_run_blames_nobody_and_leaks_nothing() {
    let world = World::new().await;
    let answer = world.upload("hello", "unlucky").await;
    assert_eq!((answer.status, answer.problem()), (503, "check-not-run"));
    assert!(!answer.text.contains("no process left"), "{}", answer.text);
    assert!(answer.headers.contains_key("retry-after"));
    let listed = world.get("/deployments/hello").await;
    assert_eq!(listed.json["refused"]["outcome"], "failed");
}

#[tokio::test]
async fn a_service_of_another_unit_is_refused() {
    let world = World::new().await;
    world.upload("one", unit(&[("demo.a", "/a")])).await;
    let answer = world.upload("two", unit(&[("demo.a", "/b")])).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
    assert!(answer.detail().contains("the service demo.a belongs to the unit one"), "{}", answer.text);
    assert_eq!(answer.json["faults"].as_array().unwrap().len(), 1, "{}", answer.text);
}

#[tokio::test]
async fn channels_in_code_that_clash_or_break_rules_are_refused() {
    let world = World::new().await;
    world.upload("one", unit(&[("demo.a", "/a/{id:int}")])).await;
    for (path, reason) in [
        ("/a/{number:int}", "is taken by the channel demo.a:rest:/a/{id:int}"),
        ("/health/live", "own pages"),
        ("/x/{y:colour}", "colour"),
        ("no-slash", "not valid"),
    ] {
        let answer = world.upload("two", unit(&[("demo.b", path)])).await;
        assert_eq!((answer.status, answer.problem()), (422, "refused"), "{path}");
        assert!(answer.detail().contains(reason), "{path}: {}", answer.text);
    }
    world.change_settings(|settings| settings.security.require_security = true);
    let answer = world.upload("two", unit(&[("demo.b", "/b")])).await;
    assert!(answer.detail().contains("require_security"), "{}", answer.text);
    // What was open before the setting changed does not keep others from being mended.
    let answer = world.upload("three", unit(&[("demo.c", "")])).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
}

#[tokio::test]
async fn a_new_version_may_not_drop_a_service_that_a_channel_leads_to() {
    let world = World::new().await;
    world.upload("crm", unit(&[("crm.get", ""), ("crm.put", "")])).await;
    let body = json!({"type": "rest", "path": "/get", "service": "crm.get"});
    assert_eq!(world.call(OPERATOR, "PUT", "/definitions/channel/get", body).await.status, 201);
    let answer = world.upload("crm", unit(&[("crm.put", "")])).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
    assert!(answer.detail().contains("channel/get: leads to the service crm.get"), "{}", answer.text);
    let answer = world.call(OPERATOR, "DELETE", "/deployments/crm", Value::Null).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
    let answer = world.upload("crm", unit(&[("crm.get", "")])).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
}

#[tokio::test]
async fn sizes_and_names_have_limits() {
    let world = World::new().await;
    world.change_settings(|settings| settings.deploy.max_artifact_bytes = 4000);
    let answer = world.upload("hello", vec![b'x'; 4001]).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
    assert!(answer.detail().contains("max_artifact_bytes"), "{}", answer.text);
    let answer = world.upload("hello", vec![b'x'; 100_000]).await;
    assert_eq!((answer.status, answer.problem()), (413, "too-large"));
    let answer = world.upload("lib", unit(&[("demo.a", "")])).await;
    assert!(answer.detail().contains("shared library"), "{}", answer.text);
    let answer = world.upload_to("/deployments?unit=other&kind=python_library", library("x")).await;
    assert!(answer.detail().contains("always called lib"), "{}", answer.text);
    let answer = world.upload_to("/deployments?unit=.hidden", "x").await;
    assert_eq!((answer.status, answer.problem()), (400, "invalid-request"));
    assert_eq!(world.revision().await, 0);
}

#[tokio::test]
async fn a_check_says_what_would_happen_and_changes_nothing() {
    let world = World::new().await;
    let answer = world.upload_to("/deployments?unit=hello&check=true", unit(&[("demo.hello", "/h")])).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["changes"], true);
    assert_eq!(answer.json["manifest"]["services"][0]["name"], "demo.hello");
    let answer =
        world.upload_to("/deployments?unit=hello&check=true", unit(&[("demo.hello", "/health/live")])).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
    assert_eq!(world.revision().await, 0);
    assert_eq!(world.get("/attempts").await.json, json!([]));
}

#[tokio::test]
async fn rollback_goes_to_the_version_before_or_the_one_named() {
    let world = World::new().await;
    let digest = |answer: &crate::world::Answer| answer.json["digest"].as_str().unwrap().to_owned();
    let first = digest(&world.upload("hello", unit(&[("demo.a", "")])).await);
    let second = digest(&world.upload("hello", unit(&[("demo.b", "")])).await);
    let back = world.post("/deployments/hello/rollback?wait_ms=1000", json!({})).await;
    assert_eq!((back.status, digest(&back)), (200, first.clone()), "{}", back.text);
    let to = json!({"to": second[..8].to_ascii_uppercase()});
    assert_eq!(digest(&world.post("/deployments/hello/rollback", to).await), second);
    let history = world.get("/deployments/hello/history").await;
    assert_eq!(history.json[0]["digest"], second.as_str());
    assert_eq!(history.json[1]["active"], false);
    let artifact = world.get(&format!("/deployments/hello/versions/{}/artifact", &first[..12])).await;
    assert!(artifact.text.contains("demo.a"));

    for (unit, to, status) in [
        ("hello", json!({"to": "zz"}), 400),
        ("hello", json!({"to": ""}), 400),
        ("hello", json!({"to": "00000000"}), 404),
        ("nobody", json!({}), 404),
    ] {
        let answer = world.post(&format!("/deployments/{unit}/rollback"), to).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    world.upload("single", unit(&[("demo.single", "")])).await;
    let answer = world.post("/deployments/single/rollback", json!({})).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
}

#[tokio::test]
async fn a_rollback_that_no_longer_fits_is_refused() {
    let world = World::new().await;
    world.upload("one", unit(&[("demo.a", "")])).await;
    world.upload("one", unit(&[("demo.b", "")])).await;
    world.upload("two", unit(&[("demo.a", "")])).await;
    let answer = world.post("/deployments/one/rollback", json!({})).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
    assert!(answer.detail().contains("belongs to the unit two"), "{}", answer.text);
}

#[tokio::test]
async fn an_undeployed_unit_is_gone_and_can_be_rolled_back() {
    let world = World::new().await;
    world.upload("hello", unit(&[("demo.a", "/a")])).await;
    let answer = world.call(OPERATOR, "DELETE", "/deployments/hello?wait_ms=1000", Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(world.get("/services").await.json, json!([]));
    let listed = world.get("/deployments/hello").await;
    assert!(listed.json.get("digest").is_none(), "{}", listed.text);
    let again = world.call(OPERATOR, "DELETE", "/deployments/hello", Value::Null).await;
    assert_eq!((again.status, again.problem()), (404, "not-found"));
    let back = world.post("/deployments/hello/rollback", json!({})).await;
    assert_eq!(back.status, 200, "{}", back.text);
}

#[tokio::test]
async fn a_library_change_checks_and_activates_all_its_users_or_nothing() {
    let world = World::new().await;
    let answer = world.upload("one", library_user("demo.one")).await;
    assert!(answer.detail().contains("No module named 'shared'"), "{}", answer.text);
    assert_eq!(world.upload("lib", library("rate = 1")).await.status, 201);
    world.upload("one", library_user("demo.one")).await;
    world.upload("two", library_user("demo.two")).await;
    world.upload("alone", unit(&[("demo.alone", "")])).await;
    let revision = world.revision().await;

    let answer = world.upload("lib", library("breaks one, breaks two")).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
    assert!(answer.detail().contains("cannot import") && answer.detail().ends_with("(and 1 more)"));
    for (fault, unit) in answer.json["faults"].as_array().unwrap().iter().zip(["unit one", "unit two"]) {
        assert_eq!(fault["subject"], unit);
        assert!(fault["detail"].as_str().unwrap().contains("cannot import"), "{}", answer.text);
    }
    assert!(answer.json["trace"].as_str().unwrap().contains("Traceback"));
    assert_eq!(world.revision().await, revision);

    let answer = world.upload("lib", library("rate = 2")).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.json["redeployed"], json!(["one", "two"]));
    assert_eq!(world.revision().await, revision + 1);
    let snapshot = world.odb.snapshot().await.unwrap();
    let digest = snapshot.units["lib"].digest;
    assert_eq!(snapshot.units["one"].manifest.library, Some(digest));
    assert_eq!(snapshot.units["alone"].manifest.library, None);

    let answer = world.call(OPERATOR, "DELETE", "/deployments/lib", Value::Null).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
    assert!(answer.detail().contains("used by one, two"), "{}", answer.text);
}

#[tokio::test]
async fn a_unit_that_is_rolled_back_is_checked_with_todays_library() {
    let world = World::new().await;
    world.upload("lib", library("rate = 1")).await;
    world.upload("one", library_user("demo.one")).await;
    world.upload("one", unit(&[("demo.one", "")])).await;
    world.upload("lib", library("breaks one")).await;
    let answer = world.post("/deployments/one/rollback", json!({})).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"), "{}", answer.text);
    world.upload("lib", library("rate = 3")).await;
    assert_eq!(world.post("/deployments/one/rollback", json!({})).await.status, 200);
    let snapshot = world.odb.snapshot().await.unwrap();
    assert_eq!(snapshot.units["one"].manifest.library, Some(snapshot.units["lib"].digest));
}

#[tokio::test]
async fn a_change_that_is_not_served_never_looks_like_success() {
    let world = World::new().await;
    world.set_workers(Workers::Refuse("two channels clash"));
    let answer = world.upload("hello", unit(&[("demo.a", "")])).await;
    assert_eq!((answer.status, answer.problem()), (500, "not-served"));
    assert!(
        answer.detail().contains("revision 1 is stored") && answer.detail().contains("two channels clash")
    );

    world.set_workers(Workers::FailUnit("hello"));
    let answer = world.upload("hello", unit(&[("demo.b", "")])).await;
    assert_eq!((answer.status, answer.problem()), (500, "not-served"));
    assert!(answer.detail().contains("could not load the unit hello"), "{}", answer.text);
    // Another unit that cannot be loaded is not this one's failure.
    let answer = world.upload("other", unit(&[("demo.other", "")])).await;
    assert_eq!(answer.status, 201, "{}", answer.text);

    world.set_workers(Workers::Silent);
    let answer = world.upload_to("/deployments?unit=hello&wait_ms=50", unit(&[("demo.c", "")])).await;
    assert_eq!((answer.status, answer.json["serving"]["pending"].clone()), (202, json!([0, 1])));
    let state = world.get("/revisions/4/serving?timeout_ms=10").await;
    assert_eq!(state.json["complete"], false);
}

#[tokio::test]
async fn two_at_once_are_both_deployed_in_some_order() {
    let world = World::new().await;
    let texts: Vec<_> = (0..8).map(|i| (format!("u{i}"), unit(&[(&format!("demo.s{i}"), "")]))).collect();
    let mut running = tokio::task::JoinSet::new();
    for (name, text) in texts {
        let operations = world.operations.clone();
        running.spawn(async move {
            let unit = UnitName::new(&name).unwrap();
            let artifact = Artifact::new(unit, ArtifactKind::PythonFile, text.into());
            let source = DeploySource::Pickup { path: format!("{name}.py") };
            operations.deploy(DeployRequest { artifact, source, expected: None }).await
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(world.revision().await, 8);
    // A lost race runs no user code again.
    assert_eq!(world.checker.runs.load(Ordering::Relaxed), 8);
    let attempts = world.get("/attempts").await;
    assert_eq!(attempts.json[0]["outcome"], "deployed");
    assert!(attempts.json[0]["source"].as_str().unwrap().ends_with(".py"));
}

#[tokio::test]
async fn a_deployment_for_an_outdated_revision_is_refused() {
    let world = World::new().await;
    world.upload("hello", unit(&[("demo.a", "")])).await;
    let unit_name = UnitName::new("hello").unwrap();
    let artifact = Artifact::new(unit_name, ArtifactKind::PythonFile, unit(&[("demo.b", "")]).into());
    let source = DeploySource::Api { author: "olga".into() };
    let request = DeployRequest { artifact, source, expected: Some(Revision(0)) };
    let error = world.operations.deploy(request).await.unwrap_err();
    assert!(matches!(error, OperationError::Outdated { found: Revision(1), .. }), "{error:?}");
}

#[tokio::test]
async fn reports_of_this_server_reach_the_odb() {
    let world = World::new().await;
    let operations = world.operations.clone();
    let keeper = tokio::spawn(async move { operations.keep_reports().await });
    tokio::task::yield_now().await;
    world.upload("hello", unit(&[("demo.a", "")])).await;
    let reports = loop {
        let reports = world.odb.reports().await.unwrap();
        if !reports.is_empty() {
            break reports;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    keeper.abort();
    assert_eq!((reports[0].server.as_str(), reports[0].unit.as_str()), ("server1", "hello"));
    assert_eq!(reports[0].state, crosstie_odb::ReportState::Serving);
}
