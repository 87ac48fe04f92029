//! Brute force against passwords and tokens: so many failed attempts per user name and per address.
//!
//! Sans-I/O: takes `now`. A guess at a password is charged before it is checked and given back when it
//! succeeds, so a burst of parallel guesses cannot run ahead of its count. In memory only and per server;
//! bounded.

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

/// Whom an attempt is charged to: an address, and the user name it was made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Debtor {
    address: Key,
    user: Option<Key>,
}

impl Debtor {
    /// An attempt from `address`, on `user` when a name was given.
    pub(crate) fn new(address: IpAddr, user: Option<&str>) -> Self {
        let user = user.map(|name| Key::User(Digest::of(name.as_bytes())));
        Self { address: address_key(address), user }
    }

    fn keys(self) -> impl Iterator<Item = (Key, u32)> {
        [(Some(self.address), PER_ADDRESS), (self.user, PER_USER)]
            .into_iter()
            .filter_map(|(key, limit)| key.map(|key| (key, limit)))
    }
}

impl Attempts {
    /// Whether `debtor` may make an attempt now.
    ///
    /// # Errors
    /// How long to wait when an allowance is used up.
    pub(crate) fn check(&self, debtor: Debtor, now: Instant) -> Result<(), Duration> {
        debtor.keys().try_for_each(|(key, limit)| self.room(key, limit, now))
    }

    /// Charges one attempt.
    ///
    /// # Errors
    /// As for [`Attempts::check`]; nothing is charged then.
    pub(crate) fn charge(&mut self, debtor: Debtor, now: Instant) -> Result<(), Duration> {
        self.check(debtor, now)?;
        self.make_space(now);
        for (key, limit) in debtor.keys() {
            let whole_at = self.whole_at.entry(key).or_insert(now);
            *whole_at = (*whole_at).max(now) + PERIOD / limit;
        }
        Ok(())
    }

    /// Gives back what a successful attempt was charged.
    pub(crate) fn give_back(&mut self, debtor: Debtor) {
        for (key, limit) in debtor.keys() {
            if let Some(whole_at) = self.whole_at.get_mut(&key) {
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

    fn from(last: u8, user: Option<&str>) -> Debtor {
        Debtor::new(IpAddr::from([192, 0, 2, last]), user)
    }

    #[test]
    fn an_address_that_keeps_failing_has_to_wait() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..PER_ADDRESS {
            attempts.charge(from(1, None), now).unwrap();
        }
        let wait = attempts.charge(from(1, None), now).unwrap_err();
        assert!(wait <= PERIOD / PER_ADDRESS + Duration::from_millis(1), "{wait:?}");
        assert!(attempts.charge(from(2, None), now).is_ok());
        assert!(attempts.charge(from(1, None), now + wait).is_ok());
    }

    #[test]
    fn guesses_on_one_name_from_many_addresses_are_counted_together() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let refused =
            (0..=u8::MAX).filter(|i| attempts.charge(from(*i, Some("admin")), now).is_err()).count();
        assert_eq!(refused, 256 - PER_USER as usize);
        assert!(attempts.charge(from(1, Some("ada")), now).is_ok());
    }

    #[test]
    fn successes_cost_nothing() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..1_000 {
            attempts.charge(from(1, Some("ada")), now).unwrap();
            attempts.give_back(from(1, Some("ada")));
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_debtor() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let one = |host: u16| Debtor::new(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]), None);
        let refused = (0..100).filter(|host| attempts.charge(one(*host), now).is_err()).count();
        assert_eq!(refused, 100 - PER_ADDRESS as usize);
    }

    #[test]
    fn the_memory_of_attempts_is_bounded() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for i in 0..12_000u32 {
            attempts.charge(Debtor::new(IpAddr::from(i.to_be_bytes()), None), now).unwrap();
        }
        assert!(attempts.whole_at.len() <= MAX_ENTRIES);
    }
}
