//! Outgoings that are databases: `sql`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault;
use super::policy::CircuitPolicy;
use super::tls::ClientTls;
use crate::definition::message_log::KeptMessages;
use crate::definition::security::{is_keep, keep};
use crate::failure::Fault;
use crate::secret::SecretRef;

/// A database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SqlEndpoint {
    /// What sort of database it is.
    pub engine: SqlEngine,
    /// The database's name on its server; for SQLite the path of its file, which starts from the server's
    /// directory where it is relative.
    #[schemars(length(min = 1, max = 4_096))]
    pub database: String,
    /// The database server: a name, an address, or the directory of PostgreSQL's Unix socket. Required, except
    /// for SQLite, which has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Its port; 5432 or 3306 otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The user there. Required, except for SQLite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub username: Option<String>,
    /// How that user shows who it is.
    #[serde(default, skip_serializing_if = "SqlAuthentication::is_password")]
    pub authentication: SqlAuthentication,
    /// The user's password. May be left out of an `apply` document to keep the present one.
    #[serde(default = "keep", skip_serializing_if = "is_keep")]
    pub password: SecretRef,
    /// Whether the connection is encrypted.
    #[serde(default, skip_serializing_if = "SqlEncryption::is_required")]
    pub encryption: SqlEncryption,
    /// TLS beyond the usual: own authorities, a client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// Whether SQLite makes the file where there is none.
    #[serde(default, skip_serializing_if = "is_no")]
    pub create: bool,
    /// Most connections of one worker. A call that finds all of them busy waits for one.
    #[serde(default = "default_connections", skip_serializing_if = "is_default_connections")]
    #[schemars(range(min = 1, max = 1_000), extend("default" = 10))]
    pub max_connections: u32,
    /// How long a call waits for a connection at most when all are busy, in milliseconds.
    #[serde(default = "default_wait_deadline", skip_serializing_if = "is_default_wait_deadline")]
    #[schemars(range(min = 1, max = 600_000), extend("default" = 5_000))]
    pub wait_deadline_ms: u64,
    /// How long making a connection may take, TLS and login included, in milliseconds.
    #[serde(default = "default_connect_deadline", skip_serializing_if = "is_default_connect_deadline")]
    #[schemars(range(min = 1, max = 600_000), extend("default" = 5_000))]
    pub connect_deadline_ms: u64,
    /// How long one statement may take, in milliseconds; then it is cancelled at the database. The deadline of
    /// the service that calls counts where it is earlier. Of a result that is read piece by piece, as long for
    /// its beginning and for each piece.
    #[serde(default = "default_deadline", skip_serializing_if = "is_default_deadline")]
    #[schemars(range(min = 1, max = 86_400_000), extend("default" = 30_000))]
    pub deadline_ms: u64,
    /// How long a connection is kept that nobody uses, in milliseconds: less than the database and what lies
    /// between keep it.
    #[serde(default = "default_idle", skip_serializing_if = "is_default_idle")]
    #[schemars(range(max = 86_400_000), extend("default" = 300_000))]
    pub idle_ms: u64,
    /// How long a connection is used at most, in milliseconds; then it gives way to a new one.
    #[serde(default = "default_lifetime", skip_serializing_if = "is_default_lifetime")]
    #[schemars(range(min = 1, max = 604_800_000), extend("default" = 3_600_000))]
    pub lifetime_ms: u64,
    /// Largest result of one statement, in bytes as they lie in memory. Longer ones must be streamed, where
    /// this holds for each row.
    #[serde(default = "default_result", skip_serializing_if = "is_default_result")]
    #[schemars(range(min = 1_024), extend("default" = 67_108_864))]
    pub max_result_bytes: u64,
    /// When no connection is tried, because those before were not made in time. One that the database refuses
    /// does not count: that costs its callers nothing.
    #[serde(default, skip_serializing_if = "CircuitPolicy::is_default")]
    pub circuit: CircuitPolicy,
    /// What is kept of its calls in the message log; nothing when absent. The body of a request is its statement,
    /// without the values of parameters; results are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_log: Option<KeptMessages>,
    /// How many prepared statements a connection keeps.
    #[serde(default = "default_statements", skip_serializing_if = "is_default_statements")]
    #[schemars(range(max = 10_000), extend("default" = 100))]
    pub prepared_statements: u32,
    /// Calls of an inactive outgoing fail at once.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub active: bool,
}

