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

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_parts::RabbitMq;
    use crosstie_process::control::ToSupervisor;
    use crosstie_security::write_private;
    use crosstie_test_support::parts::TestPart;

    fn options(broker: &TestPart, server: &str) -> BusOptions {
        let directory = broker.directory.clone();
        write_private(&directory.join("password"), broker.credentials.password.expose()).unwrap();
        let key = Arc::new(ClusterKey::generate().unwrap());
        BusOptions {
            url: BusUrl::parse(&format!("amqp://crosstie@{}/crosstie", broker.address)).unwrap(),
            server: server.parse().unwrap(),
            exchange: "crosstie".into(),
            secrets: Box::new(ServerSecrets {
                directory: directory.clone(),
                security: SecuritySection::default(),
                password: Some("file:password".into()),
                resolver: SecretResolver::new(key, directory),
            }),
        }
    }

    async fn soon<F: Future>(work: F) -> F::Output {
        tokio::time::timeout(Duration::from_secs(15), work).await.expect("not in time")
    }

    fn changed(revision: u64) -> Event {
        Event::RevisionChanged { revision: Revision(revision) }
    }

    #[tokio::test]
    async fn a_change_elsewhere_reaches_the_workers_and_is_not_said_again() {
        let broker = TestPart::start_with("rabbitmq", RabbitMq::new, |plan| plan.tls = None).unwrap();
        let (outbox, mut to_workers) = Outbox::new();
        let segment = Segment::create().unwrap();
        let metrics = Metrics::new(Arc::clone(&segment) as _);
        let link = BusLink::default();
        assert_eq!(link.status(), BusStatus::in_host());
        let bridge = Bridge {
            link: link.clone(),
            outbox,
            standing: Arc::default(),
            segment: Arc::clone(&segment),
            metrics,
        };
        let running = tokio::spawn(bridge.run(Some(options(&broker, "here"))));
        let (sender, mut there) = mpsc::channel(16);
        let other = Bus::start(options(&broker, "there"), sender);
        assert_eq!(soon(there.recv()).await, Some(Heard::CompareNow));
        // Connected for the first time, the workers compare once.
        let told = soon(to_workers.recv()).await;
        assert!(matches!(told, Some(ToSupervisor::Event(event)) if event == changed(0)));
        assert_eq!(segment.is_bus_connected(), Some(true));
        assert!(link.status().reachable && link.status().kind == "rabbitmq");

        other.publish(&changed(7));
        let told = soon(to_workers.recv()).await;
        assert!(matches!(told, Some(ToSupervisor::Event(event)) if event == changed(7)));
        link.publish(&changed(8));
        // Had 7 been said again it would be heard before 8.
        assert_eq!(soon(there.recv()).await, Some(Heard::Changed(changed(8))));

        link.close().await;
        soon(running).await.unwrap();
        assert!(to_workers.try_recv().is_err());
        other.close().await;
    }

    #[tokio::test]
    async fn many_hints_reach_the_workers_as_few() {
        let (outbox, mut to_workers) = Outbox::new();
        let segment = Segment::create().unwrap();
        let metrics = Metrics::new(Arc::clone(&segment) as _);
        let (link, standing) = (BusLink::default(), Arc::default());
        let bridge = Bridge { link, outbox, standing, segment, metrics };
        let (sender, heard) = mpsc::channel(HINTS);
        let flood = async move {
            for revision in 1..=1_000 {
                sender.send(Heard::Changed(changed(revision))).await.unwrap();
            }
        };
        tokio::join!(bridge.pass_on(heard), flood);
        let mut told = Vec::new();
        while let Ok(ToSupervisor::Event(event)) = to_workers.try_recv() {
            told.push(event);
        }
        assert_eq!(told.last(), Some(&changed(1_000)));
        assert!(told.len() < 100, "{} hints", told.len());
    }
}
