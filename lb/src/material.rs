//! Certificates and keys as HAProxy reads them: copies in `work/tls` whose names are their content's digest.
//!
//! HAProxy wants chain and key in one file. A new certificate makes a new file, so the configuration that
//! names it differs, and the one HAProxy runs with can always be loaded again. Keys are 0600 and owned by the
//! agent's user; HAProxy reads them before it gives up root.

use std::path::{Path, PathBuf};

use crosstie_security::private_file::{
    PrivateFileError, create_private_directory, read_private, read_public, write_private,
};
use sha2::{Digest as _, Sha256};

use crate::settings::LbSettings;

/// Where the copies are, relative to the load balancer's directory.
const DIRECTORY: &str = "work/tls";
/// Digits of a digest that a name carries: 64 bits, as nobody attacks their own certificates.
const DIGITS: usize = 16;

/// The files a configuration names, relative to the load balancer's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// The cluster's CA certificate.
    pub ca: PathBuf,
    /// The load balancer's chain and key, shown to servers.
    pub own: PathBuf,
    /// The chain and key shown to clients.
    pub front: PathBuf,
    /// The authorities of clients' certificates, if clients are asked for one.
    pub client_ca: Option<PathBuf>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The directory of the copies cannot be made.
    #[error("cannot make {DIRECTORY}: {0}")]
    Directory(#[source] std::io::Error),
}

impl Material {
    /// Copies what `settings` name, as far as it changed, below `directory`.
    ///
    /// # Errors
    /// A file cannot be read or written; what was copied before stays.
    pub fn collect(directory: &Path, settings: &LbSettings) -> Result<Self, MaterialError> {
        create_private_directory(&directory.join(DIRECTORY)).map_err(MaterialError::Directory)?;
        let security = &settings.security;
        let own = pair(directory, &security.certificate, &security.key)?;
        let front = match (&settings.https.certificate, &settings.https.key) {
            (Some(certificate), Some(key)) => pair(directory, certificate, key)?,
            _ => own.clone(),
        };
        let public = |path: &PathBuf| -> Result<PathBuf, MaterialError> {
            keep(directory, "ca", &read_public(&directory.join(path))?)
        };
        let client_ca = settings.https.client_ca.as_ref().map(public).transpose()?;
        Ok(Self { ca: public(&security.ca)?, own, front, client_ca })
    }

    /// Removes copies that neither this material, nor `other`, nor `configuration`, the one HAProxy may load
    /// again, names.
    pub fn forget_others(&self, other: Option<&Self>, directory: &Path, configuration: &str) {
        let Ok(entries) = std::fs::read_dir(directory.join(DIRECTORY)) else { return };
        let files = |it: &Self| {
            [Some(it.ca.clone()), Some(it.own.clone()), Some(it.front.clone()), it.client_ca.clone()]
        };
        let own: Vec<_> = std::iter::once(self).chain(other).flat_map(files).flatten().collect();
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let relative = Path::new(DIRECTORY).join(&name);
            if !own.contains(&relative) && !configuration.contains(&name) {
                // Left behind it only takes room; the next round tries again.
                let _ = std::fs::remove_file(directory.join(relative));
            }
        }
    }
}

fn pair(directory: &Path, certificate: &Path, key: &Path) -> Result<PathBuf, MaterialError> {
    let mut content = read_public(&directory.join(certificate))?;
    let key = read_private(&directory.join(key))?;
    content.push(b'\n');
    content.extend_from_slice(key.expose());
    let kept = keep(directory, "pair", &content);
    content.fill(0);
    std::hint::black_box(&content);
    kept
}

fn keep(directory: &Path, kind: &str, content: &[u8]) -> Result<PathBuf, MaterialError> {
    let mut name = format!("{kind}-{}", hex::encode(Sha256::digest(content)));
    name.truncate(kind.len() + 1 + DIGITS);
    let relative = Path::new(DIRECTORY).join(name + ".pem");
    let path = directory.join(&relative);
    if !read_public(&path).is_ok_and(|known| known == content) {
        write_private(&path, content)?;
    }
    Ok(relative)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::UnitName;
    use std::os::unix::fs::PermissionsExt as _;

    fn settings() -> LbSettings {
        let address = "127.0.0.1:1".parse().unwrap();
        LbSettings::new(UnitName::new("lb").unwrap(), address, vec![address])
    }

    #[test]
    fn a_replaced_certificate_gets_another_name_and_the_old_one_stays_as_long_as_it_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let tls = directory.path().join("tls");
        std::fs::create_dir(&tls).unwrap();
        for (name, content) in [("ca.pem", "ca"), ("lb.pem", "chain"), ("lb.key", "key")] {
            write_private(&tls.join(name), content.as_bytes()).unwrap();
        }
        let first = Material::collect(directory.path(), &settings()).unwrap();
        assert_eq!(first, Material::collect(directory.path(), &settings()).unwrap());
        let copy = directory.path().join(&first.own);
        assert_eq!(std::fs::read(&copy).unwrap(), b"chain\nkey");
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);

        write_private(&tls.join("lb.pem"), b"renewed").unwrap();
        let second = Material::collect(directory.path(), &settings()).unwrap();
        assert_ne!(first.own, second.own);
        assert_eq!(first.ca, second.ca);
        second.forget_others(None, directory.path(), &format!("crt {}", first.own.display()));
        assert!(copy.exists());
        second.forget_others(Some(&first), directory.path(), "");
        assert!(copy.exists());
        second.forget_others(None, directory.path(), "");
        assert!(!copy.exists() && directory.path().join(&second.own).exists());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let tls = directory.path().join("tls");
        std::fs::create_dir(&tls).unwrap();
        for name in ["ca.pem", "lb.pem", "lb.key"] {
            std::fs::write(tls.join(name), name).unwrap();
        }
        std::fs::set_permissions(tls.join("lb.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Material::collect(directory.path(), &settings()).unwrap_err();
        assert!(error.to_string().contains("lb.key"), "{error}");
    }
}
