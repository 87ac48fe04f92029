//! Tokens of the client credentials grant: fetched once, kept, replaced before they end, one fetch at a time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crosstie_model::outgoing::{HttpOutgoing, Trouble};
use crosstie_test_support::{Pki, Validity};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::support::{
    Upstream, World, acceptor, answer, call, exchange, field, get, post, trouble_of, until,
};

/// An authorization server and a system that takes its tokens.
struct Realm {
    tokens: Upstream,
    system: Upstream,
    /// How long tokens live, in seconds.
    life: Arc<AtomicU64>,
    down: Arc<AtomicBool>,
    /// Tokens that the system refuses.
    revoked: Arc<Mutex<Vec<String>>>,
    requests: Arc<Mutex<Vec<(String, String)>>>,
}

impl Realm {
    async fn start() -> Self {
        let (life, down) = (Arc::new(AtomicU64::new(3_600)), Arc::new(AtomicBool::new(false)));
        let (number, requests) =
            (Arc::new(AtomicUsize::new(0)), Arc::<Mutex<Vec<(String, String)>>>::default());
        let (living, is_down, kept) = (Arc::clone(&life), Arc::clone(&down), Arc::clone(&requests));
        let tokens = Upstream::start(move |request| {
            let (life, is_down, kept) =
                (living.load(Ordering::SeqCst), Arc::clone(&is_down), Arc::clone(&kept));
            let number = Arc::clone(&number);
            async move {
                let authorization = field(request.headers(), "authorization");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                kept.lock().unwrap().push((authorization, String::from_utf8(body.to_vec()).unwrap()));
                tokio::time::sleep(Duration::from_millis(50)).await;
                if is_down.load(Ordering::SeqCst) {
                    return answer(401, r#"{"error": "invalid_client", "error_description": "who?"}"#);
                }
                let token = format!("t{}", number.fetch_add(1, Ordering::SeqCst) + 1);
                let granted = json!({"access_token": token, "token_type": "Bearer", "expires_in": life});
                answer(200, granted.to_string())
            }
        })
        .await;
        let revoked: Arc<Mutex<Vec<String>>> = Arc::default();
        let refused = Arc::clone(&revoked);
        let system = Upstream::start(move |request| {
            let presented = field(request.headers(), "authorization");
            let is_refused = refused.lock().unwrap().contains(&presented);
            async move { answer(if is_refused { 401 } else { 200 }, presented) }
        })
        .await;
        Self { tokens, system, life, down, revoked, requests }
    }

    fn outgoing(&self, world: World, more: Value) -> (World, Arc<dyn HttpOutgoing>) {
        let mut body = json!({
            "type": "oauth2_client_credentials", "token_url": format!("{}/token", self.tokens.address()),
            "client_id": "a:b", "client_secret": "file:secret"
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let world = world.file("secret", "s3c:ret").security("oauth", body);
        let outgoing = world.open(&self.system, json!({"security": "oauth", "retry": {"max": 0}}));
        (world, outgoing)
    }
}

#[tokio::test]
async fn one_fetch_serves_all_callers_and_the_calls_after_them() {
    let realm = Realm::start().await;
    let (_world, outgoing) = realm.outgoing(World::new(), json!({"scopes": ["read", "write"]}));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let outgoing = outgoing.clone();
            tokio::spawn(async move { get(&outgoing, "/").await.unwrap().1 })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), "Bearer t1");
    }
    assert_eq!(get(&outgoing, "/").await.unwrap().1, "Bearer t1");
    let asked = realm.requests.lock().unwrap().clone();
    // Both halves are encoded before they are put together (RFC 6749, section 2.3.1).
    let basic = "Basic YSUzQWI6czNjJTNBcmV0".to_owned();
    assert_eq!(asked, [(basic, "grant_type=client_credentials&scope=read%20write".to_owned())]);
}

#[tokio::test]
async fn credentials_may_go_into_the_body() {
    let realm = Realm::start().await;
    let (_world, outgoing) =
        realm.outgoing(World::new(), json!({"credentials_in": "body", "audience": "https://crm"}));
    get(&outgoing, "/").await.unwrap();
    let (authorization, body) = realm.requests.lock().unwrap().pop().unwrap();
    assert_eq!(authorization, "");
    assert_eq!(
        body,
        "grant_type=client_credentials&audience=https%3A%2F%2Fcrm&client_id=a%3Ab&client_secret=s3c%3Aret"
    );
}

