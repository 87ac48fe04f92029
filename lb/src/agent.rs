//! The agent's loop: what should be, what is, and the steps between, made out anew whenever something
//! happens and once a second.
//!
//! Nothing depends on having seen an event: an agent that was away for an hour, or starts beside an HAProxy
//! that an earlier one left, does the same as one that watched all along.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crosstie_security::ReloadingCertificate;
use nix::unistd::{Group, User, geteuid};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::check::check;
use crate::haproxy::{CONFIGURATION, Haproxy, HaproxyError, info, rotate_log};
use crate::listening::Listening;
use crate::material::Material;
use crate::member::{Member, Pool, Remembered, next_pool};
use crate::reconcile::{Step, open, steps};
use crate::render::{BACKEND, FALLBACK, Inputs, Privileges, Rendered, add_server, render};
use crate::report::SharedReport;
use crate::runtime::{self, RuntimeError, parse_servers};
use crate::settings::LbSettings;
use crate::snippet::Snippet;
use crate::{accepted, certificates, settings, snippet};

/// How often everything is looked at without a reason.
const TICK: Duration = Duration::from_secs(1);
/// How long an HAProxy must have lived for its death not to count as a failed start.
const HEALTHY: Duration = Duration::from_secs(1);
/// How many starts may fail in a row before there are pauses.
const BUDGET: u32 = 5;
/// First and longest pause after starts that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What HAProxy answers when an address was set, or was the same.
const ADDRESS_ANSWERS: [&str; 4] = ["IP changed", "port changed", "nothing changed", "no need to change"];
const MIB: u64 = 1024 * 1024;

/// The agent's own directory, which is its current one.
const HERE: &str = ".";

/// What the administrator gave, as last found good.
#[derive(Clone, PartialEq)]
struct Given {
    settings: LbSettings,
    snippets: Vec<Snippet>,
    material: Material,
    privileges: Option<Privileges>,
}

impl Given {
    /// Reads everything.
    ///
    /// # Errors
    /// Every fault of settings and snippets; or the certificates cannot be used.
    fn read() -> Result<Self, Vec<String>> {
        let here = Path::new(HERE);
        let texts = |faults: Vec<crosstie_config::LocatedFault>| -> Vec<String> {
            faults.iter().map(ToString::to_string).collect()
        };
        let (settings, snippets) = match (settings::load(here), snippet::load(here)) {
            (Ok(settings), Ok(snippets)) => (settings, snippets),
            (settings, snippets) => {
                let mut faults = settings.err().map(texts).unwrap_or_default();
                faults.extend(snippets.err().map(texts).unwrap_or_default());
                return Err(faults);
            }
        };
        Self::with(settings, snippets)
    }

    fn with(settings: LbSettings, snippets: Vec<Snippet>) -> Result<Self, Vec<String>> {
        let material =
            Material::collect(Path::new(HERE), &settings).map_err(|error| vec![error.to_string()])?;
        let privileges = privileges(&settings).map_err(|detail| vec![detail])?;
        Ok(Self { settings, snippets, material, privileges })
    }

    fn inputs<'a>(&'a self, pool: &'a Pool) -> Inputs<'a> {
        Inputs {
            settings: &self.settings,
            material: &self.material,
            snippets: &self.snippets,
            pool,
            privileges: self.privileges.as_ref(),
        }
    }
}

/// Whom HAProxy becomes: nobody else unless this is root.
fn privileges(settings: &LbSettings) -> Result<Option<Privileges>, String> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let name = &settings.lb.user;
    let user = User::from_name(name).map_err(|error| format!("cannot look up the user {name}: {error}"))?;
    let user = user.ok_or_else(|| format!("lb.user: there is no user {name}"))?;
    let group = Group::from_gid(user.gid).ok().flatten();
    let group = group.ok_or_else(|| format!("lb.user: the user {name} has no group"))?;
    Ok(Some(Privileges { user: user.name, group: group.name }))
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What the administrator gave is faulty, and nothing good is known from before.
    #[error("{}", .0.join("\n"))]
    Configuration(Vec<String>),
}

/// The agent.
pub struct Agent {
    given: Given,
    /// What HAProxy has served with, to go back to. A configuration it reads without a fault may still be one it
    /// cannot start with, such as one that listens where somebody else does.
    proven: Option<Given>,
    pool: Pool,
    members: Vec<Member>,
    /// The configuration on disk, as HAProxy found it good.
    rendered: Rendered,
    haproxy: Haproxy,
    started: Instant,
    /// Starts in a row that failed or did not last.
    failures: u32,
    not_before: Instant,
    certificate: Arc<ReloadingCertificate>,
    report: Arc<SharedReport>,
    given_changed: watch::Sender<LbSettings>,
    /// Certificates that HAProxy did not find good.
    refused: Option<Material>,
}

