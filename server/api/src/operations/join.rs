//! Servers that join the cluster: with a one-time token, over a connection to one of its servers.
//!
//! A token is shown once and stored as a hash. It carries where to join and the fingerprint of the cluster's
//! authority, so the newcomer knows whom it talks to before it says anything. What it gets in return makes it
//! a full member: a certificate for the key it made itself, the cluster key, and the way to the database and
//! the broker.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crosstie_model::UnitName;
use crosstie_odb::{Admission, NewMember};
use crosstie_security::authority::Subject;
use crosstie_security::{SecretResolver, token};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::certificate::{record_of, sign};
use super::{OperationError, Operations, Refusal};
use crate::access::Caller;

/// What every token for joining starts with: its format.
pub const TOKEN_PREFIX: &str = "ctj1.";

/// How long a token is good when nobody says.
const DEFAULT_TTL: Duration = Duration::from_secs(15 * 60);

/// Most addresses one token carries.
const MAX_ADDRESSES: usize = 8;

/// Whom the command line of a newcomer's host acts for, as that of every environment does.
const COMMAND_LINE: &str = "admin";

/// What all servers of a cluster have in common, as pointers into their settings. Paths among it are relative
/// to each server's own directory.
const SHARED: [&str; 6] =
    ["/odb", "/bus", "/cluster", "/security/require_security", "/http/front", "/http/trusted_proxies"];

/// Secrets among it, which travel as values.
const SHARED_SECRETS: [&str; 2] = ["/odb/password", "/bus/password"];

/// A token that is asked for.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenOrder {
    /// Where the newcomer reaches management APIs of the cluster; those of the servers that run otherwise.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 8))]
    pub addresses: Vec<SocketAddr>,
    /// For how long it is good, in seconds; 15 minutes otherwise, a day at most.
    #[serde(default)]
    #[schemars(range(min = 10, max = 86_400))]
    pub ttl_s: Option<u64>,
}

/// A token, shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct JoinTokenView {
    /// Names it; not secret.
    pub id: String,
    /// The token: whoever has it can make one server a full member.
    pub token: String,
    /// Where the newcomer will ask.
    pub addresses: Vec<String>,
    /// When it ends (RFC 3339).
    pub expires: String,
}

/// What a token carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Management APIs of the cluster.
    #[serde(rename = "a")]
    pub addresses: Vec<SocketAddr>,
    /// SHA-256 of the authority's certificate, hexadecimal.
    #[serde(rename = "f")]
    pub fingerprint: String,
    /// What the cluster knows the token by.
    #[serde(rename = "t")]
    pub secret: String,
}

impl Invitation {
    /// As one word that can be copied.
    #[must_use]
    pub fn to_token(&self) -> String {
        let body = serde_json::to_vec(self).unwrap_or_default();
        format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(body))
    }

    /// Reads what [`Invitation::to_token`] wrote.
    #[must_use]
    pub fn of_token(text: &str) -> Option<Self> {
        let body = URL_SAFE_NO_PAD.decode(text.trim().strip_prefix(TOKEN_PREFIX)?).ok()?;
        serde_json::from_slice(&body).ok()
    }
}

/// A server that wants to join.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The secret of its token.
    #[schemars(length(max = 200))]
    pub secret: String,
    /// Its name, unique in the cluster.
    pub name: String,
    /// A request for its certificate (PKCS #10, PEM).
    #[schemars(length(max = 16_384))]
    pub request: String,
    /// A request for the certificate of the command line on its host, when that has none yet.
    #[serde(default)]
    #[schemars(length(max = 16_384))]
    pub client_request: Option<String>,
    /// Where it will serve plain HTTP.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub http: Option<SocketAddr>,
    /// Where it will serve HTTPS.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub https: Option<SocketAddr>,
    /// Where it will serve the management API.
    #[schemars(with = "String")]
    pub management: SocketAddr,
    /// More DNS names it is reached under.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub names: Vec<String>,
    /// More IP addresses it is reached under.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 32))]
    pub addresses: Vec<IpAddr>,
    /// The release it runs.
    #[schemars(length(max = 64))]
    pub version: String,
}

