//! How long a host bears that nothing moves, and what it does then: it asks its scheduler, and helps itself only
//! where no scheduler answers, or nothing that the scheduler says helps.
//!
//! Pure: the time is passed in. Lost with the task, as what is waited for.

use std::time::Duration;

/// So many times its patience a host waits for parents that say again and again that they are busy.
const BUSY_PATIENCE: u32 = 3;

/// So many times its patience a host goes on asking a scheduler that answers, while nothing arrives.
const ASKING_PATIENCE: u32 = 10;

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resort {
    /// Nothing yet.
    Wait,
    /// Tell the scheduler that nobody delivers.
    Ask,
    /// Read the origin.
    Source,
}

/// How a download is when it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Stands {
    /// Whether anything is to come.
    pub is_wanted: bool,
    /// Whether somebody is being asked who has not failed.
    pub is_promising: bool,
    /// Whether it is led by leases.
    pub is_led: bool,
    /// Whether these have failed since anything came by one.
    pub do_leases_fail: bool,
}

/// What that comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing is wanted, or there is hope.
    Moves,
    /// Leases may still bring it.
    Led,
    /// Leases have brought nothing for too long: parents may do what these do not, and if they do not either they are
    /// complained of.
    LeasesFail,
    /// Nothing moves: see [`Patience::resort`].
    Stuck,
}

/// For how long something has been wanted and nobody asked for it, since anything came. An attempt in between
/// does not begin it anew: a parent that is dead is tried again and again. One that is busy does, for a while.
#[derive(Debug, Default)]
pub struct Patience {
    before: Duration,
    since: Option<Duration>,
    /// Since when parents have said that they are busy.
    busy_since: Option<Duration>,
    asked: Option<Asked>,
}

/// What was said to the scheduler since anything came.
#[derive(Debug, Clone, Copy)]
struct Asked {
    first: Duration,
    last: Duration,
    is_answered: bool,
}

impl Patience {
    /// It is a standstill now; for how long in all.
    fn goes_on(&mut self, now: Duration) -> Duration {
        let since = *self.since.get_or_insert(now);
        self.before + now.saturating_sub(since)
    }

    /// Somebody is being asked.
    fn interrupted(&mut self, now: Duration) {
        if let Some(since) = self.since.take() {
            self.before += now.saturating_sub(since);
        }
    }

    /// A parent lives and has others to serve first: that alone is no reason to burden the origin.
    pub fn excused(&mut self, now: Duration) {
        let busy_since = self.busy_since.or(Some(now));
        *self = Self { busy_since, asked: self.asked, ..Self::default() };
    }

    /// Others may deliver now. How long the scheduler has been asked in vain is not forgotten over it.
    pub fn has_new_parents(&mut self) {
        *self = Self { asked: self.asked, ..Self::default() };
    }

    /// The scheduler has spoken.
    pub fn is_answered(&mut self) {
        if let Some(asked) = &mut self.asked {
            asked.is_answered = true;
        }
    }

    /// Takes note of how a download stands. Whoever failed already is tried again and again: that is no reason to wait for
    /// longer.
    pub fn look(&mut self, stands: Stands, patience: Duration, now: Duration) -> Look {
        let is_busy = self.is_busy_beyond(patience, now);
        if !stands.is_wanted {
            *self = Self::default();
        }
        let waits_its_turn = stands.is_led && !stands.do_leases_fail;
        let is_promising = (stands.is_promising || waits_its_turn) && !is_busy;
        if !stands.is_wanted || is_promising {
            self.interrupted(now);
            return Look::Moves;
        }
        match stands.is_led {
            false => Look::Stuck,
            true if self.is_over(patience, now) => Look::LeasesFail,
            true => Look::Led,
        }
    }

    /// Whether parents have been busy for longer than one with this patience waits, whoever is being asked now.
    fn is_busy_beyond(&self, patience: Duration, now: Duration) -> bool {
        let busy = self.busy_since.map(|since| now.saturating_sub(since));
        busy.is_some_and(|busy| busy >= patience * BUSY_PATIENCE)
    }

