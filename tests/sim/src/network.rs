//! Links and what flows over them: virtual time, and streams that share links.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use dfs_scheduler::matcher::Micros;

use crate::fair;
use crate::links::{LinkId, Links, Path};
use crate::policy::{Node, Order};
use crate::scenario::{Rates, Scenario};

/// Names a stream.
type Stream = usize;

/// How often shares are made anew in a piece time, where that is not done at once.
const TICKS_IN_A_PIECE: f64 = 32.0;

#[derive(Debug)]
struct Link {
    /// Bytes a second.
    rate: f64,
    streams: Vec<Stream>,
    /// What its streams have of it.
    given: f64,
    /// The round in which it was looked at last, and its number in there.
    round: u32,
    number: LinkId,
}

#[derive(Debug)]
struct Flow {
    order: Order,
    path: Path,
    left: f64,
    rate: f64,
    since: Micros,
    is_open: bool,
    /// Tells an end that is due from one that was due before the rate changed.
    version: u32,
    round: u32,
}

/// What is due on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A stream begins to flow.
    Opens(Stream, u32),
    /// A stream is at its end.
    Ends(Stream, u32),
    /// Shares are made anew.
    Fill,
}

/// What a connection between two that had none costs.
#[derive(Debug, Clone, Copy)]
struct Connecting {
    cpu: u64,
    wait: u64,
}

/// All links.
#[derive(Debug)]
pub struct Network {
    links: Links,
    table: Vec<Link>,
    rates: Rates,
    tick: u64,
    most_streams: usize,
    piece_bytes: u64,
    connecting: Connecting,
    /// By node: orders that wait for a stream, streams, and when its processor is free.
    waiting: Vec<VecDeque<Order>>,
    busy: Vec<usize>,
    processor: Vec<u64>,
    connected: BTreeSet<(Node, Node)>,
    flows: Vec<Option<Flow>>,
    vacant: Vec<Stream>,
    under_way: BTreeMap<u64, Stream>,
    /// Links that streams have come to or left since shares were made.
    changed: Vec<LinkId>,
    is_fill_due: bool,
    round: u32,
    versions: u32,
    queue: BinaryHeap<Reverse<(Micros, u64, Due)>>,
    last: u64,
}

impl Network {
    /// The network of a scenario, without streams.
    pub fn new(scenario: &Scenario) -> Self {
        let links = Links::new(scenario);
        let nodes = scenario.nodes as usize + 1;
        let link =
            |rate: &f64| Link { rate: *rate, streams: Vec::new(), given: 0.0, round: 0, number: 0 };
        let piece_time = scenario.piece_bytes as f64 / scenario.link as f64 * 1e6;
        Self {
            table: links.rates().iter().map(link).collect(),
            links,
            rates: scenario.rates,
            tick: ((piece_time / TICKS_IN_A_PIECE) as u64).max(1),
            most_streams: scenario.streams.into(),
            piece_bytes: scenario.piece_bytes,
            connecting: Connecting { cpu: scenario.pair_cpu_us, wait: scenario.pair_us },
            waiting: vec![VecDeque::new(); nodes],
            busy: vec![0; nodes],
            processor: vec![0; nodes],
            connected: BTreeSet::new(),
            flows: Vec::new(),
            vacant: Vec::new(),
            under_way: BTreeMap::new(),
            changed: Vec::new(),
            is_fill_due: false,
            round: 0,
            versions: 0,
            queue: BinaryHeap::new(),
            last: 0,
        }
    }

    /// Two close their connections: the next stream between them takes a new one.
    pub fn part(&mut self, one: Node, other: Node) {
        self.connected.remove(&(one, other));
        self.connected.remove(&(other, one));
    }

    /// When anything happens next.
    pub fn next_due(&mut self) -> Option<Micros> {
        while let Some(Reverse((time, _, due))) = self.queue.peek() {
            if self.is_still_due(*due) {
                return Some(*time);
            }
            self.queue.pop();
        }
        None
    }

    /// What was next happens: the order that has been carried out, where one has.
    pub fn pass(&mut self) -> Option<Order> {
        let Reverse((now, _, due)) = self.queue.pop()?;
        if !self.is_still_due(due) {
            return None;
        }
        match due {
            Due::Opens(stream, _) => self.open(stream, now),
            Due::Ends(stream, _) => return self.take(stream, now).map(|flow| flow.order),
            Due::Fill => {
                self.is_fill_due = false;
                self.fill(now);
            }
        }
        None
    }

    /// An order is at its sender: it is carried out as soon as there is a stream for it.
    pub fn order(&mut self, order: Order, now: Micros) {
        self.waiting[order.from as usize].push_back(order);
        self.begin_waiting(order.from, now);
    }

