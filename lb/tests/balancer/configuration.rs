//! The administrator's files: settings, snippets, certificates.

use crosstie_security::authority::Subject;
use crosstie_security::identity::ComponentKind;
use crosstie_test_support::{Http, wait_until};

use crate::world::World;

#[test]
fn snippets_take_effect_and_a_broken_one_leaves_everything_as_it_was() {
    let mut world = World::running(2);
    let http = Http::new(format!("http://{}", world.http()));
    let load = world.load();
    world.snippet("frontend-deny.cfg", "http-request return status 418 if { path /teapot }\n");
    wait_until("the snippet is in use", || http.get("/teapot").unwrap().status == 418);
    world.snippet("frontend-broken.cfg", "# fine\nhttp-request dance\n");
    let fault = || world.stats().unwrap()["configuration"]["fault"].as_str().unwrap_or_default().to_owned();
    wait_until("the fault is reported", || !fault().is_empty());
    assert!(fault().contains("lb.d/frontend-broken.cfg:2:"), "{}", fault());
    assert_eq!(http.get("/teapot").unwrap().status, 418);

    // Servers still leave and join, and the file follows.
    world.tell(&[("server1", "ready", "serving")]);
    world.wait_for_servers(1);
    let file = world.balancer().join("haproxy.cfg");
    wait_until("the file follows", || !std::fs::read_to_string(&file).unwrap().contains("server2"));

    // An agent that starts now goes on with what was good.
    world.kill_agent();
    world.start_agent();
    assert!(fault_of(&world).contains("frontend-broken.cfg"));
    assert_eq!(http.get("/teapot").unwrap().status, 418);

    world.snippet("frontend-broken.cfg", "http-request return status 204 if { path /fixed }\n");
    wait_until("the mended snippet is in use", || http.get("/fixed").unwrap().status == 204);
    assert_eq!(fault_of(&world), "");
    assert_eq!(load.stop().lost(""), 0);
}

#[test]
fn a_snippet_that_haproxy_can_read_and_not_serve_with_is_given_up() {
    let mut world = World::running(2);
    let http = Http::new(format!("http://{}", world.http()));
    let load = world.load();
    world.snippet("frontend-a.cfg", "http-request return status 418 if { path /teapot }\n");
    wait_until("the snippet is in use", || http.get("/teapot").unwrap().status == 418);
    // HAProxy reads it without a fault; that the address is taken shows when it starts.
    let taken = std::net::TcpListener::bind((world.host(), 9_999)).unwrap();
    let address = taken.local_addr().unwrap();
    world.snippet(
        "own.cfg",
        &format!("listen own\n    bind {address}\n    mode tcp\n    timeout client 1s\n"),
    );
    wait_until("the fault is reported", || fault_of(&world).contains("HAProxy does not serve"));
    assert_eq!(http.get("/teapot").unwrap().status, 418);
    let path = world.balancer().join("haproxy.cfg");
    let file = || std::fs::read_to_string(&path).unwrap();
    assert!(!file().contains("listen own"), "what HAProxy starts with next time is what it runs with");

    // What comes next is taken up nevertheless, and servers still leave.
    world.tell(&[("server1", "ready", "serving")]);
    world.wait_for_servers(1);
    world.snippet("own.cfg", "");
    wait_until("the fault is gone", || fault_of(&world).is_empty());
    world.snippet("frontend-b.cfg", "http-request return status 410 if { path /gone }\n");
    wait_until("the next snippet is in use", || http.get("/gone").unwrap().status == 410);
    let account = load.stop();
    assert_eq!(account.lost(""), 0, "{account}");

    // Nor does it keep HAProxy from starting where nobody remembers.
    world.stop_agent();
    world.snippet(
        "own.cfg",
        &format!("listen own\n    bind {address}\n    mode tcp\n    timeout client 1s\n"),
    );
    world.start_agent();
    wait_until("the snippets that were good are in use", || {
        http.get("/gone").is_ok_and(|reply| reply.status == 410)
    });
    assert!(fault_of(&world).contains("HAProxy does not serve"), "{}", fault_of(&world));
    drop(taken);
    world.snippet("frontend-c.cfg", "http-request return status 411 if { path /length }\n");
    wait_until("everything is in use", || http.get("/length").unwrap().status == 411);
    assert!(fault_of(&world).is_empty() && file().contains("listen own"));
}

fn fault_of(world: &World) -> String {
    world.stats().unwrap()["configuration"]["fault"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn faulty_settings_are_refused_and_the_running_ones_stay() {
    let world = World::running(1);
    let path = world.balancer().join("lb.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{good}\n[balanse]\nx = 1\n")).unwrap();
    world.snippet("ignored.txt", "");
    wait_until("the fault is reported", || fault_of(&world).contains("balanse"));
    assert_eq!(world.servers_up(), Some(1));
    std::fs::write(&path, good).unwrap();
    world.snippet("ignored.txt", "");
    wait_until("the fault is gone", || fault_of(&world).is_empty());
}

#[test]
fn a_new_address_is_taken_without_losing_anything_at_the_old_one() {
    let world = World::running(1);
    let load = world.load();
    let before = world.haproxy();
    let (old, new) = (world.https(), std::net::SocketAddr::new(world.host(), 17_999));
    world.configure(|settings| settings.lb.https = Some(new));
    wait_until("the new address answers", || std::net::TcpStream::connect(new).is_ok());
    wait_until("the old address does not", || std::net::TcpStream::connect(old).is_err());
    assert_ne!(world.haproxy(), before, "other sockets need another HAProxy");
    load.wait_for_more(100);
    assert_eq!(load.stop().lost(""), 0);
}

#[test]
fn a_renewed_certificate_is_shown_without_a_restart() {
    let world = World::running(1);
    let load = world.load();
    let (before, reloads) = (world.haproxy(), world.stats().unwrap()["haproxy"]["reloads"].as_u64());
    let subject = Subject {
        kind: ComponentKind::LoadBalancer,
        name: "lb".parse().unwrap(),
        names: vec!["renewed.example".into()],
        addresses: vec![world.host()],
    };
    let tls = world.balancer().join("tls");
    world.authority.issue(&subject).unwrap().save(&tls.join("lb.pem"), &tls.join("lb.key")).unwrap();
    wait_until("the certificate is taken up", || {
        world.stats().unwrap()["haproxy"]["reloads"].as_u64() > reloads
    });
    load.wait_for_more(100);
    assert_eq!(world.haproxy(), before);
    assert_eq!(world.servers_up(), Some(1));
    assert_eq!(load.stop().lost(""), 0);
}

#[test]
fn a_half_replaced_certificate_is_not_used() {
    let world = World::running(1);
    let tls = world.balancer().join("tls");
    let key = std::fs::read(tls.join("lb.key")).unwrap();
    let issued = world.authority.issue_server("lb", &["localhost"], &[world.host()]).unwrap();
    issued.save(&tls.join("lb.pem"), &tls.join("new.key")).unwrap();
    let fault = || world.stats().unwrap()["configuration"]["certificates"].clone();
    wait_until("the fault is reported", || fault().is_string());
    assert_eq!(world.servers_up(), Some(1));
    assert_eq!(std::fs::read(tls.join("lb.key")).unwrap(), key);
    std::fs::rename(tls.join("new.key"), tls.join("lb.key")).unwrap();
    wait_until("the pair is taken up", || fault().is_null());
}
