//! One call's answer on its way from the thread that makes it to the future that waits for it.
//!
//! Whoever answers first wins: the handler, the watch at the deadline, or nobody once the caller went away.
//! Waking a reactor from another thread costs a system call each time; a [`Mailbox`] makes that one per burst
//! instead of one per answer: the first waker is called, the others wait in a queue that the awakened reactor
//! empties before it looks at anything else, waking the rest from its own thread, which is cheap.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use crosstie_model::{Failure, Reply};

/// What a piece of work came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A service answered.
    Reply(Reply),
    /// A stream made its next piece; `None` at its end.
    Piece(Option<Bytes>),
}

/// A finished piece of work.
pub(crate) type Answer = Result<Outcome, Failure>;

/// One awaited answer.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// When the caller stops waiting.
    pub(crate) deadline: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nobody answered yet; the waker is there once somebody waits.
    Open(Option<(Waker, Arc<Mailbox>)>),
    /// Answered, not yet picked up. Boxed: a ticket is small while it waits.
    Answered(Box<Answer>),
    /// Picked up, or the caller went away.
    Closed,
}

impl Ticket {
    pub(crate) fn new(deadline: Instant) -> Arc<Self> {
        Arc::new(Self { deadline, state: Mutex::new(State::Open(None)) })
    }

    /// Whether an answer is still of use.
    pub(crate) fn is_open(&self) -> bool {
        matches!(*self.lock(), State::Open(_))
    }

    /// Gives the answer; says whether it was the first.
    pub(crate) fn answer(&self, answer: Answer) -> bool {
        let mut state = self.lock();
        let State::Open(waker) = &mut *state else { return false };
        let waker = waker.take();
        *state = State::Answered(Box::new(answer));
        if let Some((waker, mailbox)) = waker {
            // Still locked: the future cannot go away between here and its last look at the mailbox.
            mailbox.post(waker);
        }
        true
    }

    /// Waits for the answer.
    pub(crate) fn wait(self: &Arc<Self>) -> Waiting {
        Waiting { ticket: Arc::clone(self), mailbox: None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The future of a [`Ticket`]'s answer. Dropping it closes the ticket.
#[derive(Debug)]
pub(crate) struct Waiting {
    ticket: Arc<Ticket>,
    mailbox: Option<Arc<Mailbox>>,
}

impl Future for Waiting {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let mailbox = self.mailbox.get_or_insert_with(Mailbox::of_this_thread).clone();
        mailbox.empty();
        let mut state = self.ticket.lock();
        match &mut *state {
            State::Open(waker) => {
                match waker {
                    Some((known, _)) if known.will_wake(context.waker()) => {}
                    _ => *waker = Some((context.waker().clone(), mailbox)),
                }
                Poll::Pending
            }
            answered => match std::mem::replace(answered, State::Closed) {
                State::Answered(answer) => Poll::Ready(*answer),
                // Polled again after the answer: there is none to give twice.
                State::Open(_) | State::Closed => Poll::Ready(Err(Failure::service())),
            },
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let closed = std::mem::replace(&mut *self.ticket.lock(), State::Closed);
        drop(closed);
        // This future may have been the one that was woken to empty the mailbox.
        if let Some(mailbox) = &self.mailbox {
            mailbox.empty();
        }
    }
}

/// The wakers of one reactor thread that have something to look at.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    posted: SegQueue<Waker>,
    /// A waker was called and has not yet led to [`Mailbox::empty`].
    announced: AtomicBool,
}

impl Mailbox {
    fn of_this_thread() -> Arc<Self> {
        thread_local! {
            static MAILBOX: RefCell<Option<Arc<Mailbox>>> = const { RefCell::new(None) };
        }
        MAILBOX.with_borrow_mut(|mailbox| Arc::clone(mailbox.get_or_insert_default()))
    }

    /// Posts the waker of a future that cannot be dropped before this returns; when it is, it empties the
    /// mailbox. So whatever is announced here is seen to, even if the future that is woken is gone by then.
    fn post(&self, waker: Waker) {
        self.posted.push(waker);
        if !self.announced.swap(true, Ordering::AcqRel)
            && let Some(waker) = self.posted.pop()
        {
            waker.wake();
        }
    }

    /// Wakes everything posted. A post that this call misses sees `announced` lowered and wakes for itself.
    fn empty(&self) {
        if self.announced.load(Ordering::Acquire) && self.announced.swap(false, Ordering::AcqRel) {
            while let Some(waker) = self.posted.pop() {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::message::ReplyBody;
    use std::time::Duration;

    fn ticket() -> Arc<Ticket> {
        Ticket::new(Instant::now() + Duration::from_secs(5))
    }

    fn reply() -> Answer {
        Ok(Outcome::Reply(Reply::new(ReplyBody::Empty)))
    }

    #[tokio::test]
    async fn the_first_answer_wins() {
        let ticket = ticket();
        let waiting = ticket.wait();
        assert!(ticket.answer(Err(Failure::timeout())));
        assert!(!ticket.answer(reply()));
        assert_eq!(waiting.await.unwrap_err(), Failure::timeout());
    }

    #[tokio::test]
    async fn an_answer_after_the_caller_left_is_dropped() {
        let ticket = ticket();
        drop(ticket.wait());
        assert!(!ticket.is_open());
        assert!(!ticket.answer(reply()));
    }

    #[tokio::test]
    async fn every_waiter_of_a_burst_is_woken_even_if_some_leave() {
        for round in 0..50 {
            let tickets: Vec<_> = (0..64).map(|_| ticket()).collect();
            let tasks: Vec<_> = tickets.iter().map(|ticket| tokio::spawn(ticket.wait())).collect();
            tokio::task::yield_now().await;
            let answering = std::thread::spawn(move || {
                for ticket in tickets {
                    ticket.answer(reply());
                }
            });
            for (number, task) in tasks.into_iter().enumerate() {
                if (number + round) % 3 == 0 {
                    task.abort();
                } else {
                    let answer = tokio::time::timeout(Duration::from_secs(5), task).await;
                    answer.expect("a waiter was never woken").unwrap().unwrap();
                }
            }
            answering.join().unwrap();
        }
    }
}
