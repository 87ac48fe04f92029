//! A server's supervisor process: settings in, a plan for the supervisor out.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crosstie_config::settings;
use crosstie_model::settings::ServerSettings;
use crosstie_odb::{Odb, OdbError, OdbOptions};
use crosstie_process::privilege::{self, PrivilegeError, ServiceUser, Standing};
use crosstie_process::supervisor::{self, ListenerSpec, Origin, Plan};
use crosstie_security::{ClusterKey, SecretResolver};
use crosstie_telemetry::logging::{self, LogTarget, Terminal};

use crate::accepted::{self, AcceptedSettings};

/// Exit code of a server whose configuration is not valid: `EX_CONFIG` of sysexits.h, which tells systemd that
/// trying again is pointless.
const BAD_CONFIGURATION: u8 = 78;

/// What a supervisor is told on its command line. An upgrade passes it on, so releases must understand each
/// other's: `server run DIRECTORY [--foreground] [--accepted first|second]`.
#[derive(Debug, Clone)]
pub struct ServerRun {
    /// The server's directory.
    pub directory: PathBuf,
    /// Whether the log is also shown on the terminal.
    pub foreground: bool,
    /// Where the accepted settings are kept.
    pub accepted: AcceptedSettings,
}

impl ServerRun {
    /// The command line of a successor.
    fn successor(&self, directory: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["server".into(), "run".into(), directory.into()];
        arguments.extend(self.foreground.then(|| "--foreground".into()));
        arguments.extend(["--accepted".into(), self.accepted.other().as_str().into()]);
        arguments
    }
}

/// Runs the supervisor of a server until it is stopped or succeeded. Must be called before the process starts a
/// thread.
#[must_use]
#[expect(clippy::print_stderr, reason = "configuration errors come before there is a log")]
pub fn run_server(run: &ServerRun) -> ExitCode {
    let origin = match Origin::of_this_process() {
        Ok(origin) => origin,
        Err(error) => {
            eprintln!("crosstie: {}", told(&error));
            return ExitCode::FAILURE;
        }
    };
    let Entered { directory, settings, plan, origin, caution } = match enter(run, origin) {
        Ok(entered) => entered,
        Err(reasons) => {
            for reason in reasons {
                eprintln!("crosstie: {reason}");
            }
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    let target = LogTarget {
        settings: settings.log.clone(),
        directory: directory.join("logs"),
        process: "supervisor".into(),
        terminal: if run.foreground { Terminal::Stderr } else { Terminal::Quiet },
    };
    // The database is brought up to date by a process that ends, so that the supervisor stays single-threaded.
    if let Err(NotMigrated { reason, code }) = migrate(&directory, &settings) {
        eprintln!("crosstie: {reason}");
        return code;
    }
    let _log = match logging::init(target) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("crosstie: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(caution) = caution {
        eprintln!("crosstie: warning: {caution}");
        tracing::warn!("{caution}");
    }
    let run = run.clone();
    let reload = Box::new(move || reload(&run, &directory));
    supervisor::run(plan, origin, reload)
}

/// A server's directory that this process has made its own.
struct Entered {
    directory: PathBuf,
    settings: ServerSettings,
    plan: Plan,
    origin: Origin,
    /// What the operator should know of the user this runs as.
    caution: Option<String>,
}

/// Reads the settings, makes the server's directory the current one (workers find it that way), and becomes
/// the service user. As root nothing is written before that.
fn enter(run: &ServerRun, mut origin: Origin) -> Result<Entered, Vec<String>> {
    let directory = &run.directory;
    let one = |error: io::Error| vec![format!("{}: {error}", directory.display())];
    let refused = |error: PrivilegeError| vec![told(&error)];
    let directory = directory.canonicalize().map_err(one)?;
    std::env::set_current_dir(&directory).map_err(one)?;
    let settings = privilege::as_owner_of(&directory, || settings::load(&directory))
        .map_err(refused)?
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let plan = plan(run, &directory, &settings);
    let setting = settings.server.user.as_deref();
    let caution = match Standing::choose(&directory, &directory, setting).map_err(refused)? {
        Standing::Drop(user) => {
            origin.bind_and_drop(&plan, &user).map_err(|error| vec![told(&error)])?;
            None
        }
        Standing::Root { reason } => reason.map(|reason| root_stays(&reason)),
        Standing::Unprivileged => setting.and_then(ignored),
    };
    std::fs::create_dir_all(directory.join("work")).map_err(one)?;
    accepted::save(&directory, run.accepted, &settings).map_err(|error| vec![error.to_string()])?;
    Ok(Entered { directory, settings, plan, origin, caution })
}

fn root_stays(reason: &str) -> String {
    format!("the server and the services in it run as root: {reason}; [server] user tells it whom to become")
}

/// Whom the settings name, if that is not who runs this.
fn ignored(name: &str) -> Option<String> {
    let is_ours = ServiceUser::by_name(name).ok().flatten().is_some_and(|user| user.is_this_process());
    (!is_ours)
        .then(|| format!("only root can become the user {name}, whom [server] user names: it is ignored"))
}

/// An error with its causes, in one line.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Why the database keeps the server from starting.
struct NotMigrated {
    reason: String,
    code: ExitCode,
}

impl NotMigrated {
    /// What trying again does not mend.
    fn configuration(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), code: ExitCode::from(BAD_CONFIGURATION) }
    }

    fn failed(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), code: ExitCode::FAILURE }
    }
}

