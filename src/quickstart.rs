//! `crosstie quickstart`: makes a complete environment and starts it: one server that needs nothing but the
//! binary, or with `--cluster` several with everything around them.
//!
//! Everything is made in place and in one order; what was made is removed again when a step fails, so that
//! the same command can simply be repeated. The listeners are on loopback, which is why this environment may
//! open channels without credentials.

mod cluster;
mod report;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use crosstie_config::settings;
use crosstie_model::UnitName;
use crosstie_model::secret::SecretValue;
use crosstie_model::settings::{
    HttpSettings, ManagementSection, OdbSection, SecuritySection, ServerSection, ServerSettings,
};
use crosstie_odb::{Odb, OdbOptions, Role, User};
use crosstie_security::private_file::write_public;
use crosstie_security::{
    CertificateAuthority, ClusterKey, create_private_directory, password, write_private,
};
use serde_json::json;

use crate::certificates::{self, ADMINISTRATOR};
use crate::command::{Context, say};
use crate::environment::{Environment, ServerDirectory};
use crate::output;
use crate::server_directory::make_directories;
use crate::{ca, lifecycle, service_user, venv};

/// The one server's name.
const SERVER: &str = "server1";

/// HTTPS service traffic, counted from the base port.
const HTTPS_OFFSET: u16 = 50;

/// The management API, counted from the base port.
const MANAGEMENT_OFFSET: u16 = 100;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The directory to create
    directory: PathBuf,
    /// Several servers behind a load balancer, with PostgreSQL and RabbitMQ of this host's packages
    #[arg(long)]
    cluster: bool,
    /// How many servers the cluster has
    #[arg(long, value_name = "N", default_value_t = 2, requires = "cluster",
          value_parser = clap::value_parser!(u16).range(1..=50))]
    servers: u16,
    /// The cluster's database, which somebody else runs: postgres://USER@HOST/DATABASE or mysql://…; its
    /// password in CROSSTIE_ODB_PASSWORD
    #[arg(long, value_name = "URL", requires = "cluster")]
    odb: Option<String>,
    /// The cluster's RabbitMQ, which somebody else runs: amqps://USER@HOST/VHOST; its password in
    /// CROSSTIE_BROKER_PASSWORD
    #[arg(long, value_name = "URL", requires = "cluster")]
    broker: Option<String>,
    /// The address of this host on which the cluster listens, so that servers of other hosts can join; its
    /// database and broker must then be somebody else's
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST.into(), requires = "cluster")]
    address: IpAddr,
    /// First port: service traffic P (HTTP) and P+50 (HTTPS), management P+100; of a cluster's servers P and
    /// P+100 onwards (HTTPS), its load balancer P+200 (HTTP) and P+250 (HTTPS)
    #[arg(long, value_name = "P", default_value_t = 17010,
          value_parser = clap::value_parser!(u16).range(1..=65_435))]
    port_base: u16,
    /// Started as root: the user to become, who must exist; `root` stays root [default: crosstie, made if missing]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Create only; `crosstie start DIR` starts it
    #[arg(long)]
    no_start: bool,
}

/// Makes the environment, starts it and says how to go on.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let ports = Ports { ip: arguments.address, base: arguments.port_base };
    let root = claim(&arguments.directory)?;
    let user = arguments.user.as_deref();
    if user.is_none() {
        service_user::ensure_default(&root);
    }
    let plan = arguments.cluster.then(|| cluster::Plan::new(arguments)).transpose()?;
    let addresses =
        plan.as_ref().map_or_else(|| ports.of_one_server().to_vec(), |plan| plan.addresses(ports));
    let made = ports.check(&addresses).and_then(|()| match &plan {
        Some(plan) => cluster::make(&root, ports, plan),
        None => make(&root, ports, user),
    });
    let environment = made.inspect_err(|_| remove(&root))?;
    if !arguments.no_start {
        lifecycle::start_all(&environment)?;
    } else if plan.is_some() {
        // Its database had to run while it was filled.
        lifecycle::stop_all(&environment)?;
    }
    report::print(context, &environment, ports, plan.as_ref(), !arguments.no_start)
}

