//! Following redirects (RFC 9110, section 15.4).
//!
//! What goes to another origin than the definition's is a bare request: the fields that describe what is asked
//! for and nothing that could be a credential, whoever put it there.

use crosstie_model::definition::Redirects;
use crosstie_model::outgoing::{OutgoingError, Trouble};
use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, LOCATION, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use url::Url;

use super::body::SendBody;
use super::exchange::Outbound;
use super::origin::Origin;

/// Most redirects in a row.
pub(crate) const MAX_REDIRECTS: u32 = 10;

/// Fields that go along to another origin.
const HARMLESS: [HeaderName; 7] = [
    ACCEPT,
    ACCEPT_LANGUAGE,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_TYPE,
    HeaderName::from_static("traceparent"),
    USER_AGENT,
];

/// Where a redirect leads.
#[derive(Debug)]
pub(crate) struct Hop {
    /// The method to go on with.
    pub(crate) method: Method,
    /// Path and query there.
    pub(crate) target: PathAndQuery,
    /// The origin.
    pub(crate) origin: Origin,
    /// Whether the body goes along.
    pub(crate) keeps_body: bool,
}

/// The next hop after an answer to `method` at `target` of `here`, if the answer is a redirect that `policy`
/// follows. `home` is the definition's origin.
///
/// # Errors
/// It is one, and leads nowhere.
pub(crate) fn next(
    policy: Redirects,
    home: &Origin,
    here: &Origin,
    method: &Method,
    target: &str,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<Hop>, OutgoingError> {
    if policy == Redirects::None {
        return Ok(None);
    }
    let (method, keeps_body) = match (status.as_u16(), method) {
        // What every client does, whatever the method was (RFC 9110, sections 15.4.2 and 15.4.3).
        (301 | 302, &Method::POST) => (Method::GET, false),
        (303, method) if method != Method::HEAD => (Method::GET, false),
        (301 | 302 | 303 | 307 | 308, method) => (method.clone(), true),
        _ => return Ok(None),
    };
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    let lost = |why: &str| OutgoingError::new(Trouble::Redirect, format!("{here} redirects {why}"));
    let location = location.to_str().map_err(|_| lost("to what is no address"))?;
    let base = Url::parse(&format!("{here}{target}")).map_err(|_| lost("from what is no address"))?;
    let url = base.join(location).map_err(|_| lost("to what is no address"))?;
    let origin = Origin::of(&url).map_err(|_| lost("to what is not HTTP"))?;
    if here.is_tls() && !origin.is_tls() {
        return Err(lost("from an encrypted address to a plain one"));
    }
    if policy == Redirects::SameOrigin && !origin.is_same(home) {
        return Ok(None);
    }
    let mut target = url.path().to_owned();
    if let Some(query) = url.query() {
        target.push('?');
        target.push_str(query);
    }
    let target = target.parse().map_err(|_| lost("to what is no address"))?;
    Ok(Some(Hop { method, target, origin, keeps_body }))
}

/// The request of the next hop; `None` when its body cannot be sent again.
pub(crate) fn onward(request: &Outbound, hop: &Hop, home: &Origin) -> Option<Outbound> {
    let body = if hop.keeps_body { request.body.again()? } else { SendBody::Done };
    let mut headers = if hop.origin.is_same(home) {
        request.headers.clone()
    } else {
        let kept = |name: &HeaderName| Some((name.clone(), request.headers.get(name)?.clone()));
        HARMLESS.iter().filter_map(kept).collect()
    };
    if !hop.keeps_body {
        for name in [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE] {
            headers.remove(name);
        }
    }
    Some(Outbound { method: hop.method.clone(), target: hop.target.clone(), headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::HeaderValue;

    fn origin(text: &str) -> Origin {
        Origin::of(&Url::parse(text).unwrap()).unwrap()
    }

    fn follow(
        policy: Redirects,
        method: &Method,
        status: u16,
        location: &str,
    ) -> Result<Option<Hop>, OutgoingError> {
        let home = origin("https://crm.example");
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(location).unwrap())]);
        next(policy, &home, &home, method, "/a/b?c", StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn only_what_the_policy_allows_is_followed() {
        let (get, post) = (Method::GET, Method::POST);
        assert!(follow(Redirects::None, &get, 302, "/x").unwrap().is_none());
        assert!(follow(Redirects::SameOrigin, &get, 302, "https://other.example/x").unwrap().is_none());
        assert!(follow(Redirects::Any, &get, 304, "/x").unwrap().is_none());
        let hop = follow(Redirects::SameOrigin, &post, 307, "x?y=1").unwrap().unwrap();
        assert_eq!((hop.target.as_str(), hop.method, hop.keeps_body), ("/a/x?y=1", Method::POST, true));
        let hop = follow(Redirects::Any, &post, 302, "https://other.example").unwrap().unwrap();
        assert_eq!((hop.target.as_str(), hop.method, hop.keeps_body), ("/", Method::GET, false));
    }

    #[test]
    fn a_redirect_to_nowhere_is_an_error() {
        for location in ["http://crm.example/x", "ftp://crm.example/x", "https://"] {
            assert!(follow(Redirects::Any, &Method::GET, 302, location).is_err(), "{location}");
        }
    }

    #[test]
    fn nothing_that_could_be_a_credential_goes_to_another_origin() {
        let home = origin("https://crm.example");
        let mut headers = HeaderMap::new();
        for name in ["authorization", "cookie", "x-api-key", "x-tenant", "accept", "traceparent"] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        let body = SendBody::Full(Bytes::from_static(b"x"));
        let request = Outbound { method: Method::PUT, target: PathAndQuery::from_static("/"), headers, body };
        let hop = follow(Redirects::Any, &Method::PUT, 307, "https://other.example/").unwrap().unwrap();
        let onward = onward(&request, &hop, &home).unwrap();
        let mut names: Vec<_> = onward.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "traceparent"]);
    }
}
