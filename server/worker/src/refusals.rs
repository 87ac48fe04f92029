//! The audit of refused credentials: a line of the log and a count for each.
//!
//! The line names the definition, the reason, the client and the cid, and never what was presented. Requests
//! without any credentials get none: a client that asks what to send is no incident, and the access log has
//! it. Somebody who guesses as fast as the network allows must not fill the disk nor hold up the reactor, as
//! warnings wait for the log's writer: a worker writes so many lines a second, and the next line after those
//! tells how many it stands for. The counts are exact.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crosstie_channels::ports::RequestRecord;
use crosstie_model::refusal::{RefusalReason, RefusedCredentials};
use crosstie_telemetry::metrics::{Counter, Metrics, counters};

/// What stands for a security definition where a handshake failed: nobody knows what it was for. With its space no
/// definition can have this name.
const HANDSHAKE: &str = "TLS handshake";
/// Lines a worker writes in one second.
const LINES_PER_SECOND: u32 = 100;

/// The audit of one worker.
pub(crate) struct Refusals {
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: Allowance,
    counts: HashMap<(String, RefusalReason), Counter>,
}

impl Refusals {
    /// An audit that counts in `metrics`.
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { metrics, state: Mutex::default() }
    }

    /// Tells of `refused`, which kept the request of `record` out of `channel`.
    pub(crate) fn tell(&self, refused: &RefusedCredentials, channel: &str, record: &RequestRecord<'_>) {
        let Some(untold) = self.count(&refused.definition, refused.reason) else { return };
        tracing::warn!(
            cid = %record.trace.cid,
            client = %record.client,
            channel,
            method = %record.method,
            path = record.path,
            security = &*refused.definition,
            kind = refused.kind,
            reason = refused.reason.as_str(),
            username = refused.username.as_deref(),
            status = record.status,
            untold = (untold > 0).then_some(untold),
            "credentials were refused"
        );
    }

    /// Tells of a certificate that was refused in the handshake, so that there is no request it kept out.
    pub(crate) fn tell_handshake(&self, client: IpAddr, reason: RefusalReason) {
        let Some(untold) = self.count(HANDSHAKE, reason) else { return };
        tracing::warn!(
            client = %client,
            kind = "client_certificate",
            reason = reason.as_str(),
            untold = (untold > 0).then_some(untold),
            "a client's certificate was refused"
        );
    }

    /// Counts a refusal. Gives how many before it were not told, or nothing when this one is not to be.
    fn count(&self, definition: &str, reason: RefusalReason) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { lines, counts } = &mut *state;
        let count = counts.entry((definition.to_owned(), reason)).or_insert_with(|| {
            let labels = [("security", definition), ("reason", reason.as_str())];
            self.metrics.counter(&counters::REFUSED_CREDENTIALS, &labels)
        });
        count.add(1);
        if reason == RefusalReason::Missing {
            return None;
        }
        lines.take(Instant::now())
    }
}

/// How many lines may be written now.
struct Allowance {
    since: Instant,
    written: u32,
    untold: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { since: Instant::now(), written: 0, untold: 0 }
    }
}

impl Allowance {
    /// Takes one line. Gives how many before it were not written, or nothing when this one is not either.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.written = 0;
        }
        if self.written >= LINES_PER_SECOND {
            self.untold += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited_by_the_second_and_what_is_left_out_is_told() {
        let mut lines = Allowance::default();
        let start = lines.since;
        let told: u64 = (0..1_000).filter_map(|_| lines.take(start)).map(|untold| 1 + untold).sum();
        assert_eq!(told, u64::from(LINES_PER_SECOND));
        let later = start + Duration::from_millis(1_001);
        assert_eq!(lines.take(later), Some(1_000 - u64::from(LINES_PER_SECOND)));
        assert_eq!(lines.take(later), Some(0));
    }
}
