//! The keys of an issuer, and finding the one that signed a token.

use crosstie_model::definition::JwtAlgorithm;
use crosstie_model::refusal::RefusalReason;
use crosstie_model::secret::SecretValue;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

use super::key::Key;
use super::token::Token;

/// Most keys of a set: a token that names none is tried with each of its algorithm.
const MAX_KEYS: usize = 32;

/// Keys, each with what it verifies.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// Of what they were read, so that a set that was fetched again and is the same is known as such.
    pub(super) digest: [u8; 32],
}

/// Why no key vouches for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// There is no key of the name that the token gives: the issuer may have a new one.
    Unknown,
    /// There is one, and it does not vouch for it.
    Refused(RefusalReason),
}

impl KeySet {
    fn new(mut keys: Vec<Key>, allowed: &[JwtAlgorithm], text: &[u8]) -> Result<Self, String> {
        if !allowed.is_empty() {
            keys.iter_mut().for_each(|key| key.restrict(allowed));
        }
        keys.retain(|key| !key.is_useless());
        match keys.len() {
            0 => Err("there is no key for the algorithms that are accepted".to_owned()),
            count if count > MAX_KEYS => Err(format!("there are {count} keys; {MAX_KEYS} is the most")),
            _ => Ok(Self { keys, digest: Sha256::digest(text).into() }),
        }
    }

    /// Public keys from PEM text, a JWK or a JWKS.
    pub(super) fn of_public_text(text: &[u8], allowed: &[JwtAlgorithm]) -> Result<Self, String> {
        let keys = match serde_json::from_slice::<Value>(text) {
            Ok(json) => jwks(&json)?.into_iter().map(Key::of_jwk).collect::<Result<Vec<_>, _>>()?,
            Err(_) => pem_keys(text)?,
        };
        if keys.iter().any(Key::is_secret) {
            return Err("holds a shared secret, which belongs into the field secret".to_owned());
        }
        Self::new(keys, allowed, text)
    }

    /// Keys that an issuer publishes (RFC 7517, section 5). What is of no use here is left out, as the RFC asks:
    /// keys for encryption, kinds that are not known. Nobody can publish a secret.
    pub(super) fn of_published(text: &[u8], allowed: &[JwtAlgorithm]) -> Result<Self, String> {
        let json: Value = serde_json::from_slice(text).map_err(|error| format!("it is no JSON: {error}"))?;
        let keys = json.get("keys").and_then(Value::as_array).ok_or("it has no keys")?;
        let keys = keys.iter().filter_map(|jwk| Key::of_jwk(jwk).ok()).filter(|key| !key.is_secret());
        Self::new(keys.collect(), allowed, text)
    }

    /// Secrets: one as it is, or a JWK or JWKS of symmetric keys.
    pub(super) fn of_secret(secret: &SecretValue, allowed: &[JwtAlgorithm]) -> Result<Self, String> {
        let json = serde_json::from_slice::<Value>(secret.expose()).ok().filter(Value::is_object);
        let keys = match json {
            None => vec![Key::of_secret(secret.clone())?],
            Some(json) => {
                let keys: Vec<_> = jwks(&json)?.into_iter().map(Key::of_jwk).collect::<Result<_, _>>()?;
                if keys.iter().any(|key| !key.is_secret()) {
                    return Err("holds a public key, which belongs into the field public_keys".to_owned());
                }
                keys
            }
        };
        Self::new(keys, allowed, secret.expose())
    }

    /// Verifies a token's signature: with the key it names or, where it or the keys have no names, with each
    /// one for its algorithm.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), NoKey> {
        let named = |key: &&Key| match (&token.key_id, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        // Where no key has a name, a name says nothing.
        let names = token.key_id.is_some() && self.keys.iter().any(|key| key.id.is_some());
        let (mut is_served, mut is_named) = (false, false);
        for key in self.keys.iter().filter(named) {
            if key.verifies(token.algorithm, token.signed.as_bytes(), &token.signature) {
                return Ok(());
            }
            is_named |= !names || key.id == token.key_id;
            is_served |= key.serves(token.algorithm);
        }
        Err(match (is_named, is_served) {
            (false, _) => NoKey::Unknown,
            (true, true) => NoKey::Refused(RefusalReason::Wrong),
            (true, false) => NoKey::Refused(RefusalReason::Algorithm),
        })
    }
}

/// The keys of a JWKS, or the one JWK.
fn jwks(json: &Value) -> Result<Vec<&Value>, String> {
    match json.get("keys") {
        Some(Value::Array(keys)) => Ok(keys.iter().collect()),
        Some(_) => Err("keys is no list".to_owned()),
        None if json.is_object() => Ok(vec![json]),
        None => Err("is neither a JWK nor a JWKS".to_owned()),
    }
}

fn pem_keys(text: &[u8]) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for block in Pem::iter_from_buffer(text) {
        let block = block.map_err(|_| "is neither PEM nor JSON".to_owned())?;
        let key = match block.label.as_str() {
            "PUBLIC KEY" => Key::of_spki(&block.contents)?,
            "RSA PUBLIC KEY" => Key::of_pkcs1(&block.contents)?,
            "CERTIFICATE" => {
                let certificate = X509Certificate::from_der(&block.contents);
                let (_, certificate) = certificate.map_err(|_| "holds a broken certificate".to_owned())?;
                Key::of_info(certificate.public_key())?
            }
            label if label.contains("PRIVATE") => {
                return Err("holds a private key, which is for nobody but the issuer".to_owned());
            }
            label => return Err(format!("holds a {label}, which is no public key")),
        };
        keys.push(key);
    }
    if keys.is_empty() { Err("is neither PEM nor JSON".to_owned()) } else { Ok(keys) }
}
