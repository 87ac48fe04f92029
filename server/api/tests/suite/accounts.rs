//! Who gets in, as what, and who may make whom.

use axum::body::Body;
use crosstie_api::Role;
use crosstie_api::operations::{NewToken, UserChange};
use http::Request;
use serde_json::{Value, json};

use crate::world::{ADMIN, OPERATOR, VIEWER, World, admin, basic};

async fn with_header(world: &World, value: &str) -> crate::world::Answer {
    let request = Request::get("/api/v1/me").header("authorization", value).body(Body::empty()).unwrap();
    world.send(request).await
}

#[tokio::test]
async fn nobody_gets_in_without_credentials() {
    let world = World::new().await;
    for value in ["", "Basic", "Basic !!!", "Bearer", "Bearer ct_nonsense", "Digest x", "basic dmVyYQ=="] {
        let answer = with_header(&world, value).await;
        assert_eq!((answer.status, answer.problem()), (401, "unauthorized"), "{value:?}");
        let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
        assert_eq!(challenges.len(), 2);
    }
    let request = Request::get("/api/v1/me").body(Body::empty()).unwrap();
    assert_eq!(world.send(request).await.status, 401);
    let request = Request::get("/api/v1/me").header("authorization", basic(VIEWER));
    let twice = request.header("authorization", basic(ADMIN)).body(Body::empty()).unwrap();
    assert_eq!(world.send(twice).await.status, 401);
}

#[tokio::test]
async fn passwords_and_roles_are_obeyed() {
    let world = World::new().await;
    let me = world.get("/me").await;
    assert_eq!(me.json, json!({"name": "vera", "role": "viewer", "proof": "password"}));
    for wrong in ["vera:operator-password", "vera:", "nobody:viewer-password", "VERA:viewer-password"] {
        assert_eq!(world.call(wrong, "GET", "/me", Value::Null).await.status, 401, "{wrong}");
    }
    for (who, method, path) in [
        (VIEWER, "POST", "/apply"),
        (VIEWER, "POST", "/deployments?unit=x"),
        (VIEWER, "POST", "/services/echo/invoke"),
        (VIEWER, "DELETE", "/definitions/channel/x"),
        (OPERATOR, "GET", "/users"),
        (OPERATOR, "POST", "/tokens"),
        (OPERATOR, "POST", "/config/rollback"),
    ] {
        let answer = world.call(who, method, path, Value::Null).await;
        assert_eq!((answer.status, answer.problem()), (403, "forbidden"), "{who} {method} {path}");
    }
}

