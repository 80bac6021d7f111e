//! Who may be whose parent: the cluster's scheduler. What leads hosts is [`dfs_leader`]; here is how it is set up, and
//! what only a scheduler does: it knows what URLs are, and has seeds fetch what nobody wants yet.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_scheduler::core;
use serde::{Deserialize, Serialize};

mod arms;
mod grpc;
mod preheat;
mod profiles;
mod resolve;

pub use arms::ArmOptions;
pub use dfs_leader::{Error, Fill, Handle, Policy, Pulse, Reception, Seeds, Service};
pub use grpc::Grpc;
pub use resolve::{Resolver, Settings};

/// What a scheduler can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// Children at a time of a host that names no limit of its own.
    #[serde(deserialize_with = "crate::at_least::one")]
    pub upload_slots: u32,
    /// Hosts of one task that may read the source at a time.
    #[serde(deserialize_with = "crate::at_least::one")]
    pub at_source: usize,
    /// How long a host whose stream broke is waited for.
    #[serde(with = "crate::duration::waited")]
    pub host_lease: Duration,
    /// How long a seed may take to begin with a task.
    #[serde(with = "crate::duration::waited")]
    pub seed_answer: Duration,
    /// How long a task is remembered that nobody has open any more: after that it is known who holds some of it, and no
    /// more.
    #[serde(with = "crate::duration")]
    pub task_idle: Duration,
    /// How long it is remembered what a URL is; 0s asks a seed every time.
    #[serde(with = "crate::duration")]
    pub resolve_cache: Duration,
    /// How long what a URL was stays the answer where nobody can say what it is now; 0s: not at all.
    #[serde(with = "crate::duration")]
    pub resolve_kept: Duration,
    /// How long it may take to find out what a URL is, whichever seeds are asked.
    #[serde(with = "crate::duration::waited")]
    pub resolve_timeout: Duration,
    /// Messages in a second beyond which nodes are asked to lead their neighbours, one in a data centre or rack; 0: never.
    pub delegate_above: u64,
    /// Hosts that take one content in one data centre or rack, so that one of them may lead the others; 2 at least.
    #[serde(deserialize_with = "crate::at_least::two")]
    pub delegate_from: usize,
    /// What seeds fetch beyond what is wanted of them.
    pub fill: Fill,
    /// Who decides who sends what to whom: swarm, random, seed004, seed004+.
    pub strategy: Strategy,
    /// Arms of an A/B test, tables by name: each has a `strategy` and the `share` of all URLs that it decides about, as
    /// `10%`; the rest is left to `scheduler.strategy`.
    #[serde(deserialize_with = "arms::read")]
    pub arms: BTreeMap<String, ArmOptions>,
}

/// Who decides who sends what to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Free uplinks are leased the rarest useful piece, the nearest hungry host first.
    #[default]
    Swarm,
    /// Free uplinks are leased any useful piece: what swarm is measured against.
    Random,
    /// Hosts choose among four parents of fifteen: the founding design's.
    Seed004,
    /// The same, of candidates that are near and have what is lacking.
    #[serde(rename = "seed004+")]
    Seed004Plus,
}

impl Strategy {
    fn make(self) -> Box<dyn core::Strategy> {
        match self {
            Self::Swarm => Box::new(core::Leases::swarm()),
            Self::Random => Box::new(core::Leases::random()),
            Self::Seed004 => Box::new(core::Seed004),
            Self::Seed004Plus => Box::new(core::Seed004Plus),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        let limits = core::Limits::default();
        Self {
            upload_slots: limits.upload_slots,
            at_source: limits.at_source,
            host_lease: limits.host_lease,
            seed_answer: limits.seed_answer,
            task_idle: limits.idle,
            resolve_cache: Duration::from_secs(10),
            resolve_kept: Duration::from_secs(24 * 3600),
            resolve_timeout: Duration::from_secs(120),
            delegate_above: limits.delegate_above,
            delegate_from: limits.delegate_from,
            fill: Fill::Wanted,
            strategy: Strategy::default(),
            arms: BTreeMap::new(),
        }
    }
}

impl Options {
    /// How a scheduler leads that was told this.
    pub fn policy(&self) -> Policy {
        Policy { limits: self.limits(), arms: self.arms(), fill: self.fill }
    }

    fn arms(&self) -> core::Arms {
        let arms = self.arms.iter().map(|(name, arm)| arm.make(name));
        core::Arms::new(self.strategy.make(), arms.collect())
    }

    fn limits(&self) -> core::Limits {
        core::Limits {
            upload_slots: self.upload_slots,
            at_source: self.at_source,
            host_lease: self.host_lease,
            seed_answer: self.seed_answer,
            idle: self.task_idle,
            delegate_above: self.delegate_above,
            delegate_from: self.delegate_from,
            ..core::Limits::default()
        }
    }
}
