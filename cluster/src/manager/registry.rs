//! The member list as a pure core: who joins, renews, runs out.
//!
//! A host id belongs for ever to the key that came with it first: nobody takes over another's name.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_model::{HostId, HostInfo};
use dfs_proto::convert::{BadMessage, grpc_addresses};
use dfs_proto::{common, manager};
use tokio::time::Instant;

/// Most members listed: schedulers and seeds are few.
const MAX_MEMBERS: usize = 10_000;

/// Why a host may not join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It does not say who it is.
    #[error(transparent)]
    Malformed(#[from] BadMessage),
    /// It does not say as what it joins.
    #[error("the role is missing")]
    NoRole,
    /// Schedulers and seeds must be reachable.
    #[error("a scheduler or seed must announce the address of its gRPC service")]
    Unreachable,
    /// Another host has this id.
    #[error("host id {0} belongs to another key")]
    ForeignId(HostId),
    /// The list is full.
    #[error("the cluster has {MAX_MEMBERS} members already")]
    Full,
}

/// A change to the list, to be made durable before it is applied.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A member is new, or says something new of itself.
    Put {
        /// As what.
        role: manager::Role,
        /// Who.
        id: HostId,
        /// What it says.
        host: Box<common::Host>,
        /// Its key.
        key: [u8; 32],
    },
    /// A member's lease ran out.
    Drop {
        /// As what.
        role: manager::Role,
        /// Who.
        id: HostId,
    },
}

/// What survives a restart.
#[derive(Debug, Clone, Default)]
pub struct Saved {
    /// The cluster's name, made at its first start.
    pub cluster_id: Vec<u8>,
    /// Version of the list.
    pub version: u64,
    /// The members.
    pub members: Vec<(manager::Role, HostId, common::Host)>,
    /// Keys of every host that ever joined.
    pub keys: Vec<(HostId, [u8; 32])>,
}

struct Entry {
    host: common::Host,
    until: Instant,
}

/// The member list and its leases.
pub struct Registry {
    lease: Duration,
    cluster_id: Vec<u8>,
    version: u64,
    members: BTreeMap<(i32, HostId), Entry>,
    keys: BTreeMap<HostId, [u8; 32]>,
}

impl Registry {
    /// What was saved; every member has a whole lease from `now`.
    pub fn new(saved: Saved, lease: Duration, now: Instant) -> Self {
        let entry = |host| Entry { host, until: now + lease };
        let members = saved.members.into_iter();
        Self {
            lease,
            cluster_id: saved.cluster_id,
            version: saved.version,
            members: members.map(|(role, id, host)| ((role.into(), id), entry(host))).collect(),
            keys: saved.keys.into_iter().collect(),
        }
    }

    /// Checks a host that joins or renews; says what changes by it, if anything. Nodes only look:
    /// they are not listed.
    pub fn check(
        &self,
        role: manager::Role,
        host: &common::Host,
    ) -> Result<Option<Change>, Rejected> {
        let info = HostInfo::try_from(host.clone())?;
        let addresses = grpc_addresses(host)?;
        match role {
            manager::Role::Unspecified | manager::Role::Manager => return Err(Rejected::NoRole),
            manager::Role::Node | manager::Role::Guest => return Ok(None),
            manager::Role::Scheduler | manager::Role::Seed => {}
        }
        if addresses.is_empty() {
            return Err(Rejected::Unreachable);
        }
        if self.keys.get(&info.id).is_some_and(|key| *key != info.public_key) {
            return Err(Rejected::ForeignId(info.id));
        }
        let known = self.members.get(&(role.into(), info.id));
        if known.is_some_and(|entry| entry.host == *host) {
            return Ok(None);
        }
        if known.is_none() && self.members.len() >= MAX_MEMBERS {
            return Err(Rejected::Full);
        }
        let (id, key) = (info.id, info.public_key);
        let host = Box::new(host.clone());
        Ok(Some(Change::Put { role, id, host, key }))
    }

    /// Members whose lease has run out.
    pub fn expired(&self, now: Instant) -> Vec<Change> {
        let late = self.members.iter().filter(|(_, entry)| entry.until <= now);
        late.map(|((role, id), _)| Change::Drop {
            role: manager::Role::try_from(*role).unwrap_or_default(),
            id: *id,
        })
        .collect()
    }

