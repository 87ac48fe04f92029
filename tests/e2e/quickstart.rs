//! From nothing to a running environment, and starting, stopping and looking at it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crosstie_test_support::{Command, Environment, PortBase, wait_for, wait_until};
use serde_json::json;

fn quickstart(directory: &Path, ports: &PortBase) -> crosstie_test_support::Outcome {
    let base = ports.number().to_string();
    let directory = directory.to_str().unwrap();
    Command::new().unwrap().args(["quickstart", directory, "--port-base", &base]).run().unwrap()
}

/// The last word of the printed line that begins with `label`.
fn printed(text: &str, label: &str) -> String {
    let line = text.lines().find(|line| line.trim_start().starts_with(label));
    let line = line.unwrap_or_else(|| panic!("no {label:?} in {text}"));
    line.split_whitespace().last().unwrap().to_owned()
}

/// Stops what a test started by hand, also when it fails.
struct Stop<'a>(&'a Path);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let stopped = Command::new().and_then(|command| command.args(["stop".as_ref(), self.0]).run());
        assert!(stopped.is_ok() || std::thread::panicking());
    }
}

#[test]
fn what_quickstart_prints_works() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("env");
    let ports = PortBase::reserve().unwrap();
    let _stop = Stop(&directory);
    let said = quickstart(&directory, &ports).success().unwrap().stdout;

    let curl = said.lines().map(str::trim).find(|line| line.starts_with("curl ")).unwrap();
    let words: Vec<_> = curl.split_whitespace().skip(1).collect();
    let status = std::process::Command::new("curl").args(["-fsS"]).args(&words).output().unwrap().status;
    assert!(status.success(), "{curl}");

    let pickup = printed(&said, "pickup directory");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello/hello.py");
    fs::copy(example, Path::new(&pickup).join("hello.py")).unwrap();
    let http = crosstie_test_support::Http::new(printed(&said, "services "));
    wait_until("the example is served", || {
        let wanted = json!({"text": "Hello Ada", "visits": 0});
        http.get("/hello/Ada").is_ok_and(|reply| reply.status == 200 && reply.json() == wanted)
    });

    let password = fs::read_to_string(printed(&said, "admin password")).unwrap();
    let ca = fs::read(directory.join("client/ca.pem")).unwrap();
    let management = crosstie_test_support::Http::trusting(printed(&said, "management API"), &ca).unwrap();
    assert_eq!(management.get("/api/v1/status").unwrap().status, 401);
    let admin = management.basic_auth("admin", password.trim());
    assert_eq!(admin.get("/api/v1/status").unwrap().status, 200);
}

#[test]
fn quickstart_refuses_what_is_taken_and_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let ports = PortBase::reserve().unwrap();
    let busy = TcpListener::bind(("127.0.0.1", ports.number() + 100)).unwrap();
    let directory = place.path().join("env");
    let refused = quickstart(&directory, &ports);
    assert_eq!(refused.code, 1);
    let port = (ports.number() + 100).to_string();
    assert!(refused.stderr.contains(&port) && refused.stderr.contains("--port-base"), "{}", refused.stderr);
    assert!(!directory.exists(), "a failed quickstart must be repeatable");
    drop(busy);

    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("precious"), "").unwrap();
    let refused = quickstart(&directory, &ports);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("not empty"), "{}", refused.stderr);
    assert!(directory.join("precious").exists());
}

#[test]
fn an_environment_can_be_stopped_and_started_again() {
    let environment = Environment::start().unwrap();
    let repeated = environment.run(&["start"]).unwrap().success().unwrap();
    assert!(repeated.stdout.contains("already runs"), "{}", repeated.stdout);
    let root = environment.root();
    let again = Command::new().unwrap().args(["quickstart".as_ref(), root.as_os_str()]).run().unwrap();
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("environment already"), "{}", again.stderr);

    environment.drop_file("hello.py", include_str!("../../examples/hello/hello.py")).unwrap();
    assert_eq!(environment.wait_for_status("/hello/Ada", 200).status, 200);
    environment.stop().unwrap();
    assert_eq!(environment.supervisor(), None);
    assert_eq!(environment.component().unwrap()["state"], "stopped");
    let repeated = environment.run(&["stop"]).unwrap().success().unwrap();
    assert!(repeated.stdout.contains("does not run"), "{}", repeated.stdout);

    environment.start_again().unwrap();
    assert_eq!(environment.http().get("/hello/Ada").unwrap().status, 200, "ready means ready to serve");
}

