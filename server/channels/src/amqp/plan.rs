//! AMQP channels compiled for messages.

use std::sync::Arc;

use crosstie_model::definition::{AmqpChannel, ConsumersPer, MissingQueue};
use crosstie_model::outgoing::{
    AmqpBinding, AmqpConsume, AmqpOutgoing, AmqpQueue, AmqpQueueKind, FoundOutgoing, Outgoing,
};

use crate::target::Target;

/// One channel, compiled from one snapshot.
#[derive(Clone)]
pub struct PlannedAmqp {
    pub(crate) name: Arc<str>,
    pub(crate) settings: Arc<AmqpChannel>,
    pub(crate) connection: Arc<dyn AmqpOutgoing>,
    pub(crate) work: Arc<Work>,
}

/// What messages need that may change while consumers stay.
pub(crate) struct Work {
    pub(crate) target: Target,
    pub(crate) max_body: usize,
    pub(crate) max_depth: usize,
}

impl PlannedAmqp {
    /// The channel `name`, if there is somebody to consume for and somewhere to consume from: messages of a service
    /// that is not there wait in their queue.
    pub(crate) fn new(
        name: Arc<str>,
        settings: &AmqpChannel,
        connection: Option<FoundOutgoing>,
        work: Work,
    ) -> Option<Self> {
        if work.target.service.is_none() || !work.target.active {
            tracing::info!(channel = &*name, service = %settings.service, "nothing is consumed for a service that is not there");
            return None;
        }
        match connection.map(|found| found.state) {
            Some(Ok(Outgoing::Amqp(connection))) => {
                Some(Self { name, settings: Arc::new(settings.clone()), connection, work: Arc::new(work) })
            }
            Some(Err(error)) => {
                tracing::warn!(channel = &*name, reason = error.detail, "nothing is consumed");
                None
            }
            // The check says so.
            Some(Ok(_)) | None => None,
        }
    }

    /// Whether consumers of `other` can go on as those of this.
    pub(crate) fn consumes_as(&self, other: &Self) -> bool {
        self.settings == other.settings && Arc::ptr_eq(&self.connection, &other.connection)
    }
}

/// What the consumer at `place` of a server's asks the broker for.
pub(crate) fn consume(settings: &AmqpChannel, server: &str, place: Option<u16>) -> AmqpConsume {
    let queue = &settings.queue;
    let make = match settings.missing_queue {
        MissingQueue::MakeClassic => AmqpQueueKind::Classic,
        MissingQueue::MakeQuorum => AmqpQueueKind::Quorum,
        MissingQueue::Wait => AmqpQueueKind::Expected,
    };
    let binding = settings.exchange.as_ref().map(|exchange| AmqpBinding {
        exchange: exchange.clone(),
        make: settings.exchange_type.map(|kind| kind.as_str()),
        routing_keys: match settings.routing_keys.as_slice() {
            [] => vec!["#".to_owned()],
            keys => keys.to_vec(),
        },
    });
    let dead = settings.dead_letters();
    let beside = dead_queue(&dead.exchange, &dead.routing_key).into_iter().collect();
    let place = place.map(|number| match settings.consumers_per {
        ConsumersPer::Cluster => format!("{queue}.consumer.{number}"),
        // Names of servers are short; the broker takes 255 bytes in all.
        ConsumersPer::Server => {
            let server: String = server.chars().take(50).collect();
            format!("{queue}.{server}.consumer.{number}")
        }
    });
    AmqpConsume {
        queue: AmqpQueue { name: queue.clone(), make },
        binding,
        beside,
        prefetch: settings.prefetch,
        place,
    }
}

/// The queue that messages reach over the default exchange.
pub(crate) fn dead_queue(exchange: &str, routing_key: &str) -> Option<AmqpQueue> {
    exchange.is_empty().then(|| AmqpQueue { name: routing_key.to_owned(), make: AmqpQueueKind::Classic })
}
