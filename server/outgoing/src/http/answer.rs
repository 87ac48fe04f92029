//! The body of an answer: within its limit, in time, and the connection given back once it was read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::outgoing::{OutgoingError, Pace, Trouble};
use crosstie_telemetry::metrics::CallOutcome;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::circuit::{Admitted, Verdict};
use super::exchange::{Lease, broken};
use super::pool::Pool;
use crate::observe::Observed;

/// How long a connection whose answer was read may take to be done with its request as well.
const AFTERMATH: Duration = Duration::from_secs(1);

/// See the module. Dropped early it cuts the answer off.
pub(crate) struct Receiving {
    incoming: Incoming,
    /// Bytes that may still come.
    left: u64,
    limit: u64,
    /// Ends at the deadline.
    sleep: Pin<Box<Sleep>>,
    /// How long each piece may take, where it is not the whole that is timed.
    patience: Option<Duration>,
    /// Whether a missed deadline is the other system's doing.
    is_own_deadline: bool,
    lease: Option<Lease>,
    pool: Pool,
    outcome: CallOutcome,
    call: Option<(Observed, Option<Admitted>)>,
}

/// What a body's answer was part of.
pub(crate) struct Ongoing {
    pub(crate) pace: Pace,
    /// How long a piece may take.
    pub(crate) patience: Duration,
    pub(crate) is_own_deadline: bool,
    pub(crate) limit: u64,
    pub(crate) outcome: CallOutcome,
    pub(crate) observed: Observed,
    pub(crate) admitted: Option<Admitted>,
}

impl Receiving {
    /// The body `incoming`, which comes over `lease`.
    pub(crate) fn new(
        incoming: Incoming,
        lease: Lease,
        pool: Pool,
        sleep: Pin<Box<Sleep>>,
        call: Ongoing,
    ) -> Self {
        let Ongoing { pace, patience, is_own_deadline, limit, outcome, observed, mut admitted } = call;
        if pace == Pace::Pieces {
            // The other system works; how long its pieces take depends on who reads them.
            if let Some(admitted) = admitted.take() {
                admitted.judge(verdict_of(outcome), Instant::now());
            }
        }
        let mut receiving = Self {
            incoming,
            left: limit,
            limit,
            sleep,
            patience: (pace == Pace::Pieces).then_some(patience),
            is_own_deadline,
            lease: Some(lease),
            pool,
            outcome,
            call: Some((observed, admitted)),
        };
        if receiving.incoming.is_end_stream() {
            receiving.finish();
        } else {
            receiving.rest();
        }
        receiving
    }

    /// Everything came.
    fn finish(&mut self) {
        match self.lease.take() {
            Some(Lease::Exclusive(connection)) if connection.sender.is_ready() => {
                self.pool.give_back(connection);
            }
            Some(Lease::Exclusive(mut connection)) if !connection.sender.is_closed() => {
                // The answer came before the request was sent to its end.
                let pool = self.pool.clone();
                tokio::spawn(async move {
                    let done = tokio::time::timeout(AFTERMATH, connection.sender.ready()).await;
                    if matches!(done, Ok(Ok(()))) {
                        pool.give_back(connection);
                    }
                });
            }
            _ => {}
        }
        if let Some((mut observed, admitted)) = self.call.take() {
            observed.ended(self.outcome);
            if let Some(admitted) = admitted {
                admitted.judge(verdict_of(self.outcome), Instant::now());
            }
        }
    }

    /// It ends here, with an error.
    fn fail(&mut self, error: OutgoingError) -> OutgoingError {
        if let Some(Lease::Stream(stream)) = self.lease.take().filter(|_| error.trouble == Trouble::Deadline)
        {
            stream.handle().avoid();
        }
        if let Some((mut observed, admitted)) = self.call.take() {
            observed.failed(&error);
            if let Some(admitted) = admitted {
                let verdict = match error.trouble {
                    Trouble::Deadline if !self.is_own_deadline => Verdict::Nothing,
                    Trouble::TooLarge => Verdict::Works,
                    _ => Verdict::Fails,
                };
                admitted.judge(verdict, Instant::now());
            }
        }
        error
    }

    /// A new piece gets its own time.
    fn rest(&mut self) {
        if let Some(patience) = self.patience {
            self.sleep.as_mut().reset(tokio::time::Instant::now() + patience);
        }
    }

    fn name(&self) -> String {
        self.call.as_ref().map_or_else(String::new, |(observed, _)| observed.name().to_owned())
    }
}

/// What an outcome that is an answer says about the other system.
pub(crate) fn verdict_of(outcome: CallOutcome) -> Verdict {
    match outcome {
        CallOutcome::Ok | CallOutcome::ClientError | CallOutcome::ServerError => Verdict::Works,
        CallOutcome::Failed(_) => Verdict::Fails,
        CallOutcome::Abandoned => Verdict::Nothing,
    }
}

impl Body for Receiving {
    type Data = Bytes;
    type Error = OutgoingError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutgoingError>>> {
        let this = self.get_mut();
        if this.call.is_none() {
            return Poll::Ready(None);
        }
        let frame = match Pin::new(&mut this.incoming).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.sleep.as_mut().poll(context));
                let detail = format!("{} did not finish its answer in time", this.name());
                let error = OutgoingError::new(Trouble::Deadline, detail);
                return Poll::Ready(Some(Err(this.fail(error))));
            }
        };
        match frame {
            None => {
                this.finish();
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                let error = broken(&this.name(), &error);
                Poll::Ready(Some(Err(this.fail(error))))
            }
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = this.left.checked_sub(bytes) else {
                    let detail = format!("the answer of {} has more than {} bytes", this.name(), this.limit);
                    let error = OutgoingError::new(Trouble::TooLarge, detail);
                    return Poll::Ready(Some(Err(this.fail(error))));
                };
                this.left = left;
                if let (Some((observed, _)), Some(data)) = (&mut this.call, frame.data_ref())
                    && let Some(kept) = observed.kept()
                {
                    kept.receives(data);
                }
                if this.incoming.is_end_stream() {
                    this.finish();
                } else {
                    this.rest();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.call.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.call.is_none() { SizeHint::with_exact(0) } else { self.incoming.size_hint() }
    }
}