impl Agent {
    /// An agent of the load balancer in the current directory, with settings that were read already and sockets
    /// that are held already. Finds the HAProxy that an earlier agent left.
    ///
    /// # Errors
    /// There is no configuration that HAProxy finds good.
    pub async fn new(
        settings: LbSettings,
        listening: Listening,
        certificate: Arc<ReloadingCertificate>,
        report: Arc<SharedReport>,
        given_changed: watch::Sender<LbSettings>,
    ) -> Result<Self, StartError> {
        let remembered = Remembered::load(Path::new(HERE));
        let (given, rendered, fault) = first(settings, &remembered.pool).await?;
        let mut haproxy = Haproxy::holding(listening);
        let adopted = haproxy.adopt().await;
        if adopted {
            tracing::info!(pid = haproxy.master(), "took over the HAProxy that runs");
        }
        {
            let mut report = report.write();
            report.name = given.settings.lb.name.to_string();
            report.haproxy.adopted = adopted;
            report.configuration.fault = fault;
            report.members.members.clone_from(&remembered.members);
            report.members.pool.clone_from(&remembered.pool);
        }
        let agent = Self {
            given,
            proven: None,
            pool: remembered.pool,
            members: remembered.members,
            rendered,
            haproxy,
            started: Instant::now(),
            failures: 0,
            not_before: Instant::now(),
            certificate,
            report,
            given_changed,
            refused: None,
        };
        agent.keep();
        Ok(agent)
    }

    /// The last good answer about the members.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Waits until something happened that [`Agent::converge`] should look at: HAProxy ended, or time passed.
    /// Cancel safe.
    pub async fn something(&self) {
        let tick = if self.haproxy.master().is_some() {
            Instant::now() + TICK
        } else {
            self.not_before.min(Instant::now() + TICK)
        };
        tokio::select! {
            () = self.haproxy.ended() => {}
            () = tokio::time::sleep_until(tick) => {}
        }
    }

    /// Takes up settings and snippets anew. Faulty ones change nothing and are reported.
    pub async fn take_up(&mut self) {
        match self.good(Given::read()).await {
            Ok((given, rendered)) => {
                tracing::info!("took up settings and snippets");
                self.given_changed.send_replace(given.settings.clone());
                self.given = given;
                self.rendered = rendered;
                self.keep();
                self.report.write().configuration.fault = None;
            }
            Err(faults) => self.refuse(&faults),
        }
    }

    /// Takes up what a server said about the members.
    pub fn learn(&mut self, members: Vec<Member>) {
        self.pool = next_pool(&self.pool, &members);
        self.members.clone_from(&members);
        let remembered = Remembered { members, pool: self.pool.clone() };
        if let Err(error) = remembered.save(Path::new(HERE)) {
            tracing::warn!(%error, "what was learned about the members is not kept");
        }
        let mut report = self.report.write();
        report.members.members = remembered.members;
        report.members.pool = remembered.pool;
    }

    /// Makes everything as it should be, as far as that is possible now.
    pub async fn converge(&mut self) {
        if self.haproxy.notice_end() {
            self.report.write().haproxy.deaths += 1;
            tracing::error!("HAProxy ended by itself; starting it again");
            if self.started.elapsed() > HEALTHY {
                self.failures = 0;
            } else {
                self.back_off();
            }
        }
        self.renew_certificates().await;
        self.render_pool().await;
        let outcome = self.converge_haproxy().await;
        let mut report = self.report.write();
        report.haproxy.pid = self.haproxy.master();
        report.haproxy.socket = self.haproxy.socket();
        report.configuration.digest.clone_from(&self.rendered.digest);
        let fault = outcome.err().map(|error| error.to_string());
        if let Some(fault) = fault.as_ref().filter(|fault| report.haproxy.fault.as_ref() != Some(fault)) {
            tracing::error!(fault, "HAProxy is not as it should be; trying again");
        }
        report.haproxy.fault = fault;
        drop(report);
        if let Err(error) = rotate_log(self.given.settings.log.rotate_mib.saturating_mul(MIB)) {
            tracing::debug!(%error, "HAProxy's log could not be begun anew");
        }
    }

    /// Stops HAProxy; requests under way may finish.
    pub async fn stop(&mut self) {
        self.haproxy.stop(Duration::from_secs(self.given.settings.lb.drain_s)).await;
    }

    /// What `given` amounts to, if HAProxy finds it good.
    async fn good(&self, given: Result<Given, Vec<String>>) -> Result<(Given, Rendered), Vec<String>> {
        let given = given?;
        let rendered = render(&given.inputs(&self.pool));
        if rendered != self.rendered {
            checked(&given.settings, &rendered).await.map_err(|detail| vec![detail])?;
        }
        Ok((given, rendered))
    }

