//! What the core is told and what it answers: plain values, no wire types.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_model::{GroupRange, GroupSet, HostId, HostInfo, Nearest, Priority, TaskId, TaskInfo};

use super::Skill;
use super::evidence::{SourceReason, Taken};

/// Milliseconds on a clock that only moves forward and means nothing outside this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This instant plus `span`.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This instant less `span`, or the clock's first.
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// What a peer wants of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Everything, or whatever it will turn out to read.
    All,
    /// These groups; more may follow.
    Groups(GroupSet),
}

/// What a peer holds of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Everything: no bitmap is kept.
    All,
    /// These groups.
    Part(GroupSet),
}

impl Held {
    /// Nothing yet.
    pub fn nothing() -> Self {
        Self::Part(GroupSet::new())
    }

    /// Whether there is nothing to give.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Part(groups) if groups.is_empty())
    }

    /// Groups held of a task of `groups` groups.
    pub fn count(&self, groups: u64) -> u64 {
        match self {
            Self::All => groups,
            Self::Part(set) => set.len(),
        }
    }

    /// Adds groups, and drops the bitmap once it says no more than "all".
    pub fn insert(&mut self, range: GroupRange, groups: Option<u64>) {
        if let Self::Part(set) = self {
            set.insert_range(range);
            if groups.is_some_and(|groups| set.len() >= groups) {
                *self = Self::All;
            }
        }
    }

    /// Takes groups out of a task of `groups` groups.
    pub fn remove(&mut self, lost: &GroupSet, groups: Option<u64>) {
        if let (Self::All, Some(groups)) = (&*self, groups) {
            *self = Self::Part(GroupSet::full(groups));
        }
        if let Self::Part(set) = self {
            set.remove_all(lost);
        }
    }

    /// Bytes of `groups` that are not held, in a content of this length.
    pub fn lacking(&self, groups: &GroupSet, length: Option<u64>) -> u64 {
        let Self::Part(held) = self else { return 0 };
        let lacking = groups.ranges().flat_map(|run| held.missing_in(run));
        lacking.map(|run| bytes_in(run, length)).fold(0, u64::saturating_add)
    }

    /// Whether every group of `range` is held.
    pub fn contains_all(&self, range: GroupRange) -> bool {
        match self {
            Self::All => true,
            Self::Part(set) => set.contains_all(range),
        }
    }
}

/// Bytes of a run of groups: the last group of a content ends with it.
pub fn bytes_in(run: GroupRange, length: Option<u64>) -> u64 {
    run.bytes(length.unwrap_or(u64::MAX)).len()
}

/// Why groups did not come from a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Disconnected,
    /// The parent does not hold them.
    NotHeld,
    /// The parent has no slot free.
    Busy,
    /// The bytes did not verify: the parent lies or is broken.
    BadDigest,
    /// The bytes came, signed by nobody whom the child knows: they may be a reserve's.
    Unvouched,
    /// The parent asked the origin, which did not give them: the parent is not to blame.
    Origin,
    /// Anything else.
    Other,
}

/// Why a task cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The origin does not have it.
    NotFound,
    /// The origin, or we, do not give it to this asker.
    NotPermitted,
    /// The origin has another version now.
    OriginChanged,
    /// The origin fails.
    OriginFailed,
    /// Too much is under way.
    Busy,
}

impl RefusalKind {
    /// Whether asking another seed would give the same answer.
    pub fn is_final(self) -> bool {
        matches!(self, Self::NotFound | Self::NotPermitted | Self::OriginChanged)
    }
}

/// Groups that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Which.
    pub groups: GroupRange,
    /// Who gave them; `None` is the source.
    pub parent: Option<HostId>,
    /// How long it took, in milliseconds.
    pub cost_ms: u32,
}

/// Groups that did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// Who did not give them.
    pub parent: HostId,
    /// Why.
    pub kind: FailureKind,
}

