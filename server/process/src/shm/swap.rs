//! The barrier at which the workers of a server change over to a new version together.
//!
//! A worker that has a version ready says so in its slot and waits. When the last one has said it, one write
//! to a word that all of them read puts the version in force everywhere at one instant. Nobody is asked to do
//! anything, so nobody has to be alive for it: a dead worker's slot is cleared by the supervisor, and one that
//! hangs is waited for once, until the patience of the others ends; after that it lags behind what is in force
//! and is not counted. Versions are the ODB's revisions; in memory they are kept plus one, as 0 means none.

use std::sync::atomic::{AtomicU64, Ordering};

use crosstie_model::Revision;

use super::Segment;
use super::layout::SLOTS;
use super::workers::WorkerSlot;

/// One worker's part in the barrier. Dropped, it takes part no more.
pub struct Barrier {
    own: u16,
    slots: &'static [WorkerSlot; SLOTS],
    in_force: &'static AtomicU64,
}

/// How a version that is ready here stands with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// Others are not ready yet.
    Waiting,
    /// It is in force.
    InForce,
    /// Another worker has a newer version ready: this one will not be agreed on.
    Overtaken,
}

impl Segment {
    /// Takes part in the barrier as the worker this process is; `None` in the supervisor.
    #[must_use]
    pub fn barrier(&self) -> Option<Barrier> {
        let (slots, in_force) = (&self.layout.workers, &self.layout.header.in_force);
        Some(Barrier { own: self.own?, slots, in_force })
    }
}

impl Barrier {
    /// The word that says which version is in force, as [`Barrier::mark`] writes it.
    #[must_use]
    pub fn in_force(&self) -> &'static AtomicU64 {
        self.in_force
    }

    /// How `revision` is written in shared memory.
    #[must_use]
    pub fn mark(revision: Revision) -> u64 {
        revision.0.saturating_add(1)
    }

    /// Says that this worker has `revision` ready, or will never have it: either way the others need not wait
    /// for it. What is to take over must be in place before.
    pub fn ready(&self, revision: Revision) {
        if let Some(slot) = self.slots.get(usize::from(self.own)) {
            // All of the barrier is in one total order: of two workers that become ready at once, at least
            // one must see the other.
            slot.ready.store(Self::mark(revision), Ordering::SeqCst);
        }
    }

    /// Puts `revision`, which is ready here, in force if it is everywhere else.
    #[must_use]
    pub fn agree(&self, revision: Revision) -> Agreement {
        let own = Self::mark(revision);
        let in_force = self.in_force.load(Ordering::SeqCst);
        if in_force == own {
            return Agreement::InForce;
        }
        let others = self.slots.iter().enumerate().filter(|(index, _)| *index != usize::from(self.own));
        let others = others.map(|(_, slot)| slot.ready.load(Ordering::SeqCst)).filter(|ready| *ready != 0);
        match agreement(own, in_force, others) {
            Agreement::InForce => self.put_in_force(own, in_force),
            other => other,
        }
    }

    /// Puts `revision`, which is ready here, in force without those that are not ready: they were waited for
    /// long enough. Does nothing when others did so with another version at this moment.
    pub fn go_ahead(&self, revision: Revision) {
        let in_force = self.in_force.load(Ordering::SeqCst);
        let _ = self.put_in_force(Self::mark(revision), in_force);
    }

    fn put_in_force(&self, own: u64, before: u64) -> Agreement {
        match self.in_force.compare_exchange(before, own, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => Agreement::InForce,
            Err(now) if now == own => Agreement::InForce,
            // Somebody was faster with another version: look again.
            Err(_) => Agreement::Waiting,
        }
    }
}

impl std::fmt::Debug for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Barrier").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        if let Some(slot) = self.slots.get(usize::from(self.own)) {
            slot.ready.store(0, Ordering::SeqCst);
        }
    }
}

