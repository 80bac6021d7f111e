//! The swarm as people look at it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dfs_model::{HostId, HostInfo, TaskId, TaskInfo, groups_in};

use super::evidence::{Entry, Who, who};
use super::message::bytes_in;
use super::{Core, Given, Giver, Held, Millis, Peer, Standing, Task, Totals};

/// Most peers in the report of one task; those who stand still come first.
const MAX_PEERS: usize = 256;

/// What somebody wants to look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// Which tasks.
    pub which: Which,
    /// How closely.
    pub detail: Detail,
    /// Of the entries only those after this number.
    pub after: u64,
}

/// Which tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Which {
    /// All of them.
    #[default]
    All,
    /// One.
    One(TaskId),
    /// Those whose id begins with these hexadecimal digits, in small letters.
    Prefix(String),
    /// Those of this URL, canonical.
    Url(String),
    /// None: the arms that they are in.
    Arms,
}

/// How closely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Detail {
    /// What it is, and how it goes.
    Summary,
    /// Who takes part, too.
    #[default]
    Peers,
    /// And why: what was decided.
    Evidence,
}

/// One task.
#[derive(Debug, Clone)]
pub struct TaskReport {
    /// What it is.
    pub task: TaskInfo,
    /// Its state, in a word.
    pub state: &'static str,
    /// The arm that it is in.
    pub arm: String,
    /// Who decides about it.
    pub strategy: &'static str,
    /// The seed that takes part or was ordered to.
    pub seed: Option<HostId>,
    /// Bytes moved for it.
    pub totals: Totals,
    /// Hosts that take part.
    pub hosts: usize,
    /// Of those, hosts that have all of it.
    pub complete: usize,
    /// Of those, hosts that want something.
    pub taking: usize,
    /// Of those, hosts to which nothing comes.
    pub still: usize,
    /// Delegates that lead, each with how many hosts.
    pub delegates: Vec<(HostId, usize)>,
    /// Hosts whose bytes did not verify.
    pub blacklisted: Vec<HostId>,
    /// Who takes part, bounded.
    pub peers: Vec<PeerReport>,
    /// What was decided.
    pub entries: Vec<Entry>,
    /// Entries that were kept no longer.
    pub forgotten: u64,
    /// Who those are that are named and do not take part any more.
    pub others: Vec<Who>,
    /// When this was so.
    pub now: Millis,
}

/// One peer.
#[derive(Debug, Clone)]
pub struct PeerReport {
    /// The host.
    pub host: Arc<HostInfo>,
    /// Its state, in a word.
    pub state: &'static str,
    /// What it waits for.
    pub standing: Standing,
    /// Groups it holds.
    pub held_groups: u64,
    /// The same in bytes.
    pub held_bytes: u64,
    /// Its parents, best first.
    pub parents: Vec<HostId>,
    /// Parents it does without now, each until when.
    pub blocked: Vec<(HostId, Millis)>,
    /// What it took, by who gave it; what those gave who are not counted by name.
    pub givers: Vec<Giver>,
    /// See `givers`.
    pub other_givers: Given,
    /// Bytes it read from the source.
    pub from_source: u64,
    /// Bytes it gave.
    pub given: u64,
    /// Leases of it that were taken back.
    pub withdrawn: u64,
    /// When something came to it last.
    pub last: Option<Millis>,
}

impl Core {
    /// The first `most` of those tasks that are asked for, as of `now`.
    pub fn look(&self, look: &Look, most: usize, now: Millis) -> Vec<TaskReport> {
        let now = self.now.max(now);
        let is_meant = |id: &TaskId, task: &Task| match &look.which {
            Which::All => true,
            Which::Arms => false,
            Which::One(one) => one == id,
            Which::Prefix(digits) => id.to_string().starts_with(&**digits),
            Which::Url(url) => {
                task.spec.key.url.as_str() == url || task.spec.place().as_str() == url
            }
        };
        let chosen = self.tasks.iter().filter(|(id, task)| is_meant(id, task));
        chosen.take(most).map(|(id, task)| self.report_task(id, task, look, now)).collect()
    }

