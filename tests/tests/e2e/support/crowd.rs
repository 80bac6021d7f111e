//! A crowd on links of its own, and the file that it wants: how bad days are looked at.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use dfs_model::Rate;
use dfs_tests::testbed::{Fleet, Machine, Trouble};
use dfs_tests::{Body, Node, Origin, Testbed};

use super::ledger::Account;
use super::{Place, Running, all, binaries, until};

const MIB: u64 = 1 << 20;
/// Nodes of a crowd.
pub const NODES: usize = 8;
/// What a machine's link carries.
pub const LINK: Rate = Rate(60_000_000 / 8);
/// Bytes of the file.
pub const LENGTH: u64 = 12 * MIB + 17;

/// One node's part in the crowd.
pub struct Taker {
    pub name: String,
    pub getting: Running,
    output: PathBuf,
}

impl Taker {
    pub fn start(node: &Node, url: &str, place: &Place) -> Self {
        let name = node.name().to_owned();
        let output = place.path(&format!("{name}.out"));
        let mut command = node.dfctl_command().unwrap();
        command.args(["get", url, "-o", output.to_str().unwrap(), "--format", "json"]);
        Self { name, getting: Running::start(command), output }
    }

    /// Where it has the file from; where it has not got it, what it said.
    pub fn ends(self, body: &Body) -> Result<Account, String> {
        let said = self.getting.wait();
        if said.code != 0 {
            return Err(said.stderr);
        }
        assert!(fs::read(&self.output).unwrap() == all(body), "{} has wrong bytes", self.name);
        Ok(Account::of(&said.json().unwrap()["ledger"]))
    }

    pub fn ends_well(self, body: &Body) -> Account {
        let name = self.name.clone();
        self.ends(body).unwrap_or_else(|said| panic!("{name}: {said}"))
    }
}

/// A crowd, and the file that it wants.
pub struct Crowd<'a> {
    pub place: Place,
    pub fleet: Fleet<'a>,
    pub origin: Origin,
    pub body: Body,
    pub url: String,
}

impl<'a> Crowd<'a> {
    pub fn on(testbed: &'a Testbed) -> Self {
        Self::in_place(Place::new(), testbed)
    }

    pub fn in_place(place: Place, testbed: &'a Testbed) -> Self {
        let body = Body::noise(1, LENGTH);
        let origin = testbed.start_origin(0).unwrap();
        origin.put("/file", body.clone());
        let url = origin.url("/file");
        let fleet = Fleet::start(testbed, &binaries(), place.root()).unwrap();
        Self { place, fleet, origin, body, url }
    }

    pub fn take(&self, at: usize) -> Taker {
        Taker::start(&self.fleet.nodes()[at], &self.url, &self.place)
    }

    pub fn take_each(&self, nodes: Range<usize>) -> Vec<Taker> {
        nodes.map(|at| self.take(at)).collect()
    }

    /// Waits until this machine is in the middle of it, and all of these are.
    pub fn wait_middle(&self, machine: &Machine, takers: &mut [Taker]) {
        until("the struck one is in the middle of it", || {
            Trouble::is_middle(machine.traffic().unwrap(), LENGTH)
        });
        let is_under_way = |taker: &mut Taker| !taker.getting.has_ended();
        assert!(takers.iter_mut().all(is_under_way), "too late for {}", machine.name());
    }

    /// Waits until these have it; the origin has sent no more than so many copies by then.
    pub fn have_it(&self, takers: Vec<Taker>, most_copies: f64) -> Vec<Account> {
        let accounts = takers.into_iter().map(|taker| taker.ends_well(&self.body)).collect();
        self.cost(most_copies);
        accounts
    }

    /// Copies of the file that have left the origin are no more than so many.
    #[track_caller]
    pub fn cost(&self, most_copies: f64) {
        let copies = self.origin.counters().body_bytes as f64 / LENGTH as f64;
        assert!(copies <= most_copies, "{copies} copies left the origin");
    }
}
