//! User names and passwords in SOAP messages (WS-Security UsernameToken Profile 1.1).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_keep, keep};
use crate::definition::RateRule;
use crate::secret::SecretRef;

/// How a token carries the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WssPassword {
    /// As it is: for connections that are encrypted.
    Text,
    /// As the digest of nonce, time and password.
    Digest,
}

/// User name and password in the security header of SOAP messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WssUsernameToken {
    /// The user name.
    #[schemars(length(min = 1, max = 255), pattern(r"^\S([^\x00-\x1f\x7f]*\S)?$"))]
    pub username: String,
    /// The password. May be left out of an `apply` document to keep the present one.
    #[serde(default = "keep", skip_serializing_if = "is_keep")]
    pub password: SecretRef,
    /// The forms of the password that channels take; outgoings present the safest of them.
    #[serde(default = "both", skip_serializing_if = "is_both")]
    #[schemars(length(min = 1))]
    pub passwords: BTreeSet<WssPassword>,
    /// Whether a password as text has to come with nonce and time, so that a message counts once. A digest
    /// always has to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_nonce: bool,
    /// How old a message may be, in seconds.
    #[serde(default = "default_max_age", skip_serializing_if = "is_default_max_age")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_age_s: u32,
    /// How far a sender's clock may be ahead, in seconds.
    #[serde(default = "default_max_skew", skip_serializing_if = "is_default_max_skew")]
    #[schemars(range(max = 3_600))]
    pub max_skew_s: u32,
    /// Rate limits of these credentials over all channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limit: Vec<RateRule>,
}

fn both() -> BTreeSet<WssPassword> {
    BTreeSet::from([WssPassword::Text, WssPassword::Digest])
}

fn is_both(passwords: &BTreeSet<WssPassword>) -> bool {
    *passwords == both()
}

fn default_max_age() -> u32 {
    300
}

fn is_default_max_age(seconds: &u32) -> bool {
    *seconds == default_max_age()
}

fn default_max_skew() -> u32 {
    60
}

fn is_default_max_skew(seconds: &u32) -> bool {
    *seconds == default_max_skew()
}
