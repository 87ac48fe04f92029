//! WS-Security UsernameToken Profile 1.0 and 1.1: passwords as text or as a digest, and timestamps.
//!
//! Pure functions: the clock, the password and randomness come from outside. Whether a nonce was seen before is
//! for the caller to remember, since only a database knows what other servers saw; [`Accepted`] says what to
//! remember and for how long.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use time::macros::format_description;

use super::fault::{FaultCode, SoapFault};
use super::{Version, must_understand};
use crate::chars::trim;
use crate::document::Element;
use crate::lexical::moment::{Calendar, Moment};
use crate::lexical::words;
use crate::namespace::QName;
use crate::writer::Writer;

/// The namespace of security headers.
pub const WSSE: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
/// The namespace of timestamps and ids.
pub const WSU: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";
const PROFILE: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0";
const BASE64: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#Base64Binary";

/// How long a nonce may be, in bytes. What servers have to remember is bounded by it.
const MAX_NONCE: usize = 256;

/// Who sends a message, by name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsernameToken {
    /// The name.
    pub username: String,
    /// The password, or what proves that it is known.
    pub password: Password,
    /// Bytes that are used once.
    pub nonce: Option<Vec<u8>>,
    /// When it was made, as its maker wrote it: the digest is over that text.
    pub created: Option<String>,
}

/// How a token carries the password.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// Not at all.
    None,
    /// As it is.
    Text(String),
    /// The SHA-1 digest of nonce, time and password.
    Digest(Vec<u8>),
}

/// Never shows what it carries.
impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Text(_) => "Text(…)",
            Self::Digest(_) => "Digest(…)",
        })
    }
}

/// When a message was made, and until when it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub created: Option<i64>,
    /// The same.
    pub expires: Option<i64>,
}

/// What a verifier asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether a password may come as text.
    pub accepts_text: bool,
    /// Whether it may come as a digest.
    pub accepts_digest: bool,
    /// Whether text has to come with nonce and time too. A digest always has to.
    pub needs_nonce: bool,
    /// How old a token or a timestamp may be. Default five minutes, as the profile recommends.
    pub max_age: Duration,
    /// How far the sender's clock may be ahead. Default one minute.
    pub max_skew: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            accepts_text: true,
            accepts_digest: true,
            needs_nonce: false,
            max_age: Duration::from_mins(5),
            max_skew: Duration::from_mins(1),
        }
    }
}

/// What to remember of a token that was accepted, so that it is accepted once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Nonce and time of the token, as text of bounded length; `None` when it has no nonce.
    pub once: Option<String>,
    /// From when on the token is too old anyway, in seconds since 1970-01-01T00:00:00Z.
    pub forget_at: i64,
}

/// A security header that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// A part of it is missing, there twice, or not of its form.
    #[error("the security header is malformed: {0}")]
    Malformed(&'static str),
    /// It carries the password in a way that is not accepted here.
    #[error("the security token is of a kind that is not accepted")]
    Unsupported,
    /// The password is wrong, or there is none.
    #[error("the security token could not be authenticated")]
    Authentication,
    /// It is too old, or from the future.
    #[error("the message has expired")]
    Expired,
}

impl SecurityError {
    /// The fault that the standard has for it (SOAP Message Security, section 12).
    #[must_use]
    pub fn fault(&self) -> SoapFault<'static> {
        let mut fault = SoapFault::new(FaultCode::Sender, self.to_string());
        let (namespace, local) = match self {
            Self::Malformed(_) => (WSSE, "InvalidSecurity"),
            Self::Unsupported => (WSSE, "UnsupportedSecurityToken"),
            Self::Authentication => (WSSE, "FailedAuthentication"),
            Self::Expired => (WSU, "MessageExpired"),
        };
        fault.subcodes = vec![QName::new(namespace, local)];
        fault
    }
}

