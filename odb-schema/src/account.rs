//! Users of the management API and their tokens. Only hashes are stored.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::decode;
use crate::error::OdbError;
use crate::handle::{Odb, run};
use crate::member::MAX_NAME_BYTES;

/// What a user may do; each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look.
    Viewer,
    /// Deploy, configure, release.
    Operator,
    /// Also users, tokens and certificates.
    Admin,
}

impl Role {
    /// Every role, the least powerful first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The role's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("unknown role {text:?}; there are viewer, operator, admin"))
    }
}

/// A user of the management API.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name, unique.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// The password's argon2id hash in PHC form.
    pub password_hash: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({} {})", self.name, self.role)
    }
}

/// A token to store.
#[derive(Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Its public part.
    pub id: String,
    /// Whose it is; the user must be there, and takes the token along when removed.
    pub user: String,
    /// The hash of its secret part.
    pub hash: String,
    /// What it allows, at most.
    pub role: Role,
    /// How long it lasts, from now by the database's clock; for good when absent.
    pub ttl: Option<Duration>,
}

/// A stored token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its public part.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// The hash of its secret part.
    pub hash: String,
    /// What it allows, at most.
    pub role: Role,
    /// When it was made: µs since 1970 UTC, by the database's clock.
    pub created_us: i64,
    /// When it ends.
    pub expires_us: Option<i64>,
}

impl fmt::Debug for TokenRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenRow({} of {}, {})", self.id, self.user, self.role)
    }
}

impl Odb {
    /// All users, by name.
    ///
    /// # Errors
    /// The database is away.
    pub async fn users(&self) -> Result<Vec<User>, OdbError> {
        run!(self, Single, account::users())
    }

    /// One user.
    ///
    /// # Errors
    /// The database is away.
    pub async fn user(&self, name: &str) -> Result<Option<User>, OdbError> {
        run!(self, Single, account::user(name))
    }

    /// Makes a user, or replaces role and password.
    ///
    /// # Errors
    /// The database is away, or the name is not storable.
    pub async fn put_user(&self, user: &User) -> Result<(), OdbError> {
        decode::key("the user's name", &user.name, MAX_NAME_BYTES)?;
        run!(self, Write, account::put_user(user))
    }

    /// Removes a user and the user's tokens; says whether there was one.
    ///
    /// # Errors
    /// The database is away.
    pub async fn delete_user(&self, name: &str) -> Result<bool, OdbError> {
        run!(self, Write, account::delete_user(name))
    }

    /// Stores a token. Expired ones are cleared away meanwhile.
    ///
    /// # Errors
    /// [`OdbError::NotFound`] when there is no such user, [`OdbError::Exists`] when the id is taken.
    pub async fn put_token(&self, token: &NewToken) -> Result<(), OdbError> {
        decode::key("the token's id", &token.id, MAX_NAME_BYTES)?;
        run!(self, Write, account::put_token(token))
    }

    /// The token `id`, unless it expired.
    ///
    /// # Errors
    /// The database is away.
    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>, OdbError> {
        run!(self, Single, account::token(id))
    }

    /// All tokens that have not expired, by user and age.
    ///
    /// # Errors
    /// The database is away.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, OdbError> {
        run!(self, Single, account::tokens())
    }

    /// Removes a token; says whether there was one.
    ///
    /// # Errors
    /// The database is away.
    pub async fn delete_token(&self, id: &str) -> Result<bool, OdbError> {
        run!(self, Write, account::delete_token(id))
    }
}
