//! A runtime as a worker would start it, with everything around it in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use crosstie_model::cid::TraceContext;
use crosstie_model::message::{ChannelInfo, HttpRequest, ReplyBody};
use crosstie_model::names::{ServiceName, UnitName};
use crosstie_model::outgoing::FoundOutgoing;
use crosstie_model::ports::{
    Blame, BlameSlot, DataChange, DataEntry, DataError, DataStore, LoadError, LoadedService, LoadedUnit,
    Runtime, ServiceDirectory,
};
use crosstie_model::settings::PythonSettings;
use crosstie_model::transform::FoundStylesheet;
use crosstie_model::unit::{Artifact, ArtifactKind};
use crosstie_model::{Failure, Message, Payload, Reply};
use crosstie_runtime::archive;
use crosstie_runtime::python::{PythonOptions, PythonRuntime};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

/// Everything a test looks at.
pub(crate) struct World {
    pub(crate) runtime: PythonRuntime,
    pub(crate) directory: Arc<Directory>,
    pub(crate) blame: Arc<Blamed>,
    pub(crate) exhausted: Arc<AtomicU64>,
}

/// The services and dictionaries that exist.
#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) services: Mutex<HashMap<String, Arc<dyn LoadedService>>>,
    pub(crate) dictionaries: Mutex<HashMap<String, Arc<Value>>>,
    pub(crate) outgoings: Mutex<HashMap<String, FoundOutgoing>>,
    pub(crate) stylesheets: Mutex<HashMap<String, FoundStylesheet>>,
}

impl ServiceDirectory for Directory {
    fn find(&self, name: &str) -> Option<Arc<dyn LoadedService>> {
        self.services.lock().unwrap().get(name).cloned()
    }

    fn dictionary(&self, name: &str) -> Option<Arc<Value>> {
        self.dictionaries.lock().unwrap().get(name).cloned()
    }

    fn outgoing(&self, name: &str) -> Option<FoundOutgoing> {
        self.outgoings.lock().unwrap().get(name).cloned()
    }

    fn stylesheet(&self, name: &str) -> Option<FoundStylesheet> {
        self.stylesheets.lock().unwrap().get(name).cloned()
    }
}

/// Remembers what was entered.
#[derive(Default)]
pub(crate) struct Blamed {
    pub(crate) entered: Arc<Mutex<Vec<String>>>,
    pub(crate) lost: Mutex<Vec<String>>,
}

struct BlamedSlot(Arc<Mutex<Vec<String>>>);

impl Blame for Blamed {
    fn register_thread(&self) -> Box<dyn BlameSlot> {
        Box::new(BlamedSlot(Arc::clone(&self.entered)))
    }

    fn is_quarantined(&self, _service: &ServiceName) -> bool {
        false
    }

    fn thread_lost(&self, service: &ServiceName) {
        self.lost.lock().unwrap().push(service.to_string());
    }
}

impl BlameSlot for BlamedSlot {
    fn enter(&self, service: &ServiceName) -> u64 {
        self.0.lock().unwrap().push(service.to_string());
        1
    }

    fn enter_load(&self, unit: &UnitName) -> u64 {
        self.0.lock().unwrap().push(format!("load {unit}"));
        1
    }

    fn leave(&self, _previous: u64) {
        self.0.lock().unwrap().push("-".into());
    }
}

/// Run-time data in memory.
#[derive(Default)]
pub(crate) struct Memory(Mutex<BTreeMap<String, DataEntry>>);

#[async_trait]
impl DataStore for Memory {
    async fn get(&self, key: &str) -> Result<Option<DataEntry>, DataError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if key == "unreachable" {
            return Err(DataError::Unreachable);
        }
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    async fn set(
        &self,
        key: &str,
        value: &Value,
        _ttl: Option<Duration>,
        expected: Option<u64>,
    ) -> Result<u64, DataError> {
        let mut entries = self.0.lock().unwrap();
        let found = entries.get(key).map_or(0, |entry| entry.version);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(DataError::Conflict { expected, found });
        }
        entries.insert(key.into(), DataEntry { value: value.clone(), version: found + 1 });
        Ok(found + 1)
    }

    async fn delete(&self, key: &str) -> Result<bool, DataError> {
        Ok(self.0.lock().unwrap().remove(key).is_some())
    }

    async fn change(&self, _changes: &[DataChange<'_>]) -> Result<(), DataError> {
        Err(DataError::Invalid("services make one change at a time".into()))
    }

    async fn keys(&self, prefix: &str, limit: usize) -> Result<Vec<String>, DataError> {
        let entries = self.0.lock().unwrap();
        Ok(entries.keys().filter(|key| key.starts_with(prefix)).take(limit).cloned().collect())
    }
}

