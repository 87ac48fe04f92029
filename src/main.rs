//! The `crosstie` command: one file per group of subcommands, nothing else.
//!
//! People run it to make, steer and look at environments; a server runs it as its own supervisor, worker
//! and scratch process. What it does for people goes over the management API, so that the command line can
//! do nothing the API cannot.

mod archive;
mod balancer;
mod ca;
mod certificates;
mod client;
mod command;
mod completion;
mod component;
mod config;
mod definitions;
mod deploy;
mod deployment;
mod environment;
mod faults;
mod identity;
mod internal;
mod join;
mod lb;
mod lifecycle;
mod logs;
mod message;
mod odb;
mod output;
mod parts;
mod ping;
mod process;
mod quickstart;
mod server;
mod server_directory;
mod service;
mod service_user;
mod settings;
mod status;
mod upgrade;
mod venv;

use std::process::ExitCode;

fn main() -> ExitCode {
    match command::parse() {
        Ok(line) => line.run(),
        Err(code) => code,
    }
}
