//! A SOAP operation that answers what it is given: a Python service against a stand-alone server that gSOAP's tools
//! make of the same description.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crosstie_test_support::{Environment, PortBase};

use crate::Plan;
use crate::beside::Beside;
use crate::environment::{one_server, wait};
use crate::paired::{Pairs, Run};
use crate::report::Row;
use crate::requests::{Expected, Requests};

/// Most that the Python service may cost.
const LIMIT: f64 = 3.0;
/// Bytes of text in a message.
const SIZE: usize = 1024;
/// The namespace of the description.
pub(crate) const NAMESPACE: &str = "urn:bench:echo";
/// The path of the channel.
const PATH: &str = "/echo";

/// The operation `Echo`.
const SERVICE: &str = r#"
from crosstie import Model, Service, soap

class Text(Model):
    text: str

class Echo(Service):
    name = "bench.echo"
    channels = [soap("/echo", namespace="urn:bench:echo", service_name="Bench")]
    input = Text
    output = Text

    def handle(self):
        return Text(text=self.request.input.text)
"#;

/// The server around what gSOAP's tools make.
const SERVER: &str = include_str!("soap_echo.c");

/// What makes the server of `echo.wsdl` and `server.c`.
const BUILD: [&[&str]; 3] = [
    &["wsdl2h", "-c", "-O1", "-o", "echo.h", "echo.wsdl"],
    &["soapcpp2", "-1", "-c", "-S", "-L", "-x", "-pecho", "-I/usr/share/gsoap/import", "echo.h"],
    &["cc", "-O2", "-w", "-o", "server", "server.c", "echoC.c", "echoServer.c", "-lgsoap", "-lpthread"],
];

/// The row of this file.
///
/// # Errors
/// A server cannot be made or does not start, or an answer is wrong.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let environment = one_server(1)?;
    let wsdl = described(&environment)?;
    let directory = tempfile::tempdir()?;
    let program = build(directory.path(), &wsdl)?;
    let port = PortBase::reserve()?;
    let number = port.number().to_string();
    let theirs = Beside::start(port, Command::new(program).arg(number))?;

    let requests = requests(PATH, "", SIZE);
    let bare = Requests { path: "/".into(), ..requests.clone() };
    bare.await_right(theirs.address())?;
    requests.await_right(environment.address())?;
    let supervisor = environment.supervisor().context("the server does not run")?;
    let (length, pid) = (Duration::from_secs(plan.seconds), theirs.pid()?);
    let pairs = Pairs::of(
        plan.rounds,
        || Run::of(&[pid], || bare.load(theirs.address(), length)),
        || Run::of(&[supervisor], || requests.load(environment.address(), length)),
    )?;
    let yardstick = "gSOAP server of the same operation, -O2, a thread per connection, keep-alive";
    Ok(vec![pairs.row("SOAP echo 1 KiB, Python service, one worker, 32 connections", yardstick, Some(LIMIT))])
}

/// Deploys the service and gives its description.
///
/// # Errors
/// It is not there within a minute.
pub(crate) fn described(environment: &Environment) -> Result<String> {
    environment.drop_file("echo.py", SERVICE)?;
    let http = environment.http();
    let mut description = String::new();
    wait("the description of the service", || {
        if let Ok(reply) = http.get(&format!("{PATH}?wsdl"))
            && reply.status == 200
        {
            description = reply.text();
        }
        Ok(!description.is_empty())
    })?;
    Ok(description)
}

/// Calls of `Echo` at `path` with a text of `size` bytes, and with header blocks.
pub(crate) fn requests(path: &str, header: &str, size: usize) -> Requests {
    let text = "x".repeat(size);
    Requests {
        path: path.into(),
        content_type: "text/xml; charset=utf-8",
        headers: vec![("SOAPAction", "\"urn:bench:echo/Echo\"")],
        body: format!(
            "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Header>{header}</s:Header>\
             <s:Body><Echo xmlns=\"{NAMESPACE}\"><text>{text}</text></Echo></s:Body></s:Envelope>"
        ),
        expected: Expected::Part(format!("text>{text}</")),
        asked_at: None,
        noted: None,
    }
}

/// Makes the server in `directory`.
fn build(directory: &Path, wsdl: &str) -> Result<PathBuf> {
    fs::write(directory.join("echo.wsdl"), wsdl)?;
    fs::write(directory.join("server.c"), SERVER)?;
    for step in BUILD {
        let (program, arguments) = step.split_first().context("an empty step")?;
        let done = Command::new(program).args(arguments).current_dir(directory).output();
        let done =
            done.with_context(|| format!("cannot run {program}: apt-get install gsoap libgsoap-dev"))?;
        let told = [done.stdout, done.stderr].concat();
        ensure!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&told));
    }
    Ok(directory.join("server"))
}
