//! Signed tokens.

use std::fs;

use crosstie_test_support::{Environment, Pki, wait_until};
use serde_json::{Value, json};

use super::issuer::Issuer;
use super::tokens::{Signer, encode, unix_now, unsigned, with_secret};
use super::{apply, authorized, channels, environment, environment_of, wait_for_refusals};

const SECRET: &[u8] = b"a shared secret of more than sixty-four bytes, which is what HS512 wants of it";

/// Claims that every definition here takes.
fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": "shop", "sub": "ada", "scope": "read write", "tenant": "acme",
        "iat": unix_now(), "exp": unix_now() + 600})
}

fn but(change: &Value) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    claims
}

fn definition(keys: &Value) -> Value {
    let mut body = json!({"type": "jwt", "issuer": "https://id.example", "audience": ["shop"], "scopes": ["read"],
        "claims": {"tenant": ["acme", "other"]}, "clock_skew_s": 5});
    body.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    body
}

fn get(environment: &Environment, path: &str, token: &str) -> (u16, String) {
    authorized(environment, path, &format!("Bearer {token}"))
}

#[test]
fn tokens_of_every_algorithm_are_verified_and_shown_to_services() {
    let environment = environment();
    let (rsa, p256, p384, ed) =
        (Signer::new("RS256"), Signer::new("ES256"), Signer::new("ES384"), Signer::new("EdDSA"));
    fs::write(environment.server().join("shared.secret"), SECRET).unwrap();
    fs::write(environment.server().join("issuer.pem"), p384.public()).unwrap();
    apply(
        &environment,
        &json!({
            "security": {
                "rsa": definition(&json!({"public_keys": rsa.public()})),
                "p256": definition(&json!({"public_keys": p256.jwk("a").to_string()})),
                "p384": definition(&json!({"public_keys": "file:issuer.pem"})),
                "ed": definition(&json!({"public_keys": ed.public()})),
                "shared": definition(&json!({"secret": "file:shared.secret"})),
            },
            "channel": channels(&["rsa", "p256", "p384", "ed", "shared"]),
        }),
    );
    let mut tokens = vec![
        ("p256", p256.token_by("a", &claims())),
        ("p384", p384.token(&claims())),
        ("ed", ed.token(&claims())),
    ];
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        tokens.push(("rsa", rsa.with(algorithm).token(&claims())));
    }
    for algorithm in ["HS256", "HS384", "HS512"] {
        tokens.push(("shared", with_secret(algorithm, SECRET, &claims())));
    }
    for (name, token) in &tokens {
        let http = environment.http().header("authorization", &format!("bearer {token}"));
        // Twice: verified, and remembered.
        for _ in 0..2 {
            let reply = http.get(&format!("/{name}")).unwrap();
            let told = reply.json();
            assert_eq!(
                (reply.status, &told["name"], &told["type"]),
                (200, &json!(name), &json!("jwt")),
                "{told}"
            );
            assert_eq!((&told["username"], &told["scopes"]), (&json!("ada"), &json!(["read", "write"])));
            assert_eq!(told["claims"]["tenant"], "acme");
        }
    }
}

