//! Credentials of every kind: the right ones are let in, all others are refused with the protocol's own error
//! and a line of the log, and no secret is in either.

mod introspection;
mod issuer;
mod jwt;
pub(crate) mod protocols;
mod secrets;
mod tokens;

use std::fs;

use crosstie_security::authority::fingerprint;
use crosstie_test_support::{Environment, Http, Issued, Pki, Validity, wait_until};
use serde_json::{Value, json};

const WHO: &str = r#"
from crosstie import Service

class Who(Service):
    name = "test.who"

    def handle(self):
        security = self.request.security
        told = {"name": security.name, "type": security.type, "username": security.username}
        if security.claims:
            told |= {"claims": security.claims, "scopes": security.scopes}
        if it := security.certificate:
            told |= {"subject": it.subject, "issuer": it.issuer, "sans": it.sans, "serial": it.serial,
                     "fingerprint": it.fingerprint, "until": it.not_after.year}
        self.response.payload = told
"#;

/// An environment with the service `test.who`, which says who calls.
fn environment() -> Environment {
    environment_of(&[])
}

/// The same with settings, as keys of `server.toml` and TOML.
fn environment_of(settings: &[(&str, &str)]) -> Environment {
    let builder = settings.iter().fold(Environment::builder(), |all, (key, value)| all.setting(key, value));
    let environment = builder.start().unwrap();
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

/// Waits until the log has told of refusals for these reasons, and of no others. Each worker writes for itself,
/// so their order is nothing to rely on.
fn wait_for_refusals(environment: &Environment, security: &str, reasons: &[&str]) {
    let told = || -> Vec<String> {
        let mut told: Vec<_> =
            refusals(environment, security).into_iter().map(|(reason, _)| reason).collect();
        told.sort();
        told
    };
    wait_until("the log has every refusal", || told().len() >= reasons.len());
    let mut wanted = reasons.to_vec();
    wanted.sort_unstable();
    assert_eq!(told(), wanted, "of {security}");
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
    let told = refusals(&environment, "basic");
    let (_, line) = told.iter().find(|(reason, _)| reason == "wrong").unwrap();
    let record: Value = serde_json::from_str(line).unwrap();
    assert_eq!(record["cid"], refused.json()["cid"]);
    assert_eq!(record["fields"]["client"], "127.0.0.1");
    assert_eq!(
        (&record["fields"]["channel"], &record["fields"]["path"]),
        (&json!("basic"), &json!("/basic"))
    );

    let access = || fs::read_to_string(environment.server().join("logs/access.log")).unwrap();
    let told = |reason: &str| access().contains(&format!(r#""security":"basic","refused":"{reason}""#));
    wait_until("the access log tells of each refusal", || {
        told("missing") && told("wrong") && told("malformed")
    });
    for secret in [password, key, wrong] {
        let log = environment.log_tail("server.log");
        assert!(!log.contains(secret) && !access().contains(secret), "{secret} is in a log");
    }

    environment.set("telemetry.metrics_path", "\"/metrics\"").unwrap();
    let metrics = environment.wait_for_status("/metrics", 200).text();
    let count = r#"crosstie_refused_credentials_total{security="basic",reason="wrong"} 1"#;
    assert!(metrics.contains(count), "{metrics}");
}

/// A client of the environment's HTTPS that shows a certificate.
fn showing(environment: &Environment, issued: &Issued) -> Http {
    let base = format!("https://{}", environment.tls_address());
    let (certificate, key) = (issued.certificate.as_bytes(), issued.key.as_bytes());
    Http::showing(base, &environment.ca().unwrap(), certificate, key).unwrap()
}

#[test]
fn client_certificates_are_verified_compared_and_shown_to_services() {
    let environment = environment();
    let (pki, strangers) = (Pki::new("Partners CA").unwrap(), Pki::new("Strangers CA").unwrap());
    let shop = pki.issue("shop", 0x0a01, Validity::Now).unwrap();
    let lost = pki.issue("shop", 0x0a02, Validity::Now).unwrap();
    let ca = environment.server().join("partners.pem");
    fs::write(&ca, pki.certificate()).unwrap();
    apply(
        &environment,
        &json!({
            "security": {
                "any": {"type": "client_certificate", "ca": pki.certificate()},
                "shop": {"type": "client_certificate", "ca": "file:partners.pem", "crl": pki.revoked(&[0x0a02]).unwrap(),
                    "subjects": [{"CN": "shop", "O": "Acme, Inc."}], "sans": ["dns:shop.example"]},
                "others": {"type": "client_certificate", "ca": strangers.certificate()},
            },
            "channel": channels(&["any", "shop", "others"]),
        }),
    );
    let reply = showing(&environment, &shop).get("/shop").unwrap();
    assert_eq!(
        reply.json(),
        json!({
            "name": "shop", "type": "client_certificate", "username": "shop", "subject": "O=Acme\\, Inc.,CN=shop",
            "issuer": "CN=Partners CA", "sans": ["dns:shop.example", "ip:127.0.0.1"], "serial": "0a01",
            "fingerprint": fingerprint(&shop.certificate).unwrap(), "until": 4096,
        })
    );
    // Who shows none gets to where none is wanted, and what a client says of itself is nothing.
    let https = environment.https().unwrap();
    assert_eq!(https.get("/health/live").unwrap().status, 200);
    let lies = https.header("x-ssl-client-verify", "SUCCESS").header("x-ssl-client-dn", "CN=shop");
    let plain = environment.http().header("x-ssl-client-verify", "SUCCESS");
    for client in [lies, plain] {
        let refused = client.get("/shop").unwrap();
        assert_eq!(refused.status, 401);
        assert_eq!(refused.header("www-authenticate"), "ClientCertificate realm=\"crosstie\"");
    }
    assert_eq!(showing(&environment, &lost).get("/any").unwrap().status, 200);
    assert_eq!(showing(&environment, &lost).get("/shop").unwrap().status, 401);
    assert_eq!(showing(&environment, &shop).get("/others").unwrap().status, 401);
    let bakery = pki.issue("bakery", 1, Validity::Now).unwrap();
    assert_eq!(showing(&environment, &bakery).get("/shop").unwrap().status, 401);
    wait_for_refusals(&environment, "shop", &["revoked", "claims"]);
    wait_for_refusals(&environment, "others", &["untrusted"]);

    // What no definition trusts does not get through the handshake.
    let handshakes = || -> Vec<Value> {
        let log = fs::read_to_string(environment.server().join("logs/server.log")).unwrap();
        let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let refused = records.filter(|record| record["message"] == "a client's certificate was refused");
        refused.map(|record| record["fields"]["reason"].clone()).collect()
    };
    let nobody = Pki::new("Nobody's CA").unwrap().issue("shop", 1, Validity::Now).unwrap();
    let over = pki.issue("shop", 2, Validity::Over).unwrap();
    let early = pki.issue("shop", 3, Validity::NotYet).unwrap();
    for (index, (issued, reason)) in
        [(nobody, "untrusted"), (over, "expired"), (early, "not_yet_valid")].into_iter().enumerate()
    {
        assert!(showing(&environment, &issued).get("/shop").is_err(), "{reason}");
        wait_until("the refusal is logged", || handshakes().len() == index + 1);
        assert_eq!(handshakes()[index], reason);
    }
}

#[test]
fn what_is_wrong_with_authorities_and_groups_is_told_before_it_is_stored() {
    let environment = environment();
    let pki = Pki::new("Partners CA").unwrap();
    let document = json!({
        "security": {
            "nonsense": {"type": "client_certificate", "ca": "nonsense"},
            "unknown": {"type": "client_certificate", "ca": pki.certificate(), "subjects": [{"NAME": "shop"}]},
            "token": {"type": "bearer", "token": "secret-of-nobody"},
            "inner": {"type": "group", "any_of": ["token"]},
            "outer": {"type": "group", "any_of": ["inner", "gone"]},
        },
    });
    let refused =
        environment.command(&["apply", "-f", "-"]).unwrap().input(document.to_string()).run().unwrap();
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    for told in [
        "security/nonsense/ca",
        "security/unknown/subjects/0/NAME",
        "security/inner/any_of/0",
        "security/outer/any_of/0",
        "security/outer/any_of/1",
    ] {
        assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains("secret-of-nobody"));
}

#[test]
fn a_group_lets_in_by_any_of_its_members_and_limits_each_by_itself() {
    let environment = environment();
    let pki = Pki::new("Partners CA").unwrap();
    let shop = pki.issue("shop", 1, Validity::Now).unwrap();
    apply(
        &environment,
        &json!({
            "security": {
                "basic": {"type": "basic_auth", "username": "ada", "password": "the password"},
                "key": {"type": "api_key", "key": "the-key", "rate_limit": [{"limit": 1, "per": "hour"}]},
                "partners": {"type": "client_certificate", "ca": pki.certificate()},
                "all": {"type": "group", "any_of": ["basic", "partners", "key"]},
            },
            "channel": channels(&["all"]),
        }),
    );
    let http = environment.http();
    let reply = http.clone().basic_auth("ada", "the password").get("/all").unwrap();
    assert_eq!((reply.status, reply.json()["name"].clone()), (200, json!("basic")));
    let reply = showing(&environment, &shop).get("/all").unwrap();
    assert_eq!((reply.status, reply.json()["type"].clone()), (200, json!("client_certificate")));
    let with_key = http.clone().header("x-api-key", "the-key");
    assert_eq!(with_key.get("/all").unwrap().json()["name"], "key");
    assert_eq!(with_key.get("/all").unwrap().status, 429);
    assert_eq!(http.clone().basic_auth("ada", "the password").get("/all").unwrap().status, 200);

    let refused = http.get("/all").unwrap();
    assert_eq!(refused.status, 401);
    let challenges: Vec<_> = refused.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(
        challenges,
        [
            "Basic realm=\"crosstie\", charset=\"UTF-8\"",
            "ClientCertificate realm=\"crosstie\"",
            "ApiKey realm=\"crosstie\", in=\"header\", name=\"X-API-Key\""
        ]
    );
    assert_eq!(http.clone().basic_auth("ada", "guess").get("/all").unwrap().status, 401);
    wait_for_refusals(&environment, "basic", &["wrong"]);
    let document = environment.http().get("/openapi").unwrap().json();
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["partners"], json!({"type": "mutualTLS"}));
    assert_eq!(schemes["all"], Value::Null);
    let wanted = document.pointer("/paths/~1all/get/security").unwrap();
    assert_eq!(*wanted, json!([{"basic": []}, {"partners": []}, {"key": []}]));
}
