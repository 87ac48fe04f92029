//! From a reference to a secret's value: sealed in the snapshot, in an environment variable, or in a file.
//!
//! Called when a snapshot is built, off the hot path: it reads files. Errors name the reference, never the
//! value.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crosstie_model::Snapshot;
use crosstie_model::secret::{SecretRef, SecretSource, SecretValue};

use crate::cluster_key::{ClusterKey, ClusterKeyError};
use crate::private_file::{PrivateFileError, read_bounded, read_public};

/// Longest value of a secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// Why a secret has no value here.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The snapshot does not hold it.
    #[error("there is no version {version} of the secret {name}")]
    Unknown {
        /// The secret's name.
        name: String,
        /// The version asked for.
        version: u32,
    },
    /// It does not open.
    #[error(transparent)]
    Sealed(#[from] ClusterKeyError),
    /// The environment variable is not set.
    #[error("the environment variable {0} is not set")]
    Environment(String),
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// There is a value, and it is empty: an empty password would open a door.
    #[error("{0} is empty")]
    Empty(String),
    /// The value is longer than [`MAX_SECRET_BYTES`].
    #[error("{0} has more than {MAX_SECRET_BYTES} bytes")]
    TooLong(String),
    /// A value where a reference belongs: it should have been sealed on its way in.
    #[error("a secret's value stands where a reference belongs; apply the definition again")]
    NotAReference,
}

/// Finds the values of secrets on one server.
#[derive(Debug, Clone)]
pub struct SecretResolver {
    cluster_key: Arc<ClusterKey>,
    directory: PathBuf,
}

impl SecretResolver {
    /// Opens stored secrets with `cluster_key`; relative paths of `file:` references are below `directory`,
    /// the server's own.
    #[must_use]
    pub fn new(cluster_key: Arc<ClusterKey>, directory: PathBuf) -> Self {
        Self { cluster_key, directory }
    }

    /// The value `secret` refers to.
    ///
    /// # Errors
    /// Why there is none; the text is fit for a log or a report.
    pub fn resolve(&self, secret: &SecretRef, snapshot: &Snapshot) -> Result<SecretValue, SecretError> {
        let (value, label) = match secret.source() {
            SecretSource::Stored { name, version } => {
                let sealed = snapshot
                    .secrets
                    .get(&(name.to_owned(), version))
                    .ok_or_else(|| SecretError::Unknown { name: name.to_owned(), version })?;
                (self.cluster_key.open(name, version, sealed)?, format!("the secret {name}"))
            }
            SecretSource::Environment(name) => {
                (from_environment(name)?, format!("the environment variable {name}"))
            }
            SecretSource::File(path) => (self.read_file(path)?, format!("the file {path}")),
            SecretSource::Plain(_) => return Err(SecretError::NotAReference),
        };
        match value.expose().len() {
            0 => Err(SecretError::Empty(label)),
            length if length > MAX_SECRET_BYTES => Err(SecretError::TooLong(label)),
            _ => Ok(value),
        }
    }

    /// The value of an `env:NAME` or `file:PATH` text that is not part of a definition, such as
    /// `[odb] password`.
    ///
    /// # Errors
    /// As for [`SecretResolver::resolve`].
    pub fn resolve_setting(&self, reference: &str) -> Result<SecretValue, SecretError> {
        self.resolve(&SecretRef::Text(reference.to_owned()), &Snapshot::default())
    }

    /// The content of a file that is no secret, such as certificates; relative paths are below the server's
    /// directory.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_public(&self, path: &str) -> Result<Vec<u8>, SecretError> {
        Ok(read_public(&self.directory.join(Path::new(path)))?)
    }

    fn read_file(&self, path: &str) -> Result<SecretValue, SecretError> {
        let (content, _) = read_bounded(&self.directory.join(Path::new(path)))?;
        Ok(SecretValue::new(content.expose().trim_ascii()))
    }
}

fn from_environment(name: &str) -> Result<SecretValue, SecretError> {
    let unset = || SecretError::Environment(name.to_owned());
    // The standard library panics on these names in some versions and never finds them in others.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(unset());
    }
    let value = std::env::var_os(OsStr::new(name)).ok_or_else(unset)?;
    Ok(SecretValue::new(value.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(directory: &Path) -> SecretResolver {
        SecretResolver::new(Arc::new(ClusterKey::generate().unwrap()), directory.to_owned())
    }

    fn text(reference: &str) -> SecretRef {
        SecretRef::Text(reference.to_owned())
    }

    #[test]
    fn a_stored_secret_is_found_by_name_and_version() {
        let resolver = resolver(Path::new("/nowhere"));
        let value = SecretValue::new(b"pw".as_slice());
        let mut snapshot = Snapshot::default();
        let sealed = resolver.cluster_key.seal("security/a/password", 2, &value).unwrap();
        snapshot.secrets.insert(("security/a/password".into(), 2), sealed.clone());
        // Somebody put version 2 in the place of version 3.
        snapshot.secrets.insert(("security/a/password".into(), 3), sealed);
        let stored = |version| SecretRef::Stored { r#ref: "security/a/password".into(), version };
        assert_eq!(resolver.resolve(&stored(2), &snapshot).unwrap(), value);
        assert!(matches!(resolver.resolve(&stored(1), &snapshot), Err(SecretError::Unknown { .. })));
        assert!(matches!(resolver.resolve(&stored(3), &snapshot), Err(SecretError::Sealed(_))));
    }

    #[test]
    fn a_file_is_read_without_its_surrounding_white_space() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("pw"), "\n two words \n").unwrap();
        std::fs::write(directory.path().join("empty"), "\n").unwrap();
        let resolver = resolver(directory.path());
        assert_eq!(resolver.resolve_setting("file:pw").unwrap().expose(), b"two words");
        let absolute = format!("file:{}", directory.path().join("pw").display());
        assert!(resolver.resolve_setting(&absolute).is_ok());
        assert!(matches!(resolver.resolve_setting("file:empty"), Err(SecretError::Empty(_))));
        assert!(matches!(resolver.resolve_setting("file:absent"), Err(SecretError::File(_))));
        assert!(matches!(resolver.resolve_setting("file:."), Err(SecretError::File(_))));
    }

    #[test]
    fn an_environment_variable_must_be_set() {
        let resolver = resolver(Path::new("/nowhere"));
        assert!(resolver.resolve_setting("env:PATH").is_ok());
        for name in ["env:CROSSTIE_NOT_SET_ANYWHERE", "env:", "env:A=B"] {
            assert!(matches!(resolver.resolve_setting(name), Err(SecretError::Environment(_))), "{name}");
        }
    }

    #[test]
    fn no_error_repeats_a_value() {
        let resolver = resolver(Path::new("/nowhere"));
        let error = resolver.resolve(&text("hunter2"), &Snapshot::default()).unwrap_err();
        assert!(matches!(error, SecretError::NotAReference) && !error.to_string().contains("hunter2"));
    }
}
