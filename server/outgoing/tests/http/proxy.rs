//! Calls through a proxy.

use std::sync::{Arc, Mutex};

use crosstie_model::outgoing::Trouble;
use crosstie_test_support::{Pki, Validity};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Upstream, World, acceptor, answer, call, exchange, field, get, trouble_of};

type Heads = Arc<Mutex<Vec<String>>>;

/// A proxy that makes tunnels for who presents the right credentials.
async fn tunnels(authorization: &'static str) -> (Upstream, Heads) {
    let heads = Heads::default();
    let kept = Arc::clone(&heads);
    let proxy = Upstream::raw(move |mut client| {
        let kept = Arc::clone(&kept);
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            kept.lock().unwrap().push(head.clone());
            if !head.contains(&format!("Proxy-Authorization: {authorization}\r\n")) {
                let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
                return client.write_all(refusal).await.unwrap();
            }
            let target = head.split_whitespace().nth(1).unwrap().to_owned();
            let mut server = TcpStream::connect(target).await.unwrap();
            client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
    })
    .await;
    (proxy, heads)
}

#[tokio::test]
async fn an_encrypted_address_is_reached_through_a_tunnel() {
    let pki = Pki::new("Own").unwrap();
    let issued = pki.issue("crm", 1, Validity::Now).unwrap();
    let tls = acceptor(&issued, None, &[b"http/1.1"]);
    let upstream = Upstream::start_tls(tls, |request| async move {
        answer(200, format!("{}|{}", request.uri(), field(request.headers(), "proxy-authorization")))
    })
    .await;
    let (proxy, heads) = tunnels("Basic dXNlcjpwdw==").await;
    let world = World::new()
        .file("pw", "pw")
        .security("proxy", json!({"type": "basic_auth", "username": "user", "password": "file:pw"}));
    let address = format!("http://127.0.0.1:{}", proxy.port);
    let settings = |security: bool| {
        let mut settings = json!({"tls": {"ca": pki.certificate()}, "retry": {"max": 0},
                                  "proxy": {"address": address}});
        if security {
            settings["proxy"]["security"] = "proxy".into();
        }
        settings
    };
    let outgoing = world.open(&upstream, settings(true));
    for _ in 0..3 {
        assert_eq!(get(&outgoing, "/a?b").await.unwrap(), (200, "/a?b|".to_owned()));
    }
    let asked = heads.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "one tunnel serves many calls");
    assert!(asked[0].starts_with(&format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\nHost: ", upstream.port)));

    let error = exchange(&world.open(&upstream, settings(false)), call(Method::GET, "/")).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Proxy);
    assert!(error.detail.contains("407") && !error.detail.contains("dXNlcjpwdw"), "{error}");
    assert_eq!(upstream.requests(), 3);
}

#[tokio::test]
async fn for_a_plain_address_the_proxy_gets_the_requests_themselves() {
    let proxy = Upstream::start(|request| async move {
        let authorization = field(request.headers(), "proxy-authorization");
        answer(200, format!("{}|{authorization}|{}", request.uri(), field(request.headers(), "host")))
    })
    .await;
    let world = World::new()
        .file("pw", "pw")
        .security("proxy", json!({"type": "basic_auth", "username": "user", "password": "file:pw"}));
    let settings = json!({"proxy": {"address": proxy.address(), "security": "proxy"}});
    let outgoing = world.open_at("http://crm.example:8080", settings);
    assert_eq!(
        get(&outgoing, "/a?b").await.unwrap().1,
        "http://crm.example:8080/a?b|Basic dXNlcjpwdw==|crm.example:8080"
    );
}

#[tokio::test]
async fn a_proxy_that_is_away_or_none_is_an_error() {
    let nonsense = Upstream::raw(|mut stream| async move {
        stream.write_all(b"220 mail.example ESMTP\r\n\r\n").await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let world = World::new();
    let to = |proxy: &str| {
        world.open_at("https://crm.example", json!({"proxy": {"address": proxy}, "retry": {"max": 0}}))
    };
    assert_eq!(trouble_of(&to(&nonsense.address()), call(Method::GET, "/")).await, Trouble::Proxy);
    assert_eq!(trouble_of(&to("http://127.0.0.1:1"), call(Method::GET, "/")).await, Trouble::Connect);
}
