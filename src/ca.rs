//! `crosstie ca`: certificates of the cluster's authority. Keys are made here and never leave; the authority
//! signs over the management API.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use crosstie_odb::NewCertificate;
use crosstie_security::authority::{self, Description, IssuedCertificate, Subject};
use crosstie_security::create_private_directory;
use crosstie_security::identity::ComponentKind;
use crosstie_security::private_file::write_public;
use serde_json::{Value, json};

use crate::client::{Client, segment};
use crate::command::Context;
use crate::environment::Environment;
use crate::output::{Column, field, time_field};
use crate::parts::{self, EnvironmentPart, PartKind};
use crate::service_user;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Certificates that the authority issued
    List,
    /// Issue a certificate for a component
    Issue(IssueArguments),
    /// Renew certificates of this environment: those that end within 90 days, or all of one component
    Renew(RenewArguments),
    /// Make certificates worthless before their end, for good: of a component that is gone, or whose key is known
    Revoke(RevokeArguments),
}

#[derive(Args)]
pub(crate) struct IssueArguments {
    /// What the component is: server, client, load_balancer, broker or database
    kind: ComponentKind,
    /// Its name
    name: String,
    /// A DNS name it is reached under; as often as there are some
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An IP address it is reached under; as often as there are some
    #[arg(long, value_name = "IP")]
    ip: Vec<IpAddr>,
    /// The directory to write NAME.pem, NAME.key and ca.pem into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Args)]
pub(crate) struct RenewArguments {
    /// The component, such as server1; whether its certificate ends soon does not matter then
    name: Option<String>,
}

#[derive(Args)]
pub(crate) struct RevokeArguments {
    /// The certificates' serial numbers, as `crosstie ca list` shows them
    #[arg(required = true, value_name = "SERIAL")]
    serials: Vec<String>,
}

/// Runs one of the subcommands.
pub(crate) fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::List => list(context),
        Command::Issue(arguments) => issue(context, arguments),
        Command::Renew(arguments) => renew(context, arguments),
        Command::Revoke(arguments) => revoke(context, arguments),
    }
}

fn list(context: &Context) -> Result<()> {
    let columns = [
        Column::new("KIND", |row| field(row, "kind")),
        Column::new("NAME", |row| field(row, "name")),
        Column::new("ENDS", |row| time_field(row, "expires")),
        Column::new("RENEW", |row| field(row, "renew")),
        Column::new("REVOKED", |row| field(row, "revoked")),
        Column::new("ISSUED", |row| time_field(row, "issued")),
        Column::new("BY", |row| field(row, "author")),
        Column::new("SERIAL", |row| field(row, "serial")),
    ];
    context.output.list(&context.client()?.get("/certificates")?, &columns, "no certificate is on record")
}

fn issue(context: &Context, arguments: &IssueArguments) -> Result<()> {
    let subject = Subject {
        kind: arguments.kind,
        name: arguments.name.clone(),
        names: arguments.dns.clone(),
        addresses: arguments.ip.clone(),
    };
    let (certificate, key) = (
        arguments.out.join(format!("{}.pem", arguments.name)),
        arguments.out.join(format!("{}.key", arguments.name)),
    );
    for path in [&certificate, &key] {
        if path.exists() {
            bail!("{} exists already: choose another directory, or renew what is there", path.display());
        }
    }
    let (issued, ca, answer) = order(&context.client()?, &subject)?;
    if !arguments.out.is_dir() {
        create_private_directory(&arguments.out)
            .with_context(|| format!("cannot create {}", arguments.out.display()))?;
    }
    issued.save(&certificate, &key)?;
    write_public(&arguments.out.join("ca.pem"), ca.as_bytes())?;
    let report = json!({
        "certificate": certificate, "key": key, "serial": answer.get("serial"),
        "expires": answer.get("expires"),
    });
    let ends = time_field(&answer, "expires");
    let sentence = format!("issued {} with its key beside it, good until {ends}", certificate.display());
    context.output.done(&report, &sentence)
}

