//! Starting a supervisor, talking to its workers, and waiting for what should happen.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crosstie_process::pidfile::{self, Signal};
use crosstie_process::privilege;
use crosstie_process::supervisor::{self, ListenerSpec, Origin, Plan};
use serde_json::{Value, json};

/// Names the directory of a supervisor to be.
pub(crate) const DIRECTORY_VARIABLE: &str = "CROSSTIE_TEST_SUPERVISOR";

/// What supervisors are started from, in their directory.
pub(crate) const PROGRAM: &str = "program";

/// Only detects hangs; nothing is timed by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// The supervisor's role: runs what `plan.json` in the directory says.
pub(crate) fn supervise(directory: PathBuf) -> ExitCode {
    let mut origin = Origin::of_this_process().unwrap();
    let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap();
    tracing_subscriber::fmt().with_ansi(false).with_writer(Mutex::new(log)).init();
    let plan = read_plan(&directory).unwrap();
    let standing = privilege::Standing::choose(&directory, &directory, user(&directory).as_deref()).unwrap();
    if let privilege::Standing::Drop(user) = standing {
        origin.bind_and_drop(&plan, &user).unwrap();
    }
    supervisor::run(plan, origin, Box::new(move || read_plan(&directory)))
}

/// Whom the plan wants the server to become; whoever it is started as when it says nothing.
fn user(directory: &Path) -> Option<String> {
    let plan: Value =
        serde_json::from_str(&fs::read_to_string(directory.join("plan.json")).unwrap()).unwrap();
    Some(plan["user"].as_str().unwrap_or("root").to_owned())
}

fn read_plan(directory: &Path) -> Result<Plan, String> {
    let text = fs::read_to_string(directory.join("plan.json")).map_err(|error| error.to_string())?;
    let plan: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let number = |key: &str| plan[key].as_u64().unwrap();
    Ok(Plan {
        server: "server1".into(),
        directory: directory.to_owned(),
        listeners: vec![ListenerSpec {
            name: "http",
            address: plan["address"].as_str().unwrap().parse().unwrap(),
            backlog: 128,
        }],
        workers: u16::try_from(number("workers")).unwrap(),
        drain: Duration::from_millis(number("drain_ms")),
        restart_budget: u32::try_from(number("budget")).unwrap(),
        worker_arguments: vec![directory.into(), plan["mark"].as_str().unwrap().into()],
        upgrade: Duration::from_millis(number("upgrade_ms")),
        successor_arguments: Vec::new(),
    })
}

/// A server under test. Killed with all its workers when dropped; prints its log if the test failed.
pub(crate) struct Server {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    process: Child,
    plan: Value,
}

impl Server {
    /// Starts `workers` workers and waits until all serve.
    pub(crate) fn start(workers: u16) -> Self {
        Self::start_with(workers, json!({}), &[])
    }

    /// Likewise, with changes to the plan and variables for the supervisor.
    pub(crate) fn start_with(workers: u16, changes: Value, variables: &[(&str, &str)]) -> Self {
        Self::start_at(free_address(), workers, changes, variables)
    }

