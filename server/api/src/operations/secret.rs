//! Secrets on their way in: values are sealed, left-out ones keep what there is, references are checked.
//! After this nothing in a definition is a value any more.

use crosstie_model::secret::{SecretRef, SecretSource, SecretValue};
use crosstie_model::{Definition, Snapshot};

use super::draft::Draft;
use super::{OperationError, Operations};

/// Longest secret that is taken in, in bytes; what a resolver would refuse to give out.
const MAX_SECRET_BYTES: usize = 64 * 1024;

/// What is wrong with one secret of a definition: its field's pointer and a text that never quotes it.
pub(super) type SecretFault = (String, String);

impl Operations {
    /// Makes references of all secrets of `definition`, storing new values through `draft`. Gives what is
    /// wrong with them; when there is anything, the draft must not be stored.
    pub(super) async fn take_in_secrets(
        &self,
        definition: &mut Definition,
        now: &Snapshot,
        draft: &mut Draft,
    ) -> Result<Vec<SecretFault>, OperationError> {
        let id = definition.id.clone();
        let known = now.definitions.get(&id).map(|body| Definition { id: id.clone(), body: body.clone() });
        let mut faults = Vec::new();
        for (field, secret) in definition.secrets_mut() {
            let present = known.as_ref().and_then(|known| secret_of(known, field));
            let taken = match secret.source() {
                SecretSource::Environment(_) | SecretSource::File(_) => Ok(None),
                SecretSource::Stored { name, version } => self.known_reference(name, version, now).await?,
                SecretSource::Plain("") => present
                    .map(Some)
                    .ok_or_else(|| "needs a value: there is none yet that could be kept".to_owned()),
                SecretSource::Plain(text) => {
                    let value = SecretValue::new(text.as_bytes());
                    self.seal(&format!("{id}/{field}"), &value, present.as_ref(), now, draft).await?
                }
            };
            match taken {
                Ok(Some(reference)) => *secret = reference,
                Ok(None) => {}
                Err(detail) => faults.push((format!("/{field}"), detail)),
            }
        }
        Ok(faults)
    }

    async fn known_reference(
        &self,
        name: &str,
        version: u32,
        now: &Snapshot,
    ) -> Result<Result<Option<SecretRef>, String>, OperationError> {
        let known = now.secrets.contains_key(&(name.to_owned(), version))
            || self.odb().secret(name, version).await?.is_some();
        Ok(if known { Ok(None) } else { Err(format!("there is no secret {name} version {version}")) })
    }

    /// Seals `value` as the next version of the secret `name`, unless it is the present one again: applying
    /// the same document twice makes one revision.
    async fn seal(
        &self,
        name: &str,
        value: &SecretValue,
        present: Option<&SecretRef>,
        now: &Snapshot,
        draft: &mut Draft,
    ) -> Result<Result<Option<SecretRef>, String>, OperationError> {
        if value.expose().len() > MAX_SECRET_BYTES {
            return Ok(Err(format!("may have {MAX_SECRET_BYTES} bytes at most")));
        }
        if let Some(present) = present
            && let SecretSource::Stored { name, version } = present.source()
            && let Some(sealed) = now.secrets.get(&(name.to_owned(), version))
            && self.cluster_key().open(name, version, sealed).is_ok_and(|known| known == *value)
        {
            return Ok(Ok(Some(present.clone())));
        }
        let version = self.odb().next_secret_version(name).await?;
        let sealed = self
            .cluster_key()
            .seal(name, version, value)
            .map_err(|error| OperationError::Secret(Box::new(error)))?;
        draft.put_secret(name.to_owned(), version, sealed);
        Ok(Ok(Some(SecretRef::Stored { r#ref: name.to_owned(), version })))
    }
}

fn secret_of(definition: &Definition, field: &str) -> Option<SecretRef> {
    definition.secrets().into_iter().find(|(known, _)| *known == field).map(|(_, secret)| secret.clone())
}
