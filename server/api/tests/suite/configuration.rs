//! The history of the configuration and going back in it.

use std::fs;

use crosstie_config::repository::ClusterCommit;
use crosstie_model::{Event, Revision};
use serde_json::{Value, json};

use crate::world::{ADMIN, OPERATOR, World, unit};

const FIRST: &str = "[server]\nname = \"server1\"\nhttp = \"127.0.0.1:17010\"\n\n[management]\naddress = \"127.0.0.1:17110\"\n";

/// A world whose server.toml has two commits: the port of the first is 17010, of the second 17011.
async fn with_history() -> (World, Vec<String>) {
    let world = World::new().await;
    let config = world.directory.path().join("config");
    fs::create_dir_all(&config).unwrap();
    for (text, message) in [(FIRST.to_owned(), "First"), (FIRST.replace("17010", "17011"), "Move")] {
        fs::write(config.join("server.toml"), text).unwrap();
        world.operations.in_config_repository(move |r| r.commit_all("ada", message)).await.unwrap();
    }
    let log = world.get("/config/log").await;
    let commits = log.json.as_array().unwrap().iter().map(|c| c["commit"].as_str().unwrap().to_owned());
    let commits: Vec<_> = commits.collect();
    assert_eq!(log.json[0]["message"], "Move", "{}", log.text);
    assert_eq!(log.json[0]["author"], "ada");
    (world, commits)
}

#[tokio::test]
async fn the_log_and_differences_of_the_servers_files_are_shown() {
    let (world, commits) = with_history().await;
    for commit in [&commits[0][..8], "HEAD"] {
        let diff = world.get(&format!("/config/diff/{commit}")).await;
        let text = diff.json["diff"].as_str().unwrap();
        assert!(text.contains("+http = \"127.0.0.1:17011\"") && text.contains("-http = \"127.0.0.1:17010\""));
    }
    for bad in ["zz", "00000000"] {
        let answer = world.get(&format!("/config/diff/{bad}")).await;
        assert_eq!((answer.status, answer.problem()), (400, "invalid-request"), "{}", answer.text);
    }
    assert_eq!(world.get("/config/log?limit=1").await.json.as_array().unwrap().len(), 1);
    assert_eq!(world.get("/config/log?repository=cluster").await.json, json!([]));
}

#[tokio::test]
async fn the_servers_files_go_back_and_the_workers_are_told() {
    let (world, commits) = with_history().await;
    world.change_settings(|settings| settings.server.http = Some("127.0.0.1:17011".parse().unwrap()));
    let answer = world.call(ADMIN, "POST", "/config/rollback", json!({"to": commits[1][..10]})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["needs_restart"], json!(["server.http"]));
    let text = fs::read_to_string(world.directory.path().join("config/server.toml")).unwrap();
    assert_eq!(text, FIRST);
    assert!(world.host.events.lock().unwrap().contains(&Event::SettingsChanged));
    assert_eq!(world.get("/config/log").await.json[0]["author"], "admin");
}

#[tokio::test]
async fn going_back_to_settings_that_are_not_valid_changes_nothing() {
    let (world, _) = with_history().await;
    let config = world.directory.path().join("config/server.toml");
    fs::write(&config, FIRST.replace("[management]", "[managment]")).unwrap();
    let bad = world.operations.in_config_repository(|r| r.commit_all("ada", "Typo")).await.unwrap().unwrap();
    fs::write(&config, FIRST).unwrap();
    world.operations.in_config_repository(|r| r.commit_all("ada", "Mend")).await.unwrap();
    let answer = world.call(ADMIN, "POST", "/config/rollback", json!({"to": bad.to_string()})).await;
    assert_eq!((answer.status, answer.problem()), (422, "invalid-documents"), "{}", answer.text);
    assert!(answer.json["faults"].as_array().unwrap().iter().any(|f| f["line"] == 5), "{}", answer.text);
    assert_eq!(fs::read_to_string(&config).unwrap(), FIRST);
    assert!(!world.host.events.lock().unwrap().contains(&Event::SettingsChanged));
    for body in [json!({}), json!({"to": "ab", "revision": 1})] {
        let answer = world.call(ADMIN, "POST", "/config/rollback", body).await;
        assert_eq!((answer.status, answer.problem()), (400, "invalid-request"));
    }
}

