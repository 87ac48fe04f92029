//! A message with its history, and what becomes of it when its service failed. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use crosstie_model::definition::AmqpRetry;
use crosstie_model::message::AmqpRequest;
use crosstie_model::outgoing::{AmqpDelivery, AmqpProperties, AmqpSettle, AmqpValue};
use crosstie_model::{Cid, Failure, FailureKind, Origin};

/// How often a service failed on the message.
const ATTEMPTS: &str = "x-crosstie-attempts";
/// How often the message came again because nobody acknowledged it.
const REDELIVERIES: &str = "x-crosstie-redeliveries";
/// RabbitMQ's own count of the same, in quorum queues.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// Of messages that wait: until when, in milliseconds since 1970-01-01T00:00:00Z.
const DUE: &str = "x-crosstie-due";
/// Where it was published at first.
const EXCHANGE: &str = "x-crosstie-exchange";
const ROUTING_KEY: &str = "x-crosstie-routing-key";
/// Who published it: only they may say so, and it is not they who publish it again.
const USER_ID: &str = "x-crosstie-user-id";
/// When it was worth nothing any more: it was taken in time.
const EXPIRATION: &str = "x-crosstie-expiration";
/// Of dead letters: why, in a word and in a text, and where it happened.
const FAILURE: &str = "x-crosstie-failure";
const REASON: &str = "x-crosstie-reason";
const FAILED_AT: &str = "x-crosstie-failed-at";
const CID: &str = "x-crosstie-cid";
const CHANNEL: &str = "x-crosstie-channel";
const SERVICE: &str = "x-crosstie-service";
const QUEUE: &str = "x-crosstie-queue";

/// Longest reason in a header, in characters.
const MAX_REASON: usize = 2_000;

/// A message that came.
pub(super) struct Letter {
    pub(super) properties: AmqpProperties,
    pub(super) body: Bytes,
    /// Where it was published at first.
    pub(super) exchange: String,
    pub(super) routing_key: String,
    /// How often the service failed on it.
    pub(super) attempts: u32,
    /// How often it came again.
    pub(super) redeliveries: u32,
    pub(super) recount: Recount,
}

/// What must be done for the count of redeliveries to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recount {
    /// Nothing.
    Counted,
    /// The message must be published again with the new count: the broker keeps none.
    Due,
}

/// Where a message failed.
pub(super) struct Scene<'a> {
    pub(super) channel: &'a str,
    pub(super) service: &'a str,
    pub(super) queue: &'a str,
    pub(super) cid: Cid,
}

/// What becomes of a message on which its service failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is tried again after so many milliseconds.
    Again(u32),
    /// It is a dead letter.
    Dead,
}

/// Judges a failure of a message that failed `attempts` times, this one included. What is wrong with the message
/// itself stays wrong; everything else may pass.
pub(super) fn judge(failure: &Failure, attempts: u32, retry: &AmqpRetry) -> Verdict {
    let is_wrong = failure.origin == Origin::Client
        && !failure.retryable
        // A state that forbids it may be another one later.
        && failure.kind != FailureKind::Conflict;
    match retry.pause_after(attempts) {
        Some(pause) if !is_wrong => Verdict::Again(pause),
        _ => Verdict::Dead,
    }
}

impl Letter {
    /// Reads what came; gives how it is acknowledged beside it.
    pub(super) fn open(delivery: AmqpDelivery) -> (Self, Box<dyn AmqpSettle>) {
        let AmqpDelivery { source: _, exchange, routing_key, redelivered, properties, body, settle } =
            delivery;
        let headers = &properties.headers;
        let count = |name: &str| {
            headers.get(name).and_then(AmqpValue::as_int).and_then(|count| u32::try_from(count).ok())
        };
        let text = |name: &str| headers.get(name).and_then(AmqpValue::as_text).map(str::to_owned);
        let own = count(REDELIVERIES).unwrap_or_default();
        let (redeliveries, recount) = match (redelivered, count(DELIVERY_COUNT)) {
            (true, Some(counted)) => (counted.max(own), Recount::Counted),
            (true, None) => (own.saturating_add(1), Recount::Due),
            (false, _) => (own, Recount::Counted),
        };
        let letter = Self {
            exchange: text(EXCHANGE).unwrap_or(exchange),
            routing_key: text(ROUTING_KEY).unwrap_or(routing_key),
            attempts: count(ATTEMPTS).unwrap_or_default(),
            redeliveries,
            recount,
            properties,
            body,
        };
        (letter, settle)
    }