/// What a worker that is ready for `own` makes of what the others are ready for.
fn agreement(own: u64, in_force: u64, others: impl Iterator<Item = u64>) -> Agreement {
    if in_force > own {
        return Agreement::Overtaken;
    }
    let mut agreement = Agreement::InForce;
    // A worker that is behind what is in force was waited for once already.
    for ready in others.filter(|ready| *ready >= in_force && *ready != own) {
        if ready > own {
            return Agreement::Overtaken;
        }
        agreement = Agreement::Waiting;
    }
    agreement
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn barrier(segment: &Segment, own: u16) -> Barrier {
        segment.for_worker(own).barrier().unwrap()
    }

    #[test]
    fn the_last_worker_to_be_ready_puts_the_version_in_force() {
        let segment = Segment::create().unwrap();
        let (first, second) = (barrier(&segment, 0), barrier(&segment, 5));
        for (worker, agreed) in [(&first, Agreement::InForce), (&second, Agreement::InForce)] {
            worker.ready(Revision(0));
            assert_eq!(worker.agree(Revision(0)), agreed);
        }
        first.ready(Revision(1));
        assert_eq!(first.agree(Revision(1)), Agreement::Waiting);
        second.ready(Revision(1));
        assert_eq!(second.agree(Revision(1)), Agreement::InForce);
        assert_eq!(first.agree(Revision(1)), Agreement::InForce);
        assert_eq!(first.in_force().load(Ordering::SeqCst), Barrier::mark(Revision(1)));
    }

    #[test]
    fn a_dead_worker_is_not_waited_for() {
        let segment = Segment::create().unwrap();
        let (alive, dead) = (barrier(&segment, 0), barrier(&segment, 1));
        dead.ready(Revision(3));
        alive.ready(Revision(3));
        assert_eq!(alive.agree(Revision(3)), Agreement::InForce);
        alive.ready(Revision(4));
        assert_eq!(alive.agree(Revision(4)), Agreement::Waiting);
        segment.clear_worker(1);
        assert_eq!(alive.agree(Revision(4)), Agreement::InForce);
    }

    #[test]
    fn one_that_leaves_is_not_waited_for() {
        let segment = Segment::create().unwrap();
        let (stays, leaves) = (barrier(&segment, 0), barrier(&segment, 1));
        leaves.ready(Revision(3));
        drop(leaves);
        stays.ready(Revision(4));
        assert_eq!(stays.agree(Revision(4)), Agreement::InForce);
    }

    #[test]
    fn one_that_hangs_is_waited_for_once() {
        let segment = Segment::create().unwrap();
        let (alive, hangs) = (barrier(&segment, 0), barrier(&segment, 1));
        for worker in [&alive, &hangs] {
            worker.ready(Revision(1));
            assert_eq!(worker.agree(Revision(1)), Agreement::InForce);
        }
        alive.ready(Revision(2));
        assert_eq!(alive.agree(Revision(2)), Agreement::Waiting);
        alive.go_ahead(Revision(2));
        assert_eq!(alive.agree(Revision(2)), Agreement::InForce);
        alive.ready(Revision(3));
        assert_eq!(alive.agree(Revision(3)), Agreement::InForce, "it was not waited for again");
        hangs.ready(Revision(2));
        assert_eq!(hangs.agree(Revision(2)), Agreement::Overtaken);
    }

    #[test]
    fn of_two_versions_the_newer_one_wins() {
        let segment = Segment::create().unwrap();
        let (slow, fast) = (barrier(&segment, 0), barrier(&segment, 1));
        slow.ready(Revision(2));
        fast.ready(Revision(3));
        assert_eq!(slow.agree(Revision(2)), Agreement::Overtaken);
        assert_eq!(fast.agree(Revision(3)), Agreement::Waiting);
        slow.ready(Revision(3));
        assert_eq!(slow.agree(Revision(3)), Agreement::InForce);
    }

    #[test]
    fn workers_that_become_ready_at_once_agree() {
        let segment = Segment::create().unwrap();
        let workers: Vec<_> = (0..4).map(|own| Arc::new(barrier(&segment, own))).collect();
        for worker in &workers {
            worker.ready(Revision(0));
            let _ = worker.agree(Revision(0));
        }
        for number in 1..2000 {
            let threads: Vec<_> = workers
                .iter()
                .map(|worker| {
                    let worker = Arc::clone(worker);
                    thread::spawn(move || {
                        worker.ready(Revision(number));
                        worker.agree(Revision(number))
                    })
                })
                .collect();
            let agreed: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(agreed.contains(&Agreement::InForce), "{number}: {agreed:?}");
        }
    }
}
