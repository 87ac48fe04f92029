//! Databases from services: what Python gives and gets, what becomes of transactions that nobody ends, what a
//! database that dies costs.

mod limits;
mod matrix;
mod services;
mod streaming;

use std::path::Path;

use crosstie_parts::{MariaDb, PartTls, Postgres};
use crosstie_test_support::Environment;
use crosstie_test_support::parts::TestPart;

/// The password of the databases of tests.
const PASSWORD: &str = "it's a secret";

pub(crate) fn postgres() -> TestPart {
    TestPart::start("postgres", Postgres::new).unwrap()
}

fn mariadb() -> TestPart {
    TestPart::start("mysql", MariaDb::new).unwrap()
}

/// The definition `name` of the database of `part`, as YAML, with `more` fields.
pub(crate) fn definition(name: &str, part: &TestPart, more: &str) -> String {
    let engine = if part.part.name() == "mariadb" { "mariadb" } else { "postgresql" };
    let (user, database) = (&part.credentials.user, &part.credentials.database);
    let (port, tls) = (part.address.port(), tls(&part.client));
    format!(
        "  {name}: {{type: sql, engine: {engine}, host: 127.0.0.1, port: {port}, database: {database}, \
         username: {user}, password: \"{PASSWORD}\", {tls}{more}}}\n"
    )
}

fn tls(files: &PartTls) -> String {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap().replace('\n', "\\n");
    format!(
        "tls: {{ca: \"{}\", certificate: \"{}\", key: \"{}\"}}",
        read(&files.ca),
        read(&files.certificate),
        read(&files.key)
    )
}

/// The definition `name` of a file in the environment.
fn file(name: &str, environment: &Environment) -> String {
    let path = environment.root().join(format!("{name}.sqlite"));
    format!("  {name}: {{type: sql, engine: sqlite, create: true, database: {}}}\n", path.display())
}

/// Applies outgoings.
fn apply(environment: &Environment, outgoings: &str) {
    let text = format!("outgoing:\n{outgoings}");
    environment.command(&["apply", "-f", "-"]).unwrap().input(text).run().unwrap().success().unwrap();
}
