//! Authorization servers that say yes, no, nonsense and nothing.

use crosstie_model::definition::SecurityDefinition;
use crosstie_model::ports::{NoNonces, Nonces};
use crosstie_model::{FailureKind, Snapshot};
use serde_json::json;

use super::*;
use crate::cluster_key::ClusterKey;
use crate::credentials::testing::{Oracle, Way};
use crate::secret::SecretResolver;

fn check(oracle: &Arc<Oracle>, more: Value) -> IntrospectionCheck {
    let mut body = json!({"type": "oauth2_introspection", "url": "https://id.example/introspect",
        "client_id": "shop & co", "client_secret": "env:PATH"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let definition: SecurityDefinition = serde_json::from_value(body).unwrap();
    let name = "tokens".parse().unwrap();
    let resolver = SecretResolver::new(Arc::new(ClusterKey::generate().unwrap()), "/nowhere".into());
    let snapshot = Snapshot::default();
    let material = Material::gather(&name, &definition, &snapshot, &resolver).unwrap();
    let SecurityDefinition::Oauth2Introspection(body) = &definition else { panic!() };
    let way = Way(Arc::clone(oracle));
    let workshop = Workshop {
        name: &name,
        snapshot: &snapshot,
        inquiries: &way,
        nonces: &(Arc::new(NoNonces) as Arc<dyn Nonces>),
    };
    let template = Principal::new("tokens", "oauth2_introspection");
    IntrospectionCheck::new(body, &material, template, &workshop).unwrap()
}

fn says(answer: &Value) -> Option<(u16, String)> {
    Some((200, answer.to_string()))
}

/// As the authenticator does, `later` seconds from now.
async fn come(check: &IntrospectionCheck, token: &str, later: u64) -> Result<Arc<Principal>, Denial> {
    let field = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    let headers = HeaderMap::from_iter([(AUTHORIZATION, field)]);
    let mut presented = Presented::now(&headers, &[]);
    presented.now += Duration::from_secs(later);
    match check.decide(&presented) {
        Some(verdict) => verdict,
        None => check.ask(&presented).await,
    }
}

async fn reason(check: &IntrospectionCheck, token: &str, later: u64) -> Option<RefusalReason> {
    come(check, token, later).await.err().map(|denial| denial.reason)
}

fn unix_now() -> i64 {
    Presented::now(&HeaderMap::new(), &[]).unix_seconds()
}

#[tokio::test]
async fn an_active_token_is_its_bearers_and_is_asked_about_once_in_a_while() {
    let end = unix_now() + 40;
    let oracle =
        Oracle::new([says(&json!({"active": true, "username": "ada", "sub": "17", "scope": "read write",
        "client_id": "till", "exp": end}))]);
    let check = check(&oracle, json!({"clock_skew_s": 0, "scopes": ["read"]}));
    let principal = come(&check, "a+b", 0).await.unwrap();
    assert_eq!((principal.username.as_deref(), principal.kind), (Some("ada"), "oauth2_introspection"));
    assert_eq!(principal.scopes, ["read", "write"]);
    assert_eq!((&principal.claims["client_id"], principal.claims.get("active")), (&json!("till"), None));
    let (headers, target, body) = oracle.questions.lock().unwrap()[0].clone();
    assert_eq!(target, "/introspect");
    assert_eq!(body, "token=a%2Bb&token_type_hint=access_token");
    let field = headers[AUTHORIZATION].to_str().unwrap().strip_prefix("Basic ").unwrap();
    let sent = String::from_utf8(STANDARD.decode(field).unwrap()).unwrap();
    assert!(sent.starts_with("shop+%26+co:%2F"), "{sent}");
    assert!(headers[AUTHORIZATION].is_sensitive());
    let endpoint = oracle.endpoints.lock().unwrap()[0].clone();
    assert_eq!(
        (endpoint.max_connections, endpoint.retry.methods),
        (32, vec!["GET".to_owned(), "POST".to_owned()])
    );

    assert!(come(&check, "a+b", 39).await.is_ok());
    assert_eq!(oracle.asked(), 1, "remembered");
    assert_eq!(reason(&check, "a+b", 41).await, Some(RefusalReason::Expired), "no longer than it lives");
    assert_eq!(oracle.asked(), 2);
    assert!(come(&check, "other", 0).await.is_ok());
    assert_eq!(oracle.asked(), 3);
}

#[tokio::test]
async fn a_revoked_token_counts_as_long_as_is_said_and_no_longer() {
    let oracle = Oracle::new([says(&json!({"active": true}))]);
    let check = check(&oracle, json!({"cache_s": 20, "refused_cache_s": 5}));
    assert!(come(&check, "t", 0).await.is_ok());
    oracle.says(says(&json!({"active": false})));
    assert!(come(&check, "t", 19).await.is_ok());
    let refused = come(&check, "t", 21).await.unwrap_err();
    assert_eq!((refused.kind, refused.reason), (FailureKind::Unauthorized, RefusalReason::Revoked));
    assert!(refused.challenge.unwrap().contains("error=\"invalid_token\""));
    assert_eq!(oracle.asked(), 2);
    oracle.says(says(&json!({"active": true})));
    assert_eq!(reason(&check, "t", 25).await, Some(RefusalReason::Revoked), "remembered, too");
    assert_eq!(reason(&check, "t", 27).await, None);
    assert_eq!(oracle.asked(), 3);
}

#[tokio::test]
async fn without_a_cache_every_request_is_asked_about() {
    let oracle = Oracle::new([says(&json!({"active": true}))]);
    for settings in [json!({"cache_s": 0}), json!({"cache_entries": 0})] {
        let before = oracle.asked();
        let check = check(&oracle, settings);
        for _ in 0..3 {
            assert!(come(&check, "t", 0).await.is_ok());
        }
        assert_eq!(oracle.asked() - before, 3);
    }
}

#[tokio::test]
async fn what_the_server_says_must_be_what_is_demanded() {
    let demands = json!({"issuer": "https://id.example", "audience": ["shop"], "scopes": ["write"],
        "claims": {"client_id": "till"}});
    let good = json!({"active": true, "iss": "https://id.example", "aud": "shop", "scope": "write", "client_id": "till"});
    assert!(come(&check(&Oracle::new([says(&good)]), demands.clone()), "t", 0).await.is_ok());
    for (claim, value, reason_wanted) in [
        ("iss", json!("x"), RefusalReason::Issuer),
        ("aud", json!("x"), RefusalReason::Audience),
        ("scope", json!("read"), RefusalReason::Scope),
        ("client_id", json!("x"), RefusalReason::Claims),
        ("nbf", json!(unix_now() + 1_000), RefusalReason::NotYetValid),
        ("exp", json!(unix_now() - 1_000), RefusalReason::Expired),
    ] {
        let mut said = good.clone();
        said[claim] = value;
        let check = check(&Oracle::new([says(&said)]), demands.clone());
        assert_eq!(reason(&check, "t", 0).await, Some(reason_wanted), "{said}");
    }
}

#[tokio::test]
async fn without_an_answer_nobody_is_let_in_and_nothing_is_remembered() {
    for answer in [
        None,
        Some((401, "{}".to_owned())),
        Some((500, "{\"active\": true}".to_owned())),
        Some((302, String::new())),
        Some((200, "nonsense".to_owned())),
        Some((200, "{}".to_owned())),
        Some((200, "{\"active\": \"true\"}".to_owned())),
        Some((200, "[true]".to_owned())),
    ] {
        let oracle = Oracle::new([answer.clone()]);
        let check = check(&oracle, json!({}));
        let refused = come(&check, "t", 0).await.unwrap_err();
        assert_eq!((refused.kind, refused.challenge), (FailureKind::Unavailable, None), "{answer:?}");
        assert_eq!(refused.retry_after, Some(RETRY_AFTER));
        oracle.says(says(&json!({"active": true})));
        assert!(come(&check, "t", 0).await.is_ok(), "{answer:?}");
    }
}

#[tokio::test]
async fn who_comes_with_the_same_token_shares_the_question_and_may_leave() {
    let mut oracle = Oracle::new([says(&json!({"active": true}))]);
    Arc::get_mut(&mut oracle).unwrap().gate = Semaphore::new(0);
    let check = Arc::new(check(&oracle, json!({"max_concurrency": 1})));
    let come = |token: &'static str| {
        let check = Arc::clone(&check);
        tokio::spawn(async move { super::tests::come(&check, token, 0).await.map(drop) })
    };
    let (leaver, same, other) = (come("t"), come("t"), come("u"));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(oracle.asked(), 1, "one question about one token, and no more at a time than may be");
    leaver.abort();
    oracle.gate.add_permits(1);
    assert!(same.await.unwrap().is_ok());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(oracle.asked(), 2);
    oracle.gate.add_permits(1);
    assert!(other.await.unwrap().is_ok());
    assert!(check.server.lock().asked.is_empty());
}

#[tokio::test]
async fn credentials_may_be_sent_in_the_body() {
    let oracle = Oracle::new([says(&json!({"active": true}))]);
    let check = check(&oracle, json!({"credentials_in": "body"}));
    assert!(come(&check, "t", 0).await.is_ok());
    let (headers, _, body) = oracle.questions.lock().unwrap()[0].clone();
    assert!(headers.get(AUTHORIZATION).is_none());
    let start = "token=t&token_type_hint=access_token&client_id=shop+%26+co&client_secret=%2F";
    assert!(body.starts_with(start), "{body}");
}
