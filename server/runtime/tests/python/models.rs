//! Declared input and output.

use crosstie_model::FailureKind;
use serde_json::{Value, json};

use crate::support::{World, get, post};

const ORDER: &str = r#"
from __future__ import annotations
import enum
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, Optional
from uuid import UUID
from crosstie import Model, Service, field

class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Line(Model):
    article: str = field(min_length=1)
    count: int = field(default=1, minimum=1)
    price: Decimal

class Order(Model):
    """An order."""
    id: int
    ratio: float = 0.5
    paid: bool = False
    note: Optional[str]
    colour: Colour = Colour.RED
    kind: Literal["new", "old"] = "new"
    lines: list[Line] = []
    tags: set[str] = set()
    pair: tuple[int, str] = (1, "a")
    by_name: dict[str, Line] = {}
    day: date = date(2024, 2, 29)
    at: datetime | None = None
    clock: time | None = None
    wait: timedelta | None = None
    ref: UUID | None = None
    blob: bytes = b""
    either: int | str = 0
    more: Any = None
    parent: Order | None = None

class Take(Service):
    name = "take"
    input = Order
    output = Order
    def handle(self):
        o = self.request.input
        assert isinstance(o, Order) and isinstance(o.colour, Colour) and isinstance(o.tags, set)
        assert all(isinstance(l, Line) and isinstance(l.price, Decimal) for l in o.lines)
        assert isinstance(o.day, date) and isinstance(o.pair, tuple) and isinstance(o.blob, bytes)
        if o.ref is not None:
            assert isinstance(o.ref, UUID) and isinstance(o.at, datetime) and isinstance(o.clock, time)
            assert isinstance(o.wait, timedelta) and o.at.tzinfo is not None
        o.lines.append(Line(article="added", price=1)) if self.request.http.query.get("add") else None
        self.response.payload = o
"#;

fn defaults() -> Value {
    json!({
        "id": 1, "ratio": 0.5, "paid": false, "note": null, "colour": "red", "kind": "new", "lines": [],
        "tags": [], "pair": [1, "a"], "by_name": {}, "day": "2024-02-29", "at": null, "clock": null,
        "wait": null, "ref": null, "blob": "", "either": 0, "more": null, "parent": null
    })
}

#[tokio::test]
async fn every_type_survives_the_way_in_and_out() {
    let world = World::new();
    world.deploy("orders", ORDER).await;
    assert_eq!(world.json("take", post(json!({"id": 1}))).await, defaults());
    let full = json!({
        "id": 7, "ratio": 1.25, "paid": true, "note": "n", "colour": "blue", "kind": "old",
        "lines": [{"article": "x", "count": 2, "price": "1.10"}], "tags": ["a"], "pair": [2, "b"],
        "by_name": {"k": {"article": "y", "count": 1, "price": "5"}}, "day": "2023-01-02",
        "at": "2023-01-02T03:04:05+00:00", "clock": "10:30:00", "wait": 1.5,
        "ref": "12345678-1234-5678-1234-567812345678", "blob": "AP8=", "either": "text",
        "more": {"free": [1, {"x": null}]}, "parent": defaults()
    });
    assert_eq!(world.json("take", post(full.clone())).await, full);
    let mut loose = full.clone();
    loose["id"] = json!(7.0);
    loose["ratio"] = json!(2);
    loose["lines"][0]["price"] = json!(1.5);
    loose["unknown"] = json!("ignored");
    let answer = world.json("take", post(loose)).await;
    assert_eq!(
        (&answer["id"], &answer["ratio"], &answer["lines"][0]["price"]),
        (&json!(7), &json!(2.0), &json!("1.5"))
    );
    assert!(answer.get("unknown").is_none());
}