impl UsernameToken {
    /// The token in a `wsse:Security` header block; `None` when there is none.
    ///
    /// # Errors
    /// It is malformed.
    pub fn read(security: Element<'_>) -> Result<Option<Self>, SecurityError> {
        let mut tokens = security.elements().filter(|child| child.is(WSSE, "UsernameToken"));
        let Some(token) = tokens.next() else { return Ok(None) };
        if tokens.next().is_some() {
            return Err(SecurityError::Malformed("two username tokens"));
        }
        let username = only(token, WSSE, "Username", "two user names")?;
        let username = username.ok_or(SecurityError::Malformed("no user name"))?;
        let password = match only(token, WSSE, "Password", "two passwords")? {
            None => Password::None,
            Some(password) => match password.attribute("", "Type").map(trim) {
                None => Password::Text(password.text().into_owned()),
                Some(kind) if kind.ends_with("#PasswordText") => Password::Text(password.text().into_owned()),
                Some(kind) if kind.ends_with("#PasswordDigest") => {
                    Password::Digest(base64(&password.text(), "the digest is not in base64")?)
                }
                Some(_) => return Err(SecurityError::Unsupported),
            },
        };
        let nonce = match only(token, WSSE, "Nonce", "two nonces")? {
            None => None,
            Some(nonce) => Some(base64(&nonce.text(), "the nonce is not in base64")?),
        };
        if nonce.as_ref().is_some_and(|nonce| nonce.is_empty() || nonce.len() > MAX_NONCE) {
            return Err(SecurityError::Malformed("the nonce is empty or too long"));
        }
        let created = only(token, WSU, "Created", "two times")?;
        let created = created.map(|created| trim(&created.text()).to_owned());
        Ok(Some(Self { username: trim(&username.text()).to_owned(), password, nonce, created }))
    }

    /// Checks that whoever made the token knows `password`, and made it just now. A token that was accepted is
    /// still to be refused if one with the same [`Accepted::once`] was before.
    ///
    /// # Errors
    /// [`SecurityError`]. Comparing takes the same time whatever is wrong with the password.
    pub fn verify(
        &self,
        password: &str,
        now: OffsetDateTime,
        policy: &Policy,
    ) -> Result<Accepted, SecurityError> {
        let is_right = match &self.password {
            Password::None => return Err(SecurityError::Authentication),
            Password::Text(_) if !policy.accepts_text => return Err(SecurityError::Unsupported),
            Password::Digest(_) if !policy.accepts_digest => return Err(SecurityError::Unsupported),
            // Digests, so that nothing is told by how long the password is.
            Password::Text(given) => digest(&[], "", given).ct_eq(&digest(&[], "", password)).into(),
            Password::Digest(given) => {
                let (Some(nonce), Some(created)) = (&self.nonce, &self.created) else {
                    return Err(SecurityError::Malformed("a digest needs nonce and time"));
                };
                bool::from(given.as_slice().ct_eq(&digest(nonce, created, password)))
            }
        };
        if !is_right {
            return Err(SecurityError::Authentication);
        }
        if policy.needs_nonce && (self.nonce.is_none() || self.created.is_none()) {
            return Err(SecurityError::Malformed("the token needs nonce and time"));
        }
        let now = now.unix_timestamp();
        let made = match &self.created {
            Some(created) => check_age(instant(created)?, now, policy)?,
            None => now,
        };
        let once = self.nonce.as_ref().map(|nonce| match &self.created {
            Some(_) => format!("{} {made}", STANDARD.encode(nonce)),
            None => STANDARD.encode(nonce),
        });
        let lasts = seconds(policy.max_age) + seconds(policy.max_skew);
        Ok(Accepted { once, forget_at: made.saturating_add(lasts) })
    }

    /// A token that carries the password as text, with nonce and time so that it is accepted once.
    #[must_use]
    pub fn with_text(username: &str, password: &str, nonce: [u8; 16], now: OffsetDateTime) -> Self {
        Self {
            username: username.to_owned(),
            password: Password::Text(password.to_owned()),
            nonce: Some(nonce.to_vec()),
            created: Some(written(now)),
        }
    }

