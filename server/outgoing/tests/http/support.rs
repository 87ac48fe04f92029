//! Upstreams for tests, and short ways to open and call outgoings.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::outgoing::{
    CallBody, HttpAnswer, HttpCall, HttpOutgoing, Outgoing, OutgoingError, Pace, Trouble,
};
use crosstie_model::ports::{CounterCells, GaugeCell, GaugeCells};
use crosstie_model::{Definition, DefinitionBody, DefinitionId, DefinitionKind, Snapshot, TraceContext};
use crosstie_outgoing::{Blueprint, Environment, OpenError, open};
use crosstie_security::{ClusterKey, SecretResolver};
use crosstie_telemetry::Metrics;
use crosstie_telemetry::messages::MessageLog;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Long enough for anything that ends at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What definitions, secrets and metrics there are.
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) directory: TempDir,
    cells: Arc<Cells>,
    gauges: Arc<Gauges>,
    resolver: SecretResolver,
    /// Where messages are kept.
    pub(crate) messages: Option<MessageLog>,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = Arc::new(ClusterKey::generate().unwrap());
        let resolver = SecretResolver::new(key, directory.path().to_owned());
        let snapshot = Snapshot::default();
        Self { snapshot, directory, cells: Arc::default(), gauges: Arc::default(), resolver, messages: None }
    }

    /// Adds a security definition.
    pub(crate) fn security(self, name: &str, body: Value) -> Self {
        self.define(DefinitionKind::Security, name, body)
    }

    /// Adds a definition that the outgoing refers to.
    pub(crate) fn define(mut self, kind: DefinitionKind, name: &str, body: Value) -> Self {
        let id = DefinitionId { kind, name: name.parse().unwrap() };
        let definition = Definition::from_value(id, body).unwrap();
        self.snapshot.definitions.insert(definition.id, definition.body);
        self
    }

    /// Writes a file that secrets and certificates refer to as `file:NAME`.
    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        std::fs::write(self.directory.path().join(name), content).unwrap();
        self
    }

    pub(crate) fn try_open(&self, body: Value) -> Result<Arc<dyn HttpOutgoing>, OpenError> {
        match self.try_open_any(body)? {
            Outgoing::Http(outgoing) => Ok(outgoing),
            other => panic!("{other:?}"),
        }
    }

    /// Opens an outgoing of any type.
    pub(crate) fn try_open_any(&self, body: Value) -> Result<Outgoing, OpenError> {
        let id = DefinitionId { kind: DefinitionKind::Outgoing, name: "crm".parse().unwrap() };
        let definition = Definition::from_value(id, body).unwrap();
        let DefinitionBody::Outgoing(outgoing) = &definition.body else { panic!("{definition:?}") };
        let name = &definition.id.name;
        let directory = self.directory.path();
        let blueprint = Blueprint::draw(name, outgoing, &self.snapshot, &self.resolver, directory)?;
        let environment = Environment {
            metrics: Metrics::new(Arc::clone(&self.cells) as _),
            gauges: Arc::clone(&self.gauges) as _,
            tracer: None,
            messages: self.messages.clone(),
        };
        open(&blueprint, &environment)
    }

    /// Opens an outgoing of type `http` to `upstream` with more settings.
    pub(crate) fn open(&self, upstream: &Upstream, more: Value) -> Arc<dyn HttpOutgoing> {
        self.open_at(&upstream.address(), more)
    }

    /// The same to an address.
    pub(crate) fn open_at(&self, address: &str, more: Value) -> Arc<dyn HttpOutgoing> {
        let mut body = json!({"type": "http", "address": address});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.try_open(body).unwrap()
    }

    /// What a counter shows whose key begins so.
    pub(crate) fn counted(&self, prefix: &str) -> u64 {
        self.cells.read_all().iter().filter(|(key, _)| key.starts_with(prefix)).map(|(_, value)| value).sum()
    }

    /// How many calls ended so.
    pub(crate) fn outcomes(&self, outcome: &str) -> u64 {
        let found = self.cells.read_all();
        let label = format!("outcome=\"{outcome}\"");
        let of_calls = |key: &str| key.starts_with("crosstie_outgoing_calls_total") && key.contains(&label);
        found.iter().filter(|(key, _)| of_calls(key)).map(|(_, value)| value).sum()
    }

    /// What a gauge shows: `calls`, `connections` or `circuits`.
    pub(crate) fn gauge(&self, word: &str) -> i64 {
        let all = self.gauges.0.lock().unwrap();
        all.get(&format!("outgoing:{word}:crm")).map_or(0, |gauge| gauge.load(Ordering::Relaxed))
    }
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
struct Gauges(Mutex<BTreeMap<String, Arc<AtomicI64>>>);

