//! A file dropped into the pickup directory: noticed, checked, served, swapped, or refused with its reason.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use crosstie_test_support::{Environment, Http, wait_for, wait_until, wrk};
use serde_json::{Value, json};

/// A service `demo.NAME` that answers `{"answer": ANSWER}` at `/NAME`.
pub(crate) fn service(name: &str, answer: &str) -> String {
    format!(
        r#"
from crosstie import Service, rest

class It(Service):
    name = "demo.{name}"
    channels = [rest("GET", "/{name}")]

    def handle(self):
        self.response.payload = {{"answer": {answer:?}}}
"#
    )
}

fn answers(environment: &Environment, name: &str, answer: &str) {
    environment.wait_for_json(&format!("/{name}"), &json!({"answer": answer}));
}

/// Waits until the newest attempt at `unit` was refused and gives its reason.
fn refusal(environment: &Environment, unit: &str) -> String {
    wait_for(&format!("the refusal of {unit}"), || {
        let history = environment.json(&["deployment", "list"]).ok()?;
        let row = history.as_array()?.iter().find(|row| row["unit"] == unit)?.clone();
        let reason = row.pointer("/refused/reason")?;
        reason.as_str().map(str::to_owned)
    })
}

#[test]
fn a_file_is_served_edited_and_kept_when_an_edit_is_broken() {
    let environment = Environment::start().unwrap();
    environment.drop_file("hello.py", include_str!("../../examples/hello/hello.py")).unwrap();
    environment.wait_for_json("/hello/Ada", &json!({"text": "Hello Ada", "visits": 0}));
    let edited = include_str!("../../examples/hello/hello.py").replace("Hello ", "Goodbye ");
    environment.drop_file("hello.py", &edited).unwrap();
    environment.wait_for_json("/hello/Ada", &json!({"text": "Goodbye Ada", "visits": 0}));
    environment.drop_file("hello.py", "def broken(:\n").unwrap();
    let reason = refusal(&environment, "hello");
    assert!(reason.contains("hello.py"), "{reason}");
    let still = environment.http().get("/hello/Ada").unwrap();
    assert_eq!(still.json(), json!({"text": "Goodbye Ada", "visits": 0}));
}

#[test]
fn every_way_of_writing_a_file_is_noticed() {
    let environment = Environment::start().unwrap();
    let pickup = environment.pickup();

    fs::write(pickup.join("written.py"), service("written", "in place")).unwrap();
    answers(&environment, "written", "in place");

    // mv from another directory of the same file system: what sed -i and careful uploaders do.
    fs::write(environment.root().join("renamed.py"), service("renamed", "by rename")).unwrap();
    fs::rename(environment.root().join("renamed.py"), pickup.join("renamed.py")).unwrap();
    answers(&environment, "renamed", "by rename");

    // Through a temporary name in the directory itself: what rsync does.
    fs::write(pickup.join(".synced.py.Xy12"), service("synced", "by rsync")).unwrap();
    fs::rename(pickup.join(".synced.py.Xy12"), pickup.join("synced.py")).unwrap();
    answers(&environment, "synced", "by rsync");

    // Slowly, with a pause in the middle of a statement much longer than any debounce.
    let text = service("slow", "at last");
    let (first, second) = text.split_at(text.len() / 2);
    let mut file = fs::File::create(pickup.join("slow.py")).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    file.sync_all().unwrap();
    // Another file that is dropped meanwhile shows that the directory is being looked at.
    environment.drop_file("meanwhile.py", &service("meanwhile", "here")).unwrap();
    answers(&environment, "meanwhile", "here");
    file.write_all(second.as_bytes()).unwrap();
    drop(file);
    answers(&environment, "slow", "at last");
    let list = environment.run(&["deployment", "list"]).unwrap();
    assert!(!list.stdout.contains("refused"), "half a file was deployed: {}", list.stdout);
}