#[test]
fn wrong_tokens_get_the_errors_of_the_rfc_and_a_line_of_the_log_and_are_in_none() {
    let environment = environment();
    let (signer, stranger) = (Signer::new("RS256"), Signer::new("RS256"));
    apply(
        &environment,
        &json!({
            "security": {"tokens": definition(&json!({"public_keys": signer.public()}))},
            "channel": channels(&["tokens"]),
        }),
    );
    let invalid = "error=\"invalid_token\"";
    let now = unix_now();
    let good = signer.token(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let forged = encode(but(&json!({"sub": "admin"})).to_string());
    let attempts = [
        (stranger.token(&claims()), 401, invalid, "wrong"),
        (format!("{header}.{forged}.{signature}"), 401, invalid, "wrong"),
        (unsigned("none", &claims()), 401, invalid, "algorithm"),
        (unsigned("RS256", &claims()), 401, invalid, "wrong"),
        // The public key, which everybody has, as if it were a shared secret.
        (with_secret("HS256", signer.public().as_bytes(), &claims()), 401, invalid, "algorithm"),
        (with_secret("HS256", signer.public().trim().as_bytes(), &claims()), 401, invalid, "algorithm"),
        (signer.token(&but(&json!({"exp": now - 60}))), 401, invalid, "expired"),
        (signer.token(&but(&json!({"nbf": now + 60}))), 401, invalid, "not_yet_valid"),
        (signer.token(&but(&json!({"iss": "https://other.example"}))), 401, invalid, "issuer"),
        (signer.token(&but(&json!({"aud": ["till"]}))), 401, invalid, "audience"),
        (signer.token(&but(&json!({"tenant": "nobody"}))), 401, invalid, "claims"),
        (signer.token(&but(&json!({"exp": null}))), 401, invalid, "malformed"),
        (signer.token(&but(&json!({"scope": "write"}))), 403, "error=\"insufficient_scope\"", "scope"),
        ("abc.def".to_owned(), 401, invalid, "malformed"),
        ("a b".to_owned(), 400, "error=\"invalid_request\"", "malformed"),
    ];
    for (token, status, error, reason) in &attempts {
        let (found, challenge) = get(&environment, "/tokens", token);
        assert_eq!(found, *status, "{reason}: {challenge}");
        let expected = format!("Bearer realm=\"crosstie\", {error}");
        assert!(challenge.starts_with(&expected), "{reason}: {challenge}");
    }
    assert!(get(&environment, "/tokens", &attempts[12].0).1.ends_with(", scope=\"read\""));
    let reasons: Vec<_> = attempts.iter().map(|(_, _, _, reason)| *reason).chain(["scope"]).collect();
    wait_for_refusals(&environment, "tokens", &reasons);

    // Without credentials, or with others, a challenge names no error.
    for other in [None, Some("Basic YTpi")] {
        let http = environment.http();
        let http = other.into_iter().fold(http, |http, value| http.header("authorization", value));
        let refused = http.get("/tokens").unwrap();
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer realm=\"crosstie\""));
    }
    assert_eq!(get(&environment, "/tokens", &good).0, 200);
    // By a second way at once it is a bad request, even if both are good.
    let twice = environment.http().header("authorization", &format!("Bearer {good}"));
    let twice = twice.header("authorization", "Basic YTpi");
    assert_eq!(twice.get("/tokens").unwrap().status, 400);

    let logs = ["server.log", "access.log"]
        .map(|name| fs::read_to_string(environment.server().join("logs").join(name)).unwrap());
    for token in attempts.iter().map(|(token, ..)| token).chain([&good]) {
        let secret = token.rsplit('.').next().filter(|part| part.len() > 20).unwrap_or(signature);
        assert!(logs.iter().all(|log| !log.contains(secret)), "{secret} is in a log");
    }
}

#[test]
fn keys_and_secrets_that_cannot_be_used_are_refused_when_they_are_applied() {
    let environment = environment();
    let signer = Signer::new("ES256");
    let refused = |name: &str, body: &Value| {
        let document = json!({"security": {name: body}});
        let command = environment.command(&["apply", "-f", "-"]).unwrap().input(document.to_string());
        let outcome = command.run().unwrap();
        assert_eq!(outcome.code, 1, "{body}");
        outcome.stderr
    };
    let said = refused("text", &json!({"type": "jwt", "public_keys": "nonsense"}));
    assert!(said.contains("security/text/public_keys"), "{said}");
    let said =
        refused("mixed", &json!({"type": "jwt", "public_keys": signer.public(), "algorithms": ["HS256"]}));
    assert!(said.contains("security/mixed/algorithms/0"), "{said}");
    let said = refused("short", &json!({"type": "jwt", "secret": "thirty-one-bytes-are-not-enough"}));
    assert!(said.contains("security/short/secret") && said.contains("32 bytes"), "{said}");
    assert!(!said.contains("thirty-one"), "{said}");
    let said = refused("plain", &json!({"type": "jwt", "jwks_url": "http://id.example/keys"}));
    assert!(said.contains("security/plain/jwks_url") && said.contains("https"), "{said}");
}

