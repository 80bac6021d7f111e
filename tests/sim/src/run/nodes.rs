//! What nodes do of their own: they are told what the scheduler's core decides, and ask each other.

use std::collections::BTreeSet;

use dfs_model::{GroupRange, TaskInfo};
use dfs_scheduler::core::{Decision, Event};
use dfs_scheduler::matcher::Micros;

use super::{Happening, Run};
use crate::child::{self, Child, Does};
use crate::control::Said;
use crate::core;
use crate::hosts::host;
use crate::peer::conductor::Failure;
use crate::policy::{Node, Order};
use crate::scenario::{Reads, Scenario};

/// How often a node that lacks something looks at what it does.
const LOOKS: u64 = 100_000;

/// After so many microseconds without a byte, from who owes some, a connection is given up.
const OWING: u64 = 2_000_000;

/// How long one waits for a connection to come back, to hear what the other has.
const REFOLLOWS: u64 = 200_000;

/// Who is being brought something acts when it comes, and looks but every so often whether it stands still.
const BUSY_LOOKS: u32 = 5;

/// All nodes.
pub struct Nodes {
    task: TaskInfo,
    reads: Reads,
    /// By node; the source asks for nothing.
    children: Vec<Child>,
    /// Who wants to hear what a node has.
    followers: Vec<BTreeSet<Node>>,
    last_order: u64,
    looks: u32,
}

impl Nodes {
    /// Nodes that have nothing yet.
    pub fn new(scenario: &Scenario, task: &TaskInfo) -> Self {
        let Scenario { nodes: count, reads, .. } = *scenario;
        let child = |node| Child::new(node, task, dfs_model::GroupSet::new(), reads);
        Self {
            task: task.clone(),
            reads,
            children: (0..=count).map(child).collect(),
            followers: vec![BTreeSet::new(); count as usize + 1],
            last_order: 0,
            looks: 0,
        }
    }
}

/// What happens among nodes.
#[derive(Debug, Clone)]
pub(super) enum Between {
    /// Somebody is asked for something.
    Asked(Order),
    /// Somebody is not to send any more what was asked.
    Stopped(u64, Node),
    /// What was asked does not come.
    Fails(Order, Failure),
    /// One hears what another has got.
    Hears(Node, Node, GroupRange),
    /// One looks what another has.
    Looks(Node, Node),
    /// A node finds the scheduler gone, of which life it was.
    Alone(Node, u32),
    /// Who sends to a node finds that it takes nothing.
    Stalls(Node),
    /// Those who lack something look at what they do.
    All,
}

