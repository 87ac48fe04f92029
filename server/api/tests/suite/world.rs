//! A server without processes: an ODB in a temporary directory, a host made of plain values, and a checker
//! that reads what an artifact defines from its text.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use bytes::Bytes;
use crosstie_api::access::{Caller, Proof};
use crosstie_api::host::{Host, Quarantined, ServerProcesses, WorkerPhase, WorkerProcess};
use crosstie_api::operations::NewUser;
use crosstie_api::{CheckError, Operations, OperationsParts, Role, UnitChecker, http as api};
use crosstie_model::event::{ApplyReport, ClosedChannel, FailedUnit};
use crosstie_model::message::{Message, Payload, Reply, ReplyBody};
use crosstie_model::ports::{LoadError, LoadedService, ServiceDirectory};
use crosstie_model::settings::ServerSettings;
use crosstie_model::unit::{Artifact, ArtifactKind, ServiceDescription, UnitManifest};
use crosstie_model::{Event, Failure, Revision, ServiceName, UnitName};
use crosstie_odb::{Odb, OdbOptions};
use crosstie_security::{ClusterKey, Revoked};
use http::{HeaderMap, Request};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

/// What the workers make of a revision that is announced to them.
#[derive(Clone, PartialEq)]
pub(crate) enum Workers {
    Serve,
    Silent,
    Refuse(&'static str),
    FailUnit(&'static str),
    Close(&'static str),
    RefuseFor(&'static str),
}

pub(crate) struct FakeHost {
    pub(crate) settings: Mutex<ServerSettings>,
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) workers: Mutex<Workers>,
    pub(crate) quarantined: Mutex<Vec<Quarantined>>,
    pub(crate) degraded: Mutex<Option<String>>,
    pub(crate) revoked: Revoked,
    operations: OnceLock<Operations>,
}

impl FakeHost {
    fn report(&self, revision: Revision) {
        let mut report = ApplyReport {
            worker: 0,
            revision,
            serving: true,
            error: None,
            failed_units: Vec::new(),
            closed_channels: Vec::new(),
            closed_outgoings: Vec::new(),
        };
        match self.workers.lock().unwrap().clone() {
            Workers::Serve => {}
            Workers::Silent => return,
            Workers::Refuse(why) => {
                report.serving = false;
                report.error = Some(why.to_owned());
            }
            Workers::Close(channel) => report.closed_channels.push(closed(channel)),
            Workers::RefuseFor(channel) => {
                report.serving = false;
                report.error = Some("a channel does not open (and 1 more)".to_owned());
                report.closed_channels.push(closed(channel));
            }
            Workers::FailUnit(unit) => report.failed_units.push(FailedUnit {
                unit: UnitName::new(unit).unwrap(),
                digest: crosstie_model::Digest::of(b"x"),
                message: "no module named numpy".to_owned(),
            }),
        }
        for worker in 0..2 {
            let report = ApplyReport { worker, ..report.clone() };
            self.operations.get().unwrap().observe(&Event::Applied(report));
        }
    }
}

fn closed(channel: &str) -> ClosedChannel {
    let reasons = vec!["its key has no value".to_owned(), "its path is taken".to_owned()];
    ClosedChannel { channel: channel.parse().unwrap(), reasons }
}

impl Host for FakeHost {
    fn publish(&self, event: Event) {
        if let Event::RevisionChanged { revision } = event {
            self.report(revision);
        }
        self.events.lock().unwrap().push(event);
    }

    fn processes(&self) -> ServerProcesses {
        let worker = |index: u16, state| WorkerProcess {
            index,
            pid: 100 + u32::from(index),
            state,
            singleton: index == 0,
            leader: false,
            connections: 1,
            in_flight: 0,
            requests: 7,
            restarts: 0,
        };
        // A worker that drains takes no part in a revision.
        let workers = vec![
            worker(0, WorkerPhase::Ready),
            worker(1, WorkerPhase::Ready),
            worker(2, WorkerPhase::Draining),
        ];
        ServerProcesses { supervisor: 99, workers }
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        self.quarantined.lock().unwrap().clone()
    }

    fn release(&self, service: &ServiceName) -> bool {
        let mut quarantined = self.quarantined.lock().unwrap();
        let before = quarantined.len();
        quarantined.retain(|known| known.name != service.as_str());
        quarantined.len() < before
    }

    fn services(&self) -> Arc<dyn ServiceDirectory> {
        Arc::new(Directory)
    }

    fn settings(&self) -> Arc<ServerSettings> {
        Arc::new(self.settings.lock().unwrap().clone())
    }

    fn is_revoked(&self, serial: &str) -> bool {
        self.revoked.contains(serial)
    }

    fn degraded(&self) -> Option<String> {
        self.degraded.lock().unwrap().clone()
    }

    fn metrics(&self) -> String {
        "crosstie_up 1\n".to_owned()
    }
}

/// Loaded services: `echo` gives back what it gets, `fail` fails, `wait` outlives nobody.
struct Directory;

impl ServiceDirectory for Directory {
    fn find(&self, name: &str) -> Option<Arc<dyn LoadedService>> {
        ["echo", "fail", "text", "demo.hello"].contains(&name).then(|| {
            let text = json!({"name": name, "class": "m.C"});
            let description = serde_json::from_value(text).unwrap();
            Arc::new(FakeService(description)) as Arc<dyn LoadedService>
        })
    }

    fn dictionary(&self, _: &str) -> Option<Arc<Value>> {
        None
    }
}

struct FakeService(ServiceDescription);

#[async_trait]
impl LoadedService for FakeService {
    fn description(&self) -> &ServiceDescription {
        &self.0
    }

    async fn invoke(&self, message: Message) -> Result<Reply, Failure> {
        match self.0.name.as_str() {
            "fail" => Err(Failure::bad_request("no such customer")),
            "text" => Ok(Reply::new(ReplyBody::Text("<b>hi</b>".to_owned()))),
            _ => {
                let payload = match message.payload {
                    Payload::Json(value) => value,
                    Payload::Text(text) => Value::from(text),
                    _ => Value::Null,
                };
                let by = message.principal.as_ref().and_then(|principal| principal.username.clone());
                let body = json!({"payload": payload, "by": by, "kind": message.channel.kind});
                Ok(Reply::new(ReplyBody::Json(serde_json::to_vec(&body).unwrap().into())))
            }
        }
    }
}

/// Reads an artifact's manifest from its text (JSON), or what is wrong with it.
#[derive(Default)]
pub(crate) struct FakeChecker {
    pub(crate) runs: AtomicUsize,
}

#[async_trait]
impl UnitChecker for FakeChecker {
    async fn check(&self, unit: &Artifact, library: Option<&Artifact>) -> Result<UnitManifest, CheckError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let refuse = |message: &str| {
            let detail = "Traceback (most recent call last): …".to_owned();
            Err(CheckError::Refused(LoadError { message: message.to_owned(), detail }))
        };
        if unit.kind == ArtifactKind::PythonLibrary {
            return Ok(UnitManifest::default());
        }
        match &*unit.content {
            b"hang" => return Err(CheckError::TimedOut(Duration::from_secs(20))),
            b"exit" => return Err(CheckError::Died { how: "exit code 3".into(), output: "bye".into() }),
            b"unlucky" => return Err(CheckError::NotRun("no process left".into())),
            _ => {}
        }
        let Ok(mut manifest) = serde_json::from_slice::<UnitManifest>(&unit.content) else {
            return refuse("hello.py, line 3: invalid syntax");
        };
        if !manifest.library_modules.is_empty() {
            let Some(library) = library else { return refuse("No module named 'shared'") };
            let breaks = format!("breaks {}", unit.unit);
            if library.content.windows(breaks.len()).any(|part| part == breaks.as_bytes()) {
                return refuse("cannot import name 'rate' from 'shared'");
            }
            manifest.library = Some(library.digest);
        }
        Ok(manifest)
    }
}

pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) host: Arc<FakeHost>,
    pub(crate) checker: Arc<FakeChecker>,
    pub(crate) odb: Odb,
    pub(crate) cluster_key: Arc<ClusterKey>,
    pub(crate) operations: Operations,
    pub(crate) router: Router,
}

