//! Whom the agent and HAProxy run as.

use crosstie_test_support::processes::is_alive;
use crosstie_test_support::{Http, wait_until};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};

use crate::deaths::worker;
use crate::world::{World, signal};

/// The user ids of a process: real, effective, saved, of the file system.
fn uids(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().map(|uid| uid.parse().unwrap()).collect()
}

/// The settings and snippets that the agent obeys are their owner's, who must not become root by them.
#[test]
fn root_becomes_the_owner_of_the_directory_and_loses_nothing_by_it() {
    if !Uid::effective().is_root() {
        println!("this is not root, which has something to give up");
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let mut world = World::new(2);
    world.give_balancer_to(&nobody);
    world.start_agent();
    world.wait_for_servers(2);
    let load = world.load();
    let http = Http::new(format!("http://{}", world.http()));
    let all_are_nobody = |world: &World| {
        for pid in [world.agent(), world.haproxy(), worker(world)] {
            assert_eq!(uids(pid), [nobody.uid.as_raw(); 4]);
        }
    };
    all_are_nobody(&world);
    world.snippet("frontend-a.cfg", "http-request return status 418 if { path /teapot }\n");
    wait_until("the snippet is in use", || http.get("/teapot").unwrap().status == 418);
    assert_eq!(load.stop().lost(""), 0);
    // Whether an agent started HAProxy or took it over, it holds the sockets.
    for adopted in [false, true] {
        if adopted {
            world.kill_agent();
            world.start_agent();
            wait_until("HAProxy is taken over", || world.stats().unwrap()["haproxy"]["adopted"] == true);
            all_are_nobody(&world);
        }
        let before = world.haproxy();
        signal(worker(&world), Signal::SIGKILL);
        wait_until("HAProxy is gone", || !is_alive(i32::try_from(before).unwrap()));
        for _ in 0..20 {
            let _: std::net::TcpStream = std::net::TcpStream::connect(world.http()).unwrap();
        }
        assert_eq!(http.get("/x").unwrap().status, 200);
        wait_until("another HAProxy runs", || world.haproxy() != before);
        all_are_nobody(&world);
    }
}

/// In a directory of root's, as tests make it otherwise, HAProxy alone gives root up.
#[test]
fn in_a_directory_of_roots_haproxy_runs_as_its_user() {
    if !Uid::effective().is_root() {
        println!("this is not root, which has something to give up");
        return;
    }
    let world = World::running(1);
    let haproxy = User::from_name("haproxy").unwrap().unwrap();
    assert_eq!(uids(world.agent()), [0; 4]);
    assert_eq!(uids(worker(&world)), [haproxy.uid.as_raw(); 4]);
}
