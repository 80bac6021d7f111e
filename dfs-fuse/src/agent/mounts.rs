//! What this process has mounted.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dfs_artifact::{Index, OriginRecipe, Recipe, View, erofs};
use dfs_model::{ByteRange, ByteSize, CanonicalUrl, GroupRange, GroupSet};
use dfs_peer::engine::{Engine, Ledger, Mark, ReadError, Task};
use dfs_peer::host::Host;
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::{Lent, Medium, StoreError};
use dfs_peer::swarm::Swarm;
use dfs_proto::node::{KeptMount, MountedAt, ShownMount};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::AgentFacts;
use super::api::trace::Traced;
use super::asker::Asker;
use super::before::{Away, Before};
use super::content::SpaceContent;
use super::follow::{Follow, FollowCounts, FollowView, Follower, Following};
use super::independent::{self, Noted, Records};
use super::kept;
use super::lazy::count_missing;
use super::prefetch::{Mode, Prefetch, PrefetchView};
use super::quota::Quotas;
use super::shared::Sharing;
use super::traces::{Beginning, Traces, Watching, subject};
use super::walk::find;
use crate::core::{AllReads, Generation, Left, Owner, Reads, Seen, Snapshot, Versions};
use crate::holder::{Holder, Kept};
use crate::lane::{self, Chosen, Lane, Machine, Shape, Wanted};
use crate::mount::{
    self, Audience, Custody, Detach, Keeping, Missing, MountEntry, MountError, MountOptions,
    Mounted, Privileges, Programs, Served, Survival, Switcher, UnmountError, Unmounted,
    decode_nodes, mounted_at, served, unmount,
};
use crate::trace::Place;
use crate::tree::{Footprint, IndexTree, PartTree, Totals, Tree, TreeError};

/// A mount that is served answers well within.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What to mount where.
#[derive(Clone)]
pub struct MountRequest {
    /// What, opened as a tree.
    pub opened: OpenArtifact,
    /// Seen how.
    pub view: View,
    /// What of the tree; empty is all of it.
    pub path: Vec<u8>,
    /// Where: an absolute path.
    pub dir: PathBuf,
    /// Another name of it, where that one must not be looked up.
    pub way: Option<PathBuf>,
    /// Who may look in.
    pub audience: Audience,
    /// By which way it is to be read.
    pub lane: Wanted,
    /// Whose all files appear to be.
    pub owner: Owner,
    /// Whether set-user-id bits and device nodes have any effect.
    pub privileges: Privileges,
    /// Whether programs can be started from it.
    pub programs: Programs,
    /// Who asks for it.
    pub by: Asker,
    /// Where the agent keeps its own data, which no mount may hide.
    pub data_dir: PathBuf,
    /// What is fetched of it before anybody reads it.
    pub prefetch: Mode,
    /// Where it is shown as it was before: why.
    pub away: Option<Away>,
    /// How much of the cache it may take.
    pub cache_quota: Option<ByteSize>,
    /// How often its target is looked up, where it is to show what that names by then.
    pub follow: Option<Duration>,
}

