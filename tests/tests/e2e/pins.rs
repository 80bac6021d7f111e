//! The cache as paths of mounts name it: what of them is here, what is kept whole whatever happens, what is hashed again.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::Duration;

use dfs_tests::process::Said;
use dfs_tests::{Body, Fault, Origin};
use serde_json::Value;

use crate::support::{Agent, Expected, Place, Running, all, dfctl_at, is_mounted, until};

const MIB: u64 = 1 << 20;

fn items(said: &Said) -> Vec<Value> {
    let said = said.json().unwrap_or_else(|error| panic!("{error}: {}", said.stderr));
    said["items"].as_array().unwrap().clone()
}

/// A directory of two models at an origin.
fn models() -> Origin {
    let origin = Origin::of("/m/llama/a.bin", Body::noise(1, 3 * MIB + 7)).unwrap();
    origin.put("/m/llama/b.bin", Body::noise(2, 2 * MIB));
    origin.put("/m/other/c.bin", Body::noise(3, 4 * MIB));
    origin.put("/m/note", Body::noise(4, 1000));
    origin
}

const LLAMA: u64 = 5 * MIB + 7;

/// What `cache ls` says of `path`, by name.
fn listed(agent: &Agent, path: &Path) -> Vec<(String, u64, u64, bool)> {
    let said = agent.dfctl(&["cache", "ls", "--format", "json", path.to_str().unwrap()]).done();
    let row = |item: &Value| {
        let number = |key: &str| item[key].as_u64().unwrap();
        let name = item["path"].as_str().unwrap().to_owned();
        (name, number("bytes"), number("cached_bytes"), item["pinned"] == true)
    };
    items(&said).iter().map(row).collect()
}

fn pins(agent: &Agent) -> Vec<Value> {
    items(&agent.dfctl(&["cache", "ls", "--pins", "--format", "json"]).done())
}

fn state(agent: &Agent) -> String {
    match &pins(agent)[..] {
        [] => "none".to_owned(),
        [pin] => pin["state"].as_str().unwrap().to_owned(),
        more => panic!("{more:?}"),
    }
}

#[test]
fn what_of_a_path_is_here_is_listed_for_each_entry() {
    let (place, origin) = (Place::new(), models());
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/m/"), place.dir("mount"));
    let nothing = listed(&agent, &dir);
    let names: Vec<_> = nothing.iter().map(|row| row.0.as_str()).collect();
    assert_eq!(names, [dir.to_str().unwrap(), "llama", "note", "other"]);
    assert_eq!((nothing[1].1, nothing[1].2), (LLAMA, 0));
    fs::read(dir.join("llama/b.bin")).unwrap();
    let rows = listed(&agent, &dir.join("llama"));
    assert_eq!(rows[2], ("b.bin".to_owned(), 2 * MIB, 2 * MIB, false));
    assert!(rows[0].2 >= 2 * MIB && rows[0].2 < LLAMA, "{rows:?}");
    // Relative, and through links.
    symlink(dir.join("llama"), place.path("link")).unwrap();
    let mut command = agent.node.dfctl_command().unwrap();
    command.current_dir(place.root()).args(["cache", "ls", "link/b.bin"]);
    let said = Said::by(&mut command).unwrap().done();
    assert!(said.text().contains("2.0 MiB   all"), "{}", said.text());
    let said = agent.dfctl(&["cache", "ls", "-n", "1", dir.to_str().unwrap()]).done();
    assert!(said.text().contains("… and 2 more entries"), "{}", said.text());
    assert!(said.text().contains("4 files"), "{}", said.text());
    // What could be the beginning of a task's id and is a mount is the mount.
    agent.mount(&origin.url("/m/"), place.dir("ca"));
    let mut command = agent.node.dfctl_command().unwrap();
    command.current_dir(place.root()).args(["cache", "ls", "--format", "json", "ca"]);
    let rows = items(&Said::by(&mut command).unwrap().done());
    assert_eq!((&rows[0]["path"], &rows[0]["files"]), (&"ca".into(), &4.into()), "{rows:?}");
}

