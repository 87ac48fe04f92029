//! The message log: what channels and outgoings keep is found on every server, shown to whom it may be shown, sent
//! again, bounded, and there after a crash.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crosstie_test_support::upstream::{Said, Upstream};
use crosstie_test_support::{Environment, Http, processes, wait_for, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{members, volume};

const ORDERS: &str = r#"
from crosstie import Service, http, jsonrpc, rest

class Order(Service):
    name = "shop.order"
    channels = [
        rest("POST", "/orders/{number:int}", message_log={"bodies": "both", "headers": True, "mask": ["pin"]}),
        jsonrpc("/rpc", message_log={"bodies": "both"}),
    ]

    def handle(self):
        payload = self.request.payload or {}
        if payload.get("fails"):
            raise ValueError("no")
        user = self.request.security.username if self.request.security else None
        self.response.payload = {
            "number": self.request.http.params.get("number"), "lines": payload.get("lines"), "user": user,
            "query": self.request.http.query.get("a"), "shop": self.request.headers.get("x-shop"),
        }

class Quiet(Service):
    name = "shop.quiet"
    channels = [rest("POST", "/quiet"), rest("POST", "/metadata", message_log={})]

    def handle(self):
        self.response.payload = {"ok": True}

class Stream(Service):
    name = "shop.stream"
    channels = [http("/stream", message_log={"bodies": "both", "max_body_bytes": 7})]

    def handle(self):
        def pieces():
            for number in range(5):
                yield b"piece"
        self.response.payload = pieces()
"#;

const KEPT: &str = "server1/logs/messages";

fn shop() -> Environment {
    let environment = Environment::start().unwrap();
    deploy(&environment);
    environment
}

fn deploy(environment: &Environment) {
    environment.drop_file("orders.py", ORDERS).unwrap();
    let http = environment.http();
    wait_until("the services answer", || {
        http.post_json("/quiet", &json!({})).is_ok_and(|reply| reply.status == 200)
    });
}

/// The kept messages of a cid, once there are so many.
fn kept(environment: &Environment, cid: &str, count: usize) -> Vec<Value> {
    wait_for("the message is kept", || {
        let found = environment.json(&["message", "search", "--cid", cid]).ok()?;
        found.as_array().filter(|messages| messages.len() == count).cloned()
    })
}

fn search(environment: &Environment, arguments: &[&str]) -> Vec<Value> {
    let found = environment.json(&[&["message", "search"], arguments].concat()).unwrap();
    found.as_array().unwrap().clone()
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn holds(path: &Path, needle: &str) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle.as_bytes()))
}

#[test]
fn a_message_is_found_shown_and_sent_again() {
    let environment = shop();
    let http = environment.http().header("x-shop", "north").header("authorization", "Bearer abc");
    let body = json!({"lines": [{"item": "tea"}]});
    let reply = http.post_json("/orders/7?a=1", &body).unwrap();
    let cid = reply.header("x-crosstie-cid").to_owned();
    let messages = kept(&environment, &cid, 1);
    let message = &messages[0];
    assert_eq!(
        (&message["channel"], &message["service"]),
        (&json!("shop.order:rest:/orders/{number:int}"), &json!("shop.order"))
    );
    assert_eq!(
        (&message["status"], &message["path"], &message["server"]),
        (&json!(200), &json!("/orders/7"), &json!("server1"))
    );
    assert!(message["request"]["body"].get("text").is_none(), "a list shows no bodies: {message}");

    let shown = environment.json(&["message", "show", &cid]).unwrap();
    assert_eq!(shown[0]["request"]["body"]["text"], body.to_string());
    assert_eq!(shown[0]["response"]["body"]["text"], reply.text());
    let headers = shown[0]["request"]["headers"].as_array().unwrap();
    assert!(
        headers.contains(&json!(["x-shop", "north"])) && headers.contains(&json!(["authorization", "***"])),
        "{headers:?}"
    );

    let replayed = environment.json(&["message", "replay", &cid]).unwrap();
    assert_eq!((&replayed["status"], &replayed["body"]["text"]), (&json!(200), &json!(reply.text())));
    let again = replayed["cid"].as_str().unwrap();
    assert_ne!(again, cid);
    assert_eq!(kept(&environment, again, 1)[0]["replay_of"], message["id"]);
    wait_until("the replay is in the log with who asked for it", || {
        let log = environment.log_tail("server.log");
        log.lines().any(|line| {
            line.contains("sent through its channel again") && line.contains("author") && line.contains(again)
        })
    });
}

