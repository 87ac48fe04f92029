//! Connections to one origin: kept while they are of use, never more than allowed.
//!
//! The lock is held for a few instructions at a time and never across an await. A connection of HTTP/1 is
//! taken by one call and given back when its answer was read; one of HTTP/2 is shared by many. Whoever finds
//! everything taken waits in line, and what is given back goes to the first in line. Of several idle
//! connections the one used last is taken, and rather one of the caller's own reactor: waking another thread
//! costs more than the rest of a call.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use tokio::runtime::Id;
use tokio::sync::oneshot;

use super::body::SendBody;

/// Most calls at a time over one connection of HTTP/2: what servers allow as a rule (RFC 9113, section 6.5.2,
/// asks for 100 at least).
const MAX_STREAMS: usize = 100;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Most connections.
    max: usize,
    /// How long one is kept that nobody uses.
    idle: Duration,
}

#[derive(Default)]
struct State {
    /// Connections of HTTP/1 that nobody uses, the one used last at the end.
    idle: Vec<Idle>,
    /// Connections of HTTP/2.
    shared: Vec<Arc<Shared>>,
    /// Connections there are or that are being made.
    open: usize,
    waiting: VecDeque<oneshot::Sender<Taken>>,
    /// Whether the last connection made was one of HTTP/2: one is then enough for all who wait.
    is_shared: bool,
    /// Connections being made.
    making: usize,
    /// Whether a task ends what was idle for too long.
    is_swept: bool,
}

struct Idle {
    connection: Exclusive,
    since: Instant,
    reactor: Id,
}

/// Connections that ended.
#[derive(Default)]
struct Ended {
    idle: Vec<Idle>,
    shared: Vec<Arc<Shared>>,
}

/// What a call gets.
pub(crate) enum Taken {
    /// A connection of HTTP/1 for itself, used before.
    Exclusive(Exclusive),
    /// A place on a connection of HTTP/2.
    Stream(Stream),
    /// The permission to make a connection.
    Place(Place),
}

/// A connection of HTTP/1.
pub(crate) struct Exclusive {
    pub(crate) sender: http1::SendRequest<SendBody>,
    _place: Place,
}

/// A connection of HTTP/2.
struct Shared {
    sender: http2::SendRequest<SendBody>,
    streams: AtomicUsize,
    /// When the last call over it ended.
    since: Mutex<Instant>,
    _place: Place,
}

/// One call's place on a connection of HTTP/2.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    pool: Weak<Inner>,
}

/// A connection of HTTP/2, for as long as it is there.
pub(crate) struct Handle {
    shared: Weak<Shared>,
    pool: Weak<Inner>,
}

/// One of the connections a pool may have, from when it is made to its end.
pub(crate) struct Place {
    pool: Option<Weak<Inner>>,
    is_made: bool,
}

impl Pool {
    /// A pool of at most `max` connections that keeps idle ones for `idle`.
    pub(crate) fn new(max: usize, idle: Duration) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), max: max.max(1), idle }))
    }

    /// A connection, a place on one, or the permission to make one; waits until there is any.
    pub(crate) async fn take(&self) -> Taken {
        loop {
            // Dropped after the lock is released: that frees places, which takes the lock.
            let mut ended = Ended::default();
            let waiting = {
                let mut state = self.0.lock();
                if let Some(taken) = self.0.find(&mut state, &mut ended) {
                    drop(state);
                    return taken;
                }
                while state.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                    state.waiting.pop_front();
                }
                let (sender, receiver) = oneshot::channel();
                state.waiting.push_back(sender);
                receiver
            };
            drop(ended);
            if let Ok(taken) = waiting.await {
                return taken;
            }
        }
    }

    /// Makes a connection of HTTP/1 out of a place and what was made for it.
    pub(crate) fn exclusive(sender: http1::SendRequest<SendBody>, mut place: Place) -> Exclusive {
        place.made(false);
        Exclusive { sender, _place: place }
    }

    /// Shares a connection of HTTP/2 with all who wait; gives a place on it.
    pub(crate) fn share(&self, sender: http2::SendRequest<SendBody>, mut place: Place) -> Stream {
        place.made(true);
        let shared = Arc::new(Shared {
            sender,
            streams: AtomicUsize::new(1),
            since: Mutex::new(Instant::now()),
            _place: place,
        });
        let mut state = self.0.lock();
        state.shared.push(Arc::clone(&shared));
        self.0.serve_streams(&mut state, &shared);
        self.0.sweep(&mut state);
        drop(state);
        Stream { shared, pool: Arc::downgrade(&self.0) }
    }

    /// Takes back a connection of HTTP/1 whose last answer was read to its end.
    pub(crate) fn give_back(&self, connection: Exclusive) {
        if connection.sender.is_closed() {
            return;
        }
        let mut taken = Taken::Exclusive(connection);
        let mut state = self.0.lock();
        while let Some(first) = state.waiting.pop_front() {
            match first.send(taken) {
                Ok(()) => return,
                Err(back) => taken = back,
            }
        }
        let Taken::Exclusive(connection) = taken else { return };
        if self.0.idle.is_zero() {
            drop(state);
            return drop(connection);
        }
        state.idle.push(Idle { connection, since: Instant::now(), reactor: current_reactor() });
        self.0.sweep(&mut state);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is free, if anything is. What turned out to have ended goes to `ended`.
    fn find(self: &Arc<Self>, state: &mut State, ended: &mut Ended) -> Option<Taken> {
        let is_closed = |shared: &mut Arc<Shared>| shared.sender.is_closed();
        ended.shared.extend(state.shared.extract_if(.., is_closed));
        let free = state.shared.iter().find(|shared| shared.streams.load(Ordering::Acquire) < MAX_STREAMS);
        if let Some(shared) = free {
            shared.streams.fetch_add(1, Ordering::AcqRel);
            return Some(Taken::Stream(Stream { shared: Arc::clone(shared), pool: Arc::downgrade(self) }));
        }
        let reactor = current_reactor();
        while let Some(idle) = pick(&mut state.idle, reactor) {
            if !idle.connection.sender.is_closed() && idle.since.elapsed() < self.idle {
                return Some(Taken::Exclusive(idle.connection));
            }
            ended.idle.push(idle);
        }
        let one_is_enough = state.is_shared && state.making > 0;
        (!one_is_enough).then(|| self.place(state)).flatten().map(Taken::Place)
    }

    /// A place for a new connection, if there may be one more.
    fn place(self: &Arc<Self>, state: &mut State) -> Option<Place> {
        (state.open < self.max).then(|| {
            state.open += 1;
            state.making += 1;
            Place { pool: Some(Arc::downgrade(self)), is_made: false }
        })
    }

    /// Gives free places to those who wait.
    fn serve_places(self: &Arc<Self>, state: &mut State) {
        while let Some(first) = state.waiting.pop_front() {
            let Some(place) = self.place(state) else { return state.waiting.push_front(first) };
            if let Err(Taken::Place(mut place)) = first.send(Taken::Place(place)) {
                // Nobody waits there any more; dropped as it is, it would ask for the lock.
                place.pool = None;
                state.open = state.open.saturating_sub(1);
                state.making = state.making.saturating_sub(1);
            }
        }
    }

    /// Lets those who wait onto a connection of HTTP/2 for as long as there is room.
    fn serve_streams(self: &Arc<Self>, state: &mut State, shared: &Arc<Shared>) {
        while shared.streams.load(Ordering::Acquire) < MAX_STREAMS {
            let Some(first) = state.waiting.pop_front() else { return };
            shared.streams.fetch_add(1, Ordering::AcqRel);
            let stream = Stream { shared: Arc::clone(shared), pool: Arc::downgrade(self) };
            if let Err(Taken::Stream(stream)) = first.send(Taken::Stream(stream)) {
                stream.forget();
            }
        }
    }

    /// Starts the task that ends idle connections, if it is needed and does not run.
    fn sweep(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle));
        }
    }

    /// A place is free.
    fn free(self: &Arc<Self>, was_made: bool) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        if !was_made {
            state.making = state.making.saturating_sub(1);
        }
        self.serve_places(&mut state);
    }
}