#[tokio::test]
async fn every_fault_is_listed_with_its_pointer() {
    let world = World::new();
    world.deploy("orders", ORDER).await;
    let wrong = json!({
        "ratio": "x", "paid": 1, "colour": "green", "kind": "older",
        "lines": [{"article": "", "count": 0, "price": "1,5"}, 3], "pair": [1],
        "day": "2023-02-30", "ref": "no", "parent": {"id": "x"}
    });
    let failure = world.call("take", post(wrong)).await.unwrap_err();
    assert_eq!((failure.kind, failure.http_status()), (FailureKind::BadRequest, 400));
    let pointers: std::collections::BTreeSet<_> =
        failure.faults.iter().map(|fault| fault.pointer.as_str()).collect();
    for pointer in [
        "/id",
        "/ratio",
        "/paid",
        "/colour",
        "/kind",
        "/lines/0/article",
        "/lines/0/count",
        "/lines/0/price",
        "/lines/1",
        "/pair",
        "/day",
        "/ref",
    ] {
        assert!(pointers.contains(pointer), "{pointer} is not among {pointers:?}");
    }
    // An optional model is told of like any other.
    assert!(pointers.contains("/parent/id"), "{pointers:?}");
    assert!(!pointers.contains("") && !pointers.contains("/parent"), "{pointers:?}");
    // What a schema cannot see, the conversion does.
    let failure = world.call("take", post(json!({"id": 1, "blob": "***"}))).await.unwrap_err();
    assert_eq!((failure.http_status(), failure.faults[0].pointer.as_str()), (400, "/blob"));
    assert!(failure.faults[0].detail.contains("base64"), "{:?}", failure.faults);
    for body in [json!([]), json!("text"), json!(null), json!(5)] {
        let expected = world.call("take", post(body.clone())).await.unwrap_err();
        assert_eq!(expected.http_status(), 400, "{body}");
    }
}

#[tokio::test]
async fn no_integer_is_rounded_silently() {
    let world = World::new();
    world.deploy("orders", ORDER).await;
    let largest = json!({"id": u64::MAX, "either": i64::MIN});
    let answer = world.json("take", post(largest)).await;
    assert_eq!((&answer["id"], &answer["either"]), (&json!(u64::MAX), &json!(i64::MIN)));
    for text in ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890", "1e300"] {
        let value: Value = serde_json::from_str(&format!("{{\"id\": {text}}}")).unwrap();
        let failure = world.call("take", post(value)).await.unwrap_err();
        assert_eq!((failure.http_status(), failure.faults[0].pointer.as_str()), (400, "/id"), "{text}");
        assert_eq!(failure.faults[0].detail, "is not a whole number of 64 bits");
    }
}

