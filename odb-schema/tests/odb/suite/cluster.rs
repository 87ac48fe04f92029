//! Members, the leader's writes, joining and certificates.

use std::time::Duration;

use crosstie_model::names::Revision;
use crosstie_odb::{
    Admission, Change, Heartbeat, LEADER_LEASE, Lease, MemberState, NewCertificate, NewJoinToken, NewMember,
    Odb, OdbError, Retention, Wanted, leader_holder,
};

use crate::support::{Database, basic_auth, change, dictionary, member, put};

const LONG: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(100);
const NOTHING_OLD: Retention = Retention { audit: Some(Duration::ZERO) };

fn beat(name: &str, boot: &str, state: MemberState) -> Heartbeat {
    Heartbeat {
        name: name.into(),
        boot: boot.into(),
        state,
        reason: String::new(),
        revision: Revision(7),
        in_flight: 3,
    }
}

async fn state_of(odb: &Odb, name: &str) -> MemberState {
    odb.member(name).await.unwrap().unwrap().state
}

async fn leader(odb: &Odb, holder: &str) -> Lease {
    loop {
        let lease = odb.take_lease("leader", holder, LONG).await.unwrap();
        if lease.holder == holder {
            return lease;
        }
        tokio::time::sleep(MOMENT / 10).await;
    }
}

fn is_deposed<T: std::fmt::Debug>(outcome: Result<T, OdbError>) -> bool {
    matches!(outcome, Err(OdbError::Deposed { .. }))
}

pub(crate) async fn a_new_life_of_a_server_starts_anew(database: Database) {
    let odb = database.open();
    assert_eq!(odb.introduce_member(&member("server2"), "a").await.unwrap(), Wanted::Serving);
    odb.introduce_member(&member("server1"), "a").await.unwrap();
    let names: Vec<_> = odb.members().await.unwrap().into_iter().map(|row| row.member.name).collect();
    assert_eq!(names, ["server1", "server2"]);
    assert_eq!(state_of(&odb, "server2").await, MemberState::Starting);

    odb.heartbeat(&beat("server2", "a", MemberState::Ready)).await.unwrap();
    let moved = NewMember { version: "2".into(), tls: false, ..member("server2") };
    odb.introduce_member(&moved, "a").await.unwrap();
    let row = odb.member("server2").await.unwrap().unwrap();
    assert_eq!(
        (row.member, row.state, row.revision, row.in_flight),
        (moved, MemberState::Ready, Revision(7), 3)
    );
    assert!(row.seen_us >= row.joined_us && row.joined_us > 1_700_000_000_000_000);

    odb.introduce_member(&member("server2"), "b").await.unwrap();
    let row = odb.member("server2").await.unwrap().unwrap();
    assert_eq!((row.boot.as_str(), row.state, row.in_flight), ("b", MemberState::Starting, 0));
}

pub(crate) async fn a_drained_server_learns_it_with_its_heartbeat(database: Database) {
    let odb = database.open();
    odb.introduce_member(&member("server1"), "a").await.unwrap();
    let ready = beat("server1", "a", MemberState::Ready);
    assert_eq!(odb.heartbeat(&ready).await.unwrap(), Some(Wanted::Serving));
    assert!(odb.want_member("server1", Wanted::Drained).await.unwrap());
    assert!(!odb.want_member("server9", Wanted::Drained).await.unwrap());
    assert_eq!(odb.heartbeat(&ready).await.unwrap(), Some(Wanted::Drained));
    // What is wanted outlives a restart.
    assert_eq!(odb.introduce_member(&member("server1"), "b").await.unwrap(), Wanted::Drained);
    let long = Heartbeat { reason: "é".repeat(2_000), ..beat("server1", "b", MemberState::Failed) };
    odb.heartbeat(&long).await.unwrap();
    assert!(odb.member("server1").await.unwrap().unwrap().reason.starts_with("éé"));
}

pub(crate) async fn a_removed_server_is_told_so(database: Database) {
    let odb = database.open();
    odb.introduce_member(&member("server1"), "a").await.unwrap();
    assert!(odb.delete_member("server1").await.unwrap());
    assert_eq!(odb.heartbeat(&beat("server1", "a", MemberState::Ready)).await.unwrap(), None);
    assert!(odb.members().await.unwrap().is_empty());
}

