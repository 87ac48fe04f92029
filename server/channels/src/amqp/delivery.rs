//! One message's way: wait, count, decode, claim, call, and then acknowledge, try again, or bury.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use crosstie_model::definition::{AmqpChannel, InDoubt};
use crosstie_model::kept::{KeptMessage, MessageBody};
use crosstie_model::message::{Message, Payload, Reply};
use crosstie_model::outgoing::{
    AmqpDelivery, AmqpOutgoing, AmqpPublish, AmqpQueue, AmqpValue, Trouble, Unroutable,
};
use crosstie_model::{Failure, FailureKind, Origin, TraceContext};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::letter::{Letter, Recount, Scene, Verdict, judge, reason};
use super::once::{Claim, Known, Memory};
use super::plan::{WAITING_SOURCE, Work, dead_queue, waiting_queue};
use super::reply;
use crate::aside::aside_if_large;
use crate::body::coding;
use crate::body::decode::{Expectation, decode};
use crate::body::media::Media;
use crate::ports::{Consumed, ConsumedRecord, EntranceObserver};

/// The pause before what could not be done now is tried again; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a message waits that somebody else is at work on.
const DEFERRED: Duration = Duration::from_secs(1);
/// How long a message that waits is kept in hand; then it goes to the end of the queue of those that do, and others
/// are looked at. RabbitMQ ends a channel that acknowledges nothing for half an hour.
const IN_HAND: Duration = Duration::from_secs(60);
/// How long one attempt to publish may take; the outgoing's own deadline is mostly shorter.
const PUBLISH_LIMIT: Duration = Duration::from_secs(60);
/// Carries the trace (W3C Trace Context for AMQP).
const TRACEPARENT: &str = "traceparent";

/// What all messages of a channel share.
pub(super) struct Desk {
    pub(super) name: Arc<str>,
    pub(super) settings: Arc<AmqpChannel>,
    pub(super) connection: Arc<dyn AmqpOutgoing>,
    /// The service and its limits, which may change while consumers stay.
    pub(super) work: ArcSwap<Work>,
    pub(super) memory: Memory,
    /// Says that the channel stops: what waits goes back to the queue.
    pub(super) stop: CancellationToken,
}

/// What the messages of one consumer share.
#[derive(Clone)]
pub(super) struct Hands {
    /// Says that its connection is gone: the broker gives its messages to somebody else.
    pub(super) gone: CancellationToken,
    /// As many messages are worked on at once as the prefetch says, whichever queue they are from.
    pub(super) free: Arc<Semaphore>,
}

/// A message being worked on.
struct Case<'a> {
    desk: &'a Desk,
    letter: Letter,
    trace: TraceContext,
    /// Says that the consumer's connection is gone: the broker gives the message to somebody else.
    gone: CancellationToken,
}

/// Whether a message is worked on.
enum Begun<'a> {
    /// It is.
    Working(SemaphorePermit<'a>),
    /// It is not due for long, and a copy waits at the end of the queue.
    WaitingOn,
    /// It is not: the channel stops, or the connection is gone.
    NotAtAll,
}

/// Whose turn it is.
enum Turn<'a> {
    /// The message's, as long as this is held.
    Come(SemaphorePermit<'a>),
    /// Others': the message has so long to wait yet.
    Later(Duration),
    /// Nobody's any more.
    Never,
}

/// Waits with a message that is due in `wait`, for `longest` at most, and then for a hand that is `free`.
async fn turn(wait: Duration, longest: Duration, free: &Semaphore) -> Turn<'_> {
    if !wait.is_zero() {
        tokio::time::sleep(wait.min(longest)).await;
    }
    match wait.saturating_sub(longest) {
        Duration::ZERO => free.acquire().await.map_or(Turn::Never, Turn::Come),
        rest => Turn::Later(rest),
    }
}

/// How a message's way ended here.
struct Ending {
    outcome: Consumed,
    failure: Option<(FailureKind, Origin)>,
    bytes_out: usize,
}

impl Ending {
    fn of(outcome: Consumed) -> Self {
        Self { outcome, failure: None, bytes_out: 0 }
    }

