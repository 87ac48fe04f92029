//! Tokens of every algorithm, good and bad, against keys of every kind; issuers that rotate keys and that are
//! away.

use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use crosstie_model::Snapshot;
use crosstie_model::definition::SecurityDefinition;
use crosstie_model::inquiry::NoInquiries;
use crosstie_model::ports::{NoNonces, Nonces};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};

use super::*;
use crate::cluster_key::ClusterKey;
use crate::credentials::testing::{Oracle, Way};
use crate::secret::SecretResolver;

/// Whoever signs tokens.
enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
    Secret(Vec<u8>),
}

/// What openssl says to `arguments`, given `input`.
fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl is there");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    output.stdout
}

/// Private RSA keys in DER, of 2048 bits, made once: that takes long.
fn rsa_der() -> &'static [u8] {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    KEY.get_or_init(|| {
        let pem = openssl(&["genrsa", "2048"], b"");
        openssl(&["rsa", "-outform", "DER", "-traditional"], &pem)
    })
}

impl Signer {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::from_der(rsa_der()).unwrap())
    }

    fn ec(algorithm: &'static EcdsaSigningAlgorithm, curve: &'static str) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap(), curve)
    }

    fn p256() -> Self {
        Self::ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")
    }

    fn p384() -> Self {
        Self::ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")
    }

    fn ed25519() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    fn secret(length: usize) -> Self {
        Self::Secret((0..length).map(|byte| u8::try_from(byte % 251).unwrap()).collect())
    }

    fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "n": encode(&public.n), "e": encode(&public.e)})
            }
            Self::Ec(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
            Self::Secret(secret) => json!({"kty": "oct", "k": encode(secret)}),
        }
    }

    fn named(&self, id: &str) -> Value {
        let mut jwk = self.jwk();
        jwk["kid"] = id.into();
        jwk
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding: &dyn RsaEncoding = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    other => panic!("{other}"),
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair, _) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Secret(secret) => {
                let hash = match algorithm {
                    "HS256" => ring::hmac::HMAC_SHA256,
                    "HS384" => ring::hmac::HMAC_SHA384,
                    "HS512" => ring::hmac::HMAC_SHA512,
                    other => panic!("{other}"),
                };
                ring::hmac::sign(&ring::hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.sign(header["alg"].as_str().unwrap(), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token that is good for an hour.
    fn good(&self, algorithm: &str) -> String {
        self.token(&json!({"alg": algorithm}), &claims())
    }
}

fn unix_now() -> i64 {
    Presented::now(&HeaderMap::new(), &[]).unix_seconds()
}

fn claims() -> Value {
    json!({"sub": "ada", "exp": unix_now() + 3_600, "scope": "read write", "tenant": {"id": 7}})
}

fn try_check(body: Value, way: &Way) -> Result<JwtCheck, CredentialError> {
    let definition: SecurityDefinition = serde_json::from_value(body).unwrap();
    let name = "tokens".parse().unwrap();
    let resolver = SecretResolver::new(Arc::new(ClusterKey::generate().unwrap()), "/nowhere".into());
    let snapshot = Snapshot::default();
    let material = Material::gather(&name, &definition, &snapshot, &resolver)?;
    let SecurityDefinition::Jwt(body) = &definition else { panic!() };
    let workshop = Workshop {
        name: &name,
        snapshot: &snapshot,
        inquiries: way,
        nonces: &(Arc::new(NoNonces) as Arc<dyn Nonces>),
    };
    JwtCheck::new(body, &material, Principal::new("tokens", "jwt"), &workshop)
}

fn check(body: Value) -> JwtCheck {
    try_check(body, &Way(Oracle::new([None]))).unwrap()
}

fn with_public(jwk: &Value) -> JwtCheck {
    check(json!({"type": "jwt", "public_keys": jwk.to_string()}))
}

/// A definition whose secret is in a file, as a test cannot set variables.
fn with_secret(secret: &[u8], more: Value) -> Result<JwtCheck, CredentialError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), secret).unwrap();
    let mut body = json!({"type": "jwt", "secret": format!("file:{}", file.path().display())});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    try_check(body, &Way(Oracle::new([None])))
}

fn headers(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap())])
}

