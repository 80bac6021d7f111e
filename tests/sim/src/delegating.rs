//! A scheduler with delegates: its core, and one more for each node that leads others, of the same code.
//!
//! Nodes speak to whoever leads them. What a delegate has got, its own core hears when the scheduler does, which is
//! later than in truth by a message's way.

use std::collections::{BTreeMap, BTreeSet};

use dfs_model::{GroupSet, Priority, TaskInfo};
use dfs_scheduler::core::{
    Core, Decision, Event as Said, Limits, Millis, Outcome, SeedEvent, Skill,
};
use dfs_scheduler::matcher::Micros;

use crate::core::{Make, limits, millis, ordered, tell};
use crate::hosts;
use crate::policy::{Decisions, Event, Node, Policy};
use crate::scenario::Scenario;

/// A node that leads others.
struct Lower {
    core: Core,
    /// The order that it gives by.
    obtain: Option<u64>,
    tick: Option<Micros>,
}

/// See the module's documentation.
pub struct Delegating {
    scenario: Scenario,
    make: Make,
    task: TaskInfo,
    seed: u64,
    upper: Core,
    lowers: BTreeMap<Node, Lower>,
    ticks: BTreeSet<(Micros, Node)>,
    /// Who is led by whom.
    led_by: BTreeMap<Node, Node>,
    held: Vec<GroupSet>,
}

impl Delegating {
    /// One that knows nobody but the seed.
    pub fn new(scenario: &Scenario, make: Make, seed: u64) -> Self {
        let mut new = Self {
            scenario: scenario.clone(),
            task: hosts::task(scenario),
            upper: Core::new(Limits::default(), make(), seed),
            make,
            seed,
            lowers: BTreeMap::new(),
            ticks: BTreeSet::new(),
            led_by: BTreeMap::new(),
            held: vec![GroupSet::new(); scenario.nodes as usize + 1],
        };
        new.begin(Micros(0));
        new
    }

    fn begin(&mut self, now: Micros) {
        self.upper = Core::new(limits(&self.scenario), (self.make)(), self.seed);
        self.lowers.clear();
        self.ticks.clear();
        self.led_by.clear();
        self.upper.handle(Said::HostJoined(hosts::info(&self.scenario, 0)), millis(now));
    }

    /// The scheduler hears something, and does what follows.
    fn above(&mut self, said: Said, now: Micros, out: &mut Decisions) {
        let mut all = vec![said];
        while let Some(said) = all.pop() {
            for decision in self.upper.handle(said, millis(now)) {
                match decision {
                    Decision::AskToLead { host, task } => {
                        self.leads(hosts::node(&host), now, out);
                        all.push(Said::Leads { host, task: task.id });
                    }
                    Decision::LeadNoMore { host, .. } => self.leads_no_more(hosts::node(&host)),
                    Decision::Delegate { hosts, task, to } => {
                        for host in hosts {
                            let node = hosts::node(&host);
                            match to {
                                Some(to) => self.led_by.insert(node, hosts::node(&to)),
                                None => self.led_by.remove(&node),
                            };
                            let told = Decision::Delegate { hosts: vec![host], task, to };
                            out.told.push((node, told));
                            if to.is_some() {
                                let (groups, priority) = (GroupSet::new(), Priority::Bulk);
                                all.push(Said::Want { host, task, groups, priority });
                            }
                        }
                    }
                    decision => decided(decision, out),
                }
            }
        }
    }

    fn leads(&mut self, node: Node, now: Micros, out: &mut Decisions) {
        self.seed += 1;
        let limits = Limits { delegate_above: 0, ..limits(&self.scenario) };
        let core = Core::new(limits, (self.make)(), self.seed);
        self.lowers.insert(node, Lower { core, obtain: None, tick: None });
        let mut info = dfs_model::HostInfo::clone(&hosts::info(&self.scenario, node));
        info.kind = dfs_model::HostKind::Seed;
        self.below(node, Said::HostJoined(info.into()), now, out);
    }

    fn leads_no_more(&mut self, node: Node) {
        if let Some(Lower { tick: Some(tick), .. }) = self.lowers.remove(&node) {
            self.ticks.remove(&(tick, node));
        }
        self.led_by.retain(|_, by| *by != node);
    }

    /// A delegate hears something, and does what follows.
    fn below(&mut self, by: Node, said: Said, now: Micros, out: &mut Decisions) {
        let mut all = vec![said];
        while let Some(said) = all.pop() {
            let Some(lower) = self.lowers.get_mut(&by) else { return };
            for decision in lower.core.handle(said, millis(now)) {
                match decision {
                    Decision::ObtainFromSeed { seed, obtain, .. } => {
                        lower.obtain = Some(obtain);
                        let held = self.held[by as usize].clone();
                        let length = self.task.length;
                        let event = SeedEvent::Obtaining { length, held, tiny: None };
                        all.push(Said::Seed { seed, task: self.task.id, obtain, event });
                    }
                    decision => decided(decision, out),
                }
            }
        }
        self.set_tick(by);
    }

    fn set_tick(&mut self, by: Node) {
        let Some(lower) = self.lowers.get_mut(&by) else { return };
        let due = lower.core.next_tick().map(|Millis(at)| Micros((at + 1) * 1000));
        if lower.tick != due {
            if let Some(tick) = lower.tick {
                self.ticks.remove(&(tick, by));
            }
            self.ticks.extend(due.map(|tick| (tick, by)));
            lower.tick = due;
        }
    }