impl Run<'_> {
    fn between_after(&mut self, micros: u64, between: Between) {
        self.at(Micros(self.now.0 + micros), Happening::Between(between));
    }

    pub(super) fn begin_to_act(&mut self) {
        if self.nodes.is_some() {
            self.between_after(LOOKS, Between::All);
        }
    }

    pub(super) fn between(&mut self, between: Between) {
        let acts = match &between {
            Between::Asked(_) | Between::Stopped(..) | Between::Stalls(_) | Between::All => None,
            Between::Fails(Order { to: node, .. }, _)
            | Between::Hears(node, ..)
            | Between::Looks(node, _)
            | Between::Alone(node, _) => Some(*node),
        };
        if acts.is_some_and(|node| self.world.node(node).frozen.is_some()) {
            return self.held.push(Happening::Between(between));
        }
        match between {
            Between::Asked(order) => self.is_asked(order),
            Between::Stopped(id, from) => {
                self.world.bytes.in_vain += self.network.stop(from, id, self.now);
            }
            Between::Fails(order, failure) => self.fails(&order, failure),
            Between::Hears(node, of, groups) => {
                self.hears(node, of, &[groups]);
                // Whoever is being brought something looks at it with that.
                if self.is_brought_something(node) {
                    return;
                }
            }
            Between::Looks(node, of) => {
                if self.world.node(of).is_alive {
                    let claims = core::groups(&self.world.claims(of));
                    self.hears(node, of, &claims.ranges().collect::<Vec<_>>());
                }
            }
            // One that was frozen meanwhile may have found another since.
            Between::Alone(_, reign) if reign != self.reign => return,
            Between::Alone(node, _) => {
                if let Some(nodes) = &mut self.nodes {
                    nodes.children[node as usize].is_alone();
                }
            }
            Between::Stalls(node) => self.stalls(node),
            Between::All => return self.all_act(),
        }
        acts.into_iter().for_each(|node| self.acts(node));
    }

    fn hears(&mut self, node: Node, of: Node, groups: &[GroupRange]) {
        if let Some(nodes) = &mut self.nodes {
            nodes.children[node as usize].parent_holds(of, groups);
        }
    }

    fn is_asked(&mut self, order: Order) {
        let from = self.world.node(order.from);
        let failure = match () {
            () if !from.is_alive => Some(Failure::Disconnected),
            () if from.lies || !self.world.has_all(order.from, order.pieces()) => {
                Some(Failure::NotHeld)
            }
            () => None,
        };
        match failure {
            Some(failure) => {
                self.between_after(self.scenario.control_us, Between::Fails(order, failure));
            }
            None => self.network.order(order, self.now),
        }
    }

    fn fails(&mut self, order: &Order, failure: Failure) {
        let now = self.now;
        if let Some(nodes) = &mut self.nodes {
            nodes.children[order.to as usize].failed(order.id, failure, now);
        }
    }

    /// What was asked for has arrived.
    pub(super) fn brought(&mut self, order: &Order) {
        let (is_right, now) = (self.world.came(order, self.now), self.now);
        let Some(nodes) = &mut self.nodes else { return };
        if !is_right {
            self.fails(order, Failure::BadDigest);
            return self.acts(order.to);
        }
        nodes.children[order.to as usize].came(order, now);
        let followers: Vec<Node> = nodes.followers[order.to as usize].iter().copied().collect();
        for node in followers {
            let hears = Between::Hears(node, order.to, child::groups_of(order));
            self.between_after(self.scenario.control_us, hears);
        }
        self.acts(order.to);
    }

    /// Whoever asked somebody who is gone finds the connection broken.
    pub(super) fn is_lost(&mut self, orders: &[Order]) {
        if self.nodes.is_some() {
            for order in orders {
                let fails = Between::Fails(*order, Failure::Disconnected);
                self.between_after(self.scenario.control_us, fails);
            }
        }
    }

    /// The process of a node is another.
    pub(super) fn begins_anew(&mut self, node: Node) {
        let held = core::groups(&self.world.claims(node));
        let Some(nodes) = &mut self.nodes else { return };
        nodes.children[node as usize] = Child::new(node, &nodes.task, held, nodes.reads);
        nodes.followers.iter_mut().for_each(|all| {
            all.remove(&node);
        });
        let followers: Vec<Node> = nodes.followers[node as usize].iter().copied().collect();
        for follower in followers {
            self.between_after(REFOLLOWS, Between::Looks(follower, node));
        }
    }

    /// What a node says first, after that it is here.
    pub(super) fn introduce(&mut self, node: Node) {
        let held = core::groups(&self.world.claims(node));
        let lies = self.world.node(node).lies;
        let Some(nodes) = &mut self.nodes else { return };
        let words = match node {
            0 => vec![nodes.announced(0, held)],
            _ if lies => vec![nodes.announced(node, held)],
            _ => nodes.children[node as usize].connects(),
        };
        words.into_iter().for_each(|word| self.say(node, Said::Word(Box::new(word))));
        self.acts(node);
    }

    /// The scheduler is gone, for all.
    pub(super) fn are_alone(&mut self) {
        if self.nodes.is_some() {
            for node in 1..=self.scenario.nodes {
                let alone = Between::Alone(node, self.reign);
                self.between_after(self.scenario.control_us, alone);
            }
        }
    }

    /// A node is told what was decided about it.
    pub(super) fn heed(&mut self, node: Node, decision: &Decision) {
        let now = self.now;
        let Some(nodes) = &mut self.nodes else { return };
        if let Decision::ObtainFromSeed { obtain, .. } = decision {
            let words = child::obtained(&nodes.task, node, *obtain);
            return words.into_iter().for_each(|word| self.say(node, Said::Word(Box::new(word))));
        }
        let mut does = Vec::new();
        nodes.children[node as usize].told(decision, now, &mut does);
        self.carry_out(node, does);
    }

    /// A node does what there is to do.
    pub(super) fn acts(&mut self, node: Node) {
        let state = self.world.node(node);
        if node == 0 || !state.is_alive || state.lies || state.arrived.is_none() {
            return;
        }
        let now = self.now;
        let Some(nodes) = &mut self.nodes else { return };
        let mut does = Vec::new();
        nodes.children[node as usize].act(now, &mut nodes.last_order, &mut does);
        self.carry_out(node, does);
    }

    fn carry_out(&mut self, node: Node, does: Vec<Does>) {
        let away = self.scenario.control_us;
        for one in does {
            match one {
                Does::Asks(order) if away == 0 => self.is_asked(order),
                Does::Asks(order) => self.between_after(away, Between::Asked(order)),
                Does::Stops(id, from) => self.between_after(away, Between::Stopped(id, from)),
                Does::Follows(of) => {
                    if let Some(nodes) = &mut self.nodes {
                        nodes.followers[of as usize].insert(node);
                    }
                    self.between_after(2 * away, Between::Looks(node, of));
                }
                Does::LetsBe(of) => {
                    if let Some(nodes) = &mut self.nodes {
                        nodes.followers[of as usize].remove(&node);
                    }
                }
                Does::Says(word) => self.say(node, Said::Word(word)),
            }
        }
    }

    /// Whoever lacks something looks, gives up whom it waits for in vain, and acts.
    fn all_act(&mut self) {
        self.between_after(LOOKS, Between::All);
        let Some(nodes) = &mut self.nodes else { return };
        nodes.looks += 1;
        let looks = nodes.looks;
        for node in 1..=self.scenario.nodes {
            if !(looks + node).is_multiple_of(BUSY_LOOKS) && self.is_brought_something(node) {
                continue;
            }
            let state = self.world.node(node);
            if state.lacks > 0 && state.frozen.is_none() {
                self.gives_up(node);
                self.acts(node);
            }
        }
    }

    /// A node neither sends nor takes anything.
    pub(super) fn is_frozen(&mut self, node: Node) {
        if self.nodes.is_some() {
            self.between_after(OWING, Between::Stalls(node));
        }
    }

    /// Whoever sends to one that takes nothing has its stream for others; that one finds the connection broken.
    fn stalls(&mut self, node: Node) {
        let is_over = |at: Micros| at.0 + OWING <= self.now.0;
        if !self.world.node(node).frozen.is_some_and(is_over) {
            return;
        }
        let Some(nodes) = &self.nodes else { return };
        let asked: Vec<Order> =
            nodes.children[node as usize].asked().map(|(order, _)| *order).collect();
        for order in &asked {
            self.world.bytes.in_vain += self.network.stop(order.from, order.id, self.now);
        }
        self.is_lost(&asked);
    }

    /// Since when one does not get through to another.
    fn unreachable_since(&self, from: Node, to: Node) -> Option<Micros> {
        let idc = |node: Node| (node != 0).then(|| self.world.idc(node));
        let borders = match idc(from) == idc(to) {
            true => [None, None],
            false => [from, to].map(|node| idc(node).and_then(|idc| self.cut[idc as usize])),
        };
        self.world.node(from).frozen.into_iter().chain(borders.into_iter().flatten()).min()
    }

    fn is_brought_something(&self, node: Node) -> bool {
        let is_asking = |nodes: &Nodes| nodes.children[node as usize].asked().next().is_some();
        self.nodes.as_ref().is_some_and(is_asking)
    }

    fn gives_up(&mut self, node: Node) {
        let Some(nodes) = &self.nodes else { return };
        let is_mute = |order: &Order, since: Micros| {
            let mute = self.unreachable_since(order.from, order.to).map(|at| at.max(since));
            mute.is_some_and(|at| at.0 + OWING <= self.now.0)
        };
        let child = &nodes.children[node as usize];
        let asked = child.asked().filter(|(order, since)| is_mute(order, *since));
        for order in asked.map(|(order, _)| *order).collect::<Vec<_>>() {
            self.world.bytes.in_vain += self.network.stop(order.from, order.id, self.now);
            self.fails(&order, Failure::Disconnected);
        }
    }
}

impl Nodes {
    fn announced(&self, node: Node, held: dfs_model::GroupSet) -> Event {
        let (host, task) = (host(node), self.task.clone());
        Event::Announced { host, task, held, digests: Vec::new(), stood_in: false }
    }
}

/// What tells decisions apart that are no leases.
pub(super) fn gist(decision: &Decision) -> Vec<u8> {
    match decision {
        Decision::SendParents { parents, .. } => {
            parents.iter().flat_map(|parent| *parent.id.as_bytes()).collect()
        }
        Decision::BackToSource { stand_in, .. } => vec![1, u8::from(*stand_in)],
        Decision::Refuse { .. } => vec![2],
        _ => Vec::new(),
    }
}
