//! `crosstie logs`: a server's log or access log, read from its files, so that it also tells why a server
//! does not run.

use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use crosstie_telemetry::LogRecord;
use crosstie_telemetry::access::ACCESS_LOG;
use crosstie_telemetry::follow::{LogFilter, LogFollower, Start};
use crosstie_telemetry::logging::SERVER_LOG;
use crosstie_telemetry::record::TextStyle;

use crate::command::Context;

/// How often a followed log is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Go on as records are written, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// How many of the latest records to begin with
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50)]
    lines: usize,
    /// The access log: one line per request
    #[arg(long, conflicts_with = "level")]
    access: bool,
    /// Only records of this severity or worse: trace, debug, info, warn or error
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    level: Option<crosstie_model::settings::LogLevel>,
    /// Only records of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only records of the message with this correlation id
    #[arg(long, value_name = "CID")]
    cid: Option<String>,
}

fn level(text: &str) -> Result<crosstie_model::settings::LogLevel, String> {
    serde_json::from_value(text.into()).map_err(|_| "there are trace, debug, info, warn and error".to_owned())
}

/// How a line is printed.
#[derive(Debug, Clone, Copy)]
enum Style {
    /// As it stands in the file, which is what programs want.
    AsWritten,
    /// For a person.
    Text(TextStyle),
}

/// Prints the end of a log, and goes on with `--follow`.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let server = context.server()?;
    let name = if arguments.access { ACCESS_LOG } else { SERVER_LOG };
    let path = server.logs().join(name);
    let filter =
        LogFilter { level: arguments.level, service: arguments.service.clone(), cid: arguments.cid.clone() };
    let mut follower = LogFollower::open(path.clone(), Start::Last(arguments.lines), filter)
        .with_context(|| unreadable(&path))?;
    let style = match (context.output.is_for_people(), io::stdout().is_terminal()) {
        (false, _) => Style::AsWritten,
        (true, true) => Style::Text(TextStyle::Color),
        (true, false) => Style::Text(TextStyle::Plain),
    };
    loop {
        let lines = follower.poll().with_context(|| unreadable(&path))?;
        print(&lines, style)?;
        if !arguments.follow {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}

fn unreadable(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// Writes lines and makes them visible at once, as somebody may be watching.
fn print(lines: &[String], style: Style) -> Result<()> {
    let mut text = String::new();
    for line in lines {
        match (style, LogRecord::parse(line)) {
            (Style::Text(style), Some(record)) => record.write_text(style, &mut text),
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
