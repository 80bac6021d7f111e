//! The cluster: manager, scheduler and seed, and the process that runs any or all of them.

pub mod scheduler;
