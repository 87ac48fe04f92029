//! Processes that run beside the measured server: yardsticks, and the system that requests are handed on to.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crosstie_test_support::{PortBase, processes};
use nix::sys::signal::Signal;

/// How long a process may take to end in order.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that ends with the value.
pub(crate) struct Process(pub Child);

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    /// The program is not installed.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?))
    }

    /// Its id.
    ///
    /// # Errors
    /// It is none that the kernel gives.
    pub(crate) fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.0.id())?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx ends its worker when it is asked to end, and leaves it behind when it is killed.
        let _ = self.pid().and_then(|pid| processes::send(pid, Signal::SIGTERM));
        let asked = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if asked.elapsed() > PATIENCE {
                let _ = self.0.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A process that listens on loopback.
pub(crate) struct Beside {
    process: Process,
    port: PortBase,
}

impl Beside {
    /// This program itself in its role `role`, which takes a port.
    ///
    /// # Errors
    /// There is no port.
    pub(crate) fn own(role: &str) -> Result<Self> {
        let port = PortBase::reserve()?;
        let number = port.number().to_string();
        Self::start(port, Command::new(std::env::current_exe()?).args([role, &number]))
    }

    /// Starts `command`, which listens on `port`. It may take its time to.
    ///
    /// # Errors
    /// As for [`Process::start`].
    pub(crate) fn start(port: PortBase, command: &mut Command) -> Result<Self> {
        Ok(Self { process: Process::start(command)?, port })
    }

    /// Its process id.
    ///
    /// # Errors
    /// As for [`Process::pid`].
    pub(crate) fn pid(&self) -> Result<i32> {
        self.process.pid()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }
}
