//! What must hold of every decision, kept beside the one who decides from what it was told and said; and of every run.

mod pairs;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dfs_scheduler::matcher::{Failure, Micros};

use pairs::Pairs;

use crate::policy::{Decisions, Event, Node, Order, place};
use crate::scenario::Scenario;

/// Something that must hold does not.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Broken {
    /// The scheduler was never told that the sender has it.
    #[error("{0:?}: for all that the scheduler knows, the sender has it not")]
    SenderHasNot(Order),
    /// The sender never said that it has it.
    #[error("{0:?}: the sender has it not, and never said so")]
    NeverHad(Order),
    /// The receiver has it.
    #[error("{0:?}: the receiver has it")]
    ReceiverHas(Order),
    /// The receiver is being sent it.
    #[error("{0:?}: it is on its way to the receiver")]
    OnItsWay(Order),
    /// One of the two is not there.
    #[error("{0:?}: one of the two is not there")]
    NotHere(Order),
    /// More leases than an uplink takes.
    #[error("{0:?}: the sender has no slot for it")]
    NoSlot(Order),
    /// More leases than a downlink takes.
    #[error("{0:?}: the receiver has no slot for it")]
    NoRoom(Order),
    /// It enters where it is already.
    #[error("{0:?}: it is where it goes to, or on its way there")]
    EnteredTwice(Order),
    /// More partners than a node has.
    #[error("{0:?}: node {1} has {2} partners then")]
    TooManyPartners(Order, Node, u32),
    /// A lease was neither carried out nor taken back.
    #[error("{0:?}: leased at {1:?} and still out at {2:?}")]
    Outlived(Order, Micros, Micros),
    /// What is counted step by step is not what there is.
    #[error("{0} of {1} are counted as {2}, and are {3}")]
    Miscounted(&'static str, u32, u32, u32),
    /// No schedule is so fast: the simulator is wrong.
    #[error("done after {0} s, where a fluid takes {1} s")]
    SoonerThanFluid(f64, f64),
    /// Nothing was wrong any more, and yet somebody waits.
    #[error("{0} nodes lack something {1} s after everything was healed")]
    NotDone(usize, f64),
    /// Equal seeds, other decisions.
    #[error("the same seed decided {0} and {1}")]
    NotTheSame(String, String),
}

/// Whether each piece may enter an area that has it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imports {
    /// Never: copies are lost only by what the scheduler is told.
    Once,
    /// Where the sender of the only copy is too slow, or for those who do not care.
    Again,
    /// Several decide, each of whom knows some: what is told to all of them together is not looked at.
    Unseen,
}

/// The areas of a node: everywhere, its data centre, its rack.
type Areas = [usize; 3];

/// What the scheduler was told and said.
#[derive(Debug)]
pub struct Witness {
    imports: Imports,
    uplink: u32,
    downlink: u32,
    partners: u32,
    /// Who has to do with whom.
    pub pairs: Pairs,
    pieces: usize,
    slowest_us: u64,
    areas: Vec<Areas>,
    is_here: Vec<bool>,
    /// By node and piece.
    has: Vec<bool>,
    coming: Vec<bool>,
    giving: Vec<u32>,
    getting: Vec<u32>,
    /// By area and piece: nodes that have it or are being sent it.
    copies: Vec<u32>,
    open: HashMap<u64, (Order, Micros)>,
    /// To whom orders have come to nothing, and from whom, since anything came.
    failed: BTreeSet<(Node, Node)>,
    /// Whose order was taken back, and nothing of theirs has come since.
    doubtful: BTreeSet<Node>,
    /// Who was said not to have what they should, by whom last, since anything of theirs came.
    denied: BTreeMap<Node, Option<Node>>,
    /// Who gives nothing to whom, until when; that is known once the scheduler has decided.
    apart: BTreeMap<(Node, Node), Option<Micros>>,
    /// What two have said that one has not, whatever it says itself: once it is back it is taken at its word again.
    refuted: BTreeSet<(Node, u32)>,
    /// What those had who are not heard of: they have it still when they are back.
    asleep: BTreeMap<Node, Vec<bool>>,
}

/// A lease may take so many times what its sender was ever seen to take for one, and a second.
const PATIENCE: u64 = 4;

/// How long two of whom one has denied the other are left to others.
const APART: u64 = 5_000_000;

/// Time that may pass until an overdue lease is looked at, and a second.
const GRACE: u64 = 1_200_000;

/// Leases that anybody has at a time, where that does not depend on how fast they turn out to be.
fn most_leases(scenario: &Scenario, leases: u32) -> u32 {
    if scenario.window_us > 0 { 1 << 20 } else { leases }
}

