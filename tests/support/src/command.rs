//! Runs the real `crosstie` binary as a person would.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The binary that [`use_binary`] chose.
static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Makes every command of this process run the binary at `path`.
///
/// # Errors
/// There is none, or another one was chosen before.
pub fn use_binary(path: &Path) -> Result<()> {
    let path = path.canonicalize().with_context(|| format!("{} is missing", path.display()))?;
    let chosen = CHOSEN.get_or_init(|| path.clone());
    ensure!(*chosen == path, "{} was chosen before", chosen.display());
    Ok(())
}

/// The binary under test: the one that [`use_binary`] chose, `CROSSTIE_BIN`, or the one that cargo built beside
/// the running test.
///
/// # Errors
/// There is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = CHOSEN.get() {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var_os("CROSSTIE_BIN") {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe().context("cannot tell where the test binary is")?;
    // target/PROFILE/deps/test-1234 or target/PROFILE/bench
    let found = test.ancestors().skip(1).take(2).map(|directory| directory.join("crosstie"));
    match found.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("no crosstie binary beside {}: cargo build --bin crosstie", test.display()),
    }
}

/// One run of the command.
#[derive(Debug)]
pub struct Command {
    process: process::Command,
    input: Option<Vec<u8>>,
}

/// What a run gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit code; 128 and the signal's number when one ended it, as shells count.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Command {
    /// The command without arguments and without the caller's `CROSSTIE_DIR`.
    ///
    /// # Errors
    /// There is no binary.
    pub fn new() -> Result<Self> {
        let mut process = process::Command::new(binary()?);
        process.env_remove("CROSSTIE_DIR").stdin(Stdio::null());
        Ok(Self { process, input: None })
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.process.args(arguments);
        self
    }

    /// Names the environment.
    #[must_use]
    pub fn environment(mut self, directory: &Path) -> Self {
        self.process.env("CROSSTIE_DIR", directory);
        self
    }

    /// Runs in `directory`.
    #[must_use]
    pub fn current_directory(mut self, directory: &Path) -> Self {
        self.process.current_dir(directory);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.process.env(name, value);
        self
    }

    /// Gives standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It could not be started or read from.
    pub fn run(mut self) -> Result<Outcome> {
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.process.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.process.spawn().context("cannot start crosstie")?;
        if let (Some(input), Some(mut pipe)) = (self.input, child.stdin.take()) {
            // A command that refuses its arguments does not read its input.
            let _ = pipe.write_all(&input);
        }
        let output = child.wait_with_output().context("cannot read from crosstie")?;
        Ok(Outcome {
            code: output.status.code().or(output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

impl Outcome {
    /// The outcome, if it was success.
    ///
    /// # Errors
    /// What the command said otherwise.
    pub fn success(self) -> Result<Self> {
        match self.code {
            0 => Ok(self),
            code => bail!("exit code {code}\nstdout: {}\nstderr: {}", self.stdout, self.stderr),
        }
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}", self.stdout))
    }
}
