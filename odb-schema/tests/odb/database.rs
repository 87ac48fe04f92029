//! A fresh database per test on each backend. PostgreSQL and MariaDB are those of the distribution, one of
//! each for the whole test process, started by the first test that needs it and reached as in production:
//! over TLS, both sides' certificates verified. `CROSSTIE_TEST_POSTGRES` and `CROSSTIE_TEST_MYSQL` name
//! servers to use instead, as URLs of a user who may make databases.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crosstie_odb::{Odb, OdbOptions};
use crosstie_parts::{MariaDb, PartTls, Postgres};
use crosstie_test_support::parts::TestPart;
use url::Url;

use crate::outside::Outside;

/// A database for one test. Several handles to it stand for several processes.
#[derive(Clone)]
pub(crate) struct Database {
    options: OdbOptions,
}

impl Database {
    /// One more handle, with a pool of its own.
    pub(crate) fn open(&self) -> Odb {
        Odb::connect(&self.options).unwrap()
    }

    /// What handles are opened with.
    pub(crate) fn options(&self) -> OdbOptions {
        self.options.clone()
    }

    /// As [`Database::open`], for statements that must be short.
    pub(crate) fn open_impatient(&self, statement_timeout: Duration) -> Odb {
        Odb::connect(&OdbOptions { statement_timeout, ..self.options() }).unwrap()
    }

    /// Runs `statements` on a connection of its own, which the guard keeps open.
    pub(crate) async fn outside(&self, statements: &[&str]) -> Outside {
        let mut outside = Outside::connect(&self.options).await;
        outside.run(statements).await;
        outside
    }

    /// How a writer on a connection of its own starts to lock what every change needs.
    pub(crate) fn lock_statements(&self) -> &'static [&'static str] {
        match self.options.url.starts_with("sqlite:") {
            true => &["BEGIN IMMEDIATE"],
            false => &["BEGIN", "SELECT revision FROM cluster_state FOR UPDATE"],
        }
    }
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

/// The database in the file `path`.
pub(crate) fn of_file(path: &Path) -> Database {
    Database { options: options(&sqlite_url(path)) }
}

pub(crate) async fn on_sqlite<F: Future<Output = ()>>(test: impl Fn(Database) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let database = of_file(&directory.path().join("odb.sqlite"));
    database.open().create().await.unwrap();
    Box::pin(test(database)).await;
}

pub(crate) async fn on_postgres<F: Future<Output = ()>>(test: impl Fn(Database) -> F) {
    on_empty_postgres(async |database| {
        database.open().create().await.unwrap();
        Box::pin(test(database)).await;
    })
    .await;
}

pub(crate) async fn on_mysql<F: Future<Output = ()>>(test: impl Fn(Database) -> F) {
    on_empty_mysql(async |database| {
        database.open().create().await.unwrap();
        Box::pin(test(database)).await;
    })
    .await;
}

/// As [`on_postgres`], without a schema.
pub(crate) async fn on_empty_postgres(test: impl AsyncFn(Database)) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let start = || Server::find("CROSSTIE_TEST_POSTGRES", start_postgres);
    on_fresh(SERVER.get_or_init(start), " WITH (FORCE)", test).await;
}

/// As [`on_mysql`], without a schema.
pub(crate) async fn on_empty_mysql(test: impl AsyncFn(Database)) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    on_fresh(SERVER.get_or_init(|| Server::find("CROSSTIE_TEST_MYSQL", start_mariadb)), "", test).await;
}

/// A database that a test fails on stays for inspection, in a server that goes with the process.
async fn on_fresh(server: &Server, force: &str, test: impl AsyncFn(Database)) {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let name = format!("crosstie_test_{}_{nanos}", std::process::id());
    Outside::connect(&server.options).await.run(&[&format!("CREATE DATABASE {name}")]).await;
    let mut url = Url::parse(&server.options.url).unwrap();
    url.set_path(&format!("/{name}"));
    let database = Database { options: OdbOptions { url: url.into(), ..server.options.clone() } };
    // Unoptimized, a test's future is too large for a test's stack.
    Box::pin(test(database)).await;
    Outside::connect(&server.options).await.run(&[&format!("DROP DATABASE {name}{force}")]).await;
}

/// A server where databases may be made.
struct Server {
    options: OdbOptions,
    /// The part, when it is ours.
    _part: Option<TestPart>,
}

impl Server {
    fn find(variable: &str, start: fn() -> TestPart) -> Self {
        if let Ok(url) = std::env::var(variable) {
            return Self { options: options(&url), _part: None };
        }
        let part = start();
        Self { options: options_of(&part), _part: Some(part) }
    }
}

pub(crate) fn start_postgres() -> TestPart {
    TestPart::start("postgres", Postgres::new).unwrap()
}

pub(crate) fn start_mariadb() -> TestPart {
    TestPart::start("mysql", MariaDb::new).unwrap()
}

/// How its client reaches the database of `part`.
pub(crate) fn options_of(part: &TestPart) -> OdbOptions {
    OdbOptions {
        password: Some(part.credentials.password.clone()),
        ..options(&url_of(part, "127.0.0.1", Some(&part.client)))
    }
}

/// The URL of the database of `part` by the name `host`, for a client of those certificates.
pub(crate) fn url_of(part: &TestPart, host: &str, client: Option<&PartTls>) -> String {
    let scheme = if part.part.name() == "mariadb" { "mysql" } else { "postgres" };
    let (user, database) = (&part.credentials.user, &part.credentials.database);
    let shown = client
        .map(|tls| format!("&cert={}&key={}", tls.certificate.display(), tls.key.display()))
        .unwrap_or_default();
    let (port, ca) = (part.address.port(), part.client.ca.display());
    format!("{scheme}://{user}@{host}:{port}/{database}?ca={ca}{shown}")
}
