//! What the schema of `server.toml` cannot say: addresses, networks and URLs by their own grammars, settings
//! that contradict each other, and secrets where none belong.
//!
//! The checks read the unparsed document, so they run beside the schema's and miss nothing because of a fault
//! elsewhere; a value of the wrong type is the schema's to report.

use std::net::SocketAddr;

use crosstie_model::Fault;
use crosstie_model::settings::BusUrl;
use crosstie_model::settings::ClusterSection;
use ipnet::IpNet;
use serde_json::Value;

/// Headers that carry credentials and so are never logged.
const CREDENTIAL_HEADERS: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"];

/// Paths on the service port that are taken.
const RESERVED_PATHS: [&str; 2] = ["/health/live", "/health/ready"];

/// Every broken rule of a document.
pub(super) fn faults(settings: &Value) -> Vec<Fault> {
    let mut rules = Rules { settings, faults: Vec::new() };
    rules.addresses();
    rules.networks();
    rules.front();
    rules.limits();
    rules.odb();
    rules.cluster();
    rules.bus();
    rules.exporter();
    rules.logged_headers();
    rules.paths();
    rules.files();
    rules.faults
}

struct Rules<'a> {
    settings: &'a Value,
    faults: Vec<Fault>,
}

impl<'a> Rules<'a> {
    fn text(&self, pointer: &str) -> Option<&'a str> {
        self.settings.pointer(pointer).and_then(Value::as_str)
    }

    fn texts(&self, pointer: &str) -> impl Iterator<Item = (usize, &'a str)> {
        let items = self.settings.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice);
        items.unwrap_or_default().iter().enumerate().filter_map(|(at, item)| Some((at, item.as_str()?)))
    }

    fn fault(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.faults.push(Fault { pointer: pointer.into(), detail: detail.into() });
    }

    fn addresses(&mut self) {
        let mut known: Vec<(SocketAddr, &str)> = Vec::new();
        for pointer in ["/server/http", "/server/https", "/management/address"] {
            let Some(text) = self.text(pointer) else { continue };
            let Ok(address) = text.parse::<SocketAddr>() else {
                self.fault(pointer, "must be an address and port, such as 127.0.0.1:17010 or [::1]:17010");
                continue;
            };
            if let Some((_, taken)) = known.iter().find(|(other, _)| *other == address && address.port() != 0)
            {
                let taken = super::dotted(taken);
                self.fault(pointer, format!("is the same address as {taken}"));
            }
            known.push((address, pointer));
        }
    }

    /// One heartbeat that comes late must not look like a death.
    fn cluster(&mut self) {
        let default = ClusterSection::default();
        let number = |pointer: &str| self.settings.pointer(pointer).and_then(Value::as_u64);
        let heartbeat = number("/cluster/heartbeat_ms").unwrap_or(default.heartbeat_ms);
        let lapse = number("/cluster/lapse_ms").unwrap_or(default.lapse_ms);
        if lapse < heartbeat.saturating_mul(3) {
            let least = heartbeat.saturating_mul(3);
            self.fault("/cluster/lapse_ms", format!("must be at least three heartbeats: {least}"));
        }
    }

    fn networks(&mut self) {
        let faulty: Vec<usize> = self
            .texts("/http/trusted_proxies")
            .filter(|(_, text)| text.parse::<IpNet>().is_err())
            .map(|(index, _)| index)
            .collect();
        for index in faulty {
            self.fault(
                format!("/http/trusted_proxies/{index}"),
                "must be a network, such as 10.0.0.0/8 or 192.0.2.7/32",
            );
        }
    }

    /// Behind a load balancer there is one entrance, where both ends are verified.
    fn front(&mut self) {
        if self.text("/http/front") != Some("load_balancer") {
            return;
        }
        if self.text("/server/http").is_some() {
            self.fault(
                "/server/http",
                "must be absent where http.front is load_balancer: that entrance is open to anybody",
            );
        }
        if self.text("/server/https").is_none() {
            self.fault("/http/front", "load_balancer needs server.https");
        }
    }

    fn limits(&mut self) {
        let number =
            |key: &str, default: u64| self.settings.pointer(key).map_or(Some(default), Value::as_u64);
        let defaults = crosstie_model::settings::HttpSettings::default();
        let body = number("/http/max_body_bytes", defaults.max_body_bytes);
        let ceiling = number("/http/max_body_bytes_ceiling", defaults.max_body_bytes_ceiling);
        if let (Some(body), Some(ceiling)) = (body, ceiling)
            && body > ceiling
        {
            let key = if self.settings.pointer("/http/max_body_bytes").is_some() {
                "/http/max_body_bytes"
            } else {
                "/http/max_body_bytes_ceiling"
            };
            self.fault(
                key,
                format!("max_body_bytes ({body}) is more than max_body_bytes_ceiling ({ceiling})"),
            );
        }
    }

    fn odb(&mut self) {
        if let Some(url) = self.text("/odb/url") {
            let known = ["sqlite:", "postgres://", "postgresql://", "mysql://"];
            if !known.iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty())) {
                self.fault("/odb/url", "must be sqlite:PATH, postgres://… or mysql://…");
            } else if has_password(url) {
                self.fault("/odb/url", "must hold no password; set odb.password to env:NAME or file:PATH");
            }
        }
        if let Some(password) = self.text("/odb/password")
            && !is_reference(password)
        {
            // The value itself is not repeated: it is probably the password.
            self.fault("/odb/password", "must be env:NAME or file:PATH; this file is kept in git");
        }
    }

    fn bus(&mut self) {
        if let Some(url) = self.text("/bus/url").filter(|url| !url.is_empty())
            && let Err(error) = BusUrl::parse(url)
        {
            self.fault("/bus/url", error.to_string());
        }
        if let Some(password) = self.text("/bus/password")
            && !is_reference(password)
        {
            self.fault("/bus/password", "must be env:NAME or file:PATH; this file is kept in git");
        }
        if let Some(exchange) = self.text("/bus/exchange") {
            // Part of the names of queues, which end at 255 bytes.
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
            if exchange.is_empty() || exchange.len() > 100 || !exchange.chars().all(allowed) {
                self.fault("/bus/exchange", "must be 1 to 100 letters, digits, `-`, `_`, `.` or `:`");
            } else if exchange.starts_with("amq.") {
                self.fault("/bus/exchange", "must not start with amq., which is the broker's own");
            }
        }
    }

    fn exporter(&mut self) {
        let Some(url) = self.text("/telemetry/otlp_endpoint") else { return };
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        let printable = url.chars().all(|c| c.is_ascii_graphic());
        if host.is_empty() || host.starts_with(':') || !printable {
            self.fault("/telemetry/otlp_endpoint", "must be an http:// or https:// URL");
        } else if host.contains('@') {
            self.fault("/telemetry/otlp_endpoint", "must hold no credentials");
        }
    }

    fn logged_headers(&mut self) {
        let mut faulty = Vec::new();
        for (index, name) in self.texts("/http/access_log_headers") {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
            if name.is_empty() || !name.chars().all(allowed) {
                faulty.push((index, "must be a header's name in lower case"));
            } else if CREDENTIAL_HEADERS.contains(&name) {
                faulty.push((index, "carries credentials, which are never logged"));
            }
        }
        for (index, detail) in faulty {
            self.fault(format!("/http/access_log_headers/{index}"), detail);
        }
    }

    fn paths(&mut self) {
        let openapi = self.text("/http/openapi_path").unwrap_or("/openapi");
        let metrics = self.text("/telemetry/metrics_path").unwrap_or_default();
        for (pointer, path) in [("/http/openapi_path", openapi), ("/telemetry/metrics_path", metrics)] {
            if RESERVED_PATHS.contains(&path) {
                self.fault(pointer, format!("{path} is where health is reported"));
            }
        }
        if !metrics.is_empty() && (metrics == openapi || metrics == format!("{openapi}/ui")) {
            self.fault("/telemetry/metrics_path", "is the same path as http.openapi_path");
        }
    }

    fn files(&mut self) {
        for key in [
            "/security/ca",
            "/security/certificate",
            "/security/key",
            "/security/cluster_key",
            "/python/venv",
        ] {
            if self.text(key) == Some("") {
                self.fault(key, "must name a file or directory");
            }
        }
    }
}

