//! Opaque bearer tokens (RFC 6750) of people and programs that use the management API.
//!
//! A token is `ct_` + 16 hexadecimal digits (its id, to find its row) + `_` + 43 base64url characters (256
//! random bits). Only the SHA-256 of the whole is stored: with 256 random bits nothing can be guessed, so the
//! slow hash passwords need would buy nothing. Checking one costs well under a microsecond.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crosstie_model::secret::SecretValue;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "ct_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// Length of every token, in characters.
pub const TOKEN_CHARACTERS: usize = PREFIX.len() + 2 * ID_BYTES + 1 + 43;

/// A new token: what to hand out once, and what to store.
#[derive(Debug)]
pub struct IssuedToken {
    /// Names the token in lists; not secret.
    pub id: String,
    /// The token itself. Shown once, stored nowhere.
    pub text: SecretValue,
    /// What to store: SHA-256 of the text, 64 hexadecimal digits.
    pub hash: String,
}

/// The kernel gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes for a token: {0}")]
pub struct TokenError(#[source] getrandom::Error);

/// Makes a token.
///
/// # Errors
/// [`TokenError`].
pub fn issue() -> Result<IssuedToken, TokenError> {
    let (mut id, mut secret) = ([0u8; ID_BYTES], [0u8; SECRET_BYTES]);
    getrandom::fill(&mut id).map_err(TokenError)?;
    getrandom::fill(&mut secret).map_err(TokenError)?;
    let id = hex::encode(id);
    let text = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
    let hash = hash(&text);
    Ok(IssuedToken { id, text: SecretValue::new(text.into_bytes()), hash })
}

/// The id of a presented token, to find its row by; `None` for a text that is no token.
#[must_use]
pub fn id_of(text: &str) -> Option<&str> {
    if text.len() != TOKEN_CHARACTERS {
        return None;
    }
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let valid = id.len() == 2 * ID_BYTES && id.bytes().all(hexadecimal) && secret.bytes().all(base64url);
    valid.then_some(id)
}

/// Whether `text` is the token `stored` was made of, in time that depends on neither. With `None`, for a
/// token that does not exist, the answer is no after the same work. Expiry is the caller's to check.
#[must_use]
pub fn verify(text: &str, stored: Option<&str>) -> bool {
    let found = hash(text);
    let absent = "0".repeat(64);
    let matches = found.as_bytes().ct_eq(stored.unwrap_or(&absent).as_bytes());
    bool::from(matches) && stored.is_some() && id_of(text).is_some()
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(token: &IssuedToken) -> String {
        String::from_utf8(token.text.expose().to_vec()).unwrap()
    }

    #[test]
    fn a_token_is_found_by_its_id_and_verified_by_its_hash() {
        let (token, other) = (issue().unwrap(), issue().unwrap());
        let text = text(&token);
        assert_eq!(id_of(&text), Some(token.id.as_str()));
        assert!(verify(&text, Some(&token.hash)));
        assert!(!verify(&text, Some(&other.hash)));
        assert!(!verify(&text, None));
        assert!(!verify(&text, Some("")));
        assert!(!token.hash.contains(&text) && !format!("{token:?}").contains(&text));
    }

    #[test]
    fn a_changed_token_is_another_one() {
        let token = issue().unwrap();
        let text = text(&token);
        let last = if text.ends_with('A') { "B" } else { "A" };
        let changed = format!("{}{last}", &text[..text.len() - 1]);
        assert!(!verify(&changed, Some(&token.hash)));
    }

    proptest! {
        #[test]
        fn no_other_text_is_a_token(text in ".{0,100}") {
            prop_assert_eq!(id_of(&text), None);
        }
    }
}
