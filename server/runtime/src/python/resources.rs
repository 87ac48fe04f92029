//! What a call holds outside of it, such as a transaction, and must not keep when it is over: a service that
//! raised, or that hangs past its deadline in a library that nobody can interrupt, would keep locks of others.

use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use crosstie_model::outgoing::{SqlStream, SqlTransaction};

/// Something that is to be let go of.
enum Resource {
    Stream(Weak<dyn SqlStream>),
    Transaction(Weak<dyn SqlTransaction>),
}

/// What one call holds.
#[derive(Default)]
pub(crate) struct Resources(Mutex<State>);

#[derive(Default)]
struct State {
    held: Vec<Resource>,
    is_over: bool,
}

impl Resources {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call holds `stream`.
    pub(crate) fn add_stream(&self, stream: Weak<dyn SqlStream>) {
        self.add(Resource::Stream(stream));
    }

    /// The call holds `transaction`.
    pub(crate) fn add_transaction(&self, transaction: Weak<dyn SqlTransaction>) {
        self.add(Resource::Transaction(transaction));
    }

    fn add(&self, resource: Resource) {
        let mut state = self.state();
        if state.is_over {
            drop(state);
            resource.abandon();
            return;
        }
        // A service may open many, one after the other.
        if state.held.len() == state.held.capacity() {
            state.held.retain(Resource::is_alive);
        }
        state.held.push(resource);
    }

    /// The call is over: lets go of everything.
    pub(crate) fn close(&self) {
        let held = {
            let mut state = self.state();
            state.is_over = true;
            std::mem::take(&mut state.held)
        };
        held.iter().for_each(Resource::abandon);
    }
}

impl Resource {
    fn is_alive(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.strong_count() > 0,
            Self::Transaction(transaction) => transaction.strong_count() > 0,
        }
    }

    fn abandon(&self) {
        match self {
            Self::Stream(stream) => {
                stream.upgrade().inspect(|stream| stream.abandon());
            }
            Self::Transaction(transaction) => {
                transaction.upgrade().inspect(|transaction| transaction.abandon());
            }
        }
    }
}
