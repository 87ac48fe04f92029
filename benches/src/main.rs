//! `make bench`: measures the figures Crosstie must reach, each paired with its yardstick in the same run on
//! the same machine, prints the table and writes `benches/REPORT.md`. `benches/README.md` says what each row
//! measures and how.
//!
//! The load generator shares the machine's cores with the servers, so throughput alone misleads. The figure
//! is cost: the CPU time (user + system) of all server processes per request.
//!
//! Exit codes: 0 every row holds, 1 a row does not hold or could not be measured, 2 the command line is not understood.

#![expect(clippy::print_stdout, reason = "the table is this program's output")]

mod amqp;
mod balancer;
mod beside;
mod classic;
mod connection;
mod deploys;
mod environment;
mod load;
mod memory;
mod messages;
mod nginx;
mod order;
mod paired;
mod passthrough;
mod processes;
mod python_rest;
mod recovery;
mod report;
mod requests;
mod secured;
mod soap_echo;
mod stage;
mod transformation;
mod upstream;
mod watch;
mod yardstick;

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use clap::{Parser, Subcommand};

use crate::report::{Report, Row};

/// Measures Crosstie against its yardsticks.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs the suite.
    Run(Plan),
    /// Serves the yardstick: a bare hyper handler that reads the body and answers.
    Yardstick {
        /// Loopback port.
        port: u16,
    },
    /// Serves the other system, which answers everything with what it was sent.
    Upstream {
        /// Loopback port.
        port: u16,
    },
    /// Consumes a queue and acknowledges its messages; tells how many for each line of its input.
    Consume {
        /// The broker.
        uri: String,
        /// The queue, which is made.
        queue: String,
    },
}

/// How much to measure.
#[derive(clap::Args, Clone)]
struct Plan {
    /// The release build of `crosstie`.
    #[arg(long, default_value = "target/release/crosstie")]
    crosstie: PathBuf,
    /// Where the report goes; `benches/REPORT.md` for the whole suite, nowhere for a part of it.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Paired runs of each throughput row.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load per run.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Seconds of redeploys under load.
    #[arg(long, default_value_t = 60)]
    deploy_seconds: u64,
    /// Redeploys of the memory row; 10,000 in `make soak`.
    #[arg(long, default_value_t = 500)]
    redeploys: usize,
    /// Deaths of each component.
    #[arg(long, default_value_t = 3)]
    deaths: usize,
    /// Only measurements whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().what {
        What::Yardstick { port } => yardstick::serve(port).map(|()| ExitCode::SUCCESS),
        What::Upstream { port } => upstream::serve(port).map(|()| ExitCode::SUCCESS),
        What::Consume { uri, queue } => amqp::consume(&uri, &queue).map(|()| ExitCode::SUCCESS),
        What::Run(plan) => run(&plan),
    }
}

/// Measures some rows of the report, on environments of its own.
type Measure = fn(&Plan) -> Result<Vec<Row>>;

/// By the names that `--only` chooses from.
const MEASUREMENTS: [(&str, Measure); 22] = [
    ("python-rest", python_rest::measure),
    ("message-log", messages::measure),
    ("passthrough", passthrough::measure),
    ("soap-echo", soap_echo::measure),
    ("amqp", amqp::measure),
    ("classic-proxy", classic::proxy),
    ("classic-header", classic::by_header),
    ("classic-pointer", classic::by_pointer),
    ("classic-xpath", classic::by_xpath),
    ("classic-xslt", transformation::measure),
    ("classic-secured", secured::measure),
    ("memory-and-start", memory::measure),
    ("hot-deploy", deploys::one),
    ("redeploys", deploys::growth),
    ("cluster-balancer", balancer::measure),
    ("cluster-hot-deploy", deploys::cluster),
    ("recovery-worker", recovery::worker),
    ("recovery-server", recovery::server),
    ("recovery-agent", recovery::agent),
    ("recovery-haproxy", recovery::haproxy),
    ("recovery-rabbitmq", recovery::broker),
    ("recovery-postgresql", recovery::database),
];

fn run(plan: &Plan) -> Result<ExitCode> {
    crosstie_test_support::command::use_binary(&plan.crosstie)?;
    let chosen: Vec<_> = MEASUREMENTS.iter().filter(|(name, _)| name.contains(&plan.only)).collect();
    ensure!(!chosen.is_empty(), "no measurement's name contains {}", plan.only);
    let mut report = Report::new(plan)?;
    for (name, measure) in chosen {
        println!("measuring {name} …");
        let start = Instant::now();
        report.add(measured(name, *measure, plan));
        println!("measured {name} in {} s", start.elapsed().as_secs());
    }
    println!("{}", report.table());
    let whole = plan.only.is_empty().then(|| PathBuf::from("benches/REPORT.md"));
    if let Some(path) = plan.report.clone().or(whole) {
        report.write(&path)?;
    }
    let missed = report.missed();
    if missed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("these do not hold:\n{}", missed.join("\n"));
    Ok(ExitCode::FAILURE)
}

/// The rows of one measurement. One that fails, or panics as waiting in vain does, becomes a row that does not
/// hold, and the others go on.
fn measured(name: &str, measure: Measure, plan: &Plan) -> Vec<Row> {
    let outcome = catch_unwind(|| measure(plan)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        Err(anyhow!("{text}"))
    });
    outcome.unwrap_or_else(|error| vec![Row::failed(name, &error)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        match Arguments::parse_from(["crosstie-bench", "run"]).what {
            What::Run(plan) => plan,
            _ => unreachable!("the arguments say run"),
        }
    }

    #[test]
    fn a_measurement_that_fails_or_panics_is_a_row_that_does_not_hold() {
        let measurements: [Measure; 2] =
            [|_| Err(anyhow!("no | luck\nat all")), |_| panic!("no | {}", "luck\nat all")];
        for measure in measurements {
            let mut report = Report::new(&plan()).unwrap();
            report.add(measured("it", measure, &plan()));
            assert_eq!(report.missed(), ["  it: failed, must reach a value"]);
            assert!(report.table().ends_with("| **no** | no / luck at all |\n"), "{}", report.table());
        }
    }
}
