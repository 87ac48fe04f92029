//! Where the ODB is and how to reach it, checked before anything is opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crosstie_model::secret::SecretValue;
use crosstie_model::settings::{SecuritySection, ServerSettings};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::error::OdbError;

/// How long opening a connection may take on top of a statement.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the ODB is and how to reach it.
#[derive(Clone)]
pub struct OdbOptions {
    /// `sqlite:PATH`, or `postgres://USER@HOST[:PORT]/DATABASE` or `mysql://…` with the parameters `tls`
    /// (`verify`, the default, or `off`, which only a database on this host may have), `ca` (PEM file; or
    /// `system`, the default), and `cert` and `key` (PEM files of a client certificate; `cert=none`, the
    /// default, shows none).
    pub url: String,
    /// What relative paths of `url` start from.
    pub base_directory: PathBuf,
    /// The password; wins over one in `url`.
    pub password: Option<SecretValue>,
    /// Most connections this process holds, at least 1.
    pub connections: u32,
    /// How long one statement may take, waiting for other writers included.
    pub statement_timeout: Duration,
}

impl OdbOptions {
    /// What `server.toml` says; `password` is the reference of `[odb]`, resolved. A network database whose URL
    /// says nothing else is a component of the environment: its certificate must be of the environment's CA,
    /// and it is shown the server's own (`[security]`).
    #[must_use]
    pub fn from_settings(
        settings: &ServerSettings,
        base_directory: impl Into<PathBuf>,
        password: Option<SecretValue>,
    ) -> Self {
        let section = &settings.odb;
        Self {
            url: with_own_certificates(&section.url, &settings.security),
            base_directory: base_directory.into(),
            password,
            connections: section.connections,
            statement_timeout: Duration::from_millis(section.statement_timeout_ms),
        }
    }

    /// Decodes the URL.
    pub(crate) fn target(&self) -> Result<Target, OdbError> {
        if let Some(path) = self.url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path == ":memory:" {
                return Err(OdbError::Options("sqlite: needs the path of a file".into()));
            }
            return Ok(Target::Sqlite(self.base_directory.join(path)));
        }
        let url =
            Url::parse(&self.url).map_err(|error| OdbError::Options(format!("it is no URL: {error}")))?;
        match url.scheme() {
            "postgres" | "postgresql" => Ok(Target::Postgres(self.network(&url, 5432)?)),
            "mysql" | "mariadb" => Ok(Target::Mysql(self.network(&url, 3306)?)),
            other => Err(OdbError::Options(format!(
                "unknown scheme {other:?}; there are sqlite, postgres and mysql"
            ))),
        }
    }

    fn network(&self, url: &Url, default_port: u16) -> Result<NetworkTarget, OdbError> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let host = match url.host() {
            Some(Host::Domain(name)) => decode(name),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        let database = decode(url.path().trim_start_matches('/'));
        if host.is_empty() || database.is_empty() || url.username().is_empty() {
            return Err(OdbError::Options("it must name a user, a host and a database".into()));
        }
        let given = url.password().map(|text| SecretValue::new(decode(text).into_bytes()));
        let tls = self.tls(url, &host)?;
        Ok(NetworkTarget {
            host,
            port: url.port().unwrap_or(default_port),
            user: decode(url.username()),
            password: self.password.clone().or(given),
            database,
            tls,
            statement_timeout: self.statement_timeout,
        })
    }

    fn tls(&self, url: &Url, host: &str) -> Result<Tls, OdbError> {
        let (mut off, mut ca, mut certificate, mut key) = (false, None, None, None);
        for (name, value) in url.query_pairs() {
            let path = || Some(self.base_directory.join(value.as_ref()));
            match (name.as_ref(), value.as_ref()) {
                ("tls", "verify") => off = false,
                ("tls", "off") => off = true,
                ("tls", _) => return Err(OdbError::Options("tls is verify or off".into())),
                ("ca", "system") => ca = None,
                ("ca", _) => ca = path(),
                ("cert", "none") => certificate = None,
                ("cert", _) => certificate = path(),
                ("key", _) => key = path(),
                (other, _) => {
                    let known = "there are tls, ca, cert and key";
                    return Err(OdbError::Options(format!("unknown parameter {other:?}; {known}")));
                }
            }
        }
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            _ => return Err(OdbError::Options("cert and key belong together".into())),
        };
        let local = is_local(host);
        match (off, local) {
            (true, false) => {
                Err(OdbError::Options(format!("tls=off is for a database on this host, not for {host}")))
            }
            (true, true) => Ok(Tls::Off),
            (false, _) => Ok(Tls::Verify { ca, identity }),
        }
    }
}

