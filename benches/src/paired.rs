//! What a request costs, measured in turn at the server and at its yardstick.

use anyhow::{Result, ensure};
use crosstie_test_support::wrk::Report;

use crate::load::{failures, milliseconds};
use crate::processes::cpu_time_of_trees;
use crate::report::{NO_LIMIT, Row, median};

/// One run of a load.
pub(crate) struct Run {
    /// CPU microseconds of all processes per request.
    pub cost: f64,
    /// Requests a second.
    pub rate: f64,
    /// The 99th percentile of latency in milliseconds, where it was measured.
    pub p99: Option<f64>,
    /// Requests, all of them answered.
    pub requests: u64,
}

impl Run {
    /// Runs `load` and charges it to the processes below `roots`, the roots included.
    ///
    /// # Errors
    /// The load failed, or a request did.
    pub(crate) fn of(roots: &[i32], load: impl FnOnce() -> Result<Report>) -> Result<Self> {
        let before = cpu_time_of_trees(roots);
        let report = load()?;
        let spent = cpu_time_of_trees(roots).saturating_sub(before);
        ensure!(failures(&report) == 0, "{} requests failed: {}", failures(&report), report.text);
        ensure!(report.requests > 0, "no request was answered: {}", report.text);
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
        let cost = spent.as_secs_f64() * 1e6 / report.requests as f64;
        let p99 = Some(milliseconds(report.p99()));
        Ok(Self { cost, rate: report.per_second, p99, requests: report.requests })
    }
}

/// Runs in pairs.
#[derive(Default)]
pub(crate) struct Pairs {
    ours: Vec<Run>,
    theirs: Vec<Run>,
}

impl Pairs {
    /// `rounds` pairs: the yardstick first each time.
    ///
    /// # Errors
    /// A run failed.
    pub(crate) fn of(
        rounds: usize,
        mut theirs: impl FnMut() -> Result<Run>,
        mut ours: impl FnMut() -> Result<Run>,
    ) -> Result<Self> {
        let mut pairs = Self::default();
        for _ in 0..rounds {
            pairs.theirs.push(theirs()?);
            pairs.ours.push(ours()?);
        }
        Ok(pairs)
    }

    /// The median of what a request costs in terms of the yardstick's.
    pub(crate) fn ratio(&self) -> f64 {
        median(self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours.cost / theirs.cost).collect())
    }

    /// The median of our requests a second.
    pub(crate) fn rate(&self) -> f64 {
        of(&self.ours, |run| run.rate)
    }

    /// How many requests were answered by us.
    pub(crate) fn answered(&self) -> u64 {
        self.ours.iter().map(|run| run.requests).sum()
    }

    /// The row of these pairs; without a limit it is there to be read.
    pub(crate) fn row(&self, what: &str, yardstick: &str, limit: Option<f64>) -> Row {
        let ratio = self.ratio();
        Row {
            what: format!("{what}: cost"),
            yardstick: yardstick.into(),
            measured: format!("{ratio:.2} ×"),
            limit: limit.map_or(NO_LIMIT.into(), |limit| format!("{limit} ×")),
            holds: limit.is_none_or(|limit| ratio <= limit),
            beside: self.beside(),
        }
    }

    fn beside(&self) -> String {
        let (ours, theirs) = (&self.ours, &self.theirs);
        let mut told = format!(
            "{:.1} µs against {:.1} µs; {:.0}/s against {:.0}/s",
            of(ours, |run| run.cost),
            of(theirs, |run| run.cost),
            of(ours, |run| run.rate),
            of(theirs, |run| run.rate),
        );
        let p99 = |runs: &[Run]| median(runs.iter().filter_map(|run| run.p99).collect());
        if ours.iter().all(|run| run.p99.is_some()) {
            told += &format!("; p99 {:.2} ms against {:.2} ms", p99(ours), p99(theirs));
        }
        told
    }
}

fn of(runs: &[Run], figure: fn(&Run) -> f64) -> f64 {
    median(runs.iter().map(figure).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_when_the_median_of_the_ratios_does() {
        let run = |cost| Run { cost, rate: 10.0, p99: None, requests: 7 };
        let (mut theirs, mut ours) = ([2.0, 2.0, 4.0].into_iter(), [5.0, 2.0, 6.0].into_iter());
        let next = |costs: &mut dyn Iterator<Item = f64>| Ok(run(costs.next().unwrap()));
        let pairs = Pairs::of(3, || next(&mut theirs), || next(&mut ours)).unwrap();
        assert!((pairs.ratio() - 1.5).abs() < 1e-9);
        assert_eq!(pairs.answered(), 21);
        assert!(pairs.row("it", "that", Some(1.5)).holds);
        assert!(!pairs.row("it", "that", Some(1.4)).holds);
        let read = pairs.row("it", "that", None);
        assert_eq!((read.holds, read.limit.as_str()), (true, NO_LIMIT));
        assert_eq!(read.beside, "5.0 µs against 2.0 µs; 10/s against 10/s");
    }
}
