//! Authenticators: what security definitions demand of a request, compiled from one snapshot.
//!
//! Built when a snapshot is built; secrets are resolved then, so a request costs no I/O and no lock that
//! anybody holds for long: two or three SHA-256 of short texts, well under a microsecond, and one `Arc` clone
//! for the principal. Comparison takes the same time whichever user name or key is wrong. A definition whose
//! material is unchanged keeps its authenticator over snapshots, and with it whatever was found out.
//!
//! A security type is one file beside this one plus one line in `compile`.

mod api_key;
mod authenticator;
mod basic;
mod bearer;
mod claims;
mod client_certificate;
mod comparison;
mod denial;
mod expiring;
mod group;
mod inquirer;
mod introspection;
mod jwt;
mod material;
mod presented;
#[cfg(test)]
mod testing;
mod wss;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crosstie_model::definition::{
    ApiKeyLocation, DefinitionBody, DefinitionId, DefinitionKind, DefinitionName, SecurityDefinition,
};
use crosstie_model::inquiry::Inquiries;
use crosstie_model::message::Principal;
use crosstie_model::ports::{NoNonces, Nonces};
use crosstie_model::{Fault, Snapshot};

use crate::secret::SecretResolver;
use api_key::ApiKeyCheck;
pub use authenticator::Authenticator;
use authenticator::Check;
use basic::BasicCheck;
use client_certificate::ClientCertificateCheck;
pub use client_certificate::{ClientChain, reason_of};
pub use denial::Refusal;
use group::GroupCheck;
use inquirer::Workshop;
use introspection::IntrospectionCheck;
use jwt::JwtCheck;
pub use material::CredentialError;
use material::Material;
pub use presented::{Presented, ShownCertificate};
use wss::WssCheck;
pub use wss::{AcceptedToken, ShownUsernameToken, TokenDemands};

/// A security definition that cannot be enforced on this server.
#[derive(Debug, thiserror::Error)]
#[error("security definition {name}: {source}")]
pub struct CredentialFault {
    /// The definition.
    pub name: DefinitionName,
    /// What is wrong with it.
    #[source]
    pub source: CredentialError,
}

/// Where a process gets its authenticators from, snapshot after snapshot.
#[derive(Debug)]
pub struct CredentialSource {
    resolver: SecretResolver,
    inquiries: Arc<dyn Inquiries>,
    nonces: Arc<dyn Nonces>,
    known: Mutex<HashMap<DefinitionName, Known>>,
}

/// An authenticator, and what it was made of.
#[derive(Debug)]
struct Known {
    material: Material,
    authenticator: Arc<Authenticator>,
}

impl CredentialSource {
    /// A source that finds secrets through `resolver`, asks other systems through `inquiries`, and has made
    /// nothing yet. Credentials that may be used once let nobody in before [`CredentialSource::with_nonces`].
    #[must_use]
    pub fn new(resolver: SecretResolver, inquiries: Arc<dyn Inquiries>) -> Self {
        Self { resolver, inquiries, nonces: Arc::new(NoNonces), known: Mutex::default() }
    }

    /// The same with something that remembers what was used.
    #[must_use]
    pub fn with_nonces(mut self, nonces: Arc<dyn Nonces>) -> Self {
        self.nonces = nonces;
        self
    }

    /// The authenticator of one definition that is no group: the one there is, or a new one.
    fn authenticator(
        &self,
        name: &DefinitionName,
        definition: &SecurityDefinition,
        snapshot: &Snapshot,
    ) -> Result<Arc<Authenticator>, CredentialError> {
        let material = Material::gather(name, definition, snapshot, &self.resolver)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(name).filter(|known| known.material == material) {
            return Ok(Arc::clone(&same.authenticator));
        }
        let check = compile(
            &material,
            &Workshop { name, snapshot, inquiries: &*self.inquiries, nonces: &self.nonces },
        )?;
        let authenticator = Authenticator::new(name.to_shared(), definition.type_name(), check);
        let authenticator = Arc::new(authenticator);
        known.insert(name.clone(), Known { material, authenticator: Arc::clone(&authenticator) });
        Ok(authenticator)
    }

    /// Forgets the authenticators of definitions that are no longer there.
    fn retain(&self, snapshot: &Snapshot) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| snapshot.security(name).is_some());
    }
}

/// All security definitions of a snapshot, ready to check requests.
#[derive(Debug)]
pub struct Authenticators {
    by_name: HashMap<DefinitionName, Arc<Authenticator>>,
    query_parameters: Arc<BTreeSet<String>>,
    header_names: BTreeSet<String>,
}