    fn refuse(&self, faults: &[String]) {
        let told = faults.join("; ");
        let mut report = self.report.write();
        if report.configuration.fault.as_ref() != Some(&told) {
            tracing::error!(faults = told, "the new configuration is not used; the one that ran runs on");
        }
        report.configuration.fault = Some(told);
    }

    /// Takes up certificates that were replaced.
    async fn renew_certificates(&mut self) {
        let material = match Material::collect(Path::new(HERE), &self.given.settings) {
            Ok(material) if material == self.given.material => return self.certificates(None),
            // HAProxy need not be asked every second.
            Ok(material) if self.refused.as_ref() == Some(&material) => return,
            Ok(material) => material,
            Err(error) => return self.certificates(Some(error.to_string())),
        };
        self.refused = Some(material.clone());
        let settings = self.given.settings.clone();
        let (snippets, privileges) = (self.given.snippets.clone(), self.given.privileges.clone());
        match self.good(Ok(Given { settings, snippets, material, privileges })).await {
            Ok((given, rendered)) => {
                tracing::info!("took up new certificates");
                self.given_changed.send_replace(given.settings.clone());
                self.given = given;
                self.rendered = rendered;
                self.keep();
                if let Err(error) = self.certificate.reload() {
                    tracing::warn!(%error, "the API goes on with its old certificate");
                }
                self.certificates(None);
            }
            Err(faults) => self.certificates(Some(faults.join("; "))),
        }
    }

    /// Notes why replaced certificates are not used.
    fn certificates(&self, fault: Option<String>) {
        let mut report = self.report.write();
        if let Some(fault) =
            fault.as_ref().filter(|fault| report.configuration.certificates.as_ref() != Some(fault))
        {
            tracing::error!(fault, "the replaced certificates are not used; those before are");
        }
        report.configuration.certificates = fault;
    }

    /// Brings the file up to date with the servers, for the next start or reload.
    async fn render_pool(&mut self) {
        let rendered = render(&self.given.inputs(&self.pool));
        if rendered == self.rendered {
            return;
        }
        match checked(&self.given.settings, &rendered).await {
            Ok(()) => {
                self.rendered = rendered;
                self.keep();
            }
            Err(detail) => self.refuse(&[detail]),
        }
    }

    /// Writes what was found good, for HAProxy and for the next agent.
    fn keep(&self) {
        let text = self.rendered.text.as_bytes();
        if let Err(error) = crosstie_security::write_private(Path::new(CONFIGURATION), text) {
            tracing::error!(%error, "the configuration could not be written");
        }
        self.report.write().certificates = certificates::ends(Path::new(HERE), &self.given.material);
        let proven = self.proven.as_ref().map(|given| &given.material);
        self.given.material.forget_others(proven, Path::new(HERE), &self.rendered.text);
    }

    /// Notes that HAProxy serves with what is given.
    fn prove(&mut self) {
        if self.proven.as_ref() == Some(&self.given) {
            return;
        }
        if let Err(error) = accepted::save(Path::new(HERE), &self.given.snippets) {
            tracing::error!(%error, "snippets that are good could not be kept");
        }
        self.proven = Some(self.given.clone());
    }

    /// Goes back to what HAProxy served with, as it does not with what is given now. Says whether there is
    /// something to go back to.
    async fn go_back(&mut self, error: &HaproxyError) -> bool {
        let proven = match &self.proven {
            Some(proven) => Some(proven.clone()),
            // This agent has seen nothing serve yet, an earlier one may have.
            None => accepted::load(Path::new(HERE)).map(|snippets| Given { snippets, ..self.given.clone() }),
        };
        let Some(proven) = proven.filter(|proven| *proven != self.given) else { return false };
        match self.good(Ok(proven)).await {
            Ok((given, rendered)) => {
                self.given_changed.send_replace(given.settings.clone());
                self.given = given;
                self.rendered = rendered;
                self.keep();
                self.refuse(&[error.to_string()]);
                true
            }
            Err(faults) => {
                tracing::error!(?faults, "what was good before is not any more");
                false
            }
        }
    }

    async fn converge_haproxy(&mut self) -> Result<(), HaproxyError> {
        if !self.haproxy.listens_as(&self.given.settings) {
            return self.start().await;
        }
        let Some(socket) = self.haproxy.socket() else { return Ok(()) };
        if info(&socket).await?.digest != self.rendered.digest {
            if let Err(error) = self.haproxy.reload(&self.rendered.digest).await {
                // Either the configuration is at fault or the master, after an earlier one that was.
                tracing::warn!(%error, "HAProxy did not take up its new configuration; starting another");
                return self.start().await;
            }
            self.report.write().haproxy.reloads += 1;
            tracing::info!(digest = self.rendered.digest, "HAProxy took up its new configuration");
        }
        self.prove();
        for backend in [FALLBACK, BACKEND] {
            self.reconcile(&socket, backend).await?;
        }
        Ok(())
    }

