//! The command line: exit codes, formats, finding the environment, people and tokens, logs.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crosstie_test_support::command::binary;
use crosstie_test_support::{Command, Environment, Http, wait_until};
use serde_json::{Value, json};

/// A service that writes a line to its log under the cid.
const TALKER: &str = r#"
from crosstie import Service, rest

class Talker(Service):
    """Says a word."""
    name = "demo.talker"
    channels = [rest("GET", "/talk/{word}")]

    def handle(self):
        self.logger.warning("the word is %s", self.request.params["word"])
        self.response.payload = {"word": self.request.params["word"]}
"#;

fn with_talker() -> Environment {
    let environment = Environment::start().unwrap();
    let path = environment.root().join("talker.py");
    fs::write(&path, TALKER).unwrap();
    environment.run(&["deploy", path.to_str().unwrap()]).unwrap().success().unwrap();
    environment
}

#[test]
fn bad_usage_ends_with_two_and_failure_with_one_line_and_one() {
    let empty = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        Command::new().unwrap().current_directory(empty.path()).args(arguments).run().unwrap()
    };
    for arguments in [
        &["--nonsense"][..],
        &["get"],
        &["get", "planet"],
        &["deploy"],
        &["quickstart", "x", "--servers", "3"],
    ] {
        assert_eq!(run(arguments).code, 2, "{arguments:?}");
    }
    for arguments in [&["status"][..], &["get", "channel"], &["start", "/nowhere/at/all"], &["logs"]] {
        let outcome = run(arguments);
        assert_eq!(outcome.code, 1, "{arguments:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("crosstie: ") && outcome.stdout.is_empty(), "{}", outcome.stderr);
    }
    assert_eq!(run(&["--help"]).code, 0);
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completion", shell]).success().unwrap().stdout;
        assert!(script.contains("quickstart") && script.contains("undeploy"), "{shell}");
    }
}

#[test]
fn a_stopped_server_is_named_with_the_way_to_start_it() {
    let environment = Environment::builder().create().unwrap();
    let refused = environment.run(&["deployment", "list"]).unwrap();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("crosstie start"), "{}", refused.stderr);
}

#[test]
fn every_list_is_an_array_and_every_format_is_offered() {
    let environment = with_talker();
    environment.run(&["token", "add", "admin"]).unwrap().success().unwrap();
    for list in [
        &["deployment", "list"][..],
        &["deployment", "history", "talker"],
        &["service", "list"],
        &["get", "channel"],
        &["get", "security"],
        &["config", "log"],
        &["config", "log", "--definitions"],
        &["user", "list"],
        &["token", "list"],
    ] {
        assert!(environment.json(list).unwrap().is_array(), "{list:?}");
        for format in ["table", "yaml"] {
            let outcome = environment.run(&[list, &["-o", format]].concat()).unwrap().success().unwrap();
            assert!(!outcome.stdout.trim().is_empty() && outcome.stderr.is_empty(), "{list:?} {format}");
        }
    }
    let shown = environment.run(&["service", "show", "demo.talker"]).unwrap().success().unwrap();
    assert!(shown.stdout.contains("doc: Says a word."), "{}", shown.stdout);
    let table = environment.run(&["deployment", "list"]).unwrap().stdout;
    assert!(table.starts_with("UNIT ") && table.contains("talker"), "{table}");
}

#[test]
fn the_environment_is_found_by_option_variable_and_current_directory() {
    let environment = Environment::start().unwrap();
    let root = environment.root();
    let list = ["deployment", "list", "-o", "json"];
    let plain = || Command::new().unwrap().args(list);
    assert_eq!(plain().args(["--dir".as_ref(), root.as_os_str()]).run().unwrap().code, 0);
    assert_eq!(plain().environment(&root).run().unwrap().code, 0);
    assert_eq!(plain().current_directory(&root).run().unwrap().code, 0);
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(plain().current_directory(elsewhere.path()).run().unwrap().code, 1);
}

