//! What the matcher is compared with: who decides in other ways, over the same links.

use std::collections::BTreeMap;

use dfs_scheduler::matcher::Micros;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::policy::{Decisions, Event, Node, Order, Policy};
use crate::scenario::Scenario;

/// Which piece a receiver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Any that somebody has who is free.
    Random,
    /// The rarest of those.
    Rarest,
}

/// From whom a receiver may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graph {
    /// From everybody.
    Everybody,
    /// From up to three that had joined before, of fifteen drawn at random: the shape of Dragonfly.
    ThreeOfFifteen,
    /// From one, in a tree of this many children each.
    Tree(u32),
    /// From ten drawn at random, both ways: the shape of Kraken.
    Neighbours(u32),
}

/// Receivers ask for one piece after the other.
pub struct Pulling {
    pull: Pull,
    graph: Graph,
    pieces: u32,
    slots: u32,
    downlink: u32,
    random: StdRng,
    has: Vec<Vec<bool>>,
    coming: Vec<Vec<bool>>,
    copies: Vec<u32>,
    giving: Vec<u32>,
    getting: Vec<u32>,
    /// Of whom each may take, and the other way.
    from: BTreeMap<Node, Vec<Node>>,
    takers: BTreeMap<Node, Vec<Node>>,
    joined: Vec<Node>,
    last: u64,
}

/// Holders that a receiver tries for one piece.
const TRIED: usize = 8;

/// Pieces that a receiver tries at a time.
const PIECES_TRIED: usize = 64;

/// Receivers that are woken when an uplink has become free.
const WOKEN: usize = 16;

impl Pulling {
    /// One with a source that has everything.
    pub fn new(scenario: &Scenario, pull: Pull, graph: Graph, seed: u64) -> Self {
        let nodes = scenario.nodes as usize + 1;
        let pieces = scenario.pieces as usize;
        let mut has = vec![vec![false; pieces]; nodes];
        has[0] = vec![true; pieces];
        Self {
            pull,
            graph,
            pieces: scenario.pieces,
            slots: scenario.uplink_leases,
            downlink: scenario.downlink_leases,
            random: StdRng::seed_from_u64(seed),
            has,
            coming: vec![vec![false; pieces]; nodes],
            copies: vec![1; pieces],
            giving: vec![0; nodes],
            getting: vec![0; nodes],
            from: BTreeMap::new(),
            takers: BTreeMap::new(),
            joined: vec![0],
            last: 0,
        }
    }

    fn draw_graph(&mut self, node: Node) {
        let mut before = self.joined.clone();
        before.shuffle(&mut self.random);
        let from = match self.graph {
            Graph::Everybody => Vec::new(),
            Graph::ThreeOfFifteen => {
                before.truncate(15);
                before
                    .sort_by_key(|one| self.from.values().filter(|all| all.contains(one)).count());
                before.truncate(3);
                before
            }
            Graph::Tree(children) => vec![(node - 1) / children],
            Graph::Neighbours(degree) => {
                before.truncate(degree as usize);
                for one in before.iter().filter(|one| **one != 0) {
                    self.from.entry(*one).or_default().push(node);
                }
                before
            }
        };
        self.from.entry(node).or_default().extend(from);
        self.joined.push(node);
        for of in self.from[&node].clone() {
            self.takers.entry(of).or_default().push(node);
            if matches!(self.graph, Graph::Neighbours(_)) {
                self.takers.entry(node).or_default().push(of);
            }
        }
    }

    /// Lets a receiver ask as long as it may and somebody can give.
    fn ask(&mut self, to: Node, out: &mut Vec<Order>) {
        while to != 0 && self.getting[to as usize] < self.downlink {
            let Some((from, piece)) = self.find(to) else { return };
            self.last += 1;
            self.coming[to as usize][piece as usize] = true;
            self.copies[piece as usize] += 1;
            self.giving[from as usize] += 1;
            self.getting[to as usize] += 1;
            out.push(Order { id: self.last, from, to, first: piece, count: 1 });
        }
    }

    fn find(&mut self, to: Node) -> Option<(Node, u32)> {
        let lacks = |piece: &u32| {
            let piece = *piece as usize;
            !self.has[to as usize][piece] && !self.coming[to as usize][piece]
        };
        let mut wanted: Vec<u32> = (0..self.pieces).filter(lacks).collect();
        wanted.shuffle(&mut self.random);
        if self.pull == Pull::Rarest {
            wanted.sort_by_key(|piece| self.copies[*piece as usize]);
        }
        wanted.truncate(PIECES_TRIED);
        let known = match self.graph {
            Graph::Everybody => &self.joined,
            _ => self.from.get(&to)?,
        };
        for piece in wanted {
            for _ in 0..TRIED {
                let from = known[self.random.random_range(0..known.len())];
                let is_free = self.giving[from as usize] < self.slots;
                if from != to && is_free && self.has[from as usize][piece as usize] {
                    return Some((from, piece));
                }
            }
        }
        None
    }

    fn done(&mut self, order: &Order, out: &mut Vec<Order>) {
        let (to, piece) = (order.to as usize, order.first as usize);
        self.has[to][piece] = true;
        self.giving[order.from as usize] -= 1;
        self.getting[to] -= 1;
        self.ask(order.to, out);
        // Who may take of the one who is free, and of the one who has something new.
        let takers = [order.from, order.to].into_iter().filter_map(|of| self.takers.get(&of));
        for one in takers.flatten().copied().collect::<Vec<_>>() {
            self.ask(one, out);
        }
        for _ in 0..WOKEN {
            let one = self.joined[self.random.random_range(0..self.joined.len())];
            self.ask(one, out);
        }
    }
}

impl Policy for Pulling {
    /// Nothing fails where it decides: scenarios with faults are not for it.
    fn step(&mut self, event: Event, _now: Micros, out: &mut Decisions) {
        match event {
            Event::Joined { node, .. } => {
                self.draw_graph(node);
                self.ask(node, &mut out.orders);
            }
            Event::Done(order) => self.done(&order, &mut out.orders),
            Event::Tick => {
                for node in self.joined.clone() {
                    self.ask(node, &mut out.orders);
                }
            }
            _ => {}
        }
    }
}
