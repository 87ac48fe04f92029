//! PostgreSQL as a part. It has one role and one database, both made before it ever listens; its superuser
//! has no password and no way in, since only the role's line is in `pg_hba.conf` and there is no Unix socket.
//! Over TCP it takes TLS with a certificate of the environment's CA and the role's password, and nothing else.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::directory::{self, Copies};
use crate::error::PartError;
use crate::part::{Credentials, Part, PartPlan, Reach};
use crate::pid::{self, Identity};
use crate::process::{PartProcess, installed, send};

const NAME: &str = "postgresql";
const PACKAGE: &str = "postgresql";

/// Where Debian keeps one directory per major release.
const RELEASES: &str = "/usr/lib/postgresql";

/// What is written anew at every start, beside `postgresql.conf`.
const SETTINGS: &str = "crosstie.conf";

/// How long it may take to answer; recovery after a crash is part of that.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to end when it was asked to close its connections.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How long the children of a killed server may take to notice.
const ORPHANS_LIMIT: Duration = Duration::from_secs(10);

/// PostgreSQL of the distribution.
pub struct Postgres {
    process: PartProcess,
}

impl Postgres {
    /// The part that `plan` describes, made or not.
    #[must_use]
    pub fn new(plan: PartPlan) -> Self {
        Self { process: PartProcess::new(NAME, plan) }
    }

    fn directory(&self) -> &Path {
        &self.process.plan().directory
    }

    fn data(&self) -> PathBuf {
        self.directory().join("data")
    }

    /// A program of the release that made the data; of the newest one for new data.
    fn program(&self, name: &str) -> Result<PathBuf, PartError> {
        let made_by = fs::read_to_string(self.data().join("PG_VERSION")).ok();
        let release = made_by.map(|text| text.trim().to_owned()).or_else(newest_release);
        let path = Path::new(RELEASES).join(release.unwrap_or_default()).join("bin").join(name);
        installed(&[&path.to_string_lossy()], PACKAGE)
    }

    /// Makes the data in `data`, with its role and its database.
    fn fill(&self, data: &Path, credentials: &Credentials) -> Result<(), PartError> {
        let mut initdb = self.process.command(self.program("initdb")?);
        initdb.args(["--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums"]);
        initdb.args(["--auth=reject", "--no-instructions", "--pgdata"]).arg(data);
        self.process.run(initdb, b"")?;
        let user = self.process.plan().user.as_ref();
        directory::write_private(&data.join("pg_hba.conf"), self.access(credentials).as_bytes(), user)?;
        let main = data.join("postgresql.conf");
        let mut settings = fs::read_to_string(&main).map_err(PartError::file(&main))?;
        let _ = writeln!(settings, "\ninclude_if_exists = '{SETTINGS}'");
        directory::write_private(&main, settings.as_bytes(), user)?;
        // Single-user mode: no listener, no password of the superuser, every line a statement.
        let mut single = self.process.command(self.program("postgres")?);
        single.args(["--single", "-j", "-D"]).arg(data).args(["-c", "log_min_messages=fatal", "postgres"]);
        self.process.run(single, statements(credentials).as_bytes())?;
        Ok(())
    }

    fn access(&self, credentials: &Credentials) -> String {
        let database = match credentials.reach {
            Reach::OneDatabase => credentials.database.as_str(),
            Reach::AnyDatabase => "all",
        };
        let (kind, certificate) = match self.process.plan().tls {
            Some(_) => ("hostssl", " clientcert=verify-ca"),
            None => ("host", ""),
        };
        let line = |address: &str| {
            format!("{kind} {database} {} {address} scram-sha-256{certificate}\n", credentials.user)
        };
        format!("# Written when this database was made.\n{}{}", line("127.0.0.1/32"), line("::1/128"))
    }

    /// The settings that can change between starts, in a file that the main one includes at its end; the main
    /// one is left to whoever runs the database.
    fn write_settings(&self) -> Result<(), PartError> {
        let plan = self.process.plan();
        let mut text = String::from("# Written at every start.\n");
        let mut set = |name: &str, value: &str| {
            let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
        };
        set("listen_addresses", &plan.address.ip().to_string());
        set("port", &plan.address.port().to_string());
        set("unix_socket_directories", "");
        set("max_connections", "100");
        set("shared_buffers", "32MB");
        set("max_wal_size", "256MB");
        set("timezone", "UTC");
        set("log_timezone", "UTC");
        set("log_line_prefix", "%m [%p] %u@%d ");
        set("password_encryption", "scram-sha-256");
        set("ssl", if plan.tls.is_some() { "on" } else { "off" });
        if plan.tls.is_some() {
            let copies = Copies::of(&plan.directory);
            set("ssl_ca_file", &copies.ca.to_string_lossy());
            set("ssl_cert_file", &copies.certificate.to_string_lossy());
            set("ssl_key_file", &copies.key.to_string_lossy());
            set("ssl_min_protocol_version", "TLSv1.2");
        }
        let path = self.data().join(SETTINGS);
        directory::write_private(&path, text.as_bytes(), plan.user.as_ref())
    }

    /// The server, found by its file or by the one that the program keeps itself: whoever started it may have
    /// been killed before it could write ours.
    fn running(&self) -> Option<Identity> {
        self.process.running().or_else(|| {
            let pid = self.own_pid_file()?.pid;
            let found = pid::working_in(&self.data(), "postgres").into_iter();
            found.filter(|identity| !identity.is_ending()).find(|identity| identity.pid == pid)
        })
    }