#[test]
fn a_part_that_is_pinned_is_made_whole_and_the_rest_is_not_fetched() {
    let (place, origin) = (Place::new(), models());
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/m/"), place.dir("mount"));
    let part = dir.join("llama");
    let said = agent.dfctl(&["cache", "pin", "--wait", part.to_str().unwrap()]).done();
    assert!(
        said.text().contains("pinned") && said.text().contains("all of it here"),
        "{}",
        said.text()
    );
    let rows = listed(&agent, &dir);
    assert_eq!((rows[1].2, rows[1].3), (LLAMA, true), "{rows:?}");
    // The first group of it, of 64 KiB, has the end of what was wanted in it.
    assert!(rows[3].2 < 65_536, "nobody wanted the other one: {rows:?}");
    agent.dfctl(&["cache", "pin", "--wait", part.to_str().unwrap()]).done();
    agent.dfctl(&["cache", "pin", part.to_str().unwrap()]).exits(9);
    assert_eq!(pins(&agent).len(), 1);

    // One task of it does not go by itself.
    let tasks = items(&agent.dfctl(&["cache", "ls", "--format", "json"]).done());
    let pinned: Vec<_> = tasks.iter().filter(|task| task["pinned"] == true).collect();
    assert!(pinned.len() >= 2, "its index and its content: {tasks:?}");
    let id = pinned[0]["task"]["id"].as_str().unwrap();
    agent.dfctl(&["cache", "unpin", id]).fails(1, "DFS-4117");

    let said = agent.dfctl(&["cache", "unpin", part.join("a.bin").to_str().unwrap()]).exits(9);
    assert!(said.stderr.contains("pinned as a part only"), "{}", said.stderr);
    agent.dfctl(&["cache", "unpin", part.to_str().unwrap()]).done();
    let tasks = items(&agent.dfctl(&["cache", "ls", "--format", "json"]).done());
    assert!(tasks.iter().all(|task| task["pinned"] == false), "{tasks:?}");
    agent.dfctl(&["cache", "unpin", part.to_str().unwrap()]).exits(9);
    assert!(fs::read_dir(agent.data().join("pins")).unwrap().next().is_none());
}

#[test]
fn a_pin_is_never_evicted_and_is_there_without_its_origin() {
    let (place, origin) = (Place::new(), models());
    let mut agent = Agent::solo_with(&place, "agent", &["--capacity", "64MiB"]);
    let url = format!("{}!llama", origin.url("/m/"));
    agent.dfctl(&["cache", "pin", "--wait", &url]).done();
    // Everything else makes room for everything else.
    for number in 0..12 {
        let path = format!("/big/{number}");
        origin.put(&path, Body::noise(100 + number, 10 * MIB));
        agent.dfctl(&["cat", &origin.url(&path)]).done();
    }
    agent.dfctl(&["cache", "gc", "--target", "0B"]);
    let pin = &pins(&agent)[0];
    assert_eq!((&pin["state"], &pin["cached_bytes"]), (&"whole".into(), &pin["bytes"]), "{pin}");
    let dir = agent.mount(&origin.url("/m/"), place.dir("mount"));
    let before = origin.counters().body_bytes;
    assert!(fs::read(dir.join("llama/a.bin")).unwrap() == all(&Body::noise(1, 3 * MIB + 7)));
    assert_eq!(origin.counters().body_bytes, before, "all of it was here");
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    agent.terminate();
    agent.start_again();
    until("it is found whole again", || state(&agent) == "whole");
    agent.dfctl(&["cache", "unpin", &url]).done();
    agent.dfctl(&["cache", "gc", "--target", "0B"]).done();
    assert_eq!(items(&agent.dfctl(&["cache", "ls", "--format", "json"]).done()).len(), 0);
}

#[test]
fn filling_goes_on_after_the_agent_was_killed() {
    let (place, origin) = (Place::new(), models());
    let mut agent = Agent::solo_with(&place, "agent", &["--holder", "off"]);
    let stalled = origin.inject(Fault::stall_after(MIB).on("/m/other/c.bin"));
    agent.dfctl(&["cache", "pin", &origin.url("/m/")]).done();
    until("it is under way", || stalled.struck() > 0);
    assert_ne!(state(&agent), "whole");
    agent.kill();
    stalled.lift();
    agent.start_again();
    until("it is whole", || state(&agent) == "whole");
    let dir = agent.mount(&origin.url("/m/"), place.dir("mount"));
    let rows = listed(&agent, &dir);
    assert!(rows.iter().all(|row| row.1 == row.2 && row.3), "{rows:?}");
}

