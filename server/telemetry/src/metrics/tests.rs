//! Metrics as a whole: what is counted, rendered and read back by a parser of the text format.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::test_cells::TestCells;
use super::*;

type Labels = BTreeMap<String, String>;

/// What a Prometheus server would read.
#[derive(Debug, Default)]
struct Scraped {
    kinds: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Scraped {
    /// Strict: any line that the format does not allow fails the test.
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'));
        let mut scraped = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let again = scraped.kinds.insert(name.to_owned(), kind.to_owned());
                assert!(again.is_none(), "{name} has two TYPE lines");
            } else if !line.starts_with("# HELP ") {
                scraped.samples.push(sample(line));
            }
        }
        scraped
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.samples.iter().find(|(n, l, _)| n == name && *l == labels).map(|(_, _, value)| *value)
    }

    fn total(&self, name: &str) -> f64 {
        self.samples.iter().filter(|(n, ..)| n == name).map(|(.., value)| value).sum()
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    while let Some(inner) = rest.strip_prefix(['{', ',']) {
        let (label, quoted) = inner.split_once("=\"").unwrap();
        let (mut value, mut escaped, mut length) = (String::new(), false, None);
        for (index, c) in quoted.char_indices() {
            match c {
                'n' if escaped => value.push('\n'),
                c if escaped => value.push(c),
                '\\' => {}
                '"' => {
                    length = Some(index);
                    break;
                }
                c => value.push(c),
            }
            escaped = c == '\\' && !escaped;
        }
        assert!(labels.insert(label.to_owned(), value).is_none());
        rest = &quoted[length.unwrap() + 1..];
        rest = rest.strip_prefix('}').unwrap_or(rest);
    }
    (name.to_owned(), labels, rest.trim_start().parse().unwrap())
}

