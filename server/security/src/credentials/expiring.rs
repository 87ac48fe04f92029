//! What was found out and holds for a while: a bounded map whose entries end by themselves.
//!
//! Two generations stand in for an order by use: an entry that is asked for moves to the young one; when that
//! is full, it becomes the old one and what was there is forgotten. Costs one hash lookup, and never more
//! than the capacity in entries.

use std::collections::HashMap;

/// A key: the SHA-256 of what was presented, so that no secret stays in memory and nobody can make keys that
/// collide.
pub(super) type Digest = [u8; 32];

/// See the module.
#[derive(Debug)]
pub(super) struct Expiring<V> {
    young: HashMap<Digest, (i64, V)>,
    old: HashMap<Digest, (i64, V)>,
    generation: usize,
}

impl<V: Clone> Expiring<V> {
    /// A map of at most `capacity` entries; of none when 0.
    pub(super) fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation: capacity.div_ceil(2) }
    }

    /// The value under `key`, if it still holds at `now`, in seconds since 1970.
    pub(super) fn get(&mut self, key: &Digest, now: i64) -> Option<V> {
        if let Some((end, value)) = self.young.get(key) {
            return (*end > now).then(|| value.clone());
        }
        let (end, value) = self.old.remove(key)?;
        if end <= now {
            return None;
        }
        self.insert(*key, value.clone(), end);
        Some(value)
    }

    /// Keeps `value` until `end`.
    pub(super) fn insert(&mut self, key: Digest, value: V, end: i64) {
        if self.generation == 0 {
            return;
        }
        if self.young.len() >= self.generation && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (end, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Digest {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn entries_end_and_are_never_more_than_there_may_be() {
        let mut known = Expiring::new(10);
        known.insert(key(1), "a", 100);
        assert_eq!((known.get(&key(1), 99), known.get(&key(1), 100)), (Some("a"), None));
        for number in 0..1_000 {
            known.insert(key(number), "b", 100);
            assert!(known.young.len() + known.old.len() <= 10);
        }
        assert_eq!(known.get(&key(999), 1), Some("b"));
        assert_eq!(known.get(&key(900), 1), None);
        let mut none = Expiring::new(0);
        none.insert(key(1), "a", 100);
        assert_eq!(none.get(&key(1), 1), None);
    }

    #[test]
    fn what_is_used_stays() {
        let mut known = Expiring::new(10);
        known.insert(key(0), 0, 100);
        for number in 1..1_000 {
            known.insert(key(number), number, 100);
            assert_eq!(known.get(&key(0), 1), Some(0), "after {number} others");
        }
        known.insert(key(0), 7, 100);
        assert_eq!(known.get(&key(0), 1), Some(7));
    }
}
