//! Bodies transformed: by channels of each type that can, and by services; and what is told of what cannot be.

use crosstie_test_support::{Asked, Environment, Said, Upstream, wait_until};
use serde_json::{Value, json};

/// An order of ours as their purchase. Refuses orders without number, reads what it is asked to, and never ends when
/// it is told so.
const PURCHASE: &str = r#"<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
  <xsl:param name="source" select="'nobody'"/>
  <xsl:template match="/order">
    <xsl:if test="not(@id)"><xsl:message terminate="yes">an order needs a number</xsl:message></xsl:if>
    <xsl:message>order <xsl:value-of select="@id"/></xsl:message>
    <purchase number="{@id}" source="{$source}">
      <xsl:for-each select="line"><item sku="{@article}"><xsl:value-of select="@quantity"/></item></xsl:for-each>
      <xsl:if test="@read"><xsl:copy-of select="document(@read)"/></xsl:if>
      <xsl:if test="@endless"><xsl:for-each select="//n"><xsl:for-each select="//n"><xsl:for-each select="//n">
        <xsl:if test="1 = 2">a</xsl:if></xsl:for-each></xsl:for-each></xsl:for-each></xsl:if>
    </purchase>
  </xsl:template>
</xsl:stylesheet>
"#;

/// Their receipt as a page of ours.
const PAGE: &str = r#"<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
  <xsl:output method="html"/>
  <xsl:template match="/*"><html><body><xsl:value-of select="total"/></body></html></xsl:template>
</xsl:stylesheet>
"#;

const SERVICES: &str = r##"
from crosstie import BadRequest, GatewayTimeout, InternalServerError, Service, http, rest


class Calls(Service):
    name = "calls"
    channels = [http("/calls")]

    def handle(self):
        sheet = self.transform["purchase"]
        xml = sheet("<order id='7'><line article='A1' quantity='2'/></order>", {"source": "it's \"<us>\""})
        wrong = []
        for name in ("gone", "a b"):
            try:
                self.transform[name]
            except KeyError as error:
                wrong.append("stylesheet" in str(error))
        for document, kind in (("<order", BadRequest), ("<order/>", BadRequest),
                               ("<order id='1' read='/etc/passwd'/>", InternalServerError),
                               ("<order id='1' endless='1'>" + "<n/>" * 3000 + "</order>", GatewayTimeout)):
            try:
                sheet(document)
            except kind as error:
                wrong.append((error.reason, error.detail.split(" (")[0][:23]))
        for call in (lambda: sheet(7), lambda: sheet("<order id='1'/>", {"source": None}),
                     lambda: sheet("<order id='1'/>", {"a b": "c"}),
                     lambda: self.transform.to_xml({}, root="a b"),
                     lambda: self.transform.from_xml("<a/>", arrays="a")):
            try:
                call()
            except (TypeError, ValueError) as error:
                wrong.append(type(error).__name__)
        return {
            "is": "purchase" in self.transform, "none": self.transform.get("gone"), "name": sheet.name,
            "purchase": self.transform.from_xml(xml, arrays=["item"]),
            "bytes": self.transform.from_xml(b"<?xml version='1.0' encoding='iso-8859-1'?><a>\xe9</a>"),
            "latin": self.transform["latin"]("<a>é</a>").hex(),
            "xml": self.transform.to_xml({"@id": 1, "tag": ["a", None]}, "order").split("\n")[1],
            "kinds": self.transform["kinds"]("<a/>", {"n": 1.5, "t": True}, i=2, big=2**60),
            "wrong": wrong,
        }


class Awaits(Service):
    name = "awaits"
    channels = [http("/awaits")]

    async def handle(self):
        xml = await self.transform["purchase"]("<order id='8'/>")
        return self.transform.from_xml(xml)


class Raw(Service):
    """What the channel made of the request; answers with XML."""

    name = "raw"

    def handle(self):
        if self.request.http.params.get("kind") == "broken":
            self.response.content_type = "application/xml"
            return "<receipt>"
        self.response.content_type = "application/xml"
        return self.transform.to_xml(
            {"total": self.request.raw.decode(), "type": self.request.headers["Content-Type"]}, "receipt")


class Typed(Service):
    name = "typed"

    def handle(self):
        return {"got": self.request.payload, "total": 12}


