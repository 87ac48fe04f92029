//! What `crosstie check-unit VENV` runs, alone: the tests of this crate start it as their scratch process.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1).map(PathBuf::from) {
        Some(venv) => crosstie_runtime::python::check::run(&venv),
        None => ExitCode::FAILURE,
    }
}