/// The reactor that the caller runs on.
fn current_reactor() -> Id {
    tokio::runtime::Handle::current().id()
}

/// The connection used last, of this reactor if there is one.
fn pick(idle: &mut Vec<Idle>, reactor: Id) -> Option<Idle> {
    let own = idle.iter().rposition(|idle| idle.reactor == reactor);
    match own {
        Some(index) => Some(idle.remove(index)),
        None => idle.pop(),
    }
}

/// Ends connections that were idle for too long; itself when there are none left.
async fn sweep(pool: Weak<Inner>, limit: Duration) {
    loop {
        tokio::time::sleep((limit / 4).max(Duration::from_millis(10))).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut ended = Ended::default();
        let mut state = pool.lock();
        let is_over = |idle: &mut Idle| idle.since.elapsed() >= limit || idle.connection.sender.is_closed();
        ended.idle.extend(state.idle.extract_if(.., is_over));
        ended.shared.extend(state.shared.extract_if(.., |shared| shared.is_over(limit)));
        let is_empty = state.idle.is_empty() && state.shared.is_empty();
        if is_empty {
            state.is_swept = false;
        }
        drop(state);
        drop(ended);
        if is_empty {
            return;
        }
    }
}

impl Shared {
    fn is_over(&self, limit: Duration) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        self.sender.is_closed() || (self.streams.load(Ordering::Acquire) == 0 && since.elapsed() >= limit)
    }
}

impl Stream {
    /// What requests are sent with.
    pub(crate) fn sender(&self) -> http2::SendRequest<SendBody> {
        self.shared.sender.clone()
    }

    /// The connection, for whoever finds that it is of no use.
    pub(crate) fn handle(&self) -> Handle {
        Handle { shared: Arc::downgrade(&self.shared), pool: self.pool.clone() }
    }

    /// Gives up the place under a lock that is held already.
    fn forget(mut self) {
        self.pool = Weak::new();
    }
}

impl Handle {
    /// Keeps later calls away from this connection: it does not answer, or breaks off.
    pub(crate) fn avoid(&self) {
        if let Some(pool) = self.pool.upgrade() {
            let mut state = pool.lock();
            let found = state.shared.iter().position(|known| self.shared.ptr_eq(&Arc::downgrade(known)));
            let avoided = found.map(|index| state.shared.swap_remove(index));
            drop(state);
            drop(avoided);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::AcqRel);
        *self.shared.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if let Some(pool) = self.pool.upgrade() {
            let mut state = pool.lock();
            let is_known = state.shared.iter().any(|known| Arc::ptr_eq(known, &self.shared));
            if is_known && !self.shared.sender.is_closed() {
                pool.serve_streams(&mut state, &self.shared);
            }
        }
    }
}

impl Place {
    /// The connection is there.
    fn made(&mut self, is_shared: bool) {
        self.is_made = true;
        if let Some(pool) = self.pool.as_ref().and_then(Weak::upgrade) {
            let mut state = pool.lock();
            state.making = state.making.saturating_sub(1);
            state.is_shared = is_shared;
            if !is_shared {
                // They wait for a connection that could be shared, and it is none.
                pool.serve_places(&mut state);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take().and_then(|pool| pool.upgrade()) {
            pool.free(self.is_made);
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Pool").field("open", &state.open).field("idle", &state.idle.len()).finish()
    }
}
