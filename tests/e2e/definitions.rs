//! Definitions and configuration: applied whole or not at all, exported, rolled back, and never with a
//! secret in them.

use std::fs;
use std::path::{Path, PathBuf};

use crosstie_test_support::{Environment, wait_until};
use serde_json::json;

const ECHO: &str = r#"
from crosstie import Service

class Echo(Service):
    name = "demo.echo"

    def handle(self):
        self.response.payload = {"channel": self.channel.name}
"#;

/// An environment in which the service `demo.echo` is deployed without any channel.
fn with_echo() -> Environment {
    let environment = Environment::start().unwrap();
    let path = environment.root().join("echo.py");
    fs::write(&path, ECHO).unwrap();
    environment.run(&["deploy", path.to_str().unwrap()]).unwrap().success().unwrap();
    environment
}

fn channel(name: &str, path: &str, more: &str) -> String {
    format!("  {name}:\n    type: rest\n    path: {path}\n    service: demo.echo\n{more}")
}

fn apply(environment: &Environment, text: &str) -> crosstie_test_support::Outcome {
    environment.command(&["apply", "-f", "-"]).unwrap().input(text).run().unwrap()
}

fn revision(environment: &Environment) -> u64 {
    environment.component().unwrap()["revision"].as_u64().unwrap()
}

#[test]
fn one_error_among_twenty_definitions_applies_nothing_and_every_error_is_listed() {
    let environment = with_echo();
    let before = revision(&environment);
    let directory = tempfile::tempdir().unwrap();
    let good: String = (0..18).map(|n| channel(&format!("good{n}"), &format!("/good/{n}"), "")).collect();
    fs::write(directory.path().join("good.yaml"), format!("channel:\n{good}")).unwrap();
    let bad = "channel:\n".to_owned()
        + &channel("unsecured", "no-slash", "    colour: red\n")
        + &channel("unknown", "/unknown", "    security: nobody.defined\n");
    fs::write(directory.path().join("bad.yaml"), bad).unwrap();

    let refused = environment.run(&["apply", "-f", directory.path().to_str().unwrap()]).unwrap();
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    for place in ["bad.yaml:4", "path", "bad.yaml:6", "colour"] {
        assert!(refused.stderr.contains(place), "{place}: {}", refused.stderr);
    }
    assert!(refused.stdout.is_empty(), "{}", refused.stdout);
    assert_eq!(revision(&environment), before);
    assert_eq!(environment.json(&["get", "channel"]).unwrap(), json!([]));
    assert_eq!(environment.http().get("/good/0").unwrap().status, 404);
}

#[test]
fn errors_of_every_stage_among_twenty_definitions_are_listed_at_once_by_file_and_line() {
    let environment = with_echo();
    let before = revision(&environment);
    let directory = tempfile::tempdir().unwrap();
    let good: String = (0..12).map(|n| channel(&format!("good{n}"), &format!("/good/{n}"), "")).collect();
    fs::write(directory.path().join("a.yaml"), format!("channel:\n{good}")).unwrap();
    let mixed = "\
security:
  keys: {type: api_key, colour: red}
  lost: {type: api_key, key: {ref: security/other/key, version: 3}}
channel:
  fine: {type: rest, path: /fine, service: demo.echo, security: keys}
  both:
    type: rest
    path: no-slash
    service: demo.echo
    security: nobody.defined
  nowhere: {type: rest, path: /nowhere, service: demo.missing}
  clash: {type: rest, path: /good/0, service: demo.echo}
dictionary:
  empty: {}
";
    fs::write(directory.path().join("b.yaml"), mixed).unwrap();
    fs::write(directory.path().join("c.yaml"), "channel:\n  cut: {type: rest\n").unwrap();

    let refused = environment.run(&["apply", "-f", directory.path().to_str().unwrap()]).unwrap();
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    let path = directory.path().display().to_string();
    let places: Vec<_> = refused
        .stderr
        .lines()
        .filter_map(|line| line.trim().strip_prefix(&path)?.strip_prefix('/'))
        .map(|place| place.splitn(3, ':').take(2).collect::<Vec<_>>().join(":"))
        .collect();
    // The clash is told from both sides, as both are being applied.
    let (last, others) = places.split_last().unwrap();
    assert_eq!(
        others,
        ["a.yaml:4", "b.yaml:2", "b.yaml:3", "b.yaml:8", "b.yaml:11", "b.yaml:12", "b.yaml:14"],
        "{}",
        refused.stderr
    );
    assert!(last.starts_with("c.yaml:"), "{}", refused.stderr);
    assert_eq!(revision(&environment), before);
    assert_eq!(environment.json(&["get", "channel"]).unwrap(), json!([]));

    // With every file readable a name that is nowhere is known to be nowhere.
    fs::remove_file(directory.path().join("c.yaml")).unwrap();
    let refused = environment.run(&["apply", "-f", directory.path().to_str().unwrap()]).unwrap();
    assert!(refused.stderr.contains("b.yaml:10: channel/both/security"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("b.yaml:5"), "{}", refused.stderr);
}

#[test]
fn a_reference_to_nothing_is_refused_with_its_place() {
    let environment = with_echo();
    let text = "channel:\n".to_owned() + &channel("unknown", "/unknown", "    security: nobody.defined\n");
    let refused = apply(&environment, &text);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("nobody.defined"), "{}", refused.stderr);
}

