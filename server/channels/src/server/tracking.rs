//! What the server knows of its open connections: enough to end idle and stalled ones and to drain, with no
//! timer per connection or request.
//!
//! One sweep every 20 to 500 ms looks at all connections and gives orders; the connection's task obeys at
//! its next poll. Requests pay two relaxed atomic writes. Times are milliseconds of a coarse clock that the
//! sweep advances, so they are late by one sweep at most. The verdict itself ([`verdict`]) is a pure
//! function of a connection's figures and the time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::client_address::Neighbour;
use crate::ports::{ConnectionShare, WholeShare};
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// What a connection is told to do. Orders only ever grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Go on.
    Serve = 0,
    /// HTTP/2 only: announce the end (GOAWAY), finish what runs.
    Finish = 1,
    /// Close, with a proper end of TLS and of the byte stream where nothing is in the way of it.
    Close = 2,
    /// Drop everything at once.
    Abort = 3,
}

impl Order {
    fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Serve,
            1 => Self::Finish,
            2 => Self::Close,
            _ => Self::Abort,
        }
    }
}

/// Whether a connection speaks HTTP/2, whose end is announced, or HTTP/1, whose end stands in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A service, or something else a client wants.
    Service,
    /// Finding out how the server is. Not counted as traffic: a load balancer asks a drained server, too.
    Probe,
}

/// The figures of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    server: Arc<Connections>,
    id: u64,
    neighbour: Neighbour,
    http2: AtomicBool,
    in_flight: AtomicU32,
    /// Since when it is idle, when nothing is in flight.
    idle_since: AtomicU64,
    /// Bytes of a next request have been read since the last one ended.
    mid_head: AtomicBool,
    /// Since when the peer takes no bytes; 0 while it does.
    write_blocked_since: AtomicU64,
    order: AtomicU8,
    /// The sending side is being shut.
    closing: AtomicBool,
    waker: AtomicWaker,
}

/// All connections of a server, and where it stands in its life.
pub(crate) struct Connections {
    share: Arc<dyn ConnectionShare>,
    epoch: Instant,
    clock: AtomicU64,
    draining: AtomicBool,
    draining_since: AtomicU64,
    open: AtomicUsize,
    next_id: AtomicU64,
    all: Mutex<HashMap<u64, Arc<ConnectionState>>>,
    /// Told whenever a connection ends.
    pub(super) ended: Notify,
}

/// The times a sweep judges by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// For a request's head, and between requests.
    pub(super) idle: Duration,
    /// For a peer that takes no bytes.
    pub(super) stalled: Duration,
    /// For idle connections of a draining server, unless they are a load balancer's.
    pub(super) linger: Duration,
}

impl Patience {
    /// How often to sweep so that no time is exceeded by much.
    pub(super) fn tick(&self) -> Duration {
        let shortest = self.idle.min(self.stalled).min(self.linger.max(Duration::from_millis(160)));
        (shortest / 8).clamp(Duration::from_millis(20), Duration::from_millis(500))
    }
}

/// A connection's figures at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) neighbour: Neighbour,
    pub(super) protocol: Protocol,
    pub(super) in_flight: u32,
    pub(super) idle_ms: u64,
    pub(super) mid_head: bool,
    pub(super) write_blocked_ms: Option<u64>,
    pub(super) draining_ms: Option<u64>,
}

