//! An agent whose holder starts it again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;

use dfs_tests::process::metric_at;
use dfs_tests::wait::{PATIENCE, find};
use dfs_tests::{Binaries, Mount, wait};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use serde_json::Value;

use super::{Expected, Place, binaries, dfctl_at, shown_at};

/// What processes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Holders,
    Agents,
}

/// The processes that were started for a data directory.
pub fn running(data: &Path, of: Of) -> Vec<Pid> {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let of_ours = processes.filter_map(|process| {
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        let line = fs::read(process.path().join("cmdline")).ok()?;
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        let program = words.first()?;
        let is_ours = (program.ends_with(b"dfs-fuse") || *program == b"dfs-holder")
            && words.iter().any(|word| *word == data.as_os_str().as_encoded_bytes());
        let is_holder = words.get(1).is_some_and(|word| *word == b"holder");
        (is_ours && is_holder == (of == Of::Holders)).then(|| Pid::from_raw(pid)).flatten()
    });
    of_ours.collect()
}

/// An agent with a holder of its own, in a process group that is not the test's to kill.
pub struct Own {
    pub place: Place,
    pub data: PathBuf,
    pub socket: PathBuf,
    /// What it is told besides.
    pub words: Vec<String>,
}

impl Own {
    /// Starts one.
    pub fn start(place: Place) -> Self {
        Self::start_in(place, "data")
    }

    /// One that keeps its data in a directory of this name.
    pub fn start_in(place: Place, data: &str) -> Self {
        let own = Self::ready(place, data);
        own.run(&binaries());
        own
    }

    /// One of these programs.
    pub fn start_of(programs: &Binaries, place: Place) -> Self {
        let own = Self::ready(place, "data");
        own.run(programs);
        own
    }

    fn ready(place: Place, data: &str) -> Self {
        let data = place.dir(data);
        fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Self { data, socket: place.path("agent.sock"), words: Vec::new(), place }
    }

    /// One that is told more.
    pub fn start_with(place: Place, words: &[&str]) -> Self {
        let mut own = Self::ready(place, "data");
        own.words = words.iter().map(|word| (*word).to_owned()).collect();
        own.run(&binaries());
        own
    }

    /// One that listens where agents do that were told nothing else: beside its data.
    pub fn start_with_its_socket(place: Place) -> Self {
        let mut own = Self::ready(place, "data");
        own.socket = own.data.join("agent.sock");
        own.run(&binaries());
        own
    }

    /// Starts another agent where none is left.
    pub fn start_again(&self) {
        // Who dies has no name for a moment before he lets go.
        let lock = File::open(self.data.join("lock")).unwrap();
        let is_free = || flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        wait::until("no agent is left", is_free).unwrap();
        drop(lock);
        let _ = fs::remove_file(&self.socket);
        self.run(&binaries());
    }

    fn run(&self, programs: &Binaries) {
        let own = self;
        let mut command = programs.command("dfs-fuse").unwrap();
        let log = own.place.path("agent.log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        command.arg("--data-dir").arg(&own.data).arg("--socket").arg(&own.socket);
        command.args(["--port-pieces", "0", "--port-metrics", "0"]).env("DFS_HOLDER", "own");
        command.args(&own.words);
        let mut child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        // Whoever ends first, it is not left a zombie.
        thread::spawn(move || child.wait());
        wait::until("the agent listens", || own.socket.exists()).unwrap();
    }

    /// The agent that runs now.
    pub fn agent(&self) -> Pid {
        find("an agent runs", PATIENCE, || running(&self.data, Of::Agents).pop()).unwrap()
    }

    /// Its holder, while there is one.
    pub fn holder(&self) -> Option<Pid> {
        running(&self.data, Of::Holders).pop()
    }

    /// The holder's own second, while something is guarded.
    pub fn second_holder(&self) -> Pid {
        let second = || {
            let holder = self.holder()?.as_raw_nonzero();
            let children = format!("/proc/{holder}/task/{holder}/children");
            let children = fs::read_to_string(children).ok()?;
            let is_second = |pid: &&str| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.split(|byte| *byte == 0).nth(1) == Some(b"second-holder")
            };
            Pid::from_raw(children.split_whitespace().find(is_second)?.parse().ok()?)
        };
        find("the holder has a second", PATIENCE, second).unwrap()
    }

    /// What both have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.path("agent.log")).unwrap_or_default()
    }

    /// What `dfctl mounts` says of its mount on `dir`.
    pub fn shown(&self, dir: &Path) -> Option<Value> {
        shown_at(&self.socket, dir)
    }

    /// One of the agent's counters, while there is an agent that tells.
    pub fn metric(&self, name: &str) -> Option<u64> {
        let announced = fs::read(self.data.join("run.json")).ok()?;
        let announced: Value = serde_json::from_slice(&announced).ok()?;
        let address = announced["addresses"]["metrics"].as_str()?.parse().ok()?;
        metric_at(address, name).ok().map(|value| value as u64)
    }

    /// Mounts `url` on a directory of its own.
    pub fn mount(&self, url: &str) -> (PathBuf, Mount) {
        self.mount_in("auto", url)
    }

    /// The same in this lane.
    pub fn mount_in(&self, lane: &str, url: &str) -> (PathBuf, Mount) {
        self.mount_at(self.place.dir("mount"), lane, url)
    }

    /// The same on this directory.
    pub fn mount_at(&self, dir: PathBuf, lane: &str, url: &str) -> (PathBuf, Mount) {
        self.mount_with(dir, &["--lane", lane], url)
    }

    /// The same with further words.
    pub fn mount_with(&self, dir: PathBuf, words: &[&str], url: &str) -> (PathBuf, Mount) {
        let guard = Mount::guard(&dir);
        let mount = ["mount", url, dir.to_str().unwrap()];
        dfctl_at(&self.socket, &[&mount[..], words].concat()).done();
        (dir, guard)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
        // The holder first: it would start the agent again.
        for of in [Of::Holders, Of::Agents] {
            for pid in running(&self.data, of) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}
