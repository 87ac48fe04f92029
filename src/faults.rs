//! A refusal that lists several faults: one line says what was refused, then each fault has a line of its
//! own with the place where it stands.

use std::fmt;

use serde_json::Value;

/// What the management API found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Faults {
    summary: String,
    lines: Vec<String>,
}

impl Faults {
    /// Faults under one summary.
    pub(crate) fn new(summary: impl Into<String>, lines: Vec<String>) -> Self {
        Self { summary: summary.into(), lines }
    }

    /// Reads a problem document (RFC 9457) with its extension members `faults` and `trace`. A single fault
    /// stands on the line of the summary; several have a line each.
    pub(crate) fn from_problem(problem: &Value) -> Self {
        let text = |key: &str| problem.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let (title, detail) = (text("title"), text("detail"));
        let listed = problem.get("faults").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut lines: Vec<String> = listed.iter().map(fault_line).collect();
        let mut summary = match (lines.as_slice(), title) {
            ([only], Some(title)) => {
                let summary = format!("{title}: {only}");
                lines.clear();
                summary
            }
            ([_, _, ..], Some(title)) => title.to_owned(),
            _ => detail.or(title).unwrap_or("the request was refused").to_owned(),
        };
        // What failed inside is told by the log alone, under the correlation id.
        let inside = problem.get("status").and_then(Value::as_u64).is_some_and(|status| status >= 500);
        if let (true, Some(cid)) = (inside, text("cid")) {
            summary.push_str(&format!(": `crosstie logs --cid {cid}` tells more"));
        }
        lines.extend(text("trace").into_iter().flat_map(str::lines).map(str::to_owned));
        Self { summary, lines }
    }

    /// One line for each fault.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.lines.iter().map(|line| format!("  {line}"))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)
    }
}

impl std::error::Error for Faults {}

/// `file:line: key: detail`, leaving out what is not known.
fn fault_line(fault: &Value) -> String {
    let text = |key: &str| fault.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut parts = Vec::new();
    if let Some(file) = text("file") {
        let line = fault.get("line").and_then(Value::as_u64).filter(|line| *line > 0);
        parts.push(line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")));
    }
    parts.extend(text("subject").map(str::to_owned));
    parts.extend(text("key").or(text("pointer")).map(str::to_owned));
    parts.extend(text("detail").map(str::to_owned));
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_fault_is_one_line_with_its_place() {
        let faults = Faults::from_problem(&json!({
            "title": "Nothing was applied", "detail": "a.yaml:3: path: must start with / (and 1 more)",
            "faults": [
                {"file": "a.yaml", "line": 3, "key": "path", "detail": "must start with /"},
                {"subject": "channel/a", "pointer": "/x", "detail": "is unknown"},
            ]
        }));
        assert_eq!(faults.to_string(), "Nothing was applied");
        let lines: Vec<_> = faults.lines().collect();
        assert_eq!(lines, ["  a.yaml:3: path: must start with /", "  channel/a: /x: is unknown"]);
    }

    #[test]
    fn a_single_fault_needs_no_line_of_its_own() {
        let faults = Faults::from_problem(&json!({
            "title": "Not valid", "detail": "d", "faults": [{"pointer": "/name", "detail": "is missing"}]
        }));
        assert_eq!(faults.to_string(), "Not valid: /name: is missing");
        assert_eq!(faults.lines().count(), 0);
    }

    #[test]
    fn a_problem_without_detail_falls_back_on_its_title() {
        assert_eq!(Faults::from_problem(&json!({"title": "Conflict"})).to_string(), "Conflict");
        assert_eq!(Faults::from_problem(&json!("?")).to_string(), "the request was refused");
    }

    #[test]
    fn a_failure_inside_names_the_way_to_its_log() {
        let problem = json!({"title": "t", "detail": "The service failed", "status": 500, "cid": "ab"});
        assert_eq!(
            Faults::from_problem(&problem).to_string(),
            "The service failed: `crosstie logs --cid ab` tells more"
        );
        let refused = json!({"title": "t", "detail": "no", "status": 409, "cid": "ab"});
        assert_eq!(Faults::from_problem(&refused).to_string(), "no");
    }

    #[test]
    fn a_traceback_follows_the_summary() {
        let faults = Faults::from_problem(&json!({"title": "t", "detail": "no", "trace": "a\n  b"}));
        assert_eq!(faults.lines().collect::<Vec<_>>(), ["  a", "    b"]);
    }
}
