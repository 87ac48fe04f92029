//! Header fields that belong to one connection and go no further (RFC 9110, section 7.6.1).

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields of a request that the connection it goes out on decides.
const OF_REQUESTS: [HeaderName; 11] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HOST,
    CONTENT_LENGTH,
    EXPECT,
];

/// Fields of an answer that concern the connection it came in on.
const OF_ANSWERS: [HeaderName; 6] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Leaves out of a request what its connection decides.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    strip(headers, &OF_REQUESTS);
}

/// Leaves out of an answer what its connection decided.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    strip(headers, &OF_ANSWERS);
}

fn strip(headers: &mut HeaderMap, names: &[HeaderName]) {
    if headers.is_empty() {
        return;
    }
    if headers.contains_key(CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in listed {
            headers.remove(name);
        }
    }
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_belongs_to_a_connection_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("host", "elsewhere"),
            ("x-kept", "1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut answer = headers.clone();
        strip_request(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-kept"]);
        strip_answer(&mut answer);
        assert!(answer.contains_key(CONTENT_LENGTH) && !answer.contains_key("x-hop"));
    }
}
