//! What is compared of strategies, as those who count and those who show it name it.

/// What shares are parts of.
pub const WHOLE: u32 = 10_000;

/// The name of the arm that has what is left.
pub const REST: &str = "default";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Milliseconds from the first want of a download until all of it is there.
    Completion,
    /// Bytes read from the source for each host that succeeded, by itself and by seeds.
    Source,
    /// Bytes that a host which succeeded took from other data centres.
    Crossed,
    /// Whether a host gave up, 0 or 1.
    Failed,
    /// Microseconds that a read which found nothing waited.
    Blocked,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Completion, Self::Source, Self::Crossed, Self::Failed, Self::Blocked];

    /// Whether its distribution is kept, beside its mean.
    pub fn has_distribution(self) -> bool {
        matches!(self, Self::Completion | Self::Blocked)
    }
}
