//! Root starts an environment, and its service user runs it. Skipped for everybody else.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crosstie_test_support::{Command, Environment, Http, PortBase, wait_until};
use nix::unistd::{User, geteuid};
use serde_json::json;

const SERVICE: &str = "from crosstie import Service, rest\nimport os\n\nclass Who(Service):\n    name = \"who\"\n    \
    channels = [rest(\"GET\", \"/who\")]\n\n    def handle(self):\n        \
    self.response.payload = {\"uids\": os.getresuid(), \"groups\": os.getgroups(), \"home\": os.environ[\"HOME\"]}\n";

fn as_root() -> bool {
    if !geteuid().is_root() {
        println!("skipped: only root can become somebody else");
    }
    geteuid().is_root()
}

/// Everything below `directory` that belongs to root.
fn of_root(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(status) = fs::symlink_metadata(&path) else { continue };
        if status.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().flatten().map(|entry| entry.path()));
        }
        if status.uid() == 0 {
            found.push(path);
        }
    }
    found
}

fn uids(pid: i32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().to_owned();
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn what_root_starts_runs_as_the_service_user_on_a_privileged_port() {
    if !as_root() {
        return;
    }
    let environment = Environment::builder().create().unwrap();
    let port = (600..1024).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    environment.set("server.http", &format!("\"127.0.0.1:{port}\"")).unwrap();
    environment.start_again().unwrap();

    let user = User::from_name("crosstie").unwrap().expect("quickstart made the user");
    let wanted = vec![user.uid.to_string(); 4];
    let processes = environment.processes();
    assert!(processes.len() > 1);
    processes.iter().for_each(|process| assert_eq!(uids(process.pid), wanted, "{process:?}"));
    assert_eq!(of_root(&environment.root()), Vec::<PathBuf>::new());

    // Root drops a file, and its service is nobody special.
    environment.drop_file("who.py", SERVICE).unwrap();
    let http = Http::new(format!("http://127.0.0.1:{port}"));
    let uid = user.uid.as_raw();
    let answer = json!({"uids": [uid, uid, uid], "groups": [user.gid.as_raw()], "home": user.dir});
    wait_until("the service says who it is", || {
        http.get("/who").is_ok_and(|reply| reply.status == 200 && reply.json() == answer)
    });

    // What root edits is validated and committed like anybody's edit, and repositories stay usable.
    environment.set("server.drain_linger_s", "1").unwrap();
    wait_until("the edit is committed", || {
        environment.json(&["config", "log"]).is_ok_and(|log| log.as_array().is_some_and(|log| log.len() > 1))
    });
    environment.stop().unwrap();
    environment.start_again().unwrap();
    wait_until("it is served again", || http.get("/who").is_ok_and(|reply| reply.status == 200));
    let left: Vec<_> = of_root(&environment.server().join("config"));
    assert_eq!(left, Vec::<PathBuf>::new(), "a start gives away what root left");
    environment.stop().unwrap();
}

#[test]
fn root_stays_root_only_with_a_warning_or_when_told_to() {
    if !as_root() {
        return;
    }
    for (mode, told) in [(0o700, None), (0o755, Some("root"))] {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).unwrap();
        let directory = place.path().join("env");
        let ports = PortBase::reserve().unwrap();
        let base = ports.number().to_string();
        let arguments = ["quickstart", directory.to_str().unwrap(), "--port-base", &base];
        let user = told.map_or_else(Vec::new, |name| vec!["--user", name]);
        Command::new().unwrap().args(arguments).args(&user).run().unwrap().success().unwrap();
        let pid = fs::read_to_string(directory.join("server1/work/server.pid")).unwrap();
        let uids = uids(pid.trim().parse().unwrap());
        let said = fs::read_to_string(directory.join("server1/logs/console.log")).unwrap();
        Command::new()
            .unwrap()
            .args(["stop".as_ref(), directory.as_path()])
            .run()
            .unwrap()
            .success()
            .unwrap();
        assert_eq!(uids, ["0"; 4]);
        assert_eq!(said.contains("run as root"), told.is_none(), "{said}");
    }
}

#[test]
fn a_user_who_is_named_must_exist() {
    if !as_root() {
        return;
    }
    let environment = Environment::builder().setting("server.user", "\"no-such-user\"").create().unwrap();
    let refused = environment.run(&["start"]).unwrap();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("there is no user no-such-user"), "{}", refused.stderr);
}
