//! Links and what flows over them: virtual time, and streams that share uplinks and downlinks.
//!
//! A stream goes as fast as its sender's uplink and its receiver's downlink, each shared evenly among its streams, let
//! it ("uplink" mode): constant work for each event.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use dfs_scheduler::matcher::Micros;

use crate::policy::{Node, Order};

/// Names a stream.
type Stream = usize;

#[derive(Debug, Default)]
struct Side {
    /// Bytes a second.
    rate: f64,
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Flow {
    order: Order,
    left: f64,
    rate: f64,
    since: Micros,
    /// Tells an end that is due from one that was due before the rate changed.
    version: u32,
}

/// What happens on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    /// A node arrives.
    Arrived(Node),
    /// An order reaches its sender; its number in the list of those under way.
    Ordered(usize),
    /// A stream may be at its end.
    Ended(Stream, u32),
    /// The scheduler hears that an order was carried out.
    Reported(usize),
    /// Time passes for the scheduler.
    Tick,
}

/// All links.
#[derive(Debug)]
pub struct Network {
    up: Vec<Side>,
    down: Vec<Side>,
    waiting: Vec<VecDeque<Order>>,
    most_streams: usize,
    piece_bytes: u64,
    flows: Vec<Option<Flow>>,
    vacant: Vec<Stream>,
    versions: u32,
    queue: BinaryHeap<Reverse<(Micros, u64, Happening)>>,
    last: u64,
}

impl Network {
    /// Links of these rates: (up, down), bytes a second, by node.
    pub fn new(links: &[(f64, f64)], most_streams: usize, piece_bytes: u64) -> Self {
        let side = |rate| Side { rate, streams: Vec::new() };
        Self {
            up: links.iter().map(|(up, _)| side(*up)).collect(),
            down: links.iter().map(|(_, down)| side(*down)).collect(),
            waiting: links.iter().map(|_| VecDeque::new()).collect(),
            most_streams,
            piece_bytes,
            flows: Vec::new(),
            vacant: Vec::new(),
            versions: 0,
            queue: BinaryHeap::new(),
            last: 0,
        }
    }

    /// Has something happen at a time; what is put in first happens first among equals.
    pub fn at(&mut self, time: Micros, happening: Happening) {
        self.last += 1;
        self.queue.push(Reverse((time, self.last, happening)));
    }

    /// What happens next.
    pub fn happens_next(&mut self) -> Option<(Micros, Happening)> {
        self.queue.pop().map(|Reverse((time, _, happening))| (time, happening))
    }

    /// An order is at its sender: it is carried out as soon as there is a stream for it.
    pub fn order(&mut self, order: Order, now: Micros) {
        self.waiting[order.from as usize].push_back(order);
        self.begin_waiting(order.from, now);
    }

    /// A stream that may be at its end: its order, where it is.
    pub fn end(&mut self, stream: Stream, version: u32, now: Micros) -> Option<Order> {
        let flow = self.flows.get(stream)?.as_ref()?;
        if flow.version != version {
            return None;
        }
        let order = flow.order;
        self.flows[stream] = None;
        self.vacant.push(stream);
        self.up[order.from as usize].streams.retain(|one| *one != stream);
        self.down[order.to as usize].streams.retain(|one| *one != stream);
        self.begin_waiting(order.from, now);
        self.share_anew(order.from, order.to, now);
        Some(order)
    }

    fn begin_waiting(&mut self, from: Node, now: Micros) {
        while self.up[from as usize].streams.len() < self.most_streams {
            let Some(order) = self.waiting[from as usize].pop_front() else { return };
            let left = (u64::from(order.count) * self.piece_bytes) as f64;
            let flow = Flow { order, left, rate: 0.0, since: now, version: 0 };
            let stream = self.vacant.pop().unwrap_or_else(|| {
                self.flows.push(None);
                self.flows.len() - 1
            });
            self.flows[stream] = Some(flow);
            self.up[from as usize].streams.push(stream);
            self.down[order.to as usize].streams.push(stream);
            self.share_anew(from, order.to, now);
        }
    }

    fn share_anew(&mut self, from: Node, to: Node, now: Micros) {
        let changed: Vec<Stream> = {
            let up = &self.up[from as usize].streams;
            let down = &self.down[to as usize].streams;
            up.iter().chain(down.iter().filter(|stream| !up.contains(stream))).copied().collect()
        };
        for stream in changed {
            let Some(flow) = self.flows[stream].as_mut() else { continue };
            let (up, down) =
                (&self.up[flow.order.from as usize], &self.down[flow.order.to as usize]);
            let share = |side: &Side| side.rate / side.streams.len().max(1) as f64;
            let rate = share(up).min(share(down));
            if rate == flow.rate {
                continue;
            }
            flow.left -= flow.rate * (now.0 - flow.since.0) as f64 / 1e6;
            (flow.rate, flow.since) = (rate, now);
            self.versions += 1;
            flow.version = self.versions;
            let takes = (flow.left.max(0.0) / rate * 1e6).ceil() as u64;
            let (at, version) = (Micros(now.0 + takes), flow.version);
            self.at(at, Happening::Ended(stream, version));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: u64, from: Node, to: Node) -> Order {
        Order { id, from, to, first: 0, count: 1 }
    }

    /// Ends of all orders, in microseconds.
    fn ends(network: &mut Network) -> Vec<(u64, u64)> {
        let mut ended = Vec::new();
        while let Some((now, happening)) = network.happens_next() {
            if let Happening::Ended(stream, version) = happening
                && let Some(order) = network.end(stream, version, now)
            {
                ended.push((order.id, now.0));
            }
        }
        ended
    }

    #[test]
    fn streams_share_what_they_have_in_common() {
        // A megabyte a second each.
        let links = [(1e6, 1e6); 4];
        let mut network = Network::new(&links, 2, 1_000_000);
        network.order(order(1, 0, 1), Micros(0));
        network.order(order(2, 0, 2), Micros(0));
        network.order(order(3, 0, 3), Micros(0));
        // Two by two at half the rate, the third alone.
        assert_eq!(ends(&mut network), [(1, 2_000_000), (2, 2_000_000), (3, 3_000_000)]);
        let mut network = Network::new(&links, 1, 1_000_000);
        network.order(order(1, 0, 3), Micros(0));
        network.order(order(2, 1, 3), Micros(500_000));
        assert_eq!(ends(&mut network), [(1, 1_500_000), (2, 2_000_000)]);
    }
}
