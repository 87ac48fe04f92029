//! The `.git` directory: made whole or not at all, its settings ours, its leftovers removed, and set aside
//! when it is damaged beyond reading.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use git2::{ConfigLevel, Repository};

use super::{RepositoryError, Result, isolation};

/// The branch that is written.
pub(super) const BRANCH: &str = "refs/heads/main";

/// What a damaged `.git` is renamed to, with a number behind it.
const DAMAGED: &str = ".git-damaged-";

/// What a `.git` is called while it is made, with the maker's process id behind it.
const UNFINISHED: &str = ".git-new-";

/// Where work files are prepared, inside `.git` so that a leftover is never part of the work tree.
pub(super) const PREPARE: &str = "crosstie-prepare";

/// Whether every object and reference reaches the disk before a call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// For history that exists nowhere else. Some milliseconds per commit on a disk that tells the truth.
    Synced,
    /// For what can be written again from the ODB. Survives a killed process, not a power failure.
    Unsynced,
}

/// How a repository is set up.
pub(super) struct Layout {
    pub(super) durability: Durability,
    /// Patterns for `.git/info/exclude`.
    pub(super) exclude: &'static str,
}

/// Attributes that switch off everything git may do to contents on their way; they outrank all others.
const ATTRIBUTES: &str = "* -text -filter -ident -eol -working-tree-encoding\n";

/// A new repository's settings; [`settle`] adds ours.
const SETTINGS: &str = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n";

/// What to do about files that only a process that died in the middle leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftovers {
    /// They may belong to somebody alive.
    Keep,
    /// The caller holds the singleton lock and nobody in this process writes yet.
    Remove,
}

/// Opens the repository of `directory`, making both if need be.
pub(super) fn open(directory: &Path, layout: &Layout, leftovers: Leftovers) -> Result<Repository> {
    isolation::ensure();
    make_directory(directory)?;
    let git = directory.join(".git");
    if !git.join("HEAD").is_file() {
        if git.exists() {
            set_aside(directory)?;
        }
        create(directory, layout)?;
    }
    if leftovers == Leftovers::Remove {
        remove_leftovers(directory)?;
    }
    replace_broken_settings(&git)?;
    let failed = |source| RepositoryError::Open { directory: directory.to_owned(), source };
    let repository = match Repository::open(directory) {
        Ok(repository) => repository,
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "the git repository is damaged");
            set_aside(directory)?;
            create(directory, layout)?;
            Repository::open(directory).map_err(failed)?
        }
    };
    settle(&repository, layout)?;
    Ok(repository)
}

/// Renames the repository's `.git` so that a new one can be made; its content stays for whoever wants to
/// save something from it.
pub(super) fn set_aside(directory: &Path) -> Result<PathBuf> {
    let git = directory.join(".git");
    let free =
        (1_u32..).map(|number| directory.join(format!("{DAMAGED}{number}"))).find(|path| !path.exists());
    let target = free.unwrap_or_else(|| directory.join(DAMAGED));
    fs::rename(&git, &target).map_err(RepositoryError::file("renamed", &git))?;
    tracing::warn!(kept = %target.display(), "a damaged git repository was set aside");
    Ok(target)
}

fn make_directory(directory: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(RepositoryError::file("created", directory))
}

/// Makes a new `.git` under another name and renames it, so that none is ever half made.
pub(super) fn create(directory: &Path, layout: &Layout) -> Result<()> {
    let new = directory.join(format!("{UNFINISHED}{}", std::process::id()));
    remove_directory(&new)?;
    make_directory(&new)?;
    for part in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info"] {
        let part = new.join(part);
        fs::create_dir_all(&part).map_err(RepositoryError::file("created", &part))?;
    }
    write(&new.join("HEAD"), &format!("ref: {BRANCH}\n"))?;
    write(&new.join("config"), SETTINGS)?;
    write(&new.join("info/exclude"), layout.exclude)?;
    let git = directory.join(".git");
    fs::rename(&new, &git).map_err(RepositoryError::file("created", &git))
}

/// Begins the settings file anew when it cannot be read: the history does not depend on it.
fn replace_broken_settings(git: &Path) -> Result<()> {
    let file = git.join("config");
    // A power failure leaves NUL bytes, which libgit2 reads without complaint and then cannot change.
    let is_text = fs::read(&file).is_ok_and(|content| !content.contains(&0));
    if is_text && git2::Config::open(&file).and_then(|mut config| config.snapshot()).is_ok() {
        return Ok(());
    }
    tracing::warn!(file = %file.display(), "git's settings are broken and begun anew");
    let kept = git.join("config.damaged");
    match fs::rename(&file, &kept) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(RepositoryError::file("renamed", &file)(error));
        }
        _ => {}
    }
    write(&file, SETTINGS)
}

/// Brings settings and attributes to what this program relies on; a person's own settings beside them stay.
fn settle(repository: &Repository, layout: &Layout) -> Result<()> {
    let git = repository.path();
    for (name, content) in [("info/attributes", ATTRIBUTES), ("info/exclude", layout.exclude)] {
        let file = git.join(name);
        if fs::read(&file).ok().as_deref() != Some(content.as_bytes()) {
            make_directory(&git.join("info"))?;
            write(&file, content)?;
        }
    }
    let failed = || RepositoryError::git("settle its configuration");
    let config = repository.config().map_err(failed())?;
    let mut local = config.open_level(ConfigLevel::Local).map_err(failed())?;
    let synced = layout.durability == Durability::Synced;
    let flags = [
        ("core.autocrlf", false),
        ("core.logallrefupdates", false),
        ("core.fsyncobjectfiles", synced),
        ("core.quotepath", false),
        ("commit.gpgsign", false),
        ("gc.autodetach", false),
    ];
    for (key, value) in flags {
        if local.get_bool(key).ok() != Some(value) {
            local.set_bool(key, value).map_err(failed())?;
        }
    }
    Ok(())
}

fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).map_err(RepositoryError::file("written", path))
}

/// Removes what only a process that died in the middle leaves behind: lock files, unfinished objects and
/// packs, prepared work files, and objects that a power failure left empty.
fn remove_leftovers(directory: &Path) -> Result<()> {
    let git = &directory.join(".git");
    for below in directories(directory) {
        if below.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(UNFINISHED)) {
            remove_directory(&below)?;
        }
    }
    remove_locks(git, 0)?;
    for part in ["objects", "objects/pack", "objects/info"] {
        remove_unfinished(&git.join(part))?;
    }
    for fan in directories(&git.join("objects")) {
        for (path, metadata) in files(&fan) {
            if metadata.len() == 0 && fan.file_name().is_some_and(|name| name.len() == 2) {
                remove(&path)?;
            }
        }
    }
    for (path, _) in files(&git.join(PREPARE)) {
        remove(&path)?;
    }
    Ok(())
}

/// Lock files of references, of HEAD, the configuration, the index and the packed references.
fn remove_locks(directory: &Path, depth: usize) -> Result<()> {
    for (path, _) in files(directory) {
        if path.extension().is_some_and(|extension| extension == "lock") {
            tracing::warn!(file = %path.display(), "a stale git lock was removed");
            remove(&path)?;
        }
    }
    for below in directories(directory) {
        let is_objects = depth == 0 && below.file_name().is_some_and(|name| name == "objects");
        if !is_objects && depth < 16 {
            remove_locks(&below, depth + 1)?;
        }
    }
    Ok(())
}

/// Temporary files of libgit2 (`tmp_object…`, `pack_git2_…`) and git (`tmp_obj_…`, `tmp_pack_…`).
fn remove_unfinished(directory: &Path) -> Result<()> {
    for (path, _) in files(directory) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("tmp_") || name.contains("_git2_") || name.ends_with(".lock") {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(RepositoryError::file("removed", path)(error))
        }
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(RepositoryError::file("removed", path)(error))
        }
        _ => Ok(()),
    }
}

/// The regular files of `directory`; none when it cannot be listed.
pub(super) fn files(directory: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let with_metadata = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    with_metadata.filter(|(_, metadata)| metadata.is_file()).collect()
}

/// The directories in `directory`, symbolic links aside.
pub(super) fn directories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { durability: Durability::Synced, exclude: "/x/\n" };

    #[test]
    fn a_new_repository_is_one_git_knows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        let repository = open(&path, &LAYOUT, Leftovers::Remove).unwrap();
        assert!(!repository.is_bare() && repository.head().is_err());
        let config = repository.config().unwrap();
        assert!(config.get_bool("core.fsyncobjectfiles").unwrap());
        assert!(!config.get_bool("commit.gpgsign").unwrap());
        drop(open(&path, &LAYOUT, Leftovers::Remove).unwrap());
    }

    #[test]
    fn leftovers_of_a_killed_process_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path(), &LAYOUT, Leftovers::Remove).unwrap());
        let git = directory.path().join(".git");
        fs::create_dir_all(git.join("objects/ab")).unwrap();
        fs::create_dir_all(git.join("refs/heads/a")).unwrap();
        let left = [
            "index.lock",
            "HEAD.lock",
            "config.lock",
            "packed-refs.lock",
            "refs/heads/main.lock",
            "refs/heads/a/b.lock",
            "objects/tmp_object_git2_x",
            "objects/pack/tmp_pack_y",
            "objects/ab/cd",
        ];
        for name in left {
            fs::write(git.join(name), "").unwrap();
        }
        fs::create_dir_all(directory.path().join(".git-new-1/objects")).unwrap();
        drop(open(directory.path(), &LAYOUT, Leftovers::Remove).unwrap());
        for name in left {
            assert!(!git.join(name).exists(), "{name}");
        }
        assert!(!directory.path().join(".git-new-1").exists());
    }

    #[test]
    fn broken_settings_are_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        for broken in ["[core\nbroken", "\0\0\0", ""] {
            drop(open(directory.path(), &LAYOUT, Leftovers::Remove).unwrap());
            fs::write(directory.path().join(".git/config"), broken).unwrap();
            let repository = open(directory.path(), &LAYOUT, Leftovers::Remove).unwrap();
            assert!(!repository.config().unwrap().get_bool("commit.gpgsign").unwrap());
        }
        assert!(!directory.path().join(".git-damaged-1").exists());
    }

    #[test]
    fn a_repository_that_cannot_be_read_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        for broken in ["config", "HEAD", "objects"] {
            drop(open(directory.path(), &LAYOUT, Leftovers::Remove).unwrap());
            let git = directory.path().join(".git");
            match broken {
                "config" => fs::write(git.join(broken), "[core]\nrepositoryformatversion = 99\n").unwrap(),
                "HEAD" => fs::remove_file(git.join(broken)).unwrap(),
                _ => fs::remove_dir_all(git.join(broken)).unwrap(),
            }
            assert!(open(directory.path(), &LAYOUT, Leftovers::Remove).unwrap().head().is_err());
        }
        assert!(directory.path().join(".git-damaged-3").exists());
    }
}
