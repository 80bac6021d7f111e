//! Sets of peers by area, from which a few are drawn at random in constant time.

/// Where a peer is that is in no such set; an area that a peer is not in.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Where a lot, which is any number, falls among so many.
pub(super) fn fall(lot: u32, among: usize) -> usize {
    ((u64::from(lot) * among as u64) >> 32) as usize
}

/// Peers in no order.
#[derive(Debug, Clone, Default)]
struct Crowd(Vec<u32>);

impl Crowd {
    /// Adds a peer; its place.
    fn add(&mut self, peer: u32) -> u32 {
        self.0.push(peer);
        (self.0.len() - 1) as u32
    }

    /// Takes the peer at `place` out; who is there now.
    fn take(&mut self, place: u32) -> Option<u32> {
        self.0.swap_remove(place as usize);
        self.0.get(place as usize).copied()
    }

    /// Up to `most` of them, from where `lot` falls on: all where there are no more.
    fn sample(&self, most: usize, lot: u32) -> impl Iterator<Item = u32> {
        let count = self.0.len();
        let start = if count > most { fall(lot, count) } else { 0 };
        (0..count.min(most)).map(move |at| {
            let at = start + at;
            self.0[if at < count { at } else { at - count }]
        })
    }
}

/// Peers of which something holds, in each of their areas.
#[derive(Debug, Default)]
pub(super) struct Crowds {
    by_area: Vec<Crowd>,
    /// By peer: its place in the crowd of each of its areas.
    places: Vec<[u32; 3]>,
    /// By peer, a bit each: few enough words to stay at hand.
    is_in: Vec<u64>,
}

impl Crowds {
    /// There are so many areas, and peers, at least.
    pub(super) fn reach(&mut self, areas: usize, peers: usize) {
        self.by_area.resize(self.by_area.len().max(areas), Crowd::default());
        self.places.resize(self.places.len().max(peers), [NOWHERE; 3]);
        self.is_in.resize(self.places.len().div_ceil(64), 0);
    }

    /// Whether a peer is in.
    pub(super) fn has(&self, peer: u32) -> bool {
        self.is_in[peer as usize / 64] & (1 << (peer % 64)) != 0
    }

    /// Puts a peer into the crowds of its areas, or takes it out of them.
    pub(super) fn put(&mut self, peer: u32, areas: [u32; 3], is_in: bool) {
        if self.has(peer) == is_in {
            return;
        }
        self.is_in[peer as usize / 64] ^= 1 << (peer % 64);
        for (level, area) in areas.into_iter().enumerate().filter(|(_, area)| *area != NOWHERE) {
            let crowd = &mut self.by_area[area as usize];
            let place = &mut self.places[peer as usize][level];
            if is_in {
                *place = crowd.add(peer);
                continue;
            }
            let left = std::mem::replace(place, NOWHERE);
            if let Some(moved) = crowd.take(left) {
                self.places[moved as usize][level] = left;
            }
        }
    }

    /// Up to `most` of those in an area, from where `lot` falls on.
    pub(super) fn sample(&self, area: u32, most: usize, lot: u32) -> impl Iterator<Item = u32> {
        self.by_area[area as usize].sample(most, lot)
    }
}
