//! Who is calling: bearer tokens, user name and password, client certificates.
//!
//! Everything is looked up per request, so a changed role, a deleted user or a revoked token counts at once.
//! Only the outcome of the slow password hash is kept for a while, bound to the stored hash it was made
//! with. Certificates need no ODB, so components and the command line get in while it is away.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosstie_model::Digest;
use crosstie_model::secret::SecretValue;
use crosstie_security::identity::{ComponentKind, Identity};
use crosstie_security::{password, token};
use http::{HeaderMap, header};
use tokio::sync::Semaphore;

use super::attempts::{Attempts, Debtor};
use super::problem::Problem;
use crate::access::{Caller, Proof, Role};
use crate::operations::{OperationError, Operations};

/// How long a verified password need not be hashed again.
const CACHE_TIME: Duration = Duration::from_secs(300);
/// Verified passwords remembered at once.
const CACHE_ENTRIES: usize = 256;
/// Passwords hashed at once: each takes a core for 20 ms and 19 MiB.
const CONCURRENT_HASHES: usize = 2;
/// Longest user name that is looked up, in bytes.
const MAX_USER_BYTES: usize = 190;

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whom its certificate names, when it showed one that this environment's CA signed.
    pub identity: Option<Identity>,
    /// That certificate's serial number, hexadecimal.
    pub serial: Option<String>,
}

impl Default for Peer {
    fn default() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), identity: None, serial: None }
    }
}

/// Checks credentials.
pub(crate) struct Gate {
    attempts: Mutex<Attempts>,
    verified: Mutex<HashMap<Digest, Instant>>,
    hashes: Semaphore,
    /// Makes the cache's keys useless outside of this process.
    salt: [u8; 32],
}

impl Gate {
    /// A gate that has seen nobody yet.
    pub(crate) fn new() -> Self {
        let mut salt = [0; 32];
        if getrandom::fill(&mut salt).is_err() {
            // Without random bytes the keys are still digests that never leave this process.
            tracing::warn!("no random bytes for the password cache");
        }
        Self {
            attempts: Mutex::default(),
            verified: Mutex::default(),
            hashes: Semaphore::new(CONCURRENT_HASHES),
            salt,
        }
    }

