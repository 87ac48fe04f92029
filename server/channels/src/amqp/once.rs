//! A message that came before is not worked on again.
//!
//! Two entries of the data store per message: what became of it, claimed by a unique insert and kept for as long as
//! the channel says; and a lease beside it that ends, by the store's clock, when whoever is at work must have ended.
//! A claim without a lease is of somebody who died: nobody knows what they did.

use std::sync::Arc;
use std::time::Duration;

use crosstie_model::Digest;
use crosstie_model::ports::{DataChange, DataError, DataStore};
use serde_json::{Value, json};
use tokio::runtime::Handle;

/// How much longer than its service may take somebody is taken to be at work.
const MARGIN: Duration = Duration::from_secs(5);

/// Remembers messages.
#[derive(Clone)]
pub(super) struct Memory {
    store: Arc<dyn DataStore>,
    /// Where the store's connections live.
    io: Handle,
}

/// What is known of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is new, and the caller's to work on.
    Won,
    /// It was worked on.
    Done,
    /// Somebody is at work on it.
    AtWork,
    /// Somebody was, and died.
    InDoubt,
}

/// A message by its key.
pub(super) struct Known {
    memory: Memory,
    entry: String,
    keep: Duration,
    lease: Duration,
}

impl Memory {
    pub(super) fn new(store: Arc<dyn DataStore>, io: Handle) -> Self {
        Self { store, io }
    }

    /// The message that `channel` knows as `key`; `deadline` is how long its service may take.
    pub(super) fn message(&self, channel: &str, key: &str, keep: Duration, deadline: Duration) -> Known {
        // Hashed: keys are as long as their sender likes.
        let digest = Digest::of(format!("{channel}\n{key}").as_bytes());
        let entry = format!("crosstie/amqp/{digest}");
        Known { memory: self.clone(), entry, keep, lease: deadline.saturating_add(MARGIN) }
    }

    /// Runs `work` where the store's connections live.
    async fn at_the_store<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DataError>> + Send + 'static,
    ) -> Result<T, DataError> {
        self.io.spawn(work).await.unwrap_or(Err(DataError::Unreachable))
    }
}

impl Known {
    fn lease_entry(&self) -> String {
        format!("{}/lease", self.entry)
    }

    /// Claims the message.
    ///
    /// # Errors
    /// The store is away.
    pub(super) async fn claim(&self) -> Result<Claim, DataError> {
        let (store, entry, lease_entry) =
            (Arc::clone(&self.memory.store), self.entry.clone(), self.lease_entry());
        let (keep, lease) = (self.keep, self.lease);
        let claiming = async move {
            let at_work = json!({"state": "at_work"});
            let claim = DataChange::Set { key: &entry, value: &at_work, ttl: Some(keep), expected: Some(0) };
            // Both at once: a claim without a lease would be one of the dead.
            let hold = DataChange::Set {
                key: &lease_entry,
                value: &Value::Bool(true),
                ttl: Some(lease),
                expected: None,
            };
            match store.change(&[claim, hold]).await {
                Ok(()) => Ok(Claim::Won),
                // An entry that is gone again was forgotten by whoever was at work: the next look takes it.
                Err(DataError::Conflict { .. }) => {
                    Ok(look(&*store, &entry, &lease_entry).await?.unwrap_or(Claim::AtWork))
                }
                Err(error) => Err(error),
            }
        };
        self.memory.at_the_store(claiming).await
    }

    /// Notes that the service is done with the message.
    ///
    /// # Errors
    /// The store is away.
    pub(super) async fn done(&self) -> Result<(), DataError> {
        let (store, entry, lease) = (Arc::clone(&self.memory.store), self.entry.clone(), self.lease_entry());
        let keep = self.keep;
        let noting = async move {
            let done = json!({"state": "done"});
            let note = DataChange::Set { key: &entry, value: &done, ttl: Some(keep), expected: None };
            store.change(&[note, DataChange::Delete { key: &lease }]).await
        };
        self.memory.at_the_store(noting).await
    }

