//! Changes, revisions, audit and history.

use std::time::Duration;

use crosstie_model::DefinitionKind;
use crosstie_model::names::Revision;
use crosstie_odb::{Change, OdbError};
use serde_json::json;

use crate::support::{
    Database, artifact, basic_auth, change, change_at, deploy, dictionary, id, manifest, put, unit,
};

pub(crate) async fn a_change_makes_one_revision_and_its_audit(database: Database) {
    let odb = database.open();
    assert_eq!(odb.revision().await.unwrap(), Revision(0));
    let before = odb.clock_us().await.unwrap();
    let changes = vec![put(dictionary("b", 1)), put(dictionary("a", 2))];
    assert_eq!(change(&odb, changes).await.unwrap(), Revision(1));
    let after = odb.clock_us().await.unwrap();
    let snapshot = odb.snapshot().await.unwrap();
    assert_eq!(snapshot.revision, Revision(1));
    assert_eq!(snapshot.definitions.len(), 2);
    let audit = odb.audit(Revision(0), 10).await.unwrap();
    assert_eq!(audit.len(), 1);
    assert_eq!((audit[0].author.as_str(), audit[0].message.as_str()), ("ada", "a test"));
    assert!((before..=after).contains(&audit[0].time_us), "{before} {} {after}", audit[0].time_us);
    let ids: Vec<_> = audit[0].changes.iter().map(|change| change.id.as_str()).collect();
    assert_eq!(ids, ["dictionary/a", "dictionary/b"]);
    assert_eq!(audit[0].changes[0].before, None);
    assert_eq!(audit[0].changes[0].after, Some(json!({"entries": {"value": 2}})));
}

pub(crate) async fn a_change_for_an_old_revision_is_a_conflict(database: Database) {
    let odb = database.open();
    let first = change_at(&odb, Some(Revision(0)), vec![put(dictionary("a", 1))]).await.unwrap();
    let lost = change_at(&odb, Some(Revision(0)), vec![put(dictionary("a", 2))]).await.unwrap_err();
    assert!(
        matches!(lost, OdbError::Conflict { expected: Revision(0), found } if found == first),
        "{lost:?}"
    );
    assert_eq!(odb.snapshot().await.unwrap().definitions.len(), 1);
    assert_eq!(change_at(&odb, Some(first), vec![put(dictionary("a", 2))]).await.unwrap(), Revision(2));
}

pub(crate) async fn a_change_that_fails_half_way_changes_nothing(database: Database) {
    let odb = database.open();
    change(&odb, vec![put(dictionary("kept", 1))]).await.unwrap();
    let doomed = vec![
        put(dictionary("new", 1)),
        put(dictionary("kept", 2)),
        Change::PutSecret { name: "s".into(), version: 1, sealed: vec![1] },
        Change::StoreDeployment { artifact: artifact("crm", "code"), manifest: manifest("crm.a") },
        Change::DeleteDefinition(id(DefinitionKind::Dictionary, "absent")),
    ];
    let error = change(&odb, doomed).await.unwrap_err();
    assert!(matches!(&error, OdbError::NotFound { what } if what == "dictionary/absent"), "{error:?}");
    let snapshot = odb.snapshot().await.unwrap();
    assert_eq!(snapshot.revision, Revision(1));
    let definitions: Vec<_> = snapshot.definitions.keys().map(ToString::to_string).collect();
    assert_eq!(definitions, ["dictionary/kept"]);
    assert_eq!(odb.secret("s", 1).await.unwrap(), None);
    assert!(odb.deployments(None).await.unwrap().is_empty());
    assert_eq!(odb.audit(Revision(0), 10).await.unwrap().len(), 1);
}

pub(crate) async fn a_change_that_changes_nothing_makes_no_revision(database: Database) {
    let odb = database.open();
    let first = change(&odb, vec![put(dictionary("a", 1))]).await.unwrap();
    assert_eq!(change(&odb, vec![put(dictionary("a", 1))]).await.unwrap(), first);
    let back_and_forth = vec![put(dictionary("a", 2)), put(dictionary("a", 1))];
    assert_eq!(change(&odb, back_and_forth).await.unwrap(), first);
    assert_eq!(change(&odb, Vec::new()).await.unwrap(), first);
}

