//! What every part can do, and what it needs to know.

use std::net::SocketAddr;
use std::path::PathBuf;

use crosstie_model::secret::SecretValue;

use crate::error::PartError;
use crate::user::ServiceUser;

/// Where a part lives and as whom it runs.
#[derive(Debug, Clone)]
pub struct PartPlan {
    /// The part's own directory, such as `DIR/postgresql`; everything of it is in there.
    pub directory: PathBuf,
    /// Where it listens; on loopback.
    pub address: SocketAddr,
    /// Its certificate. Without one it listens in plain, which only tests want.
    pub tls: Option<PartTls>,
    /// As whom it runs; `None`: as whoever runs this process.
    pub user: Option<ServiceUser>,
}

/// The files of a part's certificate, PEM. They are copied into its directory, readable by it alone.
#[derive(Debug, Clone)]
pub struct PartTls {
    /// The only CA whose certificates clients may show; one they must show.
    pub ca: PathBuf,
    /// The part's chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Whom a new part lets in.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user's name: lower-case letters, digits and underscores.
    pub user: String,
    /// Its password. Handed over by standard input or in a file of the part's directory, never as an
    /// argument.
    pub password: SecretValue,
    /// The database that the user owns; at a broker the virtual host. Written like `user`.
    pub database: String,
    /// How far the user's rights go.
    pub reach: Reach,
}

impl Credentials {
    /// Refuses what would need quoting, or could not be quoted, in one of the programs' files.
    pub(crate) fn check(&self) -> Result<(), PartError> {
        let plain = |text: &str| {
            let allowed =
                |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
            text.len() <= 63
                && text.starts_with(|first: char| first.is_ascii_lowercase())
                && text.chars().all(allowed)
        };
        for (what, name) in [("the user's name", &self.user), ("the database's name", &self.database)] {
            if !plain(name) {
                let detail = format!("{name:?} is not lower-case letters, digits and underscores");
                return Err(PartError::Invalid { what, detail });
            }
        }
        let refuse = |detail: &str| Err(PartError::Invalid { what: "the password", detail: detail.into() });
        match std::str::from_utf8(self.password.expose()) {
            Err(_) => refuse("it is not UTF-8"),
            Ok("") => refuse("it is empty"),
            Ok(text) if text.contains(|letter: char| letter.is_control() || letter == '\\') => {
                refuse("it has control characters or a backslash")
            }
            Ok(_) => Ok(()),
        }
    }

    /// The password as a string of SQL.
    pub(crate) fn quoted_password(&self) -> String {
        format!("'{}'", String::from_utf8_lossy(self.password.expose()).replace('\'', "''"))
    }
}

/// How far a user's rights go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Its own database only.
    OneDatabase,
    /// It may make and drop databases, as tests do.
    AnyDatabase,
}

/// A program of the distribution that an environment runs. All calls block: programs are run and waited for.
pub trait Part: Send + Sync {
    /// What it is called in messages and in `status`.
    fn name(&self) -> &'static str;

    /// Whether [`Part::create`] was completed.
    fn is_created(&self) -> bool;

    /// Makes its directory, its data and its one user. What an earlier attempt left half done is begun anew.
    ///
    /// # Errors
    /// It exists already, a program is not installed, or a step failed; see [`PartError`].
    fn create(&self, credentials: &Credentials) -> Result<(), PartError>;

    /// Starts it in a session of its own and waits until it answers; gives its process id. One that runs
    /// already is left alone, and what a killed one left behind is cleared away.
    ///
    /// # Errors
    /// It is not created, its address is taken, or it ended or did not answer in time; see [`PartError`].
    fn start(&self) -> Result<u32, PartError>;

    /// Ends it in order and waits until it is gone. One that does not run is no error.
    ///
    /// # Errors
    /// It did not end in time, or the kernel refused the signal.
    fn stop(&self) -> Result<(), PartError>;

    /// The id of its process, if it runs.
    fn pid(&self) -> Option<u32>;

    /// Copies the files of its certificate again and makes it use them.
    ///
    /// # Errors
    /// A file cannot be copied, or the part cannot be told.
    fn renew_certificates(&self) -> Result<(), PartError>;
}
