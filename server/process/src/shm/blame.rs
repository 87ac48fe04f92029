//! Blame slots: which service each handler thread runs, published where the supervisor can read it after
//! the worker is dead.
//!
//! A slot is one word: 0 free, else a bit that says "taken", the subject's position in the table, whether
//! it is being loaded, and a bit that the fault handler sets. Entering and leaving costs one atomic store
//! each; the subject's position is remembered per slot, so a thread that runs the same service again does
//! no look-up.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use crosstie_model::names::{ServiceName, UnitName};
use crosstie_model::ports::{Blame, BlameSlot};

use super::Segment;
use super::keys;
use super::quarantine::{StrikeCause, StrikeOutcome, Subject, service_key, unit_key};
use crate::fault;

const TAKEN: u64 = 1 << 63;
/// Set by the fault handler in the slot of the thread that faulted.
pub(crate) const FAULTED: u64 = 1 << 62;
const LOADING: u64 = 1 << 61;
/// Position in the subject table + 1; 0 while the thread runs no service.
const SUBJECT: u64 = 0xffff_ffff;

/// What the slots of a dead worker said.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct LastWords {
    /// Subjects whose thread took a fault signal.
    pub(crate) faulted: Vec<Subject>,
    /// Units that were being loaded.
    pub(crate) loading: Vec<Subject>,
}

impl Segment {
    /// What the threads of the worker in slot `index` were doing when it died.
    pub(crate) fn last_words(&self, index: u16) -> LastWords {
        let mut words = LastWords::default();
        for slot in self.layout.blame.get(usize::from(index)).into_iter().flatten() {
            let word = slot.load(Ordering::Acquire);
            let Some(subject) = self.subject_of(word) else { continue };
            if word & FAULTED != 0 {
                words.faulted.push(subject);
            } else if word & LOADING != 0 {
                words.loading.push(subject);
            }
        }
        words
    }

    fn subject_of(&self, word: u64) -> Option<Subject> {
        let position = usize::try_from((word & SUBJECT).checked_sub(1)?).ok()?;
        let reference = self.layout.subject_keys.get(position)?.load(Ordering::Acquire);
        Subject::from_key(&self.arena().text(reference)?)
    }

    /// The word's subject part for `key`; 0 (nobody to blame) when the table is full.
    fn subject_word(&self, key: &[u8]) -> u64 {
        keys::find_or_insert(&self.layout.subject_keys, self.arena(), key)
            .map_or(0, |position| position as u64 + 1)
    }

    fn free_slot(&self) -> Option<&'static AtomicU64> {
        let row = self.layout.blame.get(usize::from(self.own?))?;
        row.iter().find(|slot| slot.compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }
}

impl Blame for Segment {
    fn register_thread(&self) -> Box<dyn BlameSlot> {
        let Some(word) = self.free_slot() else {
            // More threads than slots, or no worker at all: such a thread's crash is nobody's.
            return Box::new(Unblamed);
        };
        let guard = fault::watch_thread(word);
        Box::new(Slot { segment: self.handle(), word, last: RefCell::new(None), _guard: guard })
    }

    fn is_quarantined(&self, service: &ServiceName) -> bool {
        self.any_quarantined() && self.key_quarantined(&service_key(service))
    }

    fn thread_lost(&self, service: &ServiceName) {
        if self.strike(&Subject::Service(service.clone()), StrikeCause::LostThread)
            == StrikeOutcome::Quarantined
        {
            tracing::error!(%service, "the service is quarantined: it did not give threads back");
        }
    }
}

/// A registered thread.
struct Slot {
    segment: Segment,
    word: &'static AtomicU64,
    /// What this thread entered last, and its word.
    last: RefCell<Option<(ServiceName, u64)>>,
    _guard: fault::WatchedThread,
}

impl Slot {
    fn service_word(&self, service: &ServiceName) -> u64 {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some((known, word)) if known == service => *word,
            _ => {
                let word = TAKEN | self.segment.subject_word(&service_key(service));
                *last = Some((service.clone(), word));
                word
            }
        }
    }
}

impl BlameSlot for Slot {
    fn enter(&self, service: &ServiceName) -> u64 {
        self.word.swap(self.service_word(service), Ordering::AcqRel)
    }

    fn enter_load(&self, unit: &UnitName) -> u64 {
        let word = TAKEN | LOADING | self.segment.subject_word(&unit_key(unit));
        self.word.swap(word, Ordering::AcqRel)
    }

    fn leave(&self, previous: u64) {
        self.word.store(previous | TAKEN, Ordering::Release);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.word.store(0, Ordering::Release);
    }
}

/// The slot of a thread that cannot be blamed.
struct Unblamed;

impl BlameSlot for Unblamed {
    fn enter(&self, _: &ServiceName) -> u64 {
        0
    }
    fn enter_load(&self, _: &UnitName) -> u64 {
        0
    }
    fn leave(&self, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServiceName {
        ServiceName::new(name).unwrap()
    }

    #[test]
    fn last_words_name_the_faulted_service_and_the_unit_being_loaded() {
        let segment = Segment::create().unwrap().for_worker(3);
        let (calm, faulty, loader) =
            (segment.register_thread(), segment.register_thread(), segment.register_thread());
        calm.enter(&service("calm"));
        faulty.enter(&service("outer"));
        let previous = faulty.enter(&service("inner"));
        loader.enter_load(&UnitName::new("crm").unwrap());
        segment.layout.blame[3][1].fetch_or(FAULTED, Ordering::SeqCst);
        let words = segment.last_words(3);
        assert_eq!(words.faulted, [Subject::Service(service("inner"))]);
        assert_eq!(words.loading, [Subject::Unit(UnitName::new("crm").unwrap())]);
        faulty.leave(previous);
        segment.layout.blame[3][1].fetch_or(FAULTED, Ordering::SeqCst);
        assert_eq!(segment.last_words(3).faulted, [Subject::Service(service("outer"))]);
        segment.clear_worker(3);
        assert_eq!(segment.last_words(3), LastWords::default());
    }

    #[test]
    fn a_thread_that_ends_frees_its_slot() {
        let segment = Segment::create().unwrap().for_worker(0);
        for _ in 0..3 * super::super::layout::THREADS {
            segment.register_thread().enter(&service("s"));
        }
        assert_eq!(segment.layout.blame[0][1].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn threads_beyond_the_slots_run_unblamed() {
        let segment = Segment::create().unwrap().for_worker(0);
        let slots: Vec<_> = (0..super::super::layout::THREADS).map(|_| segment.register_thread()).collect();
        let extra = segment.register_thread();
        assert_eq!(extra.enter(&service("s")), 0);
        drop(slots);
    }

    #[test]
    fn a_damaged_word_blames_nobody() {
        let segment = Segment::create().unwrap();
        segment.layout.blame[5][0].store(u64::MAX, Ordering::Relaxed);
        segment.layout.blame[5][1].store(TAKEN | FAULTED | 77, Ordering::Relaxed);
        assert_eq!(segment.last_words(5), LastWords::default());
    }
}
