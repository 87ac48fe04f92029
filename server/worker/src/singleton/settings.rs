//! Hand edits of the server's configuration: validated, then committed and put in force, or refused with the
//! running configuration untouched.
//!
//! Every worker reads the accepted settings when it starts, so a change is put in force by a rolling restart:
//! the supervisor validates again, keeps what it accepted and rolls its workers without losing a request.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crosstie_api::operations::Operations;
use crosstie_config::repository::{ConfigRepository, RepositoryError};
use crosstie_config::{settings, user};
use crosstie_model::Event;
use crosstie_model::settings::ServerSettings;
use serde_json::Value;

use crate::outbox::Outbox;
use crate::watch::DirectoryWatch;

/// What this worker started with: a commit that holds just that needs no roll.
#[derive(Clone)]
pub(super) struct InForce {
    /// `server.toml`.
    pub(super) settings: Arc<ServerSettings>,
    /// `config/user`.
    pub(super) user: Arc<Value>,
}

/// Watches `DIR/config` and `DIR/config/user` until cancelled. A change made while no singleton watched is
/// found by the first look.
pub(super) async fn watch(directory: PathBuf, in_force: InForce, operations: Operations, outbox: Outbox) {
    let config = directory.join("config");
    let mut files = DirectoryWatch::new(&config);
    let user_files = config.join("user");
    let mut user_watch = DirectoryWatch::new(if user_files.is_dir() { &user_files } else { &config });
    loop {
        let (place, known) = (directory.clone(), in_force.clone());
        match operations.in_config_repository(move |repository| accept(repository, &place, &known)).await {
            Ok(Accepted::Changed) => outbox.event(Event::SettingsChanged),
            Ok(Accepted::Unchanged | Accepted::Refused) => {}
            Err(error) => tracing::error!(%error, "the edited configuration could not be committed"),
        }
        tokio::select! {
            () = files.changed() => {}
            () = user_watch.changed() => {}
        }
    }
}

enum Accepted {
    Changed,
    Unchanged,
    Refused,
}

/// Commits what was edited if it is valid. Blocking.
fn accept(
    repository: &ConfigRepository,
    directory: &Path,
    in_force: &InForce,
) -> Result<Accepted, RepositoryError> {
    if !repository.is_dirty()? {
        return Ok(Accepted::Unchanged);
    }
    let (settings, user) = match (settings::load(directory), user::load(&directory.join("config/user"))) {
        (Ok(settings), Ok(user)) => (settings, user),
        (settings, user) => {
            for fault in settings.err().into_iter().flatten().chain(user.err().into_iter().flatten()) {
                tracing::error!(%fault, "the edited configuration is refused; the running one stays");
            }
            return Ok(Accepted::Refused);
        }
    };
    let (author, message) = match repository.head()? {
        Some(_) => ("hand edit", "Edit the configuration by hand"),
        None => ("crosstie", "Begin with the settings the server was made with"),
    };
    let commit = repository.commit_all(author, message)?;
    tracing::info!(commit = commit.map(|id| id.short()), "the edited configuration is accepted");
    for key in settings::changed_at_start_only(&in_force.settings, &settings) {
        tracing::warn!(key, "this setting is read at start: it takes effect when the server is restarted");
    }
    let is_known = settings == *in_force.settings && user == *in_force.user;
    Ok(if is_known { Accepted::Unchanged } else { Accepted::Changed })
}
