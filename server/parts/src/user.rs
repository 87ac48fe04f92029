//! As whom parts run. PostgreSQL and MariaDB refuse to run as root, so a part that root starts runs as the
//! user that its Debian package made, or as `nobody`.

use std::ffi::OsStr;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, geteuid};

use crate::error::PartError;

/// A user of this host that a part runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUser {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl ServiceUser {
    /// The user `name` (`postgres`, `mysql`, `rabbitmq`), or `nobody` where there is none, when this process
    /// is root; `None` when it is not, since only root can choose.
    ///
    /// # Errors
    /// The user database cannot be read, or knows neither.
    pub fn for_part(name: &str) -> Result<Option<Self>, PartError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        for candidate in [name, "nobody"] {
            let found = User::from_name(candidate).map_err(|source| PartError::System {
                what: format!("looking up the user {candidate}"),
                source,
            })?;
            if let Some(User { name, uid, gid, .. }) = found.filter(|user| !user.uid.is_root()) {
                return Ok(Some(Self { name, uid, gid }));
            }
        }
        Err(PartError::Invalid {
            what: "the part's user",
            detail: format!("there is neither {name} nor nobody"),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its numbers: user and group.
    pub(crate) fn ids(&self) -> (u32, u32) {
        (self.uid.as_raw(), self.gid.as_raw())
    }

    /// Makes `command` run as this user, with no other groups than its own.
    pub(crate) fn runs(&self, command: &mut Command) {
        // The standard library empties the supplementary groups when root sets a user.
        command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
    }

    /// Gives `path` to this user, or the link itself where it is one: the user could have put it there.
    pub(crate) fn owns(&self, path: &Path) -> Result<(), PartError> {
        lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw())).map_err(PartError::file(path))
    }

    /// Whether this user may enter a directory of `owner`, `group` and `mode`.
    pub(crate) fn may_enter(&self, owner: u32, group: u32, mode: u32) -> bool {
        let needed = if owner == self.uid.as_raw() {
            0o100
        } else if group == self.gid.as_raw() {
            0o010
        } else {
            0o001
        };
        mode & needed != 0
    }
}

/// Makes `command` run as `user`, if there is one, with an environment that is the same for everybody.
pub(crate) fn run_as(user: Option<&ServiceUser>, command: &mut Command, home: &OsStr) {
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", home).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    if let Some(user) = user {
        user.runs(command);
    }
}
