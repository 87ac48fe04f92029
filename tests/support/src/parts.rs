//! Databases and brokers of the distribution for tests, started as environments start them. Each has a
//! directory, a certificate authority and a port of its own.
//!
//! A part must not outlive the test process, however that ends: a panic in another thread, an abort and a
//! kill run nobody's destructor. So a small shell waits on a pipe that the test process holds; when the pipe
//! closes it ends the part by the process id in its directory and deletes everything.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use crosstie_model::secret::SecretValue;
use crosstie_parts::{Credentials, Part, PartPlan, PartTls, Reach, ServiceUser};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use crate::ports::PortBase;

/// Ends the part whose file names a living process, first in order, and deletes its directory. Field 22 of
/// `stat` is when the process began: an id that was given to another one is left alone.
const WATCH: &str = r#"
cat >/dev/null
for signal in QUIT KILL; do
  { read -r pid && read -r began; } <"$1/part/part.pid" || break
  [ "$(cut -d ' ' -f 22 "/proc/$pid/stat")" = "$began" ] || break
  kill -s $signal "$pid"
  turns=0
  while [ -d "/proc/$pid" ] && [ $turns -lt 50 ]; do sleep 0.1; turns=$((turns + 1)); done
done
rm -rf "$1"
"#;

/// A certificate authority whose files are in a directory of their own.
pub struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one in `directory`, which must exist.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(directory: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "CA of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { directory: directory.to_owned(), issuer };
        authority.write("ca.pem", authority.issuer.pem())?;
        Ok(authority)
    }

    /// Issues a certificate for `hosts`, names or addresses, good for servers and clients; its files are
    /// called after `name`.
    ///
    /// # Errors
    /// A host is none, or a file cannot be written.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Result<PartTls> {
        let mut params =
            CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
        // Another name than the CA's: OpenSSL would take it for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(PartTls {
            ca: self.directory.join("ca.pem"),
            certificate: self.write(&format!("{name}.pem"), certificate.pem())?,
            key: self.write(&format!("{name}.key"), key.serialize_pem())?,
        })
    }

    fn write(&self, name: &str, text: String) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// A part that runs until the value is dropped or this process ends.
pub struct TestPart {
    /// The part.
    pub part: Box<dyn Part>,
    /// Where it listens. Its certificate is for this address and no name.
    pub address: SocketAddr,
    /// Whom it lets in.
    pub credentials: Credentials,
    /// A client's certificate, and the CA of both sides.
    pub client: PartTls,
    /// Who issued its certificate, called `part`, and the client's.
    pub authority: Authority,
    /// Its directory.
    pub directory: PathBuf,
    /// Ends the part when its standard input closes, which dropping it does.
    _watch: Watch,
    _port: PortBase,
}

impl TestPart {
    /// Makes and starts the part that `make` gives for a plan; `user` is the distribution's user of it.
    ///
    /// # Errors
    /// A program is not installed, or the part does not start.
    pub fn start<P: Part + 'static>(user: &str, make: fn(PartPlan) -> P) -> Result<Self> {
        Self::start_with(user, make, |_| {})
    }

    /// As [`TestPart::start`], with a plan that `change` may change.
    ///
    /// # Errors
    /// As [`TestPart::start`].
    pub fn start_with<P: Part + 'static>(
        user: &str,
        make: fn(PartPlan) -> P,
        change: impl FnOnce(&mut PartPlan),
    ) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("crosstie-part-").tempdir()?.keep();
        let watch = Watch::over(&root)?;
        let certificates = root.join("certificates");
        fs::create_dir(&certificates)?;
        let authority = Authority::new(&certificates)?;
        let port = PortBase::reserve()?;
        let mut plan = PartPlan {
            directory: root.join("part"),
            address: (Ipv4Addr::LOCALHOST, port.number()).into(),
            tls: Some(authority.issue("part", &["127.0.0.1"])?),
            user: ServiceUser::for_part(user)?,
        };
        change(&mut plan);
        let credentials = Credentials {
            user: "crosstie".into(),
            password: SecretValue::new(b"it's a secret".to_vec()),
            database: "crosstie".into(),
            reach: Reach::AnyDatabase,
        };
        let (address, directory) = (plan.address, plan.directory.clone());
        let part = Box::new(make(plan));
        part.create(&credentials)?;
        part.start()?;
        let client = authority.issue("client", &["client"])?;
        Ok(Self { part, address, credentials, client, authority, directory, _watch: watch, _port: port })
    }
}

/// The shell that outlives this process for a moment.
struct Watch(Child);

impl Watch {
    fn over(root: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        // In a group of its own, so that an interrupt of the terminal does not end it before the part.
        command.args(["-c", WATCH, "watch"]).arg(root).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().context("cannot start sh")?))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
