//! `lb.toml`: what the administrator says about the load balancer.
//!
//! Read at start and on SIGHUP, by the same mechanism as `server.toml`: unknown keys are errors and every
//! fault is reported at once. Servers are not among the settings; they are learned.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crosstie_config::LocatedFault;
use crosstie_config::settings::{Format, template_of};
use crosstie_model::names::UnitName;
use crosstie_model::settings::LogSettings;
use crosstie_model::{Fault, names};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a load balancer's directory holds its settings.
pub const SETTINGS_FILE: &str = "lb.toml";

/// All of `lb.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LbSettings {
    /// The load balancer, where it listens and whom it asks for the servers.
    pub lb: LbSection,
    /// TLS towards clients.
    #[serde(default)]
    pub https: HttpsSection,
    /// How requests are spread over the servers, and how servers are checked.
    #[serde(default)]
    pub balance: BalanceSection,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: TimeoutSection,
    /// What clients may use up.
    #[serde(default)]
    pub limits: LimitSection,
    /// Most requests per client address; off by default.
    #[serde(default)]
    pub rate_limit: RateLimitSection,
    /// The load balancer's own certificate, with which it shows itself to servers.
    #[serde(default)]
    pub security: SecuritySection,
    /// The agent's log.
    #[serde(default)]
    pub log: LogSettings,
}

/// `[lb]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LbSection {
    /// The load balancer's name.
    pub name: UnitName,
    /// Address of plain HTTP for clients; none when absent.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub http: Option<SocketAddr>,
    /// Address of HTTPS for clients; none when absent.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub https: Option<SocketAddr>,
    /// Address of the agent's own API: statistics and health, over TLS with a certificate of the cluster.
    /// Read at start.
    #[schemars(with = "String")]
    pub api: SocketAddr,
    /// Management addresses of servers to ask for the members of the cluster. One that answers is enough;
    /// the others are learned from it and remembered.
    #[schemars(with = "Vec<String>")]
    pub members: Vec<SocketAddr>,
    /// How often the members are asked for, in milliseconds.
    #[serde(default = "default_poll")]
    #[schemars(range(min = 50, max = 60_000))]
    pub poll_ms: u64,
    /// The HAProxy program.
    #[serde(default = "default_program")]
    pub program: PathBuf,
    /// The user that HAProxy becomes where the agent is root, which it is in a directory of root's alone.
    #[serde(default = "default_user")]
    #[schemars(pattern(r"^[A-Za-z_][A-Za-z0-9_.-]*$"))]
    pub user: String,
    /// HAProxy's threads; as many as cores when 0.
    #[serde(default)]
    #[schemars(range(max = 64))]
    pub threads: u16,
    /// How long a stop or a reload waits for requests in flight, in seconds.
    #[serde(default = "default_drain")]
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_s: u64,
    /// Networks of proxies in front of this load balancer. Their `X-Forwarded-For` is kept and added to;
    /// anybody else's is replaced.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Whether HAProxy writes one line per request to `logs/haproxy.log`.
    #[serde(default)]
    pub access_log: bool,
}

/// `[https]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpsSection {
    /// The certificate chain shown to clients (PEM), such as one of a public authority. When absent, the
    /// load balancer's own. Replaced files are noticed.
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM, 0600).
    pub key: Option<PathBuf>,
    /// The authorities whose client certificates are accepted (PEM). When absent, clients are not asked for
    /// one. What a certificate says reaches services in `X-SSL-Client-…` headers.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must show a certificate.
    pub require_client_certificate: bool,
}

/// How the next server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest connections.
    LeastConnections,
    /// The less loaded of two taken at random.
    Random,
    /// By the client's address, always the same one while the servers stay the same.
    Source,
}

