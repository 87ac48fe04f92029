//! When a call is tried again: how often, after which pause, and out of which budget.
//!
//! Takes the time from its caller and does no I/O.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crosstie_model::definition::RetryPolicy;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};

/// Repetitions that are allowed without calls to pay for them: where calls are few, a share of them would be
/// none.
const RESERVE: f64 = 10.0;
/// What an unused reserve gains each second.
const REFILL_PER_SECOND: f64 = 1.0;
/// Most repetitions that calls can save up.
const MAX_BALANCE: f64 = 1_000.0;

/// The policy of one outgoing, and its budget.
#[derive(Debug)]
pub(crate) struct Retry {
    max: u32,
    methods: Vec<Method>,
    statuses: Vec<u16>,
    pause: Duration,
    max_pause: Duration,
    /// What one call pays in.
    share: f64,
    budget: Mutex<Budget>,
}

#[derive(Debug)]
struct Budget {
    balance: f64,
    at: Instant,
}

impl Retry {
    pub(crate) fn new(policy: &RetryPolicy, now: Instant) -> Self {
        Self {
            max: policy.max,
            methods: policy.methods.iter().filter_map(|method| method.parse().ok()).collect(),
            statuses: policy.statuses.clone(),
            pause: Duration::from_millis(policy.pause_ms),
            max_pause: Duration::from_millis(policy.max_pause_ms),
            share: f64::from(policy.budget_percent) / 100.0,
            budget: Mutex::new(Budget { balance: RESERVE, at: now }),
        }
    }

    /// Whether a call with this method may be sent twice.
    pub(crate) fn is_repeatable(&self, method: &Method) -> bool {
        self.max > 0 && self.methods.contains(method)
    }

    /// Whether an answer with this status calls for another try.
    pub(crate) fn is_hopeful(&self, status: StatusCode) -> bool {
        self.statuses.contains(&status.as_u16())
    }

    /// A call begins, and pays for repetitions.
    pub(crate) fn begin(&self) {
        if self.max > 0 && self.share > 0.0 {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            budget.balance = (budget.balance + self.share).min(MAX_BALANCE);
        }
    }

    /// The pause before the next try after `tries` of them, if there may be one: the answer's own wish, or one
    /// that doubles. `spread` is a number from 0 to 1 that keeps callers apart.
    pub(crate) fn next(
        &self,
        tries: u32,
        wish: Option<Duration>,
        spread: f64,
        now: Instant,
    ) -> Option<Duration> {
        if tries > self.max || wish.is_some_and(|wish| wish > self.max_pause) {
            return None;
        }
        let doubled = self.pause.saturating_mul(1 << tries.saturating_sub(1).min(20)).min(self.max_pause);
        let pause = wish.unwrap_or_else(|| doubled.mul_f64(0.5 + spread.clamp(0.0, 1.0) / 2.0));
        self.pay(now).then_some(pause)
    }

    fn pay(&self, now: Instant) -> bool {
        if self.share <= 0.0 {
            return false;
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(budget.at).as_secs_f64();
        budget.at = now;
        if budget.balance < RESERVE {
            budget.balance = (budget.balance + passed * REFILL_PER_SECOND).min(RESERVE);
        }
        if budget.balance < 1.0 {
            return false;
        }
        budget.balance -= 1.0;
        true
    }
}

/// How long an answer asks to wait (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// A number from 0 to 1.
pub(crate) fn spread() -> f64 {
    let mut bytes = [0u8; 4];
    // Without randomness callers merely meet again.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn retry(policy: RetryPolicy) -> (Retry, Instant) {
        let now = Instant::now();
        (Retry::new(&policy, now), now)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_tries_end() {
        let (retry, now) =
            retry(RetryPolicy { max: 4, pause_ms: 100, max_pause_ms: 300, ..Default::default() });
        let pauses: Vec<_> =
            (1..=5).map(|tries| retry.next(tries, None, 1.0, now).map(|pause| pause.as_millis())).collect();
        assert_eq!(pauses, [Some(100), Some(200), Some(300), Some(300), None]);
        assert_eq!(retry.next(1, None, 0.0, now), Some(Duration::from_millis(50)));
    }

    #[test]
    fn an_answers_wish_is_obeyed_or_the_answer_is_given() {
        let (retry, now) = retry(RetryPolicy::default());
        assert_eq!(retry.next(1, Some(Duration::from_secs(3)), 0.3, now), Some(Duration::from_secs(3)));
        assert_eq!(retry.next(1, Some(Duration::from_secs(6)), 0.3, now), None);
    }

    #[test]
    fn a_system_that_is_down_gets_a_share_more_and_no_more() {
        let (retry, now) = retry(RetryPolicy { budget_percent: 20, ..Default::default() });
        let mut repeated = 0;
        for _ in 0..1_000 {
            retry.begin();
            repeated += u32::from(retry.next(1, None, 0.5, now).is_some());
        }
        assert!((200..=211).contains(&repeated), "{repeated}");
        let later = now + Duration::from_secs(3);
        let allowed = (0..10).filter(|_| retry.next(1, None, 0.5, later).is_some()).count();
        assert!((3..=4).contains(&allowed), "the reserve comes back: {allowed}");
    }

    #[test]
    fn without_a_budget_nothing_is_repeated() {
        let (retry, now) = retry(RetryPolicy { budget_percent: 0, ..Default::default() });
        assert_eq!(retry.next(1, None, 0.5, now), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            ("Wed, 21 Oct 2026 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2026 07:27:00 GMT", Some(0)),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