#[test]
fn readers_do_not_wait_for_what_is_fetched_for_a_pin() {
    let (place, origin) = (Place::new(), models());
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/m/"), place.dir("mount"));
    let stalled = origin.inject(Fault::stall_after(MIB).on("/m/llama/a.bin"));
    agent.dfctl(&["cache", "pin", dir.to_str().unwrap()]).done();
    until("it stands still", || stalled.struck() > 0);
    assert!(fs::read(dir.join("other/c.bin")).unwrap() == all(&Body::noise(3, 4 * MIB)));
    assert_ne!(state(&agent), "whole");
    stalled.lift();
    until("it is whole", || state(&agent) == "whole");
}

#[test]
fn who_waits_for_a_pin_is_told_that_its_origin_is_gone_and_it_goes_on_when_that_is_back() {
    let (place, origin) = (Place::new(), models());
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/m/"), place.dir("mount"));
    let broken = origin.inject(Fault::status(503));
    let mut command = agent.node.dfctl_command().unwrap();
    command.args(["--progress", "plain", "cache", "pin", "--wait"]).arg(&dir);
    let waiting = Running::start(command);
    until("it waits", || state(&agent) == "waiting");
    let pin = &pins(&agent)[0];
    assert!(pin["why"].as_str().unwrap().contains("503"), "{pin}");
    broken.lift();
    waiting.wait().done();
    assert_eq!(state(&agent), "whole");
}

#[test]
fn more_than_there_is_room_for_is_refused_before_anything_is_fetched() {
    let (place, origin) = (Place::new(), models());
    origin.put("/large/a", Body::noise(9, 46 * MIB));
    origin.put("/large/b", Body::noise(10, 40 * MIB));
    let agent = Agent::solo_with(&place, "agent", &["--capacity", "64MiB"]);
    let said = agent.dfctl(&["cache", "pin", &origin.url("/large/")]).fails(7, "DFS-4128");
    assert!(said.stderr.contains("it takes 86.0 MiB"), "{}", said.stderr);
    assert!(said.stderr.contains("has room for 60.0 MiB"), "{}", said.stderr);
    assert_eq!(origin.counters().path("/large/a").body_bytes, 0);
    assert_eq!(pins(&agent).len(), 0);
    // What is promised to others counts, and what is in both counts once.
    let url = format!("{}!a", origin.url("/large/"));
    agent.dfctl(&["cache", "pin", "--wait", &url]).done();
    agent.dfctl(&["cache", "pin", "--wait", &origin.url("/m/")]).done();
    let part = format!("{}!llama", origin.url("/m/"));
    agent.dfctl(&["cache", "pin", "--wait", &part]).done();
    let url = format!("{}!b", origin.url("/large/"));
    let said = agent.dfctl(&["cache", "pin", &url]).fails(7, "DFS-4128");
    assert!(said.stderr.contains("are pinned already"), "{}", said.stderr);
}

#[test]
fn pins_that_have_no_room_are_in_no_others_way() {
    let (place, origin) = (Place::new(), models());
    for (name, length) in [("large", 40), ("one", 20), ("other", 20)] {
        origin.put(&format!("/{name}/f"), Body::noise(length, length * MIB));
    }
    let agent = Agent::solo_with(&place, "agent", &["--capacity", "64MiB"]);
    let note = format!("{}!note", origin.url("/m/"));
    agent.dfctl(&["cat", &note]).done();
    // What is mounted is in use: there is room for one of them.
    let dir = agent.mount(&origin.url("/large/"), place.dir("mount"));
    fs::read(dir.join("f")).unwrap();
    let state = |url: &str| {
        let pins = pins(&agent);
        let pin = pins.iter().find(|pin| pin["url"] == url).unwrap();
        let text = |key: &str| pin[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("why"))
    };
    let full = ["one", "other"].map(|name| origin.url(&format!("/{name}/")));
    // Who makes room may take what was opened only now.
    let pin = |url: &str| until("it is pinned", || agent.dfctl(&["cache", "pin", url]).code == 0);
    full.iter().for_each(|url| pin(url));
    until("neither has room", || {
        full.iter().all(|url| state(url) == ("waiting".to_owned(), "room in the cache".to_owned()))
    });
    // All of it is here.
    pin(&note);
    until("it has its turn", || state(&note).0 == "whole");
    assert!(full.iter().all(|url| state(url).0 != "whole"));
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    until("there is room", || full.iter().all(|url| state(url).0 == "whole"));
}

