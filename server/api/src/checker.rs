//! Checks of artifacts: who is asked what an uploaded file defines.
//!
//! The check runs user code (an import), so it happens in a scratch process with a deadline and a memory
//! limit, never in a worker. [`UnitChecker`] is the seam; tests put a table in its place.
//!
//! Most of a check's time is CPython's start. One check is rarely the last: people edit what they have just
//! dropped. So after a check the process of the next is started ahead, and waits a while for it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use crosstie_model::ports::LoadError;
use crosstie_model::unit::{Artifact, UnitManifest};
use crosstie_process::scratch::{
    self, OWN_PROGRAM, Prepared, ScratchCommand, ScratchEnd, ScratchError, ScratchOutput,
};
use crosstie_runtime::python::check;

use crate::host::Host;

/// The hidden subcommand of this program that checks one artifact read from standard input.
pub const CHECK_COMMAND: &str = "check-unit";
/// How much of what a dead check process wrote is kept for the deployment's history, in bytes.
const KEPT_OUTPUT: usize = 16 * 1024;
/// How long the process of the next check waits for it. It keeps some 20 MiB.
const PATIENCE: Duration = Duration::from_secs(30);

/// Finds out what an artifact defines, without letting it touch this process.
#[async_trait]
pub trait UnitChecker: Send + Sync {
    /// Checks `unit` together with the shared library it would be loaded with.
    ///
    /// # Errors
    /// Why the artifact cannot be deployed, or why the check could not be made.
    async fn check(&self, unit: &Artifact, library: Option<&Artifact>) -> Result<UnitManifest, CheckError>;
}

/// Why a check gave no manifest.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The artifact is at fault.
    #[error("{0}")]
    Refused(LoadError),
    /// The artifact's import did not end.
    #[error("the check did not end within {} s: something in the file blocks when it is imported", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The artifact's import ended the process.
    #[error(
        "the check process ended without an answer ({how}): the file ends or crashes the process when it is imported"
    )]
    Died {
        /// How: an exit code or a signal.
        how: String,
        /// What it wrote before, for the deployment's history.
        output: String,
    },
    /// Nothing is known about the artifact: the check itself failed.
    #[error("the check could not be run: {0}")]
    NotRun(String),
}

impl CheckError {
    /// More for the log and the deployment's history; empty when there is nothing more to say.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Refused(error) => &error.detail,
            Self::Died { output, .. } => output,
            Self::TimedOut(_) | Self::NotRun(_) => "",
        }
    }
}

/// Checks by running `crosstie check-unit` in a scratch process, within the limits of `[deploy]`.
pub struct ScratchChecker {
    host: Arc<dyn Host>,
    directory: PathBuf,
    next: Mutex<Option<Next>>,
}

/// A process that was started ahead, and what it was started for.
struct Next {
    plan: Plan,
    process: Prepared,
}

/// What a process must have been started with to be the one that a check needs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    command: ScratchCommand,
    /// When the places changed that the interpreter reads when it starts.
    changed: Vec<Option<SystemTime>>,
}

impl ScratchChecker {
    /// A checker for the server in `directory` (`DIR/server1`).
    #[must_use]
    pub fn new(host: Arc<dyn Host>, directory: PathBuf) -> Self {
        Self { host, directory, next: Mutex::new(None) }
    }

    fn plan(&self) -> Plan {
        let settings = self.host.settings();
        let venv = self.directory.join(&settings.python.venv);
        let changed = changed(&venv);
        let arguments = vec![OsString::from(CHECK_COMMAND), venv.into_os_string()];
        let mut command = ScratchCommand::new(OWN_PROGRAM, arguments);
        command.timeout = Duration::from_millis(settings.deploy.check_timeout_ms);
        command.cpu_limit = Some(command.timeout);
        command.memory_limit = Some(settings.deploy.check_memory_mib.saturating_mul(1024 * 1024));
        Plan { command, changed }
    }

