use crosstie_model::schema::Schema;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Role, SchemaWriter};
use crate::convert::tests::{read, write};
use crate::{Document, Limits, SchemaSet};

fn generated(name: &str, schema: Option<&Value>, role: Role) -> (SchemaSet, String) {
    let mut made = SchemaWriter::new("urn:t");
    made.element(name, schema, role).unwrap();
    (compiled(&made), made.document())
}

fn compiled(made: &SchemaWriter) -> SchemaSet {
    let text = made.document();
    let set = SchemaSet::read("t.xsd", &mut |_| Ok(text.clone().into_bytes())).expect(&text);
    assert!(set.warnings().is_empty(), "{:?}", set.warnings());
    set
}

/// What the schema says between `<xs:schema …>` and its end.
fn body(text: &str) -> &str {
    let start = text.find("qualified\">").map_or(0, |at| at + "qualified\">".len());
    text.get(start..text.len() - "</xs:schema>".len()).unwrap_or_default()
}

#[test]
fn a_declared_object_becomes_a_schema_that_reads_well() {
    let schema = json!({
        "type": "object", "title": "Order", "description": "An order as customers send it.",
        "properties": {
            "customer": {"type": "integer", "description": "Who."},
            "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}, "minItems": 1},
            "kind": {"enum": ["retail", "trade"], "default": "retail"},
            "wanted_by": {"type": ["string", "null"], "format": "date", "default": null},
            "two words": {"type": "boolean"}
        },
        "required": ["customer", "lines"],
        "$defs": {"Line": {"type": "object", "title": "Line", "properties": {
            "article": {"type": "string", "minLength": 1, "maxLength": 40},
            "quantity": {"type": "integer", "minimum": 1},
            "price": {"type": ["string", "number"], "pattern": "^x$"},
            "rows": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}, "default": []},
            "notes": {"type": "object", "additionalProperties": {"type": "string"}},
            "more": {"anyOf": [{"$ref": "#/$defs/Line"}, {"type": "null"}]}
        }, "required": ["article", "quantity", "price"]}}
    });
    let (_, text) = generated("Price", Some(&schema), Role::Request);
    insta::assert_snapshot!(body(&text).replace("><", ">\n<"));
}

#[test]
fn integers_have_the_smallest_type_that_holds_them() {
    for (bounds, expected) in [
        (json!({}), "type=\"xs:long\""),
        (
            json!({"minimum": 0, "maximum": 255}),
            "base=\"xs:int\"><xs:minInclusive value=\"0\"/><xs:maxInclusive value=\"255\"/>",
        ),
        (json!({"minimum": -2_147_483_648_i64, "maximum": 2_147_483_647}), "type=\"xs:int\""),
        (json!({"minimum": 1}), "base=\"xs:long\"><xs:minInclusive value=\"1\"/></"),
        (
            json!({"exclusiveMinimum": 0, "maximum": 18_446_744_073_709_551_615_u64}),
            "base=\"xs:unsignedLong\"><xs:minInclusive value=\"1\"/></",
        ),
        (
            json!({"maximum": 1e30}),
            "base=\"xs:integer\"><xs:maxInclusive value=\"1000000000000000000000000000000\"/></",
        ),
    ] {
        let mut schema = bounds.clone();
        schema["type"] = "integer".into();
        let (_, text) = generated("v", Some(&schema), Role::Request);
        assert!(text.contains(expected), "{bounds}: {text}");
    }
}

#[test]
fn types_of_one_name_are_shared_only_when_they_are_equal() {
    let customer = json!({"type": "object", "title": "Customer", "properties": {"id": {"type": "integer"}}});
    let holder = |title: &str, inner: &Value| json!({"type": "object", "title": title, "properties": {"c": {"$ref": "#/$defs/Customer"}}, "$defs": {"Customer": inner}});
    let mut made = SchemaWriter::new("urn:t");
    made.element("A", Some(&holder("A", &customer)), Role::Request).unwrap();
    made.element("B", Some(&holder("B", &customer)), Role::Response).unwrap();
    let other = json!({"type": "object", "title": "Customer", "properties": {"name": {"type": "string"},
        "self": {"$ref": "#/$defs/Customer"}}});
    made.element("C", Some(&holder("C", &other)), Role::Request).unwrap();
    made.element("D", Some(&holder("D", &other)), Role::Request).unwrap();
    let set = compiled(&made);
    let text = made.document();
    assert_eq!(text.matches("name=\"Customer\"").count(), 1, "{text}");
    assert_eq!(text.matches("name=\"Customer2\"").count(), 1, "{text}");
    assert!(!text.contains("Customer3"), "{text}");
    let value = json!({"c": {"name": "x", "self": {"name": "y"}}});
    assert_eq!(read(&set, &write(&set, "D", &value).unwrap()).unwrap(), value);
    assert!(made.has_element("A") && !made.has_element("Customer"));
}

