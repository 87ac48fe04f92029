//! What becomes of requests while servers come and go and the configuration changes.

use std::collections::{BTreeMap, BTreeSet};

use crosstie_lb::settings::Algorithm;
use crosstie_test_support::{Account, Http, wait_until};
use nix::sys::signal::Signal;

use crate::world::{World, signal};

/// Shows what became of a load's requests.
pub(crate) fn show(what: &str, account: &Account) {
    println!("{what}: {account}");
}

/// Requests that server `number` had so far.
fn requests_of(world: &World, number: usize) -> u64 {
    let stats = world.stats().unwrap();
    let servers = stats["traffic"]["servers"].as_array().unwrap();
    let server = servers.iter().find(|server| server["name"] == format!("server{number}")).unwrap();
    server["sessions_total"].as_u64().unwrap()
}

#[test]
fn draining_and_undraining_a_server_loses_nothing() {
    let world = World::running(2);
    let load = world.load();
    for _ in 0..5 {
        world.tell(&[("server1", "draining", "drained"), ("server2", "ready", "serving")]);
        world.wait_for_servers(1);
        let before = requests_of(&world, 1);
        load.wait_for_more(60);
        assert_eq!(requests_of(&world, 1), before, "a drained server gets nothing new");
        world.tell_all();
        world.wait_for_servers(2);
        let before = requests_of(&world, 1);
        wait_until("the server gets traffic again", || requests_of(&world, 1) > before);
    }
    let account = load.stop();
    show("draining", &account);
    assert_eq!(account.lost(""), 0);
}

#[test]
fn servers_join_and_leave_without_losing_anything() {
    let world = World::running(3);
    let load = world.load();
    for _ in 0..5 {
        world.tell(&[("server1", "ready", "serving"), ("server2", "ready", "serving")]);
        wait_until("the third server is gone", || {
            world.stats().unwrap()["traffic"]["servers"].as_array().unwrap().len() == 2
        });
        load.wait_for_more(60);
        world.tell_all();
        world.wait_for_servers(3);
        load.wait_for_more(60);
    }
    let account = load.stop();
    show("joining and leaving", &account);
    assert_eq!(account.lost(""), 0);
    let reloads = world.stats().unwrap()["haproxy"]["reloads"].as_u64();
    assert_eq!(reloads, Some(0), "servers need no reload");
}

#[test]
fn a_reload_loses_nothing() {
    let world = World::running(2);
    let load = world.load();
    for round in 1..=5 {
        world.configure(|settings| settings.balance.check_ms = 500 + round);
        wait_until("the new configuration is in use", || {
            world.stats().unwrap()["haproxy"]["reloads"] == round
        });
        load.wait_for_more(150);
    }
    let account = load.stop();
    show("reloading", &account);
    assert_eq!(account.lost(""), 0);
    assert_eq!(account.resent, 0, "no idle connection is closed under a request");
}

/// Which servers answered `count` requests.
fn answering(world: &World, count: usize) -> BTreeSet<String> {
    let http = Http::new(format!("http://{}", world.http()));
    let name = |_| http.get("/x").unwrap().json()["server"].as_str().unwrap().to_owned();
    (0..count).map(name).collect()
}

#[test]
fn the_way_servers_are_chosen_can_be_set() {
    let world = World::running(3);
    let all = BTreeSet::from(["server1", "server2", "server3"].map(ToOwned::to_owned));
    assert_eq!(answering(&world, 3), all, "one after the other");
    let algorithms = [
        (Algorithm::Source, "balance source"),
        (Algorithm::LeastConnections, "balance leastconn"),
        (Algorithm::Random, "balance random"),
    ];
    for (round, (algorithm, line)) in (1..).zip(algorithms) {
        world.configure(|settings| settings.balance.algorithm = algorithm);
        wait_until("the algorithm is in use", || world.stats().unwrap()["haproxy"]["reloads"] == round);
        world.wait_for_servers(3);
        let file = std::fs::read_to_string(world.balancer().join("haproxy.cfg")).unwrap();
        assert!(file.contains(line), "{file}");
        match algorithm {
            Algorithm::Source => assert_eq!(answering(&world, 12).len(), 1, "one address, one server"),
            // By chance the same server 60 times in a row: less often than once in 10^28 times.
            _ => assert!(answering(&world, 60).len() > 1, "{algorithm:?}"),
        }
    }
}