/// The outcome for a check that need not wait.
fn ask(check: &JwtCheck, token: &str) -> Result<Arc<Principal>, RefusalReason> {
    let headers = headers(token);
    check.decide(&Presented::now(&headers, &[])).expect("nothing to wait for").map_err(|denial| denial.reason)
}

#[test]
fn every_algorithm_is_verified_by_the_key_of_its_kind() {
    let rsa = Signer::rsa();
    for (signer, algorithms) in [
        (&rsa, &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..]),
        (&Signer::p256(), &["ES256"]),
        (&Signer::p384(), &["ES384"]),
        (&Signer::ed25519(), &["EdDSA"]),
    ] {
        let check = with_public(&signer.jwk());
        for algorithm in algorithms {
            let principal = ask(&check, &signer.good(algorithm)).unwrap();
            assert_eq!(principal.username.as_deref(), Some("ada"), "{algorithm}");
            assert_eq!(principal.scopes, ["read", "write"]);
            assert_eq!(principal.claims["tenant"]["id"], 7);
        }
    }
    let Signer::Secret(secret) = Signer::secret(64) else { panic!() };
    let check = with_secret(&secret, json!({})).unwrap();
    for algorithm in ["HS256", "HS384", "HS512"] {
        assert!(ask(&check, &Signer::secret(64).good(algorithm)).is_ok(), "{algorithm}");
    }
}

#[test]
fn a_signature_that_does_not_fit_is_refused() {
    for (signer, other, algorithm) in [
        (Signer::p256(), Signer::p256(), "ES256"),
        (Signer::p384(), Signer::p384(), "ES384"),
        (Signer::ed25519(), Signer::ed25519(), "EdDSA"),
    ] {
        let check = with_public(&signer.jwk());
        assert_eq!(ask(&check, &other.good(algorithm)), Err(RefusalReason::Wrong), "{algorithm}");
        let good = signer.good(algorithm);
        assert!(ask(&check, &good).is_ok());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[10] ^= 1;
        let (header, _) = signed.split_once('.').unwrap();
        let forged = URL_SAFE_NO_PAD.encode(json!({"sub": "admin", "exp": unix_now() + 9}).to_string());
        for wrong in [
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&bytes)),
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&bytes[1..])),
            format!("{signed}."),
            format!("{header}.{forged}.{signature}"),
        ] {
            assert_eq!(ask(&check, &wrong), Err(RefusalReason::Wrong), "{wrong}");
        }
    }
}

#[test]
fn a_token_cannot_choose_what_its_key_is_taken_for() {
    let rsa = Signer::rsa();
    let pem = {
        let spki = openssl(&["rsa", "-pubout"], &openssl(&["rsa", "-inform", "DER"], rsa_der()));
        String::from_utf8(spki).unwrap()
    };
    let check = check(json!({"type": "jwt", "public_keys": pem}));
    assert!(ask(&check, &rsa.good("RS256")).is_ok(), "the key as PEM");
    // The public key as if it were a shared secret, in every form an attacker has it in.
    let jwk = rsa.jwk();
    let forms: [Vec<u8>; 4] = [
        pem.clone().into_bytes(),
        pem.trim().as_bytes().to_vec(),
        jwk.to_string().into_bytes(),
        URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap(),
    ];
    for form in forms {
        assert_eq!(ask(&check, &Signer::Secret(form).good("HS256")), Err(RefusalReason::Algorithm));
    }
    // No signature at all, whatever it is called.
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    for none in ["none", "None", "nOnE", ""] {
        let signed =
            format!("{}.{}", encode(&json!({"alg": none}).to_string()), encode(&claims().to_string()));
        assert_eq!(ask(&check, &format!("{signed}.")), Err(RefusalReason::Algorithm), "{none}");
    }
    // A key that comes along, or an address to fetch one from, has no say.
    let stranger = Signer::p256();
    for more in [json!({"jwk": stranger.jwk()}), json!({"jku": "https://stranger.example/keys"})] {
        let mut header = json!({"alg": "ES256"});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(ask(&check, &stranger.token(&header, &claims())), Err(RefusalReason::Algorithm));
    }
}

