//! Why reads failed lately: the source of `user.dfs.error`, and a short memory against double waits.
//!
//! When read-ahead of the kernel fails, it asks once more for the page that a reader wants. An answer of
//! [`ECHO`] ago is then repeated instead of waiting through a second deadline.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use dfs_model::ByteRange;
use parking_lot::Mutex;

use crate::content::ContentError;

/// Inodes remembered; the one that failed first is forgotten first.
const REMEMBERED: usize = 4096;

/// How long a failure is repeated to whoever asks for the same bytes.
pub(super) const ECHO: Duration = Duration::from_millis(250);

/// Longest reason kept, in bytes.
const REASON_BYTES: usize = 1024;

#[derive(Debug)]
struct Failure {
    range: ByteRange,
    error: ContentError,
    at: Instant,
}

/// The last failure per inode, bounded.
#[derive(Debug, Default)]
pub(super) struct Failures {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_inode: HashMap<u64, Failure>,
    order: VecDeque<u64>,
}

impl Failures {
    /// Remembers that `range` of the file `nid` could not be read.
    pub(super) fn record(&self, nid: u64, range: ByteRange, error: &ContentError, at: Instant) {
        let mut error = error.clone();
        if error.reason.len() > REASON_BYTES {
            let cut = (0..=REASON_BYTES).rev().find(|at| error.reason.is_char_boundary(*at));
            error.reason.truncate(cut.unwrap_or(0));
        }
        let mut inner = self.inner.lock();
        if inner.by_inode.insert(nid, Failure { range, error, at }).is_some() {
            return;
        }
        inner.order.push_back(nid);
        if inner.order.len() > REMEMBERED
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.by_inode.remove(&oldest);
        }
    }

    /// Forgets the failure of `nid` once bytes that had failed were read.
    pub(super) fn healed(&self, nid: u64, range: ByteRange) {
        let mut inner = self.inner.lock();
        let known = inner.by_inode.get(&nid);
        if known.is_some_and(|failure| !failure.range.intersection(range).is_empty()) {
            inner.by_inode.remove(&nid);
            inner.order.retain(|other| *other != nid);
        }
    }

    /// The error to repeat, when bytes of `range` failed a moment before `now`.
    pub(super) fn echo(&self, nid: u64, range: ByteRange, now: Instant) -> Option<ContentError> {
        let inner = self.inner.lock();
        let failure = inner.by_inode.get(&nid)?;
        let fresh = now.saturating_duration_since(failure.at) < ECHO;
        let same = !failure.range.intersection(range).is_empty();
        (fresh && same).then(|| failure.error.clone())
    }

    /// The last failure of `nid`, for a person, and what could not be read.
    pub(super) fn last(&self, nid: u64) -> Option<(ByteRange, ContentError)> {
        let inner = self.inner.lock();
        inner.by_inode.get(&nid).map(|failure| (failure.range, failure.error.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentErrorClass;

    fn error(reason: &str) -> ContentError {
        ContentError::new(ContentErrorClass::Io, reason)
    }

    #[test]
    fn only_the_latest_are_remembered() {
        let failures = Failures::default();
        let now = Instant::now();
        for nid in 0..=REMEMBERED as u64 {
            failures.record(nid, ByteRange::new(0, 1), &error("first"), now);
            failures.record(nid, ByteRange::new(0, 1), &error("second"), now);
        }
        assert_eq!(failures.last(0), None);
        assert_eq!(failures.last(1).map(|last| last.1), Some(error("second")));
        assert_eq!(failures.inner.lock().order.len(), REMEMBERED);
    }

    #[test]
    fn a_failure_is_repeated_for_a_moment_and_for_the_same_bytes() {
        let failures = Failures::default();
        let now = Instant::now();
        failures.record(7, ByteRange::new(10, 20), &error("x"), now);
        assert_eq!(failures.echo(7, ByteRange::new(15, 16), now), Some(error("x")));
        assert_eq!(failures.echo(7, ByteRange::new(20, 21), now), None);
        assert_eq!(failures.echo(8, ByteRange::new(15, 16), now), None);
        assert_eq!(failures.echo(7, ByteRange::new(15, 16), now + ECHO), None);
    }

    #[test]
    fn reading_other_bytes_does_not_hide_a_failure() {
        let failures = Failures::default();
        failures.record(7, ByteRange::new(10, 20), &error("x"), Instant::now());
        failures.healed(7, ByteRange::new(0, 10));
        assert_eq!(failures.last(7).map(|last| last.1), Some(error("x")));
        failures.healed(7, ByteRange::new(19, 30));
        assert_eq!(failures.last(7), None);
        assert!(failures.inner.lock().order.is_empty());
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        let failures = Failures::default();
        failures.record(7, ByteRange::new(0, 1), &error(&"ä€".repeat(900)), Instant::now());
        let kept = failures.last(7).unwrap().1.reason.len();
        assert!(kept <= REASON_BYTES && kept > REASON_BYTES - 4, "{kept}");
    }
}
