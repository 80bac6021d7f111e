//! Disks that fail: calls that change files are made to fail under an agent at work, one kind after the other.
//!
//! `strace` attached to the running process lets each of them fail, and the disk is well again when it lets go.
//! Whatever fails, no wrong byte is read; a command that cannot go on says why; the agent lives, and has everything
//! right once the disk is well.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use dfs_tests::{Body, Cluster, Origin, Watchdog, process::Said};
use rustix::process::{Pid, Signal};

use crate::support::{Agent, Expected, Place, all, binaries, until};

const MIB: u64 = 1 << 20;

/// The calls that change files, of those that sockets and wake-ups do not share.
const CALLS: [&str; 6] = ["pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "mkdir"];

/// A disk that fails below one process, until this is dropped.
struct Failing {
    strace: Child,
    log: PathBuf,
    _watchdog: Watchdog,
}

impl Failing {
    /// Calls of this kind fail with `error`: of each three the first.
    fn below(pid: u32, call: &str, error: &str, place: &Place) -> Self {
        let log = place.path("strace.log");
        let strace = Command::new("strace")
            .args(["-f", "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:error={error}:when=1+3")])
            .args(["-p", &pid.to_string(), "-o"])
            .arg(&log)
            .stderr(fs::File::create(place.path("strace.said")).unwrap())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("strace is needed: {error}"));
        let watchdog = Watchdog::over(&strace).unwrap();
        let failing = Self { strace, log, _watchdog: watchdog };
        let said = place.path("strace.said");
        until("strace is attached", || fs::read_to_string(&said).unwrap().contains("attached"));
        failing
    }

    /// Lets go; how many calls failed.
    fn heal(mut self) -> usize {
        self.end();
        fs::read_to_string(&self.log).unwrap().matches("(INJECTED)").count()
    }

    fn end(&mut self) {
        let pid = Pid::from_child(&self.strace);
        // It lets go of what it holds before it ends.
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        let _ = self.strace.wait();
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.end();
    }
}

/// It gave exactly this, or failed and said why.
#[track_caller]
fn assert_right_or_told(said: &Said, expected: &[u8], what: &str) {
    if said.code == 0 {
        assert!(said.stdout == expected, "{what}: wrong bytes");
    } else {
        assert!(matches!(said.code, 1 | 4..=7), "{what}: {} {}", said.code, said.stderr);
        assert!(
            said.stderr.contains("error: ") && said.stderr.contains("DFS-"),
            "{what}: {said:?}"
        );
        assert!(!said.stderr.contains("panicked"), "{what}: {said:?}");
    }
}

fn whatever_fails(error: &str) {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let mut agent = Agent::solo(&place, "a");
    let kept = Body::noise(1, 3 * MIB + 7);
    origin.put("/kept", kept.clone());
    agent.dfctl(&["cat", &origin.url("/kept")]).done();
    let mut struck = 0;
    for (number, call) in CALLS.into_iter().enumerate() {
        let what = format!("{call} fails with {error}");
        let body = Body::noise(10 + number as u64, 5 * MIB + 100);
        let path = format!("/new-{call}");
        origin.put(&path, body.clone());
        let small = format!("/tree-{call}");
        for file in 0..8 {
            origin.put(&format!("{small}/{file}"), Body::noise(file, 20_000));
        }
        let url = origin.url(&path);

        let failing = Failing::below(agent.node.process().pid(), call, error, &place);
        let said = agent.dfctl(&["cat", &url]);
        assert_right_or_told(&said, &all(&body), &what);
        let said = agent.dfctl(&["cat", &origin.url("/kept")]);
        assert!(said.done().stdout == all(&kept), "{what}: what is here is read on");
        agent.dfctl(&["cache", "gc"]);
        let output = place.path(&format!("out-{call}"));
        let words =
            ["get", "-r", &origin.url(&format!("{small}/")), "-o", output.to_str().unwrap()];
        agent.dfctl(&words);
        struck += failing.heal();

        let said = agent.dfctl(&["cat", &url]).done();
        assert!(said.stdout == all(&body), "{what}: wrong bytes once the disk was well");
        // What came through while the disk failed is as it was: nothing to do, or the rest.
        assert!(matches!(agent.dfctl(&words).code, 0 | 9), "{what}");
        for file in 0..8 {
            let got = fs::read(output.join(file.to_string())).unwrap();
            assert!(got == all(&Body::noise(file, 20_000)), "{what}: {file}");
        }
        agent.dfctl(&["cache", "verify"]).done();
    }
    assert!(struck >= CALLS.len(), "{struck} calls failed");
    assert!(!agent.log().contains("panicked"), "{}", agent.log());

    agent.kill();
    agent.start_again();
    for (number, call) in CALLS.into_iter().enumerate() {
        let said = agent.dfctl(&["cat", &origin.url(&format!("/new-{call}"))]).done();
        assert!(said.stdout == all(&Body::noise(10 + number as u64, 5 * MIB + 100)));
    }
}

#[test]
fn a_disk_that_fails_in_any_call_costs_no_wrong_byte_and_no_agent() {
    whatever_fails("EIO");
}

#[test]
fn a_disk_that_is_full_in_any_call_costs_no_wrong_byte_and_no_agent() {
    whatever_fails("ENOSPC");
}

#[test]
fn a_quota_that_is_used_up_in_any_call_costs_no_wrong_byte_and_no_agent() {
    whatever_fails("EDQUOT");
}

#[test]
fn a_seed_whose_disk_fails_keeps_no_node_from_its_bytes() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = ["a", "b"].map(|name| Agent::of(&cluster, &place, name));
    let mut struck = 0;
    for (number, call) in ["pwrite64", "fsync", "ftruncate"].into_iter().enumerate() {
        let body = Body::noise(number as u64, 6 * MIB + 1);
        origin.put(&format!("/{call}"), body.clone());
        let url = origin.url(&format!("/{call}"));
        let failing = Failing::below(cluster.process().pid(), call, "EIO", &place);
        for agent in &agents {
            let said = agent.dfctl(&["cat", &url]).done();
            assert!(said.stdout == all(&body), "{call}: wrong bytes");
        }
        struck += failing.heal();
    }
    assert!(struck > 0, "nothing failed");
}