/// What has come of what a host asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Groups that it holds no more.
    pub lost: GroupSet,
    /// Arrived.
    pub done: Vec<Done>,
    /// Did not arrive.
    pub failed: Vec<Failed>,
    /// Leases to it that have ended.
    pub leases: Vec<LeaseEnd>,
    /// Uploads under way on this host.
    pub uploads: u32,
    /// Reads that found nothing and have been served since: how long each waited, in microseconds.
    pub blocked_us: Vec<u32>,
}

/// What a seed says about a task it was asked to obtain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedEvent {
    /// It takes part.
    Obtaining {
        /// The length it found.
        length: Option<u64>,
        /// What it holds already.
        held: GroupSet,
        /// The whole content where it is at most [`TINY_BYTES`](super::TINY_BYTES).
        tiny: Option<Bytes>,
    },
    /// Digests it has signed, in their canonical encoding.
    Digests(Bytes),
    /// It has sent digests of a signer who is not known yet: they are to be sent again with the next order.
    Unjudged,
    /// Groups it has verified, and the length once the end is known.
    Verified {
        /// Which.
        groups: GroupSet,
        /// Bytes in the whole content.
        length: Option<u64>,
        /// The seed of another area that they came from; the source where there is none.
        giver: Option<HostId>,
    },
    /// It cannot.
    Failed {
        /// Why, for programs.
        kind: RefusalKind,
        /// Why, for people.
        reason: String,
    },
    /// It has no more to say; it keeps what it holds.
    Ended,
}

/// What happens to the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A host is here: its stream opened, or the member list names it.
    HostJoined(Arc<HostInfo>),
    /// A host's stream broke: it is gone unless it comes back within its lease.
    HostSilent(HostId),
    /// A host is gone for good.
    HostLeft(HostId),
    /// Which areas origins are nearest to, as the operator says from now on.
    Nearest(Nearest),
    /// A host holds this already, as it says.
    Announced {
        /// Who.
        host: HostId,
        /// What.
        task: TaskInfo,
        /// Which groups.
        held: GroupSet,
        /// Signed digests, checked by the shell.
        digests: Vec<Bytes>,
        /// Whether an earlier scheduler made it stand in, as it has proved to the shell.
        stood_in: bool,
    },
    /// A host holds some of these too, and nobody has asked it for them.
    Names {
        /// Who.
        host: HostId,
        /// Of what.
        tasks: Vec<TaskId>,
    },
    /// A host that was asked for a task holds nothing of it; it may take part in it all the same.
    Lacks {
        /// Who.
        host: HostId,
        /// Of what.
        task: TaskId,
    },
    /// A host whose stream has opened has announced all that it takes part in: what else it held before, it may not
    /// hold any more.
    AnnouncedAll(HostId),
    /// Somebody has turned out to vouch for what a host announced before.
    Vouched {
        /// Who announced it.
        host: HostId,
        /// Of what.
        task: TaskId,
        /// Signed digests, checked by the shell.
        digests: Vec<Bytes>,
        /// Whether an earlier scheduler made it stand in.
        stood_in: bool,
    },
    /// A host takes part in a task from now on.
    Register {
        /// Who.
        host: HostId,
        /// In what.
        task: TaskInfo,
        /// What it wants.
        wanted: Wanted,
        /// What it holds already.
        held: GroupSet,
        /// How urgent that is.
        priority: Priority,
    },
    /// Groups arrived, or did not.
    Progress {
        /// Who reports.
        host: HostId,
        /// On what.
        task: TaskId,
        /// What.
        report: Report,
    },
    /// What a host wants of a task: of what is fetched in any order, these groups and no others; of what is more
    /// urgent, these too. Of what it wants in any order that comes first which it is going to read
    /// ([`Priority::ReadAhead`]), and nothing that it said so of before.
    Want {
        /// Who.
        host: HostId,
        /// Of what.
        task: TaskId,
        /// Which.
        groups: GroupSet,
        /// How urgently.
        priority: Priority,
    },
    /// A host's parents no longer serve it.
    Reschedule {
        /// Who asks.
        host: HostId,
        /// For what.
        task: TaskId,
        /// Parents it wants no more.
        bad_parents: Vec<HostId>,
    },
    /// A stand-in publishes what it has signed.
    Digests {
        /// Who signed.
        host: HostId,
        /// Of what.
        task: TaskId,
        /// Canonical encoding.
        batch: Bytes,
    },
    /// A peer has what it wanted, or gives up.
    PeerResult {
        /// Who.
        host: HostId,
        /// On what.
        task: TaskId,
        /// Which of the two.
        outcome: Outcome,
        /// Where its bytes came from, as it says.
        taken: Taken,
    },
    /// A host no longer holds a task.
    Leave {
        /// Who.
        host: HostId,
        /// What.
        task: TaskId,
    },
    /// What a host that has joined can do about delegates.
    Skilled {
        /// Who.
        host: HostId,
        /// What.
        skill: Skill,
    },
    /// A host leads those of its place from now on, as it was asked.
    Leads {
        /// Who.
        host: HostId,
        /// In what.
        task: TaskId,
    },
    /// A host will not lead, or leads no more.
    Resigns {
        /// Who.
        host: HostId,
        /// In what.
        task: TaskId,
    },
    /// A host comes back from a delegate that failed it; it registers next.
    ComesBack {
        /// Who.
        host: HostId,
        /// In what.
        task: TaskId,
        /// From whom.
        delegate: HostId,
    },
    /// News from a seed.
    Seed {
        /// Which seed.
        seed: HostId,
        /// On what.
        task: TaskId,
        /// The number of the order it answers.
        obtain: u64,
        /// What it says.
        event: SeedEvent,
    },
    /// Time has passed.
    Tick,
}

