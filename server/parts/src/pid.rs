//! Process ids that outlive the command that started a part. The file names, beside the id, when that
//! process began and in which boot, so that an id the kernel gave to somebody else is never taken for the
//! part, and never sent a signal.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crosstie_process::ending::is_ending;

use crate::error::PartError;

/// The file in the part's directory. Its first line is the id.
pub(crate) const PID_FILE: &str = "part.pid";

/// Where the kernel names the boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A process that cannot be mistaken for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its id.
    pub(crate) pid: u32,
    /// When it began, in ticks since the boot.
    began: u64,
    /// The boot.
    boot: String,
}

impl Identity {
    /// The living process `pid`. A zombie does not live, unless other threads of it still end: until then
    /// they hold its files and sockets.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let (state, began) = stat(pid)?;
        let boot = fs::read_to_string(BOOT_ID).ok()?.trim().to_owned();
        let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        (state != 'Z' || threads() > 1).then_some(Self { pid, began, boot })
    }

    /// Whether this very process still lives.
    pub(crate) fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Whether it was killed, or ends by itself, and is not gone yet.
    pub(crate) fn is_ending(&self) -> bool {
        is_ending(self.pid) && self.lives()
    }

    /// The process that the directory's file names, if it lives.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join(PID_FILE)).ok()?;
        let mut lines = text.lines();
        let mut next = || lines.next().map(str::trim);
        let found =
            Self { pid: next()?.parse().ok()?, began: next()?.parse().ok()?, boot: next()?.to_owned() };
        found.lives().then_some(found)
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), PartError> {
        let path = directory.join(PID_FILE);
        let next = directory.join(".part.pid.next");
        let text = format!("{}\n{}\n{}\n", self.pid, self.began, self.boot);
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&next)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&next, &path))
            .map_err(PartError::file(path))
    }

    /// Removes the file.
    pub(crate) fn forget(directory: &Path) {
        let _ = fs::remove_file(directory.join(PID_FILE));
    }
}

/// State and beginning of `pid`.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; fields count from after its end.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // proc_pid_stat(5): the state is field 3, the beginning field 22.
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The one of them that is not about to be gone.
pub(crate) fn running_in(directory: &Path, program: &str) -> Option<Identity> {
    // In this order: one that is gone by then is not ending either.
    working_in(directory, program).into_iter().find(|identity| !identity.is_ending() && identity.lives())
}

/// The living processes whose working directory is `directory` and whose program is called `program`.
pub(crate) fn working_in(directory: &Path, program: &str) -> Vec<Identity> {
    let Ok(directory) = directory.canonicalize() else { return Vec::new() };
    let is_of_part = |pid: &u32| {
        let link = |name: &str| -> Option<PathBuf> { fs::read_link(format!("/proc/{pid}/{name}")).ok() };
        link("cwd").is_some_and(|cwd| cwd == directory)
            && link("exe").is_some_and(|exe| exe.file_name().is_some_and(|name| name == program))
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_of_part)
        .filter_map(Identity::of)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let own = Identity::of(std::process::id()).unwrap();
        own.write(directory.path()).unwrap();
        assert_eq!(Identity::read(directory.path()), Some(own));
    }

    #[test]
    fn a_reused_id_is_not_taken_for_the_part() {
        let directory = tempfile::tempdir().unwrap();
        let own = Identity::of(std::process::id()).unwrap();
        Identity { began: own.began + 1, ..own.clone() }.write(directory.path()).unwrap();
        assert_eq!(Identity::read(directory.path()), None);
        Identity { boot: "another".into(), ..own }.write(directory.path()).unwrap();
        assert_eq!(Identity::read(directory.path()), None);
    }

    #[test]
    fn a_zombie_does_not_live() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        while stat(pid).is_some_and(|(state, _)| state != 'Z') {
            std::thread::yield_now();
        }
        assert_eq!(Identity::of(pid), None);
        child.wait().unwrap();
    }
}
