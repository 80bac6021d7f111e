//! The joint at which scheduling strategies plug in.
//!
//! A strategy is a pure function of what the swarm looks like; the core applies its answer and drops
//! whatever breaks a rule that holds for every strategy ([`Swarm::refusal`]).

use std::collections::{BTreeMap, BTreeSet};

use dfs_model::HostId;
use rand::rngs::StdRng;

use super::evidence::{Candidate, Reason};
use super::{Host, Millis, Peer, PeerState, Task};
use crate::matcher::Tuning;

pub mod leases;
pub(super) mod scoring;
pub mod seed004;
pub mod seed004_plus;

/// Decides who serves a child.
pub trait Strategy: Send {
    /// Its name in configuration and in the greeting.
    fn name(&self) -> &'static str;

    /// The parents of `ask.child`, and what was made of the others. Its former edges are already gone.
    fn parents(&self, swarm: &Swarm<'_>, ask: &Ask<'_>, random: &mut StdRng) -> Choice;

    /// How uplinks are leased to those who want everything in any order; none where children choose for themselves
    /// among their parents.
    fn leases(&self) -> Option<Tuning> {
        None
    }
}

/// Whom a strategy chose, and why not others: the latter is only for people.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The parents, best first.
    pub chosen: Vec<HostId>,
    /// All it looked at.
    pub candidates: Vec<Candidate>,
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
    /// Why `parent` may not be granted to the child at all. It may where it is another host, here, trusted, below its
    /// upload limit, has or will have something, and does not itself live on the child.
    pub fn refusal(&self, ask: &Ask<'_>, parent: &HostId) -> Option<Reason> {
        if *parent == ask.child {
            return Some(Reason::Itself);
        }
        if self.task.blacklist.contains(parent) {
            return Some(Reason::Blacklisted);
        }
        if ask.descendants.contains(parent) {
            return Some(Reason::LivesOnIt);
        }
        let (Some(host), Some(peer)) = (self.hosts.get(parent), self.task.peer(parent)) else {
            // A seed that was asked and has not answered has nothing yet.
            let is_asked = self.task.state.seed() == Some(*parent);
            return Some(if is_asked { Reason::HasNothing } else { Reason::Gone });
        };
        if host.silent_since.is_some() {
            return Some(Reason::Silent);
        }
        if !host.has_room_for(&ask.child) {
            return Some(Reason::NoSlot);
        }
        if ask.peer.blocks(parent, peer, self.now) {
            return Some(Reason::Blocked);
        }
        self.lack(parent, peer)
    }

    /// Why a peer has nothing to give and will not, where that is so.
    fn lack(&self, host: &HostId, peer: &Peer) -> Option<Reason> {
        if peer.serves_only_itself {
            return Some(Reason::ServesOnlyItself);
        }
        let gives = match peer.state() {
            PeerState::Failed => return Some(Reason::GaveUp),
            PeerState::Seeding => true,
            PeerState::Source { .. } => !peer.held.is_nothing() || peer.stand_in,
            PeerState::Fetching => !self.task.dag.parents(host).is_empty(),
            PeerState::Resting | PeerState::Waiting { .. } => !peer.held.is_nothing(),
        };
        (!gives).then_some(Reason::HasNothing)
    }
}