    /// Likewise, listening on `address`.
    pub(crate) fn start_at(
        address: SocketAddr,
        workers: u16,
        changes: Value,
        variables: &[(&str, &str)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut plan = json!({
            "workers": workers, "drain_ms": 30_000, "budget": 1000, "mark": "first", "upgrade_ms": 30_000, "address": address.to_string(),
        });
        merge(&mut plan, changes);
        fs::write(directory.path().join("plan.json"), plan.to_string()).unwrap();
        // A copy, which an upgrade can replace.
        copy_program(&std::env::current_exe().unwrap(), &directory.path().join(PROGRAM));
        let process = launch(directory.path(), variables);
        let server = Self { directory, address, process, plan };
        server.wait_ready();
        server
    }

    /// Starts the supervisor anew in the same directory after it has ended.
    pub(crate) fn start_again(&mut self) {
        self.process = launch(self.directory.path(), &[]);
        self.wait_ready();
    }

    /// Waits until every worker serves and none beside them is left.
    pub(crate) fn wait_ready(&self) {
        let workers = usize::try_from(self.plan["workers"].as_u64().unwrap()).unwrap();
        wait_until("readiness of all workers", || {
            let views = self.workers();
            views.len() == workers && views.iter().all(|view| view["state"] == "ready")
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What shared memory says of the workers; empty while none answers.
    pub(crate) fn workers(&self) -> Vec<Value> {
        let answer = Client::try_connect(self.address).and_then(|mut client| client.try_ask("workers"));
        answer.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<_> = self.workers().iter().map(|view| number(&view["pid"])).collect();
        pids.sort_unstable();
        pids
    }

    /// A new connection to one of the workers.
    pub(crate) fn connect(&self) -> Client {
        wait_for("a connection", || Client::try_connect(self.address))
    }

    /// One question on a new connection, put again until some worker answers.
    pub(crate) fn ask(&self, question: &str) -> String {
        wait_for(question, || Client::try_connect(self.address)?.try_ask(question))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        pidfile::signal(self.pid(), signal).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes workers behave in some way (or no longer): see `worker`.
    pub(crate) fn mode(&self, name: &str, on: bool) {
        if on { fs::write(self.path(name), "").unwrap() } else { fs::remove_file(self.path(name)).unwrap() }
    }

    pub(crate) fn change_plan(&mut self, changes: Value) {
        merge(&mut self.plan, changes);
        fs::write(self.path("plan.json"), self.plan.to_string()).unwrap();
    }

    pub(crate) fn write_broken_plan(&self) {
        fs::write(self.path("plan.json"), "{").unwrap();
    }

    /// Waits for the supervisor's end.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        wait_for("the supervisor's end", || self.process.try_wait().unwrap())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Children of the supervisor by state: (pid, is a zombie).
    pub(crate) fn children(&self) -> Vec<(u32, bool)> {
        children_of(self.pid())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the supervisor ---\n{}", self.log());
        }
        let mut left = self.children();
        // After an upgrade another process is the supervisor.
        if let Some(pid) = pidfile::running_supervisor(self.directory.path()) {
            left.extend(children_of(pid));
            left.push((pid, false));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        for (pid, _) in left.into_iter().rev() {
            let _ = pidfile::signal(pid, Signal::Kill);
            let _ = pidfile::wait_gone(pid, PATIENCE);
        }
    }
}

/// Children of a process by state: (pid, is a zombie).
pub(crate) fn children_of(parent: u32) -> Vec<(u32, bool)> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let state = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, text.rsplit_once(") ")?.1.starts_with('Z')))
    };
    list.split_whitespace().filter_map(|pid| state(pid.parse().ok()?)).collect()
}

fn merge(plan: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    plan.as_object_mut().unwrap().extend(changes);
}

/// Copies a program that is to be run. By another process: a child that some other test forks meanwhile would
/// inherit a descriptor that writes to the file, and a file that is being written cannot be run (ETXTBSY).
pub(crate) fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
}

fn launch(directory: &Path, variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(directory.join(PROGRAM));
    command.env(DIRECTORY_VARIABLE, directory).envs(variables.iter().copied()).stdin(Stdio::null());
    command.spawn().unwrap()
}

pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

/// A connection to a worker: questions and answers, a line each.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { stream: BufReader::new(stream) })
    }

    pub(crate) fn say(&mut self, question: &str) {
        self.stream.get_mut().write_all(format!("{question}\n").as_bytes()).unwrap();
    }

    /// The next line; `None` at the end of the connection.
    pub(crate) fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(count) if count > 0 && line.ends_with('\n') => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    pub(crate) fn try_ask(&mut self, question: &str) -> Option<String> {
        self.stream.get_mut().write_all(format!("{question}\n").as_bytes()).ok()?;
        self.hear()
    }

    pub(crate) fn ask(&mut self, question: &str) -> String {
        self.try_ask(question).unwrap_or_else(|| panic!("no answer to {question:?}"))
    }

    pub(crate) fn pid(&mut self) -> u32 {
        self.ask("pid").parse().unwrap()
    }
}
