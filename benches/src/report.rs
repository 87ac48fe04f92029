//! The table and `benches/REPORT.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::Plan;

/// In place of a limit where there is none.
pub(crate) const NO_LIMIT: &str = "—";

/// One measured figure.
pub(crate) struct Row {
    /// What was measured.
    pub what: String,
    /// What it is compared with, or the limit's source.
    pub yardstick: String,
    /// The measured value with its unit.
    pub measured: String,
    /// What the design demands; [`NO_LIMIT`] of a row that is there to be read.
    pub limit: String,
    /// Whether it holds.
    pub holds: bool,
    /// Throughput, latency, spread: whatever helps to judge the value.
    pub beside: String,
}

impl Row {
    /// A measurement that gave nothing.
    pub(crate) fn failed(name: &str, error: &anyhow::Error) -> Self {
        // A cell of the table is one line, and a bar would end it.
        let told = format!("{error:#}").replace('|', "/");
        let told: Vec<&str> = told.split_whitespace().collect();
        Self {
            what: name.into(),
            yardstick: "—".into(),
            measured: "failed".into(),
            limit: "a value".into(),
            holds: false,
            beside: told.join(" "),
        }
    }
}

/// All rows with the machine they were measured on.
pub(crate) struct Report {
    machine: String,
    commands: String,
    rows: Vec<Row>,
}

impl Report {
    /// An empty report of this machine.
    ///
    /// # Errors
    /// The machine does not describe itself.
    pub(crate) fn new(plan: &Plan) -> Result<Self> {
        let cpu = fs::read_to_string("/proc/cpuinfo")?
            .lines()
            .find_map(|line| {
                line.strip_prefix("model name")?.split(':').nth(1).map(str::trim).map(str::to_owned)
            })
            .unwrap_or_default();
        let cores = std::thread::available_parallelism()?;
        let memory = fs::read_to_string("/proc/meminfo")?
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:").map(str::trim).map(str::to_owned))
            .unwrap_or_default();
        let kernel = output("uname", &["-r"]);
        let rustc = output("rustc", &["--version"]);
        Ok(Self {
            machine: format!("{cpu}, {cores} cores, {memory}, Linux {kernel}, {rustc}"),
            commands: format!(
                "`make bench`: {} paired runs of {} s each; medians; {} deaths of each component",
                plan.rounds, plan.seconds, plan.deaths
            ),
            rows: Vec::new(),
        })
    }

    /// Adds measured rows.
    pub(crate) fn add(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    /// The rows that do not hold.
    pub(crate) fn missed(&self) -> Vec<String> {
        let missed = self.rows.iter().filter(|row| !row.holds);
        missed.map(|row| format!("  {}: {}, must reach {}", row.what, row.measured, row.limit)).collect()
    }

    /// The rows as a Markdown table.
    pub(crate) fn table(&self) -> String {
        let mut table = String::from(
            "| what | yardstick | measured | must reach | holds | beside |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let holds = match row.holds {
                true if row.limit == NO_LIMIT => NO_LIMIT,
                true => "yes",
                false => "**no**",
            };
            // Writing to a String does not fail.
            let _ = writeln!(
                table,
                "| {} | {} | {} | {} | {holds} | {} |",
                row.what, row.yardstick, row.measured, row.limit, row.beside
            );
        }
        table
    }

    /// Writes the report.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = format!(
            "# Benchmark report\n\nMachine: {}.\n\nCommands: {}.\n\nCost is the CPU time (user + system) of all \
             server processes per request; the load generator shares the machine's cores, so throughput and p99 \
             stand beside it only to help judge. [What each row measures](README.md). Written by `make bench`; do not edit.\n\n{}",
            self.machine,
            self.commands,
            self.table()
        );
        Ok(fs::write(path, text)?)
    }
}

/// The median; zero of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn output(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}
