//! The commands of the guides and of the examples' READMEs, run in their order on a real environment.
//!
//! A block `sh` is run by bash; a block `json` after it is what it must print. A block with `file=NAME` is
//! written to that file first. Exported variables stay for the blocks that follow. Ports and the path `env`
//! are those of the reader's environment. Programs that a page starts and does not stop end with its reader.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crosstie_parts::RabbitMq;
use crosstie_test_support::command::binary;
use crosstie_test_support::parts::TestPart;
use crosstie_test_support::ports::PortBase;
use crosstie_test_support::{Environment, processes, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A fenced block of a page.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) file: Option<String>,
    pub(crate) text: String,
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The fenced blocks of a page, without the indentation they may have inside a list.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let mut found = Vec::new();
    let mut open: Option<(Block, usize)> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(info)) => {
                let mut words = info.split_whitespace();
                let language = words.next().unwrap_or_default().to_owned();
                let file = words.find_map(|word| word.strip_prefix("file=")).map(str::to_owned);
                open = Some((Block { language, file, text: String::new() }, indent));
            }
            (Some(_), Some("")) => found.extend(open.take().map(|(block, _)| block)),
            (Some((block, indent)), _) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page} ends inside a block");
    found
}

/// Where the links of a page lead. What stands in code is none.
pub(crate) fn links(page: &str) -> Vec<String> {
    let mut is_code = false;
    let prose = page.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    let prose = prose.collect::<Vec<_>>().join("\n");
    let paragraphs = prose.split("\n\n").map(|text| text.split('`').step_by(2).collect::<String>());
    paragraphs
        .flat_map(|text| {
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            targets.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// A reader at their terminal, in a directory with `env` and `examples`.
pub(crate) struct Reader<'a> {
    environment: &'a Environment,
    desk: TempDir,
    exports: String,
    /// Ports of other systems, as the page has them.
    others: Vec<(&'static str, u16)>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(environment: &'a Environment) -> Self {
        let desk = tempfile::tempdir().unwrap();
        symlink(environment.root(), desk.path().join("env")).unwrap();
        symlink(repository().join("examples"), desk.path().join("examples")).unwrap();
        Self { environment, desk, exports: String::new(), others: Vec::new() }
    }

    /// Another system of this reader's, which the page expects at `port`.
    pub(crate) fn with(mut self, port: &'static str, own: u16) -> Self {
        self.others.push((port, own));
        self
    }

    /// `text` with this reader's ports. Whole numbers are compared, each once: one that was put in may look
    /// like another port of the page.
    fn fit(&self, text: &str) -> String {
        let own = |number: &str| match number {
            "17010" => Some(self.environment.address().port()),
            "17060" => Some(self.environment.tls_address().port()),
            "17110" => Some(self.environment.management_address().port()),
            _ => self.others.iter().find(|(port, _)| *port == number).map(|(_, own)| *own),
        };
        let mut fitted = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
            let (number, after) = from.split_at(end);
            fitted.push_str(before);
            fitted.push_str(&own(number).map_or_else(|| number.to_owned(), |own| own.to_string()));
            rest = after;
        }
        fitted + rest
    }

    fn shell(&self, text: &str) -> Result<String, String> {
        let directory = binary().unwrap().parent().unwrap().to_owned();
        let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("{}\n{}", self.exports, self.fit(text))])
            .current_dir(self.desk.path())
            .env("PATH", path)
            .env_remove("CROSSTIE_DIR")
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        Err(format!("{text}\nfailed: {stdout}{}", String::from_utf8_lossy(&output.stderr)))
    }

    pub(crate) fn follow(&mut self, page: &str) {
        let blocks = blocks(page);
        for (index, block) in blocks.iter().enumerate() {
            if let Some(file) = &block.file {
                fs::write(self.desk.path().join(file), self.fit(&block.text)).unwrap();
            }
            if block.language != "sh" {
                continue;
            }
            match blocks.get(index + 1).filter(|next| next.language == "json") {
                Some(answer) => self.compare(&block.text, &answer.text),
                None => drop(self.shell(&block.text).unwrap_or_else(|error| panic!("{page}: {error}"))),
            }
            let text = self.fit(&block.text);
            let exports = text.lines().filter(|line| line.starts_with("export "));
            self.exports.extend(exports.map(|line| format!("{line}\n")));
        }
    }

    fn compare(&self, commands: &str, answer: &str) {
        let expected: Value = serde_json::from_str(answer).unwrap();
        // What only asks may be asked again: a file dropped just before takes a moment to be served.
        let only_asks =
            commands.lines().all(|line| line.starts_with("curl ")) && !commands.contains("--json");
        if only_asks {
            wait_until(&format!("{commands} answers {expected}"), || {
                self.shell(commands)
                    .is_ok_and(|said| serde_json::from_str(&said).ok() == Some(expected.clone()))
            });
            return;
        }
        let said = self.shell(commands).unwrap_or_else(|error| panic!("{error}"));
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{commands} says {said}"));
        assert_eq!(said, expected, "{commands}");
    }
}

