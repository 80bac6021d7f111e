//! The joint between commands and whatever does the work: a node agent, or the engine inside this process.
//!
//! A command never knows which of them answers. Bytes arrive as [`ReadEvent`]s; a backend that can put them
//! into the output file itself is handed the file ([`Delivery::File`]) and reports [`ReadEvent::Written`]
//! instead of carrying them through. Nothing here renders or exits.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::TaskInfo;
use dfs_model::{ByteRange, ByteSize, HostId, HostKind, Rate, TaskId};
use dfs_peer::hashtree::Cv;
use dfs_source::Target;
use futures::stream::BoxStream;
use rustix::fs::Mode;

pub mod agent;
#[cfg(test)]
pub(crate) mod fake;
pub mod kept;
pub mod swarm;

pub use kept::{
    CachedEntry, CachedTree, ImageHere, Imported, LayerIndexBlob, LayerIndexes, Named, PinState,
    PinnedTree, Pulling, ReadsInfo, Repair, Unpinned,
};

/// Why a backend could not do it, by what a person can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// Not there.
    NotFound,
    /// There, and nothing of that name inside.
    NoPath,
    /// The origin wants credentials.
    Unauthenticated,
    /// The origin refuses.
    NotPermitted,
    /// The agent does not do it for this user.
    AgentRefused,
    /// Origin or network failed for good.
    SourceFailed,
    /// The origin sends on without end, or to what is not the web.
    Redirects,
    /// The origin answers something else than was asked.
    BadAnswer,
    /// The origin does not do what was asked, whenever it is asked.
    Declined,
    /// What is compressed does not unpack.
    BrokenArchive,
    /// There is no cluster to do it.
    NoCluster,
    /// The seed has no room.
    NoSeedSpace,
    /// Nothing came in time.
    TimedOut,
    /// The origin has another version now.
    OriginChanged,
    /// Bytes failed verification, and no other holder was left.
    Corrupt,
    /// The agent's cache has no room.
    NoSpace,
    /// What this process keeps while it runs has no room.
    NoOwnSpace,
    /// The output's disk is full.
    OutputFull,
    /// A limit or quota.
    Limit,
    /// The agent is there and does not answer.
    AgentSilent,
    /// More than this can take, whenever it is tried.
    TooLarge,
    /// Not possible with this origin.
    Unsupported,
    /// A tree where a file was wanted.
    IsTree,
    /// A file where a tree was wanted.
    NotTree,
    /// The request itself is wrong.
    BadRequest,
    /// The range is outside of the content.
    BadRange,
    /// Nothing is mounted there.
    NotMounted,
    /// The mount point cannot be used.
    MountDir,
    /// The mount is in use.
    MountBusy,
    /// Another mount lies on top of it.
    MountCovered,
    /// Another mount stands in it, and would go with it.
    MountCarries,
    /// Mounting failed.
    MountFailed,
    /// The mount shows one version.
    NotFollowing,
    /// The cache holds nothing of the task.
    NoTask,
    /// Something uses the task: it may not be taken away now.
    TaskInUse,
    /// The disk below the cache failed.
    CacheFailed,
    /// The task is pinned: it may not be taken away.
    TaskPinned,
    /// A tree that is pinned needs the task.
    TaskKept,
    /// More is to be pinned than there is room for.
    PinTooLarge,
    /// The agent cannot be replaced without loss.
    NotHandedOver,
    /// What was given is not a prefetch profile of this.
    BadProfile,
    /// The agent went away.
    AgentLost,
    /// The agent's answer cannot be read.
    AgentProtocol,
    /// Without an agent there is nothing to ask.
    NoSolo,
    /// A mistake in the program.
    Internal,
}

/// A backend's failure: a class, one line, and the causes below it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What can be done about it.
    pub class: FailureClass,
    /// One line, without the subject: it follows "cannot read URL: ".
    pub message: String,
    /// The causes, outermost first.
    pub because: Vec<String>,
}

impl Failure {
    /// A failure without causes.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), because: Vec::new() }
    }

    /// Adds a cause.
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.because.push(cause.into());
        self
    }
}

/// How an artifact is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum View {
    /// The one byte sequence behind the URL.
    File,
    /// A directory hierarchy.
    Tree,
    /// Whatever a mount shows.
    #[value(skip)]
    Auto,
}