/// Eight writers, each with connections of its own, as eight processes have. Half of them count a number up
/// on condition that nobody was faster, half add definitions of their own.
pub(crate) async fn eight_writers_lose_no_update_and_leave_no_gap(database: Database) {
    const CHANGES: u64 = 12;
    let odb = database.open();
    change(&odb, vec![put(dictionary("count", 0))]).await.unwrap();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let odb = database.open();
            tokio::spawn(async move {
                let mut revisions = Vec::new();
                for number in 0..CHANGES {
                    revisions.push(match writer % 2 {
                        0 => count_up(&odb).await,
                        _ => {
                            let own = dictionary(&format!("own-{writer}-{number}"), number);
                            change(&odb, vec![put(own)]).await.unwrap()
                        }
                    });
                }
                revisions
            })
        })
        .collect();
    let mut revisions = vec![Revision(1)];
    for writer in writers {
        revisions.extend(writer.await.unwrap());
    }
    revisions.sort_unstable();
    let expected: Vec<_> = (1..=8 * CHANGES + 1).map(Revision).collect();
    assert_eq!(revisions, expected);
    let snapshot = odb.snapshot().await.unwrap();
    assert_eq!(snapshot.definitions.len() as u64, 1 + 4 * CHANGES);
    let count = &snapshot.definitions[&id(DefinitionKind::Dictionary, "count")];
    assert_eq!(serde_json::to_value(count).unwrap()["entries"]["value"], 4 * CHANGES);
    let audit: Vec<_> =
        odb.audit(Revision(0), 1000).await.unwrap().into_iter().map(|entry| entry.revision).collect();
    assert_eq!(audit, expected);
}