/// The addresses of an environment by its base port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    ip: IpAddr,
    base: u16,
}

impl Ports {
    /// The address that many ports above the base.
    pub(crate) fn address(self, offset: u16) -> SocketAddr {
        (self.ip, self.base.saturating_add(offset)).into()
    }

    /// Where the environment listens.
    pub(crate) fn ip(self) -> IpAddr {
        self.ip
    }

    /// Where the server at `index` of a cluster takes the load balancer's traffic.
    pub(crate) fn service(self, index: u16) -> SocketAddr {
        self.address(index)
    }

    /// Where the server at `index` of a cluster answers the management API.
    pub(crate) fn management_of(self, index: u16) -> SocketAddr {
        self.address(MANAGEMENT_OFFSET.saturating_add(index))
    }

    fn of_one_server(self) -> [SocketAddr; 3] {
        [self.http(), self.https(), self.management()]
    }

    fn http(self) -> SocketAddr {
        self.address(0)
    }

    fn https(self) -> SocketAddr {
        self.address(HTTPS_OFFSET)
    }

    fn management(self) -> SocketAddr {
        self.address(MANAGEMENT_OFFSET)
    }

    /// Refuses ports that somebody listens on, all of them in one message.
    fn check(self, addresses: &[SocketAddr]) -> Result<()> {
        let busy: Vec<_> = addresses
            .iter()
            .filter(|address| TcpListener::bind(address).is_err())
            .map(|address| address.port().to_string())
            .collect();
        match busy.as_slice() {
            [] => Ok(()),
            [one] => bail!("port {one} is in use: choose other ports with --port-base"),
            several => bail!("ports {} are in use: choose others with --port-base", several.join(", ")),
        }
    }
}

/// Makes the directory, or takes an empty one, and gives its absolute path.
fn claim(directory: &Path) -> Result<PathBuf> {
    let shown = directory.display();
    match fs::read_dir(directory) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                if Environment::find(Some(directory)).is_ok() {
                    bail!("{shown} is an environment already: `crosstie start {shown}` starts it");
                }
                bail!("{shown} is not empty: choose a directory that is empty or does not exist");
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot use {shown}")),
    }
    // Those above it are not ours to close: the service user must get through.
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    create_private_directory(directory).with_context(|| format!("cannot create {shown}"))?;
    fs::canonicalize(directory).with_context(|| format!("cannot find {shown}"))
}

/// Removes what a failed run made: the directory was empty or absent before.
fn remove(root: &Path) {
    if let Err(error) = fs::remove_dir_all(root) {
        say(&format!("crosstie: cannot remove {}: {error}", root.display()));
    }
}

fn make(root: &Path, ports: Ports, user: Option<&str>) -> Result<Environment> {
    let environment = Environment::new(root.to_owned());
    let server = environment.server(SERVER);
    make_directories(&server, [environment.ca(), environment.client()])?;
    step("certificates and keys");
    let secrets = make_secrets(&environment)?;
    give_secrets(&secrets, &server, ports.ip())?;
    step("configuration");
    let mut settings = settings_of(ports)?;
    settings.server.user = user.map(str::to_owned);
    let text = settings::template(&settings);
    fs::write(server.settings_file(), text).context("cannot write server.toml")?;
    step("operational database");
    make_odb(&environment, &server, &settings, None, &secrets)?;
    step("virtual environment for Python");
    venv::create(&server.venv())?;
    service_user::settle(&environment, &server, user)?;
    Ok(environment)
}

fn step(what: &str) {
    if output::shows_progress() {
        say(&format!("creating {what} …"));
    }
}

/// What the operational database gets to know of the secrets.
struct Secrets {
    authority: CertificateAuthority,
    cluster_key: ClusterKey,
    password: SecretValue,
}

