//! Definitions as YAML: the documents of `crosstie apply`, `crosstie export` and `config/cluster`.
//!
//! A document's top-level keys are kinds, each a mapping from names to bodies. Reading reports every fault of
//! every file together, each with its line; rendering is deterministic, and what it renders reads back equal.

mod parsed;
mod render;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crosstie_model::definition::{shape_faults, shapes};
use crosstie_model::{Definition, DefinitionId, DefinitionKind, Fault};
use ipnet::IpNet;
use serde_json::Value;

pub use parsed::{FaultyDefinition, LocatedDefinition, Parsed, arrange};
pub use render::{render, render_entry};

use crate::fault::LocatedFault;
use crate::shape;
use crate::tree::{Content, Entry, Node, yaml};

/// Most bytes of all files of one call together.
pub const MAX_TOTAL_BYTES: usize = 32 * 1024 * 1024;

/// How many faults of one call are reported.
pub const MAX_FAULTS: usize = 1_000;

/// Reads definitions from `files` (path for faults, and text). A name may stand only once in all of them.
/// What is wrong in one place keeps nothing else from being read.
#[must_use]
pub fn parse(files: &[(PathBuf, String)]) -> Parsed {
    let parsed = Parsed { complete: true, ..Parsed::default() };
    let mut reader = Reader { parsed, known: HashMap::new() };
    let mut budget = MAX_TOTAL_BYTES;
    for (file, text) in files {
        match budget.checked_sub(text.len()) {
            Some(left) => budget = left,
            None => {
                let detail = format!("the files have more than {MAX_TOTAL_BYTES} bytes together");
                reader.unread(file, 1, "", detail);
                break;
            }
        }
        reader.file(file, text);
    }
    arrange(&mut reader.parsed.faults);
    reader.parsed
}

struct Reader {
    parsed: Parsed,
    known: HashMap<DefinitionId, (PathBuf, usize)>,
}

/// Keys of a kind and a name under which a fault of the file's form lies.
type Spoilt = BTreeSet<(String, String)>;

impl Reader {
    fn file(&mut self, file: &Path, text: &str) {
        let reading = yaml::read(text);
        for fault in reading.faults {
            self.fault(file, fault.line, "", fault.detail);
        }
        self.parsed.complete &= reading.complete;
        for document in reading.documents {
            self.document(file, document, &reading.spoilt);
        }
    }

    fn fault(&mut self, file: &Path, line: usize, key: impl Into<String>, detail: impl Into<String>) {
        self.parsed.faults.push(LocatedFault::new(file, line, key, detail));
    }

    /// A fault that keeps names of definitions from being read.
    fn unread(&mut self, file: &Path, line: usize, key: impl Into<String>, detail: impl Into<String>) {
        self.fault(file, line, key, detail);
        self.parsed.complete = false;
    }

    fn document(&mut self, file: &Path, document: Node, spoilt: &Spoilt) {
        let line = document.line;
        let Content::Mapping(kinds) = document.content else {
            let detail = "a document maps kinds (channel, security …) to names to definitions";
            return self.unread(file, line, "", detail);
        };
        for entry in kinds {
            match kind(&entry.key) {
                Ok(kind) => self.kind(file, kind, entry, spoilt),
                Err(detail) => self.unread(file, entry.line, entry.key, detail),
            }
        }
    }

    fn kind(&mut self, file: &Path, kind: DefinitionKind, entry: Entry, spoilt: &Spoilt) {
        match entry.node.content {
            Content::Mapping(entries) => {
                for entry in entries {
                    let is_spoilt = spoilt.contains(&(kind.to_string(), entry.key.clone()));
                    self.definition(file, kind, entry, is_spoilt);
                }
            }
            Content::Scalar(Value::Null) => {}
            _ => self.unread(file, entry.line, kind.as_str(), "must map names to definitions"),
        }
    }

    fn definition(&mut self, file: &Path, kind: DefinitionKind, entry: Entry, is_spoilt: bool) {
        let key = format!("{kind}/{}", entry.key);
        let name = match entry.key.parse() {
            Ok(name) => name,
            Err(error) => return self.fault(file, entry.line, key, format!("{error}")),
        };
        let id = DefinitionId { kind, name };
        if let Some((other, line)) = self.known.get(&id) {
            let detail = format!("is already defined in {}:{line}", other.display());
            return self.fault(file, entry.line, key, detail);
        }
        self.known.insert(id.clone(), (file.to_owned(), entry.line));
        let checked = if is_spoilt {
            // What was read of it is not what was written: its faults are told already.
            Err(Vec::new())
        } else if matches!(entry.node.content, Content::Mapping(_)) {
            check(id.clone(), entry.node.to_value())
        } else {
            let detail = "must be a mapping of its settings".to_owned();
            Err(vec![Fault { pointer: String::new(), detail }])
        };
        let (file, line, body) = (file.to_owned(), entry.line, entry.node);
        match checked {
            Ok(definition) => {
                self.parsed.definitions.push(LocatedDefinition { definition, file, line, body });
            }
            Err(faults) => {
                let wrong = faults.iter().map(|fault| fault.pointer.clone()).collect();
                let faulty = FaultyDefinition { id, file, line, body, wrong };
                let located = faults.into_iter().map(|found| faulty.fault(&found.pointer, found.detail));
                self.parsed.faults.extend(located);
                self.parsed.faulty.push(faulty);
            }
        }
    }
}

