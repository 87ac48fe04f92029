//! RabbitMQ as a part. It has one user and one virtual host, read from a file at every start, so that no
//! program is run to make them and no password is an argument. It takes TLS with a certificate of the
//! environment's CA and the user's password, and nothing else.
//!
//! A broker of the distribution would also run `epmd`, a daemon of the whole host, and listen for other nodes
//! of a RabbitMQ cluster. This one does neither: its one socket is the one for AMQP. The price is that
//! `rabbitmqctl` cannot reach it.

use std::fmt::Write as _;
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::directory;
use crate::error::PartError;
use crate::part::{Credentials, Part, PartPlan};
use crate::pid::{self, Identity};
use crate::process::{PartProcess, installed};

const NAME: &str = "rabbitmq";
const PACKAGE: &str = "rabbitmq-server";

/// The script behind the distribution's wrapper, which would insist on its own user and directories.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// What the script becomes.
const MACHINE: &str = "beam.smp";

/// The node's name: part of the names of its files, so it must not follow the host's.
const NODE: &str = "crosstie@localhost";

/// User, virtual host and rights. Written last: with it the part is made.
const DEFINITIONS: &str = "definitions.json";

/// Written anew at every start.
const SETTINGS: &str = "rabbitmq.conf";

/// Files here are read after that one and never written, for whoever runs the broker.
const OWN_SETTINGS: &str = "own";

/// Arguments of the Erlang machine. The node has its name from here, before RabbitMQ would start `epmd` to
/// give it one; it does not listen for others, and the port it would announce is therefore any. One
/// scheduler thread, which does not spin. Certificate files are looked at every ten seconds.
const MACHINE_ARGUMENTS: &str = "-sname crosstie@localhost -dist_listen false -start_epmd false \
                                 -erl_epmd_port 1 +S 1:1 -ssl ssl_pem_cache_clean 10000";

/// How long it may take to answer: it reads what is on its disk first, tens of thousands of messages after a crash.
const START_LIMIT: Duration = Duration::from_secs(300);

/// How long it may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How long one look at its address may take.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// RabbitMQ of the distribution.
pub struct RabbitMq {
    process: PartProcess,
}

impl RabbitMq {
    /// The part that `plan` describes, made or not.
    #[must_use]
    pub fn new(plan: PartPlan) -> Self {
        Self { process: PartProcess::new(NAME, plan) }
    }

    fn directory(&self) -> &Path {
        &self.process.plan().directory
    }

    fn write(&self, name: &str, content: &str) -> Result<(), PartError> {
        let user = self.process.plan().user.as_ref();
        directory::write_private(&self.directory().join(name), content.as_bytes(), user)
    }

    /// The broker's settings. Files are named relative to the part's directory, where it runs, so that a
    /// directory's name cannot be misread as something else.
    fn settings(&self) -> String {
        let plan = self.process.plan();
        // An IPv6 address stands without brackets here.
        let address = match plan.address.ip() {
            IpAddr::V4(ip) => format!("{ip}:{}", plan.address.port()),
            IpAddr::V6(ip) => format!("{ip}:{}", plan.address.port()),
        };
        let mut text = String::from("# Written at every start.\n");
        let mut set = |name: &str, value: &str| {
            let _ = writeln!(text, "{name} = {value}");
        };
        if plan.tls.is_some() {
            set("listeners.tcp", "none");
            set("listeners.ssl.1", &address);
            set("ssl_options.cacertfile", "tls/ca.pem");
            set("ssl_options.certfile", "tls/part.pem");
            set("ssl_options.keyfile", "tls/part.key");
            set("ssl_options.verify", "verify_peer");
            set("ssl_options.fail_if_no_peer_cert", "true");
            set("ssl_options.versions.1", "tlsv1.3");
            set("ssl_options.versions.2", "tlsv1.2");
        } else {
            set("listeners.tcp.1", &address);
        }
        set("auth_mechanisms.1", "PLAIN");
        set("load_definitions", DEFINITIONS);
        set("vm_memory_high_watermark.absolute", "256MiB");
        set("disk_free_limit.absolute", "50MB");
        set("max_message_size", "16777216");
        set("log.file", "false");
        set("log.console", "true");
        set("log.console.level", "info");
        set("log.console.use_colors", "off");
        set("log.connection.level", "warning");
        text
    }