#[test]
fn what_is_no_object_is_held_by_one_element() {
    let both = |schema: Value, role: Role, value: Value, inside: &str| {
        let (set, text) = generated("op", Some(&schema), role);
        let written = write(&set, "op", &value).expect(&text);
        let expected = match inside {
            "" => "<t:op xmlns:t=\"urn:t\"/>".to_owned(),
            inside => format!("<t:op xmlns:t=\"urn:t\">{inside}</t:op>"),
        };
        assert_eq!(written, expected, "{text}");
        assert_eq!(read(&set, &written).unwrap(), value);
    };
    both(json!({"type": "integer"}), Role::Response, json!(5), "<t:result>5</t:result>");
    both(json!({"type": "string"}), Role::Request, json!(""), "<t:value/>");
    both(
        json!({"type": "array", "items": {"type": "integer"}}),
        Role::Response,
        json!([1, 2]),
        "<t:item>1</t:item><t:item>2</t:item>",
    );
    both(json!({"type": "array", "items": {"type": "integer"}}), Role::Response, json!([]), "");
    both(json!({"type": "null"}), Role::Response, Value::Null, "");
    for null in [
        json!({"type": ["null"]}),
        json!({"anyOf": [{"type": "null"}, {"type": "null"}]}),
        json!({"enum": [null]}),
    ] {
        let nil = "<t:result xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:nil=\"true\"/>";
        both(null, Role::Response, Value::Null, nil);
    }
    let customer = json!({"type": "object", "title": "C", "properties": {"id": {"type": "integer"}}, "required": ["id"]});
    let nil = "<t:result xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:nil=\"true\"/>";
    both(json!({"anyOf": [customer, {"type": "null"}]}), Role::Response, Value::Null, nil);
    both(
        json!({"anyOf": [customer, {"type": "null"}]}),
        Role::Response,
        json!({"id": 1}),
        "<t:result><t:id>1</t:id></t:result>",
    );
    both(json!({"type": "object"}), Role::Request, json!({}), "");
    let recursive = json!({"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "title": "N", "properties": {"n": {"$ref": "#/$defs/N"}}}}});
    both(recursive, Role::Request, json!({"n": {"n": {}}}), "<t:n><t:n/></t:n>");
}

#[test]
fn what_is_not_declared_holds_anything() {
    let (set, _) = generated("in", None, Role::Request);
    assert_eq!(
        read(&set, "<in xmlns='urn:t'><a xmlns=''>1</a><b xmlns=''>2</b></in>").unwrap(),
        json!({"a": "1", "b": "2"})
    );
    let (set, _) = generated("out", None, Role::Response);
    for value in [json!({"a": [1, "2"], "b": {"c": true}}), json!("x"), Value::Null, json!(1.5)] {
        assert_eq!(read(&set, &write(&set, "out", &value).unwrap()).unwrap(), value);
    }
}

#[test]
fn what_fits_no_alternative_is_told_by_the_likeliest() {
    let one = |tag: &str, member: &str| {
        json!({"type": "object", "title": tag, "properties": {"kind": {"const": tag}, member: {"type": "integer"}},
            "required": ["kind", member]})
    };
    let schema = json!({"type": "object", "properties": {"pay": {"anyOf": [one("card", "number"), one("cash", "amount"),
        {"type": "integer"}]}}, "required": ["pay"]});
    let (set, _) = generated("op", Some(&schema), Role::Request);
    let told = |value: Value| -> Vec<String> {
        let faults = write(&set, "op", &json!({"pay": value})).unwrap_err();
        faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect()
    };
    assert_eq!(told(json!({"kind": "cash", "amount": "x"})), ["/pay/amount the value is not an integer"]);
    assert_eq!(told(json!(true)), ["/pay the value is none of those that may stand here"]);
    for (value, element) in [(json!({"kind": "cash", "amount": 5}), "cash"), (json!(5), "integer")] {
        let written = write(&set, "op", &json!({"pay": value})).unwrap();
        assert!(written.to_lowercase().contains(&format!("<t:{element}>")), "{written}");
    }
}

#[test]
fn schemas_without_counterpart_are_refused() {
    for schema in [
        json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/None"}}}),
        json!({"$ref": "#"}),
        json!({"type": "object", "properties": {"{entries}": {"type": "string"}}}),
        json!({"type": "wrong"}),
        json!({"enum": ["\u{1}"]}),
    ] {
        assert!(SchemaWriter::new("urn:t").element("e", Some(&schema), Role::Request).is_err(), "{schema}");
    }
}

/// A JSON Schema with values of it.
type Pair = (Value, BoxedStrategy<Value>);

fn text() -> BoxedStrategy<Value> {
    "[ -~äß\t\n\r€]{0,8}".prop_map(Value::String).boxed()
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn scalar() -> BoxedStrategy<Pair> {
    let fixed = |schema: Value, values: BoxedStrategy<Value>| Just((schema, values)).boxed();
    let two = |most: u32| move |n: u32| format!("{:02}", n % most + 1);
    let (month, day) = (two(12), two(28));
    let date = (any::<u32>(), any::<u32>(), any::<u32>())
        .prop_map(move |(y, m, d)| format!("{:04}-{}-{}", 1000 + y % 8000, month(m), day(d)));
    let time = (0..24, 0..60, 0..60).prop_map(|(h, m, s)| format!("{h:02}:{m:02}:{s:02}"));
    let moment = (date.clone(), time.clone(), prop::sample::select(vec!["Z", ".5Z", "+05:30", "-01:00"]))
        .prop_map(|(date, time, zone)| format!("{date}T{time}{zone}"));
    let bytes = prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(bytes)
    });
    let time_pattern = r"^\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?$";
    prop_oneof![
        fixed(json!({"type": "string"}), text()),
        fixed(
            json!({"type": "string", "minLength": 2, "maxLength": 4}),
            "[a-zé]{2,4}".prop_map(Value::String).boxed()
        ),
        fixed(json!({"type": "integer"}), any::<i64>().prop_map(Value::from).boxed()),
        fixed(
            json!({"type": "integer", "minimum": 0, "maximum": 255}),
            any::<u8>().prop_map(Value::from).boxed()
        ),
        fixed(
            json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
            any::<u64>().prop_map(Value::from).boxed()
        ),
        fixed(
            json!({"type": "number"}),
            any::<f64>().prop_filter("JSON", |n| n.is_finite()).prop_map(Value::from).boxed()
        ),
        fixed(json!({"type": "boolean"}), any::<bool>().prop_map(Value::from).boxed()),
        fixed(
            json!({"type": ["string", "number"], "pattern": r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"}),
            "-?[0-9]{1,30}(\\.[0-9]{1,30})?".prop_map(Value::String).boxed()
        ),
        fixed(json!({"type": "string", "format": "date"}), date.prop_map(Value::String).boxed()),
        fixed(json!({"type": "string", "format": "date-time"}), moment.prop_map(Value::String).boxed()),
        fixed(json!({"type": "string", "pattern": time_pattern}), time.prop_map(Value::String).boxed()),
        fixed(json!({"type": "string", "contentEncoding": "base64"}), bytes.prop_map(Value::String).boxed()),
        fixed(
            json!({"enum": ["a", " b ", ""]}),
            prop::sample::select(vec![json!("a"), json!(" b "), json!("")]).boxed()
        ),
        fixed(json!({"enum": [1, 2]}), prop::sample::select(vec![json!(1), json!(2)]).boxed()),
        fixed(
            json!({"enum": [1, "x", true, 1.5]}),
            prop::sample::select(vec![json!(1), json!("x"), json!(true), json!(1.5)]).boxed()
        ),
        fixed(json!({"const": 7}), Just(json!(7)).boxed()),
        fixed(
            json!({"anyOf": [{"type": "string", "maxLength": 3}, {"type": "integer"}, {"type": "boolean"}]}),
            prop_oneof![
                any::<i64>().prop_map(Value::from),
                any::<bool>().prop_map(Value::from),
                "[g-z]{0,3}".prop_map(Value::String)
            ]
            .boxed()
        ),
        Just((json!({}), anything())),
    ]
    .boxed()
}

/// Values that come back as they were where nothing says what they are.
fn anything() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        text(),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop::collection::btree_map("[a-z][a-z ]{0,4}", inner, 1..3)
            .prop_map(|members| {
                Value::Object(members.into_iter().filter(|(key, _)| !key.contains(' ')).collect())
            })
            .prop_filter("an empty object is empty text", |value| value != &json!({}))
    })
    .boxed()
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z]{1,6}", 1 => prop::sample::select(vec![
        "two words", "1st", "@id", "#text", "entry", "item", "key", "a_x0020_b", "Ünïcode", "", "a:b", "x/y~z", "{u}v"
    ]).prop_map(str::to_owned)]
}

