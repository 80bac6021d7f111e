//! Leases that are out: by name, by who gives and who takes them, and when each is given up.

use std::collections::BTreeMap;
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

/// The lists that a lease is in: of who gives it, of who takes it, and of those that are given up about when it is.
const LISTS: usize = SIDES.len() + 1;
const DUE: usize = SIDES.len();

/// Those that are given up within so many microseconds are in one list.
const TOGETHER: u64 = 100_000;

/// What became of a lease that is out no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Brought,
    GivenUp,
}

/// No lease.
const NONE: u32 = u32::MAX;

/// Those before and after one in a list.
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
    beside: [Beside; LISTS],
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
    /// By time: the first of those that are given up then.
    due: BTreeMap<u64, u32>,
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
            due: BTreeMap::new(),
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
        let mut out = Out { lease, since, counts, due, beside: [nothing; LISTS] };
        for list in 0..LISTS {
            let after = std::mem::replace(self.first(&out, list), place);
            out.beside[list].after = after;
            if let Some(after) = self.at(after) {
                after.beside[list].before = place;
            }
        }
        self.table[place as usize].1 = Some(out);
        lease
    }

    /// The first in one of the lists that a lease is in.
    fn first(&mut self, out: &Out, list: usize) -> &mut u32 {
        match SIDES.get(list) {
            Some(side) => &mut self.firsts[out.peer(*side)][list],
            None => self.due.entry(out.due.0 / TOGETHER).or_insert(NONE),
        }
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
        for (list, Beside { before, after }) in out.beside.into_iter().enumerate() {
            match self.at(before) {
                Some(before) => before.beside[list].after = after,
                None if list == DUE && after == NONE => {
                    self.due.remove(&(out.due.0 / TOGETHER));
                }
                None => *self.first(&out, list) = after,
            }
            if let Some(after) = self.at(after) {
                after.beside[list].before = before;
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
        let first = self.firsts.get(peer as usize).map_or(NONE, |firsts| firsts[side as usize]);
        self.from(first, side as usize)
    }

    /// The first of a list and all that follow it.
    fn from(&self, first: u32, list: usize) -> impl Iterator<Item = &Out> {
        let at = |place: u32| self.table.get(place as usize)?.1.as_ref();
        std::iter::successors(at(first), move |out| at(out.beside[list].after))
    }

    /// Whether there is one between two, either way.
    pub(super) fn is_between(&self, one: u32, other: u32) -> bool {
        let gives = self.of(one, Side::Gives).any(|out| out.lease.to.0 == other);
        gives || self.of(one, Side::Takes).any(|out| out.lease.from.0 == other)
    }

    /// Those that are past their time; they stay out.
    pub(super) fn overdue(&self, now: Micros) -> Vec<Out> {
        let about =
            self.due.range(..=now.0 / TOGETHER).flat_map(|(_, first)| self.from(*first, DUE));
        let mut late: Vec<Out> = about.filter(|out| out.due <= now).copied().collect();
        late.sort_unstable_by_key(|out| place_of(out.lease.id));
        late
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn those_past_their_time_are_found_and_no_others(
            steps in prop::collection::vec((0..4u8, 0..2_000_000u64, any::<usize>()), 1..200),
        ) {
            let mut leases = Leases::named_from(0);
            leases.reach(2);
            let mut model: Vec<(LeaseId, u64)> = Vec::new();
            for (step, time, which) in steps {
                match step {
                    0 | 1 => {
                        let pair = [PeerNumber(0), PeerNumber(1)];
                        let lease = leases.add(pair, 0..1, [Micros(0), Micros(time)], true);
                        model.push((lease.id, time));
                    }
                    2 if !model.is_empty() => {
                        let (id, _) = model.swap_remove(which % model.len());
                        prop_assert!(leases.take(id).is_some());
                    }
                    _ => {
                        let late = leases.overdue(Micros(time));
                        let mut late: Vec<LeaseId> = late.iter().map(|out| out.lease.id).collect();
                        let due = model.iter().filter(|(_, due)| *due <= time);
                        let mut due: Vec<LeaseId> = due.map(|(id, _)| *id).collect();
                        late.sort_unstable();
                        due.sort_unstable();
                        prop_assert_eq!(late, due);
                    }
                }
            }
            for (id, _) in model {
                leases.take(id);
            }
            prop_assert!(leases.due.is_empty());
        }
    }
}