    /// Runs a process by `plan`: the one that waits, if it was started by the same.
    async fn run(&self, plan: &Plan, request: Vec<u8>) -> Result<ScratchOutput, ScratchError> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Next { plan: by, mut process }) = next
            && by == *plan
            && process.is_waiting()
        {
            match process.run(request.clone()).await {
                Err(ScratchError::Unused) => {}
                result => return result,
            }
        }
        scratch::run(plan.command.clone(), request).await
    }

    /// Starts the process of the next check, unless one waits already. That it cannot be started is told by
    /// the next check.
    fn prepare(&self, plan: Plan) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = next.as_mut().is_some_and(|next| next.plan == plan && next.process.is_waiting());
        if !waits {
            *next =
                Prepared::ahead(plan.command.clone(), PATIENCE).ok().map(|process| Next { plan, process });
        }
    }
}

/// When the virtual environment and the packages in it were changed last. An interpreter that was started
/// before does not know all of them.
fn changed(venv: &Path) -> Vec<Option<SystemTime>> {
    let libraries = fs::read_dir(venv.join("lib")).into_iter().flatten().flatten();
    let mut places: Vec<_> = libraries.map(|entry| entry.path().join("site-packages")).collect();
    places.sort();
    places.push(venv.join("pyvenv.cfg"));
    places.iter().map(|place| fs::metadata(place).and_then(|data| data.modified()).ok()).collect()
}

#[async_trait]
impl UnitChecker for ScratchChecker {
    async fn check(&self, unit: &Artifact, library: Option<&Artifact>) -> Result<UnitManifest, CheckError> {
        let plan = self.plan();
        let result = self.run(&plan, check::encode_request(unit, library)).await;
        self.prepare(plan);
        match result {
            Ok(output) => manifest(&output),
            Err(ScratchError::TimedOut { limit, .. }) => Err(CheckError::TimedOut(limit)),
            Err(ScratchError::OutputTooLarge { limit }) => {
                let message = format!("its description has more than {limit} bytes");
                Err(CheckError::Refused(LoadError { message, detail: String::new() }))
            }
            Err(error @ (ScratchError::Start(_) | ScratchError::Watch(_) | ScratchError::Unused)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a check could not be run");
                Err(CheckError::NotRun(error.to_string()))
            }
        }
    }
}

/// Reads the answer of a check process. One that gave none is judged by how it ended.
fn manifest(output: &ScratchOutput) -> Result<UnitManifest, CheckError> {
    if output.stdout.iter().all(u8::is_ascii_whitespace) {
        let how = match output.end {
            ScratchEnd::Exited(code) => format!("exit code {code}"),
            ScratchEnd::Signalled(signal) => format!("signal {signal}"),
        };
        let start = output.stderr.len().saturating_sub(KEPT_OUTPUT);
        let output = String::from_utf8_lossy(output.stderr.get(start..).unwrap_or_default()).into_owned();
        return Err(CheckError::Died { how, output });
    }
    check::decode_response(&output.stdout).map_err(CheckError::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(end: ScratchEnd, stdout: &str, stderr: &str) -> ScratchOutput {
        let elapsed = Duration::from_millis(1);
        ScratchOutput { end, stdout: stdout.into(), stderr: stderr.into(), elapsed }
    }

    #[test]
    fn a_check_process_that_died_says_how() {
        let error = manifest(&output(ScratchEnd::Signalled(9), "", "Killed\n")).unwrap_err();
        assert!(error.to_string().contains("signal 9"), "{error}");
        assert_eq!(error.detail(), "Killed\n");
        let error = manifest(&output(ScratchEnd::Exited(3), "\n", "")).unwrap_err();
        assert!(matches!(error, CheckError::Died { ref how, .. } if how == "exit code 3"), "{error}");
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_a_refusal() {
        let error = manifest(&output(ScratchEnd::Exited(0), "surprise", "")).unwrap_err();
        assert!(matches!(error, CheckError::Refused(_)), "{error:?}");
    }
}
