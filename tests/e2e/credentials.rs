//! Credentials of every kind: the right ones are let in, all others are refused with the protocol's own error
//! and a line of the log, and no secret is in either.

use std::fs;

use crosstie_test_support::{Environment, wait_until};
use serde_json::{Value, json};

const WHO: &str = r#"
from crosstie import Service

class Who(Service):
    name = "test.who"

    def handle(self):
        security = self.request.security
        self.response.payload = {"name": security.name, "type": security.type, "username": security.username}
"#;

/// An environment with the service `test.who`, which says who calls.
fn environment() -> Environment {
    let environment = Environment::start().unwrap();
    let path = environment.root().join("who.py");
    fs::write(&path, WHO).unwrap();
    environment.run(&["deploy", path.to_str().unwrap()]).unwrap().success().unwrap();
    environment
}

/// Applies definitions.
fn apply(environment: &Environment, document: &Value) {
    let applied = environment.command(&["apply", "-f", "-"]).unwrap().input(document.to_string());
    applied.run().unwrap().success().unwrap();
}

/// Channels of `test.who`, each at its security definition's name.
fn channels(names: &[&str]) -> Value {
    let channel = |name: &&str| {
        let body =
            json!({"type": "rest", "path": format!("/{name}"), "service": "test.who", "security": name});
        ((*name).to_owned(), body)
    };
    Value::Object(names.iter().map(channel).collect())
}

/// The log's lines on refused credentials of `security`, oldest first, as (reason, line).
fn refusals(environment: &Environment, security: &str) -> Vec<(String, String)> {
    let log = fs::read_to_string(environment.server().join("logs/server.log")).unwrap();
    log.lines()
        .filter_map(|line| {
            let record: Value = serde_json::from_str(line).ok()?;
            let is_it =
                record["message"] == "credentials were refused" && record["fields"]["security"] == security;
            let reason = record["fields"]["reason"].as_str()?.to_owned();
            is_it.then(|| (reason, line.to_owned()))
        })
        .collect()
}

/// Waits until the log has told of refusals for these reasons, and of no others.
fn wait_for_refusals(environment: &Environment, security: &str, reasons: &[&str]) {
    let told =
        || -> Vec<String> { refusals(environment, security).into_iter().map(|(reason, _)| reason).collect() };
    wait_until("the log has every refusal", || told().len() >= reasons.len());
    assert_eq!(told(), reasons, "of {security}");
}

/// What a request with an `Authorization` of `value` gets: status and `WWW-Authenticate`.
fn authorized(environment: &Environment, path: &str, value: &str) -> (u16, String) {
    let reply = environment.http().header("authorization", value).get(path).unwrap();
    (reply.status, reply.header("www-authenticate").to_owned())
}

#[test]
fn wrong_passwords_and_keys_are_told_in_the_logs_and_counted() {
    let environment = environment();
    let (password, key) = ("correct-horse-battery", "key-0123456789abcdef");
    apply(
        &environment,
        &json!({
            "security": {
                "basic": {"type": "basic_auth", "username": "ada", "password": password},
                "key": {"type": "api_key", "key": key},
            },
            "channel": channels(&["basic", "key"]),
        }),
    );
    let http = environment.http();
    let reply = http.clone().basic_auth("ada", password).get("/basic").unwrap();
    assert_eq!(reply.json(), json!({"name": "basic", "type": "basic_auth", "username": "ada"}));
    let reply = http.clone().header("x-api-key", key).get("/key").unwrap();
    assert_eq!(reply.json(), json!({"name": "key", "type": "api_key", "username": null}));

    let wrong = "guess-4711-of-somebody";
    assert_eq!(http.get("/basic").unwrap().status, 401);
    let refused = http.clone().basic_auth("ada", wrong).get("/basic").unwrap();
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, "Basic realm=\"crosstie\", charset=\"UTF-8\"")
    );
    let (status, challenge) = authorized(&environment, "/basic", "Basic !!!");
    assert_eq!((status, challenge.starts_with("Basic realm=")), (401, true));
    assert_eq!(http.clone().header("x-api-key", wrong).get("/key").unwrap().status, 401);

    wait_for_refusals(&environment, "basic", &["wrong", "malformed"]);
    wait_for_refusals(&environment, "key", &["wrong"]);
    let (_, line) = refusals(&environment, "basic").remove(0);
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["cid"], refused.json()["cid"]);
    assert_eq!(record["fields"]["client"], "127.0.0.1");
    assert_eq!(
        (&record["fields"]["channel"], &record["fields"]["path"]),
        (&json!("basic"), &json!("/basic"))
    );

    let access = || fs::read_to_string(environment.server().join("logs/access.log")).unwrap();
    wait_until("the access log has all requests", || access().lines().count() >= 6);
    let told = |reason: &str| access().contains(&format!(r#""security":"basic","refused":"{reason}""#));
    assert!(told("missing") && told("wrong") && told("malformed"), "{}", access());
    for secret in [password, key, wrong] {
        let log = environment.log_tail("server.log");
        assert!(!log.contains(secret) && !access().contains(secret), "{secret} is in a log");
    }

    environment.set("telemetry.metrics_path", "\"/metrics\"").unwrap();
    let metrics = environment.wait_for_status("/metrics", 200).text();
    let count = r#"crosstie_refused_credentials_total{security="basic",reason="wrong"} 1"#;
    assert!(metrics.contains(count), "{metrics}");
}
