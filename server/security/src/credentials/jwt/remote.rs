//! Keys that an issuer publishes, kept and renewed.
//!
//! A fetch runs on a task of its own: a caller who leaves does not cut it off for the others, and all who need
//! it wait for the same one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::definition::JwtAlgorithm;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::watch;

use super::key_set::KeySet;
use super::schedule::{Schedule, Step};
use crate::credentials::inquirer::Inquirer;

/// See the module.
#[derive(Debug)]
pub(super) struct RemoteKeys {
    definition: Arc<str>,
    inquirer: Inquirer,
    allowed: Vec<JwtAlgorithm>,
    state: Mutex<State>,
    /// How many fetches are over.
    finished: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    schedule: Schedule,
    keys: Option<Arc<KeySet>>,
}

/// What can be said of the keys without waiting.
#[derive(Debug)]
pub(super) enum Current {
    /// These.
    Keys(Arc<KeySet>),
    /// They have to be waited for.
    Wait,
    /// There are none, and will be none before this time passed.
    None { retry_after: Duration },
}

impl RemoteKeys {
    pub(super) fn new(
        definition: Arc<str>,
        inquirer: Inquirer,
        allowed: &[JwtAlgorithm],
        schedule: Schedule,
    ) -> Arc<Self> {
        let state = Mutex::new(State { schedule, keys: None });
        let (allowed, finished) = (allowed.to_vec(), watch::channel(0).0);
        Arc::new(Self { definition, inquirer, allowed, state, finished })
    }

    /// The keys there are; has them fetched again when it is time.
    pub(super) fn current(self: &Arc<Self>) -> Current {
        let mut state = self.lock();
        match (state.schedule.step(Instant::now()), &state.keys) {
            (Step::Use, Some(keys)) => Current::Keys(Arc::clone(keys)),
            (Step::UseAndFetch, Some(keys)) => {
                let keys = Arc::clone(keys);
                self.begin(&mut state);
                Current::Keys(keys)
            }
            (Step::Fail { retry_after }, _) => Current::None { retry_after },
            _ => Current::Wait,
        }
    }

    /// As [`RemoteKeys::current`], waiting for a fetch where that is needed.
    pub(super) async fn wait(self: &Arc<Self>) -> Result<Arc<KeySet>, Duration> {
        loop {
            let mut finished = self.finished.subscribe();
            {
                let mut state = self.lock();
                match (state.schedule.step(Instant::now()), &state.keys) {
                    (Step::Fail { retry_after }, _) => return Err(retry_after),
                    (Step::Use | Step::UseAndFetch, Some(keys)) => return Ok(Arc::clone(keys)),
                    _ => self.begin(&mut state),
                }
            }
            // The sender lives as long as this does.
            let _ = finished.changed().await;
        }
    }

    /// Whether it is worth waiting for a key that is not there.
    pub(super) fn is_worth_asking(&self) -> bool {
        self.lock().schedule.is_worth_asking(Instant::now())
    }

    /// Has the keys fetched again, because one is wanted that is not among `known`, unless others had it done
    /// meanwhile or just before; gives those there are then.
    pub(super) async fn renew(self: &Arc<Self>, known: &Arc<KeySet>) -> Arc<KeySet> {
        let mut finished = self.finished.subscribe();
        {
            let mut state = self.lock();
            let now = Instant::now();
            if let Some(keys) = state.keys.as_ref().filter(|keys| !Arc::ptr_eq(keys, known)) {
                return Arc::clone(keys);
            }
            if !state.schedule.is_worth_asking(now) {
                return Arc::clone(known);
            }
            if !state.schedule.is_fetching() {
                state.schedule.ask_for_unknown(now);
            }
            self.begin(&mut state);
        }
        let _ = finished.changed().await;
        let state = self.lock();
        state.keys.as_ref().map_or_else(|| Arc::clone(known), Arc::clone)
    }

    /// Begins a fetch unless one is under way.
    fn begin(self: &Arc<Self>, state: &mut State) {
        if state.schedule.begin() {
            let fetch = Fetch { keys: Arc::clone(self), outcome: None };
            tokio::spawn(fetch.run());
        }
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
        let headers = HeaderMap::from_iter([(ACCEPT, accept)]);
        let asked = self.inquirer.ask(Method::GET, headers, Bytes::new()).await;
        let (status, body) = asked.map_err(|error| error.detail)?;
        if status != StatusCode::OK {
            return Err(format!("the issuer answered {status}"));
        }
        KeySet::of_published(&body, &self.allowed).map_err(|error| format!("the issuer's JWKS: {error}"))
    }

    fn finish(&self, outcome: Result<KeySet, String>) {
        let mut state = self.lock();
        let now = Instant::now();
        match outcome {
            Ok(keys) => {
                state.schedule.succeed(now);
                let same = state.keys.as_ref().is_some_and(|known| known.digest == keys.digest);
                if !same {
                    tracing::info!(security = &*self.definition, "the issuer has new keys");
                    state.keys = Some(Arc::new(keys));
                }
            }
            Err(reason) => {
                state.schedule.fail(now);
                tracing::warn!(security = &*self.definition, reason, "the issuer's keys cannot be fetched");
            }
        }
        drop(state);
        self.finished.send_modify(|finished| *finished = finished.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fetch under way. Whatever becomes of it, those who wait learn that it is over.
struct Fetch {
    keys: Arc<RemoteKeys>,
    outcome: Option<Result<KeySet, String>>,
}

impl Fetch {
    async fn run(mut self) {
        self.outcome = Some(self.keys.fetch().await);
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        self.keys.finish(outcome.unwrap_or_else(|| Err("the fetch was cut off".to_owned())));
    }
}
