//! TLS: who is trusted, under which name, and what is shown to them.

use crosstie_model::outgoing::Trouble;
use crosstie_test_support::{Pki, Validity};
use http::Method;
use serde_json::{Value, json};

use crate::support::{Upstream, World, acceptor, answer, call, exchange, get};

const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

async fn upstream(pki: &Pki, validity: Validity, clients: Option<&Pki>) -> Upstream {
    let issued = pki.issue("crm", 1, validity).unwrap();
    Upstream::start_tls(acceptor(&issued, clients, BOTH), |_| async { answer(200, "ok") }).await
}

async fn tls_error(world: &World, upstream: &Upstream, tls: Value) -> String {
    let outgoing = world.open(upstream, json!({"tls": tls, "retry": {"max": 3, "pause_ms": 1}}));
    let error = exchange(&outgoing, call(Method::GET, "/")).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Tls, "{error}");
    error.detail
}

#[tokio::test]
async fn only_who_the_definition_trusts_is_spoken_to() {
    let (own, other) = (Pki::new("Own").unwrap(), Pki::new("Other").unwrap());
    let upstream = upstream(&own, Validity::Now, None).await;
    let world = World::new().file("ca.pem", own.certificate());
    for ca in ["file:ca.pem", own.certificate()] {
        let outgoing = world.open(&upstream, json!({"tls": {"ca": ca}}));
        assert_eq!(get(&outgoing, "/").await.unwrap().0, 200);
    }
    let before = upstream.connections();
    let detail = tls_error(&world, &upstream, json!({"ca": other.certificate()})).await;
    assert!(detail.contains("UnknownIssuer"), "{detail}");
    // Without an authority of its own the system's are trusted, and this one is not among them.
    tls_error(&world, &upstream, json!({})).await;
    assert_eq!(upstream.connections(), before + 2, "trying again would end the same");
    assert_eq!(upstream.requests(), 2, "no request goes to a stranger");
}

#[tokio::test]
async fn the_certificate_must_be_made_out_to_the_address_and_be_valid() {
    let pki = Pki::new("Own").unwrap();
    let world = World::new();
    let good = upstream(&pki, Validity::Now, None).await;
    // "crm.example" and 127.0.0.1 stand in it.
    let named = world.open(&good, json!({"tls": {"ca": pki.certificate(), "server_name": "crm.example"}}));
    assert_eq!(get(&named, "/").await.unwrap().0, 200);
    let wrong = json!({"ca": pki.certificate(), "server_name": "billing.example"});
    let detail = tls_error(&world, &good, wrong).await;
    assert!(detail.contains("billing.example") || detail.contains("NotValidForName"), "{detail}");
    for validity in [Validity::Over, Validity::NotYet] {
        let bad = upstream(&pki, validity, None).await;
        tls_error(&world, &bad, json!({"ca": pki.certificate()})).await;
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_there_is_one() {
    let (servers, clients) = (Pki::new("Servers").unwrap(), Pki::new("Clients").unwrap());
    let upstream = upstream(&servers, Validity::Now, Some(&clients)).await;
    let own = clients.issue("crosstie", 2, Validity::Now).unwrap();
    let stranger = servers.issue("stranger", 3, Validity::Now).unwrap();
    let world = World::new().file("own.key", &own.key).file("stranger.key", &stranger.key);
    let tls = |certificate: &str, key: &str| {
        json!({"tls": {"ca": servers.certificate(), "certificate": certificate, "key": key},
               "retry": {"max": 0}})
    };
    let outgoing = world.open(&upstream, tls(&own.certificate, "file:own.key"));
    assert_eq!(get(&outgoing, "/").await.unwrap().0, 200);
    // The refusal comes after the handshake's end on this side, with TLS 1.3.
    for refused in [
        world.open(&upstream, tls(&stranger.certificate, "file:stranger.key")),
        world.open(&upstream, json!({"tls": {"ca": servers.certificate()}, "retry": {"max": 0}})),
    ] {
        let error = exchange(&refused, call(Method::GET, "/")).await.unwrap_err();
        assert!(matches!(error.trouble, Trouble::Tls | Trouble::Broken), "{error:?}");
    }
    assert_eq!(upstream.requests(), 1);
    let mixed = json!({"type": "http", "address": upstream.address(),
        "tls": {"certificate": own.certificate, "key": "file:stranger.key"}});
    let error = world.try_open(mixed).err().unwrap().to_string();
    assert!(!error.contains("PRIVATE KEY"), "{error}");
}

#[tokio::test]
async fn what_is_no_certificate_closes_the_outgoing() {
    let world = World::new().file("empty.pem", "").file("key", "no key");
    let pki = Pki::new("Own").unwrap();
    for tls in [
        json!({"ca": "file:absent.pem"}),
        json!({"ca": "file:empty.pem"}),
        json!({"ca": "not a certificate"}),
        json!({"certificate": pki.certificate(), "key": "file:key"}),
        json!({"certificate": pki.certificate(), "key": "file:absent"}),
        json!({"server_name": "not a name"}),
    ] {
        let body = json!({"type": "http", "address": "https://127.0.0.1:1", "tls": tls});
        let error = world.try_open(body).err().unwrap().to_string();
        assert!(!error.contains("no key") && !error.is_empty(), "{tls}: {error}");
    }
}
