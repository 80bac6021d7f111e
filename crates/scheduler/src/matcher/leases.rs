//! Leases that are out: by name, by who gives and who takes them, and when each is given up.

use std::ops::Range;

use super::{Micros, PeerNumber};

/// Names a lease; no other lease of the same matcher ever has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// One peer's word to send a run of pieces to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// Who sends.
    pub from: PeerNumber,
    /// To whom.
    pub to: PeerNumber,
    /// The first piece.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Lease {
    /// The pieces.
    pub fn pieces(&self) -> impl Iterator<Item = usize> + use<> {
        let first = self.first as usize;
        first..first + self.count as usize
    }
}

/// What of the two a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Gives,
    Takes,
}

const SIDES: [Side; 2] = [Side::Gives, Side::Takes];

/// What became of a lease that is out no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Brought,
    GivenUp,
}

/// No lease.
const NONE: u32 = u32::MAX;

/// Those before and after one in the list of a peer.
#[derive(Debug, Clone, Copy)]
struct Beside {
    before: u32,
    after: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    pub(super) lease: Lease,
    pub(super) since: Micros,
    /// Whether what it brings counts as copies already.
    pub(super) counts: bool,
    due: Micros,
    beside: [Beside; 2],
}

impl Out {
    /// How long it may be out, in microseconds.
    pub(super) fn may_take(&self) -> u64 {
        self.due.0.saturating_sub(self.since.0)
    }

    fn peer(&self, side: Side) -> usize {
        let PeerNumber(peer) = match side {
            Side::Gives => self.lease.from,
            Side::Takes => self.lease.to,
        };
        peer as usize
    }
}

/// Places in a table are used again; a name is the place and how often it was used.
#[derive(Debug)]
pub(super) struct Leases {
    table: Vec<(u32, Option<Out>)>,
    /// How often a new place counts as used: another matcher's names are of other leases.
    first_use: u32,
    vacant: Vec<u32>,
    /// By peer: the first that it gives, and that it takes.
    firsts: Vec<[u32; 2]>,
    /// None is due before.
    earliest: Micros,
}

fn place_of(id: LeaseId) -> (usize, u32) {
    ((id.0 & u64::from(u32::MAX)) as usize, (id.0 >> 32) as u32)
}

impl Leases {
    /// None yet; their names depend on `seed`.
    pub(super) fn named_from(seed: u64) -> Self {
        Self {
            table: Vec::new(),
            first_use: (seed >> 32) as u32 ^ seed as u32,
            vacant: Vec::new(),
            firsts: Vec::new(),
            earliest: Micros(u64::MAX),
        }
    }

    /// There are so many peers at least.
    pub(super) fn reach(&mut self, peers: usize) {
        self.firsts.resize(self.firsts.len().max(peers), [NONE; 2]);
    }

    pub(super) fn add(
        &mut self,
        [from, to]: [PeerNumber; 2],
        pieces: Range<u32>,
        [since, due]: [Micros; 2],
        counts: bool,
    ) -> Lease {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.table.push((self.first_use, None));
            (self.table.len() - 1) as u32
        });
        let (uses, _) = &mut self.table[place as usize];
        *uses = uses.wrapping_add(1);
        let id = LeaseId(u64::from(*uses) << 32 | u64::from(place));
        let lease = Lease { id, from, to, first: pieces.start, count: pieces.len() as u32 };
        let nothing = Beside { before: NONE, after: NONE };
        let mut out = Out { lease, since, counts, due, beside: [nothing; 2] };
        for side in SIDES {
            let first = &mut self.firsts[out.peer(side)][side as usize];
            out.beside[side as usize].after = *first;
            let after = std::mem::replace(first, place);
            if let Some(after) = self.at(after) {
                after.beside[side as usize].before = place;
            }
        }
        self.table[place as usize].1 = Some(out);
        self.earliest = self.earliest.min(due);
        lease
    }

    fn at(&mut self, place: u32) -> Option<&mut Out> {
        self.table.get_mut(place as usize)?.1.as_mut()
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<&Out> {
        let (place, used) = place_of(id);
        let (uses, slot) = self.table.get(place)?;
        slot.as_ref().filter(|_| *uses == used)
    }

    pub(super) fn take(&mut self, id: LeaseId) -> Option<Out> {
        self.get(id)?;
        let (place, _) = place_of(id);
        self.vacant.push(place as u32);
        let out = self.table[place].1.take()?;
        for side in SIDES {
            let Beside { before, after } = out.beside[side as usize];
            match self.at(before) {
                Some(before) => before.beside[side as usize].after = after,
                None => self.firsts[out.peer(side)][side as usize] = after,
            }
            if let Some(after) = self.at(after) {
                after.beside[side as usize].before = before;
            }
        }
        Some(out)
    }

    /// What one that is out brings counts as copies from now on, or no longer.
    pub(super) fn set_counts(&mut self, id: LeaseId, counts: bool) {
        let (place, _) = place_of(id);
        if self.get(id).is_some()
            && let Some(out) = self.at(place as u32)
        {
            out.counts = counts;
        }
    }

    /// All that a peer gives, or takes: the last first.
    pub(super) fn of(&self, peer: u32, side: Side) -> impl Iterator<Item = &Out> {
        let at = |place: u32| self.table.get(place as usize)?.1.as_ref();
        let first = self.firsts.get(peer as usize).map_or(NONE, |firsts| firsts[side as usize]);
        std::iter::successors(at(first), move |out| at(out.beside[side as usize].after))
    }

    /// Whether there is one between two, either way.
    pub(super) fn is_between(&self, one: u32, other: u32) -> bool {
        let gives = self.of(one, Side::Gives).any(|out| out.lease.to.0 == other);
        gives || self.of(one, Side::Takes).any(|out| out.lease.from.0 == other)
    }

    /// Those that are past their time; they stay out.
    pub(super) fn overdue(&mut self, now: Micros) -> Vec<Out> {
        if now < self.earliest {
            return Vec::new();
        }
        let out = self.table.iter().filter_map(|(_, slot)| *slot);
        let (late, others): (Vec<Out>, Vec<Out>) = out.partition(|out| out.due <= now);
        self.earliest = others.iter().map(|out| out.due).min().unwrap_or(Micros(u64::MAX));
        late
    }
}
