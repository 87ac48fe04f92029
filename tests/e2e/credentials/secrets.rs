//! Secrets of every kind at once, and everything that a server writes, shows or says: none of them is in any of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crosstie_test_support::{Environment, Pki, Said, Upstream, Validity, wait_until};
use serde_json::{Value, json};

use super::issuer::Issuer;
use super::protocols::message;
use super::tokens::{openssl, unix_now, with_secret};
use super::{apply, environment_of};

/// What is presented to channels and to other systems, by the kind of definition that holds it.
const SECRETS: [&str; 12] = [
    "basic-11aa5e0c",
    "apikey-22bb5e0c",
    "inquery-33cc5e0c",
    "wsstoken-44dd5e0c",
    "jwtshared-55ee5e0c-which-is-long-enough-for-a-hash-of-256-bits",
    "the-client-secret",
    "bearer-66ff5e0c",
    "oauthclient-77aa5e0c",
    "sqlserver-88bb5e0c",
    "broker-99cc5e0c",
    "proxy-aadd5e0c",
    "outwss-bbee5e0c",
];

/// What callers present that is not right: as secret as what is, since it may be right elsewhere.
const GUESSES: [&str; 4] = ["guess-0f0f01", "guess-0f0f02", "guess-0f0f03", "guess-0f0f04"];

const SERVICES: &str = r#"
from crosstie import Service, rest

class Call(Service):
    name = "secrets.call"
    channels = [rest("GET", "/call/{family}/{name}")]
    def handle(self):
        params = self.request.params
        family, name = params["family"], params["name"]
        if family == "sql":
            return self.out.sql[name].one("SELECT 1 AS n").n
        if family == "amqp":
            return self.out.amqp[name].publish("x", "", "q")
        if family == "soap":
            return self.out.soap[name].call("Store", {"name": "a", "content": [b"x"]})["size"]
        answer = self.out.rest[name].get()
        answer.raise_for_status()
        return answer.data
"#;

const FILES: &str = include_str!("../../../server/outgoing/tests/soap/files.wsdl");