/// `[balance]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BalanceSection {
    /// How the next server is chosen.
    pub algorithm: Algorithm,
    /// How often a server is asked whether it is ready, in milliseconds.
    #[schemars(range(min = 50, max = 60_000))]
    pub check_ms: u64,
    /// The same while its state changes or right after a connection to it failed, in milliseconds.
    #[schemars(range(min = 10, max = 60_000))]
    pub check_fast_ms: u64,
    /// How long a check may take, in milliseconds.
    #[schemars(range(min = 50, max = 60_000))]
    pub check_timeout_ms: u64,
    /// Good checks in a row after which a server gets traffic.
    #[schemars(range(min = 1, max = 100))]
    pub rise: u16,
    /// Bad checks in a row after which it gets none.
    #[schemars(range(min = 1, max = 100))]
    pub fall: u16,
    /// How often a request is tried again when a connection fails or, if its method is idempotent, when the
    /// connection ends before the response began. Other servers are tried first. Requests with more than
    /// fits `limits.buffer_bytes` are tried again only while connecting.
    #[schemars(range(max = 20))]
    pub retries: u16,
    /// Statuses of servers, such as 503, after which a request whose method is idempotent is tried again as
    /// well: 408, 425, 500, 502, 503 or 504. What answers so on every server is then asked several times.
    pub retry_statuses: Vec<u16>,
    /// How often half of the connections to a server that were of no use lately are closed, in milliseconds.
    /// None is kept when 0. A server that drains waits until all of its own are, or for its `drain_s`.
    #[schemars(range(max = 10_000))]
    pub idle_ms: u64,
}

impl Default for BalanceSection {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::RoundRobin,
            check_ms: 500,
            check_fast_ms: 100,
            check_timeout_ms: 2_000,
            rise: 1,
            fall: 2,
            retries: 3,
            retry_statuses: Vec::new(),
            idle_ms: 1_000,
        }
    }
}

/// `[timeouts]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutSection {
    /// How long connecting to a server may take, TLS included, in milliseconds.
    #[schemars(range(min = 10, max = 600_000))]
    pub connect_ms: u64,
    /// How long a server may be silent while its response is awaited, in milliseconds; then 504. Longer than
    /// the servers' `http.deadline_ms`, so that they answer themselves.
    #[schemars(range(min = 10, max = 86_400_000))]
    pub response_ms: u64,
    /// How long a client may take to send a request's head, and its body where that is awaited, in
    /// milliseconds; then 408.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub request_ms: u64,
    /// How long a client may be silent in the middle of a request or response, in milliseconds.
    #[schemars(range(min = 10, max = 86_400_000))]
    pub client_ms: u64,
    /// How long a client's connection may be idle between requests, in milliseconds.
    #[schemars(range(min = 10, max = 86_400_000))]
    pub keep_alive_ms: u64,
}

