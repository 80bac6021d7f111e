//! Manager, scheduler and seed as processes of their own, and what the loss of each costs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use dfs_tests::process::Said;
use dfs_tests::{Body, Dfctl, Fault, Node, Origin};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::ledger::Account;
use crate::support::site::{Site, visitor};
use crate::support::{Agent, Expected, Place, Running, binaries, until};

const MIB: u64 = 1 << 20;

#[test]
fn commands_without_an_agent_are_peers_and_cost_the_origin_one_copy() {
    let place = Place::new();
    let body = Body::noise(5, 24 * MIB + 9);
    let length = body.length().unwrap();
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let pace = origin.inject(Fault::pace(16 * MIB));
    let site = Site::start(&place);
    let at = site.manager.address("grpc").unwrap();
    let url = origin.url("/d/f");
    let getting: Vec<_> = (0..4)
        .map(|number| {
            let output = place.path(&format!("out-{number}"));
            let mut command = visitor(&place, at, &format!("own-{number}"));
            command.args(["get", &url, "--format", "json", "-o"]).arg(&output);
            (Running::start(command), output)
        })
        .collect();
    let wanted = body.read(0, length).unwrap();
    for (getting, output) in getting {
        let said = getting.wait().done();
        let account = Account::of(&said.json().unwrap()["ledger"]);
        assert_eq!((account.source, account.total()), (0, length), "{account:?}");
        assert!(said.stderr.contains("a peer of"), "{}", said.stderr);
        assert!(fs::read(output).unwrap() == wanted);
    }
    assert!(pace.struck() > 0);
    let sent = origin.counters().body_bytes;
    assert!(sent <= length + length / 20, "{sent} of {length}");
    // They have gone, and nothing is left of them.
    let hosts = site.scheduler.metric("dfs_scheduler_hosts").unwrap();
    assert!(hosts <= 1.0, "{hosts} hosts are still known");
    for words in [&["cat", &url][..], &["ls", "-r", &origin.url("/d/")], &["stat", &url]] {
        Said::by(visitor(&place, at, "own-0").args(words)).unwrap().done();
    }
    let tree = place.path("tree");
    Said::by(visitor(&place, at, "own-0").args(["get", "-r", &origin.url("/d/"), "-o"]).arg(&tree))
        .unwrap()
        .done();
    assert!(fs::read(tree.join("f")).unwrap() == wanted);
    assert!(origin.counters().body_bytes <= length + length / 20, "the seed had it");
    assert!(fs::read_dir(place.path("own-0/solo")).unwrap().next().is_none());
}

#[test]
fn one_that_lingers_serves_the_next_while_the_seed_is_gone() {
    let place = Place::new();
    let body = Body::noise(6, 8 * MIB + 9);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let mut site = Site::start(&place);
    let at = site.manager.address("grpc").unwrap();
    let (first, second) = (place.path("first"), place.path("second"));
    let mut command = visitor(&place, at, "own-1");
    command.args(["get", &origin.url("/f"), "--linger", "-o"]).arg(&first);
    let lingering = Running::start(command);
    until("it has the file and serves others", || lingering.stderr().contains("serving others"));
    site.seed.kill();
    let mut command = visitor(&place, at, "own-2");
    command.args(["get", &origin.url("/f"), "--format", "json", "-o"]).arg(&second);
    let said = Said::by(&mut command).unwrap().done();
    let account = Account::of(&said.json().unwrap()["ledger"]);
    assert_eq!((account.source, account.total()), (0, length), "{account:?}");
    assert!(fs::read(&second).unwrap() == fs::read(&first).unwrap());
    assert_eq!(origin.counters().body_bytes, length, "one copy");
    lingering.interrupt().done();
    // Once nobody asks for so long it leaves by itself.
    let mut command = visitor(&place, at, "own-3");
    command.args(["get", &origin.url("/f"), "--linger=200ms", "-o"]).arg(place.path("third"));
    Said::by(&mut command).unwrap().done();
}