/// What sort of database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SqlEngine {
    /// PostgreSQL.
    PostgreSql,
    /// MariaDB.
    MariaDb,
    /// MySQL.
    MySql,
    /// A file of SQLite on this host.
    Sqlite,
}

impl SqlEngine {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PostgreSql => "postgresql",
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }

    /// The port its servers listen on; none for a file.
    #[must_use]
    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::PostgreSql => Some(5_432),
            Self::MariaDb | Self::MySql => Some(3_306),
            Self::Sqlite => None,
        }
    }
}

/// How a database's user shows who it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SqlAuthentication {
    /// By a password, in whichever way the database asks for it.
    #[default]
    Password,
    /// By nothing, or by the client certificate alone.
    None,
}

impl SqlAuthentication {
    fn is_password(&self) -> bool {
        *self == Self::Password
    }
}

/// Whether the connection to a database is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SqlEncryption {
    /// By TLS, the server's certificate verified for the name it is reached by; a server without TLS is
    /// refused. A Unix socket needs none.
    #[default]
    Required,
    /// Not at all: whoever can listen on the way reads everything.
    Off,
}

impl SqlEncryption {
    fn is_required(&self) -> bool {
        *self == Self::Required
    }
}

impl SqlEndpoint {
    /// Whether a password is presented.
    fn has_password(&self) -> bool {
        self.engine != SqlEngine::Sqlite && self.authentication.is_password()
    }

    /// What is wrong that a schema cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.engine == SqlEngine::Sqlite {
            self.faults_of_a_file(&mut faults);
        } else {
            self.faults_of_a_server(&mut faults);
        }
        faults
    }

    fn faults_of_a_file(&self, faults: &mut Vec<Fault>) {
        let given = [
            ("/host", self.host.is_some()),
            ("/port", self.port.is_some()),
            ("/username", self.username.is_some()),
            ("/authentication", !self.authentication.is_password()),
            ("/password", !is_keep(&self.password)),
            ("/encryption", !self.encryption.is_required()),
            ("/tls", self.tls.is_some()),
        ];
        let wrong = given.into_iter().filter(|(_, given)| *given);
        faults.extend(wrong.map(|(pointer, _)| fault(pointer, "is of no use to SQLite, which is a file")));
        if self.database == ":memory:" || self.database.starts_with("file:") {
            faults.push(fault("/database", "is not the path of a file"));
        }
    }

    fn faults_of_a_server(&self, faults: &mut Vec<Fault>) {
        if self.host.is_none() {
            faults.push(fault("/host", "is missing"));
        }
        if self.username.is_none() {
            faults.push(fault("/username", "is missing"));
        }
        if self.create {
            faults.push(fault("/create", "is for SQLite alone"));
        }
        if self.authentication == SqlAuthentication::None && !is_keep(&self.password) {
            faults.push(fault("/password", "is presented to nobody: authentication is none"));
        }
        let is_socket = self.host.as_ref().is_some_and(|host| host.starts_with('/'));
        if is_socket && self.engine != SqlEngine::PostgreSql {
            faults.push(fault("/host", "is neither a name nor an address"));
        }
        match &self.tls {
            Some(_) if self.encryption == SqlEncryption::Off => {
                faults.push(fault("/tls", "is of no use: encryption is off"));
            }
            Some(_) if is_socket => faults.push(fault("/tls", "is of no use to a Unix socket")),
            Some(tls) => tls.faults(faults),
            None => {}
        }
    }

    pub(super) fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        let password = self.has_password().then_some(("password", &self.password));
        password.into_iter().chain(self.tls.iter().flat_map(ClientTls::secrets)).collect()
    }

    pub(super) fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretRef)> {
        let password = self.has_password().then_some(("password", &mut self.password));
        password.into_iter().chain(self.tls.iter_mut().flat_map(ClientTls::secrets_mut)).collect()
    }
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn is_no(value: &bool) -> bool {
    !*value
}