impl Default for TimeoutSection {
    fn default() -> Self {
        Self {
            connect_ms: 5_000,
            response_ms: 90_000,
            request_ms: 10_000,
            client_ms: 60_000,
            keep_alive_ms: 60_000,
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSection {
    /// Most connections of clients at once; more wait in the kernel's queue.
    #[schemars(range(min = 10, max = 1_000_000))]
    pub max_connections: u32,
    /// What is kept of a request, head and body, to try it again on another server, in bytes. Also bounds a
    /// request's head. Every active connection holds two such buffers.
    #[schemars(range(min = 16_384, max = 1_048_576))]
    pub buffer_bytes: u32,
    /// Length of the kernel's queue of connections not yet accepted. Read at start.
    #[schemars(range(min = 1, max = 65_535))]
    pub backlog: u16,
}

impl Default for LimitSection {
    fn default() -> Self {
        Self { max_connections: 10_000, buffer_bytes: 32_768, backlog: 4_096 }
    }
}

/// `[rate_limit]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitSection {
    /// Most requests of one address in a period; more get 429. No limit when 0.
    pub requests: u32,
    /// The period in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub period_s: u32,
    /// How many addresses are remembered; the longest unseen is forgotten first.
    #[schemars(range(min = 100, max = 10_000_000))]
    pub addresses: u32,
}

impl Default for RateLimitSection {
    fn default() -> Self {
        Self { requests: 0, period_s: 10, addresses: 100_000 }
    }
}

/// `[security]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SecuritySection {
    /// The cluster's CA certificate (PEM). Paths are relative to the load balancer's directory; replaced
    /// files are noticed.
    pub ca: PathBuf,
    /// The load balancer's certificate chain (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM, 0600).
    pub key: PathBuf,
}

impl Default for SecuritySection {
    fn default() -> Self {
        Self { ca: "tls/ca.pem".into(), certificate: "tls/lb.pem".into(), key: "tls/lb.key".into() }
    }
}

fn default_poll() -> u64 {
    500
}

fn default_program() -> PathBuf {
    "/usr/sbin/haproxy".into()
}

fn default_user() -> String {
    "haproxy".into()
}

fn default_drain() -> u64 {
    30
}

impl LbSettings {
    /// Settings with every default.
    #[must_use]
    pub fn new(name: UnitName, api: SocketAddr, members: Vec<SocketAddr>) -> Self {
        Self {
            lb: LbSection {
                name,
                http: None,
                https: None,
                api,
                members,
                poll_ms: default_poll(),
                program: default_program(),
                user: default_user(),
                threads: 0,
                drain_s: default_drain(),
                trusted_proxies: Vec::new(),
                access_log: false,
            },
            https: HttpsSection::default(),
            balance: BalanceSection::default(),
            timeouts: TimeoutSection::default(),
            limits: LimitSection::default(),
            rate_limit: RateLimitSection::default(),
            security: SecuritySection::default(),
            log: LogSettings::default(),
        }
    }
}

static FORMAT: LazyLock<Format> = LazyLock::new(|| Format::of::<LbSettings>(rules));

/// The statuses HAProxy can be told to try again after that say nothing final about a request.
const RETRY_STATUSES: [u64; 6] = [408, 425, 500, 502, 503, 504];

/// What stands above the settings in a new `lb.toml`.
const HEAD: &str = "\
The settings of this load balancer. A line that starts with # is a comment: a setting commented out has the
default shown. A wrong or unknown setting refuses the whole file and the load balancer goes on with what it
has. `kill -HUP` of the agent (its process id is in work/lb.pid) reads this file and lb.d again.";

/// Reads and checks `lb.toml` in a load balancer's directory.
///
/// # Errors
/// Every fault of the file, in the order of lines; or the one that it cannot be read.
pub fn load(directory: &Path) -> Result<LbSettings, Vec<LocatedFault>> {
    FORMAT.load(&directory.join(SETTINGS_FILE))
}

/// Checks `text`, which `file` names in faults.
///
/// # Errors
/// Every fault, in the order of lines.
pub fn parse(text: &str, file: &Path) -> Result<LbSettings, Vec<LocatedFault>> {
    FORMAT.parse(text, file)
}

/// A commented `lb.toml` that reads back as `settings`.
#[must_use]
pub fn template(settings: &LbSettings) -> String {
    template_of(FORMAT.schema(), HEAD, &serde_json::to_value(settings).unwrap_or_default())
}

/// What the schema cannot say.
fn rules(settings: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |pointer: &str, detail: String| faults.push(Fault { pointer: pointer.into(), detail });
    let text = |pointer: &str| settings.pointer(pointer).and_then(Value::as_str);
    let list = |pointer: &str| settings.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice);
    let mut known: Vec<(SocketAddr, &str)> = Vec::new();
    for pointer in ["/lb/http", "/lb/https", "/lb/api"] {
        let Some(address) = text(pointer) else { continue };
        let Ok(address) = address.parse::<SocketAddr>() else {
            fault(pointer, "must be an address and port, such as 127.0.0.1:11223 or [::]:443".into());
            continue;
        };
        if let Some((_, taken)) = known.iter().find(|(other, _)| *other == address) {
            fault(pointer, format!("is the same address as {}", crosstie_config::settings::dotted(taken)));
        }
        known.push((address, pointer));
    }
    if settings.get("lb").is_some() && text("/lb/http").is_none() && text("/lb/https").is_none() {
        fault("/lb", "needs http or https, or nobody can reach it".into());
    }
    let members = list("/lb/members");
    if members.is_some_and(<[Value]>::is_empty) {
        fault("/lb/members", "must name the management address of one server at least".into());
    }
    for (index, member) in members.unwrap_or_default().iter().enumerate() {
        if member.as_str().is_some_and(|text| text.parse::<SocketAddr>().is_err()) {
            fault(
                &format!("/lb/members/{index}"),
                "must be an address and port, such as 127.0.0.1:17110".into(),
            );
        }
    }
    for (index, network) in list("/lb/trusted_proxies").unwrap_or_default().iter().enumerate() {
        if network.as_str().is_some_and(|text| text.parse::<IpNet>().is_err()) {
            fault(&format!("/lb/trusted_proxies/{index}"), "must be a network, such as 10.0.0.0/8".into());
        }
    }
    for (index, status) in list("/balance/retry_statuses").unwrap_or_default().iter().enumerate() {
        if status.as_u64().is_some_and(|status| !RETRY_STATUSES.contains(&status)) {
            let known = RETRY_STATUSES.map(|status| status.to_string()).join(", ");
            fault(&format!("/balance/retry_statuses/{index}"), format!("must be one of {known}"));
        }
    }
    certificate_rules(settings, &mut fault);
    faults
}

