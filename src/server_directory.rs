//! A server's directory, made of what the cluster gives a newcomer.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use crosstie_config::settings;
use crosstie_model::UnitName;
use crosstie_model::secret::SecretValue;
use crosstie_model::settings::ServerSettings;
use crosstie_security::private_file::write_public;
use crosstie_security::{ClusterKey, create_private_directory, write_private};
use serde_json::{Map, Value, json};

use crate::environment::{Environment, ServerDirectory};
use crate::venv;

/// What a new server is made of.
pub(crate) struct Newcomer {
    /// Its certificate (PEM).
    pub(crate) certificate: String,
    /// The key of it (PEM).
    pub(crate) key: SecretValue,
    /// The authority's certificate (PEM).
    pub(crate) ca: String,
    /// The cluster key, as its file holds it.
    pub(crate) cluster_key: SecretValue,
    /// Where it takes plain requests.
    pub(crate) http: Option<SocketAddr>,
    /// Where it takes requests over TLS.
    pub(crate) https: Option<SocketAddr>,
    /// Where its management API listens.
    pub(crate) management: SocketAddr,
    /// Settings it has in common with the others, shaped like `server.toml`.
    pub(crate) shared: Value,
    /// Values of secrets that settings refer to, by the setting: `odb.password`.
    pub(crate) secrets: BTreeMap<String, SecretValue>,
}

/// The secrets in a joining server's answer.
pub(crate) fn secrets_of(answer: Option<&Value>) -> BTreeMap<String, SecretValue> {
    let fields = answer.and_then(Value::as_object).into_iter().flatten();
    let text = |(key, value): (&String, &Value)| {
        value.as_str().map(|value| (key.clone(), SecretValue::new(value.as_bytes())))
    };
    fields.filter_map(text).collect()
}

/// Makes the directory of `server`, ready to be started.
///
/// # Errors
/// Something cannot be written, or what the cluster gave makes no valid settings.
pub(crate) fn make(environment: &Environment, server: &ServerDirectory, newcomer: &Newcomer) -> Result<()> {
    let settings = settings_of(server, newcomer)?;
    make_directories(server, [environment.root().to_owned()])?;
    let tls = server.tls();
    let key = ClusterKey::import(&newcomer.cluster_key).context("the cluster gave no cluster key")?;
    key.save(&tls.join("cluster.key"))?;
    write_public(&tls.join("ca.pem"), newcomer.ca.as_bytes())?;
    write_private(&tls.join("server.key"), newcomer.key.expose())?;
    write_public(&tls.join("server.pem"), newcomer.certificate.as_bytes())?;
    for (setting, value) in &newcomer.secrets {
        write_private(&server.path().join(secret_file(setting)), value.expose())?;
    }
    let text = settings::template(&settings);
    fs::write(server.settings_file(), text).context("cannot write server.toml")?;
    venv::create(&server.venv())
}

/// Makes the directories of `server` and `others`, as far as they are missing.
///
/// # Errors
/// One cannot be made.
pub(crate) fn make_directories(
    server: &ServerDirectory,
    others: impl IntoIterator<Item = PathBuf>,
) -> Result<()> {
    let own = [
        server.path().to_owned(),
        server.config(),
        server.config().join("user"),
        server.pickup(),
        server.logs(),
        server.tls(),
        server.work(),
    ];
    others.into_iter().chain(own).filter(|directory| !directory.is_dir()).try_for_each(|directory| {
        create_private_directory(&directory).with_context(|| format!("cannot create {}", directory.display()))
    })
}

/// Makes what the command line needs on a host that had no environment yet.
///
/// # Errors
/// Something cannot be written.
pub(crate) fn make_client(
    environment: &Environment,
    certificate: &str,
    key: &SecretValue,
    ca: &str,
) -> Result<()> {
    let directory = environment.client();
    if !directory.is_dir() {
        create_private_directory(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    write_public(&directory.join("ca.pem"), ca.as_bytes())?;
    write_private(&directory.join("client.key"), key.expose())?;
    Ok(write_public(&directory.join("client.pem"), certificate.as_bytes())?)
}

/// Where the value of a secret that a setting refers to is kept.
fn secret_file(setting: &str) -> String {
    format!("tls/{setting}")
}

fn settings_of(server: &ServerDirectory, newcomer: &Newcomer) -> Result<ServerSettings> {
    let mut all = newcomer.shared.as_object().cloned().unwrap_or_default();
    let own = json!({
        "name": UnitName::new(&server.name())?, "http": newcomer.http, "https": newcomer.https,
    });
    all.insert("server".to_owned(), own);
    all.insert("management".to_owned(), json!({"address": newcomer.management}));
    for setting in newcomer.secrets.keys() {
        if let Some((section, key)) = setting.split_once('.') {
            let section = all.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(fields) = section {
                fields.insert(key.to_owned(), format!("file:{}", secret_file(setting)).into());
            }
        }
    }
    let settings: ServerSettings = serde_json::from_value(Value::Object(all))
        .context("the cluster runs another release: its settings are not known here")?;
    reach_file(&settings.odb.url)?;
    let read = settings::parse(&settings::template(&settings), Path::new("server.toml"));
    match read {
        Ok(read) => Ok(read),
        Err(faults) => {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            bail!("the cluster's settings are not valid here: {}", faults.join("; "))
        }
    }
}

/// A database that is a file serves servers of its own host alone.
fn reach_file(url: &str) -> Result<()> {
    match url.strip_prefix("sqlite:") {
        Some(path) if !Path::new(path).is_file() => bail!(
            "the cluster's database is the file {path} of another host: a cluster of several hosts needs \
             PostgreSQL or MariaDB"
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newcomer(shared: Value) -> Newcomer {
        Newcomer {
            certificate: String::new(),
            key: SecretValue::new(b"key".as_slice()),
            ca: String::new(),
            cluster_key: SecretValue::new(b"".as_slice()),
            http: None,
            https: "127.0.0.1:17011".parse().ok(),
            management: "127.0.0.1:17111".parse().unwrap(),
            shared,
            secrets: secrets_of(Some(&json!({"odb.password": "hush"}))),
        }
    }

    #[test]
    fn settings_are_the_clusters_with_addresses_and_files_of_its_own() {
        let environment = Environment::new("/nowhere".into());
        let shared = json!({
            "odb": {"url": "postgres://crosstie@127.0.0.1/crosstie"}, "cluster": {"lapse_ms": 9_000},
            "security": {"require_security": false},
        });
        let settings = settings_of(&environment.server("server2"), &newcomer(shared)).unwrap();
        assert_eq!(settings.server.name.as_str(), "server2");
        assert_eq!(settings.management.address.port(), 17_111);
        assert_eq!(settings.odb.password.as_deref(), Some("file:tls/odb.password"));
        assert_eq!(settings.cluster.lapse_ms, 9_000);
        assert!(!settings.security.require_security);
    }

    #[test]
    fn a_database_file_of_another_host_is_refused() {
        let environment = Environment::new("/nowhere".into());
        let shared = json!({"odb": {"url": "sqlite:/nowhere/odb.sqlite"}});
        let refused = settings_of(&environment.server("server2"), &newcomer(shared)).unwrap_err();
        assert!(refused.to_string().contains("PostgreSQL"), "{refused}");
    }
}
