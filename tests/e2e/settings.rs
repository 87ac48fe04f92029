//! Settings whose effect shows only in a whole server: each test fails where its setting is not obeyed.
//! Limits of requests are tried in `crosstie-channels`, those of handlers in `crosstie-runtime`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crosstie_test_support::{Environment, processes, wait_until};
use nix::sys::signal::Signal;

fn service(name: &str, body: &str) -> String {
    format!(
        "from crosstie import Service, rest\n\nclass Named(Service):\n    name = \"demo.{name}\"\n    \
         channels = [rest(\"GET\", \"/{name}\")]\n\n    def handle(self):\n        {body}\n"
    )
}

/// Deploys `count` units one after the other, which takes far longer than a file needs from the pickup
/// directory to its answer.
fn deploy_others(environment: &Environment, count: u32) {
    for number in 0..count {
        let path = environment.root().join(format!("other{number}.py"));
        fs::write(&path, service(&format!("other{number}"), "return 1")).unwrap();
        environment.run(&["deploy", path.to_str().unwrap()]).unwrap().success().unwrap();
    }
}

/// A collector of traces: keeps the body of every POST.
struct Collector {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let kept = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || while Self::take(&stream, &kept).is_some() {});
            }
        });
        Self { address, bodies }
    }

    fn take(stream: &TcpStream, kept: &Mutex<Vec<Vec<u8>>>) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        kept.lock().unwrap().push(body);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        (&*stream).write_all(answer).ok()
    }

    /// How often `needle` is in what arrived.
    fn count(&self, needle: &[u8]) -> usize {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().map(|body| body.windows(needle.len()).filter(|window| *window == needle).count()).sum()
    }
}

#[test]
fn traces_go_where_the_settings_say_and_as_many_as_they_say() {
    let collector = Collector::start();
    let environment = Environment::builder()
        .setting("server.workers", "1")
        .setting("telemetry.otlp_endpoint", &format!("\"http://{}/v1/traces\"", collector.address))
        .setting("telemetry.otlp_sample", "0.0")
        .start()
        .unwrap();
    environment.drop_file("traced.py", &service("traced", "return 1")).unwrap();
    environment.wait_for_status("/traced", 200);
    for _ in 0..20 {
        assert_eq!(environment.http().get("/traced").unwrap().status, 200);
    }
    let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = environment.http().header("traceparent", sampled).get("/traced").unwrap();
    assert_eq!(answer.header("x-crosstie-cid"), "4bf92f3577b34da6a3ce929d0e0e4736");
    let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
    wait_until("the caller's trace is exported", || collector.count(&trace) == 1);
    // One worker sends its spans in their order, so whatever came before would be there.
    let spans = || collector.count(b"url.path");
    assert_eq!(spans(), 1, "traces begun here are not sampled");

    environment.set("telemetry.otlp_sample", "1.0").unwrap();
    wait_until("traces begun here are exported", || environment.http().get("/traced").is_ok() && spans() > 1);
    assert_eq!(collector.count(&trace), 1);
}

#[test]
fn the_pickup_directory_can_be_switched_off() {
    let environment = Environment::builder().setting("deploy.pickup", "false").start().unwrap();
    environment.drop_file("dropped.py", &service("dropped", "return 1")).unwrap();
    deploy_others(&environment, 5);
    assert_eq!(environment.http().get("/dropped").unwrap().status, 404);
    environment.set("deploy.pickup", "true").unwrap();
    environment.wait_for_status("/dropped", 200);
}

#[test]
fn a_file_whose_writer_does_not_say_that_it_finished_is_left_alone_for_as_long_as_the_settings_say() {
    let environment = Environment::builder().setting("deploy.debounce_ms", "60000").start().unwrap();
    environment.drop_file("renamed.py", &service("renamed", "return 1")).unwrap();
    environment.wait_for_status("/renamed", 200);
    // A hard link is neither closed nor renamed.
    let elsewhere = environment.root().join("linked.py");
    fs::write(&elsewhere, service("linked", "return 1")).unwrap();
    fs::hard_link(&elsewhere, environment.pickup().join("linked.py")).unwrap();
    deploy_others(&environment, 5);
    assert_eq!(environment.http().get("/linked").unwrap().status, 404);
    environment.set("deploy.debounce_ms", "10").unwrap();
    environment.wait_for_status("/linked", 200);
}

