//! The bus as its owner sees it: tell, hear, ask for the state. Connects, and connects again, for ever.

use std::sync::Arc;
use std::time::Duration;

use crosstie_amqp::BrokerError as BusError;
use crosstie_model::secret::SecretValue;
use crosstie_model::settings::BusUrl;
use crosstie_model::{Event, Revision, UnitName};
use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::backoff::Backoff;
use crate::connect::{Target, connect};
use crate::session::{Shared, Stopped};
use crate::state::BusState;

/// How long [`Bus::close`] waits for the connection to end in order.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// What a bus is made of.
pub struct BusOptions {
    /// The broker.
    pub url: BusUrl,
    /// This server's name, unique in its cluster: its own notices are passed over.
    pub server: UnitName,
    /// The fanout exchange that all servers of the cluster share.
    pub exchange: String,
    /// Password and certificate.
    pub secrets: Box<dyn BusSecrets>,
}

/// Where password and certificate come from. Asked before every attempt to connect, so that replaced files
/// are used without a restart; short blocking reads are all right.
pub trait BusSecrets: Send + Sync {
    /// The password of the user in the URL.
    ///
    /// # Errors
    /// Why there is none, without the password.
    fn password(&self) -> Result<Option<SecretValue>, String>;

    /// What TLS trusts and shows.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn tls(&self) -> Result<Arc<ClientConfig>, String>;
}

/// What the owner hears. All of it is a hint: look at the ODB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Another server said this.
    Changed(Event),
    /// The broker is (again) connected: there may have been more than was heard.
    CompareNow,
}

/// A connection to the other servers of the cluster, kept up until this is closed or dropped.
pub struct Bus {
    newest: watch::Sender<Option<Revision>>,
    state: watch::Receiver<BusState>,
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Bus {
    /// Starts connecting on the caller's runtime, which must be a tokio runtime with time and I/O. What is
    /// heard goes to `inbound`; when that is full, the oldest there stand for the newest.
    #[must_use]
    pub fn start(options: BusOptions, inbound: mpsc::Sender<Heard>) -> Self {
        let (newest, to_send) = watch::channel(None);
        let (known, state) = watch::channel(BusState::starting());
        let stop = CancellationToken::new();
        let shared = Shared {
            server: options.server,
            exchange: options.exchange,
            newest: to_send,
            inbound,
            state: known,
            stop: stop.clone(),
        };
        let keeper = Keeper { url: options.url, secrets: options.secrets, shared };
        let task = tokio::spawn(keeper.run());
        Self { newest, state, stop: stop.drop_guard(), task }
    }

    /// Tells the other servers. Never waits: while the broker is away or blocked the newest revision alone is
    /// kept, and sent as soon as it can be. Events that concern one server alone are not carried.
    pub fn publish(&self, event: &Event) {
        if let Event::RevisionChanged { revision } = event {
            self.newest.send_replace(Some(*revision));
        }
    }

    /// What is known of the connection now.
    #[must_use]
    pub fn state(&self) -> BusState {
        self.state.borrow().clone()
    }

    /// Follows what is known of the connection.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BusState> {
        self.state.clone()
    }

    /// Ends the connection in order, within two seconds. Dropping a bus ends it as well, without waiting.
    pub async fn close(self) {
        let Self { stop, mut task, .. } = self;
        drop(stop);
        if timeout(CLOSE_LIMIT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Keeps the connection up.
struct Keeper {
    url: BusUrl,
    secrets: Box<dyn BusSecrets>,
    shared: Shared,
}

impl Keeper {
    async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let mut backoff = Backoff::new();
        let address = self.url.to_string();
        loop {
            let attempt = tokio::select! {
                () = stop.cancelled() => return,
                attempt = self.connect() => attempt,
            };
            let ended = match attempt {
                Ok(connected) => {
                    tracing::info!(broker = address, "the bus is connected");
                    let began = Instant::now();
                    let ended = self.shared.run(connected, &address).await;
                    backoff.lasted(began.elapsed());
                    ended
                }
                Err(error) => Err(error),
            };
            match ended {
                Ok(Stopped) => return,
                Err(error) => self.note(&error),
            }
            // Without randomness the pause is the whole step; nothing but the spread is lost.
            let pause = backoff.pause(getrandom::u32().unwrap_or(u32::MAX));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.shared.inbound.closed() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn connect(&self) -> Result<crate::connect::Connected, BusError> {
        let password = self.secrets.password().map_err(BusError::Secrets)?;
        let tls = self.url.tls.then(|| self.secrets.tls().map_err(BusError::Secrets)).transpose()?;
        let target = Target {
            url: &self.url,
            exchange: &self.shared.exchange,
            server: &self.shared.server,
            password: password.as_ref(),
            tls,
        };
        connect(&target).await
    }

    fn note(&self, error: &BusError) {
        let mut is_news = false;
        self.shared.state.send_modify(|state| is_news = state.down(error.to_string()));
        if is_news {
            tracing::warn!(%error, "the bus is away; servers find changes by comparing");
        } else {
            tracing::debug!(%error, "the bus is still away");
        }
    }
}