#[test]
fn a_command_that_is_a_peer_itself_stands_where_it_says() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(8, MIB)).unwrap();
    let site = Site::start(&place);
    let at = site.manager.address("grpc").unwrap();
    let mut command = visitor(&place, at, "own-1");
    command.env("DFS_IDC", "east").args([
        "--rack",
        "r7",
        "get",
        &origin.url("/f"),
        "--linger",
        "-o",
    ]);
    let lingering = Running::start({
        command.arg(place.path("out"));
        command
    });
    until("it has the file and serves others", || lingering.stderr().contains("serving others"));
    let mut command = visitor(&place, at, "own-2");
    command.args(["why", &origin.url("/f"), "--format", "json"]);
    let seen = Said::by(&mut command).unwrap().done().json().unwrap();
    let peers = seen["items"][0]["peers"].as_array().unwrap();
    assert!(peers.iter().any(|peer| peer["idc"] == "east"), "{seen}");
    lingering.interrupt().done();
}

#[test]
fn a_cluster_that_is_not_there_is_told_and_not_gone_around() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(7, 1000)).unwrap();
    let free = dfs_tests::process::FreeAddress::new().unwrap();
    let output = place.path("out");
    let get = |flags: &[&str]| {
        let mut command = visitor(&place, free.at(), "own");
        Said::by(command.args(flags).args(["get", &origin.url("/f"), "-o"]).arg(&output)).unwrap()
    };
    let said = get(&[]).fails(5, "DFS-4119");
    assert!(said.stderr.contains("--solo"), "{}", said.stderr);
    assert_eq!(origin.counters().requests, 0);
    get(&["--solo"]).done();
}

/// What three nodes end with when `strike` comes in the middle of their getting one file.
fn three_get_while(strike: impl FnOnce(&mut Site)) -> (Vec<Account>, u64, u64) {
    let place = Place::new();
    let body = Body::noise(1, 48 * MIB + 9);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let pace = origin.inject(Fault::pace(20 * MIB));
    let mut site = Site::start(&place);
    let agents: Vec<_> = ["a", "b", "c"].map(|name| site.agent(&place, name)).into();
    let url = origin.url("/f");
    let getting: Vec<_> = agents
        .iter()
        .map(|agent| {
            let output = place.path(&format!("out-{}", agent.node.name()));
            let words = ["get", &url, "-o", output.to_str().unwrap(), "--format", "json"];
            (agent.dfctl_start(&words), output)
        })
        .collect();
    until("every node has a part", || agents.iter().all(|agent| agent.cached(length) > 4 * MIB));
    origin.wait_in_flight("/f", 1).unwrap();
    strike(&mut site);
    assert!(origin.counters().body_bytes < length && pace.struck() > 0);
    pace.lift();
    let wanted = body.read(0, length).unwrap();
    let accounts = getting.into_iter().map(|(getting, output)| {
        let said = getting.wait().done().json().unwrap();
        assert!(fs::read(output).unwrap() == wanted);
        Account::of(&said["ledger"])
    });
    (accounts.collect(), origin.counters().body_bytes, length)
}

#[test]
fn a_manager_that_dies_in_the_middle_is_not_noticed() {
    let (accounts, sent, length) = three_get_while(|site| site.manager.kill());
    assert!(accounts.iter().all(|account| account.source == 0), "{accounts:?}");
    assert_eq!(sent, length, "one copy");
}

#[test]
fn a_scheduler_that_dies_in_the_middle_stops_no_transfer() {
    let (accounts, sent, length) = three_get_while(|site| site.scheduler.kill());
    assert!(accounts.iter().all(|account| account.total() == length), "{accounts:?}");
    assert!(sent <= length + length / 20, "{sent} of {length}: {accounts:?}");
}

#[test]
fn a_seed_that_dies_in_the_middle_is_replaced_by_the_origin() {
    let (accounts, sent, length) = three_get_while(|site| site.seed.kill());
    assert!(accounts.iter().all(|account| account.total() == length), "{accounts:?}");
    assert!(accounts.iter().any(|account| account.source > 0), "{accounts:?}");
    // Two stand in, and the third takes from them.
    assert!(sent <= 2 * length + length / 20, "{sent} of {length}: {accounts:?}");
}