    /// Reads what came from among those that wait; gives beside it how long it has to wait yet, which is `longest`
    /// at most, whatever it says.
    pub(super) fn open_waiting(
        delivery: AmqpDelivery,
        longest: Duration,
    ) -> (Self, Box<dyn AmqpSettle>, Duration) {
        let redelivered = delivery.redelivered;
        let (mut letter, settle) = Self::open(delivery);
        let headers = &mut letter.properties.headers;
        let due =
            headers.remove(DUE).as_ref().and_then(AmqpValue::as_int).and_then(|due| u64::try_from(due).ok());
        let wait = Duration::from_millis(due.unwrap_or_default()).saturating_sub(since_epoch()).min(longest);
        let own = headers.get(REDELIVERIES).and_then(AmqpValue::as_int);
        let own = own.and_then(|count| u32::try_from(count).ok()).unwrap_or_default();
        // The broker also counts who had it in hand and waited. Nobody was at work on it before it was due.
        (letter.redeliveries, letter.recount) = if redelivered && wait.is_zero() {
            (own.saturating_add(1), Recount::Due)
        } else {
            (own, Recount::Counted)
        };
        (letter, settle, wait)
    }

    /// What the service sees of it.
    pub(super) fn request(&self, queue: &str) -> AmqpRequest {
        AmqpRequest {
            queue: queue.to_owned(),
            exchange: self.exchange.clone(),
            routing_key: self.routing_key.clone(),
            attempt: self.attempts.saturating_add(1),
            redeliveries: self.redeliveries,
            properties: self.properties.clone(),
        }
    }

    /// What is known as `key` of a channel's setting.
    pub(super) fn key(&self, key: &str) -> Option<String> {
        match key {
            "message_id" => self.properties.message_id.clone(),
            "correlation_id" => self.properties.correlation_id.clone(),
            other => match self.properties.headers.get(other.strip_prefix("header:")?)? {
                AmqpValue::Text(text) => Some(text.clone()),
                AmqpValue::Int(number) => Some(number.to_string()),
                _ => None,
            },
        }
        .filter(|key| !key.is_empty())
    }

    /// The properties it is published with to wait for `pause`, after `attempts` failures in all.
    pub(super) fn again(&self, attempts: u32, pause: Duration) -> AmqpProperties {
        let mut properties = self.properties.clone();
        let headers = &mut properties.headers;
        // RabbitMQ drops a message in silence that it takes to go in a circle; this one is counted.
        headers.retain(|name, _| {
            name != "x-death" && !name.starts_with("x-first-death-") && !name.starts_with("x-last-death-")
        });
        headers.remove(DELIVERY_COUNT);
        let due = i64::try_from((since_epoch() + pause).as_millis()).unwrap_or(i64::MAX);
        headers.insert(DUE.to_owned(), AmqpValue::Int(due));
        headers.insert(ATTEMPTS.to_owned(), attempts.into());
        headers.insert(REDELIVERIES.to_owned(), self.redeliveries.into());
        self.keep_origin(&mut properties);
        properties
    }

    /// The properties of the dead letter it becomes.
    pub(super) fn dead(&self, attempts: u32, failure: &Failure, scene: &Scene<'_>) -> AmqpProperties {
        let mut properties = self.properties.clone();
        let fields: [(&str, AmqpValue); 9] = [
            (ATTEMPTS, attempts.into()),
            (REDELIVERIES, self.redeliveries.into()),
            (FAILURE, word(failure.kind).into()),
            (REASON, reason(failure).into()),
            (FAILED_AT, AmqpValue::Timestamp(since_epoch().as_secs())),
            (CID, scene.cid.to_string().into()),
            (CHANNEL, scene.channel.into()),
            (SERVICE, scene.service.into()),
            (QUEUE, scene.queue.into()),
        ];
        properties.headers.extend(fields.map(|(name, value)| (name.to_owned(), value)));
        self.keep_origin(&mut properties);
        properties
    }

