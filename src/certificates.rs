//! The certificates of an environment's components: issued by `quickstart`, renewed by `start` in time.
//!
//! The authority's key is in no file: it lies in the operational database, sealed with the cluster key.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use crosstie_model::certificate::CertificateEnd;
use crosstie_model::settings::ServerSettings;
use crosstie_security::authority::Subject;
use crosstie_security::{CertificateAuthority, ClusterKey, authority};

use crate::command::say;
use crate::environment::{Environment, ServerDirectory};
use crate::odb;

/// The first administrator; the command line's certificate speaks for them.
pub(crate) const ADMINISTRATOR: &str = "admin";

/// Issues `server`'s certificate: for this host and `ip`, or for the names and addresses the one before held.
pub(crate) fn issue_server(
    authority: &CertificateAuthority,
    server: &ServerDirectory,
    ip: IpAddr,
) -> Result<()> {
    let (certificate, key) = (server.tls().join("server.pem"), server.tls().join("server.key"));
    let held = fs::read_to_string(&certificate).ok().and_then(|pem| authority::describe(&pem).ok());
    let subject = held.map_or_else(|| Subject::server(&server.name(), [ip]), |held| held.subject);
    Ok(authority.issue(&subject)?.save(&certificate, &key)?)
}

/// Issues the command line's certificate.
pub(crate) fn issue_client(authority: &CertificateAuthority, environment: &Environment) -> Result<()> {
    let directory = environment.client();
    let issued = authority.issue_client(ADMINISTRATOR)?;
    Ok(issued.save(&directory.join("client.pem"), &directory.join("client.key"))?)
}

/// Issues anew what ends soon: the certificates that `quickstart` made. One that somebody put in their place
/// under another name is theirs to renew. A failure is told and does not keep the server from starting.
pub(crate) fn renew(environment: &Environment, server: &ServerDirectory, settings: &ServerSettings) {
    let own = server.tls().join("server.pem");
    let client = environment.client().join("client.pem");
    let in_use = server.path().join(&settings.security.certificate);
    let due: Vec<&PathBuf> = [&own, &client]
        .into_iter()
        .filter(|path| **path == client || **path == in_use)
        .filter(|path| ends_soon(path))
        .collect();
    if due.is_empty() {
        return;
    }
    let renewed = open_authority(server, settings).and_then(|authority| {
        if due.contains(&&own) {
            issue_server(&authority, server, Ipv4Addr::LOCALHOST.into())?;
        }
        if due.contains(&&client) {
            issue_client(&authority, environment)?;
        }
        anyhow::Ok(())
    });
    match renewed {
        Ok(()) => due.iter().for_each(|path| say(&format!("renewed {}", path.display()))),
        Err(error) => say(&format!("crosstie: a certificate ends soon and cannot be renewed: {error:#}")),
    }
}

/// When certificates in files end; one that cannot be read is left out.
pub(crate) fn ends<'a>(files: impl IntoIterator<Item = (&'a str, PathBuf)>) -> Vec<CertificateEnd> {
    let end = |(name, path): (&str, PathBuf)| {
        let text = fs::read_to_string(path).ok()?;
        Some(CertificateEnd::new(name, authority::expires_at(&text).ok()?))
    };
    files.into_iter().filter_map(end).collect()
}

fn ends_soon(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    authority::needs_renewal(&text, time::OffsetDateTime::now_utc()).unwrap_or(false)
}

fn open_authority(server: &ServerDirectory, settings: &ServerSettings) -> Result<CertificateAuthority> {
    let key = ClusterKey::load(&server.path().join(&settings.security.cluster_key))?;
    let odb = odb::connect(server, settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let row =
        runtime.block_on(odb.ca())?.context("the operational database holds no certificate authority")?;
    Ok(CertificateAuthority::open_sealed(&row.certificate_pem, &row.sealed_key, &key)?)
}
