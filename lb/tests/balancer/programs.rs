//! The processes that tests start: the agent, and a server behind the load balancer. As tests of their own
//! they do nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use crosstie_security::ReloadingCertificate;
use crosstie_security::tls::{self, ClientAuthentication};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const AGENT: &str = "CROSSTIE_TEST_AGENT";
const SERVER: &str = "CROSSTIE_TEST_SERVER";
const ADDRESS: &str = "CROSSTIE_TEST_ADDRESS";

/// Starts the agent of the load balancer in `directory`.
pub(crate) fn start_agent(directory: &Path) -> Child {
    start("programs::the_agents_process", &[(AGENT, directory.to_str().unwrap())], directory)
}

/// Starts a server that shows the certificate `NAME.pem` in `directory` and is ready unless there is
/// `NAME.away`.
pub(crate) fn start_server(directory: &Path, name: &str, address: SocketAddr) -> Child {
    let prefix = directory.join(name);
    let variables = [(SERVER, prefix.to_str().unwrap()), (ADDRESS, &address.to_string())];
    start("programs::a_servers_process", &variables, directory)
}

fn start(test: &str, variables: &[(&str, &str)], directory: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("programs.log"));
    let log = log.unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads", "1"])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

#[test]
fn the_agents_process() {
    if let Some(directory) = std::env::var_os(AGENT) {
        let code = crosstie_lb::run(Path::new(&directory), true);
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS) * 3);
    }
}

#[test]
fn a_servers_process() {
    let (Some(prefix), Ok(address)) = (std::env::var_os(SERVER), std::env::var(ADDRESS)) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(prefix.into(), address.parse().unwrap()));
}

async fn serve(prefix: PathBuf, address: SocketAddr) {
    let certificate =
        ReloadingCertificate::load(prefix.with_extension("pem"), prefix.with_extension("key")).unwrap();
    let roots = tls::roots_from_file(&prefix.with_file_name("ca.pem")).unwrap();
    let clients = ClientAuthentication::Required(roots);
    let tls = tls::server_config(certificate, tls::ALPN_HTTP1, &clients).unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        let (acceptor, prefix) = (TlsAcceptor::from(tls.clone()), prefix.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| answer(prefix.clone(), peer, request));
            let connection = hyper::server::conn::http1::Builder::new();
            // The other end goes away now and then; that is what is tested.
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Tells the caller what arrived. `/wait/MS` takes its time, `/unavailable/NAME` gets 503 of the server NAME, and
/// `/health/ready` says whether there is traffic.
async fn answer(
    prefix: PathBuf,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response = Response::new(Full::default());
    let path = head.uri.path();
    if path == "/health/ready" {
        if prefix.with_extension("away").exists() {
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        }
        return Ok(response);
    }
    if let Some(milliseconds) = path.strip_prefix("/wait/").and_then(|rest| rest.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
    if path.strip_prefix("/unavailable/").is_some_and(|name| prefix.ends_with(name)) {
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    }
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &head.headers {
        headers.entry(name.to_string()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into());
    }
    let told = serde_json::json!({
        "server": prefix.file_name().unwrap().to_str(),
        "peer": peer.to_string(),
        "method": head.method.as_str(),
        "path": path,
        "length": body.len(),
        "headers": headers,
    });
    *response.body_mut() = Full::new(told.to_string().into());
    Ok(response)
}