    /// Forgets the message: its service failed, and it may come again.
    ///
    /// # Errors
    /// The store is away.
    pub(super) async fn forget(&self) -> Result<(), DataError> {
        let (store, entry, lease) = (Arc::clone(&self.memory.store), self.entry.clone(), self.lease_entry());
        let forgetting = async move {
            store.change(&[DataChange::Delete { key: &entry }, DataChange::Delete { key: &lease }]).await
        };
        self.memory.at_the_store(forgetting).await
    }
}

/// What the store says of a message; `None` when it knows nothing.
async fn look(store: &dyn DataStore, entry: &str, lease: &str) -> Result<Option<Claim>, DataError> {
    let Some(found) = store.get(entry).await? else { return Ok(None) };
    if found.value.get("state").and_then(Value::as_str) == Some("done") {
        return Ok(Some(Claim::Done));
    }
    if store.get(lease).await?.is_some() {
        return Ok(Some(Claim::AtWork));
    }
    // It may have been done between the two looks.
    let again = store.get(entry).await?;
    Ok(again.map(|again| match again.value.get("state").and_then(Value::as_str) {
        Some("done") => Claim::Done,
        _ => Claim::InDoubt,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use crosstie_model::ports::DataEntry;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    /// A store without a clock: what is to end is taken away by the test. Only the first of several changes may
    /// expect anything.
    #[derive(Default)]
    struct Shelf(Mutex<BTreeMap<String, DataEntry>>);

    #[async_trait]
    impl DataStore for Shelf {
        async fn get(&self, key: &str) -> Result<Option<DataEntry>, DataError> {
            Ok(self.0.lock().unwrap().get(key).cloned())
        }

        async fn set(
            &self,
            key: &str,
            value: &Value,
            _: Option<Duration>,
            expected: Option<u64>,
        ) -> Result<u64, DataError> {
            let mut entries = self.0.lock().unwrap();
            let found = entries.get(key).map_or(0, |entry| entry.version);
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                return Err(DataError::Conflict { expected, found });
            }
            entries.insert(key.to_owned(), DataEntry { value: value.clone(), version: found + 1 });
            Ok(found + 1)
        }

        async fn delete(&self, key: &str) -> Result<bool, DataError> {
            Ok(self.0.lock().unwrap().remove(key).is_some())
        }

        async fn change(&self, changes: &[DataChange<'_>]) -> Result<(), DataError> {
            for change in changes {
                match *change {
                    DataChange::Set { key, value, ttl, expected } => {
                        self.set(key, value, ttl, expected).await?;
                    }
                    DataChange::Delete { key } => {
                        self.delete(key).await?;
                    }
                }
            }
            Ok(())
        }

        async fn keys(&self, _: &str, _: usize) -> Result<Vec<String>, DataError> {
            Ok(self.0.lock().unwrap().keys().cloned().collect())
        }
    }

    #[tokio::test]
    async fn a_message_is_claimed_once_done_once_and_in_doubt_when_its_claimant_died() {
        let shelf = Arc::new(Shelf::default());
        let memory = Memory::new(Arc::clone(&shelf) as _, Handle::current());
        let of = |key| memory.message("c", key, Duration::from_secs(60), Duration::from_secs(1));
        let first = of("a");
        assert_eq!(first.claim().await, Ok(Claim::Won));
        assert_eq!(of("a").claim().await, Ok(Claim::AtWork));
        assert_eq!(of("b").claim().await, Ok(Claim::Won), "another message is another matter");
        first.forget().await.unwrap();
        assert_eq!(of("a").claim().await, Ok(Claim::Won));
        first.done().await.unwrap();
        assert_eq!(of("a").claim().await, Ok(Claim::Done));
        let lease = of("b").lease_entry();
        assert!(shelf.delete(&lease).await.unwrap());
        assert_eq!(of("b").claim().await, Ok(Claim::InDoubt));
        of("b").forget().await.unwrap();
        of("a").forget().await.unwrap();
        assert!(shelf.keys("", 9).await.unwrap().is_empty());
    }
}