/// Makes a key and has it certified.
fn order(client: &Client, subject: &Subject) -> Result<(IssuedCertificate, String, Value)> {
    let request = authority::request(&subject.name)?;
    let body = json!({
        "kind": subject.kind.as_str(), "name": subject.name, "request": request.request_pem,
        "names": subject.names, "addresses": subject.addresses,
    });
    let answer = client.post("/certificates", &body)?;
    let text = |key: &str| answer.get(key).and_then(Value::as_str).with_context(|| format!("no {key}"));
    let issued =
        IssuedCertificate { certificate_pem: text("certificate")?.to_owned(), key_pem: request.key_pem };
    let ca = text("ca")?.to_owned();
    Ok((issued, ca, answer))
}

fn renew(context: &Context, arguments: &RenewArguments) -> Result<()> {
    let (environment, client) = (context.environment()?, context.client()?);
    let now = time::OffsetDateTime::now_utc();
    let parts = parts::of(&environment)?;
    let due = |held: &Held| match &arguments.name {
        Some(name) => held.description.subject.name == *name,
        None => held.description.expires - now < authority::RENEW_BEFORE,
    };
    let held: Vec<Held> = held(&environment)?.into_iter().filter(due).collect();
    if let (Some(name), []) = (&arguments.name, held.as_slice()) {
        bail!("no certificate of {name} is in {}", environment.root().display());
    }
    let mut renewed = Vec::new();
    for held in &held {
        let (issued, _, answer) = order(&client, &held.description.subject)?;
        service_user::as_owner_of(held.directory()?, || Ok(issued.save(&held.certificate, &held.key)?))?;
        renewed.push(json!({
            "kind": held.description.subject.kind.as_str(),
            "name": held.description.subject.name,
            "certificate": held.certificate,
            "expires": answer.get("expires"),
            "takes_effect": hand_over(&parts, held)?,
        }));
    }
    let columns = [
        Column::new("KIND", |row| field(row, "kind")),
        Column::new("NAME", |row| field(row, "name")),
        Column::new("ENDS", |row| time_field(row, "expires")),
        Column::new("TAKES EFFECT", |row| field(row, "takes_effect")),
        Column::new("FILE", |row| field(row, "certificate")),
    ];
    context.output.list(&renewed.into(), &columns, "no certificate ends within 90 days")
}

fn revoke(context: &Context, arguments: &RevokeArguments) -> Result<()> {
    let client = context.client()?;
    let mut revoked = Vec::new();
    for serial in &arguments.serials {
        let path = format!("/certificates/{}/revoke", segment(serial));
        revoked.push(client.post(&path, &json!({}))?);
    }
    let columns = [
        Column::new("KIND", |row| field(row, "kind")),
        Column::new("NAME", |row| field(row, "name")),
        Column::new("SERIAL", |row| field(row, "serial")),
        Column::new("REVOKED", |row| field(row, "revoked")),
    ];
    context.output.list(&revoked.into(), &columns, "")
}

/// Has the component take up its renewed certificate, as far as that is for this command to do; says when it is
/// used.
fn hand_over(parts: &[EnvironmentPart], held: &Held) -> Result<&'static str> {
    let own = parts.iter().find(|part| part.certificate().certificate == held.certificate);
    match (own, held.description.subject.kind) {
        (Some(part), _) => take_up(part),
        (None, ComponentKind::Server | ComponentKind::LoadBalancer) => Ok("at once"),
        (None, ComponentKind::Client) => Ok("with the next command"),
        // Whoever runs it knows how it is told.
        (None, ComponentKind::Broker | ComponentKind::Database) => Ok("when it reads its files again"),
    }
}

