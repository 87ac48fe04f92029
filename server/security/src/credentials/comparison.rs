//! Comparing what a caller sent with what is right, in time that depends on neither.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// A value to compare with, kept as its SHA-256: lengths differ without showing, and the value itself does
/// not stay in memory.
pub(super) struct Expected([u8; 32]);

impl Expected {
    pub(super) fn new(value: &[u8]) -> Self {
        Self(Sha256::digest(value).into())
    }

    /// Whether `presented` is the value. Time depends on the length of `presented` alone.
    pub(super) fn matches(&self, presented: &[u8]) -> Choice {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        self.0.ct_eq(&presented)
    }
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expected(…)")
    }
}
