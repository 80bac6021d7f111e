//! Who decides: the joint between the network and what is compared.

use std::ops::Range;

use dfs_scheduler::core;
use dfs_scheduler::matcher::{Failure, Micros, Place};

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
    /// A node is gone, or not heard of any more.
    Left(Node),
    /// An order was carried out.
    Done(Order),
    /// An order was not carried out.
    Failed(Order, Failure),
    /// An order is out no more: what came of it was told as such.
    Ended(Order),
    /// A node has these pieces, however they came.
    Gained(Node, Range<u32>),
    /// A node has these pieces and no others.
    Has(Node, Vec<Range<u32>>),
    /// What a node says to the scheduler's core.
    Said(Box<core::Event>),
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
    /// What the scheduler's core was told, as one who watches has it.
    pub heard: Vec<Event>,
    /// What the scheduler's core decided about whom.
    pub told: Vec<(Node, core::Decision)>,
    /// Messages that the scheduler got too, of those that were for a delegate.
    pub also_above: u64,
}

/// Decides who sends what to whom.
pub trait Policy {
    /// Something has happened.
    fn step(&mut self, event: Event, now: Micros, out: &mut Decisions);

    /// Who leads a node: the scheduler, which is zero, or one of the nodes.
    fn leader(&self, _node: Node) -> Node {
        0
    }

    /// When time passes for it at the latest.
    fn next_tick(&self, now: Micros) -> Option<Micros> {
        Some(Micros(now.0 + TICK))
    }
}

/// How often time passes for who does not say.
const TICK: u64 = 100_000;

/// Where a node is.
pub fn place(scenario: &Scenario, node: Node) -> Place {
    let number = node.saturating_sub(1);
    Place { idc: number % scenario.idcs, rack: number / scenario.idcs % scenario.racks }
}
