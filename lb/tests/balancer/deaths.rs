//! What users see when a part dies: a server, the agent, HAProxy.

use std::net::TcpStream;

use crosstie_lb::runtime::Processes;
use crosstie_test_support::processes::{is_alive, tree};
use crosstie_test_support::wait_until;
use nix::sys::signal::Signal;

use crate::traffic::show;
use crate::world::{World, signal};

/// HAProxy's worker; after a reload the new one, though the old may still be at its last connections.
pub(crate) fn worker(world: &World) -> u32 {
    let master = i32::try_from(world.haproxy()).unwrap();
    let children = tree(master);
    let workers = children.iter().filter(|process| process.parent == master).map(|process| process.pid);
    // The youngest has the highest id.
    u32::try_from(workers.max().unwrap()).unwrap()
}

#[test]
fn a_killed_server_costs_no_idempotent_request() {
    let mut world = World::running(2);
    let load = world.load();
    for _ in 0..5 {
        world.kill_server(1);
        load.wait_for_more(150);
        world.start_server(1);
        world.wait_for_servers(2);
    }
    let account = load.stop();
    show("killed servers", &account);
    assert_eq!(account.lost("GET"), 0);
    assert_eq!(account.lost("PUT"), 0);
    // A POST in the hands of the server that died may not be sent again.
    assert!(account.lost("POST") <= 5 * 12, "{account}");
}

#[test]
fn a_killed_agent_is_not_missed_and_the_next_one_takes_haproxy_over() {
    let mut world = World::running(2);
    let (master, before) = (world.haproxy(), worker(&world));
    let load = world.load();
    world.kill_agent();
    load.wait_for_more(150);
    world.start_agent();
    world.tell(&[("server1", "ready", "serving"), ("server2", "ready", "drained")]);
    world.wait_for_servers(1);
    let account = load.stop();
    show("a killed agent", &account);
    assert_eq!(account.lost(""), 0);
    assert_eq!((world.haproxy(), worker(&world)), (master, before));
    let stats = world.stats().unwrap();
    assert_eq!((&stats["haproxy"]["adopted"], &stats["haproxy"]["starts"]), (&true.into(), &0.into()));
}

#[test]
fn a_killed_haproxy_worker_is_replaced_at_once_and_nobody_is_refused() {
    let mut world = World::running(2);
    // Once by the agent that started it and once by one that took it over.
    for adopted in [false, true] {
        if adopted {
            world.kill_agent();
            world.start_agent();
            wait_until("HAProxy is taken over", || world.stats().unwrap()["haproxy"]["adopted"] == true);
        }
        let before = world.haproxy();
        signal(worker(&world), Signal::SIGKILL);
        wait_until("the worker's master is gone", || !is_alive(i32::try_from(before).unwrap()));
        // The sockets are the agent's as well: whoever connects waits and is served.
        for _ in 0..20 {
            let _: TcpStream = TcpStream::connect(world.http()).unwrap();
        }
        let reply = crosstie_test_support::Http::new(format!("http://{}", world.http())).get("/x").unwrap();
        assert_eq!(reply.status, 200);
        assert_ne!(world.haproxy(), before);
    }
}

#[test]
fn a_killed_haproxy_costs_only_what_it_held() {
    let world = World::running(2);
    let load = world.load();
    let kills = 5;
    for round in 1..=kills {
        let victim = if round % 2 == 0 { world.haproxy() } else { worker(&world) };
        signal(victim, Signal::SIGKILL);
        wait_until("HAProxy runs again", || {
            world.stats().unwrap()["haproxy"]["starts"].as_u64() == Some(1 + round)
        });
        load.wait_for_more(150);
    }
    let account = load.stop();
    show("killed HAProxy", &account);
    // Each of the twelve clients has one request with HAProxy at most when it dies.
    assert!(account.lost("") <= kills * 12, "{account}");
    let refused =
        account.failed.keys().any(|(_, phase)| *phase == crosstie_test_support::load::Phase::Connect);
    assert!(!refused, "{account}");
}

#[test]
fn stopping_the_agent_stops_haproxy_and_lets_requests_finish() {
    let mut world = World::running(1);
    let address = world.http();
    let slow = std::thread::spawn(move || {
        crosstie_test_support::Http::new(format!("http://{address}")).get("/wait/1000").unwrap().status
    });
    wait_until("the request is under way", || {
        world.stats().unwrap()["traffic"]["servers_together"]["sessions"] == 1
    });
    // An idle connection keeps nobody waiting.
    let _idle = TcpStream::connect(address).unwrap();
    let master = world.haproxy();
    let begin = std::time::Instant::now();
    world.stop_agent();
    println!("stopped after {:?}", begin.elapsed());
    assert_eq!(slow.join().unwrap(), 200);
    assert!(!is_alive(i32::try_from(master).unwrap()));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn the_masters_own_words_are_understood() {
    let world = World::running(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let socket = world.balancer().join("work/master-1.sock");
    let said = runtime.block_on(crosstie_lb::runtime::ask(&socket, "show proc")).unwrap();
    let processes = Processes::parse(&said).unwrap();
    assert_eq!(processes.master, world.haproxy());
    assert_eq!(processes.worker, Some(worker(&world)));
}
