//! Raw or zstd, and how hard: what is known of one task, and what follows from it. Pure.
//!
//! A byte of content costs the time its encoding takes on the link and, twice, the time that encoding it takes.
//! Twice, because the child decodes it (in a quarter of the time of the quickest level), and because a processor has others
//! to serve while the link has nobody else. Both are measured as they pass on the clock, so a processor that is
//! busy shows as compression that is slow, and raw, which costs no time of it, wins there.

use std::time::Duration;

use dfs_model::Rate;

/// zstd's levels that are tried, the quickest first. On the sources of this project, a MiB at a time, one core of a
/// small server does 250, 170, 65 and 33 MB/s, to a share of 0.30, 0.27, 0.24 and 0.23; back it is 900 MB/s.
const LEVELS: [i32; 4] = [1, 3, 6, 9];

/// How much dearer a second of a processor is than one of the link.
const PROCESSOR: f64 = 2.0;

/// Groups that go out raw before another sample is taken, at first: doubled each time that a sample changes nothing.
/// A group in 64 is 1.6 %, and zstd gives up on noise in a quarter of the time it takes for text.
const PAUSE: u64 = 64;
/// The most of them, of content that cannot be compressed: what it is stays.
const LONG_PAUSE: u64 = 4096;
/// The most of them, of content that can: links and processors change more often.
const SHORT_PAUSE: u64 = 512;

/// Segments at one level before its neighbour is tried, at first; doubled each time.
const TRIAL: u64 = 8;
/// The most of them.
const LONG_TRIAL: u64 = 256;

/// A segment that took longer than was known of others counts as at most so many times as long: whoever encoded it
/// may have been put aside for somebody else. One that always is shows so in a few segments.
const OUTLIER: f64 = 2.0;

/// One of [`LEVELS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level(usize);

impl Level {
    /// The quickest: samples are taken with it.
    pub(super) const QUICKEST: Self = Self(0);

    /// As zstd counts.
    pub(super) fn number(self) -> i32 {
        LEVELS[self.0]
    }
}

/// How to send the next segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// As it is.
    Raw,
    /// Compress a group of it to learn what that brings, and ask [`Choice::decide`].
    Sample,
    /// Compressed.
    Zstd(Level),
}

/// What one level did to the content.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Bytes that one becomes; 1 where it did not become shorter.
    ratio: f64,
    /// Seconds that one takes.
    cost: f64,
}

impl Seen {
    fn of(content: usize, encoded: Option<usize>, took: Duration) -> Self {
        let bytes = content.max(1) as f64;
        let ratio = encoded.map_or(1.0, |encoded| encoded as f64 / bytes);
        Self { ratio, cost: took.as_secs_f64() / bytes }
    }

    /// Half of what was known and half of what is seen now: content changes on the way.
    fn then(self, now: Self) -> Self {
        Self { ratio: self.ratio.midpoint(now.ratio), cost: self.cost_then(now) }
    }

    fn cost_then(self, now: Self) -> f64 {
        self.cost.midpoint(now.cost.min(OUTLIER * self.cost))
    }

    /// Seconds for a byte over a link that takes so many seconds for one.
    fn total(self, link: f64) -> f64 {
        self.ratio * link + PROCESSOR * self.cost
    }
}

/// A number of things to let pass, which doubles up to a bound each time that they have passed.
#[derive(Debug, Clone, Copy)]
struct Pause {
    left: u64,
    next: u64,
}

impl Pause {
    fn new(first: u64) -> Self {
        Self { left: first, next: first }
    }

    /// So many more; whether they were the last, and it begins anew, with at most `most`.
    fn passes(&mut self, count: u64, most: u64) -> bool {
        self.left = self.left.saturating_sub(count).min(most);
        let over = self.left == 0;
        if over {
            self.next = (self.next * 2).min(most);
            self.left = self.next;
        }
        over
    }
}

/// What is known of a task.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    seen: [Option<Seen>; LEVELS.len()],
    /// Groups until the next sample, while they go out raw.
    sample: Pause,
    /// Segments until a neighbouring level is tried.
    trial: Pause,
    /// The level in use, and whether the next trial is of the one above it.
    level: Option<(Level, bool)>,
}

impl Choice {
    /// Of a task of which nothing is known.
    pub(super) fn new() -> Self {
        Self {
            seen: [None; LEVELS.len()],
            sample: Pause::new(PAUSE),
            trial: Pause::new(TRIAL),
            level: None,
        }
    }

    /// How to send a segment of so many groups to a child whose link carries `rate`, where that is known.
    pub(super) fn plan(&mut self, groups: u64, rate: Option<Rate>) -> Plan {
        if self.seen[0].is_none() {
            return Plan::Sample;
        }
        let most = if self.may_pay() { SHORT_PAUSE } else { LONG_PAUSE };
        match self.decide(rate) {
            Plan::Zstd(level) => {
                self.sample = Pause::new(PAUSE);
                Plan::Zstd(self.on_trial(level))
            }
            Plan::Raw | Plan::Sample if self.sample.passes(groups, most) => Plan::Sample,
            plan => plan,
        }
    }

