//! Databases for tests, and short ways to call them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crosstie_model::definition::{OutgoingDefinition, SqlEndpoint};
use crosstie_model::outgoing::{
    Access, Begin, Named, Outgoing, Parameters, SqlCall, SqlError, SqlOutgoing, SqlResult, SqlTransaction,
    SqlType, SqlValue,
};
use crosstie_model::ports::{CounterCells, GaugeCell, GaugeCells};
use crosstie_model::settings::MessageLogSection;
use crosstie_model::{Snapshot, TraceContext};
use crosstie_outgoing::{Blueprint, Environment, OpenError, open};
use crosstie_parts::{MariaDb, PartTls, Postgres};
use crosstie_security::{ClusterKey, SecretResolver};
use crosstie_telemetry::Metrics;
use crosstie_telemetry::messages::{Limits, MessageLog, MessageQuery, StoredMessage, search};
use crosstie_test_support::parts::TestPart;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Long enough for anything that ends at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Postgres,
    MariaDb,
    Sqlite,
}

pub(crate) const ALL: [Engine; 3] = [Engine::Postgres, Engine::MariaDb, Engine::Sqlite];
pub(crate) const SERVERS: [Engine; 2] = [Engine::Postgres, Engine::MariaDb];

impl Engine {
    /// The statement for this engine.
    pub(crate) fn of<T>(self, postgres: T, mariadb: T, sqlite: T) -> T {
        match self {
            Self::Postgres => postgres,
            Self::MariaDb => mariadb,
            Self::Sqlite => sqlite,
        }
    }
}

/// A database of its own, and where the files of its definition are.
pub(crate) struct TestDatabase {
    pub(crate) settings: Value,
    directory: Arc<TempDir>,
}

/// The servers of this test process.
fn server(engine: Engine) -> &'static TestPart {
    static POSTGRES: OnceLock<TestPart> = OnceLock::new();
    static MARIADB: OnceLock<TestPart> = OnceLock::new();
    match engine {
        Engine::MariaDb => MARIADB.get_or_init(start_mariadb),
        _ => POSTGRES.get_or_init(start_postgres),
    }
}

pub(crate) fn start_postgres() -> TestPart {
    TestPart::start("postgres", Postgres::new).unwrap()
}

pub(crate) fn start_mariadb() -> TestPart {
    TestPart::start("mysql", MariaDb::new).unwrap()
}

impl TestDatabase {
    /// A fresh database.
    pub(crate) async fn new(engine: Engine) -> Self {
        if engine == Engine::Sqlite {
            let directory = Arc::new(tempfile::tempdir().unwrap());
            let path = directory.path().join("data.sqlite");
            let settings = json!({"engine": "sqlite", "database": path, "create": true});
            return Self { settings, directory };
        }
        let mut made = Self::of_part(engine, server(engine));
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        made.open().await.run(&format!("CREATE DATABASE {name}"), &[]).await.unwrap();
        made.settings["database"] = name.into();
        made
    }

    /// The database that `part` was made with.
    pub(crate) fn of_part(engine: Engine, part: &TestPart) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        fs::write(directory.path().join("password"), part.credentials.password.expose()).unwrap();
        let settings = json!({
            "engine": engine.of("postgresql", "mariadb", "sqlite"),
            "host": "127.0.0.1", "port": part.address.port(),
            "database": part.credentials.database, "username": part.credentials.user,
            "password": "file:password", "tls": tls(&part.client),
        });
        Self { settings, directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// It, opened.
    pub(crate) async fn open(&self) -> Client {
        self.open_with(json!({})).await
    }

    /// It, opened with settings that differ.
    pub(crate) async fn open_with(&self, changes: Value) -> Client {
        self.try_open(changes).unwrap()
    }

    /// As [`TestDatabase::open_with`], where that may fail.
    pub(crate) fn try_open(&self, changes: Value) -> Result<Client, OpenError> {
        let mut settings = self.settings.clone();
        for (key, value) in changes.as_object().unwrap() {
            settings[key] = value.clone();
        }
        let endpoint: SqlEndpoint = serde_json::from_value(settings).unwrap();
        let directory = PathBuf::from(self.directory());
        let resolver = SecretResolver::new(Arc::new(ClusterKey::generate().unwrap()), directory.clone());
        let definition = OutgoingDefinition::Sql(endpoint);
        let name = "crm".parse().unwrap();
        let blueprint = Blueprint::draw(&name, &definition, &Snapshot::default(), &resolver, &directory)?;
        let gauges = Arc::new(Gauges::default());
        let metrics = Metrics::new(Arc::new(Cells::default()));
        let limits = Limits::new(&MessageLogSection::default(), 1);
        let messages = MessageLog::open(directory.join("messages"), 0, limits).unwrap();
        let environment = Environment {
            metrics: metrics.clone(),
            gauges: Arc::clone(&gauges) as _,
            tracer: None,
            messages: Some(messages.clone()),
        };
        let Outgoing::Sql(database) = open(&blueprint, &environment)? else { panic!("not a database") };
        let directory = Arc::clone(&self.directory);
        Ok(Client { database, gauges, metrics, messages, directory })
    }
}

/// The `tls` of a definition for a client of `files`.
pub(crate) fn tls(files: &PartTls) -> Value {
    let file = |path: &Path| format!("file:{}", path.display());
    json!({"ca": file(&files.ca), "certificate": file(&files.certificate), "key": file(&files.key)})
}

/// An open database.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) database: Arc<dyn SqlOutgoing>,
    gauges: Arc<Gauges>,
    metrics: Metrics,
    messages: MessageLog,
    /// Where a file of SQLite is.
    directory: Arc<TempDir>,
}

