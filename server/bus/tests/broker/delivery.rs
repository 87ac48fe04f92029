//! Who hears what.

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};

use crate::support::{Broker, PASSWORD, changed};

/// Publishes what no server would.
async fn publish(broker: &Broker, bodies: &[&[u8]]) {
    let password: String = PASSWORD.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let url = format!("amqp://crosstie:{password}@{}/crosstie", broker.address());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for body in bodies {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        channel.basic_publish("crosstie".into(), "".into(), options, body, properties).await.unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
}

#[tokio::test]
async fn servers_hear_each_other_but_neither_themselves_nor_garbage() {
    let broker = Broker::plain();
    let (mut a, mut b, mut c) = (broker.plain_bus("a"), broker.plain_bus("b"), broker.plain_bus("c"));
    for server in [&mut a, &mut b, &mut c] {
        server.connects().await;
    }
    b.publish(7);
    assert_eq!(a.hears().await, changed(7));
    assert_eq!(c.hears().await, changed(7));
    b.reaches("confirmed", |state| state.counts.sent == 1).await;

    let newer = br#"{"version":2,"server":"x","changed":"revision","revision":1}"#;
    publish(&broker, &[b"", b"\xff\x00garbage", &[b'{'; 5000], newer]).await;
    // One queue, one order: what comes after the garbage shows that it was passed over.
    c.publish(8);
    assert_eq!(a.hears().await, changed(8));
    assert_eq!(b.hears().await, changed(8));
    c.reaches("counted", |state| state.counts.unreadable == 4).await;
    for (server, received) in [(&mut a, 2), (&mut b, 1), (&mut c, 1)] {
        assert!(server.hears_nothing());
        let counts = server.bus.state().counts;
        assert_eq!((counts.received, counts.unreadable), (received, 4));
    }
    for server in [a, b, c] {
        server.bus.close().await;
    }
}

#[tokio::test]
async fn events_of_one_server_stay_there() {
    let broker = Broker::plain();
    let (mut a, mut b) = (broker.plain_bus("a"), broker.plain_bus("b"));
    a.connects().await;
    b.connects().await;
    a.bus.publish(&crosstie_model::Event::SettingsChanged);
    a.bus.publish(&crosstie_model::Event::CertificatesChanged);
    a.publish(3);
    assert_eq!(b.hears().await, changed(3));
    assert!(b.hears_nothing());
}
