//! Who sends a message: user name and password, in its security header.

use std::time::Duration;

use crosstie_model::definition::{SecurityDefinition, SoapEndpoint, WssPassword};
use crosstie_model::outgoing::{OutgoingError, Trouble};
use crosstie_model::secret::SecretValue;
use crosstie_xml::Writer;
use crosstie_xml::soap::{UsernameToken, Version};
use time::OffsetDateTime;

use crate::blueprint::{Blueprint, OpenError};

/// See the module.
#[derive(Debug)]
pub(super) struct Token {
    username: String,
    password: SecretValue,
    form: WssPassword,
    lifetime: Option<Duration>,
}

impl Token {
    /// The token that the security definition of an outgoing asks for, if it is of that type.
    pub(super) fn of(blueprint: &Blueprint, soap: &SoapEndpoint) -> Result<Option<Self>, OpenError> {
        let Some(found) = blueprint.credentials("/security") else { return Ok(None) };
        let SecurityDefinition::WssUsernameToken(token) = &found.definition else { return Ok(None) };
        let password = found.secret("password")?.clone();
        if std::str::from_utf8(password.expose()).is_err() {
            return Err(OpenError::field("password", "is no text in UTF-8"));
        }
        let form = match token.passwords.contains(&WssPassword::Digest) {
            true => WssPassword::Digest,
            false => WssPassword::Text,
        };
        let lifetime = soap.timestamp_s.map(|seconds| Duration::from_secs(seconds.into()));
        Ok(Some(Self { username: token.username.clone(), password, form, lifetime }))
    }

    /// Writes a security header that is used once.
    pub(super) fn write(&self, version: Version, writer: &mut Writer) -> Result<(), OutgoingError> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)
            .map_err(|_| OutgoingError::new(Trouble::Credentials, "the system has no random numbers"))?;
        let now = OffsetDateTime::now_utc();
        let password = String::from_utf8_lossy(self.password.expose());
        let token = match self.form {
            WssPassword::Text => UsernameToken::with_text(&self.username, &password, nonce, now),
            WssPassword::Digest => UsernameToken::with_digest(&self.username, &password, nonce, now),
        };
        token.write(version, self.lifetime.map(|lifetime| (now, lifetime)), writer);
        Ok(())
    }
}
