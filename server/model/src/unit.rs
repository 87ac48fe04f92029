//! What a deployment is: an artifact, and the manifest that a check in a scratch process found in it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::{Digest, ServiceName, UnitName};

/// The name of the unit that holds the modules of `pickup/lib`.
pub const LIBRARY_UNIT: &str = "lib";

/// What an artifact's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    /// One Python source file.
    PythonFile,
    /// A Python package: a tar archive of a directory that holds `__init__.py`.
    PythonPackage,
    /// The shared modules of `pickup/lib`: a tar archive of that directory.
    PythonLibrary,
}

impl ArtifactKind {
    /// The kind's name in the ODB, the API and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PythonFile => "python_file",
            Self::PythonPackage => "python_package",
            Self::PythonLibrary => "python_library",
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ArtifactKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::PythonFile, Self::PythonPackage, Self::PythonLibrary]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("unknown artifact kind {text:?}"))
    }
}

/// The bytes of one deployment, immutable, known by their digest.
#[derive(Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The unit it is a version of.
    pub unit: UnitName,
    /// What the bytes are.
    pub kind: ArtifactKind,
    /// SHA-256 of `content`.
    pub digest: Digest,
    /// The file, or the tar archive of the directory (entries sorted, times zero, so that equal trees have
    /// equal digests).
    pub content: Bytes,
}

impl Artifact {
    /// An artifact of `unit` holding `content`.
    #[must_use]
    pub fn new(unit: UnitName, kind: ArtifactKind, content: Bytes) -> Self {
        let digest = Digest::of(&content);
        Self { unit, kind, digest, content }
    }
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.unit, self.digest.short(), self.content.len())
    }
}

/// What a check found in an artifact. Stored with the deployment; the hot path never asks user code again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitManifest {
    /// The services it defines, by name.
    pub services: Vec<ServiceDescription>,
    /// The modules of the shared library it imports, directly or not; empty when it uses none. A change of
    /// the library redeploys every unit whose list is not empty.
    #[serde(default)]
    pub library_modules: Vec<String>,
    /// The digest of the shared library it was checked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub library: Option<Digest>,
}

/// One service as its code declares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceDescription {
    /// Its name.
    pub name: ServiceName,
    /// Its docstring, dedented; empty without one.
    #[serde(default)]
    pub doc: String,
    /// Where it is defined: module and class within the artifact.
    pub class: String,
    /// Whether its handler is `async def`.
    #[serde(default)]
    pub is_async: bool,
    /// The HTTP methods it handles (`handle_GET` …); empty when `handle` takes all.
    #[serde(default)]
    pub methods: Vec<String>,
    /// JSON Schema (2020-12) of its declared input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// JSON Schema (2020-12) of its declared output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Channels declared in code.
    #[serde(default)]
    pub channels: Vec<CodeChannel>,
    /// Its own deadline in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// A channel declared beside its service: `rest("GET", "/hello/{name}")`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeChannel {
    /// `rest`, `http`, `jsonrpc` or `soap`.
    pub r#type: String,
    /// The path pattern.
    pub path: String,
    /// Every other field of that channel type's definition, as the code gave it.
    #[serde(default)]
    pub options: BTreeMap<String, Value>,
}