    /// Whether nothing has moved for longer than one with this patience waits.
    fn is_over(&mut self, patience: Duration, now: Duration) -> bool {
        self.goes_on(now) >= patience || self.is_busy_beyond(patience, now)
    }

    /// What to do now that nothing moves. A scheduler has as long to answer as it takes to ask.
    pub fn resort(&mut self, patience: Duration, has_scheduler: bool, now: Duration) -> Resort {
        if !self.is_over(patience, now) {
            return Resort::Wait;
        }
        let first = match self.asked {
            _ if !has_scheduler => return Resort::Source,
            None => now,
            Some(asked) if now.saturating_sub(asked.first) >= patience * ASKING_PATIENCE => {
                return Resort::Source;
            }
            Some(asked) if now.saturating_sub(asked.last) < patience => return Resort::Wait,
            Some(asked) if !asked.is_answered => return Resort::Source,
            Some(asked) => asked.first,
        };
        self.asked = Some(Asked { first, last: now, is_answered: false });
        Resort::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn an_attempt_in_between_does_not_renew_patience() {
        let mut patience = Patience::default();
        assert_eq!(patience.goes_on(seconds(10)), seconds(0));
        assert_eq!(patience.goes_on(seconds(12)), seconds(2));
        patience.interrupted(seconds(14));
        patience.interrupted(seconds(20));
        assert_eq!(patience.goes_on(seconds(30)), seconds(4));
        assert_eq!(patience.goes_on(seconds(31)), seconds(5));
    }

    #[test]
    fn parents_that_are_busy_renew_patience_for_three_times_as_long() {
        let mut patience = Patience::default();
        for now in [11, 13, 15, 17, 19] {
            assert_eq!(patience.resort(PATIENCE, false, seconds(now)), Resort::Wait, "renewed");
            patience.excused(seconds(now));
            assert!(!patience.is_busy_beyond(PATIENCE, seconds(now)));
        }
        assert_eq!(patience.resort(PATIENCE, false, seconds(20)), Resort::Source);
    }

    #[test]
    fn without_a_scheduler_a_host_helps_itself_when_its_patience_is_over() {
        let mut patience = Patience::default();
        assert_eq!(patience.resort(PATIENCE, false, seconds(10)), Resort::Wait);
        assert_eq!(patience.resort(PATIENCE, false, seconds(12)), Resort::Wait);
        assert_eq!(patience.resort(PATIENCE, false, seconds(13)), Resort::Source);
    }

    #[test]
    fn a_scheduler_that_says_nothing_is_waited_for_as_long_again() {
        let mut patience = Patience::default();
        patience.resort(PATIENCE, true, seconds(10));
        assert_eq!(patience.resort(PATIENCE, true, seconds(13)), Resort::Ask);
        assert_eq!(patience.resort(PATIENCE, true, seconds(15)), Resort::Wait);
        assert_eq!(patience.resort(PATIENCE, true, seconds(16)), Resort::Source);
    }

    #[test]
    fn a_scheduler_that_answers_is_asked_again_but_not_for_ever() {
        let mut patience = Patience::default();
        let mut resorts = Vec::new();
        for now in (10..).take(60) {
            let resort = patience.resort(PATIENCE, true, seconds(now));
            resorts.push(resort);
            match resort {
                Resort::Ask if now % 2 == 0 => patience.is_answered(),
                Resort::Ask => {
                    patience.has_new_parents();
                    patience.is_answered();
                }
                Resort::Wait => {}
                Resort::Source => break,
            }
        }
        let asked = resorts.iter().filter(|resort| **resort == Resort::Ask).count();
        assert!((4..=10).contains(&asked), "{resorts:?}");
        assert_eq!(resorts.last(), Some(&Resort::Source), "liveness: {resorts:?}");
        assert!(resorts.len() >= 30, "{resorts:?}");
    }
}
