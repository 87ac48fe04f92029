//! Keeps libgit2 from reading anybody's own git configuration, and from caching objects.
//!
//! `~/.gitconfig`, `/etc/gitconfig` and the ignore and attributes files beside them could rewrite line ends,
//! hide files, or (when broken) refuse every repository. With them goes `safe.directory`, and so the check of
//! ownership that only it can appease: it guards people who walk into strangers' directories, and this
//! program opens only those it was told to serve. The switches of libgit2 for this are behind unsafe
//! functions; this file is the thin wrapper around them.
//!
//! The cache keeps every commit and tree that is read until its repository is closed, up to 256 MB over all
//! of them. Little is read twice here, and packing reads everything once.

use std::sync::Once;

use git2::ConfigLevel;

static ONCE: Once = Once::new();

/// Empties the search paths of every level but the repository's own and turns the cache off, once per
/// process. Everything in this crate that uses libgit2 calls it first.
pub(super) fn ensure() {
    ONCE.call_once(|| {
        let levels = [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::ProgramData];
        #[expect(unsafe_code, reason = "libgit2 has no other way to ignore the user's configuration")]
        // SAFETY: these functions write libgit2's global tables without a lock and must not run beside any
        // other call into libgit2. This crate alone uses libgit2 in the process, every use of it begins with
        // a repository opened by `layout::open`, which calls `ensure` first, and `Once` makes all callers
        // wait until this block has ended.
        let outcome = unsafe {
            levels
                .into_iter()
                .try_for_each(|level| git2::opts::set_search_path(level, ""))
                .and_then(|()| git2::opts::set_verify_owner_validation(false))
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "git's user configuration cannot be switched off");
        }
        git2::opts::enable_caching(false);
    });
}