#[test]
fn keys_that_an_issuer_publishes_are_fetched_once_followed_and_outlive_it() {
    let environment = environment_of(&[("server.workers", "1")]);
    let pki = Pki::new("Issuer's CA").unwrap();
    let mut issuer = Issuer::secured(&pki);
    let (first, second) = (Signer::new("ES256"), Signer::new("ES256"));
    issuer.publish(&[first.jwk("1")]);
    let url = format!("{}/keys", issuer.url);
    let tls = json!({"ca": pki.certificate()});
    apply(
        &environment,
        &json!({
            "security": {
                "tokens": definition(&json!({"jwks_url": url, "tls": tls})),
                "untrusting": definition(&json!({"jwks_url": url})),
            },
            "channel": channels(&["tokens", "untrusting"]),
        }),
    );
    assert_eq!(issuer.asked(), Vec::<String>::new());
    let token = first.token_by("1", &claims());
    for _ in 0..10 {
        assert_eq!(get(&environment, "/tokens", &token).0, 200);
    }
    assert_eq!(issuer.asked(), ["GET /keys"]);
    // Whoever the server does not trust cannot tell it keys.
    assert_eq!(get(&environment, "/untrusting", &token).0, 503);
    wait_for_refusals(&environment, "untrusting", &["unavailable"]);
    assert_eq!(issuer.asked().len(), 1);

    // What changes elsewhere costs no fetch.
    apply(&environment, &json!({"dictionary": {"any": {"entries": {"a": 1}}}}));
    assert_eq!(get(&environment, "/tokens", &token).0, 200);
    assert_eq!(issuer.asked().len(), 1);

    // The issuer rotates: the new key is found at once, the old one is no good from then on.
    issuer.publish(&[second.jwk("2")]);
    assert_eq!(get(&environment, "/tokens", &second.token_by("2", &claims())).0, 200);
    assert_eq!(issuer.asked().len(), 2);
    assert_eq!(get(&environment, "/tokens", &token).0, 401);
    for id in ["made", "up", "names", "of", "keys"] {
        assert_eq!(get(&environment, "/tokens", &first.token_by(id, &claims())).0, 401);
    }
    assert_eq!(issuer.asked().len(), 2, "an issuer is not asked for every name that somebody makes up");

    issuer.stop();
    assert_eq!(get(&environment, "/tokens", &second.token_by("2", &claims())).0, 200);
    let (status, challenge) = get(&environment, "/tokens", &first.token_by("3", &claims()));
    assert_eq!((status, challenge.contains("invalid_token")), (401, true));
}

#[test]
fn an_issuer_that_is_slow_talks_too_much_or_fails_costs_503_and_no_more() {
    let environment = environment_of(&[("server.workers", "1")]);
    let issuer = Issuer::plain();
    let signer = Signer::new("ES256");
    issuer.publish(&[signer.jwk("1")]);
    let url = format!("{}/keys", issuer.url);
    let limits = json!({"jwks_url": url, "deadline_ms": 300, "max_jwks_bytes": 10_000});
    let names = ["slow", "long", "failing", "good"];
    let security: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), definition(&limits))).collect();
    apply(&environment, &json!({"security": security, "channel": channels(&names)}));
    let token = signer.token_by("1", &claims());
    for (name, mood) in [
        ("slow", json!({"seconds": 60})),
        ("long", json!({"padding": 10_000})),
        ("failing", json!({"status": 500})),
    ] {
        issuer.answer(&mood);
        let refused = environment
            .http()
            .header("authorization", &format!("Bearer {token}"))
            .get(&format!("/{name}"))
            .unwrap();
        assert_eq!((refused.status, refused.header("www-authenticate")), (503, ""), "{name}");
        assert!(!refused.header("retry-after").is_empty());
        wait_for_refusals(&environment, name, &["unavailable"]);
    }
    issuer.answer(&json!({}));
    assert_eq!(get(&environment, "/good", &token).0, 200);
    for name in ["slow", "long", "failing"] {
        wait_until("it recovers by itself", || get(&environment, &format!("/{name}"), &token).0 == 200);
    }
}
