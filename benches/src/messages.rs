//! The message log, metadata only, against the same service through a channel that keeps nothing; and whether every
//! message is found afterwards.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crosstie_model::cid::Cid;
use crosstie_telemetry::messages::messages;
use crosstie_test_support::Environment;
use serde_json::json;

use crate::Plan;
use crate::connection::Entrance;
use crate::environment::{apply, await_answer, one_server, wait};
use crate::paired::{Pairs, Run};
use crate::python_rest::{BODY, SERVICE};
use crate::report::Row;
use crate::requests::{Expected, Requests};
use crate::yardstick;

/// Most that keeping metadata may cost.
const LIMIT: f64 = 1.15;

/// The row of this file.
///
/// # Errors
/// The server does not start, a request fails, or a message is not kept.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let environment = one_server(1)?;
    environment.drop_file("greet.py", SERVICE)?;
    let entrance = Entrance::plain(environment.address());
    await_answer(&entrance, "/greet", BODY, |answer| answer == yardstick::ANSWER)?;
    // Two channels that lead to the same service, one of which keeps its messages.
    apply(
        &environment,
        &json!({"channel": {
            "bench.kept": {"type": "rest", "methods": ["POST"], "path": "/kept", "service": "bench.greet",
                "message_log": {}},
            "bench.unkept": {"type": "rest", "methods": ["POST"], "path": "/unkept", "service": "bench.greet"},
        }}),
    )?;
    for path in ["/kept", "/unkept"] {
        await_answer(&entrance, path, BODY, |answer| answer == yardstick::ANSWER)?;
    }
    let supervisor = environment.supervisor().context("the server does not run")?;
    let address = environment.address();
    let (directory, length) = (tempfile::tempdir()?, Duration::from_secs(plan.seconds));
    let [unkept, kept] = ["unkept", "kept"].map(|name| requests(name, directory.path().join(name)));
    let pairs = Pairs::of(
        plan.rounds,
        || Run::of(&[supervisor], || unkept.load(address, length)),
        || Run::of(&[supervisor], || kept.load(address, length)),
    )?;
    let found = all_found(&environment, &directory.path().join("kept"), pairs.answered())?;
    let what = "message log on, metadata only, every cid found afterwards";
    let mut row = pairs.row(what, "the same service through a channel that keeps nothing", Some(LIMIT));
    row.beside += &format!("; {found} cids found");
    Ok(vec![row])
}

/// Requests through the channel at `/NAME`, whose cids are noted in a file.
fn requests(name: &str, file: PathBuf) -> Requests {
    Requests {
        path: format!("/{name}"),
        content_type: "application/json",
        headers: Vec::new(),
        body: BODY.into(),
        expected: Expected::Whole(yardstick::ANSWER.into()),
        asked_at: None,
        noted: Some(("x-crosstie-cid", file)),
    }
}

/// Waits until the log has every message whose cid a client was told, `answered` of them; gives how many that are.
fn all_found(environment: &Environment, told: &Path, answered: u64) -> Result<usize> {
    let told = fs::read_to_string(told)?;
    let cid = |line: &str| line.parse::<Cid>().with_context(|| format!("an answer's cid is {line:?}"));
    let told: HashSet<Cid> = told.lines().map(cid).collect::<Result<_>>()?;
    ensure!(told.len() as u64 == answered, "{} cids of {answered} answers", told.len());
    let directory = environment.server().join("logs/messages");
    let mut missing = HashSet::new();
    let waited = wait("a message of each request", || {
        missing.clone_from(&told);
        messages(&directory, |message| {
            missing.remove(&message.id.cid);
        })?;
        Ok(missing.is_empty())
    });
    waited.with_context(|| format!("{} of {answered} are missing", missing.len()))?;
    Ok(told.len())
}
