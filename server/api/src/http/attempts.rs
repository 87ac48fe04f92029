//! Brute force against passwords and tokens: so many failed attempts per user name and per address.
//!
//! Sans-I/O: takes `now`. An attempt is charged before it is checked and given back when it succeeds, so a
//! burst of parallel guesses cannot run ahead of its count. In memory only and per server; bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crosstie_model::Digest;

/// Failed attempts one address may make in a row.
pub(crate) const PER_ADDRESS: u32 = 20;
/// Failed attempts on one user name, from everywhere together.
pub(crate) const PER_USER: u32 = 60;
/// The time in which a used up allowance flows back.
pub(crate) const PERIOD: Duration = Duration::from_secs(60);
/// Most names and addresses remembered; the ones closest to being whole again go first.
const MAX_ENTRIES: usize = 10_000;

/// What an attempt is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Address([u8; 8]),
    /// A digest: a name is an outsider's text of any length.
    User(Digest),
}

/// The failed attempts of the last minute, as theoretical arrival times (GCRA): when each allowance will be
/// whole again.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    whole_at: HashMap<Key, Instant>,
}

/// A charged attempt, to be given back when it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Charge {
    address: Key,
    user: Option<Key>,
}

impl Attempts {
    /// Charges one attempt from `address`, on `user` when a name was given.
    ///
    /// # Errors
    /// How long to wait when an allowance is used up; nothing is charged then.
    pub(crate) fn charge(
        &mut self,
        address: IpAddr,
        user: Option<&str>,
        now: Instant,
    ) -> Result<Charge, Duration> {
        let charge =
            Charge { address: address_key(address), user: user.map(|name| Key::User(Digest::of(name.as_bytes()))) };
        self.room(charge.address, PER_ADDRESS, now)?;
        if let Some(key) = charge.user {
            self.room(key, PER_USER, now)?;
        }
        self.make_space(now);
        self.add(charge.address, PER_ADDRESS, now);
        if let Some(key) = charge.user {
            self.add(key, PER_USER, now);
        }
        Ok(charge)
    }

    /// Gives back what a successful attempt was charged.
    pub(crate) fn give_back(&mut self, charge: Charge) {
        for (key, limit) in [(Some(charge.address), PER_ADDRESS), (charge.user, PER_USER)] {
            if let Some(whole_at) = key.and_then(|key| self.whole_at.get_mut(&key)) {
                *whole_at = whole_at.checked_sub(PERIOD / limit).unwrap_or(*whole_at);
            }
        }
    }

    fn room(&self, key: Key, limit: u32, now: Instant) -> Result<(), Duration> {
        let Some(whole_at) = self.whole_at.get(&key) else { return Ok(()) };
        let owed = whole_at.saturating_duration_since(now) + PERIOD / limit;
        // Integer division loses a few nanoseconds per unit; they must not cost the last one.
        let slack = Duration::from_micros(1);
        if owed > PERIOD + slack { Err(owed - PERIOD) } else { Ok(()) }
    }

    fn add(&mut self, key: Key, limit: u32, now: Instant) {
        let whole_at = self.whole_at.entry(key).or_insert(now);
        *whole_at = (*whole_at).max(now) + PERIOD / limit;
    }

    fn make_space(&mut self, now: Instant) {
        if self.whole_at.len() + 2 <= MAX_ENTRIES {
            return;
        }
        self.whole_at.retain(|_, whole_at| *whole_at > now);
        while self.whole_at.len() + 2 > MAX_ENTRIES {
            let Some(first) = self.whole_at.iter().min_by_key(|(_, at)| **at).map(|(key, _)| *key) else {
                return;
            };
            self.whole_at.remove(&first);
        }
    }
}

/// One key per IPv4 address and per IPv6 /64, which is what one host is usually given.
fn address_key(address: IpAddr) -> Key {
    let mut key = [0; 8];
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            key = [0, 0, 0xff, 0xff, a, b, c, d];
        }
        IpAddr::V6(v6) => {
            for (slot, byte) in key.iter_mut().zip(v6.octets()) {
                *slot = byte;
            }
        }
    }
    Key::Address(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_address_that_keeps_failing_has_to_wait() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..PER_ADDRESS {
            attempts.charge(address(1), None, now).unwrap();
        }
        let wait = attempts.charge(address(1), None, now).unwrap_err();
        assert!(wait <= PERIOD / PER_ADDRESS + Duration::from_millis(1), "{wait:?}");
        assert!(attempts.charge(address(2), None, now).is_ok());
        assert!(attempts.charge(address(1), None, now + wait).is_ok());
    }

    #[test]
    fn guesses_on_one_name_from_many_addresses_are_counted_together() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let refused = (0..=u8::MAX).filter(|i| attempts.charge(address(*i), Some("admin"), now).is_err());
        assert_eq!(refused.count(), 256 - PER_USER as usize);
        assert!(attempts.charge(address(1), Some("ada"), now).is_ok());
    }

    #[test]
    fn successes_cost_nothing() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..1_000 {
            let charge = attempts.charge(address(1), Some("ada"), now).unwrap();
            attempts.give_back(charge);
        }
    }

    #[test]
    fn the_memory_of_attempts_is_bounded() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for i in 0..20_000u32 {
            let address = IpAddr::from(i.to_be_bytes());
            attempts.charge(address, None, now).unwrap();
        }
        assert!(attempts.whole_at.len() <= MAX_ENTRIES);
    }
}
