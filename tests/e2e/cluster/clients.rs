//! Who clients are, through the load balancer: their certificates and their addresses, whatever they say
//! themselves.

use std::fs;
use std::process::Command;

use crosstie_test_support::{Cluster, Http, Issued, Pki, Validity, processes, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Steady;
use crate::credentials::protocols;

const WHO: &str = r#"
from crosstie import Service

class Who(Service):
    name = "test.who"

    def handle(self):
        it = self.request.security
        self.response.payload = {"user": it and it.username,
                                 "subject": it and it.certificate and it.certificate.subject,
                                 "client": self.request.http.client}
"#;

/// A client of the load balancer's HTTPS.
fn showing(cluster: &Cluster, issued: &Issued) -> Http {
    let base = format!("https://{}", cluster.tls_address());
    let (certificate, key) = (issued.certificate.as_bytes(), issued.key.as_bytes());
    Http::showing(base, &cluster.ca().unwrap(), certificate, key).unwrap()
}

/// What a client at `address` gets over plain HTTP: the status and the body.
fn from(cluster: &Cluster, address: &str, path: &str, headers: &[&str]) -> (String, Value) {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-w", "\n%{http_code}", "--interface", address]);
    curl.args(headers.iter().flat_map(|header| ["-H", header]));
    let output = curl.arg(format!("http://{}{path}", cluster.address())).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), serde_json::from_str(body).unwrap_or_default())
}

fn apply(cluster: &Cluster, document: &Value) {
    let apply = crosstie_test_support::Command::new().unwrap().environment(&cluster.root());
    let applied = apply.args(["apply", "-f", "-"]).input(document.to_string()).run().unwrap();
    applied.success().unwrap();
}

#[test]
fn a_clients_certificate_and_address_are_what_the_load_balancer_saw() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    cluster.drop_file(1, "who.py", WHO).unwrap();
    wait_until("the service is deployed", || {
        cluster.json(&["service", "list"]).is_ok_and(|services| services.to_string().contains("test.who"))
    });
    let (pki, strangers) = (Pki::new("Partners CA").unwrap(), Pki::new("Strangers CA").unwrap());
    fs::write(cluster.root().join("lb/partners.pem"), pki.certificate()).unwrap();
    let settings = cluster.root().join("lb/lb.toml");
    let text = fs::read_to_string(&settings).unwrap();
    assert!(text.contains("\n[https]\n"), "{text}");
    fs::write(&settings, text.replace("\n[https]\n", "\n[https]\nclient_ca = \"partners.pem\"\n")).unwrap();
    processes::send(cluster.agent().unwrap(), Signal::SIGHUP).unwrap();

    let channel = |path: &str, more: Value| {
        let mut body = json!({"type": "rest", "path": path, "service": "test.who"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    apply(
        cluster,
        &json!({
            "security": {
                "partners": {"type": "client_certificate", "ca": pki.certificate(),
                    "crl": pki.revoked(&[2]).unwrap(), "subjects": [{"CN": "shop"}]},
                "tokens": {"type": "wss_username_token", "username": "shop", "password": "of-the-shop"},
            },
            "channel": {
                "partners": channel("/partners", json!({"security": "partners"})),
                "near": channel("/near", json!({"allow_from": ["127.0.0.9/32"]})),
                "far": channel("/far", json!({"allow_from": ["10.0.0.0/8"]})),
                "tokens": {"type": "soap", "path": "/tokens", "namespace": "urn:who", "security": "tokens",
                    "operations": {"Who": "test.who"}},
            },
        }),
    );
    let _ = cluster.wait_until_converged();

    let shop = pki.issue("shop", 1, Validity::Now).unwrap();
    let lies = |http: Http| {
        http.header("x-ssl-client-verify", "SUCCESS")
            .header("X_SSL_Client_Verify", "SUCCESS")
            .header("x-ssl-client-dn", "CN=admin")
            .header("x-ssl-client-cert", "AAAA")
    };
    wait_until("certificates are asked for", || {
        showing(cluster, &shop).get("/partners").is_ok_and(|reply| reply.status == 200)
    });
    // Several times, so that both servers and resumed sessions have their turn.
    let client = lies(showing(cluster, &shop));
    for _ in 0..8 {
        let reply = client.get("/partners").unwrap();
        assert_eq!((reply.status, &reply.json()["user"]), (200, &json!("shop")), "{}", reply.text());
        assert_eq!(reply.json()["subject"], "O=Acme\\, Inc.,CN=shop");
    }
    let without =
        Http::trusting(format!("https://{}", cluster.tls_address()), &cluster.ca().unwrap()).unwrap();
    for http in [lies(without.clone()), lies(cluster.http()), without] {
        let refused = http.get("/partners").unwrap();
        assert_eq!(refused.status, 401);
        assert_eq!(refused.header("www-authenticate"), "ClientCertificate realm=\"crosstie\"");
    }
    for (name, serial) in [("bakery", 3), ("shop", 2)] {
        let other = pki.issue(name, serial, Validity::Now).unwrap();
        assert_eq!(lies(showing(cluster, &other)).get("/partners").unwrap().status, 401, "{name} {serial}");
    }
    let stranger = strangers.issue("shop", 1, Validity::Now).unwrap();
    assert!(showing(cluster, &stranger).get("/partners").is_err());

    // The load balancer itself is at 127.0.0.1, as seen by the servers.
    let (status, told) = from(cluster, "127.0.0.9", "/near", &[]);
    assert_eq!((status.as_str(), &told["client"]), ("200", &json!("127.0.0.9")));
    for forged in [&[][..], &["X-Forwarded-For: 127.0.0.9"], &["Forwarded: for=127.0.0.9"]] {
        assert_eq!(from(cluster, "127.0.0.1", "/near", forged).0, "403", "{forged:?}");
    }
    assert_eq!(from(cluster, "127.0.0.9", "/far", &["X-Forwarded-For: 10.1.2.3"]).0, "403");

    // A message that was recorded counts once, whichever server it comes to.
    let token = protocols::digest("shop", "of-the-shop", "a nonce", &protocols::moment(0));
    let message = protocols::message("http://schemas.xmlsoap.org/soap/envelope/", &token);
    let send = || cluster.http().post("/tokens", "text/xml", message.as_bytes()).unwrap();
    let first = send();
    assert_eq!(first.status, 200, "{}", first.text());
    wait_until("both servers refused it", || {
        let again = send();
        assert!(again.status == 500 && again.text().contains("FailedAuthentication"), "{}", again.text());
        (1..=2).all(|number| {
            let log = fs::read_to_string(cluster.server(number).join("logs/server.log")).unwrap();
            log.contains("\"reason\":\"replayed\"")
        })
    });
}
