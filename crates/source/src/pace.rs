//! How many questions an origin is asked at a time: more as long as it answers each as fast as it answered one, fewer
//! as soon as it does not.
//!
//! Pure: who asks says how long each answer took, what was tried again on the way included. An origin that queues what
//! it is asked, or refuses some of it, is slow.

use std::ops::RangeInclusive;
use std::time::Duration;

/// An answer is slow from so many times the fastest one on, and [`JITTER`].
const SLOW: u32 = 2;

/// What an answer may take longer without being slow, however near the origin is.
const JITTER: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug, Clone)]
pub struct Pace {
    bounds: RangeInclusive<usize>,
    at_once: usize,
    fastest: Duration,
    growth: Growth,
    /// Questions so far.
    asked: u64,
    /// Questions before this one were asked at another pace: that they are slow is known.
    judged_from: u64,
    /// Fast answers since there was more to ask at a time.
    fast: usize,
}

/// How the number grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// By one with every fast answer, until one is slow.
    Finding,
    /// By one when all of a round were fast.
    Careful,
}

/// A question under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question(u64);

impl Pace {
    /// At first, and at least, the lower of the bounds; zero is taken as one.
    pub fn within(bounds: RangeInclusive<usize>) -> Self {
        let least = (*bounds.start()).max(1);
        let bounds = least..=(*bounds.end()).max(least);
        Self {
            bounds,
            at_once: least,
            fastest: Duration::MAX,
            growth: Growth::Finding,
            asked: 0,
            judged_from: 0,
            fast: 0,
        }
    }

    /// How many may be under way.
    pub fn at_once(&self) -> usize {
        self.at_once
    }

    /// One more is asked.
    pub fn asks(&mut self) -> Question {
        self.asked += 1;
        Question(self.asked - 1)
    }

    /// It was answered, after this time.
    pub fn answered(&mut self, question: Question, took: Duration) {
        self.fastest = self.fastest.min(took);
        if question.0 < self.judged_from {
            return;
        }
        if took > self.fastest.saturating_mul(SLOW).saturating_add(JITTER) {
            self.at_once = (self.at_once / 2).max(*self.bounds.start());
            self.judged_from = self.asked;
            self.growth = Growth::Careful;
            self.fast = 0;
            return;
        }
        self.fast += 1;
        let enough = match self.growth {
            Growth::Finding => 1,
            Growth::Careful => self.at_once,
        };
        if self.fast >= enough {
            self.at_once = (self.at_once + 1).min(*self.bounds.end());
            self.fast = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const FAR: Duration = Duration::from_millis(40);

    /// The most under way while so many are answered by an origin that works on `capacity` at a time, and rounds.
    fn course(mut pace: Pace, questions: usize, capacity: usize) -> (Vec<usize>, Duration) {
        let (mut under_way, mut widths) = (VecDeque::new(), Vec::new());
        let (mut asked, mut answered, mut spent) = (0, 0, Duration::ZERO);
        while answered < questions {
            while under_way.len() < pace.at_once() && asked < questions {
                under_way.push_back((pace.asks(), spent));
                asked += 1;
            }
            widths.push(under_way.len());
            spent += FAR;
            for (question, since) in under_way.drain(..under_way.len().min(capacity)) {
                pace.answered(question, spent - since);
                answered += 1;
            }
        }
        (widths, spent)
    }

    #[test]
    fn an_origin_that_answers_fast_is_soon_asked_as_much_as_is_allowed() {
        let (widths, spent) = course(Pace::within(16..=48), 3_000, usize::MAX);
        assert_eq!(widths[..3], [16, 32, 48]);
        assert_eq!(widths.iter().max(), Some(&48));
        let (_, always_few) = course(Pace::within(16..=16), 3_000, usize::MAX);
        assert!(spent * 5 < always_few * 2, "{spent:?} {always_few:?}");
    }

    #[test]
    fn an_origin_that_lets_questions_wait_is_asked_less_and_never_less_than_at_first() {
        let (widths, _) = course(Pace::within(16..=64), 3_000, 10);
        assert!(*widths.iter().max().unwrap() < 64, "{widths:?}");
        let settled = &widths[20..widths.len() - 4];
        let mean = settled.iter().sum::<usize>() / settled.len();
        assert!(settled.iter().all(|width| *width >= 16) && mean < 24, "{widths:?}");
    }

    #[test]
    fn a_round_that_is_slow_counts_once_and_what_follows_is_careful() {
        let mut pace = Pace::within(4..=64);
        for _ in 0..28 {
            let question = pace.asks();
            pace.answered(question, FAR);
        }
        assert_eq!(pace.at_once(), 32);
        let round: Vec<_> = (0..32).map(|_| pace.asks()).collect();
        round.iter().for_each(|question| pace.answered(*question, 3 * FAR));
        assert_eq!(pace.at_once(), 16);
        for grown in [16, 17] {
            assert_eq!(pace.at_once(), grown);
            let round: Vec<_> = (0..grown).map(|_| pace.asks()).collect();
            round.iter().for_each(|question| pace.answered(*question, FAR));
        }
        assert_eq!(pace.at_once(), 18);
    }

    #[test]
    fn jitter_of_a_near_origin_is_nothing() {
        let mut pace = Pace::within(1..=8);
        for micros in [200, 3_000, 900, 9_000, 300, 5_000, 700, 10_000] {
            let question = pace.asks();
            pace.answered(question, Duration::from_micros(micros));
        }
        assert_eq!(pace.at_once(), 8);
        assert_eq!(Pace::within(0..=0).at_once(), 1, "nothing would never end");
    }
}
