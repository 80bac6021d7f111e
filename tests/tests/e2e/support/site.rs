//! A cluster whose parts can be lost one by one.

use std::net::SocketAddr;
use std::process::Command;

use dfs_tests::Dfctl;
use dfs_tests::process::Process;

use super::{Agent, Place, binaries, until, wanted_log};

/// One part of a cluster.
fn part(place: &Place, role: &str, manager: Option<SocketAddr>) -> Process {
    part_in(place, role, role, manager)
}

/// The same with a directory of its own.
pub fn part_in(place: &Place, name: &str, role: &str, manager: Option<SocketAddr>) -> Process {
    let filter = wanted_log();
    let log: Vec<_> = filter.iter().flat_map(|filter| ["--log", filter]).collect();
    let program = dfs_tests::cluster::part(place.root(), name, role, manager, &log).unwrap();
    Process::start(&binaries(), program).unwrap()
}

/// A `dfctl` that finds no agent and is a peer of the cluster at `manager` itself.
pub fn visitor(place: &Place, manager: SocketAddr, name: &str) -> Command {
    let mut command = Dfctl::new(&binaries()).command().unwrap();
    command.args(["--cluster", &manager.to_string(), "--data-dir"]).arg(place.dir(name));
    command
}

/// A cluster of three processes.
pub struct Site {
    pub manager: Process,
    pub scheduler: Process,
    pub seed: Process,
}

impl Site {
    pub fn start(place: &Place) -> Self {
        let manager = part(place, "manager", None);
        let at = manager.address("grpc").unwrap();
        let scheduler = part(place, "scheduler", Some(at));
        let seed = part(place, "seed", Some(at));
        until("the manager knows both", || {
            manager.metric("dfs_manager_members").is_ok_and(|members| members >= 2.0)
        });
        Self { manager, scheduler, seed }
    }

    pub fn agent(&self, place: &Place, name: &str) -> Agent {
        let at = self.manager.address("grpc").unwrap();
        Agent::at(at, place, name, &[])
    }

    /// Has each come back where it was.
    pub fn keep_ports(&mut self) {
        self.manager.keep_ports(&["grpc", "metrics"]).unwrap();
        self.scheduler.keep_ports(&["grpc", "metrics"]).unwrap();
        self.seed.keep_ports(&["grpc", "pieces", "metrics"]).unwrap();
    }
}