fn take_up(part: &EnvironmentPart) -> Result<&'static str> {
    let program = part.program()?;
    if program.pid().is_none() {
        return Ok("with its next start");
    }
    let name = part.kind.name();
    program.renew_certificates().with_context(|| {
        format!("the certificate of {name} is renewed, and is not used before `crosstie stop` and `start`")
    })?;
    Ok(match part.kind {
        PartKind::Postgresql => "at once",
        PartKind::Broker => "within ten seconds",
    })
}

/// A certificate in the environment, with its key beside it.
struct Held {
    certificate: PathBuf,
    key: PathBuf,
    description: Description,
}

impl Held {
    fn directory(&self) -> Result<&Path> {
        self.certificate.parent().context("a file lies in a directory")
    }
}

/// The certificates of components in `environment`: every `X.pem` with an `X.key` beside it, in the directory
/// of a component or its `tls`.
fn held(environment: &Environment) -> Result<Vec<Held>> {
    let mut found = Vec::new();
    let components = subdirectories(environment.root())
        .with_context(|| format!("cannot read {}", environment.root().display()))?;
    for component in components {
        for directory in [component.join("tls"), component] {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            let files = entries.flatten().map(|entry| entry.path());
            found.extend(
                files.filter(|path| path.extension().is_some_and(|end| end == "pem")).filter_map(read),
            );
        }
    }
    found.sort_by(|a, b| a.certificate.cmp(&b.certificate));
    Ok(found)
}

/// What is put on record of the certificates in a new environment: those that nobody asked the management API
/// for.
///
/// # Errors
/// The environment cannot be read.
pub(crate) fn records(environment: &Environment, author: &str) -> Result<Vec<NewCertificate>> {
    let record = |held: Held| NewCertificate {
        serial: held.description.serial,
        kind: held.description.subject.kind.to_string(),
        name: held.description.subject.name,
        fingerprint: held.description.fingerprint,
        author: author.to_owned(),
        expires_us: held.description.expires.unix_timestamp().saturating_mul(1_000_000),
    };
    Ok(held(environment)?.into_iter().map(record).collect())
}

fn subdirectories(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(root)?.flatten();
    // Not through links: they may lead anywhere.
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.map(|entry| entry.path()).collect())
}

fn read(certificate: PathBuf) -> Option<Held> {
    // A part that the environment runs has a copy of its own of what lies in `ca`.
    if certificate.file_name().is_some_and(|name| name == "part.pem") {
        return None;
    }
    let key = certificate.with_extension("key");
    let text = fs::read_to_string(&certificate).ok().filter(|_| key.is_file())?;
    Some(Held { description: authority::describe(&text).ok()?, certificate, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_security::CertificateAuthority;

    #[test]
    fn certificates_are_found_where_components_keep_them() {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::new(directory.path().to_owned());
        let authority = CertificateAuthority::create("test").unwrap();
        let local = "127.0.0.1".parse().unwrap();
        for (place, subject) in [
            ("server1/tls/server", Subject::server("server1", [])),
            ("client/client", Subject::client("admin")),
            (
                "ca/broker",
                Subject {
                    kind: ComponentKind::Broker,
                    name: "broker".into(),
                    names: vec!["localhost".into()],
                    addresses: vec![local],
                },
            ),
        ] {
            let path = directory.path().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let issued = authority.issue(&subject).unwrap();
            issued.save(&path.with_extension("pem"), &path.with_extension("key")).unwrap();
        }
        fs::write(directory.path().join("client/ca.pem"), authority.certificate_pem()).unwrap();
        let found = held(&environment).unwrap();
        let names: Vec<_> = found.iter().map(|held| held.description.subject.name.as_str()).collect();
        assert_eq!(names, ["broker", "admin", "server1"]);
        assert_eq!(found[0].description.subject.addresses, [local]);
        assert!(found[2].description.subject.names.contains(&"server1".to_owned()));
        let records = records(&environment, "quickstart").unwrap();
        assert_eq!((records.len(), records[0].kind.as_str()), (3, "broker"));
    }
}
