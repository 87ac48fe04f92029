//! Connections that are no handle's: what another program, or an administrator, does to a database.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crosstie_odb::{Odb, OdbOptions};
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use mysql_async::prelude::Queryable;
use mysql_async::{ClientIdentity, OptsBuilder, SslOpts};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

/// One connection. What it locked is free once it is dropped.
pub(crate) enum Outside {
    Sqlite(Box<SqliteConnection>),
    Postgres(tokio_postgres::Client),
    Mysql(mysql_async::Conn),
}

/// What the options' URL says of TLS.
struct Files {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(url: &Url) -> Option<Self> {
        let mut parameters: BTreeMap<_, PathBuf> =
            url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
        let mut take = |name: &str| parameters.remove(name);
        Some(Self { ca: take("ca")?, certificate: take("cert")?, key: take("key")? })
    }

    fn client_config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates([CertificateDer::from_pem_file(&self.ca).unwrap()]);
        let provider = rustls::crypto::ring::default_provider();
        ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&self.certificate).unwrap()],
                PrivateKeyDer::from_pem_file(&self.key).unwrap(),
            )
            .unwrap()
    }

    fn ssl_options(&self) -> SslOpts {
        // The driver reads these from DER alone; see `tls` of the crate under test.
        let certificate = CertificateDer::from_pem_file(&self.certificate).unwrap().to_vec();
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap().secret_der().to_vec();
        let identity = ClientIdentity::new(certificate.into(), key.into());
        SslOpts::default()
            .with_root_certs(vec![self.ca.clone().into()])
            .with_disable_built_in_roots(true)
            .with_client_identity(Some(identity))
    }
}

impl Outside {
    /// Connects as the options say.
    pub(crate) async fn connect(options: &OdbOptions) -> Self {
        if let Some(path) = options.url.strip_prefix("sqlite:") {
            return Self::Sqlite(Box::new(SqliteConnection::establish(path).unwrap()));
        }
        let url = Url::parse(&options.url).unwrap();
        let given = url.password().map(|text| text.as_bytes().to_vec());
        let password = options.password.as_ref().map(|value| value.expose().to_vec()).or(given);
        let password = password.unwrap_or_default();
        match url.scheme() {
            "postgres" => Self::Postgres(postgres(&url, &password).await),
            _ => {
                // Which sets the process's TLS provider up for the driver.
                drop(Odb::connect(options).unwrap());
                Self::Mysql(mysql(&url, &password).await)
            }
        }
    }

    /// Runs `statements`, one after the other.
    pub(crate) async fn run(&mut self, statements: &[&str]) {
        for statement in statements {
            match self {
                Self::Sqlite(connection) => connection.batch_execute(statement).unwrap(),
                Self::Postgres(client) => client.batch_execute(statement).await.unwrap(),
                Self::Mysql(connection) => connection.query_drop(*statement).await.unwrap(),
            }
        }
    }

    /// The number that `query` gives.
    pub(crate) async fn number(&mut self, query: &str) -> i64 {
        match self {
            Self::Sqlite(_) => unreachable!("nobody asks a file"),
            Self::Postgres(client) => client.query_one(query, &[]).await.unwrap().get(0),
            Self::Mysql(connection) => connection.query_first(query).await.unwrap().unwrap(),
        }
    }
}

async fn postgres(url: &Url, password: &[u8]) -> tokio_postgres::Client {
    let mut config = tokio_postgres::Config::new();
    config.host(url.host_str().unwrap()).port(url.port().unwrap()).user(url.username());
    config.dbname(url.path().trim_start_matches('/')).password(password);
    match Files::of(url) {
        Some(files) => {
            let connector = MakeRustlsConnect::new(files.client_config());
            let (client, driver) = config.connect(connector).await.unwrap();
            tokio::spawn(driver);
            client
        }
        None => {
            let (client, driver) = config.connect(NoTls).await.unwrap();
            tokio::spawn(driver);
            client
        }
    }
}

async fn mysql(url: &Url, password: &[u8]) -> mysql_async::Conn {
    let options = OptsBuilder::default()
        .ip_or_hostname(url.host_str().unwrap())
        .tcp_port(url.port().unwrap())
        .user(Some(url.username()))
        .pass(Some(String::from_utf8(password.to_vec()).unwrap()))
        .db_name(Some(url.path().trim_start_matches('/')))
        .prefer_socket(false)
        .ssl_opts(Files::of(url).map(|files| files.ssl_options()));
    mysql_async::Conn::new(options).await.unwrap()
}