    /// A sender stops; bytes that it had sent.
    pub fn stop(&mut self, from: Node, id: u64, now: Micros) -> u64 {
        self.waiting[from as usize].retain(|order| order.id != id);
        let Some(stream) = self.under_way.get(&id).copied() else { return 0 };
        self.take(stream, now).map_or(0, |flow| self.sent(&flow, now))
    }

    /// A node is gone, and all streams from and to it; bytes that had flown in vain, and what was to come of it.
    pub fn cut_off(&mut self, node: Node, now: Micros) -> (u64, Vec<Order>) {
        let mut lost: Vec<Order> = self.waiting[node as usize].drain(..).collect();
        self.waiting.iter_mut().for_each(|orders| orders.retain(|order| order.to != node));
        self.connected.retain(|(from, to)| *from != node && *to != node);
        let is_of = |flow: &Flow| flow.order.from == node || flow.order.to == node;
        let streams = self.under_way.values().copied();
        let of_it: Vec<Stream> =
            streams.filter(|stream| self.flows[*stream].as_ref().is_some_and(is_of)).collect();
        let taken: Vec<Flow> =
            of_it.into_iter().filter_map(|stream| self.take(stream, now)).collect();
        lost.extend(taken.iter().map(|flow| flow.order).filter(|order| order.from == node));
        (taken.iter().map(|flow| self.sent(flow, now)).sum(), lost)
    }

    /// A node sends and receives at these shares of its links.
    pub fn slow_down(&mut self, node: Node, shares: [f64; 2]) {
        for (link, share) in Links::of_node(node).into_iter().zip(shares) {
            self.table[link as usize].rate = self.links.rates()[link as usize] * share;
            self.changed.push(link);
        }
    }

    /// A data centre can be reached from outside, or not.
    pub fn set_border(&mut self, idc: u32, is_open: bool) {
        for link in self.links.of_idc(idc) {
            let rate = self.links.rates()[link as usize];
            self.table[link as usize].rate = if is_open { rate } else { 0.0 };
            self.changed.push(link);
        }
    }

    /// Whether no share has to be made anew before time passes.
    pub fn is_settled(&self) -> bool {
        self.changed.is_empty() || self.is_fill_due
    }

    /// Makes shares anew, after all that happens at this time.
    pub fn settle(&mut self, now: Micros) {
        match self.rates {
            Rates::Uplink => self.share_evenly(now),
            Rates::Exact => self.fill(now),
            Rates::Tick => {
                self.is_fill_due = true;
                self.at(Micros((now.0 / self.tick + 1) * self.tick), Due::Fill);
            }
        }
    }

    fn at(&mut self, time: Micros, due: Due) {
        self.last += 1;
        self.queue.push(Reverse((time, self.last, due)));
    }

    fn is_still_due(&self, due: Due) -> bool {
        match due {
            Due::Fill => true,
            Due::Opens(stream, version) | Due::Ends(stream, version) => {
                self.flows[stream].as_ref().is_some_and(|flow| flow.version == version)
            }
        }
    }

    fn sent(&self, flow: &Flow, now: Micros) -> u64 {
        let left = flow.left - flow.rate * (now.0 - flow.since.0) as f64 / 1e6;
        u64::from(flow.order.count) * self.piece_bytes - left.max(0.0) as u64
    }

    fn take(&mut self, stream: Stream, now: Micros) -> Option<Flow> {
        let flow = self.flows[stream].take()?;
        self.vacant.push(stream);
        self.under_way.remove(&flow.order.id);
        if flow.is_open {
            for link in flow.path.links() {
                let at = &mut self.table[link as usize];
                at.given -= flow.rate;
                if let Some(place) = at.streams.iter().position(|one| *one == stream) {
                    at.streams.swap_remove(place);
                }
                if at.streams.is_empty() {
                    at.given = 0.0;
                }
                self.changed.push(link);
            }
        }
        self.busy[flow.order.from as usize] -= 1;
        self.begin_waiting(flow.order.from, now);
        Some(flow)
    }

    fn begin_waiting(&mut self, from: Node, now: Micros) {
        while self.busy[from as usize] < self.most_streams {
            let Some(order) = self.waiting[from as usize].pop_front() else { return };
            self.versions += 1;
            let flow = Flow {
                order,
                path: self.links.path(from, order.to),
                left: (u64::from(order.count) * self.piece_bytes) as f64,
                rate: 0.0,
                since: now,
                is_open: false,
                version: self.versions,
                round: 0,
            };
            let stream = self.vacant.pop().unwrap_or_else(|| {
                self.flows.push(None);
                self.flows.len() - 1
            });
            self.flows[stream] = Some(flow);
            self.under_way.insert(order.id, stream);
            self.busy[from as usize] += 1;
            let opens = self.connect(from, order.to, now);
            if opens > now {
                self.at(opens, Due::Opens(stream, self.versions));
            } else {
                self.open(stream, now);
            }
        }
    }