#[test]
fn a_file_that_fails_on_import_harms_nobody() {
    let environment = Environment::builder().setting("deploy.check_timeout_ms", "3000").start().unwrap();
    environment.drop_file("good.py", &service("good", "fine")).unwrap();
    answers(&environment, "good", "fine");
    let bad: [(&str, &[u8]); 7] = [
        ("empty", b""),
        ("binary", b"\x00\xff\xfe\x80\x00binary"),
        ("syntax", b"class :\n"),
        ("raises", b"raise RuntimeError('no luck')\n"),
        ("hangs", b"while True: pass\n"),
        ("exits", b"import sys; sys.exit(0)\n"),
        (
            "thief",
            br#"
from crosstie import Service
class Thief(Service):
    name = "demo.good"
    def handle(self):
        pass
"#,
        ),
    ];
    for (name, content) in bad {
        fs::write(environment.pickup().join(format!("{name}.py")), content).unwrap();
    }
    for (name, _) in bad {
        let reason = refusal(&environment, name);
        assert!(!reason.is_empty(), "{name}");
    }
    assert!(refusal(&environment, "raises").contains("no luck"));
    assert!(refusal(&environment, "thief").contains("good"));
    answers(&environment, "good", "fine");
}

#[test]
fn a_package_is_one_unit_and_modules_of_one_name_never_meet() {
    let environment = Environment::start().unwrap();
    for unit in ["red", "blue"] {
        let staged = environment.root().join(unit);
        fs::create_dir(&staged).unwrap();
        fs::write(staged.join("colour.py"), format!("NAME = {unit:?}\n")).unwrap();
        let main = service(unit, "x")
            .replace("from crosstie import", "from . import colour\nfrom crosstie import")
            .replace("\"x\"", "colour.NAME");
        fs::write(staged.join("__init__.py"), main).unwrap();
        fs::rename(&staged, environment.pickup().join(unit)).unwrap();
    }
    answers(&environment, "red", "red");
    answers(&environment, "blue", "blue");
}

#[test]
fn a_library_change_redeploys_the_units_that_use_it() {
    let environment = Environment::start().unwrap();
    let library = environment.pickup().join("lib");
    fs::create_dir_all(&library).unwrap();
    fs::write(library.join("wording.py"), "TEXT = 'first'\n").unwrap();
    let user = service("worded", "x")
        .replace("from crosstie import", "import wording\nfrom crosstie import")
        .replace("\"x\"", "wording.TEXT");
    wait_until("the library", || environment.run(&["deployment", "list"]).unwrap().stdout.contains("lib"));
    environment.drop_file("worded.py", &user).unwrap();
    answers(&environment, "worded", "first");
    fs::write(library.join("wording.py"), "TEXT = 'second'\n").unwrap();
    answers(&environment, "worded", "second");
    // A library that breaks a unit that uses it is refused whole.
    fs::write(library.join("wording.py"), "raise ValueError('broken library')\n").unwrap();
    assert!(refusal(&environment, "lib").contains("broken library"));
    answers(&environment, "worded", "second");
}

#[test]
fn files_that_came_while_the_server_was_down_are_deployed_and_a_rollback_survives() {
    let environment = Environment::start().unwrap();
    environment.drop_file("kept.py", &service("kept", "one")).unwrap();
    answers(&environment, "kept", "one");
    environment.drop_file("kept.py", &service("kept", "two")).unwrap();
    answers(&environment, "kept", "two");
    environment.drop_file("gone.py", &service("gone", "here")).unwrap();
    answers(&environment, "gone", "here");
    environment.run(&["deployment", "rollback", "kept"]).unwrap().success().unwrap();
    answers(&environment, "kept", "one");
    environment.run(&["undeploy", "gone"]).unwrap().success().unwrap();
    environment.wait_for_status("/gone", 404);

    environment.stop().unwrap();
    fs::write(environment.pickup().join("late.py"), service("late", "while down")).unwrap();
    environment.start_again().unwrap();
    answers(&environment, "late", "while down");
    answers(&environment, "kept", "one");
    assert_eq!(environment.http().get("/gone").unwrap().status, 404);
}

#[test]
fn redeploys_under_load_lose_no_request() {
    let seconds = crate::volume(60, 10);
    let environment = Environment::start().unwrap();
    environment.drop_file("busy.py", &service("busy", "0")).unwrap();
    answers(&environment, "busy", "0");
    let mut load = wrk::Load::new(environment.url("/busy"), Duration::from_secs(seconds)).start().unwrap();
    let mut version = 0;
    while load.is_running() {
        version += 1;
        environment.drop_file("busy.py", &service("busy", &version.to_string())).unwrap();
        answers(&environment, "busy", &version.to_string());
    }
    let report = load.finish().unwrap();
    assert!(
        report.lost_nothing(),
        "{report:?} over {version} versions\n{}",
        unsuccessful(&environment, "/busy")
    );
    assert!(version > 1, "only {version} versions in {seconds} s");
}