/// What a newcomer gets.
#[derive(Serialize, JsonSchema)]
pub struct JoinAnswer {
    /// Its certificate (PEM).
    pub certificate: String,
    /// The certificate of the command line on its host (PEM), when it asked for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// The authority's certificate (PEM).
    pub ca: String,
    /// The cluster key, as its file holds it.
    pub cluster_key: String,
    /// Settings that all servers have in common, shaped like `server.toml`.
    pub settings: Value,
    /// Values of secrets that those settings refer to, by the setting: `odb.password`.
    pub secrets: BTreeMap<String, String>,
}

/// Why a server does not join.
#[derive(Debug)]
pub enum JoinRefused {
    /// The token is not good: unknown, over, or used.
    Token,
    /// Something else; the token stays good.
    Other(OperationError),
}

impl<E: Into<OperationError>> From<E> for JoinRefused {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl Operations {
    /// Makes a token with which one server can join.
    ///
    /// # Errors
    /// No address is known under which a newcomer can ask; the ODB is away.
    pub async fn issue_join_token(
        &self,
        caller: &Caller,
        order: JoinTokenOrder,
    ) -> Result<JoinTokenView, OperationError> {
        let addresses = match order.addresses.as_slice() {
            [] => self.management_addresses().await?,
            given => given.to_vec(),
        };
        let fingerprint = self.authority_certificate().await?.fingerprint;
        let issued = token::issue().map_err(|error| OperationError::Secret(Box::new(error)))?;
        let ttl = order.ttl_s.map_or(DEFAULT_TTL, Duration::from_secs);
        let row = crosstie_odb::NewJoinToken {
            id: issued.id.clone(),
            hash: issued.hash,
            author: caller.name.clone(),
            ttl,
        };
        self.odb().put_join_token(&row).await?;
        tracing::info!(author = caller.name, token = issued.id, "token for joining issued");
        let secret = String::from_utf8_lossy(issued.text.expose()).into_owned();
        let expires = (OffsetDateTime::now_utc() + ttl).format(&Rfc3339).unwrap_or_default();
        Ok(JoinTokenView {
            id: issued.id,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            token: Invitation { addresses, fingerprint, secret }.to_token(),
            expires,
        })
    }

    /// Where the management APIs of the cluster are, this server's first.
    async fn management_addresses(&self) -> Result<Vec<SocketAddr>, OperationError> {
        let own = self.host().settings().management.address;
        let members = self.odb().members().await?;
        let others = members.into_iter().filter(|row| row.state.is_live());
        let others = others.filter_map(|row| row.member.management.parse::<SocketAddr>().ok());
        let mut addresses = vec![own];
        for address in others {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.retain(|address| !address.ip().is_unspecified());
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            let text =
                format!("the management API listens on {own}: name an address where a newcomer reaches it");
            return Err(OperationError::Invalid(text));
        }
        Ok(addresses)
    }

    /// Lets a server in.
    ///
    /// # Errors
    /// [`JoinRefused`].
    pub async fn join(&self, request: JoinRequest) -> Result<JoinAnswer, JoinRefused> {
        let id = token::id_of(&request.secret).unwrap_or_default();
        let row = if id.is_empty() { None } else { self.odb().join_token(id).await? };
        if !token::verify(&request.secret, row.as_ref().map(|row| row.hash.as_str())) {
            return Err(JoinRefused::Token);
        }
        let author = row.map(|row| row.author).unwrap_or_default();
        UnitName::new(&request.name).map_err(|error| {
            OperationError::Invalid(format!("{:?} is no name of a server: {error}", request.name))
        })?;
        let authority = self.authority().await?;
        let (certificate, server) = sign(&authority, &request.request, &subject_of(&request))?;
        let client = match &request.client_request {
            None => None,
            Some(given) => Some(sign(&authority, given, &Subject::client(COMMAND_LINE))?),
        };
        let on_behalf = format!("{author} (token {id})");
        let described = std::iter::once(&server).chain(client.as_ref().map(|(_, description)| description));
        let admission = Admission {
            token: id.to_owned(),
            certificates: described.map(|description| record_of(description, &on_behalf)).collect(),
            member: member_of(&request),
        };
        let (settings, secrets) = self.shared_settings()?;
        let cluster_key = self.cluster_key().export();
        let answer = JoinAnswer {
            certificate,
            client_certificate: client.map(|(pem, _)| pem),
            ca: authority.certificate_pem().to_owned(),
            cluster_key: String::from_utf8_lossy(cluster_key.expose()).into_owned(),
            settings,
            secrets,
        };
        match self.odb().admit(&admission).await {
            Ok(true) => {}
            Ok(false) => return Err(JoinRefused::Token),
            Err(error @ crosstie_odb::OdbError::Exists { .. }) => {
                let refusal = Refusal::new(format!("{error}; choose another name"));
                return Err(OperationError::Refused(refusal).into());
            }
            Err(error) => return Err(error.into()),
        }
        tracing::info!(author, token = id, server = request.name, "a server joined the cluster");
        Ok(answer)
    }

