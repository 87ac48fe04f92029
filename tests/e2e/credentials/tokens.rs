//! Tokens made as others make them: by openssl, not by what verifies them.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// What openssl says to `arguments`, given `input`.
pub(super) fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

/// A private key of an issuer.
pub(super) struct Signer {
    algorithm: &'static str,
    private: NamedTempFile,
}

impl Signer {
    /// A new key for `algorithm`.
    pub(super) fn new(algorithm: &'static str) -> Self {
        let kind: &[&str] = match algorithm {
            "ES256" => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "ES384" => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            "EdDSA" => &["-algorithm", "ED25519"],
            _ => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        };
        let private = NamedTempFile::new().unwrap();
        std::fs::write(private.path(), openssl(&[&["genpkey"], kind].concat(), b"")).unwrap();
        Self { algorithm, private }
    }

    /// The same key for another algorithm of its kind.
    pub(super) fn with(&self, algorithm: &'static str) -> Self {
        let private = NamedTempFile::new().unwrap();
        std::fs::copy(self.private.path(), private.path()).unwrap();
        Self { algorithm, private }
    }

    fn path(&self) -> &str {
        self.private.path().to_str().unwrap()
    }

    /// Its public key (PEM).
    pub(super) fn public(&self) -> String {
        String::from_utf8(openssl(&["pkey", "-in", self.path(), "-pubout"], b"")).unwrap()
    }

    /// Its public key as a JWK called `id`; P-256 alone.
    pub(super) fn jwk(&self, id: &str) -> Value {
        let der = openssl(&["pkey", "-in", self.path(), "-pubout", "-outform", "DER"], b"");
        let point = &der[der.len() - 64..];
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": id, "x": encode(&point[..32]), "y": encode(&point[32..])})
    }

    /// A token with these claims.
    pub(super) fn token(&self, claims: &Value) -> String {
        self.token_by("", claims)
    }

    /// A token that names its key.
    pub(super) fn token_by(&self, id: &str, claims: &Value) -> String {
        let mut header = json!({"typ": "JWT", "alg": self.algorithm});
        if !id.is_empty() {
            header["kid"] = id.into();
        }
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        format!("{signed}.{}", encode(self.sign(signed.as_bytes())))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let hash = match &self.algorithm[2..] {
            "256" => "-sha256",
            "384" => "-sha384",
            _ => "-sha512",
        };
        match &self.algorithm[..2] {
            "RS" => openssl(&["dgst", hash, "-sign", self.path()], message),
            "PS" => {
                let padding = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
                openssl(&[&["dgst", hash, "-sign", self.path()][..], &padding].concat(), message)
            }
            "ES" => {
                let half = if self.algorithm == "ES256" { 32 } else { 48 };
                halves(&openssl(&["dgst", hash, "-sign", self.path()], message), half)
            }
            _ => {
                let file = NamedTempFile::new().unwrap();
                std::fs::write(file.path(), message).unwrap();
                let input = file.path().to_str().unwrap();
                openssl(&["pkeyutl", "-sign", "-inkey", self.path(), "-rawin", "-in", input], b"")
            }
        }
    }
}

/// The two numbers of an ECDSA signature in DER, each with its full length (RFC 7518, section 3.4).
fn halves(der: &[u8], half: usize) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number: Vec<u8> = rest[2..2 + length].iter().copied().skip_while(|byte| *byte == 0).collect();
        raw.extend(std::iter::repeat_n(0, half - number.len()));
        raw.extend(number);
        rest = &rest[2 + length..];
    }
    raw
}

/// A token signed with a shared secret.
pub(super) fn with_secret(algorithm: &str, secret: &[u8], claims: &Value) -> String {
    let hash = format!("-sha{}", &algorithm[2..]);
    let header = json!({"alg": algorithm});
    let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let key: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let option = format!("hexkey:{key}");
    let signature =
        openssl(&["dgst", &hash, "-mac", "HMAC", "-macopt", &option, "-binary"], signed.as_bytes());
    format!("{signed}.{}", encode(signature))
}

/// A token that nobody signed.
pub(super) fn unsigned(algorithm: &str, claims: &Value) -> String {
    let header = json!({"alg": algorithm});
    format!("{}.{}.", encode(header.to_string()), encode(claims.to_string()))
}
