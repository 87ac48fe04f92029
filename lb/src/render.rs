//! `haproxy.cfg` as a pure function of settings, certificates, snippets and servers.
//!
//! What HAProxy runs with is told apart by a digest of everything but the servers, which it shows as its
//! description: servers are changed through the runtime socket, anything else needs a reload. All paths are
//! relative to the load balancer's directory, in which HAProxy runs, and the listening sockets come by
//! descriptor, so the text depends on nothing but what is given here.

use std::fmt::Write as _;
use std::ops::Range;

use crosstie_model::names::UnitName;
use sha2::{Digest as _, Sha256};

use crate::material::Material;
use crate::member::{Place, Pool, Share};
use crate::settings::{Algorithm, LbSettings};
use crate::snippet::{Site, Snippet};

/// The backend of the servers that say they are ready.
pub const BACKEND: &str = "crosstie";
/// The backend of the same servers for as long as none says so: an answer of a server that is too busy for its
/// checks, or lacks a deployment, is better than none at all. Nothing is checked there, so whoever takes a
/// connection gets the request.
pub const FALLBACK: &str = "crosstie-fallback";
/// The frontend of service traffic.
pub const FRONTEND: &str = "crosstie-clients";
/// Environment variables by which HAProxy learns its listening descriptors and the runtime socket's path.
pub const HTTP_VARIABLE: &str = "CROSSTIE_LB_HTTP";
/// See [`HTTP_VARIABLE`].
pub const HTTPS_VARIABLE: &str = "CROSSTIE_LB_HTTPS";
/// See [`HTTP_VARIABLE`].
pub const SOCKET_VARIABLE: &str = "CROSSTIE_LB_SOCKET";
/// Weight of a server that gets new requests.
pub const FULL_WEIGHT: u32 = 100;
/// Stands for the digest until it is known.
const DIGEST_MARK: &str = "@DIGEST@";
/// The first word of the description, before the digest.
pub const DESCRIPTION: &str = "crosstie-";
/// Methods whose requests may be sent twice (RFC 9110, section 9.2.2).
const IDEMPOTENT: &str = "GET HEAD PUT DELETE OPTIONS TRACE";

/// Whom HAProxy becomes, where it is started by root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    /// Its user.
    pub user: String,
    /// Its group.
    pub group: String,
}

/// Everything a configuration is made of.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The settings.
    pub settings: &'a LbSettings,
    /// The certificates.
    pub material: &'a Material,
    /// The administrator's pieces.
    pub snippets: &'a [Snippet],
    /// The servers.
    pub pool: &'a Pool,
    /// Whom HAProxy becomes; itself when absent.
    pub privileges: Option<&'a Privileges>,
}

/// A configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text of `haproxy.cfg`.
    pub text: String,
    /// What everything but the servers amounts to, 32 hexadecimal digits.
    pub digest: String,
    /// Which lines came from a snippet.
    origins: Vec<Origin>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    first: usize,
    lines: usize,
    path: String,
}

impl Rendered {
    /// Where line `line` (from 1) of the text came from: a snippet and the line in it.
    #[must_use]
    pub fn origin(&self, line: usize) -> Option<(&str, usize)> {
        let origin = self.origins.iter().find(|it| (it.first..it.first + it.lines).contains(&line))?;
        Some((&origin.path, line - origin.first + 1))
    }
}

/// Makes the configuration.
#[must_use]
pub fn render(inputs: &Inputs<'_>) -> Rendered {
    let mut page = Page { text: String::new(), origins: Vec::new(), servers: Vec::new() };
    page.lines(
        "# Made by the Crosstie load balancer from lb.toml, lb.d and what the servers say of themselves.\n\
         # Changes here are overwritten: put yours into lb.d.",
    );
    global(&mut page, inputs);
    defaults(&mut page, inputs);
    frontend(&mut page, inputs);
    sections(&mut page, inputs);
    certificates(&mut page, inputs);
    // The digest takes of the servers what all of them have in common.
    let mut common = String::new();
    for backend in [FALLBACK, BACKEND] {
        self::backend(&mut page, inputs, backend);
        common.push_str(&server_options(inputs, backend, "NAME"));
        for (name, place) in inputs.pool {
            let first = page.text.len();
            let options = server_options(inputs, backend, name.as_str());
            page.line(&format!("server {name} {} {options} weight {}", place.address, weight(place)));
            page.servers.push(first..page.text.len());
        }
    }
    let digest = digest(&page, &common);
    let text = page.text.replacen(DIGEST_MARK, &digest, 1);
    Rendered { text, digest, origins: page.origins }
}

