//! The compact form of a signed token (RFC 7515, section 7.1), taken apart and not believed yet.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crosstie_model::definition::JwtAlgorithm;
use crosstie_model::refusal::RefusalReason;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A token's parts.
#[derive(Debug)]
pub(super) struct Token<'t> {
    pub(super) algorithm: JwtAlgorithm,
    /// Which of the issuer's keys signed it, if it says.
    pub(super) key_id: Option<String>,
    /// What was signed: header and payload as they stand there.
    pub(super) signed: &'t str,
    payload: &'t str,
    pub(super) signature: Vec<u8>,
}

/// What is read of the header. Nothing else in it has a say: not where keys could be fetched (`jku`, `x5u`),
/// nor keys that come along (`jwk`, `x5c`).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, section 4.1.11). None is.
    crit: Option<Value>,
}

impl<'t> Token<'t> {
    /// Takes `token` apart.
    pub(super) fn parse(token: &'t str) -> Result<Self, RefusalReason> {
        let malformed = RefusalReason::Malformed;
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(malformed)?;
        if payload.contains('.') {
            return Err(malformed);
        }
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| malformed)?;
        if header.crit.is_some() {
            return Err(malformed);
        }
        let algorithm = algorithm_of(&header.alg).ok_or(RefusalReason::Algorithm)?;
        let signature = decode(signature)?;
        Ok(Self { algorithm, key_id: header.kid, signed, payload, signature })
    }

    /// Its claims; to be asked for once its signature is known to be good.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, RefusalReason> {
        serde_json::from_slice(&decode(self.payload)?).map_err(|_| RefusalReason::Malformed)
    }
}

/// The algorithm called `name`. There is no `none`.
pub(super) fn algorithm_of(name: &str) -> Option<JwtAlgorithm> {
    Some(match name {
        "RS256" => JwtAlgorithm::RS256,
        "RS384" => JwtAlgorithm::RS384,
        "RS512" => JwtAlgorithm::RS512,
        "PS256" => JwtAlgorithm::PS256,
        "PS384" => JwtAlgorithm::PS384,
        "PS512" => JwtAlgorithm::PS512,
        "ES256" => JwtAlgorithm::ES256,
        "ES384" => JwtAlgorithm::ES384,
        // RFC 9864 gives the one curve of RFC 8037 that is in use a name of its own.
        "EdDSA" | "Ed25519" => JwtAlgorithm::EdDSA,
        "HS256" => JwtAlgorithm::HS256,
        "HS384" => JwtAlgorithm::HS384,
        "HS512" => JwtAlgorithm::HS512,
        _ => return None,
    })
}

fn decode(part: &str) -> Result<Vec<u8>, RefusalReason> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| RefusalReason::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(header: &str, payload: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", encode(header), encode(payload), encode("signature"))
    }

    #[test]
    fn the_example_of_the_rfc_is_taken_apart() {
        // RFC 7515, appendix A.1.
        let text = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0\
                    dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let token = Token::parse(text).unwrap();
        assert_eq!((token.algorithm, token.key_id.as_deref()), (JwtAlgorithm::HS256, None));
        assert_eq!(token.claims().unwrap()["iss"], "joe");
        assert_eq!(token.signature.len(), 32);
    }

    #[test]
    fn what_is_no_signed_token_is_refused() {
        for (header, reason) in [
            (r#"{"alg":"none"}"#, RefusalReason::Algorithm),
            (r#"{"alg":"NONE"}"#, RefusalReason::Algorithm),
            (r#"{"alg":"hs256"}"#, RefusalReason::Algorithm),
            (r#"{"alg":"ES512"}"#, RefusalReason::Algorithm),
            (r#"{"alg":"RSA-OAEP"}"#, RefusalReason::Algorithm),
            (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, RefusalReason::Malformed),
            (r#"{"alg":"HS256","kid":7}"#, RefusalReason::Malformed),
            (r#"{"alg":["HS256"]}"#, RefusalReason::Malformed),
            (r#"{"typ":"JWT"}"#, RefusalReason::Malformed),
            ("[]", RefusalReason::Malformed),
            ("", RefusalReason::Malformed),
        ] {
            assert_eq!(Token::parse(&token(header, "{}")).unwrap_err(), reason, "{header}");
        }
        let good = token(r#"{"alg":"HS256"}"#, "{}");
        assert!(Token::parse(&good).is_ok());
        let (signed, _) = good.rsplit_once('.').unwrap();
        for broken in
            ["", ".", "..", "a.b", signed, &format!("{good}.x"), &format!("{good}="), &format!(".{good}")]
        {
            assert_eq!(Token::parse(broken).unwrap_err(), RefusalReason::Malformed, "{broken}");
        }
        let listed = token(r#"{"alg":"HS256"}"#, "[1]");
        assert_eq!(Token::parse(&listed).unwrap().claims().unwrap_err(), RefusalReason::Malformed);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,120}") {
            let _ = Token::parse(&text);
        }

        #[test]
        fn no_header_panics(header in "\\PC{0,80}", payload in "\\PC{0,80}") {
            if let Ok(token) = Token::parse(&token(&header, &payload)) {
                let _ = token.claims();
            }
        }
    }
}
