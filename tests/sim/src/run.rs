//! One run of a scenario.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Instant;

use dfs_scheduler::core::{Decision, Event as Word};
use dfs_scheduler::matcher::{Failure, Micros};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::bound;
use crate::check::{self, Broken, Imports, Witness};
use crate::control::{Control, Said, Told};
use crate::faults::{self, Act, Losses, Plan};
use crate::network::Network;
use crate::outcome::{Costs, Outcome};
use crate::policy::{Decisions, Event, Node, Order, Policy};
use crate::scenario::Scenario;
use crate::world::World;

mod nodes;

pub use nodes::Nodes;

/// A run is over, or goes nowhere, after so many times the bound.
const HOPELESS: f64 = 60.0;

/// Steps between two looks at everything, where there are no more than so many pieces at all nodes together.
const FULL: u64 = 1000;

/// See [`FULL`].
const MOST_LOOKED_AT: u64 = 1 << 16;

/// A life of a node that the scheduler does not know.
const UNKNOWN: u32 = u32::MAX;

/// Microseconds by which a report is late that is.
const LATE: u64 = 100_000;

/// After so many microseconds without an answer to a ping a connection to the scheduler is given up.
const UNHEARD: u64 = 15_000_000;

/// Words that are under way to the scheduler, or from it.
#[derive(Debug, Clone)]
struct Message<T> {
    node: Node,
    /// The life of the node that they are of, and of the scheduler.
    life: u32,
    reign: u32,
    words: Vec<T>,
}

/// What happens.
#[derive(Debug, Clone)]
enum Happening {
    /// A node arrives.
    Arrives(Node),
    /// A node says what it has to say.
    Speaks(Node),
    /// That has reached the scheduler; and has been read there.
    Reaches(Message<Said>),
    Read(Message<Said>),
    /// A node is to be told what was decided.
    Utters(Node),
    /// That has reached it.
    Told(Message<Told>),
    /// Something goes wrong, or right again.
    Act(Act),
    /// Time passes for the scheduler.
    Tick,
    /// A node is not heard of any more, where nothing has changed since.
    Unheard(Node),
    /// Something among nodes.
    Between(nodes::Between),
}

