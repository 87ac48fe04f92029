//! Ports for environments, reserved among all test processes of this machine.
//!
//! An environment uses `P`, `P+50` and `P+100`. A base is taken by a lock on a file named after it, which
//! the kernel releases with its holder, so that neither parallel tests nor parallel runs meet. Bases lie
//! below the range from which the kernel takes ports of outgoing connections: a load generator's connection
//! could otherwise sit on a port between its reservation and the server's bind.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// What an environment adds to its base.
pub const OFFSETS: [u16; 3] = [0, 50, 100];

const FIRST: u16 = 18_000;
const GROUP: u16 = 150;
const BASES_PER_GROUP: u16 = 50;

/// A reserved base; free again when dropped.
#[derive(Debug)]
pub struct PortBase {
    base: u16,
    _lock: File,
}

impl PortBase {
    /// Reserves a base none of whose ports is in use.
    ///
    /// # Errors
    /// Every base is taken, or the lock directory cannot be used.
    pub fn reserve() -> Result<Self> {
        let directory = lock_directory()?;
        let begin = spread();
        let count = (limit() - FIRST) / GROUP * BASES_PER_GROUP;
        for step in 0..count {
            let index = (begin + step) % count;
            let base = FIRST + index / BASES_PER_GROUP * GROUP + index % BASES_PER_GROUP;
            let Some(lock) = lock(&directory, base)? else { continue };
            if are_free(base, &OFFSETS) {
                return Ok(Self { base, _lock: lock });
            }
        }
        bail!("no free port base below {}", limit())
    }

    /// The base itself: the port of plain service traffic.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.base
    }
}

/// What a cluster's components add to their base, of one or two servers and a third that joins.
const CLUSTER_OFFSETS: [u16; 17] =
    [0, 1, 2, 50, 51, 52, 100, 101, 102, 200, 201, 250, 300, 310, 311, 312, 320];

const CLUSTER_FIRST: u16 = 11_000;
const CLUSTER_SPAN: u16 = 350;
const CLUSTERS: u16 = (FIRST - CLUSTER_FIRST) / CLUSTER_SPAN;

/// A reserved range for a cluster; free again when dropped.
#[derive(Debug)]
pub struct ClusterPorts {
    base: u16,
    _lock: File,
}

impl ClusterPorts {
    /// Reserves a range none of whose ports is in use.
    ///
    /// # Errors
    /// Every range is taken, or the lock directory cannot be used.
    pub fn reserve() -> Result<Self> {
        let directory = lock_directory()?;
        for step in 0..CLUSTERS {
            let base = CLUSTER_FIRST + (spread() + step) % CLUSTERS * CLUSTER_SPAN;
            let Some(lock) = lock(&directory, base)? else { continue };
            if are_free(base, &CLUSTER_OFFSETS) {
                return Ok(Self { base, _lock: lock });
            }
        }
        bail!("no free range of ports for a cluster below {FIRST}")
    }

    /// The base: the port of the first server.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.base
    }
}

/// The lock of `base`, unless somebody has it.
fn lock(directory: &Path, base: u16) -> Result<Option<File>> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join(base.to_string()))
        .context("cannot open a port lock")?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock a port"),
    }
}

/// Tests that start at the same time begin to look at different bases.
fn spread() -> u16 {
    let [low, high, ..] = std::process::id().to_le_bytes();
    u16::from_le_bytes([low, high]) % 1000 * 7 % 1000
}

/// The first port that the kernel may give to an outgoing connection.
fn limit() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next().and_then(|first| first.parse().ok()))
        .unwrap_or(32_768)
        .clamp(FIRST + 10 * GROUP, 32_768)
}

fn lock_directory() -> Result<PathBuf> {
    let directory = std::env::temp_dir().join("crosstie-test-ports");
    fs::create_dir_all(&directory).context("cannot make the directory of port locks")?;
    Ok(directory)
}

fn are_free(base: u16, offsets: &[u16]) -> bool {
    offsets.iter().all(|offset| TcpListener::bind((Ipv4Addr::LOCALHOST, base + offset)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn reservations_never_share_a_port() {
        let bases: Vec<_> = (0..60).map(|_| PortBase::reserve().unwrap()).collect();
        let ports: HashSet<u16> =
            bases.iter().flat_map(|base| OFFSETS.map(|offset| base.number() + offset)).collect();
        assert_eq!(ports.len(), 180);
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let first = PortBase::reserve().unwrap().number();
        let _user = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 100)).unwrap();
        assert_ne!(PortBase::reserve().unwrap().number(), first);
    }
}
