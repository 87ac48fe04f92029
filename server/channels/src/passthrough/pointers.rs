//! Values at JSON Pointers (RFC 6901) of a body, read in one pass over it: what no pointer leads to is checked for
//! being JSON and makes no value. Costs one reading of the body, and memory for what was asked for alone.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The pointers of all routes, as one tree by their tokens.
#[derive(Debug, Default)]
pub(super) struct Pointers {
    root: Node,
    count: usize,
}

/// Where a token leads.
#[derive(Debug, Default)]
struct Node {
    /// The place among the values of what is here, when it is asked for.
    place: Option<usize>,
    below: Vec<(Token, Self)>,
}

/// One step of a pointer: a member's name, which in an array may be the number of an element.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    name: String,
    index: Option<usize>,
}

impl Token {
    fn new(escaped: &str) -> Self {
        let name = escaped.replace("~1", "/").replace("~0", "~");
        // RFC 6901, section 4: digits without leading zeros.
        let is_index =
            name == "0" || !name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit());
        let index = if is_index { name.parse().ok() } else { None };
        Self { name, index }
    }
}

impl Pointers {
    /// Adds a pointer, `""` or with a leading `/`; gives the place of its value in what [`Self::values`] gives.
    pub(super) fn add(&mut self, pointer: &str) -> usize {
        let mut node = &mut self.root;
        for token in pointer.split('/').skip(1).map(Token::new) {
            let known = node.below.iter().position(|(other, _)| *other == token).unwrap_or_else(|| {
                node.below.push((token, Node::default()));
                node.below.len() - 1
            });
            #[expect(clippy::indexing_slicing, reason = "found or pushed just now")]
            let (_, next) = &mut node.below[known];
            node = next;
        }
        let place = *node.place.get_or_insert(self.count);
        self.count = self.count.max(place + 1);
        place
    }

    /// The values in `body`, by their places; nothing when it is not JSON.
    pub(super) fn values(&self, body: &[u8]) -> Option<Vec<Option<Value>>> {
        let mut found = vec![None; self.count];
        let mut reader = serde_json::Deserializer::from_str(std::str::from_utf8(body).ok()?);
        Seek { node: &self.root, found: &mut found }.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        Some(found)
    }
}

impl Node {
    /// Takes the values at this node and below it out of `value`.
    fn take(&self, value: &Value, found: &mut [Option<Value>]) {
        for (token, node) in &self.below {
            let next = match value {
                Value::Object(members) => members.get(&token.name),
                Value::Array(items) => token.index.and_then(|index| items.get(index)),
                _ => None,
            };
            if let Some(next) = next {
                node.take(next, found);
            }
        }
        self.put(found, || Some(value.clone()));
    }

    /// Forgets what was found at this node and below it: of members with one name the last one counts.
    fn forget(&self, found: &mut [Option<Value>]) {
        self.put(found, || None);
        self.below.iter().for_each(|(_, node)| node.forget(found));
    }

    fn put(&self, found: &mut [Option<Value>], value: impl FnOnce() -> Option<Value>) {
        if let Some(slot) = self.place.and_then(|place| found.get_mut(place)) {
            *slot = value();
        }
    }
}

/// Reads a value for what a node wants of it.
struct Seek<'a> {
    node: &'a Node,
    found: &'a mut [Option<Value>],
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        if self.node.place.is_some() {
            let value = serde::Deserialize::deserialize(reader)?;
            self.node.take(&value, self.found);
            return Ok(());
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(next) = members.next_key_seed(Name(self.node))? {
            match next {
                Some(node) => {
                    node.forget(self.found);
                    members.next_value_seed(Seek { node, found: self.found })?;
                }
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let below = &self.node.below;
            let wanted = below.iter().find(|(token, _)| token.index == Some(index));
            let is_there = match wanted {
                Some((_, node)) => items.next_element_seed(Seek { node, found: self.found })?.is_some(),
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !is_there {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads a member's name for the node it leads to.
struct Name<'a>(&'a Node);

impl<'de, 'a> DeserializeSeed<'de> for Name<'a> {
    type Value = Option<&'a Node>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Name<'a> {
    type Value = Option<&'a Node>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.below.iter().find(|(token, _)| token.name == name).map(|(_, node)| node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const POINTERS: [&str; 10] = ["", "/a", "/a/b", "/a/0", "/a/01", "/0", "/a~1b", "/m~0n", "/a/b/1/c", "/"];

    fn values(body: &str, pointers: &[&str]) -> Option<Vec<Option<Value>>> {
        let mut tree = Pointers::default();
        let places: Vec<_> = pointers.iter().map(|pointer| tree.add(pointer)).collect();
        let values = tree.values(body.as_bytes())?;
        Some(places.into_iter().map(|place| values[place].clone()).collect())
    }

    #[test]
    fn what_pointers_lead_to_is_read_and_nothing_else_matters_but_that_it_is_json() {
        let body =
            r#"{"x": [1, {"y": "\u0041"}], "a": {"b": [0, {"c": 1.5}], "a": {}}, "a/b": null, "": true}"#;
        let found = values(body, &["/a/b/1/c", "/a~1b", "/", "/x/1/y", "/x/2", "/a/b/1/c"]).unwrap();
        assert_eq!(
            found,
            [
                Some(json!(1.5)),
                Some(json!(null)),
                Some(json!(true)),
                Some(json!("A")),
                None,
                Some(json!(1.5))
            ]
        );
        for broken in ["", "{", r#"{"a": 1} x"#, r#"{"a": 1, "b": tru}"#, r#"{"a": 1,}"#, "[1] [2]"] {
            assert_eq!(values(broken, &["/a"]), None, "{broken}");
        }
        assert_eq!(Pointers::default().values(b"1"), Some(vec![]));
    }

    #[test]
    fn of_members_with_one_name_the_last_one_counts() {
        let body = r#"{"a": {"b": 1, "c": 2}, "a": {"c": 3}}"#;
        assert_eq!(
            values(body, &["/a/b", "/a/c", "/a"]),
            Some(vec![None, Some(json!(3)), Some(json!({"c": 3}))])
        );
        assert_eq!(values(body, &["/a/b", "/a/c"]), Some(vec![None, Some(json!(3))]));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            Just(json!("text \"\\ \u{e9}"))
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            let name = prop::sample::select(vec!["a", "b", "c", "0", "01", "a/b", "m~n", ""]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name, inner), 0..4).prop_map(|members| members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect())
            ]
        })
    }

    proptest! {
        #[test]
        fn the_same_is_found_as_in_the_whole_value(
            value in any_json(),
            pointers in prop::sample::subsequence(POINTERS.to_vec(), 0..POINTERS.len()),
        ) {
            let found = values(&value.to_string(), &pointers).unwrap();
            let expected: Vec<_> = pointers.iter().map(|pointer| value.pointer(pointer).cloned()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
