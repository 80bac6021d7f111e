//! Reads that wait for bytes: which of them an agent is still to be told of, and how long they wait where there is none.
//!
//! Pure: the time is passed in. What waits is never let through but at an agent's word.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::packet::Wanted;

/// How long a read waits for an agent, where there is none: as long as one waits for bytes that do not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kernel tries again what failed. For so long it is told the same at once.
const ECHO: Duration = Duration::from_millis(250);

/// What is to become of a new read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It waits for an agent's word.
    Waits,
    /// It reads nothing.
    Passes,
    /// Nobody will fetch what it wants.
    Fails,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    /// An agent, within its own time.
    Agent,
    /// Nobody, since then.
    Nobody(Instant),
    /// Nobody, and none is waited for.
    Over,
}

/// The reads of one mount.
#[derive(Debug)]
pub(super) struct Gate {
    waiting: BTreeMap<RawFd, Waiting>,
    /// Those of them that the agent does not know of, in the order they came.
    untold: VecDeque<RawFd>,
    served: Served,
    /// Those that had waited too long, a moment ago.
    failed: Vec<(Wanted, Instant)>,
}

#[derive(Debug)]
struct Waiting {
    wanted: Wanted,
    since: Instant,
}

impl Gate {
    /// None yet, and no agent.
    pub(super) fn new(now: Instant) -> Self {
        let (waiting, untold) = (BTreeMap::new(), VecDeque::new());
        Self { waiting, untold, served: Served::Nobody(now), failed: Vec::new() }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody is waited for.
    pub(super) fn is_over(&self) -> bool {
        self.served == Served::Over
    }

    /// An agent is there that knows of none.
    pub(super) fn came(&mut self) {
        self.served = Served::Agent;
        self.failed.clear();
        let mut all: Vec<_> = self.waiting.iter().collect();
        all.sort_by_key(|(_, waiting)| waiting.since);
        self.untold = all.into_iter().map(|(number, _)| *number).collect();
    }

    /// It is gone: what it knew of is another one's.
    pub(super) fn went(&mut self, now: Instant) {
        if self.served == Served::Agent {
            self.served = Served::Nobody(now);
        }
    }

    /// Nobody is waited for: those that are to fail now, as all others will. Should an agent come all the same, it serves
    /// those that come then.
    pub(super) fn close(&mut self) -> Vec<RawFd> {
        self.served = Served::Over;
        self.untold.clear();
        std::mem::take(&mut self.waiting).into_keys().collect()
    }

    /// A read has come, by its number.
    pub(super) fn asked(&mut self, number: RawFd, wanted: Wanted, now: Instant) -> Verdict {
        self.failed.retain(|(_, at)| now.duration_since(*at) < ECHO);
        let echoes = self.failed.iter().any(|(failed, _)| overlap(failed, &wanted));
        match self.served {
            // Somebody is about to cut the file, say: no byte is shown.
            _ if wanted.count == 0 => Verdict::Passes,
            Served::Over => Verdict::Fails,
            Served::Nobody(_) if echoes => Verdict::Fails,
            Served::Agent | Served::Nobody(_) => {
                self.waiting.insert(number, Waiting { wanted, since: now });
                self.untold.push_back(number);
                Verdict::Waits
            }
        }
    }

    /// What the agent is to be told next, where there is one.
    pub(super) fn to_tell(&self) -> Option<Wanted> {
        let number = self.untold.front().filter(|_| self.served == Served::Agent)?;
        self.waiting.get(number).map(|waiting| waiting.wanted)
    }

    /// It was told.
    pub(super) fn told(&mut self) {
        self.untold.pop_front();
    }

    /// The agent has spoken of a read: whether it waited.
    pub(super) fn answered(&mut self, number: RawFd) -> bool {
        self.untold.retain(|untold| *untold != number);
        self.waiting.remove(&number).is_some()
    }

    /// Those that have waited too long for an agent, and are to fail now.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<RawFd> {
        let Served::Nobody(gone) = self.served else { return Vec::new() };
        let is_overdue = |waiting: &Waiting| waiting.since.max(gone) + PATIENCE <= now;
        let overdue = self.waiting.iter().filter(|(_, waiting)| is_overdue(waiting));
        let overdue: Vec<_> = overdue.map(|(number, one)| (*number, one.wanted)).collect();
        self.failed.retain(|(_, at)| now.duration_since(*at) < ECHO);
        for (number, wanted) in &overdue {
            self.answered(*number);
            self.failed.push((*wanted, now));
        }
        overdue.into_iter().map(|(number, _)| number).collect()
    }

    /// When the next will have.
    pub(super) fn due(&self) -> Option<Instant> {
        let Served::Nobody(gone) = self.served else { return None };
        let first = self.waiting.values().map(|waiting| waiting.since.max(gone)).min()?;
        Some(first + PATIENCE)
    }
}