#[test]
fn connections_to_servers_are_used_again_also_to_those_that_joined_later() {
    let mut world = World::new(2);
    world.tell(&[("server1", "ready", "serving")]);
    world.start_agent();
    world.wait_for_servers(1);
    world.tell_all();
    world.wait_for_servers(2);
    assert_eq!(world.stats().unwrap()["haproxy"]["reloads"], 0, "it joins without a reload");
    let http = Http::new(format!("http://{}", world.http()));
    let mut peers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for _ in 0..100 {
        let told = http.get("/x").unwrap().json();
        let of = |key: &str| told[key].as_str().unwrap().to_owned();
        peers.entry(of("server")).or_default().insert(of("peer"));
    }
    assert_eq!(peers.len(), 2, "{peers:?}");
    // One after the other they need one connection per thread of HAProxy.
    assert!(peers.values().all(|connections| connections.len() < 10), "{peers:?}");
}

#[test]
fn statuses_that_may_be_tried_again_are_for_idempotent_requests() {
    let mut world = World::new(2);
    world.configure(|settings| settings.balance.retry_statuses = vec![503]);
    world.start_agent();
    world.wait_for_servers(2);
    let http = Http::new(format!("http://{}", world.http()));
    for _ in 0..10 {
        let reply = http.get("/unavailable/server1").unwrap();
        assert_eq!((reply.status, &reply.json()["server"]), (200, &"server2".into()));
    }
    let posts: BTreeSet<u16> =
        (0..4).map(|_| http.post("/unavailable/server1", "text/plain", b"x").unwrap().status).collect();
    assert_eq!(posts, BTreeSet::from([200, 503]), "a POST may have had an effect");
}

#[test]
fn a_server_that_does_not_take_connections_up_is_passed_over() {
    let mut world = World::new(2);
    world.configure(|settings| {
        settings.timeouts.connect_ms = 200;
        // Only what requests themselves find out counts here.
        settings.balance.check_ms = 60_000;
        settings.balance.check_timeout_ms = 60_000;
        settings.balance.fall = 100;
    });
    world.start_agent();
    world.wait_for_servers(2);
    let stopped = world.servers[0].as_ref().unwrap().id();
    signal(stopped, Signal::SIGSTOP);
    let http = Http::new(format!("http://{}", world.http()));
    for _ in 0..4 {
        let reply = http.post("/x", "text/plain", b"x").unwrap();
        assert_eq!((reply.status, &reply.json()["server"]), (200, &"server2".into()), "nothing was sent yet");
    }
    signal(stopped, Signal::SIGCONT);
}

#[test]
fn while_no_server_is_ready_those_that_take_connections_answer() {
    let mut world = World::running(2);
    let load = world.load();
    let away = ["server1.away", "server2.away"].map(|name| world.home().join(name));
    away.iter().for_each(|path| std::fs::write(path, "").unwrap());
    world.wait_for_servers(0);
    load.wait_for_more(150);
    let sent = |world: &World| {
        world.stats().unwrap()["traffic"]["while_none_was_ready"]["sessions_total"].as_u64().unwrap()
    };
    assert!(sent(&world) >= 150);
    // Not those that are to get nothing, and not those that are gone.
    world.tell(&[("server1", "draining", "drained"), ("server2", "ready", "serving")]);
    wait_until("the other answers alone", || answering(&world, 8) == BTreeSet::from(["server2".to_owned()]));
    world.tell_all();
    wait_until("both answer", || answering(&world, 8).len() == 2);
    world.kill_server(1);
    load.wait_for_more(150);
    std::fs::remove_file(&away[1]).unwrap();
    world.wait_for_servers(1);
    let (before, load) = (sent(&world), {
        load.wait_for_more(60);
        load
    });
    load.wait_for_more(60);
    assert_eq!(sent(&world), before, "whoever is ready gets everything");
    let account = load.stop();
    show("none ready", &account);
    assert_eq!(account.lost("GET") + account.lost("PUT"), 0);
    assert!(account.lost("POST") <= 12, "what the killed server had in hand: {account}");
}

#[test]
fn a_server_that_says_it_is_not_ready_gets_nothing() {
    let world = World::running(2);
    let load = world.load();
    let away = world.home().join("server1.away");
    std::fs::write(&away, "").unwrap();
    world.wait_for_servers(1);
    let before = requests_of(&world, 1);
    load.wait_for_more(60);
    assert_eq!(requests_of(&world, 1), before);
    std::fs::remove_file(away).unwrap();
    world.wait_for_servers(2);
    let account = load.stop();
    show("not ready", &account);
    assert_eq!(account.lost(""), 0);
}
