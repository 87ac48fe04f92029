//! Binary values beside the envelope, taken apart by Python's own parsers of MIME and XML; and what else of a
//! message is to be seen on the wire.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::{Server, answer, open};
use crate::support::World;

const WSDL: &str = include_str!("files.wsdl");

/// Stores contents with `more` settings; gives the answer's message and header, and what the server saw.
async fn store(more: Value, contents: &[&[u8]]) -> (Value, Value, Value) {
    let directory = tempfile::tempdir().unwrap();
    let seen = directory.path().join("seen.json");
    let script = include_str!("files.py");
    let server = Server::start(Command::new("/usr/bin/python3").args(["-u", "-c", script]).arg(&seen));
    let files = open(World::new(), &server.address(), WSDL, more);
    let contents: Vec<_> = contents.iter().map(|content| STANDARD.encode(content)).collect();
    let answer = answer(&files, "Store", json!({"name": "a", "content": contents})).await.unwrap();
    assert_eq!(answer.attachments.len(), 1);
    assert_eq!(answer.attachments[0].content_type, "image/png");
    let seen = serde_json::from_slice(&std::fs::read(seen).unwrap()).unwrap();
    (answer.message, answer.headers[0].value.clone(), seen)
}

#[tokio::test]
async fn binary_values_stand_beside_the_envelope_from_their_size_on() {
    let large: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for (version, media_type) in [("1.1", "text/xml"), ("1.2", "application/soap+xml")] {
        let more = json!({"version": version, "mtom_from_bytes": 1000});
        let (message, receipt, seen) = store(more, &[&large, b"small"]).await;
        assert_eq!(message["size"], 100_005);
        assert_eq!(message["copy"], json!({"#base64Binary": STANDARD.encode(&large)}));
        assert_eq!(receipt, json!({"#decimal": "1.20"}));
        assert_eq!((&seen["sizes"], &seen["attached"]), (&json!([100_000, 5]), &json!(1)));
        let content_type = seen["type"].as_str().unwrap();
        assert!(content_type.contains(media_type), "{content_type}");
    }
}

#[tokio::test]
async fn the_fields_of_http_are_those_of_the_version() {
    let (_, _, seen) = store(json!({"port": "Files11"}), &[b"x"]).await;
    assert_eq!(seen["type"], "text/xml; charset=utf-8");
    assert_eq!((&seen["action"], &seen["headers"]), (&json!("\"urn:store\""), &json!({})));
    let (_, _, seen) = store(json!({"version": "1.2"}), &[b"x"]).await;
    assert_eq!(seen["type"], "application/soap+xml; charset=utf-8; action=\"urn:store\"");
    assert_eq!((&seen["action"], &seen["attached"]), (&Value::Null, &json!(0)));
}

#[tokio::test]
async fn addressing_says_what_a_message_is_and_where_it_goes() {
    let (_, _, seen) = store(json!({"addressing": true}), &[b"x"]).await;
    let header = |name: &str| {
        seen["headers"][format!("{{http://www.w3.org/2005/08/addressing}}{name}")].as_str().unwrap_or("none")
    };
    assert_eq!(header("Action"), "urn:files:Store");
    assert!(header("MessageID").starts_with("urn:uuid:"), "{seen}");
    assert!(header("To").starts_with("http://127.0.0.1:"), "{seen}");
}
