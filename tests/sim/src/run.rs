//! One run of a scenario.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dfs_scheduler::matcher::Micros;

use crate::network::{Happening, Network};
use crate::policy::{Node, Order, Policy, place};
use crate::scenario::Scenario;

/// How often time passes for the scheduler where nothing else happens.
const TICK: u64 = 100_000;

/// A run is over, or goes nowhere, after so many times the bound.
const HOPELESS: f64 = 60.0;

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Seconds from its arrival to its last piece, by node; those that never had all are missing.
    pub took: Vec<f64>,
    /// When the last was done, in seconds; none where some never were.
    pub last: Option<f64>,
    /// Bytes that left the source, in copies of the content.
    pub source_copies: f64,
    /// Bytes that came from another data centre, in copies for each of them.
    pub crossing_copies: f64,
    /// Bytes that came to who had them, as a share of all that were wanted.
    pub wasted: f64,
    /// Orders given.
    pub orders: u64,
    /// Time that the decisions took, on this machine.
    pub deciding: Duration,
    /// Names the decisions, one by one.
    pub hash: String,
}

struct Run<'a> {
    scenario: &'a Scenario,
    policy: &'a mut dyn Policy,
    network: Network,
    orders: BTreeMap<usize, Order>,
    given: usize,
    /// By node: pieces that it has.
    has: Vec<Vec<bool>>,
    left: Vec<u32>,
    arrived: Vec<u64>,
    done: Vec<Option<u64>>,
    incomplete: u32,
    from_source: u64,
    crossing: u64,
    wasted: u64,
    deciding: Duration,
    hasher: blake3::Hasher,
}

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario, policy: &mut dyn Policy) -> Outcome {
    let source = (scenario.source_link as f64, scenario.link as f64);
    let links = (0..scenario.nodes).map(|node| (scenario.uplink(node), scenario.link as f64));
    let links: Vec<_> = [source].into_iter().chain(links).collect();
    let nodes = links.len();
    let mut run = Run {
        scenario,
        policy,
        network: Network::new(&links, scenario.streams.into(), scenario.piece_bytes),
        orders: BTreeMap::new(),
        given: 0,
        has: vec![vec![false; scenario.pieces as usize]; nodes],
        left: vec![scenario.pieces; nodes],
        arrived: vec![0; nodes],
        done: vec![None; nodes],
        incomplete: scenario.nodes,
        from_source: 0,
        crossing: 0,
        wasted: 0,
        deciding: Duration::ZERO,
        hasher: blake3::Hasher::new(),
    };
    for node in 1..=scenario.nodes {
        let share = f64::from(node - 1) / f64::from(scenario.nodes);
        let at = Micros((scenario.spread * share * 1e6) as u64);
        run.network.at(at, Happening::Arrived(node));
    }
    run.network.at(Micros(TICK), Happening::Tick);
    let hopeless = (HOPELESS * crate::bound::with_pieces(scenario) + scenario.spread) * 1e6;
    while run.incomplete > 0 {
        let Some((now, happening)) = run.network.happens_next() else { break };
        if now.0 as f64 > hopeless {
            break;
        }
        run.happened(now, happening);
    }
    run.outcome()
}

