//! Calls of a server made with gSOAP, by the description that its own tools wrote.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use crosstie_model::outgoing::{SoapOutgoing, Trouble};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Server, answer, ask, open, soap_call};
use crate::support::World;

/// The server's program and its description, made once.
struct Made {
    directory: TempDir,
    wsdl: String,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soap");
    for file in ["billing.h", "billing.c"] {
        std::fs::copy(source.join(file), at.join(file)).unwrap();
    }
    let gsoap = Path::new("/usr/share/gsoap");
    let imports = format!("{0}/import:{0}/custom:{0}/plugin", gsoap.display());
    // -2 would be SOAP 1.2 alone; without it the server takes both and the description says 1.1.
    run(Command::new("soapcpp2").current_dir(at).args(["-c", "-S", "-L", "-I", &imports, "billing.h"]));
    let plugins = ["plugin/wsseapi.c", "plugin/smdevp.c", "plugin/mecevp.c", "custom/struct_timeval.c"];
    run(Command::new("gcc")
        .current_dir(at)
        .args([
            "-O0",
            "-w",
            "-DWITH_OPENSSL",
            "-DWITH_DOM",
            "-I.",
            "-I/usr/share/gsoap/plugin",
            "-o",
            "billing",
        ])
        .args(["billing.c", "soapC.c", "soapServer.c"])
        .args(plugins.map(|file| gsoap.join(file)))
        .args(["-lgsoapssl", "-lssl", "-lcrypto", "-lz"]));
    let wsdl = std::fs::read_to_string(at.join("Billing.wsdl")).unwrap();
    Made { directory, wsdl }
});

