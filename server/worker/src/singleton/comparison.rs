//! Finds out whether another server serves what this one could not load.
//!
//! Only then is this one not ready: its users are better off elsewhere. When every server fails at the same
//! deployment, all go on with what they had. Costs nothing while all is well, and one look at the members a few
//! times a second while something could not be loaded.

use std::time::Duration;

use crosstie_model::Revision;
use crosstie_odb::{MemberRow, MemberState};
use crosstie_process::shm::Comparison;
use tokio::time::MissedTickBehavior;

use super::member::Member;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(200);

/// Compares until cancelled.
pub(super) async fn compare(member: Member) {
    let mut pause = tokio::time::interval(LOOK);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        let before = member.segment.comparison();
        let condition = member.operations.condition();
        let now = match condition.state {
            Some(MemberState::Failed) => look(&member, condition.newest, before).await,
            Some(MemberState::Ready) => Comparison::Level,
            // No worker has said what it serves.
            _ => before,
        };
        if now == before {
            continue;
        }
        member.segment.note_comparison(now);
        if condition.state == Some(MemberState::Failed) {
            let ready = now != Comparison::Behind;
            tracing::warn!(
                reason = condition.reason,
                ready,
                "others were asked for what could not be loaded here"
            );
        }
    }
}

/// While the ODB is away nobody can tell: what was known holds, and a server that just started serves what it
/// has.
async fn look(member: &Member, newest: Revision, before: Comparison) -> Comparison {
    match (member.odb.members().await, before) {
        (Ok(members), _) => judge(&member.new.name, newest, &members, member.patience / 2),
        (Err(_), Comparison::Unknown) => Comparison::Level,
        (Err(_), known) => known,
    }
}

/// What `members` mean for the server `own`, which could not load all of `newest`. One whose last heartbeat is
/// older than `own`'s by more than `silence` does not count: it may be dead and not marked so yet.
fn judge(own: &str, newest: Revision, members: &[MemberRow], silence: Duration) -> Comparison {
    let silence = i64::try_from(silence.as_micros()).unwrap_or(i64::MAX);
    let seen = members.iter().find(|row| row.member.name == own).map_or(0, |row| row.seen_us);
    let serves_it = |row: &MemberRow| {
        row.member.name != own
            && row.state == MemberState::Ready
            && row.revision >= newest
            && seen.saturating_sub(row.seen_us) <= silence
    };
    if members.iter().any(serves_it) { Comparison::Behind } else { Comparison::Level }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_odb::{NewMember, Wanted};

    const SILENCE: Duration = Duration::from_secs(2);

    fn row(name: &str, state: MemberState, revision: u64) -> MemberRow {
        let member = NewMember {
            name: name.into(),
            address: String::new(),
            tls: true,
            management: String::new(),
            version: String::new(),
        };
        MemberRow {
            member,
            boot: String::new(),
            state,
            reason: String::new(),
            wanted: Wanted::Serving,
            revision: Revision(revision),
            in_flight: 0,
            joined_us: 0,
            seen_us: 0,
        }
    }

    #[test]
    fn a_server_is_behind_only_when_another_serves_what_it_could_not_load() {
        let own = row("a", MemberState::Failed, 6);
        for (other, expected) in [
            (row("b", MemberState::Ready, 7), Comparison::Behind),
            (row("b", MemberState::Ready, 8), Comparison::Behind),
            // It may fail as well once it gets there.
            (row("b", MemberState::Ready, 6), Comparison::Level),
            (row("b", MemberState::Failed, 7), Comparison::Level),
            (row("b", MemberState::Draining, 7), Comparison::Level),
            (row("b", MemberState::Dead, 7), Comparison::Level),
            (row("a", MemberState::Ready, 7), Comparison::Level),
        ] {
            let text = format!("{other:?}");
            assert_eq!(judge("a", Revision(7), &[own.clone(), other], SILENCE), expected, "{text}");
        }
    }

    #[test]
    fn a_server_that_fell_silent_is_no_help() {
        let at = |name: &str, state, seen_us| MemberRow { seen_us, ..row(name, state, 7) };
        let own = at("a", MemberState::Failed, 10_000_000);
        for (seen_us, expected) in [(8_000_000, Comparison::Behind), (7_999_999, Comparison::Level)] {
            let other = at("b", MemberState::Ready, seen_us);
            assert_eq!(judge("a", Revision(7), &[own.clone(), other], SILENCE), expected, "{seen_us}");
        }
    }
}
