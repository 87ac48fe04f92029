//! Servers as processes, for `crosstie start` and `stop`. A server is started detached, in a session of its
//! own, and counts as started when it answers; it is stopped by a signal to its supervisor, which lets
//! requests in flight finish.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use crosstie_model::settings::ServerSettings;
use crosstie_process::pidfile;
use crosstie_process::program::Program;
use crosstie_worker::{AcceptedSettings, ServerRun};

use crate::certificates;
use crate::client::Client;
use crate::command::say;
use crate::environment::{Environment, ServerDirectory, reachable};
use crate::faults::Faults;
use crate::output::shows_progress;
use crate::service_user;

/// After how long a server that was started is taken to hang.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How much longer than its drain time a server may take to stop.
const STOP_MARGIN: Duration = Duration::from_secs(15);

/// How long an address may stay taken by what a killed server left.
const FREE_LIMIT: Duration = Duration::from_secs(5);

/// How often a server that starts is asked whether it is ready.
const INTERVAL: Duration = Duration::from_millis(20);

/// How much of what a failed server said is searched for its last words, in bytes.
const LAST_WORDS: u64 = 16 * 1024;

/// Runs one server in this process.
pub(crate) fn run_here(environment: &Environment, server: &ServerDirectory) -> Result<ExitCode> {
    if let Some(pid) = pidfile::running_supervisor(server.path()) {
        bail!("{} runs already (pid {pid}): `crosstie stop` stops it", server.name());
    }
    prepare(environment, server)?;
    Ok(crosstie_worker::run_server(&ServerRun {
        directory: server.path().to_owned(),
        foreground: true,
        accepted: AcceptedSettings::default(),
    }))
}

/// Stops `server` and waits until it is gone; says whether it ran.
///
/// # Errors
/// It does not stop in its drain time.
pub(crate) fn end(server: &ServerDirectory) -> Result<bool> {
    let Some(pid) = pidfile::running_supervisor(server.path()) else { return Ok(false) };
    // A file that was broken meanwhile must not keep anybody from stopping the server.
    let drain = crosstie_config::settings::load(server.path()).map_or(30, |settings| settings.server.drain_s);
    if shows_progress() {
        say(&format!("{} finishes its requests …", server.name()));
    }
    let signalled = pidfile::signal(pid, pidfile::Signal::Stop);
    signalled.with_context(|| format!("cannot signal {} (pid {pid})", server.name()))?;
    if !pidfile::wait_gone(pid, Duration::from_secs(drain) + STOP_MARGIN)? {
        bail!("{} (pid {pid}) does not stop: its log says why, and `kill -9 {pid}` ends it", server.name());
    }
    Ok(true)
}

/// Whether `address` can be listened on, now or soon: sockets of a server that was just killed go away a moment
/// after its processes do.
fn becomes_free(address: SocketAddr) -> bool {
    let begun = Instant::now();
    while TcpListener::bind(address).is_err() {
        if begun.elapsed() >= FREE_LIMIT {
            return false;
        }
        std::thread::sleep(INTERVAL);
    }
    true
}

/// Checks `server`'s settings and that its addresses are free.
fn check(server: &ServerDirectory) -> Result<ServerSettings> {
    let settings = service_user::as_owner_of(server.path(), || {
        crosstie_config::settings::load(server.path()).map_err(|faults| {
            let lines = faults.iter().map(ToString::to_string).collect();
            Faults::new(format!("{} does not start with these settings", server.name()), lines).into()
        })
    })?;
    for (address, setting) in listening(&settings) {
        if !becomes_free(address) {
            bail!(
                "{} cannot listen on {address}, which another program uses: change {setting} in {}",
                server.name(),
                server.settings_file().display()
            );
        }
    }
    Ok(settings)
}

/// Makes `server` ready to be started: its settings are checked, its directory is its user's, and its
/// certificates last.
fn prepare(environment: &Environment, server: &ServerDirectory) -> Result<ServerSettings> {
    let settings = check(server)?;
    service_user::settle(environment, server, settings.server.user.as_deref())?;
    service_user::as_owner_of(server.path(), || {
        certificates::renew(environment, server, &settings);
        Ok(())
    })?;
    Ok(settings)
}

fn listening(settings: &ServerSettings) -> Vec<(SocketAddr, &'static str)> {
    let mut addresses = vec![(settings.management.address, "[management] address")];
    addresses.extend(settings.server.http.map(|address| (address, "[server] http")));
    addresses.extend(settings.server.https.map(|address| (address, "[server] https")));
    addresses
}

/// Starts `server` detached, waits until it answers, and gives its supervisor's process id.
///
/// # Errors
/// Its settings are wrong, a port is in use, or it ended or hung; then the last thing it said.
pub(crate) fn launch(environment: &Environment, server: &ServerDirectory) -> Result<u32> {
    let settings = prepare(environment, server)?;
    let console = service_user::as_owner_of(server.path(), || open_console(&server.console_log()))?;
    let said_before = console.metadata()?.len();
    // As this one was called: an upgrade runs what lies there then.
    let program = Program::of_this_process();
    let mut child = Command::new(program.path())
        .args(["server", "run", "--detached"])
        .arg(server.path())
        .current_dir(server.path())
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()
        .with_context(|| format!("cannot start {}", server.name()))?;
    if shows_progress() {
        say(&format!("{} starts …", server.name()));
    }
    let client = Client::at(environment, settings.management.address)?;
    let begin = Instant::now();
    while begin.elapsed() < START_LIMIT {
        if let Some(status) = child.try_wait()? {
            let words = last_words(server, said_before);
            bail!("{} ended at once ({status}): {words}", server.name());
        }
        if answers(&settings, &client) {
            return Ok(child.id());
        }
        std::thread::sleep(INTERVAL);
    }
    hung(server, &mut child, said_before)
}

/// Whether service traffic and management are both answered.
fn answers(settings: &ServerSettings, client: &Client) -> bool {
    let serves = settings.server.http.is_none_or(serves);
    serves && client.answers()
}

/// Workers accept nothing before they serve. Whether load balancers should send them traffic is another matter:
/// a server that is to stay drained runs as well.
fn serves(address: SocketAddr) -> bool {
    status_of(address, "/health/live").is_some_and(|status| status < 400)
}

/// The status with which `address` answers GET `path`; `None` when it does not answer.
pub(crate) fn status_of(address: SocketAddr, path: &str) -> Option<u16> {
    let agent = ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(5)))
        .build()
        .new_agent();
    let answer = agent.get(format!("http://{}{path}", reachable(address))).call();
    answer.ok().map(|answer| answer.status().as_u16())
}

fn hung<T>(server: &ServerDirectory, child: &mut Child, said_before: u64) -> Result<T> {
    let (name, pid) = (server.name(), child.id());
    let words = last_words(server, said_before);
    let log = server.logs().join("server.log");
    bail!(
        "{name} (pid {pid}) does not answer after {} s; it last said: {words}; {} tells more",
        START_LIMIT.as_secs(),
        log.display()
    )
}

/// Opens what a detached process writes to before its log is open.
pub(crate) fn open_console(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The last line that a server wrote to its console since `from`, which is why it ended.
fn last_words(server: &ServerDirectory, from: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(server.console_log())?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(LAST_WORDS))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    text.lines().rfind(|line| !line.trim().is_empty()).map_or_else(
        || format!("it said nothing; {} may tell more", server.logs().join("server.log").display()),
        |line| line.trim().to_owned(),
    )
}