/// No definitions at all; what carries credentials everywhere is masked even then.
impl Default for Authenticators {
    fn default() -> Self {
        Self {
            by_name: HashMap::new(),
            query_parameters: Arc::default(),
            header_names: BTreeSet::from(["authorization".to_owned()]),
        }
    }
}

impl Authenticators {
    /// Compiles every security definition of `snapshot`.
    ///
    /// # Errors
    /// Every definition that cannot be enforced. A snapshot that yields this should not replace one that
    /// serves.
    pub fn build(snapshot: &Snapshot, source: &CredentialSource) -> Result<Self, Vec<CredentialFault>> {
        let (authenticators, faults) = Self::build_available(snapshot, source);
        if faults.is_empty() { Ok(authenticators) } else { Err(faults) }
    }

    /// As [`Authenticators::build`] for a start, when there is nothing older to go on serving: definitions
    /// that cannot be enforced refuse every request with 503, the others work.
    #[must_use]
    pub fn build_available(snapshot: &Snapshot, source: &CredentialSource) -> (Self, Vec<CredentialFault>) {
        let (mut all, mut faults) = (Self::default(), Vec::new());
        for (name, definition) in definitions(snapshot) {
            // Outgoings alone present these, and groups are made of the others.
            if !is_checked_itself(definition) {
                continue;
            }
            let authenticator = source.authenticator(name, definition, snapshot).unwrap_or_else(|source| {
                faults.push(CredentialFault { name: name.clone(), source });
                let check = Check::Unavailable;
                Arc::new(Authenticator::new(name.to_shared(), definition.type_name(), check))
            });
            all.by_name.insert(name.clone(), authenticator);
        }
        source.retain(snapshot);
        for (name, definition) in definitions(snapshot) {
            if !matches!(definition, SecurityDefinition::Group(_)) {
                continue;
            }
            let members = snapshot.credentials_for(name).into_iter();
            let members = members.filter_map(|(member, _)| all.find(member)).collect();
            let check = Check::Group(GroupCheck::new(members));
            let group = Authenticator::new(name.to_shared(), definition.type_name(), check);
            all.by_name.insert(name.clone(), Arc::new(group));
        }
        all.mask(snapshot);
        (all, faults)
    }

    /// Notes what carries credentials. Also of definitions that cannot be enforced: callers send them all the
    /// same.
    fn mask(&mut self, snapshot: &Snapshot) {
        let mut query_parameters = BTreeSet::new();
        for (_, definition) in definitions(snapshot) {
            if let SecurityDefinition::ApiKey(body) = definition {
                match body.r#in {
                    ApiKeyLocation::Query => query_parameters.insert(body.name.clone()),
                    ApiKeyLocation::Header => self.header_names.insert(body.name.to_ascii_lowercase()),
                };
            }
        }
        self.query_parameters = Arc::new(query_parameters);
    }

    /// The authenticator of the definition `name`, for a route to keep.
    #[must_use]
    pub fn find(&self, name: &DefinitionName) -> Option<Arc<Authenticator>> {
        self.by_name.get(name).map(Arc::clone)
    }

    /// Names of query parameters that carry keys: whoever writes a query down masks their values. Cheap to
    /// clone, so that each access log record can hold the set that was in force when it was made.
    #[must_use]
    pub fn query_parameters_to_mask(&self) -> &Arc<BTreeSet<String>> {
        &self.query_parameters
    }

    /// Names, in lower case, of headers that carry credentials: never shown in any log.
    #[must_use]
    pub fn headers_to_mask(&self) -> &BTreeSet<String> {
        &self.header_names
    }
}

/// What is wrong with a definition that a server can tell before it has any secret: authorities, keys and
/// lists that cannot be read. Files are not looked at.
#[must_use]
pub fn faults_of(name: &DefinitionName, definition: &SecurityDefinition) -> Vec<Fault> {
    let Some(material) = Material::of_text(definition) else { return Vec::new() };
    let outcome = match definition {
        SecurityDefinition::ClientCertificate(body) => {
            let principal = Principal::new(name.to_shared(), definition.type_name());
            ClientCertificateCheck::new(body, &material, principal).map(drop)
        }
        SecurityDefinition::Jwt(body) => jwt::check_public_keys(body, &material),
        _ => Ok(()),
    };
    match outcome {
        Err(CredentialError::Field { field, detail }) => vec![Fault { pointer: format!("/{field}"), detail }],
        Err(CredentialError::Tls { field, source }) => {
            vec![Fault { pointer: format!("/{field}"), detail: source.to_string() }]
        }
        Err(CredentialError::Secret(_)) | Ok(()) => Vec::new(),
    }
}

