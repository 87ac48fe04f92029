//! A broker of the distribution that is gone when the test is over, and buses that talk to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crosstie_bus::{Bus, BusOptions, BusSecrets, BusState, Heard};
use crosstie_model::secret::SecretValue;
use crosstie_model::settings::BusUrl;
use crosstie_model::{Event, Revision};
use crosstie_parts::{Credentials, Part, PartPlan, PartTls, RabbitMq, Reach, ServiceUser};
use crosstie_security::CertificateAuthority;
use crosstie_security::authority::IssuedCertificate;
use crosstie_security::tls::{ClientIdentity, client_config, roots};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::ClientConfig;
use tokio::sync::mpsc;

pub(crate) const PASSWORD: &str = "it's \"$ecret\"; --";
/// Longest a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker and its authority.
pub(crate) struct Broker {
    part: Arc<RabbitMq>,
    pub(crate) address: SocketAddr,
    pub(crate) authority: CertificateAuthority,
    pub(crate) directory: tempfile::TempDir,
}

impl Broker {
    /// One that listens with TLS.
    pub(crate) fn secured() -> Self {
        Self::start(|directory, authority| {
            let issued = authority.issue_server("broker", &["localhost"], &[]).unwrap();
            let file = |name: &str| directory.join(name);
            issued.save(&file("broker.pem"), &file("broker.key")).unwrap();
            authority.save(directory).unwrap();
            Some(PartTls { ca: file("ca.pem"), certificate: file("broker.pem"), key: file("broker.key") })
        })
    }

    /// One that listens in plain.
    pub(crate) fn plain() -> Self {
        Self::start(|_, _| None)
    }

    fn start(tls: impl Fn(&Path, &CertificateAuthority) -> Option<PartTls>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::create("test").unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let part = RabbitMq::new(PartPlan {
            directory: directory.path().join("broker"),
            address,
            tls: tls(directory.path(), &authority),
            user: ServiceUser::for_part("rabbitmq").unwrap(),
        });
        part.create(&Credentials {
            user: "crosstie".into(),
            password: SecretValue::new(PASSWORD.as_bytes().to_vec()),
            database: "crosstie".into(),
            reach: Reach::OneDatabase,
        })
        .unwrap();
        let broker = Self { part: Arc::new(part), address, authority, directory };
        broker.part.start().unwrap();
        broker
    }

    /// Starts it again, while buses go on.
    pub(crate) async fn restart(&self) {
        let part = Arc::clone(&self.part);
        tokio::task::spawn_blocking(move || part.start().unwrap()).await.unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        let pid = Pid::from_raw(i32::try_from(self.part.pid().unwrap()).unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
        while self.part.pid().is_some() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A certificate of its authority.
    pub(crate) fn issue(&self, name: &str) -> IssuedCertificate {
        self.authority.issue_server(name, &[name], &[IpAddr::V4(Ipv4Addr::LOCALHOST)]).unwrap()
    }

    /// What a server of its environment shows and trusts.
    pub(crate) fn tls(&self, name: &str) -> Arc<ClientConfig> {
        tls(&self.authority, Some(&self.issue(name)))
    }

    /// A server's bus, over TLS.
    pub(crate) fn bus(&self, name: &str) -> Server {
        let url = format!("amqps://crosstie@localhost:{}/crosstie", self.address.port());
        Server::start(name, &url, PASSWORD, Some(self.tls(name)))
    }

    /// A server's bus, in plain.
    pub(crate) fn plain_bus(&self, name: &str) -> Server {
        Server::start(name, &self.plain_url(), PASSWORD, None)
    }

    pub(crate) fn plain_url(&self) -> String {
        format!("amqp://crosstie@{}/crosstie", self.address)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.part.stop().unwrap();
    }
}

/// What trusts `authority` and shows `identity`.
pub(crate) fn tls(
    authority: &CertificateAuthority,
    identity: Option<&IssuedCertificate>,
) -> Arc<ClientConfig> {
    let identity = identity.map(|issued| ClientIdentity {
        chain_pem: issued.certificate_pem.as_bytes(),
        key_pem: &issued.key_pem,
    });
    client_config(roots(authority.certificate_pem().as_bytes()).unwrap(), identity.as_ref(), &[]).unwrap()
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
