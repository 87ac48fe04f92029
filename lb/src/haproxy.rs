//! The HAProxy this agent owns: started, adopted, reloaded, stopped.
//!
//! It runs in master-worker mode in a process group of its own and outlives the agent; the next agent finds
//! it by the master's socket, whose listener the kernel names. When HAProxy's worker dies its master ends as
//! well, so following the master is enough. Each start has a generation, which its sockets carry in their
//! names: two HAProxys that overlap while addresses change do not take each other's sockets away.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crosstie_process::privilege::ServiceUser;
use crosstie_process::{descriptor, pidfile};
use crosstie_security::private_file::{PrivateFileError, write_private};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::listening::{Entrance, ListenError, Listening, Passed, addresses};
use crate::render::SOCKET_VARIABLE;
use crate::runtime::{self, Info, Processes, RuntimeError};
use crate::settings::LbSettings;

/// The configuration HAProxy runs with, relative to the load balancer's directory.
pub const CONFIGURATION: &str = "haproxy.cfg";
/// What HAProxy says, relative to the load balancer's directory.
pub const LOG: &str = "logs/haproxy.log";
/// Its master's process id, for people.
pub const PID_FILE: &str = "work/haproxy.pid";
/// What the next agent must know of it.
const INSTANCE: &str = "work/instance.json";
/// How long a start or a reload may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a starting HAProxy is asked.
const INTERVAL: Duration = Duration::from_millis(10);

/// Why HAProxy does not run as it should.
#[derive(Debug, thiserror::Error)]
pub enum HaproxyError {
    /// An address is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// It could not be started.
    #[error("HAProxy cannot be started: {0}")]
    Start(#[source] io::Error),
    /// It ended or refused before it served.
    #[error("HAProxy does not serve: {0}")]
    Failed(String),
    /// It does not answer.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// What is written about a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Instance {
    generation: u64,
    listening: Vec<Passed>,
}

impl Instance {
    fn load() -> Option<Self> {
        serde_json::from_slice(&std::fs::read(INSTANCE).ok()?).ok()
    }

    fn save(&self) -> Result<(), PrivateFileError> {
        write_private(Path::new(INSTANCE), &serde_json::to_vec(self).unwrap_or_default())
    }

    fn master_socket(&self) -> PathBuf {
        format!("work/master-{}.sock", self.generation).into()
    }

    fn runtime_socket(&self) -> PathBuf {
        format!("work/haproxy-{}.sock", self.generation).into()
    }

    fn addresses(&self) -> Vec<(Entrance, SocketAddr)> {
        self.listening.iter().map(|passed| (passed.entrance, passed.address)).collect()
    }
}

/// One HAProxy.
#[derive(Debug)]
struct Running {
    instance: Instance,
    master: u32,
    end: AsyncFd<OwnedFd>,
    /// Its own child must be reaped; an adopted one is init's.
    child: Option<Child>,
}

impl Running {
    fn follow(instance: Instance, master: u32, child: Option<Child>) -> io::Result<Self> {
        #[expect(deprecated, reason = "unsound for what closes or changes its descriptor; this owns it")]
        let end = AsyncFd::new(descriptor::of_process(master)?)?;
        Ok(Self { instance, master, end, child })
    }

    fn is_gone(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            return !matches!(child.try_wait(), Ok(None));
        }
        matches!(pidfile::wait_gone(self.master, Duration::ZERO), Ok(true))
    }

    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.master).map(Pid::from_raw);
        if let Ok(pid) = pid
            && let Err(error) = kill(pid, signal)
        {
            tracing::debug!(pid = self.master, %error, "HAProxy could not be signalled");
        }
    }
}

/// HAProxy as the agent sees it. All paths are relative: the agent's current directory is its own.
#[derive(Debug, Default)]
pub struct Haproxy {
    listening: Listening,
    running: Option<Running>,
    /// Earlier ones that finish what they have.
    leaving: Vec<Running>,
    generation: u64,
}

/// The sockets of an HAProxy that an earlier agent left running as `owner`: taken up by root, before it becomes
/// that user, who may not be allowed to.
pub(crate) fn left_behind(owner: &ServiceUser) -> Listening {
    let mut listening = Listening::default();
    let Ok(found) = owner.act(|| {
        let instance = Instance::load()?;
        let stream = std::os::unix::net::UnixStream::connect(instance.master_socket()).ok()?;
        Some((instance, getsockopt(&stream, PeerCredentials).ok()?))
    }) else {
        return listening;
    };
    // Whatever the file and the socket are said to be, nobody's sockets but the owner's are taken.
    if let Some((instance, peer)) = found
        && owner.has_uid(peer.uid())
        && let Ok(pid) = u32::try_from(peer.pid())
        && let Ok(process) = descriptor::of_process(pid)
    {
        listening.take(&process, &instance.listening);
    }
    listening
}

