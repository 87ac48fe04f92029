//! Running out of file descriptors: in a program of its own, as the limit is the whole process's.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
#![expect(dead_code, reason = "the support of the other tests, of which this one needs little")]

#[path = "http/support/mod.rs"]
mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use support::{Setup, eventually};

#[test]
fn a_server_without_descriptors_goes_on_when_there_are_some_again() {
    let server =
        Setup::new().channel("echo", json!({"type": "rest", "path": "/echo", "service": "echo"})).start();
    let mut served = server.connect();
    assert_eq!(served.get("/echo", "").status, 200);

    // Three connections wait in the kernel's queue: one accept is under way and takes the first of four.
    let share = &server.setup.share;
    eventually("the next accept", || share.asked.load(Ordering::SeqCst) >= 2);
    share.refuses.store(true, Ordering::SeqCst);
    let mut waiting: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.send("GET /echo HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    eventually("the first of them", || server.http.connections() == 2);

    // From here on nothing can be opened, so accept(2) fails with EMFILE.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    share.refuses.store(false, Ordering::SeqCst);
    // The connection that is open is served meanwhile.
    for _ in 0..20 {
        assert_eq!(served.get("/echo", "").status, 200);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.http.connections(), 2);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    for client in &mut waiting {
        assert_eq!(client.read(false).unwrap().status, 200);
    }
}