#[test]
fn a_check_has_no_more_memory_than_the_settings_say() {
    let environment = Environment::builder().setting("deploy.check_memory_mib", "512").start().unwrap();
    let path = environment.root().join("greedy.py");
    let greedy = format!("hoard = bytearray(700 << 20)\ndel hoard\n{}", service("greedy", "return 1"));
    fs::write(&path, greedy).unwrap();
    let refused = environment.run(&["deploy", path.to_str().unwrap()]).unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.to_lowercase().contains("memory"), "{}", refused.stderr);
    environment.set("deploy.check_memory_mib", "2048").unwrap();
    wait_until("a check has more memory", || {
        environment.run(&["deploy", path.to_str().unwrap()]).unwrap().code == 0
    });
}

#[test]
fn no_more_connections_wait_in_the_kernel_than_the_settings_say() {
    let environment = Environment::builder().setting("server.backlog", "2").start().unwrap();
    let workers = environment.ready_workers().unwrap();
    for worker in &workers {
        processes::send(*worker, Signal::SIGSTOP).unwrap();
    }
    let connect = |_| TcpStream::connect_timeout(&environment.address(), Duration::from_millis(500)).ok();
    let waiting: Vec<_> = (0..20).map_while(connect).collect();
    for worker in &workers {
        processes::send(*worker, Signal::SIGCONT).unwrap();
    }
    // Linux lets one more wait than it is told, and a worker may have had its hand out already.
    assert!((2..10).contains(&waiting.len()), "{} connections", waiting.len());
}

/// A keep-alive connection that has carried one request.
fn idle_connection(environment: &Environment) -> TcpStream {
    let mut stream = TcpStream::connect(environment.address()).unwrap();
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(b"true}") {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
    }
    stream
}

#[test]
fn idle_connections_of_a_draining_worker_stay_as_long_as_the_settings_say() {
    let environment = Environment::builder().setting("server.drain_linger_s", "0").start().unwrap();
    let mut idle = idle_connection(&environment);
    environment.reload().unwrap();
    // By default it is 6 s; the workers are replaced in less than one.
    idle.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(idle.read(&mut [0; 16]).expect("the connection is closed at once"), 0);
}

#[test]
fn a_stop_waits_for_requests_no_longer_than_the_settings_say() {
    let environment = Environment::builder().setting("server.drain_s", "1").start().unwrap();
    let path = environment.root().join("endless.py");
    fs::write(&path, service("endless", "import time; time.sleep(25); return 1")).unwrap();
    environment.run(&["deploy", path.to_str().unwrap()]).unwrap().success().unwrap();
    let http = environment.http();
    let asked = std::thread::spawn(move || http.get("/endless").map(|reply| reply.status));
    wait_until("the request is in hand", || {
        environment.component().unwrap()["workers"]
            .as_array()
            .unwrap()
            .iter()
            .any(|worker| worker["in_flight"].as_u64() == Some(1))
    });
    environment.stop().unwrap();
    let answer = asked.join().unwrap();
    assert!(!matches!(answer, Ok(200)), "the request was waited for: {answer:?}");
}

#[test]
fn logs_look_are_rotated_and_kept_as_the_settings_say() {
    let environment = Environment::builder()
        .setting("log.format", "\"text\"")
        .setting("log.level", "\"debug\"")
        .setting("log.access", "false")
        .setting("log.rotate_mib", "1")
        .setting("log.keep", "2")
        .start()
        .unwrap();
    let body = "for _ in range(30): self.logger.debug('x' * 60_000)\n        return 1";
    environment.drop_file("chatty.py", &service("chatty", body)).unwrap();
    environment.wait_for_status("/chatty", 200);
    let logs = environment.server().join("logs");
    let files = |stem: &str| -> Vec<String> {
        let names =
            fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(stem) && name != &format!("{stem}.log")).collect()
    };
    wait_until("as many files were rotated as are kept", || {
        let _ = environment.http().get("/chatty");
        files("server").len() == 2
    });
    for _ in 0..5 {
        assert_eq!(environment.http().get("/chatty").unwrap().status, 200);
        assert!(files("server").len() <= 2, "{:?}", files("server"));
    }
    let text = fs::read_to_string(logs.join(&files("server")[0])).unwrap();
    assert!(text.contains(" DEBUG ") && text.contains("service=demo.chatty"), "{}", &text[..1000]);
    assert!(serde_json::from_str::<serde_json::Value>(text.lines().next().unwrap()).is_err());
    assert_eq!(fs::metadata(logs.join("access.log")).map_or(0, |file| file.len()), 0);

    environment.set("log.access", "true").unwrap();
    wait_until("requests are logged", || {
        let _ = environment.http().get("/health/live");
        fs::metadata(logs.join("access.log")).is_ok_and(|file| file.len() > 0)
    });
}