    /// When the next lease runs out.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.members.values().map(|entry| entry.until).min()
    }

    /// The list's version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version that the next change makes.
    pub fn next_version(&self) -> u64 {
        self.version + 1
    }

    /// Applies changes that are durable as version [`next_version`](Self::next_version).
    pub fn apply(&mut self, changes: Vec<Change>, now: Instant) {
        self.version = self.next_version();
        for change in changes {
            match change {
                Change::Put { role, id, host, key } => {
                    self.keys.insert(id, key);
                    let until = now + self.lease;
                    self.members.insert((role.into(), id), Entry { host: *host, until });
                }
                Change::Drop { role, id } => {
                    self.members.remove(&(role.into(), id));
                }
            }
        }
    }

    /// Gives a member a whole lease from `now`.
    pub fn renew(&mut self, role: manager::Role, id: HostId, now: Instant) {
        if let Some(entry) = self.members.get_mut(&(role.into(), id)) {
            entry.until = now + self.lease;
        }
    }

    /// The list as it travels; what the operator says of areas is added to it.
    pub fn list(&self) -> manager::MemberList {
        let members = self.members.iter().map(|((role, _), entry)| manager::Member {
            host: Some(entry.host.clone()),
            role: *role,
        });
        manager::MemberList {
            version: self.version,
            members: members.collect(),
            lease_ms: u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX),
            cluster_id: self.cluster_id.clone().into(),
            origin_areas: Vec::new(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn host(n: u8) -> common::Host {
        common::Host {
            id: vec![n; 16].into(),
            kind: common::HostKind::Seed.into(),
            name: format!("seed-{n}"),
            grpc: vec![common::Endpoint { ip: "127.0.0.1".into(), port: 4000 + u32::from(n) }],
            public_key: vec![n; 32].into(),
            ..common::Host::default()
        }
    }

    fn join(registry: &mut Registry, host: &common::Host, now: Instant) -> bool {
        let change = registry.check(manager::Role::Seed, host).unwrap();
        let is_news = change.is_some();
        registry.apply(change.into_iter().collect(), now);
        is_news
    }

    #[test]
    fn only_news_change_the_list() {
        let now = Instant::now();
        let mut registry = Registry::new(Saved::default(), Duration::from_secs(9), now);
        assert!(join(&mut registry, &host(1), now));
        assert_eq!(registry.check(manager::Role::Seed, &host(1)), Ok(None));
        let moved = common::Host { name: "moved".into(), ..host(1) };
        assert!(registry.check(manager::Role::Seed, &moved).unwrap().is_some());
    }

    #[test]
    fn a_lease_runs_out_unless_it_is_renewed() {
        let now = Instant::now();
        let lease = Duration::from_secs(9);
        let mut registry = Registry::new(Saved::default(), lease, now);
        join(&mut registry, &host(1), now);
        join(&mut registry, &host(2), now);
        registry.renew(manager::Role::Seed, HostId::from_bytes([2; 16]), now + lease / 2);
        let late = registry.expired(now + lease);
        let expected = Change::Drop { role: manager::Role::Seed, id: HostId::from_bytes([1; 16]) };
        assert_eq!(late, [expected]);
        registry.apply(late, now + lease);
        assert_eq!(registry.list().members.len(), 1);
        assert_eq!(registry.next_expiry(), Some(now + lease / 2 + lease));
    }

    #[test]
    fn nobody_takes_over_another_hosts_name_even_when_it_is_gone() {
        let now = Instant::now();
        let mut registry = Registry::new(Saved::default(), Duration::from_secs(9), now);
        join(&mut registry, &host(1), now);
        registry.apply(registry.expired(now + Duration::from_secs(9)), now);
        let thief = common::Host { public_key: vec![9; 32].into(), ..host(1) };
        let id = HostId::from_bytes([1; 16]);
        assert_eq!(registry.check(manager::Role::Seed, &thief), Err(Rejected::ForeignId(id)));
    }

    #[test]
    fn who_cannot_be_reached_or_named_does_not_join() {
        let registry = Registry::new(Saved::default(), Duration::from_secs(9), Instant::now());
        let silent = common::Host { grpc: Vec::new(), ..host(1) };
        let check = |role, host: &common::Host| registry.check(role, host).unwrap_err();
        assert_eq!(check(manager::Role::Seed, &silent), Rejected::Unreachable);
        assert_eq!(check(manager::Role::Unspecified, &host(1)), Rejected::NoRole);
        let nameless = common::Host { id: vec![1].into(), ..host(1) };
        assert!(matches!(check(manager::Role::Seed, &nameless), Rejected::Malformed(_)));
        assert_eq!(registry.check(manager::Role::Node, &silent), Ok(None), "nodes only look");
    }
}
