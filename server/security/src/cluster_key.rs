//! The cluster key: what seals secrets at rest in the ODB and in the snapshot kept on disk.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha): the 192-bit nonce may be random for every sealing without
//! counting them. What a sealed value is for, its name and its version are authenticated with it, so that
//! whoever can write to the ODB cannot put one secret in another's place or bring an old one back.
//!
//! Sealed form, pinned by a test: one byte of format (1), 24 bytes nonce, ciphertext, 16 bytes tag.
//! Sealing or opening a password costs about a microsecond.

use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use crosstie_model::secret::SecretValue;

use crate::private_file::{PrivateFileError, read_private, write_private};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const FORMAT: u8 = 1;
/// First line of a key file, so that a wrong file is named as such and not taken for a wrong key.
const FILE_HEADER: &str = "crosstie cluster key 1";

/// The key that all servers of a cluster share. Never printed; overwritten when dropped.
#[derive(Clone)]
pub struct ClusterKey(SecretValue);

/// Why the cluster key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterKeyError {
    /// The kernel gave no random bytes.
    #[error("no random bytes for a key: {0}")]
    Random(#[source] getrandom::Error),
    /// The key file could not be read or written.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The file holds no cluster key.
    #[error("{0} does not hold a cluster key")]
    NotAKey(std::path::PathBuf),
    /// The plain text is longer than the cipher takes.
    #[error("a secret of this size cannot be sealed")]
    Seal,
    /// Sealed with another key, for another name or version, or changed.
    #[error("{name} version {version} cannot be opened with this cluster key")]
    Open {
        /// The secret's name.
        name: String,
        /// Its version.
        version: u32,
    },
}

/// What a sealed value is for; one cannot be opened as the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A secret of a definition.
    Secret,
    /// The private key of the certificate authority.
    AuthorityKey,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Secret => b"crosstie secret",
            Self::AuthorityKey => b"crosstie ca key",
        }
    }
}

