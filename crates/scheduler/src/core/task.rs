//! One task: its state machine, its peers, its digests.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{GroupRange, GroupSet, HostId, RouteKey, TaskInfo, groups_in};

use super::arms::ArmNumber;
use super::lead::Lead;
use super::recall::Recall;
use super::reserves::Reserves;
use super::{
    Dag, Delegations, Held, Millis, Peer, PeerState, RefusalKind, Roster, SizeScope, Wanted,
};

/// Largest content that travels inside an answer, in bytes.
pub const TINY_BYTES: u64 = 4096;

/// Most digest bytes kept per task; the oldest batches go first, parents hold them too.
pub const MAX_DIGEST_BYTES: usize = 8 << 20;

/// How a task gets its bytes into the swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// No seed takes part: there is what peers hold and what stand-ins read.
    Open,
    /// A seed was ordered to take part and has not answered.
    Asked {
        /// Which.
        seed: HostId,
        /// The order's number.
        obtain: u64,
        /// When it counts as failed.
        deadline: Millis,
    },
    /// A seed takes part.
    Seeded {
        /// Which.
        seed: HostId,
        /// The order's number; `None` once the seed has no more to say.
        obtain: Option<u64>,
    },
    /// The origin has said no.
    Void {
        /// Why, for programs.
        kind: RefusalKind,
        /// Why, for people.
        reason: String,
        /// When a seed may be asked again.
        until: Millis,
    },
}

impl TaskState {
    /// A word for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Asked { .. } => "asked",
            Self::Seeded { .. } => "seeded",
            Self::Void { .. } => "void",
        }
    }

    /// The order under way, if any.
    pub fn obtain(&self) -> Option<u64> {
        match self {
            Self::Asked { obtain, .. } => Some(*obtain),
            Self::Seeded { obtain, .. } => *obtain,
            Self::Open | Self::Void { .. } => None,
        }
    }

    /// The seed it is about, if any.
    pub fn seed(&self) -> Option<HostId> {
        match self {
            Self::Asked { seed, .. } | Self::Seeded { seed, .. } => Some(*seed),
            Self::Open | Self::Void { .. } => None,
        }
    }
}

/// Signed digest batches, opaque and each once.
#[derive(Debug, Default)]
pub struct Digests {
    batches: VecDeque<Bytes>,
    known: HashSet<Bytes>,
    bytes: usize,
}

impl Digests {
    /// Keeps a batch; whether it is new.
    pub fn add(&mut self, batch: Bytes) -> bool {
        if batch.is_empty() || batch.len() > MAX_DIGEST_BYTES || !self.known.insert(batch.clone()) {
            return false;
        }
        self.bytes += batch.len();
        self.batches.push_back(batch);
        while self.bytes > MAX_DIGEST_BYTES {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.known.remove(&oldest);
            self.bytes -= oldest.len();
        }
        true
    }