/// An answer, decoded where it is JSON.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    /// The word of a problem's type, after making sure that it is a problem document.
    pub(crate) fn problem(&self) -> &str {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{} {}", self.status, self.text);
        assert_eq!(self.json["status"], self.status);
        self.json["type"].as_str().unwrap().strip_prefix("urn:crosstie:problem:").unwrap()
    }

    pub(crate) fn detail(&self) -> &str {
        self.json["detail"].as_str().unwrap()
    }
}

pub(crate) const ADMIN: &str = "admin:admin-password";
pub(crate) const OPERATOR: &str = "olga:operator-password";
pub(crate) const VIEWER: &str = "vera:viewer-password";

pub(crate) fn basic(credentials: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials))
}

pub(crate) fn admin() -> Caller {
    Caller { name: "admin".into(), role: Role::Admin, proof: Proof::Certificate }
}

fn settings() -> ServerSettings {
    serde_json::from_value(json!({
        "server": {"name": "server1", "http": "127.0.0.1:17010"},
        "management": {"address": "127.0.0.1:17110"},
        "security": {"require_security": false},
    }))
    .unwrap()
}

impl World {
    /// A world with an admin, an operator and a viewer.
    pub(crate) async fn new() -> Self {
        let world = Self::without_odb();
        world.odb.create().await.unwrap();
        for (credentials, role) in [(ADMIN, Role::Admin), (OPERATOR, Role::Operator), (VIEWER, Role::Viewer)]
        {
            let (name, password) = credentials.split_once(':').unwrap();
            let new = NewUser { name: name.to_owned(), role, password: Some(password.to_owned()) };
            world.operations.add_user(&admin(), new).await.unwrap();
        }
        world
    }

