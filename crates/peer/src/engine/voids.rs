//! Groups that cannot come because a member of their space changed at the origin: remembered for a while, so
//! that every reader of a neighbour does not have the origin asked for the whole group again.
//!
//! Lost with the process: the next read of such a group asks the origin and finds out anew.

use std::collections::VecDeque;
use std::time::Duration;

use dfs_model::GroupRange;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::ReadError;

/// Runs remembered for one task; the oldest are forgotten first.
const REMEMBERED: usize = 1024;

/// How long the origin's word stands. A member that comes back is read at once, past the store.
const STANDS: Duration = Duration::from_secs(30);

/// The void runs of one task.
#[derive(Debug, Default)]
pub(super) struct Voids {
    runs: Mutex<VecDeque<Void>>,
}

#[derive(Debug)]
struct Void {
    groups: GroupRange,
    error: ReadError,
    since: Instant,
}

impl Voids {
    pub(super) fn add(&self, groups: GroupRange, error: ReadError, now: Instant) {
        let mut runs = self.runs.lock();
        runs.retain(|void| void.groups != groups && now < void.since + STANDS);
        if runs.len() >= REMEMBERED {
            runs.pop_front();
        }
        runs.push_back(Void { groups, error, since: now });
    }

    /// The first void run within `groups`, cut to them, and why it is void.
    pub(super) fn first_in(
        &self,
        groups: GroupRange,
        now: Instant,
    ) -> Option<(GroupRange, ReadError)> {
        let runs = self.runs.lock();
        let standing = runs.iter().filter(|void| now < void.since + STANDS);
        let within = standing.map(|void| (void.groups.intersection(groups), &void.error));
        let (groups, error) =
            within.filter(|(run, _)| !run.is_empty()).min_by_key(|(run, _)| run.first)?;
        Some((groups, error.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_void_run_counts_and_only_for_a_while() {
        let voids = Voids::default();
        let now = Instant::now();
        let changed = |what: &str| ReadError::OriginChanged(what.to_owned());
        voids.add(GroupRange::new(7, 3), changed("later"), now);
        voids.add(GroupRange::new(2, 2), changed("first"), now + Duration::from_secs(1));
        let (run, error) = voids.first_in(GroupRange::new(3, 10), now).unwrap();
        assert_eq!((run, error.to_string()), (GroupRange::new(3, 1), changed("first").to_string()));
        assert!(voids.first_in(GroupRange::new(4, 3), now).is_none());
        let (run, _) = voids.first_in(GroupRange::new(0, 10), now + STANDS).unwrap();
        assert_eq!(run, GroupRange::new(2, 2));
        for at in 0..2 * REMEMBERED as u64 {
            voids.add(GroupRange::new(100 + at, 1), changed("many"), now + STANDS);
        }
        assert_eq!(voids.runs.lock().len(), REMEMBERED);
    }
}
