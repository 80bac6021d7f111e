//! What a person sees of a swarm: why it came so, how it goes, and accounts that add up.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use dfs_tests::{Body, Cluster, Origin};
use serde_json::Value;

use crate::recovery::spoil;
use crate::support::ledger::Account;
use crate::support::{Agent, Expected, Place, Running, all, binaries, told, until};

const MIB: u64 = 1 << 20;

/// A cluster whose seed sends no faster than this.
fn slow_seed(place: &Place, rate: &str) -> Cluster {
    let config = place.path("cluster.toml");
    fs::write(&config, format!("[seed]\nupload-rate = \"{rate}\"\n")).unwrap();
    let extra = ["--config", config.to_str().unwrap()];
    Cluster::start_with(&binaries(), place.root(), &extra).unwrap()
}

fn start_get(agent: &Agent, url: &str, place: &Place) -> (Running, PathBuf) {
    let output = place.path(&format!("out-{}", agent.node.name()));
    let words = ["get", url, "-o", output.to_str().unwrap(), "--format", "json"];
    (agent.dfctl_start(&words), output)
}

/// What `dfctl why` says to programs.
fn why(agent: &Agent, what: &str) -> Value {
    let said = agent.dfctl(&["why", what, "--format", "json"]).done().json().unwrap();
    assert_eq!(said["kind"], "why", "{said}");
    said["items"][0].clone()
}

/// What is told of a node.
fn told_of(why: &Value, node: &str, event: &str) -> Vec<Value> {
    let entries = why["evidence"].as_array().unwrap().iter();
    entries.filter(|one| one["node"] == node && one["event"] == event).cloned().collect()
}

fn peer<'a>(swarm: &'a Value, node: &str) -> &'a Value {
    let peers = swarm["peers"].as_array().unwrap();
    peers.iter().find(|peer| peer["node"] == node).unwrap_or_else(|| panic!("{swarm}"))
}

#[test]
fn a_parent_that_is_killed_in_the_middle_is_named_with_the_reason() {
    let place = Place::new();
    let body = Body::noise(1, 32 * MIB);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let url = origin.url("/f");
    let cluster = slow_seed(&place, "12MiB/s");
    let mut parent = Agent::of_with(&cluster, &place, "parent", &["--upload-rate", "12MiB/s"]);
    start_get(&parent, &url, &place).0.wait().done();
    let child = Agent::of(&cluster, &place, "child");
    let third = Agent::of(&cluster, &place, "third");
    let (getting, output) = start_get(&child, &url, &place);
    until("the child takes from the parent", || parent.metric("dfs_node_served_bytes_total") > MIB);
    parent.kill();
    getting.wait().done();
    assert!(fs::read(&output).unwrap() == all(&body));
    let said = why(&third, &url);
    assert!(!told_of(&said, "parent", "silent").is_empty(), "{said}");
    assert_eq!(peer(&said, "parent")["standing"]["word"], "silent", "{said}");
    let mut failed = told_of(&said, "child", "failed");
    // The scheduler may be the first to know.
    failed.extend(told_of(&said, "child", "let-down"));
    let by_parent = |one: &Value| {
        let is_reason = one["failure"] == "disconnected" || one["failure"] == "timeout";
        one["parent"] == "parent" && (is_reason || one["event"] == "let-down")
    };
    assert!(failed.iter().any(by_parent), "{said}");
    let granted = told_of(&said, "child", "scheduled");
    let has_scores = |one: &Value| one["candidates"][0]["scores"]["sum"].is_number();
    assert!(granted.iter().any(has_scores), "{said}");
    let id = said["task"]["id"].as_str().unwrap();
    let page = third.dfctl(&["why", &id[..12], "--node", "child"]).done().text();
    assert!(page.contains("parents: "), "{page}");
    let reasons = ["broke the connection", "did not answer", "is not heard of any more"];
    assert!(reasons.iter().any(|reason| page.contains(&format!("parent {reason}"))), "{page}");
    let page = third.dfctl(&["why", &url]).done().text();
    assert!(page.contains("its connection to the scheduler broke"), "{page}");
    assert!(page.contains("counts as gone in"), "{page}");
}

#[test]
fn a_liar_is_shown_with_who_found_out() {
    let place = Place::new();
    let body = Body::noise(2, 32 * MIB);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let url = origin.url("/f");
    let cluster = slow_seed(&place, "12MiB/s");
    let liar = Agent::of(&cluster, &place, "liar");
    start_get(&liar, &url, &place).0.wait().done();
    assert!(spoil(liar.data(), body.length().unwrap()) > 0);
    let victim = Agent::of(&cluster, &place, "victim");
    let (getting, output) = start_get(&victim, &url, &place);
    getting.wait().done();
    assert!(fs::read(&output).unwrap() == all(&body));
    until("the liar is blacklisted", || {
        why(&victim, &url)["blacklisted"] == serde_json::json!(["liar"])
    });
    let said = why(&victim, &url);
    let found = told_of(&said, "liar", "blacklisted");
    assert_eq!(found[0]["found_by"], "victim", "{said}");
    let failed = told_of(&said, "victim", "failed");
    let lied = |one: &Value| one["parent"] == "liar" && one["failure"] == "bad-digest";
    assert!(failed.iter().any(lied), "{said}");
    let page = victim.dfctl(&["why", &url]).done().text();
    assert!(page.contains("BLACKLISTED  liar: sent bytes that did not verify"), "{page}");
    assert!(page.contains("its bytes did not verify, as victim found"), "{page}");
    assert_eq!(cluster.process().metric("dfs_scheduler_blacklisted_total").unwrap(), 1.0);
}

