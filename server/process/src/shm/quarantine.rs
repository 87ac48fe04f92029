//! Strikes and quarantine: which services and units brought workers down, and which are shut off for it.
//!
//! Strikes are counted by the supervisor (deaths) and by workers (lost threads), all in shared memory, so a
//! ceiling is reached once and every worker sees it with its next request. A message pays one atomic read
//! while nothing is quarantined.

use std::sync::atomic::Ordering;

use crosstie_model::limits::QUARANTINE_STRIKES;
use crosstie_model::names::{ServiceName, UnitName};
use serde::{Deserialize, Serialize};

use super::Segment;
use super::keys;
use crate::clock;

/// What can be blamed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum Subject {
    /// A service, for crashes and lost threads while it ran.
    Service(ServiceName),
    /// A unit, for deaths while a deployment of it was being loaded.
    Unit(UnitName),
}

impl Subject {
    /// The service's or unit's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Service(name) => name.as_str(),
            Self::Unit(name) => name.as_str(),
        }
    }

    /// The key in the table: a letter for the kind, then the name.
    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Self::Service(name) => service_key(name),
            Self::Unit(name) => unit_key(name),
        }
    }

    pub(super) fn from_key(key: &[u8]) -> Option<Self> {
        let (kind, name) = key.split_first()?;
        let name = std::str::from_utf8(name).ok()?;
        match kind {
            b's' => ServiceName::new(name).ok().map(Self::Service),
            b'u' => UnitName::new(name).ok().map(Self::Unit),
            _ => None,
        }
    }
}

pub(super) fn service_key(name: &ServiceName) -> Vec<u8> {
    [b"s", name.as_str().as_bytes()].concat()
}

pub(super) fn unit_key(name: &UnitName) -> Vec<u8> {
    [b"u", name.as_str().as_bytes()].concat()
}

/// Why a strike was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrikeCause {
    /// A worker died of SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGABRT in the service.
    Crash,
    /// A worker died while it loaded a deployment of the unit.
    Load,
    /// A handler thread did not come back from the service.
    LostThread,
}

impl StrikeCause {
    /// The cause in words, for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "it crashed workers",
            Self::Load => "workers died while loading it",
            Self::LostThread => "it did not give threads back",
        }
    }

    fn code(self) -> u32 {
        match self {
            Self::Crash => 1,
            Self::Load => 2,
            Self::LostThread => 3,
        }
    }

    fn from_code(code: u32) -> Self {
        match code {
            2 => Self::Load,
            3 => Self::LostThread,
            _ => Self::Crash,
        }
    }
}

/// A service or unit that was blamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Who.
    pub subject: Subject,
    /// Strikes so far.
    pub strikes: u32,
    /// Why the last one was counted.
    pub cause: StrikeCause,
    /// Seconds since 1970 of its quarantine; `None` while it is not quarantined.
    pub since: Option<u64>,
}

/// What a strike led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StrikeOutcome {
    /// Counted; so many now.
    Counted(u32),
    /// Counted, and that was one too many.
    Quarantined,
    /// The table is full: nothing could be counted.
    NoRoom,
}

impl Segment {
    /// Counts a strike; quarantines at the ceiling.
    pub(crate) fn strike(&self, subject: &Subject, cause: StrikeCause) -> StrikeOutcome {
        let table = &self.layout.subject_keys;
        let row = keys::find_or_insert(table, self.arena(), &subject.key())
            .and_then(|position| self.layout.subjects.get(position));
        let Some(row) = row else { return StrikeOutcome::NoRoom };
        row.cause.store(cause.code(), Ordering::Relaxed);
        let strikes = row.strikes.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let quarantined = strikes >= QUARANTINE_STRIKES && self.quarantine_row(row, clock::unix_seconds());
        self.layout.header.verdicts.fetch_add(1, Ordering::AcqRel);
        if quarantined { StrikeOutcome::Quarantined } else { StrikeOutcome::Counted(strikes) }
    }

    /// Quarantines as a stored verdict says: what the supervisor does with its file at start.
    pub(crate) fn restore_verdict(&self, verdict: &Verdict) {
        let table = &self.layout.subject_keys;
        let row = keys::find_or_insert(table, self.arena(), &verdict.subject.key())
            .and_then(|position| self.layout.subjects.get(position));
        let (Some(row), Some(since)) = (row, verdict.since) else { return };
        row.strikes.store(verdict.strikes, Ordering::Relaxed);
        row.cause.store(verdict.cause.code(), Ordering::Relaxed);
        self.quarantine_row(row, since.max(1));
    }

