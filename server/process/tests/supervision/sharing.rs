//! What the workers of a server share: the singleton's lock, counts, limits and events.

use crosstie_process::pidfile::{self, Signal};

use crate::Test;
use crate::server::{Client, Server, number, wait_for, wait_until};

pub(crate) const TESTS: &[Test] = crate::tests![
    the_singleton_lock_passes_on_when_its_holder_is_killed,
    counts_survive_a_worker_and_what_it_held_does_not,
    a_rate_limit_is_exact_over_all_workers,
    a_concurrency_limit_is_exact_over_all_workers,
    an_event_reaches_every_worker_its_sender_included,
    a_forked_child_holds_nothing_of_its_worker,
];

fn singletons(server: &Server) -> Vec<u32> {
    let views = server.workers();
    views.iter().filter(|view| view["singleton"] == true).map(|view| number(&view["pid"])).collect()
}

/// One connection to each worker.
fn one_client_each(server: &Server) -> Vec<Client> {
    let mut clients: Vec<(u32, Client)> = Vec::new();
    let wanted = server.pids().len();
    // Connections in hand make the others accept: nobody closes what it got.
    let mut rest = Vec::new();
    wait_until("a connection to each worker", || {
        let mut client = server.connect();
        let pid = client.pid();
        if clients.iter().any(|(known, _)| *known == pid) {
            rest.push(client);
        } else {
            clients.push((pid, client));
        }
        clients.len() == wanted
    });
    clients.into_iter().map(|(_, client)| client).collect()
}

fn the_singleton_lock_passes_on_when_its_holder_is_killed() {
    let server = Server::start(3);
    for _ in 0..3 {
        let holder = wait_for("a singleton", || match singletons(&server)[..] {
            [holder] => Some(holder),
            _ => None,
        });
        pidfile::signal(holder, Signal::Kill).unwrap();
        wait_until("another singleton", || matches!(singletons(&server)[..], [next] if next != holder));
        server.wait_ready();
    }
}

fn counts_survive_a_worker_and_what_it_held_does_not() {
    let server = Server::start(1);
    let mut client = server.connect();
    let pid = client.pid();
    assert_eq!((client.ask("count requests"), client.ask("count requests")), ("1".into(), "2".into()));
    assert_eq!(client.ask("gauge crm 1"), "true");
    client.say("hold");
    client.hear().unwrap();
    pidfile::signal(pid, Signal::Kill).unwrap();
    assert_eq!(server.ask("count requests"), "3");
    assert_eq!(server.ask("in-use crm"), "0");
    // The connection and the request that ask are the only ones.
    wait_until("the totals of the living", || server.ask("totals") == "1 1");
    assert_eq!(server.ask("gauge crm 1"), "true");
}

fn a_rate_limit_is_exact_over_all_workers() {
    let server = Server::start(3);
    let allowed: usize = std::thread::scope(|scope| {
        let asking: Vec<_> = one_client_each(&server)
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || (0..200).filter(|_| client.ask("rate 42 150") == "true").count())
            })
            .collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(allowed, 150);
}

fn a_concurrency_limit_is_exact_over_all_workers() {
    let server = Server::start(3);
    let mut clients = one_client_each(&server);
    let granted =
        clients.iter_mut().flat_map(|client| (0..4).map(|_| client.ask("gauge crm 5")).collect::<Vec<_>>());
    assert_eq!(granted.filter(|answer| answer == "true").count(), 5);
    assert_eq!(clients[2].ask("in-use crm"), "5");
}

fn an_event_reaches_every_worker_its_sender_included() {
    let server = Server::start(3);
    let mut clients = one_client_each(&server);
    clients[1].ask("event");
    clients[1].ask("event");
    for client in &mut clients {
        wait_until("both events", || client.ask("events") == "CertificatesChanged,CertificatesChanged");
    }
}

fn a_forked_child_holds_nothing_of_its_worker() {
    let server = Server::start(1);
    let mut other = server.connect();
    other.pid();
    // In the child: forked, an empty segment, no descriptor but its pipe. In the parent: its count, its
    // permit, and not forked.
    assert_eq!(server.ask("fork"), "true 0 0 7 1 false");
    other.pid();
}
