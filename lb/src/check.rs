//! `haproxy -c`: no configuration is used that HAProxy itself has not read and found good.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crosstie_process::pidfile::{self, Signal};

use crate::listening::{Entrance, listen};
use crate::render::{Rendered, SOCKET_VARIABLE};

/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The configuration under check, relative to the load balancer's directory.
const CANDIDATE: &str = "work/candidate.cfg";
/// What HAProxy said, relative to the load balancer's directory.
const FINDINGS: &str = "work/candidate.log";

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// HAProxy cannot be run at all.
    #[error("{program} cannot be run: {source}; on Debian it is in the package haproxy")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files of the check cannot be written or read.
    #[error("cannot check a configuration: {0}")]
    Files(#[source] io::Error),
    /// The check did not end.
    #[error("HAProxy took more than {} s to read the configuration", PATIENCE.as_secs())]
    Hangs,
    /// HAProxy found faults, each told with the file and line it stands in.
    #[error("HAProxy refuses the configuration: {}", .0.join("; "))]
    Refused(Vec<String>),
}

/// Has HAProxy read `rendered`. Must be called in the load balancer's directory, on a thread that may block:
/// takes 20 to 50 ms.
///
/// # Errors
/// Why it cannot be used.
pub fn check(program: &Path, rendered: &Rendered) -> Result<(), CheckError> {
    crosstie_security::write_private(Path::new(CANDIDATE), rendered.text.as_bytes())
        .map_err(|error| CheckError::Files(io::Error::other(error)))?;
    let findings = std::fs::File::create(FINDINGS).map_err(CheckError::Files)?;
    let said = findings.try_clone().map_err(CheckError::Files)?;
    let mut command = Command::new(program);
    command.args(["-c", "-f", CANDIDATE]).env_clear().stdin(Stdio::null()).stdout(findings).stderr(said);
    command.env(SOCKET_VARIABLE, "work/candidate.sock").process_group(0);
    // The file names sockets by number and HAProxy looks whether they are there.
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut sockets = Vec::new();
    for entrance in [Entrance::Http, Entrance::Https] {
        let socket = listen(loopback, 1).map_err(CheckError::Files)?;
        command.env(entrance.variable(), socket.as_raw_fd().to_string());
        sockets.push(socket);
    }
    let mut child = command
        .spawn()
        .map_err(|source| CheckError::Run { program: program.display().to_string(), source })?;
    if !pidfile::wait_gone(child.id(), PATIENCE).map_err(CheckError::Files)? {
        // It may end between the two calls.
        let _ = pidfile::signal(child.id(), Signal::Kill);
        let _ = child.wait();
        return Err(CheckError::Hangs);
    }
    let status = child.wait().map_err(CheckError::Files)?;
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read(FINDINGS).map_err(CheckError::Files)?;
    Err(CheckError::Refused(faults(&String::from_utf8_lossy(&said), rendered)))
}

/// The faults in what HAProxy said, with lines of snippets named as such.
fn faults(said: &str, rendered: &Rendered) -> Vec<String> {
    let alerts = said.lines().filter(|line| line.starts_with("[ALERT]"));
    // "[ALERT]    (4711) : config : parsing [work/candidate.cfg:45] : unknown keyword …"
    let told = alerts.map(|line| {
        let line = line.split_once(" : ").map_or(line, |(_, rest)| rest);
        located(line.trim_start_matches("config : ").trim_start_matches("parsing "), rendered)
    });
    // HAProxy ends with sentences that only repeat that there were faults.
    let mut found: Vec<_> = told
        .filter(|line| !line.starts_with("Error(s) found") && !line.starts_with("Fatal errors"))
        .collect();
    found.dedup();
    if found.is_empty() {
        found.push(said.lines().last().unwrap_or("it did not say why").to_owned());
    }
    found
}

fn located(line: &str, rendered: &Rendered) -> String {
    let place = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let Some((place, rest)) = place else { return line.to_owned() };
    // Some findings name the place twice.
    let rest = rest.trim_start_matches(" :").trim_start();
    let rest = rest.strip_prefix(&format!("parsing [{place}] :")).unwrap_or(rest).trim_start();
    let number = place.rsplit_once(':').and_then(|(_, number)| number.parse::<usize>().ok());
    match number.and_then(|number| rendered.origin(number)) {
        Some((path, line)) => format!("{path}:{line}: {rest}"),
        None => format!("{place}: {rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::material::Material;
    use crate::member::Pool;
    use crate::render::{Inputs, render};
    use crate::settings::LbSettings;
    use crate::snippet::Snippet;

    #[test]
    fn faults_name_the_file_the_administrator_knows() {
        let address = "127.0.0.1:1".parse().unwrap();
        let settings = LbSettings::new("lb".parse().unwrap(), address, vec![address]);
        let material = Material { ca: "ca".into(), own: "own".into(), front: "own".into(), client_ca: None };
        let snippets = [Snippet::new("frontend-a.cfg", "# mine\nhttp-request dance\n".into()).unwrap()];
        let pool = Pool::new();
        let inputs = Inputs {
            settings: &settings,
            material: &material,
            snippets: &snippets,
            pool: &pool,
            privileges: None,
        };
        let rendered = render(&inputs);
        let line = rendered.text.lines().position(|line| line == "http-request dance").unwrap() + 1;
        let said = format!(
            "[NOTICE]   (7) : haproxy version is 2.6.12\n\
             [ALERT]    (7) : config : parsing [work/candidate.cfg:{line}] : unknown action 'dance'.\n\
             [ALERT]    (7) : config : [work/candidate.cfg:3] : parsing [work/candidate.cfg:3] : bad.\n\
             [ALERT]    (7) : config : Error(s) found in configuration file : work/candidate.cfg\n\
             [ALERT]    (7) : config : Fatal errors found in configuration.\n"
        );
        assert_eq!(
            faults(&said, &rendered),
            ["lb.d/frontend-a.cfg:2: unknown action 'dance'.", "work/candidate.cfg:3: bad."]
        );
        assert_eq!(faults("", &rendered), ["it did not say why"]);
    }
}
