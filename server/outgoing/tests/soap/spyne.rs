//! Calls of a server made with spyne, by the description that it gives out itself.

use std::sync::Arc;

use crosstie_model::outgoing::{SoapCallHeader, SoapOutgoing};
use serde_json::{Value, json};

use crate::server::{Server, answer, ask, open, soap_call};
use crate::support::{World, body_of, call};

const SHOP: &str = include_str!("shop.py");

async fn described(server: &Server, path: &str) -> String {
    let http = World::new().open_at(&server.address(), json!({}));
    let answer = http.send(call(http::Method::GET, &format!("{path}?wsdl"))).await.unwrap();
    assert_eq!(answer.status, 200);
    String::from_utf8(body_of(answer).await.unwrap().to_vec()).unwrap()
}

async fn shop(path: &str, more: Value) -> (Server, Arc<dyn SoapOutgoing>) {
    let server = Server::python(SHOP);
    let wsdl = described(&server, path).await;
    let address = format!("{}{}", server.address().trim_end_matches('/'), path);
    let outgoing = open(World::new(), &address, &wsdl, more);
    (server, outgoing)
}

#[tokio::test]
async fn every_type_goes_there_and_back_in_both_versions() {
    for path in ["/soap11", "/soap12"] {
        let (_server, shop) = shop(path, json!({})).await;
        let order = json!({
            "id": 5, "price": "12.50", "ratio": 0.25, "paid": true, "at": "2024-02-29T10:00:00.5+01:00",
            "day": "2024-02-29", "time": "10:30:00", "tags": {"string": ["a", "b & c"]}, "blob": "AAEC/w==",
            "kind": "gift", "lines": {"Line": [{"article": "x", "count": 1}, {"article": "ö", "count": 2}]},
            "big": "1234567890123456789012", "nothing": null
        });
        let echoed = ask(&shop, "echo", json!({"order": order})).await;
        let result = &echoed["echoResult"];
        assert_eq!(result["id"], 5, "{path} {echoed}");
        assert_eq!(result["price"], json!({"#decimal": "12.50"}));
        assert_eq!(
            (&result["ratio"], &result["paid"], &result["kind"]),
            (&json!(0.25), &json!(true), &json!("gift"))
        );
        assert_eq!(result["day"], json!({"#date": "2024-02-29"}));
        assert_eq!(result["time"], json!({"#time": "10:30:00"}));
        assert_eq!(result["tags"], json!({"string": ["a", "b & c"]}));
        assert_eq!(result["blob"], json!({"#base64Binary": "AAEC/w=="}));
        assert_eq!(result["big"], json!({"#integer": "1234567890123456789012"}));
        assert_eq!(result["lines"]["Line"], order["lines"]["Line"]);
        let at = result["at"]["#dateTime"].as_str().unwrap();
        assert!(at.starts_with("2024-02-29T") && at.len() > 19, "{at}");
        assert_eq!(ask(&shop, "count", json!({"order": order})).await["countResult"], 2);
    }
}

#[tokio::test]
async fn headers_that_are_described_are_made_by_the_description() {
    let (_server, shop) = shop("/soap11", json!({})).await;
    let header = |value: Value| vec![SoapCallHeader::Declared { name: "Session".into(), value }];
    let session = json!({"user": "ada", "level": 3});
    let answer = shop.call(soap_call("whoami", &json!({}), header(session))).await.unwrap();
    assert_eq!(answer.message, json!({"whoamiResult": "ada 3"}));
    let error = shop.call(soap_call("whoami", &json!({}), header(json!({"level": "x"})))).await.unwrap_err();
    assert_eq!(error.faults[0].pointer, "/level");
    let raw = "<s:Session xmlns:s='urn:shop'><s:user>bob</s:user><s:level>1</s:level></s:Session>";
    let answer =
        shop.call(soap_call("whoami", &json!({}), vec![SoapCallHeader::Xml(raw.into())])).await.unwrap();
    assert_eq!(answer.message, json!({"whoamiResult": "bob 1"}));
}

#[tokio::test]
async fn faults_of_the_application_and_of_the_server_are_told_apart() {
    for path in ["/soap11", "/soap12"] {
        let (_server, shop) = shop(path, json!({})).await;
        let error = answer(&shop, "refuse", json!({"why": "sold <out>"})).await.unwrap_err();
        let fault = error.fault.expect("a fault");
        assert_eq!((fault.code.as_str(), fault.text.as_str()), ("Sender", "sold <out>"), "{path}");
        assert!(fault.subcodes[0].ends_with("Refused"), "{path} {:?}", fault.subcodes);
        let error = answer(&shop, "crash", json!({})).await.unwrap_err();
        assert_eq!(error.fault.expect("a fault").code, "Receiver", "{path}");
    }
}
