//! Unpacked parts, kept for a while: a part is often wanted group by group.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes kept for one space.
const KEPT: usize = 32 << 20;
/// A part that lies within one group is wanted once.
const WORTH_IT: usize = 16 * 1024;

/// Bodies of parts by their places in the table, the oldest dropped first.
#[derive(Default)]
pub(super) struct Kept {
    bodies: Mutex<Bodies>,
}

#[derive(Default)]
struct Bodies {
    by_part: HashMap<usize, Bytes>,
    order: VecDeque<usize>,
    bytes: usize,
}

impl Kept {
    pub fn get(&self, part: usize) -> Option<Bytes> {
        self.bodies.lock().by_part.get(&part).cloned()
    }

    pub fn put(&self, part: usize, body: &Bytes) {
        if body.len() < WORTH_IT || body.len() > KEPT {
            return;
        }
        let mut bodies = self.bodies.lock();
        if bodies.by_part.insert(part, body.clone()).is_some() {
            return;
        }
        bodies.order.push_back(part);
        bodies.bytes += body.len();
        while bodies.bytes > KEPT
            && let Some(oldest) = bodies.order.pop_front()
        {
            let gone = bodies.by_part.remove(&oldest).map_or(0, |body| body.len());
            bodies.bytes -= gone;
        }
    }
}
