//! The check of an artifact in a scratch process: `crosstie check-unit VENV` reads a request on its standard
//! input and writes one answer on its standard output.
//!
//! Called by the management API, which runs the process under a deadline and memory limit, kills it whole
//! and never runs user code itself. The process makes everything ready before it reads, as most of its time
//! goes into CPython's start, and may be started before there is a request. The request is one JSON line that
//! says what follows, then the artifact's bytes, then the library's. The answer is one JSON object,
//! `{"manifest": …}` or `{"error": …}`; what user code prints goes to standard error and cannot corrupt it.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use crosstie_model::limits::MAX_ARTIFACT_BYTES;
use crosstie_model::names::UnitName;
use crosstie_model::ports::LoadError;
use crosstie_model::unit::{Artifact, ArtifactKind, UnitManifest};
use pyo3::Python;
use serde::{Deserialize, Serialize};

use super::interpreter::{self, Setting};
use super::runtime;

/// Longest header line, in bytes.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// What the header line says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// The artifact to check.
    unit: Part,
    /// The shared library it is checked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    library: Option<Part>,
}

/// One artifact, without its bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    unit: UnitName,
    kind: ArtifactKind,
    bytes: usize,
}

/// A decoded request.
#[derive(Debug, PartialEq, Eq)]
pub struct CheckRequest {
    /// The artifact to check.
    pub unit: Artifact,
    /// The shared library it is checked with.
    pub library: Option<Artifact>,
}

/// What the scratch process answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Manifest(UnitManifest),
    Error(LoadError),
}

/// A request the scratch process cannot read.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Standard input failed.
    #[error("the request could not be read")]
    Read(#[source] io::Error),
    /// The header line is missing, too long or not understood.
    #[error("the request has no valid header: {0}")]
    Header(String),
    /// Fewer or more bytes than the header announces, or more than any artifact may have.
    #[error("the request does not hold what its header says")]
    Length,
}

/// The bytes to write to the scratch process.
#[must_use]
pub fn encode_request(unit: &Artifact, library: Option<&Artifact>) -> Vec<u8> {
    let part = |artifact: &Artifact| Part {
        unit: artifact.unit.clone(),
        kind: artifact.kind,
        bytes: artifact.content.len(),
    };
    let header = Header { unit: part(unit), library: library.map(part) };
    // Names, kinds and numbers can always be written.
    let mut request = serde_json::to_vec(&header).unwrap_or_default();
    request.push(b'\n');
    request.extend_from_slice(&unit.content);
    if let Some(library) = library {
        request.extend_from_slice(&library.content);
    }
    request
}

/// Reads a request to its end.
///
/// # Errors
/// [`RequestError`] says what is wrong with it.
pub fn decode_request(input: impl Read) -> Result<CheckRequest, RequestError> {
    let limit = MAX_HEADER_BYTES + 2 * MAX_ARTIFACT_BYTES;
    let mut bytes = Vec::new();
    input.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(RequestError::Read)?;
    if bytes.len() > limit {
        return Err(RequestError::Length);
    }
    let end = bytes.iter().take(MAX_HEADER_BYTES).position(|byte| *byte == b'\n');
    let Some((header, rest)) = end.and_then(|end| bytes.split_at_checked(end)) else {
        return Err(RequestError::Header("there is no first line".into()));
    };
    let header: Header =
        serde_json::from_slice(header).map_err(|error| RequestError::Header(error.to_string()))?;
    let rest = rest.get(1..).unwrap_or_default();
    let (unit, library) = rest.split_at_checked(header.unit.bytes).ok_or(RequestError::Length)?;
    if library.len() != header.library.as_ref().map_or(0, |part| part.bytes) {
        return Err(RequestError::Length);
    }
    let artifact = |part: Part, content: &[u8]| Artifact::new(part.unit, part.kind, content.to_vec().into());
    Ok(CheckRequest {
        unit: artifact(header.unit, unit),
        library: header.library.map(|part| artifact(part, library)),
    })
}

