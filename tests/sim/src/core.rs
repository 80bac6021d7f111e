//! The whole core of the scheduler, as the service drives it: what nodes say goes in as events, and what it decides is
//! told to nodes.

use std::collections::{BTreeSet, HashMap};

use dfs_model::{GROUP_BYTES, GroupSet, HostId};
use dfs_scheduler::core::{
    Ask, Choice, Core, Decision, Event as Said, Lease, LeaseEnd, LeaseFailure, Leases, Limits,
    Millis, Outcome, Report, Strategy, Swarm,
};
use dfs_scheduler::matcher::{self, Failure, Micros, Tuning};
use rand::rngs::StdRng;

use crate::hosts;
use crate::policy::{Decisions, Event, Node, Order, Policy};
use crate::scenario::Scenario;

/// The usual strategy with the bounds of a scenario.
#[derive(Debug, Clone, Copy)]
pub struct Tuned(pub Tuning);

impl Strategy for Tuned {
    fn name(&self) -> &'static str {
        "swarm"
    }

    fn parents(&self, swarm: &Swarm<'_>, ask: &Ask<'_>, random: &mut StdRng) -> Choice {
        Leases::swarm().parents(swarm, ask, random)
    }

    fn leases(&self) -> Option<Tuning> {
        Some(self.0)
    }
}

/// Makes a strategy: one for each life of the scheduler.
pub type Make = Box<dyn Fn() -> Box<dyn Strategy>>;

/// A scheduler.
pub struct Scheduler {
    scenario: Scenario,
    make: Make,
    core: Core,
    seed: u64,
    /// Leases that are out, by their names.
    leases: HashMap<u64, Order>,
    /// Nodes whose stream has opened, and what they announced since is not all.
    unannounced: BTreeSet<Node>,
}

impl Scheduler {
    /// One that knows nobody but the seed.
    pub fn new(scenario: &Scenario, make: Make, seed: u64) -> Self {
        let mut scheduler = Self {
            scenario: scenario.clone(),
            core: Core::new(Limits::default(), make(), seed),
            make,
            seed,
            leases: HashMap::new(),
            unannounced: BTreeSet::new(),
        };
        scheduler.begin(Micros(0));
        scheduler
    }

    fn begin(&mut self, now: Micros) {
        self.core = Core::new(limits(&self.scenario), (self.make)(), self.seed);
        self.leases.clear();
        self.unannounced.clear();
        let seed = hosts::info(&self.scenario, 0);
        // A seed is known by the list of members.
        let decided = self.core.handle(Said::HostJoined(seed), millis(now));
        debug_assert!(decided.is_empty());
    }

    fn handle(&mut self, event: Said, now: Micros, out: &mut Decisions) {
        self.hear(&event, &mut out.heard);
        let decisions = self.core.handle(event, millis(now));
        let parted = self.core.parted().iter();
        out.parted.extend(parted.map(|(one, other)| (hosts::node(one), hosts::node(other))));
        for decision in decisions {
            self.decided(decision, out);
        }
    }

    fn decided(&mut self, decision: Decision, out: &mut Decisions) {
        if let Decision::SendLeases { host, leases, withdrawn, .. } = &decision {
            for id in withdrawn {
                let order = self.leases.remove(id);
                out.stopped.extend(order.map(|order| (*id, order.from)));
            }
            for order in leases.iter().map(|lease| ordered(lease, host)) {
                self.leases.insert(order.id, order);
                out.orders.push(order);
            }
        }
        tell(decision, out);
    }

    /// What somebody who watches makes of what the core is told.
    fn hear(&mut self, event: &Said, heard: &mut Vec<Event>) {
        match event {
            Said::Announced { host, held, .. } => {
                self.unannounced.remove(&hosts::node(host));
                heard.push(Event::Has(hosts::node(host), runs(held)));
            }
            Said::AnnouncedAll(host) => {
                let is_news = self.unannounced.remove(&hosts::node(host));
                heard.extend(is_news.then(|| Event::Has(hosts::node(host), Vec::new())));
            }
            // It begins anew.
            Said::Register { host, .. } => {
                let node = hosts::node(host);
                let back = Event::Joined { node, has: Vec::new(), wants: true };
                heard.extend([Event::Left(node), back]);
            }
            Said::Progress { host, report, .. } => {
                self.hear_report(hosts::node(host), report, heard)
            }
            Said::PeerResult { host, outcome: Outcome::Success, .. } => {
                let all = 0..self.scenario.pieces;
                heard.push(Event::Gained(hosts::node(host), all));
            }
            _ => {}
        }
    }

