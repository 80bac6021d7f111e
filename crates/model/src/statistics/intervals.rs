//! Intervals that hold the true value 95 times of 100.

use std::f64::consts::FRAC_PI_2;

use super::Mean;

/// The value beyond which 2.5 % of the normal distribution are, on either side.
const Z: f64 = 1.959_963_984_540_054;

/// From one bound to the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

impl Interval {
    fn around(middle: f64, reach: f64) -> Self {
        Self { low: middle - reach, high: middle + reach }
    }

    /// Whether a difference that lies in it may be none.
    pub fn has_zero(&self) -> bool {
        self.low <= 0.0 && self.high >= 0.0
    }
}

impl Mean {
    /// Where the true mean is; none where there are fewer than two clusters.
    pub fn interval(&self) -> Option<Interval> {
        let variance = self.variance()?;
        let freedom = self.clusters as f64 - 1.0;
        Some(Interval::around(self.mean, student(freedom) * variance.sqrt()))
    }

    /// The same of a share, whose observations are 0 and 1.
    pub fn interval_of_share(&self) -> Option<Interval> {
        let variance = self.variance()?;
        let spread = self.mean * (1.0 - self.mean);
        let worth = match (spread > 0.0, variance > 0.0) {
            // All said the same: as many as there are tasks at least have said it for themselves.
            (false, _) => self.clusters as f64,
            (true, true) => (spread / variance).min(self.count as f64),
            (true, false) => self.count as f64,
        };
        Some(wilson(self.mean, worth))
    }
}

/// Where the true difference of two means is, the first less the second.
pub fn difference_of_means(one: &Mean, other: &Mean) -> Option<Interval> {
    let (a, b) = (one.variance()?, other.variance()?);
    let off = one.mean - other.mean;
    let both = a + b;
    if both <= 0.0 {
        return Some(Interval::around(off, 0.0));
    }
    let freedom =
        both * both / (a * a / (one.clusters - 1) as f64 + b * b / (other.clusters - 1) as f64);
    Some(Interval::around(off, student(freedom) * both.sqrt()))
}

/// Where the true difference of two shares is, the first less the second.
pub fn difference_of_shares(one: &Mean, other: &Mean) -> Option<Interval> {
    let (a, b) = (one.interval_of_share()?, other.interval_of_share()?);
    let off = one.mean - other.mean;
    Some(Interval {
        low: off - (one.mean - a.low).hypot(b.high - other.mean),
        high: off + (a.high - one.mean).hypot(other.mean - b.low),
    })
}

fn wilson(share: f64, count: f64) -> Interval {
    let square = Z * Z;
    let middle = (share + square / (2.0 * count)) / (1.0 + square / count);
    let under = share * (1.0 - share) / count + square / (4.0 * count * count);
    let reach = Z / (1.0 + square / count) * under.sqrt();
    Interval { low: (middle - reach).max(0.0), high: (middle + reach).min(1.0) }
}

/// The value beyond which 2.5 % of Student's distribution are, on either side.
///
/// With t = √n·tan θ its density is cosⁿ⁻¹ θ: summed up until 95 % of one half are reached. With many degrees of freedom
/// the first terms of its expansion about the normal distribution do (R. A. Fisher, E. A. Cornish, Technometrics 2, 1960).
fn student(freedom: f64) -> f64 {
    const MANY: f64 = 1000.0;
    const STEPS: u32 = 4000;
    let n = freedom.max(1.0);
    if n > MANY {
        return Z + (Z.powi(3) + Z) / (4.0 * n);
    }
    let step = FRAC_PI_2 / f64::from(STEPS);
    let density = |at: u32| ((f64::from(at) + 0.5) * step).cos().powf(n - 1.0);
    let wanted = 0.95 * (0..STEPS).map(density).sum::<f64>();
    let (mut at, mut sum) = (0, 0.0);
    while at < STEPS - 1 && sum + density(at) < wanted {
        sum += density(at);
        at += 1;
    }
    let angle = (f64::from(at) + (wanted - sum) / density(at)) * step;
    n.sqrt() * angle.tan()
}

#[cfg(test)]
mod tests {
    use super::super::{Cluster, Moments};
    use super::*;

