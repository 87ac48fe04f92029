//! What becomes of requests while servers come and go and the configuration changes.

use crosstie_test_support::{Account, wait_until};

use crate::world::World;

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