    async fn start(&mut self) -> Result<(), HaproxyError> {
        if Instant::now() < self.not_before {
            let fault = self.report.read().haproxy.fault;
            return Err(HaproxyError::Failed(
                fault.unwrap_or_else(|| "it ended right after its start".into()),
            ));
        }
        match self.haproxy.start(&self.given.settings).await {
            Ok(()) => {
                self.started = Instant::now();
                self.report.write().haproxy.starts += 1;
                tracing::info!(pid = self.haproxy.master(), "HAProxy serves");
                self.prove();
                Ok(())
            }
            Err(error) => {
                // An HAProxy of an earlier agent may have been about to open its sockets.
                let taken = matches!(&error, HaproxyError::Listen(error) if error.is_taken());
                if taken && self.haproxy.master().is_none() && self.haproxy.adopt().await {
                    return Ok(());
                }
                if !self.go_back(&error).await {
                    self.back_off();
                }
                Err(error)
            }
        }
    }

    fn back_off(&mut self) {
        self.failures += 1;
        if let Some(doublings) = self.failures.checked_sub(BUDGET) {
            let pause = FIRST_PAUSE * 2_u32.saturating_pow(doublings.min(16));
            self.not_before = Instant::now() + pause.min(LONGEST_PAUSE);
        }
    }

    /// Tells a running HAProxy which servers it should have in `backend`.
    async fn reconcile(&self, socket: &Path, backend: &str) -> Result<(), RuntimeError> {
        let answer = runtime::ask(socket, &format!("show servers state {backend}")).await?;
        for step in steps(backend, &self.pool, &parse_servers(&answer, backend)?) {
            match step {
                Step::Add(name, place) => {
                    let command = add_server(&self.given.inputs(&self.pool), backend, &name, &place);
                    runtime::order(socket, &command, &["New server registered"]).await?;
                    for command in open(backend, name.as_str()) {
                        runtime::order(socket, &command, &[]).await?;
                    }
                    if backend == BACKEND {
                        tracing::info!(server = name.as_str(), address = %place.address, "a server joined");
                    }
                }
                Step::Order(command) => {
                    runtime::order(socket, &command, &ADDRESS_ANSWERS).await?;
                    tracing::info!(command, "told HAProxy");
                }
                Step::Delete(name) => {
                    let command = format!("del server {backend}/{name}");
                    match runtime::order(socket, &command, &["Server deleted"]).await {
                        Ok(()) if backend == BACKEND => tracing::info!(server = name, "a server left"),
                        Ok(()) => {}
                        // Its last requests; the next round tries again.
                        Err(error) => tracing::debug!(server = name, %error, "a server cannot leave yet"),
                    }
                }
            }
        }
        Ok(())
    }
}

/// The configuration to begin with: what is on disk now, or else with the snippets that were good before.
async fn first(settings: LbSettings, pool: &Pool) -> Result<(Given, Rendered, Option<String>), StartError> {
    let texts = |faults: Vec<crosstie_config::LocatedFault>| -> Vec<String> {
        faults.iter().map(ToString::to_string).collect()
    };
    let attempt = async |snippets: Vec<Snippet>| {
        let given = Given::with(settings.clone(), snippets)?;
        let rendered = render(&given.inputs(pool));
        checked(&given.settings, &rendered).await.map_err(|detail| vec![detail])?;
        Ok::<_, Vec<String>>((given, rendered))
    };
    let now = match snippet::load(Path::new(HERE)) {
        Ok(snippets) => attempt(snippets).await,
        Err(faults) => Err(texts(faults)),
    };
    let faults = match now {
        Ok((given, rendered)) => return Ok((given, rendered, None)),
        Err(faults) => faults,
    };
    let Some(snippets) = accepted::load(Path::new(HERE)) else {
        return Err(StartError::Configuration(faults));
    };
    match attempt(snippets).await {
        Ok((given, rendered)) => {
            let told = faults.join("; ");
            tracing::error!(faults = told, "lb.d is not used; the snippets that were good before are");
            Ok((given, rendered, Some(told)))
        }
        Err(_) => Err(StartError::Configuration(faults)),
    }
}

/// Has HAProxy check `rendered` on a thread that may block.
async fn checked(settings: &LbSettings, rendered: &Rendered) -> Result<(), String> {
    let (program, rendered) = (settings.lb.program.clone(), rendered.clone());
    let checked = tokio::task::spawn_blocking(move || check(&program, &rendered)).await;
    checked.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
