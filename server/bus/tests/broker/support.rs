//! A broker of the distribution that is gone when the test is over, and buses that talk to it.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crosstie_bus::{Bus, BusOptions, BusSecrets, BusState, ClientConfig, Heard};
use crosstie_model::secret::SecretValue;
use crosstie_model::settings::BusUrl;
use crosstie_model::{Event, Revision};
use crosstie_parts::{PartTls, RabbitMq};
use crosstie_security::tls::{ClientIdentity, client_config, roots_from_file};
use crosstie_test_support::parts::{Authority, TestPart};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;

/// The password of the broker's user.
pub(crate) const PASSWORD: &str = "it's a secret";
/// Longest a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker and its authority.
pub(crate) struct Broker(Arc<TestPart>);

impl Broker {
    /// One that listens with TLS; its certificate is for 127.0.0.1.
    pub(crate) fn secured() -> Self {
        Self(Arc::new(TestPart::start("rabbitmq", RabbitMq::new).unwrap()))
    }

    /// One that listens in plain.
    pub(crate) fn plain() -> Self {
        Self(Arc::new(TestPart::start_with("rabbitmq", RabbitMq::new, |plan| plan.tls = None).unwrap()))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.0.authority
    }

    /// Starts it again, while buses go on.
    pub(crate) async fn restart(&self) {
        let broker = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || broker.part.start().unwrap()).await.unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        let pid = Pid::from_raw(i32::try_from(self.0.part.pid().unwrap()).unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
        while self.0.part.pid().is_some() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Adds to its settings, or takes away what was added, from the next start on.
    pub(crate) fn set(&self, settings: Option<&str>) {
        let own = self.0.directory.join("own/test.conf");
        match settings {
            Some(text) => fs::write(own, text).unwrap(),
            None => fs::remove_file(own).unwrap(),
        }
    }

    /// What a server of its environment shows and trusts.
    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        tls(&self.0.client, Some(&self.0.client))
    }

    pub(crate) fn url(&self) -> String {
        format!("amqps://crosstie@{}/crosstie", self.address())
    }

    pub(crate) fn plain_url(&self) -> String {
        format!("amqp://crosstie@{}/crosstie", self.address())
    }

    /// A server's bus, over TLS.
    pub(crate) fn bus(&self, name: &str) -> Server {
        Server::start(name, &self.url(), PASSWORD, Some(self.tls()))
    }

    /// A server's bus, in plain.
    pub(crate) fn plain_bus(&self, name: &str) -> Server {
        Server::start(name, &self.plain_url(), PASSWORD, None)
    }
}

/// What trusts the authority of `trusted` and shows `own`.
pub(crate) fn tls(trusted: &PartTls, own: Option<&PartTls>) -> Arc<ClientConfig> {
    let files = own.map(|own| (fs::read(&own.certificate).unwrap(), fs::read(&own.key).unwrap()));
    let files = files.map(|(chain, key)| (chain, SecretValue::new(key)));
    let identity = files.as_ref().map(|(chain_pem, key_pem)| ClientIdentity { chain_pem, key_pem });
    client_config(roots_from_file(&trusted.ca).unwrap(), identity.as_ref(), &[]).unwrap()
}

struct Secrets {
    password: &'static str,
    tls: Option<Arc<ClientConfig>>,
}

impl BusSecrets for Secrets {
    fn password(&self) -> Result<Option<SecretValue>, String> {
        Ok(Some(SecretValue::new(self.password.as_bytes().to_vec())))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        self.tls.clone().ok_or_else(|| "there is no certificate".to_owned())
    }
}

/// A server's end of the bus.
pub(crate) struct Server {
    pub(crate) bus: Bus,
    heard: mpsc::Receiver<Heard>,
}

impl Server {
    pub(crate) fn start(
        name: &str,
        url: &str,
        password: &'static str,
        tls: Option<Arc<ClientConfig>>,
    ) -> Self {
        let (sender, heard) = mpsc::channel(16);
        let options = BusOptions {
            url: BusUrl::parse(url).unwrap(),
            server: name.parse().unwrap(),
            exchange: "crosstie".into(),
            secrets: Box::new(Secrets { password, tls }),
        };
        Self { bus: Bus::start(options, sender), heard }
    }

    pub(crate) fn publish(&self, revision: u64) {
        self.bus.publish(&Event::RevisionChanged { revision: Revision(revision) });
    }

    /// The next it hears.
    pub(crate) async fn hears(&mut self) -> Heard {
        tokio::time::timeout(PATIENCE, self.heard.recv()).await.expect("nothing was heard").unwrap()
    }

    /// Whether it has heard nothing more.
    pub(crate) fn hears_nothing(&mut self) -> bool {
        self.heard.try_recv().is_err()
    }

    /// Waits for what is known of the connection to be such.
    pub(crate) async fn reaches(&self, what: &str, condition: impl Fn(&BusState) -> bool) -> BusState {
        let mut watch = self.bus.watch();
        let found = tokio::time::timeout(PATIENCE, watch.wait_for(|state| condition(state))).await;
        found.unwrap_or_else(|_| panic!("never {what}: {:?}", self.bus.state())).unwrap().clone()
    }

    /// Waits until it listens, and hears that it should compare.
    pub(crate) async fn connects(&mut self) {
        self.reaches("connected", |state| state.connected).await;
        assert_eq!(self.hears().await, Heard::CompareNow);
    }

    /// Why it is not connected.
    pub(crate) async fn fails(&self) -> String {
        let state = self.reaches("refused", |state| state.last_error.is_some()).await;
        assert!(!state.connected);
        state.last_error.unwrap()
    }
}

/// What another server's change is heard as.
pub(crate) fn changed(revision: u64) -> Heard {
    Heard::Changed(Event::RevisionChanged { revision: Revision(revision) })
}
