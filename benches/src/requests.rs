//! Requests whose answers are known. `wrk` sends them, and compares every answer.
//!
//! Comparing costs the load generator something, for a server and its yardstick alike, and nothing that is charged
//! to either.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crosstie_test_support::Http;
use crosstie_test_support::wrk::{Load, Report};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::environment::wait;
use crate::python_rest::CONNECTIONS;

/// What stands in a body for something that no other request has: 24 characters of base64.
pub(crate) const NONCE: &str = "@NONCE@";
/// What stands in a body for the time of sending, give or take the length of a run.
pub(crate) const CREATED: &str = "@CREATED@";
/// The header field in which the other system tells the path that it was asked for.
pub(crate) const PATH_FIELD: &str = "x-path";

/// Nonces begin with a number that each run has for itself.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// What a right answer holds.
#[derive(Clone)]
pub(crate) enum Expected {
    /// This and nothing else.
    Whole(String),
    /// This, somewhere.
    Part(String),
}

/// POST of one body over and over.
#[derive(Clone)]
pub(crate) struct Requests {
    /// The path.
    pub path: String,
    /// The media type of the body.
    pub content_type: &'static str,
    /// Other header fields.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body; see [`NONCE`] and [`CREATED`].
    pub body: String,
    /// What its answers hold.
    pub expected: Expected,
    /// Where the other system must have been asked, if one is.
    pub asked_at: Option<String>,
    /// A header field of answers, and the file to which what it says is added, a line for each answer.
    pub noted: Option<(&'static str, PathBuf)>,
}

impl Requests {
    /// The same requests for whoever leads to a system that answers everything with what it was sent, unchanged.
    pub(crate) fn echoed(&self, path: &str) -> Self {
        let expected = match self.body.split_once(NONCE) {
            None => Expected::Whole(self.body.clone()),
            // What comes after all that changes.
            Some((_, after)) => Expected::Part(after.rsplit(CREATED).next().unwrap_or_default().into()),
        };
        Self { path: path.into(), expected, asked_at: Some(path.into()), ..self.clone() }
    }

    /// Waits until an answer is right.
    ///
    /// # Errors
    /// None is within a minute; says how the last one was wrong.
    pub(crate) fn await_right(&self, address: SocketAddr) -> Result<()> {
        let mut last = String::new();
        let waited = wait(&format!("the right answer of {}", self.path), || {
            last = self.ask(address).err().map(|error| format!("{error:#}")).unwrap_or_default();
            Ok(last.is_empty())
        });
        waited.with_context(|| last.clone())
    }

    /// Sends one.
    fn ask(&self, address: SocketAddr) -> Result<()> {
        let mut http = Http::new(format!("http://{address}"));
        for (name, value) in &self.headers {
            http = http.header(name, value);
        }
        let body = self.dated()?.replace(NONCE, &format!("{}{:016}", run(), 0));
        let reply = http.post(&self.path, self.content_type, body.as_bytes())?;
        let text = reply.text();
        let is_right = match &self.expected {
            Expected::Whole(whole) => text == *whole,
            Expected::Part(part) => text.contains(part.as_str()),
        };
        let start: String = text.chars().take(400).collect();
        ensure!(reply.status == 200 && is_right, "{} answers {}: {start}", self.path, reply.status);
        if let Some(path) = &self.asked_at {
            let asked = reply.header(PATH_FIELD);
            ensure!(asked == path, "{} leads to {asked:?}, not {path}", self.path);
        }
        Ok(())
    }

    /// Sends them for `length`.
    ///
    /// # Errors
    /// An answer is wrong, or was not looked at.
    pub(crate) fn load(&self, address: SocketAddr, length: Duration) -> Result<Report> {
        let directory = tempfile::tempdir()?;
        let script = directory.path().join("requests.lua");
        fs::write(&script, self.script()?)?;
        let mut load = Load::new(format!("http://{address}{}", self.path), length);
        load.connections = CONNECTIONS;
        load.script = Some(script);
        let report = load.run()?;
        let told = |what: &str| {
            let line = report.text.lines().find_map(|line| line.strip_prefix(what));
            line.map(str::trim).with_context(|| format!("no {what:?} in {}", report.text))
        };
        let (compared, wrong) = (told("Compared:")?, told("Wrong:")?);
        ensure!(
            wrong == "0",
            "{wrong} of {compared} answers of {} are wrong: {}",
            self.path,
            told("First:")?
        );
        ensure!(compared == report.requests.to_string(), "{compared} of {} were compared", report.requests);
        Ok(report)
    }

    fn dated(&self) -> Result<String> {
        let now = OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?;
        Ok(self.body.replace(CREATED, &now))
    }

