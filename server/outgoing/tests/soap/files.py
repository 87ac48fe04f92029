"""A server of files.wsdl that knows nothing but Python's own parsers of MIME and XML. Takes a message with or
without attachments, and answers in the same way."""

import base64
import email
import email.policy
import json
import sys
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FILES, XOP = "{urn:files}", "{http://www.w3.org/2004/08/xop/include}"


def take_apart(content_type, body):
    """The envelope, and what stands beside it by its id."""
    if not content_type.startswith("multipart/related"):
        return body, {}
    whole = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body,
                                     policy=email.policy.HTTP)
    assert not whole.defects, whole.defects
    parts = {part["Content-ID"].strip("<>"): part for part in whole.iter_parts()}
    root = parts.pop(whole.get_param("start").strip("<>"))
    assert root.get_content_type() == "application/xop+xml", root.get_content_type()
    assert whole.get_param("type") == "application/xop+xml" and root.get_param("type") == whole.get_param("start-info")
    return root.get_payload(decode=True), {cid: part.get_payload(decode=True) for cid, part in parts.items()}


class Files(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        envelope, attachments = take_apart(self.headers["Content-Type"], sent)
        root = ET.fromstring(envelope)
        namespace = root.tag[: root.tag.index("}") + 1]
        contents = []
        for content in root.iter(FILES + "content"):
            include = content.find(XOP + "Include")
            contents.append(base64.b64decode(content.text) if include is None
                            else attachments.pop(include.get("href").removeprefix("cid:")))
        assert not attachments, "an attachment that nothing refers to"
        with open(sys.argv[1], "w") as seen:
            json.dump({
                "type": self.headers["Content-Type"], "action": self.headers["SOAPAction"], "namespace": namespace[1:-1],
                "sizes": [len(content) for content in contents], "attached": envelope.count(b"Include"),
                "headers": {child.tag: child.text for child in (root.find(namespace + "Header") or [])},
            }, seen)
        body = (
            '<s:Envelope xmlns:s="%s"><s:Header><f:Receipt xmlns:f="urn:files">1.20</f:Receipt></s:Header><s:Body>'
            '<f:StoreResponse xmlns:f="urn:files"><f:size>%d</f:size><f:copy>'
            '<x:Include xmlns:x="http://www.w3.org/2004/08/xop/include" href="cid:copy%%40files"/></f:copy>'
            "</f:StoreResponse></s:Body></s:Envelope>" % (namespace[1:-1], sum(map(len, contents)))
        ).encode()
        media = "application/soap+xml" if "2003" in namespace else "text/xml"
        answer = (
            b'--b\r\nContent-Type: application/xop+xml; charset=UTF-8; type="' + media.encode() + b'"\r\n'
            b"Content-ID: <root>\r\n\r\n" + body + b"\r\n--b\r\nContent-Type: image/png\r\n"
            b"Content-Transfer-Encoding: binary\r\nContent-ID: <copy@files>\r\n\r\n" + contents[0] + b"\r\n--b--\r\n"
        )
        self.send_response(200)
        self.send_header("Content-Type", 'multipart/related; type="application/xop+xml"; start="<root>"; '
                         'start-info="%s"; boundary=b' % media)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
print(server.server_port, flush=True)
server.serve_forever()