#[test]
fn what_is_exported_is_what_can_be_applied() {
    let environment = with_echo();
    let text = "channel:\n".to_owned()
        + &channel("one", "/one", "    methods: [GET]\n")
        + &channel("two", "/two/{id:int}", "")
        + "dictionary:\n  countries:\n    entries: {DE: Germany, 'NO': Norway, \"49\": 1.5}\n";
    apply(&environment, &text).success().unwrap();
    assert_eq!(
        environment.http().get("/one").unwrap().json(),
        json!({"channel": "one"}),
        "applied is served"
    );
    let exported = environment.run(&["export"]).unwrap().success().unwrap().stdout;
    let again = environment.command(&["apply", "-f", "-", "-o", "json"]).unwrap().input(exported.clone());
    let answer = again.run().unwrap().success().unwrap().json().unwrap();
    let actions: Vec<_> =
        answer["definitions"].as_array().unwrap().iter().map(|d| d["action"].clone()).collect();
    assert_eq!(actions, ["unchanged"; 3], "{exported}");

    let dry = environment.command(&["apply", "-f", "-", "--dry-run"]).unwrap();
    let said = dry.input(exported.replace("/one", "/eins")).run().unwrap().success().unwrap().stdout;
    assert!(
        said.starts_with("channel/one would be updated\n") && said.contains("nothing was applied"),
        "{said}"
    );
    assert_eq!(environment.http().get("/one").unwrap().status, 200);

    environment.run(&["delete", "channel", "one"]).unwrap().success().unwrap();
    assert_eq!(environment.http().get("/one").unwrap().status, 404, "deleted is gone");
    assert_eq!(environment.run(&["delete", "channel", "one"]).unwrap().code, 1);
    let yaml = environment.run(&["get", "dictionary", "countries"]).unwrap().success().unwrap().stdout;
    assert!(yaml.contains("Norway"), "{yaml}");
}

/// Every file below `directory` that holds `text`.
fn files_with(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_with(&path, text));
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap();
            if content.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_secret_works_and_is_nowhere_to_be_read() {
    let environment = with_echo();
    let secret = "swordfish-4711-swordfish";
    let text = format!(
        "security:\n  clients:\n    type: basic_auth\n    username: me\n    password: {secret}\nchannel:\n{}",
        channel("locked", "/locked", "    security: clients\n")
    );
    apply(&environment, &text).success().unwrap();
    let unknown = environment.http().get("/locked").unwrap();
    assert_eq!(unknown.status, 401);
    assert!(unknown.header("www-authenticate").starts_with("Basic"), "{:?}", unknown.headers);
    let known = environment.http().basic_auth("me", secret);
    assert_eq!(known.get("/locked").unwrap().status, 200);
    assert_eq!(environment.http().basic_auth("me", "wrong").get("/locked").unwrap().status, 401);

    for command in
        [&["export"][..], &["get", "security", "clients"], &["config", "log", "--definitions"], &["logs"]]
    {
        let said = environment.run(command).unwrap().success().unwrap();
        assert!(!said.stdout.contains(secret), "{command:?}");
    }
    wait_until("the definition is written out", || {
        environment.server().join("config/cluster/security").exists()
    });
    assert_eq!(files_with(&environment.root(), secret), Vec::<PathBuf>::new());

    // An export holds a reference, so what was exported keeps the password there is.
    let exported = environment.run(&["export"]).unwrap().stdout.replace("username: me", "username: you");
    apply(&environment, &exported).success().unwrap();
    assert_eq!(environment.http().basic_auth("you", secret).get("/locked").unwrap().status, 200);
    let left_out = "security:\n  clients:\n    type: basic_auth\n    username: they\n";
    apply(&environment, left_out).success().unwrap();
    assert_eq!(environment.http().basic_auth("they", secret).get("/locked").unwrap().status, 200);
    let nothing_to_keep = "security:\n  others:\n    type: basic_auth\n    username: x\n";
    assert_eq!(apply(&environment, nothing_to_keep).code, 1);
}

