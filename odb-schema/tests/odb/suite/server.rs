//! Reports, leases, the certificate authority and the schema.

use std::time::Duration;

use crosstie_model::names::Digest;
use crosstie_odb::{AttemptOutcome, ReportState, SchemaStatus};

use crate::support::{Database, member, unit};

pub(crate) async fn a_server_is_forgotten_with_what_it_reported(database: Database) {
    let odb = database.open();
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let (crm, serving) = (unit("crm"), ReportState::Serving);
    odb.introduce_member(&member("server2"), "b").await.unwrap();
    odb.record_report("server2", &crm, &one, ReportState::Failed, "no such module").await.unwrap();
    odb.record_report("server1", &crm, &two, serving, "").await.unwrap();
    odb.record_report("server2", &crm, &two, serving, "").await.unwrap();
    odb.record_pickup("server2", "a.py", &one, AttemptOutcome::Deployed).await.unwrap();
    let reports = odb.reports().await.unwrap();
    let reports: Vec<_> = reports.iter().map(|row| (row.server.as_str(), row.digest, row.state)).collect();
    assert_eq!(reports, [("server1", two, serving), ("server2", two, serving)]);

    assert!(odb.delete_member("server2").await.unwrap());
    assert!(!odb.delete_member("server2").await.unwrap());
    assert_eq!(odb.reports().await.unwrap().len(), 1);
    assert!(odb.pickup_files("server2").await.unwrap().is_empty());
}

pub(crate) async fn a_lease_has_one_holder_and_a_growing_number(database: Database) {
    let (a, b) = (database.open(), database.open());
    let (short, long) = (Duration::from_millis(200), Duration::from_secs(60));
    let held = a.take_lease("leader", "a", long).await.unwrap();
    assert_eq!((held.holder.as_str(), held.fencing), ("a", 1));
    assert_eq!(b.take_lease("leader", "b", long).await.unwrap(), held);
    let renewed = a.take_lease("leader", "a", long).await.unwrap();
    assert_eq!(renewed.fencing, 1);
    assert!(renewed.expires_us >= held.expires_us);
    let last = a.take_lease("leader", "a", short).await.unwrap();
    assert_eq!(last.fencing, 1);
    let taken = loop {
        let lease = b.take_lease("leader", "b", long).await.unwrap();
        if lease.holder == "b" {
            break lease;
        }
        assert!(b.clock_us().await.unwrap() < last.expires_us + 60_000_000, "it should have lapsed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(taken.fencing, 2);
    assert!(!a.release_lease("leader", "a", 1).await.unwrap());
    assert!(!b.release_lease("leader", "b", 1).await.unwrap());
    assert!(b.release_lease("leader", "b", 2).await.unwrap());
    assert_eq!(a.take_lease("leader", "a", long).await.unwrap().fencing, 3);
    let takers = (0..8).map(|taker| {
        let odb = database.open();
        tokio::spawn(async move { odb.take_lease("other", &format!("t{taker}"), long).await.unwrap() })
    });
    let takers: Vec<_> = takers.collect();
    let mut leases = Vec::new();
    for taker in takers {
        leases.push(taker.await.unwrap());
    }
    assert!(leases.iter().all(|lease| lease.holder == leases[0].holder && lease.fencing == 1), "{leases:?}");
}

pub(crate) async fn the_certificate_authority_is_replaced(database: Database) {
    let odb = database.open();
    assert_eq!(odb.ca().await.unwrap(), None);
    odb.put_ca(&[1, 0, 2], "PEM 1").await.unwrap();
    odb.put_ca(&[3], "PEM 2").await.unwrap();
    let stored = odb.ca().await.unwrap().unwrap();
    assert_eq!((stored.sealed_key, stored.certificate_pem.as_str()), (vec![3], "PEM 2"));
}

pub(crate) async fn migrating_twice_at_once_is_harmless(database: Database) {
    let migrations: Vec<_> = (0..4)
        .map(|_| {
            let odb = database.open();
            tokio::spawn(async move { odb.migrate().await })
        })
        .collect();
    for migration in migrations {
        migration.await.unwrap().unwrap();
    }
    assert!(matches!(database.open().schema_status().await.unwrap(), SchemaStatus::Current { .. }));
}
