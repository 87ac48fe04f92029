//! A part's directory: who may enter it, and the files that are copied into it.
//!
//! The directory belongs to the part's user, 0700. The environment above it is 0700 too and usually root's,
//! so that user could not reach its own: the environment's directory alone is opened to passing through
//! (0711), which lists nothing. A closed directory further up is not ours to open; that is refused by name.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::error::PartError;
use crate::part::{PartPlan, PartTls};
use crate::user::ServiceUser;

/// Where the copies of the certificate's files are.
pub(crate) const TLS: &str = "tls";

/// Where the part's temporary files are.
pub(crate) const TEMPORARY: &str = "tmp";

/// The copies of a part's certificate.
#[derive(Debug, Clone)]
pub(crate) struct Copies {
    /// The CA whose certificates clients show.
    pub(crate) ca: PathBuf,
    /// The part's chain.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
}

impl Copies {
    /// Where they are for the part in `directory`.
    pub(crate) fn of(directory: &Path) -> Self {
        let tls = directory.join(TLS);
        Self { ca: tls.join("ca.pem"), certificate: tls.join("part.pem"), key: tls.join("part.key") }
    }
}

/// Makes the part's directory and sees that its user can reach it.
pub(crate) fn prepare(part: &'static str, plan: &PartPlan) -> Result<(), PartError> {
    require_plain(&plan.directory)?;
    own_directory(&plan.directory, plan.user.as_ref())?;
    own_directory(&plan.directory.join(TEMPORARY), plan.user.as_ref())?;
    match &plan.user {
        Some(user) => open_way(part, &plan.directory, user),
        None => Ok(()),
    }
}

/// Refuses a path that one of the programs' files would give another meaning.
fn require_plain(directory: &Path) -> Result<(), PartError> {
    // RabbitMQ never gets past looking at its disk where the path has an apostrophe.
    let misread = |letter: char| letter.is_control() || ['"', '\'', '\\'].contains(&letter);
    match directory.to_str() {
        Some(text) if directory.is_absolute() && !text.contains(misread) => Ok(()),
        _ => Err(PartError::Invalid {
            what: "the part's directory",
            detail: format!("{directory:?} is not an absolute path without quotation marks and backslashes"),
        }),
    }
}

/// Makes `path` a directory of the part's user, 0700.
pub(crate) fn own_directory(path: &Path, user: Option<&ServiceUser>) -> Result<(), PartError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(PartError::file(path))?;
    if let Some(user) = user {
        user.owns(path)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(PartError::file(path))
}

/// Sees that `user` can pass through every directory above `directory`.
fn open_way(part: &'static str, directory: &Path, user: &ServiceUser) -> Result<(), PartError> {
    let directory = directory.canonicalize().map_err(PartError::file(directory))?;
    for (height, above) in directory.ancestors().skip(1).enumerate() {
        let metadata = fs::metadata(above).map_err(PartError::file(above))?;
        let mode = metadata.mode() & 0o7777;
        if user.may_enter(metadata.uid(), metadata.gid(), mode) {
            continue;
        }
        if height > 0 || metadata.uid() != geteuid().as_raw() {
            let (user, directory) = (user.name().to_owned(), above.to_owned());
            return Err(PartError::Unreachable { part, user, directory });
        }
        fs::set_permissions(above, fs::Permissions::from_mode(mode | 0o011))
            .map_err(PartError::file(above))?;
    }
    Ok(())
}

/// Copies the files of the certificate, each replaced as a whole.
pub(crate) fn copy_certificates(plan: &PartPlan) -> Result<Option<Copies>, PartError> {
    let Some(PartTls { ca, certificate, key }) = &plan.tls else { return Ok(None) };
    let copies = Copies::of(&plan.directory);
    own_directory(&plan.directory.join(TLS), plan.user.as_ref())?;
    for (from, to) in [(ca, &copies.ca), (certificate, &copies.certificate), (key, &copies.key)] {
        let content = fs::read(from).map_err(PartError::file(from))?;
        write_private(to, &content, plan.user.as_ref())?;
    }
    Ok(Some(copies))
}

/// Writes a file of the part's user that nobody else can read, whole or not at all.
pub(crate) fn write_private(
    path: &Path,
    content: &[u8],
    user: Option<&ServiceUser>,
) -> Result<(), PartError> {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    let _ = fs::remove_file(&next);
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next);
    written.and_then(|mut file| file.write_all(content)).map_err(PartError::file(&next))?;
    if let Some(user) = user {
        user.owns(&next)?;
    }
    fs::rename(&next, path).map_err(PartError::file(path))
}

/// Removes a directory and all in it. One that is not there is no error.
pub(crate) fn remove(path: &Path) -> Result<(), PartError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(PartError::file(path)(error)),
        _ => Ok(()),
    }
}
