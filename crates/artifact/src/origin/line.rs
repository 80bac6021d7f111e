//! What reads have shown of the line to an origin, and what follows for who reads forward in it.
//!
//! A read takes the time to its first byte and then a time by its length: over reads of different lengths that is a
//! straight line, which is fitted here. What comes in the time to a first byte is what another request costs. Pure: who
//! reads says how long it took.

use std::time::Duration;

use dfs_model::GROUP_BYTES;

/// A gap up to this many bytes is read over where nothing is known, and nowhere a longer one.
pub const READ_OVER: u64 = 1 << 20;

/// How much of the next read's weight one has.
const FADING: f64 = 0.9;

/// Reads whose lengths differ by less than this share of their mean say nothing new.
const ALIKE: f64 = 0.25;

/// A request is to take so many times what it costs by itself.
const WORTH: u64 = 8;

/// Most bytes of one step.
const LONGEST_STEP: u64 = 4 << 20;

/// Most bytes of a first step: who goes somewhere may want no more than the header that stands there.
const LONGEST_FIRST_STEP: u64 = 256 << 10;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Line {
    reads: f64,
    bytes: f64,
    seconds: f64,
    bytes_squared: f64,
    bytes_seconds: f64,
    /// Bytes that come in the time to a first byte.
    per_request: Option<u64>,
}

impl Line {
    /// A read of so many bytes took so long.
    pub fn read_took(&mut self, bytes: u64, time: Duration) {
        let (bytes, seconds) = (bytes as f64, time.as_secs_f64());
        let sums = [
            (&mut self.reads, 1.0),
            (&mut self.bytes, bytes),
            (&mut self.seconds, seconds),
            (&mut self.bytes_squared, bytes * bytes),
            (&mut self.bytes_seconds, bytes * seconds),
        ];
        for (sum, value) in sums {
            *sum = *sum * FADING + value;
        }
        self.per_request = self.fitted().or(self.per_request);
    }

    fn fitted(&self) -> Option<u64> {
        let [bytes, seconds] = [self.bytes, self.seconds].map(|sum| sum / self.reads);
        let variance = self.bytes_squared / self.reads - bytes * bytes;
        if variance.max(0.0).sqrt() < ALIKE * bytes {
            return None;
        }
        let per_byte = (self.bytes_seconds / self.reads - bytes * seconds) / variance;
        // Long reads that take no longer than short ones: a request is all that costs.
        if per_byte <= 0.0 {
            return Some(u64::MAX);
        }
        // What is left where nothing was read; noise may leave less than nothing.
        let first_byte = (seconds - per_byte * bytes).max(0.0);
        Some((first_byte / per_byte) as u64)
    }

    /// A gap up to this many bytes is cheaper read over than left out by another request.
    pub fn read_over(&self) -> u64 {
        self.per_request.map_or(READ_OVER, |bytes| bytes.clamp(GROUP_BYTES, READ_OVER))
    }

    /// How much to read first at a new place.
    pub fn first_step(&self) -> u64 {
        self.step_of(WORTH / 4, LONGEST_FIRST_STEP).unwrap_or(LONGEST_FIRST_STEP)
    }

    /// How much to read next, after the first step: whole groups.
    pub fn step(&self) -> u64 {
        self.step_of(WORTH, LONGEST_STEP).unwrap_or(READ_OVER)
    }

    fn step_of(&self, times: u64, longest: u64) -> Option<u64> {
        let bytes = self.per_request?.saturating_mul(times).clamp(GROUP_BYTES, longest);
        Some(bytes / GROUP_BYTES * GROUP_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What reads of these lengths show of a line.
    fn line(first_byte: Duration, rate: f64, lengths: &[u64]) -> Line {
        let mut line = Line::default();
        for length in lengths {
            line.read_took(*length, first_byte + Duration::from_secs_f64(*length as f64 / rate));
        }
        line
    }

    const SOME: [u64; 3] = [GROUP_BYTES, READ_OVER, 4 * GROUP_BYTES];

    #[test]
    fn what_comes_until_a_first_byte_is_read_over_within_bounds() {
        let far = line(Duration::from_millis(40), 12.5e6, &SOME);
        assert!((490_000..510_000).contains(&far.read_over()), "{far:?}");
        assert_eq!((far.first_step(), far.step()), (LONGEST_FIRST_STEP, 61 * GROUP_BYTES));
        let near = line(Duration::from_millis(1), 12.5e6, &SOME);
        assert_eq!((near.read_over(), near.first_step()), (GROUP_BYTES, GROUP_BYTES));
        assert_eq!(near.step(), GROUP_BYTES);
        let wide = line(Duration::from_millis(40), 1e9, &SOME);
        assert_eq!((wide.read_over(), wide.step()), (READ_OVER, LONGEST_STEP));
    }

    #[test]
    fn nothing_follows_from_reads_that_are_alike() {
        let unknown = Line::default();
        let alike = line(Duration::from_millis(1), 12.5e6, &[GROUP_BYTES; 9]);
        for line in [&unknown, &alike] {
            assert_eq!(line.read_over(), READ_OVER);
            assert_eq!((line.first_step(), line.step()), (LONGEST_FIRST_STEP, READ_OVER));
        }
        let mut known = line(Duration::from_millis(1), 12.5e6, &SOME);
        (0..200).for_each(|_| known.read_took(GROUP_BYTES, Duration::from_micros(6_243)));
        assert_eq!(known.read_over(), GROUP_BYTES, "what was known still is");
    }

    #[test]
    fn a_line_that_becomes_another_is_found_out() {
        let mut changing = line(Duration::from_millis(1), 12.5e6, &SOME);
        for length in SOME.iter().cycle().take(90) {
            let time = Duration::from_millis(40) + Duration::from_secs_f64(*length as f64 / 12.5e6);
            changing.read_took(*length, time);
        }
        assert!((450_000..550_000).contains(&changing.read_over()), "{changing:?}");
    }

    #[test]
    fn where_only_requests_cost_everything_near_is_read_over() {
        let mut line = Line::default();
        line.read_took(GROUP_BYTES, Duration::from_millis(3));
        line.read_took(READ_OVER, Duration::from_millis(2));
        assert_eq!((line.read_over(), line.step()), (READ_OVER, LONGEST_STEP));
    }

    proptest! {
        #[test]
        fn steps_are_whole_groups_and_bounded(
            reads in proptest::collection::vec((0..1u64 << 40, 0..1u64 << 40), 0..30),
        ) {
            let mut line = Line::default();
            for (bytes, nanos) in reads {
                line.read_took(bytes, Duration::from_nanos(nanos));
                prop_assert!((GROUP_BYTES..=READ_OVER).contains(&line.read_over()));
                for (step, longest) in [(line.step(), LONGEST_STEP), (line.first_step(), LONGEST_FIRST_STEP)] {
                    prop_assert!((GROUP_BYTES..=longest).contains(&step) && step.is_multiple_of(GROUP_BYTES));
                }
            }
        }
    }
}
