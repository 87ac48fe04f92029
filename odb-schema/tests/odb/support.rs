//! A fresh database per test on each backend, and short ways to say what tests change.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crosstie_model::definition::DefinitionName;
use crosstie_model::names::{Revision, UnitName};
use crosstie_model::unit::{Artifact, ArtifactKind, UnitManifest};
use crosstie_model::{Definition, DefinitionId, DefinitionKind};
use crosstie_odb::{Change, ChangeSet, NewMember, Odb, OdbError, OdbOptions};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use url::Url;

/// A database for one test. Several handles to it stand for several processes.
#[derive(Clone)]
pub(crate) struct Database {
    url: String,
}

impl Database {
    /// One more handle, with a pool of its own.
    pub(crate) fn open(&self) -> Odb {
        Odb::connect(&options(&self.url)).unwrap()
    }

    /// What handles are opened with.
    pub(crate) fn options(&self) -> OdbOptions {
        options(&self.url)
    }

    /// As [`Database::open`], for statements that must be short.
    pub(crate) fn open_impatient(&self, statement_timeout: Duration) -> Odb {
        Odb::connect(&OdbOptions { statement_timeout, ..options(&self.url) }).unwrap()
    }

    /// Runs `statements` on a connection of its own, which the guard keeps open.
    pub(crate) async fn outside(&self, statements: &[&str]) -> Outside {
        let mut url = Url::parse(&self.url).unwrap();
        url.set_query(None);
        match url.scheme() {
            "sqlite" => {
                use diesel::{Connection, connection::SimpleConnection};
                let path = self.url.strip_prefix("sqlite:").unwrap();
                let mut connection = diesel::SqliteConnection::establish(path).unwrap();
                statements.iter().for_each(|statement| connection.batch_execute(statement).unwrap());
                Outside::Sqlite(Box::new(connection))
            }
            "postgres" => {
                let connected = tokio_postgres::connect(url.as_str(), tokio_postgres::NoTls).await;
                let (client, driver) = connected.unwrap();
                tokio::spawn(driver);
                for statement in statements {
                    client.batch_execute(statement).await.unwrap();
                }
                Outside::Postgres(client)
            }
            _ => {
                let mut connection = mysql_async::Conn::from_url(url.as_str()).await.unwrap();
                for statement in statements {
                    connection.query_drop(*statement).await.unwrap();
                }
                Outside::Mysql(connection)
            }
        }
    }

    /// How a writer on a connection of its own starts to lock what every change needs.
    pub(crate) fn lock_statements(&self) -> &'static [&'static str] {
        match self.url.starts_with("sqlite:") {
            true => &["BEGIN IMMEDIATE"],
            false => &["BEGIN", "SELECT revision FROM cluster_state FOR UPDATE"],
        }
    }
}

/// A connection that is no handle's. What it locked is free once it is dropped.
#[expect(dead_code, reason = "held for what dropping it does")]
pub(crate) enum Outside {
    Sqlite(Box<diesel::SqliteConnection>),
    Postgres(tokio_postgres::Client),
    Mysql(mysql_async::Conn),
}

pub(crate) fn options(url: &str) -> OdbOptions {
    OdbOptions {
        url: url.into(),
        base_directory: "/".into(),
        password: None,
        connections: 2,
        statement_timeout: Duration::from_secs(20),
    }
}

pub(crate) fn sqlite_url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

pub(crate) async fn on_sqlite<F: Future<Output = ()>>(test: impl Fn(Database) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let database = Database { url: sqlite_url(&directory.path().join("odb.sqlite")) };
    database.open().create().await.unwrap();
    test(database).await;
}

