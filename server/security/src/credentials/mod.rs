//! Authenticators: what security definitions demand of a request, compiled from one snapshot.
//!
//! Built when a snapshot is built; secrets are resolved then, so a request costs no I/O and no lock: two or
//! three SHA-256 of short texts, well under a microsecond, and one `Arc` clone for the principal. Comparison
//! takes the same time whichever user name or key is wrong.
//!
//! A security type is one file beside this one plus one line in `compile`.

mod api_key;
mod authenticator;
mod basic;
mod comparison;
mod denial;
mod presented;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crosstie_model::Snapshot;
use crosstie_model::definition::{
    DefinitionBody, DefinitionId, DefinitionKind, DefinitionName, SecurityDefinition,
};
use crosstie_model::message::Principal;
use crosstie_model::secret::{SecretRef, SecretValue};

use crate::secret::{SecretError, SecretResolver};
use api_key::ApiKeyCheck;
pub use authenticator::Authenticator;
use authenticator::Check;
use basic::BasicCheck;
pub use denial::Refusal;
pub use presented::{Presented, ShownCertificate};

/// A security definition that cannot be enforced because a secret of it has no value on this server.
#[derive(Debug, thiserror::Error)]
#[error("security definition {name}: {source}")]
pub struct CredentialFault {
    /// The definition.
    pub name: DefinitionName,
    /// What is wrong with its secret.
    #[source]
    pub source: SecretError,
}

/// All security definitions of a snapshot, ready to check requests.
#[derive(Debug, Default)]
pub struct Authenticators {
    by_name: HashMap<DefinitionName, Arc<Authenticator>>,
    query_parameters: Arc<BTreeSet<String>>,
    header_names: BTreeSet<String>,
}

impl Authenticators {
    /// Compiles every security definition of `snapshot`.
    ///
    /// # Errors
    /// Every definition that cannot be enforced. A snapshot that yields this should not replace one that
    /// serves.
    pub fn build(snapshot: &Snapshot, resolver: &SecretResolver) -> Result<Self, Vec<CredentialFault>> {
        let (authenticators, faults) = Self::build_available(snapshot, resolver);
        if faults.is_empty() { Ok(authenticators) } else { Err(faults) }
    }

    /// As [`Authenticators::build`] for a start, when there is nothing older to go on serving: definitions
    /// that cannot be enforced refuse every request with 503, the others work.
    #[must_use]
    pub fn build_available(snapshot: &Snapshot, resolver: &SecretResolver) -> (Self, Vec<CredentialFault>) {
        let (mut all, mut faults) = (Self::default(), Vec::new());
        let (mut query_parameters, mut header_names) = (BTreeSet::new(), BTreeSet::new());
        header_names.insert("authorization".to_owned());
        for (id, body) in &snapshot.definitions {
            let (DefinitionId { kind: DefinitionKind::Security, name }, DefinitionBody::Security(security)) =
                (id, body)
            else {
                continue;
            };
            // Masked even when the key itself is missing: callers send it all the same.
            if let SecurityDefinition::ApiKey(body) = security {
                let (names, label) = match body.r#in {
                    crosstie_model::definition::ApiKeyLocation::Query => {
                        (&mut query_parameters, body.name.clone())
                    }
                    crosstie_model::definition::ApiKeyLocation::Header => {
                        (&mut header_names, body.name.to_ascii_lowercase())
                    }
                };
                names.insert(label);
            }
            let check = compile(name, security, &|secret| resolver.resolve(secret, snapshot));
            let check = check.unwrap_or_else(|source| {
                faults.push(CredentialFault { name: name.clone(), source });
                Check::Unavailable
            });
            let authenticator = Authenticator::new(name.to_shared(), security.type_name(), check);
            all.by_name.insert(name.clone(), Arc::new(authenticator));
        }
        all.query_parameters = Arc::new(query_parameters);
        all.header_names = header_names;
        (all, faults)
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

/// The registry of security types.
fn compile(
    name: &DefinitionName,
    security: &SecurityDefinition,
    resolve: &dyn Fn(&SecretRef) -> Result<SecretValue, SecretError>,
) -> Result<Check, SecretError> {
    let principal = || Principal::new(name.to_shared(), security.type_name());
    Ok(match security {
        SecurityDefinition::BasicAuth(body) => {
            let password = resolve(&body.password)?;
            let principal = principal().named(body.username.as_str());
            Check::Basic(BasicCheck::new(body, &password, Arc::new(principal)))
        }
        SecurityDefinition::ApiKey(body) => {
            let key = resolve(&body.key)?;
            Check::ApiKey(ApiKeyCheck::new(body, &key, Arc::new(principal())))
        }
        // Outgoings alone present these; no channel that names one opens.
        SecurityDefinition::Bearer(_) | SecurityDefinition::Oauth2ClientCredentials(_) => Check::Unavailable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_key::ClusterKey;
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

    fn resolver() -> SecretResolver {
        SecretResolver::new(Arc::new(ClusterKey::generate().unwrap()), PathBuf::from("/nowhere"))
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
        let faults = Authenticators::build(&snapshot, &resolver()).unwrap_err();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].to_string().contains("bad") && faults[0].to_string().contains("NOT_SET"));

        let (all, faults) = Authenticators::build_available(&snapshot, &resolver());
        assert_eq!(faults.len(), 1);
        let refused = ask(&all, "bad", &[]).await.unwrap_err();
        assert_eq!((refused.failure.kind, refused.failure.challenges), (FailureKind::Unavailable, vec![]));
        assert_eq!(refused.credentials.reason, RefusalReason::Unavailable);
        let key = std::env::var("PATH").unwrap();
        assert!(ask(&all, "good", &[("key".into(), key)]).await.is_ok());
    }

    #[tokio::test]
    async fn what_only_outgoings_present_lets_nobody_in_and_needs_no_secret_here() {
        let token = json!({"type": "bearer", "token": "env:CROSSTIE_NOT_SET_ANYWHERE"});
        let all = Authenticators::build(&snapshot(&[("token", token)]), &resolver()).unwrap();
        let refused = ask(&all, "token", &[]).await.unwrap_err();
        assert_eq!(refused.failure.kind, FailureKind::Unavailable);
    }

    #[test]
    fn what_carries_keys_is_named_for_masking() {
        let snapshot = snapshot(&[
            ("a", json!({"type": "api_key", "in": "query", "name": "apikey", "key": "env:PATH"})),
            ("b", json!({"type": "api_key", "name": "X-Key", "key": "env:CROSSTIE_NOT_SET_ANYWHERE"})),
        ]);
        let (all, _) = Authenticators::build_available(&snapshot, &resolver());
        assert!(all.query_parameters_to_mask().iter().eq(["apikey"]));
        assert!(all.headers_to_mask().iter().eq(["authorization", "x-key"]));
    }
}