fn certificate_rules(settings: &Value, fault: &mut dyn FnMut(&str, String)) {
    let text = |pointer: &str| settings.pointer(pointer).and_then(Value::as_str);
    match (text("/https/certificate"), text("/https/key")) {
        (Some(_), None) => fault("/https/certificate", "needs https.key".into()),
        (None, Some(_)) => fault("/https/key", "needs https.certificate".into()),
        _ => {}
    }
    let required = settings.pointer("/https/require_client_certificate").and_then(Value::as_bool);
    if required == Some(true) && text("/https/client_ca").is_none() {
        fault("/https/require_client_certificate", "needs https.client_ca".into());
    }
    for pointer in [
        "/https/certificate",
        "/https/key",
        "/https/client_ca",
        "/security/ca",
        "/security/certificate",
        "/security/key",
        "/lb/program",
    ] {
        if text(pointer).is_some_and(|path| path.is_empty() || path.chars().any(char::is_control)) {
            fault(pointer, "must name a file".into());
        }
    }
    let longest = names::MAX_NAME_BYTES;
    if text("/lb/user").is_some_and(|user| user.len() > longest) {
        fault("/lb/user", format!("must have at most {longest} characters"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "[lb]\nname = \"lb\"\nhttp = \"127.0.0.1:11223\"\napi = \"127.0.0.1:11224\"\n\
                            members = [\"127.0.0.1:17110\"]\n";

    fn faults(text: &str) -> Vec<String> {
        match parse(text, Path::new("lb.toml")) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let settings = parse(SMALLEST, Path::new("lb.toml")).unwrap();
        let mut expected = LbSettings::new(
            UnitName::new("lb").unwrap(),
            "127.0.0.1:11224".parse().unwrap(),
            vec!["127.0.0.1:17110".parse().unwrap()],
        );
        expected.lb.http = Some("127.0.0.1:11223".parse().unwrap());
        assert_eq!(settings, expected);
    }

    #[test]
    fn every_fault_is_reported_at_once_with_line_and_key() {
        let text = "[lb]\nname = \"l b\"\nhttp = \"localhost\"\napi = \"127.0.0.1:1\"\nmembers = []\n\
                    polls = 1\ntrusted_proxies = [\"10.0.0.0/99\"]\n[balance]\nalgorithm = \"best\"\n\
                    fall = 0\nretry_statuses = [503, 404]\n[https]\ncertificate = \"a\"\nrequire_client_certificate = true\n";
        let found = faults(text);
        let expected = [
            "lb.toml:2: lb.name: must be a name",
            "lb.toml:3: lb.http: must be an address and port",
            "lb.toml:5: lb.members: must name",
            "lb.toml:6: lb.polls: unknown key",
            "lb.toml:7: lb.trusted_proxies[0]: must be a network",
            "lb.toml:9: balance.algorithm: must be one of round_robin, least_connections, random, source",
            "lb.toml:10: balance.fall: must be a whole number, 1 to 100",
            "lb.toml:11: balance.retry_statuses[1]: must be one of 408, 425, 500, 502, 503, 504",
            "lb.toml:13: https.certificate: needs https.key",
            "lb.toml:14: https.require_client_certificate: needs https.client_ca",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}\n{expected}");
        }
    }

    #[test]
    fn a_load_balancer_nobody_can_reach_is_refused() {
        let found = faults(&SMALLEST.replace("http = \"127.0.0.1:11223\"\n", ""));
        assert!(found[0].contains("needs http or https"), "{found:?}");
        let found = faults(&SMALLEST.replace("11224", "11223"));
        assert!(found[0].contains("is the same address as lb.http"), "{found:?}");
    }

    #[test]
    fn the_example_of_the_guide_is_valid() {
        let guide = include_str!("../../docs/load-balancer.md");
        let example = guide.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        assert_eq!(faults(example), Vec::<String>::new());
    }

    #[test]
    fn the_template_reads_back_as_the_settings_it_was_made_of() {
        let mut settings = parse(SMALLEST, Path::new("lb.toml")).unwrap();
        settings.balance.algorithm = Algorithm::LeastConnections;
        settings.https.client_ca = Some("clients.pem".into());
        settings.lb.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let text = template(&settings);
        assert_eq!(parse(&text, Path::new("lb.toml")).map_err(|f| format!("{f:#?}\n{text}")), Ok(settings));
        assert!(text.contains("\n# check_ms = 500\n"), "{text}");
    }
}
