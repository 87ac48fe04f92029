//! What holds of every endpoint: problems, limits, media types, the document.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::world::{OPERATOR, VIEWER, World, basic, unit};

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("/api/v1{path}")).header("authorization", basic(OPERATOR))
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let world = World::new().await;
    for path in ["/nothing", "/deployments/a/b/c"] {
        let answer = world.get(path).await;
        assert_eq!((answer.status, answer.problem()), (404, "not-found"), "{path}");
    }
    let outside = world.send(Request::get("/").body(Body::empty()).unwrap()).await;
    assert_eq!(outside.status, 404);
    let answer = world.call(OPERATOR, "PUT", "/status", Value::Null).await;
    assert_eq!((answer.status, answer.problem()), (405, "method-not-allowed"));
    assert!(answer.headers.contains_key("allow"));
}

#[tokio::test]
async fn unknown_query_parameters_are_refused_before_anything_happens() {
    let world = World::new().await;
    let answer = world.upload_to("/deployments?unit=x&chek=true", unit(&[("a", "")])).await;
    assert_eq!((answer.status, answer.problem()), (400, "invalid-request"));
    assert!(answer.detail().contains("chek") && answer.detail().contains("check"), "{}", answer.text);
    assert_eq!(world.get("/status?x=1").await.status, 400);
    assert_eq!(world.get("/definitions?kind=colour").await.status, 400);
    assert_eq!(world.get("/attempts?limit=many").await.status, 400);
    assert_eq!(world.get("/revisions/seven/serving").await.status, 400);
    assert_eq!(world.revision().await, 0);
}

#[tokio::test]
async fn json_bodies_must_be_json_and_fit_their_schema() {
    let world = World::new().await;
    let send = |media_type: &'static str, body: &'static str| {
        world.send(
            request("POST", "/apply").header("content-type", media_type).body(Body::from(body)).unwrap(),
        )
    };
    let answer = send("text/plain", "{}").await;
    assert_eq!((answer.status, answer.problem()), (415, "unsupported-media-type"));
    let answer = send("application/json", "{\"files\": ").await;
    assert_eq!((answer.status, answer.problem()), (400, "invalid-request"));
    let answer = send("application/json; charset=utf-8", "{\"files\": [{\"name\": 1}], \"x\": 1}").await;
    assert_eq!(answer.status, 400);
    assert!(answer.json["faults"].as_array().unwrap().len() >= 3, "{}", answer.text);
    let deep = format!("{{\"files\": {}{}}}", "[".repeat(500), "]".repeat(500));
    let answer = world
        .send(request("POST", "/apply").header("content-type", "application/json").body(deep.into()).unwrap())
        .await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn bodies_have_limits_that_strangers_never_reach() {
    let world = World::new().await;
    let large = vec![b' '; 2 * 1024 * 1024];
    let body = || Body::from(large.clone());
    let answer = world
        .send(
            request("PUT", "/definitions/dictionary/d")
                .header("content-type", "application/json")
                .body(body())
                .unwrap(),
        )
        .await;
    assert_eq!((answer.status, answer.problem()), (413, "too-large"));
    world.change_settings(|settings| settings.http.max_body_bytes = 1000);
    let answer = world.send(request("POST", "/services/echo/invoke").body(body()).unwrap()).await;
    assert_eq!((answer.status, answer.problem()), (413, "too-large"));
    let stranger = Request::post("/api/v1/deployments?unit=x").body(body()).unwrap();
    assert_eq!(world.send(stranger).await.status, 401);
}

#[tokio::test]
async fn a_form_uploads_as_well() {
    let world = World::new().await;
    let content = unit(&[("demo.form", "")]);
    let body = format!(
        "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"hello.py\"\r\n\r\n{content}\r\n--X--\r\n"
    );
    let answer = world
        .send(
            request("POST", "/deployments")
                .header("content-type", "multipart/form-data; boundary=X")
                .body(body.into())
                .unwrap(),
        )
        .await;
    assert_eq!((answer.status, answer.json["unit"].clone()), (201, json!("hello")), "{}", answer.text);
}

#[tokio::test]
async fn pages_of_other_sites_cannot_change_anything() {
    let world = World::new().await;
    let send = |site: &'static str| {
        world.send(
            request("POST", "/services/echo/release")
                .header("sec-fetch-site", site)
                .body(Body::empty())
                .unwrap(),
        )
    };
    for site in ["cross-site", "same-site"] {
        let answer = send(site).await;
        assert_eq!((answer.status, answer.problem()), (403, "forbidden"));
    }
    assert_eq!(send("same-origin").await.status, 404);
}

#[tokio::test]
async fn every_answer_is_data_and_carries_its_callers_trace() {
    let world = World::new().await;
    let answer = world.get("/status").await;
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(answer.headers["content-security-policy"].to_str().unwrap().contains("sandbox"));
    let cid = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced = request("GET", "/services/nobody")
        .header("traceparent", format!("00-{cid}-00f067aa0ba902b7-01"))
        .body(Body::empty())
        .unwrap();
    assert_eq!(world.send(traced).await.json["cid"], cid);
}

#[tokio::test]
async fn status_servers_and_metrics_are_shown() {
    let world = World::new().await;
    let status = world.get("/status").await.json;
    assert_eq!(
        (&status["name"], &status["state"], &status["pid"]),
        (&json!("server1"), &json!("running"), &json!(99))
    );
    assert_eq!(status["workers"][0]["singleton"], true);
    assert_eq!(status["odb"], json!({"kind": "sqlite", "reachable": true, "revision": 0}));
    world.upload("hello", unit(&[("demo.a", "")])).await;
    assert_eq!(world.get("/status").await.json["workers"][1]["revision"], 1);
    assert_eq!(world.get("/metrics").await.text, "crosstie_up 1\n");
    assert_eq!(world.get("/members").await.json, json!([]));
    assert_eq!(world.get("/revision").await.json, json!({"revision": 1}));
    let head =
        Request::head("/api/v1/status").header("authorization", basic(VIEWER)).body(Body::empty()).unwrap();
    assert_eq!(world.send(head).await.status, 200);
}