#[test]
fn definitions_can_be_brought_back() {
    let environment = with_echo();
    apply(&environment, &("channel:\n".to_owned() + &channel("it", "/before", ""))).success().unwrap();
    let log = ["config", "log", "--definitions"];
    let wanted = revision(&environment);
    let commit_of = |revision: u64| {
        let rows = environment.json(&log).unwrap_or_default();
        let row = rows.as_array()?.iter().find(|row| row["revision"] == revision)?.clone();
        Some(row["commit"].as_str()?.to_owned())
    };
    let commit = crosstie_test_support::wait_for("the commit", || commit_of(wanted));
    apply(&environment, &("channel:\n".to_owned() + &channel("it", "/after", ""))).success().unwrap();
    assert_eq!(environment.http().get("/before").unwrap().status, 404);
    let newest = crosstie_test_support::wait_for("the next commit", || commit_of(wanted + 1));
    let patch =
        environment.run(&["config", "diff", "--definitions", &newest]).unwrap().success().unwrap().stdout;
    assert!(patch.contains("-    path: /before") && patch.contains("+    path: /after"), "{patch}");

    environment.run(&["config", "rollback", "--definitions", &commit]).unwrap().success().unwrap();
    assert_eq!(environment.http().get("/before").unwrap().status, 200);
    assert_eq!(environment.http().get("/after").unwrap().status, 404);
}

#[test]
fn a_hand_edit_of_the_settings_is_accepted_refused_and_rolled_back() {
    let environment = Environment::start().unwrap();
    let log =
        || environment.json(&["config", "log"]).unwrap_or_default().as_array().cloned().unwrap_or_default();
    wait_until("the first settings are committed", || !log().is_empty());
    let first = log()[0]["commit"].as_str().unwrap().to_owned();
    let original = fs::read_to_string(environment.settings_file()).unwrap();

    environment.set("http.openapi_path", "\"/api-docs\"").unwrap();
    assert_eq!(environment.wait_for_status("/api-docs", 200).status, 200);
    wait_until("the edit is committed", || log().len() >= 2);
    let patch = environment.run(&["config", "diff"]).unwrap().success().unwrap().stdout;
    assert!(patch.contains("+openapi_path = \"/api-docs\""), "{patch}");

    environment.set("http.max_headers", "\"many\"").unwrap();
    wait_until("the refusal is in the log", || {
        let said =
            environment.run(&["logs", "--level", "warn"]).map(|outcome| outcome.stdout).unwrap_or_default();
        said.contains("max_headers")
    });
    assert_eq!(environment.http().get("/api-docs").unwrap().status, 200, "what runs is untouched");
    let status = environment.run(&["status"]).unwrap().success().unwrap().stdout;
    let (said, fault) = status.split_once("goes on with earlier settings").expect("status says so");
    assert!(!said.contains("max_headers"), "{status}");
    assert!(fault.contains("\n  config/server.toml:"), "{status}");
    assert!(fault.contains(": http.max_headers: must be a whole number, 10 to 1000"), "{status}");
    assert_eq!(environment.component().unwrap()["refused_settings"].as_array().unwrap().len(), 1);

    environment.run(&["config", "rollback", &first]).unwrap().success().unwrap();
    assert_eq!(fs::read_to_string(environment.settings_file()).unwrap(), original);
    assert_eq!(environment.wait_for_status("/openapi", 200).status, 200);
    assert_eq!(environment.wait_for_status("/api-docs", 404).status, 404);
    assert_eq!(environment.component().unwrap()["refused_settings"], json!([]));
}

#[test]
fn channels_that_stay_closed_do_not_stop_other_changes() {
    let environment = with_echo();
    apply(&environment, &format!("channel:\n{}", channel("open", "/open", ""))).success().unwrap();
    environment.wait_for_status("/open", 200);
    environment.set("security.require_security", "true").unwrap();
    environment.reload().unwrap();
    environment.wait_for_status("/open", 404);

    let key = "security:\n  demo.key:\n    type: api_key\n    key: sesame-open-sesame\nchannel:\n";
    let secured = format!("{key}{}", channel("closed", "/closed", "    security: demo.key\n"));
    apply(&environment, &secured).success().unwrap();
    environment.wait_for_status("/closed", 401);
    environment.wait_for_status("/open", 404);

    let listed = environment.json(&["get", "channel"]).unwrap();
    let states: Vec<_> = listed.as_array().unwrap().iter().map(|row| (&row["name"], &row["state"])).collect();
    assert_eq!(states, [(&json!("closed"), &json!("open")), (&json!("open"), &json!("closed"))], "{listed}");
    assert_eq!(listed[0].get("reasons"), None);
    assert!(listed[1]["reasons"][0].as_str().unwrap().contains("require_security"), "{listed}");
    let closed = environment.component().unwrap()["closed_channels"].clone();
    assert_eq!(closed, json!([{"channel": "open", "reasons": listed[1]["reasons"]}]));
    for command in [&["get", "channel"][..], &["status"]] {
        let said = environment.run(command).unwrap().success().unwrap().stdout;
        assert!(said.contains("The channel open is closed: "), "{said}");
    }
    let another = apply(&environment, &format!("channel:\n{}", channel("other", "/other", "")));
    assert_eq!(another.code, 1, "{}", another.stdout);
}

