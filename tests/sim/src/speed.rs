//! How fast the matcher decides: the processor time of a flash crowd in which every lease is carried out after as long.

use std::collections::VecDeque;
use std::fs;

use dfs_scheduler::matcher::{Joining, Lease, LeaseId, Matcher, Micros, PeerNumber, Role, Tuning};

/// What is decided.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// Nodes that want everything.
    pub nodes: u32,
    /// Pieces of the content.
    pub pieces: u32,
    /// Bytes in each.
    pub piece_bytes: u64,
    /// Bytes a second of each uplink.
    pub link: u64,
}

/// What it took.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// Leases.
    pub decisions: u64,
    /// Pieces in them.
    pub pieces: u64,
    /// Nanoseconds of the processor, with what is told of each lease.
    pub nanos: u64,
}

impl Speed {
    /// Leases in a second of one processor.
    pub fn per_second(&self) -> f64 {
        self.decisions as f64 * 1e9 / self.nanos.max(1) as f64
    }
}

/// Runs until all have everything; none where that does not happen, or the processor's time cannot be read.
pub fn of(crowd: &Crowd, tuning: Tuning, seed: u64) -> Option<Speed> {
    let mut matcher = Matcher::new(crowd.pieces, crowd.piece_bytes, tuning, seed);
    let all = 0..crowd.pieces;
    let all = std::slice::from_ref(&all);
    let began = spent()?;
    matcher.join(&Joining::new(Role::Source, all, &[]), Micros(0));
    for _ in 0..crowd.nodes {
        matcher.join(&Joining::new(Role::Node, &[], all), Micros(0));
    }
    let mut out = Uplinks { crowd: *crowd, free: Vec::new(), due: VecDeque::new() };
    let (mut decisions, mut pieces, mut now) = (0, 0, Micros(0));
    loop {
        for lease in matcher.leases() {
            decisions += 1;
            pieces += u64::from(lease.count);
            out.take(&lease, now);
        }
        let Some((due, id)) = out.due.pop_front() else { break };
        let tick = matcher.next_tick();
        now = due.max(now);
        if tick.is_some_and(|tick| tick <= now) {
            matcher.tick(now);
        }
        matcher.done(id, now);
    }
    let nanos = spent()?.saturating_sub(began);
    let nodes = (1..=crowd.nodes).map(PeerNumber);
    let is_complete = nodes.into_iter().all(|node| matcher.is_complete(node));
    is_complete.then_some(Speed { decisions, pieces, nanos })
}

/// When leases are carried out: each uplink sends one after the other.
struct Uplinks {
    crowd: Crowd,
    free: Vec<Micros>,
    /// About in the order of time: what is due before the last of them comes behind it all the same.
    due: VecDeque<(Micros, LeaseId)>,
}

impl Uplinks {
    fn take(&mut self, lease: &Lease, now: Micros) {
        let PeerNumber(from) = lease.from;
        let from = from as usize;
        self.free.resize(self.free.len().max(from + 1), Micros(0));
        let bytes = u64::from(lease.count) * self.crowd.piece_bytes;
        let takes = bytes * 1_000_000 / self.crowd.link.max(1);
        let due = Micros(self.free[from].max(now).0 + takes);
        self.free[from] = due;
        self.due.push_back((due, lease.id));
    }
}

/// Nanoseconds that this thread has had of a processor: what others do on it does not count.
fn spent() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_comes_to_everybody_whatever_is_leased_at_a_time() {
        let crowd = Crowd { nodes: 100, pieces: 64, piece_bytes: 1 << 20, link: 125_000_000 };
        let one = Tuning { uplink: 1, downlink: 1, window: 0, run: 1, ..Tuning::default() };
        for tuning in [one, Tuning::default()] {
            let speed = of(&crowd, tuning, 1).unwrap();
            assert_eq!(speed.pieces, 6400);
            assert!(speed.decisions <= speed.pieces && speed.nanos > 0);
        }
    }
}