pub(crate) async fn servers_whose_heartbeats_cease_are_marked_dead(database: Database) {
    let odb = database.open();
    let lease = leader(&odb, "a").await;
    for (name, state) in
        [("server1", MemberState::Ready), ("server2", MemberState::Draining), ("server3", MemberState::Left)]
    {
        odb.introduce_member(&member(name), "a").await.unwrap();
        odb.heartbeat(&beat(name, "a", state)).await.unwrap();
    }
    assert!(odb.as_leader(&lease).mark_lapsed(LONG).await.unwrap().is_empty());
    tokio::time::sleep(3 * MOMENT).await;
    odb.heartbeat(&beat("server1", "a", MemberState::Ready)).await.unwrap();
    assert_eq!(odb.as_leader(&lease).mark_lapsed(2 * MOMENT).await.unwrap(), ["server2"]);
    assert_eq!(state_of(&odb, "server1").await, MemberState::Ready);
    assert_eq!(state_of(&odb, "server2").await, MemberState::Dead);
    assert_eq!(state_of(&odb, "server3").await, MemberState::Left);
    odb.heartbeat(&beat("server2", "a", MemberState::Ready)).await.unwrap();
    assert_eq!(state_of(&odb, "server2").await, MemberState::Ready);
}

pub(crate) async fn the_leader_is_a_server_until_its_lease_ends(database: Database) {
    let odb = database.open();
    assert_eq!(odb.leader().await.unwrap(), None);
    let holder = leader_holder("server1", "a");
    let lease = odb.take_lease(LEADER_LEASE, &holder, LONG).await.unwrap();
    assert_eq!(odb.leader().await.unwrap().as_deref(), Some("server1"));
    assert!(odb.release_lease(LEADER_LEASE, &holder, lease.fencing).await.unwrap());
    assert_eq!(odb.leader().await.unwrap(), None);
    odb.take_lease(LEADER_LEASE, &leader_holder("server2", "b"), MOMENT).await.unwrap();
    tokio::time::sleep(2 * MOMENT).await;
    assert_eq!(odb.leader().await.unwrap(), None, "it lapsed");
}

pub(crate) async fn a_deposed_leader_changes_no_row(database: Database) {
    let (paused, other) = (database.open(), database.open());
    let first = basic_auth("crm", "security/crm/password", 1);
    let sealed =
        Change::PutSecret { name: "security/crm/password".into(), version: 1, sealed: b"sealed".to_vec() };
    change(&paused, vec![sealed, put(first)]).await.unwrap();
    for value in 1..4 {
        change(&paused, vec![put(dictionary("x", value))]).await.unwrap();
    }
    paused.introduce_member(&member("server2"), "a").await.unwrap();
    paused.heartbeat(&beat("server2", "a", MemberState::Ready)).await.unwrap();

    // It decides that server2 is dead, and is paused before it writes so.
    let lease = paused.take_lease("leader", "paused", 2 * MOMENT).await.unwrap();
    tokio::time::sleep(3 * MOMENT).await;
    assert!(is_deposed(paused.as_leader(&lease).mark_lapsed(Duration::ZERO).await), "lapsed, nobody's yet");
    let taken = leader(&other, "other").await;
    assert_eq!(taken.fencing, lease.fencing + 1);
    other.heartbeat(&beat("server2", "a", MemberState::Ready)).await.unwrap();
    let before = (other.members().await.unwrap(), other.audit(Revision(0), 100).await.unwrap());

    assert!(is_deposed(paused.as_leader(&lease).mark_lapsed(Duration::ZERO).await));
    assert!(is_deposed(paused.as_leader(&lease).purge(&NOTHING_OLD).await));
    let after = (other.members().await.unwrap(), other.audit(Revision(0), 100).await.unwrap());
    assert_eq!(before, after);

    // Its own name does not help: the number counts. Nor does a number nobody gave it.
    assert!(other.release_lease("leader", "other", taken.fencing).await.unwrap());
    let again = leader(&paused, "paused").await;
    assert!(is_deposed(paused.as_leader(&lease).mark_lapsed(Duration::ZERO).await));
    let forged = Lease { fencing: again.fencing + 1, ..again.clone() };
    assert!(is_deposed(paused.as_leader(&forged).mark_lapsed(Duration::ZERO).await));
    tokio::time::sleep(MOMENT / 10).await;
    assert_eq!(paused.as_leader(&again).mark_lapsed(Duration::ZERO).await.unwrap(), ["server2"]);
}

