//! Whoever leads: the shell around the pure core of [`dfs_scheduler`].
//!
//! The shell's [`Service`] is one task that owns the core, with a bounded mailbox; every host has one
//! stream with a bounded queue ([`Reception`]), and a host that does not read is dropped. Nothing here survives the
//! process: hosts announce again what they hold. The cluster's scheduler is one such, which orders seeds.

use std::sync::Arc;

use dfs_model::HostInfo;
use dfs_peer::engine::Engine;
use dfs_peer::swarm::Channels;
use dfs_scheduler::core;
use serde::{Deserialize, Serialize};

mod announcement;
mod attendance;
pub mod delegate;
pub mod giving;
mod looking;
pub mod members;
mod messages;
pub mod metrics;
mod naming;
mod obtain;
mod service;

pub use attendance::{Heard, Pulse, Reception};
pub use service::{Handle, Service};

/// How it leads.
pub struct Policy {
    /// Limits and spans of the core.
    pub limits: core::Limits,
    /// Who decides who sends what to whom.
    pub arms: core::Arms,
    /// What seeds fetch beyond what is wanted of them.
    pub fill: Fill,
}

/// What a seed fetches of a task beyond what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// Nothing.
    Wanted,
    /// The rest, while it has nothing else to do.
    Idle,
    /// All of it.
    All,
}

/// Who brings what those who are led lack.
pub enum Seeds {
    /// The seeds of the member list, over these channels.
    Listed(Arc<dyn Channels>),
    /// This host alone, by what its engine has: it is led by somebody else itself.
    Own(Arc<HostInfo>, Engine),
}

/// Why nobody leads here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service has stopped.
    #[error("the scheduler has stopped")]
    Stopped,
}
