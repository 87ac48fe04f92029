//! Key tables: open addressing over an array of key references, with the text of keys in one shared arena.
//!
//! A key is written into the arena first and published by a single compare-and-swap, so a process killed
//! at any instant leaves a complete entry or none (and at worst a key's worth of unused arena). Entries are
//! never removed; two processes that insert the same key walk the same positions and meet at one entry. A
//! look-up costs a hash of the key and, nearly always, one comparison.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Longest key in bytes; a longer one has no entry.
pub(crate) const MAX_KEY_BYTES: usize = 1_024;

/// How far from its home position a key may lie. Reached only when a table is all but full.
const MAX_PROBES: usize = 512;

const OFFSET_BITS: u32 = 32;
const LENGTH_BITS: u32 = 12;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
const LENGTH_MASK: u64 = (1 << LENGTH_BITS) - 1;

/// The arena that holds the text of keys.
#[derive(Clone, Copy)]
pub(super) struct Arena<'a> {
    pub(super) bytes: &'a [AtomicU8],
    pub(super) used: &'a AtomicU64,
}

impl Arena<'_> {
    /// Stores `key`; `None` when the arena is full.
    fn store(&self, key: &[u8]) -> Option<u64> {
        let length = key.len() as u64;
        if self.used.load(Ordering::Relaxed).checked_add(length)? > self.bytes.len() as u64 {
            return None;
        }
        let offset = self.used.fetch_add(length, Ordering::Relaxed);
        let place = self.slice(offset, length)?;
        for (to, from) in place.iter().zip(key) {
            to.store(*from, Ordering::Relaxed);
        }
        Some(offset)
    }

    /// A stretch of the arena; `None` when a damaged reference points outside it.
    fn slice(&self, offset: u64, length: u64) -> Option<&[AtomicU8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        self.bytes.get(start..end)
    }

    fn holds(&self, reference: u64, key: &[u8]) -> bool {
        let (offset, length) = unpack(reference);
        length == key.len() as u64
            && self.slice(offset, length).is_some_and(|place| {
                place.iter().zip(key).all(|(byte, wanted)| byte.load(Ordering::Relaxed) == *wanted)
            })
    }

    /// The text that `reference` stands for.
    pub(super) fn text(&self, reference: u64) -> Option<Vec<u8>> {
        let (offset, length) = unpack(reference);
        let place = self.slice(offset, length)?;
        Some(place.iter().map(|byte| byte.load(Ordering::Relaxed)).collect())
    }
}

/// Offset and length of a key; the bits above hold part of its hash.
fn unpack(reference: u64) -> (u64, u64) {
    (reference & OFFSET_MASK, (reference >> OFFSET_BITS) & LENGTH_MASK)
}

fn tag(hash: u64) -> u64 {
    hash >> (OFFSET_BITS + LENGTH_BITS) << (OFFSET_BITS + LENGTH_BITS)
}

/// FNV-1a, folded: the same in every process, which std's hasher is not meant to be.
fn hash(key: &[u8]) -> u64 {
    let folded = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    folded ^ (folded >> 29)
}

/// The positions at which `key` may lie, in the order to look.
fn probes(entries: &[AtomicU64], hash: u64) -> impl Iterator<Item = (usize, &AtomicU64)> {
    let size = entries.len().max(1);
    let home = usize::try_from(hash % size as u64).unwrap_or(0);
    (0..MAX_PROBES.min(size)).filter_map(move |step| {
        let position = (home + step) % size;
        entries.get(position).map(|entry| (position, entry))
    })
}

/// The position of `key`, if it has one.
pub(super) fn find(entries: &[AtomicU64], arena: Arena<'_>, key: &[u8]) -> Option<usize> {
    let hash = hash(key);
    for (position, entry) in probes(entries, hash) {
        let reference = entry.load(Ordering::Acquire);
        if reference == 0 {
            return None;
        }
        if tag(reference) == tag(hash) && arena.holds(reference, key) {
            return Some(position);
        }
    }
    None
}

