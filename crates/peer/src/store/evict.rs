//! What to take away: a pure decision.

use std::time::{Duration, SystemTime};

use dfs_model::{ByteSize, TaskId};

/// When eviction begins and where it ends, in percent of the capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// Eviction ends here.
    pub low_percent: u8,
    /// Eviction begins above this.
    pub high_percent: u8,
}

impl Default for Watermarks {
    fn default() -> Self {
        Self { low_percent: 80, high_percent: 90 }
    }
}

impl Watermarks {
    /// Bytes to free so that `used` is at the low mark; none unless it is above the high one.
    pub fn to_free(&self, used: u64, capacity: Option<ByteSize>) -> u64 {
        let Some(ByteSize(capacity)) = capacity else { return 0 };
        let mark = |percent: u8| {
            let mark = u128::from(capacity) * u128::from(percent.min(100)) / 100;
            u64::try_from(mark).unwrap_or(capacity)
        };
        if used <= mark(self.high_percent) {
            return 0;
        }
        used - mark(self.low_percent.min(self.high_percent))
    }
}

/// A task as eviction sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvictionEntry {
    /// Its name.
    pub id: TaskId,
    /// Disk it takes.
    pub bytes: u64,
    /// When it was last read.
    pub last_read: SystemTime,
    /// Kept for ever.
    pub pinned: bool,
    /// Used now.
    pub in_use: bool,
    /// How long it is kept after its last read.
    pub ttl: Option<Duration>,
}

impl EvictionEntry {
    fn is_expired(&self, now: SystemTime) -> bool {
        let age = now.duration_since(self.last_read).unwrap_or_default();
        self.ttl.is_some_and(|ttl| age >= ttl)
    }
}

/// The tasks to take away, in order: all that are past their time to live, then the least recently
/// read until `to_free` bytes are free. Pinned and used ones never.
pub fn plan(now: SystemTime, entries: &[EvictionEntry], to_free: u64) -> Vec<TaskId> {
    let mut free: Vec<_> = entries.iter().filter(|entry| !entry.pinned && !entry.in_use).collect();
    free.sort_unstable_by_key(|entry| (!entry.is_expired(now), entry.last_read, entry.id));
    let mut freed = 0u64;
    let mut chosen = Vec::new();
    for entry in free {
        if !entry.is_expired(now) && freed >= to_free {
            break;
        }
        freed = freed.saturating_add(entry.bytes);
        chosen.push(entry.id);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Vec<EvictionEntry>> {
        let one =
            (0..100u64, 0..1000u64, any::<bool>(), any::<bool>(), prop::option::of(0..500u64));
        proptest::collection::vec(one, 0..30).prop_map(|all| {
            let entry = |(at, (bytes, read, pinned, in_use, ttl)): (usize, _)| EvictionEntry {
                id: TaskId::from_bytes([at as u8; 32]),
                bytes,
                last_read: SystemTime::UNIX_EPOCH + Duration::from_secs(read),
                pinned,
                in_use,
                ttl: Option::map(ttl, Duration::from_secs),
            };
            all.into_iter().enumerate().map(entry).collect()
        })
    }

    proptest! {
        #[test]
        fn the_plan_spares_the_used_takes_the_expired_and_then_the_oldest(
            entries in entries(), to_free in 0..2000u64,
        ) {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
            let chosen = plan(now, &entries, to_free);
            let of = |id: &TaskId| entries.iter().find(|entry| entry.id == *id).unwrap();
            for entry in &entries {
                let taken = chosen.contains(&entry.id);
                let spared = entry.pinned || entry.in_use;
                prop_assert!(!(taken && spared));
                prop_assert!(taken || spared || !entry.is_expired(now));
                let younger = |id: &TaskId| {
                    !of(id).is_expired(now) && of(id).last_read > entry.last_read
                };
                prop_assert!(taken || spared || !chosen.iter().any(younger));
            }
            let freed: u64 = chosen.iter().map(|id| of(id).bytes).sum();
            let evictable = entries.iter().filter(|entry| !entry.pinned && !entry.in_use).count();
            prop_assert!(freed >= to_free || chosen.len() == evictable);
            let without_last: u64 = chosen.iter().rev().skip(1).map(|id| of(id).bytes).sum();
            let unneeded = |id| !of(id).is_expired(now) && without_last >= to_free;
            prop_assert!(!chosen.last().is_some_and(unneeded));
        }
    }

    #[test]
    fn eviction_begins_above_the_high_mark_and_ends_at_the_low_one() {
        let marks = Watermarks::default();
        assert_eq!(marks.to_free(90, Some(ByteSize(100))), 0);
        assert_eq!(marks.to_free(91, Some(ByteSize(100))), 11);
        assert_eq!(marks.to_free(u64::MAX, None), 0);
        assert_eq!(marks.to_free(u64::MAX, Some(ByteSize(u64::MAX))), u64::MAX / 5);
    }
}
