//! Services in Python: CPython embedded in the worker.

pub mod check;
mod options;
mod runtime;

pub use options::{Activity, PythonOptions, StartError};
pub use runtime::PythonRuntime;
