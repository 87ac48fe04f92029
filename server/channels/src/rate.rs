//! Rate limits of a channel and of the security definition it demands, with their response headers.
//!
//! Headers follow draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` lists every rule
//! (`"channel";q=10;w=60`), `RateLimit` shows the one that is nearest its end (`"channel";r=3;t=21`). A
//! refused request also gets Retry-After. Channels without rules pay nothing.
//!
//! Rules are asked in order and each takes its unit at once, so a request refused by a later rule has used
//! up units of the earlier ones: exactness for all rules together would need a lock over all workers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crosstie_model::definition::{RateKey, RateRule};
use crosstie_model::message::Principal;
use crosstie_model::ports::{RateCells, RateDecision};
use crosstie_model::{Failure, FailureKind, Origin};
use http::{HeaderMap, HeaderName, HeaderValue};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The compiled rules of one channel.
#[derive(Debug, Default)]
pub(crate) struct RateLimits {
    rules: Vec<Rule>,
    policy: Option<HeaderValue>,
}

#[derive(Debug)]
struct Rule {
    label: String,
    key: u128,
    limit: u32,
    period: Duration,
    by: RateKey,
}

/// The rate limits of one channel, by whose credentials let a request in.
#[derive(Debug, Default)]
pub(crate) struct EntranceRates {
    /// For requests of channels without security.
    open: RateLimits,
    by_definition: Vec<(Arc<str>, RateLimits)>,
    /// For requests that none of the credentials let in.
    refused: RateLimits,
}

/// What the rules said, for the response's headers.
#[derive(Debug)]
pub(crate) struct RateState {
    policy: HeaderValue,
    state: HeaderValue,
}

impl EntranceRates {
    /// `channel` and `security` are the owners' names with their rules.
    pub(crate) fn new(channel: (&str, &[RateRule]), security: &[(&str, &[RateRule])]) -> Self {
        let of = |owner: &(&str, &[RateRule])| {
            (Arc::from(owner.0), RateLimits::new(channel, std::slice::from_ref(owner)))
        };
        Self {
            open: RateLimits::new(channel, &[]),
            by_definition: security.iter().map(of).collect(),
            refused: RateLimits::new(channel, security),
        }
    }

    /// The limits of requests that come from `principal`.
    pub(crate) fn of(&self, principal: Option<&Principal>) -> &RateLimits {
        let Some(principal) = principal else { return &self.open };
        let own = self.by_definition.iter().find(|(name, _)| *name == principal.definition);
        own.map_or(&self.open, |(_, limits)| limits)
    }

    /// The limits of requests that are refused. Of those only the ones that count by address apply.
    pub(crate) fn of_refused(&self) -> &RateLimits {
        &self.refused
    }
}

impl RateState {
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.policy);
        headers.insert(RATE_LIMIT, self.state);
    }
}

impl RateLimits {
    /// `channel` and `security` are the owners' names with their rules.
    pub(crate) fn new(channel: (&str, &[RateRule]), security: &[(&str, &[RateRule])]) -> Self {
        let mut rules = Vec::new();
        compile(&mut rules, "channel", channel);
        for owner in security {
            compile(&mut rules, "security", *owner);
        }
        let texts: Vec<_> = rules
            .iter()
            .map(|rule| format!("\"{}\";q={};w={}", rule.label, rule.limit, rule.period.as_secs()))
            .collect();
        let policy = (!rules.is_empty()).then(|| HeaderValue::from_str(&texts.join(", ")).ok()).flatten();
        Self { rules, policy }
    }

    /// Takes one unit of every rule.
    ///
    /// # Errors
    /// 429 with Retry-After when a rule has none left.
    pub(crate) fn take(
        &self,
        cells: &dyn RateCells,
        client: IpAddr,
    ) -> (Result<(), Failure>, Option<RateState>) {
        self.take_of(cells, client, |_| true)
    }

    /// As [`RateLimits::take`] for a request whose credentials were wrong: only rules that count by address,
    /// so that guessing is slowed down and nobody can use up what others share.
    pub(crate) fn take_by_address(
        &self,
        cells: &dyn RateCells,
        client: IpAddr,
    ) -> (Result<(), Failure>, Option<RateState>) {
        self.take_of(cells, client, |rule| rule.by == RateKey::Address)
    }

    fn take_of(
        &self,
        cells: &dyn RateCells,
        client: IpAddr,
        applies: impl Fn(&Rule) -> bool,
    ) -> (Result<(), Failure>, Option<RateState>) {
        let mut nearest: Option<(&Rule, RateDecision)> = None;
        for rule in self.rules.iter().filter(|rule| applies(rule)) {
            let decision = cells.take(rule.key_for(client), rule.limit, rule.period);
            let nearer = nearest.as_ref().is_none_or(|(known, other)| {
                // Compares remaining shares of the limits without dividing.
                u64::from(decision.remaining) * u64::from(known.limit)
                    < u64::from(other.remaining) * u64::from(rule.limit)
            });
            if nearer || !decision.allowed {
                nearest = Some((rule, decision));
            }
            if !decision.allowed {
                break;
            }
        }
        let Some((rule, decision)) = nearest else { return (Ok(()), None) };
        let outcome = if decision.allowed { Ok(()) } else { Err(refused(decision.reset)) };
        (outcome, self.state(rule, &decision))
    }

    fn state(&self, rule: &Rule, decision: &RateDecision) -> Option<RateState> {
        let text = format!("\"{}\";r={};t={}", rule.label, decision.remaining, seconds(decision.reset));
        Some(RateState { policy: self.policy.clone()?, state: HeaderValue::from_str(&text).ok()? })
    }
}

