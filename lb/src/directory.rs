//! A load balancer's directory, for those who make, start and stop one.
//!
//! `lb.toml`, `lb.d/` and `tls/` are its owner's; `haproxy.cfg`, `work/` and `logs/` are the agent's.

use std::io;
use std::path::{Path, PathBuf};

use crosstie_process::pidfile;
use crosstie_security::create_private_directory;

use crate::settings::{LbSettings, SETTINGS_FILE, template};
use crate::{haproxy, snippet};

/// The agent's pid file.
#[must_use]
pub fn pid_file(directory: &Path) -> PathBuf {
    directory.join("work/lb.pid")
}

/// The agent's process id; `None` when none runs in `directory`.
#[must_use]
pub fn running(directory: &Path) -> Option<u32> {
    pidfile::holder(&pid_file(directory))
}

/// What HAProxy's master wrote as its process id. It may be gone.
#[must_use]
pub fn haproxy_pid(directory: &Path) -> Option<u32> {
    std::fs::read_to_string(directory.join(haproxy::PID_FILE)).ok()?.trim().parse().ok()
}

/// Makes the directory with a commented `lb.toml`. Its certificates are the caller's to put into `tls/`.
///
/// # Errors
/// Something cannot be made or written.
pub fn create(directory: &Path, settings: &LbSettings) -> io::Result<()> {
    for name in ["", "tls", snippet::DIRECTORY, "work", "logs"] {
        create_private_directory(&directory.join(name))?;
    }
    std::fs::write(directory.join(SETTINGS_FILE), template(settings))
}