#[test]
fn a_service_is_checked_deployed_invoked_and_undeployed() {
    let environment = Environment::start().unwrap();
    let path = environment.root().join("talker.py");
    fs::write(&path, TALKER).unwrap();
    let path = path.to_str().unwrap().to_owned();

    environment.run(&["service", "check", &path]).unwrap().success().unwrap();
    assert_eq!(environment.json(&["service", "list"]).unwrap(), json!([]), "a check changes nothing");
    let deployed = environment.json(&["deploy", &path, "--unit", "loud.talker"]).unwrap();
    assert_eq!(deployed[0]["services"], json!(["demo.talker"]));
    assert_eq!(
        environment.http().get("/talk/hi").unwrap().json(),
        json!({"word": "hi"}),
        "deployed is served"
    );
    let channels = environment.json(&["get", "channel", "demo.talker:rest:/talk/{word}"]).unwrap();
    assert_eq!(channels["in_code"], true);

    fs::write(&path, "import nothing_of_this_name\n").unwrap();
    for attempt in [&["service", "check", &path][..], &["deploy", &path, "--unit", "loud.talker"]] {
        let refused = environment.run(attempt).unwrap();
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("nothing_of_this_name"), "{}", refused.stderr);
        assert!(refused.stdout.is_empty(), "{}", refused.stdout);
    }
    fs::write(&path, TALKER).unwrap();
    let other = environment.run(&["deploy", &path]).unwrap();
    assert_eq!(other.code, 1, "the service belongs to another unit");
    assert!(other.stderr.contains("loud.talker"), "{}", other.stderr);

    environment.run(&["undeploy", "loud.talker"]).unwrap().success().unwrap();
    assert_eq!(environment.http().get("/talk/hi").unwrap().status, 404, "undeployed is gone");
    let unknown = environment.run(&["undeploy", "loud.talker"]).unwrap();
    assert_eq!(unknown.code, 1);
}

#[test]
fn a_service_is_invoked_with_a_payload_from_anywhere() {
    let environment = Environment::start().unwrap();
    let code = "from crosstie import Service\n\nclass Echo(Service):\n    name = 'demo.echo'\n\n    \
                def handle(self):\n        return {'got': self.request.payload}\n";
    let path = environment.root().join("echo.py");
    fs::write(&path, code).unwrap();
    environment.run(&["deploy", path.to_str().unwrap()]).unwrap().success().unwrap();
    let invoke = ["service", "invoke", "demo.echo"];
    let answer = environment.json(&[&invoke[..], &["--payload", "{\"a\": [1, null]}"]].concat()).unwrap();
    assert_eq!(answer, json!({"got": {"a": [1, null]}}));
    let piped = environment.command(&[&invoke[..], &["--file", "-", "-o", "json"]].concat()).unwrap();
    assert_eq!(piped.input("\"text\"").run().unwrap().json().unwrap(), json!({"got": "text"}));
    let wrong = environment.run(&[&invoke[..], &["--payload", "{"]].concat()).unwrap();
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("not JSON"), "{}", wrong.stderr);
    assert_eq!(environment.run(&["service", "invoke", "demo.nobody"]).unwrap().code, 1);
}