#[test]
fn what_was_kept_by_hand_stays_and_two_pins_keep_what_they_share() {
    let (place, origin) = (Place::new(), models());
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/m/"), place.dir("mount"));
    fs::read(dir.join("note")).unwrap();
    let rows = items(&agent.dfctl(&["task", "ls", "--format", "json"]).done());
    let id = rows[0]["task"]["id"].as_str().unwrap().to_owned();
    agent.dfctl(&["cache", "pin", &id]).done();
    let url = origin.url("/m/");
    let part = format!("{url}!llama");
    agent.dfctl(&["cache", "pin", "--wait", &url]).done();
    agent.dfctl(&["cache", "pin", "--wait", &part]).done();
    agent.dfctl(&["cache", "unpin", &url]).done();
    let rows = listed(&agent, &dir.join("llama"));
    assert!(rows[0].3, "the other pin keeps it: {rows:?}");
    agent.dfctl(&["cache", "unpin", &part]).done();
    let tasks = items(&agent.dfctl(&["task", "ls", "--format", "json"]).done());
    let kept: Vec<_> = tasks.iter().filter(|task| task["pinned"] == true).collect();
    assert_eq!(kept.len(), 1, "{tasks:?}");
    assert_eq!(kept[0]["task"]["id"], id);
}

#[test]
fn what_is_kept_by_hand_while_a_pin_has_it_stays_when_that_is_lifted() {
    let (place, origin) = (Place::new(), models());
    let mut agent = Agent::solo_with(&place, "agent", &["--holder", "off"]);
    let url = origin.url("/m/");
    agent.dfctl(&["cache", "pin", "--wait", &url]).done();
    let tasks = |agent: &Agent| items(&agent.dfctl(&["task", "ls", "--format", "json"]).done());
    let id = tasks(&agent)[0]["task"]["id"].as_str().unwrap().to_owned();
    agent.dfctl(&["cache", "pin", &id]).done();
    // Once is enough, and it is written down.
    agent.dfctl(&["cache", "pin", &id]).exits(9);
    agent.kill();
    agent.start_again();
    agent.dfctl(&["cache", "unpin", &url]).done();
    let tasks = tasks(&agent);
    let kept: Vec<_> = tasks.iter().filter(|task| task["pinned"] == true).collect();
    assert_eq!(kept.len(), 1, "{tasks:?}");
    assert_eq!(kept[0]["task"]["id"], *id);
}

#[test]
fn damage_behind_a_path_is_found_and_fetched_again() {
    let (place, origin) = (Place::new(), models());
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/m/"), place.dir("mount"));
    let file = dir.join("llama/a.bin");
    let right = fs::read(&file).unwrap();
    let shown = file.to_str().unwrap();
    agent.dfctl(&["cache", "verify", shown]).done();
    let damage = || {
        let task = xattr::get(&file, "user.dfs.task").unwrap().unwrap();
        let task = String::from_utf8(task).unwrap();
        let content = agent.data().join("tasks").join(&task[..2]).join(&task).join("content");
        let content = File::options().read(true).write(true).open(content).unwrap();
        let mut all = vec![0; content.metadata().unwrap().len() as usize];
        content.read_exact_at(&mut all, 0).unwrap();
        let at = all.windows(64).position(|window| window == &right[5000..5064]).unwrap();
        content.write_all_at(&[!all[at]], at as u64).unwrap();
    };
    damage();
    let said = agent.dfctl(&["cache", "verify", shown]).fails(6, "DFS-3104");
    assert!(said.text().contains("1 damaged"), "{}", said.text());
    let rows = listed(&agent, &file);
    assert!(rows[0].2 < rows[0].1, "it is missing now: {rows:?}");
    let inside = format!("{}!llama/a.bin", origin.url("/m/"));
    assert!(agent.dfctl(&["cat", &inside]).done().stdout == right, "it is fetched when it is read");
    agent.dfctl(&["cache", "verify", "--repair", shown]).done();
    damage();
    let said = agent.dfctl(&["cache", "verify", "--repair", shown]).done();
    assert!(said.text().contains("1 fetched again"), "{}", said.text());
    let rows = listed(&agent, &file);
    assert_eq!(rows[0].2, rows[0].1);
    assert!(fs::read(&file).unwrap() == right);
}

