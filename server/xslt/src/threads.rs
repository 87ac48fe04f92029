//! The threads that transform: as many as there are cores, started when they are needed, never ended.
//!
//! They have large stacks, of which only what is used costs memory: libxslt calls itself for each instruction within
//! another, and for each template that calls one. None of them ever runs Python, so what services
//! do to libxml2 for their threads is none of theirs.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

/// Address space of one stack. A level that counts as depth takes some 600 bytes of it, and definitions allow 10,000;
/// expressions recurse 5,000 deep at most and calls of functions with them.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Most threads, however many cores there are.
const MOST: usize = 16;

type Work = Box<dyn FnOnce() + Send>;

struct Threads {
    state: Mutex<State>,
    wake: Condvar,
    most: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

static THREADS: LazyLock<Threads> = LazyLock::new(|| Threads {
    state: Mutex::default(),
    wake: Condvar::new(),
    most: thread::available_parallelism().map_or(2, usize::from).clamp(2, MOST),
});

impl Threads {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&'static self, work: Work) {
        let mut state = self.state();
        state.waiting.push_back(work);
        if state.waiting.len() > state.idle && state.threads < self.most {
            let started = thread::Builder::new()
                .name("transform".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || self.serve());
            match started {
                Ok(_) => state.threads += 1,
                // Nobody would ever do it; whoever waits learns that it was dropped.
                Err(_) if state.threads == 0 => state.waiting.clear(),
                Err(_) => {}
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    fn serve(&self) {
        let mut state = self.state();
        loop {
            if let Some(work) = state.waiting.pop_front() {
                drop(state);
                // Whoever waits learns of a panic by what the work does not send.
                let _ = catch_unwind(AssertUnwindSafe(work));
                state = self.state();
                continue;
            }
            state.idle += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

/// Runs `work` on one of the threads; `None` when it could not be run to its end.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    // Whoever asked may have left.
    THREADS.submit(Box::new(move || drop(sender.send(work()))));
    receiver.await.ok()
}

/// Runs `work` on a thread of its own, with the stack that the others have, and waits for it: for what must not stand
/// in line behind transformations. `None` when it could not be run to its end.
pub(crate) fn run_apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let thread = thread::Builder::new().name("transform".to_owned()).stack_size(STACK_BYTES).spawn(work);
    thread.ok()?.join().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn more_work_than_threads_is_all_done() {
        let waiting: Vec<_> =
            (0..100).map(|number| thread::spawn(move || wait(run(move || number)).unwrap())).collect();
        let sum: usize = waiting.into_iter().map(|waiting| waiting.join().unwrap()).sum();
        assert_eq!(sum, 4950);
        assert!(THREADS.state().threads <= THREADS.most);
    }

    #[test]
    fn a_panic_costs_its_own_caller_alone() {
        assert_eq!(wait(run(|| -> usize { panic!("a test panics") })), None);
        assert_eq!(run_apart(|| -> usize { panic!("a test panics") }), None);
        for _ in 0..THREADS.most * 2 {
            assert_eq!(wait(run(|| 7)), Some(7));
        }
    }
}