    fn report_task(&self, id: &TaskId, task: &Task, look: &Look, now: Millis) -> TaskReport {
        let standings: Vec<(&HostId, &Peer, Standing)> = self.standings(task, now).collect();
        let is_still =
            |(_, peer, standing): &&(_, &Peer, Standing)| peer.is_active() && standing.is_still();
        let mut report = TaskReport {
            task: task.spec.clone(),
            state: task.state.name(),
            arm: self.arms.of(task.arm).name.clone(),
            strategy: self.arms.of(task.arm).strategy.name(),
            seed: task.state.seed(),
            totals: task.totals,
            hosts: task.roster().len(),
            complete: task.peers().filter(|(_, peer)| is_complete(task, peer)).count(),
            taking: task.peers().filter(|(_, peer)| peer.is_active()).count(),
            still: standings.iter().filter(is_still).count(),
            delegates: task.delegations.leading().take(MAX_PEERS).collect(),
            blacklisted: task.blacklist.iter().take(MAX_PEERS).copied().collect(),
            peers: Vec::new(),
            entries: Vec::new(),
            forgotten: self.log.forgotten(id),
            others: Vec::new(),
            now,
        };
        if look.detail >= Detail::Peers {
            report.peers = self.report_peers(task, standings, now);
        }
        if look.detail >= Detail::Evidence {
            report.entries = self.log.of(id, look.after).cloned().collect();
        }
        report.others = self.others_named(&report);
        report
    }

    fn report_peers<'task>(
        &self,
        task: &'task Task,
        standings: Vec<(&'task HostId, &'task Peer, Standing)>,
        now: Millis,
    ) -> Vec<PeerReport> {
        let mut given: BTreeMap<HostId, u64> = BTreeMap::new();
        let all = task.peers().flat_map(|(_, peer)| peer.tally.givers());
        all.for_each(|giver| *given.entry(giver.host).or_default() += giver.given.bytes);
        let mut chosen = standings;
        chosen.sort_by_key(|(id, _, standing)| (rank(standing), **id));
        let chosen = chosen.into_iter().take(MAX_PEERS);
        let reports = chosen.filter_map(|(id, peer, standing)| {
            let given = given.get(id).copied().unwrap_or_default();
            self.report_peer(task, (id, peer), standing, given, now)
        });
        reports.collect()
    }

    fn report_peer(
        &self,
        task: &Task,
        (id, peer): (&HostId, &Peer),
        standing: Standing,
        given: u64,
        now: Millis,
    ) -> Option<PeerReport> {
        Some(PeerReport {
            host: Arc::clone(&self.hosts.get(id)?.info),
            state: peer.state().name(),
            standing,
            held_groups: peer.held.count(task.spec.length.map_or(0, groups_in)),
            held_bytes: held_bytes(task, peer),
            parents: task.dag.parents(id).to_vec(),
            blocked: peer.blocked(now).take(MAX_PEERS).collect(),
            givers: peer.tally.givers().to_vec(),
            other_givers: *peer.tally.others(),
            from_source: peer.tally.source(),
            given,
            withdrawn: peer.tally.withdrawals(),
            last: peer.tally.last(),
        })
    }

    /// Who is named in a report and is not among its peers.
    fn others_named(&self, report: &TaskReport) -> Vec<Who> {
        let mut named: BTreeSet<HostId> = report.blacklisted.iter().copied().collect();
        named.extend(report.seed);
        named.extend(report.delegates.iter().map(|(host, _)| *host));
        for peer in &report.peers {
            named.extend(peer.givers.iter().map(|giver| giver.host));
            named.extend(peer.blocked.iter().map(|(host, _)| *host));
            named.extend(&peer.parents);
        }
        for entry in &report.entries {
            named.insert(entry.host);
            named.extend(entry.what.others());
        }
        named.retain(|id| report.peers.iter().all(|peer| peer.host.id != *id));
        let here = named.iter().filter_map(|id| Some(who(&self.hosts.get(id)?.info)));
        let mut others: Vec<Who> = here.collect();
        named.retain(|id| others.iter().all(|known| known.id != *id));
        others.extend(self.log.names_of(&named));
        others
    }
}

/// Who is told first where not all can be.
fn rank(standing: &Standing) -> u8 {
    match standing {
        Standing::Seeds => 0,
        standing if standing.is_still() => 1,
        Standing::AtSource { .. } => 2,
        Standing::Moves => 3,
        Standing::GaveUp => 4,
        _ => 5,
    }
}

fn is_complete(task: &Task, peer: &Peer) -> bool {
    match &peer.held {
        Held::All => true,
        Held::Part(held) => task.groups().is_some_and(|groups| held.len() >= groups),
    }
}

fn held_bytes(task: &Task, peer: &Peer) -> u64 {
    match (&peer.held, task.spec.length) {
        (Held::All, length) => length.unwrap_or_default(),
        (Held::Part(held), length) => {
            held.ranges().map(|run| bytes_in(run, length)).fold(0, u64::saturating_add)
        }
    }
}
