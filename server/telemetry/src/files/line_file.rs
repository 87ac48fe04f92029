//! A file of lines that several processes append to and any of them rotates.
//!
//! Appending takes no lock: with `O_APPEND` the kernel places each write at the end as a whole, and a batch
//! ends with a whole line. Before each batch one `stat` tells whether somebody rotated the file meanwhile, and
//! its last byte whether somebody died in the middle of a line. A batch that races with a rotation lands in the rotated file, which nobody deletes for being young, so no
//! line is lost. Rotation itself (rename, delete the oldest) is done under a lock that nobody waits for: who
//! does not get it lets the other one do the work.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::rotated::{next_name, rotated_files};

/// Logs are for the server's user and its group.
const MODE: u32 = 0o640;

/// When to start a new file and how many old ones to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// Size at which the file is rotated, in bytes.
    pub(crate) max_bytes: u64,
    /// How many rotated files are kept.
    pub(crate) keep: usize,
}

/// One process's handle on the file.
#[derive(Debug)]
pub(crate) struct LineFile {
    path: PathBuf,
    file: File,
    /// Device and inode of `file`.
    identity: (u64, u64),
}

impl LineFile {
    /// Opens or makes the file.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let (file, identity) = open(&path)?;
        Ok(Self { path, file, identity })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `lines`, which ends with a line end, after rotating the file if it would grow too large.
    pub(crate) fn append(&mut self, lines: &[u8], rotation: Rotation) -> io::Result<()> {
        let size = self.catch_up()?;
        let added = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if size > 0 && size.saturating_add(added) > rotation.max_bytes {
            // A rotation that fails must not cost the lines: the file grows until it succeeds.
            if let Err(error) = self.rotate(rotation) {
                let _ = writeln!(io::stderr(), "cannot rotate {}: {error}", self.path.display());
            }
        }
        if self.ends_inside_a_line()? {
            self.file.write_all(b"\n")?;
        }
        self.file.write_all(lines)
    }

    /// Whether the last line has no end, because a disk was full or its writer killed in the middle. Another
    /// process that is writing right now may look the same; then there is an empty line, which readers skip.
    fn ends_inside_a_line(&self) -> io::Result<bool> {
        let Some(last) = self.file.metadata()?.len().checked_sub(1) else { return Ok(false) };
        let mut byte = [0];
        Ok(self.file.read_at(&mut byte, last)? == 1 && byte != *b"\n")
    }

    /// Opens the file anew if it is no longer the one under its path; gives its size.
    fn catch_up(&mut self) -> io::Result<u64> {
        match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.identity => Ok(found.len()),
            Ok(_) => self.reopen(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.reopen(),
            Err(error) => Err(error),
        }
    }

    fn reopen(&mut self) -> io::Result<u64> {
        (self.file, self.identity) = open(&self.path)?;
        Ok(self.file.metadata()?.len())
    }

    fn rotate(&mut self, rotation: Rotation) -> io::Result<()> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let lock = self.path.with_file_name(format!(".{name}.lock"));
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(lock)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(()),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        let rotated = self.rotate_locked(rotation);
        // Not left to the drop: a forked child may hold a copy of the descriptor, and with it the lock.
        lock.unlock()?;
        rotated
    }

    fn rotate_locked(&mut self, rotation: Rotation) -> io::Result<()> {
        let before = self.identity;
        self.catch_up()?;
        if self.identity != before {
            // Somebody else was faster.
            return Ok(());
        }
        std::fs::rename(&self.path, next_name(&self.path, OffsetDateTime::now_utc())?)?;
        self.reopen()?;
        let rotated = rotated_files(&self.path)?;
        let surplus = rotated.len().saturating_sub(rotation.keep.max(1));
        for file in rotated.iter().take(surplus) {
            std::fs::remove_file(file)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, (u64, u64))> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, (metadata.dev(), metadata.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_lines(path: &Path) -> Vec<String> {
        let mut files = rotated_files(path).unwrap();
        files.push(path.to_owned());
        let contents = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
        contents.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn a_file_is_rotated_by_size_and_old_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.log");
        let rotation = Rotation { max_bytes: 100, keep: 3 };
        let mut file = LineFile::open(path.clone()).unwrap();
        for number in 0..100 {
            file.append(format!("line {number:04}\n").as_bytes(), rotation).unwrap();
        }
        assert_eq!(rotated_files(&path).unwrap().len(), 3);
        assert!(std::fs::metadata(&path).unwrap().len() <= 100);
        let lines = all_lines(&path);
        assert_eq!(lines.last().map(String::as_str), Some("line 0099"));
        assert!(lines.is_sorted());
    }

    #[test]
    fn two_handles_see_each_others_rotation_and_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.log");
        let rotation = Rotation { max_bytes: 200, keep: 1000 };
        let mut handles = [LineFile::open(path.clone()).unwrap(), LineFile::open(path.clone()).unwrap()];
        for number in 0..500 {
            handles[number % 2].append(format!("{number:04}\n").as_bytes(), rotation).unwrap();
        }
        let lines = all_lines(&path);
        assert_eq!(lines.len(), 500);
        assert!(lines.is_sorted());
    }

    #[test]
    fn a_deleted_file_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.log");
        let rotation = Rotation { max_bytes: 1000, keep: 1 };
        let mut file = LineFile::open(path.clone()).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.append(b"here\n", rotation).unwrap();
        assert_eq!(all_lines(&path), ["here"]);
    }

    #[test]
    fn a_line_cut_short_by_a_killed_writer_harms_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.log");
        std::fs::write(&path, "whole\ncut sh").unwrap();
        let rotation = Rotation { max_bytes: 1000, keep: 1 };
        LineFile::open(path.clone()).unwrap().append(b"next\n", rotation).unwrap();
        assert_eq!(all_lines(&path), ["whole", "cut sh", "next"]);
    }

    #[test]
    fn a_rotation_somebody_else_is_doing_is_left_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.log");
        let lock = File::create(directory.path().join(".server.log.lock")).unwrap();
        lock.lock().unwrap();
        let mut file = LineFile::open(path.clone()).unwrap();
        for _ in 0..10 {
            file.append(b"a line\n", Rotation { max_bytes: 10, keep: 1 }).unwrap();
        }
        assert_eq!(all_lines(&path).len(), 10);
        assert!(rotated_files(&path).unwrap().is_empty());
    }
}
