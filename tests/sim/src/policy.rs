//! Who decides: the joint between the network and what is compared.

use std::collections::BTreeMap;
use std::slice;

use dfs_scheduler::matcher::{
    Joining, Lease, LeaseId, Matcher, Micros, PeerNumber, Place, Role, Tuning,
};

use crate::scenario::Scenario;

/// Names a node of the network; zero is the source.
pub type Node = u32;

/// Sends a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Names it.
    pub id: u64,
    /// Who sends.
    pub from: Node,
    /// To whom.
    pub to: Node,
    /// The first piece.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Decides who sends what to whom.
pub trait Policy {
    /// A node wants everything from now on.
    fn joined(&mut self, node: Node, now: Micros, out: &mut Vec<Order>);
    /// An order was carried out.
    fn done(&mut self, order: &Order, now: Micros, out: &mut Vec<Order>);
    /// Time has passed.
    fn tick(&mut self, now: Micros, out: &mut Vec<Order>);
}

/// The matcher of the scheduler itself.
pub struct Swarm {
    matcher: Matcher,
    scenario: Scenario,
    /// By the matcher's number, and the other way.
    nodes: Vec<Node>,
    numbers: BTreeMap<Node, PeerNumber>,
    leases: BTreeMap<u64, LeaseId>,
    last: u64,
}

impl Swarm {
    /// One with a source that has everything.
    pub fn new(scenario: &Scenario, tuning: Tuning, seed: u64) -> Self {
        let mut matcher = Matcher::new(scenario.pieces, scenario.piece_bytes, tuning, seed);
        let all = 0..scenario.pieces;
        let (role, place) = (Role::Source, Place::default());
        let source = Joining { role, place, has: slice::from_ref(&all), wants: &[] };
        matcher.join(&source, Micros(0));
        Self {
            matcher,
            scenario: scenario.clone(),
            nodes: vec![0],
            numbers: BTreeMap::new(),
            leases: BTreeMap::new(),
            last: 0,
        }
    }

    fn take(&mut self, out: &mut Vec<Order>) {
        // What is on the wire goes on: nothing on this network stops a sender.
        self.matcher.withdrawn();
        for lease in self.matcher.leases() {
            let Lease { id, from: PeerNumber(from), to: PeerNumber(to), first, count } = lease;
            self.last += 1;
            self.leases.insert(self.last, id);
            let (from, to) = (self.nodes[from as usize], self.nodes[to as usize]);
            out.push(Order { id: self.last, from, to, first, count });
        }
    }
}

/// Where a node is.
pub fn place(scenario: &Scenario, node: Node) -> Place {
    let number = node.saturating_sub(1);
    Place { idc: number % scenario.idcs, rack: number / scenario.idcs % scenario.racks }
}

impl Policy for Swarm {
    fn joined(&mut self, node: Node, now: Micros, out: &mut Vec<Order>) {
        let all = 0..self.scenario.pieces;
        let (role, place) = (Role::Node, place(&self.scenario, node));
        let joining = Joining { role, place, has: &[], wants: slice::from_ref(&all) };
        let PeerNumber(number) = self.matcher.join(&joining, now);
        self.nodes.resize(self.nodes.len().max(number as usize + 1), 0);
        self.nodes[number as usize] = node;
        self.numbers.insert(node, PeerNumber(number));
        self.take(out);
    }

    fn done(&mut self, order: &Order, now: Micros, out: &mut Vec<Order>) {
        if let Some(lease) = self.leases.remove(&order.id) {
            self.matcher.done(lease, now);
        }
        // Where the lease was withdrawn it has come all the same.
        if let Some(to) = self.numbers.get(&order.to) {
            self.matcher.gained(*to, order.first..order.first + order.count, now);
        }
        self.take(out);
    }

    fn tick(&mut self, now: Micros, out: &mut Vec<Order>) {
        self.matcher.tick(now);
        self.take(out);
    }
}