fn run(command: &mut Command) {
    let done =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: install gsoap, libgsoap-dev"));
    assert!(
        done.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

/// A running server, and an outgoing that calls it.
fn billing(world: World, more: Value) -> (Server, Arc<dyn SoapOutgoing>) {
    let server = Server::start(&mut Command::new(MADE.directory.path().join("billing")));
    let outgoing = open(world, &server.address(), &MADE.wsdl, more);
    (server, outgoing)
}

/// The same description for SOAP 1.2: only the namespace of its binding differs.
fn newer() -> String {
    MADE.wsdl.replace("http://schemas.xmlsoap.org/wsdl/soap/", "http://schemas.xmlsoap.org/wsdl/soap12/")
}

fn decimal(text: &str) -> Value {
    json!({"#decimal": text})
}

#[tokio::test]
async fn an_answer_has_the_types_of_its_description() {
    let (_server, billing) = billing(World::new(), json!({}));
    assert_eq!(billing.operations(), ["GetInvoice", "Echo", "Fail", "Who", "Note", "Noted"]);
    let answer = ask(&billing, "GetInvoice", json!({"number": 7})).await;
    assert_eq!(
        answer,
        json!({"invoice": {
            "number": 7, "kind": "TRADE", "issued": {"#dateTime": "2023-11-14T22:13:20.000000Z"},
            "due": {"#date": "2023-12-24"}, "paid": true, "total": decimal("19.90"), "weight": 0.5,
            "line": [
                {"@unit": "kg", "article": "Apples <green> & more", "count": 3, "price": decimal("1.10")},
                {"article": "Bag", "count": 1}
            ],
            "discount": null, "scan": {"#base64Binary": "AQL/"}
        }})
    );
}

#[tokio::test]
async fn a_message_is_made_by_its_description_in_both_versions() {
    let server = Server::start(&mut Command::new(MADE.directory.path().join("billing")));
    // Members in no order at all; the schema has one.
    let sent = json!({"invoice": {
        "discount": null, "weight": "INF", "line": [{"count": 2, "article": "ä\u{1F600} ]]>", "@unit": "kg"}],
        "total": "123456789012345678901234567890.10", "paid": false, "kind": "RETAIL", "scan": "AAECAw==",
        "note": " two  spaces ", "issued": "2024-02-29 10:00:00z", "due": "2024-02-29", "number": -9_007_199_254_740_993_i64
    }});
    let expected = json!({"invoice": {
        "number": -9_007_199_254_740_993_i64, "kind": "RETAIL", "issued": {"#dateTime": "2024-02-29T10:00:00.000000Z"},
        "due": {"#date": "2024-02-29"}, "paid": false, "total": decimal("123456789012345678901234567890.10"),
        "weight": {"#double": "INF"}, "line": [{"@unit": "kg", "article": "ä\u{1F600} ]]>", "count": 2}],
        "note": " two  spaces ", "discount": null, "scan": {"#base64Binary": "AAECAw=="}
    }});
    for (wsdl, version) in [(MADE.wsdl.clone(), "1.1"), (newer(), "1.2")] {
        let billing = open(World::new(), &server.address(), &wsdl, json!({"version": version}));
        assert_eq!(ask(&billing, "Echo", sent.clone()).await, expected, "{version}");
        // No lines, and a discount that is one.
        let mut other = sent.clone();
        other["invoice"]["line"] = json!([]);
        other["invoice"]["discount"] = json!(-5);
        let echoed = ask(&billing, "Echo", other).await;
        assert_eq!((&echoed["invoice"]["line"], &echoed["invoice"]["discount"]), (&json!([]), &json!(-5)));
    }
}

#[tokio::test]
async fn a_message_that_does_not_fit_is_never_sent() {
    let (server, billing) = billing(World::new(), json!({}));
    drop(server);
    let error =
        answer(&billing, "Echo", json!({"invoice": {"number": "x", "colour": "red"}})).await.unwrap_err();
    assert_eq!(error.error.trouble, Trouble::Misuse);
    let pointers: Vec<_> = error.faults.iter().map(|fault| fault.pointer.as_str()).collect();
    for pointer in ["/invoice/number", "/invoice/kind", "/invoice/colour"] {
        assert!(pointers.contains(&pointer), "{pointer} is missing in {pointers:?}");
    }
    let error = answer(&billing, "Gone", json!({})).await.unwrap_err();
    assert!(error.error.detail.contains("GetInvoice"), "{error:?}");
}

#[tokio::test]
async fn a_fault_says_what_its_description_declares() {
    let server = Server::start(&mut Command::new(MADE.directory.path().join("billing")));
    for wsdl in [MADE.wsdl.clone(), newer()] {
        let billing = open(World::new(), &server.address(), &wsdl, json!({}));
        let error = answer(&billing, "Fail", json!({"code": 42})).await.unwrap_err();
        let fault = error.fault.expect("a fault");
        assert_eq!((fault.code.as_str(), fault.text.as_str()), ("Sender", "over the limit"));
        assert_eq!(fault.detail, json!({"Problem": {"code": 42, "limit": decimal("99.50")}}));
        assert!(fault.xml.contains("over the limit"), "{}", fault.xml);
        assert_eq!((error.error.trouble, error.error.failure.http_status()), (Trouble::Refused, 502));
        assert!(!error.error.failure.text.contains("limit"), "callers are told nothing of it");
    }
}

#[tokio::test]
async fn a_one_way_operation_has_no_answer() {
    let (_server, billing) = billing(World::new(), json!({}));
    assert_eq!(ask(&billing, "Note", json!({"text": "four"})).await, Value::Null);
    let noted = ask(&billing, "Noted", json!({})).await;
    assert_eq!(noted, json!({"count": 4}));
}

#[tokio::test]
async fn a_username_token_is_accepted_as_digest_and_as_text_and_refused_when_wrong() {
    let token = |password: &str, form: &str| {
        let body = json!({"type": "wss_username_token", "username": "ada", "password": "file:password",
            "passwords": [form]});
        World::new().file("password", password).security("ada", body)
    };
    for form in ["digest", "text"] {
        for more in [json!({}), json!({"timestamp_s": 60})] {
            let mut more = more;
            more["security"] = json!("ada");
            let (_server, billing) = billing(token("l0velace", form), more.clone());
            let who = ask(&billing, "Who", json!({})).await;
            assert_eq!(who, json!({"user": "ada"}), "{form} {more}");
            // Nonces are used once; a server that remembers them takes the next message too.
            assert_eq!(ask(&billing, "Who", json!({})).await, json!({"user": "ada"}));
        }
        let (_server, billing) = billing(token("wrong", form), json!({"security": "ada"}));
        let error = answer(&billing, "Who", json!({})).await.unwrap_err();
        assert!(error.fault.is_some(), "{error:?}");
        assert!(!format!("{error:?}{billing:?}", billing = billing.name()).contains("wrong\""), "{error:?}");
    }
    let (_server, anonymous) = billing(World::new(), json!({}));
    assert_eq!(ask(&anonymous, "Who", json!({})).await, json!({}));
}

#[tokio::test]
async fn the_password_of_a_digest_is_not_in_the_message() {
    let body = json!({"type": "wss_username_token", "username": "ada", "password": "file:password"});
    let world = World::new().file("password", "l0velace").security("ada", body);
    let (server, _) = billing(World::new(), json!({}));
    drop(server);
    let upstream =
        crate::support::Upstream::start(|request: http::Request<hyper::body::Incoming>| async move {
            use http_body_util::BodyExt as _;
            let sent = request.into_body().collect().await.unwrap().to_bytes();
            crate::support::answer(500, sent)
        })
        .await;
    let billing = open(world, &upstream.address(), &MADE.wsdl, json!({"security": "ada"}));
    let error = billing.call(soap_call("Who", &json!({}), Vec::new())).await.unwrap_err();
    // The upstream sends back what it got as its answer, and that is no message to a client.
    assert!(!error.error.detail.contains("l0velace"), "{}", error.error.detail);
    assert_eq!(upstream.requests(), 1);
}