#[test]
fn calls_of_json_rpc_and_streams_are_kept_and_sent_again() {
    let environment = shop();
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "shop.order", "params": {"lines": [2]}});
    let reply = environment.http().post_json("/rpc", &call).unwrap();
    let cid = reply.header("x-crosstie-cid").to_owned();
    assert_eq!(kept(&environment, &cid, 1)[0]["service"], "shop.order");
    let replayed = environment.json(&["message", "replay", &cid]).unwrap();
    assert_eq!(replayed["body"]["text"], reply.text());

    let reply = environment.http().get("/stream").unwrap();
    assert_eq!(reply.text(), "piece".repeat(5));
    let cid = reply.header("x-crosstie-cid").to_owned();
    kept(&environment, &cid, 1);
    let shown = environment.json(&["message", "show", &cid]).unwrap();
    let body = &shown[0]["response"]["body"];
    assert_eq!((&body["text"], &body["length"], &body["kept"]), (&json!("piecepi"), &json!(25), &json!(7)));
    assert!(body["difference"].as_str().unwrap().contains("max_body_bytes"), "{body}");
    let replayed = environment.json(&["message", "replay", &cid]).unwrap();
    assert_eq!(replayed["body"]["text"], "piece".repeat(5));
}

#[test]
fn what_a_channel_does_not_keep_is_not_there() {
    let environment = shop();
    let http = environment.http();
    let quiet = http.post_json("/quiet", &json!({"x": 1})).unwrap();
    let reply = http.post_json("/metadata", &json!({"word": "unkept"})).unwrap();
    let cid = reply.header("x-crosstie-cid").to_owned();
    let message = &kept(&environment, &cid, 1)[0];
    assert!(message.get("request").is_none() && message["bytes_in"].as_u64().unwrap() > 0, "{message}");
    assert!(search(&environment, &["--cid", quiet.header("x-crosstie-cid")]).is_empty());
    assert!(files(&environment.root().join(KEPT)).iter().all(|file| !holds(file, "unkept")));
    let refused = environment.run(&["message", "replay", &cid]).unwrap();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("bodies must be request or both"), "{}", refused.stderr);
    let unknown = "0".repeat(31) + "1";
    for arguments in [["message", "show", &unknown], ["message", "replay", &unknown]] {
        let outcome = environment.run(&arguments).unwrap();
        assert_eq!(outcome.code, 1, "{outcome:?}");
    }
}