    /// All of them, for a late joiner.
    pub fn snapshot(&self) -> Vec<Bytes> {
        self.batches.iter().cloned().collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

/// Bytes moved for one task or for all of an arm, of peers that have gone too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Read from the source, by seeds and nodes.
    pub source: u64,
    /// Taken from other hosts.
    pub taken: u64,
    /// Of that, from hosts in another data centre.
    pub crossed: u64,
}

impl Totals {
    /// So much more has been moved.
    pub(super) fn add(&mut self, more: Self) {
        self.source = self.source.saturating_add(more.source);
        self.taken = self.taken.saturating_add(more.taken);
        self.crossed = self.crossed.saturating_add(more.crossed);
    }
}

/// One task.
#[derive(Debug)]
pub struct Task {
    /// What it is.
    pub spec: TaskInfo,
    /// How it gets its bytes.
    pub state: TaskState,
    /// Who feeds whom.
    pub dag: Dag,
    /// Signed digests.
    pub digests: Digests,
    /// Number of the last delta sent.
    pub version: u64,
    /// All of it, when tiny and known.
    pub tiny: Option<Bytes>,
    /// Hosts that served bytes which did not verify: leaving and coming back clears nobody.
    pub blacklist: BTreeSet<HostId>,
    /// Since when children complain that the seed does not answer, and nobody has heard of it.
    pub seed_mute_since: Option<Millis>,
    /// Seeds that failed, each until when.
    pub failed_seeds: BTreeMap<HostId, Millis>,
    /// Who was asked what it holds of it, once it was wanted.
    pub(super) recall: Option<Recall>,
    /// When the idle timer that is set fires.
    pub idle_due: Option<Millis>,
    /// When anybody did anything last of those who only hold it for others.
    pub(super) put_away_at: Millis,
    /// What seeds are ordered to fetch before it is asked of them.
    pub ordered: GroupSet,
    /// Groups whose digests the seed that takes part has sent.
    pub proven: GroupSet,
    /// Whether some that it has sent by the order under way were nobody's who is known.
    pub unjudged: bool,
    /// When something was due to be ordered last.
    pub ordered_at: Option<Millis>,
    /// The leases of those who want it in any order, once there is one.
    pub lead: Option<Lead>,
    /// Those who lead parts of those who take it.
    pub(super) delegations: Delegations,
    /// Who reads the source for a place that is cut off.
    pub(super) reserves: Reserves,
    /// Bytes moved for it, as far as it was told.
    pub totals: Totals,
    /// Which strategy decides.
    pub(super) arm: ArmNumber,
    /// What it is a version or view of.
    pub(super) route: RouteKey,
    /// Bytes that seeds have read of it since a host succeeded.
    pub(super) read_by_seeds: u64,
    /// Whoever waits or reads the source, and some who did.
    unsettled: BTreeSet<HostId>,
    /// Whether all that anybody wants in any order is in `ordered`.
    is_all_ordered: bool,
    /// Peers whose part may have changed since the matcher was told of it.
    changed: BTreeSet<HostId>,
    peers: BTreeMap<HostId, Peer>,
    /// The same hosts in no order, for sampling.
    roster: Roster,
}

impl Task {
    /// A task without peers.
    pub fn new(spec: TaskInfo, arm: ArmNumber) -> Self {
        let route = RouteKey::of(&spec.key.domain, &spec.key.url);
        Self {
            spec,
            state: TaskState::Open,
            dag: Dag::default(),
            digests: Digests::default(),
            version: 0,
            tiny: None,
            blacklist: BTreeSet::new(),
            seed_mute_since: None,
            failed_seeds: BTreeMap::new(),
            recall: None,
            idle_due: None,
            put_away_at: Millis::default(),
            ordered: GroupSet::new(),
            proven: GroupSet::new(),
            unjudged: false,
            ordered_at: None,
            lead: None,
            delegations: Delegations::default(),
            reserves: Reserves::default(),
            totals: Totals::default(),
            arm,
            route,
            read_by_seeds: 0,
            unsettled: BTreeSet::new(),
            is_all_ordered: false,
            changed: BTreeSet::new(),
            peers: BTreeMap::new(),
            roster: Roster::default(),
        }
    }

    /// Groups in it, where the length is known.
    pub fn groups(&self) -> Option<u64> {
        self.spec.length.map(groups_in)
    }

    /// Whether the origin's "no" still stands.
    pub fn is_void(&self, now: Millis) -> bool {
        matches!(self.state, TaskState::Void { until, .. } if until > now)
    }

    /// A host's part in it.
    pub fn peer(&self, host: &HostId) -> Option<&Peer> {
        self.peers.get(host)
    }

    /// A host's part in it, to change.
    pub fn peer_mut(&mut self, host: &HostId) -> Option<&mut Peer> {
        self.has_changed(*host);
        self.peers.get_mut(host)
    }

