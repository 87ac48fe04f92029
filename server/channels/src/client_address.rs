//! Who the client is when proxies stand between: `X-Forwarded-For` and `X-Forwarded-Proto` are believed from
//! trusted proxies only.
//!
//! Each proxy appends the address it saw, so the list is read from its end: the last entry that is no trusted
//! proxy is the client. What a client itself put in front is never reached.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The networks whose forwarding headers are believed.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        Self(networks.to_vec())
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address, and whether its hop was encrypted.
    pub(crate) fn client(&self, peer: IpAddr, secure: bool, headers: &HeaderMap) -> (IpAddr, bool) {
        if self.0.is_empty() || !self.trusts(peer) {
            return (peer, secure);
        }
        let mut client = peer;
        let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
        for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            // An entry that is no address ends the chain: nothing before it can be believed.
            let Some(address) = parse_address(entry) else { break };
            client = address;
            if !self.trusts(address) {
                break;
            }
        }
        let proto = headers.get_all(FORWARDED_PROTO).iter().next_back().and_then(|value| value.to_str().ok());
        let secure = match proto.and_then(|text| text.rsplit(',').next()).map(str::trim) {
            Some(text) if text.eq_ignore_ascii_case("https") => true,
            Some(text) if text.eq_ignore_ascii_case("http") => false,
            _ => secure,
        };
        (client, secure)
    }
}

/// An address, with a port or in brackets as some proxies write it.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let address = entry
        .parse::<IpAddr>()
        .ok()
        .or_else(|| entry.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], proto: Option<&str>) -> (String, bool) {
        let proxies = TrustedProxies::new(&["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        if let Some(proto) = proto {
            headers.append(FORWARDED_PROTO, proto.parse().unwrap());
        }
        let (address, secure) = proxies.client(peer.parse().unwrap(), false, &headers);
        (address.to_string(), secure)
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"], Some("https")), ("192.0.2.1".into(), false));
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7"], Some("https")), ("198.51.100.7".into(), true));
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.2.3.4"], None).0, "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "198.51.100.7"], None).0, "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["198.51.100.7:4711"], None).0, "198.51.100.7");
        assert_eq!(client("fd00::1", &["[2001:db8::1]:80"], None).0, "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"], None).0, "2001:db8::1");
    }

    #[test]
    fn without_a_usable_header_the_proxy_is_the_client() {
        assert_eq!(client("10.0.0.1", &[], None).0, "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["nonsense"], None).0, "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.9"], None).0, "10.0.0.9");
    }
}
