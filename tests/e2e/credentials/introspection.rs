//! Tokens that their authorization server is asked about.

use std::fs;

use crosstie_test_support::{Environment, wait_until};
use serde_json::{Value, json};

use super::issuer::Issuer;
use super::tokens::{Signer, unix_now};
use super::{apply, authorized, channels, environment_of, refusals, wait_for_refusals};

fn definition(issuer: &Issuer, more: &Value) -> Value {
    let mut body = json!({"type": "oauth2_introspection", "url": format!("{}/introspect", issuer.url),
        "client_id": "shop", "client_secret": "the-client-secret", "scopes": ["read"]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn get(environment: &Environment, path: &str, token: &str) -> (u16, String) {
    authorized(environment, path, &format!("Bearer {token}"))
}

#[test]
fn tokens_are_asked_about_remembered_for_a_while_and_revoked_in_time() {
    let environment = environment_of(&[("server.workers", "1")]);
    let mut issuer = Issuer::plain();
    let tokens = json!({
        "good-0123456789abcdef": {"active": true, "username": "ada", "scope": "read write", "client_id": "till"},
        "narrow-0123456789abcdef": {"active": true, "sub": "bob", "scope": "write"},
        "over-0123456789abcdef": {"active": true, "sub": "bob", "scope": "read", "exp": unix_now() - 1_000},
    });
    issuer.know(&tokens);
    apply(
        &environment,
        &json!({
            "security": {
                "tokens": definition(&issuer, &json!({})),
                "shortly": definition(&issuer, &json!({"cache_s": 1})),
                "stranger": definition(&issuer, &json!({"client_secret": "not-the-client-secret"})),
            },
            "channel": channels(&["tokens", "shortly", "stranger"]),
        }),
    );
    let http = environment.http().header("authorization", "Bearer good-0123456789abcdef");
    for _ in 0..10 {
        let told = http.get("/tokens").unwrap().json();
        assert_eq!((&told["type"], &told["username"]), (&json!("oauth2_introspection"), &json!("ada")));
        assert_eq!(told["claims"]["client_id"], "till");
        assert_eq!(told["scopes"], json!(["read", "write"]));
    }
    assert_eq!(issuer.asked().len(), 1);
    for (token, status, error) in [
        ("narrow-0123456789abcdef", 403, "error=\"insufficient_scope\""),
        ("over-0123456789abcdef", 401, "error=\"invalid_token\""),
        ("nobody-0123456789abcdef", 401, "error=\"invalid_token\""),
        ("nobody-0123456789abcdef", 401, "error=\"invalid_token\""),
        ("x,y", 400, "error=\"invalid_request\""),
    ] {
        let (found, challenge) = get(&environment, "/tokens", token);
        assert_eq!((found, challenge.contains(error)), (status, true), "{token}: {challenge}");
    }
    assert_eq!(
        issuer.asked().len(),
        4,
        "what is no good is remembered, too, and nonsense is asked about never"
    );
    wait_for_refusals(&environment, "tokens", &["scope", "expired", "revoked", "revoked", "malformed"]);
    assert!(refusals(&environment, "tokens")[0].1.contains("\"username\":\"bob\""));

    // Revoked: noticed when what is remembered has ended.
    assert_eq!(get(&environment, "/shortly", "good-0123456789abcdef").0, 200);
    issuer.know(&json!({}));
    wait_until("the revocation is noticed", || {
        get(&environment, "/shortly", "good-0123456789abcdef").0 == 401
    });
    assert_eq!(get(&environment, "/tokens", "good-0123456789abcdef").0, 200, "that one remembers for longer");

    // Whom the authorization server does not know it tells nothing.
    assert_eq!(get(&environment, "/stranger", "good-0123456789abcdef").0, 503);
    wait_for_refusals(&environment, "stranger", &["unavailable"]);

    issuer.stop();
    assert_eq!(get(&environment, "/tokens", "good-0123456789abcdef").0, 200);
    let away = environment.http().header("authorization", "Bearer other-0123456789abcdef");
    let refused = away.get("/tokens").unwrap();
    assert_eq!((refused.status, refused.header("www-authenticate")), (503, ""));
    assert!(!refused.header("retry-after").is_empty());

    for name in ["server.log", "access.log"] {
        let log = fs::read_to_string(environment.server().join("logs").join(name)).unwrap();
        for secret in ["0123456789abcdef", "the-client-secret"] {
            assert!(!log.contains(secret), "{secret} is in {name}");
        }
    }
}

#[test]
fn a_slow_authorization_server_costs_its_own_callers_the_deadline_and_others_nothing() {
    let environment = environment_of(&[("server.workers", "1")]);
    let issuer = Issuer::plain();
    issuer.answer(&json!({"seconds": 600}));
    let limits = json!({"deadline_ms": 500, "max_concurrency": 2});
    apply(
        &environment,
        &json!({
            "security": {"tokens": definition(&issuer, &limits), "key": {"type": "api_key", "key": "the-key"}},
            "channel": channels(&["tokens", "key"]),
        }),
    );
    let key = environment.http().header("x-api-key", "the-key");
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..8)
            .map(|number| {
                let environment = &environment;
                scope.spawn(move || get(environment, "/tokens", &format!("token-{number}")).0)
            })
            .collect();
        wait_until("somebody waits", || !issuer.asked().is_empty());
        assert_eq!(key.get("/key").unwrap().status, 200);
        for one in waiting {
            assert_eq!(one.join().unwrap(), 503);
        }
    });
}

#[test]
fn a_group_of_tokens_and_passwords_tries_each_in_turn() {
    let environment = environment_of(&[("server.workers", "1")]);
    let issuer = Issuer::plain();
    let signer = Signer::new("ES256");
    issuer.know(&json!({"opaque": {"active": true, "username": "bob", "scope": "read"}}));
    issuer.publish(&[signer.jwk("1")]);
    apply(
        &environment,
        &json!({
            "security": {
                "signed": {"type": "jwt", "jwks_url": format!("{}/keys", issuer.url), "scopes": ["read"]},
                "opaque": definition(&issuer, &json!({})),
                "basic": {"type": "basic_auth", "username": "eve", "password": "the password"},
                "all": {"type": "group", "any_of": ["signed", "opaque", "basic"]},
            },
            "channel": channels(&["all"]),
        }),
    );
    let name = |value: &str| {
        let reply = environment.http().header("authorization", value).get("/all").unwrap();
        (reply.status, reply.json()["name"].clone(), reply.json()["username"].clone())
    };
    let token = signer.token_by("1", &json!({"sub": "ada", "scope": "read", "exp": unix_now() + 60}));
    assert_eq!(name(&format!("Bearer {token}")), (200, json!("signed"), json!("ada")));
    assert!(issuer.asked().iter().all(|line| line.starts_with("GET ")), "a member that knows is enough");
    assert_eq!(name("Bearer opaque"), (200, json!("opaque"), json!("bob")));
    let basic = environment.http().basic_auth("eve", "the password").get("/all").unwrap();
    assert_eq!((basic.status, basic.json()["name"].clone()), (200, json!("basic")));

    let narrow = signer.token_by("1", &json!({"sub": "ada", "scope": "write", "exp": unix_now() + 60}));
    assert_eq!(name(&format!("Bearer {narrow}")).0, 403, "genuine, and not enough");
    let refused = environment.http().get("/all").unwrap();
    assert_eq!(refused.status, 401);
    let challenges: Vec<_> = refused.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, ["Bearer realm=\"crosstie\"", "Basic realm=\"crosstie\", charset=\"UTF-8\""]);
}
