//! Who may send next: the pure core of the upload slots.
//!
//! A slot is the right to read one segment and put it on the wire. Urgent work goes first; within one
//! priority, children take turns. A child that does not read keeps its own share busy, never a slot.

use std::collections::{HashMap, VecDeque};

use dfs_model::{HostId, Priority};

/// How many segments may be on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotLimits {
    /// Segments at a time for everything.
    pub slots: usize,
    /// Further ones that only demand reads may take.
    pub demand_extra: usize,
    /// Segments at a time for one child; demand reads may have one more.
    pub per_child: usize,
}

impl Default for SlotLimits {
    /// Four at a time measured best on real links; two for a child keep its connection warm.
    fn default() -> Self {
        Self { slots: 4, demand_extra: 2, per_child: 2 }
    }
}

/// Names one waiter, then its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// Counts against all slots and against its child.
    Granted,
    /// Counts against its child alone.
    Yielded,
}

#[derive(Debug)]
struct Entry {
    child: HostId,
    priority: Priority,
    stage: Stage,
}

const PRIORITIES: [Priority; 5] = [
    Priority::Demand,
    Priority::ReadAhead,
    Priority::Bulk,
    Priority::Prefetch,
    Priority::Background,
];

/// State of the slots: events in, granted tickets out.
#[derive(Debug)]
pub struct SlotQueue {
    limits: SlotLimits,
    used: usize,
    next: u64,
    tickets: HashMap<Ticket, Entry>,
    outstanding: HashMap<HostId, usize>,
    /// Per priority: children with waiters in the order of their turns, and their waiters.
    turns: [VecDeque<(HostId, VecDeque<Ticket>)>; PRIORITIES.len()],
}

impl SlotQueue {
    /// All slots free. Limits of zero are taken as one.
    pub fn new(limits: SlotLimits) -> Self {
        let slots = limits.slots.max(1);
        let per_child = limits.per_child.max(1);
        Self {
            limits: SlotLimits { slots, per_child, ..limits },
            used: 0,
            next: 0,
            tickets: HashMap::new(),
            outstanding: HashMap::new(),
            turns: Default::default(),
        }
    }

