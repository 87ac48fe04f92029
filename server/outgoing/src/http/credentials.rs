//! What is presented to the other system.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosstie_model::definition::{ApiKeyLocation, SecurityDefinition};
use crosstie_model::outgoing::{OutgoingError, Trouble};
use crosstie_model::secret::SecretValue;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_encode;

use super::QUERY;
use super::token::TokenSource;
use crate::blueprint::{self, OpenError};

/// Credentials, ready to be presented.
#[derive(Debug)]
pub(crate) enum Credentials {
    /// None.
    None,
    /// A header field.
    Header(HeaderName, HeaderValue),
    /// A query parameter, encoded.
    Query(SecretValue),
    /// A token that is fetched.
    Token(Arc<TokenSource>),
}

impl Credentials {
    /// Those of a security definition; `tokens` makes the source of tokens that must be fetched.
    pub(crate) fn of(
        found: Option<&blueprint::Credentials>,
        tokens: impl FnOnce(&blueprint::Credentials) -> Result<Arc<TokenSource>, OpenError>,
    ) -> Result<Self, OpenError> {
        let Some(found) = found else { return Ok(Self::None) };
        Ok(match &found.definition {
            SecurityDefinition::BasicAuth(body) => {
                Self::Header(AUTHORIZATION, basic(&body.username, found.secret("password")?)?)
            }
            SecurityDefinition::ApiKey(body) => {
                let key = found.secret("key")?;
                match body.r#in {
                    ApiKeyLocation::Header => {
                        let name = HeaderName::from_bytes(body.name.as_bytes())
                            .map_err(|error| OpenError::field("name", error.to_string()))?;
                        Self::Header(name, field(key.expose(), "key")?)
                    }
                    ApiKeyLocation::Query => {
                        let value = percent_encode(key.expose(), QUERY);
                        Self::Query(SecretValue::new(format!("{}={value}", body.name).into_bytes()))
                    }
                }
            }
            SecurityDefinition::Bearer(_) => Self::Header(AUTHORIZATION, bearer(found.secret("token")?)?),
            SecurityDefinition::Oauth2ClientCredentials(_) => Self::Token(tokens(found)?),
            _ => return Err(found.unfit("an outgoing that speaks HTTP")),
        })
    }

    /// Puts them into a request.
    ///
    /// # Errors
    /// No token could be had.
    pub(crate) async fn present(
        &self,
        headers: &mut HeaderMap,
        target: &mut PathAndQuery,
    ) -> Result<(), OutgoingError> {
        match self {
            Self::None => {}
            Self::Header(name, value) => {
                headers.insert(name.clone(), value.clone());
            }
            Self::Query(parameter) => {
                let mut with = target.as_str().to_owned();
                with.push(if target.query().is_some() { '&' } else { '?' });
                with.push_str(&String::from_utf8_lossy(parameter.expose()));
                *target = with
                    .parse()
                    .map_err(|_| OutgoingError::new(Trouble::Misuse, "the key makes no query parameter"))?;
            }
            Self::Token(tokens) => {
                headers.insert(AUTHORIZATION, tokens.token().await?);
            }
        }
        Ok(())
    }

    /// After the other system refused them: whether there will be others now.
    pub(crate) fn refused(&self, presented: Option<&HeaderValue>) -> bool {
        match (self, presented) {
            (Self::Token(tokens), Some(presented)) => tokens.refused(presented),
            _ => false,
        }
    }

    /// Whether others can be had when these are refused.
    pub(crate) fn is_renewable(&self) -> bool {
        matches!(self, Self::Token(_))
    }
}

/// The field of HTTP Basic authentication (RFC 7617).
pub(crate) fn basic(username: &str, password: &SecretValue) -> Result<HeaderValue, OpenError> {
    let mut pair = username.as_bytes().to_vec();
    pair.push(b':');
    pair.extend_from_slice(password.expose());
    let encoded = SecretValue::new(format!("Basic {}", STANDARD.encode(&pair)).into_bytes());
    pair.fill(0);
    field(encoded.expose(), "password")
}

/// The field of a bearer token (RFC 6750).
pub(crate) fn bearer(token: &SecretValue) -> Result<HeaderValue, OpenError> {
    let mut text = b"Bearer ".to_vec();
    text.extend_from_slice(token.expose());
    let text = SecretValue::new(text);
    field(text.expose(), "token")
}

/// A field's value that no log shows.
fn field(value: &[u8], name: &'static str) -> Result<HeaderValue, OpenError> {
    let mut value = HeaderValue::from_bytes(value)
        .map_err(|_| OpenError::field(name, "holds what a header field cannot"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_what_is_sent() {
        let value = basic("Aladdin", &SecretValue::new(b"open sesame".as_slice())).unwrap();
        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(value.is_sensitive());
        assert_eq!(format!("{value:?}"), "Sensitive");
    }

    #[test]
    fn a_secret_that_no_field_can_hold_is_refused_without_being_repeated() {
        let error = bearer(&SecretValue::new(b"two\nlines".as_slice())).unwrap_err();
        assert!(!error.to_string().contains("lines"), "{error}");
    }
}
