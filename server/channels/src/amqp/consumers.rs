//! The consumers of all AMQP channels of a worker, kept from one snapshot to the next for as long as nothing they
//! depend on changes. A new version of a service needs none of them to stop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use crosstie_model::definition::AmqpChannel;
use crosstie_model::ports::DataStore;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::consumer;
use super::delivery::Desk;
use super::once::Memory;
use super::plan::{PlannedAmqp, consume};

/// How long a worker lets others take places that are theirs first.
const COURTESY: Duration = Duration::from_millis(1_500);

/// What consumers are given by the worker.
pub struct AmqpSurroundings {
    /// This server's name.
    pub server: String,
    /// Which of its workers this is, from 0.
    pub index: u16,
    /// How many workers it has.
    pub workers: u16,
    /// Remembers messages.
    pub data: Arc<dyn DataStore>,
    /// Where the data store's connections live.
    pub io: Handle,
    /// Where consumers run.
    pub traffic: Handle,
}

/// See the module.
pub struct AmqpChannels {
    surroundings: AmqpSurroundings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    planned: Vec<PlannedAmqp>,
    running: BTreeMap<Arc<str>, Running>,
    ending: Vec<JoinHandle<()>>,
    mode: Mode,
}

/// Whether anything is consumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    /// It is.
    #[default]
    Consuming,
    /// Not now: the server is drained.
    Paused,
    /// Not any more: the worker ends.
    Ended,
}

struct Running {
    plan: PlannedAmqp,
    desk: Arc<Desk>,
    tasks: Vec<JoinHandle<()>>,
}

impl AmqpChannels {
    /// No channel yet.
    #[must_use]
    pub fn new(surroundings: AmqpSurroundings) -> Self {
        Self { surroundings, state: Mutex::default() }
    }

    /// Consumes for these channels and no others.
    pub fn follow(&self, planned: Vec<PlannedAmqp>) {
        let mut state = self.lock();
        state.planned = planned;
        self.settle(&mut state);
    }

    /// Stops consuming while the server is drained, and goes on afterwards.
    pub fn pause(&self, paused: bool) {
        let mut state = self.lock();
        let mode = if paused { Mode::Paused } else { Mode::Consuming };
        if state.mode != Mode::Ended && state.mode != mode {
            state.mode = mode;
            self.settle(&mut state);
        }
    }

    /// Stops consuming for good; ends once every message is settled.
    pub async fn drain(&self) {
        let ending = {
            let mut state = self.lock();
            state.mode = Mode::Ended;
            self.settle(&mut state);
            std::mem::take(&mut state.ending)
        };
        for task in ending {
            // One that panicked has lost its connection, and with it its messages: they come again.
            let _ = task.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what runs what should run.
    fn settle(&self, state: &mut State) {
        let wanted: BTreeMap<_, _> = match state.mode {
            Mode::Consuming => state.planned.iter().map(|plan| (Arc::clone(&plan.name), plan)).collect(),
            Mode::Paused | Mode::Ended => BTreeMap::new(),
        };
        let mut before = std::mem::take(&mut state.running);
        for (name, plan) in wanted {
            let running = match before.remove(&name) {
                Some(running) if running.plan.consumes_as(plan) => {
                    running.desk.work.store(Arc::clone(&plan.work));
                    running
                }
                other => {
                    before.extend(other.map(|other| (Arc::clone(&name), other)));
                    self.start(plan)
                }
            };
            state.running.insert(name, running);
        }
        for running in before.into_values() {
            running.desk.stop.cancel();
            state.ending.extend(running.tasks);
        }
        state.ending.retain(|task| !task.is_finished());
    }

    fn start(&self, plan: &PlannedAmqp) -> Running {
        let around = &self.surroundings;
        let desk = Arc::new(Desk {
            name: Arc::clone(&plan.name),
            settings: Arc::clone(&plan.settings),
            connection: Arc::clone(&plan.connection),
            work: ArcSwap::new(Arc::clone(&plan.work)),
            memory: Memory::new(Arc::clone(&around.data), around.io.clone()),
            stop: CancellationToken::new(),
        });
        let places = places(&plan.settings, around.index, around.workers);
        let tasks = places.into_iter().map(|(place, delay)| {
            let call = consume(&plan.settings, &around.server, place);
            around.traffic.spawn(consumer::run(Arc::clone(&desk), call, delay))
        });
        Running { plan: plan.clone(), tasks: tasks.collect(), desk: Arc::clone(&desk) }
    }
}

/// The places that the consumers of one worker try to have, each with how long it lets others go first; one consumer
/// without a place where there is no limit. Every worker tries every place, so that who is killed leaves his to the
/// others, but its own ones at once: they start together, and none should get everything.
fn places(settings: &AmqpChannel, index: u16, workers: u16) -> Vec<(Option<u16>, Duration)> {
    let Some(count) = settings.consumers else { return vec![(None, Duration::ZERO)] };
    let workers = workers.max(1);
    let delay = |place: u16| if place % workers == index % workers { Duration::ZERO } else { COURTESY };
    (0..count).map(|place| (Some(place), delay(place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn workers_begin_with_places_of_their_own() {
        let body = json!({"service": "s", "connection": "c", "queue": "q", "consumers": 3});
        let settings: AmqpChannel = serde_json::from_value(body).unwrap();
        let own = |index| -> Vec<_> {
            let all = places(&settings, index, 2);
            assert_eq!(all.len(), 3);
            all.into_iter().filter(|(_, delay)| delay.is_zero()).map(|(place, _)| place.unwrap()).collect()
        };
        assert_eq!((own(0), own(1), own(2)), (vec![0, 2], vec![1], vec![0, 2]));
        let unlimited = AmqpChannel { consumers: None, ..settings.clone() };
        assert_eq!(places(&unlimited, 1, 2), [(None, Duration::ZERO)]);
    }
}