/// Definitions of all kinds that hold secrets, each with a secret of its own.
fn definitions(issuer: &Issuer, upstream: &str, pki: &Pki) -> Value {
    let [basic, key, query, wss, jwt, introspection, bearer, oauth, sql, amqp, proxy, outwss] = SECRETS;
    let shown = pki.issue("client", 5, Validity::Now).unwrap();
    let closed = "127.0.0.1:1";
    let channel = |name: &str| {
        json!({"type": "rest", "path": format!("/{name}"), "service": "test.who", "security": name,
            "message_log": {"bodies": "both", "headers": true}})
    };
    let outgoing = |more: Value| {
        let mut body = json!({"type": "rest", "address": upstream, "retry": {"max": 0}, "message_log": {"bodies": "both", "headers": true}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    json!({
        "wsdl": {"files": {"text": FILES}},
        "security": {
            "basic": {"type": "basic_auth", "username": "ada", "password": basic},
            "key": {"type": "api_key", "key": key},
            "query": {"type": "api_key", "in": "query", "name": "k", "key": query},
            "wss": {"type": "wss_username_token", "username": "shop", "password": wss},
            "jwt": {"type": "jwt", "secret": jwt},
            "opaque": {"type": "oauth2_introspection", "url": format!("{}/introspect", issuer.url), "client_id": "shop",
                "client_secret": introspection},
            "bearer": {"type": "bearer", "token": bearer},
            "oauth": {"type": "oauth2_client_credentials", "token_url": format!("{upstream}/token"), "client_id": "me",
                "client_secret": oauth},
            "proxy": {"type": "basic_auth", "username": "via", "password": proxy},
            "outwss": {"type": "wss_username_token", "username": "us", "password": outwss, "passwords": ["text"]},
        },
        "channel": {
            "basic": channel("basic"), "key": channel("key"), "query": channel("query"), "jwt": channel("jwt"),
            "opaque": channel("opaque"),
            "wss": {"type": "soap", "path": "/wss", "namespace": "urn:who", "security": "wss",
                "operations": {"Who": "test.who"}, "message_log": {"bodies": "both", "headers": true}},
        },
        "outgoing": {
            "o.basic": outgoing(json!({"security": "basic"})), "o.key": outgoing(json!({"security": "key"})),
            "o.query": outgoing(json!({"security": "query"})), "o.bearer": outgoing(json!({"security": "bearer"})),
            "o.oauth": outgoing(json!({"security": "oauth"})),
            "o.proxy": outgoing(json!({"proxy": {"address": upstream, "security": "proxy"}})),
            "o.tls": outgoing(json!({"address": format!("https://{closed}"),
                "tls": {"ca": pki.certificate(), "certificate": shown.certificate, "key": shown.key}})),
            "o.wss": outgoing(json!({"type": "soap", "wsdl": "files", "address": format!("{upstream}/soap"), "security": "outwss"})),
            "o.sql": {"type": "sql", "engine": "postgresql", "host": "127.0.0.1", "port": 1, "database": "d", "username": "u",
                "password": sql, "connect_deadline_ms": 500},
            "o.amqp": {"type": "amqp", "address": format!("amqp://{closed}/v"), "username": "u", "password": amqp, "deadline_ms": 500},
        },
    })
}

/// Presents everything, right and wrong, to every channel.
fn knock(environment: &Environment) {
    let [basic, key, query, _, jwt, ..] = SECRETS;
    let http = || environment.http();
    let token = with_secret("HS256", jwt.as_bytes(), &json!({"sub": "ada", "exp": unix_now() + 60}));
    let bearer = |token: &str| environment.http().header("authorization", &format!("Bearer {token}"));
    let wss = |password: &str| {
        let token = format!("<w:Username>shop</w:Username><w:Password>{password}</w:Password>");
        http()
            .post("/wss", "text/xml", message("http://schemas.xmlsoap.org/soap/envelope/", &token).as_bytes())
            .unwrap()
    };
    for (status, replies) in [
        (
            200,
            vec![
                http().basic_auth("ada", basic).get("/basic").unwrap(),
                http().header("x-api-key", key).get("/key").unwrap(),
                http().get(&format!("/query?k={query}")).unwrap(),
                bearer(&token).get("/jwt").unwrap(),
                bearer("opaque-cc115e0c").get("/opaque").unwrap(),
                wss(SECRETS[3]),
            ],
        ),
        (
            401,
            vec![
                http().basic_auth("ada", GUESSES[0]).get("/basic").unwrap(),
                http().header("x-api-key", GUESSES[1]).get("/key").unwrap(),
                http().get(&format!("/query?k={}", GUESSES[2])).unwrap(),
                bearer(&format!("{token}x")).get("/jwt").unwrap(),
                bearer(GUESSES[3]).get("/opaque").unwrap(),
            ],
        ),
        (500, vec![wss(GUESSES[0])]),
    ] {
        for (number, reply) in replies.into_iter().enumerate() {
            assert_eq!(reply.status, status, "{number}: {}", reply.text());
        }
    }
}

/// Documents with a secret and a mistake: what is said of the mistake does not repeat the secret.
fn mistakes(environment: &Environment) -> String {
    let basic = SECRETS[0];
    let mut told = String::new();
    for text in [
        format!("security: {{m: {{type: basic_auth, username: u, password: {basic}, colour: red}}}}\n"),
        format!("security: {{m: {{type: basic_auth, username: u, pasword: {basic}}}}}\n"),
        format!("security: {{m: {{type: basic_auth, username: u, password: [{basic}]}}}}\n"),
        format!("security: {{m: {{type: basic_auth, username: u, password: {{value: {basic}}}}}}}\n"),
        format!("security:\n  m: {{type: basic_auth, username: u, password: '{basic}\n"),
        format!("security: {{m: {{type: api_key, name: 'no header', key: {basic}}}}}\n"),
        format!("security: {{m: {{type: jwt, secret: {basic}}}}}\n"),
        format!(
            "outgoing: {{m: {{type: amqp, address: 'http://u:{basic}@x', username: u, password: {basic}}}}}\n"
        ),
        format!("outgoing: {{m: {{type: rest, address: 'https://u:{basic}@x'}}}}\n"),
    ] {
        let outcome = environment.command(&["apply", "-f", "-"]).unwrap().input(text.clone()).run().unwrap();
        assert_ne!(outcome.code, 0, "{text}");
        told += &outcome.stdout;
        told += &outcome.stderr;
    }
    // What a server alone can tell, by its own files, closes the outgoing: that is told as well.
    let nonsense = json!({"outgoing": {"m": {"type": "rest", "address": "https://x", "tls": {"certificate": "c", "key": basic}}}});
    apply(environment, &nonsense);
    told += &environment.run(&["get", "outgoing", "-o", "json"]).unwrap().success().unwrap().stdout;
    assert!(told.contains("certificate"), "{told}");
    environment.run(&["delete", "outgoing", "m"]).unwrap().success().unwrap();
    told
}

/// Adds every file below `path` to `all`, each after its name.
fn read_all(path: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        // What the interpreter brings along, and links to it.
        if path.is_symlink() || path.ends_with("venv") {
            continue;
        }
        if path.is_dir() {
            read_all(&path, all);
        } else if let Ok(content) = fs::read(&path) {
            all.push((path.display().to_string(), content));
        }
    }
}

/// Everything there is to see, from outside and from inside.
fn everything(environment: &Environment, said: String) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![("what was said".to_owned(), said.into_bytes())];
    for arguments in [
        &["export"][..],
        &["get", "security", "-o", "json"],
        &["get", "outgoing", "-o", "json"],
        &["get", "channel", "-o", "yaml"],
        &["status", "-o", "json"],
        &["config", "log", "-o", "json"],
        &["deployment", "list", "-o", "json"],
        &["message", "search", "-n", "1000", "-o", "json"],
        &["logs"],
    ] {
        let outcome = environment.run(arguments).unwrap().success().unwrap();
        all.push((arguments.join(" "), (outcome.stdout + &outcome.stderr).into_bytes()));
    }
    let found = environment.json(&["message", "search", "-n", "1000"]).unwrap();
    for message in found.as_array().unwrap() {
        let shown = environment.run(&["message", "show", message["id"].as_str().unwrap()]).unwrap();
        all.push((format!("message {}", message["id"]), shown.stdout.into_bytes()));
    }
    all.push(("metrics".to_owned(), environment.http().get("/metrics").unwrap().body));
    for repository in ["config", "config/cluster"] {
        let git = Command::new("git")
            .args(["-c", "safe.directory=*", "log", "-p", "--all"])
            .current_dir(environment.server().join(repository))
            .output()
            .unwrap();
        assert!(!git.stdout.is_empty(), "{repository} has commits");
        all.push((format!("commits of {repository}"), git.stdout));
    }
    for process in environment.processes() {
        for file in ["cmdline", "environ"] {
            let path = format!("/proc/{}/{file}", process.pid);
            all.push((path.clone(), fs::read(path).unwrap_or_default()));
        }
    }
    // The operational database, the last good snapshot, logs, segments of the message log, repositories.
    read_all(&environment.server(), &mut all);
    all
}

#[test]
fn no_secret_of_any_kind_is_in_anything_that_is_written_shown_or_said() {
    let environment =
        environment_of(&[("telemetry.metrics_path", "\"/metrics\""), ("log.level", "\"debug\"")]);
    let issuer = Issuer::plain();
    issuer.know(&json!({"opaque-cc115e0c": {"active": true, "username": "ada"}}));
    // It refuses everybody, which is when systems say too much.
    let upstream = Upstream::start(|asked| match asked.target.as_str() {
        "/token" => Said::json(200, &json!({"access_token": "granted-dd225e0c", "expires_in": 3600})),
        _ => Said::json(401, &json!({"no": "entry"})),
    })
    .unwrap();
    let pki = Pki::new("Partners CA").unwrap();
    let all = definitions(&issuer, &upstream.url(), &pki);
    let key = all.pointer("/outgoing/o.tls/tls/key").unwrap().as_str().unwrap().to_owned();
    apply(&environment, &all);
    environment.drop_file("secrets.py", SERVICES).unwrap();
    wait_until("the service is there", || {
        environment.http().get("/call/rest/absent").is_ok_and(|reply| reply.status == 500)
    });
    knock(&environment);
    let mut said = mistakes(&environment);
    for (family, name) in [
        ("rest", "o.basic"),
        ("rest", "o.key"),
        ("rest", "o.query"),
        ("rest", "o.bearer"),
        ("rest", "o.oauth"),
        ("rest", "o.proxy"),
        ("rest", "o.tls"),
        ("soap", "o.wss"),
        ("sql", "o.sql"),
        ("amqp", "o.amqp"),
    ] {
        let reply = environment.http().get(&format!("/call/{family}/{name}")).unwrap();
        assert!((500..=504).contains(&reply.status), "{name}: {} {}", reply.status, reply.text());
        said += &reply.text();
        let ping = environment.run(&["ping", name]).unwrap();
        said += &ping.stdout;
        said += &ping.stderr;
    }
    let presented: String = upstream
        .asked()
        .iter()
        .map(|asked| format!("{} {:?} {}", asked.target, asked.headers, asked.text()))
        .collect();
    for secret in [SECRETS[1], SECRETS[2], SECRETS[6], SECRETS[11], "granted-dd225e0c"] {
        assert!(presented.contains(secret), "{secret} was presented");
    }
    // A new value, and the one before it: a rollback must find it, and nobody else.
    apply(&environment, &json!({"security": {"key": {"type": "api_key", "key": "second-ee335e0c"}}}));
    wait_until("the messages are written", || {
        environment
            .json(&["message", "search", "--channel", "wss"])
            .is_ok_and(|found| found.as_array().unwrap().len() == 2)
    });

    let all = everything(&environment, said);
    let encode = |text: &str| {
        String::from_utf8(openssl(&["base64", "-A"], text.as_bytes()))
            .unwrap()
            .trim_end_matches('=')
            .to_owned()
    };
    let mut wanted: Vec<String> = SECRETS.iter().chain(&GUESSES).map(|secret| (*secret).to_owned()).collect();
    wanted.extend(["granted-dd225e0c", "second-ee335e0c", "opaque-cc115e0c"].map(str::to_owned));
    wanted.push(key.lines().nth(1).unwrap().to_owned());
    wanted.extend(
        [(SECRETS[0], "ada"), (GUESSES[0], "ada"), (SECRETS[10], "via")]
            .map(|(secret, user)| encode(&format!("{user}:{secret}"))),
    );
    let (mut has_definitions, mut has_messages) = (false, false);
    for (name, content) in &all {
        let text = String::from_utf8_lossy(content);
        has_definitions |= text.contains("wss_username_token");
        has_messages |= name.contains("logs/messages");
        for secret in &wanted {
            assert!(!text.contains(secret), "{secret} is in {name}");
        }
    }
    assert!(has_definitions && has_messages, "the right things are searched");
}
