//! What the schedulers know of tasks: who takes part, what each waits for, and why it came so.
//!
//! Hosts are told by their names; where two have the same one, the beginning of their ids is added.

use dfs_model::Measure;
use dfs_model::statistics::{Mean, Sketch};
use dfs_model::{HostKind, TaskInfo};

/// What somebody wants to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Which tasks.
    pub which: Which,
    /// How closely.
    pub detail: Detail,
}

/// Which tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those whose id begins so.
    Prefix(String),
    /// Those of this canonical URL.
    Url(String),
    /// None: the arms that they are in.
    Arms,
}

/// How closely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// How each goes.
    Summary,
    /// And who takes part.
    Peers,
    /// And what was decided.
    Evidence,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The tasks, each as one scheduler knows it.
    pub tasks: Vec<SwarmTask>,
    /// The arms, each as one scheduler knows it; the one that has what is left is the last of each.
    pub arms: Vec<SwarmArm>,
    /// Schedulers that did not answer, and why.
    pub silent: Vec<(String, String)>,
    /// Whether there are more tasks than the answers had room for.
    pub more: bool,
}

/// The tasks that one strategy decides about, and what came of them.
#[derive(Debug, Clone, Default)]
pub struct SwarmArm {
    /// Its name.
    pub name: String,
    /// Who decides.
    pub strategy: String,
    /// Of all tasks, from 0 to 1.
    pub share: f64,
    /// Known now.
    pub tasks: u64,
    /// What was seen of each measure.
    pub series: Vec<(Measure, Mean, Sketch)>,
}

/// A task as a scheduler knows it. Ages are in milliseconds.
#[derive(Debug, Clone)]
pub struct SwarmTask {
    /// What it is.
    pub task: TaskInfo,
    /// Who says so.
    pub scheduler: String,
    /// How that one decides about it.
    pub strategy: String,
    /// The arm that it is in; empty where that is not said.
    pub arm: String,
    /// Hosts that take part; of them, who have all of it, who want something, and to whom nothing comes.
    pub hosts: u32,
    /// See `hosts`.
    pub complete: u32,
    /// See `hosts`.
    pub taking: u32,
    /// See `hosts`.
    pub still: u32,
    /// Bytes read from the source.
    pub source: u64,
    /// Bytes that hosts took from each other.
    pub taken: u64,
    /// Of them, between data centres.
    pub crossed: u64,
    /// The seed.
    pub seed: Option<String>,
    /// Nodes that lead their neighbours in the scheduler's place, each with so many.
    pub delegates: Vec<(String, u32)>,
    /// Hosts whose bytes did not verify.
    pub blacklisted: Vec<String>,
    /// Who takes part, bounded.
    pub peers: Vec<SwarmPeer>,
    /// What was decided, the oldest first.
    pub entries: Vec<SwarmEntry>,
    /// Entries that are kept no more.
    pub forgotten: u64,
    /// When this was so, by the clock of who says so, in milliseconds since 1970: an entry is of the same time whenever
    /// it is asked for.
    pub now_ms: u64,
}

/// A host's part in a task.
#[derive(Debug, Clone)]
pub struct SwarmPeer {
    /// For people.
    pub name: String,
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: HostKind,
    /// Its data centre.
    pub idc: String,
    /// In a word.
    pub state: String,
    /// What it waits for.
    pub standing: Standing,
    /// Bytes it holds.
    pub held: u64,
    /// Its parents, best first.
    pub parents: Vec<String>,
    /// What it took, by who gave it.
    pub givers: Vec<SwarmGiver>,
    /// Bytes it read from the source.
    pub from_source: u64,
    /// Bytes it gave.
    pub given: u64,
    /// Leases that were taken back.
    pub withdrawn: u64,
    /// Since something came to it.
    pub last_ms: Option<u64>,
    /// Parents it does without, and for how long; `None` is for ever.
    pub blocked: Vec<(String, Option<u64>)>,
}

/// What one host took from another.
#[derive(Debug, Clone)]
pub struct SwarmGiver {
    /// Who; those beyond the ones that are named, together.
    pub name: Option<String>,
    /// Content bytes.
    pub bytes: u64,
    /// In so many runs.
    pub runs: u64,
    /// Leases it was told of.
    pub leases: u64,
    /// What did not come: why, and how often.
    pub failures: Vec<(Failing, u32)>,
    /// Since something came.
    pub last_ms: Option<u64>,
}

