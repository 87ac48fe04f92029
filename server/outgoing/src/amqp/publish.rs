//! Publishing: one message, one channel, one confirmation; again while the connection breaks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use crosstie_model::definition::AmqpEndpoint;
use crosstie_model::outgoing::{
    AmqpConsume, AmqpConsumer, AmqpOutgoing, AmqpPublish, Connection, OutgoingError, Ping, Pong, Trouble,
    Unroutable,
};
use crosstie_telemetry::metrics::CallOutcome;
use crosstie_telemetry::traces::{AttributeValue, SpanKind};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Confirmation};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::consume;
use super::failure::{is_passing, of_step};
use super::link::{Link, Settings, Up};
use super::values::{short, to_wire};
use crate::blueprint::{Blueprint, OpenError};
use crate::circuit::{Circuit, Verdict};
use crate::environment::Environment;
use crate::observe::{Observed, Observer};

/// The pause before the first repetition; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Carries the trace (W3C Trace Context for AMQP).
const TRACEPARENT: &str = "traceparent";

/// A broker.
pub(crate) struct MessageBroker {
    name: Arc<str>,
    link: Link,
    settings: Arc<Settings>,
    /// Places for messages on their way.
    places: Semaphore,
    exchange: String,
    routing_key: String,
    deadline: Duration,
    max_message_bytes: u64,
    circuit: Arc<Circuit>,
    observer: Arc<Observer>,
}

/// A message in the library's form.
struct Prepared<'a> {
    exchange: ShortString,
    routing_key: ShortString,
    options: BasicPublishOptions,
    properties: BasicProperties,
    call: &'a AmqpPublish,
}

impl MessageBroker {
    /// Opens the broker that `endpoint` describes. Makes no connection: the first call does.
    ///
    /// # Errors
    /// What it is made of cannot be used.
    pub(crate) fn open(
        blueprint: &Blueprint,
        endpoint: &AmqpEndpoint,
        environment: &Environment,
    ) -> Result<Self, OpenError> {
        let name: Arc<str> = blueprint.name().as_str().into();
        let kept = endpoint.message_log.as_ref();
        let observer = Observer::new(Arc::clone(&name), "amqp", environment, kept);
        let settings = Arc::new(Settings::of(blueprint, endpoint)?);
        let circuit = Circuit::new(&endpoint.circuit, Arc::clone(&name), observer.metrics().clone());
        Ok(Self {
            link: Link::new(Arc::clone(&settings), Arc::clone(&observer), endpoint.max_publishing),
            places: Semaphore::new(usize::from(endpoint.max_publishing)),
            name,
            settings,
            exchange: endpoint.exchange.clone(),
            routing_key: endpoint.routing_key.clone(),
            deadline: Duration::from_millis(endpoint.deadline_ms),
            max_message_bytes: endpoint.max_message_bytes,
            circuit,
            observer,
        })
    }

    /// The sooner of the caller's deadline and the definition's own, from now.
    fn until(&self, deadline: Instant) -> Instant {
        Instant::now().checked_add(self.deadline).map_or(deadline, |until| until.min(deadline))
    }

    fn prepare<'a>(&self, call: &'a AmqpPublish, span: &Observed) -> Result<Prepared<'a>, OutgoingError> {
        if u64::try_from(call.body.len()).unwrap_or(u64::MAX) > self.max_message_bytes {
            let text = format!("the message has more than {} bytes", self.max_message_bytes);
            return Err(OutgoingError::new(Trouble::Misuse, text));
        }
        let exchange = call.exchange.as_ref().unwrap_or(&self.exchange);
        let routing_key = call.routing_key.as_ref().unwrap_or(&self.routing_key);
        let mut properties = call.properties.clone();
        properties
            .headers
            .entry(TRACEPARENT.to_owned())
            .or_insert_with(|| span.trace().to_traceparent().into());
        Ok(Prepared {
            exchange: short("the exchange", exchange)?,
            routing_key: short("the routing key", routing_key)?,
            options: BasicPublishOptions {
                mandatory: call.unroutable == Unroutable::IsAnError,
                ..BasicPublishOptions::default()
            },
            properties: to_wire(&properties)?,
            call,
        })
    }

    /// Publishes, and tries again while the connection breaks.
    async fn publish_until(&self, message: &Prepared<'_>, until: Instant) -> Result<(), OutgoingError> {
        let mut last: Option<OutgoingError> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let Ok(outcome) = timeout_at(until.into(), self.publish_once(message)).await else {
                let why = last.map_or_else(String::new, |error| format!(" ({})", error.detail));
                let text = format!("{} did not confirm in time{why}", self.settings.shown());
                return Err(OutgoingError::new(Trouble::Deadline, text));
            };
            match outcome {
                Err(error) if is_passing(error.trouble) && Instant::now() + pause < until => {
                    self.observer.metrics().retried();
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    last = Some(error);
                }
                outcome => return outcome,
            }
        }
    }

    async fn publish_once(&self, message: &Prepared<'_>) -> Result<(), OutgoingError> {
        let up = self.link.up().await?;
        if let Some(queue) = &message.call.queue {
            up.make(queue).await?;
        }
        let outcome = publish_over(&up, message).await;
        if let (Some(queue), Err(error)) = (&message.call.queue, &outcome)
            && error.trouble == Trouble::Refused
        {
            up.forget(queue).await;
        }
        outcome
    }
}

