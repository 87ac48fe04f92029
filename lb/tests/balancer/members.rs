//! How the agent learns of the servers, and what it does not believe.

use std::net::SocketAddr;

use crosstie_security::CertificateAuthority;
use crosstie_security::authority::IssuedCertificate;
use crosstie_security::identity::ComponentKind;
use crosstie_test_support::{wait_for, wait_until};

use crate::world::World;

#[test]
fn garbage_in_the_place_of_members_changes_nothing() {
    let world = World::running(2);
    let load = world.load();
    for (status, body) in [
        (200, "<html>nonsense</html>"),
        (200, "[]"),
        (200, "[{\"name\": \"server1\"}]"),
        (200, "[{\"name\": \"a b\", \"state\": \"ready\"}]"),
        (500, "[]"),
        (200, ""),
    ] {
        world.answer(status, body);
        world.wait_for_questions(3);
        assert_eq!(world.servers_up(), Some(2), "{body}");
        let fault = world.stats().unwrap()["members"]["fault"].clone();
        assert!(fault.is_string(), "{body}: {fault}");
    }
    world.tell_all();
    wait_until("the servers are believed again", || world.stats().unwrap()["members"]["fault"].is_null());
    assert_eq!(load.stop().lost(""), 0);
}

#[test]
fn an_unchanged_list_is_not_sent_again() {
    let world = World::running(1);
    world.wait_for_questions(5);
    let told = world.told();
    assert!(told.unchanged > told.asked / 2, "{told:?}");
}

#[test]
fn what_was_learned_serves_an_agent_that_reaches_nobody() {
    let mut world = World::running(2);
    world.stop_agent();
    world.answer(503, "");
    world.start_agent();
    world.wait_for_servers(2);
}

#[test]
fn a_server_under_another_name_or_of_another_authority_gets_nothing() {
    let mut world = World::running(2);
    // The right authority, the wrong name.
    world.issue(ComponentKind::Server, "other");
    world.kill_server(1);
    for end in ["pem", "key"] {
        let from = world.home().join("other").with_extension(end);
        std::fs::copy(from, world.home().join("server1").with_extension(end)).unwrap();
    }
    world.start_server(1);
    world.wait_for_servers(1);
    let load = world.load();
    load.wait_for_more(300);
    assert_eq!(world.servers_up(), Some(1), "it is never taken for ready");
    assert_eq!(load.stop().lost(""), 0);
    // The right name, the wrong authority.
    world.kill_server(1);
    let stranger = CertificateAuthority::create("stranger").unwrap();
    let issued = stranger.issue_server("server1", &["server1"], &[]).unwrap();
    let path = world.home().join("server1");
    issued.save(&path.with_extension("pem"), &path.with_extension("key")).unwrap();
    world.start_server(1);
    let load = world.load();
    load.wait_for_more(300);
    assert_eq!(world.servers_up(), Some(1));
    assert_eq!(load.stop().lost(""), 0);
}

#[test]
fn nobody_but_a_server_of_the_cluster_is_believed_about_the_members() {
    let mut world = World::new(2);
    let stranger = CertificateAuthority::create("stranger").unwrap();
    let save = |name: &str, issued: IssuedCertificate| {
        let path = world.home().join(name);
        issued.save(&path.with_extension("pem"), &path.with_extension("key")).unwrap();
    };
    save("stranger", stranger.issue_server("server1", &["server1"], &[world.host()]).unwrap());
    save(
        "elsewhere",
        world.authority.issue_server("server1", &["server1"], &["10.9.9.9".parse().unwrap()]).unwrap(),
    );
    world.issue(ComponentKind::Broker, "broker");
    let impostors =
        [("stranger", "UnknownIssuer"), ("elsewhere", "not valid for"), ("broker", "no server's")];
    let host = world.host();
    let at = |index: usize| SocketAddr::new(host, 18_000 + u16::try_from(index).unwrap());
    for (index, (name, _)) in impostors.iter().enumerate() {
        world.serve_members(name, at(index));
    }
    let addresses: Vec<_> = (0..impostors.len()).map(at).collect();
    world.configure(|settings| settings.lb.members = vec![addresses[0]]);
    world.start_agent();
    let asked = |index: usize| {
        let fault = world.stats().unwrap()["members"]["fault"].as_str().unwrap_or_default().to_owned();
        fault.starts_with(&at(index).to_string()).then_some(fault)
    };
    for (index, (_, reason)) in impostors.iter().enumerate() {
        world.configure(|settings| settings.lb.members = vec![addresses[index]]);
        let fault = wait_for("the impostor is refused", || asked(index));
        assert!(fault.contains(reason), "{fault}");
        assert!(world.stats().unwrap()["members"]["members"].as_array().unwrap().is_empty());
    }
    assert_eq!(world.told().asked, 0, "nothing was asked of any of them");
    world.configure(|settings| settings.lb.members = vec![world.management()]);
    world.wait_for_servers(2);
}

#[test]
fn a_load_balancer_of_another_authority_reaches_no_server() {
    let mut world = World::new(1);
    let stranger = CertificateAuthority::create("stranger").unwrap();
    let issued = stranger.issue_server("lb", &["localhost"], &[world.host()]).unwrap();
    let tls = world.balancer().join("tls");
    issued.save(&tls.join("lb.pem"), &tls.join("lb.key")).unwrap();
    // It trusts the right authority, but nobody trusts it.
    world.start_agent_unseen();
    let health = || crosstie_test_support::Http::new(format!("http://{}", world.http())).get("/x");
    wait_until("HAProxy answers", || health().is_ok());
    world.wait_for_refusals();
    assert_eq!(health().unwrap().status, 503);
    assert_eq!(health().unwrap().header("content-type"), "application/problem+json");
    assert_eq!(world.told().asked, 0, "no server told it anything");
}
