//! Users of the management API and their tokens. Not part of a revision: changes of accounts are logged,
//! with who made them.

use std::time::Duration;

use crosstie_model::definition::DefinitionName;
use crosstie_model::secret::SecretValue;
use crosstie_odb::User;
use crosstie_security::{password, token};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OperationError, Operations, Refusal};
use crate::access::{Caller, Role};
use crate::clock::timestamp;

/// Shortest password a person may choose, in characters (NIST SP 800-63B, section 3.1.1.2).
const MIN_PASSWORD_CHARACTERS: usize = 8;

/// A user to make.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// The name: printable ASCII without white space, quotes and colon.
    #[schemars(length(min = 1, max = 190))]
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// The password; a random one is made, and shown once, when absent.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub password: Option<String>,
}

/// What to change about a user.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// The new role.
    #[serde(default)]
    pub role: Option<Role>,
    /// The new password.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub password: Option<String>,
}

/// A user as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UserView {
    /// The name.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// The password that was made for a new user; shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// A token to make.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Whose it is; the caller's own when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// What it allows; as much as the user's role when absent, and never more.
    #[serde(default)]
    pub role: Option<Role>,
    /// How long it lasts, in seconds; for good when absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 3_153_600_000_u64))]
    pub ttl_s: Option<u64>,
}

/// A token as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenView {
    /// Its public part.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// What it allows at most.
    pub role: Role,
    /// When it was made (RFC 3339).
    pub created: String,
    /// When it ends (RFC 3339); never when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// A token that was just made.
#[derive(Clone, Serialize, JsonSchema)]
pub struct IssuedToken {
    /// Its public part.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// What it allows at most.
    pub role: Role,
    /// The token itself; shown this once.
    pub token: String,
}

impl Operations {
    /// All users, by name.
    ///
    /// # Errors
    /// The ODB is away.
    pub async fn users(&self) -> Result<Vec<UserView>, OperationError> {
        Ok(self.odb().users().await?.into_iter().map(|user| view(&user, None)).collect())
    }

    /// Makes a user.
    ///
    /// # Errors
    /// The name or the password breaks the rules, or the name is taken.
    pub async fn add_user(&self, caller: &Caller, new: NewUser) -> Result<UserView, OperationError> {
        check_name(&new.name)?;
        if self.odb().user(&new.name).await?.is_some() {
            return Err(OperationError::Refused(Refusal::new(format!(
                "the user {} exists already",
                new.name
            ))));
        }
        let (secret, made) = match new.password {
            Some(chosen) => (check_password(&chosen)?, None),
            None => {
                let made = password::generate().map_err(secret_error)?;
                let text = String::from_utf8_lossy(made.expose()).into_owned();
                (made, Some(text))
            }
        };
        let user = User { name: new.name, role: new.role.into(), password_hash: hash(secret).await? };
        self.odb().put_user(&user).await?;
        tracing::info!(author = caller.name, user = user.name, role = %user.role, "user added");
        Ok(view(&user, made))
    }

    /// Changes a user's role or password.
    ///
    /// # Errors
    /// There is no such user; the password breaks the rules; it is the last admin's role.
    pub async fn change_user(
        &self,
        caller: &Caller,
        name: &str,
        change: UserChange,
    ) -> Result<UserView, OperationError> {
        let mut user = self.odb().user(name).await?.ok_or_else(|| no_user(name))?;
        if let Some(role) = change.role {
            if role < Role::Admin {
                self.refuse_to_lose_last_admin(name).await?;
            }
            user.role = role.into();
        }
        if let Some(chosen) = change.password {
            user.password_hash = hash(check_password(&chosen)?).await?;
        }
        self.odb().put_user(&user).await?;
        tracing::info!(author = caller.name, user = name, role = %user.role, "user changed");
        Ok(view(&user, None))
    }

    /// Removes a user and the user's tokens.
    ///
    /// # Errors
    /// There is no such user, or it is the last admin.
    pub async fn delete_user(&self, caller: &Caller, name: &str) -> Result<(), OperationError> {
        self.refuse_to_lose_last_admin(name).await?;
        if !self.odb().delete_user(name).await? {
            return Err(no_user(name));
        }
        tracing::info!(author = caller.name, user = name, "user deleted");
        Ok(())
    }

