//! What was decided about a task and why, for people: typed entries, kept for a while.
//!
//! Nothing is decided by it. Schedulings, failures, orders and what becomes of peers are entries; leases are far too
//! many, and are counted (see [`Tally`](super::Tally)).

use dfs_model::{HostId, HostKind};

use super::{FailureKind, Millis, RefusalKind};

mod log;

pub use log::{Log, MAX_ENTRIES, MAX_ENTRIES_PER_TASK, MAX_NAMED, REASON_CHARS, who};

/// Something that was decided or heard, once or several times in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Ascending among those of a task.
    pub number: u64,
    /// When it was so first.
    pub first: Millis,
    /// When it was so last.
    pub last: Millis,
    /// How often.
    pub times: u32,
    /// Whom it is about.
    pub host: HostId,
    /// What it was.
    pub what: Evidence,
}

/// What can be told of a host's part in a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// It asked to take part.
    Registered {
        /// Groups that it held already.
        held: u64,
    },
    /// It said what it holds, and wants nothing.
    Announced {
        /// Groups that it holds.
        held: u64,
    },
    /// Parents were looked for.
    Scheduled(Scheduling),
    /// It waits.
    Waits {
        /// For what.
        wait: Wait,
        /// Attempts in vain until now, and how many there are.
        tries: (u32, u32),
    },
    /// A parent did not give it what it asked for.
    Failed {
        /// Which parent.
        parent: HostId,
        /// Why.
        kind: FailureKind,
        /// Whether it does without this parent from then on.
        blocked: bool,
    },
    /// Leases to it were taken back: who was to give is not heard of any more, or not what it was.
    LetDown {
        /// Who was to give.
        giver: HostId,
        /// How many.
        leases: u32,
    },
    /// It asked for other parents.
    Rescheduled {
        /// Those that it wants no more.
        bad: Vec<HostId>,
    },
    /// Its bytes did not verify: it is nobody's parent in this task any more.
    Blacklisted {
        /// Who found out.
        by: HostId,
    },
    /// This seed was ordered to take part.
    Ordered {
        /// For whom first; none where it takes part already and is ordered more.
        asker: Option<HostId>,
    },
    /// This seed takes part.
    Obtains {
        /// Groups that it held already.
        held: u64,
    },
    /// This seed cannot, or is not heard of.
    SeedFailed {
        /// Why, for programs.
        kind: RefusalKind,
        /// Why, for people.
        reason: String,
    },
    /// It was sent to the source.
    Source {
        /// Why.
        reason: SourceReason,
        /// Whether for its neighbours too.
        stand_in: bool,
    },
    /// It cannot have the task.
    Refused {
        /// Why, for programs.
        kind: RefusalKind,
        /// Why, for people.
        reason: String,
    },
    /// It is through, and says where its bytes came from.
    Ended {
        /// Whether it has what it wanted.
        success: bool,
        /// What it took.
        taken: Taken,
    },
    /// It was asked to lead the others of its place.
    AskedToLead,
    /// It leads them.
    Leads {
        /// How many there were.
        hosts: usize,
    },
    /// It leads them no more.
    LeadsNoMore {
        /// Why.
        reason: &'static str,
    },
    /// It was handed to a delegate.
    Delegated {
        /// To which.
        to: HostId,
    },
    /// It came back from its delegate.
    CameBack {
        /// From which.
        from: HostId,
    },
    /// Its stream broke.
    Silent,
    /// It is heard of again.
    Returned,
    /// It takes part no more.
    Gone,
}

/// A look for parents.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scheduling {
    /// Whom the strategy looked at, and what it made of them.
    pub candidates: Vec<Candidate>,
    /// Who was granted, best first.
    pub granted: Vec<HostId>,
    /// How many take part: candidates are a sample of them.
    pub of: usize,
}

/// Somebody who might have become a parent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Who.
    pub host: HostId,
    /// What was made of it.
    pub verdict: Verdict,
}

/// What was made of a candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// It could serve, so well.
    Scored(Scores),
    /// It could not serve.
    Dropped(Reason),
}

/// The six scores, each from 0 to 1, and their weighted sum.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scores {
    /// Share of the groups it holds.
    pub finished: f32,
    /// Share of its uploads that succeeded.
    pub success: f32,
    /// Share of its slots that is free.
    pub free: f32,
    /// What kind of host it is, given who has copies.
    pub kind: f32,
    /// Whether it is in the same data centre.
    pub idc: f32,
    /// How near it is otherwise.
    pub location: f32,
    /// The weighted sum.
    pub sum: f64,
}