#[test]
fn the_status_names_every_worker() {
    let environment = Environment::start().unwrap();
    // A server counts as started when it answers, with its first worker.
    let component = wait_for("every worker is ready", || {
        let component = environment.component().ok()?;
        let workers = component["workers"].as_array()?;
        workers.iter().all(|worker| worker["state"] == "ready").then_some(component)
    });
    assert_eq!(component["name"], "server1");
    assert_eq!(component["kind"], "server");
    assert_eq!(component["state"], "running");
    assert_eq!(component["pid"].as_i64(), environment.supervisor().map(i64::from));
    assert_eq!(component["address"], environment.url(""));
    let workers = component["workers"].as_array().unwrap();
    for worker in workers {
        for key in ["pid", "in_flight", "restarts"] {
            assert!(worker[key].is_u64(), "{key} of {worker}");
        }
        assert!(worker["leader"].is_boolean());
    }
    let singletons = workers.iter().filter(|worker| worker["singleton"] == json!(true)).count();
    assert_eq!(singletons, 1);
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let environment = Environment::builder().create().unwrap();
    environment.set("server.drain_s", "\"soon\"").unwrap();
    environment.set("http.colour", "\"red\"").unwrap();
    let refused = environment.run(&["start"]).unwrap();
    assert_eq!(refused.code, 1);
    for part in ["server.toml:", "drain_s", "colour"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }

    let environment = Environment::builder().create().unwrap();
    let _busy = TcpListener::bind(environment.address()).unwrap();
    let refused = environment.run(&["start"]).unwrap();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains(&environment.address().to_string()), "{}", refused.stderr);
}

#[test]
fn a_certificate_that_ends_soon_is_renewed_at_the_next_start() {
    let environment = Environment::builder().create().unwrap();
    let tls = environment.server().join("tls");
    let (certificate, key) = (tls.join("server.pem"), tls.join("server.key"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
        ])
        .args(["-subj", "/CN=server1"])
        .args(["-out".as_ref(), certificate.as_os_str(), "-keyout".as_ref(), key.as_os_str()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let said = environment.run(&["start"]).unwrap().success().unwrap().stderr;
    assert!(said.contains("renewed"), "{said}");
    assert_eq!(environment.https().unwrap().get("/health/ready").unwrap().status, 200);
    environment.stop().unwrap();
    let said = environment.run(&["start"]).unwrap().success().unwrap().stderr;
    assert!(!said.contains("renewed"), "{said}");
}

#[test]
fn keys_and_passwords_are_their_owners_alone() {
    let environment = Environment::start().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in
        ["client/admin-password", "client/client.key", "server1/tls/server.key", "server1/tls/cluster.key"]
    {
        assert_eq!(mode(&environment.root().join(name)), 0o600, "{name}");
    }
    for name in ["", "ca", "client", "server1", "server1/tls", "server1/work", "server1/pickup"] {
        assert_eq!(mode(&environment.root().join(name)), 0o700, "{name}");
    }
    assert!(!environment.root().join("ca/ca.key").exists(), "the CA's key lies sealed in the database");
}

#[test]
fn the_foreground_server_logs_to_the_terminal_and_ends_with_a_signal() {
    let environment = Environment::builder().create().unwrap();
    let mut child = std::process::Command::new(crosstie_test_support::command::binary().unwrap())
        .args(["start".as_ref(), environment.server().as_os_str(), "--foreground".as_ref()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(environment.wait_for_status("/health/ready", 200).status, 200);
    let pid = i32::try_from(child.id()).unwrap();
    assert_eq!(environment.supervisor(), Some(pid));
    crosstie_test_support::processes::send(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!said.trim().is_empty(), "nothing was logged to the terminal");
}

#[test]
fn everything_listens_on_loopback() {
    let environment = Environment::builder().create().unwrap();
    let text = fs::read_to_string(environment.settings_file()).unwrap();
    let listening: Vec<_> =
        text.lines().filter(|line| line.contains("127.0.0.1:") && !line.starts_with('#')).collect();
    assert_eq!(listening.len(), 3, "{listening:#?}");
    assert!(!text.contains("0.0.0.0"), "{text}");
}
