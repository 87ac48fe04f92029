//! From a blueprint to a database that can be called.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crosstie_model::definition::{SqlEncryption, SqlEndpoint, SqlEngine};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Handle;

use super::database::{Database, Inner};
use super::link::Connector;
use super::mariadb::{MariaDbServer, Reach, TlsMaterial};
use super::meter::Meter;
use super::pool::{Limits, Pool};
use super::postgres::{PostgresServer, Tls};
use super::sqlite::SqliteFile;
use super::words::Dialect;
use crate::blueprint::{Blueprint, OpenError};
use crate::circuit::Circuit;
use crate::environment::Environment;
use crate::observe::Observer;
use crate::tls;

/// How often a quiet connection is asked by TCP whether its other end is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

impl Database {
    /// Opens the database that `endpoint` describes. Makes no connection: the first call does. Its connections
    /// belong to the runtime that this is called on.
    ///
    /// # Errors
    /// What it is made of cannot be used.
    pub(crate) fn open(
        blueprint: &Blueprint,
        endpoint: &SqlEndpoint,
        environment: &Environment,
    ) -> Result<Self, OpenError> {
        let connector: Box<dyn Connector> = match endpoint.engine {
            SqlEngine::PostgreSql => Box::new(postgres(blueprint, endpoint)?),
            SqlEngine::MariaDb | SqlEngine::MySql => Box::new(mariadb(blueprint, endpoint)?),
            SqlEngine::Sqlite => Box::new(SqliteFile {
                // The server's directory is where its processes work.
                path: PathBuf::from(&endpoint.database),
                create: endpoint.create,
                prepared_statements: count(endpoint.prepared_statements),
            }),
        };
        let dialect = match endpoint.engine {
            SqlEngine::PostgreSql => Dialect::Postgres,
            SqlEngine::MariaDb | SqlEngine::MySql => Dialect::MySql,
            SqlEngine::Sqlite => Dialect::Sqlite,
        };
        let name: Arc<str> = blueprint.name().as_str().into();
        let kept = endpoint.message_log.as_ref();
        let observer = Observer::new(Arc::clone(&name), "sql", environment, kept);
        let limits = Limits {
            size: count(endpoint.max_connections).max(1),
            wait: Duration::from_millis(endpoint.wait_deadline_ms),
            connect: Duration::from_millis(endpoint.connect_deadline_ms),
            idle: Duration::from_millis(endpoint.idle_ms),
            lifetime: Duration::from_millis(endpoint.lifetime_ms),
        };
        let runtime = Handle::try_current().map_err(|error| OpenError::field("type", error.to_string()))?;
        let meter = Meter::new(observer.metrics().clone());
        let circuit = Circuit::new(&endpoint.circuit, Arc::clone(&name), observer.metrics().clone());
        Ok(Self(Arc::new(Inner {
            name,
            engine: endpoint.engine.as_str(),
            dialect,
            pool: Pool::new(connector, circuit, limits, runtime.clone(), meter),
            deadline: Duration::from_millis(endpoint.deadline_ms),
            max_result_bytes: endpoint.max_result_bytes,
            observer,
            runtime,
        })))
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A field that the definition's own check demands.
fn required<'a>(field: &'static str, value: Option<&'a String>) -> Result<&'a str, OpenError> {
    value.map(String::as_str).ok_or_else(|| OpenError::field(field, "is missing"))
}

fn password(blueprint: &Blueprint) -> Option<&[u8]> {
    blueprint.secrets().get("password").map(|password| password.expose())
}

fn port(endpoint: &SqlEndpoint) -> u16 {
    endpoint.port.or(endpoint.engine.default_port()).unwrap_or_default()
}

fn postgres(blueprint: &Blueprint, endpoint: &SqlEndpoint) -> Result<PostgresServer, OpenError> {
    let host = required("host", endpoint.host.as_ref())?;
    let mut config = tokio_postgres::Config::new();
    config
        .host(host)
        .port(port(endpoint))
        .user(required("username", endpoint.username.as_ref())?)
        .dbname(&endpoint.database)
        .application_name(format!("crosstie {}", blueprint.name()))
        .keepalives_idle(KEEPALIVE);
    if let Some(password) = password(blueprint) {
        config.password(password);
    }
    let is_socket = host.starts_with('/');
    let tls = match endpoint.encryption {
        SqlEncryption::Required if !is_socket => Some(Tls {
            config: tls::config(endpoint.tls.as_ref(), blueprint.secrets(), blueprint, &[])?,
            server_name: endpoint.tls.as_ref().and_then(|tls| tls.server_name.clone()),
        }),
        _ => None,
    };
    Ok(PostgresServer { config, tls, prepared_statements: count(endpoint.prepared_statements) })
}

fn mariadb(blueprint: &Blueprint, endpoint: &SqlEndpoint) -> Result<MariaDbServer, OpenError> {
    let password = password(blueprint).map(std::str::from_utf8).transpose();
    let password = password.map_err(|_| OpenError::field("password", "is not UTF-8"))?;
    let tls = match endpoint.encryption {
        SqlEncryption::Required => Some(material(blueprint, endpoint)?),
        SqlEncryption::Off => None,
    };
    MariaDbServer::new(Reach {
        host: required("host", endpoint.host.as_ref())?,
        port: port(endpoint),
        username: required("username", endpoint.username.as_ref())?,
        password,
        database: &endpoint.database,
        tls,
        prepared_statements: count(endpoint.prepared_statements),
    })
    .map_err(|detail| OpenError::field("tls/key", detail))
}

/// What the driver makes its own TLS of. It is checked here by making ours of it.
fn material(blueprint: &Blueprint, endpoint: &SqlEndpoint) -> Result<TlsMaterial, OpenError> {
    let settings = endpoint.tls.as_ref();
    tls::config(settings, blueprint.secrets(), blueprint, &[])?;
    let unusable = |field| move |error| OpenError::field(field, format!("cannot be read: {error}"));
    let roots = match settings.and_then(|settings| settings.ca.as_deref()) {
        Some(ca) => {
            let certificates: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(blueprint.text(ca)).collect();
            certificates.map_err(unusable("tls/ca"))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    let identity = match settings.and_then(|settings| settings.certificate.as_deref()) {
        None => None,
        Some(chain) => {
            let key = blueprint.secrets().get("tls/key");
            let key = key.ok_or_else(|| OpenError::field("tls/key", "has no value"))?;
            let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(unusable("tls/key"))?;
            Some((blueprint.text(chain).to_vec(), key))
        }
    };
    Ok(TlsMaterial {
        roots,
        identity,
        server_name: settings.and_then(|settings| settings.server_name.clone()),
    })
}
