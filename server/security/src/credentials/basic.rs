//! HTTP Basic authentication (RFC 7617).

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use crosstie_model::definition::BasicAuth;
use crosstie_model::message::Principal;
use crosstie_model::secret::SecretValue;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::comparison::Expected;

/// Longest credentials, encoded, in bytes: twice what the longest name and password of this product need.
const MAX_ENCODED: usize = 8 * 1024;
/// Base64 as token68 allows it (RFC 9110, section 11.2): with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One user name and password.
#[derive(Debug)]
pub(super) struct BasicCheck {
    username: Expected,
    password: Expected,
    challenge: String,
    principal: Arc<Principal>,
}

impl BasicCheck {
    pub(super) fn new(body: &BasicAuth, password: &SecretValue, principal: Arc<Principal>) -> Self {
        Self {
            username: Expected::new(body.username.as_bytes()),
            password: Expected::new(password.expose()),
            // The realm's pattern excludes quotes and backslashes, so it needs no escaping here.
            challenge: format!("Basic realm=\"{}\", charset=\"UTF-8\"", body.realm),
            principal,
        }
    }

    pub(super) fn challenge(&self) -> &str {
        &self.challenge
    }

    /// The principal, if the request has exactly one Authorization field and it is right. Both comparisons
    /// are always made: a wrong user name takes as long as a wrong password.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Option<Arc<Principal>> {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return None };
        let credentials = decode(field.as_bytes())?;
        let credentials = credentials.expose();
        let colon = credentials.iter().position(|byte| *byte == b':')?;
        let (username, rest) = credentials.split_at_checked(colon)?;
        let password = rest.get(1..)?;
        let right = self.username.matches(username) & self.password.matches(password);
        bool::from(right).then(|| Arc::clone(&self.principal))
    }
}

/// `user-id ":" password` out of the field's value; the scheme's case does not matter.
fn decode(field: &[u8]) -> Option<SecretValue> {
    let (scheme, rest) = field.split_at_checked(5)?;
    let (space, _) = rest.split_first()?;
    if !scheme.eq_ignore_ascii_case(b"basic") || *space != b' ' || field.len() > MAX_ENCODED {
        return None;
    }
    BASE64.decode(rest.trim_ascii()).ok().map(SecretValue::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn check(username: &str, password: &str) -> BasicCheck {
        let body: BasicAuth =
            serde_json::from_value(serde_json::json!({"username": username, "realm": "crm"})).unwrap();
        let principal = Arc::new(Principal {
            definition: "crm".into(),
            kind: "basic_auth",
            username: Some(username.to_owned()),
        });
        BasicCheck::new(&body, &SecretValue::new(password.as_bytes()), principal)
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
    }

    fn basic(credentials: &str) -> String {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials))
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let check = check("Aladdin", "open sesame");
        let principal = check.authenticate(&headers(&["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="])).unwrap();
        assert_eq!(principal.username.as_deref(), Some("Aladdin"));
        assert!(check.authenticate(&headers(&["bAsIc  QWxhZGRpbjpvcGVuIHNlc2FtZQ"])).is_some());
        assert_eq!(check.challenge(), r#"Basic realm="crm", charset="UTF-8""#);
    }

    #[test]
    fn names_and_passwords_are_utf_8_and_a_password_may_hold_colons() {
        // RFC 7617, section 2.1: "test" and "123£".
        assert!(check("test", "123£").authenticate(&headers(&["Basic dGVzdDoxMjPCow=="])).is_some());
        assert!(check("a", "b:c:").authenticate(&headers(&[&basic("a:b:c:")])).is_some());
    }

    #[test]
    fn anything_else_is_refused() {
        let check = check("user", "right");
        for wrong in ["user:wrong", "other:right", "user:", ":right", "user", "", "user:right ", "USER:right"]
        {
            assert!(check.authenticate(&headers(&[&basic(wrong)])).is_none(), "{wrong}");
        }
        let good = basic("user:right");
        assert!(check.authenticate(&headers(&[&good])).is_some());
        assert!(check.authenticate(&headers(&[&good, &good])).is_none(), "several fields");
        assert!(check.authenticate(&headers(&[])).is_none());
        for broken in ["Basic", "Basic ", "Basic !!!", "Bearer x", &good.replace("Basic ", "Basic")] {
            assert!(check.authenticate(&headers(&[broken])).is_none(), "{broken}");
        }
        let endless = format!("Basic {}", "A".repeat(MAX_ENCODED));
        assert!(check.authenticate(&headers(&[&endless])).is_none());
    }

    proptest! {
        #[test]
        fn no_header_value_panics_or_gets_in(value in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
                prop_assert!(check("user", "right").authenticate(&headers).is_none());
            }
        }

        #[test]
        fn the_right_credentials_always_get_in(username in "[^:\\x00-\\x1f]{1,40}", password in "\\PC{1,40}") {
            let headers = headers(&[&basic(&format!("{username}:{password}"))]);
            prop_assert!(check(&username, &password).authenticate(&headers).is_some());
        }
    }
}