/// Whether two reads want some of the same bytes.
fn overlap(one: &Wanted, other: &Wanted) -> bool {
    let end = |wanted: &Wanted| wanted.offset.saturating_add(wanted.count);
    one.file == other.file && one.offset < end(other) && other.offset < end(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(number: RawFd) -> Wanted {
        Wanted { number, file: 0, offset: 65_536, count: 4096 }
    }

    fn told(gate: &mut Gate) -> Vec<RawFd> {
        let mut told = Vec::new();
        while let Some(wanted) = gate.to_tell() {
            told.push(wanted.number);
            gate.told();
        }
        told
    }

    #[test]
    fn what_one_agent_was_told_and_did_not_answer_the_next_one_is_told_again_in_order() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        gate.came();
        for (number, after) in [(9, 0), (4, 1), (7, 2)] {
            let at = now + Duration::from_millis(after);
            assert_eq!(gate.asked(number, wanted(number), at), Verdict::Waits);
        }
        assert_eq!(told(&mut gate), [9, 4, 7]);
        assert!(gate.answered(4) && !gate.answered(4));
        gate.went(now);
        assert_eq!(gate.asked(4, wanted(4), now + Duration::from_millis(5)), Verdict::Waits);
        assert_eq!(gate.to_tell(), None, "there is no agent");
        gate.came();
        assert_eq!(told(&mut gate), [9, 7, 4]);
        assert_eq!(gate.len(), 3);
    }

    #[test]
    fn a_read_waits_for_an_agent_as_long_as_one_waits_for_bytes_and_then_fails() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        gate.came();
        gate.asked(3, wanted(3), now);
        let later = now + 3 * PATIENCE;
        assert!(gate.overdue(later).is_empty() && gate.due().is_none(), "the agent sees to it");
        gate.went(later);
        gate.asked(4, wanted(4), later + PATIENCE / 2);
        assert_eq!(gate.due(), Some(later + PATIENCE));
        assert!(gate.overdue(later + PATIENCE - ECHO).is_empty());
        assert_eq!(gate.overdue(later + PATIENCE), [3]);
        // The kernel tries again at once, and is told so at once; later it waits anew.
        let again = later + PATIENCE + ECHO / 2;
        let elsewhere = Wanted { offset: 1 << 20, ..wanted(8) };
        assert_eq!(gate.asked(8, elsewhere, again), Verdict::Waits, "that has not waited");
        assert_eq!(gate.asked(9, Wanted { file: 1, ..wanted(9) }, again), Verdict::Waits);
        assert_eq!(gate.asked(3, wanted(3), again), Verdict::Fails);
        assert_eq!(gate.asked(3, wanted(3), again + ECHO), Verdict::Waits);
        assert_eq!(gate.overdue(later + PATIENCE * 3 / 2), [4]);
    }

    #[test]
    fn an_agent_that_comes_back_hears_of_what_would_have_been_told_no() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        gate.asked(3, wanted(3), now);
        assert_eq!(gate.overdue(now + PATIENCE), [3]);
        gate.came();
        assert_eq!(gate.asked(5, wanted(5), now + PATIENCE), Verdict::Waits);
        assert_eq!(told(&mut gate), [5]);
    }

    #[test]
    fn once_nobody_is_waited_for_all_fail_until_somebody_comes_all_the_same() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        gate.came();
        gate.asked(3, wanted(3), now);
        gate.asked(4, wanted(4), now);
        assert_eq!(gate.close(), [3, 4]);
        gate.went(now);
        assert!(gate.is_over());
        assert_eq!(gate.asked(5, wanted(5), now), Verdict::Fails);
        assert_eq!((gate.len(), gate.to_tell()), (0, None));
        gate.came();
        assert_eq!(gate.asked(6, wanted(6), now), Verdict::Waits);
        assert_eq!(told(&mut gate), [6]);
    }

    #[test]
    fn who_wants_no_byte_waits_for_nobody() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        let nothing = Wanted { count: 0, ..wanted(3) };
        assert_eq!(gate.asked(3, nothing, now), Verdict::Passes);
        gate.close();
        assert_eq!(gate.asked(3, nothing, now), Verdict::Passes);
        assert_eq!(gate.len(), 0);
    }

    #[test]
    fn whatever_happens_a_read_is_let_through_only_at_an_agents_word() {
        // Every order of six happenings: who waits is told of, was answered or has failed, and never neither.
        for mut order in 0..7_u32.pow(6) {
            let begun = Instant::now();
            let (mut gate, mut now) = (Gate::new(begun), begun);
            let (mut waiting, mut next) = (std::collections::BTreeSet::new(), 0);
            for _ in 0..6 {
                now += PATIENCE / 3;
                match order % 7 {
                    0 => gate.came(),
                    1 => gate.went(now),
                    2 => {
                        next += 1;
                        if gate.asked(next, wanted(next), now) == Verdict::Waits {
                            waiting.insert(next);
                        }
                    }
                    3 => drop(told(&mut gate)),
                    // Whom the agent has spoken of is let through, once, and nobody else.
                    4 => {
                        let spoken = waiting.pop_first().unwrap_or(next + 1);
                        assert_eq!(gate.answered(spoken), spoken <= next);
                        assert!(!gate.answered(spoken));
                    }
                    5 => gate.overdue(now).iter().for_each(|number| {
                        assert!(waiting.remove(number));
                    }),
                    _ if waiting.len() > 2 => gate.close().iter().for_each(|number| {
                        assert!(waiting.remove(number));
                    }),
                    _ => {}
                }
                order /= 7;
                assert_eq!(gate.len(), waiting.len());
            }
            gate.came();
            let told = told(&mut gate);
            assert!(waiting.iter().all(|number| told.contains(number)));
            assert_eq!(told.len(), waiting.len());
        }
    }
}
