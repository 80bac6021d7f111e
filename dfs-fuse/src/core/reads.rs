//! What readers of a mount met: how many reads there were, how many of them had to wait, and for how long.
//!
//! Counted where a read is answered, by adding to numbers of its own and without a lock. What the kernel answers from its
//! memory, or reads by itself, is not seen here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Who waits so long stands still.
pub const STALL: Duration = Duration::from_secs(1);

/// Buckets of waits: four to each power of two of microseconds, up to an hour.
const BUCKETS: usize = 128;

/// Buckets to a power of two.
const STEPS: u64 = 4;

/// Reads of a mount; what it counts only grows, except for those that wait now.
#[derive(Debug)]
pub struct Reads {
    reads: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    stalls: AtomicU64,
    waiting: AtomicU64,
    waits: [AtomicU64; BUCKETS],
    unseen: AtomicBool,
}

impl Default for Reads {
    fn default() -> Self {
        let [reads, bytes, errors, stalls, waiting] = std::array::from_fn(|_| AtomicU64::new(0));
        let waits = std::array::from_fn(|_| AtomicU64::new(0));
        Self { reads, bytes, errors, stalls, waiting, waits, unseen: AtomicBool::new(false) }
    }
}

/// What [`Reads`] had counted at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Reads that were answered.
    pub reads: u64,
    /// Bytes that they were given.
    pub bytes: u64,
    /// Reads that failed.
    pub errors: u64,
    /// Reads that waited for [`STALL`] or longer.
    pub stalls: u64,
    /// Reads that wait now.
    pub waiting: u64,
    /// Whether there may be more: such that the kernel made by itself.
    pub unseen: bool,
    waits: [u64; BUCKETS],
}

impl Default for Seen {
    fn default() -> Self {
        let (reads, bytes, errors, stalls, waiting) = Default::default();
        Self { reads, bytes, errors, stalls, waiting, unseen: false, waits: [0; BUCKETS] }
    }
}

/// The reads of many mounts, those that have ended included.
#[derive(Debug, Default)]
pub struct AllReads(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    ended: Seen,
    going_on: Vec<Arc<Reads>>,
}

/// A read that waits until this is dropped.
#[derive(Debug)]
pub(super) struct Wait {
    reads: Arc<Reads>,
    since: Instant,
}

impl Reads {
    /// A read was given so many bytes.
    pub(super) fn gave(&self, bytes: usize) {
        self.reads.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// A read failed.
    pub(super) fn failed(&self) {
        self.reads.fetch_add(1, Relaxed);
        self.errors.fetch_add(1, Relaxed);
    }

    /// A read waits from now on.
    pub(super) fn wait(self: &Arc<Self>) -> Wait {
        self.waiting.fetch_add(1, Relaxed);
        Wait { reads: Arc::clone(self), since: Instant::now() }
    }

    /// The kernel may make some by itself from now on.
    pub(crate) fn some_are_unseen(&self) {
        self.unseen.store(true, Relaxed);
    }

    fn waited(&self, time: Duration) {
        self.waiting.fetch_sub(1, Relaxed);
        self.waits[bucket(time)].fetch_add(1, Relaxed);
        self.stalls.fetch_add(u64::from(time >= STALL), Relaxed);
    }

    /// What was counted until now.
    pub fn seen(&self) -> Seen {
        Seen {
            reads: self.reads.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            errors: self.errors.load(Relaxed),
            stalls: self.stalls.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            unseen: self.unseen.load(Relaxed),
            waits: std::array::from_fn(|bucket| self.waits[bucket].load(Relaxed)),
        }
    }
}

impl AllReads {
    /// Counts those of one more.
    pub fn begin(&self) -> Arc<Reads> {
        let (reads, mut counted) = (Arc::<Reads>::default(), self.0.lock());
        counted.sum_up();
        counted.going_on.push(Arc::clone(&reads));
        reads
    }

