//! Passwords of people: argon2id (RFC 9106), stored as PHC strings.
//!
//! Parameters are the OWASP Password Storage Cheat Sheet's: 19 MiB of memory, 2 passes, 1 lane. One hash or
//! verification takes about 20 ms of a core and 19 MiB: call these on a blocking thread, never on a reactor,
//! and let only a few run at once.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use crosstie_model::secret::SecretValue;

/// Memory of one hash, in KiB.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over the memory.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;
/// Longest password, in bytes; longer ones are refused before any work.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// The most memory, passes and lanes a stored hash may ask for, so that a forged row cannot exhaust the
/// server.
const CEILING: (u32, u32, u32) = (256 * 1024, 16, 8);
/// What a password is compared with when its user does not exist: the same work, never a match. Its salt and
/// parameters are real, its 32 bytes of hash are arbitrary.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$Y3Jvc3N0aWUtbm9ib2R5IQ$mFvSgoMTK8lCAzC+lnU4xcLBhkMWAe9O8C/ukj1wzJ0";
/// Characters of generated passwords: those that are not mistaken for another.
const ALPHABET: &[u8; 56] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Why a password could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It is empty.
    #[error("a password must not be empty")]
    Empty,
    /// It is longer than [`MAX_PASSWORD_BYTES`].
    #[error("a password has at most {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    /// The hash function failed.
    #[error("the password could not be hashed: {0}")]
    Hash(String),
    /// The kernel gave no random bytes.
    #[error("no random bytes for a password: {0}")]
    Random(#[source] getrandom::Error),
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashes `password` with a salt of its own. About 20 ms and 19 MiB: not on a reactor.
///
/// # Errors
/// An empty or overlong password, or no random bytes.
pub fn hash(password: &SecretValue) -> Result<String, PasswordError> {
    match password.expose().len() {
        0 => return Err(PasswordError::Empty),
        length if length > MAX_PASSWORD_BYTES => return Err(PasswordError::TooLong),
        _ => {}
    }
    let hash =
        argon2()?.hash_password(password.expose()).map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(hash.to_string())
}

/// Whether `password` is the one `stored` was made of. With `None`, for a user who does not exist, the same
/// work is done and the answer is no: the time taken tells nobody which users there are. About 20 ms and
/// 19 MiB: not on a reactor.
#[must_use]
pub fn verify(password: &SecretValue, stored: Option<&str>) -> bool {
    if password.expose().len() > MAX_PASSWORD_BYTES {
        return false;
    }
    let acceptable = |hash: &PasswordHash| {
        let (memory, passes, lanes) = CEILING;
        hash.algorithm.as_str() == "argon2id"
            && Params::try_from(hash)
                .is_ok_and(|p| p.m_cost() <= memory && p.t_cost() <= passes && p.p_cost() <= lanes)
    };
    let parsed = stored.and_then(|text| PasswordHash::new(text).ok()).filter(acceptable);
    let known = parsed.is_some();
    let Some(hash) = parsed.or_else(|| PasswordHash::new(NOBODY).ok()) else { return false };
    let matches = Argon2::default().verify_password(password.expose(), &hash).is_ok();
    matches && known
}

/// A random password of 24 characters, 139 bits, that survives being read aloud.
///
/// # Errors
/// [`PasswordError::Random`].
pub fn generate() -> Result<SecretValue, PasswordError> {
    let mut password = Vec::with_capacity(24);
    let mut random = [0u8; 64];
    while password.len() < 24 {
        getrandom::fill(&mut random).map_err(PasswordError::Random)?;
        // Bytes beyond the last multiple of the alphabet's size would favour its first characters.
        let fair = random.iter().filter(|byte| **byte < 224);
        let letters = fair.filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()));
        password.extend(letters.take(24 - password.len()));
    }
    Ok(SecretValue::new(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes())
    }

    #[test]
    fn a_password_is_verified_against_its_hash() {
        let stored = hash(&secret("correct horse")).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify(&secret("correct horse"), Some(&stored)));
        assert!(!verify(&secret("correct horse "), Some(&stored)));
        assert_ne!(stored, hash(&secret("correct horse")).unwrap(), "each hash has its own salt");
    }

    #[test]
    fn an_unknown_user_costs_as_much_as_a_known_one() {
        assert!(PasswordHash::new(NOBODY).is_ok_and(|hash| {
            Params::try_from(&hash)
                .is_ok_and(|p| (p.m_cost(), p.t_cost(), p.p_cost()) == (MEMORY_KIB, PASSES, LANES))
        }));
        assert!(!verify(&secret("anything"), None));
    }

    #[test]
    fn a_forged_hash_neither_matches_nor_exhausts_memory() {
        let greedy = "$argon2id$v=19$m=4194304,t=2,p=1$Y3Jvc3N0aWUtbm9ib2R5IQ$mFvSgoMTK8lCAzC+lnU4xcLBhkMWAe9O8C/ukj1wzJ0";
        let weak =
            "$argon2i$v=19$m=16,t=2,p=1$Y3Jvc3N0aWUtbm9ib2R5IQ$mFvSgoMTK8lCAzC+lnU4xcLBhkMWAe9O8C/ukj1wzJ0";
        for stored in [greedy, weak, "", "plain text", "$2b$12$abcdefghijklmnopqrstuv"] {
            assert!(!verify(&secret("x"), Some(stored)), "{stored}");
        }
    }

    #[test]
    fn empty_and_endless_passwords_are_refused() {
        assert!(matches!(hash(&secret("")), Err(PasswordError::Empty)));
        let endless = secret(&"x".repeat(MAX_PASSWORD_BYTES + 1));
        assert!(matches!(hash(&endless), Err(PasswordError::TooLong)));
        assert!(!verify(&endless, None));
    }

    #[test]
    fn generated_passwords_differ() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_eq!(one.expose().len(), 24);
        assert_ne!(one, two);
        assert!(one.expose().iter().all(|byte| ALPHABET.contains(byte)));
    }
}