    fn own_pid_file(&self) -> Option<PostmasterFile> {
        PostmasterFile::parse(&fs::read_to_string(self.data().join("postmaster.pid")).ok()?)
    }

    fn answers(&self, identity: &Identity) -> bool {
        self.own_pid_file().is_some_and(|file| file.pid == identity.pid && file.ready)
    }

    /// Clears away what a killed server left. Its children may still use the data: no other may start before
    /// they are gone. Only then is its file removed, which would keep a new one from starting if the kernel
    /// has meanwhile given the id to another process of the same user.
    fn clear(&self) -> Result<(), PartError> {
        let deadline = Instant::now() + ORPHANS_LIMIT;
        loop {
            let orphans = pid::working_in(&self.data(), "postgres");
            if orphans.is_empty() {
                break;
            }
            if Instant::now() >= deadline {
                orphans.iter().try_for_each(|orphan| send(orphan, Signal::SIGKILL))?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let path = self.data().join("postmaster.pid");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(PartError::file(path)(error)),
            _ => Ok(()),
        }
    }
}

impl Part for Postgres {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_created(&self) -> bool {
        self.data().is_dir()
    }

    fn create(&self, credentials: &Credentials) -> Result<(), PartError> {
        credentials.check()?;
        self.program("postgres")?;
        directory::prepare(NAME, self.process.plan())?;
        let _turn = self.process.turn()?;
        if self.is_created() {
            return Err(PartError::Exists { directory: self.data() });
        }
        // The data gets its name when it is whole, so that half of it is never started.
        let unfinished = self.directory().join("data.unfinished");
        directory::remove(&unfinished)?;
        self.fill(&unfinished, credentials)?;
        fs::rename(&unfinished, self.data()).map_err(PartError::file(self.data()))
    }

    fn start(&self) -> Result<u32, PartError> {
        if !self.is_created() {
            return Err(PartError::NotCreated { part: NAME, directory: self.directory().to_owned() });
        }
        let program = self.program("postgres")?;
        directory::prepare(NAME, self.process.plan())?;
        let _turn = self.process.turn()?;
        if let Some(identity) = self.running() {
            return self.process.adopt(&identity);
        }
        self.clear()?;
        directory::copy_certificates(self.process.plan())?;
        self.write_settings()?;
        let mut command = Command::new(program);
        command.arg("-D").arg(self.data());
        self.process.start(&command, START_LIMIT, |identity| self.answers(identity))
    }

    fn stop(&self) -> Result<(), PartError> {
        if !self.is_created() {
            return Ok(());
        }
        let _turn = self.process.turn()?;
        let Some(identity) = self.running() else { return Ok(()) };
        // SIGINT is its fast shutdown: connections are closed, data is written.
        self.process.end(&identity, Signal::SIGINT, STOP_LIMIT)
    }

    fn pid(&self) -> Option<u32> {
        self.running().map(|identity| identity.pid)
    }

    fn renew_certificates(&self) -> Result<(), PartError> {
        directory::copy_certificates(self.process.plan())?;
        // SIGHUP is what `pg_ctl reload` sends; connections that are open stay as they are.
        self.running().map_or(Ok(()), |identity| send(&identity, Signal::SIGHUP))
    }
}

/// What the program says of itself in `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
struct PostmasterFile {
    pid: u32,
    ready: bool,
}

impl PostmasterFile {
    /// Line 1 is the process id, line 8 its state (`src/include/utils/pidfile.h` of PostgreSQL).
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        Some(Self { pid, ready: lines.nth(6).is_some_and(|state| state.trim() == "ready") })
    }
}

/// The newest release that is installed.
fn newest_release() -> Option<String> {
    let releases = fs::read_dir(RELEASES).ok()?.flatten();
    let numbers = releases.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let whole = |release: &u32| {
        let programs = Path::new(RELEASES).join(release.to_string()).join("bin");
        programs.join("postgres").is_file() && programs.join(OsStr::new("initdb")).is_file()
    };
    numbers.filter(whole).max().map(|release| release.to_string())
}

/// What makes the role and the database, one statement a line. Neither name needs quoting after
/// [`Credentials::check`]; they are quoted for reserved words.
fn statements(credentials: &Credentials) -> String {
    let Credentials { user, database, reach, .. } = credentials;
    let rights = match reach {
        Reach::OneDatabase => "NOCREATEDB",
        Reach::AnyDatabase => "CREATEDB",
    };
    let password = credentials.quoted_password();
    format!(
        "CREATE ROLE \"{user}\" LOGIN NOSUPERUSER NOCREATEROLE {rights} PASSWORD {password};\n\n\
         CREATE DATABASE \"{database}\" OWNER \"{user}\";\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ready_when_its_file_says_so() {
        let file = |state: &str| format!("4711\n/data\n1700000000\n5432\n\n127.0.0.1\n  1  2\n{state}\n");
        assert_eq!(PostmasterFile::parse(&file("ready   ")), Some(PostmasterFile { pid: 4711, ready: true }));
        assert!(PostmasterFile::parse(&file("starting")).is_some_and(|file| !file.ready));
        assert_eq!(PostmasterFile::parse("4711\n"), Some(PostmasterFile { pid: 4711, ready: false }));
        assert_eq!(PostmasterFile::parse(""), None);
    }
}
