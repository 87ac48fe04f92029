//! `crosstie quickstart --cluster`: several servers on this host with a load balancer in front, PostgreSQL as
//! their ODB and RabbitMQ as their bus, every link among them TLS with both ends verified.
//!
//! A cluster on several hosts differs from this one in addresses only: its further servers are made by
//! `crosstie server join`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use crosstie_config::settings;
use crosstie_model::secret::SecretValue;
use crosstie_model::settings::ServerSettings;
use crosstie_parts::{Credentials, Reach};
use crosstie_security::authority::Subject;
use crosstie_security::identity::ComponentKind;
use crosstie_security::{CertificateAuthority, password, write_private};
use serde_json::json;
use url::Url;

use super::{Ports, Secrets};
use crate::environment::{Environment, ServerDirectory};
use crate::parts::{self, EnvironmentPart, PartKind};
use crate::server_directory::make_directories;
use crate::{balancer, service_user, venv};

/// What parts are counted from, above the base port.
const BROKER_OFFSET: u16 = 310;
const POSTGRESQL_OFFSET: u16 = 320;

/// The one database, its owner, and the broker's user and virtual host.
const NAME: &str = "crosstie";

/// Where a server keeps passwords that its settings refer to.
const ODB_PASSWORD: &str = "tls/odb.password";
const BUS_PASSWORD: &str = "tls/bus.password";

/// Passwords of a database or broker that somebody else runs; never arguments, which everybody can read.
const ODB_PASSWORD_VARIABLE: &str = "CROSSTIE_ODB_PASSWORD";
const BROKER_PASSWORD_VARIABLE: &str = "CROSSTIE_BROKER_PASSWORD";

/// What kind of cluster is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How many servers.
    pub(crate) servers: u16,
    /// A database that somebody else runs.
    pub(crate) odb: Option<String>,
    /// A broker that somebody else runs.
    pub(crate) broker: Option<String>,
    /// The user that servers become.
    pub(crate) user: Option<String>,
    /// Whether only this host reaches it; otherwise channels need credentials.
    is_alone: bool,
}

impl Plan {
    /// What the command line asks for.
    ///
    /// # Errors
    /// Other hosts could join, but not reach the database or the broker.
    pub(super) fn new(arguments: &super::Arguments) -> Result<Self> {
        let is_alone = arguments.address.is_loopback();
        if !is_alone && (arguments.odb.is_none() || arguments.broker.is_none()) {
            bail!(
                "a cluster that listens on {} needs a database and a broker that other hosts reach: --odb and \
                 --broker",
                arguments.address
            );
        }
        Ok(Self {
            servers: arguments.servers,
            odb: arguments.odb.clone(),
            broker: arguments.broker.clone(),
            user: arguments.user.clone(),
            is_alone,
        })
    }

    /// Every address that must be free.
    pub(crate) fn addresses(&self, ports: Ports) -> Vec<SocketAddr> {
        let servers = (0..self.servers).flat_map(|index| [ports.service(index), ports.management_of(index)]);
        let mut addresses: Vec<_> = servers.chain(balancer::addresses(ports)).collect();
        if self.broker.is_none() {
            addresses.push(ports.address(BROKER_OFFSET));
        }
        if self.odb.is_none() {
            addresses.push(ports.address(POSTGRESQL_OFFSET));
        }
        addresses
    }
}

/// A network service that the servers depend on, as their settings name it.
struct Dependency {
    url: String,
    password: Option<SecretValue>,
}

/// Makes the environment in `root`. Its parts run when this returns, as the database must be there to be
/// filled; they are stopped again when a step fails.
pub(crate) fn make(root: &Path, ports: Ports, plan: &Plan) -> Result<Environment> {
    let environment = Environment::new(root.to_owned());
    let servers: Vec<_> =
        (1..=plan.servers).map(|number| environment.server(&format!("server{number}"))).collect();
    for server in &servers {
        make_directories(server, [environment.ca(), environment.client()])?;
    }
    super::step("certificates and keys");
    let secrets = super::make_secrets(&environment)?;
    for server in &servers {
        super::give_secrets(&secrets, server, ports.ip())?;
    }
    balancer::create(&environment, &secrets.authority, ports, plan.servers)?;
    let own = own_parts(&environment, ports, plan);
    let made = make_parts(&environment, &own, &secrets.authority)
        .and_then(|passwords| make_servers(&environment, &servers, ports, plan, &secrets, passwords));
    made.inspect_err(|_| stop(&own))?;
    Ok(environment)
}

fn own_parts(environment: &Environment, ports: Ports, plan: &Plan) -> Vec<EnvironmentPart> {
    let part = |kind, offset| EnvironmentPart::new(environment, kind, ports.address(offset));
    let mut parts = Vec::new();
    if plan.odb.is_none() {
        parts.push(part(PartKind::Postgresql, POSTGRESQL_OFFSET));
    }
    if plan.broker.is_none() {
        parts.push(part(PartKind::Broker, BROKER_OFFSET));
    }
    parts
}