/// Adds what the URL of a network database leaves open: the environment's CA, and this server's certificate
/// where the URL has no `cert` of its own. Paths stay relative to the server's directory.
fn with_own_certificates(text: &str, own: &SecuritySection) -> String {
    let Ok(mut url) = Url::parse(text) else { return text.to_owned() };
    let network = ["postgres", "postgresql", "mysql", "mariadb"].contains(&url.scheme());
    let says = |key: &str| url.query_pairs().any(|(name, _)| name == key);
    let off = url.query_pairs().any(|(name, value)| name == "tls" && value == "off");
    if !network || off {
        return text.to_owned();
    }
    let mut open = Vec::new();
    if !says("ca") {
        open.push(("ca", &own.ca));
    }
    if !says("cert") && !says("key") {
        open.extend([("cert", &own.certificate), ("key", &own.key)]);
    }
    for (name, path) in open {
        url.query_pairs_mut().append_pair(name, &path.to_string_lossy());
    }
    url.into()
}

/// Whether `host` can only be this machine: a loopback address, its name, or the directory of a Unix socket.
fn is_local(host: &str) -> bool {
    host == "localhost"
        || Path::new(host).is_absolute()
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Debug for OdbOptions {
    /// Leaves out the URL's password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(&self.url).map_or_else(
            |_| String::from("(no URL)"),
            |mut url| {
                if url.password().is_some() {
                    let _ = url.set_password(Some("…"));
                }
                url.to_string()
            },
        );
        f.debug_struct("OdbOptions")
            .field("url", &url)
            .field("connections", &self.connections)
            .field("statement_timeout", &self.statement_timeout)
            .finish_non_exhaustive()
    }
}

/// A decoded URL.
#[derive(Clone)]
pub(crate) enum Target {
    /// A file.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres(NetworkTarget),
    /// A MariaDB or MySQL server.
    Mysql(NetworkTarget),
}

/// A database server on the network.
#[derive(Clone)]
pub(crate) struct NetworkTarget {
    /// Name or address, or the directory of a Unix socket.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// The database's user.
    pub(crate) user: String,
    /// Its password.
    pub(crate) password: Option<SecretValue>,
    /// The database on the server.
    pub(crate) database: String,
    /// Whether and how the link is protected.
    pub(crate) tls: Tls,
    /// How long one statement may take.
    pub(crate) statement_timeout: Duration,
}

impl fmt::Display for NetworkTarget {
    /// `HOST:PORT/DATABASE`, or `DIRECTORY/DATABASE` of a Unix socket.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_socket(), self.host.contains(':')) {
            (true, _) => write!(f, "{}/{}", self.host, self.database),
            (false, true) => write!(f, "[{}]:{}/{}", self.host, self.port, self.database),
            (false, false) => write!(f, "{}:{}/{}", self.host, self.port, self.database),
        }
    }
}

impl NetworkTarget {
    /// Whether `host` is the directory of a Unix socket.
    pub(crate) fn is_socket(&self) -> bool {
        Path::new(&self.host).is_absolute()
    }

    /// The statement timeout in milliseconds, at least one.
    pub(crate) fn statement_timeout_ms(&self) -> u128 {
        self.statement_timeout.as_millis().max(1)
    }
}

/// How the link to a database server is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// TLS whose server certificate must be valid for the host name.
    Verify {
        /// PEM file of the only trusted roots; the system's otherwise.
        ca: Option<PathBuf>,
        /// The client's certificate, if it shows one.
        identity: Option<Identity>,
    },
    /// Plain, on the same host only.
    Off,
}

