//! Where a peer stands: what it waits for now, why, and when something is done about it.

use std::time::Duration;

use dfs_model::HostId;

use super::evidence::Wait;
use super::{Core, Held, Millis, Peer, PeerState, RefusalKind, Task, TaskState, Wanted};

/// Whoever wants something and has got nothing for so long is said to stand still.
const STILL: Duration = Duration::from_secs(1);

/// What a peer waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has what it wants; it may give.
    Rests,
    /// It takes part by order of the scheduler, and reads the source.
    Seeds,
    /// Something came a moment ago.
    Moves,
    /// It has parents, or leases, and nothing comes.
    ForBytes {
        /// Since when; none where nothing ever came.
        since: Option<Millis>,
    },
    /// Leases are to come to it.
    ForLease {
        /// Whether somebody is about to be leased to it, or nobody has anything for it yet and somebody brings more.
        hopeful: bool,
    },
    /// A seed was ordered and has not answered.
    ForSeed {
        /// Which.
        seed: Option<HostId>,
        /// When the next one is ordered.
        due: Millis,
    },
    /// The scheduler has just started, and hears of seeds only now.
    ForHearing {
        /// When it is looked at again.
        due: Millis,
    },
    /// Hosts have named it, and are to say what they hold of it.
    ForHolders {
        /// When it is looked at again.
        due: Millis,
    },
    /// Nobody can serve it now.
    ForParents {
        /// Attempts in vain.
        tries: u32,
        /// At so many it is sent to the source.
        of: u32,
        /// When the next one is.
        due: Millis,
    },
    /// Too many read the source: its turn comes.
    ForTurn {
        /// When it is looked at again.
        due: Millis,
    },
    /// A delegate leads it.
    WithDelegate {
        /// Which.
        delegate: HostId,
    },
    /// It reads the source.
    AtSource {
        /// For its neighbours too.
        stand_in: bool,
    },
    /// It is not heard of.
    Silent {
        /// When it counts as gone.
        until: Millis,
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
    /// It gave up, or was refused.
    GaveUp,
}

impl Standing {
    /// Whether it wants something and nothing comes.
    pub fn is_still(&self) -> bool {
        match self {
            Self::Rests | Self::Seeds | Self::Moves | Self::AtSource { .. } | Self::GaveUp => false,
            Self::WithDelegate { .. } => false,
            Self::ForBytes { .. }
            | Self::ForLease { .. }
            | Self::ForSeed { .. }
            | Self::ForHearing { .. }
            | Self::ForHolders { .. }
            | Self::ForParents { .. }
            | Self::ForTurn { .. }
            | Self::Silent { .. }
            | Self::Void { .. } => true,
        }
    }
}

impl Core {
    /// Where each peer of a task stands as of now.
    pub(super) fn standings<'task>(
        &self,
        task: &'task Task,
        now: Millis,
    ) -> impl Iterator<Item = (&'task HostId, &'task Peer, Standing)> {
        let brings = task.brings_more(now);
        task.peers().map(move |(id, peer)| (id, peer, self.standing(task, (id, peer), brings, now)))
    }

    /// `brings`: whether somebody fetches more for the others.
    fn standing(
        &self,
        task: &Task,
        (id, peer): (&HostId, &Peer),
        brings: bool,
        now: Millis,
    ) -> Standing {
        let host = self.hosts.get(id);
        if let Some(since) = host.and_then(|host| host.silent_since) {
            return Standing::Silent { until: since.after(self.limits.host_lease) };
        }
        let is_fresh = peer.tally.last().is_some_and(|last| last.after(STILL) > now);
        if let Some(delegate) = peer.delegate {
            return Standing::WithDelegate { delegate };
        }
        match peer.state() {
            PeerState::Resting => Standing::Rests,
            PeerState::Failed => Standing::GaveUp,
            PeerState::Seeding => Standing::Seeds,
            PeerState::Source { stand_in } => Standing::AtSource { stand_in },
            _ if is_fresh => Standing::Moves,
            PeerState::Fetching => fetching(task, peer, brings, now),
            PeerState::Waiting { due, wait } => self.waiting(task, peer, (wait, due), now),
        }
    }

    fn waiting(
        &self,
        task: &Task,
        peer: &Peer,
        (wait, due): (Wait, Millis),
        now: Millis,
    ) -> Standing {
        if let TaskState::Void { kind, reason, until } = &task.state
            && task.is_void(now)
        {
            return Standing::Void { kind: *kind, reason: reason.clone(), until: *until };
        }
        match wait {
            Wait::Seed | Wait::Digests => {
                let seed = task.state.seed();
                let deadline = match task.state {
                    TaskState::Asked { deadline, .. } => deadline,
                    _ => due,
                };
                Standing::ForSeed { seed, due: deadline }
            }
            Wait::Hearing => Standing::ForHearing { due },
            Wait::Holders => Standing::ForHolders { due },
            Wait::Turn => Standing::ForTurn { due },
            Wait::Parents => Standing::ForParents { tries: peer.tries, of: self.limits.tries, due },
        }
    }
}

/// One that has parents, and to whom nothing came of late.
fn fetching(task: &Task, peer: &Peer, brings: bool, now: Millis) -> Standing {
    let wants_nothing_more = match &peer.held {
        Held::All => true,
        Held::Part(held) => held.contains_set(&peer.in_any_order),
    };
    if peer.wanted == Wanted::All && wants_nothing_more {
        // What it will want is what somebody reads: it may want nothing now.
        return Standing::Rests;
    }
    let is_led = |lead: &super::lead::Lead| {
        let led = peer.led.as_ref().filter(|led| !led.wants.is_empty())?;
        let waits = !lead.matcher.is_sent_anything(led.number);
        waits.then(|| Standing::ForLease { hopeful: lead.is_hopeful(led.number, brings, now) })
    };
    let for_lease = task.lead.as_ref().and_then(is_led);
    for_lease.unwrap_or(Standing::ForBytes { since: peer.tally.last() })
}