    /// All tokens that have not expired, by user and age.
    ///
    /// # Errors
    /// The ODB is away.
    pub async fn tokens(&self) -> Result<Vec<TokenView>, OperationError> {
        let rows = self.odb().tokens().await?;
        let view = |row: crosstie_odb::TokenRow| TokenView {
            id: row.id,
            user: row.user,
            role: row.role.into(),
            created: timestamp(row.created_us),
            expires: row.expires_us.map(timestamp),
        };
        Ok(rows.into_iter().map(view).collect())
    }

    /// Makes a token.
    ///
    /// # Errors
    /// There is no such user, or the token would allow more than the user may.
    pub async fn issue_token(&self, caller: &Caller, new: NewToken) -> Result<IssuedToken, OperationError> {
        let name = new.user.unwrap_or_else(|| caller.name.clone());
        let user = self.odb().user(&name).await?.ok_or_else(|| no_user(&name))?;
        let most = Role::from(user.role);
        let role = new.role.unwrap_or(most);
        if role > most {
            let reason = format!("the user {name} is {most}; a token of {role} would allow more");
            return Err(OperationError::Refused(Refusal::new(reason)));
        }
        let issued = token::issue().map_err(secret_error)?;
        let ttl = new.ttl_s.map(Duration::from_secs);
        let row = crosstie_odb::NewToken {
            id: issued.id.clone(),
            user: name.clone(),
            hash: issued.hash,
            role: role.into(),
            ttl,
        };
        self.odb().put_token(&row).await?;
        tracing::info!(author = caller.name, user = name, token = issued.id, %role, "token issued");
        let token = String::from_utf8_lossy(issued.text.expose()).into_owned();
        Ok(IssuedToken { id: issued.id, user: name, role, token })
    }

    /// Makes a token worthless.
    ///
    /// # Errors
    /// There is no such token.
    pub async fn revoke_token(&self, caller: &Caller, id: &str) -> Result<(), OperationError> {
        if !self.odb().delete_token(id).await? {
            return Err(OperationError::NotFound(format!("token {id}")));
        }
        tracing::info!(author = caller.name, token = id, "token revoked");
        Ok(())
    }

    /// Without any admin nobody could ever make one again, except with a component's certificate.
    async fn refuse_to_lose_last_admin(&self, name: &str) -> Result<(), OperationError> {
        let users = self.odb().users().await?;
        let admins: Vec<_> = users.iter().filter(|user| user.role == crosstie_odb::Role::Admin).collect();
        match admins.as_slice() {
            [only] if only.name == name => {
                Err(OperationError::Refused(Refusal::new(format!("{name} is the last admin"))))
            }
            _ => Ok(()),
        }
    }
}

fn check_name(name: &str) -> Result<(), OperationError> {
    let invalid = |detail: String| OperationError::Invalid(format!("the user's name is not valid: {detail}"));
    DefinitionName::new(name).map_err(|error| invalid(error.to_string()))?;
    // RFC 7617, section 2: a user-id that holds a colon cannot be sent.
    if name.contains(':') { Err(invalid("it must not hold a colon".to_owned())) } else { Ok(()) }
}

fn check_password(chosen: &str) -> Result<SecretValue, OperationError> {
    if chosen.chars().count() < MIN_PASSWORD_CHARACTERS {
        let text = format!("a password has at least {MIN_PASSWORD_CHARACTERS} characters");
        return Err(OperationError::Invalid(text));
    }
    Ok(SecretValue::new(chosen.as_bytes()))
}

/// About 20 ms of a core, so never on the reactor.
async fn hash(secret: SecretValue) -> Result<String, OperationError> {
    let hashed = tokio::task::spawn_blocking(move || password::hash(&secret)).await;
    hashed.map_err(|error| OperationError::Internal(error.to_string()))?.map_err(secret_error)
}

fn secret_error(error: impl std::error::Error + Send + Sync + 'static) -> OperationError {
    OperationError::Secret(Box::new(error))
}

fn no_user(name: &str) -> OperationError {
    OperationError::NotFound(format!("user {name}"))
}

fn view(user: &User, password: Option<String>) -> UserView {
    UserView { name: user.name.clone(), role: user.role.into(), password }
}
