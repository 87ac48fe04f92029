//! One consumer: connects, works on what comes, and connects again, until its channel stops.

use std::sync::Arc;
use std::time::Duration;

use crosstie_model::outgoing::{AmqpConsume, AmqpConsumer, OutgoingError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::delivery::{Desk, Hands};

/// The pause before the first attempt to connect again; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a connection ended.
enum Ended {
    /// In order: the channel stops.
    Stopped,
    /// It broke.
    Broken(OutgoingError),
}

/// Consumes until the channel of `desk` stops; begins after `delay`.
pub(super) async fn run(desk: Arc<Desk>, call: AmqpConsume, delay: Duration) {
    tokio::select! {
        () = desk.stop.cancelled() => return,
        () = tokio::time::sleep(delay) => {}
    }
    let (channel, queue) = (Arc::clone(&desk.name), desk.settings.queue.clone());
    let mut pause = FIRST_PAUSE;
    let mut is_news = true;
    loop {
        let attempt = tokio::select! {
            () = desk.stop.cancelled() => return,
            attempt = desk.connection.consume(&call) => attempt,
        };
        let wait = match attempt {
            Ok(consumer) => {
                tracing::info!(channel = &*channel, queue, "consuming");
                (pause, is_news) = (FIRST_PAUSE, true);
                match work(&desk, consumer).await {
                    Ended::Stopped => return tracing::info!(channel = &*channel, queue, "consuming no more"),
                    Ended::Broken(error) => {
                        tracing::warn!(
                            channel = &*channel,
                            queue,
                            detail = error.detail,
                            "consuming broke off"
                        );
                        pause
                    }
                }
            }
            Err(error) => {
                if std::mem::take(&mut is_news) {
                    tracing::warn!(channel = &*channel, queue, detail = error.detail, "nothing is consumed");
                }
                let now = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                now
            }
        };
        tokio::select! {
            () = desk.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Works on what comes. However it ends, no message is being worked on after it.
async fn work(desk: &Arc<Desk>, mut consumer: Box<dyn AmqpConsumer>) -> Ended {
    let gone = CancellationToken::new();
    let free = Arc::new(Semaphore::new(desk.settings.prefetch.into()));
    let hands = Hands { gone: gone.clone(), free };
    let mut cases = JoinSet::new();
    loop {
        tokio::select! {
            () = desk.stop.cancelled() => break,
            Some(_) = cases.join_next(), if !cases.is_empty() => {}
            next = consumer.next() => match next {
                Some(Ok(delivery)) => {
                    cases.spawn(Arc::clone(desk).handle(delivery, hands.clone()));
                }
                Some(Err(error)) => {
                    gone.cancel();
                    finish(cases).await;
                    return Ended::Broken(error);
                }
                None => break,
            },
        }
    }
    // What was sent ahead goes back; what is under way is finished and acknowledged.
    let mut is_open = consumer.cancel().await.is_ok();
    while is_open || !cases.is_empty() {
        tokio::select! {
            Some(_) = cases.join_next(), if !cases.is_empty() => {}
            next = consumer.next(), if is_open => match next {
                // One that cannot be put back comes back by itself.
                Some(Ok(delivery)) => drop(delivery.settle.put_back().await),
                Some(Err(_)) => {
                    gone.cancel();
                    is_open = false;
                }
                None => is_open = false,
            },
        }
    }
    consumer.close().await;
    Ended::Stopped
}

async fn finish(mut cases: JoinSet<()>) {
    while cases.join_next().await.is_some() {}
}