/// Makes and starts the parts; gives their passwords in the same order.
fn make_parts(
    environment: &Environment,
    own: &[EnvironmentPart],
    authority: &CertificateAuthority,
) -> Result<Vec<(PartKind, SecretValue)>> {
    parts::save(environment.root(), own)?;
    let mut passwords = Vec::new();
    for part in own {
        super::step(part.kind.kind());
        let kind = match part.kind {
            PartKind::Postgresql => ComponentKind::Database,
            PartKind::Broker => ComponentKind::Broker,
        };
        let issued = authority.issue(&Subject::listening(kind, part.kind.name(), []))?;
        let files = part.certificate();
        issued.save(&files.certificate, &files.key)?;
        let password = password::generate()?;
        let program = part.program()?;
        program.create(&Credentials {
            user: NAME.to_owned(),
            password: password.clone(),
            database: NAME.to_owned(),
            reach: Reach::OneDatabase,
        })?;
        program.start()?;
        passwords.push((part.kind, password));
    }
    Ok(passwords)
}

fn stop(own: &[EnvironmentPart]) {
    for part in own.iter().rev() {
        if let Err(error) = part.program().and_then(|program| Ok(program.stop()?)) {
            crate::command::say(&format!("crosstie: cannot stop {}: {error:#}", part.kind.name()));
        }
    }
}

fn make_servers(
    environment: &Environment,
    servers: &[ServerDirectory],
    ports: Ports,
    plan: &Plan,
    secrets: &Secrets,
    passwords: Vec<(PartKind, SecretValue)>,
) -> Result<()> {
    let of_own = |kind| passwords.iter().find(|(known, _)| *known == kind).map(|(_, it)| it.clone());
    let odb = dependency(
        plan.odb.as_deref(),
        &format!("postgres://{NAME}@{}/{NAME}", ports.address(POSTGRESQL_OFFSET)),
        of_own(PartKind::Postgresql),
        ODB_PASSWORD_VARIABLE,
    )?;
    let broker = dependency(
        plan.broker.as_deref(),
        &format!("amqps://{NAME}@{}/{NAME}", ports.address(BROKER_OFFSET)),
        of_own(PartKind::Broker),
        BROKER_PASSWORD_VARIABLE,
    )?;
    if odb.url.starts_with("sqlite:") {
        bail!("a cluster needs a database on the network: PostgreSQL or MariaDB");
    }
    super::step("servers");
    for (index, server) in (0..).zip(servers) {
        for (file, password) in [(ODB_PASSWORD, &odb.password), (BUS_PASSWORD, &broker.password)] {
            if let Some(password) = password {
                write_private(&server.path().join(file), password.expose())?;
            }
        }
        let settings = settings_of(server, index, ports, plan, &odb, &broker)?;
        fs::write(server.settings_file(), settings::template(&settings))
            .context("cannot write server.toml")?;
        if index == 0 {
            super::step("operational database");
            super::make_odb(environment, server, &settings, odb.password.clone(), secrets)?;
        }
        venv::create(&server.venv())?;
        service_user::settle(environment, server, plan.user.as_deref())?;
    }
    Ok(())
}

/// The service at `given` with a password from the environment, or our own.
fn dependency(
    given: Option<&str>,
    own: &str,
    password: Option<SecretValue>,
    variable: &str,
) -> Result<Dependency> {
    let Some(given) = given else { return Ok(Dependency { url: own.to_owned(), password }) };
    let url = Url::parse(given).with_context(|| format!("{given} is no URL"))?;
    if url.password().is_some() {
        bail!("arguments can be read by everybody on this host: give the password in {variable}");
    }
    let password = std::env::var(variable).ok().map(|text| SecretValue::new(text.into_bytes()));
    Ok(Dependency { url: given.to_owned(), password })
}

fn settings_of(
    server: &ServerDirectory,
    index: u16,
    ports: Ports,
    plan: &Plan,
    odb: &Dependency,
    broker: &Dependency,
) -> Result<ServerSettings> {
    let mut settings = json!({
        "server": {"name": server.name(), "https": ports.service(index)},
        "management": {"address": ports.management_of(index)},
        "http": {"front": "load_balancer"},
        "odb": {"url": odb.url},
        "bus": {"url": broker.url},
        "security": {"require_security": !plan.is_alone},
    });
    let mut set = |pointer: &str, key: &str, value: serde_json::Value| {
        if let Some(section) = settings.pointer_mut(pointer).and_then(serde_json::Value::as_object_mut) {
            section.insert(key.to_owned(), value);
        }
    };
    if odb.password.is_some() {
        set("/odb", "password", format!("file:{ODB_PASSWORD}").into());
    }
    if broker.password.is_some() {
        set("/bus", "password", format!("file:{BUS_PASSWORD}").into());
    }
    if let Some(user) = &plan.user {
        set("/server", "user", user.as_str().into());
    }
    Ok(serde_json::from_value(settings)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_argument_is_refused() {
        let refused =
            dependency(Some("postgres://a:b@db/x"), "", None, "VARIABLE").err().unwrap().to_string();
        assert!(refused.contains("VARIABLE") && !refused.contains(":b"), "{refused}");
    }
}
