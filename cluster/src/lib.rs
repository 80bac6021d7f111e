//! The cluster: manager, scheduler and seed, and the process that runs any or all of them.

pub mod assemble;
pub mod manager;
pub mod membership;
pub mod metrics;
pub mod options;
pub mod scheduler;
pub mod seed;

mod at_least;
mod duration;
