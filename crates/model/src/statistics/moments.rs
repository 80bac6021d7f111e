//! Sums from which a mean and its variance between clusters follow, whatever the order of observations.

/// What was seen in one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cluster {
    count: u64,
    /// Sum of the distances from the origin of the sums it is part of.
    sum: f64,
}

/// Sums over clusters, with the distances of observations from the first one: so nothing is lost of small differences
/// between large numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moments {
    origin: Option<f64>,
    clusters: u64,
    count: u64,
    sum: f64,
    counts_squared: f64,
    counts_by_sums: f64,
    sums_squared: f64,
}

impl Moments {
    /// Takes in an observation of a cluster.
    pub fn see(&mut self, cluster: &mut Cluster, value: f64) {
        let off = value - *self.origin.get_or_insert(value);
        let (count, sum) = (cluster.count as f64, cluster.sum);
        self.clusters += u64::from(cluster.count == 0);
        self.count += 1;
        self.sum += off;
        self.counts_squared += 2.0 * count + 1.0;
        self.counts_by_sums += (count + 1.0) * (sum + off) - count * sum;
        self.sums_squared += (2.0 * sum + off) * off;
        cluster.count += 1;
        cluster.sum += off;
    }

    /// What they come to.
    pub fn mean(&self) -> Mean {
        let Some(origin) = self.origin else { return Mean::default() };
        let off = self.sum / self.count as f64;
        let squares =
            self.sums_squared - 2.0 * off * self.counts_by_sums + off * off * self.counts_squared;
        Mean {
            clusters: self.clusters,
            count: self.count,
            mean: origin + off,
            counts_squared: self.counts_squared,
            counts_by_errors: self.counts_by_sums - off * self.counts_squared,
            errors_squared: squares.max(0.0),
        }
    }
}

/// A mean, and what is needed to tell how sure it is and to add others to it. An error is what the observations of a
/// cluster are together beyond as many means.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Mean {
    /// Clusters with observations.
    pub clusters: u64,
    /// Observations.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Σmᵢ², of the numbers of observations.
    pub counts_squared: f64,
    /// Σmᵢ·eᵢ, with the errors.
    pub counts_by_errors: f64,
    /// Σeᵢ².
    pub errors_squared: f64,
}

impl Mean {
    /// Both together, as if all had been seen in one place.
    pub fn and(self, other: Self) -> Self {
        let count = self.count.saturating_add(other.count);
        if count == 0 {
            return Self::default();
        }
        let of = |part: Self| part.mean * (part.count as f64 / count as f64);
        let mean = of(self) + of(other);
        let (mut counts_squared, mut counts_by_errors, mut errors_squared) = (0.0, 0.0, 0.0);
        for part in [self, other] {
            let off = part.mean - mean;
            counts_squared += part.counts_squared;
            counts_by_errors += part.counts_by_errors + off * part.counts_squared;
            errors_squared += part.errors_squared
                + 2.0 * off * part.counts_by_errors
                + off * off * part.counts_squared;
        }
        let clusters = self.clusters.saturating_add(other.clusters);
        let errors_squared = errors_squared.max(0.0);
        Self { clusters, count, mean, counts_squared, counts_by_errors, errors_squared }
    }

    /// Variance of the mean, where there are two clusters at least.
    pub fn variance(&self) -> Option<f64> {
        let (clusters, count) = (self.clusters as f64, self.count as f64);
        (self.clusters > 1)
            .then(|| clusters / (clusters - 1.0) * self.errors_squared / (count * count))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(clusters: &[&[f64]]) -> Mean {
        let mut moments = Moments::default();
        for cluster in clusters {
            let mut own = Cluster::default();
            cluster.iter().for_each(|value| moments.see(&mut own, *value));
        }
        moments.mean()
    }

    fn is_near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
    }

    #[test]
    fn one_observation_a_cluster_has_the_usual_variance() {
        // Of 2 4 4 4 5 5 7 9: mean 5, sum of squares 32, s² ÷ n = 32 ÷ 7 ÷ 8.
        let mean = of(&[&[2.0], &[4.0], &[4.0], &[4.0], &[5.0], &[5.0], &[7.0], &[9.0]]);
        assert_eq!((mean.clusters, mean.count, mean.mean), (8, 8, 5.0));
        assert!(is_near(mean.variance().unwrap(), 32.0 / 56.0), "{mean:?}");
    }

    #[test]
    fn a_hundred_that_say_the_same_of_one_task_are_no_surer_than_one() {
        let once = of(&[&[1.0], &[2.0], &[6.0]]);
        let often = of(&[&[1.0; 100], &[2.0; 100], &[6.0; 100]]);
        assert_eq!((often.count, often.mean), (300, once.mean));
        assert!(is_near(once.variance().unwrap(), often.variance().unwrap()));
        assert_eq!(of(&[&[1.0, 2.0, 3.0]]).variance(), None, "one cluster says nothing");
        assert_eq!(of(&[]), Mean::default());
    }

    #[test]
    fn nothing_is_lost_of_small_differences_between_large_numbers() {
        let large = 1e15;
        let mean = of(&[&[large + 1.0], &[large + 2.0], &[large + 3.0]]);
        assert!(is_near(mean.variance().unwrap(), 1.0 / 3.0), "{mean:?}");
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_definition_in_any_order_and_from_any_parts(
            clusters in proptest::collection::vec(
                proptest::collection::vec(-1e6..1e6f64, 1..8), 2..12),
            split in 1..11usize,
        ) {
            let slices: Vec<&[f64]> = clusters.iter().map(Vec::as_slice).collect();
            let mean = of(&slices);
            // All first observations, then all second ones, …
            let mut moments = Moments::default();
            let mut own = vec![Cluster::default(); clusters.len()];
            for at in 0..8 {
                for (cluster, own) in clusters.iter().zip(&mut own) {
                    cluster.get(at).into_iter().for_each(|value| moments.see(own, *value));
                }
            }
            let all: Vec<f64> = clusters.iter().flatten().copied().collect();
            let expected = all.iter().sum::<f64>() / all.len() as f64;
            let error = |cluster: &Vec<f64>| cluster.iter().map(|v| v - expected).sum::<f64>();
            let k = clusters.len() as f64;
            let squares: f64 = clusters.iter().map(|cluster| error(cluster).powi(2)).sum();
            let variance = k / (k - 1.0) * squares / (all.len() as f64).powi(2);
            let split = split.min(slices.len());
            let parts = of(&slices[..split]).and(of(&slices[split..]));
            for mean in [mean, moments.mean(), parts] {
                prop_assert!((mean.mean - expected).abs() < 1e-4);
                let off = (mean.variance().unwrap() - variance).abs();
                prop_assert!(off <= 1e-6 * variance.max(1.0), "{off} of {variance}");
                prop_assert_eq!((mean.clusters, mean.count), (k as u64, all.len() as u64));
            }
        }
    }
}
