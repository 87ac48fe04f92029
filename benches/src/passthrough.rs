//! A passthrough channel to an outgoing of type `rest`, against nginx.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::Plan;
use crate::order::JSON;
use crate::report::Row;
use crate::requests::{Expected, Requests};
use crate::stage::{PLAIN, Stage};

/// Most that it may cost.
const LIMIT: f64 = 1.3;

/// What the rows of nginx are compared with.
pub(crate) const NGINX: &str = "nginx proxy_pass, one worker process, keep-alive 64, access log";

/// The row of this file.
///
/// # Errors
/// Something does not start, or an answer is wrong.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let stage = Stage::set()?;
    stage.apply(
        &json!({"channel": {"direct": {"type": "passthrough", "path": "/direct", "outgoing": "plain"}}}),
    )?;
    let body = JSON.of_size(1024);
    let requests = Requests {
        path: "/direct".into(),
        content_type: "application/json",
        headers: Vec::new(),
        expected: Expected::Whole(body.clone()),
        body,
        asked_at: Some(format!("{PLAIN}/direct")),
        noted: None,
    };
    let pairs = stage.pairs(plan, Duration::from_secs(plan.seconds), &requests)?;
    let what = "passthrough channel → outgoing REST, 1 KiB, one worker, 32 connections";
    Ok(vec![pairs.row(what, NGINX, Some(LIMIT))])
}