    /// A token that proves that the password is known without carrying it. `nonce` has to be random.
    #[must_use]
    pub fn with_digest(username: &str, password: &str, nonce: [u8; 16], now: OffsetDateTime) -> Self {
        let created = written(now);
        Self {
            username: username.to_owned(),
            password: Password::Digest(digest(&nonce, &created, password).to_vec()),
            nonce: Some(nonce.to_vec()),
            created: Some(created),
        }
    }

    /// Writes it as a `wsse:Security` header block, with a timestamp where `lifetime` says how long the message
    /// counts.
    pub fn write(&self, version: Version, lifetime: Option<(OffsetDateTime, Duration)>, writer: &mut Writer) {
        writer.prefer("wsse", WSSE);
        writer.prefer("wsu", WSU);
        writer.start(WSSE, "Security");
        must_understand(writer, version);
        if let Some((now, lifetime)) = lifetime {
            writer.start(WSU, "Timestamp");
            writer.leaf(WSU, "Created", &written(now));
            writer.leaf(
                WSU,
                "Expires",
                &written(now.saturating_add(lifetime.try_into().unwrap_or_default())),
            );
            writer.end();
        }
        writer.start(WSSE, "UsernameToken");
        writer.leaf(WSSE, "Username", &self.username);
        let password = match &self.password {
            Password::None => None,
            Password::Text(text) => Some(("PasswordText", text.clone())),
            Password::Digest(digest) => Some(("PasswordDigest", STANDARD.encode(digest))),
        };
        if let Some((kind, text)) = password {
            writer.start(WSSE, "Password");
            writer.attribute("", "Type", &format!("{PROFILE}#{kind}"));
            writer.text(&text);
            writer.end();
        }
        if let Some(nonce) = &self.nonce {
            writer.start(WSSE, "Nonce");
            writer.attribute("", "EncodingType", BASE64);
            writer.text(&STANDARD.encode(nonce));
            writer.end();
        }
        if let Some(created) = &self.created {
            writer.leaf(WSU, "Created", created);
        }
        writer.end();
        writer.end();
    }
}

impl Timestamp {
    /// The timestamp in a `wsse:Security` header block; `None` when there is none.
    ///
    /// # Errors
    /// It is malformed.
    pub fn read(security: Element<'_>) -> Result<Option<Self>, SecurityError> {
        let Some(stamp) = only(security, WSU, "Timestamp", "two timestamps")? else { return Ok(None) };
        let time = |local| match only(stamp, WSU, local, "two times")? {
            Some(time) => instant(trim(&time.text())).map(Some),
            None => Ok(None),
        };
        Ok(Some(Self { created: time("Created")?, expires: time("Expires")? }))
    }

    /// Checks that the message still counts, and was not made in the future.
    ///
    /// # Errors
    /// [`SecurityError::Expired`].
    pub fn verify(&self, now: OffsetDateTime, policy: &Policy) -> Result<(), SecurityError> {
        let now = now.unix_timestamp();
        if self.expires.is_some_and(|expires| now > expires.saturating_add(seconds(policy.max_skew))) {
            return Err(SecurityError::Expired);
        }
        match self.created {
            Some(created) => check_age(created, now, policy).map(drop),
            None => Ok(()),
        }
    }
}

/// SHA-1 of nonce, time and password (UsernameToken Profile, section 3.1).
fn digest(nonce: &[u8], created: &str, password: &str) -> [u8; 20] {
    let mut sha = Sha1::new();
    sha.update(nonce);
    sha.update(created.as_bytes());
    sha.update(password.as_bytes());
    sha.finalize().into()
}

fn only<'d>(
    parent: Element<'d>,
    namespace: &'static str,
    local: &'static str,
    twice: &'static str,
) -> Result<Option<Element<'d>>, SecurityError> {
    let mut found = parent.elements().filter(|child| child.is(namespace, local));
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(SecurityError::Malformed(twice)),
        (first, None) => Ok(first),
    }
}

fn base64(text: &str, wrong: &'static str) -> Result<Vec<u8>, SecurityError> {
    let compact: String = words(text).collect();
    STANDARD.decode(compact).map_err(|_| SecurityError::Malformed(wrong))
}