    fn failed(outcome: Consumed, failure: &Failure) -> Self {
        Self { outcome, failure: Some((failure.kind, failure.origin)), bytes_out: 0 }
    }
}

impl Desk {
    /// Waits until a message is due, and works on it until it is settled.
    pub(super) async fn handle(self: Arc<Self>, delivery: AmqpDelivery, hands: Hands) {
        let Hands { gone, free } = hands;
        let (letter, settle, wait) = if delivery.source == WAITING_SOURCE {
            Letter::open_waiting(delivery, self.longest_wait())
        } else {
            let (letter, settle) = Letter::open(delivery);
            (letter, settle, Duration::ZERO)
        };
        let told = letter.properties.headers.get(TRACEPARENT).and_then(AmqpValue::as_text);
        let mut trace = told.and_then(TraceContext::from_traceparent).unwrap_or_else(TraceContext::new_root);
        trace.sampled = self.work.load().target.observer.samples(&trace);
        let case = Case { desk: &self, letter, trace, gone };
        // What cannot be acknowledged or put back comes back by itself.
        let _hand = match case.begin(wait, &free).await {
            Begun::Working(hand) => hand,
            Begun::WaitingOn => return drop(settle.acknowledge().await),
            Begun::NotAtAll => return drop(settle.put_back().await),
        };
        let started = Instant::now();
        let observer = Arc::clone(&self.work.load().target.observer);
        let bytes_in = case.letter.body.len();
        let kept = keep(&*observer, &case.letter);
        if let Some(room) = observer.room() {
            // Until then the broker hands out no more than the prefetch allows.
            room.await;
        }
        let mut ending = case.work().await;
        let settled = match ending.outcome {
            Consumed::PutBack => settle.put_back().await,
            _ => settle.acknowledge().await,
        };
        if let Err(error) = settled {
            let (cid, channel) = (trace.cid, &*self.name);
            tracing::debug!(%cid, channel, detail = error.detail, "a message could not be settled and comes again");
            ending.outcome = Consumed::PutBack;
        }
        observer.consumed(&ConsumedRecord {
            trace: &trace,
            elapsed: started.elapsed(),
            queue: &self.settings.queue,
            bytes_in: bytes_in as u64,
            bytes_out: ending.bytes_out as u64,
            outcome: ending.outcome,
            kept: kept.as_deref(),
            failure: ending.failure,
        });
    }

    /// How long a message waits at most before it is tried again.
    fn longest_wait(&self) -> Duration {
        let retry = &self.settings.retry;
        let longest = u64::from(retry.pause_ms.max(retry.max_pause_ms));
        Duration::from_millis(longest).max(DEFERRED)
    }
}

/// What the message log keeps of a message beyond its metadata.
fn keep(observer: &dyn EntranceObserver, letter: &Letter) -> Option<Box<KeptMessage>> {
    let policy = observer.keeps()?;
    let mut kept = policy.begin(&HeaderMap::new(), &BTreeSet::new())?;
    let media = letter.properties.content_type.as_deref();
    kept.request.content_type = media.and_then(|text| HeaderValue::from_str(text).ok());
    if policy.settings().bodies.of_requests() {
        kept.request.body = Some(MessageBody::whole(letter.body.clone()));
    }
    Some(kept)
}