#[test]
fn what_lies_behind_a_url_is_removed_without_its_origin() {
    let (place, origin) = (Place::new(), models());
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/m/"), place.dir("mount"));
    fs::read(dir.join("llama/b.bin")).unwrap();
    let url = origin.url("/m/");
    agent.dfctl(&["cache", "rm", "--yes", dir.to_str().unwrap()]).fails(1, "DFS-4117");
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    drop(origin);
    until("nobody uses it", || agent.dfctl(&["cache", "rm", "--yes", &url]).code == 0);
    agent.dfctl(&["cache", "rm", "--yes", &url]).fails(3, "DFS-4116");
    assert_eq!(items(&agent.dfctl(&["cache", "ls", "--format", "json"]).done()).len(), 0);
}

#[test]
fn what_another_agent_serves_is_said_with_what_to_type() {
    let (place, origin) = (Place::new(), models());
    let (own, other) = (Agent::solo(&place, "own"), Agent::solo(&place, "other"));
    let dir = other.mount(&origin.url("/m/"), place.dir("mount"));
    let (dir, socket) = (dir.to_str().unwrap(), other.socket().to_str().unwrap());
    let told = |said: Said, typed: &str| {
        let typed = format!("dfctl --socket {socket} {typed}");
        assert!(said.stderr.contains(&typed), "no {typed}: {}", said.stderr);
    };
    let llama = format!("{dir}/llama");
    for command in ["ls", "pin", "unpin", "verify", "rm"] {
        let said = own.dfctl(&["cache", command, &llama]).fails(1, "DFS-5106");
        told(said, &format!("cache {command} {llama}"));
    }
    let nobody = dfctl_at("/nonexistent/sock".as_ref(), &["cache", "ls", &llama]);
    told(nobody.fails(1, "DFS-5106"), &format!("cache ls {llama}"));
    told(own.dfctl(&["umount", dir]).fails(1, "DFS-5106"), &format!("umount {dir}"));
    told(own.dfctl(&["mounts", dir]).fails(1, "DFS-5106"), &format!("mounts {dir}"));
    told(own.dfctl(&["mounts"]).done(), "mounts");
    let file = format!("{llama}/a.bin");
    let said = dfctl_at("/nonexistent/sock".as_ref(), &["why", &file]);
    told(said, &format!("why {file}"));
    let said = own.dfctl(&["why", dir]).fails(3, "DFS-4124");
    assert!(said.stderr.contains("is a directory"), "{}", said.stderr);
    assert!(is_mounted(dir.as_ref()));
}

#[test]
fn a_mount_says_what_its_readers_met() {
    let (place, origin) = (Place::new(), models());
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/m/"), place.dir("mount"));
    let reads = || {
        let said = agent.dfctl(&["mounts", "--format", "json", dir.to_str().unwrap()]).done();
        said.json().unwrap()["reads"].clone()
    };
    assert_eq!((&reads()["count"], &reads()["wait_p99_ms"]), (&0.into(), &Value::Null));
    fs::read(dir.join("llama/a.bin")).unwrap();
    let told = reads();
    assert!(told["waits"].as_u64().unwrap() > 0, "{told}");
    assert!(told["bytes"].as_u64().unwrap() >= 3 * MIB, "{told}");
    assert!(told["wait_p99_ms"].as_f64() >= told["wait_p50_ms"].as_f64(), "{told}");
    assert_eq!(told["errors"], 0, "{told}");
    let held = origin.inject(Fault::gate().on("/m/other/c.bin"));
    let reader = crate::support::reading(&dir.join("other/c.bin"));
    until("somebody waits", || reads()["waiting"].as_u64() > Some(0));
    held.lift();
    reader.join().unwrap().unwrap();
    until("nobody waits", || reads()["waiting"] == 0);
    let late = origin.inject(Fault::late(Duration::from_millis(1200)).on("/m/llama/b.bin"));
    fs::read(dir.join("llama/b.bin")).unwrap();
    late.lift();
    assert!(reads()["stalls"].as_u64() > Some(0), "{}", reads());
    let broken = origin.inject(Fault::status(404).on("/m/note"));
    assert!(fs::read(dir.join("note")).is_err());
    broken.lift();
    assert!(reads()["errors"].as_u64() > Some(0), "{}", reads());
    let shown = agent.dfctl(&["mounts", dir.to_str().unwrap()]).done();
    assert!(shown.text().contains("99 % within"), "{}", shown.text());
    assert!(agent.metric("dfs_node_reads_total") > 0);
}
