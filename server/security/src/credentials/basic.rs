//! HTTP Basic authentication (RFC 7617).

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use crosstie_model::definition::BasicAuth;
use crosstie_model::message::Principal;
use crosstie_model::refusal::RefusalReason;
use crosstie_model::secret::SecretValue;
use http::header::AUTHORIZATION;

use super::authenticator::Verdict;
use super::comparison::Expected;
use super::denial::Denial;
use super::presented::Presented;

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

    /// Lets in a request that has exactly one Authorization field, and that is right. Both comparisons are
    /// always made: a wrong user name takes as long as a wrong password.
    pub(super) fn authenticate(&self, presented: &Presented<'_>) -> Verdict {
        let mut fields = presented.headers.get_all(AUTHORIZATION).iter();
        let (first, second) = (fields.next(), fields.next());
        let Some(field) = first.filter(|field| second.is_some() || has_scheme(field.as_bytes())) else {
            return Err(self.denial(RefusalReason::Missing));
        };
        let malformed = || self.denial(RefusalReason::Malformed);
        if second.is_some() {
            return Err(malformed());
        }
        let credentials = decode(field.as_bytes()).ok_or_else(malformed)?;
        let credentials = credentials.expose();
        let colon = credentials.iter().position(|byte| *byte == b':').ok_or_else(malformed)?;
        let (username, rest) = credentials.split_at_checked(colon).ok_or_else(malformed)?;
        let password = rest.get(1..).ok_or_else(malformed)?;
        let right = self.username.matches(username) & self.password.matches(password);
        if bool::from(right) {
            Ok(Arc::clone(&self.principal))
        } else {
            Err(self.denial(RefusalReason::Wrong))
        }
    }

    fn denial(&self, reason: RefusalReason) -> Denial {
        Denial::unauthorized(reason, self.challenge.as_str())
    }
}

/// Whether the field speaks of this scheme, whatever its case, and not of another.
fn has_scheme(field: &[u8]) -> bool {
    let name = field.split(|byte| *byte == b' ').next().unwrap_or_default();
    name.eq_ignore_ascii_case(b"basic")
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
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    fn check(username: &str, password: &str) -> BasicCheck {
        let body: BasicAuth =
            serde_json::from_value(serde_json::json!({"username": username, "realm": "crm"})).unwrap();
        let principal = Arc::new(Principal::new("crm", "basic_auth").named(username));
        BasicCheck::new(&body, &SecretValue::new(password.as_bytes()), principal)
    }

    fn ask(check: &BasicCheck, values: &[&str]) -> Result<Arc<Principal>, RefusalReason> {
        let headers =
            values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect();
        check.authenticate(&Presented::now(&headers, &[])).map_err(|denial| denial.reason)
    }

    fn basic(credentials: &str) -> String {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials))
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let check = check("Aladdin", "open sesame");
        let principal = ask(&check, &["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]).unwrap();
        assert_eq!(principal.username.as_deref(), Some("Aladdin"));
        assert!(ask(&check, &["bAsIc  QWxhZGRpbjpvcGVuIHNlc2FtZQ"]).is_ok());
        let denial = check.authenticate(&Presented::now(&HeaderMap::new(), &[])).unwrap_err();
        assert_eq!(denial.challenge.as_deref(), Some(r#"Basic realm="crm", charset="UTF-8""#));
    }

    #[test]
    fn names_and_passwords_are_utf_8_and_a_password_may_hold_colons() {
        // RFC 7617, section 2.1: "test" and "123£".
        assert!(ask(&check("test", "123£"), &["Basic dGVzdDoxMjPCow=="]).is_ok());
        assert!(ask(&check("a", "b:c:"), &[&basic("a:b:c:")]).is_ok());
    }

    #[test]
    fn anything_else_is_refused() {
        let check = check("user", "right");
        for wrong in ["user:wrong", "other:right", "user:", ":right", "user:right ", "USER:right"] {
            assert_eq!(ask(&check, &[&basic(wrong)]), Err(RefusalReason::Wrong), "{wrong}");
        }
        let good = basic("user:right");
        assert!(ask(&check, &[&good]).is_ok());
        assert_eq!(ask(&check, &[&good, &good]), Err(RefusalReason::Malformed), "several fields");
        for absent in [&[][..], &["Bearer x"], &["Basics x"], &[&good.replace("Basic ", "Basic")]] {
            assert_eq!(ask(&check, absent), Err(RefusalReason::Missing), "{absent:?}");
        }
        let endless = format!("Basic {}", "A".repeat(MAX_ENCODED));
        for broken in ["Basic", "Basic ", "Basic !!!", &basic("user"), &basic(""), &endless] {
            assert_eq!(ask(&check, &[broken]), Err(RefusalReason::Malformed), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn no_header_value_panics_or_gets_in(value in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
                prop_assert!(check("user", "right").authenticate(&Presented::now(&headers, &[])).is_err());
            }
        }

        #[test]
        fn the_right_credentials_always_get_in(username in "[^:\\x00-\\x1f]{1,40}", password in "\\PC{1,40}") {
            let sent = basic(&format!("{username}:{password}"));
            prop_assert!(ask(&check(&username, &password), &[&sent]).is_ok());
        }
    }
}