/// Applies the migrations the database lacks. A database that is away is no reason not to start: the server
/// then serves its last good snapshot. One that is newer than this release is.
fn migrate(directory: &Path, settings: &ServerSettings) -> Result<(), NotMigrated> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| NotMigrated::failed(format!("no reactor: {error}")))?;
    let key = ClusterKey::load(&directory.join(&settings.security.cluster_key));
    let key = key.map_err(NotMigrated::configuration)?;
    let resolver = SecretResolver::new(key.into(), directory.to_owned());
    let password = settings.odb.password.as_deref().map(|reference| resolver.resolve_setting(reference));
    let password = password.transpose().map_err(NotMigrated::configuration)?;
    let options = OdbOptions::from_settings(settings, directory, password);
    match runtime.block_on(async { Odb::connect(&options)?.migrate().await }) {
        Err(error) if !error.is_unreachable() => Err(match error {
            OdbError::SchemaNewer { .. } | OdbError::Options(_) => NotMigrated::configuration(error),
            error => NotMigrated::failed(error),
        }),
        _ => Ok(()),
    }
}

fn reload(run: &ServerRun, directory: &Path) -> Result<Plan, String> {
    let settings = settings::load(directory)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    accepted::save(directory, run.accepted, &settings).map_err(|error| error.to_string())?;
    Ok(plan(run, directory, &settings))
}

fn plan(run: &ServerRun, directory: &Path, settings: &ServerSettings) -> Plan {
    let server = &settings.server;
    let addresses =
        [("http", server.http), ("https", server.https), ("management", Some(settings.management.address))];
    let listeners = addresses
        .into_iter()
        .filter_map(|(name, address)| Some(ListenerSpec { name, address: address?, backlog: server.backlog }))
        .collect();
    Plan {
        server: server.name.to_string(),
        directory: directory.to_owned(),
        listeners,
        workers: workers(server.workers),
        drain: Duration::from_secs(server.drain_s),
        restart_budget: server.restart_budget,
        worker_arguments: vec!["worker".into(), "--accepted".into(), run.accepted.as_str().into()],
        upgrade: Duration::from_secs(server.upgrade_s),
        successor_arguments: run.successor(directory),
    }
}

/// As many workers as the setting says, or as there are cores.
pub(crate) fn workers(setting: u16) -> u16 {
    match setting {
        0 => std::thread::available_parallelism()
            .ok()
            .and_then(|n| u16::try_from(n.get()).ok())
            .unwrap_or(1)
            .min(64),
        set => set,
    }
}
