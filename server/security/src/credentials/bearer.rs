//! Bearer tokens in requests, and what is answered to wrong ones (RFC 6750).

use crosstie_model::FailureKind;
use crosstie_model::definition::TokenRules;
use crosstie_model::refusal::RefusalReason;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::denial::Denial;

/// Longest token, in bytes: what a head may have beside it by default.
const MAX_TOKEN: usize = 32 * 1024;

/// How one definition answers.
#[derive(Debug)]
pub(super) struct BearerScheme {
    realm: String,
    /// The scopes that are demanded, as `scope` in challenges; empty for none.
    scope: String,
}

impl BearerScheme {
    pub(super) fn new(rules: &TokenRules) -> Self {
        Self { realm: rules.realm.clone(), scope: rules.scopes.join(" ") }
    }

    /// The token of a request that has exactly one Authorization field, and that of this scheme.
    pub(super) fn token<'r>(&self, headers: &'r HeaderMap) -> Result<&'r str, Denial> {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let Some(first) = fields.next() else { return Err(self.missing()) };
        // Section 2: clients must not use more than one method to send a token.
        let is_alone = fields.next().is_none();
        let (scheme, rest) = split(first.as_bytes());
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            return Err(if is_alone { self.missing() } else { self.malformed() });
        }
        let token = rest.trim_ascii();
        let is_token = is_alone && token.len() <= MAX_TOKEN && is_b64token(token);
        let token = std::str::from_utf8(token).ok().filter(|_| is_token);
        token.ok_or_else(|| self.malformed())
    }

    /// Section 3: without any credentials a challenge says nothing of an error.
    fn missing(&self) -> Denial {
        Denial::unauthorized(RefusalReason::Missing, format!("Bearer realm=\"{}\"", self.realm))
    }

    fn malformed(&self) -> Denial {
        let text = "The bearer token is malformed, or there is more than one way of authorization";
        self.denial(FailureKind::BadRequest, RefusalReason::Malformed, "invalid_request", text)
    }

    /// The answer to a token that is refused for `reason`. `username` is whose it is, where that is certain.
    pub(super) fn refuse(&self, reason: RefusalReason, username: Option<String>) -> Denial {
        let mut denial = match reason {
            RefusalReason::Unavailable => Denial::unavailable(None),
            RefusalReason::Scope => {
                let text = "The token does not allow this";
                let mut denial = self.denial(FailureKind::Forbidden, reason, "insufficient_scope", text);
                if let Some(challenge) = denial.challenge.as_mut().filter(|_| !self.scope.is_empty()) {
                    challenge.push_str(&format!(", scope=\"{}\"", self.scope));
                }
                denial
            }
            reason => self.denial(FailureKind::Unauthorized, reason, "invalid_token", text_of(reason)),
        };
        denial.username = username;
        denial
    }

    fn denial(&self, kind: FailureKind, reason: RefusalReason, error: &str, text: &'static str) -> Denial {
        // The texts here, realms and scopes have no quotes and no backslashes.
        let challenge =
            format!("Bearer realm=\"{}\", error=\"{error}\", error_description=\"{text}\"", self.realm);
        let mut denial = Denial::unauthorized(reason, challenge);
        denial.kind = kind;
        denial.text = Some(text);
        denial
    }
}

/// What the bearer is told. Which of several claims was wrong is nobody's business.
fn text_of(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Expired => "The token expired",
        RefusalReason::NotYetValid => "The token is not valid yet",
        RefusalReason::Revoked => "The token is not active",
        RefusalReason::Malformed => "The token cannot be read",
        RefusalReason::Issuer | RefusalReason::Audience | RefusalReason::Claims => {
            "The token is not for this"
        }
        _ => "The token is not valid",
    }
}

fn split(field: &[u8]) -> (&[u8], &[u8]) {
    let end = field.iter().position(|byte| *byte == b' ').unwrap_or(field.len());
    field.split_at(end)
}

/// `b64token` (section 2.1).
fn is_b64token(token: &[u8]) -> bool {
    let body = token.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    body > 0 && token.iter().take(body).all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn scheme() -> BearerScheme {
        BearerScheme { realm: "shop".into(), scope: "read write".into() }
    }

    fn headers(values: &[&[u8]]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_bytes(value).unwrap())).collect()
    }

    #[test]
    fn a_token_is_what_follows_the_scheme() {
        for (field, token) in
            [("Bearer mF_9.B5f-4.1JqM", "mF_9.B5f-4.1JqM"), ("bEARER   a==", "a=="), ("Bearer ~+/ ", "~+/")]
        {
            assert_eq!(scheme().token(&headers(&[field.as_bytes()])).unwrap(), token);
        }
    }

    #[test]
    fn what_is_no_token_is_told_apart_from_none() {
        for none in [&[][..], &[&b"Basic YTpi"[..]], &[b"Bearers a"], &[b"Token a"]] {
            let denial = scheme().token(&headers(none)).unwrap_err();
            assert_eq!((denial.kind, denial.reason), (FailureKind::Unauthorized, RefusalReason::Missing));
            assert_eq!(denial.challenge.as_deref(), Some("Bearer realm=\"shop\""), "no error is named");
        }
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        for broken in [
            &[&b"Bearer"[..]][..],
            &[b"Bearer "],
            &[b"Bearer ="],
            &[b"Bearer a=b"],
            &[b"Bearer a b"],
            &[b"Bearer a,b"],
            &[b"Bearer \"a\""],
            &[b"Bearer \xff"],
            &[b"Bearer a", b"Bearer a"],
            &[b"Basic YTpi", b"Bearer a"],
            &[long.as_bytes()],
        ] {
            let denial = scheme().token(&headers(broken)).unwrap_err();
            assert_eq!((denial.kind, denial.reason), (FailureKind::BadRequest, RefusalReason::Malformed));
            let challenge = denial.challenge.unwrap();
            assert!(
                challenge.starts_with("Bearer realm=\"shop\", error=\"invalid_request\", "),
                "{challenge}"
            );
        }
    }

    #[test]
    fn refusals_are_those_of_the_rfc() {
        let expired = scheme().refuse(RefusalReason::Expired, Some("ada".into()));
        assert_eq!(expired.kind, FailureKind::Unauthorized);
        assert_eq!(
            expired.challenge.as_deref(),
            Some("Bearer realm=\"shop\", error=\"invalid_token\", error_description=\"The token expired\"")
        );
        assert_eq!(expired.username.as_deref(), Some("ada"));
        let scope = scheme().refuse(RefusalReason::Scope, None);
        assert_eq!(scope.kind, FailureKind::Forbidden);
        assert_eq!(
            scope.challenge.as_deref(),
            Some(
                "Bearer realm=\"shop\", error=\"insufficient_scope\", \
                 error_description=\"The token does not allow this\", scope=\"read write\""
            )
        );
        let away = scheme().refuse(RefusalReason::Unavailable, None);
        assert_eq!((away.kind, away.challenge), (FailureKind::Unavailable, None));
    }

    proptest! {
        #[test]
        fn no_field_panics_and_what_comes_out_is_a_token(value in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ".as_slice(), &value].concat()) {
                let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
                if let Ok(token) = scheme().token(&headers) {
                    prop_assert!(!token.is_empty() && !token.contains([' ', '"', ',']));
                }
            }
        }
    }
}