/// When something happens; of what happens at the same time, what was known first.
struct Due {
    time: Micros,
    number: u64,
    happening: Box<Happening>,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.time, self.number).cmp(&(other.time, other.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

struct Run<'a> {
    scenario: &'a Scenario,
    policy: &'a mut dyn Policy,
    /// What nodes do of their own, where they do.
    nodes: Option<Nodes>,
    network: Network,
    control: Control,
    world: World,
    witness: Witness,
    losses: Losses,
    random: StdRng,
    now: Micros,
    queue: BinaryHeap<Reverse<Due>>,
    last: u64,
    /// The scheduler: how often it was started, whether it runs, and the life of each node that it knows.
    reign: u32,
    is_up: bool,
    known: Vec<u32>,
    /// Data centres that are not reached, each since when; and what waits for them, or for nodes that are frozen.
    cut: Vec<Option<Micros>>,
    held: Vec<Happening>,
    /// When time passes for the scheduler next.
    tick_due: Option<Micros>,
    steps: u64,
    costs: Costs,
    hasher: blake3::Hasher,
}

/// Runs a scenario to its end; an error where something does not hold that must.
pub fn run(
    scenario: &Scenario,
    imports: Imports,
    policy: &mut dyn Policy,
    nodes: Option<Nodes>,
    seed: u64,
) -> Result<Outcome, Broken> {
    let mut run = Run::new(scenario, imports, policy, nodes, seed);
    run.go_on()?;
    run.outcome()
}

impl<'a> Run<'a> {
    fn new(
        scenario: &'a Scenario,
        imports: Imports,
        policy: &'a mut dyn Policy,
        nodes: Option<Nodes>,
        seed: u64,
    ) -> Self {
        let plan = faults::plan(scenario, seed);
        let mut run = Run {
            scenario,
            policy,
            nodes,
            network: Network::new(scenario),
            control: Control::new(scenario, seed),
            world: World::new(scenario, &plan),
            witness: Witness::new(scenario, imports),
            losses: Losses::default(),
            random: StdRng::seed_from_u64(seed ^ 11 << 32),
            now: Micros(0),
            queue: BinaryHeap::new(),
            last: 0,
            reign: 0,
            is_up: true,
            known: vec![UNKNOWN; scenario.nodes as usize + 1],
            cut: vec![None; scenario.idcs as usize],
            held: Vec::new(),
            tick_due: None,
            steps: 0,
            costs: Costs::default(),
            hasher: blake3::Hasher::new(),
        };
        run.set_up(plan);
        run
    }

    fn set_up(&mut self, plan: Plan) {
        self.known[0] = 0;
        for node in 1..=self.scenario.nodes {
            let share = f64::from(node - 1) / f64::from(self.scenario.nodes);
            let at = Micros((self.scenario.spread * share * 1e6) as u64);
            self.at(at, Happening::Arrives(node));
        }
        plan.acts.into_iter().for_each(|(time, act)| self.at(time, Happening::Act(act)));
        self.look_again();
        self.begin_to_act();
    }

    /// Time passes for the scheduler as it asks.
    fn look_again(&mut self) {
        let Some(due) = self.policy.next_tick(self.now).map(|due| due.max(self.now)) else {
            return;
        };
        if self.is_up && self.tick_due.is_none_or(|set| due < set) {
            self.tick_due = Some(due);
            self.at(due, Happening::Tick);
        }
    }

    fn at(&mut self, time: Micros, happening: Happening) {
        self.last += 1;
        self.queue.push(Reverse(Due { time, number: self.last, happening: Box::new(happening) }));
    }

    fn go_on(&mut self) -> Result<(), Broken> {
        let bound = bound::with_pieces(self.scenario);
        let healed = self.scenario.heal_at.map(|time| time + 3.0 * bound + 30.0);
        let limit = healed.unwrap_or(HOPELESS * bound + self.scenario.spread);
        while self.world.incomplete > 0 {
            let queued = self.queue.peek().map(|Reverse(due)| due.time);
            let due = self.network.next_due().into_iter().chain(queued).min();
            if due != Some(self.now) && !self.network.is_settled() {
                self.network.settle(self.now);
                continue;
            }
            let Some(due) = due.filter(|due| due.0 as f64 <= limit * 1e6) else { break };
            self.now = due;
            if queued != Some(due) {
                if let Some(order) = self.network.pass() {
                    self.came(&order);
                }
            } else if let Some(Reverse(due)) = self.queue.pop() {
                self.happened(*due.happening)?;
            }
        }
        self.witness.full(self.now)?;
        match self.scenario.heal_at {
            Some(time) if self.world.incomplete > 0 => {
                Err(Broken::NotDone(self.world.incomplete, limit - time))
            }
            _ => Ok(()),
        }
    }

    fn happened(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Arrives(node) => {
                self.world.node_mut(node).arrived = Some(self.now);
                self.announce(node);
            }
            Happening::Speaks(node) => self.speaks(node),
            Happening::Reaches(message) if self.is_cut(message.node) => {
                self.held.push(Happening::Reaches(message));
            }
            Happening::Reaches(message) => self.reaches(message),
            Happening::Read(message) => return self.read(message),
            Happening::Utters(node) => self.utters(node),
            Happening::Told(message) if self.mute_since(message.node).is_some() => {
                self.held.push(Happening::Told(message));
            }
            Happening::Told(message) => return self.told(message),
            Happening::Act(act) => return self.act(act),
            Happening::Tick if self.tick_due.is_none_or(|due| self.now < due) => {}
            Happening::Tick => {
                self.tick_due = None;
                if self.is_up {
                    return self.decide(Event::Tick);
                }
            }
            Happening::Unheard(node) => return self.unheard(node),
            Happening::Between(between) => self.between(between),
        }
        Ok(())
    }

    fn is_cut(&self, node: Node) -> bool {
        node != 0 && self.cut[self.world.idc(node) as usize].is_some()
    }

    /// Since when a node does not answer.
    fn mute_since(&self, node: Node) -> Option<Micros> {
        let cut = if node == 0 { None } else { self.cut[self.world.idc(node) as usize] };
        self.world.node(node).frozen.into_iter().chain(cut).min()
    }

    /// A connection over which nothing comes is given up by the scheduler.
    fn unheard(&mut self, node: Node) -> Result<(), Broken> {
        let life = self.world.node(node).life;
        let is_over = self.mute_since(node).is_some_and(|at| at.0 + UNHEARD <= self.now.0);
        if !is_over || !self.is_up || self.known[node as usize] != life {
            return Ok(());
        }
        self.known[node as usize] = UNKNOWN;
        self.control.hang_up(node);
        self.decide(Event::Left(node))
    }

    /// It answers again: it connects anew where it was given up.
    fn is_heard(&mut self, node: Node) {
        if self.mute_since(node).is_some() {
            return;
        }
        let life = self.world.node(node).life;
        if self.is_up && self.nodes.is_some() && self.known[node as usize] != life {
            self.announce(node);
        }
    }

    /// A node that is there says so.
    fn announce(&mut self, node: Node) {
        let state = self.world.node(node);
        if state.is_alive && state.arrived.is_some() {
            self.say(node, Said::Here);
            self.introduce(node);
        }
    }

    fn say(&mut self, node: Node, word: Said) {
        if let Some(time) = self.control.say(node, word, self.now) {
            self.at(time, Happening::Speaks(node));
        }
    }

    fn tell(&mut self, node: Node, word: Told) {
        if let Some(time) = self.control.tell(node, word, self.now) {
            self.at(time, Happening::Utters(node));
        }
    }

    fn speaks(&mut self, node: Node) {
        let (words, arrives) = self.control.speak(node, self.now);
        let mut kept = Vec::with_capacity(words.len());
        for word in words {
            let is_report = match &word {
                Said::Word(event) => matches!(**event, Word::Progress { .. }),
                word => matches!(word, Said::Done(_)),
            };
            let losses = if is_report { self.losses } else { Losses::default() };
            let mut happens = |share: f64| share > 0.0 && self.random.random_bool(share);
            let (is_dropped, is_double, is_late) =
                (happens(losses.dropped), happens(losses.duplicated), happens(losses.delayed));
            if is_double || is_late {
                let late = Micros(arrives.0 + self.random.random_range(0..LATE));
                self.send(node, vec![word.clone()], late);
            }
            if !is_dropped && !is_late {
                kept.push(word);
            }
        }
        self.send(node, kept, arrives);
    }

    fn send(&mut self, node: Node, words: Vec<Said>, arrives: Micros) {
        if !words.is_empty() {
            let life = self.world.node(node).life;
            let message = Message { node, life, reign: self.reign, words };
            self.at(arrives, Happening::Reaches(message));
        }
    }

    fn reaches(&mut self, message: Message<Said>) {
        if self.is_up && message.reign == self.reign {
            let leader = self.policy.leader(message.node);
            match leader {
                0 => self.costs.heard += 1,
                _ => *self.costs.led.entry(leader).or_default() += 1,
            }
            let read = self.control.serve(leader, self.now);
            self.at(read, Happening::Read(message));
        }
    }

    fn read(&mut self, message: Message<Said>) -> Result<(), Broken> {
        let Message { node, life, reign, words } = message;
        if !self.is_up || reign != self.reign {
            return Ok(());
        }
        for word in words {
            if word == Said::Here {
                self.known[node as usize] = life;
            } else if self.known[node as usize] != life {
                continue;
            }
            let event = match word {
                // The core is told what a node has beside that it is here.
                Said::Here if self.nodes.is_some() => {
                    Event::Joined { node, has: Vec::new(), wants: true }
                }
                Said::Here => Event::Joined {
                    node,
                    has: self.world.claims(node),
                    wants: !self.world.node(node).lies,
                },
                Said::Gone => {
                    self.control.forget(node);
                    Event::Left(node)
                }
                Said::Word(event) => Event::Said(event),
                Said::Done(order) => Event::Done(order),
                Said::Failed(order, why) => Event::Failed(order, why),
            };
            self.decide(event)?;
        }
        Ok(())
    }

    fn decide(&mut self, event: Event) -> Result<(), Broken> {
        let mut out = Decisions::default();
        self.witness.told(&event);
        let began = Instant::now();
        self.policy.step(event, self.now, &mut out);
        self.costs.decided(began.elapsed());
        self.costs.heard += out.also_above;
        out.heard.iter().for_each(|event| self.witness.told(event));
        self.witness.decided(&out, self.now)?;
        self.steps += 1;
        let pairs = self.world.nodes.len() as u64 * u64::from(self.scenario.pieces);
        if self.steps.is_multiple_of(FULL * (1 + pairs / MOST_LOOKED_AT)) {
            self.witness.full(self.now)?;
        }
        for (one, other) in out.parted {
            self.network.part(one, other);
        }
        let is_obeyed = self.nodes.is_none();
        for (order, from) in out.stopped {
            self.costs.stopped += 1;
            self.hasher.update(&order.to_le_bytes());
            if is_obeyed {
                self.tell(from, Told::Stop(order));
            }
        }
        for order in out.orders {
            self.costs.orders += 1;
            for part in [self.now.0, u64::from(order.from), u64::from(order.to)] {
                self.hasher.update(&part.to_le_bytes());
            }
            self.hasher.update(&order.first.to_le_bytes()).update(&order.count.to_le_bytes());
            if is_obeyed {
                self.tell(order.from, Told::Send(order));
            }
        }
        for (node, decision) in out.told {
            self.hasher.update(&node.to_le_bytes()).update(&nodes::gist(&decision));
            self.tell(node, Told::Word(Box::new(decision)));
        }
        self.look_again();
        Ok(())
    }

    fn utters(&mut self, node: Node) {
        if !self.control.has_to_tell(node) {
            return;
        }
        let leader = self.policy.leader(node);
        let (words, arrives) = self.control.utter(node, leader, self.now);
        match leader {
            0 => self.costs.told += 1,
            _ => *self.costs.led.entry(leader).or_default() += 1,
        }
        let life = self.known[node as usize];
        self.at(arrives, Happening::Told(Message { node, life, reign: self.reign, words }));
    }

    fn told(&mut self, message: Message<Told>) -> Result<(), Broken> {
        let state = self.world.node(message.node);
        if !state.is_alive || state.life != message.life {
            return Ok(());
        }
        for word in message.words {
            match word {
                // It is here, it says to who leads it from now on.
                Told::Word(decision) if matches!(*decision, Decision::Delegate { .. }) => {
                    self.announce(message.node);
                }
                Told::Word(decision) => self.heed(message.node, &decision),
                Told::Send(order) => self.ordered(order)?,
                Told::Stop(order) => {
                    let sent = self.network.stop(message.node, order, self.now);
                    self.world.bytes.in_vain += sent;
                }
            }
        }
        self.acts(message.node);
        Ok(())
    }

    fn ordered(&mut self, order: Order) -> Result<(), Broken> {
        let Order { from, to, .. } = order;
        if self.world.node(from).lies {
            self.say(from, Said::Failed(order, Failure::NotThere));
        } else if !self.world.has_all(from, order.pieces()) {
            return Err(Broken::NeverHad(order));
        } else if !self.world.node(to).is_alive {
            self.say(from, Said::Failed(order, Failure::Other));
        } else if self.world.has_all(to, order.pieces()) {
            self.say(to, Said::Done(order));
        } else {
            self.network.order(order, self.now);
        }
        Ok(())
    }

    /// What was ordered has arrived.
    fn came(&mut self, order: &Order) {
        if self.nodes.is_some() {
            return self.brought(order);
        }
        let word = match self.world.came(order, self.now) {
            true => Said::Done(*order),
            false => Said::Failed(*order, Failure::NotThere),
        };
        self.say(order.to, word);
    }

    fn act(&mut self, act: Act) -> Result<(), Broken> {
        match act {
            Act::Crash(node, keeps) => self.crash(node, keeps),
            Act::Restart(node) => {
                if !std::mem::replace(&mut self.world.node_mut(node).is_alive, true) {
                    self.begins_anew(node);
                    self.announce(node);
                }
            }
            Act::Freeze(node, true) => {
                let since = self.now;
                self.world.node_mut(node).frozen.get_or_insert(since);
                self.set_speed(node);
                self.at(Micros(since.0 + UNHEARD), Happening::Unheard(node));
                self.is_frozen(node);
            }
            Act::Freeze(node, false) => {
                self.world.node_mut(node).frozen = None;
                self.set_speed(node);
                self.let_go();
                self.is_heard(node);
            }
            Act::Slow(node, slowness) => {
                self.world.node_mut(node).slowness = slowness;
                self.set_speed(node);
            }
            Act::Rot(node, is_rotten) => self.world.node_mut(node).is_rotten = is_rotten,
            Act::Cut(idc) => {
                self.cut[idc as usize].get_or_insert(self.now);
                self.network.set_border(idc, false);
                for node in self.nodes_of(idc) {
                    self.at(Micros(self.now.0 + UNHEARD), Happening::Unheard(node));
                }
            }
            Act::Mend(idc) => {
                self.cut[idc as usize] = None;
                self.network.set_border(idc, true);
                self.let_go();
                self.nodes_of(idc).into_iter().for_each(|node| self.is_heard(node));
            }
            Act::Scheduler(is_up) => return self.set_scheduler(is_up),
            Act::Reports(losses) => self.losses = losses,
        }
        Ok(())
    }

    fn nodes_of(&self, idc: u32) -> Vec<Node> {
        (1..=self.scenario.nodes).filter(|node| self.world.idc(*node) == idc).collect()
    }

    /// What was held happens, or is held again.
    fn let_go(&mut self) {
        for happening in std::mem::take(&mut self.held) {
            self.at(self.now, happening);
        }
    }

    fn set_speed(&mut self, node: Node) {
        let state = self.world.node(node);
        let moves = if state.frozen.is_some() { 0.0 } else { 1.0 };
        self.network.slow_down(node, [moves / state.slowness, moves]);
    }

    fn crash(&mut self, node: Node, keeps: bool) {
        if !self.world.node(node).is_alive {
            return;
        }
        let (in_vain, lost) = self.network.cut_off(node, self.now);
        self.world.bytes.in_vain += in_vain;
        self.is_lost(&lost);
        self.control.hang_up(node);
        let arrives = Micros(self.now.0 + self.control.latency());
        self.send(node, vec![Said::Gone], arrives);
        self.world.crash(node, keeps);
    }

    /// Nodes go on with what they were told; what they say meanwhile is lost.
    fn set_scheduler(&mut self, is_up: bool) -> Result<(), Broken> {
        if std::mem::replace(&mut self.is_up, is_up) == is_up {
            return Ok(());
        }
        (0..=self.scenario.nodes).for_each(|node| self.control.hang_up(node));
        if !is_up {
            self.are_alone();
            return Ok(());
        }
        self.reign += 1;
        self.tick_due = None;
        self.known[1..].fill(UNKNOWN);
        (0..=self.scenario.nodes).for_each(|node| self.announce(node));
        self.decide(Event::Restarted)
    }

    fn outcome(mut self) -> Result<Outcome, Broken> {
        self.costs.handshakes = self.witness.pairs.made;
        self.costs.partners = self.witness.pairs.most;
        let hash = self.hasher.finalize().to_hex()[..16].to_owned();
        let waits = self.control.waits();
        let outcome = Outcome::new(self.scenario, &self.world, self.costs, waits, hash);
        let is_calm = self.scenario.faults.is_empty();
        let fluid =
            if is_calm { bound::fluid(self.scenario) } else { bound::of_one(self.scenario) };
        outcome.last.map_or(Ok(()), |last| check::not_sooner(last, fluid))?;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
