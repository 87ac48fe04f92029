//! Root starts a server, and somebody else runs it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::process::Command;

use crosstie_process::adopt::adopt;
use crosstie_process::pidfile::{self, Signal};
use crosstie_process::privilege::{self, PrivilegeError, ServiceUser, Standing};
use serde_json::json;

use crate::Test;
use crate::server::{PATIENCE, Server, wait_until};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_server_of_root_becomes_its_user_and_keeps_a_privileged_port,
    workers_of_a_dropped_supervisor_die_with_it,
    what_root_left_is_given_away_and_nothing_outside_is_touched,
    a_user_who_is_named_must_exist_and_get_there,
    the_owner_of_the_directory_is_whom_a_server_becomes,
    acting_as_somebody_ends_with_the_act,
];

/// A user every Debian has.
pub(crate) const USER: &str = "nobody";

/// Whether the test can be run; says so when it cannot.
pub(crate) fn as_root() -> bool {
    if !privilege::is_root() {
        eprintln!("skipped: only root can become somebody else");
    }
    privilege::is_root()
}

/// Runs a test in a process of its own: effective ids belong to all threads, and other tests are running.
fn alone(name: &str, test: fn()) {
    const MARK: &str = "CROSSTIE_TEST_ALONE";
    if !as_root() {
        return;
    }
    if std::env::var_os(MARK).is_some() {
        return test();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--test-threads", "1"]).env(MARK, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn nobody() -> ServiceUser {
    ServiceUser::by_name(USER).unwrap().unwrap()
}

fn uid() -> u32 {
    nix::unistd::User::from_name(USER).unwrap().unwrap().uid.as_raw()
}

/// A field of /proc/PID/status.
fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) fn assert_dropped(pid: u32) {
    let uid = uid();
    assert_eq!(status(pid, "Uid"), format!("{uid} {uid} {uid} {uid}"));
    assert!(!status(pid, "Groups").split(' ').any(|group| group == "0"), "root's groups are gone");
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
}

pub(crate) fn privileged_address() -> SocketAddr {
    let free = (600..1024).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    free.into_iter().find(|address| TcpListener::bind(address).is_ok()).unwrap()
}

fn a_server_of_root_becomes_its_user_and_keeps_a_privileged_port() {
    if !as_root() {
        return;
    }
    let mut server = Server::start_at(privileged_address(), 2, json!({"user": USER}), &[]);
    assert!(server.address.port() < 1024);
    assert_dropped(server.pid());
    let before = server.pids();
    before.iter().for_each(|pid| assert_dropped(*pid));
    for entry in ["", "work", "work/server.pid", "plan.json"] {
        assert_eq!(fs::metadata(server.path(entry)).unwrap().uid(), uid(), "{entry:?}");
    }
    // Starting, replacing and rolling workers needs nothing of root's.
    pidfile::signal(before[0], Signal::Kill).unwrap();
    wait_until("another worker", || server.pids().len() == 2 && !server.pids().contains(&before[0]));
    server.change_plan(json!({"mark": "second"}));
    server.signal(Signal::Reload);
    wait_until("new workers", || {
        server.pids().len() == 2 && server.pids().iter().all(|pid| !before.contains(pid))
    });
    server.pids().into_iter().for_each(assert_dropped);
    server.signal(Signal::Stop);
    assert!(server.wait_end().success());
}

fn workers_of_a_dropped_supervisor_die_with_it() {
    if !as_root() {
        return;
    }
    let server = Server::start_with(1, json!({"user": USER}), &[]);
    let workers = server.pids();
    server.signal(Signal::Kill);
    for pid in workers {
        assert!(pidfile::wait_gone(pid, PATIENCE).unwrap(), "worker {pid} outlived its supervisor");
    }
}

fn what_root_left_is_given_away_and_nothing_outside_is_touched() {
    if !as_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (outside, inside) = (place.path().join("outside"), place.path().join("inside"));
    fs::create_dir(&outside).unwrap();
    fs::create_dir_all(inside.join("deep/er")).unwrap();
    for file in [outside.join("secret"), outside.join("linked"), inside.join("deep/er/file")] {
        fs::write(file, "x").unwrap();
    }
    fs::write(inside.join("theirs"), "x").unwrap();
    chown(inside.join("theirs"), Some(1), Some(1)).unwrap();
    symlink(&outside, inside.join("directory")).unwrap();
    symlink(outside.join("secret"), inside.join("file")).unwrap();
    fs::hard_link(outside.join("linked"), inside.join("second-name")).unwrap();
    assert_eq!(adopt(&inside, &nobody()).unwrap(), 6, "three directories, a file and two links");
    let owner = |path: &str| fs::symlink_metadata(place.path().join(path)).unwrap().uid();
    for path in
        ["inside", "inside/deep", "inside/deep/er", "inside/deep/er/file", "inside/directory", "inside/file"]
    {
        assert_eq!(owner(path), uid(), "{path}");
    }
    for path in ["outside", "outside/secret", "outside/linked", "inside/second-name"] {
        assert_eq!(owner(path), 0, "{path}");
    }
    assert_eq!(owner("inside/theirs"), 1);
    assert_eq!(adopt(&inside, &nobody()).unwrap(), 0, "nothing is left to give");
    // The tree itself may be a link that somebody put there.
    symlink(&outside, place.path().join("planted")).unwrap();
    adopt(&place.path().join("planted"), &nobody()).unwrap();
    assert_eq!(owner("outside"), 0);
}

fn a_user_who_is_named_must_exist_and_get_there() {
    alone("a_user_who_is_named_must_exist_and_get_there", || {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("environment/server1");
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let choose = |name| Standing::choose(&directory, &directory, name);
        assert!(matches!(choose(Some("no-such-user")), Err(PrivilegeError::Unknown { .. })));
        assert_eq!(choose(Some("root")).unwrap(), Standing::Root { reason: None });
        let refused = choose(Some(USER)).unwrap_err();
        assert!(
            matches!(&refused, PrivilegeError::NoEntry { path, .. } if path == place.path()),
            "{refused}"
        );
        // Nobody was named, and the directory is root's: root may stay, with a reason.
        assert!(matches!(choose(None).unwrap(), Standing::Root { reason: Some(_) }));
        chown(&directory, Some(uid()), None).unwrap();
        assert!(
            matches!(choose(None), Err(PrivilegeError::NoEntry { .. })),
            "what is theirs root does not run"
        );
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(choose(Some(USER)).unwrap(), Standing::Drop(nobody()));
    });
}

fn the_owner_of_the_directory_is_whom_a_server_becomes() {
    alone("the_owner_of_the_directory_is_whom_a_server_becomes", || {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let directory = place.path().join("server1");
        fs::create_dir(&directory).unwrap();
        chown(&directory, Some(uid()), None).unwrap();
        assert_eq!(Standing::choose(&directory, &directory, None).unwrap(), Standing::Drop(nobody()));
        // Containers give directories to users that have no name inside.
        chown(&directory, Some(54_321), Some(54_321)).unwrap();
        let standing = Standing::choose(&directory, &directory, None).unwrap();
        assert!(matches!(standing, Standing::Drop(user) if user.name() == "54321"));
    });
}

fn acting_as_somebody_ends_with_the_act() {
    alone("acting_as_somebody_ends_with_the_act", || {
        let place = tempfile::tempdir().unwrap();
        let secret = place.path().join("secret");
        fs::write(&secret, "x").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(nobody().act(|| fs::read(&secret).is_err()).unwrap());
        assert!(privilege::is_root() && fs::read(&secret).is_ok());
    });
}