/// A client certificate, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The chain.
    pub(crate) certificate: PathBuf,
    /// The private key.
    pub(crate) key: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(url: &str) -> OdbOptions {
        OdbOptions {
            url: url.into(),
            base_directory: "/srv/server1".into(),
            password: None,
            connections: 2,
            statement_timeout: Duration::from_secs(1),
        }
    }

    fn refused(url: &str) -> String {
        options(url).target().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_relative_file_starts_from_the_base_directory() {
        for url in ["sqlite:../odb.sqlite", "sqlite://../odb.sqlite"] {
            let Ok(Target::Sqlite(path)) = options(url).target() else { panic!("{url}") };
            assert_eq!(path, Path::new("/srv/server1/../odb.sqlite"));
        }
        let Ok(Target::Sqlite(path)) = options("sqlite:/var/odb").target() else { panic!() };
        assert_eq!(path, Path::new("/var/odb"));
        assert!(refused("sqlite::memory:").contains("path of a file"));
    }

    #[test]
    fn tls_is_verified_unless_a_local_database_says_off() {
        let Ok(Target::Postgres(target)) = options("postgres://u:p%40w@db.example/cross?ca=ca.pem").target()
        else {
            panic!()
        };
        assert_eq!(target.tls, Tls::Verify { ca: Some("/srv/server1/ca.pem".into()), identity: None });
        assert_eq!(target.password.unwrap().expose(), b"p@w");
        assert_eq!(target.port, 5432);
        let Ok(Target::Mysql(target)) = options("mysql://u@127.0.0.1:33/cross?tls=off").target() else {
            panic!()
        };
        assert_eq!((target.tls, target.port), (Tls::Off, 33));
        assert!(refused("mysql://u@db.example/cross?tls=off").contains("on this host"));
        assert!(refused("mysql://u@db.example/cross?sslmode=disable").contains("unknown parameter"));
        assert!(refused("mysql://u@db.example/cross?cert=a").contains("belong together"));
        assert!(refused("oracle://u@db/x").contains("unknown scheme"));
        assert!(refused("postgres://db.example/").contains("must name"));
    }

    #[test]
    fn a_network_database_is_a_component_of_the_environment_unless_its_url_says_otherwise() {
        let own = SecuritySection::default();
        let tls = |url: &str| match options(&with_own_certificates(url, &own)).target() {
            Ok(Target::Postgres(target) | Target::Mysql(target)) => target.tls,
            _ => panic!("{url}"),
        };
        let in_directory = |path: &str| Path::new("/srv/server1").join(path);
        let identity =
            Identity { certificate: in_directory("tls/server.pem"), key: in_directory("tls/server.key") };
        let ca = Some(in_directory("tls/ca.pem"));
        let whole = Tls::Verify { ca: ca.clone(), identity: Some(identity.clone()) };
        assert_eq!(tls("postgres://u@db.example/cross"), whole);
        assert_eq!(tls("mysql://u@127.0.0.1/cross"), whole);
        let public = Tls::Verify { ca: None, identity: Some(identity) };
        assert_eq!(tls("postgres://u@db.example/cross?ca=system"), public);
        let anonymous = Tls::Verify { ca, identity: None };
        assert_eq!(tls("postgres://u@db.example/cross?cert=none"), anonymous);
        let other = Identity { certificate: in_directory("a b.pem"), key: in_directory("a.key") };
        let named = Tls::Verify { ca: None, identity: Some(other) };
        assert_eq!(tls("postgres://u@db.example/cross?ca=system&cert=a%20b.pem&key=a.key"), named);
        assert_eq!(tls("postgres://u@localhost/cross?tls=off"), Tls::Off);
        assert_eq!(with_own_certificates("sqlite:../odb.sqlite", &own), "sqlite:../odb.sqlite");
    }

    #[test]
    fn the_settings_are_taken_over() {
        let mut settings: ServerSettings = serde_json::from_value(serde_json::json!({
            "server": {"name": "one"}, "management": {"address": "127.0.0.1:1"}
        }))
        .unwrap();
        settings.odb.url = "sqlite:x".into();
        settings.odb.connections = 7;
        settings.odb.statement_timeout_ms = 1_234;
        let made = OdbOptions::from_settings(&settings, "/srv/server1", None);
        assert_eq!((made.url.as_str(), made.connections), ("sqlite:x", 7));
        assert_eq!(made.statement_timeout, Duration::from_millis(1_234));
    }

    #[test]
    fn a_socket_directory_is_a_host() {
        let url = "postgres://u@%2Frun%2Fpostgresql/cross?tls=off";
        let Ok(Target::Postgres(target)) = options(url).target() else { panic!() };
        assert_eq!(target.host, "/run/postgresql");
        assert!(target.is_socket());
    }

    #[test]
    fn the_password_is_never_printed() {
        let text = format!("{:?}", options("postgres://u:hush@db/x"));
        assert!(!text.contains("hush"), "{text}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(url in ".*", tail in "[a-z]{0,4}:.{0,40}") {
            let _ = options(&url).target();
            let _ = options(&tail).target();
        }
    }
}