#[test]
fn a_channel_whose_secret_has_no_value_here_shows_as_closed_with_each_reason() {
    let environment = with_echo();
    let keys: String = ["one", "two"]
        .map(|name| format!("  {name}:\n    type: api_key\n    key: env:CROSSTIE_UNSET_{name}\n"))
        .concat();
    let locked: String = ["one", "two"]
        .map(|name| channel(name, &format!("/{name}"), &format!("    security: {name}\n")))
        .concat();
    let refused = apply(&environment, &format!("security:\n{keys}channel:\n{locked}"));
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    for name in ["one", "two"] {
        let told =
            |line: &&str| line.contains(&format!("channel/{name}: ")) && line.contains("CROSSTIE_UNSET");
        assert_eq!(refused.stderr.lines().filter(told).count(), 1, "{}", refused.stderr);
    }
    let shown = environment.json(&["get", "channel", "one"]).unwrap();
    assert_eq!(shown["state"], "closed", "{shown}");
    assert!(shown["reasons"][0].as_str().unwrap().contains("CROSSTIE_UNSET_one"), "{shown}");
    let status = environment.component().unwrap();
    let closed: Vec<_> =
        status["closed_channels"].as_array().unwrap().iter().map(|row| &row["channel"]).collect();
    assert_eq!(closed, ["one", "two"], "{status}");

    // A restart serves the rest and keeps them closed.
    environment.reload().unwrap();
    wait_until("the server serves the stored revision", || {
        environment.http().get("/one").is_ok_and(|answer| answer.status == 503)
    });
    wait_until("the roll is over", || {
        let status = environment.component().unwrap_or_default();
        let serves = |worker: &serde_json::Value| worker["revision"] == status["revision"];
        status["workers"].as_array().is_some_and(|workers| workers.iter().all(serves))
    });
    let shown = environment.json(&["get", "channel", "one"]).unwrap();
    assert_eq!(shown["state"], "closed", "{shown}");
    environment.run(&["delete", "channel", "one"]).unwrap().success().unwrap();
    environment.run(&["delete", "channel", "two"]).unwrap().success().unwrap();
    let status = environment.component().unwrap();
    assert_eq!(status["closed_channels"], json!([]), "{status}");
}

#[test]
fn the_access_log_shows_queries_without_their_keys() {
    let environment = with_echo();
    let key = "security:\n  demo.key:\n    type: api_key\n    in: query\n    name: api_key\n    key: sesame-open-sesame\n";
    let channel = channel("closed", "/closed", "    security: demo.key\n");
    apply(&environment, &format!("{key}channel:\n{channel}")).success().unwrap();
    environment.wait_for_status("/closed", 401);
    let http = environment.http();
    for (query, status) in [
        ("page=2&api_key=sesame-open-sesame", 200),
        ("%61pi_key=sesame-open-sesame&page=3", 200),
        ("page=4&api_key=sesame-open-nothing", 401),
    ] {
        assert_eq!(http.get(&format!("/closed?{query}")).unwrap().status, status, "{query}");
    }
    // Where no channel is, keys are sent as well.
    assert_eq!(http.get("/nowhere?page=5&api_key=sesame-open-sesame").unwrap().status, 404);
    let access = || fs::read_to_string(environment.server().join("logs/access.log")).unwrap();
    wait_until("all requests in the access log", || access().contains("page=5"));
    for shown in ["page=2&api_key=***", "%61pi_key=***&page=3", "page=4&api_key=***", "page=5&api_key=***"] {
        assert!(access().contains(&format!("\"query\":\"{shown}\"")), "{shown}: {}", access());
    }
    for log in ["access.log", "server.log", "console.log"] {
        let text = fs::read_to_string(environment.server().join("logs").join(log)).unwrap_or_default();
        assert!(!text.contains("sesame"), "{log} shows a key");
    }
}
