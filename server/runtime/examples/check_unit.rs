//! What `crosstie check-unit` runs, alone: the tests of this crate start it as their scratch process.

fn main() -> std::process::ExitCode {
    crosstie_runtime::python::check::run()
}
