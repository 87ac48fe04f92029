//! Both ends are verified, and what is refused says why.

use std::sync::Arc;

use crosstie_security::CertificateAuthority;
use rustls::ClientConfig;

use crate::support::{Broker, PASSWORD, Server, tls};

async fn refusal(url: &str, password: &'static str, tls: Option<Arc<ClientConfig>>) -> String {
    let server = Server::start("a", url, password, tls);
    // Nothing waits, whatever the broker does.
    server.publish(1);
    let said = server.fails().await;
    assert!(!said.contains("ecret"), "{said}");
    server.bus.close().await;
    said
}

#[tokio::test]
async fn a_connection_that_either_end_does_not_trust_is_refused() {
    let broker = Broker::secured();
    let port = broker.address.port();
    let url = format!("amqps://crosstie@localhost:{port}/crosstie");
    let ours = || Some(broker.tls("a"));
    let other = CertificateAuthority::create("other").unwrap();
    let own = broker.issue("a");

    let said = refusal(&url, PASSWORD, Some(tls(&other, Some(&own)))).await;
    assert!(said.contains("is not trusted") && said.contains("UnknownIssuer"), "{said}");

    let by_address = format!("amqps://crosstie@127.0.0.1:{port}/crosstie");
    let said = refusal(&by_address, PASSWORD, ours()).await;
    assert!(said.contains("is not trusted") && said.contains("not valid for name"), "{said}");

    let stranger = other.issue_server("a", &["a"], &[]).unwrap();
    let said = refusal(&url, PASSWORD, Some(tls(&broker.authority, Some(&stranger)))).await;
    assert!(said.contains("this server's certificate"), "{said}");

    let said = refusal(&url, PASSWORD, Some(tls(&broker.authority, None))).await;
    assert!(said.contains("this server's certificate"), "{said}");

    let said = refusal(&format!("amqp://crosstie@127.0.0.1:{port}/crosstie"), PASSWORD, None).await;
    assert!(said.contains("login"), "{said}");

    let said = refusal(&url, "wrong", ours()).await;
    assert!(said.contains("login") && said.contains("ACCESS_REFUSED"), "{said}");

    let said = refusal(&format!("amqps://crosstie@localhost:{port}/nowhere"), PASSWORD, ours()).await;
    assert!(said.contains("login") && said.contains("vhost nowhere"), "{said}");

    // After all these the broker still serves who may.
    let mut server = broker.bus("a");
    server.connects().await;
}

#[tokio::test]
async fn tls_to_a_port_in_plain_and_to_nobody_is_refused() {
    let broker = Broker::plain();
    let url = format!("amqps://crosstie@127.0.0.1:{}/crosstie", broker.address.port());
    let said = refusal(&url, PASSWORD, Some(broker.tls("a"))).await;
    assert!(said.contains("it does not speak TLS there"), "{said}");

    let said = refusal("amqps://crosstie@127.0.0.1:1/x", PASSWORD, Some(broker.tls("a"))).await;
    assert!(said.contains("cannot be reached") && said.contains("refused"), "{said}");
}
