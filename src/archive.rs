//! What a path on the command line is as an artifact: one Python file, a package, or the shared library.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use crosstie_model::UnitName;
use crosstie_model::limits::MAX_ARTIFACT_BYTES;
use crosstie_model::unit::{Artifact, ArtifactKind, LIBRARY_UNIT};
use crosstie_runtime::archive;

/// Reads `path` as a version of `unit`, or of the unit that its name says.
///
/// # Errors
/// The path holds nothing that can be deployed; the message says what would be.
pub(crate) fn read(path: &Path, unit: Option<&str>) -> Result<Artifact> {
    let shown = path.display();
    let full = fs::canonicalize(path).with_context(|| format!("cannot read {shown}"))?;
    let kind = kind_of(&full, unit)?;
    let stem = if full.is_dir() { full.file_name() } else { full.file_stem() };
    let name = unit.map_or_else(|| stem.unwrap_or_default().to_string_lossy().into_owned(), str::to_owned);
    let unit =
        UnitName::new(&name).with_context(|| format!("{name:?} cannot name a unit; name one with --unit"))?;
    let content = match kind {
        ArtifactKind::PythonFile => file(&full)?,
        ArtifactKind::PythonPackage | ArtifactKind::PythonLibrary => {
            archive::pack(&full, MAX_ARTIFACT_BYTES as u64).with_context(|| format!("cannot pack {shown}"))?
        }
    };
    Ok(Artifact::new(unit, kind, content))
}

fn kind_of(path: &Path, unit: Option<&str>) -> Result<ArtifactKind> {
    let shown = path.display();
    if path.is_file() {
        if path.extension().is_some_and(|extension| extension == "py") {
            return Ok(ArtifactKind::PythonFile);
        }
        bail!("{shown} is not a Python file: deploy FILE.py or a directory with __init__.py");
    }
    if unit.map_or_else(|| path.ends_with(LIBRARY_UNIT), |unit| unit == LIBRARY_UNIT) {
        return Ok(ArtifactKind::PythonLibrary);
    }
    if path.join("__init__.py").is_file() {
        return Ok(ArtifactKind::PythonPackage);
    }
    bail!("{shown} holds no __init__.py: deploy a package, its files one by one, or a directory called lib")
}

fn file(path: &Path) -> Result<bytes::Bytes> {
    let size = fs::metadata(path)?.len();
    if size > MAX_ARTIFACT_BYTES as u64 {
        bail!("{} has {size} bytes; at most {MAX_ARTIFACT_BYTES} can be deployed", path.display());
    }
    Ok(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_called_after_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hello.py");
        fs::write(&path, "x = 1\n").unwrap();
        let artifact = read(&path, None).unwrap();
        assert_eq!((artifact.unit.as_str(), artifact.kind), ("hello", ArtifactKind::PythonFile));
        assert_eq!(read(&path, Some("demo.other")).unwrap().unit.as_str(), "demo.other");
    }

    #[test]
    fn directories_are_packages_or_the_library() {
        let directory = tempfile::tempdir().unwrap();
        let (package, library) = (directory.path().join("crm"), directory.path().join("lib"));
        fs::create_dir_all(&package).unwrap();
        fs::create_dir_all(&library).unwrap();
        let refused = read(&package, None).unwrap_err().to_string();
        assert!(refused.contains("__init__.py"), "{refused}");
        fs::write(package.join("__init__.py"), "").unwrap();
        fs::write(library.join("text.py"), "").unwrap();
        assert_eq!(read(&package, None).unwrap().kind, ArtifactKind::PythonPackage);
        assert_eq!(read(&library, None).unwrap().kind, ArtifactKind::PythonLibrary);
    }

    #[test]
    fn other_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "x").unwrap();
        assert!(read(&path, None).unwrap_err().to_string().contains("not a Python file"));
    }
}
