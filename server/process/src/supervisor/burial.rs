//! What follows a worker's death: its last words are heard, blame is laid, what it held is taken back.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crosstie_model::ports::CounterCells as _;

use super::event_loop::{Child, Turning};
use super::fleet::Generation;
use super::reap;
use super::verdict::{self, Death, Expectation};
use crate::shm::StrikeOutcome;

/// Most pieces that are read from the channel of a worker that is already dead.
const LAST_PIECES: usize = 64;

impl Turning {
    pub(super) fn bury_the_dead(&mut self) {
        while let Some(ended) = reap::peek() {
            let known = self.children.iter().find(|(_, child)| child.pid == ended.pid).map(|(name, _)| *name);
            match known {
                Some(generation) => self.bury(generation, ended.death),
                None if self.succession.as_ref().is_some_and(|succession| succession.pid() == ended.pid) => {
                    self.successor_died(ended.death);
                }
                // The heir died after this process handed over: somebody else's matter.
                None if self.heir.as_ref().is_some_and(|heir| heir.pid() == ended.pid) => {
                    reap::reap(ended.pid)
                }
                // Left behind by a dead worker or by a successor that failed; nobody waits for it.
                None => self.bury_stranger(ended.pid),
            }
        }
    }

    /// What a stranger held in shared memory, as a worker of a successor that failed, is taken back.
    fn bury_stranger(&self, pid: u32) {
        let segment = &self.supervisor.segment;
        let held: Vec<_> = segment.workers().into_iter().filter(|view| view.pid == pid).collect();
        if !held.is_empty() {
            reap::kill_group(pid);
        }
        reap::reap(pid);
        held.iter().for_each(|view| segment.clear_worker(view.index));
    }

    /// A worker is dead: hear its last words, judge, take back what it held, tell the fleet.
    fn bury(&mut self, generation: Generation, death: Death) {
        for _ in 0..LAST_PIECES {
            if !self.hear(generation) {
                break;
            }
        }
        let Some(child) = self.children.remove(&generation) else { return };
        reap::kill_group(child.pid);
        reap::reap(child.pid);
        let cause = death.describe();
        match child.expectation {
            Expectation::Leaving => tracing::info!(pid = child.pid, seat = child.seat, cause, "worker left"),
            Expectation::Staying => {
                tracing::error!(pid = child.pid, seat = child.seat, cause, "worker died");
                self.count(&format!("crosstie_worker_deaths_total{{cause=\"{cause}\"}}"));
            }
        }
        self.blame(&child, death);
        self.supervisor.segment.clear_worker(child.index);
        self.fleet.gone(generation, Instant::now());
        if self.is_server() {
            self.supervisor.notifier.status(&self.status());
        }
    }

    /// Counts the strikes that follow from a death.
    fn blame(&self, child: &Child, death: Death) {
        let segment = &self.supervisor.segment;
        // Some libraries (Python's faulthandler among them) put their own handlers in the place of ours.
        if death.is_fault() && segment.worker(child.index).is_some_and(|slot| slot.fault() == 0) {
            tracing::warn!(pid = child.pid, "the fault was not seen by its handler: nobody can be blamed");
        }
        for (subject, why) in verdict::judge(death, child.expectation, segment.last_words(child.index)) {
            let (name, why_text) = (subject.name(), why.as_str());
            match segment.strike(&subject, why) {
                StrikeOutcome::Counted(strikes) => tracing::error!(name, strikes, "strike: {why_text}"),
                StrikeOutcome::Quarantined => tracing::error!(name, "quarantined: {why_text}"),
                StrikeOutcome::NoRoom => tracing::error!(name, "no room to count a strike"),
            }
        }
    }

    fn count(&self, key: &str) {
        if let Some(cell) = self.supervisor.segment.cell(key) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes quarantine changes to disk, whoever made them.
    pub(super) fn keep_verdicts(&mut self) {
        let changes = self.supervisor.segment.verdict_changes();
        if changes == self.verdicts_seen {
            return;
        }
        self.verdicts_seen = changes;
        let quarantined = self.supervisor.segment.quarantined();
        if let Err(error) = self.supervisor.quarantine.keep(quarantined) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the quarantine cannot be kept on disk"
            );
        }
    }
}
