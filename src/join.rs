//! A server that joins a cluster: from its token to a directory that `crosstie start` starts.
//!
//! The token says where to ask and which authority to expect there. The authority's certificate is fetched
//! from whoever answers and compared with the token before anything else is said; from then on the connection
//! is verified like any other. The new server's keys are made here and stay here.

use std::fs;
use std::io::{BufRead as _, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use crosstie_api::operations::{Invitation, TOKEN_PREFIX};
use crosstie_model::UnitName;
use crosstie_model::secret::SecretValue;
use crosstie_security::authority::{self, CertificateRequest};
use serde_json::{Value, json};

use crate::client::Client;
use crate::command::{Context, say};
use crate::environment::{Environment, ServerDirectory};
use crate::output::{field, shows_progress};
use crate::server::Listening;
use crate::server_directory::{self, Newcomer};
use crate::service_user;

/// Longest token that is read, in bytes.
const MAX_TOKEN_BYTES: u64 = 8 * 1024;

/// The token given as an argument, or the one in a file.
pub(crate) fn read_token(given: Option<&str>, file: Option<&Path>) -> Result<String> {
    let mut text = String::new();
    match (given, file) {
        (Some(given), _) => given.clone_into(&mut text),
        (None, Some(path)) if path.as_os_str() == "-" => {
            let input = std::io::stdin().lock().take(MAX_TOKEN_BYTES);
            std::io::BufReader::new(input).read_line(&mut text).context("cannot read standard input")?;
        }
        (None, Some(path)) => {
            fs::File::open(path)
                .and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut text))
                .with_context(|| format!("cannot read {}", path.display()))?;
        }
        (None, None) => bail!("give the token with --token or --token-file"),
    }
    Ok(text.trim().to_owned())
}