/// What a URL turned out to be.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Where it is.
    pub url: String,
    /// A file or a tree, never `Auto`.
    pub view: View,
    /// The index of a tree.
    pub index: Option<TaskInfo>,
    /// The blob, or the spaces of the tree.
    pub tasks: Vec<TaskInfo>,
    /// Files in it.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From the tree's root, elements separated by `/`; any bytes but NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of content.
    pub length: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time, seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Where a symbolic link leads.
    pub link_target: Vec<u8>,
}

impl Entry {
    /// What of its mode a file of somebody else's may have: no set-user-ID, nor what is like it.
    pub fn permissions(&self) -> Mode {
        Mode::from_raw_mode(self.mode & 0o777)
    }
}

/// What a listing tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// A name in the tree.
    Entry(Entry),
    /// Something at the origin that the tree lacks.
    Missing(Missing),
}

/// Something at the origin that a tree lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// As an entry's.
    pub path: Vec<u8>,
    /// Why.
    pub why: String,
}

/// How a preheating goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preheating {
    /// The seed that has taken it on, in the first one and whenever another one takes over.
    pub seed: Option<String>,
    /// Bytes that the seed has of it.
    pub held: u64,
    /// Bytes of it, index included.
    pub total: u64,
    /// All of it is there.
    pub complete: bool,
}

/// Where bytes came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// From this machine's store.
    pub cache: u64,
    /// From the origin, by this machine itself.
    pub source: u64,
    /// Requests that this took.
    pub source_requests: u64,
    /// From each other host.
    pub parents: Vec<ParentBytes>,
    /// Bytes of the piece plane with headers and proofs.
    pub wire: u64,
}

/// What one parent gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentBytes {
    /// For people.
    pub name: String,
    /// Who, where it said so.
    pub host_id: Option<HostId>,
    /// A neighbour or a seed.
    pub kind: HostKind,
    /// Content bytes.
    pub bytes: u64,
}

impl Ledger {
    /// Content bytes from everywhere.
    pub fn total(&self) -> u64 {
        let parents = self.parents.iter().map(|parent| parent.bytes);
        parents.fold(self.cache.saturating_add(self.source), u64::saturating_add)
    }

    /// Bytes that were received for them: from other hosts with headers and proofs, and the content from the origin.
    pub fn on_the_wire(&self) -> u64 {
        self.wire.saturating_add(self.source)
    }

    /// Content bytes from hosts of this kind.
    pub fn from_kind(&self, kind: HostKind) -> u64 {
        self.parents.iter().filter(|parent| parent.kind == kind).map(|parent| parent.bytes).sum()
    }

    /// Adds what another transfer took.
    pub fn add(&mut self, other: &Self) {
        self.cache += other.cache;
        self.source += other.source;
        self.source_requests += other.source_requests;
        self.wire += other.wire;
        for parent in &other.parents {
            let known = self.parents.iter_mut().find(|known| {
                known.host_id == parent.host_id
                    && known.name == parent.name
                    && known.kind == parent.kind
            });
            match known {
                Some(known) => known.bytes += parent.bytes,
                None => self.parents.push(parent.clone()),
            }
        }
    }
}

/// Bytes that are wanted.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The artifact.
    pub target: Target,
    /// A file inside its tree; `None` is the blob itself.
    pub path: Option<Vec<u8>>,
    /// First byte wanted.
    pub start: u64,
    /// One past the last byte wanted; `None` is the end.
    pub end: Option<u64>,
    /// Urgency as on the wire, 0 most urgent.
    pub priority: u8,
    /// Most bytes in a second that a backend inside this process may take; behind an agent the reader paces.
    pub limit: Option<Rate>,
}

/// How the bytes are wanted.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// As [`ReadEvent::Data`], in order.
    Stream,
    /// The backend may write them into this file itself; content byte `origin` belongs at file offset 0.
    File {
        /// Where to.
        file: Arc<File>,
        /// Content offset of the file's first byte.
        origin: u64,
    },
}

/// The file in which a backend gathers the content and which nobody else will keep: an output that takes it
/// over is spared the copy.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Where it is.
    pub path: PathBuf,
    /// To be set by who took it over, before the next event is asked for.
    pub taken: Arc<AtomicBool>,
}

