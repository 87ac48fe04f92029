//! Who the client is when proxies stand between: `X-Forwarded-For` and `X-Forwarded-Proto` are believed from
//! trusted proxies and the cluster's load balancers only, and what a load balancer says of a client's
//! certificate (`X-SSL-Client-…`) from nobody but a load balancer. From others such headers are removed, so
//! that no service takes hearsay for the truth.
//!
//! Each proxy appends the address it saw, so the list is read from its end: the last entry that is no trusted
//! proxy is the client. What a client itself put in front is never reached.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::handle::Peer;
use crate::server::Transport;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What the headers that describe a client's certificate begin with.
const CERTIFICATE: &str = "x-ssl-client";
/// What the headers that describe a client's connection begin with.
const FORWARDED: [&str; 2] = ["x-forwarded-", "forwarded"];

/// Who is at the other end of a connection, as far as its handshake told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Neighbour {
    /// Anybody.
    Anybody,
    /// A load balancer of the cluster.
    LoadBalancer,
}

impl Neighbour {
    /// Who may have connected over `transport`.
    pub(crate) fn behind(transport: &Transport) -> Self {
        match transport {
            Transport::Plain | Transport::Tls(_) => Self::Anybody,
            Transport::LoadBalancer(_) => Self::LoadBalancer,
        }
    }
}

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

    fn believes(&self, peer: IpAddr, neighbour: Neighbour) -> bool {
        neighbour == Neighbour::LoadBalancer || (!self.0.is_empty() && self.trusts(peer))
    }

    /// Removes what `peer` says of clients and is not believed. Costs one look at each name.
    pub(crate) fn remove_hearsay(&self, peer: &Peer, headers: &mut HeaderMap) {
        self.remove(peer.address, peer.neighbour, headers);
    }

    fn remove(&self, peer: IpAddr, neighbour: Neighbour, headers: &mut HeaderMap) {
        if neighbour == Neighbour::LoadBalancer {
            return;
        }
        let believed = self.believes(peer, neighbour);
        let hearsay = |name: &&HeaderName| {
            let name = name.as_str();
            begins(name, CERTIFICATE) || (!believed && FORWARDED.iter().any(|prefix| begins(name, prefix)))
        };
        // Nearly always there is none, and nothing is allocated.
        while let Some(name) = headers.keys().find(hearsay).cloned() {
            headers.remove(name);
        }
    }

    /// The client's address, and whether its hop was encrypted.
    pub(crate) fn client(&self, peer: &Peer, headers: &HeaderMap) -> (IpAddr, bool) {
        self.client_behind(peer.address, peer.neighbour, peer.secure, headers)
    }

    fn client_behind(
        &self,
        peer: IpAddr,
        neighbour: Neighbour,
        secure: bool,
        headers: &HeaderMap,
    ) -> (IpAddr, bool) {
        if !self.believes(peer, neighbour) {
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

/// Whether `name` begins with `prefix`. An underscore counts as a hyphen: what services hand headers on to, such
/// as anything in the manner of CGI, may not tell them apart.
fn begins(name: &str, prefix: &str) -> bool {
    let same = |(byte, wanted): (u8, u8)| byte == wanted || (byte == b'_' && wanted == b'-');
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(same)
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
        let anybody = Neighbour::Anybody;
        let (address, secure) = proxies.client_behind(peer.parse().unwrap(), anybody, false, &headers);
        (address.to_string(), secure)
    }

    fn said() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in [
            "x-forwarded-for",
            "x-forwarded-host",
            "x_forwarded_for",
            "forwarded",
            "x-ssl-client-dn",
            "x_ssl_client-verify",
            "x-ssl-client-cert",
        ] {
            headers.append(HeaderName::from_static(name), "192.0.2.9".parse().unwrap());
        }
        headers.append("host", "a".parse().unwrap());
        headers
    }

    fn left(peer: &str, neighbour: Neighbour) -> Vec<String> {
        let proxies = TrustedProxies::new(&["10.0.0.0/8".parse().unwrap()]);
        let mut headers = said();
        proxies.remove(peer.parse().unwrap(), neighbour, &mut headers);
        let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_stranger_says_of_clients_reaches_no_service() {
        assert_eq!(left("192.0.2.1", Neighbour::Anybody), ["host"]);
        let proxy = left("10.0.0.1", Neighbour::Anybody);
        assert_eq!(proxy, ["forwarded", "host", "x-forwarded-for", "x-forwarded-host", "x_forwarded_for"]);
        assert_eq!(left("192.0.2.1", Neighbour::LoadBalancer).len(), 8);
    }

    #[test]
    fn a_load_balancer_is_believed_wherever_it_connects_from() {
        let client = |neighbour| {
            let peer = "192.0.2.1".parse().unwrap();
            TrustedProxies::default().client_behind(peer, neighbour, true, &said()).0.to_string()
        };
        assert_eq!(client(Neighbour::LoadBalancer), "192.0.2.9");
        assert_eq!(client(Neighbour::Anybody), "192.0.2.1");
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
