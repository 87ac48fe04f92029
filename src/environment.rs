//! An environment's directory: where things are in it, and which of its servers is meant.
//!
//! `DIR/{ca,server1,client,odb.sqlite}`; a server: `DIR/server1/{config,pickup,logs,tls,work,venv}`. Nothing
//! here needs a valid configuration: a command must still work when somebody broke `server.toml` by hand.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use crosstie_process::pidfile;

use crate::balancer;

/// A directory that `quickstart` made.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    root: PathBuf,
}

impl Environment {
    /// The environment at `directory`, or at the current directory: one with a server or a load balancer.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn find(directory: Option<&Path>) -> Result<Self> {
        let given = directory.unwrap_or(Path::new("."));
        let root = fs::canonicalize(given).with_context(|| format!("there is no {}", given.display()))?;
        let found = Self { root };
        // A host may have a load balancer alone.
        if found.servers()?.is_empty() && balancer::Directory::of(&found).is_none() {
            let mend = "name one with --dir or CROSSTIE_DIR, or make one with `crosstie quickstart DIR`";
            bail!("{} is not an environment: {mend}", given.display());
        }
        Ok(found)
    }

    /// An environment that is being made at `root`, an absolute path.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the CA's certificate is kept.
    pub(crate) fn ca(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// What the command line needs to talk to the servers.
    pub(crate) fn client(&self) -> PathBuf {
        self.root.join("client")
    }

    /// The server called `name`, which need not exist.
    pub(crate) fn server(&self, name: &str) -> ServerDirectory {
        ServerDirectory { path: self.root.join(name) }
    }

    /// Every server, in the order of their names.
    pub(crate) fn servers(&self) -> Result<Vec<ServerDirectory>> {
        let entries = fs::read_dir(&self.root)
            .with_context(|| format!("cannot read the directory {}", self.root.display()))?;
        let mut servers: Vec<_> = entries
            .flatten()
            .map(|entry| ServerDirectory { path: entry.path() })
            .filter(ServerDirectory::exists)
            .collect();
        servers.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(servers)
    }

    /// A server that runs; the first one when none does.
    pub(crate) fn any_server(&self) -> Result<ServerDirectory> {
        let servers = self.servers()?;
        let running = |server: &&ServerDirectory| pidfile::running_supervisor(server.path()).is_some();
        let chosen = servers.iter().find(running).or(servers.first());
        chosen.cloned().context("the environment has no server")
    }

    /// The server called `name`, or the only one when no name is given.
    pub(crate) fn one_server(&self, name: Option<&str>) -> Result<ServerDirectory> {
        let mut servers = self.servers()?;
        let known = servers.iter().map(ServerDirectory::name).collect::<Vec<_>>().join(", ");
        match (name, servers.pop()) {
            (Some(name), _) => {
                let server = self.server(name);
                if server.exists() {
                    Ok(server)
                } else {
                    bail!("there is no server {name}: there is {known}")
                }
            }
            (None, Some(only)) if servers.is_empty() => Ok(only),
            (None, None) => bail!("the environment has no server"),
            (None, _) => bail!("there are several servers: name one of {known} with --server"),
        }
    }
}

/// One server's directory.
#[derive(Debug, Clone)]
pub(crate) struct ServerDirectory {
    path: PathBuf,
}

impl ServerDirectory {
    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The server's name, which is the directory's.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// `server.toml`.
    pub(crate) fn settings_file(&self) -> PathBuf {
        self.config().join("server.toml")
    }

    /// The configuration repository.
    pub(crate) fn config(&self) -> PathBuf {
        self.path.join("config")
    }

    /// Where files are dropped to be deployed.
    pub(crate) fn pickup(&self) -> PathBuf {
        self.path.join("pickup")
    }

    /// Log files.
    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// What a detached server writes to its standard error before its log is open.
    pub(crate) fn console_log(&self) -> PathBuf {
        self.logs().join("console.log")
    }

    /// Certificate, keys.
    pub(crate) fn tls(&self) -> PathBuf {
        self.path.join("tls")
    }

    /// Pid file, locks, last good snapshot.
    pub(crate) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// The virtual environment of Python services, unless `[python] venv` names another.
    pub(crate) fn venv(&self) -> PathBuf {
        self.path.join("venv")
    }

    fn exists(&self) -> bool {
        self.settings_file().is_file()
    }

    /// The addresses in `server.toml`, read leniently: whatever else is wrong in the file, a command must
    /// reach the server that still runs with the configuration before the mistake.
    pub(crate) fn addresses(&self) -> Result<Addresses> {
        let path = self.settings_file();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Addresses::scan(&text))
    }
}

/// Where a server listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Plain HTTP service traffic.
    pub(crate) http: Option<SocketAddr>,
    /// HTTPS service traffic.
    pub(crate) https: Option<SocketAddr>,
    /// The management API.
    pub(crate) management: Option<SocketAddr>,
}

impl Addresses {
    /// Takes `key = "address"` lines of the two tables that hold addresses and looks at nothing else.
    fn scan(text: &str) -> Self {
        let mut found = Self::default();
        let mut table = "";
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                table = name.trim();
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let address =
                value.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']).parse();
            match (table, key.trim(), address) {
                ("server", "http", Ok(address)) => found.http = Some(address),
                ("server", "https", Ok(address)) => found.https = Some(address),
                ("management", "address", Ok(address)) => found.management = Some(address),
                _ => {}
            }
        }
        found
    }

    /// Where a client on this host reaches plain HTTP, or HTTPS when that is all there is.
    pub(crate) fn service_url(&self) -> Option<String> {
        let plain = self.http.map(|address| format!("http://{}", reachable(address)));
        plain.or_else(|| self.https.map(|address| format!("https://{}", reachable(address))))
    }
}

/// The address under which a client on this host reaches a listener: loopback for "any address".
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_a_broken_file() {
        let text = "[server]\nname = \nhttp = \"127.0.0.1:17010\" # plain\n#https = \"127.0.0.1:1\"\n\
                    [management]\naddress='0.0.0.0:17110'\n[other]\nhttp = \"127.0.0.1:2\"\nnonsense";
        let found = Addresses::scan(text);
        assert_eq!(found.http, "127.0.0.1:17010".parse().ok());
        assert_eq!(found.https, None);
        assert_eq!(found.management.map(reachable), "127.0.0.1:17110".parse().ok());
    }

    #[test]
    fn a_directory_without_components_is_no_environment() {
        let directory = tempfile::tempdir().unwrap();
        let error = Environment::find(Some(directory.path())).unwrap_err().to_string();
        assert!(error.contains("quickstart"), "{error}");
        fs::create_dir(directory.path().join("lb")).unwrap();
        fs::write(directory.path().join("lb/lb.toml"), "").unwrap();
        let balancer_alone = Environment::find(Some(directory.path())).unwrap();
        let error = balancer_alone.one_server(None).unwrap_err().to_string();
        assert!(error.contains("no server"), "{error}");
    }
}
