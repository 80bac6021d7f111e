//! The joint at which scheduling strategies plug in.
//!
//! A strategy is a pure function of what the swarm looks like; the core applies its answer and drops
//! whatever breaks a rule that holds for every strategy ([`Swarm::may_serve`]).

use std::collections::{BTreeMap, BTreeSet};

use dfs_model::HostId;
use rand::rngs::StdRng;

use super::{Host, Millis, Peer, PeerState, Task};
use crate::matcher::Tuning;

pub mod leases;
pub mod seed004;

/// Decides who serves a child.
pub trait Strategy: Send {
    /// Its name in configuration and in the greeting.
    fn name(&self) -> &'static str;

    /// The parents of `ask.child`, best first. Its former edges are already gone.
    fn parents(&self, swarm: &Swarm<'_>, ask: &Ask<'_>, random: &mut StdRng) -> Vec<HostId>;

    /// How uplinks are leased to those who want everything in any order; none where children choose for themselves
    /// among their parents.
    fn leases(&self) -> Option<Tuning> {
        None
    }
}

/// One task's swarm as a strategy sees it.
pub struct Swarm<'a> {
    /// The task.
    pub task: &'a Task,
    /// All hosts.
    pub hosts: &'a BTreeMap<HostId, Host>,
    /// Now.
    pub now: Millis,
}

/// For whom parents are wanted.
pub struct Ask<'a> {
    /// The child.
    pub child: HostId,
    /// Its part in the task.
    pub peer: &'a Peer,
    /// Its parents until now.
    pub former: &'a [HostId],
    /// Everybody who lives on it.
    pub descendants: &'a BTreeSet<HostId>,
}

impl Swarm<'_> {
    /// Whether `parent` may be granted to the child at all: it is another host, here, trusted, below
    /// its upload limit, has or will have something, and does not itself live on the child.
    pub fn may_serve(&self, ask: &Ask<'_>, parent: &HostId) -> bool {
        if *parent == ask.child
            || self.task.blacklist.contains(parent)
            || ask.descendants.contains(parent)
        {
            return false;
        }
        let Some(host) = self.hosts.get(parent) else { return false };
        let Some(peer) = self.task.peer(parent) else { return false };
        host.has_room_for(&ask.child)
            && !ask.peer.blocks(parent, peer, self.now)
            && self.has_or_will_have(parent, peer)
    }

    fn has_or_will_have(&self, host: &HostId, peer: &Peer) -> bool {
        if peer.serves_only_itself {
            return false;
        }
        match peer.state() {
            PeerState::Failed => false,
            PeerState::Seeding => true,
            PeerState::Source { .. } => !peer.held.is_nothing() || peer.stand_in,
            PeerState::Fetching => !self.task.dag.parents(host).is_empty(),
            PeerState::Resting | PeerState::Waiting { .. } => !peer.held.is_nothing(),
        }
    }
}
