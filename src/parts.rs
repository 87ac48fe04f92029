//! The database and the broker that an environment runs itself: where `quickstart` put them. Environments
//! whose database and broker somebody else runs have no such file.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use crosstie_parts::{Part, PartPlan, PartTls, Postgres, RabbitMq, ServiceUser};
use serde_json::{Value, json};

use crate::environment::Environment;

/// Names the parts and their addresses, in the environment's directory.
const FILE: &str = "parts.json";

/// A kind of part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PartKind {
    /// PostgreSQL, for the ODB.
    Postgresql,
    /// RabbitMQ, for the bus.
    Broker,
}

impl PartKind {
    const ALL: [Self; 2] = [Self::Postgresql, Self::Broker];

    /// Its directory's name, by which commands know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Broker => "broker",
        }
    }

    /// What it is, in `status`.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Postgresql => "database",
            Self::Broker => "broker",
        }
    }

    /// The distribution's user that it runs as when root starts it.
    fn user(self) -> &'static str {
        match self {
            Self::Postgresql => "postgres",
            Self::Broker => "rabbitmq",
        }
    }
}

/// One part of an environment.
#[derive(Debug, Clone)]
pub(crate) struct EnvironmentPart {
    /// Which.
    pub(crate) kind: PartKind,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    root: PathBuf,
}

impl EnvironmentPart {
    /// The part of `kind` at `address`, made or not.
    pub(crate) fn new(environment: &Environment, kind: PartKind, address: SocketAddr) -> Self {
        Self { kind, address, root: environment.root().to_owned() }
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> PathBuf {
        self.root.join(self.kind.name())
    }

    /// The files of its certificate: what is renewed; the part has a copy of its own.
    pub(crate) fn certificate(&self) -> PartTls {
        let directory = self.root.join("ca");
        let name = self.kind.name();
        PartTls {
            ca: directory.join("ca.pem"),
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}.key")),
        }
    }

    /// The program itself.
    pub(crate) fn program(&self) -> Result<Box<dyn Part>> {
        let plan = PartPlan {
            directory: self.directory(),
            address: self.address,
            tls: Some(self.certificate()),
            user: ServiceUser::for_part(self.kind.user())?,
        };
        Ok(match self.kind {
            PartKind::Postgresql => Box::new(Postgres::new(plan)),
            PartKind::Broker => Box::new(RabbitMq::new(plan)),
        })
    }
}

/// The parts of `environment`, in the order in which they start.
pub(crate) fn of(environment: &Environment) -> Result<Vec<EnvironmentPart>> {
    let path = environment.root().join(FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let read = || -> Result<Vec<EnvironmentPart>> {
        let addresses: BTreeMap<String, Value> = serde_json::from_str(&text)?;
        let mut parts = Vec::new();
        for (name, entry) in addresses {
            let Some(kind) = PartKind::ALL.into_iter().find(|kind| kind.name() == name) else {
                bail!("{name} is no part that this version knows");
            };
            let address = entry.get("address").and_then(Value::as_str).unwrap_or_default().parse()?;
            parts.push(EnvironmentPart::new(environment, kind, address));
        }
        parts.sort_by_key(|part| part.kind);
        Ok(parts)
    };
    read().with_context(|| format!("{} is damaged", path.display()))
}

/// Writes down what `parts` there are.
pub(crate) fn save(root: &Path, parts: &[EnvironmentPart]) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let entries: serde_json::Map<String, Value> =
        parts.iter().map(|part| (part.kind.name().to_owned(), json!({"address": part.address}))).collect();
    let path = root.join(FILE);
    let text = serde_json::to_string_pretty(&entries)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_in_the_order_of_starting() {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::new(directory.path().to_owned());
        assert!(of(&environment).unwrap().is_empty());
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let parts = [
            EnvironmentPart::new(&environment, PartKind::Broker, address(2)),
            EnvironmentPart::new(&environment, PartKind::Postgresql, address(1)),
        ];
        save(directory.path(), &parts).unwrap();
        let read = of(&environment).unwrap();
        let found: Vec<_> = read.iter().map(|part| (part.kind.name(), part.address.port())).collect();
        assert_eq!(found, [("postgresql", 1), ("broker", 2)]);
        fs::write(directory.path().join(FILE), "{\"oracle\": {}}").unwrap();
        assert!(format!("{:#}", of(&environment).unwrap_err()).contains("oracle"));
    }
}