fn compile(rules: &mut Vec<Rule>, word: &str, (owner, source): (&str, &[RateRule])) {
    for (index, rule) in source.iter().enumerate() {
        let label = if index == 0 { word.to_owned() } else { format!("{word}{}", index + 1) };
        let key = fnv(fnv(FNV_OFFSET, word.as_bytes()), b":");
        // A rule that changes starts afresh; one that stays keeps its count over redeployments.
        let text = format!("{owner}#{index}:{}/{}", rule.limit, rule.per.duration().as_secs());
        rules.push(Rule {
            label,
            key: fnv(key, text.as_bytes()),
            limit: rule.limit,
            period: rule.per.duration(),
            by: rule.by,
        });
    }
}

impl Rule {
    fn key_for(&self, client: IpAddr) -> u128 {
        match (self.by, client) {
            (RateKey::All, _) => self.key,
            (RateKey::Address, IpAddr::V4(address)) => fnv(self.key, &address.octets()),
            // One customer commonly has a whole /64.
            (RateKey::Address, IpAddr::V6(address)) => {
                fnv(self.key, address.octets().get(..8).unwrap_or_default())
            }
        }
    }
}

fn refused(wait: Duration) -> Failure {
    let mut failure = Failure::new(FailureKind::TooManyRequests, Origin::Client);
    failure.retryable = true;
    failure.retry_after = Some(wait);
    failure
}

/// Whole seconds, rounded up: a client that waits so long finds a unit.
pub(crate) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// FNV-1a of 128 bits: the same in every process, which std's hasher does not promise.
fn fnv(mut hash: u128, bytes: &[u8]) -> u128 {
    for byte in bytes {
        hash = (hash ^ u128::from(*byte)).wrapping_mul(FNV_PRIME);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::definition::RatePeriod;
    use std::collections::HashMap;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Counting(Mutex<HashMap<u128, u32>>);

    impl RateCells for Counting {
        fn take(&self, key: u128, limit: u32, _period: Duration) -> RateDecision {
            let mut used = self.0.lock().unwrap();
            let used = used.entry(key).or_default();
            let allowed = *used < limit;
            *used += u32::from(allowed);
            RateDecision { allowed, remaining: limit - *used, reset: Duration::from_millis(1_200) }
        }
    }

    fn rule(limit: u32, by: RateKey) -> RateRule {
        RateRule { limit, per: RatePeriod::Minute, by }
    }

    fn header(state: Option<RateState>) -> (String, String) {
        let mut headers = HeaderMap::new();
        state.unwrap().write(&mut headers);
        let text = |name| headers[name].to_str().unwrap().to_owned();
        (text("ratelimit-policy"), text("ratelimit"))
    }

    #[test]
    fn the_tightest_rule_is_shown_and_the_first_exhausted_one_refuses() {
        let cells = Counting::default();
        let limits = RateLimits::new(
            ("c", &[rule(10, RateKey::All), rule(3, RateKey::Address)]),
            &[("s", &[rule(2, RateKey::All)])],
        );
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let (outcome, state) = limits.take(&cells, client);
        assert!(outcome.is_ok());
        let (policy, shown) = header(state);
        assert_eq!(policy, "\"channel\";q=10;w=60, \"channel2\";q=3;w=60, \"security\";q=2;w=60");
        assert_eq!(shown, "\"security\";r=1;t=2");
        assert!(limits.take(&cells, client).0.is_ok());
        let (outcome, state) = limits.take(&cells, client);
        let failure = outcome.unwrap_err();
        assert_eq!((failure.kind, failure.retryable), (FailureKind::TooManyRequests, true));
        assert_eq!(seconds(failure.retry_after.unwrap()), 2);
        assert_eq!(header(state).1, "\"security\";r=0;t=2");
    }

    #[test]
    fn addresses_count_apart_and_ipv6_by_network() {
        let cells = Counting::default();
        let limits = RateLimits::new(("c", &[rule(1, RateKey::Address)]), &[]);
        let passes = |text: &str| limits.take(&cells, text.parse().unwrap()).0.is_ok();
        assert!(passes("192.0.2.1") && passes("192.0.2.2") && !passes("192.0.2.1"));
        assert!(passes("2001:db8::1") && !passes("2001:db8::2") && passes("2001:db8:0:1::1"));
    }

    #[test]
    fn wrong_credentials_use_up_only_what_their_address_has() {
        let cells = Counting::default();
        let limits = RateLimits::new(("c", &[rule(1, RateKey::All), rule(1, RateKey::Address)]), &[]);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(limits.take_by_address(&cells, client).0.is_ok());
        assert!(limits.take_by_address(&cells, client).0.is_err());
        assert!(limits.take(&cells, "192.0.2.2".parse().unwrap()).0.is_ok());
    }

    #[test]
    fn each_definition_of_a_group_has_limits_of_its_own_and_guessing_counts_for_all() {
        let cells = Counting::default();
        let rates = EntranceRates::new(
            ("c", &[]),
            &[("a", &[rule(1, RateKey::All), rule(2, RateKey::Address)]), ("b", &[rule(1, RateKey::All)])],
        );
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let take = |definition: &str| {
            let principal = Principal::new(definition, "api_key");
            rates.of(Some(&principal)).take(&cells, client).0.is_ok()
        };
        assert!(take("a") && !take("a") && take("b") && !take("b"));
        assert!(rates.of(None).take(&cells, client).0.is_ok());
        let guesses: Vec<_> =
            (0..2).map(|_| rates.of_refused().take_by_address(&cells, client).0.is_ok()).collect();
        assert_eq!(guesses, [true, false], "one unit was taken by the request that was let in");
    }

    #[test]
    fn no_rules_cost_nothing() {
        let (outcome, state) = RateLimits::default().take(&Counting::default(), "::1".parse().unwrap());
        assert!(outcome.is_ok() && state.is_none());
    }
}