pub(crate) async fn the_audit_is_trimmed_from_its_old_end(database: Database) {
    let odb = database.open();
    let lease = leader(&odb, "a").await;
    for value in 1..=4 {
        change(&odb, vec![put(dictionary("x", value))]).await.unwrap();
    }
    let for_ever = Retention { audit: None };
    assert!(odb.as_leader(&lease).purge(&for_ever).await.unwrap().is_nothing());
    let hour = Retention { audit: Some(Duration::from_secs(3600)) };
    assert_eq!(odb.as_leader(&lease).purge(&hour).await.unwrap().audit, 0);
    assert!(odb.state_at(Revision(1)).await.is_ok());

    tokio::time::sleep(MOMENT / 10).await;
    assert_eq!(odb.as_leader(&lease).purge(&NOTHING_OLD).await.unwrap().audit, 3);
    let kept: Vec<_> = odb.audit(Revision(0), 100).await.unwrap().iter().map(|row| row.revision).collect();
    assert_eq!(kept, [Revision(4)]);
    let past = odb.state_at(Revision(3)).await.unwrap();
    let documents = past.documents().unwrap();
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[0], ("dictionary/x".into(), serde_json::json!({"entries": {"value": 3}})));
    let gone = odb.state_at(Revision(2)).await.unwrap_err();
    assert!(matches!(gone, OdbError::NotFound { .. }), "{gone:?}");
    assert_eq!(odb.revision().await.unwrap(), Revision(4));
}

pub(crate) async fn secrets_outlive_the_audit_that_refers_to_them(database: Database) {
    let odb = database.open();
    let lease = leader(&odb, "a").await;
    let name = "security/crm/password";
    for version in 1..=3 {
        let sealed = Change::PutSecret { name: name.into(), version, sealed: vec![1] };
        change(&odb, vec![sealed, put(basic_auth("crm", name, version))]).await.unwrap();
    }
    // The newest row, which is always kept, says that version 2 gave way to version 3.
    tokio::time::sleep(MOMENT / 10).await;
    let purged = odb.as_leader(&lease).purge(&NOTHING_OLD).await.unwrap();
    assert_eq!((purged.audit, purged.secrets), (2, 1));
    assert_eq!(odb.secret(name, 1).await.unwrap(), None);
    for version in [2, 3] {
        assert!(odb.secret(name, version).await.unwrap().is_some(), "version {version}");
    }
    let past = odb.state_at(Revision(2)).await.unwrap().snapshot;
    assert_eq!(past.secrets.len(), 1);
}

fn token(id: &str, ttl: Duration) -> NewJoinToken {
    NewJoinToken { id: id.into(), hash: "hash".into(), author: "ada".into(), ttl }
}

fn certificate(serial: &str, name: &str) -> NewCertificate {
    NewCertificate {
        serial: serial.into(),
        kind: "server".into(),
        name: name.into(),
        fingerprint: "ab".repeat(32),
        author: "ada".into(),
        expires_us: 4_000_000_000_000_000,
    }
}

fn admission(token: &str, name: &str) -> Admission {
    let certificates = vec![certificate(&format!("{token}{name}"), name)];
    Admission { token: token.into(), member: member(name), certificates }
}

pub(crate) async fn a_join_token_lets_one_server_in_once(database: Database) {
    let odb = database.open();
    odb.put_join_token(&token("a", LONG)).await.unwrap();
    odb.put_join_token(&token("b", MOMENT / 10)).await.unwrap();
    assert_eq!(odb.join_token("a").await.unwrap().unwrap().author, "ada");
    let racers: Vec<_> = (0..8)
        .map(|racer| {
            let odb = database.open();
            let admission = admission("a", &format!("server{racer}"));
            tokio::spawn(async move { odb.admit(&admission).await.unwrap() })
        })
        .collect();
    let mut admitted = 0;
    for racer in racers {
        admitted += usize::from(racer.await.unwrap());
    }
    assert_eq!(admitted, 1);
    let members = odb.members().await.unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!((members[0].state, members[0].boot.as_str()), (MemberState::Left, ""));
    assert_eq!(odb.certificates().await.unwrap().len(), 1);
    assert!(odb.join_token("a").await.unwrap().is_none());

    tokio::time::sleep(MOMENT).await;
    assert!(odb.join_token("b").await.unwrap().is_none());
    assert!(!odb.admit(&admission("b", "late")).await.unwrap());
    assert!(!odb.admit(&admission("unknown", "late")).await.unwrap());
    assert_eq!(odb.members().await.unwrap().len(), 1);
    let lease = leader(&odb, "a").await;
    let purged = odb.as_leader(&lease).purge(&Retention { audit: None }).await.unwrap();
    assert_eq!(purged.join_tokens, 1);
}