impl Haproxy {
    /// Begins with sockets that are held already.
    #[must_use]
    pub(crate) fn holding(listening: Listening) -> Self {
        Self { listening, ..Self::default() }
    }

    /// Finds an HAProxy that an earlier agent left running. Says whether there is one.
    pub async fn adopt(&mut self) -> bool {
        let Some(instance) = Instance::load() else { return false };
        self.generation = self.generation.max(instance.generation);
        let Ok(master) = runtime::listener_pid(&instance.master_socket()).await else { return false };
        match Running::follow(instance, master, None) {
            Ok(running) => {
                self.listening.take(running.end.get_ref(), &running.instance.listening);
                self.running = Some(running);
                true
            }
            Err(error) => {
                tracing::warn!(pid = master, %error, "the HAProxy that runs cannot be followed");
                false
            }
        }
    }

    /// The master's process id.
    #[must_use]
    pub fn master(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.master)
    }

    /// Which start this is, counted over the agent's lives.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The runtime socket of the worker.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        self.running.as_ref().map(|running| running.instance.runtime_socket())
    }

    /// Whether it listens where `settings` say.
    #[must_use]
    pub fn listens_as(&self, settings: &LbSettings) -> bool {
        let wanted: Vec<_> = addresses(settings).into_iter().collect();
        self.running.as_ref().is_some_and(|running| running.instance.addresses() == wanted)
    }

    /// Waits until HAProxy is gone; for ever while none runs. Cancel safe.
    pub async fn ended(&self) {
        match &self.running {
            Some(running) => {
                // An error says that the descriptor is of no use, which the caller finds out as well.
                let _ = running.end.readable().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Notices an HAProxy that is gone; says whether one was.
    pub fn notice_end(&mut self) -> bool {
        self.leaving.retain_mut(|running| !running.is_gone());
        if self.running.as_mut().is_some_and(Running::is_gone) {
            self.running = None;
            return true;
        }
        false
    }

    /// Starts HAProxy with the configuration in place; one that runs finishes what it has.
    ///
    /// # Errors
    /// Why it does not serve; one that ran goes on.
    pub async fn start(&mut self, settings: &LbSettings) -> Result<(), HaproxyError> {
        self.listening.bind(&addresses(settings), settings.limits.backlog)?;
        self.generation += 1;
        let instance = Instance { generation: self.generation, listening: self.listening.passed() };
        // Before it runs, so that an agent that dies in between leaves an HAProxy that is found.
        instance.save().map_err(|error| HaproxyError::Start(io::Error::other(error)))?;
        let running = match launch(&settings.lb.program, instance).await {
            Ok(running) => running,
            Err(error) => {
                // The next agent must find the one that goes on.
                let former = self.running.as_ref().map(|former| former.instance.save());
                if let Some(Err(error)) = former {
                    tracing::warn!(%error, "an agent that starts now will not find the HAProxy that runs");
                }
                return Err(error);
            }
        };
        if let Some(former) = self.running.replace(running) {
            former.send(Signal::SIGUSR1);
            self.leaving.push(former);
        }
        Ok(())
    }

    /// Has HAProxy read its configuration again; requests under way finish in the worker that has them.
    ///
    /// # Errors
    /// The new worker does not serve the configuration `digest`; the old one then goes on. The master has lost
    /// its sockets after that, so that no later reload succeeds: another HAProxy must be started.
    pub async fn reload(&self, digest: &str) -> Result<(), HaproxyError> {
        let running = self.running.as_ref().ok_or_else(|| HaproxyError::Failed("it does not run".into()))?;
        let (master, socket) = (running.instance.master_socket(), running.instance.runtime_socket());
        let before = Processes::parse(&runtime::ask(&master, "show proc").await?)?;
        runtime::order(&master, "reload", &[]).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if info(&socket).await.is_ok_and(|info| info.digest == digest) {
                return Ok(());
            }
            // The master's socket is away for a moment while it becomes itself again.
            if let Ok(answer) = runtime::ask(&master, "show proc").await
                && let Ok(now) = Processes::parse(&answer)
                && now.failed > before.failed
            {
                return Err(HaproxyError::Failed(last_words()));
            }
            if Instant::now() > deadline {
                return Err(HaproxyError::Failed("the reload does not come to an end".into()));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Stops HAProxy: who connects is refused, what is under way may finish for `patience`.
    pub async fn stop(&mut self, patience: Duration) {
        self.listening.shut();
        let Some(mut running) = self.running.take() else { return };
        let master = running.instance.master_socket();
        let worker = runtime::ask(&master, "show proc").await.and_then(|answer| Processes::parse(&answer));
        let worker = worker.ok().and_then(|processes| processes.worker).unwrap_or_default();
        running.send(Signal::SIGUSR1);
        let deadline = Instant::now() + patience;
        while !running.is_gone() && Instant::now() < deadline {
            // Idle connections are nothing to wait for. The worker's own socket is closed by now.
            let stat = runtime::ask(&master, &format!("@!{worker} show stat")).await;
            if stat.is_ok_and(|stat| is_idle(&stat)) {
                break;
            }
            tokio::time::sleep(INTERVAL * 5).await;
        }
        running.send(Signal::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        while !running.is_gone() {
            if Instant::now() > deadline {
                running.send(Signal::SIGKILL);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Whether no request is with a server, by the answer to `show stat`.
fn is_idle(stat: &str) -> bool {
    let backends = crate::statistics::Table::parse(stat);
    let mut rows = backends.rows().filter(|row| row.text("svname") == "BACKEND").peekable();
    rows.peek().is_some() && rows.all(|row| row.number("scur") == 0)
}

/// Starts an HAProxy and waits until it serves.
async fn launch(program: &Path, instance: Instance) -> Result<Running, HaproxyError> {
    let child = spawn(program, &instance).map_err(HaproxyError::Start)?;
    let mut running = Running::follow(instance, child.id(), Some(child)).map_err(HaproxyError::Start)?;
    let serving = wait_serving(&mut running).await;
    if serving.is_err() {
        running.send(Signal::SIGKILL);
        // A process that was killed is gone at once; without this it would stay a zombie.
        let _ = running.child.as_mut().map(Child::wait);
    }
    serving.map(|()| running)
}

fn spawn(program: &Path, instance: &Instance) -> io::Result<Child> {
    let log = open_log()?;
    let said = log.try_clone()?;
    let master = format!("unix@{},mode,600", instance.master_socket().display());
    let mut command = Command::new(program);
    command
        .args(["-W", "-S", &master, "-p", PID_FILE, "-f", CONFIGURATION])
        .env_clear()
        .env(SOCKET_VARIABLE, instance.runtime_socket())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(said)
        // Of its own, so that what ends the agent's group does not end it.
        .process_group(0);
    for passed in &instance.listening {
        command.env(passed.entrance.variable(), passed.descriptor.to_string());
    }
    command.spawn()
}

/// What `show info` says at `socket`.
///
/// # Errors
/// Nobody answers, or something else.
pub async fn info(socket: &Path) -> Result<Info, RuntimeError> {
    Info::parse(&runtime::ask(socket, "show info").await?)
}

async fn wait_serving(running: &mut Running) -> Result<(), HaproxyError> {
    let socket = running.instance.runtime_socket();
    let deadline = Instant::now() + PATIENCE;
    while info(&socket).await.is_err() {
        if running.is_gone() {
            return Err(HaproxyError::Failed(last_words()));
        }
        if Instant::now() > deadline {
            return Err(HaproxyError::Failed("it does not answer".into()));
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}

fn open_log() -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(LOG)
}

/// The last thing HAProxy complained about.
fn last_words() -> String {
    let text = std::fs::read(LOG).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(text.len().saturating_sub(8192)..).unwrap_or_default());
    let alert = text.lines().rev().find(|line| line.starts_with("[ALERT]"));
    alert.map_or_else(
        || format!("{LOG} says why"),
        |line| line.trim_start_matches("[ALERT]").trim().to_owned(),
    )
}

/// Begins HAProxy's log anew when it has more than `limit` bytes, keeping one older file. HAProxy appends to
/// what it has open, so the file is emptied and not renamed.
///
/// # Errors
/// The file cannot be copied or emptied.
pub fn rotate_log(limit: u64) -> io::Result<()> {
    let size = std::fs::metadata(LOG).map_or(0, |status| status.len());
    if size > limit {
        std::fs::copy(LOG, format!("{LOG}.1"))?;
        OpenOptions::new().write(true).open(LOG)?.set_len(0)?;
    }
    Ok(())
}
