//! The administrator's own pieces of HAProxy configuration, `lb.d/*.cfg`.
//!
//! A file's name says where it goes: `global-…`, `defaults-…`, `frontend-…` and `backend-…` hold lines for
//! the section of that kind, any other file holds whole sections. Lines must not begin a section: they would
//! carry the agent's own lines that follow into it, and HAProxy would see nothing wrong.

use std::path::{Path, PathBuf};

use crosstie_config::LocatedFault;
use serde::{Deserialize, Serialize};

/// Where the files are, relative to the load balancer's directory.
pub const DIRECTORY: &str = "lb.d";
/// Most files.
const MAX_FILES: usize = 64;
/// Largest file in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// What begins a section in HAProxy 2.6 and later.
const SECTIONS: [&str; 17] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "mailers",
    "userlist",
    "cache",
    "program",
    "http-errors",
    "ring",
    "fcgi-app",
    "log-forward",
    "crt-store",
    "traces",
];

/// Where a file's lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// Into `global`.
    Global,
    /// Into `defaults`.
    Defaults,
    /// Into the frontend of service traffic.
    Frontend,
    /// Into the backend of the servers.
    Backend,
    /// After everything, as sections of their own.
    Sections,
}

impl Site {
    /// The site that a file's name asks for.
    fn of(name: &str) -> Self {
        match name.split_once('-').map(|(kind, _)| kind) {
            Some("global") => Self::Global,
            Some("defaults") => Self::Defaults,
            Some("frontend") => Self::Frontend,
            Some("backend") => Self::Backend,
            _ => Self::Sections,
        }
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snippet {
    /// Its name.
    pub name: String,
    /// Where it goes.
    pub site: Site,
    /// What is in it.
    pub text: String,
}

impl Snippet {
    /// A snippet from a file's name and content.
    ///
    /// # Errors
    /// Every line that cannot stand where the name puts it.
    pub fn new(name: &str, text: String) -> Result<Self, Vec<LocatedFault>> {
        let snippet = Self { name: name.to_owned(), site: Site::of(name), text };
        let faults = snippet.faults();
        if faults.is_empty() { Ok(snippet) } else { Err(faults) }
    }

    /// Its path, for people.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    fn faults(&self) -> Vec<LocatedFault> {
        let words = self.text.lines().enumerate().filter_map(|(index, line)| {
            let word = line.split_whitespace().next()?;
            (!word.starts_with('#')).then_some((index + 1, word))
        });
        let begins = |word: &str| SECTIONS.contains(&word);
        let fault = |line, detail: String| LocatedFault::new(&self.path(), line, "", detail);
        match self.site {
            Site::Sections => {
                let stray = words.into_iter().next().filter(|(_, word)| !begins(word));
                let told = "lines outside of a section; name the file global-…, defaults-…, frontend-… or \
                            backend-… to put them into the section of that kind";
                stray.map(|(line, _)| fault(line, told.into())).into_iter().collect()
            }
            _ => words
                .filter(|(_, word)| begins(word))
                .map(|(line, word)| {
                    fault(line, format!("{word} begins a section, which only a file of whole sections may"))
                })
                .collect(),
        }
    }
}

/// Reads the snippets of a load balancer's directory, in the order of their names; none when there is no
/// `lb.d`.
///
/// # Errors
/// Every file that cannot be read or stand where its name puts it.
pub fn load(directory: &Path) -> Result<Vec<Snippet>, Vec<LocatedFault>> {
    let place = directory.join(DIRECTORY);
    let fault = |path: &Path, detail: String| LocatedFault::new(path, 1, "", detail);
    let entries = match std::fs::read_dir(&place) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(vec![fault(Path::new(DIRECTORY), format!("cannot be read: {error}"))]),
    };
    let mut names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".cfg") && !name.starts_with('.'))
        .collect();
    names.sort();
    if names.len() > MAX_FILES {
        return Err(vec![fault(Path::new(DIRECTORY), format!("holds more than {MAX_FILES} files"))]);
    }
    let (mut snippets, mut faults) = (Vec::new(), Vec::new());
    for name in names {
        match read(&place.join(&name)) {
            Ok(text) => match Snippet::new(&name, text) {
                Ok(snippet) => snippets.push(snippet),
                Err(found) => faults.extend(found),
            },
            Err(detail) => faults.push(fault(&Path::new(DIRECTORY).join(&name), detail)),
        }
    }
    if faults.is_empty() { Ok(snippets) } else { Err(faults) }
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    if !size.is_file() || size.len() > MAX_BYTES {
        return Err(format!("is no file of at most {MAX_BYTES} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(name: &str, text: &str) -> Vec<String> {
        let found = Snippet::new(name, text.to_owned()).err().unwrap_or_default();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_files_name_says_where_it_goes() {
        for (name, site) in [
            ("global-tuning.cfg", Site::Global),
            ("defaults-x.cfg", Site::Defaults),
            ("frontend-deny.cfg", Site::Frontend),
            ("backend-a-b.cfg", Site::Backend),
            ("statistics.cfg", Site::Sections),
            ("frontend.cfg", Site::Sections),
        ] {
            assert_eq!(Site::of(name), site, "{name}");
        }
    }

    #[test]
    fn lines_for_a_section_cannot_leave_it() {
        let text = "# frontend in a comment\nhttp-request deny if { path /x }\n  listen evil\n";
        let found = faults("frontend-a.cfg", text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("lb.d/frontend-a.cfg:3: listen begins a section"), "{found:?}");
    }

    #[test]
    fn whole_sections_begin_with_one() {
        assert!(faults("own.cfg", "# mine\nlisten own\n  bind :1\n").is_empty());
        assert!(faults("own.cfg", "\nbind :1\n")[0].starts_with("lb.d/own.cfg:2: lines outside"));
        assert!(faults("own.cfg", "").is_empty());
    }

    #[test]
    fn files_are_read_in_the_order_of_their_names_and_others_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()).unwrap(), []);
        let place = directory.path().join(DIRECTORY);
        std::fs::create_dir(&place).unwrap();
        for (name, text) in
            [("b.cfg", "listen b\n"), ("a.cfg", "listen a\n"), ("c.cfg~", "x"), (".d.cfg", "x")]
        {
            std::fs::write(place.join(name), text).unwrap();
        }
        let names: Vec<_> = load(directory.path()).unwrap().into_iter().map(|snippet| snippet.name).collect();
        assert_eq!(names, ["a.cfg", "b.cfg"]);
        std::fs::write(place.join("a.cfg"), "bind :1").unwrap();
        std::fs::write(place.join("b.cfg"), b"\xff").unwrap();
        assert_eq!(load(directory.path()).unwrap_err().len(), 2);
    }
}
