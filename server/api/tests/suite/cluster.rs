//! Members, certificates and joining.

use std::time::Duration;

use axum::body::Body;
use crosstie_api::operations::Invitation;
use crosstie_model::Revision;
use crosstie_odb::{Heartbeat, LEADER_LEASE, MemberState, NewMember, leader_holder};
use crosstie_security::CertificateAuthority;
use crosstie_security::authority::{self, CertificateRequest};
use crosstie_security::identity::ComponentKind;
use http::Request;
use serde_json::{Value, json};

use crate::world::{ADMIN, Answer, OPERATOR, VIEWER, World};

async fn with_authority() -> (World, CertificateAuthority) {
    let world = World::new().await;
    let authority = CertificateAuthority::create("test").unwrap();
    let sealed = authority.seal_key(&world.cluster_key).unwrap();
    world.odb.put_ca(&sealed, authority.certificate_pem()).await.unwrap();
    (world, authority)
}

async fn introduce(world: &World, name: &str, state: MemberState) {
    let member = NewMember {
        name: name.into(),
        address: "127.0.0.1:17011".into(),
        tls: true,
        management: "127.0.0.1:17111".into(),
        version: "1".into(),
    };
    world.odb.introduce_member(&member, "a").await.unwrap();
    beat(world, name, state).await;
}

async fn beat(world: &World, name: &str, state: MemberState) {
    let beat = Heartbeat {
        name: name.into(),
        boot: "a".into(),
        state,
        reason: String::new(),
        revision: Revision(3),
        in_flight: 2,
    };
    world.odb.heartbeat(&beat).await.unwrap();
}

async fn admin(world: &World, path: &str, body: Value) -> Answer {
    world.call(ADMIN, "POST", path, body).await
}

#[tokio::test]
async fn a_server_is_drained_and_taken_back() {
    let world = World::new().await;
    introduce(&world, "server2", MemberState::Ready).await;
    let members = world.get("/members").await.json;
    assert_eq!(members.as_array().unwrap().len(), 1);
    let expected = json!({
        "name": "server2", "state": "ready", "wanted": "serving", "address": "127.0.0.1:17011", "tls": true,
        "management": "127.0.0.1:17111", "version": "1", "revision": 3, "in_flight": 2,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&members[0][key], value, "{key}");
    }
    let drained = world.post("/members/server2/drain", json!({})).await;
    assert_eq!((drained.status, drained.json["wanted"].as_str()), (200, Some("drained")));
    let back = world.post("/members/server2/undrain", json!({})).await;
    assert_eq!(back.json["wanted"], "serving");
    assert_eq!(world.post("/members/server9/drain", json!({})).await.status, 404);
    assert_eq!(world.call(VIEWER, "POST", "/members/server2/drain", json!({})).await.status, 403);
}

#[tokio::test]
async fn members_show_who_leads() {
    let world = World::new().await;
    for name in ["server1", "server2"] {
        introduce(&world, name, MemberState::Ready).await;
    }
    let lead = |members: &Value| -> Vec<bool> {
        members.as_array().unwrap().iter().map(|member| member["leader"].as_bool().unwrap()).collect()
    };
    assert_eq!(lead(&world.get("/members").await.json), [false, false]);
    let holder = leader_holder("server2", "a");
    world.odb.take_lease(LEADER_LEASE, &holder, Duration::from_secs(60)).await.unwrap();
    assert_eq!(lead(&world.get("/members").await.json), [false, true]);
    assert_eq!(world.get("/members/server2").await.json["leader"], true);
    assert_eq!(world.get("/members/server1").await.json["leader"], false);
}

#[tokio::test]
async fn a_server_that_runs_is_not_removed() {
    let world = World::new().await;
    introduce(&world, "server2", MemberState::Ready).await;
    let remove = |query: &'static str| {
        let path = format!("/members/server2{query}");
        let world = &world;
        async move { world.call(ADMIN, "DELETE", &path, Value::Null).await.status }
    };
    assert_eq!(remove("").await, 422);
    assert_eq!(remove("?drained=true").await, 422);
    beat(&world, "server2", MemberState::Drained).await;
    assert_eq!(remove("").await, 422);
    assert_eq!(remove("?drained=true").await, 204);
    assert_eq!(remove("").await, 404);
    introduce(&world, "server2", MemberState::Dead).await;
    assert_eq!(world.call(OPERATOR, "DELETE", "/members/server2", Value::Null).await.status, 403);
    assert_eq!(remove("").await, 204);
}

