//! A part as a process: started detached, waited for until it answers, ended by a signal to its id; and the
//! short-lived programs that make it. Used by every part; what they differ in is the command and how one
//! sees that it answers.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::directory::TEMPORARY;
use crate::error::PartError;
use crate::part::PartPlan;
use crate::pid::Identity;
use crate::user::run_as;

/// What a part says goes here, in its directory.
const LOG: &str = "part.log";

/// A log that has grown beyond this many bytes is set aside at the next start, once.
const LOG_LIMIT: u64 = 16 * 1024 * 1024;

/// How much of the end of a log is shown, in bytes.
const LAST_WORDS: u64 = 2048;

/// How long an address may stay taken by what a killed part left.
const FREE_LIMIT: Duration = Duration::from_secs(3);

/// How long a part may take to be gone that was killed: it ends no sooner than what it writes is on its disk.
const ENDING_LIMIT: Duration = Duration::from_secs(60);

/// How often a part is looked at that starts or ends.
const INTERVAL: Duration = Duration::from_millis(20);

/// One part's process.
pub(crate) struct PartProcess {
    part: &'static str,
    plan: PartPlan,
    /// The process when this one started it, so that it is not left a zombie.
    child: Mutex<Option<Child>>,
}

/// Keeps other processes from making, starting or stopping the same part meanwhile.
pub(crate) struct Turn {
    _lock: File,
}

impl PartProcess {
    pub(crate) fn new(part: &'static str, plan: PartPlan) -> Self {
        Self { part, plan, child: Mutex::new(None) }
    }

    /// What it was made with.
    pub(crate) fn plan(&self) -> &PartPlan {
        &self.plan
    }

