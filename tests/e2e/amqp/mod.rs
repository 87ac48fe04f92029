//! Brokers: what services publish is there, what comes is worked on once it can be, and what cannot be worked on
//! ends beside the queue with its reason. The other side is pika, and the tools of rabbitmq-c.

mod channel;
mod chaos;
mod hostile;
mod log;
mod publish;

use std::path::Path;
use std::process::{Command, Stdio};

use crosstie_parts::RabbitMq;
use crosstie_test_support::Environment;
use crosstie_test_support::environment::Builder;
use crosstie_test_support::parts::TestPart;
use serde_json::Value;

/// The password of the broker's user.
const PASSWORD: &str = "it's a secret";

/// Debian's, which has pika.
const PYTHON: &str = "/usr/bin/python3";

/// What every script begins with: `connect()` and `channel`.
const PRELUDE: &str = r#"
import json, os, ssl, sys, time
import pika

def connect():
    options = None
    if "CA" in os.environ:
        context = ssl.create_default_context(cafile=os.environ["CA"])
        context.load_cert_chain(os.environ["CERT"], os.environ["KEY"])
        options = pika.SSLOptions(context, "127.0.0.1")
    login = pika.PlainCredentials("crosstie", "it's a secret")
    return pika.BlockingConnection(pika.ConnectionParameters(
        "127.0.0.1", int(os.environ["PORT"]), "crosstie", login, ssl_options=options, blocked_connection_timeout=30))

arguments = json.loads(sys.argv[1])
connection = connect()
channel = connection.channel()
"#;

/// A broker that listens in plain on this machine.
fn plain() -> TestPart {
    TestPart::start_with("rabbitmq", RabbitMq::new, |plan| plan.tls = None).unwrap()
}

/// A broker that takes TLS with a client's certificate alone.
fn secured() -> TestPart {
    TestPart::start("rabbitmq", RabbitMq::new).unwrap()
}

/// A pika script against `broker`, not yet started.
fn pika(broker: &TestPart, is_secured: bool, script: &str, arguments: &Value) -> Command {
    let mut command = Command::new(PYTHON);
    command.args(["-c", &format!("{PRELUDE}{script}"), &arguments.to_string()]);
    command.env("PORT", broker.address.port().to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if is_secured {
        let files = &broker.client;
        command.env("CA", &files.ca).env("CERT", &files.certificate).env("KEY", &files.key);
    }
    command
}

/// Runs a pika script against a broker in plain; gives what it prints, as JSON.
fn run(broker: &TestPart, script: &str, arguments: &Value) -> Value {
    printed(pika(broker, false, script, arguments))
}

fn printed(mut command: Command) -> Value {
    let output = command.output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{error}");
    if out.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}"))
    }
}

/// The outgoing `broker` that leads to a broker in plain, as YAML, with `more` fields.
fn outgoing(broker: &TestPart, more: &str) -> String {
    let port = broker.address.port();
    format!(
        "outgoing:\n  broker: {{type: amqp, address: 'amqp://127.0.0.1:{port}/crosstie', username: crosstie, \
         password: \"{PASSWORD}\"{more}}}\n"
    )
}

/// The same over TLS, with the client's certificate.
fn secured_outgoing(broker: &TestPart, more: &str) -> String {
    let port = broker.address.port();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap().replace('\n', "\\n");
    let files = &broker.client;
    format!(
        "outgoing:\n  broker: {{type: amqp, address: 'amqps://127.0.0.1:{port}/crosstie', username: crosstie, \
         password: \"{PASSWORD}\", tls: {{ca: \"{}\", certificate: \"{}\", key: \"{}\"}}{more}}}\n",
        read(&files.ca),
        read(&files.certificate),
        read(&files.key)
    )
}

fn apply(environment: &Environment, text: &str) {
    environment.command(&["apply", "-f", "-"]).unwrap().input(text).run().unwrap().success().unwrap();
}

fn with_metrics() -> Builder {
    Environment::builder().setting("telemetry.metrics_path", "\"/metrics\"")
}

fn metrics(environment: &Environment) -> String {
    environment.http().get("/metrics").unwrap().text()
}
