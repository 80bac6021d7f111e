//! What the end-to-end tests and the demo stand on: an origin that counts and misbehaves on
//! request, our programs as processes, clusters and mounts that always go away.
//!
//! Nothing here knows the insides of dfs: it drives the binaries as a person would.

pub mod bucket;
pub mod cluster;
mod container;
mod distance;
mod failure;
pub mod origin;
pub mod process;
pub mod registry;
mod server;
pub mod testbed;
pub mod wait;
mod watchdog;

pub use bucket::Bucket;
pub use cluster::{Cluster, Dfctl, Mount, Node};
pub use container::{Container, Inside};
pub use distance::Distance;
pub use failure::Failure;
pub use origin::{Body, Fault, Origin};
pub use process::{Binaries, Process};
pub use registry::Registry;
pub use testbed::Testbed;
pub use watchdog::{Owned, Watchdog};