fn pair() -> BoxedStrategy<Pair> {
    scalar()
        .prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                inner.clone().prop_map(nullable),
                inner.clone().prop_map(list),
                prop::collection::vec(inner.clone(), 1..3).prop_map(tuple),
                inner.clone().prop_map(map),
                prop::collection::btree_map(key(), (inner.clone(), 0..3_u8), 0..5).prop_map(object),
                prop::collection::vec(prop::collection::btree_map("[a-z]{1,3}", inner, 1..3), 2..4)
                    .prop_map(union),
            ]
        })
        .boxed()
}

fn nullable((schema, values): Pair) -> Pair {
    let kind = schema
        .get("type")
        .and_then(Value::as_str)
        .filter(|_| schema.get("enum").is_none())
        .map(str::to_owned);
    let schema = match kind {
        Some(kind) => {
            let mut schema = schema;
            schema["type"] = json!([kind, "null"]);
            schema
        }
        None => json!({"anyOf": [schema, {"type": "null"}]}),
    };
    (schema, prop_oneof![3 => values, 1 => Just(Value::Null)].boxed())
}

fn list((schema, values): Pair) -> Pair {
    let values = prop::collection::vec(values, 0..4).prop_map(Value::Array).boxed();
    (json!({"type": "array", "items": schema}), values)
}