fn default_connections() -> u32 {
    10
}

fn is_default_connections(value: &u32) -> bool {
    *value == default_connections()
}

fn default_wait_deadline() -> u64 {
    5_000
}

fn is_default_wait_deadline(value: &u64) -> bool {
    *value == default_wait_deadline()
}

fn default_connect_deadline() -> u64 {
    5_000
}

fn is_default_connect_deadline(value: &u64) -> bool {
    *value == default_connect_deadline()
}

fn default_deadline() -> u64 {
    30_000
}

fn is_default_deadline(value: &u64) -> bool {
    *value == default_deadline()
}

fn default_idle() -> u64 {
    300_000
}

fn is_default_idle(value: &u64) -> bool {
    *value == default_idle()
}

fn default_lifetime() -> u64 {
    3_600_000
}

fn is_default_lifetime(value: &u64) -> bool {
    *value == default_lifetime()
}

fn default_result() -> u64 {
    64 * 1024 * 1024
}

fn is_default_result(value: &u64) -> bool {
    *value == default_result()
}

fn default_statements() -> u32 {
    100
}

fn is_default_statements(value: &u32) -> bool {
    *value == default_statements()
}

#[cfg(test)]
mod tests {
    use crate::definition::{Definition, DefinitionId, DefinitionKind};
    use serde_json::{Value, json};

    fn read(body: Value) -> Result<Definition, Vec<String>> {
        let id = DefinitionId { kind: DefinitionKind::Outgoing, name: "crm".parse().unwrap() };
        Definition::from_value(id, body)
            .map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect())
    }

    #[test]
    fn a_database_survives_its_yaml_shape_and_names_its_secrets() {
        let file = json!({"type": "sql", "engine": "sqlite", "database": "work/a.sqlite", "create": true});
        let server = json!({
            "type": "sql", "engine": "postgresql", "database": "crm", "host": "db.example", "username": "ada",
            "password": "env:P", "tls": {"certificate": "file:c.pem", "key": "file:k.pem"}, "max_connections": 3,
        });
        let open = json!({
            "type": "sql", "engine": "mysql", "database": "crm", "host": "db.example", "username": "ada",
            "authentication": "none", "encryption": "off",
        });
        for (body, secrets) in [(file, vec![]), (server, vec!["password", "tls/key"]), (open, vec![])] {
            let definition = read(body.clone()).unwrap();
            assert_eq!(definition.to_value().unwrap(), body);
            let fields: Vec<_> = definition.secrets().into_iter().map(|(field, _)| field).collect();
            assert_eq!(fields, secrets, "{body}");
        }
    }

    #[test]
    fn what_an_engine_has_no_use_for_is_a_fault_and_so_is_what_it_misses() {
        let cases = [
            (json!({"engine": "postgresql"}), vec!["/host", "/username"]),
            (
                json!({"engine": "sqlite", "host": "a", "password": "x", "tls": {}}),
                vec!["/host", "/password", "/tls"],
            ),
            (json!({"engine": "mariadb", "host": "/run", "username": "a", "password": "x"}), vec!["/host"]),
            (json!({"engine": "mariadb", "host": "a", "username": "a", "create": true}), vec!["/create"]),
            (
                json!({"engine": "mysql", "host": "a", "username": "a", "authentication": "none", "password": "x"}),
                vec!["/password"],
            ),
            (
                json!({"engine": "postgresql", "host": "a", "username": "a", "encryption": "off", "tls": {}}),
                vec!["/tls"],
            ),
            (json!({"engine": "postgresql", "host": "/run", "username": "a", "tls": {}}), vec!["/tls"]),
            (json!({"engine": "sqlite", "database": ":memory:"}), vec!["/database"]),
        ];
        for (mut body, pointers) in cases {
            body["type"] = "sql".into();
            if body.get("database").is_none() {
                body["database"] = "crm".into();
            }
            assert_eq!(read(body.clone()).unwrap_err(), pointers, "{body}");
        }
    }
}
