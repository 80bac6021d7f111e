//! What was unpacked, kept for a while: a part of an archive, or a chunk of a blob, is often wanted group by group.
//!
//! Each is fetched once, however many want parts of it at a time. All spaces of a process share the room, however many of them
//! are open.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Bytes kept for all spaces together.
const KEPT: usize = 64 << 20;
/// Most bytes of one body that are kept.
const LONGEST: usize = 32 << 20;
/// A body that lies within one group is wanted once.
const WORTH_IT: usize = 16 * 1024;
/// Turns that are remembered before those that nobody waits for are forgotten.
const TURNS: usize = 1024;

/// A space, and a unit's place in its table.
type Key = (u64, usize);

/// Bodies, the oldest dropped first.
#[derive(Default)]
struct Bodies {
    by_key: HashMap<Key, Bytes>,
    order: VecDeque<Key>,
    bytes: usize,
}

static BODIES: LazyLock<Mutex<Bodies>> = LazyLock::new(Mutex::default);

/// Held by whoever fetches a unit.
type Turn = tokio::sync::Mutex<()>;

/// The bodies of one space.
pub(super) struct Kept {
    space: u64,
    turns: Mutex<HashMap<usize, Weak<Turn>>>,
}

impl Default for Kept {
    fn default() -> Self {
        static SPACES: AtomicU64 = AtomicU64::new(0);
        Self { space: SPACES.fetch_add(1, Ordering::Relaxed), turns: Mutex::default() }
    }
}

impl Kept {
    /// Whether a body of so many bytes is kept.
    pub fn takes(length: u64) -> bool {
        (WORTH_IT as u64..=LONGEST as u64).contains(&length)
    }

    /// The turn to fetch each of these units, which ascend: whoever fetches one of them now has kept it by then.
    pub async fn turns(&self, units: &[usize]) -> Vec<OwnedMutexGuard<()>> {
        let mut held = Vec::with_capacity(units.len());
        for &unit in units {
            held.push(self.turn(unit).lock_owned().await);
        }
        held
    }

    fn turn(&self, unit: usize) -> Arc<Turn> {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(&unit).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= TURNS {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::default();
        turns.insert(unit, Arc::downgrade(&turn));
        turn
    }

    pub fn get(&self, unit: usize) -> Option<Bytes> {
        BODIES.lock().by_key.get(&(self.space, unit)).cloned()
    }

    pub fn put(&self, unit: usize, body: &Bytes) {
        if !Self::takes(body.len() as u64) {
            return;
        }
        let key = (self.space, unit);
        let mut bodies = BODIES.lock();
        if bodies.by_key.insert(key, body.clone()).is_some() {
            return;
        }
        bodies.order.push_back(key);
        bodies.bytes += body.len();
        while bodies.bytes > KEPT
            && let Some(oldest) = bodies.order.pop_front()
        {
            let gone = bodies.by_key.remove(&oldest).map_or(0, |body| body.len());
            bodies.bytes -= gone;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut bodies = BODIES.lock();
        let Bodies { by_key, order, bytes } = &mut *bodies;
        order.retain(|key| key.0 != self.space);
        by_key.retain(|key, body| {
            let stays = key.0 != self.space;
            *bytes -= if stays { 0 } else { body.len() };
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_kept_as_long_as_their_space_and_not_beyond_their_room() {
        let (one, other) = (Kept::default(), Kept::default());
        one.put(7, &vec![1; WORTH_IT].into());
        other.put(7, &vec![2; WORTH_IT].into());
        one.put(8, &vec![1; WORTH_IT - 1].into());
        assert_eq!(one.get(7).unwrap()[0], 1);
        assert_eq!(other.get(7).unwrap()[0], 2);
        assert_eq!(one.get(8), None);
        let gone = one.space;
        drop(one);
        assert!(BODIES.lock().order.iter().all(|key| key.0 != gone));
        assert_eq!(other.get(7).unwrap()[0], 2);
        for unit in 100..104 {
            other.put(unit, &vec![3; LONGEST].into());
        }
        assert_eq!(other.get(7), None);
        assert!(other.get(103).is_some());
        assert!(BODIES.lock().bytes <= KEPT);
    }
}
