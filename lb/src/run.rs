//! The agent as a program: from a directory to a running load balancer, and to its end.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crosstie_config::LocatedFault;
use crosstie_process::adopt::adopt;
use crosstie_process::pidfile::PidFile;
use crosstie_process::privilege::{PrivilegeError, Standing};
use crosstie_security::private_file::{read_private, read_public};
use crosstie_security::tls::{self, ClientAuthentication, ClientIdentity, TlsError};
use crosstie_security::{ReloadingCertificate, create_private_directory};
use crosstie_telemetry::logging::{self, LogGuard, LogTarget, Terminal};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::agent::{Agent, StartError};
use crate::haproxy::left_behind;
use crate::listening::{Listening, addresses};
use crate::member::Member;
use crate::poll::{Answer, Poller, pause};
use crate::report::SharedReport;
use crate::settings::LbSettings;
use crate::{api, directory, settings};

/// Exit code when the configuration is not valid: `EX_CONFIG` of sysexits.h, which tells systemd that trying
/// again is pointless.
const BAD_CONFIGURATION: u8 = 78;
/// Pause before the next server is asked when one did not answer.
const NEXT_SERVER: Duration = Duration::from_millis(50);

/// Why the agent ends with an error.
type RunError = Box<dyn Error + Send + Sync>;

/// Runs the agent of the load balancer in `directory` until SIGTERM or SIGINT, which stops HAProxy as well;
/// an agent that dies otherwise leaves HAProxy running. With `foreground` the log is also shown on the
/// terminal. Must be called before the process starts a thread. In somebody else's directory root becomes its
/// owner, once it holds the sockets.
#[must_use]
#[expect(clippy::print_stderr, reason = "configuration errors come before there is a log")]
pub fn run(directory: &Path, foreground: bool) -> ExitCode {
    let say = |text: &str| text.lines().for_each(|line| eprintln!("crosstie: {line}"));
    let (settings, standing) = match enter(directory) {
        Ok(entered) => entered,
        Err(faults) => {
            faults.iter().for_each(|fault| say(&fault.to_string()));
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    let target = LogTarget {
        settings: settings.log.clone(),
        directory: "logs".into(),
        process: "load balancer".into(),
        terminal: if foreground { Terminal::Stderr } else { Terminal::Quiet },
    };
    let begun = claim(&standing)
        .and_then(|claim| Ok((claim, hold(&settings, &standing)?)))
        .and_then(|(claim, held)| Ok((claim, held, logging::init(target)?)));
    let (_claim, held, log) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            say(&chain(error.as_ref()));
            return ExitCode::FAILURE;
        }
    };
    match start(settings, held, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let told = chain(error.as_ref());
            tracing::error!(error = told, "the load balancer ends");
            say(&told);
            let configuration = error.downcast_ref::<StartError>().is_some();
            if configuration { ExitCode::from(BAD_CONFIGURATION) } else { ExitCode::FAILURE }
        }
    }
}

/// An error with what caused it.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Makes `directory` the current one, so that every path is relative and short enough for a socket, and finds
/// out whom to become. As root nothing is written there that its owner could not write.
fn enter(directory: &Path) -> Result<(LbSettings, Standing), Vec<LocatedFault>> {
    let fault = |told: &str| vec![LocatedFault::new(directory, 1, "", told.to_owned())];
    let failed = |error: std::io::Error| fault(&error.to_string());
    let path = directory.canonicalize().map_err(failed)?;
    std::env::set_current_dir(&path).map_err(failed)?;
    let standing = Standing::of_owner(&path).map_err(|error| fault(&chain(&error)))?;
    let settings = as_whom(&standing, || {
        for name in ["work", "work/empty", "logs"] {
            create_private_directory(Path::new(name)).map_err(failed)?;
        }
        settings::load(Path::new("."))
    });
    Ok((settings.map_err(|error| fault(&chain(&error)))??, standing))
}

/// Does `work` as whoever this process is to become.
fn as_whom<T>(standing: &Standing, work: impl FnOnce() -> T) -> Result<T, PrivilegeError> {
    match standing {
        Standing::Drop(owner) => owner.act(work),
        Standing::Unprivileged | Standing::Root { .. } => Ok(work()),
    }
}

fn claim(standing: &Standing) -> Result<PidFile, RunError> {
    if let Standing::Drop(owner) = standing {
        // What root left here when it made the directory.
        adopt(Path::new("."), owner)?;
    }
    Ok(as_whom(standing, || PidFile::claim_file(&directory::pid_file(Path::new("."))))??)
}

/// The sockets this process listens on, as far as root opened them.
#[derive(Default)]
struct Held {
    clients: Listening,
    api: Option<std::net::TcpListener>,
}

