//! `crosstie venv`: the virtual environment whose packages a server's Python services may import.
//!
//! It belongs to Debian's interpreter, the one the server embeds, whatever another version manager put on
//! the path. It is made without pip, which takes seconds and most servers never need; the first `install`
//! adds it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use crosstie_process::pidfile;
use serde_json::json;

use crate::command::Context;
use crate::{service_user, settings};

/// The interpreter that is embedded.
const INTERPRETER: &str = "/usr/bin/python3";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Install packages with pip
    Install {
        /// Packages, as pip names them (`requests`, `requests==2.32.3`, a path), or pip's own options
        #[arg(required = true, value_name = "PACKAGE", allow_hyphen_values = true)]
        packages: Vec<OsString>,
    },
}

/// Runs one of the subcommands.
pub(crate) fn run(context: &Context, command: &Command) -> Result<()> {
    let Command::Install { packages } = command;
    let server = context.server()?;
    // What is installed runs code of its own, and what runs it is the server's.
    service_user::become_owner_of(server.path())?;
    let venv = server.path().join(settings::read(&server)?.python.venv);
    let python = venv.join("bin/python");
    if !python.exists() {
        create(&venv)?;
    }
    if !has_pip(&venv) {
        let wants = "adding pip to it needs Debian's package python3-venv: apt-get install python3-venv";
        python_quietly(&python, &["-m", "ensurepip", "--default-pip"]).context(wants)?;
    }
    // pip reports on its own; a program that reads our standard output must not find that in it.
    let status = isolated(&python)
        .args(["-m", "pip", "install", "--disable-pip-version-check"])
        .args(packages)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run {}", python.display()))?;
    if !status.success() {
        bail!("pip could not install everything: what it says above tells why");
    }
    let sentence = match pidfile::running_supervisor(server.path()) {
        Some(pid) => {
            format!(
                "installed; workers keep what they imported before: `kill -HUP {pid}` renews them one by one"
            )
        }
        None => "installed".to_owned(),
    };
    context.output.done(&json!({"server": server.name(), "venv": venv}), &sentence)
}

/// Makes a virtual environment at `venv`, without pip.
pub(crate) fn create(venv: &Path) -> Result<()> {
    let interpreter = PathBuf::from(INTERPRETER);
    if !interpreter.exists() {
        bail!("there is no {INTERPRETER}, which the server embeds: apt-get install python3");
    }
    let target = venv.to_str().context("the path of the environment is not UTF-8")?;
    python_quietly(&interpreter, &["-m", "venv", "--without-pip", target])
        .context("cannot make the virtual environment for Python services")
}

fn has_pip(venv: &Path) -> bool {
    venv.join("bin/pip").exists()
}

fn python_quietly(python: &Path, arguments: &[&str]) -> Result<()> {
    let output = isolated(python)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", python.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned();
    bail!("{} failed: {last}", python.display())
}

/// An interpreter that no variable of the caller's shell leads astray.
fn isolated(python: &Path) -> Process {
    let mut process = Process::new(python);
    for variable in ["PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PYTHONSTARTUP"] {
        process.env_remove(variable);
    }
    process
}
