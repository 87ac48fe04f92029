//! Started as root, a server drops to a service user: whom it becomes, and how.
//!
//! Root is needed for two things only, to bind ports below 1024 and to become somebody else. What a server
//! does afterwards (settings, keys, database, logs, user code) it does as the user who owns its directory.
//! Whoever becomes another user here must still be single-threaded where that is said: environment variables
//! and working directories belong to the whole process.

#![expect(unsafe_code, reason = "environment variables change together with the user")]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{
    AccessFlags, Gid, Uid, User, faccessat, getegid, geteuid, getgrouplist, getgroups, getresuid, setegid,
    seteuid, setgroups, setresgid, setresuid,
};

/// The user a server becomes when neither its settings nor its directory's owner say otherwise.
pub const DEFAULT_USER: &str = "crosstie";

/// Why a server cannot become its service user.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The settings name a user that does not exist.
    #[error("there is no user {name}, which [server] user names: create it, or name another one")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The users of the system cannot be looked up.
    #[error("the user {name} cannot be looked up")]
    Lookup {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A directory above the server's keeps the user out.
    #[error("the user {name} may not enter {}, above the server's directory", path.display())]
    NoEntry {
        /// The user.
        name: String,
        /// The first directory that keeps them out.
        path: PathBuf,
    },
    /// The kernel refused a step.
    #[error("cannot become the user {name}")]
    Become {
        /// The user.
        name: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A change of the owner failed.
    #[error("{} cannot be given to the user {name}", path.display())]
    Own {
        /// The user.
        name: String,
        /// What should change hands.
        path: PathBuf,
        /// Why it did not.
        #[source]
        source: io::Error,
    },
}

/// Whom a process started in some directory should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Not root: it stays who it is.
    Unprivileged,
    /// Root, to become this user.
    Drop(ServiceUser),
    /// Root, which it stays: because the settings say so (no reason), or because there is nobody to become.
    Root {
        /// A sentence for a warning.
        reason: Option<String>,
    },
}

/// A user that servers run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUser {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    home: PathBuf,
}

/// Whether this process may become other users.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Does `work` as the owner of `directory` where this process is root and the owner is not, as
/// [`ServiceUser::act`] does; otherwise, and where the owner cannot get there, as whoever this process is.
///
/// # Errors
/// The kernel refuses the change.
pub fn as_owner_of<T>(directory: &Path, work: impl FnOnce() -> T) -> Result<T, PrivilegeError> {
    match ServiceUser::owner_of(directory).filter(|_| is_root()) {
        Some(owner) if owner.reaches(directory)? => owner.act(work),
        _ => Ok(work()),
    }
}

impl Standing {
    /// Decides for the server in `directory`. `setting` is what `[server] user` says; `entrance` the
    /// uppermost directory that can be given to the user: those above it must let them in as they are.
    ///
    /// Without a setting the owner of `directory` is taken, or else, in a directory of root's,
    /// [`DEFAULT_USER`]. If there is no such user, or they cannot get there, root stays with a reason.
    ///
    /// # Errors
    /// The user who is named does not exist, or they or the owner cannot reach the directory.
    pub fn choose(directory: &Path, entrance: &Path, setting: Option<&str>) -> Result<Self, PrivilegeError> {
        if !is_root() {
            return Ok(Self::Unprivileged);
        }
        let (user, may_stay) = match setting {
            Some("root") => return Ok(Self::Root { reason: None }),
            Some(name) => {
                let unknown = || PrivilegeError::Unknown { name: name.to_owned() };
                (ServiceUser::by_name(name)?.ok_or_else(unknown)?, false)
            }
            // Root would run code that lies in somebody else's directory: not without being told to.
            None if let Some(owner) = ServiceUser::owner_of(directory) => (owner, false),
            None => match ServiceUser::by_name(DEFAULT_USER)? {
                Some(user) => (user, true),
                None => {
                    let reason = format!("there is no user {DEFAULT_USER} to become");
                    return Ok(Self::Root { reason: Some(reason) });
                }
            },
        };
        match user.kept_out_by(entrance)? {
            None => Ok(Self::Drop(user)),
            Some(path) => {
                let error = PrivilegeError::NoEntry { name: user.name, path };
                if may_stay { Ok(Self::Root { reason: Some(error.to_string()) }) } else { Err(error) }
            }
        }
    }
}

impl Standing {
    /// Decides for a program in `directory` whose settings name nobody: root becomes the owner, and stays in a
    /// directory of its own.
    ///
    /// # Errors
    /// The owner cannot reach the directory.
    pub fn of_owner(directory: &Path) -> Result<Self, PrivilegeError> {
        if !is_root() {
            return Ok(Self::Unprivileged);
        }
        let Some(owner) = ServiceUser::owner_of(directory) else { return Ok(Self::Root { reason: None }) };
        match owner.kept_out_by(directory)? {
            None => Ok(Self::Drop(owner)),
            Some(path) => Err(PrivilegeError::NoEntry { name: owner.name, path }),
        }
    }
}