    /// What is quickest by all that is known: raw or zstd.
    pub(super) fn decide(&self, rate: Option<Rate>) -> Plan {
        let Some(rate) = rate else { return Plan::Raw };
        let link = 1.0 / (rate.0.max(1) as f64);
        let raw = Seen { ratio: 1.0, cost: 0.0 };
        let mut best = (raw.total(link), Plan::Raw);
        for (at, seen) in self.seen.iter().enumerate() {
            let Some(total) = seen.map(|seen| seen.total(link)) else { continue };
            if total < best.0 {
                best = (total, Plan::Zstd(Level(at)));
            }
        }
        best.1
    }

    /// A sample of so many bytes became so many, or not fewer: what comes now is no other content than it.
    pub(super) fn sampled(&mut self, content: usize, encoded: Option<usize>, took: Duration) {
        let now = Seen::of(content, encoded, took);
        let cost = self.seen[0].map_or(now.cost, |before| before.cost_then(now));
        self.seen = [None; LEVELS.len()];
        self.seen[0] = Some(Seen { cost, ..now });
    }

    /// A segment of so many bytes became so many, or not fewer.
    pub(super) fn sent(
        &mut self,
        level: Level,
        content: usize,
        encoded: Option<usize>,
        took: Duration,
    ) {
        let now = Seen::of(content, encoded, took);
        let seen = &mut self.seen[level.0];
        *seen = Some(seen.map_or(now, |before| before.then(now)));
    }

    /// Whether any link could be slow enough: for others its rate need not be known.
    pub(super) fn may_pay(&self) -> bool {
        let known = self.seen.iter().flatten();
        self.seen[0].is_none() || known.into_iter().any(|seen| seen.ratio < 1.0)
    }

