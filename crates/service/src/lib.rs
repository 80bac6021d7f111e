//! What every long-running process shares: configuration, telemetry, lifecycle, the network's edge.
//!
//! A process is assembled from these pieces in the order in which it starts: load the options
//! ([`config`]), begin logging ([`telemetry`]), take its private directory ([`data_dir`]), bind its
//! listeners ([`net`]), start its services ([`lifecycle`]), announce itself ([`run_info`]) and let
//! people look inside ([`admin`], [`metrics`]). [`process`] is that order, and what all can be told. Nothing
//! here knows what the process is for; of a cluster it is known how its manager is asked ([`net::manager`]).

pub mod admin;
pub mod allocator;
pub mod config;
pub mod data_dir;
pub mod extensions;
pub mod lifecycle;
pub mod metrics;
pub mod net;
pub mod private_file;
pub mod process;
pub mod run_info;
pub mod telemetry;
pub mod tls;

pub use extensions::Extensions;
pub use lifecycle::{Backoff, Lifecycle, OnFailure, Tracker};
