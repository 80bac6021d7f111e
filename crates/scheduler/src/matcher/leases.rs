//! Leases that are out, and when each is given up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
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

#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    pub(super) lease: Lease,
    pub(super) since: Micros,
}

/// Places in a table are used again; a name is the place and how often it was used.
#[derive(Debug, Default)]
pub(super) struct Leases {
    table: Vec<(u32, Option<Out>)>,
    /// How often a new place counts as used: another matcher's names are of other leases.
    first_use: u32,
    vacant: Vec<u32>,
    due: BinaryHeap<Reverse<(Micros, LeaseId)>>,
}

fn place_of(id: LeaseId) -> (usize, u32) {
    ((id.0 & u64::from(u32::MAX)) as usize, (id.0 >> 32) as u32)
}

impl Leases {
    /// None yet; their names depend on `seed`.
    pub(super) fn named_from(seed: u64) -> Self {
        Self { first_use: (seed >> 32) as u32 ^ seed as u32, ..Self::default() }
    }

    pub(super) fn add(
        &mut self,
        from: PeerNumber,
        to: PeerNumber,
        pieces: Range<u32>,
        since: Micros,
        due: Micros,
    ) -> Lease {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.table.push((self.first_use, None));
            (self.table.len() - 1) as u32
        });
        let (uses, slot) = &mut self.table[place as usize];
        *uses = uses.wrapping_add(1);
        let id = LeaseId(u64::from(*uses) << 32 | u64::from(place));
        let lease = Lease { id, from, to, first: pieces.start, count: pieces.len() as u32 };
        *slot = Some(Out { lease, since });
        self.due.push(Reverse((due, id)));
        lease
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
        self.table[place].1.take()
    }

    /// All that a peer gives or is given.
    pub(super) fn of(&self, peer: u32) -> Vec<LeaseId> {
        let is_of = |lease: &Lease| lease.from.0 == peer || lease.to.0 == peer;
        self.all().filter(|lease| is_of(lease)).map(|lease| lease.id).collect()
    }

    pub(super) fn to(&self, peer: u32) -> impl Iterator<Item = &Lease> {
        self.all().filter(move |lease| lease.to.0 == peer)
    }

    pub(super) fn from(&self, peer: u32) -> impl Iterator<Item = &Lease> {
        self.all().filter(move |lease| lease.from.0 == peer)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Lease> {
        self.table.iter().filter_map(|(_, slot)| slot.as_ref().map(|out| &out.lease))
    }

    /// One that is past its time; it stays out.
    pub(super) fn overdue(&mut self, now: Micros) -> Option<Out> {
        while let Some(Reverse((due, id))) = self.due.peek().copied() {
            let out = self.get(id).copied();
            if out.is_some() && due > now {
                return None;
            }
            self.due.pop();
            if out.is_some() {
                return out;
            }
        }
        None
    }
}
