//! The agent's own API: statistics, health and metrics, over TLS with both ends verified.
//!
//! Read only; whoever holds a certificate of the cluster may read. `GET /api/v1/stats`, `GET /api/v1/health`,
//! `GET /metrics`. Each answer asks HAProxy's runtime socket, which costs it about a millisecond.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crosstie_security::identity::Identity;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::report::SharedReport;
use crate::statistics::{self, Table};
use crate::{certificates, haproxy, runtime};

/// Most connections at once; more wait.
const MAX_CONNECTIONS: usize = 64;
/// How long a handshake, or a request's head, may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Largest request head in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the runtime ends.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, report: Arc<SharedReport>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let acceptor = TlsAcceptor::from(tls);
    loop {
        // Never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (acceptor, report) = (acceptor.clone(), Arc::clone(&report));
                tokio::spawn(async move {
                    if let Err(error) = carry(acceptor, stream, report).await {
                        tracing::debug!(%peer, %error, "a connection to the load balancer's API ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the load balancer's API could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn carry(acceptor: TlsAcceptor, stream: TcpStream, report: Arc<SharedReport>) -> io::Result<()> {
    let handshake = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream));
    let stream = handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    if certificate.is_none_or(|certificate| Identity::of(certificate).is_err()) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the certificate names no component"));
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let report = Arc::clone(&report);
        async move { Ok::<_, Infallible>(answer(&request, &report).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIME).max_buf_size(MAX_HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(8);
    builder.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}

async fn answer(request: &Request<Incoming>, report: &SharedReport) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = problem(StatusCode::METHOD_NOT_ALLOWED);
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/api/v1/stats" => stats(report).await,
        "/api/v1/health" => health(report).await,
        "/metrics" => metrics(report).await,
        _ => problem(StatusCode::NOT_FOUND),
    }
}

/// HAProxy's table; empty while HAProxy does not answer.
async fn table(report: &SharedReport) -> Option<Table> {
    let socket = report.read().haproxy.socket?;
    runtime::ask(&socket, "show stat").await.ok().map(|answer| Table::parse(&answer))
}

async fn stats(report: &SharedReport) -> Response<Full<Bytes>> {
    let shown = report.read();
    let mut value = json!(shown);
    if let Some(socket) = &shown.haproxy.socket
        && let Ok(info) = haproxy::info(socket).await
        && let Some(process) = value.pointer_mut("/haproxy").and_then(Value::as_object_mut)
    {
        process.insert("version".into(), info.version.into());
        process.insert("worker".into(), info.pid.into());
        process.insert("uptime_s".into(), info.uptime_s.into());
        process.insert("connections".into(), info.connections.into());
        process.insert("connections_total".into(), info.connections_total.into());
    }
    if let (Some(table), Some(all)) = (table(report).await, value.as_object_mut()) {
        all.insert("traffic".into(), statistics::summary(&table));
    }
    page(StatusCode::OK, "application/json", value.to_string())
}

/// 200 while HAProxy answers and one server at least gets traffic.
async fn health(report: &SharedReport) -> Response<Full<Bytes>> {
    let table = table(report).await;
    let shown = report.read();
    let up = table.as_ref().map_or(0, statistics::servers_up);
    let configuration = shown.configuration;
    let faults = [shown.haproxy.fault, configuration.fault, configuration.certificates, shown.members.fault];
    let body = json!({
        "healthy": up > 0,
        "haproxy": if table.is_some() { "answers" } else { "does not answer" },
        "servers_up": up,
        "faults": faults.into_iter().flatten().collect::<Vec<_>>(),
    });
    let status = if up > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    page(status, "application/json", body.to_string())
}

async fn metrics(report: &SharedReport) -> Response<Full<Bytes>> {
    let table = table(report).await.unwrap_or_default();
    let shown = report.read();
    let mut text = statistics::metrics(&table);
    for (name, kind, help, value) in [
        ("crosstie_lb_haproxy_starts_total", "counter", "Starts of HAProxy.", shown.haproxy.starts),
        ("crosstie_lb_haproxy_reloads_total", "counter", "Reloads of HAProxy.", shown.haproxy.reloads),
        (
            "crosstie_lb_haproxy_deaths_total",
            "counter",
            "Times HAProxy ended by itself.",
            shown.haproxy.deaths,
        ),
        ("crosstie_lb_member_answers_total", "counter", "Good answers of servers.", shown.members.answers),
        ("crosstie_lb_member_failures_total", "counter", "Servers that gave none.", shown.members.failures),
        (
            "crosstie_lb_configuration_refused",
            "gauge",
            "Whether a newer configuration is not used.",
            u64::from(shown.configuration.fault.is_some()),
        ),
    ] {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
    }
    text.push_str(&certificates::metrics(&shown.certificates));
    page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

fn problem(status: StatusCode) -> Response<Full<Bytes>> {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({"type": "about:blank", "title": title, "status": status.as_u16()});
    page(status, "application/problem+json", body.to_string())
}

fn page(status: StatusCode, media: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
