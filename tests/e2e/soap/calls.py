"""Calls a channel of rpc style with zeep: calls.py VERSION URL"""

import sys
from datetime import date, datetime, timezone
from decimal import Decimal

import zeep

version, url = sys.argv[1:]
client = zeep.Client(url + "?wsdl")
port = "CallsSoap" if version == "1.1" else "CallsSoap12"
service = client.bind("Calls", port)

given = {
    "text": "Zoë & <sons>", "whole": -7, "ratio": 1.5, "flag": True, "price": Decimal("12.50"),
    "day": date(2024, 2, 29), "moment": datetime(2024, 2, 29, 12, 30, 15, tzinfo=timezone.utc), "pause": 90.5,
    "id": "00000000-0000-0000-0000-000000000005", "content": bytes(range(256)), "kind": "trade",
    "main": {"sku": "a", "quantity": 2}, "tags": {"item": ["x", "", "y z"]},
    "lines": {"item": [{"sku": "b", "quantity": 3}, {"sku": "c"}]},
}
answer = service.Call(**given)
for name in ("text", "whole", "ratio", "flag", "price", "day", "moment", "pause", "id", "content", "kind"):
    assert answer[name] == given[name], (name, answer[name])
assert [tag or "" for tag in answer["tags"]["item"]] == ["x", "", "y z"], answer["tags"]
assert [(line["sku"], line["quantity"]) for line in answer["lines"]["item"]] == [("b", 3), ("c", 1)], answer["lines"]
assert (answer["main"]["sku"], answer["main"]["quantity"]) == ("a", 2), answer["main"]

assert service.Total(term={"item": [1, 2, 39]}) == 42
assert service.Now() == "now"
try:
    service.Refuse(text="so")
except zeep.exceptions.Fault as fault:
    assert fault.message == "so", fault.message
else:
    raise AssertionError("an answer")
service.Notify(text=f"zeep calls {version}")
try:
    client.create_message(service, "Refuse")
except zeep.exceptions.ValidationError:
    pass
else:
    raise AssertionError("a part was left out")