class Beside(Service):
    """Has XSLT of its own: the same libraries in the same process, told to read files and to bear errors."""

    name = "beside"
    channels = [http("/beside")]

    def handle(self):
        import sys, tempfile
        # The distribution's, which a server's own environment does not have.
        sys.path.append("/usr/lib/python3/dist-packages")
        from lxml import etree
        file = tempfile.NamedTemporaryFile("w")
        file.write("<read/>")
        file.flush()
        place = "file://" + file.name
        head = "<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'>"
        reading = f"<xsl:template match='/'><xsl:copy-of select=\"document('{place}')\"/></xsl:template>"
        seen = []
        for number in range(50):
            own = etree.XSLT(etree.XML(head + reading + "</xsl:stylesheet>"))
            seen.append(str(own(etree.XML("<a/>"))).split("\n")[1])
            xml = self.transform["purchase"](f"<order id='{number}'/>")
            seen.append(self.transform.from_xml(xml)["@number"] == str(number))
            try:
                self.transform["purchase"](f"<order id='1' read='{place}'/>")
            except InternalServerError as error:
                seen.append(error.reason)
        return sorted({str(one) for one in seen})


class Failing(Service):
    name = "failing"
    channels = [http("/failing")]

    def handle(self):
        return self.transform["purchase"](self.request.raw)
"##;

fn definitions(upstream: &Upstream) -> Value {
    let latin = "<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'>\
        <xsl:output method='text' encoding='ISO-8859-1'/></xsl:stylesheet>";
    let kinds = "<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'>\
        <xsl:output method='text'/><xsl:param name='n'/><xsl:param name='t'/><xsl:param name='i'/>\
        <xsl:param name='big'/><xsl:template match='/'><xsl:value-of select='$n + $i'/><xsl:value-of \
        select='$t'/><xsl:value-of select='$big'/></xsl:template></xsl:stylesheet>";
    let to_purchase = json!({"xslt": {"stylesheet": "purchase", "params": {"source": "shop"}}});
    json!({
        "stylesheet": {
            "purchase": {"text": PURCHASE, "timeout_ms": 500}, "page": {"text": PAGE},
            "latin": {"text": latin}, "kinds": {"text": kinds},
        },
        "outgoing": {"erp": {"type": "http", "address": upstream.url()}},
        "channel": {
            "orders": {"type": "passthrough", "path": "/orders/{kind}", "outgoing": "erp",
                "request_transform": [{"json_to_xml": {"root": "order"}}, to_purchase],
                "response_transform": [{"xml_to_json": {"arrays": ["line"]}}],
                "request_headers": {"set": {"X-Own": "1"}}, "response_headers": {"set": {"X-Back": "2"}}},
            "page": {"type": "http", "path": "/page/{kind}", "service": "raw",
                "request_transform": [to_purchase, {"xml_to_json": {}}],
                "response_transform": [{"xslt": {"stylesheet": "page"}}]},
            "typed": {"type": "rest", "path": "/typed", "service": "typed", "methods": ["POST"],
                "request_transform": [to_purchase, {"xml_to_json": {"arrays": ["item"]}}],
                "response_transform": [{"json_to_xml": {"root": "receipt"}}]},
        },
    })
}

/// A system that takes XML and answers with what it took.
fn erp() -> Upstream {
    Upstream::start(|asked: &Asked| {
        if asked.target.ends_with("garbage") {
            return Said::typed(200, "application/xml", "<receipt><line>");
        }
        if asked.target.ends_with("refused") {
            return Said::typed(422, "application/xml", "<no/>");
        }
        let text = asked.text().replace("<?xml version=\"1.0\" encoding=\"UTF-8\"?>", "");
        let mut said = Said::typed(
            200,
            "text/xml; charset=utf-8",
            format!("<receipt><line>{}</line><took>{text}</took></receipt>", asked.header("content-type")),
        );
        said.headers.push(("ETag".into(), "\"1\"".into()));
        said.headers.push((
            "X-Asked".into(),
            format!("{}|{}", asked.header("accept-encoding"), asked.header("x-own")),
        ));
        said
    })
    .unwrap()
}

fn apply(environment: &Environment, definitions: &Value) {
    let apply = environment.command(&["apply", "-f", "-"]).unwrap();
    apply.input(definitions.to_string()).run().unwrap().success().unwrap();
}

fn started() -> (Environment, Upstream) {
    let environment = Environment::start().unwrap();
    let upstream = erp();
    environment.drop_file("services.py", SERVICES).unwrap();
    environment.wait_for_status("/awaits", 500);
    apply(&environment, &definitions(&upstream));
    environment.wait_for_status("/awaits", 200);
    (environment, upstream)
}

