//! The program this process was started from, as whoever replaces it on disk knows it.
//!
//! An upgrade runs what lies at that path *now*. /proc/self/exe would not do: it is the old file for ever, and
//! with links (`/opt/crosstie/current`) resolved. The directory is kept open as well, because a service user
//! may run the file but need not get through the directories above it (a build below root's home).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{AccessFlags, access};

use crate::scratch::OWN_PROGRAM;

/// A program by its path.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    /// Its directory, opened with `O_PATH`.
    directory: Option<OwnedFd>,
}

impl Program {
    /// The program this process runs, as it was called; the file itself, with links resolved, when the name
    /// it was called by leads somewhere else.
    #[must_use]
    pub fn of_this_process() -> Self {
        let path = called().filter(|path| is_this_process(path));
        Self::at(path.or_else(|| std::env::current_exe().ok()).unwrap_or_else(|| PathBuf::from(OWN_PROGRAM)))
    }

    fn at(path: PathBuf) -> Self {
        let directory = path.parent().and_then(|directory| {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY);
            options.open(directory).ok().map(OwnedFd::from)
        });
        Self { path, directory }
    }

    /// What a predecessor knew of it.
    pub(crate) fn inherited(path: PathBuf, directory: Option<OwnedFd>) -> Self {
        Self { path, directory }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory, to be inherited.
    pub(crate) fn directory(&self) -> Option<&OwnedFd> {
        self.directory.as_ref()
    }

    /// A command that runs what lies there now, under its full name.
    pub(crate) fn command(&self) -> Command {
        let through = self.directory.as_ref().zip(self.path.file_name()).map(|(directory, name)| {
            PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
        });
        let reachable = access(&self.path, AccessFlags::X_OK).is_ok();
        let file = through.filter(|_| !reachable).unwrap_or_else(|| self.path.clone());
        let mut command = Command::new(file);
        command.arg0(&self.path);
        command
    }
}

/// The absolute path of what this process was called as.
fn called() -> Option<PathBuf> {
    let name = std::env::args_os().next().filter(|name| !name.is_empty())?;
    if name.as_bytes().contains(&b'/') {
        return std::path::absolute(name).ok();
    }
    let places = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&places).map(|place| place.join(&name)).find(|path| is_this_process(path))
}

fn is_this_process(path: &Path) -> bool {
    let identity = |status: fs::Metadata| (status.dev(), status.ino());
    let running = File::open(OWN_PROGRAM).and_then(|file| file.metadata()).map(identity);
    let found: io::Result<_> = fs::metadata(path).map(identity);
    matches!((running, found), (Ok(running), Ok(found)) if running == found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_what_lies_at_its_path_now() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("program");
        let program = Program::at(path.clone());
        assert!(program.command().status().is_err(), "nothing lies there yet");
        for code in [3, 5] {
            let beside = place.path().join("beside");
            fs::write(&beside, format!("#!/bin/sh\nexit {code}\n")).unwrap();
            fs::set_permissions(&beside, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            fs::rename(&beside, &path).unwrap();
            assert_eq!(program.command().status().unwrap().code(), Some(code));
        }
    }

    #[test]
    fn this_process_knows_its_program() {
        let program = Program::of_this_process();
        assert!(program.path().is_absolute() && is_this_process(program.path()), "{program:?}");
    }
}