    /// Slots in use now.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Tickets that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.turns.iter().flatten().map(|(_, tickets)| tickets.len()).sum()
    }

    /// A child asks for a slot. Ask [`SlotQueue::grant`] afterwards.
    pub fn enter(&mut self, child: HostId, priority: Priority) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.tickets.insert(ticket, Entry { child, priority, stage: Stage::Waiting });
        let turns = &mut self.turns[priority as usize];
        match turns.iter_mut().find(|(waiting, _)| *waiting == child) {
            Some((_, tickets)) => tickets.push_back(ticket),
            None => turns.push_back((child, VecDeque::from([ticket]))),
        }
        ticket
    }

    /// A waiter gives up, or a granted segment is on the wire. Ask [`SlotQueue::grant`] afterwards.
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(entry) = self.tickets.remove(&ticket) else { return };
        match entry.stage {
            Stage::Waiting => return self.forget_waiter(&entry, ticket),
            Stage::Granted => self.used -= 1,
            Stage::Yielded => {}
        }
        if let Some(count) = self.outstanding.get_mut(&entry.child) {
            *count -= 1;
            if *count == 0 {
                self.outstanding.remove(&entry.child);
            }
        }
    }

    /// A granted segment is stuck behind a child that does not read: others may have the slot, the
    /// child's own share stays taken. Ask [`SlotQueue::grant`] afterwards.
    pub fn yield_slot(&mut self, ticket: Ticket) {
        let Some(entry) = self.tickets.get_mut(&ticket) else { return };
        if entry.stage == Stage::Granted {
            entry.stage = Stage::Yielded;
            self.used -= 1;
        }
    }

    /// The tickets that get a slot now.
    pub fn grant(&mut self) -> Vec<Ticket> {
        let mut granted = Vec::new();
        for priority in PRIORITIES {
            while let Some(ticket) = self.grant_one(priority) {
                granted.push(ticket);
            }
        }
        granted
    }

    fn grant_one(&mut self, priority: Priority) -> Option<Ticket> {
        let demand = priority == Priority::Demand;
        let slots = self.limits.slots + if demand { self.limits.demand_extra } else { 0 };
        let per_child = self.limits.per_child + usize::from(demand);
        if self.used >= slots {
            return None;
        }
        let turns = &mut self.turns[priority as usize];
        let has_room = |child| self.outstanding.get(child).copied().unwrap_or(0) < per_child;
        let at = turns.iter().position(|(child, _)| has_room(child))?;
        let (child, mut tickets) = turns.remove(at)?;
        let ticket = tickets.pop_front()?;
        if !tickets.is_empty() {
            turns.push_back((child, tickets));
        }
        self.used += 1;
        *self.outstanding.entry(child).or_default() += 1;
        self.tickets.entry(ticket).and_modify(|entry| entry.stage = Stage::Granted);
        Some(ticket)
    }

    fn forget_waiter(&mut self, entry: &Entry, ticket: Ticket) {
        let turns = &mut self.turns[entry.priority as usize];
        let Some(at) = turns.iter().position(|(child, _)| *child == entry.child) else { return };
        turns[at].1.retain(|waiting| *waiting != ticket);
        if turns[at].1.is_empty() {
            turns.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(n: u8) -> HostId {
        HostId::from_bytes([n; 16])
    }

    fn queue(slots: usize, demand_extra: usize, per_child: usize) -> SlotQueue {
        SlotQueue::new(SlotLimits { slots, demand_extra, per_child })
    }

    #[test]
    fn children_take_turns() {
        let mut queue = queue(1, 0, 1);
        let greedy: Vec<_> = (0..3).map(|_| queue.enter(host(1), Priority::Bulk)).collect();
        let modest = queue.enter(host(2), Priority::Bulk);
        let mut order = Vec::new();
        let mut granted = queue.grant();
        while let Some(ticket) = granted.pop() {
            order.push(ticket);
            queue.leave(ticket);
            granted = queue.grant();
        }
        assert_eq!(order, [greedy[0], modest, greedy[1], greedy[2]]);
    }

    #[test]
    fn demand_goes_first_and_beside() {
        let mut queue = queue(1, 1, 4);
        let bulk = queue.enter(host(1), Priority::Bulk);
        assert_eq!(queue.grant(), [bulk]);
        let next_bulk = queue.enter(host(1), Priority::Bulk);
        let demand = queue.enter(host(2), Priority::Demand);
        assert_eq!(queue.grant(), [demand]);
        queue.leave(bulk);
        assert_eq!(queue.grant(), []);
        queue.leave(demand);
        assert_eq!(queue.grant(), [next_bulk]);
    }

    #[test]
    fn a_child_that_does_not_read_keeps_only_its_own_share() {
        let mut queue = queue(2, 0, 1);
        let stuck = queue.enter(host(1), Priority::Bulk);
        let behind = queue.enter(host(1), Priority::Bulk);
        assert_eq!(queue.grant(), [stuck]);
        queue.yield_slot(stuck);
        let others = [queue.enter(host(2), Priority::Bulk), queue.enter(host(3), Priority::Bulk)];
        assert_eq!(queue.grant(), others);
        queue.leave(others[0]);
        assert_eq!(queue.grant(), []);
        queue.leave(stuck);
        assert_eq!(queue.grant(), [behind]);
    }

    proptest! {
        #[test]
        fn limits_hold_and_nobody_waits_beside_a_free_slot(
            events in prop::collection::vec((0u8..6, 0u8..4, 0u8..5, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut queue = queue(3, 1, 2);
            let mut live: Vec<Ticket> = Vec::new();
            let mut granted_ever = std::collections::HashSet::new();
            for (event, child, priority, pick) in events {
                match event {
                    0..=2 => live.push(queue.enter(host(child), Priority::from_wire(priority))),
                    3 if !live.is_empty() => queue.yield_slot(live[pick.index(live.len())]),
                    _ if !live.is_empty() => {
                        let at = pick.index(live.len());
                        queue.leave(live.swap_remove(at));
                    }
                    _ => {}
                }
                for ticket in queue.grant() {
                    prop_assert!(granted_ever.insert(ticket), "granted twice");
                }
                prop_assert!(queue.used() <= 4);
                prop_assert!(queue.outstanding.values().all(|count| *count <= 3));
                let eligible = queue.turns.iter().flatten().any(|(child, _)| {
                    queue.outstanding.get(child).copied().unwrap_or(0) < 2
                });
                prop_assert!(!eligible || queue.used() >= 3);
            }
            for ticket in live {
                queue.leave(ticket);
                queue.grant();
            }
            for ticket in granted_ever {
                queue.leave(ticket);
            }
            prop_assert_eq!((queue.used(), queue.waiting()), (0, 0));
            prop_assert!(queue.tickets.is_empty() && queue.outstanding.is_empty());
        }
    }
}