    /// Who sent a request with `headers` over a connection from `peer`. Credentials in the header decide
    /// alone when there are any: a component that calls for somebody has that somebody's role.
    ///
    /// # Errors
    /// 401 for missing or wrong credentials, 429 after too many, 503 when the ODB is needed and away.
    pub(crate) async fn authenticate(
        &self,
        operations: &Operations,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<Caller, Problem> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let value = match (given.next(), given.next()) {
            (None, _) => return by_certificate(operations, peer),
            (Some(value), None) => value.to_str().map_err(|_| Problem::unauthorized())?,
            (Some(_), Some(_)) => return Err(Problem::unauthorized()),
        };
        let (scheme, credentials) = value.split_once(' ').unwrap_or((value, ""));
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            self.by_token(operations, peer, credentials).await
        } else if scheme.eq_ignore_ascii_case("basic") {
            self.by_password(operations, peer, credentials).await
        } else {
            Err(Problem::unauthorized())
        }
    }

    async fn by_token(&self, operations: &Operations, peer: &Peer, text: &str) -> Result<Caller, Problem> {
        // Not charged beforehand: nobody guesses 256 bits, and a page may make many calls at once.
        let debtor = Debtor::new(peer.address, None);
        self.attempts().check(debtor, Instant::now()).map_err(Problem::too_many_attempts)?;
        if let Some(caller) = find_token(operations, text).await? {
            return Ok(caller);
        }
        self.attempts().charge(debtor, Instant::now()).map_err(Problem::too_many_attempts)?;
        Err(Problem::unauthorized())
    }

    async fn by_password(
        &self,
        operations: &Operations,
        peer: &Peer,
        credentials: &str,
    ) -> Result<Caller, Problem> {
        let Some((name, secret)) = decode_basic(credentials) else { return Err(Problem::unauthorized()) };
        let debtor = Debtor::new(peer.address, Some(&name));
        self.attempts().check(debtor, Instant::now()).map_err(Problem::too_many_attempts)?;
        let user = operations.odb().user(&name).await.map_err(OperationError::from)?;
        let key = user.as_ref().map(|user| self.cache_key(&user.password_hash, &secret));
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        if !self.is_cached(key) && !self.verify(debtor, key, secret, stored).await? {
            tracing::warn!(user = name, address = %peer.address, "wrong password");
            return Err(Problem::unauthorized());
        }
        let user = user.ok_or_else(Problem::unauthorized)?;
        Ok(Caller { name: user.name, role: user.role.into(), proof: Proof::Password })
    }

    /// Hashes, a few at a time. A name that does not exist costs the same.
    async fn verify(
        &self,
        debtor: Debtor,
        key: Option<Digest>,
        secret: SecretValue,
        stored: Option<String>,
    ) -> Result<bool, Problem> {
        let _turn = self.hashes.acquire().await;
        // Whoever waited may find that an equal request was verified meanwhile.
        if self.is_cached(key) {
            return Ok(true);
        }
        self.attempts().charge(debtor, Instant::now()).map_err(Problem::too_many_attempts)?;
        let work = move || password::verify(&secret, stored.as_deref());
        let right = tokio::task::spawn_blocking(work).await.unwrap_or(false);
        if right {
            self.attempts().give_back(debtor);
            self.remember(key);
        }
        Ok(right)
    }

    fn cache_key(&self, stored: &str, secret: &SecretValue) -> Digest {
        let mut text = Vec::with_capacity(self.salt.len() + stored.len() + secret.expose().len() + 1);
        text.extend_from_slice(&self.salt);
        text.extend_from_slice(stored.as_bytes());
        // A stored hash holds no zero byte, so where it ends is certain.
        text.push(0);
        text.extend_from_slice(secret.expose());
        let text = SecretValue::new(text);
        Digest::of(text.expose())
    }

    fn is_cached(&self, key: Option<Digest>) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        key.and_then(|key| verified.get(&key)).is_some_and(|until| *until > Instant::now())
    }

    fn remember(&self, key: Option<Digest>) {
        let Some(key) = key else { return };
        let now = Instant::now();
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.retain(|_, until| *until > now);
        if verified.len() < CACHE_ENTRIES {
            verified.insert(key, now + CACHE_TIME);
        }
    }

    /// Lets a caller without credentials show some other secret, unless it was wrong too often.
    ///
    /// # Errors
    /// 429 after too many.
    pub(crate) fn check_stranger(&self, peer: &Peer) -> Result<(), Problem> {
        let debtor = Debtor::new(peer.address, None);
        self.attempts().check(debtor, Instant::now()).map_err(Problem::too_many_attempts)
    }

    /// Notes that the secret was wrong.
    ///
    /// # Errors
    /// As for [`Gate::check_stranger`].
    pub(crate) fn charge_stranger(&self, peer: &Peer) -> Result<(), Problem> {
        let debtor = Debtor::new(peer.address, None);
        self.attempts().charge(debtor, Instant::now()).map_err(Problem::too_many_attempts)
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a component's certificate allows. Programs of administrators act for them; a load balancer and another
/// server only need to see; a broker and a database have no business here.
fn by_certificate(operations: &Operations, peer: &Peer) -> Result<Caller, Problem> {
    let identity = peer.identity.as_ref().ok_or_else(Problem::unauthorized)?;
    // Asked for each request: a connection may be older than the revocation.
    if let Some(serial) = peer.serial.as_deref().filter(|serial| operations.host().is_revoked(serial)) {
        tracing::warn!(%identity, serial, address = %peer.address, "a revoked certificate was shown");
        return Err(Problem::unauthorized());
    }
    let role = match identity.kind {
        ComponentKind::Client => Role::Admin,
        ComponentKind::Server | ComponentKind::LoadBalancer => Role::Viewer,
        ComponentKind::Broker | ComponentKind::Database => return Err(Problem::unauthorized()),
    };
    Ok(Caller { name: identity.name.to_string(), role, proof: Proof::Certificate })
}

/// The caller a token belongs to: never more than its user may today.
async fn find_token(operations: &Operations, text: &str) -> Result<Option<Caller>, Problem> {
    let Some(id) = token::id_of(text) else { return Ok(None) };
    let row = operations.odb().token(id).await.map_err(OperationError::from)?;
    if !token::verify(text, row.as_ref().map(|row| row.hash.as_str())) {
        return Ok(None);
    }
    let Some(row) = row else { return Ok(None) };
    let Some(user) = operations.odb().user(&row.user).await.map_err(OperationError::from)? else {
        return Ok(None);
    };
    let role = Role::from(row.role.min(user.role));
    Ok(Some(Caller { name: user.name, role, proof: Proof::Token }))
}

/// User name and password of Basic credentials (RFC 7617, section 2).
fn decode_basic(credentials: &str) -> Option<(String, SecretValue)> {
    let decoded = SecretValue::new(STANDARD.decode(credentials).ok()?);
    let text = std::str::from_utf8(decoded.expose()).ok()?;
    let (name, secret) = text.split_once(':')?;
    let usable = !name.is_empty() && name.len() <= MAX_USER_BYTES && !name.contains('\0');
    usable.then(|| (name.to_owned(), SecretValue::new(secret.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_decoded() {
        let decode = |text: &str| decode_basic(&STANDARD.encode(text)).map(|(n, s)| (n, s.expose().to_vec()));
        assert_eq!(decode("ada:pass:word"), Some(("ada".into(), b"pass:word".to_vec())));
        assert_eq!(decode("ada:"), Some(("ada".into(), Vec::new())));
        for bad in ["ada", ":x", "a\0b:x", &format!("{}:x", "n".repeat(191))] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
        assert!(decode_basic("!!!").is_none());
    }
}
