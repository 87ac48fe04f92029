//! Queues and exchanges: found as they are, or made.
//!
//! What is there already is taken as it is, whatever arguments it was made with. A broker that says so ends the
//! channel it was asked on, so each question has one of its own.

use std::time::Duration;

use crosstie_model::outgoing::{AmqpBinding, AmqpQueue, AmqpQueueKind, OutgoingError};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, Error as AmqpError, ExchangeKind};

use super::failure::{PRECONDITION_FAILED, code, of_step};
use super::values::short;

/// How long the library is given to forget a channel that ended.
const CHANNEL_PAUSE: Duration = Duration::from_millis(20);

/// Finds `queue`, or makes it.
///
/// # Errors
/// It is not there and is not to be made, or cannot be.
pub(super) async fn make_queue(connection: &Connection, queue: &AmqpQueue) -> Result<(), OutgoingError> {
    let name = short("the queue", &queue.name)?;
    let failed = |error: AmqpError| of_step("declaring a queue", &error);
    let is_expected = queue.make == AmqpQueueKind::Expected;
    let options =
        QueueDeclareOptions { passive: is_expected, durable: !is_expected, ..QueueDeclareOptions::default() };
    let channel = open_channel(connection).await.map_err(failed)?;
    match channel.queue_declare(name, options, arguments(queue.make)).await {
        Ok(_) => Ok(()),
        // It is there and another one; or the broker makes none like this, and it is not there.
        Err(error) if !is_expected && code(&error) == Some(PRECONDITION_FAILED) => {
            let expected = AmqpQueue { make: AmqpQueueKind::Expected, ..queue.clone() };
            Box::pin(make_queue(connection, &expected)).await.map_err(|_| failed(error))
        }
        Err(error) => Err(failed(error)),
    }
}

/// A channel of `connection`. Asked for again where the library answers with the fault that ended another channel
/// of the same number.
///
/// # Errors
/// The connection broke.
pub(super) async fn open_channel(connection: &Connection) -> Result<Channel, AmqpError> {
    let mut attempts = 0;
    loop {
        match connection.create_channel().await {
            Err(error) if code(&error).is_some() && connection.status().connected() && attempts < 5 => {
                attempts += 1;
                tokio::time::sleep(CHANNEL_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

fn arguments(make: AmqpQueueKind) -> FieldTable {
    let mut arguments = FieldTable::default();
    match make {
        AmqpQueueKind::Expected | AmqpQueueKind::Classic => {}
        AmqpQueueKind::Quorum => {
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        }
    }
    arguments
}

/// Finds the exchange of `binding`, or makes it, and binds `queue` to it.
///
/// # Errors
/// It is not there and is not to be made, or cannot be.
pub(super) async fn bind(
    connection: &Connection,
    queue: &str,
    binding: &AmqpBinding,
) -> Result<(), OutgoingError> {
    let (queue, exchange) = (short("the queue", queue)?, short("the exchange", &binding.exchange)?);
    let failed = |error: AmqpError| of_step("binding a queue", &error);
    if let Some(kind) = binding.make {
        make_exchange(connection, &exchange, kind).await?;
    }
    let channel = open_channel(connection).await.map_err(failed)?;
    for key in &binding.routing_keys {
        let key = short("a routing key", key)?;
        let options = QueueBindOptions::default();
        channel
            .queue_bind(queue.clone(), exchange.clone(), key, options, FieldTable::default())
            .await
            .map_err(failed)?;
    }
    Ok(())
}

async fn make_exchange(
    connection: &Connection,
    exchange: &ShortString,
    kind: &str,
) -> Result<(), OutgoingError> {
    let failed = |error: AmqpError| of_step("declaring an exchange", &error);
    let kind = match kind {
        "direct" => ExchangeKind::Direct,
        "fanout" => ExchangeKind::Fanout,
        "headers" => ExchangeKind::Headers,
        _ => ExchangeKind::Topic,
    };
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let channel = open_channel(connection).await.map_err(failed)?;
    match channel.exchange_declare(exchange.clone(), kind, durable, FieldTable::default()).await {
        Ok(()) => Ok(()),
        Err(error) if code(&error) == Some(PRECONDITION_FAILED) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}