fn kind(word: &str) -> Result<DefinitionKind, String> {
    if word == "deployment" {
        return Err("deployments are not applied; deploy the unit's file instead".to_owned());
    }
    word.parse().map_err(|_| {
        let known = DefinitionKind::ALL.iter().map(|kind| kind.as_str());
        format!("unknown kind{}", shape::did_you_mean(word, known))
    })
}

/// Makes a definition of `body` with every fault told in plain words, unknown keys at their own place.
///
/// # Errors
/// Every fault with its pointer, relative to `body`.
pub fn check(id: DefinitionId, body: Value) -> Result<Definition, Vec<Fault>> {
    let r#type = body.get("type").and_then(Value::as_str);
    let root = shapes().find(|(kind, tag, _)| *kind == id.kind && (tag.is_none() || *tag == r#type));
    let Some((_, _, root)) = root else { return Definition::from_value(id, body) };
    let (kind, mut known) = (id.kind, body);
    let mut faults = shape::take_unknown_keys(root, &mut known);
    faults.extend(take_wrong_networks(&mut known));
    match Definition::from_value(id, known.clone()) {
        Ok(definition) if faults.is_empty() => Ok(definition),
        Ok(_) => Err(faults),
        // What makes no sense although its shape is right is told in words of its own.
        Err(more) if shape_faults(kind, &known).is_empty() => {
            faults.extend(more);
            Err(faults)
        }
        Err(more) => {
            faults.extend(shape::in_plain_words(root, &known, more));
            Err(faults)
        }
    }
}

/// Takes out a list of networks with a wrong one in it; a fault for each. To the schema they are texts, and
/// the typed form would tell of the first alone, and not where it is.
fn take_wrong_networks(body: &mut Value) -> Vec<Fault> {
    let networks = body.get("allow_from").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let texts = networks.iter().enumerate().filter_map(|(index, network)| Some((index, network.as_str()?)));
    let wrong = texts.filter(|(_, text)| text.parse::<IpNet>().is_err());
    let faults: Vec<_> = wrong
        .map(|(index, _)| Fault {
            pointer: format!("/allow_from/{index}"),
            detail: "must be a network, such as 10.0.0.0/8 or 192.0.2.7/32".to_owned(),
        })
        .collect();
    if let (false, Some(members)) = (faults.is_empty(), body.as_object_mut()) {
        members.shift_remove("allow_from");
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_told_in_its_own_words() {
        let found = read("security:\n  a: {type: jwt, jwks_url: 'http://id.example/keys'}\n").unwrap_err();
        let [fault] = &found[..] else { panic!("{found:?}") };
        assert_eq!(fault.key, "security/a/jwks_url");
        assert!(fault.detail.starts_with("must be https"), "{found:?}");
        let found = read("security:\n  a: {type: jwt, jwks_url: ''}\n").unwrap_err();
        assert!(found[0].detail.starts_with("must be a text of 1 to"), "{found:?}");
    }

    fn read(text: &str) -> Result<Vec<LocatedDefinition>, Vec<LocatedFault>> {
        parse(&[(PathBuf::from("a.yaml"), text.to_owned())]).all_sound()
    }

    fn faults(text: &str) -> Vec<String> {
        read(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    const CRM: &str = "\
security:
  crm.clients:
    type: basic_auth
    username: crm
    password: env:CRM_PASSWORD
channel:
  crm.customer.get:
    type: rest
    path: /customers/{id:int}
    methods: [GET]
    service: crm.customer.get
    security: crm.clients
";

    #[test]
    fn a_document_holds_definitions_of_several_kinds() {
        let found = read(CRM).unwrap();
        let ids: Vec<_> = found.iter().map(|d| (d.definition.id.to_string(), d.line)).collect();
        assert_eq!(ids, [("security/crm.clients".to_owned(), 2), ("channel/crm.customer.get".to_owned(), 7)]);
        let fault = found[1].fault("/security", "there is no such security definition");
        assert_eq!(
            fault.to_string(),
            "a.yaml:12: channel/crm.customer.get/security: there is no such security definition"
        );
        assert_eq!(found[1].fault("", "x").line, 7);
    }

    #[test]
    fn every_fault_of_every_file_is_listed_with_its_line() {
        let one = "chanel:\n  x: {}\nchannel:\n  'two words':\n    type: rest\n  a:\n    type: rest\n    \
                   path: 7\n    sevice: x\n    active: yes\n    rate_limit:\n      - limit: 0\n        per: week\n";
        let two = "security:\n  k:\n    type: magic\n  l:\nservice: [1]\ndeployment:\n  u: {}\n";
        let three = "channel:\n  a:\n    type: http\n    path: /x\n    service: s\n";
        let files = [("1.yaml", one), ("2.yaml", two), ("3.yaml", three)]
            .map(|(file, text)| (PathBuf::from(file), text.to_owned()));
        let found: Vec<_> = parse(&files).faults.iter().map(ToString::to_string).collect();
        let expected = [
            "1.yaml:1: chanel: unknown kind; did you mean \"channel\"?",
            "1.yaml:4: channel/two words: ' ' is not allowed",
            "1.yaml:6: channel/a/service: is required",
            "1.yaml:8: channel/a/path: must be a text of 1 to 1024 characters",
            "1.yaml:9: channel/a/sevice: unknown key; did you mean \"service\"?",
            "1.yaml:10: channel/a/active: must be true or false; yes, no",
            "1.yaml:12: channel/a/rate_limit/0/limit: must be a whole number, 1 to",
            "1.yaml:13: channel/a/rate_limit/0/per: must be one of second, minute, hour, day",
            "2.yaml:3: security/k/type: unknown security type \"magic\"; there are basic_auth, api_key",
            "2.yaml:4: security/l: must be a mapping",
            "2.yaml:5: service: must map names",
            "2.yaml:6: deployment: deployments are not applied",
            "3.yaml:2: channel/a: is already defined in 1.yaml:6",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}\n{expected}");
        }
    }

    #[test]
    fn what_is_sound_is_given_beside_the_faults_of_the_rest() {
        let text = "security:\n  k: {type: api_key}\n  k2: {type: api_key, colour: red}\nchannel:\n  a:\n    \
                    type: http\n    path: x\n    service: s\n    security: gone\n    sevice: t\n  b:\n    \
                    type: http\n    path: /b\n    path: /c\n    service: s\n  c: {type: http, path: /c, service: s}\n";
        let parsed = parse(&[(PathBuf::from("a.yaml"), text.to_owned())]);
        let sound: Vec<_> = parsed.definitions.iter().map(|d| d.definition.id.to_string()).collect();
        assert_eq!(sound, ["security/k", "channel/c"]);
        let faulty: Vec<_> = parsed.faulty.iter().map(|d| d.id.to_string()).collect();
        assert_eq!(faulty, ["security/k2", "channel/a", "channel/b"]);
        let lines: Vec<_> = parsed.faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [3, 7, 10, 14], "{:#?}", parsed.faults);
        assert!(parsed.complete);
        let channel = &parsed.faulty[1];
        let (needed, services) = (channel.references(), channel.services());
        assert_eq!((needed.len(), needed[0].1.to_string()), (1, "security/gone".to_owned()));
        assert_eq!((services.len(), services[0].1.as_str()), (1, "s"));
        assert_eq!(channel.fault(&needed[0].0, "is not there").line, 9);
    }

    #[test]
    fn what_cannot_be_read_may_hold_anything() {
        for text in ["securty:\n  k: {}\n", "- 1\n", "security: [k]\n", "channel: {}\nsecurity: [\n"] {
            assert!(!parse(&[(PathBuf::from("a.yaml"), text.to_owned())]).complete, "{text}");
        }
    }

    #[test]
    fn a_secret_never_appears_in_a_fault() {
        let text = "security:\n  a:\n    type: basic_auth\n    username: 'x:y'\n    password: [hunter2]\n    \
                    pasword: hunter2\n  b: hunter2\n  c:\n    type: api_key\n    key: {ref: hunter2}\n  d:\n    \
                    type: api_key\n    key: 0042\n";
        let found = faults(text).join("\n");
        assert!(!found.contains("hunter2") && !found.contains("0042"), "{found}");
        assert!(found.contains("a.yaml:13"), "{found}");
    }

    #[test]
    fn every_wrong_network_is_found() {
        let text = "channel:\n  a:\n    type: http\n    path: /x\n    allow_from:\n      - 10.0.0.0/8\n      \
                    - 10.0.0.0/33\n      - here\n    sevice: s\n";
        let found = faults(text);
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found[1].starts_with("a.yaml:7: channel/a/allow_from/1: must be a network"), "{found:#?}");
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(read("").unwrap().is_empty());
        assert!(read("channel:\n").unwrap().is_empty());
        assert!(faults("- 1\n")[0].contains("a.yaml:1: a document maps kinds"));
    }

    #[test]
    fn all_files_together_are_bounded() {
        let big = "#".repeat(MAX_TOTAL_BYTES / 4);
        let files: Vec<_> = (0..5).map(|n| (PathBuf::from(format!("{n}.yaml")), big.clone())).collect();
        let found = parse(&files).faults;
        assert!(found.iter().any(|fault| fault.detail.contains("together")), "{found:?}");
    }
}