    /// The level to use: the best, or its neighbour when it is time to see what that does.
    fn on_trial(&mut self, best: Level) -> Level {
        let up = match self.level {
            Some((level, up)) if level == best => up,
            _ => {
                self.trial = Pause::new(TRIAL);
                true
            }
        };
        self.level = Some((best, up));
        if !self.trial.passes(1, LONG_TRIAL) {
            return best;
        }
        self.level = Some((best, !up));
        match up {
            true => Level((best.0 + 1).min(LEVELS.len() - 1)),
            false => Level(best.0.saturating_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: u64 = 16;
    const BYTES: usize = 1 << 20;
    const MBIT_100: Rate = Rate(12_500_000);
    const LOOPBACK: Rate = Rate(2_000_000_000);

    /// What text does: ratio and MB/s by level, as measured.
    const TEXT: [(f64, f64); 4] = [(0.31, 450.0), (0.28, 280.0), (0.26, 90.0), (0.255, 55.0)];
    /// What noise does.
    const NOISE: [(f64, f64); 4] = [(1.0, 2000.0), (1.0, 1500.0), (1.0, 400.0), (1.0, 200.0)];

    type Content = [(f64, f64); 4];

    fn outcome(content: &Content, level: Level, bytes: usize) -> (Option<usize>, Duration) {
        let (ratio, speed) = content[level.0];
        let encoded = (ratio < 1.0).then_some((bytes as f64 * ratio) as usize);
        (encoded, Duration::from_secs_f64(bytes as f64 / (speed * 1e6)))
    }

    /// Sends a segment as the encoder does; the level it went out with and whether a sample was taken.
    fn send(
        choice: &mut Choice,
        content: &Content,
        groups: u64,
        rate: Option<Rate>,
    ) -> (Option<Level>, bool) {
        let mut plan = choice.plan(groups, rate);
        let sampled = plan == Plan::Sample;
        if sampled {
            let (encoded, took) = outcome(content, Level::QUICKEST, 65_536);
            choice.sampled(65_536, encoded, took);
            plan = choice.decide(rate);
        }
        let Plan::Zstd(level) = plan else { return (None, sampled) };
        let (encoded, took) = outcome(content, level, BYTES);
        choice.sent(level, BYTES, encoded, took);
        (encoded.map(|_| level), sampled)
    }

    #[test]
    fn text_on_a_slow_link_is_compressed_from_the_first_segment_whose_rate_is_known() {
        let mut choice = Choice::new();
        assert_eq!(send(&mut choice, &TEXT, FULL, None), (None, true));
        for _ in 0..100 {
            assert!(send(&mut choice, &TEXT, FULL, Some(MBIT_100)).0.is_some());
        }
    }

    #[test]
    fn text_on_a_link_as_quick_as_memory_is_sent_raw() {
        let mut choice = Choice::new();
        let samples = (0..4096).filter(|_| {
            let (level, sampled) = send(&mut choice, &TEXT, FULL, Some(LOOPBACK));
            assert_eq!(level, None);
            sampled
        });
        // 4 GiB: at the start, after 4 MiB, 12, 28, 60, and every 32 then.
        assert!((125..140).contains(&samples.count()));
    }

    #[test]
    fn noise_is_sampled_ever_more_rarely_and_never_not_at_all() {
        let mut choice = Choice::new();
        let mut since = 0;
        let mut longest = 0;
        let samples = (0..100_000u64).filter(|_| {
            let (level, sampled) = send(&mut choice, &NOISE, 1, Some(Rate(125_000)));
            assert_eq!(level, None);
            since = if sampled { 0 } else { since + 1 };
            longest = longest.max(since);
            sampled
        });
        assert!((20..40).contains(&samples.count()));
        assert_eq!(longest, LONG_PAUSE - 1);
        assert!(!choice.may_pay());
        // Text behind it is found, and from then on compressed.
        let found =
            (0..=LONG_PAUSE).position(|_| send(&mut choice, &TEXT, 1, Some(MBIT_100)).0.is_some());
        assert!(found.is_some());
        assert!(send(&mut choice, &TEXT, 1, Some(MBIT_100)).0.is_some());
    }

    #[test]
    fn noise_behind_text_is_noticed_within_a_few_segments() {
        let mut choice = Choice::new();
        for _ in 0..50 {
            send(&mut choice, &TEXT, FULL, Some(MBIT_100));
        }
        let tried = (0..1000).filter(|_| {
            matches!(choice.decide(Some(MBIT_100)), Plan::Zstd(_)) && {
                send(&mut choice, &NOISE, FULL, Some(MBIT_100));
                true
            }
        });
        assert!(tried.count() < 40);
    }

    #[test]
    fn the_slower_the_link_the_higher_the_level_that_is_settled_on() {
        let settled = |rate| {
            let mut choice = Choice::new();
            for _ in 0..3000 {
                send(&mut choice, &TEXT, FULL, Some(rate));
            }
            choice.decide(Some(rate))
        };
        assert_eq!(settled(Rate(400_000_000)), Plan::Raw);
        assert_eq!(settled(Rate(50_000_000)), Plan::Zstd(Level(0)));
        assert_eq!(settled(Rate(5_000_000)), Plan::Zstd(Level(1)));
        assert_eq!(settled(Rate(1_000_000)), Plan::Zstd(Level(2)));
        assert_eq!(settled(Rate(100_000)), Plan::Zstd(Level(3)));
    }

    #[test]
    fn a_busy_processor_turns_compression_off_and_an_idle_one_on_again() {
        let mut choice = Choice::new();
        let busy = TEXT.map(|(ratio, speed)| (ratio, speed / 50.0));
        for _ in 0..200 {
            send(&mut choice, &TEXT, FULL, Some(MBIT_100));
        }
        let raw = (0..200).filter(|_| send(&mut choice, &busy, FULL, Some(MBIT_100)).0.is_none());
        assert!(raw.count() > 150);
        let all = 20 * SHORT_PAUSE / FULL;
        assert!((0..all).any(|_| send(&mut choice, &TEXT, FULL, Some(MBIT_100)).0.is_some()));
    }

    #[test]
    fn who_was_put_aside_once_goes_on() {
        let mut choice = Choice::new();
        send(&mut choice, &TEXT, 1, Some(MBIT_100));
        for nth in 0..200 {
            let aside = if nth % 4 == 0 { 100.0 } else { 1.0 };
            let content = TEXT.map(|(ratio, speed)| (ratio, speed / aside));
            assert!(send(&mut choice, &content, 1, Some(MBIT_100)).0.is_some(), "{nth}");
        }
    }

    fn any_content() -> impl Strategy<Value = Content> {
        (0.01f64..1.3, 1.0f64..3000.0).prop_map(|(ratio, speed)| {
            [1.0, 0.9, 0.85, 0.82].map(|better| {
                let ratio = (ratio * better).min(1.0);
                (ratio, speed * better * better)
            })
        })
    }

    proptest! {
        /// Whatever comes, in whatever order, over whatever links: what is chosen is never dearer than raw by what
        /// is known, and no more than a group in 64 is sampled while all goes out raw.
        #[test]
        fn a_choice_is_never_dearer_than_raw_by_what_is_known(
            turns in prop::collection::vec(
                (any_content(), prop::option::of(1_000u64..4_000_000_000), 1u64..=16, 1usize..80),
                1..12,
            ),
        ) {
            let mut choice = Choice::new();
            let (mut raw_groups, mut samples) = (0, 0);
            for (content, rate, groups, times) in turns {
                let rate = rate.map(Rate);
                for _ in 0..times {
                    let (level, sampled) = send(&mut choice, &content, groups, rate);
                    samples += u64::from(sampled);
                    raw_groups += if level.is_none() { groups } else { 0 };
                    match (choice.decide(rate), rate) {
                        (Plan::Zstd(level), Some(rate)) => {
                            let link = 1.0 / rate.0 as f64;
                            let seen = choice.seen[level.0].unwrap();
                            prop_assert!(seen.total(link) < link && seen.ratio < 1.0);
                            prop_assert!(choice.may_pay());
                        }
                        (plan, _) => prop_assert_eq!(plan, Plan::Raw),
                    }
                }
            }
            prop_assert!(samples <= 1 + raw_groups / PAUSE + 1, "{samples} of {raw_groups}");
        }
    }
}
