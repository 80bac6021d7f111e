//! What the fixtures promise to whoever runs the tests.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use dfs_tests::Cluster;

use crate::support::trees::{self, noise};
use crate::support::{Agent, Place, binaries, is_mounted, runs, until};

/// Tells the test that is killed where to work.
const DIR: &str = "E2E_VICTIM";

#[test]
fn a_test_that_is_killed_leaves_neither_processes_nor_mounts() {
    let place = Place::new();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fixtures::victim", "--ignored", "--nocapture"])
        .env(DIR, place.root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ready = place.path("ready");
    until("it has started all", || ready.exists() || victim.try_wait().unwrap().is_some());
    let started = fs::read_to_string(&ready).unwrap();
    let processes: Vec<&str> = started.lines().collect();
    let mount = place.path("mount");
    assert_eq!(processes.len(), 2);
    assert!(processes.iter().all(|pid| runs(pid)) && is_mounted(&mount));
    victim.kill().unwrap();
    victim.wait().unwrap();
    until("its processes have gone", || !processes.iter().any(|pid| runs(pid)));
    until("its mount has gone", || !is_mounted(&mount));
}

#[test]
#[ignore = "run by the test above, which kills it"]
fn victim() {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let source = dir.join("source");
    trees::put(&source.join("f"), &noise(1, 1000));
    let cluster = Cluster::start(&binaries(), &dir).unwrap();
    let agent = Agent::solo_in(&dir, "agent");
    let mount = dir.join("mount");
    fs::create_dir(&mount).unwrap();
    agent.mount(&format!("file://{}/", source.display()), mount);
    let pids = format!("{}\n{}\n", cluster.process().pid(), agent.node.process().pid());
    fs::write(dir.join("written"), pids).unwrap();
    fs::rename(dir.join("written"), dir.join("ready")).unwrap();
    loop {
        std::thread::park();
    }
}
