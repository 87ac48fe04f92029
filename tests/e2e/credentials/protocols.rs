//! Every kind of channel refuses in its own words: each error has the form that its protocol has for it, and each
//! refusal is a line of the log.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosstie_test_support::{Environment, Reply, Said, Upstream, wait_until};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::tokens::openssl;
use super::{apply, environment, refusals, wait_for_refusals};

const PASSWORD: &str = "right-password-6d1f";
const WRONG: &str = "wrong-password-90ab";
const V11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const V12: &str = "http://www.w3.org/2003/05/soap-envelope";
const OASIS: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss";

/// A moment so many seconds from now, as messages have it.
pub(crate) fn moment(offset: i64) -> String {
    let now = OffsetDateTime::now_utc() + time::Duration::seconds(offset);
    let (date, time) = (now.date(), now.time());
    let month = u8::from(date.month());
    let (hour, minute, second) = time.as_hms();
    format!("{:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", date.year(), date.day())
}

/// The children of a username token.
pub(crate) fn digest(username: &str, password: &str, nonce: &str, created: &str) -> String {
    let digested = openssl(&["dgst", "-sha1", "-binary"], format!("{nonce}{created}{password}").as_bytes());
    format!(
        "<w:Username>{username}</w:Username>\
         <w:Password Type='{OASIS}-username-token-profile-1.0#PasswordDigest'>{}</w:Password>\
         <w:Nonce>{}</w:Nonce><u:Created>{created}</u:Created>",
        STANDARD.encode(digested),
        STANDARD.encode(nonce)
    )
}

fn text(username: &str, password: &str) -> String {
    format!("<w:Username>{username}</w:Username><w:Password>{password}</w:Password>")
}

/// A message for the operation `Who` of `urn:who`, with a username token of these children.
pub(crate) fn message(version: &str, token: &str) -> String {
    let security = match token {
        "" => String::new(),
        token => format!(
            "<w:Security xmlns:w='{OASIS}-wssecurity-secext-1.0.xsd' xmlns:u='{OASIS}-wssecurity-utility-1.0.xsd'>\
             <w:UsernameToken>{token}</w:UsernameToken></w:Security>"
        ),
    };
    format!(
        "<s:Envelope xmlns:s='{version}'><s:Header>{security}</s:Header><s:Body><Who xmlns='urn:who'/></s:Body></s:Envelope>"
    )
}

fn soap(environment: &Environment, path: &str, version: &str, token: &str) -> Reply {
    let media = if version == V11 { "text/xml" } else { "application/soap+xml" };
    environment.http().post(path, media, message(version, token).as_bytes()).unwrap()
}

/// The log's only line on refusals of `security` at `path`.
fn line(environment: &Environment, security: &str, path: &str) -> Value {
    let told = refusals(environment, security).into_iter().map(|(_, line)| line);
    let records = told.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let mut found: Vec<Value> = records.filter(|record| record["fields"]["path"] == path).collect();
    assert_eq!(found.len(), 1, "of {path}: {found:?}");
    found.remove(0)
}