    /// A world whose database cannot be opened.
    pub(crate) fn without_odb() -> Self {
        let directory = TempDir::new().unwrap();
        let odb = connect(directory.path());
        let host = Arc::new(FakeHost {
            settings: Mutex::new(settings()),
            events: Mutex::default(),
            workers: Mutex::new(Workers::Serve),
            quarantined: Mutex::default(),
            degraded: Mutex::default(),
            revoked: Revoked::default(),
            operations: OnceLock::new(),
        });
        let checker = Arc::new(FakeChecker::default());
        let cluster_key = Arc::new(ClusterKey::generate().unwrap());
        let operations = Operations::new(OperationsParts {
            server: UnitName::new("server1").unwrap(),
            directory: directory.path().to_owned(),
            odb: odb.clone(),
            host: Arc::clone(&host) as Arc<dyn Host>,
            checker: Arc::clone(&checker) as Arc<dyn UnitChecker>,
            cluster_key: Arc::clone(&cluster_key),
        });
        assert!(host.operations.set(operations.clone()).is_ok());
        let router = api::router(operations.clone()).unwrap();
        Self { directory, host, checker, odb, cluster_key, operations, router }
    }

    pub(crate) fn set_workers(&self, workers: Workers) {
        *self.host.workers.lock().unwrap() = workers;
    }

    pub(crate) fn change_settings(&self, change: impl FnOnce(&mut ServerSettings)) {
        change(&mut self.host.settings.lock().unwrap());
    }

    /// Sends a request that is made by hand.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        let json = serde_json::from_slice(&body).unwrap_or_default();
        Answer { status: head.status.as_u16(), headers: head.headers, text, json }
    }

    /// A request with credentials, a body if it is not null, and a short patience for changes.
    pub(crate) async fn call(&self, who: &str, method: &str, path: &str, body: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("authorization", basic(who));
        let request = match body {
            Value::Null => request.body(Body::empty()),
            body => request.header("content-type", "application/json").body(body.to_string().into()),
        };
        self.send(request.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(VIEWER, "GET", path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(OPERATOR, "POST", path, body).await
    }

    /// Uploads `content` as a version of `unit`.
    pub(crate) async fn upload(&self, unit: &str, content: impl Into<Bytes>) -> Answer {
        self.upload_to(&format!("/deployments?unit={unit}&wait_ms=2000"), content).await
    }

    pub(crate) async fn upload_to(&self, path: &str, content: impl Into<Bytes>) -> Answer {
        let request = Request::post(format!("/api/v1{path}"))
            .header("authorization", basic(OPERATOR))
            .body(Body::from(content.into()))
            .unwrap();
        self.send(request).await
    }

    pub(crate) async fn apply(&self, document: &str) -> Answer {
        let files = json!([{"name": "crm.yaml", "content": document}]);
        self.post("/apply", json!({"files": files})).await
    }

    pub(crate) async fn revision(&self) -> u64 {
        self.odb.revision().await.unwrap().0
    }
}

pub(crate) fn connect(directory: &Path) -> Odb {
    Odb::connect(&OdbOptions {
        url: "sqlite:odb.sqlite".to_owned(),
        base_directory: directory.to_owned(),
        password: None,
        connections: 2,
        statement_timeout: Duration::from_secs(5),
    })
    .unwrap()
}

/// The text of an artifact that defines `services`, each with one REST path unless that is empty.
pub(crate) fn unit(services: &[(&str, &str)]) -> String {
    let services: Vec<_> = services
        .iter()
        .map(|(name, path)| {
            let channels = if path.is_empty() {
                json!([])
            } else {
                json!([{"type": "rest", "path": path, "options": {"methods": ["GET"]}}])
            };
            json!({"name": name, "class": "m.C", "channels": channels})
        })
        .collect();
    json!({"services": services}).to_string()
}

/// As [`unit`], for one service that uses the shared library.
pub(crate) fn library_user(service: &str) -> String {
    json!({"services": [{"name": service, "class": "m.C"}], "library_modules": ["shared"]}).to_string()
}

/// The shared library as an archive, holding `text`.
pub(crate) fn library(text: &str) -> Bytes {
    let files = BTreeMap::from([("shared.py".to_owned(), Bytes::copy_from_slice(text.as_bytes()))]);
    crosstie_runtime::archive::build(&files).unwrap()
}
