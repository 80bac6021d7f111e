//! One run of a scenario.

use std::collections::BTreeMap;
use std::time::Instant;

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

/// How often time passes for the scheduler where nothing else happens.
const TICK: u64 = 100_000;

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
}

struct Run<'a> {
    scenario: &'a Scenario,
    policy: &'a mut dyn Policy,
    network: Network,
    control: Control,
    world: World,
    witness: Witness,
    losses: Losses,
    random: StdRng,
    now: Micros,
    queue: BTreeMap<(Micros, u64), Happening>,
    last: u64,
    /// The scheduler: how often it was started, whether it runs, and the life of each node that it knows.
    reign: u32,
    is_up: bool,
    known: Vec<u32>,
    /// What waits for a data centre to be reached again.
    is_cut: Vec<bool>,
    held: Vec<Happening>,
    steps: u64,
    costs: Costs,
    hasher: blake3::Hasher,
}

/// Runs a scenario to its end; an error where something does not hold that must.
pub fn run(
    scenario: &Scenario,
    imports: Imports,
    policy: &mut dyn Policy,
    seed: u64,
) -> Result<Outcome, Broken> {
    let mut run = Run::new(scenario, imports, policy, seed);
    run.go_on()?;
    run.outcome()
}

impl<'a> Run<'a> {
    fn new(
        scenario: &'a Scenario,
        imports: Imports,
        policy: &'a mut dyn Policy,
        seed: u64,
    ) -> Self {
        let plan = faults::plan(scenario, seed);
        let mut run = Run {
            scenario,
            policy,
            network: Network::new(scenario),
            control: Control::new(scenario, seed),
            world: World::new(scenario, &plan),
            witness: Witness::new(scenario, imports),
            losses: Losses::default(),
            random: StdRng::seed_from_u64(seed ^ 11 << 32),
            now: Micros(0),
            queue: BTreeMap::new(),
            last: 0,
            reign: 0,
            is_up: true,
            known: vec![UNKNOWN; scenario.nodes as usize + 1],
            is_cut: vec![false; scenario.idcs as usize],
            held: Vec::new(),
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
        self.at(Micros(TICK), Happening::Tick);
    }

    fn at(&mut self, time: Micros, happening: Happening) {
        self.last += 1;
        self.queue.insert((time, self.last), happening);
    }

    fn go_on(&mut self) -> Result<(), Broken> {
        let bound = bound::with_pieces(self.scenario);
        let healed = self.scenario.heal_at.map(|time| time + 3.0 * bound + 30.0);
        let limit = healed.unwrap_or(HOPELESS * bound + self.scenario.spread);
        while self.world.incomplete > 0 {
            let queued = self.queue.first_key_value().map(|((time, _), _)| *time);
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
            } else if let Some((_, happening)) = self.queue.pop_first() {
                self.happened(happening)?;
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
            Happening::Told(message) if self.is_cut(message.node) => {
                self.held.push(Happening::Told(message));
            }
            Happening::Told(message) => return self.told(message),
            Happening::Act(act) => return self.act(act),
            Happening::Tick => {
                self.at(Micros(self.now.0 + TICK), Happening::Tick);
                if self.is_up {
                    return self.decide(&Event::Tick);
                }
            }
        }
        Ok(())
    }

    fn is_cut(&self, node: Node) -> bool {
        node != 0 && self.is_cut[self.world.idc(node) as usize]
    }

    /// A node that is there says so.
    fn announce(&mut self, node: Node) {
        let state = self.world.node(node);
        if state.is_alive && state.arrived.is_some() {
            self.say(node, Said::Here);
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
            let is_report = matches!(word, Said::Done(_));
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
            self.costs.heard += 1;
            let read = self.control.serve(self.now);
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
                Said::Here => Event::Joined {
                    node,
                    has: self.world.claims(node),
                    wants: !self.world.node(node).lies,
                },
                Said::Gone => {
                    self.control.forget(node);
                    Event::Left(node)
                }
                Said::Done(order) => Event::Done(order),
                Said::Failed(order, why) => Event::Failed(order, why),
            };
            self.decide(&event)?;
        }
        Ok(())
    }

    fn decide(&mut self, event: &Event) -> Result<(), Broken> {
        let mut out = Decisions::default();
        self.witness.told(event);
        let began = Instant::now();
        self.policy.step(event, self.now, &mut out);
        self.costs.decided(began.elapsed());
        self.witness.decided(&out, self.now)?;
        self.steps += 1;
        let pairs = self.world.nodes.len() as u64 * u64::from(self.scenario.pieces);
        if self.steps.is_multiple_of(FULL * (1 + pairs / MOST_LOOKED_AT)) {
            self.witness.full(self.now)?;
        }
        for (one, other) in out.parted {
            self.network.part(one, other);
        }
        for (order, from) in out.stopped {
            self.costs.stopped += 1;
            self.hasher.update(&order.to_le_bytes());
            self.tell(from, Told::Stop(order));
        }
        for order in out.orders {
            self.costs.orders += 1;
            for part in [self.now.0, u64::from(order.from), u64::from(order.to)] {
                self.hasher.update(&part.to_le_bytes());
            }
            self.hasher.update(&order.first.to_le_bytes()).update(&order.count.to_le_bytes());
            self.tell(order.from, Told::Send(order));
        }
        Ok(())
    }

    fn utters(&mut self, node: Node) {
        if !self.control.has_to_tell(node) {
            return;
        }
        let (words, arrives) = self.control.utter(node, self.now);
        self.costs.told += 1;
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
                Told::Send(order) => self.ordered(order)?,
                Told::Stop(order) => {
                    let sent = self.network.stop(message.node, order, self.now);
                    self.world.bytes.in_vain += sent;
                }
            }
        }
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
                    self.announce(node);
                }
            }
            Act::Freeze(node, is_frozen) => {
                self.world.node_mut(node).is_frozen = is_frozen;
                self.set_speed(node);
            }
            Act::Slow(node, slowness) => {
                self.world.node_mut(node).slowness = slowness;
                self.set_speed(node);
            }
            Act::Rot(node, is_rotten) => self.world.node_mut(node).is_rotten = is_rotten,
            Act::Cut(idc) => {
                self.is_cut[idc as usize] = true;
                self.network.set_border(idc, false);
            }
            Act::Mend(idc) => {
                self.is_cut[idc as usize] = false;
                self.network.set_border(idc, true);
                for happening in std::mem::take(&mut self.held) {
                    self.at(self.now, happening);
                }
            }
            Act::Scheduler(is_up) => return self.set_scheduler(is_up),
            Act::Reports(losses) => self.losses = losses,
        }
        Ok(())
    }

    fn set_speed(&mut self, node: Node) {
        let state = self.world.node(node);
        let moves = if state.is_frozen { 0.0 } else { 1.0 };
        self.network.slow_down(node, [moves / state.slowness, moves]);
    }

    fn crash(&mut self, node: Node, keeps: bool) {
        if !self.world.node(node).is_alive {
            return;
        }
        self.world.bytes.in_vain += self.network.cut_off(node, self.now);
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
            return Ok(());
        }
        self.reign += 1;
        self.known[1..].fill(UNKNOWN);
        (1..=self.scenario.nodes).for_each(|node| self.announce(node));
        self.decide(&Event::Restarted)
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
