"""Calls everything with zeep: `client.py VERSION URL`, `client.py beside URL`, `client.py token URL USER PASSWORD`."""

import sys
import uuid
from datetime import date, datetime, time, timedelta, timezone
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


def deep():
    line = {"sku": "a", "quantity": 2}
    return {
        "small": 7,
        "size": "m",
        "at": time(10, 30, 15),
        "numbers": [1, -(2**63), 2**63 - 1],
        "ratios": [0.5, -1e300],
        "flags": [True, False],
        "prices": [Decimal("0.10"), Decimal("12345678901234567890.5")],
        "moments": [datetime(2024, 2, 29, 12, 30, 15, tzinfo=timezone.utc)],
        "orders": [
            {"customer": {"name": "Zoë", "address": {"street": "A", "floor": 3}}, "lines": [line, line]},
            {"customer": {"name": "Bob", "address": {"street": "B"}}, "lines": []},
        ],
    }


def nests(service):
    given = deep()
    answer = service.Nest(**given)
    for name in ("small", "size", "at", "numbers", "ratios", "flags", "prices", "moments"):
        assert answer[name] == given[name], (name, answer[name], given[name])
    first, second = answer["orders"]
    assert (first["customer"]["name"], first["customer"]["address"]["floor"]) == ("Zoë", 3), first
    assert [line["sku"] for line in first["lines"]] == ["a", "a"], first
    assert second["customer"]["address"]["street"] == "B" and not second["lines"], second
    assert second["customer"]["address"]["floor"] is None, second
    for wrong in ({"small": 101}, {"size": "xl"}):
        try:
            service.Nest(**{**given, **wrong})
        except zeep.exceptions.Fault as fault:
            assert f"pointer>/{next(iter(wrong))}<" in etree.tostring(fault.detail).decode(), etree.tostring(fault.detail)
        else:
            raise AssertionError(f"{wrong} got in")


def reads_what_stands_beside(url):
    """The channel answers binary values beside the envelope, whatever a client asks for."""
    for port in ("MatrixSoap", "MatrixSoap12"):
        client, service = client_of(url, port)
        blob = bytes(range(256)) * 400
        with client.settings(raw_response=True):
            raw = service.Store(content=blob)
        assert raw.headers["Content-Type"].startswith("multipart/related"), raw.headers
        assert blob[::-1] in raw.content, "it stands there as it is"
        answer = service.Store(content=blob)
        answer = getattr(answer, "root", answer)
        assert (answer["content"] if isinstance(answer, dict) else getattr(answer, "content", answer)) == blob[::-1]


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
    nests(service)
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


def refused_with(code, service):
    try:
        service.Who()
    except zeep.exceptions.Fault as fault:
        told = [fault.code, *map(str, fault.subcodes or [])]
        assert any(code in name for name in told), told
    else:
        raise AssertionError("it got in")


def shows_a_token(url, username, password):
    for port in ("MatrixSoap", "MatrixSoap12"):
        for digest in (False, True):
            _, service = client_of(url, port, wsse=UsernameToken(username, password, use_digest=digest))
            answer = service.Who()
            assert getattr(answer, "body", answer)["username"] == username, answer
            wrong = UsernameToken(username, f"{password}x", use_digest=digest)
            refused_with("FailedAuthentication", client_of(url, port, wsse=wrong)[1])
        created = datetime.now(timezone.utc) - timedelta(hours=1)
        old = UsernameToken(username, password, use_digest=True, created=created)
        refused_with("MessageExpired", client_of(url, port, wsse=old)[1])


if __name__ == "__main__":
    if sys.argv[1] == "token":
        shows_a_token(*sys.argv[2:])
    elif sys.argv[1] == "beside":
        reads_what_stands_beside(sys.argv[2])
    else:
        calls_everything(sys.argv[2], "MatrixSoap" if sys.argv[1] == "1.1" else "MatrixSoap12", sys.argv[1])
