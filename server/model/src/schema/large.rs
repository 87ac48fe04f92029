//! Documents so large that telling everything that is wrong with them would cost many times their size.
//!
//! The validator makes an error of each wrong place, with the way to it, before the first one can be looked at:
//! some hundred bytes for a number of two. What is too large for that is told by a part of it.

use serde_json::{Map, Value};

/// What errors for every place of a document may take, in bytes.
const BUDGET: usize = 8 * 1024 * 1024;

/// What the error for a place takes beside the way to it, in bytes.
const ERROR: usize = 256;

/// How many elements of each array are looked at.
const ELEMENTS: usize = 50;

/// Most members of an object that is looked at, and the longest name of one.
const MEMBERS: usize = 1_000;
const NAME: usize = 256;

/// Whether errors for all places of `value` would take too much.
pub(super) fn is_large(value: &Value) -> bool {
    let mut left = BUDGET;
    !fits(value, 0, &mut left)
}

/// Takes what errors for `value` and all in it would take from what is `left`; `way` is the length of the pointer to
/// it. Recursion is bounded by the depth that documents may have.
fn fits(value: &Value, way: usize, left: &mut usize) -> bool {
    let Some(rest) = left.checked_sub(ERROR + way) else { return false };
    *left = rest;
    match value {
        Value::Array(items) => items.iter().all(|item| fits(item, way + 8, left)),
        Value::Object(members) => members.iter().all(|(name, member)| fits(member, way + name.len(), left)),
        _ => true,
    }
}

/// `value` with the beginnings of its arrays, without members of long names; nothing where that is too large, too.
pub(super) fn shortened(value: &Value) -> Option<Value> {
    let short = cut(value);
    (!is_large(&short)).then_some(short)
}

fn cut(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().take(ELEMENTS).map(cut).collect()),
        Value::Object(members) => {
            let kept = members.iter().filter(|(name, _)| name.len() <= NAME).take(MEMBERS);
            Value::Object(kept.map(|(name, member)| (name.clone(), cut(member))).collect::<Map<_, _>>())
        }
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_is_large_by_what_its_errors_would_take() {
        assert!(!is_large(&json!({"a": vec![1; 10_000], "text": "x".repeat(100_000_000)})));
        assert!(is_large(&json!(vec![1; 40_000])));
        let long = "n".repeat(1_000_000);
        assert!(is_large(&json!({long: vec![1; 10]})));
    }

    #[test]
    fn what_is_left_of_a_large_document_is_its_beginning() {
        let row = json!({"id": 1, "cells": vec!["x"; 100]});
        let short = shortened(&json!({"rows": vec![row; 1_000], "n".repeat(NAME + 1): 1, "end": 2})).unwrap();
        assert_eq!(short["rows"].as_array().unwrap().len(), ELEMENTS);
        assert_eq!(short["rows"][49]["cells"].as_array().unwrap().len(), ELEMENTS);
        assert_eq!((short.as_object().unwrap().len(), &short["end"]), (2, &json!(2)));
        let wide: Value =
            (0..MEMBERS).map(|n| (n.to_string(), json!(vec![json!([1]); 100]))).collect::<Map<_, _>>().into();
        assert_eq!(shortened(&wide), None, "a thousand arrays are too many, however short");
    }
}