fn is_reference(text: &str) -> bool {
    matches!(text.split_once(':'), Some(("env" | "file", rest)) if !rest.trim().is_empty())
}

/// Whether the authority of `url` (RFC 3986, section 3.2) has a password.
fn has_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let in_authority = authority
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.split_once(':').is_some_and(|(_, p)| !p.is_empty()));
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    in_authority || query.split('&').any(|pair| pair.starts_with("password="))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn faults(more: &str) -> Vec<String> {
        let text = format!("server.name = \"one\"\nmanagement.address = \"127.0.0.1:17110\"\n{more}");
        match super::super::parse(&text, Path::new("s")) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn two_listeners_cannot_share_an_address() {
        let found = faults("server.http = \"127.0.0.1:17110\"");
        assert_eq!(found, ["s:2: management.address: is the same address as server.http"]);
        assert!(faults("server.http = \"127.0.0.1:0\"\nserver.https = \"127.0.0.1:0\"").is_empty());
    }

    #[test]
    fn a_default_body_larger_than_the_ceiling_is_refused() {
        assert!(faults("http.max_body_bytes_ceiling = 1000")[0].contains("http.max_body_bytes_ceiling: max"));
        assert!(faults("http.max_body_bytes = 10\nhttp.max_body_bytes_ceiling = 10").is_empty());
    }

    #[test]
    fn behind_a_load_balancer_there_is_no_other_entrance() {
        let found = faults("server.http = \"127.0.0.1:1\"\nhttp.front = \"load_balancer\"");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("server.http: must be absent"), "{found:?}");
        assert!(found[1].contains("http.front: load_balancer needs server.https"), "{found:?}");
        let fine = "server.https = \"127.0.0.1:1\"\nhttp.front = \"load_balancer\"";
        assert_eq!(faults(fine), Vec::<String>::new());
    }

    #[test]
    fn no_password_stands_in_the_file() {
        for url in ["postgres://u:hunter2@db/x", "mysql://db/x?password=hunter2"] {
            let found = faults(&format!("odb.url = \"{url}\"")).join("\n");
            assert!(
                found.contains("odb.url: must hold no password") && !found.contains("hunter2"),
                "{found}"
            );
        }
        let found = faults("odb.password = \"hunter2\"").join("\n");
        assert!(found.contains("odb.password: must be env:NAME") && !found.contains("hunter2"), "{found}");
        assert!(faults("odb.url = \"postgres://u@db:5432/x\"\nodb.password = \"file:tls/odb\"").is_empty());
        assert!(faults("odb.url = \"oracle://db\"")[0].contains("sqlite:PATH"));
    }

    #[test]
    fn the_broker_is_named_without_its_password() {
        for (line, said) in [
            ("url = \"amqps://u:hunter2@broker\"", "bus.url: must hold no password"),
            ("url = \"amqp://u@broker\"", "bus.url: amqp:// is for this machine alone"),
            ("url = \"http://u@broker\"", "bus.url: must be amqps://"),
            ("password = \"hunter2\"", "bus.password: must be env:NAME"),
            ("exchange = \"amq.fanout\"", "bus.exchange: must not start with amq."),
            ("exchange = \"a b\"", "bus.exchange: must be 1 to 100"),
        ] {
            let found = faults(&format!("bus.{line}")).join("\n");
            assert!(found.contains(said) && !found.contains("hunter2"), "{found}");
        }
        assert!(faults("bus.url = \"amqps://u@broker/x\"\nbus.password = \"file:tls/bus\"").is_empty());
        assert!(faults("bus.url = \"\"").is_empty());
    }

    #[test]
    fn credentials_are_not_logged() {
        let found = faults("http.access_log_headers = [\"user-agent\", \"authorization\", \"X-Id\"]");
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn built_in_paths_do_not_collide() {
        assert!(faults("telemetry.metrics_path = \"/health/live\"")[0].contains("health"));
        assert!(faults("telemetry.metrics_path = \"/openapi\"")[0].contains("same path"));
        assert!(faults("telemetry.metrics_path = \"/metrics\"").is_empty());
    }

    #[test]
    fn the_trace_exporter_needs_a_url() {
        assert!(faults("telemetry.otlp_endpoint = \"127.0.0.1:4318\"")[0].contains("URL"));
        assert!(faults("telemetry.otlp_endpoint = \"http://u:p@h/v1/traces\"")[0].contains("credentials"));
        assert!(faults("telemetry.otlp_endpoint = \"http://127.0.0.1:4318/v1/traces\"").is_empty());
    }
}
