//! Whom to blame for a worker's death: pure judgement over how it died and what its blame slots said.
//!
//! A strike needs evidence. A fault signal counts against what the faulting thread ran; any death of the
//! worker's own making while a deployment was being loaded counts against that unit. Signals that somebody
//! sends (SIGKILL and SIGTERM above all: operators, the kernel's out-of-memory killer, `kill -9` in a test)
//! are never a strike, whatever was running.

use crate::fault::FAULT_SIGNALS;
use crate::shm::{LastWords, StrikeCause, Subject};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// It left with this exit code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}

impl Death {
    /// The death in words, for the log.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Exited(code) => format!("exit code {code}"),
            Self::Signalled(signal) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(known) => known.as_str().to_owned(),
                Err(_) => format!("signal {signal}"),
            },
        }
    }

    /// Whether a fault signal ended it.
    pub(super) fn is_fault(self) -> bool {
        matches!(self, Self::Signalled(signal) if FAULT_SIGNALS.contains(&signal))
    }

    /// Whether the signal comes from outside the process.
    fn was_sent(self) -> bool {
        const SENT: [i32; 7] = [
            libc::SIGKILL,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGQUIT,
            libc::SIGUSR1,
            libc::SIGUSR2,
        ];
        matches!(self, Self::Signalled(signal) if SENT.contains(&signal))
    }
}

/// The strikes that follow from a death. `expected` when the worker was leaving anyway.
pub(super) fn judge(death: Death, expected: Expectation, words: LastWords) -> Vec<(Subject, StrikeCause)> {
    let blame = |subjects: Vec<Subject>, cause: StrikeCause| {
        subjects.into_iter().map(|subject| (subject, cause)).collect::<Vec<_>>()
    };
    if death.is_fault() && !words.faulted.is_empty() {
        let by_kind = |subject: Subject| match subject {
            Subject::Service(_) => (subject, StrikeCause::Crash),
            Subject::Unit(_) => (subject, StrikeCause::Load),
        };
        return words.faulted.into_iter().map(by_kind).collect();
    }
    let left_as_told = expected == Expectation::Leaving && death == Death::Exited(0);
    if death.was_sent() || left_as_told { Vec::new() } else { blame(words.loading, StrikeCause::Load) }
}

/// Whether a death was to be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expectation {
    /// The worker had been told to leave, or had said that it does.
    Leaving,
    /// It had not.
    Staying,
}

#[cfg(test)]
mod tests {
    use crosstie_model::names::{ServiceName, UnitName};
    use proptest::prelude::*;

    use super::*;

    fn service() -> Subject {
        Subject::Service(ServiceName::new("crm.bad").unwrap())
    }

    fn unit() -> Subject {
        Subject::Unit(UnitName::new("crm").unwrap())
    }

    fn words(faulted: &[Subject], loading: &[Subject]) -> LastWords {
        LastWords { faulted: faulted.to_vec(), loading: loading.to_vec() }
    }

    #[test]
    fn every_fault_signal_strikes_the_service_whose_thread_took_it() {
        for signal in FAULT_SIGNALS {
            let strikes =
                judge(Death::Signalled(signal), Expectation::Staying, words(&[service()], &[unit()]));
            assert_eq!(strikes, [(service(), StrikeCause::Crash)], "and not the unit loading beside it");
        }
    }

    #[test]
    fn a_fault_outside_all_services_strikes_nobody() {
        assert_eq!(judge(Death::Signalled(libc::SIGSEGV), Expectation::Staying, words(&[], &[])), []);
    }

    #[test]
    fn a_death_while_loading_strikes_the_unit() {
        for death in [Death::Exited(0), Death::Exited(1), Death::Signalled(libc::SIGABRT)] {
            let strikes = judge(death, Expectation::Staying, words(&[], &[unit()]));
            assert_eq!(strikes, [(unit(), StrikeCause::Load)]);
        }
        let faulted = judge(Death::Signalled(libc::SIGBUS), Expectation::Leaving, words(&[unit()], &[]));
        assert_eq!(faulted, [(unit(), StrikeCause::Load)]);
    }

    #[test]
    fn a_worker_that_leaves_as_told_while_loading_strikes_nobody() {
        assert_eq!(judge(Death::Exited(0), Expectation::Leaving, words(&[], &[unit()])), []);
    }

    proptest! {
        #[test]
        fn kill_and_term_never_strike(faulted in any::<bool>(), loading in any::<bool>(), term in any::<bool>()) {
            let signal = if term { libc::SIGTERM } else { libc::SIGKILL };
            let said = words(&[service()][..usize::from(faulted)], &[unit()][..usize::from(loading)]);
            prop_assert_eq!(judge(Death::Signalled(signal), Expectation::Staying, said), vec![]);
        }
    }
}
