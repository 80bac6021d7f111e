//! Whose copies are none for whom: for a receiver those have nothing that it does not reach, or that have failed it since
//! something came to it last. For all others they count.

use std::collections::BTreeMap;

use super::Micros;

/// What a receiver holds against somebody.
#[derive(Debug, Clone, Copy, Default)]
struct Doubt {
    /// It is leased nothing by it so long.
    apart_until: Option<Micros>,
    /// Nothing has come to it since that one failed it.
    has_failed: bool,
}

impl Doubt {
    fn is_none(&self) -> bool {
        self.apart_until.is_none() && !self.has_failed
    }
}

/// All of them, by receiver and whom it doubts.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    all: BTreeMap<(u32, u32), Doubt>,
}

impl Doubts {
    /// Those whose copies are none for a receiver.
    pub(super) fn of(&self, to: u32) -> impl Iterator<Item = u32> {
        self.all.range((to, 0)..=(to, u32::MAX)).map(|((_, from), _)| *from)
    }

    pub(super) fn has_any(&self, to: u32) -> bool {
        self.of(to).next().is_some()
    }

    /// Whether a receiver is leased nothing by that one.
    pub(super) fn is_apart(&self, to: u32, from: u32) -> bool {
        self.all.get(&(to, from)).is_some_and(|doubt| doubt.apart_until.is_some())
    }

    /// Whether that one has failed a receiver to which nothing has come since.
    pub(super) fn has_failed(&self, to: u32, from: u32) -> bool {
        self.all.get(&(to, from)).is_some_and(|doubt| doubt.has_failed)
    }

    /// A receiver does not reach that one, and is leased nothing by it until then.
    pub(super) fn part(&mut self, to: u32, from: u32, until: Micros) {
        self.all.entry((to, from)).or_default().apart_until = Some(until);
    }

    /// A lease from that one came to nothing.
    pub(super) fn fails(&mut self, to: u32, from: u32) {
        self.all.entry((to, from)).or_default().has_failed = true;
    }

    /// Something has come to a receiver.
    pub(super) fn forgive(&mut self, to: u32) {
        let doubted: Vec<u32> = self.of(to).collect();
        for from in doubted {
            self.change(to, from, |doubt| doubt.has_failed = false);
        }
    }

    /// Two have nothing to do with each other any more.
    pub(super) fn forget_failures(&mut self, one: u32, other: u32) {
        for (to, from) in [(one, other), (other, one)] {
            self.change(to, from, |doubt| doubt.has_failed = false);
        }
    }

    /// Time has passed: those are together again who were kept apart long enough.
    pub(super) fn pass(&mut self, now: Micros) {
        self.all.retain(|_, doubt| {
            doubt.apart_until = doubt.apart_until.filter(|until| *until > now);
            !doubt.is_none()
        });
    }

    /// A peer is gone.
    pub(super) fn forget(&mut self, peer: u32) {
        self.all.retain(|(to, from), _| *to != peer && *from != peer);
    }

    fn change(&mut self, to: u32, from: u32, change: impl FnOnce(&mut Doubt)) {
        let Some(doubt) = self.all.get_mut(&(to, from)) else { return };
        change(doubt);
        if doubt.is_none() {
            self.all.remove(&(to, from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_is_forgiven_when_something_comes_and_who_is_not_reached_after_a_while() {
        let mut doubts = Doubts::default();
        doubts.fails(1, 2);
        doubts.part(1, 3, Micros(10));
        doubts.fails(1, 3);
        doubts.fails(4, 2);
        assert_eq!(doubts.of(1).collect::<Vec<_>>(), [2, 3]);
        assert!(doubts.is_apart(1, 3) && !doubts.is_apart(1, 2) && !doubts.is_apart(3, 1));
        doubts.forgive(1);
        assert_eq!(doubts.of(1).collect::<Vec<_>>(), [3]);
        doubts.pass(Micros(9));
        assert!(doubts.is_apart(1, 3));
        doubts.pass(Micros(10));
        assert!(!doubts.has_any(1));
        assert!(doubts.has_any(4), "it is another's");
        doubts.fails(1, 2);
        doubts.part(2, 1, Micros(20));
        doubts.forget_failures(2, 1);
        assert!(!doubts.has_any(1) && doubts.is_apart(2, 1));
        doubts.forget(2);
        assert!(!doubts.has_any(4) && !doubts.has_any(2));
    }
}