/// What the scratch process found, from its whole standard output.
///
/// # Errors
/// Why the artifact cannot be deployed. An answer that is missing or unreadable is the artifact's doing: its
/// code ended the process.
pub fn decode_response(output: &[u8]) -> Result<UnitManifest, LoadError> {
    match serde_json::from_slice(output) {
        Ok(Answer::Manifest(manifest)) => Ok(manifest),
        Ok(Answer::Error(error)) => Err(error),
        Err(error) => Err(LoadError {
            message: "the code ended the process that checked it (os._exit, a crash, or out of memory)"
                .into(),
            detail: format!("the answer of {} bytes was not readable: {error}", output.len()),
        }),
    }
}

/// Writes what the check found.
fn encode_response(mut output: impl Write, result: Result<UnitManifest, LoadError>) -> io::Result<()> {
    let answer = result.map_or_else(Answer::Error, Answer::Manifest);
    output.write_all(&serde_json::to_vec(&answer)?)?;
    output.flush()
}

/// The whole life of the scratch process: starts CPython with the virtual environment `venv` (absolute, the
/// one the services will run with), reads the request, checks it, writes the answer. Standard output is given
/// away first, so that nothing user code prints reaches it.
#[must_use]
pub fn run(venv: &Path) -> ExitCode {
    let answered = output::take().and_then(|output| encode_response(output, answer(venv)));
    if answered.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn answer(venv: &Path) -> Result<UnitManifest, LoadError> {
    let own = |message: String| LoadError { message, detail: String::new() };
    interpreter::start(venv, Setting::Check).map_err(|error| own(error.to_string()))?;
    let request = decode_request(io::stdin().lock()).map_err(|error| own(error.to_string()))?;
    Python::attach(|py| runtime::describe(py, &request.unit, request.library.as_ref()))
}

mod output {
    #![expect(unsafe_code, reason = "moves file descriptors")]

    use std::fs::File;
    use std::io;
    use std::os::fd::FromRawFd as _;

    /// Keeps standard output for the answer, and sends what is printed to standard error.
    pub(super) fn take() -> io::Result<File> {
        // SAFETY: the calls take no pointers; the descriptor that `fcntl` returns is fresh and ours alone.
        unsafe {
            match libc::fcntl(libc::STDOUT_FILENO, libc::F_DUPFD_CLOEXEC, 10) {
                -1 => Err(io::Error::last_os_error()),
                own if libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) < 0 => {
                    drop(File::from_raw_fd(own));
                    Err(io::Error::last_os_error())
                }
                own => Ok(File::from_raw_fd(own)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(content: &'static [u8]) -> Artifact {
        Artifact::new(UnitName::new("demo").unwrap(), ArtifactKind::PythonFile, content.into())
    }

    #[test]
    fn a_request_survives_its_way() {
        let library = Artifact::new(
            UnitName::new("lib").unwrap(),
            ArtifactKind::PythonLibrary,
            b"\n\0binary".as_slice().into(),
        );
        let request = encode_request(&artifact(b"line\nline\n"), Some(&library));
        let decoded = decode_request(request.as_slice()).unwrap();
        assert_eq!(decoded.unit, artifact(b"line\nline\n"));
        assert_eq!(decoded.library, Some(library));
    }

    #[test]
    fn a_request_that_is_cut_is_refused() {
        let request = encode_request(&artifact(b"abc"), None);
        for end in 0..request.len() {
            assert!(decode_request(&request[..end]).is_err(), "{end}");
        }
        let mut longer = request;
        longer.push(b'x');
        assert!(matches!(decode_request(longer.as_slice()), Err(RequestError::Length)));
    }

    #[test]
    fn a_process_that_ended_early_is_the_artifacts_fault() {
        for output in [&b""[..], b"{", b"null", b"{\"manifest\": 1}"] {
            let error = decode_response(output).unwrap_err();
            assert!(error.message.contains("os._exit"), "{error}");
        }
        let mut output = Vec::new();
        encode_response(&mut output, Ok(UnitManifest::default())).unwrap();
        assert_eq!(decode_response(&output), Ok(UnitManifest::default()));
    }
}