async fn count_up(odb: &crosstie_odb::Odb) -> Revision {
    loop {
        let snapshot = odb.snapshot().await.unwrap();
        let count = &snapshot.definitions[&id(DefinitionKind::Dictionary, "count")];
        let value = serde_json::to_value(count).unwrap()["entries"]["value"].as_u64().unwrap();
        match change_at(odb, Some(snapshot.revision), vec![put(dictionary("count", value + 1))]).await {
            Ok(revision) => return revision,
            Err(OdbError::Conflict { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Whoever waits for a change may be cancelled at any await; the lock must not stay with the pool.
pub(crate) async fn an_abandoned_change_leaves_nothing_behind(database: Database) {
    let odb = database.open();
    for micros in (0..40).map(|step| step * 150) {
        let set = vec![put(dictionary("a", micros)), put(dictionary("b", micros))];
        let _ = tokio::time::timeout(Duration::from_micros(micros), change(&odb, set)).await;
    }
    let last = tokio::time::timeout(Duration::from_secs(15), change(&odb, vec![put(dictionary("c", 1))]));
    let revision = last.await.expect("the lock was left behind").unwrap();
    let audit = odb.audit(Revision(0), 1000).await.unwrap();
    assert_eq!(audit.len() as u64, revision.0);
    // A change that was made was made whole.
    for entry in audit.iter().rev().skip(1) {
        assert_eq!(entry.changes.len(), 2, "{entry:?}");
    }
}

pub(crate) async fn secrets_are_stored_sealed_and_by_version(database: Database) {
    let odb = database.open();
    let name = "security/crm/password";
    assert_eq!(odb.next_secret_version(name).await.unwrap(), 1);
    let unknown = change(&odb, vec![put(basic_auth("crm", name, 1))]).await.unwrap_err();
    assert!(matches!(unknown, OdbError::NotFound { .. }), "{unknown:?}");
    let sealed =
        |version: u32, byte: u8| Change::PutSecret { name: name.into(), version, sealed: vec![byte, 0, 255] };
    change(&odb, vec![sealed(1, 7), put(basic_auth("crm", name, 1))]).await.unwrap();
    change(&odb, vec![sealed(2, 8), put(basic_auth("crm", name, 2))]).await.unwrap();
    assert_eq!(odb.next_secret_version(name).await.unwrap(), 3);
    let taken = change(&odb, vec![sealed(2, 9)]).await.unwrap_err();
    assert!(matches!(taken, OdbError::Exists { .. }), "{taken:?}");
    assert_eq!(odb.secret(name, 1).await.unwrap(), Some(vec![7, 0, 255]));
    let snapshot = odb.snapshot().await.unwrap();
    assert_eq!(snapshot.secrets.len(), 1);
    assert_eq!(snapshot.secrets[&(name.to_owned(), 2)], [8, 0, 255]);
    let plain = json!({"type": "basic_auth", "username": "crm", "password": "hush"});
    let plain = crosstie_model::Definition::from_value(id(DefinitionKind::Security, "crm"), plain).unwrap();
    let refused = change(&odb, vec![put(plain)]).await.unwrap_err();
    assert!(matches!(refused, OdbError::Invalid { .. }), "{refused:?}");
}

pub(crate) async fn an_earlier_state_comes_back_whole(database: Database) {
    let odb = database.open();
    let secret = |version| Change::PutSecret { name: "s".into(), version, sealed: vec![version as u8] };
    let (one, two) = (artifact("crm", "one"), artifact("crm", "two"));
    let mut states = vec![odb.snapshot().await.unwrap()];
    let steps = vec![
        vec![put(dictionary("a", 1)), secret(1), put(basic_auth("x", "s", 1))],
        deploy(&one, manifest("crm.a")),
        vec![put(dictionary("a", 2)), put(dictionary("b", 1)), secret(2), put(basic_auth("x", "s", 2))],
        deploy(&two, manifest("crm.b")),
        vec![Change::Undeploy { unit: unit("crm") }],
        vec![Change::DeleteDefinition(id(DefinitionKind::Dictionary, "a"))],
        vec![Change::Activate { unit: unit("crm"), digest: one.digest }, put(dictionary("a", 3))],
    ];
    for step in steps {
        change(&odb, step).await.unwrap();
        states.push(odb.snapshot().await.unwrap());
    }
    for state in states {
        let past = odb.state_at(state.revision).await.unwrap();
        assert!(past.missing.is_empty());
        assert_eq!(past.snapshot, state);
    }
    let future = odb.state_at(Revision(8)).await.unwrap_err();
    assert!(matches!(future, OdbError::NotFound { .. }), "{future:?}");
}

pub(crate) async fn the_audit_is_read_in_pages(database: Database) {
    let odb = database.open();
    for number in 0..7 {
        change(&odb, vec![put(dictionary("a", number)), put(dictionary("b", number))]).await.unwrap();
    }
    let mut seen = Vec::new();
    loop {
        let after = seen.last().copied().unwrap_or_default();
        let page = odb.audit(after, 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 3);
        assert!(page.iter().all(|entry| entry.changes.len() == 2));
        seen.extend(page.iter().map(|entry| entry.revision));
    }
    assert_eq!(seen, (1..=7).map(Revision).collect::<Vec<_>>());
}

pub(crate) async fn names_that_differ_in_case_or_spaces_are_different(database: Database) {
    let odb = database.open();
    change(&odb, vec![put(dictionary("Crm", 1)), put(dictionary("crm", 2))]).await.unwrap();
    assert_eq!(odb.snapshot().await.unwrap().definitions.len(), 2);
    let secret = |name: &str| Change::PutSecret { name: name.into(), version: 1, sealed: vec![1] };
    change(&odb, vec![secret("é"), secret("e"), secret("é "), secret("É")]).await.unwrap();
    assert!(odb.secret("é ", 1).await.unwrap().is_some());
    assert!(odb.secret("E", 1).await.unwrap().is_none());
}

pub(crate) async fn a_writer_that_is_kept_waiting_is_told_so(database: Database) {
    let odb = database.open_impatient(Duration::from_millis(1500));
    change(&odb, vec![put(dictionary("a", 1))]).await.unwrap();
    let lock = database.outside(database.lock_statements()).await;
    let started = std::time::Instant::now();
    let busy = change(&odb, vec![put(dictionary("a", 2))]).await.unwrap_err();
    assert!(matches!(busy, OdbError::Busy), "{busy:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // Readers do not wait for it.
    assert_eq!(odb.snapshot().await.unwrap().revision, Revision(1));
    drop(lock);
    let patient = database.open();
    assert_eq!(change(&patient, vec![put(dictionary("a", 2))]).await.unwrap(), Revision(2));
    // Nor is the handle any worse for it.
    for (value, revision) in [(3, 3), (4, 4)] {
        let changed = change(&odb, vec![put(dictionary("a", value))]).await.unwrap();
        assert_eq!(changed, Revision(revision));
    }
}