/// Why something did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// For programs.
    pub name: &'static str,
    /// For people: what the giver did.
    pub words: &'static str,
}

/// What a host waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It wants nothing.
    Rests,
    /// It reads the source by order.
    Seeds,
    /// Something came a moment ago.
    Moves,
    /// It has parents or leases, and nothing comes for so long.
    ForBytes(Option<u64>),
    /// It is to be leased something; whether somebody is about to be, or nobody has anything yet.
    ForLease(bool),
    /// This seed is to answer within so long.
    ForSeed(Option<String>, u64),
    /// The scheduler has just started.
    ForHearing(u64),
    /// Hosts that have named it are to say what they hold of it.
    ForHolders(u64),
    /// Nobody can serve it: attempts in vain, of so many, the next one in so long.
    ForParents(u32, u32, u64),
    /// Its turn at the source.
    ForTurn(u64),
    /// A neighbour leads it.
    WithDelegate(String),
    /// It reads the source; whether for its neighbours too.
    AtSource(bool),
    /// It is not heard of, and counts as gone in so long.
    Silent(u64),
    /// The origin said no, for so long.
    Void(String, u64),
    /// It gave up.
    GaveUp,
    /// Something that only later versions know.
    Other,
}

/// Something that was decided.
#[derive(Debug, Clone)]
pub struct SwarmEntry {
    /// Ascending among those of a task.
    pub number: u64,
    /// Since it was so first.
    pub first_ms: u64,
    /// Since it was so last.
    pub last_ms: u64,
    /// How often.
    pub times: u32,
    /// Whom it is about.
    pub host: String,
    /// What.
    pub what: Told,
}

/// What can be told of a host's part in a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// It asked to take part and held so many groups.
    Registered(u64),
    /// It said that it holds so many groups.
    Announced(u64),
    /// Parents were looked for.
    Scheduled(SwarmScheduling),
    /// It waits: for what, attempts in vain, and of how many.
    Waits(&'static str, u32, u32),
    /// A parent failed it.
    Failed {
        /// Which.
        parent: String,
        /// Why.
        why: Failing,
        /// Whether it does without it from then on.
        blocked: bool,
    },
    /// Leases to it were taken back, so many, as who was to give is not heard of any more.
    LetDown(String, u32),
    /// It asked for others than these.
    Rescheduled(Vec<String>),
    /// Its bytes did not verify, as somebody found out.
    Blacklisted(String),
    /// The seed was ordered to take part, for somebody; or more of what it takes part in.
    Ordered(Option<String>),
    /// The seed takes part, and holds so many groups.
    Obtains(u64),
    /// The seed cannot.
    SeedFailed(String),
    /// It was sent to the source: why, and whether for its neighbours too.
    Source(&'static str, bool),
    /// It cannot have it.
    Refused(String),
    /// It is through.
    Ended {
        /// Whether it has what it wanted.
        success: bool,
        /// Bytes from the source, from seeds, from neighbours.
        from: [u64; 3],
        /// In so many milliseconds.
        cost_ms: u32,
    },
    /// It was asked to lead its neighbours.
    AskedToLead,
    /// It leads so many of them.
    Leads(u64),
    /// And no more, for a reason.
    LeadsNoMore(String),
    /// A neighbour leads it from now on.
    Delegated(String),
    /// It came back from it.
    CameBack(String),
    /// Its stream broke.
    Silent,
    /// It is heard of again.
    Returned,
    /// It takes part no more.
    Gone,
    /// Something that only later versions know.
    Other,
}

/// A look for parents.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SwarmScheduling {
    /// Who was looked at.
    pub candidates: Vec<SwarmCandidate>,
    /// Who was granted, best first.
    pub granted: Vec<String>,
    /// So many took part.
    pub of: u32,
}

/// Somebody who might have become a parent.
#[derive(Debug, Clone, PartialEq)]
pub struct SwarmCandidate {
    /// Who.
    pub name: String,
    /// Why not, where it could not serve: for programs and for people.
    pub dropped: Option<(&'static str, &'static str)>,
    /// Otherwise the six scores, and their weighted sum.
    pub scores: Option<[f32; 7]>,
}