#[test]
fn without_a_seed_two_nodes_read_the_origin_for_all() {
    let place = Place::new();
    let body = Body::noise(3, 32 * MIB + 9);
    let length = body.length().unwrap();
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let mut site = Site::start(&place);
    let agents = ["a", "b", "c"].map(|name| site.agent(&place, name));
    let dirs = agents.each_ref().map(|agent| {
        let dir = place.path(&format!("mount-{}", agent.node.name()));
        agent.mount(&origin.url("/d/"), dir)
    });
    site.seed.kill();
    origin.reset_counters();
    let pace = origin.inject(Fault::pace(20 * MIB));
    let wanted = body.read(0, length).unwrap();
    std::thread::scope(|scope| {
        for dir in &dirs {
            scope.spawn(|| assert!(fs::read(dir.join("f")).unwrap() == wanted));
        }
    });
    assert!(pace.struck() > 0);
    let sent = origin.counters().body_bytes;
    let accounts = agents.each_ref().map(Account::of_mount);
    assert!(sent <= 2 * length + length / 4, "{sent} of {length}: {accounts:?}");
    assert!(accounts.iter().any(|account| account.peers > length / 2), "{accounts:?}");
}

#[test]
fn a_cluster_comes_up_says_where_it_is_and_goes_down_again() {
    let place = Place::new();
    let data = place.dir("data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let run = |words: &[&str]| {
        let mut command = Dfctl::new(&binaries()).command().unwrap();
        for port in ["DFS_PORT_GRPC", "DFS_PORT_PIECES", "DFS_PORT_METRICS"] {
            command.env(port, "0");
        }
        Said::by(command.args(words).arg("--data-dir").arg(&data)).unwrap()
    };
    run(&["cluster", "status"]).fails(3, "DFS-4107");
    assert_eq!(run(&["cluster", "down"]).code, 9, "there is nothing to take down");
    let up = run(&["cluster", "up", "--format", "json"]).done().json().unwrap();
    let _guard = Guard(up["pid"].as_u64().unwrap_or_else(|| panic!("{up}")));
    assert_eq!(run(&["cluster", "up"]).code, 9, "it runs already");
    assert!(run(&["cluster", "status"]).done().text().contains("seed"));

    let address = up["addresses"]["grpc"].as_str().unwrap_or_else(|| panic!("{up}"));
    let mut node =
        Node::spawn(&binaries(), place.root(), "a", Some(address.parse().unwrap()), &[]).unwrap();
    node.wait_ready().unwrap();
    let body = Body::noise(2, MIB);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let agent = Agent::around(node);
    let output = place.path("out");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap(), "--format", "json"];
    let said = agent.dfctl(&words).done().json().unwrap();
    assert_eq!(Account::of(&said["ledger"]).seed, MIB, "{said}");

    // One that is stopped ends as well.
    let pid = up["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    run(&["cluster", "down"]).done();
    run(&["cluster", "status"]).fails(3, "DFS-4107");
    assert_eq!(run(&["cluster", "down"]).code, 9);
}

#[test]
fn the_commands_that_a_cluster_names_can_be_pasted() {
    let place = Place::new();
    let data = place.dir("my cluster's data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let run = |command: &mut Command| {
        for port in ["DFS_PORT_GRPC", "DFS_PORT_PIECES", "DFS_PORT_METRICS"] {
            command.env(port, "0");
        }
        Said::by(command).unwrap()
    };
    let typed = |words: &[&str]| {
        let mut command = Dfctl::new(&binaries()).command().unwrap();
        run(command.args(words).arg("--data-dir").arg(&data))
    };
    let pasted = |line: &str| {
        let mut command = binaries().command("dfctl").unwrap();
        let program = std::path::PathBuf::from(command.get_program());
        command = Command::new("/bin/sh");
        command.arg("-c").arg(line).env("PATH", program.parent().unwrap()).current_dir("/");
        run(&mut command)
    };
    let said = typed(&["cluster", "status"]).fails(3, "DFS-4107").stderr;
    let up = pasted(said.lines().find_map(|line| line.strip_prefix("  try      ")).unwrap()).done();
    let info: serde_json::Value =
        serde_json::from_slice(&fs::read(data.join("run.json")).unwrap()).unwrap();
    let _guard = Guard(info["pid"].as_u64().unwrap());
    let text = up.text();
    let stop = text.lines().find_map(|line| line.strip_prefix("stop it:     ")).unwrap();
    pasted(stop).done();
    assert!(!data.join("run.json").exists(), "it runs on\n{text}");
}

/// Ends a process that dfctl left running, should the test fail before.
struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid.filter(|_| std::thread::panicking()) {
            // It is gone when the test did not fail.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
