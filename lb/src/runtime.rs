//! Talking to a running HAProxy: the worker's runtime socket and the master's, one connection per command.
//!
//! Answers are text, bounded and parsed here; what cannot be parsed is an error, never a guess. A command
//! takes well under a millisecond on an idle process.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::render::DESCRIPTION;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer in bytes.
const MAX_ANSWER: u64 = 8 * 1024 * 1024;

/// Why HAProxy did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Its socket cannot be talked to.
    #[error("HAProxy's socket {path} does not answer: {source}")]
    Socket {
        /// Which one.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answered something else than what the command gives.
    #[error("HAProxy answered {command:?} with {answer:?}")]
    Answer {
        /// What was asked.
        command: String,
        /// What came, shortened.
        answer: String,
    },
}

/// Sends `command` to the socket at `path` and gives the answer.
///
/// # Errors
/// The socket does not answer.
pub async fn ask(path: &Path, command: &str) -> Result<String, RuntimeError> {
    let failed = |source| RuntimeError::Socket { path: path.display().to_string(), source };
    let conversation = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(command.as_bytes()).await?;
        stream.write_all(b"\n").await?;
        // The master's socket waits for more otherwise.
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let limited = tokio::time::timeout(PATIENCE, conversation).await;
    limited.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)
}

/// Sends a command that says nothing, or one of `expected`, when it succeeded.
///
/// # Errors
/// The socket does not answer, or HAProxy refused.
pub async fn order(path: &Path, command: &str, expected: &[&str]) -> Result<(), RuntimeError> {
    let answer = ask(path, command).await?;
    let said = answer.trim();
    if said.is_empty() || expected.iter().any(|good| said.starts_with(good)) {
        return Ok(());
    }
    Err(unexpected(command, said))
}

/// The process id of whoever listens on the socket at `path`.
///
/// # Errors
/// Nobody listens there.
pub async fn listener_pid(path: &Path) -> Result<u32, RuntimeError> {
    let failed = |source| RuntimeError::Socket { path: path.display().to_string(), source };
    let stream = UnixStream::connect(path).await.map_err(failed)?;
    let pid = stream.peer_cred().map_err(failed)?.pid().and_then(|pid| u32::try_from(pid).ok());
    pid.filter(|pid| *pid > 0).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

fn unexpected(command: &str, answer: &str) -> RuntimeError {
    RuntimeError::Answer { command: command.to_owned(), answer: answer.chars().take(500).collect() }
}

/// What `show info` says of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The digest of the configuration it was started with.
    pub digest: String,
    /// Its process id.
    pub pid: u32,
    /// HAProxy's version.
    pub version: String,
    /// For how many seconds it has been running.
    pub uptime_s: u64,
    /// Connections of clients it holds.
    pub connections: u64,
    /// Connections of clients it has had.
    pub connections_total: u64,
}

impl Info {
    /// Reads the answer to `show info`.
    ///
    /// # Errors
    /// Something is missing in it.
    pub fn parse(answer: &str) -> Result<Self, RuntimeError> {
        let fields: BTreeMap<&str, &str> =
            answer.lines().filter_map(|line| line.split_once(": ")).map(|(k, v)| (k, v.trim())).collect();
        let text = |key: &str| fields.get(key).copied().ok_or_else(|| unexpected("show info", answer));
        let number = |key: &str| text(key)?.parse::<u64>().map_err(|_| unexpected("show info", answer));
        Ok(Self {
            digest: fields
                .get("description")
                .and_then(|text| text.strip_prefix(DESCRIPTION))
                .unwrap_or_default()
                .to_owned(),
            pid: u32::try_from(number("Pid")?).map_err(|_| unexpected("show info", answer))?,
            version: text("Version")?.to_owned(),
            uptime_s: number("Uptime_sec")?,
            connections: number("CurrConns")?,
            connections_total: number("CumConns")?,
        })
    }
}

/// A server as a running HAProxy has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningServer {
    /// Its address.
    pub address: SocketAddr,
    /// Its weight: 0 gets nothing new.
    pub weight: u32,
    /// Whether it is in maintenance, as a new or a leaving one is.
    pub maintenance: bool,
}

/// Bits of a server's administrative state that put it into maintenance by a command or by the file.
const MAINTENANCE: u32 = 0x01 | 0x04;