    /// When a stream can begin.
    fn connect(&mut self, from: Node, to: Node, now: Micros) -> Micros {
        let Connecting { cpu, wait } = self.connecting;
        if cpu + wait == 0 || !self.connected.insert((from, to)) {
            return now;
        }
        let free = self.processor[from as usize].max(now.0) + cpu;
        self.processor[from as usize] = free;
        Micros(free + wait)
    }

    fn open(&mut self, stream: Stream, now: Micros) {
        let Some(flow) = self.flows[stream].as_mut() else { return };
        (flow.is_open, flow.since) = (true, now);
        let path = flow.path;
        for link in path.links() {
            self.table[link as usize].streams.push(stream);
            self.changed.push(link);
        }
        if self.rates == Rates::Tick {
            let free = |link: LinkId| {
                let link = &self.table[link as usize];
                (link.rate - link.given).max(0.0)
            };
            let rate = path.links().map(free).fold(f64::INFINITY, f64::min);
            self.set_rate(stream, rate, now);
        }
    }

    /// A stream goes as fast as the even share of each link lets it.
    fn share_evenly(&mut self, now: Micros) {
        self.round += 1;
        for link in std::mem::take(&mut self.changed) {
            for at in 0..self.table[link as usize].streams.len() {
                let stream = self.table[link as usize].streams[at];
                let Some(flow) = self.flows[stream].as_mut() else { continue };
                if std::mem::replace(&mut flow.round, self.round) == self.round {
                    continue;
                }
                let share = |link: LinkId| {
                    let link = &self.table[link as usize];
                    link.rate / link.streams.len().max(1) as f64
                };
                let rate = flow.path.links().map(share).fold(f64::INFINITY, f64::min);
                self.set_rate(stream, rate, now);
            }
        }
    }

    /// Streams that share a link with one that has changed, and so on, get fair shares.
    fn fill(&mut self, now: Micros) {
        let (streams, links) = self.touched();
        let rates: Vec<f64> = links.iter().map(|link| self.table[*link as usize].rate).collect();
        let name = |link: LinkId| self.table[link as usize].number;
        let flows = streams.iter().filter_map(|stream| self.flows[*stream].as_ref());
        let paths: Vec<Path> = flows.map(|flow| flow.path.renamed(name)).collect();
        for (stream, share) in streams.into_iter().zip(fair::shares(&rates, &paths)) {
            self.set_rate(stream, share, now);
        }
    }

    fn touched(&mut self) -> (Vec<Stream>, Vec<LinkId>) {
        self.round += 1;
        let round = self.round;
        let (mut streams, mut links) = (Vec::new(), Vec::new());
        for link in std::mem::take(&mut self.changed) {
            enlist(&mut self.table, link, round, &mut links);
        }
        let mut at = 0;
        while let Some(link) = links.get(at).copied() {
            at += 1;
            // What never runs out connects nobody.
            if self.table[link as usize].rate.is_infinite() {
                continue;
            }
            for place in 0..self.table[link as usize].streams.len() {
                let stream = self.table[link as usize].streams[place];
                let Some(flow) = self.flows[stream].as_mut() else { continue };
                if std::mem::replace(&mut flow.round, round) == round {
                    continue;
                }
                streams.push(stream);
                for link in flow.path.links() {
                    enlist(&mut self.table, link, round, &mut links);
                }
            }
        }
        (streams, links)
    }

    fn set_rate(&mut self, stream: Stream, rate: f64, now: Micros) {
        let Some(flow) = self.flows[stream].as_mut() else { return };
        if (rate - flow.rate).abs() <= flow.rate * 1e-9 {
            return;
        }
        for link in flow.path.links() {
            self.table[link as usize].given += rate - flow.rate;
        }
        flow.left -= flow.rate * (now.0 - flow.since.0) as f64 / 1e6;
        (flow.rate, flow.since) = (rate, now);
        self.versions += 1;
        flow.version = self.versions;
        if rate > 0.0 {
            let takes = (flow.left.max(0.0) / rate * 1e6).ceil() as u64;
            let (at, version) = (Micros(now.0.saturating_add(takes)), flow.version);
            self.at(at, Due::Ends(stream, version));
        }
    }
}