    /// What a node says that it has got; those whom it leads can have it.
    fn gains(&mut self, said: &Said, now: Micros, out: &mut Decisions) {
        let (node, news) = match said {
            Said::Announced { host, held, .. } => (hosts::node(host), held.clone()),
            Said::Progress { host, report, .. } => {
                let mut news = GroupSet::new();
                report.done.iter().for_each(|done| news.insert_range(done.groups));
                let ends = report.leases.iter().filter(|end| end.failure.is_none());
                ends.for_each(|end| news.insert_range(end.groups));
                (hosts::node(host), news)
            }
            Said::PeerResult { host, outcome: Outcome::Success, .. } => {
                (hosts::node(host), GroupSet::full(self.scenario.pieces.into()))
            }
            _ => return,
        };
        self.held[node as usize].insert_all(&news);
        let Some(obtain) = self.lowers.get(&node).and_then(|lower| lower.obtain) else { return };
        let event = SeedEvent::Verified { groups: news, length: None, giver: None };
        let (seed, task) = (hosts::host(node), self.task.id);
        self.below(node, Said::Seed { seed, task, obtain, event }, now, out);
    }

    fn said(&mut self, said: Said, now: Micros, out: &mut Decisions) {
        let node = match &said {
            Said::Announced { host, .. }
            | Said::AnnouncedAll(host)
            | Said::Register { host, .. }
            | Said::Progress { host, .. }
            | Said::Want { host, .. }
            | Said::Reschedule { host, .. }
            | Said::PeerResult { host, .. }
            | Said::Leave { host, .. } => Some(hosts::node(host)),
            _ => None,
        };
        self.gains(&said, now, out);
        let by = node.and_then(|node| self.led_by.get(&node)).copied();
        let Some(by) = by else { return self.above(said, now, out) };
        if matches!(said, Said::PeerResult { .. }) {
            // How it ends both are told.
            out.also_above += 1;
            self.below(by, said.clone(), now, out);
            return self.above(said, now, out);
        }
        self.below(by, said, now, out);
    }

    fn joined(&mut self, node: Node, now: Micros, out: &mut Decisions) {
        let (host, info) = (hosts::host(node), hosts::info(&self.scenario, node));
        match self.led_by.get(&node) {
            Some(by) => self.below(*by, Said::HostJoined(info), now, out),
            None => {
                self.above(Said::HostJoined(info), now, out);
                self.above(Said::Skilled { host, skill: Skill::Leads }, now, out);
            }
        }
    }

    fn left(&mut self, node: Node, now: Micros, out: &mut Decisions) {
        self.held[node as usize] = GroupSet::new();
        if let Some(by) = self.led_by.remove(&node) {
            self.below(by, Said::HostSilent(hosts::host(node)), now, out);
        }
        let is_led = |(led, by): (&Node, &Node)| (*by == node).then_some(*led);
        let led: Vec<Node> = self.led_by.iter().filter_map(is_led).collect();
        self.leads_no_more(node);
        for node in led {
            let hosts = vec![hosts::host(node)];
            let told = Decision::Delegate { hosts, task: self.task.id, to: None };
            out.told.push((node, told));
        }
        self.above(Said::HostSilent(hosts::host(node)), now, out);
    }

    fn tick(&mut self, now: Micros, out: &mut Decisions) {
        while let Some((due, by)) = self.ticks.first().copied().filter(|(due, _)| *due <= now) {
            self.ticks.remove(&(due, by));
            if let Some(lower) = self.lowers.get_mut(&by) {
                lower.tick = None;
            }
            self.below(by, Said::Tick, now, out);
        }
        self.above(Said::Tick, now, out);
    }
}

fn decided(decision: Decision, out: &mut Decisions) {
    match &decision {
        // What nodes hold is not named to delegates.
        Decision::Recall { .. } => return,
        Decision::SendLeases { host, leases, withdrawn, .. } => {
            out.stopped.extend(withdrawn.iter().map(|id| (*id, 0)));
            out.orders.extend(leases.iter().map(|lease| ordered(lease, host)));
        }
        _ => {}
    }
    tell(decision, out);
}

impl Policy for Delegating {
    fn step(&mut self, event: Event, now: Micros, out: &mut Decisions) {
        match event {
            Event::Joined { node, .. } => self.joined(node, now, out),
            Event::Left(node) => self.left(node, now, out),
            Event::Said(said) => self.said(*said, now, out),
            Event::Restarted => {
                self.seed += 1;
                self.begin(now);
            }
            Event::Tick => self.tick(now, out),
            Event::Done(_)
            | Event::Failed(..)
            | Event::Ended(_)
            | Event::Gained(..)
            | Event::Has(..) => {}
        }
    }

    fn next_tick(&self, _now: Micros) -> Option<Micros> {
        let above = self.upper.next_tick().map(|Millis(at)| Micros((at + 1) * 1000));
        let below = self.ticks.first().map(|(due, _)| *due);
        above.into_iter().chain(below).min()
    }

    fn leader(&self, node: Node) -> Node {
        self.led_by.get(&node).copied().unwrap_or(0)
    }
}