#[tokio::test]
async fn a_token_allows_what_its_user_may_today() {
    let world = World::new().await;
    let made = world.call(ADMIN, "POST", "/tokens", json!({"user": "olga", "ttl_s": 3600})).await;
    assert_eq!((made.status, made.json["role"].clone()), (201, json!("operator")), "{}", made.text);
    let bearer = format!("Bearer {}", made.json["token"].as_str().unwrap());
    let me = with_header(&world, &bearer).await;
    assert_eq!(me.json, json!({"name": "olga", "role": "operator", "proof": "token"}));
    let demote = UserChange { role: Some(Role::Viewer), password: None };
    world.operations.change_user(&admin(), "olga", demote).await.unwrap();
    assert_eq!(with_header(&world, &bearer).await.json["role"], "viewer");

    let listed = world.call(ADMIN, "GET", "/tokens", Value::Null).await;
    assert_eq!(listed.json[0]["id"], made.json["id"]);
    assert!(!listed.text.contains(made.json["token"].as_str().unwrap()));
    let path = format!("/tokens/{}", made.json["id"].as_str().unwrap());
    assert_eq!(world.call(ADMIN, "DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(world.call(ADMIN, "DELETE", &path, Value::Null).await.status, 404);
    assert_eq!(with_header(&world, &bearer).await.status, 401);
}

#[tokio::test]
async fn a_token_never_allows_more_than_its_user() {
    let world = World::new().await;
    let body = json!({"user": "vera", "role": "admin"});
    let answer = world.call(ADMIN, "POST", "/tokens", body).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
    let answer = world.call(ADMIN, "POST", "/tokens", json!({"user": "nobody"})).await;
    assert_eq!(answer.status, 404);
    let answer = world.call(ADMIN, "POST", "/tokens", json!({"ttl_s": 0})).await;
    assert_eq!((answer.status, answer.json["faults"][0]["pointer"].clone()), (400, json!("/ttl_s")));
}

#[tokio::test]
async fn a_changed_password_and_a_deleted_user_count_at_once() {
    let world = World::new().await;
    assert_eq!(world.get("/me").await.status, 200);
    let token = NewToken { user: Some("vera".into()), ..NewToken::default() };
    let token = world.operations.issue_token(&admin(), token).await.unwrap().token;
    let change = json!({"password": "another-password"});
    assert_eq!(world.call(ADMIN, "PATCH", "/users/vera", change).await.status, 200);
    assert_eq!(world.get("/me").await.status, 401);
    assert_eq!(world.call("vera:another-password", "GET", "/me", Value::Null).await.status, 200);
    assert_eq!(world.call(ADMIN, "DELETE", "/users/vera", Value::Null).await.status, 204);
    assert_eq!(world.call("vera:another-password", "GET", "/me", Value::Null).await.status, 401);
    assert_eq!(with_header(&world, &format!("Bearer {token}")).await.status, 401);
}

#[tokio::test]
async fn users_are_made_with_rules() {
    let world = World::new().await;
    let add = |body: Value| world.call(ADMIN, "POST", "/users", body);
    let made = add(json!({"name": "ada@example.org", "role": "operator"})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let credentials = format!("ada@example.org:{}", made.json["password"].as_str().unwrap());
    assert_eq!(world.call(&credentials, "GET", "/me", Value::Null).await.json["role"], "operator");
    for (body, status) in [
        (json!({"name": "vera", "role": "admin", "password": "long enough"}), 422),
        (json!({"name": "a:b", "role": "viewer"}), 400),
        (json!({"name": "a b", "role": "viewer"}), 400),
        (json!({"name": "new", "role": "viewer", "password": "short"}), 400),
        (json!({"name": "new", "role": "root"}), 400),
        (json!({"name": "new"}), 400),
    ] {
        let answer = add(body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
    }
    let answer = world.call(ADMIN, "PATCH", "/users/nobody", json!({"role": "viewer"})).await;
    assert_eq!(answer.status, 404);
    assert!(!world.call(ADMIN, "GET", "/users", Value::Null).await.text.contains("argon2"));
}

#[tokio::test]
async fn the_last_admin_stays() {
    let world = World::new().await;
    for (method, body) in [("DELETE", Value::Null), ("PATCH", json!({"role": "viewer"}))] {
        let answer = world.call(ADMIN, method, "/users/admin", body).await;
        assert_eq!((answer.status, answer.problem()), (422, "refused"), "{}", answer.text);
    }
    world.call(ADMIN, "PATCH", "/users/vera", json!({"role": "admin"})).await;
    assert_eq!(world.call(ADMIN, "DELETE", "/users/admin", Value::Null).await.status, 204);
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down() {
    let world = World::new().await;
    let mut looked_at = 0;
    // Attempts flow back with time, so a slow machine looks at some more; a limit that does not hold looks at all.
    for guess in 0..200 {
        let answer = world.call(&format!("vera:guess-{guess}"), "GET", "/me", Value::Null).await;
        if answer.status == 429 {
            assert_eq!(answer.problem(), "too-many-attempts");
            assert!(answer.headers.contains_key("retry-after"));
            break;
        }
        assert_eq!(answer.status, 401);
        looked_at += 1;
    }
    assert!((20..200).contains(&looked_at), "{looked_at} guesses were looked at");
    // Not even the right password is looked at now.
    assert_eq!(world.get("/me").await.status, 429);
}

#[tokio::test]
async fn many_calls_with_the_right_password_at_once_all_get_in() {
    let world = World::new().await;
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let router = world.router.clone();
        let request =
            Request::get("/api/v1/me").header("authorization", basic(VIEWER)).body(Body::empty()).unwrap();
        running.spawn(async move { tower::ServiceExt::oneshot(router, request).await.unwrap().status() });
    }
    while let Some(status) = running.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
}
