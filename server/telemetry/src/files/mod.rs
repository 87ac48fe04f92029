//! Log files on disk: appended to by several processes at once, rotated by size, found again by a follower.

mod line_file;
mod rotated;

pub(crate) use line_file::{LineFile, Rotation};
pub(crate) use rotated::rotated_files;