    /// The part of a host may have changed.
    pub fn has_changed(&mut self, host: HostId) {
        if self.lead.is_some() {
            self.changed.insert(host);
        }
    }

    /// A host's part in it, to change in nothing that leases depend on.
    pub fn peer_untouched(&mut self, host: &HostId) -> Option<&mut Peer> {
        self.peers.get_mut(host)
    }

    /// The matcher is to be told of everybody.
    pub fn everybody_changed(&mut self) {
        self.changed = self.peers.keys().copied().collect();
    }

    /// Those whose part may have changed since this was asked.
    pub fn take_changed(&mut self) -> BTreeSet<HostId> {
        std::mem::take(&mut self.changed)
    }

    /// Takes a host's part in the leases away; what becomes of it is looked at once the event is over.
    pub fn begin_anew(&mut self, host: &HostId, now: Millis) {
        self.has_changed(*host);
        let led = self.peers.get_mut(host).and_then(|peer| peer.led.take());
        if let (Some(lead), Some(led)) = (&mut self.lead, led) {
            lead.leave(&led, now);
        }
    }

    /// Nobody wants anything in any order any more.
    pub fn lead_no_more(&mut self) {
        self.lead = None;
        self.changed.clear();
        self.peers.values_mut().for_each(|peer| peer.led = None);
    }

    /// A peer waits from now on, or reads the source.
    pub fn is_unsettled(&mut self, host: HostId) {
        self.unsettled.insert(host);
        let wants = self.peers.get(&host).map(|peer| &peer.in_any_order);
        self.is_all_ordered &= wants.is_none_or(|wants| self.ordered.contains_set(wants));
    }

    /// Those who wait.
    pub fn waiting(&mut self) -> Vec<HostId> {
        let Self { unsettled, peers, .. } = self;
        let mut waiting = Vec::new();
        unsettled.retain(|host| {
            let state = peers.get(host).map(Peer::state);
            waiting.extend(matches!(state, Some(PeerState::Waiting { .. })).then_some(*host));
            matches!(state, Some(PeerState::Waiting { .. } | PeerState::Source { .. }))
        });
        let is_waiting = |peer: &Peer| matches!(peer.state(), PeerState::Waiting { .. });
        debug_assert_eq!(waiting, self.hosts_where(is_waiting));
        waiting
    }

    /// Those who read the source.
    pub fn at_source(&self) -> impl Iterator<Item = (&HostId, &Peer)> {
        let unsettled = self.unsettled.iter();
        let peers = unsettled.filter_map(|host| self.peers.get_key_value(host));
        peers.filter(|(_, peer)| matches!(peer.state(), PeerState::Source { .. }))
    }

    /// What anybody wants in any order that was not ordered yet, all of it; none where all was.
    pub fn unordered(&mut self) -> Option<GroupSet> {
        if self.is_all_ordered {
            debug_assert!(self.ordered.contains_set(&self.wanted_in_any_order()));
            return None;
        }
        let wanted = self.wanted_in_any_order();
        self.is_all_ordered = self.ordered.contains_set(&wanted);
        (!self.is_all_ordered).then_some(wanted)
    }

    /// A seed is to fetch all that anybody wants in any order.
    pub fn orders(&mut self, wanted: GroupSet, due: Millis) {
        (self.ordered, self.ordered_at, self.is_all_ordered) = (wanted, Some(due), true);
    }

    /// A peer wants this in any order, and nothing else.
    pub fn wants_in_any_order(&mut self, host: &HostId, groups: GroupSet) {
        self.is_all_ordered &= self.ordered.contains_set(&groups);
        if let Some(peer) = self.peer_mut(host) {
            peer.in_any_order = groups;
        }
    }

    /// What any peer that takes part wants in any order.
    pub fn wanted_in_any_order(&self) -> GroupSet {
        let mut wanted = GroupSet::new();
        for peer in self.peers.values().filter(|peer| peer.registered && peer.is_active()) {
            wanted.insert_all(&peer.in_any_order);
        }
        wanted
    }