fn instant(text: &str) -> Result<i64, SecurityError> {
    let moment = Moment::parse(Calendar::DateTime, text);
    moment.map(|moment| moment.unix_seconds()).ok_or(SecurityError::Malformed("a time that is none"))
}

fn check_age(made: i64, now: i64, policy: &Policy) -> Result<i64, SecurityError> {
    let is_old = now > made.saturating_add(seconds(policy.max_age)).saturating_add(seconds(policy.max_skew));
    let is_early = made > now.saturating_add(seconds(policy.max_skew));
    if is_old || is_early { Err(SecurityError::Expired) } else { Ok(made) }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// An instant as XML Schema writes it, to the millisecond and in UTC.
fn written(now: OffsetDateTime) -> String {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    now.to_offset(time::UtcOffset::UTC).format(form).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::{Document, Limits};

    const NOW: OffsetDateTime = datetime!(2024-02-29 12:00:00 UTC);

    fn read(xml: &str) -> Result<Option<UsernameToken>, SecurityError> {
        let document = Document::parse(xml, &Limits::default()).unwrap();
        UsernameToken::read(document.root())
    }

    fn written_and_read(token: &UsernameToken) -> UsernameToken {
        let mut writer = Writer::new();
        token.write(Version::V11, Some((NOW, Duration::from_mins(5))), &mut writer);
        read(&writer.finish()).unwrap().unwrap()
    }

    fn header(inside: &str) -> String {
        format!(
            "<w:Security xmlns:w='{WSSE}' xmlns:u='{WSU}'><w:UsernameToken>{inside}</w:UsernameToken></w:Security>"
        )
    }

    #[test]
    fn tokens_are_verified_by_whoever_knows_the_password() {
        let policy = Policy::default();
        for token in [
            UsernameToken::with_text("ada", "secrét", [7; 16], NOW),
            UsernameToken::with_digest("ada", "secrét", [7; 16], NOW),
        ] {
            let read = written_and_read(&token);
            assert_eq!(read, token);
            let accepted = read.verify("secrét", NOW, &policy).unwrap();
            assert_eq!(accepted.once.as_deref(), Some("BwcHBwcHBwcHBwcHBwcHBw== 1709208000"));
            assert_eq!(accepted.forget_at, NOW.unix_timestamp() + 360);
            assert_eq!(read.verify("secret", NOW, &policy), Err(SecurityError::Authentication));
            assert_eq!(read.verify("", NOW, &policy), Err(SecurityError::Authentication));
        }
        assert!(!format!("{:?}", UsernameToken::with_text("a", "hidden", [0; 16], NOW)).contains("hidden"));
    }

    #[test]
    fn the_digest_is_that_of_the_profile() {
        // Computed with Python: base64(sha1(b64decode(nonce) + created + password)).
        let token = read(&header(
            "<w:Username>user</w:Username><w:Password Type='http://x#PasswordDigest'>AtYMdWClJo7PIuTpqmhmEEoEZyc=</w:Password>\
             <w:Nonce>WScqanjCEAC4mQoBE07sAQ==</w:Nonce><u:Created>2003-07-16T01:24:32Z</u:Created>",
        ))
        .unwrap()
        .unwrap();
        let then = datetime!(2003-07-16 01:24:40 UTC);
        assert!(token.verify("taadtaadpstcsm", then, &Policy::default()).is_ok());
    }

    #[test]
    fn old_and_future_tokens_are_refused() {
        let policy = Policy::default();
        let token = UsernameToken::with_digest("ada", "p", [1; 16], NOW);
        let at = |seconds: i64| token.verify("p", NOW + time::Duration::seconds(seconds), &policy);
        assert!(at(360).is_ok() && at(-60).is_ok());
        assert_eq!((at(361), at(-61)), (Err(SecurityError::Expired), Err(SecurityError::Expired)));
    }

    #[test]
    fn the_policy_is_obeyed() {
        let text = UsernameToken::with_text("ada", "p", [1; 16], NOW);
        let digest = UsernameToken::with_digest("ada", "p", [1; 16], NOW);
        let bare = UsernameToken { nonce: None, created: None, ..text.clone() };
        let only_digest = Policy { accepts_text: false, ..Policy::default() };
        let only_text = Policy { accepts_digest: false, ..Policy::default() };
        let strict = Policy { needs_nonce: true, ..Policy::default() };
        assert_eq!(text.verify("p", NOW, &only_digest), Err(SecurityError::Unsupported));
        assert_eq!(digest.verify("p", NOW, &only_text), Err(SecurityError::Unsupported));
        assert_eq!(bare.verify("p", NOW, &Policy::default()).unwrap().once, None);
        assert!(matches!(bare.verify("p", NOW, &strict), Err(SecurityError::Malformed(_))));
        let without = UsernameToken { nonce: None, ..digest };
        assert!(matches!(without.verify("p", NOW, &Policy::default()), Err(SecurityError::Malformed(_))));
        let none = UsernameToken { password: Password::None, ..text };
        assert_eq!(none.verify("", NOW, &Policy::default()), Err(SecurityError::Authentication));
    }

    #[test]
    fn malformed_headers_are_refused() {
        let user = "<w:Username>a</w:Username>";
        for inside in [
            String::new(),
            format!("{user}{user}"),
            format!("{user}<w:Password>a</w:Password><w:Password>b</w:Password>"),
            format!("{user}<w:Password Type='x#PasswordDigest'>?</w:Password>"),
            format!("{user}<w:Nonce>?</w:Nonce>"),
            format!("{user}<w:Nonce></w:Nonce>"),
            format!("{user}<w:Nonce>{}</w:Nonce>", "AAAA".repeat(100)),
        ] {
            assert!(matches!(read(&header(&inside)), Err(SecurityError::Malformed(_))), "{inside}");
        }
        assert_eq!(
            read(&header(&format!("{user}<w:Password Type='x#Kerberos'/>"))),
            Err(SecurityError::Unsupported)
        );
        assert!(read(&format!("<w:Security xmlns:w='{WSSE}'/>")).unwrap().is_none());
        let undated = read(&header(&format!("{user}<w:Password>p</w:Password><u:Created>soon</u:Created>")))
            .unwrap()
            .unwrap();
        assert!(matches!(undated.verify("p", NOW, &Policy::default()), Err(SecurityError::Malformed(_))));
    }

    #[test]
    fn timestamps_bound_a_message() {
        let policy = Policy::default();
        let stamp = |inside: &str| {
            let xml = format!(
                "<w:Security xmlns:w='{WSSE}' xmlns:u='{WSU}'><u:Timestamp>{inside}</u:Timestamp></w:Security>"
            );
            let document = Document::parse(xml, &Limits::default()).unwrap();
            Timestamp::read(document.root()).map(|stamp| stamp.unwrap().verify(NOW, &policy))
        };
        let at = |name: &str, time: &str| format!("<u:{name}>2024-02-29T{time}Z</u:{name}>");
        assert_eq!(stamp(&(at("Created", "11:58:00") + &at("Expires", "12:03:00"))), Ok(Ok(())));
        assert_eq!(stamp(&at("Expires", "11:58:59")), Ok(Err(SecurityError::Expired)));
        assert_eq!(stamp(&at("Created", "12:01:01")), Ok(Err(SecurityError::Expired)));
        assert_eq!(stamp(&at("Created", "11:50:00")), Ok(Err(SecurityError::Expired)));
        assert!(stamp("<u:Created>now</u:Created>").is_err());
        assert!(stamp(&(at("Created", "12:00:00") + &at("Created", "12:00:00"))).is_err());
        let fault = SecurityError::Expired.fault();
        assert_eq!(fault.subcodes, [QName::new(WSU, "MessageExpired")]);
        assert_eq!(
            SecurityError::Authentication.fault().subcodes,
            [QName::new(WSSE, "FailedAuthentication")]
        );
    }
}
