//! What only a database server can suffer: not there, silent, without TLS, its connections cut, too many of
//! them wanted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crosstie_model::names::Revision;
use crosstie_odb::{Odb, OdbError};

use crate::database::{Database, on_mysql, on_postgres, options};
use crate::support::{change, dictionary, put};

/// A server that greets each client with `greeting`, after its first bytes when it must speak first, and
/// then keeps silent. It ends with the test's process.
fn silent_server(greeting: Vec<u8>, client_first: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            if client_first {
                let _ = client.read(&mut [0; 64]);
            }
            let _ = client.write_all(&greeting);
            held.push(client);
        }
    });
    address
}

/// The first packet of a MySQL server that offers no TLS (protocol version 10, capabilities without
/// CLIENT_SSL).
fn mysql_greeting_without_tls() -> Vec<u8> {
    let mut payload = vec![10];
    payload.extend(b"10.11.0-MariaDB\0\x01\0\0\0authdata\0");
    // Protocol 4.1, transactions, secure connection; charset, status; plugin authentication.
    payload.extend([0x00, 0xa2, 45, 2, 0, 0x08, 0x00, 21]);
    payload.extend([0; 10]);
    payload.extend(b"authdataauth\0mysql_native_password\0");
    let length = u8::try_from(payload.len()).unwrap();
    [vec![length, 0, 0, 0], payload].concat()
}

async fn assert_refused(url: &str, within: Duration, reason: &str) {
    let started = Instant::now();
    let error = Odb::connect(&options(url)).unwrap().revision().await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_unreachable() && text.contains(reason), "{url}: {text}");
    assert!(started.elapsed() < within, "{url}: {:?}", started.elapsed());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_at_once() {
    for scheme in ["postgres", "mysql"] {
        // Bound and never listening, so that the kernel refuses and nobody else gets the port.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let url = format!("{scheme}://crosstie@127.0.0.1:{port}/crosstie?tls=off");
        assert_refused(&url, Duration::from_secs(2), "refused").await;
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_unreachable_in_time() {
    for scheme in ["postgres", "mysql"] {
        let address = silent_server(Vec::new(), false);
        let url = format!("{scheme}://crosstie@{address}/crosstie?tls=off");
        assert_refused(&url, Duration::from_secs(8), "no connection within").await;
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused() {
    let ca = tempfile::NamedTempFile::new().unwrap();
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(ca.path(), issued.cert.pem()).unwrap();
    let ca = ca.path().display();
    let address = silent_server(b"N".to_vec(), true);
    let url = format!("postgres://crosstie@{address}/crosstie?ca={ca}");
    assert_refused(&url, Duration::from_secs(2), "does not support TLS").await;
    let address = silent_server(mysql_greeting_without_tls(), false);
    let url = format!("mysql://crosstie@{address}/crosstie?ca={ca}");
    assert_refused(&url, Duration::from_secs(2), "SSL").await;
}

#[tokio::test]
async fn a_ca_that_cannot_be_read_is_a_bad_option() {
    for scheme in ["postgres", "mysql"] {
        let url = format!("{scheme}://crosstie@db.example/crosstie?ca=/does/not/exist.pem");
        let error = Odb::connect(&options(&url)).unwrap_err();
        assert!(matches!(&error, OdbError::Options(text) if text.contains("exist.pem")), "{error:?}");
    }
}

/// Connections that the server closed do not fail the calls after it.
async fn calls_go_on_when_connections_were_cut(database: Database, cut: &str) {
    let odb = database.open();
    let (first, second) = tokio::join!(odb.snapshot(), change(&odb, vec![put(dictionary("a", 1))]));
    first.unwrap();
    second.unwrap();
    drop(database.outside(&[cut]).await);
    // Within the second in which pooled connections are trusted.
    assert_eq!(change(&odb, vec![put(dictionary("a", 2))]).await.unwrap(), Revision(2));
    drop(database.outside(&[cut]).await);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(odb.revision().await.unwrap(), Revision(2));
}

#[tokio::test]
async fn postgres_calls_go_on_when_connections_were_cut() {
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()";
    on_postgres(|database| calls_go_on_when_connections_were_cut(database, cut)).await;
}

#[tokio::test]
async fn mysql_calls_go_on_when_connections_were_cut() {
    // KILL takes one connection; a compound statement kills those of this database.
    let cut = "BEGIN NOT ATOMIC \
         FOR other IN (SELECT id FROM information_schema.processlist \
                       WHERE db = database() AND id <> connection_id()) DO \
           EXECUTE IMMEDIATE CONCAT('KILL CONNECTION ', other.id); \
         END FOR; END";
    on_mysql(|database| calls_go_on_when_connections_were_cut(database, cut)).await;
}

/// However many calls are made at once, a handle opens no more connections than it may, and none fails.
async fn a_handle_keeps_to_its_connections(database: Database, count: &str) {
    let odb = database.open();
    let calls = (0..40).map(|_| {
        let odb = odb.clone();
        tokio::spawn(async move { odb.revision().await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap(), Revision(0));
    }
    let open = database.outside(&[]).await.number(count).await;
    assert_eq!(open, 2, "of two allowed");
}

#[tokio::test]
async fn a_postgres_handle_keeps_to_its_connections() {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    on_postgres(|database| a_handle_keeps_to_its_connections(database, count)).await;
}

#[tokio::test]
async fn a_mysql_handle_keeps_to_its_connections() {
    let count =
        "SELECT count(*) FROM information_schema.processlist WHERE db = database() AND id <> connection_id()";
    on_mysql(|database| a_handle_keeps_to_its_connections(database, count)).await;
}