#[test]
fn a_definition_and_a_jwk_narrow_what_a_key_verifies() {
    let rsa = Signer::rsa();
    let narrow = check(json!({"type": "jwt", "public_keys": rsa.jwk().to_string(), "algorithms": ["PS256"]}));
    assert!(ask(&narrow, &rsa.good("PS256")).is_ok());
    assert_eq!(ask(&narrow, &rsa.good("RS256")), Err(RefusalReason::Algorithm));
    let mut jwk = rsa.jwk();
    jwk["alg"] = "RS512".into();
    assert_eq!(ask(&with_public(&jwk), &rsa.good("RS256")), Err(RefusalReason::Algorithm));
    assert!(ask(&with_public(&jwk), &rsa.good("RS512")).is_ok());
}

#[test]
fn keys_that_cannot_be_used_are_told_of() {
    let refused = |keys: &str| {
        let body = json!({"type": "jwt", "public_keys": keys});
        try_check(body, &Way(Oracle::new([None]))).unwrap_err().to_string()
    };
    let private = String::from_utf8(openssl(&["rsa", "-inform", "DER"], rsa_der())).unwrap();
    let small = openssl(&["rsa", "-pubout"], &openssl(&["genrsa", "1024"], b""));
    let mut encryption = Signer::p256().jwk();
    encryption["use"] = "enc".into();
    let mut wrong = Signer::p256().jwk();
    wrong["alg"] = "HS256".into();
    for (keys, told) in [
        (private.as_str(), "private key"),
        (std::str::from_utf8(&small).unwrap(), "1024 bits"),
        ("nonsense", "neither PEM nor JSON"),
        ("{\"keys\": []}", "no key"),
        ("{\"keys\": 7}", "no list"),
        (&encryption.to_string(), "not for signatures"),
        (&wrong.to_string(), "HS256"),
        (&Signer::secret(32).jwk().to_string(), "field secret"),
        (r#"{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}"#, "no point"),
        (r#"{"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}"#, "not known"),
    ] {
        let said = refused(keys);
        assert!(said.contains(told) && !said.contains("MII"), "{told}: {said}");
    }
    let short = with_secret(b"hunter2-hunter2-hunter2", json!({})).unwrap_err().to_string();
    assert!(short.contains("23 bytes") && !short.contains("hunter2"), "{short}");
    let long = with_secret(&[b'x'; 40], json!({"algorithms": ["HS512"]})).unwrap_err().to_string();
    assert!(long.contains("no key for the algorithms"), "{long}");
    let public = with_secret(Signer::p256().jwk().to_string().as_bytes(), json!({})).unwrap_err();
    assert!(public.to_string().contains("public_keys"), "{public}");
}

#[test]
fn secrets_may_be_several_and_binary() {
    let (old, new) = (Signer::secret(32), Signer::secret(33));
    let set = json!({"keys": [old.named("old"), new.named("new")]});
    let check = with_secret(set.to_string().as_bytes(), json!({})).unwrap();
    for (signer, id) in [(&old, "old"), (&new, "new")] {
        assert!(ask(&check, &signer.token(&json!({"alg": "HS256", "kid": id}), &claims())).is_ok());
        assert!(ask(&check, &signer.good("HS256")).is_ok(), "without a name each is tried");
    }
    let mixed = old.token(&json!({"alg": "HS256", "kid": "new"}), &claims());
    assert_eq!(ask(&check, &mixed), Err(RefusalReason::Wrong));
    let unknown = old.token(&json!({"alg": "HS256", "kid": "other"}), &claims());
    assert_eq!(ask(&check, &unknown), Err(RefusalReason::Untrusted));
}

#[test]
fn keys_are_read_from_certificates_and_from_pem_of_every_kind() {
    let make = |arguments: &[&str]| openssl(arguments, b"");
    for (generate, algorithm) in [
        (&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..], "ES256"),
        (&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "ES384"),
        (&["genpkey", "-algorithm", "ED25519"], "EdDSA"),
    ] {
        let private = make(generate);
        let der = openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], &private);
        let random = SystemRandom::new();
        let signer = match algorithm {
            "ES256" => {
                let kind = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
                Signer::Ec(EcdsaKeyPair::from_pkcs8(kind, &der, &random).unwrap(), "P-256")
            }
            "ES384" => {
                let kind = &signature::ECDSA_P384_SHA384_FIXED_SIGNING;
                Signer::Ec(EcdsaKeyPair::from_pkcs8(kind, &der, &random).unwrap(), "P-384")
            }
            _ => Signer::Ed(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap()),
        };
        let public = openssl(&["pkey", "-pubout"], &private);
        let request = ["req", "-x509", "-key", "/dev/stdin", "-days", "30", "-subj", "/CN=issuer"];
        for pem in [public, openssl(&request, &private)] {
            let text = String::from_utf8(pem).unwrap();
            let check = check(json!({"type": "jwt", "public_keys": text}));
            assert!(ask(&check, &signer.good(algorithm)).is_ok(), "{algorithm} {text}");
        }
    }
    let pkcs1 = openssl(&["rsa", "-inform", "DER", "-RSAPublicKey_out"], rsa_der());
    let text = String::from_utf8(pkcs1).unwrap();
    assert!(text.contains("BEGIN RSA PUBLIC KEY"), "{text}");
    let both = format!("{text}{}", {
        let der =
            openssl(&["pkey", "-pubout", "-outform", "DER"], &make(&["genpkey", "-algorithm", "ED25519"]));
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    });
    assert!(ask(&check(json!({"type": "jwt", "public_keys": both})), &Signer::rsa().good("RS256")).is_ok());
}

