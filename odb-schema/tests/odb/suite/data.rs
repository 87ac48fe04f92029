//! The data store of the services.

use std::time::Duration;

use crosstie_model::ports::{DataChange, DataError, DataStore, Nonces};
use crosstie_odb::{OdbDataStore, OdbNonces};
use serde_json::{Value, json};

use crate::support::Database;

fn store(database: &Database) -> OdbDataStore {
    OdbDataStore::new(database.open())
}

pub(crate) async fn values_survive_as_they_are(database: Database) {
    let data = store(&database);
    assert_eq!(data.get("k").await.unwrap(), None);
    let value = json!({"b": [1, 2.5, null, "é\u{0}\u{1f600}"], "a": {"": true}});
    assert_eq!(data.set("k", &value, None, None).await.unwrap(), 1);
    assert_eq!(data.set("k ", &json!(1), None, None).await.unwrap(), 1);
    let entry = data.get("k").await.unwrap().unwrap();
    assert_eq!((entry.value, entry.version), (value, 1));
    assert_eq!(data.set("k", &Value::Null, None, None).await.unwrap(), 2);
    assert_eq!(data.get("k").await.unwrap().unwrap().value, Value::Null);
    let large = Value::from("v".repeat(1024 * 1024 - 2));
    let key = "é".repeat(256);
    assert_eq!(data.set(&key, &large, None, None).await.unwrap(), 1);
    assert_eq!(data.get(&key).await.unwrap().unwrap().value, large);
    let refused = data.set("k", &Value::from("v".repeat(1024 * 1024)), None, None).await.unwrap_err();
    assert!(matches!(refused, DataError::Invalid(_)), "{refused:?}");
}

pub(crate) async fn compare_and_set_lets_one_of_two_writers_through(database: Database) {
    let data = store(&database);
    assert_eq!(data.set("k", &json!("a"), None, Some(0)).await.unwrap(), 1);
    let lost = data.set("k", &json!("b"), None, Some(0)).await.unwrap_err();
    assert_eq!(lost, DataError::Conflict { expected: 0, found: 1 });
    assert_eq!(data.set("k", &json!("b"), None, Some(1)).await.unwrap(), 2);
    let lost = data.set("k", &json!("c"), None, Some(1)).await.unwrap_err();
    assert_eq!(lost, DataError::Conflict { expected: 1, found: 2 });
    let lost = data.set("absent", &json!("c"), None, Some(4)).await.unwrap_err();
    assert_eq!(lost, DataError::Conflict { expected: 4, found: 0 });
    assert_eq!(data.get("absent").await.unwrap(), None);
    assert_eq!(data.get("k").await.unwrap().unwrap().value, json!("b"));
}