#[test]
fn a_file_that_the_kernel_shows_by_itself_has_a_task_as_in_every_lane() {
    let place = Place::new();
    let origin = Origin::of("/d/large", Body::noise(1, 9 * MIB)).unwrap();
    origin.put("/d/dir/small", Body::noise(2, 100));
    origin.put("/d/empty", Body::noise(3, 0));
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let (node, other) = (Agent::of(&cluster, &place, "node"), Agent::solo(&place, "other"));
    let (url, usual, kernel) = (origin.url("/d/"), place.dir("usual"), place.dir("kernel"));
    node.mount_in("fuse", &url, usual.clone());
    let files = ["large", "dir/small"];
    // All of it is here: the kernel needs nobody.
    files.iter().for_each(|name| drop(fs::read(usual.join(name)).unwrap()));
    node.mount_in("kernel", &url, kernel.clone());
    for name in files {
        let task = xattr::get(usual.join(name), "user.dfs.task").unwrap().unwrap();
        let task = String::from_utf8(task).unwrap();
        let file = kernel.join(name);
        assert_eq!(xattr::get(&file, "user.dfs.task").ok().flatten(), None, "the kernel shows it");
        until("the scheduler knows it", || node.dfctl(&["why", &task]).code == 0);
        let said = why(&node, file.to_str().unwrap());
        assert_eq!(said["task"]["id"], *task, "{said}");
        node.dfctl(&["task", "watch", "--once", file.to_str().unwrap()]).done();
    }
    let of = |name: &str| kernel.join(name).to_str().unwrap().to_owned();
    let said = node.dfctl(&["why", &of("dir")]).fails(3, "DFS-4124");
    assert!(said.stderr.contains("is a directory"), "{}", said.stderr);
    let said = node.dfctl(&["why", &of("empty")]).fails(3, "DFS-4124");
    assert!(said.stderr.contains("has no content"), "{}", said.stderr);
    // Whose it is not says what to type; the kernel does not tell whom to ask.
    let said = other.dfctl(&["why", &of("large")]).fails(1, "DFS-5106");
    let typed = format!("dfctl --socket PATH why {}", of("large"));
    assert!(said.stderr.contains(&typed), "{}", said.stderr);
}

/// The events that a command has told until now, whole lines.
fn events(running: &Running) -> Vec<Value> {
    let text = String::from_utf8(running.stdout()).unwrap();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_swarm_is_watched_in_a_pipe_and_listed_at_once() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(3, 48 * MIB)).unwrap();
    let url = origin.url("/f");
    let cluster = slow_seed(&place, "6MiB/s");
    let watcher = Agent::of(&cluster, &place, "watcher");
    watcher.dfctl(&["task", "watch", &url]).fails(3, "DFS-4124");
    watcher.dfctl(&["why", "0123456789abcdef"]).fails(3, "DFS-4124");
    let node = Agent::of(&cluster, &place, "node");
    let (getting, _) = start_get(&node, &url, &place);
    until("the scheduler knows it", || watcher.dfctl(&["task", "watch", &url, "--once"]).code == 0);
    let watching = watcher.dfctl_start(&["task", "watch", &url, "--format", "jsonl"]);
    let lines = watcher.dfctl_start(&["task", "watch", &url]);
    let held = |event: &Value| {
        let peers = event["peers"].as_array().unwrap();
        let node = peers.iter().find(|peer| peer["node"] == "node");
        node.map_or(0, |node| node["held_bytes"].as_u64().unwrap())
    };
    until("it moves", || {
        let events = events(&watching);
        let first = events.first().map_or(0, held);
        events.iter().any(|event| held(event) > first && event["rate"].as_u64() > Some(0))
    });
    until("people see it too", || String::from_utf8_lossy(&lines.stdout()).contains("taking"));
    let top = watcher.dfctl(&["top", "--once", "--format", "json"]).done().json().unwrap();
    assert_eq!(
        (&top["kind"], &top["items"][0]["task"]["url"]),
        (&"swarms".into(), &url.as_str().into())
    );
    let page = watcher.dfctl(&["top", "--once"]).done().text();
    assert!(page.starts_with("1 task, ") && page.contains(&url[..20]), "{page}");
    watching.interrupt().exits(130);
    lines.interrupt().exits(130);
    getting.wait().done();
    until("it is complete", || {
        let page = watcher.dfctl(&["task", "watch", &url, "--once"]).done().text();
        page.lines().any(|line| line.starts_with("node ") && line.ends_with("complete"))
    });
    let bytes = "dfs_scheduler_taken_bytes_total{from=\"seed\"}";
    until("what came of it is counted", || {
        cluster.process().metric(bytes).is_ok_and(|bytes| bytes == (48 * MIB) as f64)
    });
}