impl Drop for Reader<'_> {
    /// Ends what the page left running, which works in the reader's directory.
    fn drop(&mut self) {
        for pid in processes::working_below(self.desk.path()) {
            let _ = processes::send(pid, Signal::SIGKILL);
        }
    }
}

#[test]
fn the_first_guide_works_as_it_stands() {
    let environment = Environment::start().unwrap();
    Reader::new(&environment).follow("docs/getting-started.md");
    assert_eq!(environment.supervisor(), None, "its last command stops the environment");
}

#[test]
fn the_hello_example_works_as_its_readme_says() {
    let environment = Environment::start().unwrap();
    Reader::new(&environment).follow("examples/hello/README.md");
}

#[test]
fn the_customer_register_works_as_its_readme_says() {
    let environment = Environment::start().unwrap();
    Reader::new(&environment).follow("examples/crm/README.md");
}

#[test]
fn the_bridge_works_as_its_readme_says() {
    let broker = TestPart::start_with("rabbitmq", RabbitMq::new, |plan| plan.tls = None).unwrap();
    let stock = PortBase::reserve().unwrap();
    let environment = Environment::builder().variable("BROKER_PASSWORD", "it's a secret").start().unwrap();
    Reader::new(&environment)
        .with("5672", broker.address.port())
        .with("8600", stock.number())
        .follow("examples/bridge/README.md");
}

#[test]
fn the_migration_works_as_its_readme_says() {
    let legacy = PortBase::reserve().unwrap();
    let environment = Environment::start().unwrap();
    Reader::new(&environment).with("8700", legacy.number()).follow("examples/migration/README.md");
}

#[test]
fn an_example_can_be_dropped_in_as_the_directory_it_is() {
    let environment = Environment::start().unwrap();
    copy(&repository().join("examples/crm"), &environment.pickup().join("crm"));
    wait_until("the package is deployed", || {
        let services = environment.json(&["service", "list"]).unwrap_or_default();
        services.as_array().is_some_and(|services| services.len() == 6)
    });
}

#[test]
fn the_first_service_of_the_readme_works() {
    let environment = Environment::start().unwrap();
    let python = blocks("README.md").into_iter().find(|block| block.language == "python").unwrap();
    environment.drop_file("greet.py", &python.text).unwrap();
    environment.wait_for_json("/greet/Ada", &json!({"text": "Hello Ada"}));
}

/// The register's JSON-RPC channel, as its definitions open it: with credentials.
#[test]
fn a_json_rpc_channel_describes_itself_to_its_callers() {
    let environment = Environment::start().unwrap();
    let mut reader = Reader::new(&environment);
    reader.follow("examples/crm/README.md");
    let page = "http://127.0.0.1:17010/crm/rpc";
    let ask = |curl: &str| -> Value { serde_json::from_str(&reader.shell(curl).unwrap()).unwrap() };

    let refused = ask(&format!("curl -s {page}"));
    assert_eq!(refused["error"]["code"], -32001);
    let document = ask(&format!("curl -sfK env/client/crm.curl {page}"));
    let call = r#"{"jsonrpc": "2.0", "method": "rpc.discover", "id": 1}"#;
    assert_eq!(ask(&format!("curl -sK env/client/crm.curl {page} --json '{call}'"))["result"], document);

    assert_eq!(document["openrpc"], "1.3.2");
    assert_eq!(document["servers"], json!([{"name": "crm.rpc", "url": "/crm/rpc"}]));
    let methods = document["methods"].as_array().unwrap();
    let names: Vec<_> = methods.iter().map(|method| &method["name"]).collect();
    assert_eq!(names, ["customer.get", "price.quote", "rpc.discover"]);
    let quote = &methods[1];
    assert_eq!((&quote["params"][0]["name"], &quote["params"][1]["name"]), (&json!("tier"), &json!("items")));
    assert_eq!(quote["paramStructure"], "either", "its README calls it by name, others may by position");
    for method in methods {
        let result = method.pointer("/result/schema/$ref").and_then(Value::as_str).unwrap();
        let target = result.strip_prefix('#').map(|pointer| document.pointer(pointer));
        assert!(target.is_none_or(|schema| schema.is_some_and(Value::is_object)), "{result} leads nowhere");
    }
    let listed = ask("curl -s http://127.0.0.1:17010/openapi");
    assert_eq!(listed["x-openrpc"], json!([{"name": "crm.rpc", "url": "/crm/rpc"}]));
}

#[test]
fn pages_refer_only_to_files_that_exist() {
    let mut broken = Vec::new();
    for page in pages(&repository()) {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !page.parent().unwrap().join(target).exists()
            {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The Markdown files of the repository's own directories.
fn pages(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["README.md", "CHANGELOG.md"].iter().map(|name| root.join(name)).collect();
    let mut directories = ["docs", "examples", "sdk", "benches"].map(|name| root.join(name)).to_vec();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}