#[tokio::test]
async fn going_back_to_user_files_that_are_not_valid_puts_everything_back() {
    let (world, _) = with_history().await;
    let user = world.directory.path().join("config/user");
    fs::create_dir_all(&user).unwrap();
    fs::write(user.join("crm.toml"), "url = ").unwrap();
    let bad = world.operations.in_config_repository(|r| r.commit_all("ada", "Typo")).await.unwrap().unwrap();
    fs::write(user.join("crm.toml"), "url = \"x\"\n").unwrap();
    world.operations.in_config_repository(|r| r.commit_all("ada", "Mend")).await.unwrap();
    let answer = world.call(ADMIN, "POST", "/config/rollback", json!({"to": bad.to_string()})).await;
    assert_eq!((answer.status, answer.problem()), (422, "invalid-documents"), "{}", answer.text);
    assert_eq!(answer.json["faults"][0]["file"], "config/user/crm.toml", "{}", answer.text);
    assert_eq!(fs::read_to_string(user.join("crm.toml")).unwrap(), "url = \"x\"\n");
    assert!(!world.host.events.lock().unwrap().contains(&Event::SettingsChanged));
}

/// Definitions and deployments at revision 2 (`/a`, first version), changed since.
async fn with_past() -> World {
    let world = World::new().await;
    world.upload("crm", unit(&[("crm.get", "")])).await;
    world.apply("channel:\n  a:\n    type: rest\n    path: /a\n    service: crm.get\n").await;
    world.apply("channel:\n  a:\n    type: rest\n    path: /b\n    service: crm.get\n").await;
    world.upload("crm", unit(&[("crm.get", ""), ("crm.put", "")])).await;
    world.upload("late", unit(&[("late.one", "")])).await;
    world.apply("dictionary:\n  late:\n    entries: {}\n").await;
    world
}

#[tokio::test]
async fn definitions_and_deployments_go_back_to_a_revision_together() {
    let world = with_past().await;
    let body = json!({"repository": "cluster", "revision": 2});
    let answer = world.call(ADMIN, "POST", "/config/rollback?wait_ms=1000", body).await;
    assert_eq!((answer.status, answer.json["revision"].clone()), (200, json!(7)), "{}", answer.text);
    let (now, past) = (world.odb.snapshot().await.unwrap(), world.odb.state_at(Revision(2)).await.unwrap());
    assert_eq!(now.definitions, past.snapshot.definitions);
    assert_eq!(now.units, past.snapshot.units);
    assert_eq!(world.get("/audit?after=6").await.json[0]["message"], "Roll back to revision 2");
    let answer =
        world.call(ADMIN, "POST", "/config/rollback", json!({"repository": "cluster", "revision": 99})).await;
    assert_eq!((answer.status, answer.problem()), (404, "not-found"), "{}", answer.text);
}

#[tokio::test]
async fn a_commit_of_the_clusters_repository_names_its_revision() {
    let world = with_past().await;
    let row = |revision: u64| ClusterCommit {
        revision: Revision(revision),
        author: "olga".into(),
        time_us: 1_700_000_000_000_000,
        message: format!("Change {revision}"),
        files: vec![("channel/a.yaml".to_owned(), Some(format!("# {revision}\n")))],
    };
    let rows: Vec<_> = (1..=6).map(row).collect();
    world.operations.in_cluster_repository(move |r| r.append(&rows)).await.unwrap();
    let log = world.get("/config/log?repository=cluster").await;
    assert_eq!(log.json[4]["revision"], 2, "{}", log.text);
    let commit = log.json[4]["commit"].as_str().unwrap();
    let diff = world.get(&format!("/config/diff/{commit}?repository=cluster")).await;
    assert!(diff.json["diff"].as_str().unwrap().contains("+# 2"), "{}", diff.text);
    let body = json!({"repository": "cluster", "to": commit});
    let answer = world.call(ADMIN, "POST", "/config/rollback?wait_ms=1000", body).await;
    assert_eq!(answer.json["revision"], 7, "{}", answer.text);
    let channel = world.get("/definitions/channel/a").await;
    assert_eq!(channel.json["body"]["path"], "/a");
}

#[tokio::test]
async fn a_past_state_that_breaks_todays_rules_is_refused() {
    let world = with_past().await;
    world.change_settings(|settings| settings.security.require_security = true);
    let body = json!({"repository": "cluster", "revision": 2});
    let answer = world.call(ADMIN, "POST", "/config/rollback", body).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"), "{}", answer.text);
    assert!(answer.detail().contains("require_security"), "{}", answer.text);
    assert_eq!(world.revision().await, 6);
}

#[tokio::test]
async fn a_past_deployment_that_is_no_longer_kept_is_named() {
    let world = World::new().await;
    for i in 0..22 {
        world.upload("hello", unit(&[(&format!("demo.s{i}"), "")])).await;
    }
    let body = json!({"repository": "cluster", "revision": 1});
    let answer = world.call(ADMIN, "POST", "/config/rollback", body).await;
    assert_eq!((answer.status, answer.problem()), (422, "refused"), "{}", answer.text);
    assert!(answer.detail().contains("no longer kept: hello"), "{}", answer.text);
    let _: Value = world.call(OPERATOR, "GET", "/deployments/hello/history", Value::Null).await.json;
}