fn tuple(pairs: Vec<Pair>) -> Pair {
    let (schemas, values): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let count = schemas.len();
    let schema = json!({"type": "array", "prefixItems": schemas, "items": false, "minItems": count, "maxItems": count});
    (schema, values.prop_map(Value::Array).boxed())
}

fn map((schema, values): Pair) -> Pair {
    let values = prop::collection::btree_map(key(), values, 0..3);
    let values = values.prop_map(|members| Value::Object(members.into_iter().collect())).boxed();
    (json!({"type": "object", "additionalProperties": schema}), values)
}

/// Properties that are required, optional, or optional with a default.
fn object(members: std::collections::BTreeMap<String, (Pair, u8)>) -> Pair {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut values: BoxedStrategy<Map<String, Value>> = Just(Map::new()).boxed();
    if members.is_empty() {
        return (
            json!({"type": "object", "title": "Empty", "properties": {}, "additionalProperties": false}),
            Just(json!({})).boxed(),
        );
    }
    for (key, ((mut schema, member), presence)) in members {
        let is_list = schema.get("type") == Some(&json!("array"));
        let has_empty_default = presence == 1 && is_list && schema.get("prefixItems").is_none();
        if has_empty_default {
            schema["default"] = json!([]);
        }
        let member = match presence {
            0 => member.prop_map(Some).boxed(),
            // Missing and empty are the same there, and it comes back as empty.
            1 if has_empty_default => member.prop_map(Some).boxed(),
            _ => prop::option::of(member).boxed(),
        };
        if presence == 0 {
            required.push(key.clone());
        }
        properties.insert(key.clone(), schema);
        values = (values, member)
            .prop_map(move |(mut members, value)| {
                members.extend(value.map(|value| (key.clone(), value)));
                members
            })
            .boxed();
    }
    let schema = json!({"type": "object", "title": "Thing", "properties": properties, "required": required, "additionalProperties": false});
    (schema, values.prop_map(Value::Object).boxed())
}

/// One of several objects, told apart by a member of their own.
fn union(alternatives: Vec<std::collections::BTreeMap<String, Pair>>) -> Pair {
    let mut schemas = vec![json!({"type": "integer"})];
    let mut values = vec![any::<i64>().prop_map(Value::from).boxed()];
    for (number, members) in alternatives.into_iter().enumerate() {
        let mut members: std::collections::BTreeMap<_, _> =
            members.into_iter().map(|(key, pair)| (key, (pair, 0))).collect();
        let tag = (json!({"const": number}), Just(json!(number)).boxed());
        members.insert("TAG".to_owned(), (tag, 0));
        let (schema, value) = object(members);
        schemas.push(schema);
        values.push(value);
    }
    (json!({"anyOf": schemas}), prop::strategy::Union::new(values).boxed())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn json_survives_xml((schema, value) in pair().prop_flat_map(|(schema, values)| (Just(schema), values))) {
        let checked = Schema::compile(schema.clone()).unwrap();
        prop_assume!(checked.faults(&value).is_empty());
        for role in [Role::Request, Role::Response] {
            let (set, text) = generated("op", Some(&schema), role);
            let written = write(&set, "op", &value);
            prop_assert!(written.is_ok(), "{:?}\n{text}", written);
            let written = written.unwrap_or_default();
            prop_assert!(Document::parse(written.as_str(), &Limits::default()).is_ok());
            let again = read(&set, &written);
            prop_assert!(again.is_ok(), "{:?}\n{written}\n{text}", again);
            prop_assert_eq!(again.unwrap_or_default(), value.clone(), "{}\n{}", written, text);
        }
    }
}
