//! What lies in a pickup directory: which paths belong to which unit.
//!
//! Pure functions over names; the watcher and the scanner both ask here, so they cannot disagree.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crosstie_model::unit::{ArtifactKind, LIBRARY_UNIT};

/// A candidate for deployment: a file or directory directly below the pickup directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Candidate {
    /// Its path relative to the pickup directory: `hello.py`, `crm`, `lib`.
    pub path: PathBuf,
    /// The name of the unit it is a version of, not yet checked to be a valid one.
    pub unit: String,
    /// What it is.
    pub kind: ArtifactKind,
}

/// The candidate that `path` (relative to the pickup directory) belongs to, or `None` for what is never
/// deployed: hidden files, byte code, editors' and uploaders' temporary files, other types.
/// `is_package` says whether a top-level directory holds `__init__.py`.
pub(crate) fn candidate(path: &Path, is_package: impl Fn(&Path) -> bool) -> Option<Candidate> {
    if path.components().any(|part| is_ignored(part.as_os_str())) {
        return None;
    }
    let mut parts = path.components();
    let Component::Normal(top) = parts.next()? else { return None };
    let name = top.to_str()?;
    let below = parts.next().is_some();
    if name == LIBRARY_UNIT {
        let (unit, kind) = (LIBRARY_UNIT.to_owned(), ArtifactKind::PythonLibrary);
        return Some(Candidate { path: top.into(), unit, kind });
    }
    if let Some(stem) = name.strip_suffix(".py").filter(|_| !below) {
        return Some(Candidate { path: top.into(), unit: stem.to_owned(), kind: ArtifactKind::PythonFile });
    }
    let directory = PathBuf::from(top);
    is_package(&directory).then(|| Candidate {
        path: directory,
        unit: name.to_owned(),
        kind: ArtifactKind::PythonPackage,
    })
}

/// Names that are never part of an artifact.
pub(crate) fn is_ignored(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return true };
    let temporary = [".pyc", ".pyo", ".swp", ".swx", ".tmp", ".part", ".filepart", "~", ".bak", ".orig"];
    name.starts_with('.')
        || name == "__pycache__"
        || (name.starts_with('#') && name.ends_with('#'))
        || temporary.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit_of(path: &str) -> Option<(String, ArtifactKind)> {
        candidate(Path::new(path), |directory| directory == Path::new("crm"))
            .map(|found| (found.unit, found.kind))
    }

    #[test]
    fn each_python_file_is_a_unit_of_its_own() {
        assert_eq!(unit_of("hello.py"), Some(("hello".into(), ArtifactKind::PythonFile)));
        assert_eq!(unit_of("other.py"), Some(("other".into(), ArtifactKind::PythonFile)));
    }

    #[test]
    fn every_file_of_a_package_belongs_to_its_unit() {
        let package = Some(("crm".to_owned(), ArtifactKind::PythonPackage));
        assert_eq!(unit_of("crm/__init__.py"), package);
        assert_eq!(unit_of("crm/model/customer.py"), package);
        assert_eq!(unit_of("crm"), package);
        assert_eq!(unit_of("notes/todo.py"), None);
    }

    #[test]
    fn the_library_is_one_unit() {
        assert_eq!(unit_of("lib/text/fold.py"), Some(("lib".into(), ArtifactKind::PythonLibrary)));
    }

    #[test]
    fn leftovers_are_ignored() {
        for path in [
            ".hello.py.swp",
            "hello.py~",
            "hello.py.tmp",
            "__pycache__/hello.cpython-311.pyc",
            ".git/config",
            "crm/__pycache__/x.pyc",
            "#hello.py#",
            "README.md",
            "hello.py.part",
            "",
        ] {
            assert_eq!(unit_of(path), None, "{path}");
        }
    }
}