#[test]
fn every_kind_of_channel_refuses_in_its_own_words() {
    let environment = environment();
    let upstream = Upstream::start(|_| Said::json(200, &json!("reached"))).unwrap();
    let channel = |kind: &str, more: Value| {
        let mut body = json!({"type": kind, "path": format!("/{kind}"), "security": "clients"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    apply(
        &environment,
        &json!({
            "security": {"clients": {"type": "basic_auth", "username": "ada", "password": PASSWORD}},
            "outgoing": {"up": {"type": "http", "address": upstream.url()}},
            "channel": {
                "c.rest": channel("rest", json!({"service": "test.who"})),
                "c.http": channel("http", json!({"service": "test.who"})),
                "c.jsonrpc": channel("jsonrpc", json!({"methods": {"who": "test.who"}})),
                "c.soap": channel("soap", json!({"namespace": "urn:who", "operations": {"Who": "test.who"}})),
                "c.passthrough": channel("passthrough", json!({"outgoing": "up"})),
            },
        }),
    );
    let call = json!({"jsonrpc": "2.0", "method": "who", "id": 1}).to_string();
    let requests = [
        ("/rest", "application/json", "{}".to_owned(), "application/problem+json"),
        ("/http", "application/json", "{}".to_owned(), "application/problem+json"),
        ("/passthrough", "application/json", "{}".to_owned(), "application/problem+json"),
        ("/jsonrpc", "application/json", call, "application/json"),
        ("/soap", "text/xml", message(V11, ""), "text/xml; charset=utf-8"),
    ];
    for (path, media, body, told) in &requests {
        let right = environment.http().basic_auth("ada", PASSWORD);
        let wrong = environment.http().basic_auth("ada", WRONG);
        let ok = right.post(path, media, body.as_bytes()).unwrap();
        assert_eq!(ok.status, 200, "{path}: {}", ok.text());
        let refused = wrong.post(path, media, body.as_bytes()).unwrap();
        assert_eq!((refused.status, refused.header("content-type")), (401, *told), "{path}");
        assert_eq!(
            refused.header("www-authenticate"),
            "Basic realm=\"crosstie\", charset=\"UTF-8\"",
            "{path}"
        );
        let text = refused.text();
        match *path {
            "/jsonrpc" => {
                let error = refused.json();
                assert_eq!(
                    (&error["id"], &error["error"]["data"]["status"]),
                    (&Value::Null, &json!(401)),
                    "{text}"
                );
            }
            "/soap" => {
                assert!(text.contains("<faultcode>soap:Client</faultcode>"), "{text}");
                assert!(text.contains("status>401</"), "{text}");
            }
            _ => assert_eq!(refused.json()["type"], "urn:crosstie:problem:unauthorized", "{text}"),
        }
        assert!(!text.contains(WRONG) && !text.contains(PASSWORD), "{text}");
    }
    assert_eq!(upstream.asked().len(), 1, "the refused one was handed on");
    wait_for_refusals(&environment, "clients", &["wrong"; 5]);
    for (path, ..) in &requests {
        let record = line(&environment, "clients", path);
        assert_eq!(record["fields"]["channel"], json!(format!("c.{}", &path[1..])));
        assert_eq!(
            record["level"].as_str().map(str::to_ascii_lowercase).as_deref(),
            Some("warn"),
            "{record}"
        );
    }

    // Taken back: from the change on, the old one is as good as any wrong one.
    let another = "another-password-77ce";
    apply(
        &environment,
        &json!({"security": {"clients": {"type": "basic_auth", "username": "ada", "password": another}}}),
    );
    for (path, media, body, _) in &requests {
        let by = |password: &str| {
            let http = environment.http().basic_auth("ada", password);
            http.post(path, media, body.as_bytes()).unwrap().status
        };
        assert_eq!((by(PASSWORD), by(another)), (401, 200), "{path}");
    }
}

#[test]
fn username_tokens_are_refused_for_each_reason_in_both_versions() {
    let environment = environment();
    let token = |more: Value| {
        let mut body = json!({"type": "wss_username_token", "username": "shop", "password": PASSWORD, "max_age_s": 60,
            "max_skew_s": 10});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let channel = |path: &str, security: &str| json!({"type": "soap", "path": path, "namespace": "urn:who", "security": security, "operations": {"Who": "test.who"}});
    apply(
        &environment,
        &json!({
            "security": {
                "old": token(json!({})),
                "new": token(json!({})),
                "digests": token(json!({"passwords": ["digest"]})),
                "nonces": token(json!({"require_nonce": true})),
            },
            "channel": {
                "old": channel("/old", "old"), "new": channel("/new", "new"),
                "digests": channel("/digests", "digests"), "nonces": channel("/nonces", "nonces"),
            },
        }),
    );
    let (now, old) = (moment(0), moment(-3_600));
    for (path, version, status) in [("/old", V11, 500), ("/new", V12, 400)] {
        let send = |token: &str| soap(&environment, path, version, token);
        let once = digest("shop", PASSWORD, &format!("nonce of {path}"), &now);
        for right in [text("shop", PASSWORD), once.clone()] {
            let reply = send(&right);
            assert_eq!(reply.status, 200, "{}", reply.text());
            assert!(reply.text().contains(">shop<"), "{}", reply.text());
        }
        let attempts = [
            (text("shop", WRONG), "FailedAuthentication"),
            (text("somebody", PASSWORD), "FailedAuthentication"),
            (digest("shop", WRONG, "n1", &now), "FailedAuthentication"),
            // Recorded, and sent again.
            (once.clone(), "FailedAuthentication"),
            (digest("shop", PASSWORD, "n2", &old), "MessageExpired"),
            (digest("shop", PASSWORD, "n3", &moment(3_600)), "MessageExpired"),
            // The time was changed, so the digest is no longer right.
            (digest("shop", PASSWORD, "n4", &old).replace(&old, &now), "FailedAuthentication"),
            ("<w:Username>shop</w:Username>".to_owned(), "FailedAuthentication"),
            ("<w:Password>x</w:Password>".to_owned(), "InvalidSecurity"),
            (text("shop", PASSWORD) + "<w:Nonce>!</w:Nonce>", "InvalidSecurity"),
            (String::new(), "FailedAuthentication"),
        ];
        for (token, code) in &attempts {
            let reply = send(token);
            assert_eq!(reply.status, status, "{token}: {}", reply.text());
            assert!(reply.text().contains(code), "{code} for {token}: {}", reply.text());
            assert!(!reply.text().contains(PASSWORD) && !reply.text().contains(WRONG), "{}", reply.text());
            assert_eq!(reply.header("www-authenticate"), "", "HTTP has no challenge for it");
        }
        let reasons = [
            "wrong",
            "wrong",
            "wrong",
            "replayed",
            "expired",
            "expired",
            "wrong",
            "wrong",
            "malformed",
            "malformed",
        ];
        wait_for_refusals(&environment, &path[1..], &reasons);
        assert!(refusals(&environment, &path[1..])[0].1.contains(&format!("\"path\":\"{path}\"")));
    }
    let refused = soap(&environment, "/digests", V11, &text("shop", PASSWORD));
    assert!(refused.text().contains("UnsupportedSecurityToken"), "{}", refused.text());
    wait_for_refusals(&environment, "digests", &["algorithm"]);
    let refused = soap(&environment, "/nonces", V11, &text("shop", PASSWORD));
    assert!(refused.text().contains("InvalidSecurity"), "{}", refused.text());
    wait_for_refusals(&environment, "nonces", &["malformed"]);

    let logs = environment.server().join("logs");
    wait_until("the access log has it", || {
        fs::read_to_string(logs.join("access.log")).unwrap().contains("\"refused\":\"replayed\"")
    });
    for name in ["server.log", "access.log"] {
        let log = fs::read_to_string(logs.join(name)).unwrap();
        assert!(!log.contains(PASSWORD) && !log.contains(WRONG), "{name}");
    }
}
