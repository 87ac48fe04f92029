//! SOAP services called from services: Python's types both ways, faults as exceptions, and what callers are told.

use crosstie_test_support::{Environment, Said, Upstream};
use serde_json::json;

const WSDL: &str = include_str!("../../server/outgoing/tests/soap/files.wsdl");

const CALLS: &str = r#"
import datetime
from decimal import Decimal
from crosstie import ModelError, Service, ServiceError, SoapFault, rest

class Calls(Service):
    name = "calls"
    channels = [rest("GET", "/calls")]
    def handle(self):
        files = self.out.soap["files"]
        answer = files.call(self.cid, "Store", {"name": "a", "content": [b"\x00\xff", "AAEC"]}, whole=True)
        assert files.conn.operations == ["Store"] and "files" in self.out.soap and "other" not in self.out.soap
        assert self.out.soap.get("other") is None and self.soap["files"].operations == ["Store"]
        receipt = answer.headers["Receipt"]
        assert receipt == Decimal("1.20") and isinstance(receipt, Decimal), receipt
        assert answer.data == {"size": 2, "copy": b"\x00\xff"}, answer.data
        assert answer.status_code == 200 and answer.header_blocks[0].startswith("<f:Receipt")
        short = files.call("Store", {"name": "a", "content": []} | {"content": [b"x"]})
        wrong = []
        try:
            files.call("Store", {"content": [b"x"], "size": 1})
        except ModelError as error:
            wrong = sorted(pointer for pointer, detail in error.faults)
        try:
            files.call("Gone", {})
        except ValueError as error:
            wrong.append("Store" in str(error))
        raw = files.send("<a/>", action="urn:x", http_headers={"X-Raw": "1"})
        return {"size": short["size"], "wrong": wrong, "raw": [raw.status_code, raw.text], "pong": "200" in files.ping()}

class CallsAsync(Service):
    name = "calls.async"
    channels = [rest("GET", "/async")]
    async def handle(self):
        answer = await self.out.soap["files"].call("Store", {"name": "a", "content": [b"x"]}, timeout=10)
        return answer["size"]

class Failing(Service):
    name = "failing"
    channels = [rest("GET", "/failing")]
    def handle(self):
        files = self.out.soap["files"]
        if self.request.http.query.get("caught"):
            try:
                files.call("Store", {"name": "fault", "content": [b"x"]})
            except SoapFault as fault:
                assert isinstance(fault, ServiceError) and fault.origin == "upstream" and fault.reason == "fault"
                assert "secret" in fault.detail and fault.xml.startswith("<s:Fault")
                return [fault.code, fault.text, str(fault.data["Receipt"]), fault.node, fault.status]
        files.call("Store", {"name": "fault", "content": [b"x"]})
"#;

fn envelope(header: &str, body: &str) -> Said {
    let text = format!(
        "<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'><s:Header>{header}</s:Header>\
         <s:Body>{body}</s:Body></s:Envelope>"
    );
    Said::typed(200, "text/xml", text)
}

#[test]
fn services_call_operations_with_pythons_own_types() {
    let environment = Environment::start().unwrap();
    let upstream = Upstream::start(|asked| {
        if asked.method == "HEAD" {
            return Said::typed(200, "text/plain", "");
        }
        if asked.header("x-raw") == "1" {
            return Said::typed(202, "text/plain", asked.text());
        }
        if asked.text().contains("<ns1:name>fault</ns1:name>") {
            let fault = "<s:Fault><faultcode>s:Server</faultcode><faultstring>secret detail</faultstring>\
                <detail><f:Receipt xmlns:f='urn:files'>9.50</f:Receipt></detail></s:Fault>";
            return Said { status: 500, ..envelope("", fault) };
        }
        let receipt = "<f:Receipt xmlns:f='urn:files'>1.20</f:Receipt>";
        envelope(receipt, "<StoreResponse xmlns='urn:files'><size>2</size><copy>AP8=</copy></StoreResponse>")
    })
    .unwrap();
    let definitions = json!({
        "wsdl": {"files": {"text": WSDL}},
        "outgoing": {"files": {"type": "soap", "wsdl": "files", "address": upstream.url()}},
    });
    let apply = environment.command(&["apply", "-f", "-"]).unwrap();
    apply.input(definitions.to_string()).run().unwrap().success().unwrap();
    environment.drop_file("calls.py", CALLS).unwrap();
    environment.wait_for_json("/async", &json!(2));
    assert!(upstream.last().unwrap().text().contains("<ns1:content>eA==</ns1:content>"));
    let reply = environment.http().get("/calls").unwrap();
    assert_eq!(reply.status, 200, "{} {}", reply.text(), environment.log_tail("server.log"));
    assert_eq!(
        reply.json(),
        json!({"size": 2, "wrong": ["/name", "/size", true], "raw": [202, "<a/>"], "pong": true})
    );
    let caught = environment.http().get("/failing?caught=1").unwrap();
    assert_eq!(caught.json(), json!(["Receiver", "secret detail", "9.50", null, 502]), "{}", caught.text());
    let told = environment.http().get("/failing").unwrap();
    assert_eq!(told.status, 502);
    assert!(!told.text().contains("secret"), "{}", told.text());

    // An outgoing without its description is refused, and a description in use cannot be taken away.
    let orphan = environment.command(&["apply", "-f", "-"]).unwrap();
    let orphan = orphan
        .input("outgoing: {b: {type: soap, wsdl: gone, address: 'http://127.0.0.1:1'}}\n")
        .run()
        .unwrap();
    assert!(orphan.code != 0 && orphan.stderr.contains("wsdl/gone"), "{}", orphan.stderr);
    let taken = environment.run(&["delete", "wsdl", "files"]).unwrap();
    assert!(taken.code != 0, "{}", taken.stdout);
}
