//! How urgently bytes are wanted.

use serde::{Deserialize, Serialize};

/// Order in which wanted groups are served, most urgent first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[repr(u8)]
pub enum Priority {
    /// A reader is blocked on it.
    Demand = 0,
    /// A reader will want it in a moment.
    ReadAhead = 1,
    /// A download somebody waits for.
    #[default]
    Bulk = 2,
    /// A profile says it will be wanted.
    Prefetch = 3,
    /// Nobody waits; fills the cache while nothing else is to do.
    Background = 4,
}

impl Priority {
    /// Reads a priority off the wire; unknown values count as the least urgent.
    pub fn from_wire(value: u8) -> Self {
        match value {
            0 => Self::Demand,
            1 => Self::ReadAhead,
            2 => Self::Bulk,
            3 => Self::Prefetch,
            _ => Self::Background,
        }
    }
}
