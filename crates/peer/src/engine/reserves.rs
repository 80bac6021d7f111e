//! Who reads the origin for a place once nobody leads it and no seed serves it, as the scheduler named them while it was
//! there (decision 0022).
//!
//! Pure. Their words are kept aside, and nobody believes what they sign, until they are needed. Lost with the task.

use dfs_model::HostId;

use super::task::ParentHost;
use crate::digests::Appointment;

/// Most that are heeded.
pub(crate) const MOST_RESERVES: usize = 4;

/// One that was named.
#[derive(Debug, Clone)]
pub(crate) struct Reserve {
    /// Where it is, as a parent that fetches what it lacks.
    pub(crate) parent: ParentHost,
    /// The scheduler's word that it signs.
    pub(crate) word: Appointment,
}

/// Those of a task, in the order in which they are tried.
#[derive(Debug, Default)]
pub(super) struct Reserves {
    all: Vec<Reserve>,
    /// So many of them have had their turn since anything came.
    tried: usize,
}

impl Reserves {
    /// Those named before count no more.
    pub(super) fn named(&mut self, mut all: Vec<Reserve>) {
        all.truncate(MOST_RESERVES);
        *self = Self { all, tried: 0 };
    }

    /// Something came: the next time they are tried from the first one on.
    pub(super) fn rest(&mut self) {
        self.tried = 0;
    }

    /// Who reads now that nothing comes from anybody else; this host itself, perhaps. Where nobody is left each reads for
    /// itself.
    pub(super) fn next(&mut self) -> Option<ParentHost> {
        let reserve = self.all.get(self.tried)?;
        self.tried += 1;
        Some(reserve.parent.clone())
    }

    /// Whether others wait for this one first: it is not to wait for longer than they do.
    pub(super) fn is_first(&self, me: HostId) -> bool {
        self.all.first().is_some_and(|reserve| reserve.parent.host.id == me)
    }

    pub(super) fn has(&self, host: HostId) -> bool {
        self.all.iter().any(|reserve| reserve.parent.host.id == host)
    }

    /// The words for all of them: others may have tried another one.
    pub(super) fn words(&self) -> Vec<Appointment> {
        self.all.iter().map(|reserve| reserve.word.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::LazyLock;

    use bytes::Bytes;
    use dfs_model::{HostInfo, HostKind, Location, TaskId};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::*;
    use crate::digests::{Identity, Office};

    static SCHEDULER: LazyLock<Identity> =
        LazyLock::new(|| Identity::load_or_create(tempfile::tempdir().unwrap().path()).unwrap());

    fn id(number: u8) -> HostId {
        HostId::from_bytes([number; 16])
    }

    /// The word counts where it is read: any will do.
    fn reserve(number: u8) -> Reserve {
        let host = HostInfo {
            id: id(number),
            kind: HostKind::Node,
            name: format!("node{number}"),
            location: Location::default(),
            addresses: Vec::new(),
            public_key: [number; 32],
            upload_slots: 0,
        };
        let word = Appointment::sign(
            TaskId::from_bytes([1; 32]),
            Office::Reserve,
            (id(number), [number; 32]),
            &SCHEDULER,
        );
        Reserve { parent: ParentHost { host, grant: Bytes::new(), fetches: true }, word }
    }

    /// Whom a host turns to, one after the other; 0 is itself.
    fn turns(reserves: &mut Reserves, me: u8) -> Vec<u8> {
        let number = |parent: ParentHost| parent.host.id.as_bytes()[0];
        let turns = std::iter::from_fn(|| reserves.next().map(number));
        turns.map(|number| if number == me { 0 } else { number }).collect()
    }

    #[test]
    fn all_turn_to_the_same_one_and_then_to_the_next() {
        let of = |me| {
            let mut reserves = Reserves::default();
            reserves.named(vec![reserve(3), reserve(1)]);
            turns(&mut reserves, me)
        };
        assert_eq!([1, 2, 3, 4].map(of), [vec![3, 0], vec![3, 1], vec![0, 1], vec![3, 1]]);
    }

    proptest! {
        /// Hosts that reach each other, in any order in which their patience is over again and again, until each has
        /// somebody who reads: one of them does where a reserve is there, and no reserve but the first that is.
        #[test]
        fn one_reads_for_all(
            there in vec(any::<bool>(), 8),
            reserves in subsequence((1..=8u8).collect::<Vec<_>>(), 0..=3).prop_shuffle(),
            order in vec(0..8usize, 200),
        ) {
            let is_there = |number: u8| there[usize::from(number) - 1];
            let mut hosts: Vec<Reserves> = (0..8).map(|_| Reserves::default()).collect();
            hosts.iter_mut().for_each(|host| host.named(reserves.iter().copied().map(reserve).collect()));
            // Whom each takes from.
            let mut from = [None; 8];
            for at in order.into_iter().chain((0..8).flat_map(|at| [at; 4])) {
                let me = at as u8 + 1;
                if !is_there(me) || from[at].is_some_and(is_there) {
                    continue;
                }
                from[at] = Some(hosts[at].next().map_or(me, |parent| parent.host.id.as_bytes()[0]));
            }
            let taken = (1..=8).filter(|n| is_there(*n)).map(|n| from[usize::from(n) - 1].unwrap());
            let readers: BTreeSet<u8> = taken.collect();
            match reserves.iter().find(|number| is_there(**number)) {
                Some(first) => prop_assert!(readers.is_subset(&[*first].into())),
                None => prop_assert_eq!(readers.len(), there.iter().filter(|is| **is).count()),
            }
        }
    }

    #[test]
    fn who_was_led_in_between_begins_anew() {
        let mut reserves = Reserves::default();
        reserves.named(vec![reserve(3), reserve(1)]);
        assert_eq!(turns(&mut reserves, 2), [3, 1]);
        assert!(turns(&mut reserves, 2).is_empty(), "liveness: it reads itself");
        reserves.rest();
        assert_eq!(turns(&mut reserves, 2), [3, 1]);
        reserves.named((1..=9).map(reserve).collect());
        assert_eq!(turns(&mut reserves, 2).len(), MOST_RESERVES);
    }
}
