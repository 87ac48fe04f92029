//! Memory of a worker with 100 idle Python services, and the time from start to the first answer.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::Plan;
use crate::connection::Entrance;
use crate::environment::{await_answer, one_server};
use crate::processes::resident_kib;
use crate::report::{Row, median};

fn service(index: usize) -> String {
    format!(
        r#"
from crosstie import Service, rest

class Idle(Service):
    name = "bench.idle.{index}"
    channels = [rest("POST", "/idle/{index}")]

    def handle(self):
        self.response.payload = {{"index": {index}}}
"#
    )
}

/// The rows of this file.
///
/// # Errors
/// A server does not start.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let environment = one_server(1)?;
    let entrance = Entrance::plain(environment.address());
    for index in 0..100 {
        environment.drop_file(&format!("idle_{index}.py"), &service(index))?;
    }
    for index in 0..100 {
        await_answer(&entrance, &format!("/idle/{index}"), "{}", |_| true)?;
    }
    let mut starts = Vec::new();
    for _ in 0..plan.rounds {
        environment.stop()?;
        let start = Instant::now();
        let first = std::thread::scope(|scope| -> Result<_> {
            let watch = scope.spawn(|| {
                await_answer(&entrance, "/idle/0", "{}", |_| true)?;
                anyhow::Ok(start.elapsed())
            });
            environment.start_again()?;
            watch.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?
        })?;
        starts.push(first.as_secs_f64());
    }
    let worker = *environment.ready_workers()?.first().context("no worker")?;
    let own = resident_kib(worker)?;
    let bare = bare_python()?;
    #[expect(clippy::cast_precision_loss, reason = "sizes in KiB")]
    let above = own.saturating_sub(bare) as f64 / 1024.0;
    let first = median(starts);
    Ok(vec![
        Row {
            what: "worker with 100 idle Python services, resident".into(),
            yardstick: "bare CPython".into(),
            measured: format!("{above:.1} MiB above"),
            limit: "60 MiB above".into(),
            holds: above <= 60.0,
            beside: format!("{own} KiB against {bare} KiB"),
        },
        Row {
            what: "server start to first answer, 100 services".into(),
            yardstick: "—".into(),
            measured: format!("{first:.2} s"),
            limit: "1.0 s".into(),
            holds: first <= 1.0,
            beside: "from `crosstie start`".into(),
        },
    ])
}

/// Resident memory of an interpreter that waits for input.
fn bare_python() -> Result<u64> {
    let mut process = Command::new("/usr/bin/python3")
        .args(["-c", "import sys; print(flush=True); sys.stdin.read()"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(output) = process.stdout.take() {
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
    }
    let resident = i32::try_from(process.id()).map_err(anyhow::Error::from).and_then(resident_kib);
    process.kill()?;
    process.wait()?;
    resident
}