#[tokio::test]
async fn defaults_are_not_shared_between_calls() {
    let world = World::new();
    world.deploy("orders", ORDER).await;
    for _ in 0..3 {
        let answer = world.json("take", post(json!({"id": 1})).query("add", "1")).await;
        assert_eq!(answer["lines"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn parameters_fill_the_input() {
    let world = World::new();
    let source = r#"
from crosstie import Model, Service
class Search(Model, extra="forbid"):
    id: int
    active: bool = False
    tags: list[int] = []
class Find(Service):
    name = "find"
    input = Search
    def handle(self):
        return self.request.input.to_dict()
"#;
    world.deploy("find", source).await;
    let asked =
        get().param("id", "5").query("active", "yes").query("tags", "1").query("tags", "2").query("utm", "z");
    assert_eq!(world.json("find", asked).await, json!({"id": 5, "active": true, "tags": [1, 2]}));
    let failure = world.call("find", get().param("id", "five").query("active", "maybe")).await.unwrap_err();
    let mut pointers: Vec<_> = failure.faults.iter().map(|fault| fault.pointer.as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/active", "/id"]);
    let unknown = world.call("find", post(json!({"id": 1, "colour": "red"}))).await.unwrap_err();
    assert_eq!(unknown.faults[0].pointer, "/colour", "{unknown:?}");
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_declared_is_a_500() {
    let world = World::new();
    let source = r#"
from crosstie import Model, Service, field
class Out(Model):
    n: int = field(maximum=10)
    items: list[str] = []
class Give(Service):
    name = "give"
    output = Out
    def handle(self):
        self.response.payload = self.request.payload
class Draft(Service):
    name = "draft"
    output = Out
    def handle(self):
        self.response.payload.n = 4
class Plain(Service):
    name = "plain"
    output = list[int]
    def handle(self):
        return self.request.payload
class Error(Service):
    name = "error"
    output = Out
    def handle(self):
        self.response.status_code = 422
        return {"why": "because"}
"#;
    world.deploy("give", source).await;
    assert_eq!(world.json("give", post(json!({"n": 1, "extra": 1}))).await, json!({"n": 1, "items": []}));
    assert_eq!(world.json("draft", get()).await, json!({"n": 4, "items": []}));
    assert_eq!(world.json("plain", post(json!([1, 2]))).await, json!([1, 2]));
    for wrong in [
        json!({"n": "1"}),
        json!({"n": 1, "items": [1]}),
        json!({}),
        json!([1]),
        json!({"n": 11}),
        json!({"n": true}),
    ] {
        let failure = world.call("give", post(wrong.clone())).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Internal, "{wrong}");
        assert!(failure.faults.is_empty());
    }
    assert_eq!(world.call("plain", post(json!(["x"]))).await.unwrap_err().kind, FailureKind::Internal);
    let reply = world.call("error", get()).await.unwrap();
    assert_eq!((reply.status, crate::support::value_of(&reply)), (Some(422), json!({"why": "because"})));
}

#[tokio::test]
async fn models_are_useful_in_code() {
    let world = World::new();
    let source = r#"
import dataclasses
from datetime import date
from decimal import Decimal
from crosstie import Model, ModelError, Service, field
class Inner(Model):
    x: int
class Thing(Model):
    name: str
    inner: Inner
    price: Decimal = Decimal("1.50")
    items: list[Inner] = field(default_factory=lambda: [Inner(x=9)])
class More(Thing):
    extra: date = date(2020, 1, 1)
@dataclasses.dataclass(init=False)
class Old(Model):
    a: str
    b: list = dataclasses.field(default_factory=list)
class Use(Service):
    name = "use"
    def handle(self):
        t = Thing(name="n", inner=Inner(x=1))
        c = t.clone(name="m")
        c.inner.x = 5
        m = More.from_dict({"name": "z", "inner": {"x": 3}, "extra": "2021-02-03"})
        errors = []
        for wrong in ({"name": 1}, {"name": "a", "inner": {"x": "y"}}):
            try:
                Thing.from_dict(wrong)
            except ModelError as error:
                errors.append(sorted(p for p, _ in error.faults))
        try:
            Thing(nme="x")
        except TypeError as error:
            errors.append(str(error))
        return {
            "repr": repr(t), "dict": t.to_dict(), "json": t.to_json(), "eq": t == Thing(name="n", inner=Inner(x=1)),
            "clone": [c.name, t.inner.x, c == t], "more": m, "type": type(m.extra).__name__, "errors": errors,
            "old": Old.from_dict({"a": "x"}), "oldinit": Old(a="1").b, "nested": {"deep": [t]},
        }
"#;
    world.deploy("use", source).await;
    let thing = json!({"name": "n", "inner": {"x": 1}, "price": "1.50", "items": [{"x": 9}]});
    let answer = world.json("use", get()).await;
    assert_eq!(
        answer["repr"],
        "Thing(name='n', inner=Inner(x=1), price=Decimal('1.50'), items=[Inner(x=9)])"
    );
    assert_eq!(answer["dict"], thing);
    assert_eq!(serde_json::from_str::<Value>(answer["json"].as_str().unwrap()).unwrap(), thing);
    assert_eq!(answer["eq"], true);
    assert_eq!(answer["clone"], json!(["m", 1, false]));
    assert_eq!(
        answer["more"],
        json!({"name": "z", "inner": {"x": 3}, "price": "1.50", "items": [{"x": 9}], "extra": "2021-02-03"})
    );
    assert_eq!(answer["type"], "date");
    assert_eq!(
        answer["errors"],
        json!([["/inner", "/name"], ["/inner/x"], "Thing misses name, inner and does not know nme"])
    );
    assert_eq!((&answer["old"], &answer["oldinit"]), (&json!({"a": "x", "b": []}), &json!([])));
    assert_eq!(answer["nested"], json!({"deep": [thing]}));
}

#[tokio::test]
async fn a_declared_input_has_one_schema() {
    let world = World::new();
    let unit = world.deploy("orders", ORDER).await;
    let schema = unit.services[0].description().input.clone().unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let order = &schema["$defs"]["Order"];
    assert_eq!(schema["$ref"], "#/$defs/Order");
    assert_eq!(order["required"], json!(["id"]));
    assert_eq!(order["properties"]["colour"], json!({"enum": ["red", "blue"], "default": "red"}));
    assert_eq!(order["properties"]["note"], json!({"type": ["string", "null"]}));
    assert_eq!(
        order["properties"]["day"],
        json!({"type": "string", "format": "date", "default": "2024-02-29"})
    );
    assert_eq!(schema["$defs"]["Line"]["required"], json!(["article", "price"]));
    assert_eq!(order["description"], "An order.");
}