/// What a connection with these figures must do.
pub(super) fn verdict(figures: &Figures, patience: &Patience) -> Order {
    let exceeds = |ms: u64, limit: Duration| u128::from(ms) >= limit.as_millis();
    if figures.write_blocked_ms.is_some_and(|ms| exceeds(ms, patience.stalled)) {
        return Order::Close;
    }
    let idle = figures.in_flight == 0 && figures.write_blocked_ms.is_none();
    if idle && exceeds(figures.idle_ms, patience.idle) {
        // An HTTP/2 peer is told first and closed only when that changed nothing.
        let told_long_ago = exceeds(figures.idle_ms, patience.idle.saturating_mul(2));
        return match figures.protocol {
            Protocol::Http2 if !told_long_ago => Order::Finish,
            _ => Order::Close,
        };
    }
    let Some(draining_ms) = figures.draining_ms else { return Order::Serve };
    // A response that began before the drain did not announce the end: its connection lingers from its own end
    // on. A load balancer's pool is never closed first: for how long it keeps a connection depends on how many
    // it has, and a request that is not idempotent would be lost with one that closes under it. It is told by
    // its next response or gives the connection up by itself; the drain's deadline bounds both.
    let lingered = exceeds(draining_ms.min(figures.idle_ms), patience.linger);
    if idle && !figures.mid_head && lingered && figures.neighbour == Neighbour::Anybody {
        return Order::Close;
    }
    if figures.protocol == Protocol::Http2 { Order::Finish } else { Order::Serve }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Connections {
    pub(super) fn new(share: Arc<dyn ConnectionShare>) -> Arc<Self> {
        Arc::new(Self {
            share,
            epoch: Instant::now(),
            clock: AtomicU64::new(1),
            draining: AtomicBool::new(false),
            draining_since: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            all: Mutex::new(HashMap::new()),
            ended: Notify::new(),
        })
    }

    /// Advances the coarse clock to now; it never shows 0, which means "not".
    fn advance(&self) -> u64 {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        self.clock.store(now, Ordering::Relaxed);
        now
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Marks the server as draining; says whether it was not before.
    pub(super) fn start_draining(&self) -> bool {
        let now = self.advance();
        if self.draining.swap(true, Ordering::Relaxed) {
            return false;
        }
        self.draining_since.store(now, Ordering::Relaxed);
        true
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self) -> usize {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().map(|c| c.in_flight.load(Ordering::Relaxed) as usize).sum()
    }

    /// Enters a new connection, whose other end is `neighbour` once it is let in.
    pub(super) fn enter(self: &Arc<Self>, neighbour: Neighbour) -> Arc<ConnectionState> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(ConnectionState::new(Arc::clone(self), id, neighbour));
        self.open.fetch_add(1, Ordering::Relaxed);
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&state));
        state
    }

    /// Looks at every connection and gives orders.
    pub(super) fn sweep(&self, patience: &Patience) {
        let now = self.advance();
        let draining_ms =
            self.is_draining().then(|| now.saturating_sub(self.draining_since.load(Ordering::Relaxed)));
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in all.values() {
            let figures = connection.figures(now, draining_ms);
            connection.give(verdict(&figures, patience));
        }
    }

    /// Tells every connection to go at once.
    pub(super) fn abort_all(&self) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in all.values() {
            connection.give(Order::Abort);
        }
    }
}

/// Something that a draining server waits for, as it waits for a connection.
pub(crate) struct Held(Arc<Connections>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_waiters();
    }
}