    /// All parts, by host.
    pub fn peers(&self) -> impl Iterator<Item = (&HostId, &Peer)> {
        self.peers.iter()
    }

    /// All hosts that take part, in no order.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Adds the part of a host in this data centre, or gives the one there is.
    pub fn enter(&mut self, host: HostId, idc: &Arc<str>, new: impl FnOnce() -> Peer) -> &mut Peer {
        self.has_changed(host);
        self.roster.enter(host, idc);
        self.peers.entry(host).or_insert_with(new)
    }

    /// A host is in this data centre now.
    pub fn moves(&mut self, host: HostId, idc: &Arc<str>) {
        self.roster.moves(host, idc);
    }

    /// Takes a host's part away.
    pub fn exit(&mut self, host: &HostId, now: Millis) -> Option<Peer> {
        let peer = self.peers.remove(host)?;
        if let (Some(lead), Some(led)) = (&mut self.lead, &peer.led) {
            lead.leave(led, now);
        }
        self.roster.exit(host);
        Some(peer)
    }

    /// Whether somebody fetches more of it for the others: a seed, or one that reads the source, as long as it gets on.
    pub fn brings_more(&self, now: Millis) -> bool {
        let reads = |peer: &Peer| {
            matches!(peer.state(), PeerState::Source { .. } | PeerState::Seeding)
                && peer.led.as_ref().is_some_and(|led| led.gets_on(now))
        };
        matches!(self.state, TaskState::Asked { .. }) || self.peers.values().any(reads)
    }

    /// Hosts whose part is in a state that `pick` takes.
    pub fn hosts_where(&self, pick: impl Fn(&Peer) -> bool) -> Vec<HostId> {
        self.peers.iter().filter(|(_, peer)| pick(peer)).map(|(host, _)| *host).collect()
    }

    /// How it is answered, by its size.
    pub fn scope(&self) -> SizeScope {
        match self.spec.length {
            Some(0) => SizeScope::Empty,
            Some(length) if length <= TINY_BYTES => SizeScope::Tiny,
            Some(_) if self.groups() <= Some(1 << self.spec.piece_level) => SizeScope::Small,
            _ => SizeScope::Normal,
        }
    }

    /// Whether the whole content can be put into an answer now.
    pub fn tiny_is_ready(&self) -> bool {
        self.tiny.is_some() && !self.digests.is_empty()
    }

    /// Whether `parents` together hold, or will hold, what `child` wants.
    pub fn covers(&self, parents: &[HostId], child: &Peer) -> bool {
        let mut parents = parents.iter().filter_map(|host| self.peers.get(host));
        let Held::Part(held) = &child.held else { return true };
        let missing: Vec<GroupRange> = match (&child.wanted, self.groups()) {
            (Wanted::All, Some(groups)) => held.missing_in(GroupRange::new(0, groups)).collect(),
            (Wanted::All, None) => return parents.any(Peer::will_hold_all),
            (Wanted::Groups(wanted), _) => {
                wanted.ranges().flat_map(|run| held.missing_in(run)).collect()
            }
        };
        let left = parents.fold(missing, |missing, parent| {
            missing.into_iter().flat_map(|run| parent.lacks(run)).collect()
        });
        left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_kept_once_and_bounded() {
        let mut digests = Digests::default();
        assert!(digests.add(Bytes::from_static(b"one")));
        assert!(!digests.add(Bytes::from_static(b"one")));
        assert!(!digests.add(Bytes::new()));
        for n in 0..20u8 {
            digests.add(Bytes::from(vec![n; 1 << 20]));
        }
        assert!(digests.bytes <= MAX_DIGEST_BYTES);
        assert_eq!(digests.known.len(), digests.batches.len());
        assert!(digests.add(Bytes::from_static(b"one")), "what was dropped may come again");
    }
}
