//! The check of an artifact in a scratch process: `crosstie check-unit` reads a request on its standard
//! input and writes one answer on its standard output.
//!
//! Called by the management API, which runs the process under a deadline and memory limit, kills it whole
//! and never runs user code itself. The request is one JSON line that says what follows, then the artifact's
//! bytes, then the library's. The answer is one JSON object, `{"manifest": …}` or `{"error": …}`; what user
//! code prints goes to standard error and cannot corrupt it.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crosstie_model::limits::MAX_ARTIFACT_BYTES;
use crosstie_model::names::UnitName;
use crosstie_model::ports::LoadError;
use crosstie_model::unit::{Artifact, ArtifactKind, UnitManifest};
use serde::{Deserialize, Serialize};

/// Longest header line, in bytes.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// What the header line says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// The virtual environment the services will run with.
    venv: PathBuf,
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
    /// The virtual environment, absolute.
    pub venv: PathBuf,
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
pub fn encode_request(venv: &Path, unit: &Artifact, library: Option<&Artifact>) -> Vec<u8> {
    let part = |artifact: &Artifact| Part {
        unit: artifact.unit.clone(),
        kind: artifact.kind,
        bytes: artifact.content.len(),
    };
    let header = Header { venv: venv.to_owned(), unit: part(unit), library: library.map(part) };
    // A path that is not UTF-8 is the only thing that cannot be written; the reader then refuses the request.
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
    let artifact =
        |part: Part, content: &[u8]| Artifact::new(part.unit, part.kind, content.to_vec().into());
    Ok(CheckRequest {
        venv: header.venv,
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

/// The whole life of the scratch process: reads the request, checks it, writes the answer. Standard output
/// is given away first, so that nothing user code prints reaches it.
#[must_use]
pub fn run() -> std::process::ExitCode {
    match decode_request(io::stdin().lock()) {
        Ok(_) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let refused = LoadError { message: error.to_string(), detail: String::new() };
            match encode_response(io::stdout().lock(), Err(refused)) {
                Ok(()) => std::process::ExitCode::SUCCESS,
                Err(_) => std::process::ExitCode::FAILURE,
            }
        }
    }
}