/// Why somebody cannot be a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is the child itself.
    Itself,
    /// It is not here any more.
    Gone,
    /// Its stream is broken: it may be gone.
    Silent,
    /// Its bytes did not verify.
    Blacklisted,
    /// It lives on the child: a cycle.
    LivesOnIt,
    /// All its slots are taken.
    NoSlot,
    /// It failed this child a moment ago.
    Blocked,
    /// What it read from the source nobody vouches for.
    ServesOnlyItself,
    /// It gave up, or was refused.
    GaveUp,
    /// It has nothing, and nobody gives it anything.
    HasNothing,
    /// It downloads so slowly that nobody should depend on it.
    BadNode,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The answer of a seed that was ordered.
    Seed,
    /// The digests of a tiny content.
    Digests,
    /// Seeds to be heard of: the scheduler has just started.
    Hearing,
    /// Those who hold it to say what they have.
    Holders,
    /// Somebody who can serve.
    Parents,
    /// Its turn at the source.
    Turn,
}

/// Why somebody is sent to the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceReason {
    /// No seed is alive, and it stands in.
    NoSeed,
    /// Nobody could serve it.
    NoParent,
    /// The origin does not give it to the seed; what is private is asked with one's own credentials.
    OwnCredentials,
}

impl SourceReason {
    /// For people, and as it travels.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoSeed => "no seed is alive",
            Self::NoParent => "no parent could serve it",
            Self::OwnCredentials => "the origin gives it to its own users only",
        }
    }

    /// A word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoSeed => "no-seed",
            Self::NoParent => "no-parent",
            Self::OwnCredentials => "own-credentials",
        }
    }
}

/// Where a peer's bytes came from, as it says when it is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// From the source, by itself.
    pub source: u64,
    /// From seeds.
    pub seed: u64,
    /// From neighbours.
    pub peers: u64,
    /// How long it took, in milliseconds.
    pub cost_ms: u32,
}

/// What is remembered of a host for telling who it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its id.
    pub id: HostId,
    /// As people call it.
    pub name: String,
    /// What it is.
    pub kind: HostKind,
}

impl Evidence {
    /// The other hosts that it names.
    pub fn others(&self) -> Vec<HostId> {
        match self {
            Self::Scheduled(scheduling) => {
                let candidates = scheduling.candidates.iter().map(|candidate| candidate.host);
                candidates.chain(scheduling.granted.iter().copied()).collect()
            }
            Self::Failed { parent, .. } => vec![*parent],
            Self::LetDown { giver, .. } => vec![*giver],
            Self::Delegated { to: host } | Self::CameBack { from: host } => vec![*host],
            Self::Rescheduled { bad } => bad.clone(),
            Self::Blacklisted { by } => vec![*by],
            Self::Ordered { asker } => asker.iter().copied().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it says of a host what `older` said of it.
    fn repeats(&self, older: &Self) -> bool {
        match (self, older) {
            (Self::Scheduled(new), Self::Scheduled(old)) => new.comes_to_the_same_as(old),
            (Self::Waits { wait, .. }, Self::Waits { wait: before, .. }) => wait == before,
            // How far it has come is told by the last one.
            (Self::Obtains { .. }, Self::Obtains { .. }) => true,
            (Self::Ended { .. }, _) => false,
            (new, old) => new == old,
        }
    }

    /// Whether something of this kind is told in turn with `other` while nothing else changes.
    fn alternates_with(&self, other: &Self) -> bool {
        use Evidence::{Failed, Obtains, Ordered, Rescheduled, Scheduled, Waits};
        matches!(
            (self, other),
            (Scheduled(_), Waits { .. })
                | (Waits { .. }, Scheduled(_))
                | (Obtains { .. }, Ordered { asker: None })
                | (Ordered { asker: None }, Obtains { .. })
                | (Failed { .. }, Failed { .. })
                | (Rescheduled { .. }, Scheduled(_) | Waits { .. })
                | (Scheduled(_) | Waits { .. }, Rescheduled { .. })
        )
    }
}

impl Scheduling {
    /// Whether it granted the same hosts, and dropped whom it dropped for the same reasons.
    fn comes_to_the_same_as(&self, other: &Self) -> bool {
        let dropped = |scheduling: &Self| -> Vec<(HostId, Reason)> {
            let dropped =
                scheduling.candidates.iter().filter_map(|candidate| match candidate.verdict {
                    Verdict::Dropped(reason) => Some((candidate.host, reason)),
                    Verdict::Scored(_) => None,
                });
            let mut dropped: Vec<_> = dropped.collect();
            dropped.sort_unstable_by_key(|(host, _)| *host);
            dropped
        };
        self.granted == other.granted && dropped(self) == dropped(other)
    }
}