#[tokio::test]
async fn a_request_is_signed_and_the_certificate_is_on_record() {
    let (world, ca) = with_authority().await;
    let request = authority::request("lb").unwrap();
    let body = json!({
        "kind": "load_balancer", "name": "lb", "request": request.request_pem,
        "names": ["lb.example.org"], "addresses": ["10.0.0.9", "::1"],
    });
    let answer = admin(&world, "/certificates", body.clone()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.json["ca"], ca.certificate_pem());
    let issued = authority::describe(answer.json["certificate"].as_str().unwrap()).unwrap();
    assert_eq!((issued.subject.kind, issued.subject.name.as_str()), (ComponentKind::LoadBalancer, "lb"));
    assert_eq!(issued.subject.names, ["lb.example.org"]);
    assert_eq!(issued.subject.addresses.len(), 2);

    let metrics = world.get("/metrics").await.text;
    let seconds = issued.expires.unix_timestamp();
    let line = format!(
        "crosstie_component_certificate_expiry_seconds{{kind=\"load_balancer\",name=\"lb\"}} {seconds}\n"
    );
    assert!(metrics.ends_with(&line), "{metrics}");

    let listed = world.get("/certificates").await.json;
    assert_eq!(listed[0]["serial"], answer.json["serial"]);
    assert_eq!((listed[0]["author"].as_str(), listed[0]["renew"].as_bool()), (Some("admin"), Some(false)));
    assert_eq!(world.call(OPERATOR, "POST", "/certificates", body.clone()).await.status, 403);
    for (key, value) in [
        ("kind", json!("root")),
        ("name", json!("../x")),
        ("request", json!("garbage")),
        ("request", json!(ca.certificate_pem())),
        ("names", json!(["n\u{f6}"])),
        ("addresses", json!(["10.0.0"])),
    ] {
        let mut bad = body.clone();
        bad[key] = value;
        let refused = admin(&world, "/certificates", bad).await;
        assert_eq!(refused.status, 400, "{key}: {}", refused.text);
    }
    assert_eq!(world.get("/certificates").await.json.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_request_that_was_changed_is_not_signed() {
    let (world, _) = with_authority().await;
    let (one, other) = (authority::request("a").unwrap(), authority::request("a").unwrap());
    let lines = |pem: &str| pem.lines().map(str::to_owned).collect::<Vec<_>>();
    let (mut mixed, other) = (lines(&one.request_pem), lines(&other.request_pem));
    let last = mixed.len() - 2;
    mixed[last].clone_from(&other[last]);
    let body = json!({"kind": "client", "name": "a", "request": mixed.join("\n")});
    assert_eq!(admin(&world, "/certificates", body).await.status, 400);
}

#[tokio::test]
async fn without_an_authority_nothing_is_signed() {
    let world = World::new().await;
    let request = authority::request("a").unwrap();
    let body = json!({"kind": "client", "name": "a", "request": request.request_pem});
    assert_eq!(admin(&world, "/certificates", body).await.status, 422);
    assert_eq!(admin(&world, "/join-tokens", json!({})).await.status, 422);
}

async fn invitation(world: &World) -> Invitation {
    let answer = admin(world, "/join-tokens", json!({})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    Invitation::of_token(answer.json["token"].as_str().unwrap()).unwrap()
}

fn wish(invitation: &Invitation, name: &str, request: &CertificateRequest) -> Value {
    json!({
        "secret": invitation.secret, "name": name, "request": request.request_pem,
        "https": "10.0.0.2:17010", "management": "10.0.0.2:17110", "names": ["two.example.org"],
        "version": "1",
    })
}

/// As somebody without credentials.
async fn join(world: &World, body: Value) -> Answer {
    let request = Request::post("/api/v1/join").header("content-type", "application/json");
    world.send(request.body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test]
async fn a_server_joins_with_its_token_once() {
    let (world, ca) = with_authority().await;
    let invitation = invitation(&world).await;
    assert_eq!(invitation.fingerprint, ca.fingerprint());
    assert_eq!(invitation.addresses, ["127.0.0.1:17110".parse().unwrap()]);
    let authority = Request::get("/api/v1/ca").body(Body::empty()).unwrap();
    assert_eq!(world.send(authority).await.json["fingerprint"], ca.fingerprint());

    let (own, client) = (authority::request("server2").unwrap(), authority::request("x").unwrap());
    let mut body = wish(&invitation, "server2", &own);
    body["client_request"] = client.request_pem.clone().into();
    let answer = join(&world, body.clone()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let issued = authority::describe(answer.json["certificate"].as_str().unwrap()).unwrap();
    assert_eq!((issued.subject.kind, issued.subject.name.as_str()), (ComponentKind::Server, "server2"));
    for name in ["localhost", "server2", "two.example.org"] {
        assert!(issued.subject.names.iter().any(|known| known == name), "{name}");
    }
    assert!(issued.subject.addresses.contains(&"10.0.0.2".parse().unwrap()));
    let client = authority::describe(answer.json["client_certificate"].as_str().unwrap()).unwrap();
    assert_eq!((client.subject.kind, client.subject.name.as_str()), (ComponentKind::Client, "admin"));
    assert_eq!(answer.json["ca"], ca.certificate_pem());
    let key =
        crosstie_model::secret::SecretValue::new(answer.json["cluster_key"].as_str().unwrap().as_bytes());
    let key = crosstie_security::ClusterKey::import(&key).unwrap();
    let sealed = world.odb.ca().await.unwrap().unwrap().sealed_key;
    assert!(CertificateAuthority::open_sealed(ca.certificate_pem(), &sealed, &key).is_ok());
    assert_eq!(answer.json["settings"]["security"], json!({"require_security": false}));
    assert_eq!(answer.json["settings"]["cluster"]["lapse_ms"], 5_000);
    assert!(answer.json["settings"]["odb"]["url"].as_str().unwrap().starts_with("sqlite:/"));

    let member = world.get("/members/server2").await.json;
    assert_eq!(
        (member["state"].as_str(), member["address"].as_str()),
        (Some("left"), Some("10.0.0.2:17010"))
    );
    assert_eq!(world.get("/certificates").await.json.as_array().unwrap().len(), 2);
    let again = join(&world, body).await;
    assert_eq!((again.status, again.problem()), (403, "forbidden"), "{}", again.text);
}

#[tokio::test]
async fn a_token_survives_what_is_wrong_with_a_request() {
    let (world, _) = with_authority().await;
    introduce(&world, "server2", MemberState::Ready).await;
    let (invitation, request) = (invitation(&world).await, authority::request("s").unwrap());
    for (name, status) in [("server2", 422), ("../server3", 400), ("", 400)] {
        let answer = join(&world, wish(&invitation, name, &request)).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text);
    }
    let mut unsigned = wish(&invitation, "server3", &request);
    unsigned["request"] = "garbage".into();
    assert_eq!(join(&world, unsigned).await.status, 400);
    assert_eq!(join(&world, wish(&invitation, "server3", &request)).await.status, 201);
}

#[tokio::test]
async fn a_token_that_is_over_lets_nobody_in() {
    let (world, _) = with_authority().await;
    let (good, request) = (invitation(&world).await, authority::request("s").unwrap());
    let issued = crosstie_security::token::issue().unwrap();
    let row = crosstie_odb::NewJoinToken {
        id: issued.id,
        hash: issued.hash,
        author: "ada".into(),
        ttl: Duration::from_millis(1),
    };
    world.odb.put_join_token(&row).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let over = Invitation { secret: String::from_utf8(issued.text.expose().to_vec()).unwrap(), ..good };
    let answer = join(&world, wish(&over, "server2", &request)).await;
    assert_eq!((answer.status, answer.problem()), (403, "forbidden"), "{}", answer.text);
    assert_eq!(world.get("/members/server2").await.status, 404);
}

#[tokio::test]
async fn the_password_of_the_database_goes_along() {
    let (world, _) = with_authority().await;
    let path = world.directory.path().join("odb.password");
    crosstie_security::write_private(&path, b"hush").unwrap();
    world.change_settings(|settings| settings.odb.password = Some("file:odb.password".into()));
    let (invitation, request) = (invitation(&world).await, authority::request("s").unwrap());
    let answer = join(&world, wish(&invitation, "server2", &request)).await;
    assert_eq!(answer.json["secrets"], json!({"odb.password": "hush"}), "{}", answer.text);
    assert_eq!(answer.json["settings"]["odb"].get("password"), None);
}

#[tokio::test]
async fn guessing_tokens_is_slowed_down() {
    let (world, _) = with_authority().await;
    let (good, request) = (invitation(&world).await, authority::request("s").unwrap());
    let mut statuses = Vec::new();
    for _ in 0..60 {
        let first = if good.secret.starts_with('A') { 'B' } else { 'A' };
        let wrong = Invitation { secret: format!("{first}{}", &good.secret[1..]), ..good.clone() };
        statuses.push(join(&world, wish(&wrong, "server2", &request)).await.status);
    }
    assert_eq!(statuses[0], 403);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(join(&world, wish(&good, "server2", &request)).await.status, 429);
}

#[tokio::test]
async fn a_token_needs_an_address_where_to_ask() {
    let (world, _) = with_authority().await;
    world.change_settings(|settings| settings.management.address = "0.0.0.0:17110".parse().unwrap());
    assert_eq!(admin(&world, "/join-tokens", json!({})).await.status, 400);
    let given = admin(&world, "/join-tokens", json!({"addresses": ["10.0.0.1:17110"]})).await;
    assert_eq!((given.status, given.json["addresses"].clone()), (201, json!(["10.0.0.1:17110"])));
    assert_eq!(world.call(OPERATOR, "POST", "/join-tokens", json!({})).await.status, 403);
}

#[tokio::test]
async fn a_revoked_certificate_is_on_record_as_such_and_needs_no_renewal() {
    let (world, _) = with_authority().await;
    let order = |name: &str| {
        let request = authority::request(name).unwrap();
        json!({"kind": "broker", "name": name, "request": request.request_pem})
    };
    let old = admin(&world, "/certificates", order("rabbit")).await.json;
    let serial = old["serial"].as_str().unwrap();
    let path = format!("/certificates/{}/revoke", serial.to_uppercase());
    assert_eq!(world.call(OPERATOR, "POST", &path, json!({})).await.status, 403);
    let late = Request::post(format!("/api/v1{path}"))
        .header("authorization", crate::world::basic(ADMIN))
        .header("if-match", "\"41\"")
        .body(Body::empty());
    assert_eq!(world.send(late.unwrap()).await.status, 412);
    let revoked = admin(&world, &path, json!({})).await;
    assert_eq!((revoked.status, &revoked.json["revoked"]), (200, &json!(true)), "{}", revoked.text);
    let listed = world.get("/certificates").await.json;
    assert_eq!((&listed[0]["revoked"], &listed[0]["renew"]), (&json!(true), &json!(false)));
    let metrics = world.get("/metrics").await.text;
    assert!(!metrics.contains("rabbit"), "nobody waits for its end: {metrics}");
    assert_eq!(admin(&world, &path, json!({})).await.status, 200);
    assert_eq!(admin(&world, "/certificates/00ff/revoke", json!({})).await.status, 404);
    let audit = world.get("/audit").await.json;
    assert_eq!(audit[0]["changes"][0]["id"], format!("certificate/{serial}"), "{audit}");
    // The next one of that name is another.
    let new = admin(&world, "/certificates", order("rabbit")).await.json;
    assert_ne!(new["serial"], old["serial"]);
    assert!(world.get("/metrics").await.text.contains("name=\"rabbit\""));
}

#[tokio::test]
async fn a_server_that_is_removed_loses_its_certificates() {
    let (world, _) = with_authority().await;
    for (kind, name) in [("server", "server2"), ("server", "server3"), ("client", "server2")] {
        let request = authority::request(name).unwrap();
        let body = json!({"kind": kind, "name": name, "request": request.request_pem});
        assert_eq!(admin(&world, "/certificates", body).await.status, 201);
    }
    introduce(&world, "server2", MemberState::Left).await;
    assert_eq!(world.call(ADMIN, "DELETE", "/members/server2", Value::Null).await.status, 204);
    let listed = world.get("/certificates").await.json;
    let revoked: Vec<_> = listed.as_array().unwrap().iter().filter(|row| row["revoked"] == true).collect();
    assert_eq!(revoked.len(), 1, "{listed}");
    assert_eq!((&revoked[0]["kind"], &revoked[0]["name"]), (&json!("server"), &json!("server2")));
}
