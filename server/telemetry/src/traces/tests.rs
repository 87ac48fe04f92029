//! The exporter against a small collector on loopback that decodes what it receives.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::metrics::test_cells::TestCells;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the collector answers, request by request; the last one stands for all that follow.
#[derive(Clone)]
struct Answer {
    status: StatusCode,
    retry_after: Option<&'static str>,
    rejected: i64,
}

const OK: Answer = Answer { status: StatusCode::OK, retry_after: None, rejected: 0 };

struct TestCollector {
    port: u16,
    received: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
    connections: Arc<AtomicUsize>,
}

impl TestCollector {
    async fn start(answers: Vec<Answer>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, received) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let answers = Arc::new((AtomicUsize::new(0), answers));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let (sender, answers, tls) = (sender.clone(), Arc::clone(&answers), tls.clone());
                let service =
                    service_fn(move |request| answer(request, sender.clone(), Arc::clone(&answers)));
                tokio::spawn(async move {
                    let http = http1::Builder::new();
                    match tls {
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => {
                            let stream = tls.accept(stream).await.unwrap();
                            http.serve_connection(TokioIo::new(stream), service).await
                        }
                    }
                });
            }
        });
        Self { port, received, connections }
    }

    fn exporter(&self, tls: Option<Arc<rustls::ClientConfig>>) -> Exporter {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://localhost:{}/v1/traces?tenant=a", self.port);
        let options = TraceOptions {
            endpoint: Endpoint::new(&address, tls).unwrap(),
            server: "server1".to_owned(),
            process: "worker 1".to_owned(),
        };
        Exporter::start(options, &Handle::current())
    }

    async fn spans(&mut self, count: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        while spans.len() < count {
            let request = tokio::time::timeout(PATIENCE, self.received.recv()).await.unwrap().unwrap();
            for resource in request.resource_spans {
                spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        spans
    }
}

async fn answer(
    request: Request<Incoming>,
    sender: mpsc::UnboundedSender<ExportTraceServiceRequest>,
    answers: Arc<(AtomicUsize, Vec<Answer>)>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.uri().to_string(), "/v1/traces?tenant=a");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    assert!(request.headers()["host"].to_str().unwrap().starts_with("localhost:"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let number = answers.0.fetch_add(1, Ordering::Relaxed).min(answers.1.len() - 1);
    let answer = answers.1[number].clone();
    if answer.status == StatusCode::OK {
        sender.send(ExportTraceServiceRequest::decode(body).unwrap()).unwrap();
    }
    let partial = (answer.rejected > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: answer.rejected,
        error_message: "too old".to_owned(),
    });
    let body = ExportTraceServiceResponse { partial_success: partial }.encode_to_vec();
    let mut response = Response::builder().status(answer.status);
    if let Some(seconds) = answer.retry_after {
        response = response.header("retry-after", seconds);
    }
    Ok(response.body(Full::new(Bytes::from(body))).unwrap())
}

fn span(number: i64) -> SpanRecord {
    let trace = TraceContext::from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    SpanRecord {
        trace: trace.unwrap(),
        name: "GET /customers/{id}".into(),
        kind: SpanKind::Server,
        start: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        duration: Duration::from_micros(1_234),
        status: SpanStatus::Error("the service failed".to_owned()),
        attributes: vec![
            ("number", AttributeValue::Int(number)),
            ("http.route", AttributeValue::Shared("/customers/{id}".into())),
            ("long", AttributeValue::Text("é".repeat(10_000))),
            ("error", AttributeValue::Bool(true)),
        ],
    }
}

async fn eventually(what: impl Fn() -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("in time");
}

#[tokio::test]
async fn a_collector_receives_what_was_recorded() {
    let mut collector = TestCollector::start(vec![OK], None).await;
    let exporter = collector.exporter(None);
    exporter.span(span(7));
    let request = tokio::time::timeout(PATIENCE, collector.received.recv()).await.unwrap().unwrap();
    let resource = &request.resource_spans[0];
    let text = |key: &str| {
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        let found = attributes.iter().find(|attribute| attribute.key == key).unwrap();
        match found.value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::StringValue(text) => text.clone(),
            other => format!("{other:?}"),
        }
    };
    assert_eq!((text("service.name"), text("service.instance.id")), ("crosstie".into(), "server1".into()));
    let received = &resource.scope_spans[0].spans[0];
    assert_eq!(received.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(received.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(received.span_id.len(), 8);
    assert_eq!((received.name.as_str(), received.kind, received.flags), ("GET /customers/{id}", 2, 1));
    assert_eq!(received.start_time_unix_nano, 1_700_000_000_000_000_000);
    assert_eq!(received.end_time_unix_nano, 1_700_000_000_001_234_000);
    assert_eq!(received.status.as_ref().unwrap().code, 2);
    let values: Vec<_> =
        received.attributes.iter().map(|a| a.value.clone().unwrap().value.unwrap()).collect();
    assert_eq!(values[0], Value::IntValue(7));
    assert_eq!(values[1], Value::StringValue("/customers/{id}".into()));
    assert_eq!(values[2], Value::StringValue("é".repeat(2048)));
    assert_eq!(values[3], Value::BoolValue(true));
    eventually(|| exporter.exported() == 1).await;
}

#[tokio::test]
async fn many_spans_travel_in_batches_over_one_connection() {
    let mut collector = TestCollector::start(vec![OK], None).await;
    let exporter = collector.exporter(None);
    for number in 0..2_000 {
        exporter.span(span(number));
    }
    let spans = collector.spans(2_000).await;
    let numbers = spans.iter().map(|span| span.attributes[0].value.clone().unwrap().value.unwrap());
    assert!(numbers.eq((0..2_000).map(Value::IntValue)));
    assert_eq!((collector.connections.load(Ordering::Relaxed), exporter.dropped()), (1, 0));
}

#[tokio::test]
async fn what_is_not_sampled_is_not_sent() {
    let mut collector = TestCollector::start(vec![OK], None).await;
    let exporter = collector.exporter(None);
    let mut unsampled = span(1);
    unsampled.trace.sampled = false;
    exporter.span(unsampled);
    exporter.span(span(2));
    exporter.shut_down(PATIENCE).await;
    assert_eq!(collector.spans(1).await.len(), 1);
    assert!(collector.received.try_recv().is_err());
}

#[tokio::test]
async fn a_busy_collector_is_asked_again_and_a_refusal_is_final() {
    let busy = Answer { status: StatusCode::SERVICE_UNAVAILABLE, retry_after: Some("0"), rejected: 0 };
    let mut collector = TestCollector::start(vec![busy, OK], None).await;
    let exporter = collector.exporter(None);
    exporter.span(span(1));
    assert_eq!(collector.spans(1).await.len(), 1);
    eventually(|| exporter.exported() == 1).await;
    assert_eq!(exporter.dropped(), 0);

    let refusing = Answer { status: StatusCode::BAD_REQUEST, retry_after: None, rejected: 0 };
    let collector = TestCollector::start(vec![refusing], None).await;
    let exporter = collector.exporter(None);
    exporter.span(span(1));
    eventually(|| exporter.dropped() == 1).await;
}

#[tokio::test]
async fn spans_a_collector_rejects_are_counted() {
    let collector = TestCollector::start(vec![Answer { rejected: 1, ..OK }], None).await;
    let exporter = collector.exporter(None);
    let metrics = Metrics::new(Arc::new(TestCells::new(1000)));
    exporter.count_in(&metrics);
    exporter.span(span(1));
    exporter.span(span(2));
    exporter.shut_down(PATIENCE).await;
    assert_eq!((exporter.exported(), exporter.dropped()), (1, 1));
    let text = metrics.render(&[], &[]);
    assert!(text.contains("crosstie_trace_spans_exported_total 1\n"), "{text}");
    assert!(text.contains("crosstie_trace_spans_dropped_total 1\n"), "{text}");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_bounded_memory_and_a_stop_does_not_wait_for_it() {
    let port = {
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        unused.local_addr().unwrap().port()
    };
    let endpoint = Endpoint::new(&format!("http://127.0.0.1:{port}/"), None).unwrap();
    let options = TraceOptions { endpoint, server: "s".to_owned(), process: "p".to_owned() };
    let exporter = Exporter::start(options, &Handle::current());
    for number in 0..10_000 {
        exporter.span(span(number));
    }
    assert!(exporter.dropped() >= 10_000 - u64::try_from(CAPACITY + BATCH).unwrap());
    exporter.shut_down(PATIENCE).await;
    assert_eq!((exporter.exported(), exporter.dropped()), (0, 10_000));
    exporter.span(span(1));
    assert_eq!(exporter.dropped(), 10_001);
}

#[tokio::test]
async fn an_https_collector_is_verified() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let client = |trusted: bool| {
        let mut roots = rustls::RootCertStore::empty();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        roots.add(if trusted { made.cert.der().clone() } else { other.cert.der().clone() }).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    };
    let mut collector = TestCollector::start(vec![OK], Some(TlsAcceptor::from(Arc::new(server)))).await;
    let exporter = collector.exporter(Some(client(true)));
    exporter.span(span(1));
    assert_eq!(collector.spans(1).await.len(), 1);

    let suspicious = collector.exporter(Some(client(false)));
    suspicious.span(span(2));
    suspicious.shut_down(PATIENCE).await;
    assert_eq!((suspicious.exported(), suspicious.dropped()), (0, 1));
}

#[test]
fn the_sampler_follows_the_caller_and_its_ratio() {
    let caller = |flag: &str| {
        let header = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flag}");
        TraceContext::from_traceparent(&header).unwrap()
    };
    assert!(Sampler::new(0.0).samples(&caller("01")) && !Sampler::new(1.0).samples(&caller("00")));
    let share = |ratio: f64| {
        let sampler = Sampler::new(ratio);
        (0..10_000).filter(|_| sampler.samples(&TraceContext::new_root())).count()
    };
    assert_eq!((share(0.0), share(1.0), share(-1.0), share(f64::NAN)), (0, 10_000, 0, 0));
    assert!((2_000..3_000).contains(&share(0.25)));
}
