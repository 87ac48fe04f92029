//! The link to a database server: whose certificates are believed on either side, and a server that dies and
//! comes back. Each test has a server of its own.

use std::fs;
use std::time::{Duration, Instant};

use crosstie_model::names::Revision;
use crosstie_odb::{Odb, OdbOptions};
use crosstie_parts::{MariaDb, PartTls, Postgres};
use crosstie_test_support::parts::{Authority, TestPart};
use crosstie_test_support::processes::{is_alive, send};
use nix::sys::signal::Signal;

use crate::database::{options_of, start_mariadb, start_postgres, url_of};
use crate::support::{change, dictionary, put};

/// How a call must fail: soon, as a database that is away, and in these words.
async fn assert_refused(options: &OdbOptions, case: &str, reasons: &[&str]) {
    let started = Instant::now();
    let error = Odb::connect(options).unwrap().revision().await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_unreachable() && reasons.iter().any(|reason| text.contains(reason)), "{case}: {text}");
    assert!(started.elapsed() < Duration::from_secs(5), "{case}: {:?}", started.elapsed());
}

async fn both_sides_are_verified(part: TestPart) {
    let right = options_of(&part);
    Odb::connect(&right).unwrap().create().await.unwrap();
    assert_eq!(Odb::connect(&right).unwrap().revision().await.unwrap(), Revision(0));

    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Authority::new(elsewhere.path()).unwrap().issue("stranger", &["client"]).unwrap();
    let with = |url: String| OdbOptions { url, ..right.clone() };
    let other_ca = right.url.replace(part.client.ca.to_str().unwrap(), stranger.ca.to_str().unwrap());
    assert_refused(&with(other_ca), "a CA that did not sign the server's", &["invalid peer certificate"])
        .await;
    let other_name = url_of(&part, "localhost", Some(&part.client));
    assert_refused(&with(other_name), "a name the certificate lacks", &["not valid for"]).await;
    let nothing = url_of(&part, "127.0.0.1", None);
    let reasons = ["requires a valid client certificate", "CertificateRequired", "Access denied"];
    assert_refused(&with(nothing), "no certificate", &reasons).await;
    let strange = PartTls { ca: part.client.ca.clone(), ..stranger };
    let strange = url_of(&part, "127.0.0.1", Some(&strange));
    let reasons = ["UnknownCA", "certificate verify failed", "DecryptError", "BadCertificate"];
    assert_refused(&with(strange), "a certificate of another CA", &reasons).await;
    let plain = format!("{}?tls=off", right.url.split('?').next().unwrap());
    let reasons = ["no encryption", "insecure transport", "Access denied"];
    assert_refused(&with(plain), "no TLS", &reasons).await;
    let password = crosstie_model::secret::SecretValue::new(b"wrong".to_vec());
    let wrong = OdbOptions { password: Some(password), ..right.clone() };
    assert_refused(&wrong, "a wrong password", &["password authentication failed", "Access denied"]).await;
}

#[tokio::test]
async fn postgres_and_its_clients_verify_each_other() {
    both_sides_are_verified(start_postgres()).await;
}

#[tokio::test]
async fn mariadb_and_its_clients_verify_each_other() {
    both_sides_are_verified(start_mariadb()).await;
}

#[tokio::test]
async fn a_real_server_without_tls_is_refused() {
    let postgres = TestPart::start_with("postgres", Postgres::new, |plan| plan.tls = None).unwrap();
    assert_refused(&options_of(&postgres), "PostgreSQL", &["does not support TLS"]).await;
    let mariadb = TestPart::start_with("mysql", MariaDb::new, |plan| plan.tls = None).unwrap();
    assert_refused(&options_of(&mariadb), "MariaDB", &["SSL"]).await;
}

async fn a_handle_outlives_a_killed_server(part: TestPart) {
    let odb = Odb::connect(&options_of(&part)).unwrap();
    odb.create().await.unwrap();
    assert_eq!(change(&odb, vec![put(dictionary("a", 1))]).await.unwrap(), Revision(1));
    let killed = i32::try_from(part.part.pid().unwrap()).unwrap();
    send(killed, Signal::SIGKILL).unwrap();
    crosstie_test_support::wait_until("the server is gone", || !is_alive(killed));
    for _ in 0..3 {
        let started = Instant::now();
        let (read, written) = tokio::join!(odb.snapshot(), change(&odb, vec![put(dictionary("a", 2))]));
        assert!(read.unwrap_err().is_unreachable() && written.unwrap_err().is_unreachable());
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    // Meanwhile the client's certificate was renewed; the handle does not keep to the old one.
    let good = [&part.client.certificate, &part.client.key].map(|path| (path, fs::read(path).unwrap()));
    fs::write(good[0].0, "no certificate").unwrap();
    part.part.start().unwrap();
    assert!(odb.revision().await.unwrap_err().is_unreachable());
    for (path, content) in good {
        fs::write(path, content).unwrap();
    }
    assert_eq!(odb.revision().await.unwrap(), Revision(1));
    assert_eq!(change(&odb, vec![put(dictionary("a", 2))]).await.unwrap(), Revision(2));
}

#[tokio::test]
async fn a_handle_outlives_a_killed_postgres() {
    a_handle_outlives_a_killed_server(start_postgres()).await;
}

#[tokio::test]
async fn a_handle_outlives_a_killed_mariadb() {
    a_handle_outlives_a_killed_server(start_mariadb()).await;
}

/// A part that takes the files of a new certificate shows it to the next client.
async fn a_renewed_certificate_is_used(part: TestPart) {
    let right = options_of(&part);
    Odb::connect(&right).unwrap().create().await.unwrap();
    let localhost = OdbOptions { url: url_of(&part, "localhost", Some(&part.client)), ..right };
    assert_refused(&localhost, "before", &["not valid for"]).await;
    part.authority.issue("part", &["127.0.0.1", "localhost"]).unwrap();
    part.part.renew_certificates().unwrap();
    let odb = Odb::connect(&localhost).unwrap();
    let started = Instant::now();
    while let Err(error) = odb.revision().await {
        assert!(started.elapsed() < Duration::from_secs(10), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_of_postgres_is_used() {
    a_renewed_certificate_is_used(start_postgres()).await;
}

#[tokio::test]
async fn a_renewed_certificate_of_mariadb_is_used() {
    a_renewed_certificate_is_used(start_mariadb()).await;
}
