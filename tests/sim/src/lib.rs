//! A deterministic flow-level simulator of a swarm: it drives the scheduler's own matcher, and baselines beside it, over
//! links of given rates, and measures against the fluid bound.
//!
//! Time is virtual. Equal scenarios and seeds give equal runs, down to the hash of all decisions.

pub mod baselines;
pub mod bound;
pub mod network;
pub mod policy;
pub mod row;
pub mod run;
pub mod scenario;
