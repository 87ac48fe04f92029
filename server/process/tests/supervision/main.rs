//! A real supervisor with real workers, all of them this same binary in other roles: the supervisor is
//! started with a variable that names its directory, its workers with the one they inherit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests report by panicking"
)]

mod blame;
mod lifecycle;
mod privilege;
mod server;
mod sharing;
mod upgrade;
mod worker;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if std::env::var_os("CROSSTIE_WORKER").is_some() {
        return worker::run();
    }
    if let Some(directory) = std::env::var_os(server::DIRECTORY_VARIABLE) {
        return server::supervise(directory.into());
    }
    let tests = [lifecycle::TESTS, sharing::TESTS, blame::TESTS, privilege::TESTS, upgrade::TESTS].concat();
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// A test and the sentence that is its name.
type Test = (&'static str, fn());

/// Names tests after their functions.
#[macro_export]
macro_rules! tests {
    ($($name:ident),+ $(,)?) => { &[$((stringify!($name), $name as fn())),+] };
}
