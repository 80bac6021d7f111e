//! Who decides: the joint between the network and what is compared.

use std::collections::BTreeMap;
use std::ops::Range;
use std::slice;

use dfs_scheduler::matcher::{
    Failure, Joining, Lease, LeaseId, Matcher, Micros, PeerNumber, Place, Role, Tuning,
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

impl Order {
    /// The pieces.
    pub fn pieces(&self) -> Range<u32> {
        self.first..self.first + self.count
    }
}

/// What the one who decides is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A node has these pieces, and wants all others from now on; or wants none.
    Joined {
        /// Who.
        node: Node,
        /// What it says that it has.
        has: Vec<Range<u32>>,
        /// Whether it wants what it lacks.
        wants: bool,
    },
    /// A node is gone.
    Left(Node),
    /// An order was carried out.
    Done(Order),
    /// An order was not carried out.
    Failed(Order, Failure),
    /// The scheduler begins anew, and knows nobody but the source.
    Restarted,
    /// Time has passed.
    Tick,
}

/// What was decided.
#[derive(Debug, Default)]
pub struct Decisions {
    /// Who sends what.
    pub orders: Vec<Order>,
    /// Orders that are given up: names, and who sends.
    pub stopped: Vec<(u64, Node)>,
    /// Pairs that have nothing to do with each other any more.
    pub parted: Vec<(Node, Node)>,
}

/// Decides who sends what to whom.
pub trait Policy {
    /// Something has happened.
    fn step(&mut self, event: &Event, now: Micros, out: &mut Decisions);
}

/// The matcher of the scheduler itself.
pub struct Swarm {
    matcher: Matcher,
    scenario: Scenario,
    tuning: Tuning,
    seed: u64,
    /// By the matcher's number, and the other way.
    nodes: Vec<Node>,
    numbers: BTreeMap<Node, PeerNumber>,
    /// By the name of the order, and the other way.
    leases: BTreeMap<u64, LeaseId>,
    orders: BTreeMap<LeaseId, (u64, Node)>,
    last: u64,
}

impl Swarm {
    /// One with a source that has everything.
    pub fn new(scenario: &Scenario, tuning: Tuning, seed: u64) -> Self {
        let mut swarm = Self {
            matcher: Matcher::new(scenario.pieces, scenario.piece_bytes, tuning, seed),
            scenario: scenario.clone(),
            tuning,
            seed,
            nodes: Vec::new(),
            numbers: BTreeMap::new(),
            leases: BTreeMap::new(),
            orders: BTreeMap::new(),
            last: 0,
        };
        swarm.join_source(Micros(0));
        swarm
    }

    fn join_source(&mut self, now: Micros) {
        let all = 0..self.scenario.pieces;
        let (role, place) = (Role::Source, Place::default());
        let source =
            Joining { role, place, slots: u32::MAX, has: slice::from_ref(&all), wants: &[] };
        let number = self.matcher.join(&source, now);
        self.name(0, number);
    }

    fn restart(&mut self, now: Micros) {
        self.seed += 1;
        let (pieces, bytes) = (self.scenario.pieces, self.scenario.piece_bytes);
        self.matcher = Matcher::new(pieces, bytes, self.tuning, self.seed);
        self.nodes.clear();
        self.numbers.clear();
        self.leases.clear();
        self.orders.clear();
        self.join_source(now);
    }

    fn name(&mut self, node: Node, number: PeerNumber) {
        let PeerNumber(at) = number;
        self.nodes.resize(self.nodes.len().max(at as usize + 1), 0);
        self.nodes[at as usize] = node;
        self.numbers.insert(node, number);
    }

    fn join(&mut self, node: Node, has: &[Range<u32>], wants: bool, now: Micros) {
        let all = 0..self.scenario.pieces;
        let wants = if wants { slice::from_ref(&all) } else { &[] };
        let (role, place) = (Role::Node, place(&self.scenario, node));
        let number = self.matcher.join(&Joining { role, place, slots: u32::MAX, has, wants }, now);
        self.name(node, number);
    }

    fn forget(&mut self, order: u64) -> Option<LeaseId> {
        let lease = self.leases.remove(&order)?;
        self.orders.remove(&lease);
        Some(lease)
    }

    fn leave(&mut self, node: Node, now: Micros) {
        if let Some(number) = self.numbers.remove(&node) {
            self.matcher.leave(number, now);
        }
    }

    fn take(&mut self, out: &mut Decisions) {
        let name = |PeerNumber(number): PeerNumber| self.nodes[number as usize];
        out.parted.extend(self.matcher.parted().map(|(one, other)| (name(one), name(other))));
        for lease in self.matcher.withdrawn() {
            if let Some((order, from)) = self.orders.remove(&lease.id) {
                self.leases.remove(&order);
                out.stopped.push((order, from));
            }
        }
        for lease in self.matcher.leases() {
            let Lease { id, from: PeerNumber(from), to: PeerNumber(to), first, count } = lease;
            self.last += 1;
            let (from, to) = (self.nodes[from as usize], self.nodes[to as usize]);
            self.leases.insert(self.last, id);
            self.orders.insert(id, (self.last, from));
            out.orders.push(Order { id: self.last, from, to, first, count });
        }
    }
}

/// Where a node is.
pub fn place(scenario: &Scenario, node: Node) -> Place {
    let number = node.saturating_sub(1);
    Place { idc: number % scenario.idcs, rack: number / scenario.idcs % scenario.racks }
}

impl Policy for Swarm {
    fn step(&mut self, event: &Event, now: Micros, out: &mut Decisions) {
        match event {
            Event::Joined { node, has, wants } => self.join(*node, has, *wants, now),
            Event::Left(node) => self.leave(*node, now),
            Event::Done(order) => {
                if let Some(lease) = self.forget(order.id) {
                    self.matcher.done(lease, now);
                }
                // Where the lease was withdrawn it has come all the same.
                if let Some(to) = self.numbers.get(&order.to) {
                    self.matcher.gained(*to, order.pieces(), now);
                }
            }
            Event::Failed(order, why) => {
                if let Some(lease) = self.forget(order.id) {
                    self.matcher.failed(lease, *why, now);
                }
            }
            Event::Restarted => self.restart(now),
            Event::Tick => self.matcher.tick(now),
        }
        self.take(out);
    }
}
