//! What can be said of two arms by what was seen of each: means and shares with their intervals, and differences.
//!
//! Arms are drawn by URL, not by host: what hosts tell of one is alike (it is the same content from the same place, in
//! all its versions and views), and a hundred of them say little more than one. Every observation therefore belongs to a
//! cluster, its URL, and all variances are those between clusters:
//!
//! * a mean over all observations is a ratio of two sums over clusters, Σyᵢ ÷ Σmᵢ; its variance by linearisation is
//!   k ÷ (k − 1) × Σ(yᵢ − r·mᵢ)² ÷ (Σmᵢ)² (W. G. Cochran, Sampling Techniques, 3rd ed., §6.3 and §9A.1; A. Deng,
//!   U. Knoblich, J. Lu, Applying the Delta Method in Metric Analytics, KDD 2018). With one observation a cluster that
//!   is the usual s² ÷ n;
//! * its interval is Student's with k − 1 degrees of freedom, a difference's is B. L. Welch's (Biometrika 34, 1947)
//!   with F. E. Satterthwaite's degrees of freedom;
//! * a share has E. B. Wilson's interval (JASA 22, 1927) with as many observations as its variance is worth (E. L. Korn,
//!   B. I. Graubard, Survey Methodology 24, 1998); a difference of shares has R. G. Newcombe's, his tenth method
//!   (Statistics in Medicine 17, 1998).
//!
//! What is kept is bounded whatever is seen: six numbers for a mean, some hundred counters for a distribution.

mod intervals;
mod moments;
mod sketch;

pub use intervals::{Interval, difference_of_means, difference_of_shares};
pub use moments::{Cluster, Mean, Moments};
pub use sketch::{BUCKETS, Sketch};

/// Fewer clusters in an arm say nothing of it: no difference is called one.
pub const FEW: u64 = 10;
