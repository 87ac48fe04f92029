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
use crosstie_process::supervisor::{self, ListenerSpec, Listeners, Plan};
use crosstie_security::{ClusterKey, SecretResolver};
use crosstie_telemetry::logging::{self, LogTarget, Terminal};

use crate::accepted;

/// Exit code of a server whose configuration is not valid: `EX_CONFIG` of sysexits.h, which tells systemd that
/// trying again is pointless.
const BAD_CONFIGURATION: u8 = 78;

/// Runs the supervisor of the server in `directory` until it is stopped. With `foreground` the log is also
/// shown on the terminal. Must be called before the process starts a thread.
#[must_use]
#[expect(clippy::print_stderr, reason = "configuration errors come before there is a log")]
pub fn run_server(directory: &Path, foreground: bool) -> ExitCode {
    let Entered { directory, settings, plan, listeners, caution } = match enter(directory) {
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
        terminal: if foreground { Terminal::Stderr } else { Terminal::Quiet },
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
    let reload = Box::new(move || reload(&directory));
    supervisor::run(plan, listeners, reload)
}

/// A server's directory that this process has made its own.
struct Entered {
    directory: PathBuf,
    settings: ServerSettings,
    plan: Plan,
    /// Bound already, where that took root's rights.
    listeners: Option<Listeners>,
    /// What the operator should know of the user this runs as.
    caution: Option<String>,
}

/// Reads the settings, makes the server's directory the current one (workers find it that way), and becomes
/// the service user. As root nothing is written before that.
fn enter(directory: &Path) -> Result<Entered, Vec<String>> {
    let one = |error: io::Error| vec![format!("{}: {error}", directory.display())];
    let refused = |error: PrivilegeError| vec![told(&error)];
    let directory = directory.canonicalize().map_err(one)?;
    std::env::set_current_dir(&directory).map_err(one)?;
    let settings = privilege::as_owner_of(&directory, || settings::load(&directory))
        .map_err(refused)?
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let plan = plan(&directory, &settings);
    let setting = settings.server.user.as_deref();
    let (listeners, caution) = match Standing::choose(&directory, &directory, setting).map_err(refused)? {
        Standing::Drop(user) => {
            let bound = supervisor::bind_and_drop(&plan, &user).map_err(|error| vec![told(&error)])?;
            (Some(bound), None)
        }
        Standing::Root { reason } => (None, reason.map(|reason| root_stays(&reason))),
        Standing::Unprivileged => (None, setting.and_then(ignored)),
    };
    std::fs::create_dir_all(directory.join("work")).map_err(one)?;
    accepted::save(&directory, &settings).map_err(|error| vec![error.to_string()])?;
    Ok(Entered { directory, settings, plan, listeners, caution })
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

fn reload(directory: &Path) -> Result<Plan, String> {
    let settings = settings::load(directory)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    accepted::save(directory, &settings).map_err(|error| error.to_string())?;
    Ok(plan(directory, &settings))
}

fn plan(directory: &Path, settings: &ServerSettings) -> Plan {
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
        worker_arguments: vec![OsString::from("worker")],
    }
}

/// As many workers as the setting says, or as there are cores.
fn workers(setting: u16) -> u16 {
    match setting {
        0 => std::thread::available_parallelism()
            .ok()
            .and_then(|n| u16::try_from(n.get()).ok())
            .unwrap_or(1)
            .min(64),
        set => set,
    }
}
