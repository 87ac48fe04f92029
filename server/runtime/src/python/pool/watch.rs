//! The watch: one thread that holds every call to its deadline and never needs the interpreter.
//!
//! At a call's deadline its caller gets 504 and the handler an interruption. A handler that is still there
//! after `stuck_after_ms` is lost: its thread no longer counts, another may take its place, the service takes
//! a strike, and at `max_lost_threads` the worker asks to be replaced. While calls wait for a busy
//! interpreter the watch also looks whether it became free (see the pool). Costs nothing measurable: it sleeps
//! until the next deadline, at most a second, and ticks in milliseconds only while calls wait.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crosstie_model::{Failure, ServiceName};

use super::slot::REPEAT;
use super::thread::interpreter_is_free;
use super::{Job, Shared, Slot, State};
use crate::python::ticket::Ticket;

/// How often the watch looks when it has no reason to.
const REST: Duration = Duration::from_secs(1);

/// How often it looks while calls wait.
const TICK: Duration = Duration::from_millis(1);

/// How soon it looks again after it woke a thread: the next call may get one as well.
const RAMP: Duration = Duration::from_micros(100);

/// How many looks in a row find no call waiting before the watch rests again.
const CALM_LOOKS: u32 = 20;

/// How many looks in a row find that no waiting call was taken before another thread competes for the
/// interpreter with the one that has it.
const STALLED_LOOKS: u32 = 5;

/// Something else with deadlines.
pub(crate) trait Watched: Send + Sync {
    /// Ends what is late at `now`; gives the next moment to look, if there is one.
    fn look(&self, now: Instant) -> Option<Instant>;
}

/// What a look found to do once the state is unlocked.
#[derive(Default)]
struct Found {
    woken: Option<Arc<Slot>>,
    expired: Vec<Arc<Ticket>>,
    dropped: Vec<Job>,
    interrupts: Vec<(Arc<Slot>, u64)>,
    lost: Vec<ServiceName>,
    is_exhausted: bool,
}

/// What the watch remembers from look to look.
#[derive(Default)]
struct Memory {
    calm: u32,
    stalled: u32,
    taken: u64,
}

/// Starts the watch of `shared`. It ends when nothing else holds the pool.
pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let weak = Arc::downgrade(shared);
    let handle = thread::Builder::new().name("python-watch".into()).spawn(move || {
        let mut memory = Memory::default();
        while let Some(shared) = weak.upgrade() {
            let rest = look(&shared, &mut memory);
            drop(shared);
            thread::park_timeout(rest);
        }
    })?;
    let _ = shared.watch.set(handle.thread().clone());
    Ok(())
}

/// Looks at everything once; gives how long to sleep.
fn look(shared: &Arc<Shared>, memory: &mut Memory) -> Duration {
    let now = Instant::now();
    let mut found = Found::default();
    let watched = shared.state().watched.clone();
    let mut next = watched.iter().filter_map(|watched| watched.upgrade()?.look(now)).min();
    let rest = {
        let mut state = shared.state();
        let threads = find_late(shared, &mut state, now, &mut found);
        next = next.into_iter().chain(threads).min();
        let tick = find_waiting(shared, &mut state, memory, &mut found);
        let rest = next.map_or(REST, |next| next.saturating_duration_since(now)).min(REST).min(tick);
        state.next_look = now.checked_add(rest);
        rest
    };
    act(shared, found);
    rest.max(RAMP)
}

/// Finds calls past their deadline, in the queue and under way; gives the next deadline.
fn find_late(shared: &Shared, state: &mut State, now: Instant, found: &mut Found) -> Option<Instant> {
    let mut next: Option<Instant> = None;
    let mut soonest = |moment: Instant| next = Some(next.map_or(moment, |known| known.min(moment)));
    let is_late = |job: &Job| job.ticket.deadline <= now || !job.ticket.is_open();
    if state.queue.iter().any(is_late) {
        let (late, waiting): (Vec<_>, Vec<_>) = state.queue.drain(..).partition(is_late);
        state.queue.extend(waiting);
        found.dropped = late;
    }
    for job in &state.queue {
        soonest(job.ticket.deadline);
    }

    let stuck_after = Duration::from_millis(shared.settings.stuck_after_ms);
    let mut lost = Vec::new();
    for slot in state.threads.iter().chain(&state.lost) {
        found.expired.extend(slot.expired(now));
        match slot.overdue(now) {
            Some(overdue) => {
                if overdue.interrupt {
                    found.interrupts.push((Arc::clone(slot), overdue.number));
                }
                if !slot.is_lost() && now >= overdue.deadline + stuck_after {
                    lost.push((Arc::clone(slot), overdue.service));
                }
                soonest(now + REPEAT);
            }
            None => {
                if let Some(deadline) = slot.deadline() {
                    soonest(deadline);
                }
            }
        }
    }
    for (slot, service) in lost {
        slot.mark_lost();
        state.threads.retain(|known| !Arc::ptr_eq(known, &slot));
        state.running = state.running.saturating_sub(1);
        state.lost.push(slot);
        found.lost.push(service);
    }
    found.is_exhausted =
        !found.lost.is_empty() && state.lost.len() >= usize::from(shared.settings.max_lost_threads);
    next
}

/// Finds calls that wait although the interpreter is free, or behind a handler that computes for long; gives
/// how long to sleep.
fn find_waiting(shared: &Arc<Shared>, state: &mut State, memory: &mut Memory, found: &mut Found) -> Duration {
    if !state.is_armed {
        return REST;
    }
    let Some(first) = state.queue.front() else {
        memory.calm += 1;
        if memory.calm >= CALM_LOOKS {
            memory.calm = 0;
            state.is_armed = false;
        }
        return TICK;
    };
    memory.calm = 0;
    let is_nested = first.is_nested;
    memory.stalled = if state.taken == memory.taken { memory.stalled + 1 } else { 0 };
    memory.taken = state.taken;
    if state.waking > 0 || !(interpreter_is_free() || memory.stalled >= STALLED_LOOKS) {
        return TICK;
    }
    memory.stalled = 0;
    found.woken = shared.wake_one(state, is_nested);
    if found.woken.is_some() { RAMP } else { TICK }
}

fn act(shared: &Arc<Shared>, found: Found) {
    if let Some(slot) = found.woken {
        slot.wake();
    }
    for ticket in found.expired.iter().chain(found.dropped.iter().map(|job| &job.ticket)) {
        ticket.answer(Err(Failure::timeout()));
    }
    drop(found.dropped);
    for (slot, number) in found.interrupts {
        shared.interrupter.send(&slot, number);
    }
    for service in &found.lost {
        tracing::error!(%service, "a handler thread did not come back after its deadline and is given up");
        shared.blame.thread_lost(service);
    }
    if found.is_exhausted {
        shared.exhaust();
    }
}