impl Event {
    /// The task that it is about, if it is about one.
    pub fn task(&self) -> Option<TaskId> {
        match self {
            Self::Announced { task, .. } | Self::Register { task, .. } => Some(task.id),
            Self::Vouched { task, .. }
            | Self::Lacks { task, .. }
            | Self::Progress { task, .. }
            | Self::Want { task, .. }
            | Self::Reschedule { task, .. }
            | Self::Digests { task, .. }
            | Self::PeerResult { task, .. }
            | Self::Leave { task, .. }
            | Self::Leads { task, .. }
            | Self::Resigns { task, .. }
            | Self::ComesBack { task, .. }
            | Self::Seed { task, .. } => Some(*task),
            Self::HostJoined(_) | Self::HostSilent(_) | Self::HostLeft(_) => None,
            Self::Nearest(_)
            | Self::AnnouncedAll(_)
            | Self::Names { .. }
            | Self::Skilled { .. }
            | Self::Tick => None,
        }
    }
}

/// How a peer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has what it wanted.
    Success,
    /// It gives up.
    Failure,
}

/// How a task is answered, by its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeScope {
    /// Nothing in it.
    Empty,
    /// The content comes with the answer.
    Tiny,
    /// One piece: one parent does.
    Small,
    /// Anything else.
    Normal,
}

/// A child's turn at the uplink of a parent, which holds these groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its name, among all of a task.
    pub id: u64,
    /// Who gives.
    pub parent: HostId,
    /// What.
    pub groups: GroupRange,
}

/// How a lease ended, as its child says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseEnd {
    /// Its name.
    pub id: u64,
    /// What is there of it; empty where that was told as having come, by and by.
    pub groups: GroupRange,
    /// How long it took, in milliseconds.
    pub cost_ms: u32,
    /// Why it did not bring what was wanted of it.
    pub failure: Option<LeaseFailure>,
}