#[test]
fn people_get_what_their_role_allows() {
    let environment = with_talker();
    let ca = environment.ca().unwrap();
    let api = Http::trusting(format!("https://{}", environment.management_address()), &ca).unwrap();
    let release = "/api/v1/services/demo.talker/invoke";

    let added = environment.json(&["user", "add", "vera", "--role", "viewer"]).unwrap();
    let vera = api.clone().basic_auth("vera", added["password"].as_str().unwrap());
    assert_eq!(vera.get("/api/v1/services").unwrap().status, 200);
    assert_eq!(vera.post_json(release, &json!({})).unwrap().status, 403);

    let chosen = environment.command(&["user", "add", "otto", "--role", "operator", "--password-file", "-"]);
    chosen.unwrap().input("correct horse battery\n").run().unwrap().success().unwrap();
    let otto = api.clone().basic_auth("otto", "correct horse battery");
    assert_ne!(otto.post_json(release, &json!({})).unwrap().status, 403);
    assert_eq!(otto.get("/api/v1/users").unwrap().status, 403);
    assert_eq!(api.clone().basic_auth("otto", "wrong").get("/api/v1/services").unwrap().status, 401);

    let issued = environment.json(&["token", "add", "otto", "--role", "viewer", "--days", "1"]).unwrap();
    let bearer = format!("Bearer {}", issued["token"].as_str().unwrap());
    let program = api.clone().header("authorization", &bearer);
    assert_eq!(program.get("/api/v1/services").unwrap().status, 200);
    assert_eq!(program.post_json(release, &json!({})).unwrap().status, 403);
    environment.run(&["token", "delete", issued["id"].as_str().unwrap()]).unwrap().success().unwrap();
    assert_eq!(program.get("/api/v1/services").unwrap().status, 401);

    environment.run(&["user", "change", "vera", "--role", "operator"]).unwrap().success().unwrap();
    assert_ne!(vera.post_json(release, &json!({})).unwrap().status, 403);
    environment.run(&["user", "delete", "vera"]).unwrap().success().unwrap();
    assert_eq!(vera.get("/api/v1/services").unwrap().status, 401);
    let users = environment.json(&["user", "list"]).unwrap();
    let names: Vec<_> = users.as_array().unwrap().iter().map(|user| user["name"].clone()).collect();
    assert_eq!(names, ["admin", "otto"]);
}

#[test]
fn logs_are_shown_filtered_and_followed() {
    let environment = with_talker();
    let reply = environment.http().get("/talk/first").unwrap();
    let cid = reply.header("x-crosstie-cid").to_owned();
    assert_eq!(cid.len(), 32, "{:?}", reply.headers);
    let of_cid = ["logs", "--cid", &cid];
    wait_until("the record is in the log", || {
        environment.run(&of_cid).is_ok_and(|outcome| outcome.stdout.contains("the word is first"))
    });
    let lines = environment.run(&["logs", "--cid", &cid, "-o", "json"]).unwrap().success().unwrap().stdout;
    let record: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(record["service"], "demo.talker");
    wait_until("the request is in the access log", || {
        let access = environment.run(&["logs", "--access", "--cid", &cid, "-o", "json"]).unwrap();
        access.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).any(|entry| {
            entry["status"] == 200 && entry["service"] == "demo.talker" && entry["path"] == "/talk/first"
        })
    });

    let mut follower = std::process::Command::new(binary().unwrap())
        .args(["logs", "-f", "-n", "0", "--service", "demo.talker", "--dir"])
        .arg(environment.root())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    // The follower begins at the end of the log: it has begun when it shows what is said now.
    let words = std::thread::spawn({
        let http = environment.http();
        move || (0..600).take_while(|n| http.get(&format!("/talk/again{n}")).is_ok()).count()
    });
    let shown = lines.next().unwrap().unwrap();
    assert!(shown.contains("the word is again"), "{shown}");
    follower.kill().unwrap();
    follower.wait().unwrap();
    words.join().unwrap();
}

#[test]
fn a_package_of_the_virtual_environment_can_be_imported() {
    let environment = Environment::start().unwrap();
    // A wheel is a zip archive with a manifest; made here, so that the test needs no registry.
    let wheel = environment.root().join("waybill-1-py3-none-any.whl");
    let script = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.writestr("waybill.py", "def number():\n    return 7\n")
    wheel.writestr("waybill-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: waybill\nVersion: 1\n")
    wheel.writestr("waybill-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("waybill-1.dist-info/RECORD", "")
"#;
    let made =
        std::process::Command::new("/usr/bin/python3").args(["-c", script]).arg(&wheel).status().unwrap();
    assert!(made.success());
    environment.run(&["venv", "install", "--no-index", wheel.to_str().unwrap()]).unwrap().success().unwrap();
    let code = "import waybill\nfrom crosstie import Service, rest\n\nclass Number(Service):\n    \
                name = 'demo.number'\n    channels = [rest('GET', '/number')]\n\n    def handle(self):\n        \
                return {'number': waybill.number()}\n";
    environment.drop_file("number.py", code).unwrap();
    environment.wait_for_json("/number", &json!({"number": 7}));
}