impl Witness {
    /// One who knows the source.
    pub fn new(scenario: &Scenario, imports: Imports) -> Self {
        let (nodes, pieces) = (scenario.nodes as usize + 1, scenario.pieces as usize);
        let areas = |node| {
            let place = place(scenario, node);
            let rack = place.idc * scenario.racks + place.rack;
            [0, 1 + place.idc as usize, 1 + (scenario.idcs + rack) as usize]
        };
        let slowest =
            (0..scenario.nodes).map(|node| scenario.uplink(node)).fold(f64::MAX, f64::min);
        let bytes = u64::from(scenario.run) * scenario.piece_bytes;
        let area_count = 1 + (scenario.idcs + scenario.idcs * scenario.racks) as usize;
        let mut witness = Self {
            imports,
            uplink: most_leases(scenario, scenario.uplink_leases),
            downlink: most_leases(scenario, scenario.downlink_leases),
            partners: scenario.partners,
            pairs: Pairs::new(nodes),
            pieces,
            slowest_us: (bytes as f64 / slowest * 1e6) as u64,
            areas: (0..nodes as Node).map(areas).collect(),
            is_here: vec![false; nodes],
            has: vec![false; nodes * pieces],
            coming: vec![false; nodes * pieces],
            giving: vec![0; nodes],
            getting: vec![0; nodes],
            copies: vec![0; area_count * pieces],
            open: HashMap::new(),
            failed: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            denied: BTreeMap::new(),
            apart: BTreeMap::new(),
            refuted: BTreeSet::new(),
            asleep: BTreeMap::new(),
        };
        witness.begin();
        witness
    }

    fn begin(&mut self) {
        self.is_here[0] = true;
        self.has[..self.pieces].fill(true);
    }

    /// Leases that are out.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The scheduler was told something.
    pub fn told(&mut self, event: &Event) {
        if self.imports == Imports::Unseen {
            return;
        }
        match event {
            Event::Joined { node, has, .. } => {
                self.is_here[*node as usize] = true;
                let had = self.asleep.remove(node).unwrap_or_default().into_iter().zip(0..);
                let had: Vec<u32> = had.filter(|(has, _)| *has).map(|(_, piece)| piece).collect();
                for piece in had.into_iter().chain(has.iter().flat_map(Clone::clone)) {
                    self.set_has(*node, piece, true);
                }
            }
            Event::Left(node) => self.left(*node),
            Event::Ended(order) => {
                if self.end(order.id).is_some() {
                    self.is_served(order);
                }
            }
            Event::Gained(node, pieces) => {
                pieces.clone().for_each(|piece| self.said_to_have(*node, piece, true));
            }
            Event::Has(node, pieces) => {
                for piece in 0..self.pieces as u32 {
                    let has = pieces.iter().any(|run| run.contains(&piece));
                    self.said_to_have(*node, piece, has);
                }
            }
            Event::Done(order) => {
                if self.end(order.id).is_some() {
                    self.is_served(order);
                }
                order.pieces().for_each(|piece| self.said_to_have(order.to, piece, true));
            }
            Event::Failed(order, why) => {
                if self.end(order.id).is_some() {
                    self.failed(order, *why);
                }
            }
            Event::Restarted => self.restarted(),
            Event::Tick | Event::Said(_) => {}
        }
    }

    /// Something came of a lease.
    fn is_served(&mut self, order: &Order) {
        self.failed.retain(|(to, _)| *to != order.to);
        self.doubtful.remove(&order.from);
        self.denied.remove(&order.from);
    }

    fn failed(&mut self, order: &Order, why: Failure) {
        let Order { from, to, .. } = *order;
        self.failed.insert((to, from));
        if matches!(why, Failure::NotThere | Failure::Apart) {
            self.apart.insert((from, to), None);
        }
        // One's word is not enough, and what a source is to have it will have.
        if why == Failure::NotThere
            && self.denied.insert(from, Some(to)).is_some_and(|before| before != Some(to))
            && from != 0
        {
            for piece in order.pieces() {
                self.set_has(from, piece, false);
                self.refuted.insert((from, piece));
            }
        }
    }

    fn forget_name(&mut self, from: Node, by: Node) {
        if let Some(denied_by) = self.denied.get_mut(&from) {
            *denied_by = denied_by.filter(|known| *known != by);
        }
    }