/// Why a lease brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseFailure {
    /// The child had it already.
    Held,
    /// The child does not want it any more.
    Unwanted,
    /// The parent did not give it.
    Parent(FailureKind),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Ask a host what it holds of a task, which it has named: it announces that, or lacks it.
    Recall {
        /// Whom.
        host: HostId,
        /// Of what.
        task: TaskId,
    },
    /// Answer a registration.
    SendRegistered {
        /// To whom.
        host: HostId,
        /// The task as known now.
        task: TaskInfo,
        /// By its size.
        scope: SizeScope,
        /// All of it, where tiny.
        content: Option<Bytes>,
        /// Every digest batch known.
        digests: Vec<Bytes>,
        /// Number of the last delta that `digests` includes.
        version: u64,
    },
    /// Replace a child's parents.
    SendParents {
        /// The child.
        host: HostId,
        /// Of what.
        task: TaskId,
        /// Best first; empty when all are gone and others are being found.
        parents: Vec<Arc<HostInfo>>,
        /// Whether what it wants in any order comes to it by leases.
        led: bool,
    },
    /// Tell a child whom to ask for what.
    SendLeases {
        /// The child.
        host: HostId,
        /// Of what.
        task: TaskId,
        /// From now on.
        leases: Vec<Lease>,
        /// Names of those that hold no longer.
        withdrawn: Vec<u64>,
        /// Those who give and were not named to it before.
        partners: Vec<Arc<HostInfo>>,
    },
    /// Tell the takers of a task what is new about it.
    SendUpdate {
        /// To whom.
        hosts: Vec<HostId>,
        /// About what.
        task: TaskId,
        /// Number of this delta.
        version: u64,
        /// The length, when it is news.
        length: Option<u64>,
        /// New digest batches.
        digests: Vec<Bytes>,
    },
    /// Tell peers of one place who reads the source for them once nobody else does.
    NameReserves {
        /// To whom.
        hosts: Vec<HostId>,
        /// Of what.
        task: TaskId,
        /// The first that is there reads.
        reserves: Vec<Arc<HostInfo>>,
    },
    /// Order a seed to take part in a task.
    ObtainFromSeed {
        /// Which seed.
        seed: HostId,
        /// In what.
        task: TaskInfo,
        /// Which groups first.
        wanted: Wanted,
        /// Groups whose digests it has sent by an earlier order.
        proven: GroupSet,
        /// The number its events must carry.
        obtain: u64,
    },
    /// An order nobody waits for any more.
    EndObtain {
        /// Its number.
        obtain: u64,
    },
    /// Send a peer to the source.
    BackToSource {
        /// Which.
        host: HostId,
        /// For what.
        task: TaskId,
        /// Why.
        why: SourceReason,
        /// Why, for people.
        reason: String,
        /// Whether it may sign what it reads and serve it to others.
        stand_in: bool,
    },
    /// Tell a peer that it cannot have it.
    Refuse {
        /// Which.
        host: HostId,
        /// What.
        task: TaskId,
        /// Why, for programs.
        kind: RefusalKind,
        /// Why, for people.
        reason: String,
    },
    /// A host served bytes that did not verify: it is no parent of this task any more.
    Blacklisted {
        /// Which.
        host: HostId,
        /// Of what.
        task: TaskId,
    },
    /// Ask a host to lead the others of its place; it says whether it does.
    AskToLead {
        /// Whom.
        host: HostId,
        /// In what.
        task: TaskInfo,
    },
    /// Tell a host that it leads nobody any more.
    LeadNoMore {
        /// Which.
        host: HostId,
        /// In what.
        task: TaskId,
    },
    /// Tell hosts who leads them from now on.
    Delegate {
        /// Whom.
        hosts: Vec<HostId>,
        /// In what.
        task: TaskId,
        /// Who: its delegate, or again who says this.
        to: Option<HostId>,
    },
    /// Nothing is known of a task any more.
    Forget {
        /// Which.
        task: TaskId,
    },
}
