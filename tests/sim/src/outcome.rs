//! What a run came to.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::policy::Node;
use crate::scenario::Scenario;
use crate::world::{Bytes, State, World};

/// What the decisions cost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Costs {
    /// Messages that the scheduler got.
    pub heard: u64,
    /// Messages that it sent.
    pub told: u64,
    /// Messages got and sent by each node that led others.
    pub led: BTreeMap<Node, u64>,
    /// Orders given.
    pub orders: u64,
    /// Orders given up.
    pub stopped: u64,
    /// Pairs of nodes that have become partners.
    pub handshakes: u64,
    /// Partners that a node had at a time, at most.
    pub partners: u32,
    /// Time that each decision took, on this machine, in nanoseconds.
    nanos: Vec<u32>,
}

impl Costs {
    /// Something was decided.
    pub fn decided(&mut self, took: Duration) {
        self.nanos.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Seconds from its arrival to its last piece, by node, sorted; those that never had all are missing.
    pub took: Vec<f64>,
    /// When each had everything, in seconds from the beginning, sorted.
    pub done: Vec<f64>,
    /// When the last was done, in seconds; none where some never were that should be.
    pub last: Option<f64>,
    /// Bytes that left the source, in copies of the content.
    pub source_copies: f64,
    /// Bytes that entered a data centre, and a rack, in copies for each of them.
    pub idc_copies: f64,
    /// See `idc_copies`.
    pub rack_copies: f64,
    /// Bytes that came to who had them, as a share of all that were wanted.
    pub twice: f64,
    /// Bytes of no use, likewise.
    pub in_vain: f64,
    /// What nodes sent, as shares of what they could until the last was done, sorted.
    pub uplinks: Vec<f64>,
    /// How even uploads are: one where they are all alike (Jain).
    pub evenness: f64,
    /// The most that a node sent, as a multiple of the mean.
    pub most_sent: f64,
    /// Nodes that pieces went through, sorted.
    pub depths: Vec<u8>,
    /// Messages of the scheduler in a second, until the last was done.
    pub messages: f64,
    /// Of the node that led others and had most of them, likewise.
    pub led_messages: f64,
    /// Microseconds that messages waited for the scheduler, sorted.
    pub waits: Vec<u32>,
    /// What it cost.
    pub costs: Costs,
    /// Names the decisions, one by one.
    pub hash: String,
}

impl Outcome {
    /// Of a run that has ended.
    pub fn new(
        scenario: &Scenario,
        world: &World,
        mut costs: Costs,
        waits: Vec<u32>,
        hash: String,
    ) -> Self {
        costs.nanos.sort_unstable();
        let seconds = |micros: u64| micros as f64 / 1e6;
        let nodes = &world.nodes[1..];
        let done = nodes.iter().filter_map(|node| Some((node.done?.0, node.arrived?.0)));
        let mut took: Vec<f64> = done.clone().map(|(done, from)| seconds(done - from)).collect();
        let mut done: Vec<f64> = done.map(|(done, _)| seconds(done)).collect();
        took.sort_by(f64::total_cmp);
        done.sort_by(f64::total_cmp);
        let last = world.last().filter(|_| world.incomplete == 0).map(|last| seconds(last.0));
        let bytes = scenario.bytes() as f64;
        let share = |part: u64| part as f64 / bytes / f64::from(scenario.nodes);
        let Bytes { from_source, into_idcs, into_racks, twice, in_vain } = world.bytes;
        let idcs = f64::from(scenario.idcs);
        let sent: Vec<f64> = nodes.iter().map(|node| node.sent as f64).collect();
        let (sum, squares) =
            (sent.iter().sum::<f64>(), sent.iter().map(|one| one * one).sum::<f64>());
        let most = sent.iter().copied().fold(0.0, f64::max);
        let count = sent.len() as f64;
        Self {
            uplinks: uplinks(scenario, nodes, last),
            took,
            done,
            last,
            source_copies: from_source as f64 / bytes,
            idc_copies: into_idcs as f64 / bytes / idcs,
            rack_copies: into_racks as f64 / bytes / idcs / f64::from(scenario.racks),
            twice: share(twice),
            in_vain: share(in_vain),
            evenness: if squares > 0.0 { sum * sum / (count * squares) } else { 1.0 },
            most_sent: if sum > 0.0 { most * count / sum } else { 0.0 },
            depths: world.depths(),
            messages: last.map_or(0.0, |last| (costs.heard + costs.told) as f64 / last),
            led_messages: last
                .map_or(0.0, |last| costs.led.values().copied().max().unwrap_or(0) as f64 / last),
            waits,
            costs,
            hash,
        }
    }

    /// Decisions in a second, on this machine.
    pub fn orders_per_second(&self) -> f64 {
        let nanos: u64 = self.costs.nanos.iter().copied().map(u64::from).sum();
        self.costs.orders as f64 / (nanos.max(1) as f64 / 1e9)
    }

    /// Nanoseconds that decisions took, sorted.
    pub fn nanos(&self) -> &[u32] {
        &self.costs.nanos
    }
}

fn uplinks(scenario: &Scenario, nodes: &[State], last: Option<f64>) -> Vec<f64> {
    let Some(last) = last else { return Vec::new() };
    let could = (0..scenario.nodes).map(|number| scenario.uplink(number) * last);
    let mut all: Vec<f64> =
        nodes.iter().zip(could).map(|(node, could)| node.sent as f64 / could).collect();
    all.sort_by(f64::total_cmp);
    all
}

/// What so large a share of all is no more than; they are sorted.
pub fn quantile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).copied()
}