#[test]
fn bodies_are_transformed_by_channels_and_by_services() {
    let (environment, upstream) = started();
    services_transform(&environment);
    passthrough_channels_transform(&environment, &upstream);
    channels_of_services_transform(&environment);
    what_is_wrong_is_told_to_whom_it_concerns(&environment);
    stylesheets_are_definitions(&environment);
}

fn services_transform(environment: &Environment) {
    let reply = environment.http().get("/calls").unwrap();
    assert_eq!(reply.status, 200, "{} {}", reply.text(), environment.log_tail("server.log"));
    assert_eq!(
        reply.json(),
        json!({
            "is": true, "none": null, "name": "purchase",
            "purchase": {"@number": "7", "@source": "it's \"<us>\"", "item": [{"@sku": "A1", "#text": "2"}]},
            "bytes": "é", "latin": "e9",
            "xml": "<order id=\"1\"><tag>a</tag><tag xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
                    xsi:nil=\"true\"/></order>",
            "kinds": "3.5true1152921504606846976",
            "wrong": [true, true, ["source", reply.json()["wrong"][2][1]], ["terminated", "an order needs a number"],
                ["forbidden", "document(): reading /et"], ["late", "it took longer than 500"],
                "TypeError", "TypeError", "ValueError", "ValueError", "TypeError"],
        })
    );
    assert_eq!(
        environment.http().get("/awaits").unwrap().json(),
        json!({"@number": "8", "@source": "nobody"})
    );
    wait_until("the stylesheet's message is logged", || {
        environment.log_tail("server.log").contains("order 7")
    });
    assert!(!environment.log_tail("server.log").contains("root:x:"), "a file was read");
    // Last, as it says more than the log's tail holds.
    let beside = environment.http().get("/beside").unwrap();
    assert_eq!(
        beside.json(),
        json!(["<read/>", "True", "forbidden"]),
        "{}",
        environment.log_tail("server.log")
    );
}

fn passthrough_channels_transform(environment: &Environment, upstream: &Upstream) {
    let http = environment.http().header("Accept-Encoding", "gzip").header("Range", "bytes=0-1");
    let order =
        json!({"@id": 9, "line": [{"@article": "A1", "@quantity": 2}, {"@article": "B2", "@quantity": 1}]});
    let reply = http.post_json("/orders/new", &order).unwrap();
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{}", reply.text());
    let took = json!({"purchase": {"@number": "9", "@source": "shop",
        "item": [{"@sku": "A1", "#text": "2"}, {"@sku": "B2", "#text": "1"}]}});
    assert_eq!(reply.json(), json!({"line": ["application/xml; charset=utf-8"], "took": took}));
    assert_eq!((reply.header("etag"), reply.header("x-back"), reply.header("x-asked")), ("", "2", "|1"));
    assert!(upstream.last().unwrap().text().contains("<purchase number=\"9\" source=\"shop\">"));
    assert_eq!(upstream.last().unwrap().header("range"), "");

    // Without a body there is nothing to transform, and what is no success is handed back as it came.
    let empty = environment.http().get("/orders/empty").unwrap();
    assert_eq!(empty.json()["took"], json!(""), "{}", empty.text());
    let refused = environment.http().post_json("/orders/refused", &order).unwrap();
    assert_eq!((refused.status, refused.text().as_str()), (422, "<no/>"));
}

fn channels_of_services_transform(environment: &Environment) {
    let http = environment.http();
    let order = b"<order id='3'><line article='A1' quantity='2'/></order>";
    let page = http.post("/page/whole", "text/xml", order).unwrap();
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/html; charset=utf-8"),
        "{}",
        page.text()
    );
    let got = "{\"@number\":\"3\",\"@source\":\"shop\",\"item\":{\"@sku\":\"A1\",\"#text\":\"2\"}}";
    assert!(page.text().contains(got), "{}", page.text());
    let typed = http.header("Accept", "application/json").post("/typed", "text/xml", order).unwrap();
    assert_eq!(typed.header("content-type"), "application/xml; charset=utf-8", "{}", typed.text());
    assert!(typed.text().contains("<item sku=\"A1\">2</item>"), "{}", typed.text());
    assert!(typed.text().ends_with("<total>12</total></receipt>"), "{}", typed.text());
    let described = environment.http().get("/openapi").unwrap().json();
    assert!(described["paths"].get("/typed").is_none(), "{described}");
}

