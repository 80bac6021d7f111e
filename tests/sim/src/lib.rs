//! A deterministic flow-level simulator of a swarm: it drives the scheduler's own core and the peers' own piece picker,
//! and baselines beside them, over links of given rates, and measures against the fluid bound.
//!
//! Time is virtual. Equal scenarios and seeds give equal runs, down to the hash of all decisions.

pub mod baselines;
pub mod bound;
pub mod check;
pub mod child;
pub mod control;
pub mod core;
pub mod delegating;
pub mod fair;
pub mod faults;
pub mod gate;
pub mod hosts;
pub mod links;
pub mod network;
pub mod outcome;
/// The pure parts of a peer, as they are: the same files. The crate that they are of would have the simulator wait for
/// all that peers are made of beside them.
#[path = "../../../crates/peer/src"]
pub mod peer {
    pub mod conductor;
    #[path = "engine/patience.rs"]
    pub mod patience;
}
pub mod plot;
pub mod policy;
pub mod row;
pub mod run;
pub mod scenario;
pub mod speed;
pub mod strategy;
pub mod world;
