//! Who sends what to whom: the pure core of the scheduler.
//!
//! Nothing here has a clock, a socket or randomness of its own: time and a random source are passed in, so that the
//! service and the simulator run the same code, and equal inputs give equal decisions.

pub mod core;
pub mod matcher;
