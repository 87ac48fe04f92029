//! The agent as a program: from a directory to a running load balancer, and to its end.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crosstie_config::LocatedFault;
use crosstie_process::pidfile::PidFile;
use crosstie_security::private_file::{read_private, read_public};
use crosstie_security::tls::{self, ClientAuthentication, ClientIdentity, TlsError};
use crosstie_security::{ReloadingCertificate, create_private_directory};
use crosstie_telemetry::logging::{self, LogGuard, LogTarget, Terminal};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::agent::{Agent, StartError};
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
/// terminal. Must be called before the process starts a thread.
#[must_use]
#[expect(clippy::print_stderr, reason = "configuration errors come before there is a log")]
pub fn run(directory: &Path, foreground: bool) -> ExitCode {
    let say = |text: &str| text.lines().for_each(|line| eprintln!("crosstie: {line}"));
    let settings = match enter(directory) {
        Ok(settings) => settings,
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
    let claimed = PidFile::claim_file(&directory::pid_file(Path::new("."))).map_err(RunError::from);
    let logged = claimed.and_then(|claim| Ok((claim, logging::init(target)?)));
    let (_claim, log) = match logged {
        Ok(logged) => logged,
        Err(error) => {
            say(&chain(error.as_ref()));
            return ExitCode::FAILURE;
        }
    };
    match start(settings, &log) {
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

/// Makes `directory` the current one, so that every path is relative and short enough for a socket.
fn enter(directory: &Path) -> Result<LbSettings, Vec<LocatedFault>> {
    let failed = |error: std::io::Error| vec![LocatedFault::new(directory, 1, "", error.to_string())];
    std::env::set_current_dir(directory).map_err(failed)?;
    for name in ["work", "work/empty", "logs"] {
        create_private_directory(Path::new(name)).map_err(failed)?;
    }
    settings::load(Path::new("."))
}

fn start(settings: LbSettings, log: &LogGuard) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings, log))
}

async fn serve(settings: LbSettings, log: &LogGuard) -> Result<(), RunError> {
    // Registered first, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let security = settings.security.clone();
    let certificate = ReloadingCertificate::load(security.certificate, security.key)?;
    let clients = ClientAuthentication::Required(tls::roots_from_file(&security.ca)?);
    let api_tls = tls::server_config(Arc::clone(&certificate), tls::ALPN_HTTP, &clients)?;
    let listener = TcpListener::bind(settings.lb.api)
        .await
        .map_err(|error| format!("lb.api: cannot listen on {}: {error}", settings.lb.api))?;
    let report = Arc::new(SharedReport::default());
    let (given, mut given_changes) = watch::channel(settings.clone());
    let mut agent = Agent::new(settings, certificate, Arc::clone(&report), given).await?;
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
