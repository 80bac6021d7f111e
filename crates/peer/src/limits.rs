//! What leaves this host, how much at a time and how fast.
//!
//! [`RateLimiter`] is the byte rate, [`UploadSlots`] the number of segments on their way at once and the
//! order in which waiting children get their turn; these two have a pure core ([`TokenBucket`], [`SlotQueue`])
//! that takes events and the time and returns decisions; the async shells only wait and wake. [`OriginSlots`] is
//! how much is asked of origins at a time, [`Turns`] who gives way to whom with what has come.
//! Nothing here survives the process, and nothing needs to.

mod bucket;
mod origins;
mod rate;
mod slots;
mod turns;
mod upload;

pub use bucket::TokenBucket;
pub use origins::{OriginSlot, OriginSlots};
pub use rate::RateLimiter;
pub use slots::{SlotLimits, SlotQueue, Ticket};
pub use turns::Turns;
pub use upload::{Slot, UploadSlots};