impl ServiceUser {
    /// The user called `name`, with their groups; `None` when there is none.
    ///
    /// # Errors
    /// The system's users cannot be read.
    pub fn by_name(name: &str) -> Result<Option<Self>, PrivilegeError> {
        let lookup = |source| PrivilegeError::Lookup { name: name.to_owned(), source };
        let Some(user) = User::from_name(name).map_err(lookup)? else { return Ok(None) };
        let groups = CString::new(name).map_err(|_| Errno::EINVAL);
        let groups = groups.and_then(|name| getgrouplist(&name, user.gid)).map_err(lookup)?;
        Ok(Some(Self { name: name.to_owned(), uid: user.uid, gid: user.gid, groups, home: user.dir }))
    }

    /// Who owns `path` (itself, should it be a link); `None` when that is root, or cannot be told.
    #[must_use]
    pub fn owner_of(path: &Path) -> Option<Self> {
        let status = fs::symlink_metadata(path).ok()?;
        let uid = Uid::from_raw(status.uid());
        if uid.is_root() {
            return None;
        }
        let known =
            User::from_uid(uid).ok().flatten().and_then(|user| Self::by_name(&user.name).ok().flatten());
        // Containers give directories to users that only the host has a name for.
        Some(known.unwrap_or_else(|| {
            let gid = Gid::from_raw(status.gid());
            Self { name: uid.to_string(), uid, gid, groups: vec![gid], home: PathBuf::from("/") }
        }))
    }

    /// Their name; the number where they have none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this process runs as them.
    #[must_use]
    pub fn is_this_process(&self) -> bool {
        geteuid() == self.uid
    }

    /// Whether `uid` is theirs.
    #[must_use]
    pub fn has_uid(&self, uid: u32) -> bool {
        self.uid.as_raw() == uid
    }

    pub(crate) fn uid(&self) -> Uid {
        self.uid
    }

    pub(crate) fn gid(&self) -> Gid {
        self.gid
    }

    /// Becomes this user for good: no way back, and no set-user-id program gives one. The process must be
    /// single-threaded, as its environment (`HOME`, `USER`, `LOGNAME`) changes too.
    ///
    /// # Errors
    /// The kernel refuses; the process must end then, being neither one nor the other.
    pub fn become_for_good(&self) -> Result<(), PrivilegeError> {
        let refused = |source| PrivilegeError::Become { name: self.name.clone(), source };
        setgroups(&self.groups).map_err(refused)?;
        setresgid(self.gid, self.gid, self.gid).map_err(refused)?;
        setresuid(self.uid, self.uid, self.uid).map_err(refused)?;
        let now = getresuid().map_err(refused)?;
        if [now.real, now.effective, now.saved] != [self.uid; 3] || seteuid(Uid::from_raw(0)).is_ok() {
            return Err(refused(Errno::EPERM));
        }
        nix::sys::prctl::set_no_new_privs().map_err(refused)?;
        // A change of user makes a process undumpable: /proc/self then belongs to root, and neither a core
        // dump nor a debugger of this user would be possible. Nothing of root's is in this memory.
        nix::sys::prctl::set_dumpable(true).map_err(refused)?;
        // SAFETY: the caller vouches that this is the process's only thread.
        unsafe {
            std::env::set_var("HOME", &self.home);
            std::env::set_var("USER", &self.name);
            std::env::set_var("LOGNAME", &self.name);
        }
        Ok(())
    }

    /// Does `work` with this user's rights and comes back: files are found, read and made as by them, so that
    /// a link they planted leads no further than they could go themselves. For root, single-threaded; what
    /// `work` executes can come back too, so it must be a program of the system's.
    ///
    /// # Errors
    /// The kernel refuses the change. When it refuses the way back, the process is ended.
    pub fn act<T>(&self, work: impl FnOnce() -> T) -> Result<T, PrivilegeError> {
        let refused = |source| PrivilegeError::Become { name: self.name.clone(), source };
        let before = (getgroups().map_err(refused)?, getegid(), geteuid());
        let _way_back = WayBack(before.0, before.1, before.2);
        setgroups(&self.groups).map_err(refused)?;
        setegid(self.gid).map_err(refused)?;
        seteuid(self.uid).map_err(refused)?;
        Ok(work())
    }

    /// Whether this user may enter every directory above `directory`.
    ///
    /// # Errors
    /// The kernel refuses to try.
    pub fn reaches(&self, directory: &Path) -> Result<bool, PrivilegeError> {
        self.kept_out_by(directory).map(|obstacle| obstacle.is_none())
    }

    /// The first directory above `directory` that this user may not enter.
    fn kept_out_by(&self, directory: &Path) -> Result<Option<PathBuf>, PrivilegeError> {
        let above: Vec<_> = directory.ancestors().skip(1).collect();
        let may_enter = |path: &Path| {
            // Some file systems of users refuse even root's question; then the answer is no as well.
            let path = CString::new(path.as_os_str().as_bytes());
            path.is_ok_and(|path| {
                faccessat(nix::fcntl::AT_FDCWD, path.as_c_str(), AccessFlags::X_OK, AtFlags::AT_EACCESS)
                    .is_ok()
            })
        };
        self.act(|| above.into_iter().rev().find(|path| !may_enter(path)).map(Path::to_owned))
    }
}

/// Restores groups and effective ids when dropped, a panic included.
struct WayBack(Vec<Gid>, Gid, Uid);

impl Drop for WayBack {
    fn drop(&mut self) {
        let back = seteuid(self.2).and_then(|()| setegid(self.1)).and_then(|()| setgroups(&self.0));
        if back.is_err() {
            // Going on as somebody else would be worse than not going on.
            std::process::abort();
        }
    }
}