    fn command(&self, program: PathBuf) -> Result<Command, PartError> {
        let directory = self.directory().canonicalize().map_err(PartError::file(self.directory()))?;
        let mut command = Command::new(program);
        command
            // Makes the script replace itself by the machine instead of waiting for it.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env("RABBITMQ_NODENAME", NODE)
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", MACHINE_ARGUMENTS)
            // Once a minute a broker sees to it that `epmd` knows it, by a machine that is started for it: not here,
            // where it would listen on all addresses.
            .env("ERL_AFLAGS", "-start_epmd false")
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // A dump of a crash would hold the password.
            .env("ERL_CRASH_DUMP_SECONDS", "0");
        let files = [
            ("RABBITMQ_CONFIG_FILE", SETTINGS),
            ("RABBITMQ_CONFIG_FILES", OWN_SETTINGS),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("RABBITMQ_MNESIA_BASE", "data"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_PID_FILE", "rabbitmq.pid"),
            // Neither is there: those of this host's own broker are none of ours.
            ("RABBITMQ_CONF_ENV_FILE", "no-env.conf"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "no-advanced.config"),
        ];
        for (variable, file) in files {
            command.env(variable, directory.join(file));
        }
        Ok(command)
    }

    /// The broker, found by the part's file or by where it works: whoever started it may have been killed
    /// before it could write the file.
    fn running(&self) -> Option<Identity> {
        self.process.running().or_else(|| pid::running_in(self.directory(), MACHINE))
    }

    /// Its listener is the last thing a broker starts.
    fn answers(&self) -> bool {
        TcpStream::connect_timeout(&self.process.plan().address, CONNECT_LIMIT).is_ok()
    }
}

impl Part for RabbitMq {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_created(&self) -> bool {
        self.directory().join(DEFINITIONS).is_file()
    }

    fn create(&self, credentials: &Credentials) -> Result<(), PartError> {
        credentials.check()?;
        installed(&[PROGRAM], PACKAGE)?;
        directory::prepare(NAME, self.process.plan())?;
        let _turn = self.process.turn()?;
        if self.is_created() {
            return Err(PartError::Exists { directory: self.directory().to_owned() });
        }
        let salt = getrandom::u32().map_err(|error| PartError::Invalid {
            what: "the system's source of randomness",
            detail: error.to_string(),
        })?;
        self.write("enabled_plugins", "[].\n")?;
        self.write(DEFINITIONS, &definitions(credentials, salt.to_be_bytes()))
    }

    fn start(&self) -> Result<u32, PartError> {
        if !self.is_created() {
            return Err(PartError::NotCreated { part: NAME, directory: self.directory().to_owned() });
        }
        let program = installed(&[PROGRAM], PACKAGE)?;
        directory::prepare(NAME, self.process.plan())?;
        let _turn = self.process.turn()?;
        if let Some(identity) = self.running() {
            return self.process.adopt(&identity);
        }
        directory::copy_certificates(self.process.plan())?;
        self.write(SETTINGS, &self.settings())?;
        for name in ["data", "log", OWN_SETTINGS] {
            directory::own_directory(&self.directory().join(name), self.process.plan().user.as_ref())?;
        }
        self.process.start(&self.command(program)?, START_LIMIT, |_| self.answers())
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

    fn renew_certificates(&self) -> Result<(), PartError> {
        // Files that changed are read again within ten seconds; connections that are open stay as they are.
        directory::copy_certificates(self.process.plan()).map(|_| ())
    }
}

/// The file RabbitMQ reads its user, virtual host and rights from. Who has a virtual host to itself may do
/// anything in it, whatever [`crate::Reach`] says: a broker knows nothing between that and everything.
fn definitions(credentials: &Credentials, salt: [u8; 4]) -> String {
    let Credentials { user, database: vhost, password, .. } = credentials;
    let document = json!({
        "users": [{
            "name": user,
            "password_hash": password_hash(password.expose(), salt),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": [],
        }],
        "vhosts": [{ "name": vhost }],
        "permissions": [{ "user": user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*" }],
    });
    format!("{document:#}\n")
}

/// A password as RabbitMQ keeps it: Base64 of the salt and the SHA-256 of salt and password
/// (rabbitmq.com, "Credentials and Passwords").
fn password_hash(password: &[u8], salt: [u8; 4]) -> String {
    let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
    STANDARD.encode([salt.as_slice(), &digest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hashed_as_the_broker_documents_it() {
        // The example of "Credentials and Passwords": salt 908D C60A, password `test12`.
        let hash = password_hash(b"test12", [0x90, 0x8D, 0xC6, 0x0A]);
        assert_eq!(hash, "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
    }

    fn part(address: &str) -> RabbitMq {
        RabbitMq::new(PartPlan {
            directory: "/nowhere".into(),
            address: address.parse().unwrap(),
            tls: None,
            user: None,
        })
    }

    #[test]
    fn addresses_are_written_as_the_broker_reads_them() {
        assert!(part("127.0.0.1:5999").settings().contains("listeners.tcp.1 = 127.0.0.1:5999\n"));
        assert!(part("[::1]:5999").settings().contains("listeners.tcp.1 = ::1:5999\n"));
    }
}
