//! The user guide: its services can be deployed, its commands work in their order, its links lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use crosstie_parts::RabbitMq;
use crosstie_test_support::parts::TestPart;
use crosstie_test_support::{Environment, wait_until};

use crate::documentation::{Reader, blocks, links};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Follows a page's commands in an environment of their own.
fn follow(page: &str) -> Environment {
    let environment = Environment::start().unwrap();
    Reader::new(&environment).follow(page);
    environment
}

#[test]
fn every_service_of_the_guide_is_accepted() {
    let environment = Environment::start().unwrap();
    let mut deployed = 0;
    for block in blocks("docs/services.md") {
        if block.language != "python" || !block.text.contains("(Service):") {
            continue;
        }
        let file = block.file.expect("a service of the guide names its file");
        let path = environment.root().join(file);
        fs::write(&path, &block.text).unwrap();
        environment.run(&["deploy", path.to_str().unwrap()]).unwrap().success().unwrap();
        deployed += 1;
    }
    assert!(deployed >= 5, "only {deployed} services were found");
}

#[test]
fn the_guide_to_services_works_and_tracebacks_name_the_service_s_file() {
    let environment = follow("docs/services.md");
    wait_until("the traceback is logged", || environment.log_tail("server.log").contains("failing.py"));
}

#[test]
fn the_guide_to_channels_works() {
    follow("docs/channels.md");
}

#[test]
fn the_guide_to_other_systems_works() {
    follow("docs/outgoings.md");
}

#[test]
fn the_guide_to_the_message_log_works() {
    follow("docs/message-log.md");
}

#[test]
fn the_guide_to_security_works() {
    follow("docs/security.md");
}

#[test]
fn the_guide_to_soap_channels_works() {
    follow("docs/soap.md");
}

#[test]
fn the_guide_to_calling_databases_works() {
    follow("docs/outgoing-sql.md");
}

#[test]
fn the_guide_to_handing_requests_on_works() {
    follow("docs/passthrough.md");
}

#[test]
fn the_guide_to_transformation_works() {
    follow("docs/transformation.md");
}

#[test]
fn the_guide_to_calling_soap_services_works() {
    follow("docs/outgoing-soap.md");
}

#[test]
fn the_guide_to_messages_works() {
    let broker = TestPart::start_with("rabbitmq", RabbitMq::new, |plan| plan.tls = None).unwrap();
    let environment = Environment::builder().variable("BROKER_PASSWORD", "it's a secret").start().unwrap();
    Reader::new(&environment).with("5672", broker.address.port()).follow("docs/amqp.md");
}

#[test]
fn the_guide_to_the_management_api_works() {
    follow("docs/management-api.md");
}

#[test]
fn links_of_the_guide_lead_to_pages_and_their_headings() {
    let mut broken = Vec::new();
    let pages: Vec<PathBuf> = fs::read_dir(docs())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| is_page(path))
        .collect();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in links(&text) {
            if !link.contains("://") && !resolves(page, &link) {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(pages.len() >= 5 && broken.is_empty(), "{broken:#?}");
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

fn resolves(page: &Path, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
    if heading.is_empty() || !is_page(&target) {
        return target.exists();
    }
    let Ok(text) = fs::read_to_string(&target) else { return false };
    text.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == heading)
}

/// The anchor that a heading gets where Markdown is shown.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}