#[test]
fn certificates_and_keys_lie_where_the_settings_say() {
    let environment = Environment::builder()
        .setting("security.ca", "\"tls/root.pem\"")
        .setting("security.certificate", "\"tls/own.pem\"")
        .setting("security.key", "\"tls/own.key\"")
        .setting("security.cluster_key", "\"tls/seal.key\"")
        .create()
        .unwrap();
    let tls = environment.server().join("tls");
    for (from, to) in [
        ("ca.pem", "root.pem"),
        ("server.pem", "own.pem"),
        ("server.key", "own.key"),
        ("cluster.key", "seal.key"),
    ] {
        fs::rename(tls.join(from), tls.join(to)).unwrap();
    }
    environment.start_again().unwrap();
    assert_eq!(environment.https().unwrap().get("/health/live").unwrap().status, 200);
    // The management API takes the client's certificate by the CA, and a secret is sealed with the key.
    let sealed = "security:\n  kept: {type: api_key, key: sesame-open-sesame}\n";
    environment.command(&["apply", "-f", "-"]).unwrap().input(sealed).run().unwrap().success().unwrap();
    assert!(!tls.join("server.pem").exists() && !tls.join("cluster.key").exists());
}

#[test]
fn the_audit_is_kept_for_as_long_as_the_settings_say() {
    let environment = Environment::builder().setting("cluster.audit_days", "2").start().unwrap();
    for number in 0..3 {
        let text = format!("dictionary:\n  d{number}: {{entries: {{a: 1}}}}\n");
        environment.command(&["apply", "-f", "-"]).unwrap().input(text).run().unwrap().success().unwrap();
    }
    environment.stop().unwrap();
    let database = environment.root().join("odb.sqlite");
    // Two changes of three days ago, and one of yesterday.
    let aged = "UPDATE audit SET time_us = time_us - 86400000000 * CASE WHEN revision < 3 THEN 3 ELSE 1 END";
    sqlite(&database, aged);
    environment.start_again().unwrap();
    wait_until("old changes are forgotten", || sqlite(&database, "SELECT min(revision) FROM audit") == "3");
    assert_eq!(environment.json(&["get", "dictionary"]).unwrap().as_array().unwrap().len(), 3);
}

fn sqlite(database: &Path, statement: &str) -> String {
    let said = std::process::Command::new("sqlite3").arg(database).arg(statement).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

#[test]
fn as_many_workers_run_and_as_many_handlers_as_the_settings_say() {
    let environment = Environment::builder()
        .setting("server.workers", "3")
        .setting("python.handler_threads", "1")
        .setting("python.queue", "0")
        .start()
        .unwrap();
    wait_until("three workers are ready", || environment.ready_workers().unwrap().len() == 3);
    environment.drop_file("nap.py", &service("nap", "import time; time.sleep(0.5); return 1")).unwrap();
    environment.wait_for_status("/nap", 200);
    // Three handlers and no queue: of ten requests at once some are refused.
    let asked: Vec<_> = (0..10)
        .map(|_| {
            let http = environment.http();
            std::thread::spawn(move || http.get("/nap").unwrap())
        })
        .collect();
    let answers: Vec<_> = asked.into_iter().map(|thread| thread.join().unwrap()).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!((4..10).contains(&refused.len()), "{} refused", refused.len());
    assert!(refused.iter().all(|answer| !answer.header("retry-after").is_empty()));
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 503)));
}

#[test]
fn packages_are_installed_and_found_where_the_settings_say() {
    let environment = Environment::builder().setting("python.venv", "\"packages\"").create().unwrap();
    let source = environment.root().join("waybill");
    fs::create_dir(&source).unwrap();
    let wheel = source.join("waybill-1-py3-none-any.whl");
    let script = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.writestr("waybill.py", "NUMBER = 7\n")
    wheel.writestr("waybill-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: waybill\nVersion: 1\n")
    wheel.writestr("waybill-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("waybill-1.dist-info/RECORD", "")
"#;
    let made =
        std::process::Command::new("/usr/bin/python3").args(["-c", script]).arg(&wheel).status().unwrap();
    assert!(made.success());
    let install = ["venv", "install", "--no-index", wheel.to_str().unwrap()];
    environment.run(&install).unwrap().success().unwrap();
    assert!(environment.server().join("packages/bin/python").exists());
    environment.start_again().unwrap();
    let code = service("waybill", "import waybill; return {\"number\": waybill.NUMBER}");
    environment.drop_file("number.py", &code).unwrap();
    environment.wait_for_status("/waybill", 200);
}
