//! API keys: one secret text in a header or a query parameter.

use std::sync::Arc;

use crosstie_model::definition::{ApiKey, ApiKeyLocation};
use crosstie_model::message::Principal;
use crosstie_model::refusal::RefusalReason;
use crosstie_model::secret::SecretValue;

use super::authenticator::Verdict;
use super::comparison::Expected;
use super::denial::Denial;
use super::presented::Presented;

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

    /// Lets in a request that has exactly one such header or parameter, and that holds the key.
    pub(super) fn authenticate(&self, presented: &Presented<'_>) -> Verdict {
        let outcome = match self.location {
            ApiKeyLocation::Header => {
                let fields = presented.headers.get_all(self.name.as_str());
                self.compare(fields.iter().map(|value| value.as_bytes()))
            }
            ApiKeyLocation::Query => {
                let named = presented.query.iter().filter(|(name, _)| *name == self.name);
                self.compare(named.map(|(_, value)| value.as_bytes()))
            }
        };
        match outcome {
            Ok(()) => Ok(Arc::clone(&self.principal)),
            Err(reason) => Err(Denial::unauthorized(reason, self.challenge.as_str())),
        }
    }

    /// Two keys in one request are refused even if both are right: which one a proxy in front checked is
    /// anybody's guess.
    fn compare<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> Result<(), RefusalReason> {
        match (values.next(), values.next()) {
            (None, _) => Err(RefusalReason::Missing),
            (Some(_), Some(_)) => Err(RefusalReason::Malformed),
            (Some(value), None) if bool::from(self.key.matches(value)) => Ok(()),
            (Some(_), None) => Err(RefusalReason::Wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderName, HeaderValue};

    fn check(location: &str, name: &str) -> ApiKeyCheck {
        let body = serde_json::from_value(serde_json::json!({"in": location, "name": name})).unwrap();
        let principal = Arc::new(Principal::new("k", "api_key"));
        ApiKeyCheck::new(&body, &SecretValue::new(b"s3cret".as_slice()), principal)
    }

    fn ask(
        check: &ApiKeyCheck,
        headers: &HeaderMap,
        query: &[(String, String)],
    ) -> Result<(), RefusalReason> {
        check.authenticate(&Presented::now(headers, query)).map(drop).map_err(|denial| denial.reason)
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
        assert_eq!(ask(&check, &headers(&[("x-api-key", "s3cret")]), &[]), Ok(()));
        assert_eq!(ask(&check, &headers(&[("x-api-key", "s3cres")]), &[]), Err(RefusalReason::Wrong));
        let elsewhere = query(&[("X-API-Key", "s3cret")]);
        assert_eq!(ask(&check, &headers(&[]), &elsewhere), Err(RefusalReason::Missing));
        let denial = check.authenticate(&Presented::now(&HeaderMap::new(), &[])).unwrap_err();
        let challenge = r#"ApiKey realm="crosstie", in="header", name="X-API-Key""#;
        assert_eq!(denial.challenge.as_deref(), Some(challenge));
    }

    #[test]
    fn a_key_in_the_query_is_found_by_its_exact_name() {
        let check = check("query", "key");
        let missing = Err(RefusalReason::Missing);
        assert_eq!(ask(&check, &headers(&[]), &query(&[("a", "b"), ("key", "s3cret")])), Ok(()));
        assert_eq!(ask(&check, &headers(&[]), &query(&[("KEY", "s3cret")])), missing);
        assert_eq!(ask(&check, &headers(&[("key", "s3cret")]), &[]), missing);
    }

    #[test]
    fn several_keys_are_refused_even_when_one_is_right() {
        let twice = headers(&[("x-api-key", "s3cret"), ("x-api-key", "s3cret")]);
        let malformed = Err(RefusalReason::Malformed);
        assert_eq!(ask(&check("header", "X-API-Key"), &twice, &[]), malformed);
        let twice = query(&[("key", "s3cret"), ("key", "other")]);
        assert_eq!(ask(&check("query", "key"), &headers(&[]), &twice), malformed);
    }
}