/// The position of `key`, made on first use; `None` when table or arena is full, or the key is empty or too
/// long.
pub(super) fn find_or_insert(entries: &[AtomicU64], arena: Arena<'_>, key: &[u8]) -> Option<usize> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return None;
    }
    let hash = hash(key);
    let mut stored = None;
    for (position, entry) in probes(entries, hash) {
        let mut reference = entry.load(Ordering::Acquire);
        if reference == 0 {
            let fresh = match stored {
                Some(fresh) => fresh,
                None => {
                    let fresh = tag(hash) | ((key.len() as u64) << OFFSET_BITS) | arena.store(key)?;
                    *stored.insert(fresh)
                }
            };
            match entry.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(position),
                Err(winner) => reference = winner,
            }
        }
        if tag(reference) == tag(hash) && arena.holds(reference, key) {
            return Some(position);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    struct Table {
        entries: Vec<AtomicU64>,
        text: Vec<AtomicU8>,
        used: AtomicU64,
    }

    impl Table {
        fn new(entries: usize, text: usize) -> Self {
            Self {
                entries: (0..entries).map(|_| AtomicU64::new(0)).collect(),
                text: (0..text).map(|_| AtomicU8::new(0)).collect(),
                used: AtomicU64::new(0),
            }
        }
        fn arena(&self) -> Arena<'_> {
            Arena { bytes: &self.text, used: &self.used }
        }
        fn insert(&self, key: &[u8]) -> Option<usize> {
            find_or_insert(&self.entries, self.arena(), key)
        }
    }

    #[test]
    fn a_full_table_and_a_full_arena_refuse_new_keys_and_keep_old_ones() {
        let table = Table::new(4, 1000);
        let places: Vec<_> = (0..4u8).map(|n| table.insert(&[n + 1]).unwrap()).collect();
        assert_eq!(table.insert(b"fifth"), None);
        assert_eq!(table.insert(&[3]), Some(places[2]));
        let table = Table::new(100, 10);
        assert!(table.insert(b"12345678").is_some());
        assert_eq!(table.insert(b"123"), None);
        assert!(table.insert(b"12").is_some());
        assert_eq!(table.insert(b""), None);
        assert_eq!(table.insert(&[1; MAX_KEY_BYTES + 1]), None);
    }

    #[test]
    fn a_damaged_reference_reads_as_no_key() {
        let table = Table::new(4, 100);
        for entry in &table.entries {
            entry.store(u64::MAX, Ordering::Relaxed);
        }
        assert_eq!(find(&table.entries, table.arena(), b"key"), None);
        assert_eq!(table.arena().text(u64::MAX), None);
    }

    #[test]
    fn threads_that_race_to_insert_agree_on_every_position() {
        let table = Arc::new(Table::new(2048, 100_000));
        let racers: Vec<_> = (0..4)
            .map(|_| {
                let table = Arc::clone(&table);
                std::thread::spawn(move || {
                    (0..1000).map(|n| table.insert(format!("key {n}").as_bytes())).collect::<Vec<_>>()
                })
            })
            .collect();
        let places: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
        assert!(places.iter().all(|found| *found == places[0] && found.iter().all(Option::is_some)));
        let taken = table.entries.iter().filter(|entry| entry.load(Ordering::Relaxed) != 0).count();
        assert_eq!(taken, 1000);
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_hash_map(
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..6), 1..200),
        ) {
            let table = Table::new(64, 400);
            let mut model: HashMap<Vec<u8>, usize> = HashMap::new();
            for key in keys {
                let known = find(&table.entries, table.arena(), &key);
                prop_assert_eq!(known, model.get(&key).copied());
                if let Some(position) = table.insert(&key) {
                    prop_assert_eq!(*model.entry(key).or_insert(position), position);
                }
            }
            for (key, position) in &model {
                let reference = table.entries[*position].load(Ordering::Relaxed);
                prop_assert_eq!(table.arena().text(reference), Some(key.clone()));
            }
        }
    }
}
