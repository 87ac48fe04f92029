//! Rate limits: so many requests in so much time, counted by something.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One rate limit. Units flow back evenly (generic cell rate algorithm), so `limit` is also the burst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateRule {
    /// How many requests.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub limit: u32,
    /// In how much time.
    pub per: RatePeriod,
    /// Counted by what; everything together by default.
    #[serde(default, skip_serializing_if = "RateKey::is_all")]
    pub by: RateKey,
}

/// The time a limit applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RatePeriod {
    /// One second.
    Second,
    /// Sixty seconds.
    Minute,
    /// An hour.
    Hour,
    /// 24 hours.
    Day,
}

impl RatePeriod {
    /// The period's length.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        })
    }
}

/// What a limit counts by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateKey {
    /// All requests of the channel, or of the security definition, together.
    #[default]
    All,
    /// Each client address for itself (IPv6: each /64).
    Address,
}

impl RateKey {
    fn is_all(&self) -> bool {
        *self == Self::All
    }
}