#[test]
fn what_a_token_says_is_checked_even_when_it_is_remembered() {
    let signer = Signer::p256();
    let check = check(json!({"type": "jwt", "public_keys": signer.jwk().to_string(), "clock_skew_s": 0,
        "issuer": "https://id.example", "audience": ["shop"], "scopes": ["read"]}));
    let header = json!({"alg": "ES256"});
    let now = unix_now();
    let good =
        json!({"iss": "https://id.example", "aud": "shop", "scope": "read", "sub": "ada", "exp": now + 100});
    let token = signer.token(&header, &good);
    let headers = headers(&token);
    let mut presented = Presented::now(&headers, &[]);
    for _ in 0..2 {
        assert!(check.decide(&presented).unwrap().is_ok());
    }
    presented.now = SystemTime::now() + Duration::from_secs(101);
    let denial = check.decide(&presented).unwrap().unwrap_err();
    assert_eq!((denial.reason, denial.username.as_deref()), (RefusalReason::Expired, Some("ada")));
    for (change, reason) in [
        (json!({"iss": "https://other.example"}), RefusalReason::Issuer),
        (json!({"aud": "till"}), RefusalReason::Audience),
        (json!({"exp": now - 1}), RefusalReason::Expired),
        (json!({"nbf": now + 100}), RefusalReason::NotYetValid),
        (json!({"scope": "write"}), RefusalReason::Scope),
    ] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(ask(&check, &signer.token(&header, &claims)), Err(reason), "{claims}");
    }
}

fn published(keys: &[Value]) -> Option<(u16, String)> {
    Some((200, json!({"keys": keys}).to_string()))
}