struct OneGauge(Arc<AtomicI64>);

impl GaugeCells for Gauges {
    fn gauge(&self, key: &str) -> Arc<dyn GaugeCell> {
        Arc::new(OneGauge(Arc::clone(self.0.lock().unwrap().entry(key.to_owned()).or_default())))
    }
}

impl GaugeCell for OneGauge {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call without a body.
pub(crate) fn call(method: Method, target: &str) -> HttpCall {
    HttpCall {
        method,
        target: target.to_owned(),
        headers: HeaderMap::new(),
        body: CallBody::Empty,
        trace: TraceContext::new_root(),
        deadline: Instant::now() + PATIENCE,
        pace: Pace::Whole,
    }
}

/// One that posts `body`.
pub(crate) fn post(target: &str, body: &'static str) -> HttpCall {
    HttpCall { body: CallBody::Full(Bytes::from_static(body.as_bytes())), ..call(Method::POST, target) }
}

/// The whole body of an answer.
pub(crate) async fn body_of(answer: HttpAnswer) -> Result<Bytes, OutgoingError> {
    Ok(answer.body.collect().await?.to_bytes())
}

/// Calls with GET; gives status and body.
pub(crate) async fn get(
    outgoing: &Arc<dyn HttpOutgoing>,
    target: &str,
) -> Result<(u16, String), OutgoingError> {
    exchange(outgoing, call(Method::GET, target)).await
}

/// Makes a call; gives status and body.
pub(crate) async fn exchange(
    outgoing: &Arc<dyn HttpOutgoing>,
    call: HttpCall,
) -> Result<(u16, String), OutgoingError> {
    let answer = outgoing.send(call).await?;
    let status = answer.status.as_u16();
    Ok((status, String::from_utf8(body_of(answer).await?.to_vec()).unwrap()))
}

/// What a call that must fail fails with.
pub(crate) async fn trouble_of(outgoing: &Arc<dyn HttpOutgoing>, call: HttpCall) -> Trouble {
    let done = tokio::time::timeout(PATIENCE, exchange(outgoing, call)).await.expect("the call hangs");
    done.expect_err("the call succeeded").trouble
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < limit, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An answer's body.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A whole body.
pub(crate) fn whole(text: impl Into<Bytes>) -> Body {
    BoxBody::new(Full::new(text.into()))
}

/// An answer with a status and a text.
pub(crate) fn answer(status: u16, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// A server on loopback. Ends with the test's reactor.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    scheme: &'static str,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Upstream {
    /// A server that answers with `handler`: HTTP/1 and HTTP/2 by prior knowledge.
    pub(crate) async fn start<H, F>(handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::serve(None, handler).await
    }

    /// The same behind TLS.
    pub(crate) async fn start_tls<H, F>(tls: TlsAcceptor, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::serve(Some(tls), handler).await
    }

    async fn serve<H, F>(tls: Option<TlsAcceptor>, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let mut upstream = Self::raw(move |stream| {
            let (handler, tls, counted) = (handler.clone(), tls.clone(), Arc::clone(&counted));
            async move {
                let service = service_fn(move |request| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let answered = handler(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                match tls {
                    None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            drop(server.serve_connection(TokioIo::new(stream), service).await);
                        }
                    }
                }
            }
        })
        .await;
        upstream.requests = requests;
        upstream.scheme = scheme;
        upstream
    }

    /// A server that does with each connection what `handler` does.
    pub(crate) async fn raw<H, F>(handler: H) -> Self
    where
        H: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(handler(stream));
            }
        });
        Self { port, scheme: "http", connections, requests: Arc::default() }
    }

    pub(crate) fn address(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Connections made to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests it took.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// The text of a header field; empty without one.
pub(crate) fn field(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

/// TLS of a server that shows `issued`; clients must show a certificate of `clients`, if there is one.
pub(crate) fn acceptor(
    issued: &crosstie_test_support::Issued,
    clients: Option<&crosstie_test_support::Pki>,
    alpn: &[&[u8]],
) -> TlsAcceptor {
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let provider = crosstie_security::tls::provider();
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(pki) => {
            let roots = crosstie_security::tls::roots(pki.certificate().as_bytes()).unwrap();
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}
