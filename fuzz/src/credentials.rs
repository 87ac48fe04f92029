//! What callers present: the `Authorization` field and what load balancers tell of certificates, against a
//! definition of every type that decides by itself. The first byte chooses the fields; nobody is ever let in.

#![no_main]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use crosstie_model::definition::{DefinitionId, DefinitionKind, DefinitionName};
use crosstie_model::inquiry::NoInquiries;
use crosstie_model::{Definition, Snapshot};
use crosstie_security::credentials::{Authenticator, Presented, ShownCertificate};
use crosstie_security::{Authenticators, CertificateAuthority, ClusterKey, CredentialSource, SecretResolver};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

/// A public key of nobody: P-256's base point.
const KEY: &str = r#"{"kty": "EC", "crv": "P-256", "kid": "a",
    "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}"#;

static GROUP: LazyLock<Arc<Authenticator>> = LazyLock::new(|| {
    let authority = CertificateAuthority::create("fuzz").expect("an authority");
    let mut snapshot = Snapshot::default();
    for (name, body) in [
        ("basic", json!({"type": "basic_auth", "username": "ada", "password": "env:PATH"})),
        ("token", json!({"type": "jwt", "public_keys": KEY})),
        ("certificate", json!({"type": "client_certificate", "ca": authority.certificate_pem()})),
        ("all", json!({"type": "group", "any_of": ["basic", "token", "certificate"]})),
    ] {
        let name = DefinitionName::new(name).expect("a name");
        let id = DefinitionId { kind: DefinitionKind::Security, name };
        let definition = Definition::from_value(id, body).expect("a definition");
        snapshot.definitions.insert(definition.id, definition.body);
    }
    let key = Arc::new(ClusterKey::generate().expect("a key"));
    let source = CredentialSource::new(SecretResolver::new(key, "/nowhere".into()), Arc::new(NoInquiries));
    let all = Authenticators::build(&snapshot, &source).expect("authenticators");
    all.find(&DefinitionName::new("all").expect("a name")).expect("the group")
});

fuzz_target!(|data: &[u8]| {
    let Some((choice, value)) = data.split_first() else { return };
    let prefix: &[u8] = match choice % 4 {
        0 => b"",
        1 => b"Basic ",
        2 => b"Bearer ",
        _ => b"Bearer eyJhbGciOiJFUzI1NiJ9.",
    };
    let Ok(field) = HeaderValue::from_bytes(&[prefix, value].concat()) else { return };
    let mut headers = HeaderMap::from_iter([(AUTHORIZATION, field)]);
    let mut presented_certificate = ShownCertificate::None;
    if choice & 0x80 != 0
        && let Ok(told) = HeaderValue::from_bytes(value)
    {
        headers.insert("x-ssl-client-verify", HeaderValue::from_static("SUCCESS"));
        headers.insert("x-ssl-client-cert", told);
        presented_certificate = ShownCertificate::ToldByLoadBalancer;
    }
    let presented = Presented::now(&headers, &[]).with_certificate(presented_certificate);
    let mut outcome = pin!(GROUP.authenticate(&presented));
    match outcome.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => assert!(outcome.is_err(), "let in"),
        Poll::Pending => panic!("nobody has to be asked"),
    }
});