fn definitions(snapshot: &Snapshot) -> impl Iterator<Item = (&DefinitionName, &SecurityDefinition)> {
    snapshot.definitions.iter().filter_map(|(id, body)| match (id, body) {
        (DefinitionId { kind: DefinitionKind::Security, name }, DefinitionBody::Security(definition)) => {
            Some((name, definition))
        }
        _ => None,
    })
}

/// Whether requests are checked against a definition itself.
fn is_checked_itself(definition: &SecurityDefinition) -> bool {
    !matches!(
        definition,
        SecurityDefinition::Group(_)
            | SecurityDefinition::Bearer(_)
            | SecurityDefinition::Oauth2ClientCredentials(_)
    )
}

/// The registry of security types.
fn compile(material: &Material, workshop: &Workshop<'_>) -> Result<Check, CredentialError> {
    let definition = material.definition();
    let principal = || Principal::new(workshop.name.to_shared(), definition.type_name());
    Ok(match definition {
        SecurityDefinition::BasicAuth(body) => {
            let password = material.secret("password")?;
            let principal = principal().named(body.username.as_str());
            Check::Basic(BasicCheck::new(body, password, Arc::new(principal)))
        }
        SecurityDefinition::ApiKey(body) => {
            Check::ApiKey(ApiKeyCheck::new(body, material.secret("key")?, Arc::new(principal())))
        }
        SecurityDefinition::ClientCertificate(body) => {
            Check::ClientCertificate(Box::new(ClientCertificateCheck::new(body, material, principal())?))
        }
        SecurityDefinition::Jwt(body) => {
            Check::Jwt(Box::new(JwtCheck::new(body, material, principal(), workshop)?))
        }
        SecurityDefinition::Oauth2Introspection(body) => {
            let check = IntrospectionCheck::new(body, material, principal(), workshop)?;
            Check::Introspection(Box::new(check))
        }
        SecurityDefinition::WssUsernameToken(body) => {
            let principal = Arc::new(principal().named(body.username.as_str()));
            let nonces = Arc::clone(workshop.nonces);
            Check::Wss(Box::new(WssCheck::new(body, material.secret("password")?, principal, nonces)))
        }
        SecurityDefinition::Group(_)
        | SecurityDefinition::Bearer(_)
        | SecurityDefinition::Oauth2ClientCredentials(_) => Check::Unavailable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_key::ClusterKey;
    use crosstie_model::inquiry::NoInquiries;
    use crosstie_model::refusal::RefusalReason;
    use crosstie_model::{Definition, FailureKind};
    use http::HeaderMap;
    use serde_json::json;
    use std::path::PathBuf;

    fn snapshot(bodies: &[(&str, serde_json::Value)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, body) in bodies {
            let id =
                DefinitionId { kind: DefinitionKind::Security, name: DefinitionName::new(name).unwrap() };
            let definition = Definition::from_value(id, body.clone()).unwrap();
            snapshot.definitions.insert(definition.id, definition.body);
        }
        snapshot
    }

    fn source() -> CredentialSource {
        let key = Arc::new(ClusterKey::generate().unwrap());
        let resolver = SecretResolver::new(key, PathBuf::from("/nowhere"));
        CredentialSource::new(resolver, Arc::new(NoInquiries))
    }

    async fn ask(
        all: &Authenticators,
        name: &str,
        query: &[(String, String)],
    ) -> Result<Arc<Principal>, Box<Refusal>> {
        let authenticator = all.find(&DefinitionName::new(name).unwrap()).unwrap();
        authenticator.authenticate(&Presented::now(&HeaderMap::new(), query)).await
    }

    #[tokio::test]
    async fn a_definition_without_its_secret_lets_nobody_in_and_harms_no_other() {
        let snapshot = snapshot(&[
            ("good", json!({"type": "api_key", "in": "query", "name": "key", "key": "env:PATH"})),
            ("bad", json!({"type": "api_key", "name": "X-Bad", "key": "env:CROSSTIE_NOT_SET_ANYWHERE"})),
        ]);
        let faults = Authenticators::build(&snapshot, &source()).unwrap_err();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].to_string().contains("bad") && faults[0].to_string().contains("NOT_SET"));

        let (all, faults) = Authenticators::build_available(&snapshot, &source());
        assert_eq!(faults.len(), 1);
        let refused = ask(&all, "bad", &[]).await.unwrap_err();
        assert_eq!((refused.failure.kind, refused.failure.challenges), (FailureKind::Unavailable, vec![]));
        assert_eq!(refused.credentials.reason, RefusalReason::Unavailable);
        let key = std::env::var("PATH").unwrap();
        assert!(ask(&all, "good", &[("key".into(), key)]).await.is_ok());
    }

    #[test]
    fn what_only_outgoings_present_is_no_authenticator_and_needs_no_secret_here() {
        let token = json!({"type": "bearer", "token": "env:CROSSTIE_NOT_SET_ANYWHERE"});
        let all = Authenticators::build(&snapshot(&[("token", token)]), &source()).unwrap();
        assert!(all.find(&DefinitionName::new("token").unwrap()).is_none());
    }

    #[tokio::test]
    async fn a_group_lets_in_whom_a_member_does_and_names_all_challenges() {
        let key = |name: &str, key: &str| json!({"type": "api_key", "in": "query", "name": name, "key": key});
        let snapshot = snapshot(&[
            ("a", key("a", "env:PATH")),
            ("b", key("b", "env:PATH")),
            ("broken", key("c", "env:CROSSTIE_NOT_SET_ANYWHERE")),
            ("both", json!({"type": "group", "any_of": ["b", "a"]})),
            ("with_broken", json!({"type": "group", "any_of": ["broken", "a"]})),
            ("nested", json!({"type": "group", "any_of": ["both"]})),
        ]);
        let (all, _) = Authenticators::build_available(&snapshot, &source());
        let path = std::env::var("PATH").unwrap();
        let query = |name: &str| [(name.to_owned(), path.clone())];
        for name in ["a", "b"] {
            let principal = ask(&all, "both", &query(name)).await.unwrap();
            assert_eq!((&*principal.definition, principal.kind), (name, "api_key"));
        }
        let refused = ask(&all, "both", &[]).await.unwrap_err();
        assert_eq!(refused.failure.kind, FailureKind::Unauthorized);
        let names: Vec<_> =
            refused.failure.challenges.iter().map(|text| text.rsplit('=').next().unwrap()).collect();
        assert_eq!(names, ["\"b\"", "\"a\""]);
        assert_eq!((&*refused.credentials.definition, refused.credentials.kind), ("both", "group"));
        let refused = ask(&all, "both", &[("a".into(), "wrong".into())]).await.unwrap_err();
        let told = (&*refused.credentials.definition, refused.credentials.reason);
        assert_eq!((told, refused.failure.challenges.len()), (("a", RefusalReason::Wrong), 2));

        assert!(ask(&all, "with_broken", &query("a")).await.is_ok());
        let refused = ask(&all, "with_broken", &[]).await.unwrap_err();
        assert_eq!(refused.failure.kind, FailureKind::Unavailable);
        let refused = ask(&all, "nested", &query("a")).await.unwrap_err();
        assert_eq!(refused.failure.kind, FailureKind::Unavailable, "a group in a group lets nobody in");
    }

    #[test]
    fn an_authenticator_outlives_its_snapshot_as_long_as_nothing_of_it_changes() {
        let source = source();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        std::fs::write(&file, "one").unwrap();
        let body = |limit: u32| {
            json!({"type": "api_key", "key": format!("file:{}", file.display()),
                "rate_limit": [{"limit": limit, "per": "minute"}]})
        };
        let find = |limit| {
            let all = Authenticators::build(&snapshot(&[("k", body(limit))]), &source).unwrap();
            all.find(&DefinitionName::new("k").unwrap()).unwrap()
        };
        let first = find(1);
        assert!(Arc::ptr_eq(&first, &find(1)));
        assert!(!Arc::ptr_eq(&first, &find(2)), "its definition changed");
        let second = find(2);
        std::fs::write(&file, "two").unwrap();
        assert!(!Arc::ptr_eq(&second, &find(2)), "its secret changed");
        let third = find(2);
        Authenticators::build(&Snapshot::default(), &source).unwrap();
        assert!(!Arc::ptr_eq(&third, &find(2)), "it was gone");
    }

    #[test]
    fn what_carries_keys_is_named_for_masking() {
        let snapshot = snapshot(&[
            ("a", json!({"type": "api_key", "in": "query", "name": "apikey", "key": "env:PATH"})),
            ("b", json!({"type": "api_key", "name": "X-Key", "key": "env:CROSSTIE_NOT_SET_ANYWHERE"})),
        ]);
        let (all, _) = Authenticators::build_available(&snapshot, &source());
        assert!(all.query_parameters_to_mask().iter().eq(["apikey"]));
        assert!(all.headers_to_mask().iter().eq(["authorization", "x-key"]));
    }
}
