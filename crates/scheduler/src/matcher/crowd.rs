//! Sets of peers from which a few are drawn at random, in constant time.

use rand::{Rng, RngExt};

/// Where a peer is that is in no such set.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Peers in no order.
#[derive(Debug, Clone, Default)]
pub(super) struct Crowd(Vec<u32>);

impl Crowd {
    /// Adds a peer; its place.
    pub(super) fn add(&mut self, peer: u32) -> u32 {
        self.0.push(peer);
        (self.0.len() - 1) as u32
    }

    /// Takes the peer at `place` out; who is there now.
    pub(super) fn take(&mut self, place: u32) -> Option<u32> {
        self.0.swap_remove(place as usize);
        self.0.get(place as usize).copied()
    }

    /// Up to `most` of them, from anywhere on: all where there are no more.
    pub(super) fn sample(&self, most: usize, random: &mut impl Rng) -> impl Iterator<Item = u32> {
        let count = self.0.len();
        let start = if count > most { random.random_range(0..count) } else { 0 };
        (0..count.min(most)).map(move |at| self.0[(start + at) % count])
    }
}
