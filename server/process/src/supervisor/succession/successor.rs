//! The new supervisor's side of an upgrade, from its first word to the end of its predecessor.

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ToPredecessor, ToSuccessor};
use crate::pidfile::{PidFile, PidFileError};
use crate::supervisor::event_loop::Turning;
use crate::supervisor::link::{Heard, Link};
use crate::supervisor::{StartError, reap};

/// How long the pid file is asked for: somebody who may not have it can hold it for a moment.
const CLAIM_PATIENCE: Duration = Duration::from_secs(2);
const CLAIM_INTERVAL: Duration = Duration::from_millis(5);

/// What a supervisor is to its server.
pub(in crate::supervisor) enum Rank {
    /// The one that runs it.
    Server,
    /// The one that is to run it, beside a predecessor.
    Successor(Predecessor),
}

/// The predecessor of a successor.
pub(in crate::supervisor) struct Predecessor {
    link: Link<ToSuccessor, ToPredecessor>,
    step: Step,
}

/// The steps of an upgrade, as the new supervisor sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// 2: it said who it is; its workers start.
    Introduced,
    /// 3: they serve, and it said so.
    Ready,
    /// 4: it is the server, and its predecessor drains.
    Claimed,
}

/// Step 2: the first word to the predecessor.
pub(in crate::supervisor) fn introduce(channel: UnixStream) -> Result<Rank, StartError> {
    let mut link = Link::new(channel).map_err(StartError::Succession)?;
    link.send(&ToPredecessor::Hello { pid: std::process::id() })
        .map_err(|error| StartError::Succession(std::io::Error::other(error)))?;
    Ok(Rank::Successor(Predecessor { link, step: Step::Introduced }))
}

impl Predecessor {
    /// Its channel, for `poll`.
    pub(in crate::supervisor) fn link(&self) -> &Link<ToSuccessor, ToPredecessor> {
        &self.link
    }

    /// Passes on what changed here.
    pub(in crate::supervisor) fn tell(&mut self, event: &Value) {
        self.say(&ToPredecessor::Event(event.clone()));
    }

    fn say(&mut self, message: &ToPredecessor) {
        if let Err(error) = self.link.send(message) {
            tracing::error!(%error, "a message to the old supervisor cannot be sent");
        }
    }
}

impl Turning {
    /// Whether this supervisor is the one that runs the server.
    pub(in crate::supervisor) fn is_server(&self) -> bool {
        let has_office = match &self.rank {
            Rank::Server => true,
            Rank::Successor(predecessor) => predecessor.step == Step::Claimed,
        };
        has_office && self.heir.is_none()
    }

    /// Takes what the predecessor said, and says what is due.
    pub(in crate::supervisor) fn hear_predecessor(&mut self) {
        let Rank::Successor(predecessor) = &mut self.rank else { return };
        predecessor.link.flush();
        let heard = predecessor.link.read();
        while let Rank::Successor(predecessor) = &mut self.rank {
            match predecessor.link.next_message() {
                Ok(Some(ToSuccessor::Claim)) => self.claim(),
                Ok(Some(ToSuccessor::Event(event))) => self.relay_foreign(event),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the old supervisor cannot be understood");
                    predecessor.link.shut();
                    return self.bereaved();
                }
            }
        }
        if matches!(heard, Heard::End) {
            return self.bereaved();
        }
        let all_serve = self.fleet.serving() == usize::from(self.supervisor.plan.workers);
        if let Rank::Successor(predecessor) = &mut self.rank
            && predecessor.step == Step::Introduced
            && all_serve
        {
            predecessor.step = Step::Ready;
            predecessor.say(&ToPredecessor::Ready);
        }
    }

    /// Step 4: the pid file, or nothing.
    fn claim(&mut self) {
        let claimed = claim_patiently(self);
        let Rank::Successor(predecessor) = &mut self.rank else { return };
        match claimed {
            Ok(()) => {
                predecessor.step = Step::Claimed;
                predecessor.say(&ToPredecessor::Claimed);
                self.take_office();
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the pid file cannot be claimed");
                predecessor.say(&ToPredecessor::Refused { reason: error.to_string() });
                self.fleet.stop(Instant::now());
            }
        }
    }

    /// The predecessor is gone: as it should be, or because it died.
    fn bereaved(&mut self) {
        let was_server = self.is_server();
        self.rank = Rank::Server;
        // It may be this one's segment as well, and with it the word.
        self.supervisor.segment.set_succeeded(false);
        // Nobody but this process can clear what its workers left in shared memory.
        self.abandoned_slots = true;
        if was_server || self.fleet.stopping() {
            return;
        }
        tracing::warn!("the old supervisor died before it handed over: taking over what is left");
        match claim_patiently(self) {
            Ok(()) => self.take_office(),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "another supervisor was faster");
                self.fleet.stop(Instant::now());
            }
        }
    }

    /// This supervisor is the server from now on, and says so.
    fn take_office(&mut self) {
        tracing::info!("this supervisor is the server now");
        self.supervisor.segment.set_worker_count(self.supervisor.plan.workers);
        self.announce();
    }

    /// Takes back what workers held that died after their supervisor, until none of them is left.
    pub(in crate::supervisor) fn clear_abandoned_slots(&mut self) {
        // A successor of this one has slots of its own, some of them a moment before their processes.
        if !self.abandoned_slots || self.succession.is_some() {
            return;
        }
        let segment = &self.supervisor.segment;
        let is_ours = |index: u16| self.children.values().any(|child| child.index == index);
        let foreign: Vec<_> = segment.workers().into_iter().filter(|view| !is_ours(view.index)).collect();
        self.abandoned_slots = !foreign.is_empty();
        for view in foreign.iter().filter(|view| view.pid == 0 || !reap::exists(view.pid)) {
            segment.clear_worker(view.index);
        }
    }
}

fn claim_patiently(turning: &mut Turning) -> Result<(), PidFileError> {
    let deadline = Instant::now() + CLAIM_PATIENCE;
    loop {
        match PidFile::claim(&turning.supervisor.plan.directory) {
            Ok(claim) => {
                turning.supervisor.pid_file = Some(claim);
                return Ok(());
            }
            Err(PidFileError::Running { .. }) if Instant::now() < deadline => thread::sleep(CLAIM_INTERVAL),
            Err(error) => return Err(error),
        }
    }
}
