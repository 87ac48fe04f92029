//! Cross-origin requests (Fetch standard, section 3.2). The browser enforces; the server only answers which
//! origins, methods and headers a channel allows. Without a `cors` entry no such header is sent, and browsers
//! refuse. Preflights need no credentials: browsers never send any with them.

use crosstie_model::definition::Cors;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

/// A channel's rules, with header values made beforehand.
#[derive(Debug)]
pub(crate) struct CorsRules {
    origins: Vec<String>,
    any: bool,
    credentials: bool,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

impl CorsRules {
    pub(crate) fn new(cors: &Cors) -> Self {
        let list = |names: &[String]| {
            (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(", ")).ok()).flatten()
        };
        let any = cors.origins.iter().any(|origin| origin == "*");
        Self {
            origins: cors.origins.clone(),
            any,
            // The standard forbids both together; the check refuses such a definition.
            credentials: cors.credentials && !any,
            headers: list(&cors.headers),
            expose: list(&cors.expose),
            max_age: HeaderValue::from(cors.max_age_s),
        }
    }

    /// What to tell the request's origin, if it is allowed.
    pub(crate) fn allow(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let origin = request.get(ORIGIN)?;
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        self.origins.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }

    /// Adds the headers of an actual response. `allowed` comes from [`CorsRules::allow`].
    pub(crate) fn write(&self, allowed: Option<HeaderValue>, headers: &mut HeaderMap) {
        if !self.any {
            // The answer differs by origin, whoever asks; caches must know.
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = allowed else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    /// Adds the headers of a preflight's answer.
    pub(crate) fn write_preflight(
        &self,
        request: &HeaderMap,
        methods: &HeaderValue,
        headers: &mut HeaderMap,
    ) {
        let allowed = self.allow(request);
        let known = allowed.is_some();
        self.write(allowed, headers);
        headers.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
        if known {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
            headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            if let Some(names) = &self.headers {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(origins: &[&str], credentials: bool) -> CorsRules {
        CorsRules::new(&Cors {
            origins: origins.iter().map(|o| (*o).to_owned()).collect(),
            headers: vec!["X-One".into(), "X-Two".into()],
            expose: vec!["X-Crosstie-CID".into()],
            credentials,
            max_age_s: 60,
        })
    }

    fn from(origin: &str) -> HeaderMap {
        [(ORIGIN, origin.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn a_listed_origin_is_allowed_and_another_learns_nothing() {
        let rules = rules(&["https://app.example"], true);
        let mut headers = HeaderMap::new();
        rules.write(rules.allow(&from("https://app.example")), &mut headers);
        assert_eq!(headers["access-control-allow-origin"], "https://app.example");
        assert_eq!(headers["access-control-allow-credentials"], "true");
        assert_eq!(headers["access-control-expose-headers"], "X-Crosstie-CID");
        assert_eq!(headers["vary"], "origin");

        let mut headers = HeaderMap::new();
        rules.write(rules.allow(&from("https://evil.example")), &mut headers);
        assert_eq!(headers.len(), 1, "{headers:?}");
    }

    #[test]
    fn a_preflight_learns_methods_headers_and_age() {
        let rules = rules(&["*"], true);
        let mut headers = HeaderMap::new();
        rules.write_preflight(&from("https://any"), &HeaderValue::from_static("GET, POST"), &mut headers);
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert_eq!(headers["access-control-allow-methods"], "GET, POST");
        assert_eq!(headers["access-control-allow-headers"], "X-One, X-Two");
        assert_eq!(headers["access-control-max-age"], "60");
        assert!(!headers.contains_key("access-control-allow-credentials"));
    }
}