/// A mount or unmount that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum MountTableError {
    /// The artifact is one file without a tree over it.
    #[error("there is no tree to mount")]
    NoTree,
    /// Nothing that can be mounted is at the path.
    #[error("there is no file or directory '{0}' in it")]
    NoPath(String),
    /// The index contradicts itself.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A task cannot be taken into use.
    #[error(transparent)]
    Content(#[from] ReadError),
    /// The cache lies where nothing of a file can be given back.
    #[error("the cache's file system cannot hold a mount to a quota")]
    NoQuota(#[source] StoreError),
    /// The kernel, or what it needs.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The way back.
    #[error(transparent)]
    Unmount(#[from] UnmountError),
    /// Nothing of this agent is mounted there.
    #[error("{} is not mounted by this agent", .0.display())]
    NotMounted(PathBuf),
    /// It is another user's.
    #[error("{} is not a mount of yours: who mounted it, the agent's own user and root take it away", .0.display())]
    NotYours(PathBuf),
    /// What an earlier agent wrote down of it.
    #[error("what was written down of it cannot be read")]
    Nodes(#[source] io::Error),
    /// It shows one version.
    #[error("{} shows the version that it was mounted with: it follows nothing", .0.display())]
    NotFollowing(PathBuf),
    /// The process is stopping.
    #[error("the agent is stopping")]
    Stopping,
}

impl MountTableError {
    /// Whether the system lacks something that it has at other times: threads, files, memory.
    pub fn is_for_want_of_resources(&self) -> bool {
        match self {
            Self::Mount(error) => error.is_for_want_of_resources(),
            Self::Unmount(error) => error.is_for_want_of_resources(),
            _ => false,
        }
    }
}

struct Entry {
    mounted: Mounted,
    showing: Showing,
    follow: Option<Arc<Follow>>,
}

/// What a mount shows at a time.
pub(super) struct Now {
    shown: Arc<Shown>,
    /// Keeps its bytes from being evicted, also where nobody in this process reads them.
    _content: Arc<SpaceContent>,
    /// Ends what is fetched for it.
    _prefetching: Option<DropGuard>,
    /// Its run ends after it.
    _watching: Watching,
}

impl Now {
    /// Where nothing is fetched for it yet.
    pub fn new(shown: Arc<Shown>, content: Arc<SpaceContent>, watching: Watching) -> Self {
        Self { shown, _content: content, _prefetching: None, _watching: watching }
    }
}

/// What a mount shows now, and what it takes to have it show something else.
#[derive(Clone)]
pub(super) struct Showing {
    now: Arc<Mutex<Now>>,
    watcher: Watcher,
    quotas: Arc<Quotas>,
    ended: CancellationToken,
    tasks: TaskTracker,
    runtime: Handle,
}

impl Showing {
    /// What is shown.
    pub fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.now.lock().shown)
    }

    /// Has the reads of it recorded. Blocks.
    pub fn watch(&self, what: &What) -> Result<Watching, MountTableError> {
        self.watcher.watch(what)
    }

    /// What it holds in use of what it shows next.
    pub fn content(&self, what: &What) -> Result<Arc<SpaceContent>, MountTableError> {
        content_of(&self.quotas, &what.opened, what.cache_quota)
    }

    /// Something else is shown, for which is fetched from now on; what it was.
    pub fn put(&self, next: Now) -> Now {
        let before = std::mem::replace(&mut *self.now.lock(), next);
        self.fetch();
        before
    }

    /// Fetches for what is shown, until it is another or the mount ends.
    fn fetch(&self) {
        let mut now = self.now.lock();
        let (stop, shown) = (self.ended.child_token(), Arc::clone(&now.shown));
        let until = stop.clone();
        let fetching = async move {
            until.run_until_cancelled(shown.prefetch.run(&shown)).await;
        };
        self.tasks.spawn_on(fetching, &self.runtime);
        if let Some(quota) = now._content.quota() {
            let kept = Arc::clone(quota).keep(Arc::downgrade(&now._content));
            let ended = stop.clone();
            let keeping = async move {
                ended.run_until_cancelled(kept).await;
            };
            self.tasks.spawn_on(keeping, &self.runtime);
        }
        now._prefetching = Some(stop.drop_guard());
    }
}

/// Why a mount of an earlier agent has its lane.
pub(super) const KEPT: &str = "as the agent before this one had it";

/// What is mounted.
pub(super) struct Shown {
    what: What,
    lane: Chosen,
    /// What of the spaces is shown. Of a whole tree it is found out when somebody wants to know; `None` where its
    /// index does not tell.
    footprint: OnceLock<Option<Footprint>>,
    marks: Vec<Mark>,
    prefetch: Prefetch,
    /// What its readers meet, where that is seen.
    reads: Option<Arc<Reads>>,
}

/// A mount as people see it.
pub struct MountView {
    /// Where.
    pub dir: PathBuf,
    /// What.
    pub opened: OpenArtifact,
    /// What of it; empty is all.
    pub path: Vec<u8>,
    /// Files that it shows.
    pub files: u64,
    /// Bytes of content that it is about.
    pub content: u64,
    /// Those of them that are here.
    pub cached: u64,
    /// Where they came from since it was mounted.
    pub ledger: Ledger,
    /// By which way it is read.
    pub lane: Chosen,
    /// Who mounted it.
    pub by: Asker,
    /// What becomes of it when this process dies.
    pub survival: Survival,
    /// What is fetched of it before anybody reads it.
    pub prefetch: PrefetchView,
    /// Where it is shown as it was before: why.
    pub away: Option<Away>,
    /// What its readers met, where that is seen.
    pub reads: Option<Seen>,
    /// How much of the cache it may take.
    pub cache_quota: Option<ByteSize>,
    /// How it keeps up with its target, where it does.
    pub follow: Option<FollowView>,
}

/// The mounts of this process; dropping it unmounts them all.
pub struct MountTable {
    entries: Arc<Mutex<BTreeMap<PathBuf, Entry>>>,
    /// Taken away lazily: without a name, and served until the last user leaves.
    detached: Arc<Mutex<Vec<Entry>>>,
    count: watch::Sender<usize>,
    /// How they are kept when this process dies.
    custody: Option<Custody>,
    /// Those that need no agent, as they are written down.
    records: Records,
    /// What was mounted, as it is written down.
    before: Before,
    /// Content files that the store does not open anew.
    lent: Lent,
    /// Whether what comes lies in memory first, and not where the kernel would look for it.
    is_layered: bool,
    /// What is read of them.
    traces: Arc<Traces>,
    /// What readers meet.
    reads: AllReads,
    /// Where this process listens.
    socket: Option<PathBuf>,
    /// How much of the cache they may take.
    quotas: Arc<Quotas>,
    /// Who opens what is followed, and whose swarm is told of what is read.
    engine: Engine,
    /// What those did that follow.
    follows: Arc<FollowCounts>,
    /// One for each mount that is served, until it ends; the runtime's end ends them too.
    watchers: TaskTracker,
}

/// The index's bytes, shared with whoever else reads it.
pub(super) struct SharedIndex(Arc<Index>);

impl AsRef<[u8]> for SharedIndex {
    fn as_ref(&self) -> &[u8] {
        self.0.image().data()
    }
}

impl MountTable {
    /// A table whose mounts are kept so when this process dies, and whose profiles lie in its data directory and go to
    /// the swarm.
    pub fn new(custody: Option<Custody>, facts: &AgentFacts, host: &Host) -> Self {
        let data_dir = &facts.data_dir;
        Self {
            entries: Arc::default(),
            detached: Arc::default(),
            count: watch::Sender::default(),
            custody,
            records: Records::of(data_dir),
            before: Before::in_dir(data_dir),
            traces: Arc::new(Traces::in_dir(data_dir)),
            lent: host.engine.store().lent().clone(),
            is_layered: matches!(host.engine.store().medium(), Medium::Layered(_)),
            reads: AllReads::default(),
            socket: facts.socket.clone(),
            quotas: Arc::default(),
            engine: host.engine.clone(),
            follows: Arc::default(),
            watchers: TaskTracker::new(),
        }
    }

    /// Content files that the store does not open anew.
    pub(super) fn lent(&self) -> Lent {
        self.lent.clone()
    }

    /// Those that need no agent, as they are written down.
    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// What is mounted on a directory.
    pub(super) fn shown_at(&self, dir: &Path) -> Option<Arc<Shown>> {
        self.entries.lock().get(dir).map(|entry| entry.showing.shown())
    }

    /// Who has the mount on a directory follow its target.
    pub fn follow_at(&self, dir: &Path) -> Result<Arc<Follow>, MountTableError> {
        let entries = self.entries.lock();
        let entry = entries.get(dir);
        let entry = entry.ok_or_else(|| MountTableError::NotMounted(dir.to_owned()))?;
        let follow = entry.follow.clone();
        follow.ok_or_else(|| MountTableError::NotFollowing(dir.to_owned()))
    }

    /// What those did that follow.
    pub fn follows(&self) -> &FollowCounts {
        &self.follows
    }

    /// What is read of them.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// What readers of all mounts met, those that have ended included.
    pub fn reads(&self) -> Seen {
        self.reads.seen()
    }

    /// Bytes that were given back for the quotas of mounts.
    pub fn given_back(&self) -> u64 {
        self.quotas.freed()
    }

    /// What a mount holds in use of what it shows.
    fn content(
        &self,
        opened: &OpenArtifact,
        quota: Option<ByteSize>,
    ) -> Result<Arc<SpaceContent>, MountTableError> {
        content_of(&self.quotas, opened, quota)
    }

    /// Who keeps them.
    pub fn holder(&self) -> Option<Arc<dyn Holder>> {
        self.custody.as_ref().map(|custody| Arc::clone(&custody.holder))
    }

    /// How many are served, to be followed; those that were taken away and are still in use count too.
    pub fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// Mounts. Blocks while the kernel does.
    pub async fn mount(&self, request: MountRequest) -> Result<PathBuf, MountTableError> {
        let what = request.what();
        let whole = whole_tree(&what.opened)?;
        let content = self.content(&what.opened, what.cache_quota)?;
        let in_use = Arc::clone(&content);
        let mut options = request.options();
        hold_to_quota(&mut options, what.cache_quota);
        options.keeping = self.keeping(kept::shown(&what));
        let alone = Alone::of(&what.opened);
        let shape = self.shape(&request, &alone).await?;
        let mut lane = lane::choose(request.lane, &self.machine(), &shape);
        if lane.lane == Lane::Kernel {
            let asked = lane.clone();
            let mounted = match shape.whole {
                true => self.mount_whole(&request, &options, asked, Arc::clone(&content)).await,
                false => {
                    let options = options.clone();
                    self.mount_lazily(&request, options, asked, Arc::clone(&content)).await
                }
            };
            match mounted {
                Err(MountTableError::Mount(MountError::Refused { source, .. })) => {
                    let why = format!("kernel was refused: {source}");
                    let best = lane::choose(Wanted::Best, &self.machine(), &shape);
                    lane = lane::instead(&why, best);
                }
                mounted => return mounted,
            }
        }
        if lane.lane == Lane::Passthrough {
            options.direct = alone.spaces;
        }
        let (dir, watcher) = (request.dir, self.watcher(Beginning::Mounted));
        let reads = self.counts(&mut options);
        let mounting = tokio::task::spawn_blocking(move || {
            give_back(&whole);
            let (tree, footprint) = tree_of(whole, &what.path)?;
            let watching = watcher.watch(&what)?;
            let prefetch = Prefetch::new(what.prefetch, Arc::clone(watching.watched()), &content);
            options.core.recorder = Some(Arc::clone(watching.watched().recorder()));
            let mounted = mount::mount(&dir, tree, content, &options)?;
            if let Err(Some(why)) = mounted.direct() {
                lane = lane::refused(why, &lane);
            }
            let shown = Shown::new(what, footprint, lane, prefetch, Some(reads));
            Ok::<_, MountTableError>((mounted, shown, watching))
        });
        let (mounted, shown, watching) =
            mounting.await.map_err(|_| MountTableError::Stopping)??;
        Ok(self.keep(mounted, shown, in_use, watching))
    }

    /// What was mounted before.
    pub(super) fn before(&self) -> Before {
        self.before.clone()
    }

    /// Takes note of what was mounted, for the time when its origin is away.
    pub(super) async fn remember(&self, request: MountRequest) {
        let before = self.before.clone();
        let noting = tokio::task::spawn_blocking(move || {
            let shown = kept::shown(&request.what());
            before.note(&request.opened.target, request.view, &shown)
        });
        if let Ok(Err(error)) = noting.await {
            tracing::warn!(%error, "what was mounted is not remembered");
        }
    }

    /// Whether what comes lies in memory first, and not where the kernel would look for it.
    pub(super) fn is_layered(&self) -> bool {
        self.is_layered
    }

    /// What can be done here.
    fn machine(&self) -> Machine {
        let unguarded = match &self.custody {
            _ if self.is_layered => Some(lane::LAYERED),
            Some(custody) => custody.holder.cannot_guard(),
            None => Some(lane::NO_HOLDER),
        };
        Machine { unguarded, ..Machine::this() }
    }

    /// Mounts what is all here.
    async fn mount_whole(
        &self,
        request: &MountRequest,
        options: &MountOptions,
        lane: Chosen,
        content: Arc<SpaceContent>,
    ) -> Result<PathBuf, MountTableError> {
        let mounted = self.mount_by_kernel(request, options).await?;
        self.keep_without_agent(mounted, request.what(), lane, content).await
    }

    /// Mounts without the agent.
    async fn mount_by_kernel(
        &self,
        request: &MountRequest,
        options: &MountOptions,
    ) -> Result<(Mounted, Noted), MountTableError> {
        let (dir, options) = (request.dir.clone(), options.clone());
        let (noted, request) = (self.records.next(), request.clone());
        let mounting = tokio::task::spawn_blocking(move || {
            let blobs = independent::blobs(&request.opened)?;
            let shown = kept::shown(&request.what());
            let note = |at: &MountedAt| noted.note(at, &shown, Missing::Nothing);
            match mount::by_kernel(&dir, &blobs, &options, &note) {
                Ok(mounted) => Ok::<_, MountTableError>((mounted, noted)),
                Err(error) => {
                    noted.forget();
                    Err(error.into())
                }
            }
        });
        mounting.await.map_err(|_| MountTableError::Stopping)?
    }

    /// What is to be mounted, as far as its lane goes by that.
    async fn shape(&self, request: &MountRequest, alone: &Alone) -> Result<Shape, MountTableError> {
        let mut shape = alone.shape(request);
        let wants_kernel = request.lane == Wanted::Lane(Lane::Kernel);
        // It takes a look at every file, so for nothing else.
        if wants_kernel && self.machine().cannot_show(&Shape { whole: true, ..shape }).is_none() {
            let opened = request.opened.clone();
            let looking =
                tokio::task::spawn_blocking(move || (is_whole(&opened), count_missing(&opened)));
            let looked = looking.await;
            (shape.whole, shape.missing) = looked.map_err(|_| MountTableError::Stopping)?;
        }
        Ok(shape)
    }

    /// Nobody sees what is read of it, and nothing is missing.
    async fn keep_without_agent(
        &self,
        (mounted, noted): (Mounted, Noted),
        what: What,
        lane: Chosen,
        content: Arc<SpaceContent>,
    ) -> Result<PathBuf, MountTableError> {
        let what = What { prefetch: Mode::Off, ..what };
        let (watcher, in_use) = (self.watcher(Beginning::Mounted), Arc::clone(&content));
        let beginning = tokio::task::spawn_blocking(move || {
            let watching = watcher.watch(&what)?;
            let prefetch = Prefetch::new(what.prefetch, Arc::clone(watching.watched()), &content);
            let shown = Shown::new(what, OnceLock::new(), lane, prefetch, None);
            Ok::<_, MountTableError>((shown, watching))
        });
        let (shown, watching) = beginning.await.map_err(|_| MountTableError::Stopping)??;
        self.forget_after(noted, mounted.ended());
        Ok(self.keep(mounted, shown, in_use, watching))
    }

    /// Takes up a mount that the kernel serves since an earlier agent, and that shows `opened`.
    pub(super) async fn adopt(
        &self,
        entry: MountEntry,
        noted: Noted,
        shown: &ShownMount,
        opened: OpenArtifact,
    ) -> Result<PathBuf, MountTableError> {
        let dir = entry.dir.clone();
        let content = self.content(&opened, None)?;
        let mounted = mount::adopt(entry);
        let mounted = mounted.map_err(|source| MountError::Refused { dir, source })?;
        let lane = Chosen { lane: Lane::Kernel, why: KEPT.to_owned() };
        let what = kept::what(opened, shown);
        self.keep_without_agent((mounted, noted), what, lane, content).await
    }

    pub(super) fn watcher(&self, beginning: Beginning) -> Watcher {
        let swarm = self.engine.swarm().cloned();
        Watcher { traces: Arc::clone(&self.traces), swarm, beginning }
    }

    /// Has the reads of a mount counted, and its directories say who serves it.
    fn counts(&self, options: &mut MountOptions) -> Arc<Reads> {
        options.core.reads = self.reads.begin();
        options.core.socket.clone_from(&self.socket);
        Arc::clone(&options.core.reads)
    }

    pub(super) fn keeping(&self, shown: ShownMount) -> Option<Keeping> {
        Some(Keeping { custody: self.custody.clone()?, shown })
    }

    /// Goes on with a mount that an earlier agent left, and that shows `opened`.
    pub(super) async fn resume(
        &self,
        left: Kept,
        record: KeptMount,
        opened: OpenArtifact,
        earlier: Vec<(Generation, OpenArtifact)>,
    ) -> Result<PathBuf, MountTableError> {
        let whole = whole_tree(&opened)?;
        let shown = record.shown.clone().unwrap_or_default();
        let name = self::shown(&opened.target.url, &shown.path);
        let what = kept::what(opened, &shown);
        let content = self.content(&what.opened, what.cache_quota)?;
        let in_use = Arc::clone(&content);
        let mut options = MountOptions::new(name, Handle::current());
        hold_to_quota(&mut options, what.cache_quota);
        options.core.owner = what.owner;
        options.core.generation = Generation(u16::try_from(record.generation).unwrap_or(0));
        options.core.versions = what.versions();
        options.keeping = self.keeping(shown);
        let reads = self.counts(&mut options);
        let watcher = self.watcher(Beginning::Resumed);
        let resuming = tokio::task::spawn_blocking(move || {
            options.core.left = Some(left_of(&left, &record, &what.path, earlier)?);
            let (tree, footprint) = tree_of(whole, &what.path)?;
            let watching = watcher.watch(&what)?;
            let prefetch = Prefetch::new(what.prefetch, Arc::clone(watching.watched()), &content);
            options.core.recorder = Some(Arc::clone(watching.watched().recorder()));
            let mounted = mount::resume(left, &record, tree, content, &options)?;
            let lane = match mounted.direct() {
                Ok(()) => Lane::Passthrough,
                Err(_) => Lane::Fuse,
            };
            let lane = Chosen { lane, why: KEPT.to_owned() };
            let shown = Shown::new(what, footprint, lane, prefetch, Some(reads));
            Ok::<_, MountTableError>((mounted, shown, watching))
        });
        let (mounted, shown, watching) =
            resuming.await.map_err(|_| MountTableError::Stopping)??;
        Ok(self.keep(mounted, shown, in_use, watching))
    }

    /// How many mounts go on when another agent takes this one's place; why one of them would not, or nobody would
    /// start that agent.
    pub fn that_survive(&self) -> Result<usize, String> {
        if self.custody.is_none() {
            return Err(
                "it has no holder (--holder off): nobody would start another one".to_owned()
            );
        }
        let (entries, detached) = (self.entries.lock(), self.detached.lock());
        let all = || entries.values().chain(detached.iter());
        let dying = all().find_map(|entry| match entry.mounted.survival() {
            Survival::Kept { .. } | Survival::Independent => None,
            Survival::Dies { why } => Some((entry.mounted.dir(), why.as_deref())),
        });
        match dying {
            Some((dir, why)) => {
                let why = why.unwrap_or("nobody keeps it");
                Err(format!("{} would die with it: {why}", dir.display()))
            }
            None => Ok(all().count()),
        }
    }

    /// Leaves to the next agent what is kept for it. Blocks.
    pub fn leave(&self) {
        let entries = std::mem::take(&mut *self.entries.lock());
        let detached = std::mem::take(&mut *self.detached.lock());
        for entry in entries.into_values().chain(detached) {
            match entry.mounted.survival() {
                Survival::Kept { .. } | Survival::Independent => entry.mounted.leave(),
                // It is taken away here.
                Survival::Dies { .. } => {}
            }
        }
    }

    pub(super) fn keep(
        &self,
        mounted: Mounted,
        shown: Arc<Shown>,
        content: Arc<SpaceContent>,
        watching: Watching,
    ) -> PathBuf {
        let (dir, ended) = (mounted.dir().to_owned(), mounted.ended());
        let following = shown.what.following;
        let showing = Showing {
            now: Arc::new(Mutex::new(Now::new(shown, content, watching))),
            watcher: self.watcher(Beginning::Mounted),
            quotas: Arc::clone(&self.quotas),
            ended: ended.clone(),
            tasks: self.watchers.clone(),
            runtime: Handle::current(),
        };
        showing.fetch();
        let follow = following
            .zip(mounted.switcher())
            .map(|(following, switcher)| self.follow(following, switcher, showing.clone()));
        let entry = Entry { mounted, showing, follow };
        let nameless = match entry.mounted.has_name() {
            true => self.entries.lock().insert(dir.clone(), entry),
            false => Some(entry),
        };
        // Whoever still uses it goes on.
        self.detached.lock().extend(nameless);
        self.recount();
        self.recount_after(ended);
        dir
    }

    /// Has a mount follow its target until it ends.
    fn follow(&self, following: Following, switcher: Switcher, showing: Showing) -> Arc<Follow> {
        let (ended, counts) = (showing.ended.clone(), Arc::clone(&self.follows));
        let follower = Follower::new(self.engine.clone(), showing, counts, switcher);
        let follow = follower.handle();
        self.watchers.spawn(async move {
            ended.run_until_cancelled(follower.run(following)).await;
        });
        follow
    }

    /// Has nobody take up a mount any more that has ended.
    pub(super) fn forget_after(&self, noted: Noted, ended: CancellationToken) {
        self.watchers.spawn(async move {
            ended.cancelled().await;
            let _ = tokio::task::spawn_blocking(move || noted.forget()).await;
        });
    }

    /// Forgets what has ended once `ended` fires.
    fn recount_after(&self, ended: CancellationToken) {
        let (entries, detached) = (Arc::clone(&self.entries), Arc::clone(&self.detached));
        let count = self.count.clone();
        self.watchers.spawn(async move {
            ended.cancelled().await;
            entries.lock().retain(|_, entry| !entry.has_ended());
            detached.lock().retain(|entry| !entry.has_ended());
            count.send_replace(entries.lock().len() + detached.lock().len());
        });
    }

    fn recount(&self) {
        self.count.send_replace(self.entries.lock().len() + self.detached.lock().len());
    }

    /// Takes a mount away, if it is the asker's to take; gives how many are left.
    pub async fn unmount(
        &self,
        dir: &Path,
        detach: Detach,
        asker: Asker,
    ) -> Result<usize, MountTableError> {
        let Some(mut entry) = self.take(dir, asker)? else {
            return self.clear_unserved(dir, detach, asker).await;
        };
        let unmounting = tokio::task::spawn_blocking(move || {
            let result = entry.mounted.unmount(detach);
            (entry, result)
        });
        let (entry, result) = unmounting.await.map_err(|_| MountTableError::Stopping)?;
        match result {
            Ok(Unmounted::Ended) => {}
            Ok(Unmounted::StillServed) => {
                let ended = entry.mounted.ended();
                self.detached.lock().push(entry);
                self.recount_after(ended);
            }
            Err(error) => {
                self.entries.lock().insert(dir.to_owned(), entry);
                return Err(error.into());
            }
        }
        self.recount();
        Ok(self.entries.lock().len())
    }

    fn take(&self, dir: &Path, asker: Asker) -> Result<Option<Entry>, MountTableError> {
        let mut entries = self.entries.lock();
        if entries.get(dir).is_some_and(|entry| !asker.may_undo(entry.showing.shown().what.by)) {
            return Err(MountTableError::NotYours(dir.to_owned()));
        }
        Ok(entries.remove(dir))
    }

    /// Takes away what an agent that died left mounted, lazily also what is waited for: for whom the kernel says it was
    /// mounted, and as this agent's own user.
    async fn clear_unserved(
        &self,
        dir: &Path,
        detach: Detach,
        asker: Asker,
    ) -> Result<usize, MountTableError> {
        let left = dir.to_owned();
        let clearing = tokio::task::spawn_blocking(move || {
            let mount = mounted_at(&left)
                .map_err(|source| UnmountError::Unseen { dir: left.clone(), source })?;
            let mount = mount.filter(MountEntry::shows_ours);
            let by_kernel = mount.as_ref().is_some_and(MountEntry::is_by_kernel);
            let is_unserved = || match served(&left, ANSWER_WITHIN) {
                Served::Live if by_kernel => true,
                Served::Live => false,
                Served::Dead => true,
                Served::Silent => detach == Detach::Lazily,
            };
            let Some(mount) = mount.filter(|_| is_unserved()) else {
                return Err(MountTableError::NotMounted(left));
            };
            let is_theirs = matches!(asker, Asker::Other(user) if mount.user == Some(user));
            if !is_theirs && !asker.may_undo(Asker::Owner) {
                return Err(MountTableError::NotYours(left));
            }
            Ok(unmount(&mount, Detach::Lazily)?)
        });
        clearing.await.map_err(|_| MountTableError::Stopping)??;
        Ok(self.entries.lock().len())
    }

    /// Takes every mount away, also those in use: the process ends.
    pub async fn unmount_all(&self) {
        let entries = std::mem::take(&mut *self.entries.lock());
        let detached = std::mem::take(&mut *self.detached.lock());
        // Dropping a mount detaches it.
        let dropped = tokio::task::spawn_blocking(move || drop((entries, detached))).await;
        if dropped.is_err() {
            tracing::warn!("not every mount could be taken away");
        }
        self.recount();
    }

    /// All mounts, by directory, or the one on `only`. Looks at all that is here of them: for threads that may block.
    pub fn list(&self, only: Option<&Path>) -> Vec<MountView> {
        let entries = self.entries.lock();
        let wanted = entries.iter().filter(|(dir, _)| only.is_none_or(|only| only == *dir));
        let of = |(dir, entry): (&PathBuf, &Entry)| {
            let (shown, follow) = (entry.showing.shown(), entry.follow.clone());
            (dir.clone(), shown, entry.mounted.survival().clone(), follow)
        };
        let shown: Vec<_> = wanted.map(of).collect();
        drop(entries);
        let view = |(dir, shown, survival, follow): (_, Arc<Shown>, _, Option<Arc<Follow>>)| {
            let follow = follow.and_then(|follow| follow.view(&shown));
            MountView { follow, ..shown.view(dir, survival) }
        };
        shown.into_iter().map(view).collect()
    }
}

/// What an earlier agent left of a mount beside what it shows.
fn left_of(
    left: &Kept,
    record: &KeptMount,
    path: &[u8],
    earlier: Vec<(Generation, OpenArtifact)>,
) -> Result<Left, MountTableError> {
    let snapshot = |(generation, opened): &(Generation, OpenArtifact)| {
        let (tree, _) = tree_of(whole_tree(opened)?, path)?;
        let content = Arc::new(SpaceContent::of(opened, None)?);
        Ok::<_, MountTableError>(Snapshot {
            generation: *generation,
            tree,
            content,
            recorder: None,
        })
    };
    let nodes = left.record.nodes(record).map_err(MountTableError::Nodes)?;
    // What has one that cannot be shown any more open is told so.
    let earlier = earlier.iter().filter_map(|one| snapshot(one).ok()).collect();
    Ok(Left { earlier, nodes: decode_nodes(&nodes) })
}

/// What is held in use of what is shown.
fn content_of(
    quotas: &Arc<Quotas>,
    opened: &OpenArtifact,
    quota: Option<ByteSize>,
) -> Result<Arc<SpaceContent>, MountTableError> {
    let enter = |limit| {
        for task in &opened.tasks {
            task.stored().can_take_out().map_err(MountTableError::NoQuota)?;
        }
        let tasks = opened.tasks.iter().map(Task::id).collect();
        Ok::<_, MountTableError>(quotas.enter(limit, tasks))
    };
    let quota = quota.map(enter).transpose()?;
    Ok(Arc::new(SpaceContent::of(opened, quota)?))
}

/// Has the reads of a mount recorded.
#[derive(Clone)]
pub(super) struct Watcher {
    traces: Arc<Traces>,
    swarm: Option<Swarm>,
    beginning: Beginning,
}

impl Watcher {
    /// Blocks.
    pub(super) fn watch(&self, what: &What) -> Result<Watching, MountTableError> {
        let subject = subject(&what.opened, &what.path).ok_or(MountTableError::NoTree)?;
        let lengths = what.opened.tasks.iter().map(Task::length);
        let sharing = Sharing::of(self.swarm.as_ref(), &what.opened);
        Ok(self.traces.watch(subject, lengths, self.beginning, sharing))
    }
}

impl Entry {
    fn has_ended(&self) -> bool {
        self.mounted.ended().is_cancelled()
    }
}

/// Spaces that are one file each.
struct Alone {
    spaces: Vec<u16>,
    bytes: u64,
}

impl Alone {
    fn of(opened: &OpenArtifact) -> Self {
        let recipes = opened.index.as_ref().map(|index| index.index.spaces()).unwrap_or_default();
        let image = opened.index.as_ref().map(|index| index.index.image());
        // Of blocks that small are trees of archives, whose files begin anywhere.
        let is_archive = image.is_none_or(|image| image.block_bytes() == 512);
        let is_alone = |recipe: &Recipe| match &recipe.origin {
            OriginRecipe::Url { .. } => !is_archive,
            OriginRecipe::Members { table, .. } => table.count() == 1,
            OriginRecipe::Parts { .. } => false,
        };
        let alone = (0..).zip(recipes).filter(|(_, recipe)| is_alone(recipe));
        let (spaces, bytes): (_, Vec<u64>) =
            alone.map(|(space, recipe)| (space, recipe.length.unwrap_or(0))).unzip();
        Self { spaces, bytes: bytes.iter().sum() }
    }

    /// Of the whole tree, whatever part of it is shown.
    fn shape(&self, request: &MountRequest) -> Shape {
        let whole = request.opened.describe();
        Shape {
            files: whole.files,
            bytes: whole.bytes,
            alone: self.spaces.len() as u64,
            alone_bytes: self.bytes,
            whole: false,
            missing: 0,
            foreign: request.by != Asker::Owner,
            part: !request.path.is_empty(),
            private: matches!(request.audience, Audience::Only(_)),
            others: request.owner != Owner::default(),
            limited: request.cache_quota.is_some(),
            follows: request.follow.is_some(),
        }
    }
}

/// Whether every byte of every file is here, and in no doubt; what lies between them, in an archive, need not be. Blocks.
fn is_whole(opened: &OpenArtifact) -> bool {
    let all = GroupRange::new(0, u64::MAX);
    if opened.tasks.iter().any(|task| task.stored().put_down(all, u64::MAX).is_err()) {
        return false;
    }
    if opened.tasks.iter().all(|task| task.stored().complete()) {
        return true;
    }
    let footprint = whole_tree(opened).ok().and_then(|tree| Footprint::of(&tree).ok());
    footprint.is_some_and(|footprint| {
        opened.tasks.iter().enumerate().all(|task| shows_whole(&footprint, task))
    })
}

/// Whether every byte of a space is here that is in a footprint, and in no doubt. Blocks.
pub(super) fn shows_whole(footprint: &Footprint, (space, task): (usize, &Task)) -> bool {
    let (have, length) = (task.stored().have(), task.length().unwrap_or(0));
    let here: u64 = footprint.within(space, &have, length).map(|run| run.len()).sum();
    let mut ranges = footprint.within(space, &have, length);
    here == footprint.bytes_in(space) && ranges.all(|run| task.stored().ready(run.groups()).is_ok())
}

/// What of a tree is shown, and which of its bytes.
pub(super) type Part = (Arc<dyn Tree>, OnceLock<Option<Footprint>>);

pub(super) fn tree_of(whole: IndexTree<SharedIndex>, path: &[u8]) -> Result<Part, MountTableError> {
    if path.is_empty() {
        return Ok((Arc::new(whole), OnceLock::new()));
    }
    let part = part(whole, path)?;
    let footprint = Footprint::of(&part)?;
    Ok((Arc::new(part), OnceLock::from(Some(footprint))))
}

/// Entries of a tree that may have taken much to be made.
const MANY: u64 = 10_000;

/// Gives the system what a large tree took while its index was made.
fn give_back(made: &IndexTree<SharedIndex>) {
    if made.totals().inodes < MANY {
        return;
    }
    dfs_service::allocator::give_back();
}

/// The tree of an index.
pub(super) fn whole_tree(opened: &OpenArtifact) -> Result<IndexTree<SharedIndex>, MountTableError> {
    let index = opened.index.as_ref().ok_or(MountTableError::NoTree)?;
    let bytes = SharedIndex(Arc::clone(&index.index));
    let image = dfs_artifact::erofs::Image::open(bytes)
        .map_err(|error| ReadError::Swarm(error.to_string()))?;
    // Only archives and file systems can carry access control lists; asking costs a request an inode.
    let of_a_file_system = opened.target.url.url().scheme() == "file";
    let acls = image.block_bytes() == 512 || of_a_file_system;
    let totals = Totals { inodes: image.inodes(), bytes: index.index.facts().bytes, acls };
    Ok(IndexTree::new(image, totals))
}

impl Shown {
    pub(super) fn new(
        what: What,
        footprint: OnceLock<Option<Footprint>>,
        lane: Chosen,
        prefetch: Prefetch,
        reads: Option<Arc<Reads>>,
    ) -> Arc<Self> {
        let marks = what.opened.tasks.iter().map(Task::mark).collect();
        Arc::new(Self { what, lane, footprint, marks, prefetch, reads })
    }

    /// What it is.
    pub(super) fn what(&self) -> &What {
        &self.what
    }

    /// What its readers meet, where that is seen.
    pub(super) fn reads(&self) -> Option<Arc<Reads>> {
        self.reads.clone()
    }

    /// By which way it is read.
    pub(super) fn lane(&self) -> &Chosen {
        &self.lane
    }

    /// Whose it is.
    pub(super) fn by(&self) -> Asker {
        self.what.by
    }

    /// Whether this user may be told of it.
    pub(super) fn is_for(&self, asker: Asker) -> bool {
        asker.may_see_mount(self.what.by, &self.what.opened)
    }

    /// The artifact, and where in it lies what is at `path` of the mount.
    pub(super) fn within(&self, path: &[u8]) -> Meant {
        let index = self.what.opened.index.as_ref().map(|index| &*index.index);
        let is_file = |index: &Index| {
            let nid = find(index, &self.what.path).ok().flatten();
            let attr = nid.and_then(|nid| index.image().attr(nid).ok());
            attr.is_some_and(|attr| attr.kind == erofs::Kind::File)
        };
        let joined = match (&self.what.path[..], path) {
            (own, b"") => own.to_vec(),
            (b"", path) => path.to_vec(),
            // It is mounted in a directory that was made for it.
            (own, _) if index.is_some_and(is_file) => own.to_vec(),
            (own, path) => [own, b"/", path].concat(),
        };
        Meant { opened: self.what.opened.clone(), view: self.what.view, path: joined }
    }

    /// It, as what is known of its reads is asked for.
    pub(super) fn traced(&self, dir: PathBuf) -> Traced {
        Traced { dir: Some(dir), opened: self.what.opened.clone(), path: self.what.path.clone() }
    }

    /// Where all that it shows lies. Blocks.
    pub(super) fn places(&self) -> Vec<Place> {
        let groups = self.footprint().into_iter().flat_map(Footprint::groups);
        let places = |(space, groups): (u16, GroupSet)| {
            groups.ranges().map(|run| Place::new(space, run)).collect::<Vec<_>>()
        };
        groups.flat_map(places).collect()
    }

    /// Looks at every inode the first time.
    fn footprint(&self) -> Option<&Footprint> {
        let of_all = || Footprint::of(&whole_tree(&self.what.opened).ok()?).ok();
        self.footprint.get_or_init(of_all).as_ref()
    }

    /// What of a space is here and shown: what lies between its files is nobody's.
    fn here(&self, space: usize, task: &Task) -> Vec<ByteRange> {
        let (have, length) = (task.stored().have(), task.length().unwrap_or(0));
        if have.is_empty() {
            return Vec::new();
        }
        match self.footprint() {
            Some(footprint) => footprint.within(space, &have, length).collect(),
            None => have.ranges().map(|run| run.bytes(length)).collect(),
        }
    }

    fn view(&self, dir: PathBuf, survival: Survival) -> MountView {
        let mut ledger = Ledger::default();
        let mut cached = 0;
        for (space, (task, mark)) in self.what.opened.tasks.iter().zip(&self.marks).enumerate() {
            let here = self.here(space, task);
            cached += here.iter().map(|run| run.len()).sum::<u64>();
            ledger += &task.account_since(mark, here);
        }
        let (files, content) = match &self.what.path[..] {
            [] => {
                let whole = self.what.opened.describe();
                (whole.files, whole.bytes)
            }
            _ => self.footprint().map_or((0, 0), |part| (part.files, part.bytes)),
        };
        let (opened, path, by) = (self.what.opened.clone(), self.what.path.clone(), self.what.by);
        let (lane, prefetch) = (self.lane.clone(), self.prefetch.view());
        MountView {
            dir,
            opened,
            path,
            files,
            content,
            cached,
            ledger,
            lane,
            by,
            survival,
            prefetch,
            away: self.what.away.clone(),
            reads: self.reads.as_ref().map(|reads| reads.seen()),
            cache_quota: self.what.cache_quota,
            follow: None,
        }
    }
}

impl MountRequest {
    pub(super) fn what(&self) -> What {
        What {
            opened: self.opened.clone(),
            view: self.view,
            path: self.path.clone(),
            by: self.by,
            prefetch: self.prefetch,
            owner: self.owner,
            away: self.away.clone(),
            cache_quota: self.cache_quota,
            following: self.follow.map(Following::every),
        }
    }

    fn options(&self) -> MountOptions {
        let name = shown(&self.opened.target.url, &self.path);
        let mut options = MountOptions::new(name, Handle::current());
        options.audience = self.audience;
        options.privileges = self.privileges;
        options.programs = self.programs;
        options.core.owner = self.owner;
        options.core.versions = self.what().versions();
        options.mount_point_of = self.by.mounts_on_own();
        options.way.clone_from(&self.way);
        options.in_sight = Some(self.data_dir.clone());
        options
    }
}

/// Something inside of an artifact.
pub(super) struct Meant {
    /// The artifact.
    pub opened: OpenArtifact,
    /// Seen how.
    pub view: View,
    /// Where in its tree; empty is all of it.
    pub path: Vec<u8>,
}

/// What is to be mounted, for whom and how.
pub(super) struct What {
    /// The artifact.
    pub opened: OpenArtifact,
    /// Seen how.
    pub view: View,
    /// What of its tree.
    pub path: Vec<u8>,
    /// For whom.
    pub by: Asker,
    /// What is fetched of it before anybody reads it.
    pub prefetch: Mode,
    /// Whose all files appear to be.
    pub owner: Owner,
    /// Where it is shown as it was before: why.
    pub away: Option<Away>,
    /// How much of the cache it may take.
    pub cache_quota: Option<ByteSize>,
    /// How it follows its target, where it does.
    pub following: Option<Following>,
}

impl What {
    /// The same of another version.
    pub fn of_another_version(&self, opened: OpenArtifact) -> Self {
        let (path, view, by) = (self.path.clone(), self.view, self.by);
        let Self { prefetch, owner, following, cache_quota, .. } = *self;
        Self { opened, view, path, by, prefetch, owner, following, cache_quota, away: None }
    }

    /// Whether another version may be shown in its place.
    fn versions(&self) -> Versions {
        if self.following.is_some() { Versions::Followed } else { Versions::One }
    }
}

/// What is fetched ahead of readers does not take the place of what they read.
fn hold_to_quota(options: &mut MountOptions, quota: Option<ByteSize>) {
    let most = quota.map_or(u64::MAX, |ByteSize(quota)| quota / 4);
    options.core.read_ahead_bytes = options.core.read_ahead_bytes.min(most);
}

/// What is mounted, as it is named on the command line.
pub(super) fn shown(url: &CanonicalUrl, path: &[u8]) -> String {
    match path {
        b"" => url.to_string(),
        path => format!("{url}!{}", String::from_utf8_lossy(path)),
    }
}

fn part<T: Tree>(tree: T, path: &[u8]) -> Result<PartTree<T>, MountTableError> {
    let none = || MountTableError::NoPath(String::from_utf8_lossy(path).into_owned());
    PartTree::at(tree, path)?.ok_or_else(none)
}