/// Numbers a link in the list of those looked at in this round, once.
fn enlist(table: &mut [Link], link: LinkId, round: u32, links: &mut Vec<LinkId>) {
    let entry = &mut table[link as usize];
    if std::mem::replace(&mut entry.round, round) != round {
        entry.number = links.len() as LinkId;
        links.push(link);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn order(id: u64, from: Node, to: Node) -> Order {
        Order { id, from, to, first: 0, count: 1 }
    }

    /// A megabyte a second each, and in a piece.
    fn network(rates: Rates, streams: u16) -> Network {
        let (link, piece_bytes) = (1_000_000, 1_000_000);
        Network::new(&Scenario {
            nodes: 7,
            link,
            source_link: link,
            piece_bytes,
            rates,
            streams,
            ..Scenario::default()
        })
    }

    /// Ends of all orders, in microseconds.
    fn ends(network: &mut Network, orders: &[(u64, Order)]) -> Vec<(u64, u64)> {
        let mut ended = Vec::new();
        let mut orders = orders.iter().peekable();
        let mut now = Micros(0);
        loop {
            let told = orders.peek().map(|(at, _)| Micros(*at));
            let due = network.next_due().into_iter().chain(told).min();
            if due != Some(now) && !network.is_settled() {
                network.settle(now);
                continue;
            }
            let Some(due) = due else { return ended };
            now = due;
            if told == Some(now) {
                let (_, order) = orders.next().unwrap();
                network.order(*order, now);
            } else if let Some(order) = network.pass() {
                ended.push((order.id, now.0));
            }
        }
    }

    #[test]
    fn streams_share_what_they_have_in_common() {
        let three = [1, 2, 3].map(|to| (0, order(to, 0, to as Node)));
        // Two by two at half the rate, the third alone.
        let expected = [(1, 2_000_000), (2, 2_000_000), (3, 3_000_000)];
        for rates in [Rates::Uplink, Rates::Exact] {
            assert_eq!(ends(&mut network(rates, 2), &three), expected, "{rates:?}");
        }
        let late = [(0, order(1, 0, 3)), (500_000, order(2, 1, 3))];
        let expected = [(1, 1_500_000), (2, 2_000_000)];
        for rates in [Rates::Uplink, Rates::Exact] {
            assert_eq!(ends(&mut network(rates, 1), &late), expected, "{rates:?}");
        }
        let ticking = ends(&mut network(Rates::Tick, 1), &late);
        let differs = |(got, expected): (&(u64, u64), &(u64, u64))| got.1.abs_diff(expected.1);
        assert!(ticking.iter().zip(&expected).all(|pair| differs(pair) <= 32_000), "{ticking:?}");
    }

    #[test]
    fn what_a_stream_cannot_use_another_gets_where_shares_are_fair() {
        // Three come to 3, and 2 sends to 4 besides: 3 gives each a third, and 2 has two thirds left.
        let orders = [(0, 3), (1, 3), (2, 3), (2, 4)];
        let orders = [1, 2, 3, 4].map(|id: u64| {
            let (from, to) = orders[id as usize - 1];
            (0, order(id, from, to))
        });
        let last = |rates| {
            let mut all = ends(&mut network(rates, 2), &orders);
            all.retain(|(id, _)| *id == 4);
            all[0].1
        };
        assert_eq!(last(Rates::Exact), 1_500_000);
        assert_eq!(last(Rates::Uplink), 2_000_000);
    }

    /// The same orders, among links that many share.
    #[test]
    fn equal_orders_end_at_about_equal_times_with_ticks() {
        let nodes = if cfg!(debug_assertions) { 100 } else { 500 };
        let last = |rates| {
            let scenario = Scenario {
                nodes,
                idcs: 4,
                idc_link: Some(2_000_000_000),
                uplinks: vec![0.5, 1.0, 2.0],
                streams: 3,
                rates,
                ..Scenario::default()
            };
            let mut random = StdRng::seed_from_u64(1);
            let order = |id: u64| {
                let (from, next) = (id as Node % nodes, random.random_range(1..nodes));
                order(id, from, (from + next) % (nodes + 1))
            };
            let orders: Vec<_> =
                (0..u64::from(nodes) * 16).map(order).map(|order| (0, order)).collect();
            let all = ends(&mut Network::new(&scenario), &orders);
            all.iter().map(|(_, end)| *end).max().unwrap() as f64
        };
        let (exact, ticking) = (last(Rates::Exact), last(Rates::Tick));
        assert!((exact - ticking).abs() / exact < 0.01, "{exact} and {ticking}");
    }

    #[test]
    fn a_sender_that_stops_has_sent_a_part() {
        let mut network = network(Rates::Exact, 1);
        network.order(order(1, 0, 1), Micros(0));
        network.order(order(2, 0, 2), Micros(0));
        network.settle(Micros(0));
        assert_eq!(network.stop(0, 1, Micros(250_000)), 250_000);
        network.settle(Micros(250_000));
        assert_eq!(network.next_due(), Some(Micros(1_250_000)));
        assert_eq!(network.cut_off(2, Micros(750_000)), (500_000, Vec::new()));
        assert_eq!(network.next_due(), None);
    }
}