impl Run<'_> {
    fn happened(&mut self, now: Micros, happening: Happening) {
        let control = self.scenario.control_us;
        match happening {
            Happening::Arrived(node) => {
                self.arrived[node as usize] = now.0;
                self.decide(now, |policy, out| policy.joined(node, now, out));
            }
            Happening::Ordered(number) => {
                let Some(order) = self.orders.remove(&number) else { return };
                self.network.order(order, now);
            }
            Happening::Ended(stream, version) => {
                let Some(order) = self.network.end(stream, version, now) else { return };
                self.came(&order, now);
                let number = self.given;
                self.given += 1;
                self.orders.insert(number, order);
                self.network.at(Micros(now.0 + control), Happening::Reported(number));
            }
            Happening::Reported(number) => {
                let Some(order) = self.orders.remove(&number) else { return };
                self.decide(now, |policy, out| policy.done(&order, now, out));
            }
            Happening::Tick => {
                self.decide(now, |policy, out| policy.tick(now, out));
                self.network.at(Micros(now.0 + TICK), Happening::Tick);
            }
        }
    }

    fn decide(&mut self, now: Micros, decide: impl FnOnce(&mut dyn Policy, &mut Vec<Order>)) {
        let mut out = Vec::new();
        let began = Instant::now();
        decide(self.policy, &mut out);
        self.deciding += began.elapsed();
        for order in out {
            for part in [now.0, u64::from(order.from), u64::from(order.to)] {
                self.hasher.update(&part.to_le_bytes());
            }
            self.hasher.update(&order.first.to_le_bytes()).update(&order.count.to_le_bytes());
            let number = self.given;
            self.given += 1;
            self.orders.insert(number, order);
            let at = Micros(now.0 + self.scenario.control_us);
            self.network.at(at, Happening::Ordered(number));
        }
    }

    /// Pieces have arrived.
    fn came(&mut self, order: &Order, now: Micros) {
        let bytes = u64::from(order.count) * self.scenario.piece_bytes;
        self.from_source += if order.from == 0 { bytes } else { 0 };
        let idc = |node: Node| place(self.scenario, node).idc;
        if order.from != 0 && idc(order.from) != idc(order.to) {
            self.crossing += bytes;
        }
        let to = order.to as usize;
        for piece in order.first as usize..(order.first + order.count) as usize {
            assert!(
                order.from == 0 || self.has[order.from as usize][piece],
                "{order:?}: it has it not"
            );
            match std::mem::replace(&mut self.has[to][piece], true) {
                true => self.wasted += self.scenario.piece_bytes,
                false => self.left[to] -= 1,
            }
        }
        if self.left[to] == 0 && self.done[to].is_none() {
            self.done[to] = Some(now.0);
            self.incomplete -= 1;
        }
    }

    fn outcome(self) -> Outcome {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let done = self.done.iter().zip(&self.arrived).skip(1);
        let took = done.clone().filter_map(|(done, arrived)| Some(seconds((*done)? - arrived)));
        let last = done.filter_map(|(done, _)| *done).max().filter(|_| self.incomplete == 0);
        let bytes = self.scenario.bytes() as f64;
        Outcome {
            took: took.collect(),
            last: last.map(seconds),
            source_copies: self.from_source as f64 / bytes,
            crossing_copies: self.crossing as f64 / bytes / f64::from(self.scenario.idcs),
            wasted: self.wasted as f64 / bytes / f64::from(self.scenario.nodes),
            orders: self.given as u64 / 2,
            deciding: self.deciding,
            hash: self.hasher.finalize().to_hex()[..16].to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use dfs_scheduler::matcher::Tuning;

    use super::*;
    use crate::baselines::{Graph, Pull, Pulling};
    use crate::bound;
    use crate::policy::Swarm;

    fn small() -> Scenario {
        let (uplink_leases, downlink_leases) = (1, 1);
        Scenario { nodes: 63, pieces: 128, uplink_leases, downlink_leases, ..Scenario::default() }
    }

    fn by_swarm(scenario: &Scenario, seed: u64) -> Outcome {
        let (sampled, uplink) = (scenario.sampled, scenario.uplink_leases);
        let tuning =
            Tuning { sampled, uplink, downlink: scenario.downlink_leases, ..Tuning::default() };
        run(scenario, &mut Swarm::new(scenario, tuning, seed))
    }

    fn ratio(scenario: &Scenario, outcome: &Outcome) -> f64 {
        outcome.last.unwrap() / bound::with_pieces(scenario)
    }

    #[test]
    fn a_flash_crowd_is_served_near_the_bound_from_one_copy_and_never_sooner() {
        let scenario = small();
        for seed in 1..4 {
            let outcome = by_swarm(&scenario, seed);
            assert!(ratio(&scenario, &outcome) <= 1.06, "{outcome:?}");
            assert!(ratio(&scenario, &outcome) >= 1.0, "{outcome:?}");
            assert_eq!((outcome.source_copies, outcome.wasted), (1.0, 0.0));
            assert_eq!(outcome.took.len(), 63);
        }
    }

    #[test]
    fn a_data_centre_is_entered_once() {
        let outcome = by_swarm(&Scenario { idcs: 3, ..small() }, 1);
        assert!(outcome.last.is_some());
        // The source sends each piece into one of the three, and from there it goes to two.
        assert!(outcome.crossing_copies <= 2.0 / 3.0 * 1.02, "{outcome:?}");
        assert_eq!(outcome.source_copies, 1.0);
    }

    #[test]
    fn equal_seeds_give_equal_decisions() {
        let (scenario, late) = (small(), Scenario { spread: 1.0, control_us: 500, ..small() });
        assert_eq!(by_swarm(&scenario, 1).hash, by_swarm(&scenario, 1).hash);
        assert_eq!(by_swarm(&late, 1).hash, by_swarm(&late, 1).hash);
        assert_ne!(by_swarm(&scenario, 1).hash, by_swarm(&scenario, 2).hash);
    }

    #[test]
    fn what_is_compared_with_it_ends_later() {
        let scenario = Scenario { nodes: 31, pieces: 32, ..small() };
        let swarm = ratio(&scenario, &by_swarm(&scenario, 1));
        for graph in
            [Graph::Everybody, Graph::ThreeOfFifteen, Graph::Tree(2), Graph::Neighbours(10)]
        {
            let mut pulling = Pulling::new(&scenario, Pull::Random, graph, 1);
            let other = ratio(&scenario, &run(&scenario, &mut pulling));
            assert!(other > swarm, "{graph:?}: {other} and {swarm}");
        }
    }

    #[test]
    fn every_scenario_can_be_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let files = fs::read_dir(dir).unwrap();
        let names: Vec<_> = files
            .map(|file| Scenario::read(&file.unwrap().path()).unwrap().check().unwrap().name)
            .collect();
        assert!(names.len() >= 3, "{names:?}");
        assert!(Scenario { pieces: 0, ..small() }.check().is_err());
    }
}