/// Opens the sockets while this is root, if it is to become somebody else, and becomes them for good. An
/// address below 1024 cannot be added later without another start by root.
fn hold(settings: &LbSettings, standing: &Standing) -> Result<Held, RunError> {
    let Standing::Drop(owner) = standing else { return Ok(Held::default()) };
    let mut clients = left_behind(owner);
    match clients.bind(&addresses(settings), settings.limits.backlog) {
        // An HAProxy of somebody else has them: the agent's loop tells and tries again.
        Err(error) if error.is_taken() => {}
        bound => bound?,
    }
    let api = std::net::TcpListener::bind(settings.lb.api).map_err(|error| no_api(settings, &error))?;
    api.set_nonblocking(true)?;
    owner.become_for_good()?;
    Ok(Held { clients, api: Some(api) })
}

fn no_api(settings: &LbSettings, error: &std::io::Error) -> String {
    format!("lb.api: cannot listen on {}: {error}", settings.lb.api)
}

fn start(settings: LbSettings, held: Held, log: &LogGuard) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings, held, log))
}

async fn serve(settings: LbSettings, held: Held, log: &LogGuard) -> Result<(), RunError> {
    // Registered first, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let security = settings.security.clone();
    let certificate = ReloadingCertificate::load(security.certificate, security.key)?;
    let clients = ClientAuthentication::Required(tls::roots_from_file(&security.ca)?);
    let api_tls = tls::server_config(Arc::clone(&certificate), tls::ALPN_HTTP, &clients)?;
    let listener = match held.api {
        Some(held) => TcpListener::from_std(held)?,
        None => TcpListener::bind(settings.lb.api).await.map_err(|error| no_api(&settings, &error))?,
    };
    let report = Arc::new(SharedReport::default());
    let (given, mut given_changes) = watch::channel(settings.clone());
    let mut agent = Agent::new(settings, held.clients, certificate, Arc::clone(&report), given).await?;
    let (learned, mut learning) = watch::channel(agent.members().to_vec());
    learning.mark_unchanged();
    let poller = Poller::new(client_tls(&given_changes.borrow())?);
    tokio::spawn(follow(poller, given_changes.clone(), learned, Arc::clone(&report)));
    tokio::spawn(api::serve(listener, api_tls, report));
    given_changes.mark_unchanged();
    loop {
        agent.converge().await;
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => agent.take_up().await,
            changed = learning.changed() => {
                // The follower only ends with the runtime.
                if changed.is_ok() {
                    let members = learning.borrow_and_update().clone();
                    agent.learn(members);
                }
            }
            changed = given_changes.changed() => {
                if changed.is_ok() {
                    log.apply(&given_changes.borrow_and_update().log);
                }
            }
            () = agent.something() => {}
        }
    }
    tracing::info!("stopping HAProxy");
    agent.stop().await;
    Ok(())
}

/// TLS towards the servers, with the load balancer's certificate as it is now.
fn client_tls(settings: &LbSettings) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let security = &settings.security;
    let chain = read_public(&security.certificate)?;
    let key = read_private(&security.key)?;
    let identity = ClientIdentity { chain_pem: &chain, key_pem: &key };
    tls::client_config(tls::roots_from_file(&security.ca)?, Some(&identity), tls::ALPN_HTTP1)
}

/// Asks for the members for as long as the agent lives.
async fn follow(
    mut poller: Poller,
    mut given: watch::Receiver<LbSettings>,
    learned: watch::Sender<Vec<Member>>,
    report: Arc<SharedReport>,
) {
    let mut failed = 0;
    loop {
        if given.has_changed().unwrap_or(false) {
            match client_tls(&given.borrow_and_update()) {
                Ok(tls) => poller.renew(tls),
                Err(error) => tracing::warn!(%error, "servers are asked with the old certificate"),
            }
        }
        let (seeds, interval) = {
            let given = given.borrow();
            (given.lb.members.clone(), Duration::from_millis(given.lb.poll_ms))
        };
        let known = learned.borrow().iter().filter_map(|member| member.management).collect::<BTreeSet<_>>();
        poller.know(seeds.into_iter().chain(known));
        let asked = poller.server();
        let wait = match poller.ask().await {
            Ok(answer) => {
                failed = 0;
                note_answer(&report, asked);
                if let Answer::Members(members) = answer {
                    learned.send_if_modified(|known| {
                        let differs = *known != members;
                        *known = members;
                        differs
                    });
                }
                pause(interval)
            }
            Err(error) => {
                failed += 1;
                note_failure(&report, asked, &error.to_string());
                // Everybody is asked once quickly, then at the usual pace.
                if failed % poller.known().max(1) == 0 { pause(interval) } else { NEXT_SERVER }
            }
        };
        tokio::time::sleep(wait).await;
    }
}

fn note_answer(report: &SharedReport, server: Option<SocketAddr>) {
    let mut report = report.write();
    if let Some(fault) = report.members.fault.take() {
        tracing::info!(?server, fault, "a server tells the members again");
    }
    report.members.source = server;
    report.members.answers += 1;
}

fn note_failure(report: &SharedReport, server: Option<SocketAddr>, error: &str) {
    let mut report = report.write();
    let fault = server.map_or_else(|| error.to_owned(), |server| format!("{server} {error}"));
    if report.members.fault.is_none() {
        tracing::warn!(fault, "a server does not tell the members; asking the others");
    }
    report.members.fault = Some(fault);
    report.members.failures += 1;
}
