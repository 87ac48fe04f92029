//! What one call of a Python service costs from the reactor and back, without HTTP: CPU time (user and
//! system) of the whole process per call. Run with `cargo run --release -p crosstie-runtime --example
//! python_call [SECONDS [SERVICE]]` on a quiet machine.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure, not a part of the server"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use crosstie_model::cid::TraceContext;
use crosstie_model::message::{ChannelInfo, HttpRequest};
use crosstie_model::names::{ServiceName, UnitName};
use crosstie_model::ports::{
    Blame, BlameSlot, DataChange, DataEntry, DataError, DataStore, LoadedService, Runtime as _,
};
use crosstie_model::settings::PythonSettings;
use crosstie_model::unit::{Artifact, ArtifactKind};
use crosstie_model::{Message, Payload};
use crosstie_runtime::python::{PythonOptions, PythonRuntime};
use serde_json::{Value, json};

const SERVICES: &str = r#"
import time
from crosstie import Model, Service
class Greeting(Model):
    text: str
    visits: int = 0
class Hello(Service):
    name = "model.out"
    output = Greeting
    def handle(self):
        self.response.payload = Greeting(text=f"Hello {self.request.http.params['name']}")
class Empty(Service):
    name = "empty"
    def handle(self):
        pass
class Plain(Service):
    name = "dict.both"
    def handle(self):
        p = self.request.payload
        self.response.payload = {"text": "Hello " + p["name"], "visits": p["visits"] + 1}
class Visit(Model):
    name: str
    visits: int = 0
class Typed(Service):
    name = "model.both"
    input = Visit
    output = Greeting
    def handle(self):
        i = self.request.input
        self.response.payload = Greeting(text="Hello " + i.name, visits=i.visits + 1)
class Awaits(Service):
    name = "async"
    output = Greeting
    async def handle(self):
        self.response.payload = Greeting(text="Hello")
class Sleeps(Service):
    name = "sleeps.1ms"
    def handle(self):
        time.sleep(0.001)
class Calls(Service):
    name = "calls.empty"
    def handle(self):
        return self.invoke("empty")
"#;

struct Nothing;

impl Blame for Nothing {
    fn register_thread(&self) -> Box<dyn BlameSlot> {
        Box::new(Nothing)
    }
    fn is_quarantined(&self, _: &ServiceName) -> bool {
        false
    }
    fn thread_lost(&self, _: &ServiceName) {}
}

impl BlameSlot for Nothing {
    fn enter(&self, _: &ServiceName) -> u64 {
        0
    }
    fn enter_load(&self, _: &UnitName) -> u64 {
        0
    }
    fn leave(&self, _: u64) {}
}

#[async_trait]
impl DataStore for Nothing {
    async fn get(&self, _: &str) -> Result<Option<DataEntry>, DataError> {
        Ok(None)
    }
    async fn set(&self, _: &str, _: &Value, _: Option<Duration>, _: Option<u64>) -> Result<u64, DataError> {
        Ok(1)
    }
    async fn delete(&self, _: &str) -> Result<bool, DataError> {
        Ok(false)
    }
    async fn change(&self, _: &[DataChange<'_>]) -> Result<(), DataError> {
        Ok(())
    }
    async fn keys(&self, _: &str, _: usize) -> Result<Vec<String>, DataError> {
        Ok(Vec::new())
    }
}

struct Found(std::sync::Mutex<Vec<Arc<dyn LoadedService>>>);

impl crosstie_model::ports::ServiceDirectory for Found {
    fn find(&self, name: &str) -> Option<Arc<dyn LoadedService>> {
        let services = self.0.lock().unwrap();
        services.iter().find(|service| service.description().name.as_str() == name).cloned()
    }
    fn dictionary(&self, _: &str) -> Option<Arc<Value>> {
        None
    }
}

fn message(channel: &Arc<ChannelInfo>) -> Message {
    let payload = json!({"name": "Ada", "visits": 41});
    Message {
        trace: TraceContext::new_root(),
        channel: Arc::clone(channel),
        raw: Bytes::from_static(b"{\"name\":\"Ada\",\"visits\":41}"),
        payload: Payload::Json(payload),
        soap: None,
        amqp: None,
        http: Some(Box::new(HttpRequest {
            method: http::Method::GET,
            path: "/hello/Ada".into(),
            params: vec![("name".into(), "Ada".into())],
            query: Vec::new(),
            headers: http::HeaderMap::new(),
            client: [127, 0, 0, 1].into(),
            secure: false,
        })),
        principal: None,
        deadline: Instant::now() + Duration::from_secs(60),
        depth: 0,
    }
}

fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

async fn measure(service: Arc<dyn LoadedService>, connections: usize, length: Duration) {
    let done = Arc::new(AtomicU64::new(0));
    let channel = Arc::new(ChannelInfo {
        name: "bench".into(),
        kind: "rest",
        service: ServiceName::new("bench").unwrap(),
    });
    let (started, before) = (Instant::now(), cpu_time());
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (service, done, channel) = (Arc::clone(&service), Arc::clone(&done), Arc::clone(&channel));
            tokio::spawn(async move {
                while started.elapsed() < length {
                    service.invoke(message(&channel)).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (calls, cpu, took) = (done.load(Ordering::Relaxed), cpu_time() - before, started.elapsed());
    println!(
        "{:<20} {connections:>3} at once {:>9.0} calls/s {:>7.2} µs CPU per call",
        service.description().name.as_str(),
        calls as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / calls as f64,
    );
}

fn host() -> tokio::runtime::Handle {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        sender.send(runtime.handle().clone()).unwrap();
        runtime.block_on(std::future::pending::<()>());
    });
    receiver.recv().unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let runtime = PythonRuntime::start(PythonOptions {
        settings: PythonSettings::default(),
        venv: "/nonexistent".into(),
        host: host(),
        network: host(),
        data: Arc::new(Nothing),
        blame: Arc::new(Nothing),
        user_config: json!({}),
        on_exhausted: Box::new(|| ()),
    })
    .unwrap();
    let unit = Artifact::new(UnitName::new("bench").unwrap(), ArtifactKind::PythonFile, SERVICES.into());
    let manifest = runtime.describe(&unit, None).await.unwrap();
    let loaded = runtime.load(&unit, &manifest, None).await.unwrap();
    runtime.set_directory(Arc::new(Found(std::sync::Mutex::new(loaded.services.clone()))));
    let only = std::env::args().nth(2);
    for service in loaded.services {
        if only.as_ref().is_some_and(|only| service.description().name.as_str() != only) {
            continue;
        }
        for connections in [1, 32] {
            measure(Arc::clone(&service), connections, Duration::from_secs_f64(seconds)).await;
        }
    }
}
