//! Who is on the other end, and who may listen.

use std::fs;

use crosstie_model::outgoing::SqlValue::Int;
use crosstie_model::outgoing::Trouble;
use crosstie_parts::{MariaDb, Postgres};
use crosstie_test_support::parts::{Authority, TestPart};
use serde_json::{Value, json};

use crate::support::{Engine, SERVERS, TestDatabase, text, tls};

/// What the first call fails with.
async fn trouble(database: &TestDatabase, changes: Value) -> (Trouble, String) {
    let client = database.open_with(changes).await;
    let error = client.run("SELECT 1", &[]).await.unwrap_err();
    (error.trouble(), error.to_string())
}

#[tokio::test]
async fn the_connection_is_encrypted() {
    let client = TestDatabase::new(Engine::Postgres).await.open().await;
    let version = client.value("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await;
    assert_eq!(version, text("TLSv1.3"));
    let client = TestDatabase::new(Engine::MariaDb).await.open().await;
    let version = client.run("SHOW STATUS LIKE 'Ssl_version'", &[]).await.unwrap();
    assert_eq!(version.rows[0][1], text("TLSv1.3"));
}

#[tokio::test]
async fn a_server_of_another_authority_or_name_is_refused() {
    for engine in SERVERS {
        let database = TestDatabase::new(engine).await;
        let other = Authority::new(database.directory()).unwrap();
        let stranger = other.issue("stranger", &["client"]).unwrap();
        let mut wrong_ca = database.settings["tls"].clone();
        wrong_ca["ca"] = tls(&stranger)["ca"].clone();
        let (found, said) = trouble(&database, json!({"tls": wrong_ca})).await;
        assert_eq!(found, Trouble::Tls, "{engine:?} {said}");
        // Without an authority of its own: none of the operating system's signed it.
        let mut no_ca = database.settings["tls"].clone();
        no_ca.as_object_mut().unwrap().remove("ca");
        let (found, said) = trouble(&database, json!({"tls": no_ca})).await;
        assert_eq!(found, Trouble::Tls, "{engine:?} {said}");
        // The certificate is for an address and no name.
        let (found, said) = trouble(&database, json!({"host": "localhost"})).await;
        assert_eq!(found, Trouble::Tls, "{engine:?} {said}");
        let mut named = database.settings["tls"].clone();
        named["server_name"] = "127.0.0.1".into();
        let client = database.open_with(json!({"host": "localhost", "tls": named})).await;
        assert_eq!(client.value("SELECT 1").await, Int(1), "{engine:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_reached_when_that_is_wanted_alone() {
    let plain = [
        (Engine::Postgres, TestPart::start_with("postgres", Postgres::new, |plan| plan.tls = None).unwrap()),
        (Engine::MariaDb, TestPart::start_with("mysql", MariaDb::new, |plan| plan.tls = None).unwrap()),
    ];
    for (engine, part) in plain {
        let database = TestDatabase::of_part(engine, &part);
        let (found, said) = trouble(&database, json!({})).await;
        assert!(matches!(found, Trouble::Tls), "{engine:?} {said}");
        let client = database.open_with(json!({"encryption": "off", "tls": null})).await;
        assert_eq!(client.value("SELECT 1").await, Int(1), "{engine:?}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_without_being_shown() {
    for engine in SERVERS {
        let database = TestDatabase::new(engine).await;
        fs::write(database.directory().join("wrong"), "Tr0ub4dor&3").unwrap();
        let (found, said) = trouble(&database, json!({"password": "file:wrong"})).await;
        assert_eq!(found, Trouble::Credentials, "{engine:?} {said}");
        assert!(!said.contains("Tr0ub4dor"), "{said}");
        let nothing = json!({"authentication": "none", "password": ""});
        let (found, said) = trouble(&database, nothing).await;
        assert!(matches!(found, Trouble::Connect | Trouble::Credentials), "{engine:?} {said}");
        let (found, said) = trouble(&database, json!({"database": "nowhere"})).await;
        assert!(matches!(found, Trouble::Connect | Trouble::Credentials), "{engine:?} {said}");
        let missing = database.try_open(json!({"password": "file:missing"})).err().unwrap();
        assert!(missing.to_string().contains("password"), "{missing}");
    }
}

#[tokio::test]
async fn a_client_certificate_that_the_server_does_not_know_is_refused() {
    for engine in SERVERS {
        let database = TestDatabase::new(engine).await;
        let stranger = Authority::new(database.directory()).unwrap().issue("stranger", &["client"]).unwrap();
        let mut shown = tls(&stranger);
        shown["ca"] = database.settings["tls"]["ca"].clone();
        let (found, said) = trouble(&database, json!({"tls": shown})).await;
        assert!(matches!(found, Trouble::Tls | Trouble::Connect | Trouble::Credentials), "{engine:?} {said}");
        let unusable = json!({"ca": "not a certificate"});
        assert!(database.try_open(json!({"tls": unusable})).is_err(), "{engine:?}");
    }
}