/// Makes the environment's authority and keys, and the command line's certificate. The CA's key is in no file:
/// it lies sealed in the operational database.
fn make_secrets(environment: &Environment) -> Result<Secrets> {
    let authority = CertificateAuthority::create("quickstart")?;
    let cluster_key = ClusterKey::generate()?;
    certificates::issue_client(&authority, environment)?;
    let client = environment.client();
    for directory in [environment.ca(), client.clone()] {
        write_public(&directory.join("ca.pem"), authority.certificate_pem().as_bytes())?;
    }
    let password = password::generate()?;
    write_private(&client.join("admin-password"), password.expose())?;
    Ok(Secrets { authority, cluster_key, password })
}

/// Writes what a server needs of them into its directory.
fn give_secrets(secrets: &Secrets, server: &ServerDirectory, ip: IpAddr) -> Result<()> {
    secrets.cluster_key.save(&server.tls().join("cluster.key"))?;
    certificates::issue_server(&secrets.authority, server, ip)?;
    Ok(write_public(&server.tls().join("ca.pem"), secrets.authority.certificate_pem().as_bytes())?)
}

fn settings_of(ports: Ports) -> Result<ServerSettings> {
    // The sections' defaults come from their own documents, so that they are written down only once.
    let server: ServerSection =
        serde_json::from_value(json!({"name": UnitName::new(SERVER)?, "http": ports.http(),
            "https": ports.https()}))?;
    Ok(ServerSettings {
        server,
        management: ManagementSection { address: ports.management() },
        http: HttpSettings::default(),
        odb: OdbSection::default(),
        cluster: Default::default(),
        bus: Default::default(),
        python: Default::default(),
        deploy: Default::default(),
        log: Default::default(),
        message_log: Default::default(),
        telemetry: Default::default(),
        security: SecuritySection { require_security: false, ..SecuritySection::default() },
    })
}

/// Creates the database with its schema, the authority's sealed key and the administrator.
fn make_odb(
    environment: &Environment,
    server: &ServerDirectory,
    settings: &ServerSettings,
    odb_password: Option<SecretValue>,
    secrets: &Secrets,
) -> Result<()> {
    let options = OdbOptions::from_settings(settings, server.path(), odb_password);
    let sealed = secrets.authority.seal_key(&secrets.cluster_key)?;
    let hash = password::hash(&secrets.password)?;
    let administrator = User { name: ADMINISTRATOR.to_owned(), role: Role::Admin, password_hash: hash };
    let certificates = ca::records(environment, "quickstart")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(async {
            let odb = Odb::connect(&options)?;
            odb.create().await?;
            odb.put_ca(&sealed, secrets.authority.certificate_pem()).await?;
            odb.put_user(&administrator).await?;
            for certificate in &certificates {
                odb.record_certificate(certificate).await?;
            }
            anyhow::Ok(())
        })
        .context("cannot create the operational database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_or_empty_directory_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        assert!(claim(&directory.path().join("new/deeper")).is_ok());
        assert!(claim(&directory.path().join("new/deeper")).is_ok());
        let refused = claim(directory.path()).unwrap_err().to_string();
        assert!(refused.contains("not empty"), "{refused}");
    }

    #[test]
    fn every_busy_port_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let base = listener.local_addr().unwrap().port();
        if base > 65_000 {
            return;
        }
        let ports = Ports { ip: Ipv4Addr::LOCALHOST.into(), base };
        let refused = ports.check(&ports.of_one_server()).unwrap_err().to_string();
        assert!(refused.contains(&base.to_string()) && refused.contains("--port-base"), "{refused}");
    }

    #[test]
    fn the_settings_are_valid_and_read_back() {
        let text =
            settings::template(&settings_of(Ports { ip: Ipv4Addr::LOCALHOST.into(), base: 20_000 }).unwrap());
        let read = settings::parse(&text, Path::new("server.toml")).unwrap();
        assert_eq!(read.management.address.port(), 20_100);
        assert!(!read.security.require_security);
    }
}
