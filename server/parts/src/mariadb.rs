//! MariaDB as a part. It has one user and one database, both made before it ever listens; the accounts that
//! the distribution's installer makes are removed, and there is no Unix socket. Over TCP it takes TLS with a
//! certificate of the environment's CA and the user's password, and nothing else.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::directory::{self, Copies};
use crate::error::PartError;
use crate::part::{Credentials, Part, PartPlan, Reach};
use crate::pid::{self, Identity};
use crate::process::{PartProcess, installed};

const NAME: &str = "mariadb";
const PACKAGE: &str = "mariadb-server";

/// What is written anew at every start. No other file is read: this host's own MariaDB is none of ours.
const SETTINGS: &str = "mariadb.cnf";

/// What is never written again, for whoever runs the database.
const OWN_SETTINGS: &str = "own.cnf";

/// How long it may take to answer; recovery after a crash is part of that.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How long one look at its address may take.
const GREETING_LIMIT: Duration = Duration::from_secs(1);

/// MariaDB of the distribution.
pub struct MariaDb {
    process: PartProcess,
}

impl MariaDb {
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

    /// Makes the data in `data`, with its user and its database.
    fn fill(&self, data: &Path, credentials: &Credentials) -> Result<(), PartError> {
        let mut install =
            self.process.command(installed(&["/usr/bin/mariadb-install-db"], "mariadb-server-core")?);
        install.args(["--no-defaults", "--skip-test-db", "--skip-name-resolve"]);
        install.arg("--auth-root-authentication-method=socket").arg(assigned("--datadir=", data));
        self.process.run(install, b"")?;
        // Bootstrap mode: no listener; statements come from standard input.
        let mut bootstrap = self.process.command(server()?);
        bootstrap.args(["--no-defaults", "--bootstrap", "--skip-name-resolve"]);
        bootstrap.arg(assigned("--datadir=", data));
        self.process.run(bootstrap, self.statements(credentials).as_bytes())?;
        Ok(())
    }

    /// What makes the user and the database. The names need no quoting after [`Credentials::check`] but may be
    /// reserved words.
    fn statements(&self, credentials: &Credentials) -> String {
        let Credentials { user, database, reach, .. } = credentials;
        let plan = self.process.plan();
        let account = format!("`{user}`@'{}'", plan.address.ip());
        let certificate = if plan.tls.is_some() { "REQUIRE X509" } else { "REQUIRE NONE" };
        let where_ = match reach {
            Reach::OneDatabase => format!("`{database}`.*"),
            Reach::AnyDatabase => "*.*".to_owned(),
        };
        let password = credentials.quoted_password();
        format!(
            "DELETE FROM mysql.global_priv WHERE User IN ('', 'root', 'mysql');\n\
             DELETE FROM mysql.proxies_priv;\n\
             FLUSH PRIVILEGES;\n\
             CREATE DATABASE `{database}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n\
             CREATE USER {account} IDENTIFIED BY {password} {certificate};\n\
             GRANT ALL PRIVILEGES ON {where_} TO {account};\n"
        )
    }

    fn write_settings(&self) -> Result<(), PartError> {
        let plan = self.process.plan();
        let own = self.directory().join(OWN_SETTINGS);
        if !own.is_file() {
            let text = "# Settings of your own; this file is only written once.\n[mariadbd]\n";
            directory::write_private(&own, text.as_bytes(), plan.user.as_ref())?;
        }
        let mut text =
            String::from("# Written at every start; settings of your own go to own.cnf.\n[mariadbd]\n");
        let mut set = |name: &str, value: &str| {
            let _ = writeln!(text, "{name} = {value}");
        };
        let quoted = |path: &Path| format!("\"{}\"", path.display());
        set("datadir", &quoted(&self.data()));
        set("bind_address", &plan.address.ip().to_string());
        set("port", &plan.address.port().to_string());
        set("socket", "");
        set("pid_file", &quoted(&self.data().join("mariadb.pid")));
        set("skip_name_resolve", "ON");
        set("character_set_server", "utf8mb4");
        set("collation_server", "utf8mb4_bin");
        set("default_time_zone", "\"+00:00\"");
        set("max_connections", "100");
        set("innodb_buffer_pool_size", "64M");
        set("innodb_log_file_size", "32M");
        set("performance_schema", "OFF");
        set("local_infile", "OFF");
        set("log_warnings", "1");
        if plan.tls.is_some() {
            let copies = Copies::of(&plan.directory);
            set("require_secure_transport", "ON");
            set("tls_version", "TLSv1.2,TLSv1.3");
            set("ssl_ca", &quoted(&copies.ca));
            set("ssl_cert", &quoted(&copies.certificate));
            set("ssl_key", &quoted(&copies.key));
        }
        let _ = writeln!(text, "!include {}", own.display());
        directory::write_private(&self.directory().join(SETTINGS), text.as_bytes(), plan.user.as_ref())
    }

    /// The server, found by its file or by where it works: whoever started it may have been killed before it
    /// could write the file.
    fn running(&self) -> Option<Identity> {
        self.process.running().or_else(|| pid::running_in(&self.data(), "mariadbd"))
    }

    fn launch(&self) -> Result<u32, PartError> {
        directory::copy_certificates(self.process.plan())?;
        self.write_settings()?;
        let mut command = Command::new(server()?);
        command.arg(assigned("--defaults-file=", &self.directory().join(SETTINGS)));
        self.process.start(&command, START_LIMIT, |_| greets(self.process.plan()))
    }
}

impl Part for MariaDb {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_created(&self) -> bool {
        self.data().is_dir()
    }

    fn create(&self, credentials: &Credentials) -> Result<(), PartError> {
        credentials.check()?;
        server()?;
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
        directory::prepare(NAME, self.process.plan())?;
        let _turn = self.process.turn()?;
        match self.running() {
            Some(identity) => self.process.adopt(&identity),
            None => self.launch(),
        }
    }

    fn stop(&self) -> Result<(), PartError> {
        if !self.is_created() {
            return Ok(());
        }
        let _turn = self.process.turn()?;
        let Some(identity) = self.running() else { return Ok(()) };
        self.process.end(&identity, Signal::SIGTERM, STOP_LIMIT)
    }

    fn pid(&self) -> Option<u32> {
        self.running().map(|identity| identity.pid)
    }

    /// Restarts it when it runs: only a statement of a privileged user would reload the files, and there is no
    /// such user. Servers connect again by themselves.
    fn renew_certificates(&self) -> Result<(), PartError> {
        directory::copy_certificates(self.process.plan())?;
        if self.pid().is_none() {
            return Ok(());
        }
        self.stop()?;
        self.start().map(drop)
    }
}

/// `option` and its value as one argument: `mariadb-install-db` silently takes no other form.
fn assigned(option: &str, value: &Path) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(value);
    argument
}

fn server() -> Result<PathBuf, PartError> {
    installed(&["/usr/sbin/mariadbd"], PACKAGE)
}

/// Whether the server greets: its first packet has protocol version 10 after a header of four bytes (Client/
/// Server Protocol, initial handshake). While it recovers it does not listen.
fn greets(plan: &PartPlan) -> bool {
    let greeting = || -> std::io::Result<[u8; 5]> {
        let mut stream = TcpStream::connect_timeout(&plan.address, GREETING_LIMIT)?;
        stream.set_read_timeout(Some(GREETING_LIMIT))?;
        let mut start = [0; 5];
        stream.read_exact(&mut start)?;
        Ok(start)
    };
    matches!(greeting(), Ok([_, _, _, _, 10]))
}
