//! The management API as a client sees it: mutual TLS with the environment's CA, JSON in and out, refusals
//! (problem documents, RFC 9457) as errors that say what to do.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use http::{Method, Request, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::environment::{Environment, ServerDirectory, reachable};
use crate::faults::Faults;
use crate::service_user;

/// How long connecting may take; servers are on this host or near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take: a deployment of the shared library checks every unit that uses it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// Largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 256 * 1024 * 1024;

/// What stays as it is in a path segment (RFC 3986, section 2.3, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A body to send.
pub(crate) enum Body<'a> {
    /// JSON.
    Json(&'a Value),
    /// An artifact.
    Bytes(&'a [u8]),
}

/// A connection to one server's management API.
pub(crate) struct Client {
    agent: Agent,
    address: SocketAddr,
    root: std::path::PathBuf,
    /// The revision that changes are made for, if only for that.
    expected: Option<u64>,
}

impl Client {
    /// A client of `server`.
    ///
    /// # Errors
    /// The environment lacks a client certificate or a management address.
    pub(crate) fn of(environment: &Environment, server: &ServerDirectory) -> Result<Self> {
        let address = server.addresses()?.management.with_context(|| {
            format!("[management] address is missing in {}", server.settings_file().display())
        })?;
        Self::at(environment, address)
    }

    /// A client of the management API at `address`, with the environment's certificates.
    ///
    /// # Errors
    /// A certificate or key cannot be read.
    pub(crate) fn at(environment: &Environment, address: SocketAddr) -> Result<Self> {
        let directory = environment.client();
        let (roots, chain, key) = service_user::as_owner_of(&directory, || {
            let roots = certificates(&directory.join("ca.pem"))?;
            let chain = certificates(&directory.join("client.pem"))?;
            Ok((roots, chain, private_key(&directory.join("client.key"))?))
        })?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            .client_cert(Some(ClientCert::new_with_certs(&chain, key)))
            .build();
        Ok(Self::over(tls, address, environment.root()))
    }

    /// A client of the management API at `address` for somebody whom the cluster does not know yet. It trusts
    /// the authority `ca` (PEM) alone. Without one it verifies nobody: fit for fetching that authority's
    /// certificate and comparing its fingerprint, and for nothing else.
    ///
    /// # Errors
    /// The authority's certificate cannot be read.
    pub(crate) fn stranger(address: SocketAddr, ca: Option<&str>) -> Result<Self> {
        let tls = match ca {
            None => TlsConfig::builder().disable_verification(true).build(),
            Some(ca) => {
                let root = Certificate::from_pem(ca.as_bytes()).context("the authority's certificate")?;
                TlsConfig::builder().root_certs(RootCerts::from(vec![root])).build()
            }
        };
        Ok(Self::over(tls, address, Path::new("DIR")))
    }

    fn over(tls: TlsConfig, address: SocketAddr, root: &Path) -> Self {
        let agent = Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(ANSWER_TIMEOUT))
            .user_agent(concat!("crosstie/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self { agent, address: reachable(address), root: root.to_owned(), expected: None }
    }

    /// The same client, whose changes are refused unless `revision` is the current one.
    pub(crate) fn expecting(self, revision: Option<u64>) -> Self {
        Self { expected: revision, ..self }
    }

    /// Whether the management API answers at all, a refusal included.
    pub(crate) fn answers(&self) -> bool {
        match self.get("/status") {
            Ok(_) => true,
            Err(error) => error.downcast_ref::<Faults>().is_some(),
        }
    }

    /// Fetches `path`, which starts with a slash and lies below `/api/v1`.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, None)
    }

    /// Fetches `path` as the text it is.
    pub(crate) fn get_text(&self, path: &str) -> Result<String> {
        let body = self.exchange(&Method::GET, path, None)?;
        String::from_utf8(body).context("the answer is not UTF-8")
    }

    /// Calls a service: posts JSON, or nothing, and gives the answer as the service made it.
    pub(crate) fn call(&self, path: &str, payload: Option<&Value>) -> Result<Vec<u8>> {
        self.exchange(&Method::POST, path, payload.map(Body::Json).as_ref())
    }

    /// Posts JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::POST, path, Some(&Body::Json(body)))
    }

    /// Posts bytes.
    pub(crate) fn post_bytes(&self, path: &str, body: &[u8]) -> Result<Value> {
        self.send(Method::POST, path, Some(&Body::Bytes(body)))
    }

    /// Patches with JSON.
    pub(crate) fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::PATCH, path, Some(&Body::Json(body)))
    }

    /// Deletes what is at `path`.
    pub(crate) fn delete(&self, path: &str) -> Result<Value> {
        self.send(Method::DELETE, path, None)
    }

    fn send(&self, method: Method, path: &str, body: Option<&Body<'_>>) -> Result<Value> {
        let answer = self.exchange(&method, path, body)?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).context("the server's answer is not JSON")
    }

    fn exchange(&self, method: &Method, path: &str, body: Option<&Body<'_>>) -> Result<Vec<u8>> {
        let url = format!("https://{}/api/v1{path}", self.address);
        let mut request = Request::builder().method(method).uri(url);
        if let Some(revision) = self.expected {
            request = request.header("if-match", format!("\"{revision}\""));
        }
        let outcome = match body {
            None => self.agent.run(request.body(())?),
            Some(Body::Json(value)) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(serde_json::to_vec(value)?)?)
            }
            Some(Body::Bytes(bytes)) => {
                let request = request.header("content-type", "application/octet-stream");
                self.agent.run(request.body(*bytes)?)
            }
        };
        let response = outcome.map_err(|error| self.unreachable(error))?;
        read(response)
    }

    fn unreachable(&self, error: ureq::Error) -> anyhow::Error {
        let (address, root) = (self.address, self.root.display());
        match error {
            ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
                anyhow!("nothing listens at {address}: `crosstie start {root}` starts the server")
            }
            error => anyhow!("the server at {address} does not answer ({error}): `crosstie logs` tells more"),
        }
    }
}

fn read(mut response: Response<ureq::Body>) -> Result<Vec<u8>> {
    let status = response.status();
    let mut body = Vec::new();
    let mut reader = response.body_mut().with_config().limit(MAX_ANSWER).reader();
    reader.read_to_end(&mut body).context("the server's answer broke off")?;
    if status.is_success() {
        return Ok(body);
    }
    match serde_json::from_slice::<Value>(&body) {
        Ok(problem) => Err(Faults::from_problem(&problem).into()),
        Err(_) => bail!("the server refused with status {status}"),
    }
}

/// `text` as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    for item in parse_pem(&pem(path)?) {
        if let PemItem::Certificate(certificate) = item.with_context(|| unreadable(path))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>> {
    PrivateKey::from_pem(&pem(path)?).with_context(|| unreadable(path))
}

fn pem(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| unreadable(path))
}

fn unreadable(path: &Path) -> String {
    format!("cannot read {}, which `crosstie quickstart` made", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_name_is_one_path_segment() {
        assert_eq!(segment("demo.hello:rest:/hello/{name}"), "demo.hello%3Arest%3A%2Fhello%2F%7Bname%7D");
    }
}
