//! Answers that are none, and envelopes sent as they are.

use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::DefinitionKind;
use crosstie_model::TraceContext;
use crosstie_model::outgoing::{EnvelopeCall, Outgoing, Ping, Trouble};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::server::{answer, open};
use crate::support::{Body, PATIENCE, Upstream, World, body_of, field, whole};

const WSDL: &str = include_str!("files.wsdl");

fn said(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = crate::support::answer(status, body);
    response.headers_mut().insert("content-type", content_type.parse().unwrap());
    response
}

fn envelope(header: &str, body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'><s:Header>{header}</s:Header>\
         <s:Body>{body}</s:Body></s:Envelope>"
    )
}

const STORED: &str = "<StoreResponse xmlns='urn:files'><size>1</size></StoreResponse>";

/// The trouble with an answer, and its detail.
async fn trouble(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> (Trouble, String) {
    let body: Bytes = body.into();
    let upstream = Upstream::start(move |_: Request<Incoming>| {
        let body = body.clone();
        async move { said(status, content_type, body) }
    })
    .await;
    let files = open(World::new(), &upstream.address(), WSDL, json!({"retry": {"max": 0}}));
    let error = answer(&files, "Store", json!({"name": "a", "content": ["AA=="]})).await.unwrap_err();
    assert!(error.fault.is_none(), "{error:?}");
    (error.error.trouble, error.error.detail)
}

#[tokio::test]
async fn what_is_no_answer_is_told_as_what_it_is() {
    let xml = "text/xml";
    for (status, content_type, body, expected, word) in [
        (503, "text/html", "<h1>maintenance</h1>".to_owned(), Trouble::Refused, "503"),
        (401, "text/html", "<h1>who?</h1>".to_owned(), Trouble::Credentials, "401"),
        (200, "text/html", "<h1>login</h1>".to_owned(), Trouble::Protocol, "text/html"),
        (200, xml, "<a><b></a>".to_owned(), Trouble::Protocol, "200"),
        (200, xml, format!("<!DOCTYPE a [<!ENTITY b 'c'>]>{STORED}"), Trouble::Protocol, "document type"),
        (200, xml, STORED.to_owned(), Trouble::Protocol, "no SOAP envelope"),
        (500, xml, envelope("", STORED), Trouble::Refused, "no fault"),
        (200, xml, envelope("", "<Other xmlns='urn:files'/>"), Trouble::Protocol, "{urn:files}Other"),
        (
            200,
            xml,
            envelope("", "<StoreResponse xmlns='urn:files'><size>one</size></StoreResponse>"),
            Trouble::Protocol,
            "/size",
        ),
        (
            200,
            xml,
            envelope("<t:x xmlns:t='urn:t' s:mustUnderstand='1'/>", STORED),
            Trouble::Protocol,
            "{urn:t}x",
        ),
    ] {
        let (found, detail) = trouble(status, content_type, body.clone()).await;
        assert_eq!(found, expected, "{status} {body}: {detail}");
        assert!(detail.contains(word), "{word} is missing in {detail}");
    }
}

#[tokio::test]
async fn an_answer_larger_than_its_limit_or_later_than_its_deadline_is_none() {
    let upstream = Upstream::start(|request: Request<Incoming>| async move {
        if request.uri().path() == "/late" {
            std::future::pending::<()>().await;
        }
        said(200, "text/xml", envelope("", STORED))
    })
    .await;
    let message = json!({"name": "a", "content": ["AA=="]});
    let files = open(World::new(), &upstream.address(), WSDL, json!({"max_response_bytes": 100}));
    assert_eq!(answer(&files, "Store", message.clone()).await.unwrap_err().error.trouble, Trouble::TooLarge);
    let late = format!("{}/late", upstream.address());
    let files = open(World::new(), &late, WSDL, json!({"deadline_ms": 100}));
    assert_eq!(answer(&files, "Store", message).await.unwrap_err().error.trouble, Trouble::Deadline);
}

#[tokio::test]
async fn a_large_answer_is_read_as_a_small_one_is() {
    let blob = "A".repeat(400_000);
    let stored =
        format!("<StoreResponse xmlns='urn:files'><size>1</size><copy>{blob}</copy></StoreResponse>");
    let text = envelope("", &stored);
    let upstream = Upstream::start(move |request: Request<Incoming>| {
        let text = text.clone();
        async move {
            request.into_body().collect().await.unwrap();
            said(200, "text/xml", text)
        }
    })
    .await;
    let files = open(World::new(), &upstream.address(), WSDL, json!({}));
    let stored = answer(&files, "Store", json!({"name": "a", "content": [blob]})).await.unwrap();
    assert_eq!(stored.message["copy"]["#base64Binary"].as_str().map(str::len), Some(400_000));
}

#[tokio::test]
async fn an_envelope_goes_out_as_it_is_and_the_answer_comes_back_so() {
    let upstream = Upstream::start(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let shown =
            format!("{} {}", field(&head.headers, "content-type"), field(&head.headers, "soapaction"));
        let mut response = Response::new(whole(body.collect().await.unwrap().to_bytes()));
        response.headers_mut().insert("x-shown", shown.parse().unwrap());
        *response.status_mut() = http::StatusCode::IM_A_TEAPOT;
        response
    })
    .await;
    let files = open(World::new(), &upstream.address(), WSDL, json!({}));
    for (text, shown) in [
        (envelope("", "&gone;"), "text/xml; charset=utf-8 \"urn:x\""),
        (
            "<e:Envelope xmlns:e='http://www.w3.org/2003/05/soap-envelope'/>".to_owned(),
            "application/soap+xml; charset=utf-8; action=\"urn:x\"",
        ),
    ] {
        let call = EnvelopeCall {
            envelope: text.clone().into(),
            action: Some("urn:x".into()),
            fields: HeaderMap::new(),
            trace: TraceContext::new_root(),
            deadline: Instant::now() + PATIENCE,
        };
        let answer = files.send(call).await.unwrap();
        assert_eq!((answer.status.as_u16(), field(&answer.headers, "x-shown").as_str()), (418, shown));
        assert_eq!(body_of(answer).await.unwrap(), text);
    }
    let ping = Ping { trace: TraceContext::new_root(), deadline: Instant::now() + Duration::from_secs(30) };
    assert!(files.ping(ping).await.unwrap().detail.contains("418"));
}

#[test]
fn an_outgoing_whose_description_does_not_serve_is_closed_and_says_why() {
    let described = || World::new().define(DefinitionKind::Wsdl, "w", json!({"text": WSDL}));
    let body = |more: Value| {
        let mut body = json!({"type": "soap", "wsdl": "w", "address": "http://127.0.0.1:1"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let opened = described().try_open_any(body(json!({"service": "Files", "port": "Files12"})));
    assert!(matches!(opened, Ok(Outgoing::Soap(_))));
    for (world, more, word) in [
        (World::new(), json!({}), "wsdl definition w"),
        (
            World::new().define(DefinitionKind::Wsdl, "w", json!({"text": "<a/>"})),
            json!({}),
            "no description",
        ),
        (described(), json!({"service": "Other"}), "Files"),
        (described(), json!({"port": "Other"}), "Files12 (SOAP 1.2)"),
        (described(), json!({"port": "Files11", "version": "1.2"}), "Files11 (SOAP 1.1)"),
    ] {
        let error = world.try_open_any(body(more)).unwrap_err().to_string();
        assert!(error.contains(word), "{word} is missing in {error}");
    }
}
