//! Figures about processes, from `/proc` (proc(5)), under the names Prometheus client libraries use.

use std::path::PathBuf;

use super::families::MetricKind;
use super::render::{Gauge, Sample};

/// Clock ticks per second in `/proc/PID/stat`: fixed at 100 for user space on every Linux platform
/// (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A process of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedProcess {
    /// Its label: `supervisor`, `worker 1` …
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

/// What `/proc` says about one process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Figures {
    cpu_seconds: f64,
    start_seconds: f64,
    threads: f64,
    resident_bytes: f64,
    open_files: f64,
}

/// One family per figure. A process that is gone has no samples.
pub(super) fn families(processes: &[ObservedProcess]) -> Vec<(Gauge, MetricKind)> {
    let boot = boot_time().unwrap_or_default();
    let read: Vec<_> = processes
        .iter()
        .filter_map(|process| Some((process.name.as_str(), figures(process.pid, boot)?)))
        .collect();
    let family = |name, help, kind, figure: fn(&Figures) -> f64| {
        let sample = |(name, figures): &(&str, Figures)| Sample {
            labels: vec![("process", (*name).to_owned())],
            value: figure(figures),
        };
        (Gauge { name, help, samples: read.iter().map(sample).collect() }, kind)
    };
    let (counter, gauge) = (MetricKind::Counter, MetricKind::Gauge);
    vec![
        family("process_cpu_seconds_total", "User and system time spent.", counter, |f| f.cpu_seconds),
        family("process_open_fds", "Open file descriptors.", gauge, |f| f.open_files),
        family("process_resident_memory_bytes", "Resident memory.", gauge, |f| f.resident_bytes),
        family("process_start_time_seconds", "Start, as Unix time.", gauge, |f| f.start_seconds),
        family("process_threads", "Threads.", gauge, |f| f.threads),
    ]
}

fn figures(pid: u32, boot: f64) -> Option<Figures> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let stat = std::fs::read_to_string(directory.join("stat")).ok()?;
    let status = std::fs::read_to_string(directory.join("status")).ok()?;
    let open_files = std::fs::read_dir(directory.join("fd")).map(Iterator::count).unwrap_or_default();
    let mut figures = parse_stat(&stat, boot)?;
    figures.resident_bytes = kibibytes(&status, "VmRSS:").unwrap_or_default() * 1024.0;
    figures.open_files = u32::try_from(open_files).map_or(f64::INFINITY, f64::from);
    Some(figures)
}

/// The command's name stands in parentheses and may hold anything, so fields are counted from the last one.
fn parse_stat(stat: &str, boot: f64) -> Option<Figures> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // proc(5) counts from 1 and the state, its field 3, is the first after the name.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Figures {
        cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
        threads: field(20)?,
        start_seconds: boot + field(22)? / TICKS_PER_SECOND,
        ..Figures::default()
    })
}

fn kibibytes(status: &str, name: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// When the system started, as Unix time in seconds.
fn boot_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_confuses_nobody() {
        let stat = "17 (evil) name) S 1 17 17 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 1000 1 2 3";
        let figures = parse_stat(stat, 5.0).unwrap();
        assert_eq!((figures.cpu_seconds, figures.threads, figures.start_seconds), (3.0, 7.0, 15.0));
        assert_eq!(parse_stat("garbage", 0.0), None);
    }

    #[test]
    fn this_process_has_figures() {
        let figures = figures(std::process::id(), boot_time().unwrap()).unwrap();
        assert!(figures.resident_bytes > 1_000_000.0 && figures.open_files >= 3.0 && figures.threads >= 1.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(figures.start_seconds > now - 3600.0 && figures.start_seconds < now + 5.0);
    }

    #[test]
    fn a_process_that_is_gone_has_none() {
        assert_eq!(figures(u32::MAX, 0.0), None);
    }
}
