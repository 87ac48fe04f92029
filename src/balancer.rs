//! The load balancer of a cluster as a component: its directory, and its agent as a process. The agent owns
//! HAProxy; when it dies, HAProxy goes on and the next agent takes it over.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use crosstie_lb::directory;
use crosstie_lb::settings::{LbSettings, SecuritySection};
use crosstie_model::UnitName;
use crosstie_model::certificate::CertificateEnd;
use crosstie_process::pidfile;
use crosstie_security::authority::Subject;
use crosstie_security::identity::ComponentKind;
use crosstie_security::private_file::write_public;
use crosstie_security::{CertificateAuthority, create_private_directory};
use serde_json::{Value, json};

use crate::environment::{Environment, reachable};
use crate::quickstart::Ports;
use crate::{certificates, process, service_user};

/// Its name and its directory's.
pub(crate) const NAME: &str = "lb";

/// Counted from the base port.
const HTTP_OFFSET: u16 = 200;
const API_OFFSET: u16 = 201;
const HTTPS_OFFSET: u16 = 250;

/// After how long an agent that was started is taken to hang.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long its HAProxy may take to finish requests, and a margin.
const STOP_LIMIT: Duration = Duration::from_secs(75);

/// How often it is looked at meanwhile.
const INTERVAL: Duration = Duration::from_millis(20);

/// Where clients' plain HTTP goes.
pub(crate) fn http(ports: Ports) -> SocketAddr {
    ports.address(HTTP_OFFSET)
}

/// Where clients' HTTPS goes.
pub(crate) fn https(ports: Ports) -> SocketAddr {
    ports.address(HTTPS_OFFSET)
}

/// Every address it listens on.
pub(crate) fn addresses(ports: Ports) -> [SocketAddr; 3] {
    [http(ports), https(ports), ports.address(API_OFFSET)]
}

