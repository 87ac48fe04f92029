//! `make bench`: measures the figures Crosstie must reach, each paired with its yardstick in the same run on
//! the same machine, prints the table and writes `benches/REPORT.md`.
//!
//! The load generator shares the machine's cores with the servers, so throughput alone misleads. The figure
//! is cost: the CPU time (user + system) of all server processes per request.

#![expect(clippy::print_stdout, reason = "the table is this program's output")]

mod deploys;
mod environment;
mod load;
mod memory;
mod processes;
mod python_rest;
mod report;
mod yardstick;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
}

/// How much to measure.
#[derive(clap::Args, Clone)]
struct Plan {
    /// The release build of `crosstie`.
    #[arg(long, default_value = "target/release/crosstie")]
    crosstie: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "benches/REPORT.md")]
    report: PathBuf,
    /// Paired runs of each throughput row.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load per run.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Redeploys of the memory row; 10,000 in `make soak`.
    #[arg(long, default_value_t = 500)]
    redeploys: usize,
    /// Only rows whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Yardstick { port } => yardstick::serve(port),
        What::Run(plan) => run(&plan),
    }
}

/// Measures some rows of the report.
type Measure = fn(&Plan) -> Result<Vec<report::Row>>;

fn run(plan: &Plan) -> Result<()> {
    let rows: [(&str, Measure); 4] = [
        ("python-rest", python_rest::measure),
        ("memory-and-start", memory::measure),
        ("hot-deploy", deploys::latency),
        ("redeploys", deploys::growth),
    ];
    let mut report = report::Report::new(plan)?;
    for (name, measure) in rows.into_iter().filter(|(name, _)| name.contains(&plan.only)) {
        println!("measuring {name} …");
        report.add(measure(plan)?);
    }
    println!("{}", report.table());
    report.write(&plan.report)
}
