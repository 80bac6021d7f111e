//! A distribution in buckets whose bounds grow by a twentieth: any quantile is right within a fortieth, and two
//! sketches are one by adding (C. Masson, J. E. Rim, H. K. Lee, DDSketch, VLDB 2019).

/// Each bucket reaches so much higher than the one before.
const GROWTH: f64 = 1.05;

/// Most buckets of a sketch: the last one has everything beyond 10¹².
pub const BUCKETS: usize = 568;

/// How many observations were how large. Of numbers below one it is only known how many they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sketch {
    counts: Vec<u32>,
}

impl Sketch {
    /// Of the numbers of observations in the buckets, the lowest first; what is beyond the last bucket is left out.
    pub fn of(counts: impl IntoIterator<Item = u32>) -> Self {
        Self { counts: counts.into_iter().take(BUCKETS).collect() }
    }

    /// Takes an observation in.
    pub fn see(&mut self, value: f64) {
        let bucket = if value < 1.0 { 0.0 } else { 1.0 + value.log(GROWTH).floor() };
        let bucket = (bucket as usize).min(BUCKETS - 1);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
    }

    /// Numbers of observations in the buckets, the lowest first.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        let most = self.counts.len().max(other.counts.len());
        self.counts.resize(most, 0);
        for (own, more) in self.counts.iter_mut().zip(&other.counts) {
            *own = own.saturating_add(*more);
        }
    }

    /// The value below which this share of the observations is, from 0 to 1; none where there are no observations.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let all: u64 = self.counts.iter().copied().map(u64::from).sum();
        let rank = (share * all.checked_sub(1)? as f64) as u64;
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += u64::from(*count);
            below > rank
        })?;
        let low = GROWTH.powi(i32::try_from(bucket).ok()? - 1);
        Some(if bucket == 0 { 0.0 } else { low * 2.0 * GROWTH / (1.0 + GROWTH) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quantiles_are_right_within_a_fortieth(
            mut values in proptest::collection::vec(1.0..1e11f64, 1..300),
            share in 0.0..=1.0f64,
            split in 0..300usize,
        ) {
            let (mut one, mut other) = (Sketch::default(), Sketch::default());
            for (at, value) in values.iter().enumerate() {
                if at < split { one.see(*value) } else { other.see(*value) }
            }
            one.add(&other);
            values.sort_by(f64::total_cmp);
            let exact = values[(share * (values.len() - 1) as f64) as usize];
            let found = one.quantile(share).unwrap();
            prop_assert!((found / exact - 1.0).abs() <= 0.0251, "{found} for {exact}");
        }
    }

    #[test]
    fn it_is_bounded_and_knows_nothing_of_nothing() {
        let mut sketch = Sketch::default();
        assert_eq!(sketch.quantile(0.5), None);
        for value in [f64::MAX, f64::INFINITY, f64::NAN, -1.0, 0.0] {
            sketch.see(value);
        }
        assert_eq!(sketch.counts().len(), BUCKETS);
        assert_eq!(sketch.quantile(0.0), Some(0.0));
        assert_eq!(Sketch::of(vec![1; 10_000]).counts().len(), BUCKETS);
    }
}