fn what_is_wrong_is_told_to_whom_it_concerns(environment: &Environment) {
    let post = |path: &str, body: &str| environment.http().post(path, "text/xml", body.as_bytes()).unwrap();
    for path in ["/page/x", "/failing"] {
        let broken = post(path, "<order>\n<line></order>");
        assert_eq!(broken.status, 400, "{}", broken.text());
        let detail = broken.json()["faults"][0]["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.contains("line 2"), "{}", broken.text());
        let refused = post(path, "<order/>");
        assert_eq!((refused.status, &refused.json()["detail"]), (400, &json!("an order needs a number")));
        let hostile = post(path, "<!DOCTYPE a [<!ENTITY b SYSTEM '/etc/passwd'>]><order id='&b;'/>");
        assert_eq!(hostile.status, 400, "{}", hostile.text());
        let reading = post(path, "<order id='1' read='/etc/passwd'/>");
        assert_eq!(reading.status, 500);
        assert!(!reading.text().contains("passwd"), "{}", reading.text());
        let cid = reading.header("x-crosstie-cid").to_owned();
        wait_until("the log says why", || {
            let log = environment.log_tail("server.log");
            log.lines().any(|line| line.contains(&cid) && line.contains("/etc/passwd is not allowed"))
        });
        let endless = format!("<order id='1' endless='1'>{}</order>", "<n/>".repeat(3_000));
        assert_eq!(post(path, &endless).status, 504);
    }
    let broken = post("/orders/x", "{\"a\": ");
    assert_eq!(broken.status, 400, "{}", broken.text());
    assert!(broken.text().contains("JSON"), "{}", broken.text());
    // What others sent is not the caller's fault.
    let order = json!({"@id": 1});
    let garbage = environment.http().post_json("/orders/garbage", &order).unwrap();
    assert_eq!(garbage.status, 502, "{}", garbage.text());
    assert!(!garbage.text().contains("line 1"), "{}", garbage.text());
    assert_eq!(post("/page/broken", "<order id='1'/>").status, 500);
}

fn stylesheets_are_definitions(environment: &Environment) {
    let wrong = PAGE.replace("total", "total[");
    let documents = json!({
        "stylesheet": {"page": {"text": wrong}, "other": {"text": PURCHASE.replace("xsl:if", "xsl:wenn")}},
        "channel": {
            "a": {"type": "http", "path": "/a", "service": "raw",
                "request_transform": [{"xslt": {"stylesheet": "gone"}}, {}]},
            "b": {"type": "http", "path": "/b", "service": "raw",
                "request_transform": [{"xslt": {"stylesheet": "gone", "params": {"a b": "c"}}},
                    {"json_to_xml": {"root": "1"}}]},
        },
    });
    let refused =
        environment.command(&["apply", "-f", "-"]).unwrap().input(documents.to_string()).run().unwrap();
    assert_ne!(refused.code, 0);
    for word in ["line 3", "total[", "wenn", "stylesheet/gone", "says nothing", "\"a b\"", "\"1\""] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    let page = environment.http().post("/page/x", "text/xml", b"<order id='3'/>").unwrap();
    assert_eq!(page.status, 200, "nothing was changed: {}", page.text());

    let included = json!({"stylesheet": {"page": {"text": PAGE.replace(
        "<xsl:output method=\"html\"/>", "<xsl:include href=\"file:///etc/passwd\"/>")}}});
    let refused =
        environment.command(&["apply", "-f", "-"]).unwrap().input(included.to_string()).run().unwrap();
    assert!(
        refused.code != 0 && refused.stderr.contains("not one of the definition's documents"),
        "{}",
        refused.stderr
    );

    let taken = environment.run(&["delete", "stylesheet", "page"]).unwrap();
    assert!(taken.code != 0 && taken.stderr.contains("page"), "{}", taken.stderr);
    apply(environment, &json!({"stylesheet": {"page": {"text": PAGE.replace("<body>", "<body>New: ")}}}));
    wait_until("the new stylesheet is used", || {
        let page = environment.http().post("/page/x", "text/xml", b"<order id='3'/>").unwrap();
        page.text().contains("New: ")
    });
    let exported = environment.run(&["export", "stylesheet"]).unwrap().success().unwrap();
    assert!(
        exported.stdout.contains("  purchase:") && exported.stdout.contains("New: "),
        "{}",
        exported.stdout
    );
    let again = environment.command(&["apply", "-f", "-"]).unwrap().input(exported.stdout).run().unwrap();
    assert!(again.success().unwrap().stdout.contains("0 changed"));
}