#[test]
fn a_swarm_is_drawn_in_place_on_a_terminal_until_ctrl_c() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(4, 8 * MIB)).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let node = Agent::of(&cluster, &place, "node");
    start_get(&node, &origin.url("/f"), &place).0.wait().done();
    let shown = place.path("shown");
    let mut command = Command::new("script");
    command.args(["-qec", &format!("dfctl task watch {}", origin.url("/f")), "/dev/null"]);
    told(&mut command, node.socket());
    let screen = File::create(&shown).unwrap();
    let mut terminal =
        command.stdin(Stdio::piped()).stdout(screen).stderr(Stdio::null()).spawn().unwrap();
    let read = || String::from_utf8_lossy(&fs::read(&shown).unwrap()).into_owned();
    until("it is drawn", || read().contains("━━━━━━━━━━━━━━━━"));
    // One line up for each that was drawn before.
    let is_up = |rest: &str| rest.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('A');
    until("it is drawn again in its place", || read().split("\u{1b}[").any(is_up));
    let mut keys = terminal.stdin.take().unwrap();
    keys.write_all(b"\x03").unwrap();
    keys.flush().unwrap();
    let mut ended = None;
    until("Ctrl-C ends it", || {
        ended = terminal.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(130), "{}", read());
}

#[test]
fn a_file_in_a_mount_leads_to_its_task() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(5, 3 * MIB)).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let node = Agent::of(&cluster, &place, "node");
    let dir = node.mount(&origin.url("/d/"), place.path("mount"));
    fs::read(dir.join("f")).unwrap();
    let file = dir.join("f");
    let said = why(&node, file.to_str().unwrap());
    let first = |said: &Value| said["evidence"][0]["at"].as_str().unwrap().to_owned();
    let at = first(&said);
    for _ in 0..5 {
        assert_eq!(first(&why(&node, file.to_str().unwrap())), at, "it was when it was");
    }
    let id = xattr::get(&file, "user.dfs.task").unwrap().unwrap();
    assert_eq!(said["task"]["id"].as_str().unwrap().as_bytes(), id, "{said}");
    let stranger = place.path("stranger");
    fs::write(&stranger, "x").unwrap();
    node.dfctl(&["why", stranger.to_str().unwrap()]).fails(3, "DFS-4124");
    node.dfctl(&["why", file.to_str().unwrap(), "--node", "nodf"]).fails(3, "DFS-4125");
    node.dfctl(&["why", "nothing"]).fails(2, "DFS-1001");
    let alone = Agent::solo(&place, "alone");
    alone.dfctl(&["why", "0123"]).fails(5, "DFS-4119");
}

#[test]
fn every_byte_of_a_swarm_is_accounted_for() {
    let place = Place::new();
    let body = Body::noise(6, 64 * MIB + 12_345);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let url = origin.url("/f");
    let cluster = slow_seed(&place, "40MiB/s");
    let names = ["a", "b", "c"];
    let agents: Vec<Agent> = names.iter().map(|name| Agent::of(&cluster, &place, name)).collect();
    let getting: Vec<_> = agents
        .iter()
        .map(|agent| {
            let output = place.path(&format!("out-{}", agent.node.name()));
            let words = ["get", &url, "-o", output.to_str().unwrap(), "--explain"];
            (agent.dfctl_start(&words), output)
        })
        .collect();
    for (running, output) in getting {
        let said = running.wait().done();
        assert!(fs::read(&output).unwrap() == all(&body));
        let page = format!("{}{}", said.text(), said.stderr);
        assert!(page.contains("✓ equals the result"), "{page}");
        fs::remove_file(&output).unwrap();
    }
    // The accounts of the nodes name each other, and what they took is what came.
    let mut between = 0;
    for agent in &agents {
        let listed = agent.dfctl(&["task", "ls", "--format", "json"]).done().json().unwrap();
        let task =
            listed["items"].as_array().unwrap().iter().find(|it| it["task"]["length"] == length);
        let account = Account::of(&task.unwrap()["ledger"]);
        assert_eq!((account.total(), account.cache, account.source), (length, 0, 0), "{account:?}");
        between += account.peers + account.seed;
    }
    assert_eq!(between, 3 * length);
    until("the scheduler has heard of all of it", || {
        let said = why(&agents[0], &url);
        names.iter().all(|name| peer(&said, name)["held_bytes"] == length)
            && said["source_bytes"] == length
            && said["taken_bytes"] == 3 * length
    });
    // From the cache once more: nothing else is said to have come.
    let output = place.path("again");
    let words = ["get", &url, "-o", output.to_str().unwrap(), "--format", "json"];
    let said = agents[0].dfctl(&words).done().json().unwrap();
    let account = Account::of(&said["ledger"]);
    assert_eq!(account, Account { cache: length, ..Account::default() });
}