pub(crate) async fn eight_writers_count_to_the_right_number(database: Database) {
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let data = store(&database);
            tokio::spawn(async move {
                for _ in 0..10 {
                    loop {
                        let entry = data.get("count").await.unwrap();
                        let version = entry.as_ref().map_or(0, |entry| entry.version);
                        let next = entry.map_or(1, |entry| entry.value.as_u64().unwrap() + 1);
                        match data.set("count", &json!(next), None, Some(version)).await {
                            Ok(_) => break,
                            Err(DataError::Conflict { .. }) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let entry = store(&database).get("count").await.unwrap().unwrap();
    assert_eq!((entry.value, entry.version), (json!(80), 80));
}

pub(crate) async fn entries_lapse_by_the_databases_clock(database: Database) {
    let odb = database.open();
    let data = store(&database);
    let ttl = Duration::from_millis(300);
    data.set("short", &json!(1), Some(ttl), None).await.unwrap();
    data.set("long", &json!(1), Some(Duration::from_secs(600)), None).await.unwrap();
    let lapses = odb.clock_us().await.unwrap() + 300_000;
    assert_eq!(data.keys("", 10).await.unwrap(), ["long", "short"]);
    while data.get("short").await.unwrap().is_some() {
        assert!(odb.clock_us().await.unwrap() < lapses + 100_000, "it should have lapsed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(data.keys("", 10).await.unwrap(), ["long"]);
    assert!(!data.delete("short").await.unwrap());
    // A holder that slept through its lapse must not take the next holder's entry for its own.
    assert_eq!(data.set("short", &json!(2), None, Some(0)).await.unwrap(), 2);
    let late = data.set("short", &json!(1), None, Some(1)).await.unwrap_err();
    assert_eq!(late, DataError::Conflict { expected: 1, found: 2 });
    assert_eq!(odb.purge_data().await.unwrap(), 0);
    let forever = data.set("x", &json!(1), Some(Duration::MAX), None).await.unwrap_err();
    assert!(matches!(forever, DataError::Invalid(_)), "{forever:?}");
}

pub(crate) async fn a_deleted_entry_does_not_give_its_version_to_the_next(database: Database) {
    let data = store(&database);
    assert!(!data.delete("k").await.unwrap());
    data.set("k", &json!(1), None, None).await.unwrap();
    assert!(data.delete("k").await.unwrap());
    assert!(!data.delete("k").await.unwrap());
    assert_eq!(data.get("k").await.unwrap(), None);
    assert_eq!(data.set("k", &json!(2), None, Some(0)).await.unwrap(), 2);
}

pub(crate) async fn several_changes_are_made_together_or_not_at_all(database: Database) {
    let data = store(&database);
    let (one, two) = (json!(1), json!(2));
    let set = |key, value, expected| DataChange::Set { key, value, ttl: None, expected };
    let found = async || {
        let mut found = Vec::new();
        for key in data.keys("", 10).await.unwrap() {
            let entry = data.get(&key).await.unwrap().unwrap();
            found.push((key, entry.value, entry.version));
        }
        found
    };
    data.set("c", &one, None, None).await.unwrap();
    let changes = [set("a", &one, Some(0)), set("b", &one, None), DataChange::Delete { key: "c" }];
    data.change(&changes).await.unwrap();
    let both = [("a".to_owned(), json!(1), 1), ("b".to_owned(), json!(1), 1)];
    assert_eq!(found().await, both);
    let changes = [set("b", &two, None), DataChange::Delete { key: "b" }, set("a", &two, Some(0))];
    assert_eq!(data.change(&changes).await.unwrap_err(), DataError::Conflict { expected: 0, found: 1 });
    for bad in [set("", &two, None), DataChange::Delete { key: "" }] {
        let refused = data.change(&[set("b", &two, None), bad]).await.unwrap_err();
        assert!(matches!(refused, DataError::Invalid(_)), "{refused:?}");
    }
    assert_eq!(found().await, both);
    let changes =
        [set("a", &two, Some(1)), DataChange::Delete { key: "b" }, DataChange::Delete { key: "none" }];
    data.change(&changes).await.unwrap();
    assert_eq!(found().await, [("a".to_owned(), json!(2), 2)]);
    data.change(&[]).await.unwrap();
}

pub(crate) async fn keys_are_listed_by_prefix_in_the_order_of_bytes(database: Database) {
    let data = store(&database);
    for key in ["a%", "a_1", "aB", "ab", "a", "A", "b", "aé", "a\u{10ffff}z"] {
        data.set(key, &json!(1), None, None).await.unwrap();
    }
    assert_eq!(data.keys("a", 100).await.unwrap(), ["a", "a%", "aB", "a_1", "ab", "aé", "a\u{10ffff}z"]);
    assert_eq!(data.keys("a_", 100).await.unwrap(), ["a_1"]);
    assert_eq!(data.keys("a%", 100).await.unwrap(), ["a%"]);
    assert_eq!(data.keys("", 2).await.unwrap(), ["A", "a"]);
    assert_eq!(data.keys("a\u{10ffff}", 100).await.unwrap(), ["a\u{10ffff}z"]);
}

pub(crate) async fn what_may_be_used_once_is_used_once_whoever_asks(database: Database) {
    let until = i64::from(u32::MAX);
    let asked = (0..8).map(|_| {
        let nonces = OdbNonces::new(database.open());
        tokio::spawn(async move { nonces.is_new("partners", "abc 17", until).await.unwrap() })
    });
    let mut accepted = 0;
    for asked in asked.collect::<Vec<_>>() {
        accepted += usize::from(asked.await.unwrap());
    }
    assert_eq!(accepted, 1);
    let nonces = OdbNonces::new(database.open());
    assert!(!nonces.is_new("partners", "abc 17", until).await.unwrap());
    assert!(nonces.is_new("others", "abc 17", until).await.unwrap());
    assert!(nonces.is_new("partners", "abc 18", until).await.unwrap());
}
