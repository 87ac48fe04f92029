//! HAProxy's counters: the table of `show stat`, and what the agent's API makes of it.

use serde_json::{Map, Value, json};

use crate::render::{BACKEND, FALLBACK, FRONTEND};

/// The answer to `show stat`: rows of named fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Reads the answer; what is no row of fields is left out.
    #[must_use]
    pub fn parse(answer: &str) -> Self {
        let mut lines = answer.lines().skip_while(|line| !line.starts_with("# "));
        let fields = |line: &str| split(line);
        let header = lines.next().map(|line| fields(line.trim_start_matches("# "))).unwrap_or_default();
        let rows = lines.filter(|line| !line.trim().is_empty()).map(fields).collect();
        Self { header, rows }
    }

    /// Its rows.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|fields| Row { header: &self.header, fields })
    }
}

/// Fields separated by commas; one in double quotes may hold commas.
fn split(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

/// One proxy's or server's counters.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    header: &'a [String],
    fields: &'a [String],
}

impl Row<'_> {
    /// A field's text; empty when there is none.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        let index = self.header.iter().position(|known| known == name);
        index.and_then(|index| self.fields.get(index)).map_or("", String::as_str)
    }

    /// A field's number; 0 when there is none.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }
}

/// What the API calls a counter, and where it stands in the table.
const COUNTERS: [(&str, &str); 18] = [
    ("sessions", "scur"),
    ("sessions_max", "smax"),
    ("sessions_total", "stot"),
    ("requests_total", "req_tot"),
    ("bytes_in", "bin"),
    ("bytes_out", "bout"),
    ("responses_1xx", "hrsp_1xx"),
    ("responses_2xx", "hrsp_2xx"),
    ("responses_3xx", "hrsp_3xx"),
    ("responses_4xx", "hrsp_4xx"),
    ("responses_5xx", "hrsp_5xx"),
    ("responses_other", "hrsp_other"),
    ("connection_errors", "econ"),
    ("response_errors", "eresp"),
    ("request_errors", "ereq"),
    ("retries", "wretr"),
    ("redispatches", "wredis"),
    ("denied", "dreq"),
];

/// A server's own.
const SERVER_COUNTERS: [(&str, &str); 9] = [
    ("weight", "weight"),
    ("checks_failed", "chkfail"),
    ("times_down", "chkdown"),
    ("downtime_s", "downtime"),
    ("seconds_in_status", "lastchg"),
    ("check_status_code", "check_code"),
    ("check_ms", "check_duration"),
    ("response_ms", "rtime"),
    ("queue", "qcur"),
];

/// The counters as the API shows them: of all clients together, of all servers together, of each server, and of
/// what was sent to servers although none was ready.
#[must_use]
pub fn summary(table: &Table) -> Value {
    let rows = |proxy: &'static str| table.rows().filter(move |row| row.text("pxname") == proxy);
    let clients = rows(FRONTEND).find(|row| row.text("svname") == "FRONTEND");
    let all = rows(BACKEND).find(|row| row.text("svname") == "BACKEND");
    let fallback = rows(FALLBACK).find(|row| row.text("svname") == "BACKEND");
    let servers = rows(BACKEND).filter(|row| !matches!(row.text("svname"), "BACKEND" | "FRONTEND"));
    let server = |row: Row<'_>| {
        let mut shown = Map::new();
        shown.insert("name".into(), row.text("svname").into());
        shown.insert("address".into(), row.text("addr").into());
        shown.insert("status".into(), row.text("status").into());
        shown.insert("check".into(), row.text("check_status").into());
        shown.extend(counters(&row, &SERVER_COUNTERS));
        shown.extend(counters(&row, &COUNTERS));
        Value::Object(shown)
    };
    json!({
        "clients": clients.map(|row| Value::Object(counters(&row, &COUNTERS).collect())),
        "servers_together": all.map(|row| Value::Object(counters(&row, &COUNTERS).collect())),
        "while_none_was_ready": fallback.map(|row| Value::Object(counters(&row, &COUNTERS).collect())),
        "servers": servers.map(server).collect::<Vec<_>>(),
    })
}

