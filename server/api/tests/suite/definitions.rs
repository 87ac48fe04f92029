//! Definitions: apply, export, single ones, secrets, and everything that is refused.

use axum::body::Body;
use crosstie_api::host::Host as _;
use crosstie_model::definition::{DefinitionBody, SecurityDefinition};
use crosstie_model::secret::SecretRef;
use crosstie_model::{Event, Revision};
use http::Request;
use serde_json::{Value, json};

use crate::world::{OPERATOR, VIEWER, Workers, World, basic, unit};

const CRM: &str = "\
security:
  crm.clients:
    type: basic_auth
    username: crm
    password: hunter2-hunter2
channel:
  crm.get:
    type: rest
    path: /customers/{id:int}
    service: crm.get
    security: crm.clients
";

async fn crm() -> World {
    let world = World::new().await;
    world.upload("crm", unit(&[("crm.get", "")])).await;
    world
}

async fn password_of(world: &World) -> SecretRef {
    let snapshot = world.odb.snapshot().await.unwrap();
    match snapshot.security(&"crm.clients".parse().unwrap()) {
        Some(SecurityDefinition::BasicAuth(body)) => body.password.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_document_is_applied_whole_and_a_second_time_changes_nothing() {
    let world = crm().await;
    let answer = world.apply(CRM).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["revision"], 2);
    let actions: Vec<_> =
        answer.json["definitions"].as_array().unwrap().iter().map(|d| d["action"].clone()).collect();
    assert_eq!(actions, ["created", "created"]);
    let again = world.apply(CRM).await;
    assert_eq!(again.json["revision"], 2, "{}", again.text);
    assert!(again.json["definitions"].as_array().unwrap().iter().all(|d| d["action"] == "unchanged"));
    let audit = world.get("/audit?after=1").await;
    assert_eq!(audit.json[0]["author"], "olga");
    assert_eq!(audit.json[0]["message"], "Apply 2 definitions");
}

#[tokio::test]
async fn no_secret_ever_comes_back() {
    let world = crm().await;
    world.apply(CRM).await;
    let stored = SecretRef::Stored { r#ref: "security/crm.clients/password".into(), version: 1 };
    assert_eq!(password_of(&world).await, stored);
    for path in ["/definitions", "/definitions/security/crm.clients", "/export", "/audit"] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.text.contains("hunter2"), "{path}: {}", answer.text);
        assert!(answer.text.contains("security/crm.clients/password"), "{path}: {}", answer.text);
    }
    let wrong = CRM.replace("username: crm", "username: 7").replace("/customers", "customers");
    let answer = world.apply(&wrong).await;
    assert_eq!(answer.status, 422);
    assert!(!answer.text.contains("hunter2"), "{}", answer.text);
}

#[tokio::test]
async fn a_new_value_makes_a_new_version_and_none_keeps_the_old() {
    let world = crm().await;
    world.apply(CRM).await;
    let version = |secret: SecretRef| match secret {
        SecretRef::Stored { version, .. } => version,
        SecretRef::Text(text) => panic!("{text}"),
    };
    let kept = CRM.replace("    password: hunter2-hunter2\n", "    realm: crm\n");
    assert_eq!(world.apply(&kept).await.status, 200);
    assert_eq!(version(password_of(&world).await), 1);
    world.apply(&CRM.replace("hunter2-hunter2", "correct horse")).await;
    assert_eq!(version(password_of(&world).await), 2);
    // What export gives, apply takes: references stay as they are.
    let export = world.get("/export").await;
    assert_eq!(export.headers["content-type"], "application/yaml");
    let answer = world.apply(&export.text).await;
    assert_eq!(answer.json["revision"], 4, "{}", answer.text);
    let by_reference = CRM.replace("hunter2-hunter2", "env:CRM_PASSWORD");
    assert_eq!(world.apply(&by_reference).await.status, 200);
    assert_eq!(password_of(&world).await, SecretRef::Text("env:CRM_PASSWORD".into()));
}

#[tokio::test]
async fn secrets_that_lead_nowhere_are_refused_with_their_line() {
    let world = crm().await;
    let missing = CRM.replace("    password: hunter2-hunter2\n", "");
    let unknown = CRM.replace("hunter2-hunter2", "{ref: security/other/password, version: 3}");
    for (document, line, reason) in
        [(missing, 2, "needs a value"), (unknown, 5, "no secret security/other/password version 3")]
    {
        let answer = world.apply(&document).await;
        assert_eq!((answer.status, answer.problem()), (422, "invalid-documents"));
        assert_eq!(answer.json["faults"][0]["file"], "crm.yaml");
        assert_eq!(answer.json["faults"][0]["line"], line, "{}", answer.text);
        assert!(answer.json["faults"][0]["detail"].as_str().unwrap().contains(reason), "{}", answer.text);
    }
    assert_eq!(world.revision().await, 1);
}

