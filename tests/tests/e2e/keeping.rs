//! What a person says of the cache by hand: pins and removals.

use dfs_tests::{Body, Origin};

use crate::support::{Agent, Expected, Place, binary, runs, typed_at, until};

/// What is known of the one task of this length.
fn listed(agent: &Agent, length: u64) -> Option<serde_json::Value> {
    let listed = agent.dfctl(&["cache", "ls", "--format", "json"]).done().json().unwrap();
    let items = listed["items"].as_array().unwrap();
    items.iter().find(|item| item["task"]["length"] == length).cloned()
}

fn id_of(agent: &Agent, length: u64) -> String {
    listed(agent, length).unwrap()["task"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_pinned_task_outlives_a_crash_and_an_eviction_of_everything() {
    let place = Place::new();
    let origin = Origin::of("/kept", Body::noise(1, 5_000_000)).unwrap();
    origin.put("/other", Body::noise(2, 700_000));
    let mut agent = Agent::solo(&place, "agent");
    agent.dfctl(&["cat", "--range", "0-999999", &origin.url("/kept")]).done();
    agent.dfctl(&["cat", &origin.url("/other")]).done();
    let id = id_of(&agent, 5_000_000);
    let held = agent.cached(5_000_000);
    assert!((1_000_000..5_000_000).contains(&held), "a part of it: {held}");

    agent.dfctl(&["cache", "pin", &id[..10]]).done();
    agent.dfctl(&["cache", "pin", &id]).exits(9);
    agent.kill();
    agent.start_again();
    agent.dfctl(&["cache", "gc", "--target", "0"]).done();
    assert_eq!(agent.cached(700_000), 0, "everything else went");
    assert_eq!(agent.cached(5_000_000), held, "what was here of it stayed");
    agent.dfctl(&["cat", &origin.url("/kept")]).done();
    agent.dfctl(&["cache", "gc", "--target", "0"]).exits(9);
    assert_eq!(agent.cached(5_000_000), 5_000_000, "and what came to be here");
    let shown = agent.dfctl(&["cache", "ls"]).done().text();
    assert!(shown.contains("  pinned  "), "{shown}");

    agent.dfctl(&["cache", "unpin", &id]).done();
    agent.dfctl(&["cache", "gc", "--target", "0"]).done();
    assert!(listed(&agent, 5_000_000).is_none());
}

#[test]
fn a_task_under_a_mount_is_removed_only_once_nothing_uses_it() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 9_000_000)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    std::fs::read(dir.join("f")).unwrap();
    let used = || {
        let tasks = agent.dfctl(&["task", "ls", "--format", "json"]).done().json().unwrap();
        let mut tasks = tasks["items"].as_array().unwrap().clone();
        tasks.retain(|task| task["task"]["kind"] != "index");
        tasks.sort_by_key(|task| task["cached_bytes"].as_u64());
        tasks.pop()
    };
    let id = used().unwrap()["task"]["id"].as_str().unwrap().to_owned();
    let said = agent.dfctl(&["task", "rm", "--yes", &id]).fails(1, "DFS-4117");
    assert!(said.stderr.contains("--wait"), "{}", said.stderr);
    let waiting = agent.dfctl_start(&["task", "rm", "--wait", "--yes", &id]);
    until("it says what it waits for", || waiting.stderr().contains("a mount shows it"));
    assert!(runs(&waiting.pid().to_string()));
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    let said = waiting.wait().done();
    assert!(said.text().starts_with("removed  "), "{}", said.text());
    agent.dfctl(&["task", "show", &id]).fails(3, "DFS-4116");
    agent.dfctl(&["task", "rm", "--yes", &id]).fails(3, "DFS-4116");
}

#[test]
fn a_removal_asks_at_a_terminal_and_refuses_without_one() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(1, 100_000)).unwrap();
    let agent = Agent::solo(&place, "agent");
    agent.dfctl(&["cat", &origin.url("/f")]).done();
    let id = id_of(&agent, 100_000);
    agent.dfctl(&["cache", "rm", &id]).fails(2, "DFS-1109");
    agent.dfctl(&["cache", "rm", "--dry-run", &id]).done();
    let command = format!("{} cache rm {id}", binary("dfctl").display());
    let no = typed_at(&command, agent.socket(), &["n"]);
    assert!(no.contains("[y/N]") && no.contains("nothing was removed"), "{no}");
    assert_eq!(id_of(&agent, 100_000), id);
    let yes = typed_at(&command, agent.socket(), &["y"]);
    assert!(yes.contains("removed  "), "{yes}");
    assert!(listed(&agent, 100_000).is_none());
    agent.dfctl(&["cat", &origin.url("/f")]).done();
}
