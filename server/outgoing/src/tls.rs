//! TLS of connections to external systems.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crosstie_model::definition::ClientTls;
use crosstie_model::secret::SecretValue;
use crosstie_security::tls::{self, ClientIdentity, TlsError};
use rustls::{ClientConfig, RootCertStore};

use crate::blueprint::{Blueprint, OpenError};

/// How TLS to one host is spoken: what `settings` say, on top of the operating system's authorities.
/// `secrets` are those of the definition the settings belong to.
pub(crate) fn config(
    settings: Option<&ClientTls>,
    secrets: &BTreeMap<&'static str, SecretValue>,
    blueprint: &Blueprint,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, OpenError> {
    let roots = match settings.and_then(|settings| settings.ca.as_deref()) {
        Some(ca) => tls::roots(blueprint.text(ca))?,
        None => system_roots()?,
    };
    let certificate = settings.and_then(|settings| settings.certificate.as_deref());
    let identity = match certificate {
        None => None,
        Some(chain) => {
            let key_pem =
                secrets.get("tls/key").ok_or_else(|| OpenError::field("tls/key", "has no value"))?;
            Some(ClientIdentity { chain_pem: blueprint.text(chain), key_pem })
        }
    };
    Ok(tls::client_config(roots, identity.as_ref(), alpn)?)
}

/// The operating system's authorities, read once: parsing them takes milliseconds.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let roots = tls::system_roots()?;
    Ok(Arc::clone(ROOTS.get_or_init(|| roots)))
}