    /// What all servers have in common, and the secrets in it.
    fn shared_settings(&self) -> Result<(Value, BTreeMap<String, String>), OperationError> {
        let own = serde_json::to_value(self.host().settings().as_ref())
            .map_err(|error| OperationError::Internal(error.to_string()))?;
        let (mut shared, mut secrets) = (json!({}), BTreeMap::new());
        for pointer in SHARED {
            if let Some(value) = own.pointer(pointer).filter(|value| !value.is_null()) {
                put(&mut shared, pointer, value.clone());
            }
        }
        let key = std::sync::Arc::clone(&self.inner.parts.cluster_key);
        let resolver = SecretResolver::new(key, self.directory().to_owned());
        for pointer in SHARED_SECRETS {
            let Some(reference) = own.pointer(pointer).and_then(Value::as_str) else { continue };
            let value = resolver
                .resolve_setting(reference)
                .map_err(|error| OperationError::Secret(Box::new(error)))?;
            let value = String::from_utf8(value.expose().to_vec())
                .map_err(|_| OperationError::Internal(format!("the secret of {pointer} is not text")))?;
            secrets.insert(pointer.trim_start_matches('/').replace('/', "."), value);
            put(&mut shared, pointer, Value::Null);
        }
        if let Some(path) = own.pointer("/odb/url").and_then(Value::as_str).and_then(file_of) {
            let path = self.directory().join(path);
            let path = path.canonicalize().unwrap_or(path);
            put(&mut shared, "/odb/url", format!("sqlite:{}", path.display()).into());
        }
        Ok((shared, secrets))
    }
}

/// The file of an embedded database.
fn file_of(url: &str) -> Option<&str> {
    url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path))
}

/// Sets what `pointer` says in `document`, whose objects are made as needed; null takes it away.
fn put(document: &mut Value, pointer: &str, value: Value) {
    let mut place = document;
    let mut keys = pointer.split('/').skip(1).peekable();
    while let Some(key) = keys.next() {
        let Value::Object(fields) = place else { return };
        if keys.peek().is_some() {
            place = fields.entry(key).or_insert_with(|| Value::Object(Map::new()));
        } else if value.is_null() {
            fields.remove(key);
            return;
        } else {
            fields.insert(key.to_owned(), value);
            return;
        }
    }
}

/// What the newcomer's certificate says: how it is called and where it listens.
fn subject_of(request: &JoinRequest) -> Subject {
    let listening = [request.http, request.https, Some(request.management)];
    let listening = listening.into_iter().flatten().map(|address| address.ip());
    let mut subject = Subject::server(&request.name, listening.chain(request.addresses.iter().copied()));
    subject.names.extend(request.names.iter().cloned());
    subject
}

fn member_of(request: &JoinRequest) -> NewMember {
    let address = request.https.or(request.http);
    NewMember {
        name: request.name.clone(),
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        tls: request.https.is_some(),
        management: request.management.to_string(),
        version: request.version.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_survives_its_token() {
        let invitation = Invitation {
            addresses: vec!["127.0.0.1:17110".parse().unwrap(), "[::1]:1".parse().unwrap()],
            fingerprint: "ab".repeat(32),
            secret: "ct_0123456789abcdef_x".into(),
        };
        let text = invitation.to_token();
        assert!(text.starts_with("ctj1.") && text.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(Invitation::of_token(&format!(" {text}\n")), Some(invitation));
        for bad in ["", "ctj1.", "ctj1.!", "ctj2.e30", "ctj1.e30", &text[..text.len() - 4]] {
            assert_eq!(Invitation::of_token(bad), None, "{bad}");
        }
    }

    #[test]
    fn settings_are_put_where_their_pointer_says() {
        let mut document = json!({});
        put(&mut document, "/odb/url", "a".into());
        put(&mut document, "/odb/password", "b".into());
        put(&mut document, "/odb/password", Value::Null);
        put(&mut document, "/cluster", json!({"lapse_ms": 1}));
        assert_eq!(document, json!({"odb": {"url": "a"}, "cluster": {"lapse_ms": 1}}));
    }
}
