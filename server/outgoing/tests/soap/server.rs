//! Servers of others, and calls of them.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use crosstie_model::outgoing::{Outgoing, SoapAnswer, SoapCall, SoapCallHeader, SoapError, SoapOutgoing};
use crosstie_model::{DefinitionKind, TraceContext};
use http::HeaderMap;
use serde_json::{Value, json};

use crate::support::{PATIENCE, World};

/// A process that serves on loopback, and says on its first line where.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("no port but {line:?}"));
        Self { process, port }
    }

    /// One in Python.
    pub(crate) fn python(script: &str) -> Self {
        Self::start(Command::new("/usr/bin/python3").args(["-u", "-c", script]))
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Opens an outgoing by `wsdl`, the text of a description.
pub(crate) fn open(world: World, address: &str, wsdl: &str, more: Value) -> Arc<dyn SoapOutgoing> {
    let world = world.define(DefinitionKind::Wsdl, "described", json!({"text": wsdl}));
    // Servers of one thread wait for whoever keeps a connection.
    let mut body = json!({"type": "soap", "wsdl": "described", "address": address, "idle_ms": 0});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    match world.try_open_any(body).unwrap() {
        Outgoing::Soap(outgoing) => outgoing,
        other => panic!("{other:?}"),
    }
}

/// A call of `operation` with `message`.
pub(crate) fn soap_call(operation: &str, message: &Value, headers: Vec<SoapCallHeader>) -> SoapCall {
    SoapCall {
        operation: operation.to_owned(),
        message: serde_json::to_vec(message).unwrap().into(),
        headers,
        fields: HeaderMap::new(),
        trace: TraceContext::new_root(),
        deadline: Instant::now() + PATIENCE,
    }
}

/// Calls an operation; gives all of the answer.
pub(crate) async fn answer(
    outgoing: &Arc<dyn SoapOutgoing>,
    operation: &str,
    message: Value,
) -> Result<SoapAnswer, SoapError> {
    outgoing.call(soap_call(operation, &message, Vec::new())).await
}

/// Calls an operation; gives what the body of the answer holds.
pub(crate) async fn ask(outgoing: &Arc<dyn SoapOutgoing>, operation: &str, message: Value) -> Value {
    answer(outgoing, operation, message)
        .await
        .unwrap_or_else(|error| panic!("{operation}: {error:?}"))
        .message
}