/// Makes the server at `directory` a member of the cluster of `token`.
pub(crate) fn join(context: &Context, directory: &Path, token: &str, listening: &Listening) -> Result<()> {
    let Some(invitation) = Invitation::of_token(token) else {
        bail!(
            "this is no token of `crosstie server token`: those start with {TOKEN_PREFIX} and are one word"
        );
    };
    let place = Place::of(directory)?;
    let management = check_addresses(listening)?;
    let (client, ca) = connect(&invitation)?;
    let name = place.server.name();
    let own = authority::request(&name)?;
    let command_line = place.lacks_client().then(|| authority::request(&name)).transpose()?;
    let body = json!({
        "secret": invitation.secret,
        "name": name,
        "request": own.request_pem,
        "client_request": command_line.as_ref().map(|request| &request.request_pem),
        "http": listening.http,
        "https": listening.https,
        "management": management,
        "names": listening.dns,
        "addresses": listening.ip,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let answer = client.post("/join", &without_nulls(body))?;
    progress("was let in");
    let made = place.make(&answer, &ca, own, command_line, listening, management);
    if let Err(error) = made {
        place.remove();
        return Err(error.context(
            "the cluster let the server in, but its directory could not be made; the token is used up",
        ));
    }
    let shown = place.server.path().display();
    let report = json!({"name": name, "directory": place.server.path(), "management": management});
    context.output.done(&report, &format!("{name} joined the cluster; `crosstie start {shown}` starts it"))
}

fn progress(what: &str) {
    if shows_progress() {
        say(&format!("{what} …"));
    }
}

/// A field that is absent says the same as one that is null, and needs no place in the schema.
fn without_nulls(mut body: Value) -> Value {
    if let Value::Object(fields) = &mut body {
        fields.retain(|_, value| !value.is_null());
    }
    body
}

/// Where the new server goes.
struct Place {
    environment: Environment,
    server: ServerDirectory,
    /// Whether the environment was there before.
    is_known: bool,
}

impl Place {
    /// The server's directory, which must not hold anything, in an environment that may be new.
    fn of(directory: &Path) -> Result<Self> {
        let shown = directory.display();
        let absolute = std::path::absolute(directory).with_context(|| format!("cannot use {shown}"))?;
        let name = absolute.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        UnitName::new(name).with_context(|| format!("{name:?} is no name of a server"))?;
        if fs::read_dir(&absolute).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{shown} is not empty: choose a directory that is empty or does not exist");
        }
        let root = absolute.parent().context("a server's directory lies in an environment's")?;
        let (root, is_known) = match fs::canonicalize(root) {
            Ok(root) => (root, true),
            Err(_) => (root.to_owned(), false),
        };
        let environment = Environment::new(root);
        let server = environment.server(name);
        Ok(Self { environment, server, is_known })
    }

    /// Whether there is no command line here yet that a server of the cluster would listen to.
    fn lacks_client(&self) -> bool {
        !self.environment.client().join("client.pem").exists()
    }

    fn make(
        &self,
        answer: &Value,
        ca: &str,
        own: CertificateRequest,
        command_line: Option<CertificateRequest>,
        listening: &Listening,
        management: SocketAddr,
    ) -> Result<()> {
        let text = |key: &str| answer.get(key).and_then(Value::as_str).with_context(|| format!("no {key}"));
        let newcomer = Newcomer {
            certificate: text("certificate")?.to_owned(),
            key: own.key_pem,
            ca: ca.to_owned(),
            cluster_key: SecretValue::new(text("cluster_key")?.as_bytes()),
            http: listening.http,
            https: listening.https,
            management,
            shared: answer.get("settings").cloned().unwrap_or_default(),
            secrets: server_directory::secrets_of(answer.get("secrets")),
        };
        server_directory::make(&self.environment, &self.server, &newcomer)?;
        if let Some(request) = command_line {
            let certificate = text("client_certificate")?;
            server_directory::make_client(&self.environment, certificate, &request.key_pem, ca)?;
        }
        service_user::settle(&self.environment, &self.server, None)
    }

    /// Removes what a failed attempt made. What was there before stays.
    fn remove(&self) {
        let path: PathBuf =
            if self.is_known { self.server.path().to_owned() } else { self.environment.root().to_owned() };
        if let Err(error) = fs::remove_dir_all(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            say(&format!("crosstie: cannot remove {}: {error}", path.display()));
        }
    }
}

/// Refuses what the server could not start with, before the token is used up.
fn check_addresses(listening: &Listening) -> Result<SocketAddr> {
    let management = listening
        .management
        .context("say where its management API listens: --management ADDRESS, such as 10.0.0.2:17110")?;
    if listening.http.is_none() && listening.https.is_none() {
        bail!("say where it takes requests: --https ADDRESS, such as 10.0.0.2:17010 (or --http)");
    }
    for address in [listening.http, listening.https, Some(management)].into_iter().flatten() {
        if let Err(error) = TcpListener::bind(address) {
            bail!("the server could not listen on {address}: {error}");
        }
    }
    Ok(management)
}

/// A verified connection to a server of the cluster, and its authority's certificate.
fn connect(invitation: &Invitation) -> Result<(Client, String)> {
    let mut reasons = Vec::new();
    for address in &invitation.addresses {
        progress(&format!("asking {address}"));
        let answer = match Client::stranger(*address, None)?.get("/ca") {
            Ok(answer) => answer,
            Err(error) => {
                reasons.push(format!("{error:#}"));
                continue;
            }
        };
        let ca = field_text(&answer, "ca");
        let found = authority::fingerprint(&ca).unwrap_or_default();
        if found != invitation.fingerprint {
            bail!(
                "{address} belongs to another cluster, or somebody is in between: its authority's fingerprint \
                 is {found}, the token's is {}",
                invitation.fingerprint
            );
        }
        return Ok((Client::stranger(*address, Some(&ca))?, ca));
    }
    bail!("no server of the cluster answers: {}", reasons.join("; "))
}

fn field_text(answer: &Value, key: &str) -> String {
    answer.get(key).and_then(Value::as_str).map_or_else(|| field(answer, key), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_must_be_free_and_have_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of(&directory.path().join("new/server2")).unwrap();
        assert!(!place.is_known && place.lacks_client());
        assert_eq!(place.server.name(), "server2");
        let taken = directory.path().join("server1");
        fs::create_dir_all(taken.join("config")).unwrap();
        assert!(Place::of(&taken).is_err());
        assert!(Place::of(&directory.path().join("a b")).is_err());
        assert!(Place::of(&directory.path().join("server2")).unwrap().is_known);
    }

    #[test]
    fn a_token_is_read_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "ctj1.abc\n").unwrap();
        assert_eq!(read_token(None, Some(&path)).unwrap(), "ctj1.abc");
        assert_eq!(read_token(Some(" ctj1.x "), None).unwrap(), "ctj1.x");
        assert!(read_token(None, None).is_err());
    }
}
