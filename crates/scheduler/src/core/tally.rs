//! What one peer took, by who gave it: counters, since leases are too many to be told one by one.

use dfs_model::HostId;

use super::{FailureKind, LeaseFailure, Millis};

/// Givers counted by name; what others gave is counted together.
const MAX_GIVERS: usize = 24;

/// What a peer took.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    givers: Vec<Giver>,
    others: Given,
    source: u64,
    withdrawn: u64,
    last: Option<Millis>,
}

/// What one other host gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Giver {
    /// Who.
    pub host: HostId,
    /// What.
    pub given: Given,
}

/// Counters of what was asked of somebody and what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Given {
    /// Content bytes that came.
    pub bytes: u64,
    /// Runs of groups that came.
    pub runs: u64,
    /// Leases that the peer was told of.
    pub leased: u64,
    /// What did not come, by why; see [`Given::failures`].
    failed: [u32; KINDS.len()],
    /// When something came last.
    pub last: Option<Millis>,
}

/// How what was asked for can end without coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The giver did not give it.
    Failed(FailureKind),
    /// The peer had it already.
    Held,
    /// The peer did not want it any more.
    Unwanted,
}

const KINDS: [Ending; 10] = [
    Ending::Failed(FailureKind::Timeout),
    Ending::Failed(FailureKind::Disconnected),
    Ending::Failed(FailureKind::NotHeld),
    Ending::Failed(FailureKind::Busy),
    Ending::Failed(FailureKind::BadDigest),
    Ending::Failed(FailureKind::Unvouched),
    Ending::Failed(FailureKind::Origin),
    Ending::Failed(FailureKind::Other),
    Ending::Held,
    Ending::Unwanted,
];

impl From<LeaseFailure> for Ending {
    fn from(failure: LeaseFailure) -> Self {
        match failure {
            LeaseFailure::Held => Self::Held,
            LeaseFailure::Unwanted => Self::Unwanted,
            LeaseFailure::Parent(kind) => Self::Failed(kind),
        }
    }
}

impl Given {
    /// What did not come: how it ended, and how often.
    pub fn failures(&self) -> impl Iterator<Item = (Ending, u32)> + '_ {
        KINDS.into_iter().zip(self.failed).filter(|(_, times)| *times > 0)
    }
}

impl Tally {
    /// Bytes came from another host.
    pub fn came(&mut self, from: HostId, bytes: u64, now: Millis) {
        let given = self.given(from);
        given.bytes = given.bytes.saturating_add(bytes);
        given.runs += 1;
        given.last = Some(now);
        self.last = Some(now);
    }

    /// Bytes came from the source.
    pub fn came_from_source(&mut self, bytes: u64, now: Millis) {
        self.source = self.source.saturating_add(bytes);
        self.last = Some(now);
    }

    /// The peer was told of a lease.
    pub fn leased(&mut self, from: HostId) {
        self.given(from).leased += 1;
    }

    /// Leases were taken back.
    pub fn withdrawn(&mut self, leases: usize) {
        self.withdrawn = self.withdrawn.saturating_add(leases as u64);
    }

    /// Something did not come.
    pub fn ended(&mut self, from: HostId, ending: Ending) {
        let kind = KINDS.iter().position(|kind| *kind == ending).unwrap_or_default();
        let times = &mut self.given(from).failed[kind];
        *times = times.saturating_add(1);
    }

    /// Of whom, the first of them first.
    pub fn givers(&self) -> &[Giver] {
        &self.givers
    }

    /// What hosts gave beyond those counted by name.
    pub fn others(&self) -> &Given {
        &self.others
    }

    /// Bytes from other hosts.
    pub fn taken(&self) -> u64 {
        let named = self.givers.iter().map(|giver| giver.given.bytes);
        named.fold(self.others.bytes, u64::saturating_add)
    }

    /// Bytes from the source.
    pub fn source(&self) -> u64 {
        self.source
    }

    /// Leases taken back.
    pub fn withdrawals(&self) -> u64 {
        self.withdrawn
    }

    /// When something came last.
    pub fn last(&self) -> Option<Millis> {
        self.last
    }

    fn given(&mut self, host: HostId) -> &mut Given {
        let place = self.givers.iter().position(|giver| giver.host == host);
        match place {
            Some(place) => &mut self.givers[place].given,
            None if self.givers.len() < MAX_GIVERS => {
                self.givers.push(Giver { host, given: Given::default() });
                let last = self.givers.len() - 1;
                &mut self.givers[last].given
            }
            None => &mut self.others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8) -> HostId {
        HostId::from_bytes([n; 16])
    }

    #[test]
    fn what_came_is_counted_by_giver_and_beyond_the_named_ones_together() {
        let mut tally = Tally::default();
        for n in 0..30 {
            tally.leased(host(n));
            tally.came(host(n), 10, Millis(n.into()));
        }
        tally.came_from_source(7, Millis(40));
        assert_eq!(tally.givers().len(), MAX_GIVERS);
        assert_eq!((tally.others().bytes, tally.others().leased), (60, 6));
        assert_eq!((tally.taken(), tally.source(), tally.last()), (300, 7, Some(Millis(40))));
    }

    #[test]
    fn every_ending_is_counted_as_what_it_is() {
        let mut tally = Tally::default();
        for (times, ending) in KINDS.into_iter().enumerate() {
            (0..=times).for_each(|_| tally.ended(host(1), ending));
        }
        let told: Vec<_> = tally.givers()[0].given.failures().collect();
        let all: Vec<_> = KINDS.into_iter().zip(1..).collect();
        assert_eq!(told, all);
    }
}
