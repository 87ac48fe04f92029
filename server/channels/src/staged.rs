//! A value that is replaced in every worker of a server at one instant.
//!
//! Its owner stages the next value beside the current one; which of them is in force is decided by one word
//! of memory that the workers share, so that all of them change over with one write, whoever makes it. Reading
//! costs one load more than an [`ArcSwap`]; the shared word is looked at only while something is staged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

/// A current value, and perhaps the next. One thread stages and settles, any number read.
#[derive(Debug)]
pub struct Staged<T> {
    current: ArcSwap<T>,
    next: ArcSwapOption<Next<T>>,
    /// Spares readers `next` while there is none.
    is_staged: AtomicBool,
    /// The mark of the version in force, in memory that others share.
    in_force: Option<&'static AtomicU64>,
}

#[derive(Debug)]
struct Next<T> {
    mark: u64,
    value: Arc<T>,
}

impl<T> Staged<T> {
    /// Serves `value`. `in_force` is the word that decides when a staged value takes over; without one it
    /// does so when it is settled.
    #[must_use]
    pub fn new(value: T, in_force: Option<&'static AtomicU64>) -> Self {
        Self {
            current: ArcSwap::from_pointee(value),
            next: ArcSwapOption::empty(),
            is_staged: AtomicBool::new(false),
            in_force,
        }
    }

    /// The value in force now.
    pub fn load(&self) -> Guard<Arc<T>> {
        if self.is_staged.load(Ordering::Acquire)
            && let Some(next) = self.next_in_force()
        {
            return Guard::from_inner(next);
        }
        self.current.load()
    }

    /// The value in force now, to keep.
    pub fn load_full(&self) -> Arc<T> {
        Guard::into_inner(self.load())
    }

    /// Serves `value` at once, in this worker alone. What was staged is forgotten.
    pub fn store(&self, value: Arc<T>) {
        self.current.store(value);
        self.clear();
    }

    /// Makes `value` the next: it takes over when the shared word becomes `mark`. What was staged before is
    /// forgotten, unless it took over already.
    pub fn stage(&self, value: Arc<T>, mark: u64) {
        if let Some(next) = self.next_in_force() {
            self.current.store(next);
        }
        self.next.store(Some(Arc::new(Next { mark, value })));
        self.is_staged.store(true, Ordering::Release);
    }

    /// Makes what is staged the current value, whatever the shared word says.
    pub fn settle(&self) {
        if let Some(next) = self.next.load_full() {
            self.current.store(Arc::clone(&next.value));
        }
        self.clear();
    }

    fn clear(&self) {
        self.is_staged.store(false, Ordering::Release);
        self.next.store(None);
    }

    #[cold]
    fn next_in_force(&self) -> Option<Arc<T>> {
        let word = self.in_force?;
        let next = self.next.load();
        let next = next.as_ref()?;
        (word.load(Ordering::SeqCst) == next.mark).then(|| Arc::clone(&next.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word() -> &'static AtomicU64 {
        Box::leak(Box::new(AtomicU64::new(0)))
    }

    #[test]
    fn a_staged_value_takes_over_in_all_workers_with_one_write() {
        let word = word();
        let workers = [Staged::new("old", Some(word)), Staged::new("old", Some(word))];
        for worker in &workers {
            worker.stage(Arc::new("new"), 7);
            assert_eq!(**worker.load(), "old");
        }
        word.store(7, Ordering::SeqCst);
        assert!(workers.iter().all(|worker| **worker.load() == "new"));
        workers[0].settle();
        word.store(8, Ordering::SeqCst);
        assert_eq!(**workers[0].load(), "new", "a settled value needs the word no more");
        assert_eq!(**workers[1].load(), "old", "a version of others is none of ours");
    }

    #[test]
    fn a_value_in_force_outlives_the_staging_of_the_one_after_it() {
        let word = word();
        let worker = Staged::new("first", Some(word));
        worker.stage(Arc::new("second"), 2);
        word.store(2, Ordering::SeqCst);
        worker.stage(Arc::new("third"), 3);
        assert_eq!(**worker.load(), "second");
        worker.stage(Arc::new("fourth"), 4);
        word.store(4, Ordering::SeqCst);
        assert_eq!(*worker.load_full(), "fourth");
    }

    #[test]
    fn a_value_that_is_stored_forgets_what_was_staged() {
        let worker = Staged::new("old", Some(word()));
        worker.stage(Arc::new("never"), 5);
        worker.store(Arc::new("now"));
        worker.settle();
        assert_eq!(**worker.load(), "now");
    }
}
