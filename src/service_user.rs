//! The service user of an environment that root made: who owns it, and whom its servers become.
//!
//! Root's commands and the service user write in the same directories, and that user runs other people's
//! code. So whatever root does in there it does as the owner, and what it leaves is given to them before a
//! server starts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;
use crosstie_process::adopt::adopt;
use crosstie_process::privilege::{self, DEFAULT_USER, ServiceUser, Standing};

use crate::command::say;
use crate::environment::{Environment, ServerDirectory};

/// Gives `environment` to the user whom `server` becomes when root starts it; `setting` is `[server] user`.
/// A user who is named must exist and get there; without one, a server that stays root says so itself.
pub(crate) fn settle(
    environment: &Environment,
    server: &ServerDirectory,
    setting: Option<&str>,
) -> Result<()> {
    // A directory that somebody had made for the purpose tells whose the new server in it is.
    let is_taken = ServiceUser::owner_of(server.path()).is_some();
    let owned = if is_taken { server.path() } else { environment.root() };
    match Standing::choose(owned, environment.root(), setting)? {
        Standing::Drop(user) => {
            adopt(environment.root(), &user)?;
        }
        Standing::Root { .. } | Standing::Unprivileged => {}
    }
    Ok(())
}

/// Does `work` as the owner of `directory` if this is root; see [`privilege::as_owner_of`].
pub(crate) fn as_owner_of<T>(directory: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    privilege::as_owner_of(directory, work)?
}

/// Becomes the owner of `directory` for good if this is root: for commands that run what is in there.
pub(crate) fn become_owner_of(directory: &Path) -> Result<()> {
    match ServiceUser::owner_of(directory).filter(|_| privilege::is_root()) {
        Some(owner) => Ok(owner.become_for_good()?),
        None => Ok(()),
    }
}

/// Makes the system user that servers become by default, as a package's installation would, where root makes
/// an environment that such a user could reach. Without it the server stays root and says so.
pub(crate) fn ensure_default(root: &Path) {
    if !privilege::is_root() || !is_open_to_all(root) || exists() {
        return;
    }
    let made = Command::new("useradd")
        .args(["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"])
        .args(["--shell", "/usr/sbin/nologin", DEFAULT_USER])
        .stdin(Stdio::null())
        .output();
    match made {
        Ok(output) if output.status.success() => {
            say(&format!("created the system user {DEFAULT_USER}, which servers run as"));
        }
        // Another environment that is made at this moment was quicker.
        Ok(_) if exists() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            say(&format!("crosstie: cannot create the user {DEFAULT_USER}: {}", said.trim()));
        }
        Err(error) => say(&format!("crosstie: cannot create the user {DEFAULT_USER}: {error}")),
    }
}

fn exists() -> bool {
    matches!(ServiceUser::by_name(DEFAULT_USER), Ok(Some(_)))
}

/// Whether everybody may enter every directory above `root`.
fn is_open_to_all(root: &Path) -> bool {
    let may_enter =
        |path: &Path| fs::metadata(path).is_ok_and(|status| status.permissions().mode() & 0o001 != 0);
    root.ancestors().skip(1).all(may_enter)
}