/// What happens while bytes come.
#[derive(Debug, Clone)]
pub enum ReadEvent {
    /// First: what it is.
    Start {
        /// Bytes of the whole content, where known.
        length: Option<u64>,
        /// Its task; a file inside a tree shares one with its neighbours.
        task: Option<TaskId>,
        /// The file that the output may become.
        offer: Option<Offer>,
    },
    /// The next bytes, in order.
    Data(Bytes),
    /// The backend has written the next bytes into the output file.
    Written {
        /// Which, of the content.
        range: ByteRange,
        /// Those of the groups that begin and end in it, where what is read is a task as a whole.
        digests: Vec<Cv>,
    },
    /// How it goes.
    Progress {
        /// So far.
        ledger: Ledger,
        /// Why nothing moves; `None` while it does.
        waiting_for: Option<String>,
    },
    /// Last: all bytes were delivered.
    End {
        /// In all.
        ledger: Ledger,
        /// Bytes of the whole content.
        length: u64,
        /// BLAKE3 of the whole content, where the backend holds all of it verified.
        blake3: Option<[u8; 32]>,
    },
}

/// Events until `End` or a failure.
pub type ReadStream = BoxStream<'static, Result<ReadEvent, Failure>>;

/// Whole small files of a tree that are wanted.
#[derive(Debug, Clone)]
pub struct FilesRequest {
    /// The artifact.
    pub target: Target,
    /// The files inside its tree, at most [`FilesRequest::MOST`].
    pub paths: Vec<Vec<u8>>,
    /// Urgency as on the wire, 0 most urgent.
    pub priority: u8,
}

impl FilesRequest {
    /// Files in one request.
    pub const MOST: usize = 512;
    /// Bytes of their content.
    pub const MOST_BYTES: u64 = 8 << 20;
    /// Bytes of a file that is small enough.
    pub const LONGEST: u64 = 256 << 10;
}

/// What happens while files come.
#[derive(Debug, Clone)]
pub enum FilesEvent {
    /// Files by their number among the paths, with all of their bytes; without them where a file is to be read by
    /// itself. Each comes once, in any order.
    Files(Vec<(usize, Option<Bytes>)>),
    /// How it goes.
    Progress {
        /// So far.
        ledger: Ledger,
        /// Why nothing moves; `None` while it does.
        waiting_for: Option<String>,
    },
    /// Last.
    End {
        /// In all.
        ledger: Ledger,
    },
}

/// Events until `End` or a failure.
pub type FilesStream = BoxStream<'static, Result<FilesEvent, Failure>>;

/// What to mount.
#[derive(Debug, Clone)]
pub struct MountRequest {
    /// The artifact.
    pub target: Target,
    /// What of its tree; empty is all of it.
    pub path: Vec<u8>,
    /// Absolute mount point.
    pub dir: PathBuf,
    /// The same, open, where its name must not be looked up by others.
    pub handle: Option<Arc<OwnedFd>>,
    /// As a file, a tree, or by its kind.
    pub view: View,
    /// `auto` or `fuse`.
    pub lane: String,
    /// Whether other users may look inside.
    pub allow_other: bool,
    /// Whose all files appear to be.
    pub uid: Option<u32>,
    /// Which group's.
    pub gid: Option<u32>,
    /// Whether no program can be started from it.
    pub noexec: bool,
    /// Whether set-user-id bits and devices work.
    pub effective: bool,
    /// What is fetched before anybody reads it.
    pub prefetch: Prefetch,
    /// How much of the cache it may take.
    pub cache_quota: Option<ByteSize>,
    /// Whether what is in the cache is hashed again whenever the agent is asked for it.
    pub verify_reads: bool,
    /// How often its target is looked up, where it is to show what that names by then.
    pub follow: Option<Duration>,
}

/// What is fetched of a mount before anybody reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Prefetch {
    /// Nothing
    Off,
    /// What earlier mounts of the same read first, in their order, where that is known
    #[default]
    Trace,
    /// That, and then all the rest: the mount works offline in the end
    All,
}

/// How far that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrefetchState {
    /// There is nothing to do.
    #[default]
    Idle,
    /// Something is fetched.
    Fetching,
    /// It cannot be had now.
    Waiting,
    /// All that was to be fetched is here.
    Done,
    /// Readers wanted other things than the profile says.
    Misled,
}

/// What was fetched of a mount before anybody read it, in bytes.
#[derive(Debug, Clone, Default)]
pub struct PrefetchInfo {
    /// What it is to do.
    pub mode: Prefetch,
    /// How far it is.
    pub state: PrefetchState,
    /// What it waits for.
    pub waiting_for: String,
    /// Runs that the profile was made of; 0 where there is none.
    pub runs: u32,
    /// In the profile.
    pub known: u64,
    /// Read, each once.
    pub touched: u64,
    /// Fetched before anybody had read them.
    pub fetched: u64,
    /// Of those, read then.
    pub hit: u64,
}