#[test]
fn messages_are_found_by_channel_service_status_and_time() {
    let environment = shop();
    let http = environment.http();
    for number in 1..=3 {
        assert_eq!(http.post_json(&format!("/orders/{number}"), &json!({})).unwrap().status, 200);
    }
    let failed = http.post_json("/orders/4", &json!({"fails": true})).unwrap();
    assert_eq!(failed.status, 500);
    http.post_json("/orders/x", &json!({})).unwrap();
    let last = http.post_json("/metadata", &json!({})).unwrap();
    kept(&environment, last.header("x-crosstie-cid"), 1);
    let channel = "shop.order:rest:/orders/{number:int}";
    let paths = |arguments: &[&str]| -> Vec<String> {
        search(&environment, arguments).iter().map(|it| it["path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(paths(&["--channel", channel]), ["/orders/4", "/orders/3", "/orders/2", "/orders/1"]);
    assert_eq!(paths(&["--service", "shop.quiet"]), ["/metadata"]);
    assert_eq!(paths(&["--status", "500"]), ["/orders/4"]);
    assert_eq!(paths(&["--status", "5xx", "--channel", channel]), ["/orders/4"]);
    assert_eq!(paths(&["--failed"]), ["/orders/4"]);
    assert_eq!(paths(&["-n", "2"]), ["/metadata", "/orders/4"]);
    assert_eq!(paths(&["--from", "1h", "-n", "1"]), ["/metadata"]);
    assert!(paths(&["--to", "1h"]).is_empty() && paths(&["--from", "2099-01-01T00:00:00Z"]).is_empty());
    let table = environment.run(&["message", "search", "--failed"]).unwrap().success().unwrap().stdout;
    assert!(table.contains("POST /orders/4") && table.contains("500"), "{table}");
    for wrong in [["--status", "bad"], ["--cid", "x"], ["--from", "yesterday"]] {
        let outcome = environment.run(&[&["message", "search"][..], &wrong].concat()).unwrap();
        assert_ne!(outcome.code, 0, "{wrong:?}");
    }
}

#[test]
fn secrets_are_masked_on_disk_and_such_a_message_is_not_sent_again() {
    let environment = shop();
    let body = json!({"pin": "s3cr3t-pin", "password": "s3cr3t-word", "lines": [1]});
    let http = environment.http().header("x-api-key", "s3cr3t-key").header("cookie", "s3cr3t-cookie");
    let reply = http.post_json("/orders/1?token=s3cr3t-token&a=b", &body).unwrap();
    let cid = reply.header("x-crosstie-cid").to_owned();
    let message = &kept(&environment, &cid, 1)[0];
    assert_eq!(message["query"], "token=***&a=b");
    let shown = environment.json(&["message", "show", &cid]).unwrap();
    assert_eq!(shown[0]["request"]["body"]["text"], r#"{"pin":"***","password":"***","lines":[1]}"#);
    for file in files(&environment.server()) {
        assert!(!holds(&file, "s3cr3t"), "{}", file.display());
    }
    let refused = environment.run(&["message", "replay", &cid]).unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("masked"), "{}", refused.stderr);
}

#[test]
fn bodies_are_for_operators_and_metadata_for_viewers() {
    let environment = shop();
    let reply = environment.http().post_json("/orders/1", &json!({"lines": []})).unwrap();
    let cid = reply.header("x-crosstie-cid").to_owned();
    kept(&environment, &cid, 1);
    let ca = environment.ca().unwrap();
    let api = Http::trusting(format!("https://{}", environment.management_address()), &ca).unwrap();
    let added = environment.json(&["user", "add", "vera", "--role", "viewer"]).unwrap();
    let vera = api.clone().basic_auth("vera", added["password"].as_str().unwrap());
    let (found, shown) = (format!("/api/v1/messages?cid={cid}"), format!("/api/v1/messages/{cid}"));
    let replay = format!("{shown}/replay");
    let asked = vera.get(&found).unwrap();
    assert_eq!((asked.status, asked.json()["messages"].as_array().unwrap().len()), (200, 1));
    assert_eq!(vera.get(&shown).unwrap().status, 403);
    assert_eq!(vera.post_json(&replay, &json!({})).unwrap().status, 403);
    let added = environment.json(&["user", "add", "otto", "--role", "operator"]).unwrap();
    let otto = api.clone().basic_auth("otto", added["password"].as_str().unwrap());
    assert_eq!(otto.get(&shown).unwrap().status, 200);
    assert_eq!(otto.post_json(&replay, &json!({})).unwrap().json()["status"], 200);
    assert_eq!(api.get(&found).unwrap().status, 401);
    wait_until("both are in the log", || {
        let log = environment.log_tail("server.log");
        let told = |text: &str| log.lines().any(|line| line.contains(text) && line.contains("otto"));
        told("kept messages were read") && told("sent through its channel again")
    });
}

#[test]
fn who_sent_a_message_is_who_sends_it_again() {
    let environment = shop();
    let definitions = environment.root().join("clients.yaml");
    let documents = json!({
        "security": {"shops": {"type": "basic_auth", "username": "north", "password": "hush-hush"}},
        "channel": {"orders": {
            "type": "rest", "path": "/secured/{number:int}", "service": "shop.order", "security": "shops",
            "message_log": {"bodies": "request"},
        }},
    });
    fs::write(&definitions, documents.to_string()).unwrap();
    environment.run(&["apply", "-f", definitions.to_str().unwrap()]).unwrap().success().unwrap();
    let http = environment.http().basic_auth("north", "hush-hush");
    let reply = wait_for("the channel answers", || {
        http.post_json("/secured/5", &json!({"lines": 1})).ok().filter(|reply| reply.status == 200)
    });
    assert_eq!(reply.json()["user"], "north");
    let cid = reply.header("x-crosstie-cid").to_owned();
    let message = &kept(&environment, &cid, 1)[0];
    assert_eq!((&message["security"], &message["username"]), (&json!("shops"), &json!("north")));
    let replayed = environment.json(&["message", "replay", message["id"].as_str().unwrap()]).unwrap();
    let answer: Value = serde_json::from_str(replayed["body"]["text"].as_str().unwrap()).unwrap();
    assert_eq!((&answer["user"], &answer["lines"]), (&json!("north"), &json!(1)));

    // A request that was not let in is kept as well, and its repetition is not let in by being one.
    let refused = environment.http().post_json("/secured/6", &json!({"lines": 1})).unwrap();
    assert_eq!(refused.status, 401);
    assert_eq!(kept(&environment, refused.header("x-crosstie-cid"), 1)[0]["status"], 401);
    let outcome = environment.run(&["message", "replay", refused.header("x-crosstie-cid")]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome:?}");

    let other = json!({
        "security": {"others": {"type": "basic_auth", "username": "north", "password": "hush-hush"}},
        "channel": {"orders": {
            "type": "rest", "path": "/secured/{number:int}", "service": "shop.order", "security": "others",
        }},
    });
    fs::write(&definitions, other.to_string()).unwrap();
    environment.run(&["apply", "-f", definitions.to_str().unwrap()]).unwrap().success().unwrap();
    let refused = environment.run(&["message", "replay", &cid]).unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("does not let in"), "{}", refused.stderr);

    environment.run(&["delete", "channel", "orders"]).unwrap().success().unwrap();
    wait_until("the channel is gone", || {
        http.post_json("/secured/5", &json!({})).is_ok_and(|reply| reply.status == 404)
    });
    let refused = environment.run(&["message", "replay", &cid]).unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("does not take"), "{}", refused.stderr);
}

#[test]
fn calls_of_other_systems_stand_under_the_cid_of_the_request() {
    let upstream = Upstream::start(|asked| match asked.target.as_str() {
        "/fine?key=s3cr3t" => Said::json(200, &json!({"password": "s3cr3t", "a": 1})),
        _ => Said { status: 0, ..Said::default() },
    })
    .unwrap();
    let environment = Environment::start().unwrap();
    let definitions = environment.root().join("crm.yaml");
    let documents = json!({"outgoing": {"crm": {
        "type": "rest", "address": upstream.url(), "path": "/{what}",
        "message_log": {"bodies": "both", "mask": ["key"]},
    }}});
    fs::write(&definitions, documents.to_string()).unwrap();
    environment.run(&["apply", "-f", definitions.to_str().unwrap()]).unwrap().success().unwrap();
    let service = "from crosstie import Service, rest\n\nclass Calls(Service):\n    name = \"demo.calls\"\n    \
                   channels = [rest(\"GET\", \"/calls/{what}\", message_log={})]\n\n    def handle(self):\n        \
                   what = self.request.params[\"what\"]\n        \
                   self.response.payload = self.rest[\"crm\"].post({\"b\": 2}, {\"what\": what, \"key\": \"s3cr3t\"}).data\n";
    environment.drop_file("calls.py", service).unwrap();
    let reply = environment.wait_for_status("/calls/fine", 200);
    let cid = reply.header("x-crosstie-cid").to_owned();
    let messages = kept(&environment, &cid, 2);
    let call = messages.iter().find(|message| message["outgoing"] == "crm").unwrap();
    let came = messages.iter().find(|message| message.get("channel").is_some()).unwrap();
    assert!(came["id"].as_str().unwrap().ends_with(call["parent"].as_str().unwrap()), "{call}");
    assert_eq!(
        (&call["status"], &call["path"], &call["query"]),
        (&json!(200), &json!("/fine"), &json!("key=***"))
    );
    let shown = environment.json(&["message", "show", call["id"].as_str().unwrap()]).unwrap();
    assert_eq!(shown[0]["request"]["body"]["text"], r#"{"b":2}"#);
    assert_eq!(shown[0]["response"]["body"]["text"], r#"{"password":"***","a":1}"#);
    let broken = environment.wait_for_status("/calls/broken", 502);
    let messages = kept(&environment, broken.header("x-crosstie-cid"), 2);
    let call = messages.iter().find(|message| message["outgoing"] == "crm").unwrap();
    assert!(call.get("status").is_none() && call["problem"] == "broken", "{call}");
    let of_outgoing = search(&environment, &["--outgoing", "crm", "--failed"]);
    assert_eq!(of_outgoing.len(), 1, "{of_outgoing:?}");
    for file in files(&environment.root().join(KEPT)) {
        assert!(!holds(&file, "s3cr3t"), "{}", file.display());
    }
}

#[test]
fn what_was_answered_a_moment_ago_survives_a_killed_server() {
    let environment = shop();
    let http = environment.http();
    let mut cids = Vec::new();
    for number in 0..volume(2_000, 100) {
        let reply = http.post_json(&format!("/orders/{number}"), &json!({"lines": [number]})).unwrap();
        assert_eq!(reply.status, 200);
        cids.push(reply.header("x-crosstie-cid").to_owned());
    }
    // Written at least every 100 ms: once the last is there, all are.
    kept(&environment, cids.last().unwrap(), 1);
    for pid in environment.ready_workers().unwrap() {
        processes::send(pid, Signal::SIGKILL).unwrap();
    }
    environment.kill_all().unwrap();
    // What a writer did not get to the end of.
    let segment = files(&environment.root().join(KEPT))
        .into_iter()
        .max_by_key(|file| fs::metadata(file).unwrap().len());
    let segment = segment.unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes.extend_from_slice(&[60, 0, 0, 0, 9, 0, 0]);
    fs::write(&segment, bytes).unwrap();
    environment.start_again().unwrap();
    let found = environment.json(&["message", "search", "--service", "shop.order", "-n", "1000"]).unwrap();
    let found: Vec<_> =
        found.as_array().unwrap().iter().map(|it| it["cid"].as_str().unwrap().to_owned()).collect();
    let missing: Vec<_> = cids.iter().rev().take(1_000).filter(|cid| !found.contains(cid)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let reply = wait_for("the service answers again", || {
        http.post_json("/orders/1", &json!({})).ok().filter(|reply| reply.status == 200)
    });
    kept(&environment, reply.header("x-crosstie-cid"), 1);
}

#[test]
fn a_drained_worker_writes_what_it_has() {
    let environment = shop();
    let reply = environment.http().post_json("/orders/1", &json!({})).unwrap();
    environment.stop().unwrap();
    environment.start_again().unwrap();
    assert_eq!(search(&environment, &["--cid", reply.header("x-crosstie-cid")]).len(), 1);
}

#[test]
fn the_log_keeps_to_its_size_and_its_age() {
    let environment = Environment::builder()
        .setting("message_log.max_mib", "1")
        .setting("message_log.max_age_h", "1")
        .start()
        .unwrap();
    deploy(&environment);
    let http = environment.http();
    let body = json!({"lines": "x".repeat(60_000)});
    let mut last = String::new();
    for number in 0..60 {
        last =
            http.post_json(&format!("/orders/{number}"), &body).unwrap().header("x-crosstie-cid").to_owned();
    }
    kept(&environment, &last, 1);
    let directory = environment.root().join(KEPT);
    let size = || {
        files(&directory).iter().filter_map(|file| fs::metadata(file).ok()).map(|it| it.len()).sum::<u64>()
    };
    assert!(size() <= 1024 * 1024 && size() > 200_000, "{} bytes", size());
    assert!(search(&environment, &["--channel", "shop.order:rest:/orders/{number:int}"]).len() < 60);

    environment.stop().unwrap();
    let old = SystemTime::now() - Duration::from_secs(2 * 3_600);
    for file in files(&directory) {
        fs::File::options().append(true).open(file).unwrap().set_modified(old).unwrap();
    }
    environment.start_again().unwrap();
    wait_until("what is too old is gone", || files(&directory).is_empty());
}

#[test]
fn the_messages_of_all_servers_are_searched_and_one_that_is_silent_is_told() {
    let (environment, second) = members::pair();
    deploy(&environment);
    let elsewhere = second.http();
    let reply = wait_for("the second server answers", || {
        elsewhere.post_json("/orders/2", &json!({"lines": [2]})).ok().filter(|reply| reply.status == 200)
    });
    let there = reply.header("x-crosstie-cid").to_owned();
    let here =
        environment.http().post_json("/orders/1", &json!({})).unwrap().header("x-crosstie-cid").to_owned();
    assert_eq!(kept(&environment, &there, 1)[0]["server"], "server2");
    assert_eq!(kept(&environment, &here, 1)[0]["server"], "server1");
    let servers: Vec<_> = search(&environment, &["--service", "shop.order", "-n", "2"])
        .iter()
        .map(|message| message["server"].clone())
        .collect();
    assert_eq!(servers, ["server1", "server2"]);
    assert!(search(&environment, &["--cid", &there, "--server", "server1"]).is_empty());
    let replayed = environment.json(&["message", "replay", &there]).unwrap();
    assert_eq!(replayed["server"], "server2");

    second.kill();
    let partial = environment.run(&["message", "search", "--cid", &here, "-o", "json"]).unwrap();
    assert_eq!(partial.code, 1);
    assert!(partial.stderr.contains("server2") && partial.stdout.contains(&here), "{partial:?}");
}
