//! API keys: one secret text in a header or a query parameter.

use std::sync::Arc;

use crosstie_model::definition::{ApiKey, ApiKeyLocation};
use crosstie_model::message::Principal;
use crosstie_model::secret::SecretValue;
use http::HeaderMap;

use super::comparison::Expected;

/// One key and where it is expected.
#[derive(Debug)]
pub(super) struct ApiKeyCheck {
    location: ApiKeyLocation,
    name: String,
    key: Expected,
    challenge: String,
    principal: Arc<Principal>,
}

impl ApiKeyCheck {
    pub(super) fn new(body: &ApiKey, key: &SecretValue, principal: Arc<Principal>) -> Self {
        let place = match body.r#in {
            ApiKeyLocation::Header => "header",
            ApiKeyLocation::Query => "query",
        };
        Self {
            location: body.r#in,
            name: body.name.clone(),
            key: Expected::new(key.expose()),
            // RFC 9110, section 15.5.2: a 401 must carry a challenge. No scheme is registered for keys, so
            // it says what is missing; the name's pattern excludes quotes.
            challenge: format!("ApiKey realm=\"crosstie\", in=\"{place}\", name=\"{}\"", body.name),
            principal,
        }
    }

    pub(super) fn challenge(&self) -> &str {
        &self.challenge
    }

    /// The principal, if the request has exactly one such header or parameter and it holds the key.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        query: &[(String, String)],
    ) -> Option<Arc<Principal>> {
        let right = match self.location {
            ApiKeyLocation::Header => {
                self.matches_only(headers.get_all(self.name.as_str()).iter().map(|value| value.as_bytes()))
            }
            ApiKeyLocation::Query => {
                let named = query.iter().filter(|(name, _)| *name == self.name);
                self.matches_only(named.map(|(_, value)| value.as_bytes()))
            }
        };
        right.then(|| Arc::clone(&self.principal))
    }

    /// Two keys in one request are refused even if both are right: which one a proxy in front checked is
    /// anybody's guess.
    fn matches_only<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        match (values.next(), values.next()) {
            (Some(value), None) => bool::from(self.key.matches(value)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn check(location: &str, name: &str) -> ApiKeyCheck {
        let body = serde_json::from_value(serde_json::json!({"in": location, "name": name})).unwrap();
        let principal = Arc::new(Principal { definition: "k".into(), kind: "api_key", username: None });
        ApiKeyCheck::new(&body, &SecretValue::new(b"s3cret".as_slice()), principal)
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn query(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_key_in_a_header_is_found_whatever_the_case_of_its_name() {
        let check = check("header", "X-API-Key");
        assert!(check.authenticate(&headers(&[("x-api-key", "s3cret")]), &[]).is_some());
        assert!(check.authenticate(&headers(&[("x-api-key", "s3cres")]), &[]).is_none());
        assert!(check.authenticate(&headers(&[]), &query(&[("X-API-Key", "s3cret")])).is_none());
        assert_eq!(check.challenge(), r#"ApiKey realm="crosstie", in="header", name="X-API-Key""#);
    }

    #[test]
    fn a_key_in_the_query_is_found_by_its_exact_name() {
        let check = check("query", "key");
        assert!(check.authenticate(&headers(&[]), &query(&[("a", "b"), ("key", "s3cret")])).is_some());
        assert!(check.authenticate(&headers(&[]), &query(&[("KEY", "s3cret")])).is_none());
        assert!(check.authenticate(&headers(&[("key", "s3cret")]), &[]).is_none());
    }

    #[test]
    fn several_keys_are_refused_even_when_one_is_right() {
        let twice = headers(&[("x-api-key", "s3cret"), ("x-api-key", "s3cret")]);
        assert!(check("header", "X-API-Key").authenticate(&twice, &[]).is_none());
        let twice = query(&[("key", "s3cret"), ("key", "other")]);
        assert!(check("query", "key").authenticate(&headers(&[]), &twice).is_none());
    }
}