    /// The script of `wrk`. `response` and the numbers belong to its thread, `done` to the program.
    fn script(&self) -> Result<String> {
        let mut script =
            format!("wrk.method = \"POST\"\nwrk.headers[\"Content-Type\"] = {}\n", quoted(self.content_type));
        // Writing to a String does not fail.
        for (name, value) in &self.headers {
            let _ = writeln!(script, "wrk.headers[\"{name}\"] = {}", quoted(value));
        }
        let body = self.dated()?;
        let _ = match body.split_once(NONCE) {
            None => writeln!(script, "wrk.body = {}", quoted(&body)),
            Some((before, after)) => writeln!(
                script,
                "local before, after, sent = {} .. \"{}\", {}, 0\n\
                 function request()\n  sent = sent + 1\n  \
                 return wrk.format(nil, nil, nil, before .. string.format(\"%016d\", sent) .. after)\nend",
                quoted(before),
                run(),
                quoted(after)
            ),
        };
        let mut right = "status == 200".to_owned();
        if let Some(path) = &self.asked_at {
            let _ = write!(right, " and headers[\"{PATH_FIELD}\"] == {}", quoted(path));
        }
        let note = match &self.noted {
            None => String::new(),
            Some((field, file)) => {
                let _ = writeln!(script, "local noted = io.open({}, \"a\")", quoted(&file.to_string_lossy()));
                format!("noted:write(headers[\"{field}\"] or \"\", \"\\n\")")
            }
        };
        let (Expected::Whole(expected) | Expected::Part(expected)) = &self.expected;
        right += match &self.expected {
            Expected::Whole(_) => " and body == expected",
            Expected::Part(_) => " and body:find(expected, 1, true) ~= nil",
        };
        let _ = writeln!(script, "local expected = {}", quoted(expected));
        Ok(script + &SCRIPT.replace("RIGHT", &right).replace("NOTE", &note))
    }
}

/// Compares each answer, and tells how many there were.
const SCRIPT: &str = r#"
compared, wrong, first = 0, 0, ""
function response(status, headers, body)
  compared = compared + 1
  if not (RIGHT) then
    wrong = wrong + 1
    if wrong == 1 then
      first = status .. " " .. body:sub(1, 400):gsub("%s+", " ")
    end
  end
  NOTE
end
local threads = {}
function setup(thread)
  table.insert(threads, thread)
end
function done()
  local compared, wrong, first = 0, 0, ""
  for _, thread in ipairs(threads) do
    compared, wrong, first = compared + thread:get("compared"), wrong + thread:get("wrong"), first .. thread:get("first")
  end
  io.write(string.format("Compared: %d\nWrong: %d\nFirst: %s\n", compared, wrong, first))
end
"#;

/// What nonces of one run begin with.
fn run() -> String {
    format!("{:08}", RUNS.fetch_add(1, Ordering::Relaxed))
}

/// Text as Lua reads it, whatever it holds but three equals signs in brackets.
fn quoted(text: &str) -> String {
    format!("[===[{text}]===]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Requests {
        Requests {
            path: "/x".into(),
            content_type: "text/xml",
            headers: vec![("SOAPAction", "\"\"")],
            body: format!("<a>{NONCE}</a><b>{CREATED}</b>"),
            expected: Expected::Part("x".into()),
            asked_at: None,
            noted: None,
        }
    }

    #[test]
    fn no_two_runs_send_the_same_message() {
        let (one, two) = (requests().script().unwrap(), requests().script().unwrap());
        assert_ne!(one, two);
        assert!(!one.contains(NONCE) && !one.contains(CREATED), "{one}");
        assert!(
            one.contains("function request()")
                && one.contains("wrk.headers[\"SOAPAction\"] = [===[\"\"]===]")
        );
    }

    /// Everything comes back as it was sent, from the path that was asked for.
    fn echoing() -> (crosstie_test_support::PortBase, SocketAddr) {
        let port = crosstie_test_support::PortBase::reserve().unwrap();
        let number = port.number();
        std::thread::spawn(move || crate::upstream::serve(number));
        (port, (std::net::Ipv4Addr::LOCALHOST, number).into())
    }

    #[test]
    fn every_answer_is_compared_and_a_wrong_one_fails_the_load() {
        let (_port, address) = echoing();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("paths");
        let right = Requests { noted: Some((PATH_FIELD, file.clone())), ..requests().echoed("/plain") };
        right.await_right(address).unwrap();
        let report = right.load(address, Duration::from_secs(1)).unwrap();
        let noted = fs::read_to_string(&file).unwrap();
        assert_eq!(noted.lines().filter(|line| *line == "/plain").count() as u64, report.requests);

        let elsewhere = Requests { asked_at: Some("/other".into()), ..right.clone() };
        let other = Requests { expected: Expected::Whole("something else".into()), ..right };
        for wrong in [elsewhere, other] {
            assert!(wrong.ask(address).is_err());
            let error = wrong.load(address, Duration::from_secs(1)).unwrap_err().to_string();
            assert!(error.contains("answers of /plain are wrong: 200 <a>"), "{error}");
        }
    }

    #[test]
    fn of_a_body_that_changes_the_end_is_expected_back() {
        assert!(matches!(requests().echoed("/plain").expected, Expected::Part(end) if end == "</b>"));
    }

    #[test]
    fn a_body_that_is_the_same_each_time_is_expected_back_as_it_is() {
        let plain = Requests { body: "same".into(), ..requests() }.echoed("/plain");
        assert!(matches!(&plain.expected, Expected::Whole(body) if body == "same"));
        let script = plain.script().unwrap();
        assert!(
            script.contains("wrk.body = [===[same]===]") && script.contains("body == expected"),
            "{script}"
        );
        assert!(script.contains("headers[\"x-path\"] == [===[/plain]===]"), "{script}");
    }
}