/// Whose profile is meant.
#[derive(Debug, Clone)]
pub enum Traced {
    /// That of what is mounted there.
    Mount(String),
    /// That of what a mount of this would show.
    Target {
        /// The artifact.
        target: Box<Target>,
        /// How it would be shown.
        view: View,
        /// What of its tree; empty is all of it.
        path: Vec<u8>,
    },
}

/// What is known of what readers touch first.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// What it is about.
    pub url: String,
    /// Where that is mounted, if the mount was named.
    pub dir: Option<String>,
    /// As a file.
    pub file: Vec<u8>,
    /// Runs that it was made of; 0 where nothing is known.
    pub runs: u32,
    /// Bytes in it.
    pub bytes: u64,
    /// When it was written down last, in milliseconds after 1970; 0 where it was not yet.
    pub written_ms: u64,
    /// Files of which something is in it.
    pub files: u64,
    /// Those whose turn is first.
    pub first: Vec<TracedFile>,
}

/// A file of which something is in a profile.
#[derive(Debug, Clone)]
pub struct TracedFile {
    /// From the root of what is mounted.
    pub path: Vec<u8>,
    /// Bytes of it.
    pub length: u64,
    /// Those that are in the profile.
    pub bytes: u64,
    /// In how many of the last runs its first part was touched.
    pub touched: u32,
    /// Of how many.
    pub runs: u32,
}

/// A mount as the agent sees it.
#[derive(Debug, Clone)]
pub struct MountInfo {
    /// Mount point.
    pub dir: String,
    /// What is mounted.
    pub artifact: Artifact,
    /// How the kernel reads it.
    pub lane: String,
    /// Why not a better lane.
    pub lane_reason: String,
    /// Content bytes that are on this machine.
    pub cached: u64,
    /// Content bytes in all.
    pub content: u64,
    /// Where they came from.
    pub ledger: Ledger,
    /// In a word or two.
    pub state: String,
    /// Files in it.
    pub files: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Things at the origin that the tree lacks.
    pub left_out: u64,
    /// What becomes of it when its agent dies.
    pub survival: Survival,
    /// What is fetched of it before anybody reads it.
    pub prefetch: PrefetchInfo,
    /// How much of the cache it may take.
    pub cache_quota: Option<ByteSize>,
    /// Whether what is in the cache is hashed again whenever the agent is asked for it.
    pub verify_reads: bool,
    /// Where its origin could not be asked, and it is shown as it was before.
    pub away: Option<Away>,
    /// What its readers met; `None` where the kernel reads it alone.
    pub reads: Option<ReadsInfo>,
    /// How it keeps up with its target, where it does.
    pub follow: Option<FollowInfo>,
}

/// An origin that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// As it was then, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Why.
    pub why: String,
}

/// How a mount keeps up with its target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FollowInfo {
    /// How often that is looked up.
    pub every: Duration,
    /// To how many other versions the mount has switched.
    pub switches: u64,
    /// When it did last, in milliseconds since 1970; 0 is never.
    pub switched_ms: u64,
    /// When the target was looked up last with success; 0 is not yet.
    pub looked_ms: u64,
    /// Why it cannot be.
    pub failed: Option<String>,
    /// Since when.
    pub failing_ms: u64,
    /// Versions that are in use beside the one that is shown.
    pub earlier: u32,
    /// Whether the target names one version for ever.
    pub never_changes: bool,
}

/// What becomes of a mount when its agent dies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Survival {
    /// The next agent goes on with it.
    Kept {
        /// The process that keeps it until then.
        holder: u32,
        /// Whether reads under way go on, too; otherwise each of them fails once.
        resends: bool,
    },
    /// It needs no agent.
    Independent,
    /// It dies, too.
    Dies {
        /// Why nobody keeps it, where that was wanted.
        why: Option<String>,
    },
}

/// The state of a mount whose agent is gone.
const DEAD: &str = "dead";
/// That of one whose agent does not answer.
const SILENT: &str = "silent";

impl MountInfo {
    /// A mount that nobody serves any more: all that is known of it is what the kernel remembers.
    pub fn dead(dir: &Path, url: String) -> Self {
        Self::remembered(dir, url, DEAD)
    }