/// What the access log says of requests for `path` that did not succeed, and what the server's log says of
/// them.
fn unsuccessful(environment: &Environment, path: &str) -> String {
    let log = |name| fs::read_to_string(environment.server().join("logs").join(name)).unwrap_or_default();
    let (access, server) = (log("access.log"), log("server.log"));
    let mut found = String::new();
    for line in access.lines() {
        let Ok(request) = serde_json::from_str::<Value>(line) else { continue };
        let failed = request["status"].as_u64().is_some_and(|status| !(200..400).contains(&status));
        // 499: the caller went away, as wrk does in the end. The test's own client, unlike wrk, has a name.
        let of_load = request["status"] != 499 && request["user_agent"].is_null();
        if request["path"] != path || !failed || !of_load {
            continue;
        }
        let cid = request["cid"].as_str().unwrap_or("no cid");
        found += &format!("{line}\n");
        server.lines().filter(|line| line.contains(cid)).for_each(|line| found += &format!("  {line}\n"));
    }
    found
}

/// A service that answers its version at `/versioned` and at a path that only this version has.
fn versioned(version: u64) -> String {
    format!(
        r#"
from crosstie import Service, rest

class It(Service):
    name = "demo.versioned"
    channels = [rest("GET", "/versioned"), rest("GET", "/only/{version}")]

    def handle(self):
        self.response.payload = {{"version": {version}}}
"#
    )
}

#[test]
fn all_workers_change_over_at_once() {
    let rounds = crate::volume(1000, 25);
    let environment = Environment::builder().setting("server.workers", "4").start().unwrap();
    environment.drop_file("versioned.py", &versioned(0)).unwrap();
    environment.wait_for_status("/only/0", 200);
    // Each keeps a connection, and so its worker, for as long as it is asked.
    let clients: Vec<Http> = (0..16).map(|_| environment.http()).collect();
    let mut load = wrk::Load::new(environment.url("/versioned"), Duration::from_secs(600)).start().unwrap();
    for version in 1..=rounds {
        let only = format!("/only/{version}");
        environment.drop_file("versioned.py", &versioned(version)).unwrap();
        // Asked without a pause between, so that the first answer is seen within moments of the change.
        let mut asked = clients.iter().cycle();
        wait_until(&format!("version {version}"), || {
            asked.by_ref().take(200).any(|client| client.get(&only).unwrap().status == 200)
        });
        for client in &clients {
            assert_eq!(client.get(&only).unwrap().status, 200, "{only} is not known to every worker");
            let answer = client.get("/versioned").unwrap().json();
            assert_eq!(answer, json!({"version": version}), "an old version answered after the new one");
        }
    }
    assert!(load.is_running());
    let report = load.finish_early().unwrap();
    assert!(report.lost_nothing(), "{report:?}\n{}", unsuccessful(&environment, "/versioned"));
}

#[test]
fn what_callers_do_wrong_is_a_400_that_says_where() {
    let environment = Environment::start().unwrap();
    environment
        .drop_file(
            "typed.py",
            r#"
from crosstie import Model, Service, rest

class Person(Model):
    name: str
    age: int

class Typed(Service):
    name = "demo.typed"
    channels = [rest("POST", "/typed", max_body_bytes=1000)]
    input = Person
    output = Person

    def handle(self):
        self.response.payload = self.request.input
"#,
        )
        .unwrap();
    let http = environment.http();
    let post = |body: &[u8]| http.post("/typed", "application/json", body).unwrap();
    wait_until("the service", || post(br#"{"name":"Ada","age":36}"#).status == 200);
    assert_eq!(post(br#"{"name":"Ada","age":36}"#).json(), json!({"name": "Ada", "age": 36}));
    assert_eq!(post(b"{\"name\": ").status, 400);
    let faulty = post(br#"{"age": "old"}"#);
    assert_eq!(faulty.status, 400);
    let problem: Value = faulty.json();
    let pointers: Vec<_> = problem["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| fault["pointer"].as_str().unwrap().to_owned())
        .collect();
    assert!(pointers.iter().any(|pointer| pointer == "/age"), "{problem}");
    assert!(problem.to_string().contains("name"), "{problem}");
    assert_eq!(post(&vec![b' '; 5000]).status, 413);
    let chunked = crosstie_test_support::http::raw(
        environment.address(),
        b"POST /typed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\
          Connection: close\r\n\r\n8\r\n{\"name\":\r\nf\r\n\"Ada\",\"age\":36}\r\n0\r\n\r\n",
        Duration::from_secs(5),
    )
    .unwrap();
    assert!(chunked.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&chunked));
}
