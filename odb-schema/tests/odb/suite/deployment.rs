//! Deployments, attempts and pickup files.

use crosstie_model::limits::KEPT_DEPLOYMENTS;
use crosstie_model::names::{Digest, Revision};
use crosstie_odb::{AttemptOutcome, Change, NewAttempt, OdbError};
use serde_json::json;

use crate::support::{Database, artifact, change, deploy, manifest, unit};

pub(crate) async fn an_artifact_survives_in_pieces(database: Database) {
    let odb = database.open();
    for (name, bytes) in [("empty", 0), ("small", 10), ("even", 2 * 1024 * 1024), ("odd", 2_500_001)] {
        let content: String = (0..bytes).map(|index| char::from(b'a' + (index % 23) as u8)).collect();
        let stored = artifact(name, &content);
        change(&odb, deploy(&stored, manifest("crm.a"))).await.unwrap();
        let loaded = odb.artifact(&stored.unit, &stored.digest).await.unwrap().unwrap();
        assert!(loaded == stored, "{name}");
        assert_eq!(odb.deployments(Some(&stored.unit)).await.unwrap()[0].size, bytes);
    }
    assert_eq!(odb.artifact(&unit("small"), &Digest::of(b"other")).await.unwrap(), None);
}

pub(crate) async fn twenty_deployments_are_kept(database: Database) {
    let odb = database.open();
    let versions: Vec<_> = (0..25).map(|number| artifact("crm", &format!("v{number}"))).collect();
    change(&odb, deploy(&artifact("other", "x"), manifest("other.a"))).await.unwrap();
    for version in &versions {
        change(&odb, deploy(version, manifest("crm.a"))).await.unwrap();
    }
    let kept = odb.deployments(Some(&unit("crm"))).await.unwrap();
    assert_eq!(kept.len(), KEPT_DEPLOYMENTS);
    let expected: Vec<_> = versions.iter().rev().take(KEPT_DEPLOYMENTS).map(|v| v.digest).collect();
    assert_eq!(kept.iter().map(|row| row.digest).collect::<Vec<_>>(), expected);
    assert_eq!(kept.iter().map(|row| row.active).collect::<Vec<_>>().iter().filter(|a| **a).count(), 1);
    assert!(kept[0].active);
    assert_eq!(odb.deployments(None).await.unwrap().len(), KEPT_DEPLOYMENTS + 1);
    assert_eq!(odb.artifact(&unit("crm"), &versions[0].digest).await.unwrap(), None);
    let past = odb.state_at(Revision(2)).await.unwrap();
    assert_eq!(past.missing, [(unit("crm"), versions[0].digest)]);
}

pub(crate) async fn an_active_deployment_outlives_twenty_newer_ones(database: Database) {
    let odb = database.open();
    let first = artifact("crm", "first");
    change(&odb, deploy(&first, manifest("crm.a"))).await.unwrap();
    for number in 0..25 {
        let artifact = artifact("crm", &format!("v{number}"));
        change(&odb, vec![Change::StoreDeployment { artifact, manifest: manifest("crm.a") }]).await.unwrap();
    }
    assert!(odb.artifact(&first.unit, &first.digest).await.unwrap().is_some());
    assert_eq!(odb.snapshot().await.unwrap().units[&first.unit].digest, first.digest);
    assert_eq!(odb.deployments(Some(&first.unit)).await.unwrap().len(), KEPT_DEPLOYMENTS + 1);
}

pub(crate) async fn a_deployment_that_is_there_only_gets_the_new_manifest(database: Database) {
    let odb = database.open();
    let code = artifact("crm", "code");
    let first = change(&odb, deploy(&code, manifest("crm.a"))).await.unwrap();
    assert_eq!(change(&odb, deploy(&code, manifest("crm.a"))).await.unwrap(), first);
    let mut rechecked = manifest("crm.a");
    rechecked.library = Some(Digest::of(b"lib"));
    assert_eq!(change(&odb, deploy(&code, rechecked.clone())).await.unwrap(), Revision(first.0 + 1));
    assert_eq!(odb.snapshot().await.unwrap().units[&code.unit].manifest, rechecked);
    assert_eq!(odb.deployments(None).await.unwrap().len(), 1);
    assert_eq!(odb.artifact(&code.unit, &code.digest).await.unwrap(), Some(code));
}