fn remote(oracle: &Arc<Oracle>, more: Value) -> JwtCheck {
    let mut body = json!({"type": "jwt", "jwks_url": "https://id.example:8443/keys?tenant=1"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    try_check(body, &Way(Arc::clone(oracle))).unwrap()
}

/// As the authenticator does: what is known decides, else somebody is asked.
async fn come(check: &JwtCheck, token: &str) -> Result<(), Denial> {
    let headers = headers(token);
    let presented = Presented::now(&headers, &[]);
    let verdict = match check.decide(&presented) {
        Some(verdict) => verdict,
        None => check.ask(&presented).await,
    };
    verdict.map(drop)
}

fn signed_by(signer: &Signer, id: &str) -> String {
    signer.token(&json!({"alg": "ES256", "kid": id}), &claims())
}

#[tokio::test]
async fn keys_are_fetched_once_for_all_who_come_and_rotations_are_noticed() {
    let (first, second) = (Signer::p256(), Signer::p256());
    let oracle = Oracle::new([published(&[first.named("1"), json!({"kty": "new"})])]);
    let check = remote(&oracle, json!({}));
    assert_eq!(oracle.asked(), 0, "nobody is asked before a token comes");
    let token = signed_by(&first, "1");
    let all = tokio::join!(come(&check, &token), come(&check, &token), come(&check, &token));
    assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok());
    assert_eq!(oracle.asked(), 1);
    let (headers, target, _) = oracle.questions.lock().unwrap()[0].clone();
    assert_eq!(target, "/keys?tenant=1");
    assert!(headers["accept"].to_str().unwrap().contains("application/jwk-set+json"));
    let endpoint = oracle.endpoints.lock().unwrap()[0].clone();
    assert_eq!(endpoint.address, "https://id.example:8443");
    assert_eq!((endpoint.deadline_ms, endpoint.max_response_bytes), (5_000, 262_144));

    // A new key, and the old one is withdrawn.
    oracle.says(published(&[second.named("2")]));
    assert!(come(&check, &token).await.is_ok(), "the old key is good until the new ones are fetched");
    assert!(come(&check, &signed_by(&second, "2")).await.is_ok());
    assert_eq!(oracle.asked(), 2);
    let refused = come(&check, &token).await.unwrap_err();
    assert_eq!(refused.reason, RefusalReason::Untrusted, "although it is remembered");

    // Names that nobody has: asked for once, then not for a while.
    for attempt in 0..20 {
        let made_up = signed_by(&first, &format!("made up {attempt}"));
        assert_eq!(come(&check, &made_up).await.unwrap_err().reason, RefusalReason::Untrusted);
    }
    assert_eq!(oracle.asked(), 2, "the last rotation was noticed just now");
    assert!(come(&check, &signed_by(&second, "2")).await.is_ok());
}

async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn while_an_issuer_is_away_known_keys_go_on_and_unknown_ones_are_503() {
    let signer = Signer::p256();
    let oracle = Oracle::new([None]);
    let check = remote(&oracle, json!({}));
    let token = signed_by(&signer, "1");
    let refused = come(&check, &token).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.reason),
        (crosstie_model::FailureKind::Unavailable, RefusalReason::Unavailable)
    );
    assert!(refused.retry_after.is_some());
    assert!(come(&check, &token).await.is_err());
    assert_eq!(oracle.asked(), 1, "who comes right after does not ask again");

    for (status, answer) in [(500, "{}"), (302, ""), (200, "<html>"), (200, "{}"), (200, "{\"keys\": []}")] {
        let oracle = Oracle::new([Some((status, answer.to_owned()))]);
        let check = remote(&oracle, json!({}));
        let refused = come(&check, &token).await.unwrap_err();
        assert_eq!(refused.reason, RefusalReason::Unavailable, "{status} {answer}");
    }

    let oracle = Oracle::new([published(&[signer.named("1")])]);
    let check = remote(&oracle, json!({}));
    assert!(come(&check, &token).await.is_ok());
    oracle.says(None);
    let unknown = come(&check, &signed_by(&signer, "2")).await.unwrap_err();
    assert_eq!(unknown.reason, RefusalReason::Untrusted);
    assert_eq!(oracle.asked(), 2);
    assert!(come(&check, &token).await.is_ok());
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_cut_the_fetch_off() {
    let signer = Signer::p256();
    let mut oracle = Oracle::new([published(&[signer.named("1")])]);
    Arc::get_mut(&mut oracle).unwrap().gate = tokio::sync::Semaphore::new(0);
    let check = remote(&oracle, json!({}));
    let token = signed_by(&signer, "1");
    {
        let mut leaver = Box::pin(come(&check, &token));
        assert!(poll_once(leaver.as_mut()).await.is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!(oracle.asked(), 1);
    oracle.gate.add_permits(1);
    assert!(come(&check, &token).await.is_ok());
    assert_eq!(oracle.asked(), 1);
}

#[test]
fn who_asks_nobody_cannot_have_such_a_definition() {
    let body = json!({"type": "jwt", "jwks_url": "https://id.example/keys"});
    let definition: SecurityDefinition = serde_json::from_value(body).unwrap();
    let SecurityDefinition::Jwt(body) = &definition else { panic!() };
    let material = Material::of_text(&definition).unwrap();
    let name = "tokens".parse().unwrap();
    let workshop = Workshop {
        name: &name,
        snapshot: &Snapshot::default(),
        inquiries: &NoInquiries,
        nonces: &(Arc::new(NoNonces) as Arc<dyn Nonces>),
    };
    let error = JwtCheck::new(body, &material, Principal::new("tokens", "jwt"), &workshop).unwrap_err();
    assert!(error.to_string().starts_with("jwks_url: "), "{error}");
}