    /// A mount whose agent does not answer: no more is known of it either.
    pub fn silent(dir: &Path, url: String) -> Self {
        Self::remembered(dir, url, SILENT)
    }

    fn remembered(dir: &Path, url: String, state: &str) -> Self {
        let artifact =
            Artifact { url, view: View::Tree, index: None, tasks: Vec::new(), files: 0, bytes: 0 };
        Self {
            dir: dir.to_string_lossy().into_owned(),
            artifact,
            lane: "fuse".to_owned(),
            lane_reason: String::new(),
            cached: 0,
            content: 0,
            ledger: Ledger::default(),
            state: state.to_owned(),
            files: 0,
            index_bytes: 0,
            left_out: 0,
            survival: Survival::Dies { why: None },
            prefetch: PrefetchInfo::default(),
            away: None,
            reads: None,
            cache_quota: None,
            verify_reads: false,
            follow: None,
        }
    }

    /// Whether all of its reads came to the agent, but for those that the page cache answers.
    pub fn all_reads_are_seen(&self) -> bool {
        self.reads.is_some_and(|reads| !reads.unseen)
    }

    /// Whether nobody serves it any more.
    pub fn is_dead(&self) -> bool {
        self.state == DEAD
    }

    /// Whether its agent does not answer.
    pub fn is_silent(&self) -> bool {
        self.state == SILENT
    }
}

/// A task in the cache.
#[derive(Debug, Clone)]
pub struct CachedTask {
    /// What it is.
    pub task: TaskInfo,
    /// Content bytes held.
    pub cached: u64,
    /// Bytes it takes on disk.
    pub disk: u64,
    /// Whether something uses it now.
    pub in_use: bool,
    /// Whether it is kept until it is let go.
    pub pinned: bool,
    /// Whether it is being fetched now.
    pub fetching: bool,
    /// Milliseconds since 1970.
    pub last_read_ms: u64,
    /// Where its bytes came from.
    pub ledger: Ledger,
    /// Whether all of it is held.
    pub complete: bool,
    /// Names of those it is fetched from now.
    pub parents: Vec<String>,
}

/// Whether a pin keeps a task from being removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pins {
    /// It does.
    Count,
    /// It goes with the task.
    GoToo,
}

/// What becomes of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// It is set.
    Set,
    /// It is taken away.
    Lift,
}

/// The agent about itself.
#[derive(Debug, Clone)]
pub struct AgentStatus {
    /// Of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Another number each time that it is started.
    pub instance: u64,
    /// Its name in the swarm.
    pub host_id: Option<HostId>,
    /// Where it keeps things.
    pub data_dir: String,
    /// Bytes of its cache in use.
    pub used: u64,
    /// Bytes its cache may use.
    pub capacity: u64,
    /// Where its cache lies: `disk`, `memory` or `layered`.
    pub medium: String,
    /// In which directory.
    pub cache_dir: String,
    /// Its cluster; `None` is solo.
    pub cluster: Option<String>,
    /// Whether the cluster is reached.
    pub cluster_connected: bool,
}

/// What eviction did, or would do.
#[derive(Debug, Clone)]
pub struct Collected {
    /// The tasks removed.
    pub tasks: Vec<TaskId>,
    /// Bytes given back.
    pub freed: u64,
    /// Bytes still in use.
    pub used: u64,
}

/// One step of a cache verification.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The task; `None` with totals.
    pub task: Option<TaskId>,
    /// Groups hashed again.
    pub groups_checked: u64,
    /// Groups found bad and marked missing.
    pub groups_bad: u64,
    /// Which ones.
    pub bad_groups: Vec<u64>,
    /// Of the bad ones, fetched again.
    pub groups_repaired: u64,
    /// Why others were not.
    pub why_not: String,
    /// The last event: totals.
    pub finished: bool,
}

/// What a target is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To see what it is.
    Look,
    /// To read it next.
    Read,
    /// To read it next as the origin has it now, whatever is remembered of it.
    ReadAnew,
    /// To see what the origin has now, whatever is remembered of it.
    Watch,
}