#[tokio::test]
async fn a_token_is_replaced_before_it_ends_and_nobody_waits_for_that() {
    let realm = Realm::start().await;
    realm.life.store(2, Ordering::SeqCst);
    let (_world, outgoing) = realm.outgoing(World::new(), json!({}));
    assert_eq!(get(&outgoing, "/").await.unwrap().1, "Bearer t1");
    realm.life.store(3_600, Ordering::SeqCst);
    let mut seen = Vec::new();
    until_token(&outgoing, "Bearer t2", &mut seen).await;
    assert!(seen.iter().all(|token| token == "Bearer t1"), "{seen:?}");
    assert_eq!(realm.tokens.requests(), 2);
}

/// Calls until `token` is presented, noting what was before.
async fn until_token(outgoing: &Arc<dyn HttpOutgoing>, token: &str, seen: &mut Vec<String>) {
    for _ in 0..1_000 {
        let presented = get(outgoing, "/").await.unwrap().1;
        if presented == token {
            return;
        }
        seen.push(presented);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{token} was never presented");
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once_and_the_call_repeated() {
    let realm = Realm::start().await;
    let (_world, outgoing) = realm.outgoing(World::new(), json!({}));
    get(&outgoing, "/").await.unwrap();
    realm.revoked.lock().unwrap().push("Bearer t1".to_owned());
    // Refused is not done: a POST may be sent again.
    assert_eq!(exchange(&outgoing, post("/", "{}")).await.unwrap(), (200, "Bearer t2".to_owned()));
    realm.revoked.lock().unwrap().extend(["Bearer t2".to_owned(), "Bearer t3".to_owned()]);
    assert_eq!(get(&outgoing, "/").await.unwrap(), (401, "Bearer t3".to_owned()), "once, not for ever");
    assert_eq!(realm.tokens.requests(), 3);
}

#[tokio::test]
async fn without_a_token_calls_fail_and_no_secret_is_told() {
    let realm = Realm::start().await;
    realm.down.store(true, Ordering::SeqCst);
    let (world, outgoing) = realm.outgoing(World::new(), json!({}));
    let error = exchange(&outgoing, call(Method::GET, "/")).await.unwrap_err();
    assert_eq!((error.trouble, error.failure.http_status()), (Trouble::Credentials, 502));
    assert!(error.detail.contains("invalid_client (who?)") && !error.detail.contains("s3c"), "{error}");
    for _ in 0..10 {
        exchange(&outgoing, call(Method::GET, "/")).await.unwrap_err();
    }
    assert!(realm.tokens.requests() <= 2, "an authorization server that refuses is not flooded");
    assert_eq!(realm.system.requests(), 0);
    realm.down.store(false, Ordering::SeqCst);

    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(get(&outgoing, "/").await.unwrap().0, 200);
    assert!(world.outcomes("credentials") >= 11);
}

#[tokio::test]
async fn an_authorization_server_is_trusted_by_the_definition_s_own_authority() {
    let pki = Pki::new("Own").unwrap();
    let issued = pki.issue("login", 1, Validity::Now).unwrap();
    let granted = |_| async { answer(200, r#"{"access_token": "t1", "expires_in": 60}"#) };
    let tokens = Upstream::start_tls(acceptor(&issued, None, &[b"h2", b"http/1.1"]), granted).await;
    let realm = Realm::start().await;
    let url = json!(format!("{}/token", tokens.address()));
    let trusting = json!({"token_url": url, "tls": {"ca": pki.certificate()}});
    let (_world, outgoing) = realm.outgoing(World::new(), trusting);
    assert_eq!(get(&outgoing, "/").await.unwrap().1, "Bearer t1");
    let (_world, outgoing) = realm.outgoing(World::new(), json!({"token_url": url}));
    assert_eq!(trouble_of(&outgoing, call(Method::GET, "/")).await, Trouble::Credentials);
    assert_eq!(tokens.requests(), 1, "no secret goes to a stranger");
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_cut_the_fetch_off() {
    let realm = Realm::start().await;
    let (_world, outgoing) = realm.outgoing(World::new(), json!({}));
    let leaving = {
        let outgoing = outgoing.clone();
        tokio::spawn(async move { get(&outgoing, "/").await })
    };
    until("the fetch has begun", || realm.tokens.requests() == 1).await;
    leaving.abort();
    assert_eq!(get(&outgoing, "/").await.unwrap().1, "Bearer t1");
    assert_eq!(realm.tokens.requests(), 1);
}