    /// What was counted of all until now.
    pub fn seen(&self) -> Seen {
        let mut counted = self.0.lock();
        counted.sum_up();
        let mut all = counted.ended;
        counted.going_on.iter().for_each(|reads| all.add(&reads.seen()));
        all
    }
}

impl Counted {
    /// Of those that have ended only the sum is kept.
    fn sum_up(&mut self) {
        let Self { ended, going_on } = self;
        going_on.retain(|reads| {
            let goes_on = Arc::strong_count(reads) > 1;
            if !goes_on {
                ended.add(&reads.seen());
            }
            goes_on
        });
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.reads.waited(self.since.elapsed());
    }
}

impl Seen {
    /// Reads that waited.
    pub fn waits(&self) -> u64 {
        self.waits.iter().sum()
    }

    /// How long this percentage of those that waited did at most, right within a fifth; none where none waited.
    pub fn wait(&self, percent: u64) -> Option<Duration> {
        let rank = (self.waits() * percent).div_ceil(100);
        let mut below = 0;
        let reached = self.waits.iter().position(|count| {
            below += count;
            below >= rank && below > 0
        });
        reached.map(upper)
    }

    /// Adds what another one had.
    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.stalls += other.stalls;
        self.waiting += other.waiting;
        self.unseen |= other.unseen;
        self.waits.iter_mut().zip(other.waits).for_each(|(own, more)| *own += more);
    }
}

/// In which bucket a wait is.
fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(STEPS);
    let power = u64::from(micros.ilog2());
    // The two bits below the highest one.
    let step = (micros >> (power - 2)) - STEPS;
    usize::try_from((power - 2) * STEPS + step).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// Where a bucket ends.
fn upper(bucket: usize) -> Duration {
    let (power, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    Duration::from_micros((STEPS + step + 1) << power)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wait_lies_in_its_bucket_which_is_a_fifth_wide(micros in 4..3_600_000_000u64) {
            let time = Duration::from_micros(micros);
            let end = upper(bucket(time));
            prop_assert!(time < end && end.as_micros() * 4 <= time.as_micros() * 5 + 4, "{time:?} {end:?}");
        }
    }

    #[test]
    fn quantiles_are_those_of_who_waited() {
        let reads = Arc::new(Reads::default());
        assert_eq!(reads.seen().wait(50), None);
        for millis in 1..=100 {
            drop(reads.wait());
            let now = reads.seen().waits();
            assert_eq!(now, millis);
        }
        let mut seen = Seen::default();
        for millis in 1..=100 {
            seen.waits[bucket(Duration::from_millis(millis))] += 1;
        }
        let near = |percent, millis| {
            let found = seen.wait(percent).unwrap().as_secs_f64() * 1000.0;
            assert!(found >= millis && found <= millis * 1.26, "p{percent} is {found} ms");
        };
        near(50, 50.0);
        near(99, 99.0);
    }

    #[test]
    fn who_waits_is_counted_while_and_after() {
        let reads = Arc::new(Reads::default());
        let wait = reads.wait();
        assert_eq!((reads.seen().waiting, reads.seen().waits()), (1, 0));
        drop(wait);
        reads.gave(10);
        reads.failed();
        reads.waiting.fetch_add(1, Relaxed);
        reads.waited(STALL);
        let seen = reads.seen();
        assert_eq!((seen.waiting, seen.waits(), seen.stalls), (0, 2, 1));
        assert_eq!((seen.reads, seen.bytes, seen.errors), (2, 10, 1));
        let mut twice = seen;
        twice.add(&seen);
        assert_eq!((twice.waits(), twice.bytes), (4, 20));
    }

    #[test]
    fn what_was_counted_of_a_mount_that_has_ended_still_counts() {
        let all = AllReads::default();
        let (one, other) = (all.begin(), all.begin());
        assert!(!all.seen().unseen);
        one.some_are_unseen();
        one.gave(3);
        other.gave(4);
        assert_eq!(all.seen().bytes, 7);
        drop(one);
        other.gave(1);
        assert_eq!((all.seen().bytes, all.seen().reads), (8, 3));
        assert!(all.seen().unseen && !other.seen().unseen);
    }

    #[test]
    fn of_mounts_that_have_ended_only_the_sum_is_kept() {
        let all = AllReads::default();
        for _ in 0..100 {
            all.begin().gave(1);
        }
        assert_eq!(all.0.lock().going_on.len(), 1);
        assert_eq!(all.seen().bytes, 100);
    }

    #[test]
    fn the_shortest_and_the_longest_wait_have_a_bucket() {
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
