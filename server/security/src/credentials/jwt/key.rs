//! One key and what it can verify. The algorithms are those of the key's own kind, decided when the key is
//! read: a token only chooses among them, so that a public key is never taken for a shared secret, nor a key of
//! one kind for another's (RFC 8725, section 3.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crosstie_model::definition::JwtAlgorithm;
use crosstie_model::secret::SecretValue;
use ring::hmac;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self, RsaParameters, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::Value;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::token::algorithm_of;
use JwtAlgorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};

/// Smallest RSA modulus, in bits (RFC 7518, sections 3.3 and 3.5).
const MIN_RSA_BITS: usize = 2_048;
/// Object identifiers of public keys (RFC 3279, RFC 4055, RFC 5480, RFC 8410).
const RSA: &str = "1.2.840.113549.1.1.1";
const RSA_PSS: &str = "1.2.840.113549.1.1.10";
const EC: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";

/// See the module.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: Option<String>,
    algorithms: Vec<JwtAlgorithm>,
    material: KeyMaterial,
}

enum KeyMaterial {
    /// Modulus and exponent, big-endian.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The point, uncompressed; which curve it is on is in the algorithms.
    Ec(Vec<u8>),
    Ed25519(Vec<u8>),
    Secret(SecretValue),
}

impl std::fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "Rsa",
            Self::Ec(_) => "Ec",
            Self::Ed25519(_) => "Ed25519",
            Self::Secret(_) => "Secret(…)",
        })
    }
}

impl Key {
    /// A shared secret.
    pub(super) fn of_secret(secret: SecretValue) -> Result<Self, String> {
        // RFC 7518, section 3.2: as long as the hash at least.
        let length = secret.expose().len();
        let long = |(algorithm, least): (JwtAlgorithm, usize)| (length >= least).then_some(algorithm);
        let algorithms: Vec<_> =
            [(HS256, 32), (HS384, 48), (HS512, 64)].into_iter().filter_map(long).collect();
        if algorithms.is_empty() {
            return Err(format!("has {length} bytes; HS256 needs 32 at least"));
        }
        Ok(Self { id: None, algorithms, material: KeyMaterial::Secret(secret) })
    }

    /// A public key in DER, as it stands in certificates (RFC 5280, section 4.1.2.7).
    pub(super) fn of_spki(der: &[u8]) -> Result<Self, String> {
        let (_, key) = SubjectPublicKeyInfo::from_der(der).map_err(|_| "is no public key".to_owned())?;
        Self::of_info(&key)
    }

    /// A public key as it was parsed.
    pub(super) fn of_info(key: &SubjectPublicKeyInfo<'_>) -> Result<Self, String> {
        let oid = key.algorithm.algorithm.to_id_string();
        let bits = key.subject_public_key.data.as_ref();
        match oid.as_str() {
            RSA | RSA_PSS => {
                let Ok(PublicKey::RSA(rsa)) = key.parsed() else { return Err("is no RSA key".to_owned()) };
                let mut found = Self::of_rsa(rsa.modulus, rsa.exponent)?;
                if oid == RSA_PSS {
                    found.algorithms.retain(|algorithm| matches!(algorithm, PS256 | PS384 | PS512));
                }
                Ok(found)
            }
            EC => {
                let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
                match curve.map(|curve| curve.to_id_string()).as_deref() {
                    Some(P256) => Self::of_point(ES256, bits.to_vec()),
                    Some(P384) => Self::of_point(ES384, bits.to_vec()),
                    _ => Err("is on a curve other than P-256 and P-384".to_owned()),
                }
            }
            ED25519 => Self::of_ed25519(bits.to_vec()),
            other => Err(format!("is of a kind that no token is signed with ({other})")),
        }
    }

    /// A public key as PKCS#1 writes it (RFC 8017, appendix A.1.1).
    pub(super) fn of_pkcs1(der: &[u8]) -> Result<Self, String> {
        let (_, key) =
            x509_parser::public_key::RSAPublicKey::from_der(der).map_err(|_| "is no RSA key".to_owned())?;
        Self::of_rsa(key.modulus, key.exponent)
    }

