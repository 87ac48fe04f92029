//! Messages with a user name and a password: a SOAP channel checks the token of each, and a Python service calls the
//! other system without it.
//!
//! Every token has a nonce of its own, which the server notes in its database, on disk, before it lets the message in:
//! a message that was recorded is refused. That is what most of the time goes by with.

use anyhow::Result;
use serde_json::json;

use crate::Plan;
use crate::classic::rows;
use crate::report::Row;
use crate::requests::{CREATED, NONCE};
use crate::soap_echo::{NAMESPACE, described, requests};
use crate::stage::Stage;
use crate::upstream::SOAP_PATH;

/// The password of every message.
const PASSWORD: &str = "a-password-of-the-benchmark";

/// Hands the operation on.
const SERVICE: &str = r#"
from crosstie import Model, Service

class Secret(Model):
    text: str

class Forward(Service):
    name = "bench.forward"
    input = Secret
    output = Secret

    def handle(self):
        answer = self.out.soap["backend"].call("Echo", {"text": self.request.input.text})
        return Secret(text=answer["text"])
"#;

/// The rows of this file.
///
/// # Errors
/// Something does not start, or an answer is wrong.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let stage = Stage::set()?;
    let wsdl = described(&stage.environment)?;
    stage.deploy("forward.py", SERVICE, "bench.forward")?;
    stage.apply(&json!({
        "security": {"partner": {"type": "wss_username_token", "username": "bench", "password": PASSWORD,
            "require_nonce": true}},
        "wsdl": {"backend": {"text": wsdl}},
        "outgoing": {"backend": {"type": "soap", "wsdl": "backend", "version": "1.1",
            "address": stage.address_of(SOAP_PATH)}},
        "channel": {"secured": {"type": "soap", "path": "/secured", "namespace": NAMESPACE, "security": "partner",
            "operations": {"Echo": "bench.forward"}}},
    }))?;
    let header = token();
    let what = "secured proxy, WS-Security UsernameToken with nonce → Python service → outgoing SOAP";
    rows(plan, &stage, what, |size| requests("/secured", &header, size))
}

/// The security header of a message.
fn token() -> String {
    let oasis = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss";
    format!(
        "<w:Security xmlns:w=\"{oasis}-wssecurity-secext-1.0.xsd\" s:mustUnderstand=\"1\"><w:UsernameToken>\
         <w:Username>bench</w:Username>\
         <w:Password Type=\"{oasis}-username-token-profile-1.0#PasswordText\">{PASSWORD}</w:Password>\
         <w:Nonce EncodingType=\"{oasis}-soap-message-security-1.0#Base64Binary\">{NONCE}</w:Nonce>\
         <u:Created xmlns:u=\"{oasis}-wssecurity-utility-1.0.xsd\">{CREATED}</u:Created>\
         </w:UsernameToken></w:Security>"
    )
}