    fn quarantine_row(&self, row: &super::layout::SubjectRow, since: u64) -> bool {
        let first = row.since.compare_exchange(0, since, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if first {
            self.layout.header.quarantined.fetch_add(1, Ordering::AcqRel);
        }
        first
    }

    /// Lifts the quarantine of every service and unit called `name` and forgets their strikes. Says whether
    /// there was one. The supervisor notices and keeps it over restarts.
    pub fn release(&self, name: &str) -> bool {
        let subjects =
            [ServiceName::new(name).ok().map(Subject::Service), UnitName::new(name).ok().map(Subject::Unit)];
        let mut released = false;
        for subject in subjects.into_iter().flatten() {
            let Some(row) = self.subject_row(&subject.key()) else { continue };
            row.strikes.store(0, Ordering::Release);
            if row.since.swap(0, Ordering::AcqRel) != 0 {
                self.layout.header.quarantined.fetch_sub(1, Ordering::AcqRel);
                released = true;
            }
        }
        self.layout.header.verdicts.fetch_add(1, Ordering::AcqRel);
        released
    }

    /// Every service and unit with at least one strike, in the order of their names.
    #[must_use]
    pub fn strikes(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for (reference, row) in self.layout.subject_keys.iter().zip(&self.layout.subjects) {
            let reference = reference.load(Ordering::Acquire);
            if reference == 0 {
                continue;
            }
            let (strikes, since) = (row.strikes.load(Ordering::Acquire), row.since.load(Ordering::Acquire));
            let subject = self.arena().text(reference).and_then(|key| Subject::from_key(&key));
            if let (Some(subject), true) = (subject, strikes > 0 || since > 0) {
                let cause = StrikeCause::from_code(row.cause.load(Ordering::Relaxed));
                verdicts.push(Verdict { subject, strikes, cause, since: (since > 0).then_some(since) });
            }
        }
        verdicts.sort_by(|a, b| a.subject.cmp(&b.subject));
        verdicts
    }

    /// The services and units in quarantine, in the order of their names.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Verdict> {
        if self.layout.header.quarantined.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        self.strikes().into_iter().filter(|verdict| verdict.since.is_some()).collect()
    }

    /// Whether deployments of `unit` are not to be loaded: workers died of it.
    #[must_use]
    pub fn is_unit_quarantined(&self, unit: &UnitName) -> bool {
        self.any_quarantined() && self.key_quarantined(&unit_key(unit))
    }

    pub(super) fn any_quarantined(&self) -> bool {
        self.layout.header.quarantined.load(Ordering::Acquire) != 0
    }

    pub(super) fn key_quarantined(&self, key: &[u8]) -> bool {
        self.subject_row(key).is_some_and(|row| row.since.load(Ordering::Acquire) != 0)
    }

    /// Changes with every strike and release: how the supervisor notices what workers counted.
    pub(crate) fn verdict_changes(&self) -> u32 {
        self.layout.header.verdicts.load(Ordering::Acquire)
    }

    fn subject_row(&self, key: &[u8]) -> Option<&super::layout::SubjectRow> {
        let position = keys::find(&self.layout.subject_keys, self.arena(), key)?;
        self.layout.subjects.get(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::ports::Blame as _;

    #[test]
    fn the_third_strike_quarantines_and_a_release_forgets_all() {
        let segment = Segment::create().unwrap();
        let name = ServiceName::new("crm.bad").unwrap();
        let bad = Subject::Service(name.clone());
        assert_eq!(segment.strike(&bad, StrikeCause::Crash), StrikeOutcome::Counted(1));
        assert_eq!(segment.strike(&bad, StrikeCause::Crash), StrikeOutcome::Counted(2));
        assert!(!segment.is_quarantined(&name));
        assert_eq!(segment.strike(&bad, StrikeCause::LostThread), StrikeOutcome::Quarantined);
        assert!(segment.is_quarantined(&name));
        assert!(!segment.is_quarantined(&ServiceName::new("crm.good").unwrap()));
        assert_eq!(segment.strike(&bad, StrikeCause::Crash), StrikeOutcome::Counted(4));
        let verdict = segment.quarantined().remove(0);
        assert_eq!((verdict.strikes, verdict.cause), (4, StrikeCause::Crash));
        assert!(segment.release("crm.bad") && !segment.release("crm.bad"));
        assert!(!segment.is_quarantined(&name) && segment.strikes().is_empty());
        assert_eq!(segment.strike(&bad, StrikeCause::Crash), StrikeOutcome::Counted(1));
    }

    #[test]
    fn a_unit_and_a_service_of_one_name_are_blamed_apart() {
        let segment = Segment::create().unwrap();
        let unit = UnitName::new("crm").unwrap();
        for _ in 0..3 {
            segment.strike(&Subject::Unit(unit.clone()), StrikeCause::Load);
        }
        assert!(segment.is_unit_quarantined(&unit));
        assert!(!segment.is_quarantined(&ServiceName::new("crm").unwrap()));
        assert!(segment.release("crm"));
        assert!(!segment.is_unit_quarantined(&unit));
    }
}