impl ConnectionState {
    fn new(server: Arc<Connections>, id: u64, neighbour: Neighbour) -> Self {
        let now = server.advance();
        Self {
            server,
            id,
            neighbour,
            http2: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(now),
            mid_head: AtomicBool::new(false),
            write_blocked_since: AtomicU64::new(0),
            order: AtomicU8::new(Order::Serve as u8),
            closing: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// The figures of requests that come over no connection.
    pub(crate) fn unconnected() -> Arc<Self> {
        Arc::new(Self::new(Connections::new(Arc::new(WholeShare)), 0, Neighbour::Anybody))
    }

    pub(super) fn leave(&self) {
        self.server.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.server.open.fetch_sub(1, Ordering::Relaxed);
        self.server.ended.notify_waiters();
    }

    /// Keeps the server from ending while something runs that its connection may not wait for.
    pub(crate) fn hold(&self) -> Held {
        self.server.open.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(&self.server))
    }

    pub(super) fn speaks(&self, protocol: Protocol) {
        self.http2.store(protocol == Protocol::Http2, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.server.is_draining()
    }

    /// A request's head has arrived.
    pub(crate) fn request_started(&self, purpose: Purpose) {
        if purpose == Purpose::Service {
            self.server.share.request_started();
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.mid_head.store(false, Ordering::Relaxed);
    }

    /// Its reply was handed over, or it was given up.
    pub(crate) fn request_ended(&self, purpose: Purpose) {
        self.idle_since.store(self.server.now(), Ordering::Relaxed);
        self.mid_head.store(false, Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if purpose == Purpose::Service {
            self.server.share.request_ended();
        }
    }

    pub(super) fn bytes_read(&self) {
        self.mid_head.store(true, Ordering::Relaxed);
    }

    pub(super) fn write_blocked(&self) {
        if self.write_blocked_since.load(Ordering::Relaxed) == 0 {
            self.write_blocked_since.store(self.server.advance(), Ordering::Relaxed);
        }
    }

    pub(super) fn write_progressed(&self) {
        if self.write_blocked_since.load(Ordering::Relaxed) != 0 {
            self.write_blocked_since.store(0, Ordering::Relaxed);
            self.idle_since.store(self.server.now(), Ordering::Relaxed);
        }
    }

    pub(super) fn closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    fn figures(&self, now: u64, draining_ms: Option<u64>) -> Figures {
        let http2 = self.http2.load(Ordering::Relaxed);
        let blocked = self.write_blocked_since.load(Ordering::Relaxed);
        Figures {
            neighbour: self.neighbour,
            protocol: if http2 { Protocol::Http2 } else { Protocol::Http1 },
            in_flight: self.in_flight.load(Ordering::Relaxed),
            idle_ms: now.saturating_sub(self.idle_since.load(Ordering::Relaxed)),
            // HTTP/2 frames between requests are no request's head.
            mid_head: !http2 && self.mid_head.load(Ordering::Relaxed),
            write_blocked_ms: (blocked != 0).then(|| now.saturating_sub(blocked)),
            draining_ms,
        }
    }

    fn give(&self, order: Order) {
        if self.order.fetch_max(order as u8, Ordering::Relaxed) < order as u8 {
            self.waker.wake();
        }
    }

    /// The order in force; `waker` is woken when it changes.
    pub(super) fn order(&self, waker: Option<&std::task::Waker>) -> Order {
        if let Some(waker) = waker {
            self.waker.register(waker);
        }
        Order::from_u8(self.order.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        idle: Duration::from_millis(1_000),
        stalled: Duration::from_millis(2_000),
        linger: Duration::from_millis(500),
    };

    fn idle(ms: u64) -> Figures {
        Figures {
            neighbour: Neighbour::Anybody,
            protocol: Protocol::Http1,
            in_flight: 0,
            idle_ms: ms,
            mid_head: false,
            write_blocked_ms: None,
            draining_ms: None,
        }
    }

    #[test]
    fn an_idle_connection_is_closed_after_its_time() {
        assert_eq!(verdict(&idle(999), &PATIENCE), Order::Serve);
        assert_eq!(verdict(&idle(1_000), &PATIENCE), Order::Close);
        let busy = Figures { in_flight: 1, ..idle(9_999) };
        assert_eq!(verdict(&busy, &PATIENCE), Order::Serve);
        let slow_head = Figures { mid_head: true, ..idle(1_000) };
        assert_eq!(verdict(&slow_head, &PATIENCE), Order::Close);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_closed_and_a_slow_one_is_not() {
        let stalled = Figures { in_flight: 1, write_blocked_ms: Some(2_000), ..idle(0) };
        assert_eq!(verdict(&stalled, &PATIENCE), Order::Close);
        let slow = Figures { write_blocked_ms: Some(1_999), ..idle(9_999) };
        assert_eq!(verdict(&slow, &PATIENCE), Order::Serve);
    }

    #[test]
    fn draining_closes_idle_http1_connections_only_after_the_linger() {
        let at = |ms| Figures { draining_ms: Some(ms), ..idle(900) };
        assert_eq!(verdict(&at(0), &PATIENCE), Order::Serve);
        assert_eq!(verdict(&at(499), &PATIENCE), Order::Serve);
        assert_eq!(verdict(&at(500), &PATIENCE), Order::Close);
        let with_request = Figures { in_flight: 1, ..at(500) };
        assert_eq!(verdict(&with_request, &PATIENCE), Order::Serve);
        let with_half_a_head = Figures { mid_head: true, ..at(500) };
        assert_eq!(verdict(&with_half_a_head, &PATIENCE), Order::Serve);
        let just_answered = Figures { draining_ms: Some(5_000), ..idle(499) };
        assert_eq!(verdict(&just_answered, &PATIENCE), Order::Serve);
    }

    #[test]
    fn draining_never_closes_what_a_load_balancer_may_use_at_this_moment() {
        let pooled = Figures { neighbour: Neighbour::LoadBalancer, draining_ms: Some(60_000), ..idle(900) };
        assert_eq!(verdict(&pooled, &PATIENCE), Order::Serve);
        // Beyond the time between requests nobody may keep one, draining or not.
        let forgotten = Figures { idle_ms: 1_000, ..pooled };
        assert_eq!(verdict(&forgotten, &PATIENCE), Order::Close);
    }

    #[test]
    fn http2_is_told_before_it_is_closed() {
        let h2 = |figures: Figures| Figures { protocol: Protocol::Http2, ..figures };
        assert_eq!(verdict(&h2(idle(1_000)), &PATIENCE), Order::Finish);
        assert_eq!(verdict(&h2(idle(2_000)), &PATIENCE), Order::Close);
        let draining = h2(Figures { in_flight: 3, draining_ms: Some(0), ..idle(0) });
        assert_eq!(verdict(&draining, &PATIENCE), Order::Finish);
    }

    #[test]
    fn sweeps_come_often_enough_for_the_shortest_time() {
        assert_eq!(PATIENCE.tick(), Duration::from_micros(62_500));
        let long = Duration::from_secs(60);
        assert_eq!(Patience { idle: long, stalled: long, linger: long }.tick(), Duration::from_millis(500));
    }
}