/// The digest of a page without its servers.
fn digest(page: &Page, common: &str) -> String {
    let mut hash = Sha256::new();
    let mut from = 0;
    for server in &page.servers {
        hash.update(page.text.get(from..server.start).unwrap_or_default());
        from = server.end;
    }
    hash.update(page.text.get(from..).unwrap_or_default());
    hash.update(common);
    let mut digest = hex::encode(hash.finalize());
    digest.truncate(32);
    digest
}

struct Page {
    text: String,
    origins: Vec<Origin>,
    /// Where the lines of servers stand in the text.
    servers: Vec<Range<usize>>,
}

impl Page {
    fn lines(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// One line of a section.
    fn line(&mut self, text: &str) {
        self.text.push_str("    ");
        self.lines(text);
    }

    fn snippets(&mut self, inputs: &Inputs<'_>, site: Site) {
        for snippet in inputs.snippets.iter().filter(|snippet| snippet.site == site) {
            let path = snippet.path().display().to_string();
            self.line(&format!("# from {path}"));
            let first = self.text.lines().count() + 1;
            self.lines(snippet.text.trim_end_matches('\n'));
            let lines = self.text.lines().count() + 1 - first;
            self.origins.push(Origin { first, lines, path });
        }
    }
}

/// The administrator's own sections. They begin with the agent's defaults, by a section of their own: HAProxy
/// warns of defaults that some name and others merely follow.
fn sections(page: &mut Page, inputs: &Inputs<'_>) {
    if inputs.snippets.iter().any(|snippet| snippet.site == Site::Sections) {
        page.lines("\ndefaults crosstie-sections from crosstie\n");
        page.snippets(inputs, Site::Sections);
    }
}

fn global(page: &mut Page, inputs: &Inputs<'_>) {
    let settings = inputs.settings;
    page.lines("\nglobal");
    page.line(&format!("description {DESCRIPTION}{DIGEST_MARK}"));
    page.line(&format!("stats socket \"unix@${{{SOCKET_VARIABLE}}}\" mode 600 level admin"));
    page.line("stats timeout 30s");
    page.line("log stdout format raw daemon info");
    page.line(&format!("maxconn {}", settings.limits.max_connections));
    // A host that allows fewer descriptors gets fewer connections, not none at all.
    page.line("no strict-limits");
    page.line(&format!("hard-stop-after {}s", settings.lb.drain_s));
    page.line(&format!("tune.bufsize {}", settings.limits.buffer_bytes));
    page.line("ssl-default-bind-options ssl-min-ver TLSv1.2");
    page.line("ssl-default-server-options ssl-min-ver TLSv1.2");
    if settings.lb.threads > 0 {
        page.line(&format!("nbthread {}", settings.lb.threads));
    }
    if let Some(privileges) = inputs.privileges {
        page.line(&format!("user {}", privileges.user));
        page.line(&format!("group {}", privileges.group));
        page.line("chroot work/empty");
    }
    page.snippets(inputs, Site::Global);
}

fn defaults(page: &mut Page, inputs: &Inputs<'_>) {
    let (settings, timeouts) = (inputs.settings, &inputs.settings.timeouts);
    page.lines("\ndefaults crosstie");
    page.line("mode http");
    page.line("log global");
    page.line("option httplog");
    if !settings.lb.access_log {
        page.line("option dontlog-normal");
    }
    page.line("option dontlognull");
    for (name, milliseconds) in [
        ("connect", timeouts.connect_ms),
        ("server", timeouts.response_ms),
        ("client", timeouts.client_ms),
        ("http-request", timeouts.request_ms),
        ("http-keep-alive", timeouts.keep_alive_ms),
        ("queue", timeouts.connect_ms),
        ("check", settings.balance.check_timeout_ms),
    ] {
        page.line(&format!("timeout {name} {milliseconds}ms"));
    }
    page.line(&format!("retries {}", settings.balance.retries));
    page.line("option redispatch 1");
    // A connection that a reload finds idle may carry a request already: it ends with its next response.
    page.line("option idle-close-on-response");
    for (status, title) in [
        (400, "Bad Request"),
        (408, "Request Timeout"),
        (500, "Internal Server Error"),
        (502, "Bad Gateway"),
        (503, "Service Unavailable"),
        (504, "Gateway Timeout"),
    ] {
        page.line(&problem("http-error", status, title, ""));
    }
    page.snippets(inputs, Site::Defaults);
}

/// An answer of HAProxy's own, as the servers would write it (RFC 9457).
fn problem(rule: &str, status: u16, title: &str, more: &str) -> String {
    let body = format!(r#"{{"type":"about:blank","title":"{title}","status":{status}}}"#);
    format!(
        "{rule} status {status} content-type application/problem+json string '{body}' hdr Cache-Control no-store{more}"
    )
}

fn frontend(page: &mut Page, inputs: &Inputs<'_>) {
    let (settings, material) = (inputs.settings, inputs.material);
    page.lines(&format!("\nfrontend {FRONTEND} from crosstie"));
    if settings.lb.http.is_some() {
        page.line(&format!("bind \"fd@${{{HTTP_VARIABLE}}}\""));
    }
    if settings.lb.https.is_some() {
        let mut bind = format!(
            "bind \"fd@${{{HTTPS_VARIABLE}}}\" ssl crt {} alpn h2,http/1.1",
            material.front.display()
        );
        if let Some(client_ca) = &material.client_ca {
            let verify = if settings.https.require_client_certificate { "required" } else { "optional" };
            let _ = write!(bind, " ca-file {} verify {verify}", client_ca.display());
        }
        page.line(&bind);
    }
    rate_limit(page, inputs);
    forwarded(page, inputs);
    client_certificate(page);
    page.snippets(inputs, Site::Frontend);
    page.line(&format!("use_backend {FALLBACK} if {{ nbsrv({BACKEND}) eq 0 }}"));
    page.line(&format!("default_backend {BACKEND}"));
}

fn rate_limit(page: &mut Page, inputs: &Inputs<'_>) {
    let limit = &inputs.settings.rate_limit;
    let proxies = &inputs.settings.lb.trusted_proxies;
    if !proxies.is_empty() {
        let networks: Vec<_> = proxies.iter().map(ToString::to_string).collect();
        page.line(&format!("acl crosstie_proxy src {}", networks.join(" ")));
    }
    if limit.requests == 0 {
        return;
    }
    page.line(&format!(
        "stick-table type ipv6 size {} expire {}s store http_req_rate({}s)",
        limit.addresses,
        limit.period_s.saturating_mul(2),
        limit.period_s
    ));
    if proxies.is_empty() {
        page.line("http-request track-sc0 src");
    } else {
        // The address a trusted proxy saw is the last one in its header.
        page.line("http-request track-sc0 req.hdr_ip(X-Forwarded-For,-1) if crosstie_proxy");
        page.line("http-request track-sc0 src unless crosstie_proxy");
    }
    let retry =
        format!(" hdr Retry-After {} if {{ sc_http_req_rate(0) gt {} }}", limit.period_s, limit.requests);
    page.line(&problem("http-request return", 429, "Too Many Requests", &retry));
}

/// Says who the client is. What a client itself says about that is removed.
fn forwarded(page: &mut Page, inputs: &Inputs<'_>) {
    let unless = if inputs.settings.lb.trusted_proxies.is_empty() { "" } else { " unless crosstie_proxy" };
    page.line("http-request del-header Forwarded");
    // Names are in lower case here. What services hand them on to may take an underscore for a hyphen.
    page.line(&format!("http-request del-header ^x[-_]forwarded[-_] -m reg{unless}"));
    page.line("http-request add-header X-Forwarded-For %[src]");
    page.line(&format!("http-request set-header X-Forwarded-Host %[req.hdr(Host)]{unless}"));
    let and = if unless.is_empty() { "" } else { " !crosstie_proxy" };
    page.line(&format!("http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}{and}"));
    page.line(&format!("http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}{and}"));
}

/// Says what certificate the client showed. Always removed first, on plain connections too.
fn client_certificate(page: &mut Page) {
    page.line("http-request del-header ^x[-_]ssl[-_]client -m reg");
    page.line("acl crosstie_certificate ssl_c_used");
    page.line("acl crosstie_verified ssl_c_verify 0");
    page.line("http-request set-header X-SSL-Client-Verify NONE if !crosstie_certificate");
    for (name, value) in [
        ("Verify", "SUCCESS"),
        ("DN", "%[ssl_c_s_dn(,0,rfc2253)]"),
        ("Issuer-DN", "%[ssl_c_i_dn(,0,rfc2253)]"),
        ("Serial", "%[ssl_c_serial,hex]"),
        ("SHA256", "%[ssl_c_der,sha2(256),hex]"),
        ("Not-After", "%[ssl_c_notafter]"),
        ("Cert", "%[ssl_c_der,base64]"),
    ] {
        page.line(&format!(
            "http-request set-header X-SSL-Client-{name} {value} if crosstie_certificate crosstie_verified"
        ));
    }
}

/// A backend that is never used: what it names stays loaded, so that servers which need it can be added at run
/// time.
fn certificates(page: &mut Page, inputs: &Inputs<'_>) {
    page.lines("\nbackend crosstie-certificates from crosstie");
    page.line(&format!("server none 127.0.0.1:1 {} disabled", tls_options(inputs.material)));
}

fn backend(page: &mut Page, inputs: &Inputs<'_>, backend: &str) {
    let settings = inputs.settings;
    page.lines(&format!("\nbackend {backend} from crosstie"));
    match settings.balance.algorithm {
        Algorithm::RoundRobin => page.line("balance roundrobin"),
        Algorithm::LeastConnections => page.line("balance leastconn"),
        Algorithm::Random => page.line("balance random"),
        Algorithm::Source => {
            page.line("balance source");
            page.line("hash-type consistent");
        }
    }
    page.line("http-reuse safe");
    if backend == BACKEND {
        page.line("option httpchk");
        page.line("http-check send meth GET uri /health/ready ver HTTP/1.1 hdr Host crosstie");
        page.line("http-check expect status 200");
    }
    // Sent again only while nothing of a response came, only what may be sent twice, and only when all of it
    // is in the buffer; so the body is waited for.
    let statuses: String =
        settings.balance.retry_statuses.iter().map(|status| format!(" {status}")).collect();
    page.line(&format!("retry-on conn-failure empty-response{statuses}"));
    page.line(&format!("acl crosstie_idempotent method {IDEMPOTENT}"));
    page.line("http-request disable-l7-retry unless crosstie_idempotent");
    page.line(&format!(
        "http-request wait-for-body time {}ms if crosstie_idempotent",
        settings.timeouts.request_ms
    ));
    page.snippets(inputs, Site::Backend);
}

/// A server's weight.
#[must_use]
pub fn weight(place: &Place) -> u32 {
    match place.share {
        Share::Full => FULL_WEIGHT,
        Share::Nothing => 0,
    }
}

fn tls_options(material: &Material) -> String {
    format!("ssl verify required ca-file {} crt {}", material.ca.display(), material.own.display())
}

/// What follows a server's address. `check-ssl` and `pool-max-conn` are understood in the file and have to be
/// said at run time: a server added there checks without TLS and keeps no connection for the next request.
fn server_options(inputs: &Inputs<'_>, backend: &str, name: &str) -> String {
    let balance = &inputs.settings.balance;
    let check = if backend == BACKEND {
        format!(
            "check check-ssl check-sni {name} inter {}ms fastinter {}ms downinter {}ms rise {} fall {} \
             observe layer4 error-limit 1 on-error fastinter ",
            balance.check_ms, balance.check_fast_ms, balance.check_ms, balance.rise, balance.fall,
        )
    } else {
        String::new()
    };
    let tls = tls_options(inputs.material);
    let pool = format!("pool-max-conn -1 pool-purge-delay {}ms", balance.idle_ms);
    format!("{tls} verifyhost {name} sni str({name}) {check}{pool}")
}

/// The runtime command that adds a server, as its line in the file would.
#[must_use]
pub fn add_server(inputs: &Inputs<'_>, backend: &str, name: &UnitName, place: &Place) -> String {
    let options = server_options(inputs, backend, name.as_str());
    format!("add server {backend}/{name} {} {options} weight {}", place.address, weight(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listening::Entrance;
    use crosstie_config::LocatedFault;

    fn settings() -> LbSettings {
        let address = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let mut settings =
            LbSettings::new(UnitName::new("lb").unwrap(), address(11224), vec![address(17110)]);
        settings.lb.http = Some(address(11223));
        settings.lb.https = Some(address(11273));
        settings
    }

    fn material() -> Material {
        Material {
            ca: "work/tls/ca-0.pem".into(),
            own: "work/tls/pair-1.pem".into(),
            front: "work/tls/pair-2.pem".into(),
            client_ca: None,
        }
    }

    fn pool() -> Pool {
        let place = |port: u16, share| Place { address: ([127, 0, 0, 2], port).into(), share };
        Pool::from([
            (UnitName::new("server1").unwrap(), place(17010, Share::Full)),
            (UnitName::new("server2").unwrap(), place(17011, Share::Nothing)),
        ])
    }

    fn rendered(
        change: impl FnOnce(&mut LbSettings, &mut Material),
        snippets: &[Snippet],
        pool: &Pool,
    ) -> Rendered {
        let (mut settings, mut material) = (settings(), material());
        change(&mut settings, &mut material);
        let privileges = Privileges { user: "haproxy".into(), group: "haproxy".into() };
        let inputs = Inputs {
            settings: &settings,
            material: &material,
            snippets,
            pool,
            privileges: Some(&privileges),
        };
        render(&inputs)
    }

    fn snippet(name: &str, text: &str) -> Snippet {
        let made: Result<Snippet, Vec<LocatedFault>> = Snippet::new(name, text.to_owned());
        made.unwrap()
    }

    #[test]
    fn the_usual_configuration() {
        insta::assert_snapshot!(rendered(|_, _| {}, &[], &pool()).text);
    }

    #[test]
    fn a_configuration_with_everything() {
        let snippets = [
            snippet("backend-own.cfg", "    compression algo gzip\n"),
            snippet("frontend-deny.cfg", "    http-request deny if { path /secret }\n"),
            snippet("global-own.cfg", "    tune.h2.max-concurrent-streams 50\n"),
            snippet("own.cfg", "listen own\n    bind 127.0.0.1:9\n    mode tcp\n"),
        ];
        let everything = |settings: &mut LbSettings, material: &mut Material| {
            settings.balance.algorithm = Algorithm::Source;
            settings.balance.retry_statuses = vec![425, 503];
            settings.rate_limit.requests = 100;
            settings.lb.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
            settings.lb.threads = 4;
            settings.lb.access_log = true;
            settings.https.require_client_certificate = true;
            material.client_ca = Some("work/tls/ca-3.pem".into());
        };
        insta::assert_snapshot!(rendered(everything, &snippets, &pool()).text);
    }

    #[test]
    fn servers_do_not_count_for_the_digest_and_everything_else_does() {
        let usual = rendered(|_, _| {}, &[], &pool());
        assert!(usual.text.contains(&format!("description crosstie-{}\n", usual.digest)));
        assert_eq!(usual.digest, rendered(|_, _| {}, &[], &Pool::new()).digest);
        let others = [
            rendered(|settings, _| settings.balance.check_ms = 7_777, &[], &Pool::new()),
            rendered(|settings, _| settings.balance.idle_ms = 7_777, &[], &Pool::new()),
            rendered(|_, material| material.own = "other".into(), &[], &Pool::new()),
            rendered(|_, _| {}, &[snippet("own.cfg", "")], &Pool::new()),
        ];
        for other in others {
            assert_ne!(other.digest, usual.digest);
        }
    }

    #[test]
    fn a_line_is_traced_to_the_snippet_it_came_from() {
        let snippets =
            [snippet("frontend-a.cfg", "# one\nhttp-request deny\n\n"), snippet("own.cfg", "listen x\n")];
        let rendered = rendered(|_, _| {}, &snippets, &pool());
        let line = |text: &str| rendered.text.lines().position(|line| line == text).unwrap() + 1;
        assert_eq!(rendered.origin(line("http-request deny")), Some(("lb.d/frontend-a.cfg", 2)));
        assert_eq!(rendered.origin(line("listen x")), Some(("lb.d/own.cfg", 1)));
        assert_eq!(rendered.origin(line("global")), None);
    }

    #[test]
    fn a_server_added_at_run_time_is_the_one_of_the_file() {
        let (settings, material, pool) = (settings(), material(), pool());
        let inputs =
            Inputs { settings: &settings, material: &material, snippets: &[], pool: &pool, privileges: None };
        let (name, place) = pool.first_key_value().unwrap();
        for backend in [FALLBACK, BACKEND] {
            let command = add_server(&inputs, backend, name, place);
            let line = command.replace(&format!("add server {backend}/"), "    server ");
            assert!(render(&inputs).text.lines().any(|known| known == line), "{line}");
        }
    }

    #[test]
    fn sockets_are_named_by_the_variables_that_pass_them() {
        let text = rendered(|_, _| {}, &[], &pool()).text;
        for entrance in [Entrance::Http, Entrance::Https] {
            assert!(text.contains(&format!("\"fd@${{{}}}\"", entrance.variable())), "{text}");
        }
    }
}