/// A load balancer's directory.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The one of `environment`, if it has one.
    pub(crate) fn of(environment: &Environment) -> Option<Self> {
        let path = environment.root().join(NAME);
        path.join("lb.toml").is_file().then_some(Self { path })
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The agent's process, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        directory::running(&self.path)
    }

    /// HAProxy's first process, if it runs; it may without an agent.
    fn haproxy(&self) -> Option<u32> {
        let pid = directory::haproxy_pid(&self.path)?;
        let is_gone = pidfile::wait_gone(pid, Duration::ZERO).unwrap_or(true);
        (!is_gone).then_some(pid)
    }

    /// A value of `lb.toml`, read leniently, as `status` must work while somebody edits the file.
    fn address(&self, key: &str) -> Option<SocketAddr> {
        let text = fs::read_to_string(self.path.join("lb.toml")).ok()?;
        let mut values = text.lines().filter_map(|line| line.split_once('='));
        let (_, value) = values.find(|(name, _)| name.trim() == key)?;
        value.split('#').next()?.trim().trim_matches(['"', '\'']).parse().ok()
    }

    /// Starts the agent detached and waits until clients can connect.
    ///
    /// # Errors
    /// It ended or hung.
    pub(crate) fn launch(&self) -> Result<u32> {
        let logs = self.path.join("logs");
        let path = logs.join("console.log");
        let console = service_user::as_owner_of(&self.path, || {
            create_private_directory(&logs)?;
            process::open_console(&path)
        })?;
        let binary = std::env::current_exe().context("cannot tell where this program is")?;
        let mut child = Command::new(binary)
            .args(["lb", "run", "--detached"])
            .arg(&self.path)
            .current_dir(&self.path)
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .context("cannot start the load balancer")?;
        let begin = Instant::now();
        while begin.elapsed() < START_LIMIT {
            if let Some(status) = child.try_wait()? {
                bail!("the load balancer ended at once ({status}): {} tells why", path.display());
            }
            if self.pid() == Some(child.id()) && self.answers() {
                return Ok(child.id());
            }
            std::thread::sleep(INTERVAL);
        }
        bail!("the load balancer (pid {}) does not answer: {} tells more", child.id(), path.display())
    }

    /// Whether clients are let in and some server answers them.
    fn answers(&self) -> bool {
        let Some(address) = self.address("http") else { return self.haproxy().is_some() };
        // Whatever a server says will do; 503 is HAProxy's own word for having none.
        process::status_of(address, "/health/live").is_some_and(|status| status != 503)
    }

    /// Stops the agent, and HAProxy with it, letting requests in flight finish; says whether either ran.
    pub(crate) fn stop(&self) -> Result<bool> {
        let agent = self.pid();
        // Without an agent nobody else ends HAProxy.
        let running = [agent, self.haproxy()];
        for pid in running.into_iter().flatten().take(1) {
            let signalled = pidfile::signal(pid, pidfile::Signal::Stop);
            signalled.with_context(|| format!("cannot signal the load balancer (pid {pid})"))?;
        }
        for pid in running.into_iter().flatten() {
            if !pidfile::wait_gone(pid, STOP_LIMIT)? {
                bail!("the load balancer (pid {pid}) does not stop: `kill -9 {pid}` ends it");
            }
        }
        Ok(running.iter().any(Option::is_some))
    }

    /// When its certificates end, the one that clients see included where it is another.
    fn certificates(&self) -> Vec<CertificateEnd> {
        let (security, https) = match crosstie_lb::settings::load(&self.path) {
            Ok(settings) => (settings.security, settings.https.certificate),
            Err(_) => (SecuritySection::default(), None),
        };
        let mut files = vec![("load_balancer", security.certificate), ("ca", security.ca)];
        files.extend(https.map(|certificate| ("https", certificate)));
        certificates::ends(files.into_iter().map(|(name, path)| (name, self.path.join(path))))
    }

    /// As the environment's status shows it.
    pub(crate) fn status(&self) -> Value {
        let (agent, haproxy) = (self.pid(), self.haproxy());
        let (state, reason) = match (agent, haproxy) {
            (Some(_), Some(_)) => ("running", None),
            (None, Some(_)) => ("degraded", Some("its agent does not run; `crosstie start` starts it")),
            (Some(_), None) => ("degraded", Some("HAProxy does not run; the agent's log says why")),
            (None, None) => ("stopped", None),
        };
        let address = self.address("http").map(|address| format!("http://{}", reachable(address)));
        let mut row = json!({
            "name": NAME, "kind": "load balancer", "state": state, "pid": agent, "haproxy": haproxy,
            "address": address, "certificates": self.certificates(), "workers": [],
        });
        if let (Some(reason), Some(fields)) = (reason, row.as_object_mut()) {
            fields.insert("reason".into(), reason.into());
        }
        row
    }
}

/// Makes the load balancer's directory for a cluster of `servers` servers on this host.
pub(crate) fn create(
    environment: &Environment,
    authority: &CertificateAuthority,
    ports: Ports,
    servers: u16,
) -> Result<()> {
    let path = environment.root().join(NAME);
    let members = (0..servers).map(|index| ports.management_of(index)).collect();
    let mut settings = LbSettings::new(UnitName::new(NAME)?, ports.address(API_OFFSET), members);
    settings.lb.http = Some(http(ports));
    settings.lb.https = Some(https(ports));
    directory::create(&path, &settings).with_context(|| format!("cannot create {}", path.display()))?;
    let issued = authority.issue(&Subject::listening(ComponentKind::LoadBalancer, NAME, [ports.ip()]))?;
    issued.save(&path.join("tls/lb.pem"), &path.join("tls/lb.key"))?;
    Ok(write_public(&path.join("tls/ca.pem"), authority.certificate_pem().as_bytes())?)
}

/// Runs the agent in this process.
pub(crate) fn run_here(balancer: &Directory) -> Result<ExitCode> {
    Ok(crosstie_lb::run(&balancer.path, true))
}
