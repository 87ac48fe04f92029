//! Every internal link is TLS with both ends verified. Where each is tried with certificates that are not good
//! for it (another authority's, for another name, of another role):
//!
//! | link | whoever calls is not deceived | whoever is called lets nobody else in |
//! |---|---|---|
//! | command line to management API | here | here, `server/api/tests/suite/tls.rs` |
//! | server that joins to management API | `members.rs` | a token instead of a certificate: `members.rs` |
//! | load balancer's agent to management API | `lb/tests/balancer/members.rs` | the same |
//! | load balancer to server | `lb/tests/balancer/members.rs` | `cluster/quickstart.rs`, `server/security/tests/kinds.rs` |
//! | server to database | `odb-schema/tests/odb/links.rs` | the same |
//! | server to broker | `server/bus/tests/broker/trust.rs` | the same |
//! | monitoring to the agent's API | the monitoring's matter | `lb/tests/balancer/entrance.rs` |

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use crosstie_security::CertificateAuthority;
use crosstie_security::authority::IssuedCertificate;
use crosstie_test_support::{Environment, wait_until};

/// A certificate that the environment's authority issued, and its key.
fn order(environment: &Environment, kind: &str, name: &str, addresses: &[&str]) -> IssuedCertificate {
    let out = environment.root().join("issued").join(format!("{kind}-{name}-{}", addresses.join("-")));
    let mut arguments = vec!["ca", "issue", kind, name, "--out", out.to_str().unwrap()];
    arguments.extend(addresses.iter().flat_map(|address| ["--ip", address]));
    environment.run(&arguments).unwrap().success().unwrap();
    held(&out.join(name))
}

/// The certificate in `path.pem` with its key.
fn held(path: &Path) -> IssuedCertificate {
    let file = |end: &str| fs::read(path.with_extension(end)).unwrap();
    IssuedCertificate {
        certificate_pem: String::from_utf8(file("pem")).unwrap(),
        key_pem: crosstie_model::secret::SecretValue::new(file("key")),
    }
}

/// Puts `issued` in the place of `path.pem` and its key, for whoever owns the directory.
fn put(issued: &IssuedCertificate, path: &Path) {
    let (certificate, key) = (path.with_extension("pem"), path.with_extension("key"));
    let owner = fs::metadata(path.parent().unwrap()).unwrap();
    let beside = (path.with_extension("pem.new"), path.with_extension("key.new"));
    issued.save(&beside.0, &beside.1).unwrap();
    for (from, to) in [(beside.1, key), (beside.0, certificate)] {
        chown(&from, Some(owner.uid()), Some(owner.gid())).unwrap();
        fs::rename(from, to).unwrap();
    }
}

#[test]
fn the_command_line_talks_to_its_own_servers_alone() {
    let environment = Environment::start().unwrap();
    let place = environment.server().join("tls/server");
    let own = held(&place);
    let local = ["127.0.0.1".parse().unwrap()];
    let stranger = CertificateAuthority::create("stranger").unwrap();
    let impostors = [
        ("UnknownIssuer", stranger.issue_server("server1", &["localhost"], &local).unwrap()),
        ("not valid for name", order(&environment, "server", "elsewhere", &["10.9.9.9"])),
        // A client's certificate is none to be called with.
        ("extended key usage", order(&environment, "client", "server1", &["127.0.0.1"])),
    ];
    for (reason, certificate) in impostors {
        put(&certificate, &place);
        wait_until(&format!("it is refused: {reason}"), || {
            let refused = environment.run(&["server", "list"]).unwrap();
            refused.code == 1 && refused.stderr.contains(reason)
        });
        put(&own, &place);
        wait_until("its own server is trusted", || environment.run(&["server", "list"]).unwrap().code == 0);
    }
}

#[test]
fn the_management_api_listens_to_components_of_its_own_cluster_alone() {
    let environment = Environment::start().unwrap();
    let place = environment.root().join("client/client");
    let (own, broker) = (held(&place), order(&environment, "broker", "admin", &["127.0.0.1"]));
    let balancer = order(&environment, "load_balancer", "lb", &["127.0.0.1"]);
    let run = |arguments: &[&str]| environment.run(arguments).unwrap();

    // The authority of another environment, whatever it calls its administrator.
    let stranger = CertificateAuthority::create("quickstart").unwrap();
    put(&stranger.issue_client("admin").unwrap(), &place);
    let refused = run(&["server", "list"]);
    assert_eq!(refused.code, 1);
    assert!(!refused.stderr.contains("401"), "it does not get as far as HTTP: {}", refused.stderr);

    // A broker has no business here, and a load balancer may look.
    put(&broker, &place);
    assert_eq!(run(&["server", "list"]).code, 1);
    put(&balancer, &place);
    assert_eq!(run(&["server", "list"]).code, 0);
    assert_eq!(run(&["user", "list"]).code, 1);
    assert_eq!(run(&["ca", "renew", "server1"]).code, 1);

    put(&own, &place);
    assert_eq!(run(&["user", "list"]).code, 0);
}
