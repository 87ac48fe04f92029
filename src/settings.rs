//! `server.toml` for commands that need what it says and not only where a server is.

use anyhow::Result;
use crosstie_config::settings;
use crosstie_model::settings::ServerSettings;

use crate::environment::ServerDirectory;
use crate::faults::Faults;

/// Reads the settings of `server`.
///
/// # Errors
/// Every fault of the file.
pub(crate) fn read(server: &ServerDirectory) -> Result<ServerSettings> {
    settings::load(server.path()).map_err(|faults| {
        let lines = faults.iter().map(ToString::to_string).collect();
        Faults::new(format!("the settings of {} are not valid", server.name()), lines).into()
    })
}
