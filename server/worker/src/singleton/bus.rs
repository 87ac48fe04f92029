//! Bridges the bus: what is changed on this server goes to the others, what they say goes to all workers here.
//!
//! Only operations of this process are published, never what was heard, so nothing echoes. What is heard is a
//! hint to look at the ODB; of many at once the workers are told of one, so that no other server can keep
//! them busy. When the singleton dies its connection dies with it, and the next singleton makes its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crosstie_api::host::BusStatus;
use crosstie_bus::{Bus, BusCounts, BusOptions, BusSecrets, BusState, ClientConfig, Heard};
use crosstie_model::secret::SecretValue;
use crosstie_model::settings::{BusUrl, SecuritySection, ServerSettings};
use crosstie_model::{Event, Revision};
use crosstie_process::shm::Segment;
use crosstie_security::private_file::{read_private, read_public};
use crosstie_security::tls::{self, ClientIdentity};
use crosstie_security::{ClusterKey, SecretResolver};
use crosstie_telemetry::Metrics;
use crosstie_telemetry::metrics::counters;
use tokio::sync::{mpsc, watch};

use crate::follow::Standing;
use crate::host::WorkerHost;
use crate::outbox::Outbox;

/// Hints that wait to be passed on; of more the first stand for the rest.
const HINTS: usize = 16;

/// Shortest time between two hints to the workers.
const HINT_PAUSE: Duration = Duration::from_millis(20);

/// To the other servers, while this worker is the singleton and a broker is configured. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct BusLink(Arc<ArcSwapOption<Bus>>);

impl BusLink {
    /// Tells the other servers. Never waits.
    pub(crate) fn publish(&self, event: &Event) {
        if let Some(bus) = self.0.load().as_deref() {
            bus.publish(event);
        }
    }

    /// How this server hears of changes that others make.
    pub(crate) fn status(&self) -> BusStatus {
        self.0.load().as_deref().map_or_else(BusStatus::in_host, |bus| status(bus.state()))
    }

    /// Ends the connection in order.
    pub(crate) async fn close(&self) {
        // Somebody who is still publishing ends it by letting go of it.
        if let Some(bus) = self.0.swap(None).and_then(Arc::into_inner) {
            bus.close().await;
        }
    }
}

fn status(state: BusState) -> BusStatus {
    let error = match state.blocked {
        Some(reason) => Some(format!("the broker takes no messages: {reason}")),
        None => state.last_error.filter(|_| !state.connected),
    };
    BusStatus {
        kind: "rabbitmq".to_owned(),
        reachable: state.connected,
        since: Some(state.since.into()),
        error,
    }
}

/// The singleton's end of the bus.
pub(super) struct Bridge {
    link: BusLink,
    outbox: Outbox,
    standing: Arc<Standing>,
    segment: Arc<Segment>,
    metrics: Metrics,
}

impl Bridge {
    /// Between `host`'s workers and the other servers.
    pub(super) fn new(host: &WorkerHost) -> Self {
        Self {
            link: host.bus.clone(),
            outbox: host.outbox.clone(),
            standing: Arc::clone(&host.standing),
            segment: Arc::clone(&host.segment),
            metrics: host.metrics.clone(),
        }
    }

    /// Carries both ways until cancelled. Without a broker there is nothing to do.
    pub(super) async fn run(self, options: Option<BusOptions>) {
        self.segment.note_bus(options.as_ref().map(|_| false));
        let Some(options) = options else { return };
        let (sender, heard) = mpsc::channel(HINTS);
        let bus = Bus::start(options, sender);
        let revision = self.standing.revision();
        if revision > Revision(0) {
            // A singleton that died between a change and its notice left this to be said.
            bus.publish(&Event::RevisionChanged { revision });
        }
        let states = bus.watch();
        self.link.0.store(Some(Arc::new(bus)));
        tokio::join!(self.pass_on(heard), self.observe(states));
    }

    /// Tells the workers of this server to look at the ODB.
    async fn pass_on(&self, mut heard: mpsc::Receiver<Heard>) {
        while let Some(first) = heard.recv().await {
            let mut newest = first;
            while let Ok(next) = heard.try_recv() {
                newest = next;
            }
            let revision = match newest {
                Heard::Changed(Event::RevisionChanged { revision }) => revision,
                Heard::Changed(_) | Heard::CompareNow => self.standing.revision(),
            };
            self.outbox.event(Event::RevisionChanged { revision });
            tokio::time::sleep(HINT_PAUSE).await;
        }
    }

    /// Shows the connection's state in the server's metrics.
    async fn observe(&self, mut states: watch::Receiver<BusState>) {
        let notices = |outcome| self.metrics.counter(&counters::BUS_NOTICES, &[("outcome", outcome)]);
        let connections = self.metrics.counter(&counters::BUS_CONNECTIONS, &[]);
        let (sent, received, unreadable) = (notices("sent"), notices("received"), notices("unreadable"));
        let mut known = BusCounts::default();
        loop {
            let (connected, now) = {
                let state = states.borrow_and_update();
                (state.connected, state.counts)
            };
            self.segment.note_bus(Some(connected));
            connections.add(now.connections.saturating_sub(known.connections));
            sent.add(now.sent.saturating_sub(known.sent));
            received.add(now.received.saturating_sub(known.received));
            unreadable.add(now.unreadable.saturating_sub(known.unreadable));
            known = now;
            if states.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The bus that `settings` describe; `None` without a broker.
pub(super) fn options(
    directory: &Path,
    settings: &ServerSettings,
    cluster_key: &Arc<ClusterKey>,
) -> Option<BusOptions> {
    let section = &settings.bus;
    if section.url.is_empty() {
        return None;
    }
    let url = BusUrl::parse(&section.url)
        .inspect_err(|error| tracing::error!(%error, "bus.url cannot be used"))
        .ok()?;
    Some(BusOptions {
        url,
        server: settings.server.name.clone(),
        exchange: section.exchange.clone(),
        secrets: Box::new(ServerSecrets {
            directory: directory.to_owned(),
            security: settings.security.clone(),
            password: section.password.clone(),
            resolver: SecretResolver::new(Arc::clone(cluster_key), directory.to_owned()),
        }),
    })
}

/// The server's own certificate and its password at the broker.
struct ServerSecrets {
    directory: PathBuf,
    security: SecuritySection,
    password: Option<String>,
    resolver: SecretResolver,
}

impl BusSecrets for ServerSecrets {
    fn password(&self) -> Result<Option<SecretValue>, String> {
        let resolve = |reference: &str| self.resolver.resolve_setting(reference);
        self.password.as_deref().map(resolve).transpose().map_err(|error| error.to_string())
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let file = |path: &Path| self.directory.join(path);
        let read = || -> Result<_, tls::TlsError> {
            let roots = tls::roots_from_file(&file(&self.security.ca))?;
            let chain_pem = read_public(&file(&self.security.certificate))?;
            let key_pem = read_private(&file(&self.security.key))?;
            let identity = ClientIdentity { chain_pem: &chain_pem, key_pem: &key_pem };
            tls::client_config(roots, Some(&identity), &[])
        };
        read().map_err(|error| error.to_string())
    }
}