/// A reactor of its own for host calls, as the control thread is one.
pub(crate) fn host_reactor() -> tokio::runtime::Handle {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        sender.send(runtime.handle().clone()).unwrap();
        runtime.block_on(std::future::pending::<()>());
    });
    receiver.recv().unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(PythonSettings::default())
    }

    pub(crate) fn with(settings: PythonSettings) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_ansi(false).try_init();
        let blame = Arc::new(Blamed::default());
        let exhausted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&exhausted);
        let runtime = PythonRuntime::start(PythonOptions {
            settings,
            venv: "/nonexistent".into(),
            host: host_reactor(),
            network: host_reactor(),
            data: Arc::new(Memory::default()),
            blame: Arc::clone(&blame) as Arc<dyn Blame>,
            user_config: json!({"app": {"limits": {"depth": 3, "names": ["a", "b"]}}}),
            on_exhausted: Box::new(move || {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
        })
        .unwrap();
        let directory = Arc::new(Directory::default());
        runtime.set_directory(Arc::clone(&directory) as Arc<dyn ServiceDirectory>);
        Self { runtime, directory, blame, exhausted }
    }

    /// Checks and loads an artifact, and makes its services findable.
    pub(crate) async fn deploy_with(
        &self,
        artifact: &Artifact,
        library: Option<&Artifact>,
    ) -> Result<LoadedUnit, LoadError> {
        let manifest = self.runtime.describe(artifact, library).await?;
        let used = library.filter(|_| !manifest.library_modules.is_empty());
        let unit = self.runtime.load(artifact, &manifest, used).await?;
        let mut services = self.directory.services.lock().unwrap();
        for service in &unit.services {
            services.insert(service.description().name.to_string(), Arc::clone(service));
        }
        Ok(unit)
    }

    /// Deploys one file; a test whose file is wrong fails.
    pub(crate) async fn deploy(&self, unit: &str, source: &str) -> LoadedUnit {
        self.deploy_with(&file(unit, source), None)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", error.detail))
    }

    /// Why a file is refused.
    pub(crate) async fn refusal(&self, unit: &str, source: &str) -> LoadError {
        self.runtime.describe(&file(unit, source), None).await.expect_err("the file was accepted")
    }

    /// Calls a service by its name.
    pub(crate) async fn call(&self, service: &str, request: Request) -> Result<Reply, Failure> {
        let service = self.directory.find(service).expect("no such service");
        service.invoke(request.message).await
    }

    /// Calls a service and gives its JSON answer.
    pub(crate) async fn json(&self, service: &str, request: Request) -> Value {
        let reply = self.call(service, request).await.unwrap_or_else(|failure| panic!("{failure:?}"));
        value_of(&reply)
    }

    /// Waits until `condition` holds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !condition(self) {
            assert!(Instant::now() < limit, "never happened: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) fn value_of(reply: &Reply) -> Value {
    match &reply.body {
        ReplyBody::Json(text) => serde_json::from_slice(text).unwrap(),
        ReplyBody::Text(text) => Value::String(text.clone()),
        ReplyBody::Empty => Value::Null,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn file(unit: &str, source: &str) -> Artifact {
    Artifact::new(UnitName::new(unit).unwrap(), ArtifactKind::PythonFile, Bytes::from(source.to_owned()))
}

pub(crate) fn tree(unit: &str, kind: ArtifactKind, files: &[(&str, &str)]) -> Artifact {
    let files: archive::Files =
        files.iter().map(|(path, text)| ((*path).to_owned(), Bytes::from((*text).to_owned()))).collect();
    Artifact::new(UnitName::new(unit).unwrap(), kind, archive::build(&files).unwrap())
}

pub(crate) fn package(unit: &str, files: &[(&str, &str)]) -> Artifact {
    tree(unit, ArtifactKind::PythonPackage, files)
}

pub(crate) fn library(files: &[(&str, &str)]) -> Artifact {
    tree("lib", ArtifactKind::PythonLibrary, files)
}

/// A message in the making.
pub(crate) struct Request {
    pub(crate) message: Message,
}

pub(crate) fn request(payload: Payload) -> Request {
    let raw = match &payload {
        Payload::Json(value) => serde_json::to_vec(value).unwrap().into(),
        Payload::Bytes(bytes) => bytes.clone(),
        Payload::Text(text) => text.clone().into(),
        _ => Bytes::new(),
    };
    Request {
        message: Message {
            trace: TraceContext::new_root(),
            channel: Arc::new(ChannelInfo {
                name: "test.channel".into(),
                kind: "rest",
                service: ServiceName::new("any").unwrap(),
            }),
            payload,
            raw,
            soap: None,
            amqp: None,
            http: Some(Box::new(HttpRequest {
                method: Method::GET,
                path: "/path".into(),
                params: Vec::new(),
                query: Vec::new(),
                headers: HeaderMap::new(),
                client: [127, 0, 0, 1].into(),
                secure: false,
            })),
            principal: None,
            deadline: Instant::now() + Duration::from_secs(20),
            depth: 0,
        },
    }
}

pub(crate) fn get() -> Request {
    request(Payload::Empty)
}

pub(crate) fn post(value: Value) -> Request {
    request(Payload::Json(value)).method("POST")
}

impl Request {
    fn http(&mut self) -> &mut HttpRequest {
        self.message.http.as_mut().unwrap()
    }

    pub(crate) fn method(mut self, method: &str) -> Self {
        self.http().method = method.parse().unwrap();
        self
    }

    pub(crate) fn param(mut self, name: &str, value: &str) -> Self {
        self.http().params.push((name.into(), value.into()));
        self
    }

    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.http().query.push((name.into(), value.into()));
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.http().headers.append(name, value.parse().unwrap());
        self
    }

    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.message.deadline = Instant::now() + limit;
        self
    }
}