impl Case<'_> {
    /// Waits until the message is due in `wait` and somebody has a hand `free` for it.
    async fn begin<'a>(&self, wait: Duration, free: &'a Semaphore) -> Begun<'a> {
        let turn = tokio::select! {
            () = self.gone.cancelled() => return Begun::NotAtAll,
            () = self.desk.stop.cancelled() => return Begun::NotAtAll,
            turn = turn(wait, IN_HAND, free) => turn,
        };
        match turn {
            Turn::Come(hand) => Begun::Working(hand),
            Turn::Later(rest) if self.put_aside(self.letter.attempts, rest).await => Begun::WaitingOn,
            Turn::Later(_) | Turn::Never => Begun::NotAtAll,
        }
    }

    async fn work(&self) -> Ending {
        let settings = &self.desk.settings;
        if self.letter.redeliveries > settings.max_redeliveries {
            let text = format!(
                "The message came {} times and was never acknowledged: whoever worked on it died, or took too long",
                self.letter.redeliveries
            );
            let failure = Failure::new(FailureKind::Internal, Origin::Service).with_text(text);
            return self.bury(&failure, self.letter.attempts).await;
        }
        if self.letter.recount == Recount::Due {
            return self.recount().await;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attempt().await {
                Some(ending) => return ending,
                None if !self.wait(pause).await => return Ending::of(Consumed::PutBack),
                None => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Runs the service; gives nothing where that is not possible now for no fault of the message.
    async fn attempt(&self) -> Option<Ending> {
        let work = self.desk.work.load_full();
        let permit = work.target.admit().ok()?;
        let (payload, raw) = match self.decode(&work).await {
            Ok(decoded) => decoded,
            Err(failure) => return Some(self.bury(&failure, self.letter.attempts).await),
        };
        let known = match self.known(&work) {
            Ok(known) => known,
            Err(failure) => return Some(self.bury(&failure, self.letter.attempts).await),
        };
        if let Some(known) = &known {
            match known.claim().await {
                Ok(Claim::Won) => {}
                Ok(Claim::Done) => return Some(Ending::of(Consumed::Duplicate)),
                Ok(Claim::AtWork) => {
                    // Others may be called meanwhile.
                    drop(permit);
                    return Some(self.defer().await);
                }
                Err(_) => return None,
                Ok(Claim::InDoubt) => return self.doubt(known).await,
            }
        }
        let message = Message {
            trace: self.trace,
            channel: Arc::clone(&work.target.info),
            payload,
            raw,
            http: None,
            soap: None,
            amqp: Some(Box::new(self.letter.request(&self.desk.settings.queue))),
            principal: None,
            deadline: work.target.deadline_from_now(),
            depth: 0,
        };
        match work.target.call(message).await {
            Ok(reply) => Some(self.succeed(reply, known.as_ref(), work.max_body).await),
            Err(failure) => {
                if let Some(known) = &known
                    && !self.surely(|| known.forget()).await
                {
                    return Some(Ending::failed(Consumed::PutBack, &failure));
                }
                // The server has no room: that says nothing of the message.
                if failure.origin == Origin::Platform && failure.kind == FailureKind::Unavailable {
                    return None;
                }
                Some(self.fail(&failure).await)
            }
        }
    }

    async fn decode(&self, work: &Work) -> Result<(Payload, Bytes), Failure> {
        let (said, body) = (&self.letter.properties, &self.letter.body);
        if body.len() > work.max_body {
            return Err(Failure::new(FailureKind::PayloadTooLarge, Origin::Client));
        }
        let raw = match said.content_encoding.as_deref().filter(|coding| !coding.is_empty()) {
            None => body.clone(),
            Some(coding) => {
                let value = HeaderValue::from_str(coding).unwrap_or(HeaderValue::from_static("unknown"));
                let headers = HeaderMap::from_iter([(CONTENT_ENCODING, value)]);
                Box::pin(coding::decode(&headers, body.clone(), work.max_body)).await?
            }
        };
        let media = match said.content_type.as_deref().filter(|media| !media.is_empty()) {
            None => Media::Absent,
            Some(text) => HeaderValue::from_str(text).map_or(Media::Other, |value| Media::of(Some(&value))),
        };
        let (format, depth, input) = (self.desk.settings.data_format, work.max_depth, raw.clone());
        let service = work.target.service.clone();
        let decoded = aside_if_large(raw.len(), move || {
            let declared = service.as_ref().and_then(|service| service.description().input.as_ref());
            decode(input, &media, Expectation { format, input: declared, depth })
        });
        Ok((decoded.await??, raw))
    }

    /// The message as it is remembered, where the channel remembers any.
    fn known(&self, work: &Work) -> Result<Option<Known>, Failure> {
        let Some(settings) = &self.desk.settings.idempotency else { return Ok(None) };
        let Some(key) = self.letter.key(&settings.key) else {
            let text = format!("The message has no {}, by which it would be known", settings.key);
            return Err(Failure::bad_request(text));
        };
        let keep = Duration::from_secs(settings.keep_s);
        Ok(Some(self.desk.memory.message(&self.desk.name, &key, keep, work.target.deadline)))
    }

    async fn doubt(&self, known: &Known) -> Option<Ending> {
        let policy = self.desk.settings.idempotency.as_ref().map(|settings| settings.in_doubt);
        if policy == Some(InDoubt::Again) {
            let _ = known.forget().await;
            return None;
        }
        let text = "In doubt: whoever worked on the message died, and nobody knows what was done";
        let failure = Failure::new(FailureKind::Internal, Origin::Platform).with_text(text);
        Some(self.bury(&failure, self.letter.attempts).await)
    }

    async fn succeed(&self, reply: Reply, known: Option<&Known>, limit: usize) -> Ending {
        let answer = if self.desk.settings.reply && self.letter.properties.reply_to.is_some() {
            match reply::of_service(&self.letter, reply, limit).await {
                Ok(answer) => Some(answer),
                Err(failure) => {
                    tracing::warn!(cid = %self.trace.cid, reason = failure.text, "an answer cannot be sent");
                    Some(reply::of_failure(&self.letter, &failure, self.trace.cid))
                }
            }
        } else {
            None
        };
        if let Some(known) = known
            && !self.surely(|| known.done()).await
        {
            return Ending::of(Consumed::PutBack);
        }
        let bytes_out = answer.as_ref().map_or(0, |(_, body)| body.len());
        if let Some((properties, body)) = answer {
            self.answer(properties, body).await;
        }
        Ending { outcome: Consumed::Done, failure: None, bytes_out }
    }

    async fn fail(&self, failure: &Failure) -> Ending {
        let attempts = self.letter.attempts.saturating_add(1);
        let settings = &self.desk.settings;
        let Verdict::Again(pause_ms) = judge(failure, attempts, &settings.retry) else {
            return self.bury(failure, attempts).await;
        };
        if !self.put_aside(attempts, Duration::from_millis(pause_ms.into())).await {
            return Ending::failed(Consumed::PutBack, failure);
        }
        let (cid, channel) = (self.trace.cid, &*self.desk.name);
        tracing::warn!(%cid, channel, attempts, pause_ms, reason = failure.text, "a message is tried again");
        Ending::failed(Consumed::Again, failure)
    }

    /// Makes the message a dead letter.
    async fn bury(&self, failure: &Failure, attempts: u32) -> Ending {
        let settings = &self.desk.settings;
        let scene = Scene {
            channel: &self.desk.name,
            service: settings.service.as_str(),
            queue: &settings.queue,
            cid: self.trace.cid,
        };
        let to = settings.dead_letters();
        let said = self.letter.dead(attempts, failure, &scene);
        let dead = self.message((to.exchange, to.routing_key), said, dead_queue(settings));
        if !self.publish(&dead).await {
            return Ending::failed(Consumed::PutBack, failure);
        }
        let (cid, channel) = (self.trace.cid, &*self.desk.name);
        tracing::warn!(%cid, channel, attempts, reason = reason(failure), "a message is a dead letter");
        if settings.reply && self.letter.properties.reply_to.is_some() {
            let (properties, body) = reply::of_failure(&self.letter, failure, self.trace.cid);
            self.answer(properties, body).await;
        }
        Ending::failed(Consumed::DeadLetter, failure)
    }

    /// Publishes the message among those that wait, to be worked on from there after `pause`. Not into a queue with a
    /// time to live: what a broker moves by itself it confirms to nobody, and what it has not written down when it is
    /// killed is lost.
    async fn put_aside(&self, attempts: u32, pause: Duration) -> bool {
        let queue = waiting_queue(&self.desk.settings);
        let to = (String::new(), queue.name.clone());
        self.publish(&self.message(to, self.letter.again(attempts, pause), Some(queue))).await
    }

    /// Puts a message aside that somebody else is at work on, or was when they died: it must not take the place of
    /// others in hand until that is known.
    async fn defer(&self) -> Ending {
        let is_sent = self.put_aside(self.letter.attempts, DEFERRED).await;
        Ending::of(if is_sent { Consumed::Deferred } else { Consumed::PutBack })
    }

    /// Publishes the message again with the right count: a broker that keeps none would bring it again and again.
    /// With a pause, as one that kills its worker must not do so before the original is acknowledged.
    async fn recount(&self) -> Ending {
        let pause = Duration::from_millis(self.desk.settings.retry.pause(self.letter.redeliveries).into());
        let is_sent = self.put_aside(self.letter.attempts, pause.max(FIRST_PAUSE)).await;
        Ending::of(if is_sent { Consumed::Recounted } else { Consumed::PutBack })
    }

    fn message(
        &self,
        (exchange, routing_key): (String, String),
        properties: crosstie_model::outgoing::AmqpProperties,
        queue: Option<AmqpQueue>,
    ) -> AmqpPublish {
        AmqpPublish {
            exchange: Some(exchange),
            routing_key: Some(routing_key),
            properties,
            body: self.letter.body.clone(),
            unroutable: Unroutable::IsAnError,
            queue,
            trace: self.trace,
            deadline: Instant::now(),
        }
    }

    /// Sends an answer to whoever waits for it. Who does not wait any more gets none.
    async fn answer(&self, properties: crosstie_model::outgoing::AmqpProperties, body: Bytes) {
        let Some(to) = self.letter.properties.reply_to.clone() else { return };
        let mut answer = self.message((String::new(), to), properties, None);
        answer.body = body;
        answer.unroutable = Unroutable::IsDropped;
        answer.deadline = Instant::now() + PUBLISH_LIMIT;
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.desk.connection.publish(answer.clone()).await {
            if matches!(error.trouble, Trouble::Refused | Trouble::Misuse | Trouble::Credentials)
                || !self.wait(pause).await
            {
                tracing::warn!(cid = %self.trace.cid, detail = error.detail, "an answer was not sent");
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            answer.deadline = Instant::now() + PUBLISH_LIMIT;
        }
    }

    /// Publishes until that works; says whether it did before there was no point in it any more.
    async fn publish(&self, message: &AmqpPublish) -> bool {
        let (cid, channel) = (self.trace.cid, &*self.desk.name);
        let mut pause = FIRST_PAUSE;
        let mut is_news = true;
        loop {
            let attempt = AmqpPublish { deadline: Instant::now() + PUBLISH_LIMIT, ..message.clone() };
            let Err(error) = self.desk.connection.publish(attempt).await else { return true };
            if std::mem::take(&mut is_news) {
                tracing::warn!(%cid, channel, detail = error.detail, "a message cannot be moved and waits");
            }
            if !self.wait(pause).await {
                return false;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Does something in the data store until that works; says whether it did.
    async fn surely<F, E>(&self, work: impl Fn() -> F) -> bool
    where
        F: Future<Output = Result<(), E>>,
    {
        let mut pause = FIRST_PAUSE;
        while work().await.is_err() {
            if !self.wait(pause).await {
                return false;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        true
    }

    /// Waits; says whether there still is a point in going on.
    async fn wait(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.gone.cancelled() => false,
            () = self.desk.stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn a_message_waits_in_hand_until_it_is_due_but_not_for_long() {
        let free = Semaphore::new(1);
        for (wait, elapsed, rest) in [(0, 0, 0), (3, 3, 0), (4, 4, 0), (3_600, 4, 3_596)] {
            let began = Instant::now();
            match turn(wait * TICK, 4 * TICK, &free).await {
                Turn::Come(_) => assert_eq!(rest, 0, "{wait}"),
                Turn::Later(left) => assert_eq!(left, rest * TICK, "{wait}"),
                Turn::Never => panic!("{wait}"),
            }
            assert!(began.elapsed() >= elapsed * TICK, "{wait}");
        }
    }

    #[tokio::test]
    async fn what_is_due_takes_its_turn_with_what_just_came() {
        let free = Semaphore::new(1);
        let Turn::Come(hand) = turn(Duration::ZERO, TICK, &free).await else { panic!("nobody is at work") };
        let mut waiting = std::pin::pin!(turn(TICK, TICK, &free));
        assert!(tokio::time::timeout(4 * TICK, &mut waiting).await.is_err(), "one at a time");
        drop(hand);
        assert!(matches!(waiting.await, Turn::Come(_)));
    }
}
