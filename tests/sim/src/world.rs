//! What is so, whatever the scheduler believes: who has which piece, who lives, and what came of all that was sent.

use std::ops::Range;

use dfs_scheduler::matcher::Micros;

use crate::faults::Plan;
use crate::policy::{Node, Order, place};
use crate::scenario::Scenario;

/// A node, as it is.
#[derive(Debug, Clone)]
pub struct State {
    /// Whether its process runs.
    pub is_alive: bool,
    /// Since when it neither sends nor receives.
    pub frozen: Option<Micros>,
    /// How much slower it sends than it can.
    pub slowness: f64,
    /// Whether what it sends is wrong.
    pub is_rotten: bool,
    /// Whether it claims to have everything, and has nothing.
    pub lies: bool,
    /// Which of its lives this is: what was said in another means nothing.
    pub life: u32,
    /// Pieces that it lacks.
    pub lacks: u32,
    /// When it arrived, and had everything.
    pub arrived: Option<Micros>,
    /// See `arrived`.
    pub done: Option<Micros>,
    /// Bytes that it has sent, which arrived.
    pub sent: u64,
    must: bool,
}

/// Bytes, by what came of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    /// Out of the source.
    pub from_source: u64,
    /// Into a data centre, from outside.
    pub into_idcs: u64,
    /// Into a rack.
    pub into_racks: u64,
    /// To who had them.
    pub twice: u64,
    /// Of no use: stopped in the middle, wrong, or to who is gone.
    pub in_vain: u64,
}

/// All nodes.
#[derive(Debug)]
pub struct World {
    pieces: u32,
    piece_bytes: u64,
    places: Vec<(u32, u32)>,
    /// By node; zero is the source.
    pub nodes: Vec<State>,
    /// By node and piece: zero, or how many nodes it went through, the source being one.
    depths: Vec<u8>,
    /// Nodes that must get everything and have not.
    pub incomplete: usize,
    /// What was sent.
    pub bytes: Bytes,
}

impl World {
    /// At the beginning only the source has anything.
    pub fn new(scenario: &Scenario, plan: &Plan) -> Self {
        let state = State {
            is_alive: true,
            frozen: None,
            slowness: 1.0,
            is_rotten: false,
            lies: false,
            life: 0,
            lacks: scenario.pieces,
            arrived: None,
            done: None,
            sent: 0,
            must: false,
        };
        let count = scenario.nodes as usize + 1;
        let mut nodes = vec![state; count];
        plan.liars.iter().for_each(|liar| nodes[*liar as usize].lies = true);
        plan.must.iter().for_each(|node| nodes[*node as usize].must = true);
        let mut depths = vec![0; count * scenario.pieces as usize];
        depths[..scenario.pieces as usize].fill(1);
        nodes[0].lacks = 0;
        let place = |node| {
            let place = place(scenario, node);
            (place.idc, place.rack)
        };
        Self {
            pieces: scenario.pieces,
            piece_bytes: scenario.piece_bytes,
            places: (0..count as Node).map(place).collect(),
            nodes,
            depths,
            incomplete: plan.must.len(),
            bytes: Bytes::default(),
        }
    }

    /// A node.
    pub fn node(&self, node: Node) -> &State {
        &self.nodes[node as usize]
    }

    /// A node, to change it.
    pub fn node_mut(&mut self, node: Node) -> &mut State {
        &mut self.nodes[node as usize]
    }

    /// Its data centre.
    pub fn idc(&self, node: Node) -> u32 {
        self.places[node as usize].0
    }

    fn at(&self, node: Node, piece: u32) -> usize {
        node as usize * self.pieces as usize + piece as usize
    }

    /// Whether it has a piece.
    pub fn has(&self, node: Node, piece: u32) -> bool {
        self.depths[self.at(node, piece)] > 0
    }

    /// Whether it has all of them.
    pub fn has_all(&self, node: Node, mut pieces: Range<u32>) -> bool {
        pieces.all(|piece| self.has(node, piece))
    }

    /// What it says that it has.
    pub fn claims(&self, node: Node) -> Vec<Range<u32>> {
        if self.node(node).lies {
            return vec![Range { start: 0, end: self.pieces }];
        }
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for piece in (0..self.pieces).filter(|piece| self.has(node, *piece)) {
            match ranges.last_mut().filter(|range| range.end == piece) {
                Some(range) => range.end += 1,
                None => ranges.push(piece..piece + 1),
            }
        }
        ranges
    }

    /// An order's bytes have arrived; whether they are what they should be.
    pub fn came(&mut self, order: &Order, now: Micros) -> bool {
        let bytes = u64::from(order.count) * self.piece_bytes;
        self.nodes[order.from as usize].sent += bytes;
        let ((from_idc, from_rack), (to_idc, to_rack)) =
            (self.places[order.from as usize], self.places[order.to as usize]);
        let is_outside = order.from == 0 || from_idc != to_idc;
        self.bytes.from_source += if order.from == 0 { bytes } else { 0 };
        self.bytes.into_idcs += if is_outside { bytes } else { 0 };
        self.bytes.into_racks += if is_outside || from_rack != to_rack { bytes } else { 0 };
        if self.node(order.from).is_rotten {
            self.bytes.in_vain += bytes;
            return false;
        }
        for piece in order.pieces() {
            let depth = self.depths[self.at(order.from, piece)];
            let at = self.at(order.to, piece);
            if self.depths[at] > 0 {
                self.bytes.twice += self.piece_bytes;
                continue;
            }
            self.depths[at] = depth.saturating_add(1).max(1);
            self.nodes[order.to as usize].lacks -= 1;
        }
        let to = &mut self.nodes[order.to as usize];
        if to.lacks == 0 && to.done.is_none() {
            to.done = Some(now);
            self.incomplete -= usize::from(to.must);
        }
        true
    }

    /// A node is killed.
    pub fn crash(&mut self, node: Node, keeps: bool) {
        let state = &mut self.nodes[node as usize];
        state.is_alive = false;
        state.life += 1;
        if keeps {
            return;
        }
        state.lacks = self.pieces;
        if state.done.take().is_some() {
            self.incomplete += usize::from(state.must);
        }
        let first = self.at(node, 0);
        self.depths[first..first + self.pieces as usize].fill(0);
    }

    /// When the last of those that must get everything had it.
    pub fn last(&self) -> Option<Micros> {
        self.nodes.iter().filter(|node| node.must).filter_map(|node| node.done).max()
    }

    /// Through how many nodes pieces went before they came to a node, the source being one; sorted.
    pub fn depths(&self) -> Vec<u8> {
        let of_nodes = &self.depths[self.pieces as usize..];
        let mut all: Vec<u8> =
            of_nodes.iter().filter(|depth| **depth > 0).map(|depth| depth - 1).collect();
        all.sort_unstable();
        all
    }
}