#[tokio::test]
async fn one_error_among_twenty_definitions_applies_nothing() {
    let world = crm().await;
    let mut document = String::from("dictionary:\n");
    for i in 0..19 {
        document.push_str(&format!("  d{i}:\n    entries: {{}}\n"));
    }
    document.push_str(
        "channel:\n  bad:\n    type: rest\n    path: /x\n    service: nobody\n    security: gone\n",
    );
    let answer = world.apply(&document).await;
    assert_eq!((answer.status, answer.problem()), (422, "invalid-documents"));
    let lines: Vec<_> = answer.json["faults"].as_array().unwrap().iter().map(|f| f["line"].clone()).collect();
    assert_eq!(lines, [44, 45], "{}", answer.text);
    assert_eq!(world.revision().await, 1);
    let good = document.replace("nobody", "crm.get").replace("    security: gone\n", "");
    assert_eq!(world.apply(&good).await.json["revision"], 2);
}

#[tokio::test]
async fn faults_of_every_stage_are_listed_together() {
    let world = crm().await;
    let text = "\
security:
  crm.clients: {type: basic_auth, username: crm, pasword: x}
  lost: {type: api_key, key: {ref: security/other/key, version: 3}}
channel:
  ok: {type: rest, path: /ok, service: crm.get, security: crm.clients}
  form:
    type: rest
    path: form
    service: nobody
    security: gone
  unknown: {type: rest, path: /unknown, service: nobody}
  one: {type: rest, path: /same, service: crm.get}
  two: {type: rest, path: /same, service: crm.get}
  rpc:
    type: jsonrpc
    path: /rpc
    methods:
      get: crm.get
      put: crm.put
  twice: {type: rest, path: /twice, service: crm.get}
  twice: {type: rest, path: /twice, service: crm.get}
";
    let answer = world.apply(text).await;
    assert_eq!((answer.status, answer.problem()), (422, "invalid-documents"));
    let faults = answer.json["faults"].as_array().unwrap();
    let lines: Vec<_> = faults.iter().map(|fault| fault["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3, 8, 9, 10, 11, 12, 13, 19, 21], "{}", answer.text);
    assert_eq!(world.revision().await, 1);
}

#[tokio::test]
async fn what_comes_of_a_fault_is_no_other_fault() {
    let world = crm().await;
    world.apply(CRM).await;
    world.apply("channel:\n  old: {type: rest, path: /x, service: crm.get}\n").await;
    // The new `old` leaves /x to another channel; that it is not valid yet changes nothing about that.
    let text = "\
security:
  crm.clients: {type: magic}
channel:
  old: {type: rest, path: /y, service: crm.get, colour: red}
  new: {type: rest, path: /x, service: crm.get, security: crm.clients}
";
    let lines = |answer: &crate::world::Answer| -> Vec<u64> {
        let faults = answer.json["faults"].as_array().unwrap();
        faults.iter().map(|fault| fault["line"].as_u64().unwrap()).collect()
    };
    let answer = world.apply(text).await;
    assert_eq!(lines(&answer), [2, 4], "{}", answer.text);
    // What cannot be read may define what the rest refers to.
    let text = "\
channel:
  a: {type: rest, path: /a, service: nobody, security: keys}
security:
  keys: {type: api_key, key: [
";
    let answer = world.apply(text).await;
    let found = lines(&answer);
    assert_eq!((found[0], answer.text.contains("there is no security")), (2, false), "{}", answer.text);
    assert!(found.len() >= 2, "{}", answer.text);
}

#[tokio::test]
async fn a_dry_run_finds_faults_and_changes_nothing() {
    let world = crm().await;
    let files = |text: &str| json!({"files": [{"name": "crm.yaml", "content": text}], "dry_run": true});
    let answer = world.post("/apply", files(CRM)).await;
    assert_eq!((answer.status, answer.json["definitions"][1]["action"].clone()), (200, json!("created")));
    let answer = world.post("/apply", files(&CRM.replace("service: crm.get", "service: crm.put"))).await;
    assert_eq!(answer.status, 422);
    assert_eq!(world.revision().await, 1);
}

#[tokio::test]
async fn a_clash_is_told_from_the_side_of_what_is_applied() {
    let world = crm().await;
    let channel = |name: &str| {
        format!(
            "channel:\n  {name}:\n    type: rest\n    path: /x\n    methods: [GET]\n    service: crm.get\n"
        )
    };
    assert_eq!(world.apply(&channel("m.old")).await.status, 200);
    // Alphabetical order must play no part.
    for name in ["a.new", "z.new"] {
        let answer = world.apply(&channel(name)).await;
        assert_eq!((answer.status, answer.problem()), (422, "invalid-documents"), "{name}: {}", answer.text);
        let faults = answer.json["faults"].as_array().unwrap();
        assert_eq!((faults.len(), faults[0]["line"].clone()), (1, json!(4)), "{}", answer.text);
        assert!(faults[0]["detail"].as_str().unwrap().contains("channel m.old"), "{}", answer.text);
    }
}

#[tokio::test]
async fn single_definitions_are_written_read_and_removed() {
    let world = crm().await;
    let body = json!({"type": "api_key", "key": "s3cret-key"});
    let path = "/definitions/security/crm.key";
    let put = |body: Value| world.call(OPERATOR, "PUT", path, body);
    assert_eq!(put(body.clone()).await.status, 201);
    let same = put(body).await;
    assert_eq!((same.status, same.json["action"].clone()), (200, json!("unchanged")));
    let channel = json!({"type": "rest", "path": "/a", "service": "crm.get", "security": "crm.key"});
    world.call(OPERATOR, "PUT", "/definitions/channel/a", channel).await;
    let refused = world.call(OPERATOR, "DELETE", path, Value::Null).await;
    assert_eq!((refused.status, refused.problem()), (422, "refused"));
    assert!(
        refused.detail().contains("channel/a: there is no security definition crm.key"),
        "{}",
        refused.text
    );
    assert_eq!(world.call(OPERATOR, "DELETE", "/definitions/channel/a", Value::Null).await.status, 200);
    assert_eq!(world.call(OPERATOR, "DELETE", path, Value::Null).await.status, 200);
    let gone = world.call(OPERATOR, "DELETE", path, Value::Null).await;
    assert_eq!((gone.status, gone.problem()), (404, "not-found"));
    assert_eq!(world.get(path).await.status, 404);
}

#[tokio::test]
async fn faults_of_a_single_definition_have_pointers() {
    let world = crm().await;
    let put = |path: &'static str, body: Value| world.call(OPERATOR, "PUT", path, body);
    let answer = put("/definitions/channel/x", json!({"type": "rest", "path": 7, "colour": "red"})).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
    let pointers: Vec<_> =
        answer.json["faults"].as_array().unwrap().iter().map(|f| f["pointer"].clone()).collect();
    assert!(pointers.contains(&json!("/path")) && pointers.len() >= 3, "{}", answer.text);
    assert_eq!(answer.json["faults"][0]["subject"], "channel/x");
    let answer = put("/definitions/security/x", json!({"type": "api_key"})).await;
    assert!(answer.detail().contains("needs a value"), "{}", answer.text);
    let answer = put("/definitions/service/no%20name", json!({})).await;
    assert_eq!((answer.status, answer.problem()), (400, "invalid-request"), "{}", answer.text);
    let answer = put("/definitions/service/a%2Fb", json!({})).await;
    assert!(answer.detail().contains("no service can have this name"), "{}", answer.text);
    let answer = put("/definitions/colour/x", json!({})).await;
    assert!(answer.detail().contains("unknown kind"), "{}", answer.text);
}

#[tokio::test]
async fn channels_in_code_are_shown_and_cannot_be_deleted_but_overridden() {
    let world = World::new().await;
    world.upload("hello", unit(&[("demo.hello", "/hello/{name}")])).await;
    let path = "/definitions/channel/demo.hello%3Arest%3A%2Fhello%2F%7Bname%7D";
    let shown = world.get(path).await;
    assert_eq!(shown.json["in_code"], true, "{}", shown.text);
    assert_eq!(world.get("/export").await.text, "{}\n");
    let answer = world.call(OPERATOR, "DELETE", path, Value::Null).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"));
    assert!(answer.detail().contains("declared in code"));
    let body = json!({"type": "rest", "path": "/hi/{name}", "service": "demo.hello"});
    assert_eq!(world.call(OPERATOR, "PUT", path, body).await.status, 201);
    assert_eq!(world.get(path).await.json["in_code"], false);
    assert_eq!(world.call(OPERATOR, "DELETE", path, Value::Null).await.status, 200);
}

#[tokio::test]
async fn a_change_can_insist_on_the_revision_it_was_made_for() {
    let world = crm().await;
    let list = world.get("/definitions").await;
    assert_eq!(list.headers["etag"], "\"1\"");
    let put = |tag: &str| {
        Request::put("/api/v1/definitions/dictionary/d")
            .header("authorization", basic(OPERATOR))
            .header("content-type", "application/json")
            .header("if-match", tag)
            .body(Body::from(json!({"entries": {"tag": tag}}).to_string()))
            .unwrap()
    };
    assert_eq!(world.send(put("\"1\"")).await.status, 201);
    let late = world.send(put("\"1\"")).await;
    assert_eq!((late.status, late.problem()), (412, "outdated"));
    assert!(late.detail().contains("revision 2"), "{}", late.text);
    assert_eq!(world.send(put("*")).await.status, 200);
    assert_eq!(world.send(put("yesterday")).await.status, 400);

    let get = Request::get("/api/v1/definitions")
        .header("authorization", basic(VIEWER))
        .header("if-none-match", "\"3\"")
        .body(Body::empty())
        .unwrap();
    let answer = world.send(get).await;
    assert_eq!((answer.status, answer.text.as_str()), (304, ""));
}

#[tokio::test]
async fn dictionaries_and_service_settings_pass_through() {
    let world = crm().await;
    let document =
        "dictionary:\n  countries:\n    entries: {no: Norway}\nservice:\n  crm.get:\n    active: false\n";
    assert_eq!(world.apply(document).await.status, 200);
    let snapshot = world.odb.snapshot().await.unwrap();
    assert!(snapshot.definitions.values().any(|body| matches!(body, DefinitionBody::Dictionary(_))));
    assert_eq!(world.get("/services/crm.get").await.json["active"], false);
    assert_eq!(world.get("/definitions?kind=service").await.json.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_channel_that_does_not_open_shows_and_says_why() {
    let world = crm().await;
    let reasons = json!(["its key has no value", "its path is taken"]);
    *world.host.workers.lock().unwrap() = Workers::Close("crm.get");
    let off = "  off: {type: rest, path: /off, service: crm.get, active: false}\n";
    assert_eq!(world.apply(&format!("{CRM}{off}")).await.status, 200);
    let list = world.get("/definitions?kind=channel").await;
    assert_eq!(list.json[0]["state"], "closed", "{}", list.text);
    assert_eq!(list.json[0]["reasons"], reasons);
    assert_eq!((list.json[1]["state"].clone(), list.json[1].get("reasons")), (json!("inactive"), None));
    assert_eq!(world.get("/definitions?kind=security").await.json[0].get("state"), None);
    let status = world.get("/status").await;
    assert_eq!(status.json["closed_channels"], json!([{"channel": "crm.get", "reasons": reasons}]));

    // Whether it is open changes without a revision, so no caller is told that it has this already.
    *world.host.workers.lock().unwrap() = Workers::Serve;
    world.host.publish(Event::RevisionChanged { revision: Revision(2) });
    let get = Request::get("/api/v1/definitions/channel/crm.get")
        .header("authorization", basic(VIEWER))
        .header("if-none-match", "\"2\"")
        .body(Body::empty())
        .unwrap();
    let shown = world.send(get).await;
    assert_eq!((shown.status, shown.json["state"].clone()), (200, json!("open")), "{}", shown.text);
    assert_eq!(world.get("/status").await.json["closed_channels"], json!([]));
}

#[tokio::test]
async fn a_change_that_would_close_channels_lists_each_reason() {
    let world = crm().await;
    *world.host.workers.lock().unwrap() = Workers::RefuseFor("crm.get");
    let answer = world.apply(CRM).await;
    assert_eq!((answer.status, answer.problem()), (500, "not-served"));
    let faults = answer.json["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 2, "{}", answer.text);
    assert_eq!(faults[0], json!({"subject": "channel/crm.get", "detail": "its key has no value"}));
    let shown = world.get("/definitions/channel/crm.get").await;
    assert_eq!(shown.json["state"], "closed", "{}", shown.text);
    *world.host.workers.lock().unwrap() = Workers::Silent;
    world.apply("channel:\n  new: {type: rest, path: /new, service: crm.get}\n").await;
    assert_eq!(world.get("/definitions/channel/new").await.json["state"], "pending");
}