    /// A JSON Web Key (RFC 7517; RFC 7518, section 6; RFC 8037), symmetric ones included.
    pub(super) fn of_jwk(jwk: &Value) -> Result<Self, String> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            let text = text(name).ok_or_else(|| format!("has no {name}"))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{name} is not base64url"))
        };
        if text("use").is_some_and(|used| used != "sig") {
            return Err("is not for signatures".to_owned());
        }
        let operations = jwk.get("key_ops").and_then(Value::as_array);
        if operations.is_some_and(|all| !all.iter().any(|one| one == "verify")) {
            return Err("is not for verifying".to_owned());
        }
        let mut key = match (text("kty").unwrap_or_default(), text("crv").unwrap_or_default()) {
            ("RSA", _) => Self::of_rsa(&bytes("n")?, &bytes("e")?)?,
            ("EC", "P-256") => Self::of_point(ES256, [vec![4], bytes("x")?, bytes("y")?].concat())?,
            ("EC", "P-384") => Self::of_point(ES384, [vec![4], bytes("x")?, bytes("y")?].concat())?,
            ("OKP", "Ed25519") => Self::of_ed25519(bytes("x")?)?,
            ("oct", _) => Self::of_secret(SecretValue::new(bytes("k")?))?,
            (kind, curve) => return Err(format!("is of a kind that is not known: {kind:?} {curve:?}")),
        };
        if let Some(name) = text("alg") {
            key.restrict(algorithm_of(name).as_slice());
            if key.algorithms.is_empty() {
                return Err(format!("is not of a kind that signs with {name}"));
            }
        }
        key.id = text("kid").map(str::to_owned);
        Ok(key)
    }

    fn of_rsa(n: &[u8], e: &[u8]) -> Result<Self, String> {
        let strip = |number: &[u8]| {
            let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
            number.get(first..).unwrap_or_default().to_vec()
        };
        let (n, e) = (strip(n), strip(e));
        let high = n.first().map_or(8, |byte| byte.leading_zeros() as usize);
        let bits = (n.len() * 8).saturating_sub(high);
        if bits < MIN_RSA_BITS {
            return Err(format!("has {bits} bits; an RSA key needs {MIN_RSA_BITS} at least"));
        }
        let algorithms = vec![RS256, RS384, RS512, PS256, PS384, PS512];
        Ok(Self { id: None, algorithms, material: KeyMaterial::Rsa { n, e } })
    }

    fn of_point(algorithm: JwtAlgorithm, point: Vec<u8>) -> Result<Self, String> {
        let length = if algorithm == ES256 { 65 } else { 97 };
        if point.len() != length || point.first() != Some(&4) {
            return Err("is no point of its curve".to_owned());
        }
        Ok(Self { id: None, algorithms: vec![algorithm], material: KeyMaterial::Ec(point) })
    }

    fn of_ed25519(key: Vec<u8>) -> Result<Self, String> {
        if key.len() != 32 {
            return Err("is no Ed25519 key".to_owned());
        }
        Ok(Self { id: None, algorithms: vec![EdDSA], material: KeyMaterial::Ed25519(key) })
    }

    /// Whether it is a shared secret.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self.material, KeyMaterial::Secret(_))
    }

    /// Leaves of its algorithms only those that are among `allowed`.
    pub(super) fn restrict(&mut self, allowed: &[JwtAlgorithm]) {
        self.algorithms.retain(|algorithm| allowed.contains(algorithm));
    }

    /// Whether it verifies anything signed with `algorithm`.
    pub(super) fn serves(&self, algorithm: JwtAlgorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether it verifies nothing at all.
    pub(super) fn is_useless(&self) -> bool {
        self.algorithms.is_empty()
    }

    /// Whether `signature` is this key's for `message`. Never is with an algorithm that is not its own.
    pub(super) fn verifies(&self, algorithm: JwtAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.serves(algorithm) {
            return false;
        }
        match &self.material {
            KeyMaterial::Rsa { n, e } => rsa_of(algorithm)
                .is_some_and(|rsa| PublicKeyComponents { n, e }.verify(rsa, message, signature).is_ok()),
            KeyMaterial::Ec(point) => ecdsa_of(algorithm)
                .is_some_and(|ecdsa| UnparsedPublicKey::new(ecdsa, point).verify(message, signature).is_ok()),
            KeyMaterial::Ed25519(key) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature).is_ok()
            }
            KeyMaterial::Secret(secret) => hmac_of(algorithm).is_some_and(|hash| {
                hmac::verify(&hmac::Key::new(hash, secret.expose()), message, signature).is_ok()
            }),
        }
    }
}

fn rsa_of(algorithm: JwtAlgorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        PS256 => &signature::RSA_PSS_2048_8192_SHA256,
        PS384 => &signature::RSA_PSS_2048_8192_SHA384,
        PS512 => &signature::RSA_PSS_2048_8192_SHA512,
        ES256 | ES384 | EdDSA | HS256 | HS384 | HS512 => return None,
    })
}

/// RFC 7518, section 3.4: both halves with their full length.
fn ecdsa_of(algorithm: JwtAlgorithm) -> Option<&'static dyn VerificationAlgorithm> {
    match algorithm {
        ES256 => Some(&signature::ECDSA_P256_SHA256_FIXED),
        ES384 => Some(&signature::ECDSA_P384_SHA384_FIXED),
        _ => None,
    }
}

fn hmac_of(algorithm: JwtAlgorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        HS256 => Some(hmac::HMAC_SHA256),
        HS384 => Some(hmac::HMAC_SHA384),
        HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}