impl ClusterKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`ClusterKeyError::Random`].
    pub fn generate() -> Result<Self, ClusterKeyError> {
        let mut key = Box::new([0u8; KEY_BYTES]);
        getrandom::fill(key.as_mut_slice()).map_err(ClusterKeyError::Random)?;
        Ok(Self(SecretValue::new(key as Box<[u8]>)))
    }

    /// Reads the key from `path`.
    ///
    /// # Errors
    /// The file cannot be read, others could read it too, or it holds no cluster key.
    pub fn load(path: &Path) -> Result<Self, ClusterKeyError> {
        Self::import(&read_private(path)?).ok_or_else(|| ClusterKeyError::NotAKey(path.to_owned()))
    }

    /// The key in the text of a key file; `None` when it holds none.
    #[must_use]
    pub fn import(text: &SecretValue) -> Option<Self> {
        let text = std::str::from_utf8(text.expose()).ok()?;
        let digits = text.strip_prefix(FILE_HEADER)?.trim();
        let mut key = Box::new([0u8; KEY_BYTES]);
        hex::decode_to_slice(digits, key.as_mut_slice()).ok()?;
        Some(Self(SecretValue::new(key as Box<[u8]>)))
    }

    /// The text of a key file, for a server that joins.
    #[must_use]
    pub fn export(&self) -> SecretValue {
        let digits = SecretValue::new(hex::encode(self.0.expose()).into_bytes());
        let mut text = Vec::with_capacity(FILE_HEADER.len() + 2 * KEY_BYTES + 2);
        text.extend_from_slice(FILE_HEADER.as_bytes());
        text.push(b'\n');
        text.extend_from_slice(digits.expose());
        text.push(b'\n');
        SecretValue::new(text)
    }

    /// Writes the key to `path` (0600, atomically).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ClusterKeyError> {
        Ok(write_private(path, self.export().expose())?)
    }

    /// Seals version `version` of the secret `name`.
    ///
    /// # Errors
    /// No random bytes, or a value beyond the cipher's 256 GiB.
    pub fn seal(&self, name: &str, version: u32, value: &SecretValue) -> Result<Vec<u8>, ClusterKeyError> {
        self.seal_for(Purpose::Secret, name, version, value)
    }

    /// Opens what [`ClusterKey::seal`] made for the same name and version.
    ///
    /// # Errors
    /// [`ClusterKeyError::Open`] for anything else.
    pub fn open(&self, name: &str, version: u32, sealed: &[u8]) -> Result<SecretValue, ClusterKeyError> {
        self.open_for(Purpose::Secret, name, version, sealed)
    }

    pub(crate) fn seal_for(
        &self,
        purpose: Purpose,
        name: &str,
        version: u32,
        value: &SecretValue,
    ) -> Result<Vec<u8>, ClusterKeyError> {
        let mut nonce = [0u8; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(ClusterKeyError::Random)?;
        let aad = associated_data(purpose, name, version);
        let payload = Payload { msg: value.expose(), aad: &aad };
        let cipher = self.cipher().ok_or(ClusterKeyError::Seal)?;
        let text = cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| ClusterKeyError::Seal)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + text.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    pub(crate) fn open_for(
        &self,
        purpose: Purpose,
        name: &str,
        version: u32,
        sealed: &[u8],
    ) -> Result<SecretValue, ClusterKeyError> {
        self.decrypt(purpose, name, version, sealed)
            .ok_or_else(|| ClusterKeyError::Open { name: name.to_owned(), version })
    }

    fn decrypt(&self, purpose: Purpose, name: &str, version: u32, sealed: &[u8]) -> Option<SecretValue> {
        let (format, rest) = sealed.split_first()?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_BYTES>()?;
        if *format != FORMAT {
            return None;
        }
        let aad = associated_data(purpose, name, version);
        let payload = Payload { msg: text, aad: &aad };
        self.cipher()?.decrypt(&XNonce::from(*nonce), payload).ok().map(SecretValue::new)
    }

    fn cipher(&self) -> Option<XChaCha20Poly1305> {
        XChaCha20Poly1305::new_from_slice(self.0.expose()).ok()
    }
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

/// Unambiguous: the label has a fixed length per purpose and the version a fixed width, so no two triples
/// make the same bytes.
fn associated_data(purpose: Purpose, name: &str, version: u32) -> Vec<u8> {
    let mut data = Vec::with_capacity(purpose.label().len() + 5 + name.len());
    data.extend_from_slice(purpose.label());
    data.push(0);
    data.extend_from_slice(&version.to_be_bytes());
    data.extend_from_slice(name.as_bytes());
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes())
    }

    #[test]
    fn a_sealed_secret_opens_for_its_name_and_version_alone() {
        let key = ClusterKey::generate().unwrap();
        let sealed = key.seal("security/crm/password", 3, &secret("s3cret")).unwrap();
        assert_eq!(key.open("security/crm/password", 3, &sealed).unwrap(), secret("s3cret"));
        assert!(key.open("security/crm/password", 2, &sealed).is_err());
        assert!(key.open("security/crm/passwor", 3, &sealed).is_err());
        assert!(key.open_for(Purpose::AuthorityKey, "security/crm/password", 3, &sealed).is_err());
        assert!(ClusterKey::generate().unwrap().open("security/crm/password", 3, &sealed).is_err());
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let key = ClusterKey::generate().unwrap();
        let sealed = key.seal("a", 1, &secret("value")).unwrap();
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(key.open("a", 1, &changed).is_err(), "byte {index}");
            assert!(key.open("a", 1, &sealed[..index]).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn two_sealings_of_one_value_differ() {
        let key = ClusterKey::generate().unwrap();
        assert_ne!(key.seal("a", 1, &secret("v")).unwrap(), key.seal("a", 1, &secret("v")).unwrap());
    }

    #[test]
    fn a_key_survives_its_file_and_a_wrong_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.key");
        let key = ClusterKey::generate().unwrap();
        key.save(&path).unwrap();
        let sealed = key.seal("a", 1, &secret("v")).unwrap();
        assert_eq!(ClusterKey::load(&path).unwrap().open("a", 1, &sealed).unwrap(), secret("v"));
        write_private(&path, b"-----BEGIN PRIVATE KEY-----").unwrap();
        assert!(ClusterKey::load(&path).unwrap_err().to_string().contains("does not hold a cluster key"));
        assert_eq!(format!("{key:?}"), "ClusterKey(…)");
    }

    /// Bytes sealed by the first release must open in every later one.
    #[test]
    fn the_sealed_form_is_pinned() {
        let key = ClusterKey(SecretValue::new([7u8; KEY_BYTES].as_slice()));
        let sealed = hex::decode(include_str!("../tests/data/sealed-v1.hex").trim()).unwrap();
        assert_eq!(key.open("security/demo/password", 2, &sealed).unwrap(), secret("correct horse"));
    }

    proptest! {
        #[test]
        fn whatever_is_sealed_opens_again(name in ".{0,40}", version: u32, value: Vec<u8>) {
            let key = ClusterKey::generate().unwrap();
            let value = SecretValue::new(value);
            let sealed = key.seal(&name, version, &value).unwrap();
            prop_assert_eq!(key.open(&name, version, &sealed).unwrap(), value);
        }

        #[test]
        fn arbitrary_bytes_never_open(sealed: Vec<u8>) {
            prop_assert!(ClusterKey::generate().unwrap().open("a", 1, &sealed).is_err());
        }
    }
}