    fn left(&mut self, node: Node) {
        self.pairs.left(node);
        self.failed.retain(|(to, from)| *to != node && *from != node);
        self.doubtful.remove(&node);
        self.denied.remove(&node);
        self.denied.values_mut().for_each(|by| *by = by.filter(|by| *by != node));
        self.apart.retain(|(from, to), _| *from != node && *to != node);
        if !std::mem::take(&mut self.is_here[node as usize]) {
            return;
        }
        let first = self.at(node, 0);
        let mut had = self.has[first..first + self.pieces].to_vec();
        for (_, piece) in self.refuted.extract_if((node, 0)..=(node, u32::MAX), |_| true) {
            had[piece as usize] = true;
        }
        self.asleep.insert(node, had);
        let is_of = |order: &Order| order.from == node || order.to == node;
        let of_it = self.open.values().map(|(order, _)| order).filter(|order| is_of(order));
        let of_it: Vec<u64> = of_it.map(|order| order.id).collect();
        for id in of_it {
            self.end(id);
        }
        (0..self.pieces as u32).for_each(|piece| self.set_has(node, piece, false));
    }

    fn restarted(&mut self) {
        self.is_here.fill(false);
        self.has.fill(false);
        self.coming.fill(false);
        self.giving.fill(0);
        self.getting.fill(0);
        self.copies.fill(0);
        self.open.clear();
        self.failed.clear();
        self.doubtful.clear();
        self.denied.clear();
        self.apart.clear();
        self.refuted.clear();
        self.asleep.clear();
        self.pairs.clear();
        self.begin();
    }

    /// The scheduler has decided.
    pub fn decided(&mut self, decisions: &Decisions, now: Micros) -> Result<(), Broken> {
        if self.imports == Imports::Unseen {
            return Ok(());
        }
        self.apart.retain(|_, until| *until.get_or_insert(Micros(now.0 + APART)) > now);
        for (id, _) in &decisions.stopped {
            if let Some(order) = self.end(*id) {
                self.failed.insert((order.to, order.from));
                self.doubtful.insert(order.from);
            }
        }
        for (one, other) in &decisions.parted {
            self.pairs.part(*one, *other);
            self.forget_name(*one, *other);
            self.forget_name(*other, *one);
        }
        decisions.orders.iter().try_for_each(|order| self.leased(order, now))?;
        for (one, other) in &decisions.parted {
            self.failed.remove(&(*one, *other));
            self.failed.remove(&(*other, *one));
        }
        Ok(())
    }

    fn leased(&mut self, order: &Order, now: Micros) -> Result<(), Broken> {
        let (from, to) = (order.from as usize, order.to as usize);
        if from == to || !self.is_here[from] || !self.is_here[to] {
            return Err(Broken::NotHere(*order));
        }
        for piece in order.pieces() {
            let of = |node: Node| self.at(node, piece);
            if !self.has[of(order.from)] {
                return Err(Broken::SenderHasNot(*order));
            }
            if self.has[of(order.to)] {
                return Err(Broken::ReceiverHas(*order));
            }
            if self.coming[of(order.to)] {
                return Err(Broken::OnItsWay(*order));
            }
            if self.imports == Imports::Once && self.is_there_already(order, piece) {
                return Err(Broken::EnteredTwice(*order));
            }
        }
        self.giving[from] += order.count;
        self.getting[to] += order.count;
        if self.giving[from] > self.uplink {
            return Err(Broken::NoSlot(*order));
        }
        if self.getting[to] > self.downlink {
            return Err(Broken::NoRoom(*order));
        }
        let (node, partners) = self.pairs.meet(order.from, order.to);
        if partners > self.partners {
            return Err(Broken::TooManyPartners(*order, node, partners));
        }
        order.pieces().for_each(|piece| self.set_coming(order.to, piece, true));
        self.open.insert(order.id, (*order, now));
        Ok(())
    }

    /// Whether a piece is, or is on its way, where it would enter with an order. From the source it enters everywhere.
    fn is_there_already(&self, order: &Order, piece: u32) -> bool {
        let [world, ..] = self.areas[0];
        if order.from == 0 {
            return self.is_in(world, order.to, piece);
        }
        let pairs = self.areas[order.from as usize].into_iter().zip(self.areas[order.to as usize]);
        let mut entered = pairs.filter(|(from, to)| from != to);
        entered.any(|(_, area)| self.is_in(area, order.to, piece))
    }

    /// Whether somebody in an area who counts for a receiver has a piece, or is being sent it by one who does.
    fn is_in(&self, area: usize, to: Node, piece: u32) -> bool {
        let copies = self.copies[self.copies_at(area, piece)];
        let has_failed = |node: &Node| self.failed.contains(&(to, *node));
        let is_apart = |node: &Node| self.apart.contains_key(&(*node, to));
        if copies == 0
            || (self.doubtful.is_empty() && self.failed.is_empty() && self.apart.is_empty())
        {
            return copies > 0;
        }
        let counts = |node: &Node| !self.doubtful.contains(node);
        let is_there = |node: &Node| self.areas[*node as usize].contains(&area);
        let mut there = (1..self.areas.len() as Node)
            .filter(|node| is_there(node) && counts(node) && !has_failed(node) && !is_apart(node));
        there.any(|node| {
            let brings = |(order, _): &(Order, Micros)| {
                order.to == node && order.pieces().contains(&piece) && counts(&order.from)
            };
            self.has[self.at(node, piece)]
                || (self.coming[self.at(node, piece)] && self.open.values().any(brings))
        })
    }

