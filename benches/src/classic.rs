//! The field's classic set: what is done with a message on its way, at four sizes, each beside nginx that hands the
//! same messages on. Nothing limits these rows; they are there to be read and compared from report to report.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::Plan;
use crate::order::{JSON, NAMESPACE, XML};
use crate::passthrough::NGINX;
use crate::report::Row;
use crate::requests::{Expected, Requests};
use crate::stage::{CHOSEN, Stage};

/// The sizes of messages in bytes, and their names.
const SIZES: [(usize, &str); 4] =
    [(500, "500 B"), (1024, "1 KiB"), (10 * 1024, "10 KiB"), (100 * 1024, "100 KiB")];

/// The channel's path.
const PATH: &str = "/classic";

/// Seconds of one run at most: there are 240 runs in a whole suite.
const MOST_SECONDS: u64 = 2;

/// The rows of one thing that is done with messages; `requests` makes those of a size.
///
/// # Errors
/// An answer is wrong.
pub(crate) fn rows(
    plan: &Plan,
    stage: &Stage,
    what: &str,
    requests: impl Fn(usize) -> Requests,
) -> Result<Vec<Row>> {
    let length = Duration::from_secs(plan.seconds.min(MOST_SECONDS));
    let row = |(size, name): (usize, &str)| -> Result<Row> {
        let pairs = stage.pairs(plan, length, &requests(size)).with_context(|| name.to_owned())?;
        Ok(pairs.row(&format!("{what}, {name}"), NGINX, None))
    };
    SIZES.into_iter().map(row).collect()
}

/// Handed on as it comes.
///
/// # Errors
/// Something does not start, or an answer is wrong.
pub(crate) fn proxy(plan: &Plan) -> Result<Vec<Row>> {
    through(plan, "direct proxy", &json!({"outgoing": "chosen"}), xml)
}

/// Handed on to where a header field says.
///
/// # Errors
/// As for [`proxy`].
pub(crate) fn by_header(plan: &Plan) -> Result<Vec<Row>> {
    let condition = json!({"header": {"name": "X-Release", "one_of": ["2"]}});
    let requests = |size| Requests { headers: vec![("X-Release", "2")], ..xml(size) };
    through(plan, "routing by header", &routed(&condition), requests)
}

/// Handed on to where a value in a JSON body says.
///
/// # Errors
/// As for [`proxy`].
pub(crate) fn by_pointer(plan: &Plan) -> Result<Vec<Row>> {
    let condition = json!({"pointer": {"at": "/order/customer/country", "one_of": ["PL"]}});
    through(plan, "routing by body, JSON Pointer", &routed(&condition), |size| {
        orders("application/json", JSON.of_size(size))
    })
}

/// Handed on to where a value in an XML body says.
///
/// # Errors
/// As for [`proxy`].
pub(crate) fn by_xpath(plan: &Plan) -> Result<Vec<Row>> {
    let at = "/o:order/o:customer/@country";
    let condition = json!({"xpath": {"at": at, "namespaces": {"o": NAMESPACE}, "one_of": ["PL"]}});
    through(plan, "routing by body, XPath", &routed(&condition), xml)
}

/// The rows of a passthrough channel with some fields.
fn through(
    plan: &Plan,
    what: &str,
    fields: &Value,
    requests: impl Fn(usize) -> Requests,
) -> Result<Vec<Row>> {
    let stage = Stage::set()?;
    let mut channel = json!({"type": "passthrough", "path": PATH});
    merge(&mut channel, fields);
    stage.apply(&json!({"channel": {"classic": channel}}))?;
    rows(plan, &stage, what, requests)
}

/// Two routes, of which the second has `condition`; what neither takes goes elsewhere.
fn routed(condition: &Value) -> Value {
    let mut taken = json!({"outgoing": "chosen"});
    merge(&mut taken, condition);
    let passed = json!({"outgoing": "plain", "header": {"name": "X-Release", "one_of": ["1"]}});
    json!({"outgoing": "plain", "routes": [passed, taken]})
}

/// Adds the members of `more`.
fn merge(object: &mut Value, more: &Value) {
    if let (Some(members), Some(more)) = (object.as_object_mut(), more.as_object()) {
        members.extend(more.clone());
    }
}

/// XML orders.
fn xml(size: usize) -> Requests {
    orders("application/xml", XML.of_size(size))
}

/// Orders that come back as they were sent, from the system that a route has to choose.
fn orders(content_type: &'static str, body: String) -> Requests {
    Requests {
        path: PATH.into(),
        content_type,
        headers: Vec::new(),
        expected: Expected::Whole(body.clone()),
        body,
        asked_at: Some(format!("{CHOSEN}{PATH}")),
        noted: None,
    }
}