/// Whatever does the work. Errors carry no subject: commands name it.
#[async_trait]
pub trait Backend: Send + Sync {
    /// What `target` is.
    async fn open(
        &self,
        target: &Target,
        view: View,
        purpose: Purpose,
    ) -> Result<Artifact, Failure>;
    /// Entries below `path` of its tree; only the next level unless `recursive`. All levels come in the order of
    /// whole paths, a directory's with a slash behind it; what is missing comes last.
    fn list(
        &self,
        target: &Target,
        path: &[u8],
        recursive: bool,
    ) -> BoxStream<'static, Result<Listed, Failure>>;
    /// Bytes of a blob or of one file in a tree. Dropping the stream stops the transfer.
    fn read(&self, request: ReadRequest, delivery: Delivery) -> ReadStream;
    /// Many small files of a tree. Dropping the stream stops the transfer.
    fn read_files(&self, request: FilesRequest) -> FilesStream;
    /// Lets the seed of the cluster fetch all of it, whoever goes on listening.
    fn preheat(
        &self,
        target: &Target,
        view: View,
    ) -> BoxStream<'static, Result<Preheating, Failure>>;
    /// Mounts; answers when the mount can be read. One that is made where this process does not see it is undone, and fails.
    async fn mount(&self, request: MountRequest) -> Result<MountInfo, Failure>;
    /// Takes a mount away; answers how many are left.
    async fn unmount(&self, dir: &str, lazy: bool) -> Result<u32, Failure>;
    /// Lets another agent go on in its place; answers the mounts that it is given.
    async fn hand_over(&self) -> Result<u32, Failure>;
    /// Has a mount that follows its target look it up now; whether it shows another version by that.
    async fn refresh(&self, dir: &str) -> Result<(bool, MountInfo), Failure>;
    /// All mounts.
    async fn mounts(&self) -> Result<Vec<MountInfo>, Failure>;
    /// What is known of what readers touch first, with the names of so many files.
    async fn trace(&self, traced: &Traced, files: u32) -> Result<Profile, Failure>;
    /// Puts a profile in place of it.
    async fn apply_trace(&self, traced: &Traced, file: Vec<u8>) -> Result<Profile, Failure>;
    /// Ends the run of what is mounted there, and begins another one.
    async fn record_trace(&self, dir: &str) -> Result<Profile, Failure>;
    /// Tasks in the cache whose id begins so.
    async fn tasks(&self, id_prefix: &str) -> Result<Vec<CachedTask>, Failure>;
    /// What the schedulers of the cluster know of tasks.
    async fn swarm(&self, look: &swarm::Look) -> Result<swarm::Seen, Failure>;
    /// Takes a task out of the cache, with its pin where `pins` says so; answers the bytes given back.
    async fn remove_task(&self, task: TaskId, pins: Pins) -> Result<u64, Failure>;
    /// Pins a task or lets it go; answers whether that changed anything.
    async fn pin_task(&self, task: TaskId, pin: Pin) -> Result<bool, Failure>;
    /// What of something is here, with so many entries of a directory.
    async fn cached(&self, named: &Named, entries: u32) -> Result<CachedTree, Failure>;
    /// Keeps all of something; answers whether that is news, before what is missing came.
    async fn pin_tree(&self, named: &Named) -> Result<(PinnedTree, bool), Failure>;
    /// Lets go of it.
    async fn unpin_tree(&self, named: &Named) -> Result<Unpinned, Failure>;
    /// All that is kept so.
    async fn pins(&self) -> Result<Vec<PinnedTree>, Failure>;
    /// Images that are known here, those that were used last first.
    async fn images(&self) -> Result<Vec<ImageHere>, Failure>;
    /// Fetches all that a mount of it would show. Dropping the stream stops it.
    fn pull(&self, target: &Target) -> BoxStream<'static, Result<Pulling, Failure>>;
    /// The indexes of an image's layers; what is not known is made.
    async fn index_image(&self, target: &Target) -> Result<LayerIndexes, Failure>;
    /// Takes over those that lie at `from`.
    async fn import_indexes(&self, target: &Target, from: &Target) -> Result<Imported, Failure>;
    /// Evicts down to `target` bytes, or to the agent's own low watermark.
    async fn collect_garbage(
        &self,
        target: Option<u64>,
        dry_run: bool,
    ) -> Result<Collected, Failure>;
    /// Hashes again what the cache holds of these tasks; of all where none is named.
    fn verify_cache(
        &self,
        tasks: &[TaskId],
        repair: Repair,
    ) -> BoxStream<'static, Result<Verified, Failure>>;
    /// About itself.
    async fn status(&self) -> Result<AgentStatus, Failure>;
}