    /// Keeps in headers what a message cannot have when it is published again.
    fn keep_origin(&self, properties: &mut AmqpProperties) {
        let user = properties.user_id.take().map(|user| (USER_ID, user));
        let expiration = properties.expiration.take().map(|expiration| (EXPIRATION, expiration));
        let origin = [(EXCHANGE, self.exchange.clone()), (ROUTING_KEY, self.routing_key.clone())];
        let headers: &mut BTreeMap<_, _> = &mut properties.headers;
        for (name, text) in origin.into_iter().chain(user).chain(expiration) {
            headers.insert(name.to_owned(), text.into());
        }
        // It is this server that answers for it now.
        properties.persistent = Some(true);
    }
}

/// The time since 1970-01-01T00:00:00Z.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The kind's word.
fn word(kind: FailureKind) -> String {
    let value = serde_json::to_value(kind).ok();
    value.as_ref().and_then(|value| value.as_str()).unwrap_or("internal").to_owned()
}

/// A failure in one text: what a caller of the service would be told.
pub(super) fn reason(failure: &Failure) -> String {
    let mut text = failure.text.clone();
    for fault in &failure.faults {
        text.push_str("; ");
        text.push_str(format!("{} {}", fault.pointer, fault.detail).trim());
    }
    text.chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use crosstie_model::outgoing::OutgoingError;
    use crosstie_model::{Fault, TraceContext};

    struct Nobody;

    #[async_trait]
    impl AmqpSettle for Nobody {
        async fn acknowledge(self: Box<Self>) -> Result<(), OutgoingError> {
            Ok(())
        }

        async fn put_back(self: Box<Self>) -> Result<(), OutgoingError> {
            Ok(())
        }
    }

    fn delivery(redelivered: bool, properties: AmqpProperties) -> AmqpDelivery {
        AmqpDelivery {
            source: 0,
            exchange: "shop".into(),
            routing_key: "order.made".into(),
            redelivered,
            properties,
            body: Bytes::from_static(b"{}"),
            settle: Box::new(Nobody),
        }
    }

    fn open(redelivered: bool, properties: AmqpProperties) -> Letter {
        Letter::open(delivery(redelivered, properties)).0
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    fn open_waiting(redelivered: bool, properties: AmqpProperties) -> (Letter, Duration) {
        let (letter, _, wait) = Letter::open_waiting(delivery(redelivered, properties), HOUR);
        (letter, wait)
    }

    fn with(headers: &[(&str, AmqpValue)]) -> AmqpProperties {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        AmqpProperties { headers, ..AmqpProperties::default() }
    }

    #[test]
    fn what_is_wrong_with_the_message_is_not_tried_again_and_all_else_is_up_to_a_count() {
        let retry = AmqpRetry { max: 2, pause_ms: 10, max_pause_ms: 100 };
        let of = |kind, origin, attempts| judge(&Failure::new(kind, origin), attempts, &retry);
        assert_eq!(of(FailureKind::BadRequest, Origin::Client, 1), Verdict::Dead);
        assert_eq!(of(FailureKind::NotFound, Origin::Client, 1), Verdict::Dead);
        assert_eq!(of(FailureKind::Conflict, Origin::Client, 1), Verdict::Again(10));
        assert_eq!(of(FailureKind::TooManyRequests, Origin::Client, 1), Verdict::Again(10));
        for (kind, origin) in [
            (FailureKind::Internal, Origin::Service),
            (FailureKind::BadGateway, Origin::Upstream),
            (FailureKind::Timeout, Origin::Service),
        ] {
            let verdicts: Vec<_> = (1..=3).map(|attempts| of(kind, origin, attempts)).collect();
            assert_eq!(verdicts, [Verdict::Again(10), Verdict::Again(20), Verdict::Dead]);
        }
    }

    #[test]
    fn counts_survive_being_published_again_whoever_counts() {
        let first = open(false, AmqpProperties::default());
        assert_eq!((first.attempts, first.redeliveries, first.recount), (0, 0, Recount::Counted));
        let (second, _) = open_waiting(false, first.again(1, Duration::ZERO));
        assert_eq!((second.attempts, second.redeliveries), (1, 0));
        let (third, _) = open_waiting(true, second.again(2, Duration::ZERO));
        assert_eq!((third.attempts, third.redeliveries, third.recount), (2, 1, Recount::Due));
        let (fourth, _) = open_waiting(true, third.again(2, Duration::ZERO));
        assert_eq!(fourth.redeliveries, 2);
        let quorum = open(true, with(&[(DELIVERY_COUNT, AmqpValue::Int(7))]));
        assert_eq!((quorum.redeliveries, quorum.recount), (7, Recount::Counted));
        let forged = open(false, with(&[(ATTEMPTS, AmqpValue::Int(-3)), (REDELIVERIES, "x".into())]));
        assert_eq!((forged.attempts, forged.redeliveries), (0, 0));
    }

    #[test]
    fn a_message_waits_until_it_is_due_and_is_not_counted_for_it() {
        let first = open(false, AmqpProperties::default());
        let minute = Duration::from_secs(60);
        let (early, wait) = open_waiting(true, first.again(1, minute));
        assert!(wait > minute / 2 && wait <= minute, "{wait:?}");
        assert_eq!((early.redeliveries, early.recount), (0, Recount::Counted));
        assert!(!early.properties.headers.contains_key(DUE));
        let quorum = with(&[(DELIVERY_COUNT, AmqpValue::Int(7)), (DUE, AmqpValue::Int(i64::MAX))]);
        let (forged, wait) = open_waiting(true, quorum);
        assert_eq!((forged.redeliveries, wait), (0, HOUR), "no longer than it may");
        for due in [AmqpValue::Int(-1), "soon".into(), AmqpValue::Int(7)] {
            let (late, wait) = open_waiting(true, with(&[(DUE, due), (DELIVERY_COUNT, AmqpValue::Int(3))]));
            assert_eq!((late.redeliveries, late.recount, wait), (1, Recount::Due, Duration::ZERO));
        }
    }

    #[test]
    fn a_dead_letter_tells_why_and_keeps_what_it_was() {
        let mut said = with(&[("own", AmqpValue::Bool(true)), ("x-death", AmqpValue::List(Vec::new()))]);
        said.user_id = Some("ada".into());
        said.expiration = Some("1000".into());
        said.message_id = Some("m".into());
        let letter = open(false, said);
        assert!(!letter.again(1, HOUR).headers.contains_key("x-death"));
        let failure = Failure::bad_request("no")
            .with_faults(vec![Fault { pointer: "/a".into(), detail: "is missing".into() }]);
        let scene = Scene { channel: "c", service: "s", queue: "q", cid: TraceContext::new_root().cid };
        let dead = letter.dead(3, &failure, &scene);
        assert_eq!(dead.headers[REASON], "no; /a is missing".into());
        assert_eq!(dead.headers[FAILURE], "bad_request".into());
        assert_eq!(dead.headers[ATTEMPTS], AmqpValue::Int(3));
        assert_eq!(dead.headers[EXCHANGE], "shop".into());
        assert_eq!(dead.headers[USER_ID], "ada".into());
        assert_eq!(dead.headers["own"], AmqpValue::Bool(true));
        assert_eq!((dead.user_id, dead.expiration, dead.persistent), (None, None, Some(true)));
        assert_eq!(dead.message_id.as_deref(), Some("m"));
        let long = Failure::bad_request("é".repeat(10_000));
        assert_eq!(reason(&long).chars().count(), MAX_REASON);
    }

    #[test]
    fn a_key_is_a_property_or_a_header() {
        let mut said = with(&[("order", AmqpValue::Int(7)), ("name", "n".into()), ("empty", "".into())]);
        said.message_id = Some("m".into());
        let letter = open(false, said);
        assert_eq!(letter.key("message_id").as_deref(), Some("m"));
        assert_eq!(letter.key("header:order").as_deref(), Some("7"));
        assert_eq!(letter.key("header:name").as_deref(), Some("n"));
        for missing in ["correlation_id", "header:empty", "header:none"] {
            assert_eq!(letter.key(missing), None);
        }
    }
}
