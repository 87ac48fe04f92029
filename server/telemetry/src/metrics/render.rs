//! Cells and gauges to Prometheus text (exposition formats, text format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::families::{BUCKETS, FAMILIES, HISTOGRAMS, MetricKind, key};
use super::process::{self, ObservedProcess};

/// A family of figures that go up and down, read when somebody asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// Its name.
    pub name: &'static str,
    /// What it says, for a person.
    pub help: &'static str,
    /// The figures.
    pub samples: Vec<Sample>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Labels and their values.
    pub labels: Vec<(&'static str, String)>,
    /// The figure.
    pub value: f64,
}

impl Gauge {
    /// A gauge with one figure and no labels.
    #[must_use]
    pub fn single(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, samples: vec![Sample { labels: Vec::new(), value }] }
    }
}

pub(super) fn render(cells: Vec<(String, u64)>, gauges: &[Gauge], processes: &[ObservedProcess]) -> String {
    // By family, and within it by labels: two renderings of the same figures are equal.
    let mut families: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (key, value) in cells {
        let name = key.split('{').next().unwrap_or_default();
        let histogram = HISTOGRAMS.iter().find(|(_, bucket, sum)| name == *bucket || name == *sum);
        let family = histogram.map_or(name, |(family, ..)| family.name);
        // What the table reserved for channels without room is no news until it is used.
        if value == 0 && key.contains("channel=\"_other\"") {
            continue;
        }
        families.entry(family.to_owned()).or_default().insert(key, value);
    }
    let mut out = String::with_capacity(16 * 1024);
    for (name, samples) in &families {
        let known = FAMILIES.iter().find(|family| family.name == name);
        let kind = known.map_or(MetricKind::Counter, |family| family.kind);
        head(name, known.map_or("", |family| family.help), kind, &mut out);
        if kind == MetricKind::Histogram {
            histogram(name, samples, &mut out);
        } else {
            for (key, value) in samples {
                let _ = writeln!(out, "{key} {value}");
            }
        }
    }
    for gauge in gauges.iter().chain(&build_info()) {
        render_gauge(gauge, MetricKind::Gauge, &mut out);
    }
    for (family, kind) in process::families(processes) {
        render_gauge(&family, kind, &mut out);
    }
    out
}

fn head(name: &str, help: &str, kind: MetricKind, out: &mut String) {
    if !help.is_empty() {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(out, "# HELP {name} {help}");
    }
    let _ = writeln!(out, "# TYPE {name} {}", kind.as_str());
}

fn render_gauge(gauge: &Gauge, kind: MetricKind, out: &mut String) {
    if gauge.samples.is_empty() {
        return;
    }
    head(gauge.name, gauge.help, kind, out);
    for sample in &gauge.samples {
        let labels: Vec<_> = sample.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let _ = writeln!(out, "{} {}", key(gauge.name, &labels), number(sample.value));
    }
}

/// Cells count each bucket by itself; the format wants each to include those before it, all buckets to be
/// there, and a count.
fn histogram(name: &str, samples: &BTreeMap<String, u64>, out: &mut String) {
    let mut series: BTreeMap<&str, (Vec<u64>, u64)> = BTreeMap::new();
    for (key, value) in samples {
        let Some(labels) = key.split_once('{').and_then(|(_, rest)| rest.strip_suffix('}')) else { continue };
        if HISTOGRAMS.iter().any(|(_, _, sum)| key.starts_with(sum)) {
            series.entry(labels).or_insert_with(empty).1 = *value;
        } else if let Some((labels, le)) = labels.rsplit_once(",le=\"") {
            let le = le.trim_end_matches('"');
            let index = BUCKETS.iter().position(|(_, label)| *label == le);
            let counts = &mut series.entry(labels).or_insert_with(empty).0;
            if let Some(count) = index.and_then(|index| counts.get_mut(index)) {
                *count = *value;
            }
        }
    }
    for (labels, (counts, micros)) in series {
        let mut total = 0;
        for (count, (_, le)) in counts.iter().zip(BUCKETS) {
            total += count;
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{le}\"}} {total}");
        }
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}.{:06}", micros / 1_000_000, micros % 1_000_000);
        let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
    }
}

fn empty() -> (Vec<u64>, u64) {
    (vec![0; BUCKETS.len()], 0)
}

fn build_info() -> [Gauge; 1] {
    let labels = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    [Gauge {
        name: "crosstie_build_info",
        help: "The version that runs; always 1.",
        samples: vec![Sample { labels, value: 1.0 }],
    }]
}

/// Go's `ParseFloat` forms, as the format demands.
fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned()
    } else {
        value.to_string()
    }
}