fn metrics() -> Metrics {
    Metrics::new(Arc::new(TestCells::new(100_000)))
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn requests_are_counted_by_code_and_their_times_by_bucket() {
    let metrics = metrics();
    let channel = metrics.channel("crm", "crm.get");
    for (status, time) in [(200, 1), (200, 3), (200, 40), (404, 1), (299, 100_000), (0, 0)] {
        channel.request(status, millis(time), 10, 20);
    }
    let scraped = Scraped::parse(&metrics.render(&[], &[]));
    let labels = [("channel", "crm"), ("service", "crm.get")];
    let with = |name, value| [labels[0], labels[1], (name, value)];
    let requests = |code| scraped.value("crosstie_requests_total", &with("code", code));
    assert_eq!(requests("200"), Some(3.0));
    assert_eq!(requests("404"), Some(1.0));
    assert_eq!(requests("2xx"), Some(1.0));
    assert_eq!(requests("0xx"), Some(1.0));
    let duration = "crosstie_request_duration_seconds";
    assert_eq!(scraped.kinds[duration], "histogram");
    let bucket = |le| scraped.value(&format!("{duration}_bucket"), &with("le", le));
    assert_eq!((bucket("0.0005"), bucket("0.001"), bucket("0.0025")), (Some(1.0), Some(3.0), Some(3.0)));
    assert_eq!((bucket("0.005"), bucket("0.05"), bucket("30")), (Some(4.0), Some(5.0), Some(5.0)));
    assert_eq!(bucket("+Inf"), Some(6.0));
    assert_eq!(scraped.value(&format!("{duration}_count"), &labels), Some(6.0));
    assert_eq!(scraped.value(&format!("{duration}_sum"), &labels), Some(100.045));
    assert_eq!(scraped.value("crosstie_request_body_bytes_total", &labels), Some(60.0));
    assert_eq!(scraped.value("crosstie_response_body_bytes_total", &labels), Some(120.0));
}

#[test]
fn a_new_handle_goes_on_where_an_old_one_stopped() {
    let metrics = metrics();
    metrics.channel("a", "s").request(200, millis(1), 0, 0);
    metrics.channel("a", "s").request(200, millis(1), 0, 0);
    let scraped = Scraped::parse(&metrics.render(&[], &[]));
    assert_eq!(scraped.total("crosstie_requests_total"), 2.0);
}

#[test]
fn when_the_table_is_full_totals_stay_right() {
    let cells = Arc::new(TestCells::new(200));
    let metrics = Metrics::new(Arc::<TestCells>::clone(&cells));
    for number in 0..1000 {
        metrics.channel(&format!("channel-{number}"), "s").request(200, millis(1), 1, 1);
    }
    assert_eq!(cells.len(), 200);
    let scraped = Scraped::parse(&metrics.render(&[], &[]));
    assert_eq!(scraped.total("crosstie_requests_total"), 1000.0);
    assert_eq!(scraped.total("crosstie_request_duration_seconds_count"), 1000.0);
    assert!(
        scraped.samples.iter().any(|(_, labels, _)| labels.get("channel").is_some_and(|c| c == "_other"))
    );
}

#[test]
fn a_service_that_makes_up_status_codes_makes_no_series() {
    let cells = Arc::new(TestCells::new(100_000));
    let metrics = Metrics::new(Arc::<TestCells>::clone(&cells));
    let channel = metrics.channel("a", "s");
    for status in 0..=u16::MAX {
        channel.request(status, millis(1), 0, 0);
    }
    assert!(cells.len() < 150, "{}", cells.len());
    let scraped = Scraped::parse(&metrics.render(&[], &[]));
    assert_eq!(scraped.total("crosstie_requests_total"), 65_536.0);
}

#[test]
fn gauges_and_processes_are_rendered_with_their_kinds() {
    let metrics = metrics();
    let gauge = Gauge {
        name: "crosstie_connections",
        help: "Open connections.\nBy worker.",
        samples: vec![Sample { labels: vec![("worker", "1".into())], value: 3.0 }],
    };
    let rest = [
        Gauge::single("crosstie_infinite", "x", f64::INFINITY),
        Gauge::single("crosstie_nan", "x", f64::NAN),
        Gauge { name: "crosstie_nothing", help: "x", samples: Vec::new() },
    ];
    let gauges: Vec<_> = std::iter::once(gauge).chain(rest).collect();
    let this = ObservedProcess { name: "worker 1".into(), pid: std::process::id() };
    let gone = ObservedProcess { name: "worker 2".into(), pid: u32::MAX };
    metrics.counter(&counters::LOG_DROPPED, &[("log", "access")]).add(7);
    let text = metrics.render(&gauges, &[this, gone]);
    assert!(text.contains("# HELP crosstie_connections Open connections.\\nBy worker.\n"));
    let scraped = Scraped::parse(&text);
    assert_eq!(scraped.value("crosstie_connections", &[("worker", "1")]), Some(3.0));
    assert_eq!(scraped.value("crosstie_log_records_dropped_total", &[("log", "access")]), Some(7.0));
    assert_eq!(scraped.kinds["process_cpu_seconds_total"], "counter");
    assert_eq!(scraped.kinds["process_threads"], "gauge");
    assert!(scraped.value("process_resident_memory_bytes", &[("process", "worker 1")]).unwrap() > 1e6);
    assert!(!text.contains("worker 2") && !text.contains("crosstie_nothing"));
    assert!(text.contains("crosstie_infinite +Inf\n") && text.contains("crosstie_nan NaN\n"));
}

/// Generous, for a busy machine and an unoptimized build: finding the cells anew costs many times as much.
#[test]
fn counting_a_request_only_adds_to_atomics() {
    let metrics = metrics();
    let channel = metrics.channel("crm", "crm.get");
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let started = Instant::now();
        for _ in 0..1000 {
            channel.request(200, millis(1), 10, 20);
        }
        best = best.min(started.elapsed() / 1000);
    }
    println!("{best:?} per request");
    assert!(best < Duration::from_micros(2), "{best:?} per request");
}

proptest! {
    #[test]
    fn any_label_value_is_read_back(value in "\\PC{0,30}|[\\\\\"\n,={}]{0,10}") {
        let metrics = metrics();
        metrics.channel(&value, "s").request(200, millis(1), 0, 0);
        metrics.counter(&counters::DEPLOYMENTS, &[("outcome", &value)]).add(1);
        let scraped = Scraped::parse(&metrics.render(&[], &[]));
        prop_assert_eq!(scraped.value("crosstie_deployments_total", &[("outcome", &value)]), Some(1.0));
        let labels = [("channel", value.as_str()), ("service", "s")];
        prop_assert_eq!(scraped.value("crosstie_request_duration_seconds_count", &labels), Some(1.0));
    }
}