async fn publish_over(up: &Up, message: &Prepared<'_>) -> Result<(), OutgoingError> {
    let channel = up.channel().await?;
    let failed = |error: lapin::Error| of_step("publishing", &error);
    let Prepared { exchange, routing_key, options, properties, call } = message;
    let sent = channel
        .basic_publish(exchange.clone(), routing_key.clone(), *options, &call.body, properties.clone())
        .await
        .map_err(failed)?;
    let confirmation = sent.await.map_err(failed)?;
    up.give_back(channel);
    match confirmation {
        Confirmation::Ack(None) | Confirmation::NotRequested => Ok(()),
        Confirmation::Ack(Some(returned)) => {
            let text = format!(
                "no queue takes the message: exchange {:?}, routing key {:?} ({})",
                exchange.as_str(),
                routing_key.as_str(),
                returned.reply_text
            );
            Err(OutgoingError::new(Trouble::Refused, text))
        }
        Confirmation::Nack(_) => {
            Err(OutgoingError::new(Trouble::Refused, "the broker could not take the message over"))
        }
    }
}

/// What the end of a call says about the broker.
fn verdict(outcome: &Result<(), OutgoingError>) -> Verdict {
    match outcome {
        Ok(()) => Verdict::Works,
        Err(error) => match error.trouble {
            Trouble::Refused => Verdict::Works,
            Trouble::Misuse => Verdict::Nothing,
            _ => Verdict::Fails,
        },
    }
}

#[async_trait]
impl Connection for MessageBroker {
    fn name(&self) -> &str {
        &self.name
    }

    async fn ping(&self, ping: Ping) -> Result<Pong, OutgoingError> {
        let mut span = self.observer.begin(&ping.trace, SpanKind::Client);
        let started = Instant::now();
        let asking = async { self.link.up().await?.ask().await };
        let late = || {
            let text = format!("{} did not answer in time", self.settings.shown());
            Err(OutgoingError::new(Trouble::Deadline, text))
        };
        let asked = timeout_at(self.until(ping.deadline).into(), asking).await.unwrap_or_else(|_| late());
        match asked {
            Ok(()) => span.ended(CallOutcome::Ok),
            Err(error) => {
                span.failed(&error);
                return Err(error);
            }
        }
        Ok(Pong { detail: format!("{} answered", self.settings.shown()), elapsed: started.elapsed() })
    }
}

#[async_trait]
impl AmqpOutgoing for MessageBroker {
    async fn publish(&self, call: AmqpPublish) -> Result<(), OutgoingError> {
        let until = self.until(call.deadline);
        self.observer.wait_for_room(until).await?;
        let mut span = self.observer.begin(&call.trace, SpanKind::Producer);
        if let Some(kept) = span.kept() {
            let routing_key = call.routing_key.as_ref().unwrap_or(&self.routing_key);
            kept.publishes(routing_key, call.properties.content_type.as_deref(), &call.body);
        }
        span.attribute("messaging.system", || AttributeValue::Text("rabbitmq".to_owned()));
        let publishing = async {
            let message = self.prepare(&call, &span)?;
            let admitted = self.circuit.admit(Instant::now()).map_err(|after| {
                let text = format!("{} failed before and is left alone for a while", self.settings.shown());
                OutgoingError::new(Trouble::Circuit, text).retry_after(after)
            })?;
            let Ok(Ok(_place)) = timeout_at(until.into(), self.places.acquire()).await else {
                let text = "as many messages as may be are on their way".to_owned();
                return Err(OutgoingError::new(Trouble::Busy, text));
            };
            let outcome = self.publish_until(&message, until).await;
            admitted.judge(verdict(&outcome), Instant::now());
            outcome
        };
        let outcome = publishing.await;
        match &outcome {
            Ok(()) => span.ended(CallOutcome::Ok),
            Err(error) => span.failed(error),
        }
        outcome
    }

    async fn consume(&self, call: &AmqpConsume) -> Result<Box<dyn AmqpConsumer>, OutgoingError> {
        consume::start(&self.settings, &self.observer, call).await
    }
}