    /// One observation a cluster.
    fn of(values: &[f64]) -> Mean {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.see(&mut Cluster::default(), *value));
        moments.mean()
    }

    fn share(yes: usize, count: usize) -> Mean {
        let values: Vec<f64> = (0..count).map(|at| f64::from(u8::from(at < yes))).collect();
        of(&values)
    }

    fn assert_near(found: Interval, low: f64, high: f64, within: f64) {
        let off = (found.low - low).abs().max((found.high - high).abs());
        assert!(off <= within, "{found:?} is not {low}..{high}");
    }

    #[test]
    fn quantiles_of_student_are_those_of_the_tables() {
        let table = [
            (1.0, 12.7062),
            (2.0, 4.3027),
            (3.0, 3.1824),
            (4.0, 2.7764),
            (5.0, 2.5706),
            (9.0, 2.2622),
            (10.0, 2.2281),
            (30.0, 2.0423),
            (120.0, 1.9799),
            (1e9, 1.9600),
        ];
        for (freedom, expected) in table {
            let found = student(freedom);
            assert!((found - expected).abs() < 0.000_4 * expected, "{freedom}: {found}");
        }
        assert!(student(2.5) < student(2.0) && student(2.5) > student(3.0));
    }

    #[test]
    fn a_mean_has_students_interval() {
        // 5 ± 2.3646 × √(32 ÷ 56).
        let mean = of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_near(mean.interval().unwrap(), 3.2125, 6.7875, 0.001);
        assert_eq!(of(&[3.0]).interval(), None);
        assert_eq!(of(&[]).interval(), None);
    }

    #[test]
    fn a_difference_has_welchs_interval() {
        // 27.71 degrees of freedom, where the quantile is 2.0494, times 0.97581.
        let a = [
            27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7,
            21.4,
        ];
        let b = [
            27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.0,
            23.9,
        ];
        let (a, b) = (of(&a), of(&b));
        let found = difference_of_means(&a, &b).unwrap();
        assert_near(found, -4.7665, -0.7669, 0.001);
        assert!(!found.has_zero());
        // Very unequal ones: t = -9.5595, 2.0009 degrees of freedom.
        let (few, fewer) = (of(&[3.0, 4.0, 1.0, 2.1]), of(&[490.2, 340.0, 433.9]));
        let found = difference_of_means(&few, &fewer).unwrap();
        assert_near(found, -607.3, -230.4, 0.2);
        let same = difference_of_means(&a, &a).unwrap();
        assert!(same.has_zero());
        assert_near(same, -(same.high), same.high, 1e-12);
    }

    #[test]
    fn shares_have_wilsons_interval_and_differences_newcombes() {
        // Newcombe 1998, table I: 81 of 263 has 0.2553 to 0.3662; 0 of 20 has 0 to 0.1611.
        let wilson_of = |yes: f64, count: f64| wilson(yes / count, count);
        assert_near(wilson_of(81.0, 263.0), 0.2553, 0.3662, 0.000_1);
        assert_near(wilson_of(0.0, 20.0), 0.0, 0.1611, 0.000_1);
        assert_near(share(0, 20).interval_of_share().unwrap(), 0.0, 0.1611, 0.000_1);
        // His table II: 56 of 70 less 48 of 80 is 0.0524 to 0.3339.
        let found = difference_of_shares(&share(56, 70), &share(48, 80)).unwrap();
        assert_near(found, 0.0524, 0.3339, 0.003);
        assert!(difference_of_shares(&share(0, 20), &share(0, 30)).unwrap().has_zero());
    }

    #[test]
    fn failures_that_come_together_count_for_less() {
        let mut moments = Moments::default();
        for task in 0..20 {
            let mut cluster = Cluster::default();
            (0..50).for_each(|_| moments.see(&mut cluster, f64::from(u8::from(task < 2))));
        }
        let together = moments.mean();
        let found = together.interval_of_share().unwrap();
        let alone = share(100, 1000).interval_of_share().unwrap();
        assert!(found.high - found.low > 4.0 * (alone.high - alone.low), "{found:?} {alone:?}");
    }
}