    fn at(&self, node: Node, piece: u32) -> usize {
        node as usize * self.pieces + piece as usize
    }

    fn copies_at(&self, area: usize, piece: u32) -> usize {
        area * self.pieces + piece as usize
    }

    /// A node has a piece, or not. It may be heard of no more: then that counts once it is back.
    fn said_to_have(&mut self, node: Node, piece: u32, has: bool) {
        self.refuted.remove(&(node, piece));
        if self.is_here[node as usize] {
            self.set_has(node, piece, has);
        } else if let Some(had) = self.asleep.get_mut(&node) {
            had[piece as usize] = has;
        }
    }

    fn set_has(&mut self, node: Node, piece: u32, has: bool) {
        let at = self.at(node, piece);
        let was = self.has[at] || self.coming[at];
        self.has[at] = has;
        self.recount(node, piece, was);
    }

    fn set_coming(&mut self, node: Node, piece: u32, is_coming: bool) {
        let at = self.at(node, piece);
        let was = self.has[at] || self.coming[at];
        self.coming[at] = is_coming;
        self.recount(node, piece, was);
    }

    /// The source's are no copies.
    fn recount(&mut self, node: Node, piece: u32, was: bool) {
        let at = self.at(node, piece);
        let is = self.has[at] || self.coming[at];
        if node == 0 || is == was {
            return;
        }
        for area in self.areas[node as usize] {
            let at = self.copies_at(area, piece);
            self.copies[at] = if is { self.copies[at] + 1 } else { self.copies[at] - 1 };
        }
    }

    /// A lease is out no more, where it was.
    fn end(&mut self, id: u64) -> Option<Order> {
        let (order, _) = self.open.remove(&id)?;
        order.pieces().for_each(|piece| self.set_coming(order.to, piece, false));
        self.giving[order.from as usize] -= order.count;
        self.getting[order.to as usize] -= order.count;
        Some(order)
    }

    /// All that is too much to look at in every step.
    pub fn full(&self, now: Micros) -> Result<(), Broken> {
        self.check_counts()?;
        let mut giving = vec![0; self.giving.len()];
        let mut getting = vec![0; self.getting.len()];
        for (order, since) in self.open.values() {
            giving[order.from as usize] += order.count;
            getting[order.to as usize] += order.count;
            // However slow an uplink seemed, it was not seen for longer than there was.
            let seen = since.0.max(self.slowest_us).max(1_000_000);
            let most = PATIENCE * seen * u64::from(self.uplink + 1) + GRACE;
            if now.0 > since.0 + most {
                return Err(Broken::Outlived(*order, *since, now));
            }
        }
        compare("leases from node", &self.giving, &giving)?;
        compare("leases to node", &self.getting, &getting)
    }

    fn check_counts(&self) -> Result<(), Broken> {
        let mut copies = vec![0; self.copies.len()];
        for node in 1..self.is_here.len() as Node {
            for piece in 0..self.pieces as u32 {
                let at = self.at(node, piece);
                if self.has[at] || self.coming[at] {
                    let areas = self.areas[node as usize];
                    areas.into_iter().for_each(|area| copies[self.copies_at(area, piece)] += 1);
                }
            }
        }
        compare("copies", &self.copies, &copies)
    }
}

/// Whether what is counted is what there is.
fn compare<T: Copy + PartialEq + Into<u32>>(
    what: &'static str,
    counted: &[T],
    are: &[T],
) -> Result<(), Broken> {
    let mut pairs = counted.iter().zip(are).enumerate();
    pairs.find(|(_, (counted, are))| counted != are).map_or(Ok(()), |(at, (counted, are))| {
        Err(Broken::Miscounted(what, at as u32, (*counted).into(), (*are).into()))
    })
}

/// Whether a run was as slow as it must be.
pub fn not_sooner(last: f64, fluid: f64) -> Result<(), Broken> {
    // What is asked of a flow is rounded to microseconds.
    if last < fluid - 1e-3 { Err(Broken::SoonerThanFluid(last, fluid)) } else { Ok(()) }
}

/// Whether two runs of a seed decided the same.
pub fn the_same(one: &str, other: &str) -> Result<(), Broken> {
    if one == other { Ok(()) } else { Err(Broken::NotTheSame(one.to_owned(), other.to_owned())) }
}

#[cfg(test)]
mod tests;
