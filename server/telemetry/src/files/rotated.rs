//! Names of rotated log files: `server.log` becomes `server.log.20260131T235959.123456Z`.
//!
//! A name never changes again, so a reader that knows a file by name or by inode finds it until it is
//! deleted; and names sort by age.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:6]Z");

/// The rotated files of `path`, oldest first.
pub(crate) fn rotated_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if stamp_of(&entry.file_name(), name).is_some() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The name under which `path` is kept when it is rotated at `now`: later than every one there is, also
/// when the clock was set back.
pub(super) fn next_name(path: &Path, now: OffsetDateTime) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default();
    let newest = rotated_files(path)?.pop();
    let newest = newest.and_then(|newest| stamp_of(newest.file_name().unwrap_or_default(), name));
    let stamp = newest.map_or(now, |newest| now.max(newest + Duration::microseconds(1)));
    let stamp = stamp.format(STAMP).map_err(io::Error::other)?;
    let mut rotated = name.to_owned();
    rotated.push(".");
    rotated.push(stamp);
    Ok(path.with_file_name(rotated))
}

fn stamp_of(file: &OsStr, name: &OsStr) -> Option<OffsetDateTime> {
    let stamp = file.to_str()?.strip_prefix(name.to_str()?)?.strip_prefix('.')?;
    PrimitiveDateTime::parse(stamp, STAMP).ok().map(PrimitiveDateTime::assume_utc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn names_sort_by_age_even_when_the_clock_goes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.log");
        let now = datetime!(2026-01-31 23:59:59.123456 UTC);
        let mut made = Vec::new();
        for at in [now, now, now - Duration::hours(1), now + Duration::hours(1)] {
            let name = next_name(&path, at).unwrap();
            std::fs::write(&name, "").unwrap();
            made.push(name);
        }
        assert!(made[0].to_str().unwrap().ends_with("server.log.20260131T235959.123456Z"));
        assert_eq!(rotated_files(&path).unwrap(), made);
    }

    #[test]
    fn other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["server.log", "server.log.bak", "server.log.1", "other.log.20260131T235959.123456Z"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        assert!(rotated_files(&directory.path().join("server.log")).unwrap().is_empty());
    }
}
