"""Calls everything with zeep: `client.py VERSION URL`, or `client.py token URL USER PASSWORD`."""

import sys
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import zeep
from lxml import etree
from zeep import xsd
from zeep.wsse.username import UsernameToken

NAMESPACE = "urn:example:matrix"


def client_of(url, port, **options):
    client = zeep.Client(f"{url}?wsdl", **options)
    return client, client.bind("Matrix", port)


def everything():
    return {
        "text": "Zoë & <sons>",
        "whole": -7,
        "ratio": 1.5,
        "flag": True,
        "price": Decimal("12.50"),
        "day": date(2024, 2, 29),
        "moment": datetime(2024, 2, 29, 12, 30, 15, tzinfo=timezone.utc),
        "pause": 90.5,
        "id": str(uuid.UUID(int=5)),
        "content": bytes(range(256)),
        "kind": "trade",
        "nothing": xsd.Nil,
        "main": {"sku": "a", "quantity": 2},
        "tags": ["x", "", "y z"],
        "lines": [{"sku": "b", "quantity": 3}, {"sku": "c"}],
    }


def calls_everything(url, port, version):
    client, service = client_of(url, port)
    given = everything()
    answer = service.Echo(**given)
    for name in ("text", "whole", "ratio", "flag", "price", "day", "moment", "pause", "id", "content", "kind"):
        assert answer[name] == given[name], (name, answer[name], given[name])
    # It reads an empty text as none.
    assert [tag or "" for tag in answer["tags"]] == given["tags"], answer["tags"]
    assert answer["nothing"] is None, answer["nothing"]
    assert answer["optional"] is None
    assert (answer["main"]["sku"], answer["main"]["quantity"]) == ("a", 2)
    assert [(line["sku"], line["quantity"]) for line in answer["lines"]] == [("b", 3), ("c", 1)]
    given.update(nothing="something", optional="there", tags=[], lines=[])
    answer = service.Echo(**given)
    assert (answer["nothing"], answer["optional"]) == ("something", "there")
    assert not answer["tags"] and not answer["lines"], answer

    blob = bytes(range(256)) * 400
    answer = service.Store(content=blob)
    assert (answer["content"] if isinstance(answer, dict) else answer) == blob[::-1]

    try:
        service.Refuse(text="because")
    except zeep.exceptions.Fault as fault:
        assert fault.message == "because", fault.message
        status = fault.detail.find(f".//{{{NAMESPACE}}}status")
        assert status.text == "409", status.text
        expected = "Client" if version == "1.1" else "Sender"
        assert fault.code.endswith(expected), fault.code
    else:
        raise AssertionError("no fault")
    service.Notify(text=f"zeep {version}")

    session = etree.Element(f"{{{NAMESPACE}}}Session")
    session.text = "s-1"
    answer = service.Who(_soapheaders=[session])
    body = getattr(answer, "body", answer)
    assert body["version"] == version, body
    assert body["session"] == "s-1", body
    # What it sends that breaks the description is refused with the place.
    node = client.create_message(service, "Refuse", text="x")
    for element in node.iter(f"{{{NAMESPACE}}}text"):
        element.tag = f"{{{NAMESPACE}}}texts"
    reply = client.transport.post_xml(url, node, {"Content-Type": "text/xml" if version == "1.1" else "application/soap+xml"})
    assert reply.status_code == (500 if version == "1.1" else 400), reply.status_code
    assert b"pointer>/text" in reply.content, reply.content


def shows_a_token(url, username, password):
    for digest in (False, True):
        wsse = UsernameToken(username, password, use_digest=digest)
        _, service = client_of(url, "MatrixSoap", wsse=wsse)
        answer = service.Who()
        assert getattr(answer, "body", answer)["username"] == username, answer
        wrong = UsernameToken(username, f"{password}x", use_digest=digest)
        _, service = client_of(url, "MatrixSoap", wsse=wrong)
        try:
            service.Who()
        except zeep.exceptions.Fault as fault:
            assert "FailedAuthentication" in fault.code, fault.code
        else:
            raise AssertionError("a wrong password got in")
    wsse = UsernameToken(username, password, use_digest=True, created=datetime.now(timezone.utc) - timedelta(hours=1))
    _, service = client_of(url, "MatrixSoap", wsse=wsse)
    try:
        service.Who()
    except zeep.exceptions.Fault as fault:
        assert "MessageExpired" in fault.code, fault.code
    else:
        raise AssertionError("an old token got in")


if __name__ == "__main__":
    if sys.argv[1] == "token":
        shows_a_token(*sys.argv[2:])
    else:
        calls_everything(sys.argv[2], "MatrixSoap" if sys.argv[1] == "1.1" else "MatrixSoap12", sys.argv[1])