    /// The part's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.plan.directory.join(LOG)
    }

    /// Waits for the part to be nobody else's to change. The directory must exist.
    pub(crate) fn turn(&self) -> Result<Turn, PartError> {
        let path = self.plan.directory.join(".part.lock");
        let opened = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = opened.map_err(PartError::file(&path))?;
        lock.lock().map_err(PartError::file(path))?;
        Ok(Turn { _lock: lock })
    }

    /// The process that was started last, if it lives. One that was killed a moment ago is waited for: it will
    /// never answer again.
    pub(crate) fn running(&self) -> Option<Identity> {
        let deadline = Instant::now() + ENDING_LIMIT;
        loop {
            self.reap();
            let identity = Identity::read(&self.plan.directory)?;
            if !identity.is_ending() || Instant::now() >= deadline {
                // It may have ended since it was read.
                return identity.lives().then_some(identity);
            }
            std::thread::sleep(INTERVAL);
        }
    }

    /// Starts `command` in a session of its own and waits until `answers` says so of its process; gives its
    /// id. `command` must not fork: what it becomes is the part.
    pub(crate) fn start(
        &self,
        command: &Command,
        patience: Duration,
        mut answers: impl FnMut(&Identity) -> bool,
    ) -> Result<u32, PartError> {
        self.require_address()?;
        let (mut child, identity) = self.launch(command)?;
        let deadline = Instant::now() + patience;
        while !answers(&identity) {
            if child.try_wait().map_err(PartError::file(self.log()))?.is_some() {
                Identity::forget(&self.plan.directory);
                return Err(PartError::Ended {
                    part: self.part,
                    log: self.log(),
                    said: last_words(&self.log()),
                });
            }
            if Instant::now() >= deadline {
                self.end(&identity, Signal::SIGKILL, INTERVAL * 50)?;
                let _ = child.wait();
                return Err(self.too_slow("answer", patience));
            }
            std::thread::sleep(INTERVAL);
        }
        let pid = identity.pid;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(pid)
    }

    fn launch(&self, command: &Command) -> Result<(Child, Identity), PartError> {
        let log = self.open_log()?;
        let again = log.try_clone().map_err(PartError::file(self.log()))?;
        // A child that is no leader of a group stays the same process under setsid(1).
        let mut detached = self.command("setsid");
        detached.arg(command.get_program()).args(command.get_args());
        copy_environment(command, &mut detached);
        detached.stdin(Stdio::null()).stdout(log).stderr(again);
        let mut child = detached.spawn().map_err(PartError::file("setsid"))?;
        let Some(identity) = Identity::of(child.id()) else {
            let _ = child.wait();
            return Err(PartError::Ended { part: self.part, log: self.log(), said: last_words(&self.log()) });
        };
        match identity.write(&self.plan.directory) {
            Ok(()) => Ok((child, identity)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Makes a process that was found running the part's.
    pub(crate) fn adopt(&self, identity: &Identity) -> Result<u32, PartError> {
        identity.write(&self.plan.directory)?;
        Ok(identity.pid)
    }

    /// Sends `signal` and waits until the process is gone; then its file is removed.
    pub(crate) fn end(
        &self,
        identity: &Identity,
        signal: Signal,
        patience: Duration,
    ) -> Result<(), PartError> {
        send(identity, signal)?;
        let deadline = Instant::now() + patience;
        while identity.lives() {
            if Instant::now() >= deadline {
                return Err(self.too_slow("end", patience));
            }
            std::thread::sleep(INTERVAL);
            self.reap();
        }
        self.reap();
        Identity::forget(&self.plan.directory);
        Ok(())
    }

    /// A command that runs as the part's user in its directory.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        run_as(self.plan.user.as_ref(), &mut command, self.plan.directory.as_os_str());
        // A starting MariaDB clears away what it takes for its own in the directory of temporary files.
        command.current_dir(&self.plan.directory).env("TMPDIR", self.plan.directory.join(TEMPORARY));
        command
    }

    /// Runs `command` to its end with `input` on its standard input; gives what it printed.
    pub(crate) fn run(&self, mut command: Command, input: &[u8]) -> Result<String, PartError> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(PartError::file(&program))?;
        let mut stdin = child.stdin.take();
        let output = std::thread::scope(|scope| {
            // A program that ends early closes its input; its status says why.
            scope.spawn(move || stdin.as_mut().map(|stdin| stdin.write_all(input)));
            child.wait_with_output()
        });
        let output = output.map_err(PartError::file(&program))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        let said = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
        let said = said.trim().lines().rev().take(5).collect::<Vec<_>>();
        let said = said.into_iter().rev().collect::<Vec<_>>().join("; ");
        Err(PartError::Failed { program, status: output.status.to_string(), said })
    }

    /// Refuses an address that somebody else listens on: the part's own words for it are far from clear. What
    /// a killed part left of itself lets go of it shortly.
    fn require_address(&self) -> Result<(), PartError> {
        let (part, address) = (self.part, self.plan.address);
        let deadline = Instant::now() + FREE_LIMIT;
        loop {
            match TcpListener::bind(address) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() >= deadline => {
                    return Err(PartError::AddressTaken { part, address });
                }
                Err(error) if error.kind() == ErrorKind::AddrInUse => std::thread::sleep(INTERVAL),
                Err(error) => {
                    return Err(PartError::Invalid { what: "the part's address", detail: error.to_string() });
                }
            }
        }
    }

    fn open_log(&self) -> Result<File, PartError> {
        let path = self.log();
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_LIMIT) {
            let _ = fs::rename(&path, self.plan.directory.join("part.log.1"));
        }
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
            .open(&path)
            .map_err(PartError::file(&path))?;
        if let Some(user) = &self.plan.user {
            let (uid, gid) = user.ids();
            fchown(&log, Some(uid), Some(gid)).map_err(PartError::file(path))?;
        }
        Ok(log)
    }

    fn too_slow(&self, verb: &'static str, patience: Duration) -> PartError {
        let (log, said) = (self.log(), last_words(&self.log()));
        PartError::TooSlow { part: self.part, verb, seconds: patience.as_secs(), log, said }
    }

    fn reap(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            *child = None;
        }
    }
}

/// Sends `signal` to the very process, if it lives.
pub(crate) fn send(identity: &Identity, signal: Signal) -> Result<(), PartError> {
    if !identity.lives() {
        return Ok(());
    }
    let pid = i32::try_from(identity.pid).unwrap_or(i32::MAX);
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
        Err(source) => Err(PartError::System { what: format!("sending {signal} to {pid}"), source }),
    }
}

/// The first of `candidates` that is there; else an error that names the package.
pub(crate) fn installed(candidates: &[&str], package: &'static str) -> Result<PathBuf, PartError> {
    let found = candidates.iter().map(Path::new).find(|path| path.is_file());
    let program = || candidates.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    found
        .map(Path::to_owned)
        .ok_or_else(|| PartError::NotInstalled { program: program().to_string_lossy().into_owned(), package })
}

fn copy_environment(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
    if let Some(directory) = from.get_current_dir() {
        to.current_dir(directory);
    }
}

/// The end of a log, on one line.
fn last_words(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(end.saturating_sub(LAST_WORDS)))?;
        let mut text = Vec::new();
        file.take(LAST_WORDS).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<_> = text.trim().lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}
