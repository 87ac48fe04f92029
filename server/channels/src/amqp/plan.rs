//! AMQP channels compiled for messages.

use std::sync::Arc;

use crosstie_model::definition::{AmqpChannel, ConsumersPer, MissingQueue};
use crosstie_model::outgoing::{
    AmqpBinding, AmqpConsume, AmqpOutgoing, AmqpQueue, AmqpQueueKind, AmqpSource, FoundOutgoing, Outgoing,
};

use crate::target::Target;

/// How many messages that wait a consumer has in hand at most. As long as no more do, each waits as long as it is to;
/// of more, one is looked at when those before it are due or have been in hand for a minute.
const WAITING: u16 = 100;

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
    let place = place.map(|number| match settings.consumers_per {
        ConsumersPer::Cluster => format!("{queue}.consumer.{number}"),
        // Names of servers are short; the broker takes 255 bytes in all.
        ConsumersPer::Server => {
            let server: String = server.chars().take(50).collect();
            format!("{queue}.{server}.consumer.{number}")
        }
    });
    AmqpConsume {
        sources: vec![
            AmqpSource { queue: AmqpQueue { name: queue.clone(), make }, prefetch: settings.prefetch },
            AmqpSource { queue: waiting_queue(settings), prefetch: WAITING },
        ],
        binding,
        beside: dead_queue(settings).into_iter().collect(),
        place,
    }
}

/// Which of the sources of a consumer has the messages that wait.
pub(crate) const WAITING_SOURCE: usize = 1;

/// The queue of the messages that wait before they are tried again.
pub(crate) fn waiting_queue(settings: &AmqpChannel) -> AmqpQueue {
    AmqpQueue { name: format!("{}.retry", settings.queue), make: kind_beside(settings) }
}

/// The queue of the dead letters; none where they go to an exchange that somebody else looks after.
pub(crate) fn dead_queue(settings: &AmqpChannel) -> Option<AmqpQueue> {
    let to = settings.dead_letters();
    to.exchange.is_empty().then(|| AmqpQueue { name: to.routing_key, make: kind_beside(settings) })
}

/// What the queues beside the channel's own are like: as safe as that one is made.
fn kind_beside(settings: &AmqpChannel) -> AmqpQueueKind {
    match settings.missing_queue {
        MissingQueue::MakeQuorum => AmqpQueueKind::Quorum,
        MissingQueue::MakeClassic | MissingQueue::Wait => AmqpQueueKind::Classic,
    }
}