impl Client {
    /// The messages that are kept, oldest first.
    pub(crate) fn kept(&self) -> Vec<StoredMessage> {
        assert!(self.messages.flush(Duration::from_secs(60)));
        let query = MessageQuery { bodies: true, limit: 100, ..MessageQuery::default() };
        let directory = self.directory.path().join("messages");
        let found = search(&directory, &query, Instant::now() + Duration::from_secs(60)).unwrap();
        found.messages.into_iter().rev().collect()
    }

    /// Runs one statement.
    pub(crate) async fn run(
        &self,
        statement: &str,
        values: &[(&str, SqlValue)],
    ) -> Result<SqlResult, SqlError> {
        self.database.run(call(statement, values)).await
    }

    /// Runs one statement with `limit` to do it.
    pub(crate) async fn run_within(&self, statement: &str, limit: Duration) -> Result<SqlResult, SqlError> {
        self.database.run(SqlCall { deadline: Instant::now() + limit, ..call(statement, &[]) }).await
    }

    /// The one value that `statement` gives.
    pub(crate) async fn value(&self, statement: &str) -> SqlValue {
        let result = self.run(statement, &[]).await.unwrap();
        result.rows.into_iter().next().unwrap().into_iter().next().unwrap()
    }

    pub(crate) async fn begin(&self) -> Arc<dyn SqlTransaction> {
        self.database.begin(begin()).await.unwrap()
    }

    /// A gauge of the outgoing's.
    pub(crate) fn gauge(&self, name: &str) -> i64 {
        self.gauges.value(&format!("outgoing:{name}:crm"))
    }

    /// Everything counted, as Prometheus text.
    pub(crate) fn counted(&self) -> String {
        self.metrics.render(&[], &[])
    }

    /// Waits until `statement` gives `wanted`.
    pub(crate) async fn wait_for(&self, statement: &str, wanted: SqlValue) {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.value(statement).await;
            if found == wanted {
                return;
            }
            assert!(Instant::now() < until, "{statement} gives {found:?} and not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Waits until `is_so`.
pub(crate) async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn begin() -> Begin {
    Begin {
        isolation: None,
        access: Access::Write,
        trace: TraceContext::new_root(),
        deadline: Instant::now() + PATIENCE,
    }
}

pub(crate) fn call(statement: &str, values: &[(&str, SqlValue)]) -> SqlCall {
    SqlCall {
        statement: statement.into(),
        parameters: Parameters::Once(named(values)),
        types: Vec::new(),
        trace: TraceContext::new_root(),
        deadline: Instant::now() + PATIENCE,
    }
}

/// As [`call`], with the types of columns.
pub(crate) fn call_typed(statement: &str, types: &[(&str, SqlType)]) -> SqlCall {
    let types = types.iter().map(|(name, wanted)| ((*name).to_owned(), *wanted)).collect();
    SqlCall { types, ..call(statement, &[]) }
}

pub(crate) fn named(values: &[(&str, SqlValue)]) -> Named {
    values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

pub(crate) fn text(text: &str) -> SqlValue {
    SqlValue::Text(text.to_owned())
}

pub(crate) fn decimal(text: &str) -> SqlValue {
    SqlValue::Decimal(text.to_owned())
}

#[derive(Default)]
struct Cells(Mutex<BTreeMap<String, &'static AtomicU64>>);

impl CounterCells for Cells {
    fn cell(&self, key: &str) -> Option<&'static AtomicU64> {
        let mut cells = self.0.lock().unwrap();
        Some(*cells.entry(key.to_owned()).or_insert_with(|| Box::leak(Box::default())))
    }

    fn read_all(&self) -> Vec<(String, u64)> {
        let cells = self.0.lock().unwrap();
        cells.iter().map(|(key, cell)| (key.clone(), cell.load(Ordering::Relaxed))).collect()
    }
}

#[derive(Default)]
struct Gauges(Mutex<BTreeMap<String, Arc<Gauge>>>);

#[derive(Default)]
struct Gauge(std::sync::atomic::AtomicI64);

impl Gauges {
    fn value(&self, key: &str) -> i64 {
        let gauges = self.0.lock().unwrap();
        gauges.get(key).map(|gauge| gauge.0.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

impl GaugeCells for Gauges {
    fn gauge(&self, key: &str) -> Arc<dyn GaugeCell> {
        Arc::clone(self.0.lock().unwrap().entry(key.to_owned()).or_default()) as _
    }
}

impl GaugeCell for Gauge {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