pub(crate) async fn on_postgres<F: Future<Output = ()>>(test: impl Fn(Database) -> F) {
    let Some((server, name)) = server_url("CROSSTIE_TEST_POSTGRES") else { return };
    postgres_admin(&server, &format!("CREATE DATABASE {name}")).await;
    let database = Database { url: with_database(&server, &name) };
    database.open().create().await.unwrap();
    test(database).await;
    postgres_admin(&server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

pub(crate) async fn on_mysql<F: Future<Output = ()>>(test: impl Fn(Database) -> F) {
    let Some((server, name)) = server_url("CROSSTIE_TEST_MYSQL") else { return };
    mysql_admin(&server, &format!("CREATE DATABASE {name}")).await;
    let database = Database { url: with_database(&server, &name) };
    database.open().create().await.unwrap();
    test(database).await;
    mysql_admin(&server, &format!("DROP DATABASE {name}")).await;
}

/// The server that `variable` names and a name for a new database on it.
fn server_url(variable: &str) -> Option<(Url, String)> {
    let Ok(text) = std::env::var(variable) else {
        println!("SKIPPED: {variable} is not set, so nothing was tested on that backend");
        return None;
    };
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    Some((Url::parse(&text).unwrap(), format!("crosstie_test_{}_{nanos}", std::process::id())))
}

fn with_database(server: &Url, name: &str) -> String {
    let mut url = server.clone();
    url.set_path(&format!("/{name}"));
    url.to_string()
}

async fn postgres_admin(server: &Url, statement: &str) {
    let mut url = server.clone();
    url.set_query(None);
    let (client, driver) = tokio_postgres::connect(url.as_str(), tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(driver);
    client.batch_execute(statement).await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
}

async fn mysql_admin(server: &Url, statement: &str) {
    let mut url = server.clone();
    url.set_query(None);
    let mut connection = mysql_async::Conn::from_url(url.as_str()).await.unwrap();
    connection.query_drop(statement).await.unwrap();
    connection.disconnect().await.unwrap();
}

pub(crate) fn id(kind: DefinitionKind, name: &str) -> DefinitionId {
    DefinitionId { kind, name: DefinitionName::new(name).unwrap() }
}

/// A dictionary with one entry, the smallest definition there is.
pub(crate) fn dictionary(name: &str, value: impl Into<Value>) -> Definition {
    let body = json!({"entries": {"value": value.into()}});
    Definition::from_value(id(DefinitionKind::Dictionary, name), body).unwrap()
}

/// A security definition whose password is the stored secret `name` at `version`.
pub(crate) fn basic_auth(name: &str, secret: &str, version: u32) -> Definition {
    let body = json!({
        "type": "basic_auth", "username": "crm", "password": {"ref": secret, "version": version}
    });
    Definition::from_value(id(DefinitionKind::Security, name), body).unwrap()
}

/// A server of that name on this host.
pub(crate) fn member(name: &str) -> NewMember {
    NewMember {
        name: name.into(),
        address: "127.0.0.1:17010".into(),
        tls: true,
        management: "127.0.0.1:17110".into(),
        version: "1".into(),
    }
}

pub(crate) fn unit(name: &str) -> UnitName {
    UnitName::new(name).unwrap()
}

pub(crate) fn artifact(name: &str, content: &str) -> Artifact {
    Artifact::new(unit(name), ArtifactKind::PythonFile, content.to_owned().into())
}

pub(crate) fn manifest(service: &str) -> UnitManifest {
    serde_json::from_value(json!({"services": [{"name": service, "class": "m.C"}]})).unwrap()
}

/// Stores and activates.
pub(crate) fn deploy(artifact: &Artifact, manifest: UnitManifest) -> Vec<Change> {
    vec![
        Change::StoreDeployment { artifact: artifact.clone(), manifest },
        Change::Activate { unit: artifact.unit.clone(), digest: artifact.digest },
    ]
}

pub(crate) async fn change(odb: &Odb, changes: Vec<Change>) -> Result<Revision, OdbError> {
    change_at(odb, None, changes).await
}

pub(crate) async fn change_at(
    odb: &Odb,
    expected: Option<Revision>,
    changes: Vec<Change>,
) -> Result<Revision, OdbError> {
    let set = ChangeSet { author: "ada".into(), message: "a test".into(), expected, changes };
    odb.change(&set).await
}

pub(crate) fn put(definition: Definition) -> Change {
    Change::PutDefinition(definition)
}
