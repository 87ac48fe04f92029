//! HTTP as a client of a service sees it. Every status is an answer here, not an error.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use http::{HeaderMap, Method, Request};
use serde_json::Value;
use ureq::Agent;

use crate::wait::HANG;

/// A client of one base URL that keeps its connections.
#[derive(Debug, Clone)]
pub struct Http {
    agent: Agent,
    base: String,
    headers: Vec<(String, String)>,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Http {
    /// A client of `base`, such as `http://127.0.0.1:17010`.
    #[must_use]
    pub fn new(base: impl Into<String>) -> Self {
        Self::with_tls(base, None)
    }

    /// A client of an HTTPS `base` whose certificate the CA in `ca_pem` signed.
    ///
    /// # Errors
    /// The text is no certificate.
    pub fn trusting(base: impl Into<String>, ca_pem: &[u8]) -> Result<Self> {
        let ca = ureq::tls::Certificate::from_pem(ca_pem).context("not a PEM certificate")?;
        let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::from([ca])).build();
        Ok(Self::with_tls(base, Some(tls)))
    }

    /// A client as [`Http::trusting`] gives it, which shows the certificate `chain_pem` with its key.
    ///
    /// # Errors
    /// A text is no certificate, or no key.
    pub fn showing(base: impl Into<String>, ca_pem: &[u8], chain_pem: &[u8], key_pem: &[u8]) -> Result<Self> {
        let certificate = |pem| ureq::tls::Certificate::from_pem(pem).context("not a PEM certificate");
        let key = ureq::tls::PrivateKey::from_pem(key_pem).context("not a PEM key")?;
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::from([certificate(ca_pem)?]))
            .client_cert(Some(ureq::tls::ClientCert::new_with_certs(&[certificate(chain_pem)?], key)))
            .build();
        Ok(Self::with_tls(base, Some(tls)))
    }

    fn with_tls(base: impl Into<String>, tls: Option<ureq::tls::TlsConfig>) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(HANG));
        let config = match tls {
            Some(tls) => config.tls_config(tls),
            None => config,
        };
        Self { agent: config.build().new_agent(), base: base.into(), headers: Vec::new() }
    }

    /// The same client with a header on every request.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same client with HTTP Basic credentials (RFC 7617).
    #[must_use]
    pub fn basic_auth(self, user: &str, password: &str) -> Self {
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.header("authorization", &format!("Basic {credentials}"))
    }

    /// The base URL.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET.
    ///
    /// # Errors
    /// No answer came.
    pub fn get(&self, path: &str) -> Result<Reply> {
        self.send(&Method::GET, path, None, &[])
    }

    /// DELETE.
    ///
    /// # Errors
    /// No answer came.
    pub fn delete(&self, path: &str) -> Result<Reply> {
        self.send(&Method::DELETE, path, None, &[])
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// No answer came.
    pub fn post_json(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(&Method::POST, path, Some("application/json"), body.to_string().as_bytes())
    }

    /// POST of anything.
    ///
    /// # Errors
    /// No answer came.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Reply> {
        self.send(&Method::POST, path, Some(content_type), body)
    }

    /// Any request; `body` is sent when there is a content type.
    ///
    /// # Errors
    /// No answer came.
    pub fn send(
        &self,
        method: &Method,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Reply> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = match content_type {
            Some(content_type) => self.agent.run(request.header("content-type", content_type).body(body)?),
            None => self.agent.run(request.body(())?),
        };
        let mut response = response.with_context(|| format!("{method} {path}"))?;
        let mut body = Vec::new();
        response.body_mut().as_reader().read_to_end(&mut body).context("the body broke off")?;
        Ok(Reply { status: response.status().as_u16(), headers: response.headers().clone(), body })
    }
}

impl Reply {
    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header field's text; empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends bytes as they are on a connection of their own and gives whatever comes back until the server
/// closes or `quiet` passes without a byte.
///
/// # Errors
/// The connection could not be made. One that breaks while sending is an answer: what came so far.
pub fn raw(address: SocketAddr, request: &[u8], quiet: Duration) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    stream.set_read_timeout(Some(quiet))?;
    stream.set_write_timeout(Some(HANG))?;
    // A server may refuse and close before it has read everything; its answer is still there to read.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut piece = [0u8; 16 * 1024];
    while let Ok(count) = stream.read(&mut piece) {
        match piece.get(..count) {
            Some([]) | None => break,
            Some(bytes) => answer.extend_from_slice(bytes),
        }
    }
    Ok(answer)
}