pub(crate) async fn an_unknown_deployment_is_not_activated(database: Database) {
    let odb = database.open();
    let digest = Digest::of(b"nothing");
    let error = change(&odb, vec![Change::Activate { unit: unit("crm"), digest }]).await.unwrap_err();
    assert!(matches!(error, OdbError::NotFound { .. }), "{error:?}");
    let error = change(&odb, vec![Change::Undeploy { unit: unit("crm") }]).await.unwrap_err();
    assert!(matches!(error, OdbError::NotFound { .. }), "{error:?}");
    let mut forged = artifact("crm", "code");
    forged.content = "other".into();
    let forged = Change::StoreDeployment { artifact: forged, manifest: manifest("crm.a") };
    let error = change(&odb, vec![forged]).await.unwrap_err();
    assert!(matches!(error, OdbError::Invalid { .. }), "{error:?}");
}

pub(crate) async fn the_audit_says_which_deployment_was_active(database: Database) {
    let odb = database.open();
    let code = artifact("crm", "code");
    change(&odb, deploy(&code, manifest("crm.a"))).await.unwrap();
    change(&odb, vec![Change::Undeploy { unit: unit("crm") }]).await.unwrap();
    let audit = odb.audit(Revision(0), 10).await.unwrap();
    let document = json!({
        "digest": code.digest.to_string(), "kind": "python_file", "services": ["crm.a"], "active": true
    });
    assert_eq!(audit[0].changes[0].id, "deployment/crm");
    assert_eq!((&audit[0].changes[0].before, &audit[0].changes[0].after), (&None, &Some(document.clone())));
    assert_eq!((&audit[1].changes[0].before, &audit[1].changes[0].after), (&Some(document), &None));
    assert!(odb.snapshot().await.unwrap().units.is_empty());
    let kept = odb.deployments(None).await.unwrap();
    assert_eq!((kept.len(), kept[0].active, kept[0].author.as_str()), (1, false, "ada"));
}

pub(crate) async fn attempts_and_pickup_files_are_remembered(database: Database) {
    let odb = database.open();
    let attempt = |number: usize| NewAttempt {
        server: "server1".into(),
        unit: "not a unit name".into(),
        digest: (number > 0).then(|| Digest::of(&[1])),
        source: "pickup/a b.py".into(),
        outcome: AttemptOutcome::Refused,
        reason: format!("attempt {number}"),
        detail: "Traceback\0…".into(),
    };
    for number in 0..3 {
        odb.record_attempt(&attempt(number)).await.unwrap();
    }
    let attempts = odb.attempts(2).await.unwrap();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].attempt.reason, "attempt 2");
    assert_eq!(attempts[0].attempt.detail, "Traceback\u{fffd}…");
    assert_eq!(attempts[1].attempt, NewAttempt { detail: "Traceback\u{fffd}…".into(), ..attempt(1) });
    assert!(attempts[0].id > attempts[1].id);

    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    odb.record_pickup("server1", "b.py", &one, AttemptOutcome::Refused).await.unwrap();
    odb.record_pickup("server1", "a.py", &one, AttemptOutcome::Deployed).await.unwrap();
    odb.record_pickup("server1", "b.py", &two, AttemptOutcome::Deployed).await.unwrap();
    odb.record_pickup("server2", "b.py", &one, AttemptOutcome::Deployed).await.unwrap();
    let files = odb.pickup_files("server1").await.unwrap();
    let files: Vec<_> = files.iter().map(|row| (row.path.as_str(), row.digest, row.outcome)).collect();
    assert_eq!(files, [("a.py", one, AttemptOutcome::Deployed), ("b.py", two, AttemptOutcome::Deployed)]);
    assert_eq!(odb.revision().await.unwrap(), Revision(0));
}