pub(crate) async fn a_running_server_keeps_its_name(database: Database) {
    let odb = database.open();
    odb.put_join_token(&token("a", LONG)).await.unwrap();
    odb.introduce_member(&member("server1"), "a").await.unwrap();
    let refused = odb.admit(&admission("a", "server1")).await.unwrap_err();
    assert!(matches!(refused, OdbError::Exists { .. }), "{refused:?}");
    // The token is still good, for another name or once that server is gone.
    odb.heartbeat(&beat("server1", "a", MemberState::Left)).await.unwrap();
    assert!(odb.admit(&admission("a", "server1")).await.unwrap());
}

pub(crate) async fn certificates_are_on_record(database: Database) {
    let odb = database.open();
    for (serial, name) in [("02", "b"), ("01", "a"), ("03", "a")] {
        odb.record_certificate(&certificate(serial, name)).await.unwrap();
    }
    let rows = odb.certificates().await.unwrap();
    let names: Vec<_> = rows.iter().map(|row| row.certificate.name.as_str()).collect();
    assert_eq!(names, ["a", "a", "b"]);
    assert_eq!(rows[2].certificate, certificate("02", "b"));
    assert!(rows[2].issued_us > 1_700_000_000_000_000);
    let ended = NewCertificate { serial: "04".into(), expires_us: 1, ..certificate("04", "old") };
    odb.record_certificate(&ended).await.unwrap();
    let lease = leader(&odb, "a").await;
    assert_eq!(odb.as_leader(&lease).purge(&Retention { audit: None }).await.unwrap().certificates, 1);
    assert_eq!(odb.certificates().await.unwrap().len(), 3);
}

pub(crate) async fn a_revoked_certificate_stays_so(database: Database) {
    let odb = database.open();
    for serial in ["01", "02"] {
        odb.record_certificate(&certificate(serial, "a")).await.unwrap();
    }
    let revoke = |serial: &str| vec![Change::Revoke { serial: serial.into() }];
    assert_eq!(change(&odb, revoke("01")).await.unwrap(), Revision(1));
    assert_eq!(change(&odb, revoke("01")).await.unwrap(), Revision(1), "it was already");
    let revoked = || async { odb.snapshot().await.unwrap().revoked.into_iter().collect::<Vec<_>>() };
    assert_eq!(revoked().await, ["01"]);
    assert!(odb.is_revoked("01").await.unwrap() && !odb.is_revoked("02").await.unwrap());
    let rows = odb.certificates().await.unwrap();
    assert_eq!(rows.iter().map(|row| row.revoked).collect::<Vec<_>>(), [true, false]);
    let entry = odb.audit(Revision(0), 10).await.unwrap().remove(0);
    assert_eq!(entry.changes[0].id, "certificate/01");
    assert!(entry.changes[0].before.is_none() && entry.changes[0].after.is_some());
    // Going back to a time before does not take it back.
    change(&odb, vec![put(dictionary("x", 1))]).await.unwrap();
    let past = odb.state_at(Revision(0)).await.unwrap();
    assert!(past.snapshot.definitions.is_empty() && past.snapshot.revoked.contains("01"));
    assert!(past.documents().unwrap().is_empty());
    // One that ended is refused for that, and need not be remembered for ever.
    let ended = NewCertificate { expires_us: 1, ..certificate("03", "old") };
    odb.record_certificate(&ended).await.unwrap();
    change(&odb, revoke("03")).await.unwrap();
    assert_eq!(revoked().await, ["01", "03"]);
    let lease = leader(&odb, "a").await;
    odb.as_leader(&lease).purge(&Retention { audit: None }).await.unwrap();
    assert_eq!(revoked().await, ["01"]);
    let error = change(&odb, revoke("")).await.unwrap_err();
    assert!(matches!(error, OdbError::Invalid { .. }), "{error:?}");
}
