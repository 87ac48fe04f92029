//! Header fields on their way through.

use std::net::IpAddr;

use crosstie_model::definition::{ApiKeyLocation, HeaderChanges, SecurityDefinition};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields that are set and removed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl Changes {
    /// Those of a definition, whose names and values were checked with it.
    pub(super) fn of(changes: &HeaderChanges) -> Self {
        let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).ok();
        Self {
            set: changes
                .set
                .iter()
                .filter_map(|(field, value)| Some((name(field)?, HeaderValue::from_str(value).ok()?)))
                .collect(),
            remove: changes.remove.iter().filter_map(name).collect(),
        }
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}

/// Where callers show credentials to the channel. What is shown there goes no further: it is the channel's own, and
/// the other system has its own.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    headers: Vec<HeaderName>,
    parameters: Vec<String>,
}

impl Withheld {
    /// Where credentials of these definitions stand.
    pub(super) fn of<'d>(definitions: impl Iterator<Item = &'d SecurityDefinition>) -> Self {
        let mut withheld = Self::default();
        for definition in definitions {
            match definition {
                SecurityDefinition::ApiKey(key) => match key.r#in {
                    ApiKeyLocation::Header => {
                        withheld.headers.extend(HeaderName::from_bytes(key.name.as_bytes()).ok());
                    }
                    ApiKeyLocation::Query => withheld.parameters.push(key.name.clone()),
                },
                SecurityDefinition::ClientCertificate(_) => {}
                _ => withheld.headers.push(AUTHORIZATION),
            }
        }
        withheld
    }

    pub(super) fn remove_from(&self, headers: &mut HeaderMap) {
        for name in &self.headers {
            headers.remove(name);
        }
    }

    /// Appends a query as it came to `target`, without what is withheld.
    pub(super) fn append_query(&self, target: &mut String, query: &str) {
        let is_withheld = |pair: &str| {
            let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
            let name = percent_decode_str(&name).decode_utf8_lossy();
            self.parameters.iter().any(|withheld| *withheld == name)
        };
        let kept = |pair: &&str| self.parameters.is_empty() || !is_withheld(pair);
        for pair in query.split('&').filter(|pair| !pair.is_empty()).filter(kept) {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(pair);
        }
    }
}

/// Tells the other system who asked, of which host, and how (the fields that proxies agreed on). What stands there
/// already was put there by somebody who is trusted.
pub(super) fn tell_forwarded(headers: &mut HeaderMap, peer: IpAddr, client: IpAddr, secure: bool) {
    let seen = match headers.get(FORWARDED_FOR).and_then(|value| value.to_str().ok()) {
        Some(before) => format!("{before}, {peer}"),
        None => client.to_string(),
    };
    if let Ok(value) = HeaderValue::from_str(&seen) {
        headers.insert(FORWARDED_FOR, value);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if secure { "https" } else { "http" }));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_is_told_after_whoever_is_trusted() {
        let (peer, client): (IpAddr, IpAddr) = ("10.0.0.2".parse().unwrap(), "192.0.2.7".parse().unwrap());
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("api.example"))]);
        tell_forwarded(&mut headers, client, client, true);
        assert_eq!(
            (&headers[FORWARDED_FOR], &headers[FORWARDED_PROTO]),
            (&"192.0.2.7".parse().unwrap(), &"https".parse().unwrap())
        );
        assert_eq!(headers[FORWARDED_HOST], "api.example");
        let mut headers = HeaderMap::from_iter([(FORWARDED_FOR, HeaderValue::from_static("192.0.2.7"))]);
        tell_forwarded(&mut headers, peer, client, false);
        assert_eq!(headers[FORWARDED_FOR], "192.0.2.7, 10.0.0.2");
    }

    #[test]
    fn a_query_loses_what_is_withheld_and_nothing_else() {
        let withheld = Withheld { headers: Vec::new(), parameters: vec!["api key".into()] };
        for (query, expected) in
            [("a=1&api+key=s&b=%20", "/x?a=1&b=%20"), ("api%20key=s", "/x"), ("", "/x"), ("a&&b", "/x?a&b")]
        {
            let mut target = "/x".to_owned();
            withheld.append_query(&mut target, query);
            assert_eq!(target, expected);
        }
    }
}