fn counters<'a>(
    row: &'a Row<'a>,
    names: &'a [(&'a str, &'a str)],
) -> impl Iterator<Item = (String, Value)> + 'a {
    names.iter().map(|(name, field)| ((*name).to_owned(), row.number(field).into()))
}

/// How many servers get traffic.
#[must_use]
pub fn servers_up(table: &Table) -> usize {
    table
        .rows()
        .filter(|row| row.text("pxname") == BACKEND && row.text("svname") != "BACKEND")
        .filter(|row| row.text("status").starts_with("UP") && row.number("weight") > 0)
        .count()
}

/// The counters of HAProxy in Prometheus' text format.
#[must_use]
pub fn metrics(table: &Table) -> String {
    let mut text = String::new();
    let families: [(&str, &str, &str, &str); 7] = [
        ("crosstie_lb_sessions", "gauge", "Requests under way.", "scur"),
        ("crosstie_lb_sessions_total", "counter", "Requests, answered by anybody.", "stot"),
        ("crosstie_lb_bytes_in_total", "counter", "Bytes from clients.", "bin"),
        ("crosstie_lb_bytes_out_total", "counter", "Bytes to clients.", "bout"),
        ("crosstie_lb_responses_5xx_total", "counter", "Responses with a status from 500 on.", "hrsp_5xx"),
        ("crosstie_lb_connection_errors_total", "counter", "Connections to servers that failed.", "econ"),
        ("crosstie_lb_retries_total", "counter", "Requests tried again.", "wretr"),
    ];
    let servers: Vec<_> =
        table.rows().filter(|row| row.text("pxname") == BACKEND && row.text("svname") != "BACKEND").collect();
    for (name, kind, help, field) in families {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for row in &servers {
            text.push_str(&format!("{name}{{server=\"{}\"}} {}\n", row.text("svname"), row.number(field)));
        }
    }
    text.push_str("# HELP crosstie_lb_server_up Whether a server gets traffic.\n");
    text.push_str("# TYPE crosstie_lb_server_up gauge\n");
    for row in &servers {
        let up = u8::from(row.text("status").starts_with("UP") && row.number("weight") > 0);
        text.push_str(&format!("crosstie_lb_server_up{{server=\"{}\"}} {up}\n", row.text("svname")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "# pxname,svname,scur,status,weight,stot,econ,last_chk,hrsp_5xx\n\
        crosstie-clients,FRONTEND,3,OPEN,,40,,,1\n\
        crosstie,server1,1,UP,100,20,2,\"Layer7, OK\",0\n\
        crosstie,server2,0,UP 1/2,0,19,0,,0\n\
        crosstie,server3,0,DOWN,100,1,7,,1\n\
        crosstie,BACKEND,1,UP,200,40,9,,1\n\
        crosstie-fallback,server1,0,no check,100,3,0,,0\n\
        crosstie-fallback,BACKEND,0,UP,100,3,0,,0\n\
        own,x,5,UP,1,1,0,,0\n\n";

    #[test]
    fn counters_are_shown_by_name() {
        let summary = summary(&Table::parse(ANSWER));
        assert_eq!(summary["clients"]["sessions"], 3);
        assert_eq!(summary["servers_together"]["connection_errors"], 9);
        assert_eq!(summary["while_none_was_ready"]["sessions_total"], 3);
        let names: Vec<_> = summary["servers"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
        assert_eq!(names, ["server1", "server2", "server3"]);
        assert_eq!(summary["servers"][0]["status"], "UP");
    }

    #[test]
    fn a_server_without_weight_or_health_gets_no_traffic() {
        let table = Table::parse(ANSWER);
        assert_eq!(servers_up(&table), 1);
        let metrics = metrics(&table);
        assert!(metrics.contains("crosstie_lb_server_up{server=\"server2\"} 0\n"), "{metrics}");
        assert!(metrics.contains("crosstie_lb_sessions_total{server=\"server1\"} 20\n"), "{metrics}");
        assert!(!metrics.contains("\"x\""), "{metrics}");
    }

    #[test]
    fn an_answer_that_is_no_table_has_no_rows() {
        assert_eq!(Table::parse("Unknown command").rows().count(), 0);
        assert_eq!(servers_up(&Table::parse("")), 0);
    }
}
