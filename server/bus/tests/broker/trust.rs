//! Both ends are verified, and what is refused says why.

use std::sync::Arc;

use crosstie_bus::ClientConfig;
use crosstie_test_support::parts::Authority;

use crate::support::{Broker, PASSWORD, Server, tls};

async fn refusal(url: &str, password: &'static str, tls: Option<Arc<ClientConfig>>) -> String {
    let server = Server::start("a", url, password, tls);
    // Nothing waits, whatever the broker does.
    server.publish(1);
    let said = server.fails().await;
    assert!(!said.contains("secret"), "{said}");
    server.bus.close().await;
    said
}

#[tokio::test]
async fn a_connection_that_either_end_does_not_trust_is_refused() {
    let broker = Broker::secured();
    let (url, ours) = (broker.url(), Some(broker.tls()));
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Authority::new(elsewhere.path()).unwrap().issue("a", &["a"]).unwrap();
    let own = broker.authority().issue("a", &["a"]).unwrap();

    let said = refusal(&url, PASSWORD, Some(tls(&stranger, Some(&own)))).await;
    assert!(said.contains("is not trusted") && said.contains("invalid peer certificate"), "{said}");

    let by_name = url.replace("127.0.0.1", "localhost");
    let said = refusal(&by_name, PASSWORD, ours.clone()).await;
    assert!(said.contains("is not trusted") && said.contains("not valid for name"), "{said}");

    let said = refusal(&url, PASSWORD, Some(tls(&own, Some(&stranger)))).await;
    assert!(said.contains("this server's certificate"), "{said}");

    let said = refusal(&url, PASSWORD, Some(tls(&own, None))).await;
    assert!(said.contains("this server's certificate"), "{said}");

    let said = refusal(&broker.plain_url(), PASSWORD, None).await;
    assert!(said.contains("login"), "{said}");

    let said = refusal(&url, "wrong", ours.clone()).await;
    assert!(said.contains("login") && said.contains("ACCESS_REFUSED"), "{said}");

    let said = refusal(&format!("{url}-nowhere"), PASSWORD, ours).await;
    assert!(said.contains("login") && said.contains("vhost crosstie-nowhere"), "{said}");

    // After all these the broker still serves who may.
    let mut server = broker.bus("a");
    server.connects().await;
}

#[tokio::test]
async fn tls_to_a_port_in_plain_and_to_nobody_is_refused() {
    let broker = Broker::plain();
    let said = refusal(&broker.url(), PASSWORD, Some(broker.tls())).await;
    assert!(said.contains("it does not speak TLS there"), "{said}");

    let said = refusal("amqps://crosstie@127.0.0.1:1/x", PASSWORD, Some(broker.tls())).await;
    assert!(said.contains("cannot be reached") && said.contains("refused"), "{said}");
}