    fn hear_report(&mut self, node: Node, report: &Report, heard: &mut Vec<Event>) {
        for done in &report.done {
            let run = done.groups.first as u32..done.groups.end() as u32;
            heard.push(Event::Gained(node, run));
        }
        for LeaseEnd { id, groups, failure, .. } in &report.leases {
            let Some(order) = self.leases.remove(id) else {
                let is_here = matches!(failure, None | Some(LeaseFailure::Held));
                let run = groups.first as u32..groups.end() as u32;
                heard.extend((is_here && !run.is_empty()).then_some(Event::Gained(node, run)));
                continue;
            };
            heard.push(match failure {
                None if groups.is_empty() => Event::Ended(order),
                None => Event::Done(order),
                Some(failure) => match matcher::Failure::from(*failure) {
                    Failure::Held => Event::Done(order),
                    why => Event::Failed(order, why),
                },
            });
        }
    }
}

impl Policy for Scheduler {
    fn step(&mut self, event: Event, now: Micros, out: &mut Decisions) {
        match event {
            Event::Joined { node, .. } => {
                let info = hosts::info(&self.scenario, node);
                self.unannounced.insert(node);
                self.handle(Said::HostJoined(info), now, out);
            }
            Event::Left(node) => self.handle(Said::HostSilent(hosts::host(node)), now, out),
            Event::Said(said) => self.handle(*said, now, out),
            Event::Restarted => {
                self.seed += 1;
                self.begin(now);
            }
            Event::Tick => self.handle(Said::Tick, now, out),
            Event::Done(_)
            | Event::Failed(..)
            | Event::Ended(_)
            | Event::Gained(..)
            | Event::Has(..) => {}
        }
    }

    /// As the service sleeps: its clock has passed it for certain.
    fn next_tick(&self, _now: Micros) -> Option<Micros> {
        self.core.next_tick().map(|Millis(at)| Micros((at + 1) * 1000))
    }
}

/// The order that a lease to a host is.
pub fn ordered(lease: &Lease, host: &HostId) -> Order {
    Order {
        id: lease.id,
        from: hosts::node(&lease.parent),
        to: hosts::node(host),
        first: lease.groups.first as u32,
        count: lease.groups.count as u32,
    }
}

/// Tells a decision to those whom it is for.
pub fn tell(mut decision: Decision, out: &mut Decisions) {
    let host = match &mut decision {
        Decision::SendUpdate { hosts, .. } => {
            // Each hears of it once: who else does is nothing to them.
            let nodes: Vec<Node> = std::mem::take(hosts).iter().map(hosts::node).collect();
            return out.told.extend(nodes.into_iter().map(|node| (node, decision.clone())));
        }
        Decision::SendLeases { host, .. }
        | Decision::SendRegistered { host, .. }
        | Decision::SendParents { host, .. }
        | Decision::BackToSource { host, .. }
        | Decision::Refuse { host, .. }
        | Decision::Recall { host, .. }
        | Decision::ObtainFromSeed { seed: host, .. } => *host,
        Decision::EndObtain { .. }
        | Decision::Blacklisted { .. }
        | Decision::Forget { .. }
        // Nodes are asked only where they say that they can lead.
        | Decision::AskToLead { .. }
        | Decision::LeadNoMore { .. }
        | Decision::Delegate { .. }
        // The simulator has none who sign.
        | Decision::NameReserves { .. } => return,
    };
    out.told.push((hosts::node(&host), decision));
}

/// The pieces of a set.
pub fn runs(groups: &GroupSet) -> Vec<std::ops::Range<u32>> {
    groups.ranges().map(|run| run.first as u32..run.end() as u32).collect()
}

/// The other way.
pub fn groups(pieces: &[std::ops::Range<u32>]) -> GroupSet {
    let mut groups = GroupSet::new();
    for run in pieces {
        let count = u64::from(run.end - run.start);
        groups.insert_range(dfs_model::GroupRange::new(run.start.into(), count));
    }
    groups
}

/// A piece of the scenario is a group here: what is short is so by its bytes.
pub fn limits(scenario: &Scenario) -> Limits {
    let usual = Limits::default();
    let led_from = usual.led_from * GROUP_BYTES / scenario.piece_bytes.max(1);
    Limits {
        led_from,
        delegate_above: scenario.delegate_above,
        delegate_from: scenario.delegate_from,
        ..usual
    }
}

/// As the core has it.
pub fn millis(now: Micros) -> Millis {
    Millis(now.0 / 1000)
}
