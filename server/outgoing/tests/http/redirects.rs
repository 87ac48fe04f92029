//! Redirects: none unless they are wanted, and never with credentials to somebody else.

use std::sync::{Arc, Mutex};

use crosstie_model::outgoing::Trouble;
use http::{HeaderMap, HeaderValue, Method, Response};
use serde_json::json;

use crate::support::{Body, Upstream, World, answer, call, exchange, field, get, post, trouble_of};

fn redirect(status: u16, location: &str) -> Response<Body> {
    let mut response = answer(status, "elsewhere");
    response.headers_mut().insert("location", HeaderValue::from_str(location).unwrap());
    response
}

/// A server that redirects `/to?STATUS LOCATION`, and answers anything else with what it was asked.
async fn redirecting() -> Upstream {
    Upstream::start(|request| async move {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or("").to_owned());
        let method = request.method().clone();
        let authorization = field(request.headers(), "authorization");
        let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
        if path == "/to" {
            let (status, location) = query.split_once('&').unwrap();
            return redirect(status.parse().unwrap(), location);
        }
        answer(200, format!("{method} {path} {} {authorization}", String::from_utf8_lossy(&body)))
    })
    .await
}

#[tokio::test]
async fn a_redirect_is_an_answer_unless_the_definition_wants_it_followed() {
    let upstream = redirecting().await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({}));
    assert_eq!(get(&outgoing, "/to?302&/x").await.unwrap(), (302, "elsewhere".to_owned()));
    let outgoing = world.open(&upstream, json!({"redirects": "same_origin"}));
    assert_eq!(get(&outgoing, "/to?302&/x").await.unwrap(), (200, "GET /x  ".to_owned()));
    assert_eq!(get(&outgoing, "/to?302&http://127.0.0.1:1/x").await.unwrap().0, 302, "somebody else's");
    assert_eq!(get(&outgoing, "/to?304&/x").await.unwrap().0, 304);
}

#[tokio::test]
async fn method_and_body_follow_the_status() {
    let upstream = redirecting().await;
    let outgoing = World::new().open(&upstream, json!({"redirects": "same_origin"}));
    for (status, seen) in [
        (301, "GET /x  "),
        (302, "GET /x  "),
        (303, "GET /x  "),
        (307, "POST /x data "),
        (308, "POST /x data "),
    ] {
        let answered = exchange(&outgoing, post(&format!("/to?{status}&/x"), "data")).await.unwrap();
        assert_eq!(answered, (200, seen.to_owned()), "{status}");
    }
}

#[tokio::test]
async fn a_redirect_to_itself_ends() {
    let upstream = Upstream::start(|_| async { redirect(302, "/again") }).await;
    let world = World::new();
    let outgoing = world.open(&upstream, json!({"redirects": "any"}));
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Redirect);
    assert_eq!(upstream.requests(), 11);
    assert_eq!(world.outcomes("redirect"), 1);
}

#[tokio::test]
async fn credentials_stay_at_home() {
    let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let other = Upstream::start(move |request| {
        kept.lock().unwrap().push(request.headers().clone());
        let home = request.uri().query().unwrap_or("").to_owned();
        async move { if home.is_empty() { answer(200, "other") } else { redirect(307, &home) } }
    })
    .await;
    let home = redirecting().await;
    let world = World::new()
        .file("token", "t0ken")
        .security("token", json!({"type": "bearer", "token": "file:token"}));
    let settings = json!({"redirects": "any", "security": "token", "headers": {"X-Tenant": "acme"}});
    let outgoing = world.open(&home, settings);
    let mut request = call(Method::GET, &format!("/to?302&{}/there", other.address()));
    request.headers.insert("x-secret", HeaderValue::from_static("s"));
    request.headers.insert("cookie", HeaderValue::from_static("s=1"));
    assert_eq!(exchange(&outgoing, request).await.unwrap(), (200, "other".to_owned()));
    let headers = seen.lock().unwrap().pop().unwrap();
    for name in ["authorization", "cookie", "x-secret", "x-tenant"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert!(headers.contains_key("traceparent") && headers.contains_key("user-agent"));
    // Whoever comes back from there presents them at home again, and nowhere else.
    let back = format!("/to?307&{}/there?{}/home", other.address(), home.address());
    let (_, text) = get(&outgoing, &back).await.unwrap();
    assert_eq!(text, "GET /home  Bearer t0ken");
    assert!(!seen.lock().unwrap().pop().unwrap().contains_key("authorization"));
}
