//! What becomes of mounts whose agent is gone: when another agent is started for them, and when they are given up.
//!
//! Pure: the time is passed in.

use std::time::{Duration, Instant};

use super::packet::Then;

/// An agent that died is given so long to be started again by whoever watches over it.
const OTHERS_FIRST: Duration = Duration::from_millis(150);

/// Until the next attempt after an agent that died before it said anything; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Who brings another agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starter {
    /// The holder.
    Holder,
    /// Somebody else.
    Others,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing until then, where that is known.
    Nothing(Option<Instant>),
    /// Another agent is to be started.
    Start,
    /// Nobody has come for too long: who waits is to be told.
    GiveUp,
    /// Somebody has, and does not go on with the mounts.
    Hangs,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Supervision {
    starter: Starter,
    patience: Duration,
    /// Since when there is no agent that goes on with the mounts.
    gone: Option<Instant>,
    is_there: bool,
    /// Whether whoever ended it wants no other.
    is_over: bool,
    /// When the next one is started.
    next: Option<Instant>,
    pause: Duration,
    asked: bool,
}

impl Supervision {
    pub(super) fn new(starter: Starter, patience: Duration, now: Instant) -> Self {
        Self {
            starter,
            patience,
            gone: Some(now),
            is_there: false,
            is_over: false,
            next: None,
            pause: FIRST_PAUSE,
            asked: false,
        }
    }

    /// An agent has said hello.
    pub(super) fn came(&mut self) {
        (self.is_there, self.is_over, self.next, self.asked) = (true, false, None, false);
    }

    /// It goes on with the mounts.
    pub(super) fn ready(&mut self) {
        (self.gone, self.pause) = (None, FIRST_PAUSE);
    }

    /// The agent is gone: it died, or ended as it had said.
    pub(super) fn went(&mut self, farewell: Option<Then>, now: Instant) {
        let was_ready = self.gone.is_none();
        self.is_there = false;
        self.gone.get_or_insert(now);
        self.asked = (self.starter, farewell) == (Starter::Holder, Some(Then::Another));
        match (self.starter, farewell) {
            (Starter::Others, _) => self.next = None,
            (Starter::Holder, Some(Then::Another)) => self.next = Some(now),
            (Starter::Holder, Some(Then::Nothing)) => self.is_over = true,
            (Starter::Holder, None) if was_ready => self.next = Some(now + OTHERS_FIRST),
            (Starter::Holder, None) => self.started_in_vain(now),
        }
    }

    /// Whether another agent is to be started whatever is mounted.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    /// An agent that was started ended before it said hello, or could not be started.
    pub(super) fn started_in_vain(&mut self, now: Instant) {
        self.next = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// What was due is done: another agent is on its way.
    pub(super) fn started(&mut self) {
        self.next = None;
    }

    /// When it is given up, if nobody comes.
    pub(super) fn end(&self) -> Option<Instant> {
        self.gone.map(|gone| gone + self.patience)
    }

    /// What is due.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        let Some(gone) = self.gone else { return Due::Nothing(None) };
        let end = gone + self.patience;
        if self.is_there {
            return if now >= end { Due::Hangs } else { Due::Nothing(Some(end)) };
        }
        if now >= end || self.is_over {
            self.asked = false;
            return Due::GiveUp;
        }
        if self.next.is_some_and(|next| now >= next) {
            return Due::Start;
        }
        Due::Nothing(Some(self.next.map_or(end, |next| next.min(end))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(300);

    fn supervised(starter: Starter) -> (Supervision, Instant) {
        let now = Instant::now();
        let mut supervision = Supervision::new(starter, PATIENCE, now);
        supervision.came();
        supervision.ready();
        assert_eq!(supervision.due(now + 2 * PATIENCE), Due::Nothing(None));
        (supervision, now)
    }

    #[test]
    fn another_agent_is_started_once_others_had_time_to() {
        let (mut supervision, now) = supervised(Starter::Holder);
        supervision.went(None, now);
        assert_eq!(supervision.due(now), Due::Nothing(Some(now + OTHERS_FIRST)));
        let now = now + OTHERS_FIRST;
        assert_eq!(supervision.due(now), Due::Start);
        supervision.started();
        assert_eq!(supervision.due(now), Due::Nothing(Some(now - OTHERS_FIRST + PATIENCE)));
        supervision.came();
        supervision.ready();
        assert_eq!(supervision.due(now), Due::Nothing(None));
        supervision.went(Some(Then::Another), now);
        assert_eq!(supervision.due(now), Due::Start);
    }

    #[test]
    fn whom_others_start_is_waited_for_and_given_up_in_the_end_and_who_ends_for_good_at_once() {
        let (mut supervision, now) = supervised(Starter::Others);
        supervision.went(None, now);
        assert_eq!(supervision.due(now), Due::Nothing(Some(now + PATIENCE)));
        assert_eq!(supervision.due(now + PATIENCE), Due::GiveUp);
        let (mut supervision, now) = supervised(Starter::Holder);
        supervision.went(Some(Then::Nothing), now);
        assert_eq!(supervision.due(now), Due::GiveUp);
    }

    #[test]
    fn an_agent_that_cannot_start_is_tried_less_and_less_often_until_it_is_given_up() {
        let (mut supervision, began) = supervised(Starter::Holder);
        supervision.went(None, began);
        let (mut now, mut starts) = (began, 0);
        loop {
            match supervision.due(now) {
                Due::Nothing(until) => now = until.unwrap(),
                Due::Start => {
                    starts += 1;
                    supervision.started();
                    supervision.started_in_vain(now);
                }
                Due::GiveUp | Due::Hangs => break,
            }
        }
        assert_eq!(now, began + PATIENCE);
        assert!((20..50).contains(&starts), "{starts}");
    }

    #[test]
    fn an_agent_that_comes_and_does_not_go_on_with_the_mounts_is_not_waited_for_for_ever() {
        let (mut supervision, began) = supervised(Starter::Others);
        supervision.went(None, began);
        supervision.came();
        assert_eq!(supervision.due(began), Due::Nothing(Some(began + PATIENCE)));
        assert_eq!(supervision.due(began + PATIENCE), Due::Hangs);
        // Once it is ended nobody else is waited for.
        supervision.went(None, began + PATIENCE);
        assert_eq!(supervision.due(began + PATIENCE), Due::GiveUp);
        supervision.came();
        supervision.ready();
        assert_eq!(supervision.due(began + 2 * PATIENCE), Due::Nothing(None));
    }

    #[test]
    fn an_agent_that_dies_whenever_it_takes_the_mounts_over_is_given_up_too() {
        let (mut supervision, began) = supervised(Starter::Holder);
        supervision.went(None, began);
        let (mut now, mut starts) = (began, 0);
        loop {
            match supervision.due(now) {
                Due::Nothing(until) => now = until.unwrap(),
                Due::Start => {
                    starts += 1;
                    supervision.started();
                    supervision.came();
                    supervision.went(None, now);
                }
                Due::GiveUp | Due::Hangs => break,
            }
        }
        assert_eq!(now, began + PATIENCE);
        assert!((20..50).contains(&starts), "{starts}");
    }
}
