//! One who reads at even steps, as through one column of a table: the next places.

use dfs_model::ByteRange;

/// Equal steps in a row before anything is fetched ahead.
const STEPS: u32 = 3;

/// Places fetched ahead at most, and their bytes in all.
const PLACES: u64 = 16;
const BYTES: u64 = 4 << 20;

#[derive(Debug, Default)]
pub(super) struct Stride {
    /// Where the last read began, and how far from the one before.
    last: u64,
    step: i64,
    /// How often the step was this one.
    times: u32,
    /// Places that were named and not yet read.
    ahead: u64,
}

impl Stride {
    /// Takes note of a read that goes on from no other: the places that are to be fetched for it now.
    pub(super) fn observe(&mut self, read: ByteRange) -> Option<Vec<ByteRange>> {
        let step = i64::try_from(i128::from(read.start) - i128::from(self.last)).unwrap_or(0);
        self.last = read.start;
        if step == 0 || step != self.step {
            (self.step, self.times, self.ahead) = (step, 1, 0);
            return None;
        }
        self.times = self.times.saturating_add(1);
        self.ahead = self.ahead.saturating_sub(1);
        if self.times < STEPS {
            return None;
        }
        // Doubled each time that half of it is used up.
        let most = PLACES.min(BYTES / read.len().max(1)).min(u64::from(self.times) - 1);
        if self.ahead > most / 2 {
            return Some(Vec::new());
        }
        let places = (self.ahead + 1..=most).filter_map(|times| {
            let away = i64::try_from(times).ok()?.checked_mul(step)?;
            Some(ByteRange::at(read.start.checked_add_signed(away)?, read.len()))
        });
        let places: Vec<_> = places.collect();
        self.ahead = most.max(self.ahead);
        Some(places)
    }
}