/// Reads the answer to `show servers state`: the servers of the backend `of` by name.
///
/// # Errors
/// It has another form.
pub fn parse_servers(answer: &str, of: &str) -> Result<BTreeMap<String, RunningServer>, RuntimeError> {
    let bad = || unexpected("show servers state", answer);
    let mut lines = answer.lines().skip_while(|line| !line.starts_with("# "));
    let header: Vec<&str> =
        lines.next().ok_or_else(bad)?.trim_start_matches("# ").split_whitespace().collect();
    let column = |name: &str| header.iter().position(|known| *known == name).ok_or_else(bad);
    let (backend, name, address, port) =
        (column("be_name")?, column("srv_name")?, column("srv_addr")?, column("srv_port")?);
    let (weight, admin) = (column("srv_uweight")?, column("srv_admin_state")?);
    let mut servers = BTreeMap::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let field = |index: usize| fields.get(index).copied().ok_or_else(bad);
        if field(backend)? != of {
            continue;
        }
        let ip: IpAddr = field(address)?.parse().map_err(|_| bad())?;
        let admin: u32 = field(admin)?.parse().map_err(|_| bad())?;
        let server = RunningServer {
            address: SocketAddr::new(ip, field(port)?.parse().map_err(|_| bad())?),
            weight: field(weight)?.parse().map_err(|_| bad())?,
            maintenance: admin & MAINTENANCE != 0,
        };
        servers.insert(field(name)?.to_owned(), server);
    }
    Ok(servers)
}

/// What the master says of its processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processes {
    /// Its own id.
    pub master: u32,
    /// How often it was reloaded.
    pub reloads: u64,
    /// How many reloads failed; it went on with what it had.
    pub failed: u64,
    /// The worker that serves.
    pub worker: Option<u32>,
    /// Workers that finish what they have.
    pub old_workers: Vec<u32>,
}

impl Processes {
    /// Reads the answer to the master's `show proc`.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(answer: &str) -> Result<Self, RuntimeError> {
        let bad = || unexpected("show proc", answer);
        let (mut master, mut worker, mut old_workers, mut old) = (None, None, Vec::new(), false);
        for line in answer.lines() {
            if line.starts_with('#') {
                old = line.starts_with("# old");
                continue;
            }
            let mut fields = line.split_whitespace();
            let (Some(pid), Some(kind)) = (fields.next(), fields.next()) else { continue };
            let pid: u32 = pid.parse().map_err(|_| bad())?;
            match kind {
                "master" => {
                    let mut number = || {
                        let digits: String = fields.next()?.chars().filter(char::is_ascii_digit).collect();
                        digits.parse::<u64>().ok()
                    };
                    let reloads = number().ok_or_else(bad)?;
                    // `[failed:` and its number are two fields.
                    number();
                    master = Some((pid, reloads, number().unwrap_or(0)));
                }
                "worker" if old => old_workers.push(pid),
                "worker" => worker = Some(pid),
                _ => {}
            }
        }
        let (master, reloads, failed) = master.ok_or_else(bad)?;
        Ok(Self { master, reloads, failed, worker, old_workers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_of_the_service_backend_are_read() {
        let answer = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
            srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health \
            srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord \
            srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n\
            3 crosstie 1 s1 127.0.0.1 2 0 100 1 632 15 3 2 6 0 0 0 - 9101 - 1 0 - - 0\n\
            3 crosstie 2 s2 ::1 0 5 0 1 0 1 0 1 6 0 0 0 - 9102 - 1 0 - - 0\n\
            4 crosstie-certificates 1 none 127.0.0.1 0 5 1 1 632 1 0 0 8 0 0 0 - 1 - 1 0 - - 0\n\n";
        let servers = parse_servers(answer, "crosstie").unwrap();
        let first =
            RunningServer { address: "127.0.0.1:9101".parse().unwrap(), weight: 100, maintenance: false };
        let second = RunningServer { address: "[::1]:9102".parse().unwrap(), weight: 0, maintenance: true };
        assert_eq!(servers, BTreeMap::from([("s1".into(), first), ("s2".into(), second)]));
        assert!(parse_servers("Unknown command", "crosstie").is_err());
        assert!(parse_servers("# be_name srv_name\ncrosstie", "crosstie").is_err());
    }

    #[test]
    fn the_masters_processes_are_read() {
        let answer = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n\
            7882            master          2 [failed: 1]   0d00h00m02s     2.6.12-1+deb12u4\n\
            # workers\n\
            8043            worker          0               0d00h00m00s     2.6.12-1+deb12u4\n\
            # old workers\n\
            7929            worker          1               0d00h00m09s     2.6.12-1+deb12u4\n\
            # programs\n\n";
        let expected =
            Processes { master: 7882, reloads: 2, failed: 1, worker: Some(8043), old_workers: vec![7929] };
        assert_eq!(Processes::parse(answer).unwrap(), expected);
        assert!(Processes::parse("").is_err());
    }

    #[test]
    fn a_worker_tells_its_configuration() {
        let answer = "Name: HAProxy\nVersion: 2.6.12\nPid: 12\nUptime_sec: 3\nCurrConns: 4\nCumConns: 5\n\
                      description: crosstie-abc\n";
        let info = Info::parse(answer).unwrap();
        assert_eq!((info.digest.as_str(), info.pid, info.connections), ("abc", 12, 4));
        let other = Info::parse(&answer.replace("crosstie-abc", "another")).unwrap();
        assert_eq!(other.digest, "");
        assert!(Info::parse("Pid: x").is_err());
    }
}
