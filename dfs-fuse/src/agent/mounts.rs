//! What this process has mounted.

mod mounting;
mod shown;
mod trees;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dfs_model::TaskId;
use dfs_peer::engine::{Engine, ReadError};
use dfs_peer::host::Host;
use dfs_peer::store::{Lent, Medium, StoreError};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::mounting::MountRequest;
pub(super) use self::mounting::{Begun, Course, KEPT};
pub use self::shown::MountView;
pub(super) use self::shown::{Meant, Now, Showing, Shown, What, shown};
use self::shown::{MountedView, Watcher, content_of};
pub(super) use self::trees::{TreeOf, shows_whole, tree_of, tree_of_index, whole_tree};
use super::AgentFacts;
use super::asker::Asker;
use super::before::Before;
use super::content::SpaceContent;
use super::follow::{Follow, FollowCounts, Follower, Following};
use super::independent::{Noted, Records};
use super::kept;
use super::known::CommandId;
use super::quota::Quotas;
use super::traces::{Beginning, Traces};
use super::works::Works;
use crate::core::{AllReads, Seen};
use crate::holder::Holder;
use crate::mount::{
    Custody, Detach, MountEntry, MountError, Mounted, Served, Survival, Switcher, UnmountError,
    Unmounted, mounted_at, served, unmount,
};
use crate::tree::TreeError;

/// A mount that is served answers well within.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

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

/// A mount that shows something of a task, or of which somebody still uses a version that did.
pub(super) struct Displayed {
    /// Where.
    pub dir: PathBuf,
    /// What it shows.
    pub shown: Arc<Shown>,
    /// The task.
    pub task: TaskId,
    /// What tells the kernel, where this process answers it.
    pub switcher: Option<Switcher>,
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
    /// What takes a mount away or makes one runs to its end.
    works: Works,
}

impl MountTable {
    /// A table whose mounts are kept so when this process dies, and whose profiles lie in its data directory and go to
    /// the swarm.
    pub(super) fn new(
        custody: Option<Custody>,
        facts: &AgentFacts,
        host: &Host,
        works: Works,
    ) -> Self {
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
            works,
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

    /// Whether a command that asks again is what this mount was made for.
    pub(super) fn is_of(&self, dir: &Path, command: Option<CommandId>, asker: Asker) -> bool {
        let is_it = |shown: Arc<Shown>| {
            command.is_some() && shown.what().command == command && asker.may_undo(shown.by())
        };
        self.shown_at(dir).is_some_and(is_it)
    }

    /// An error that names what is mounted by its URL: what the kernel reads by itself it knows as a file of the cache.
    pub(super) fn by_url(&self, error: MountTableError) -> MountTableError {
        match error {
            MountTableError::Mount(MountError::AlreadyMounted { dir, name }) => {
                let name = self.shown_at(&dir).map_or(name, |shown| shown.what().name());
                MountError::AlreadyMounted { dir, name }.into()
            }
            error => error,
        }
    }

    /// The mounts that show something of a task, or of which somebody still uses a version that did.
    pub(super) fn that_show(&self, task: &TaskId) -> Vec<Displayed> {
        let entries = self.entries.lock();
        let displayed = |(dir, entry): (&PathBuf, &Entry)| {
            let (shown, switcher) = (entry.showing.shown(), entry.mounted.switcher());
            let is_used = shown.space_of(task).is_some()
                || switcher.as_ref().is_some_and(|switcher| switcher.shows(task));
            is_used.then(|| Displayed { dir: dir.clone(), shown, task: *task, switcher })
        };
        entries.iter().filter_map(displayed).collect()
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
    fn content(&self, what: &What) -> Result<Arc<SpaceContent>, MountTableError> {
        content_of(&self.quotas, &what.opened, what)
    }

    /// Who keeps them.
    pub fn holder(&self) -> Option<Arc<dyn Holder>> {
        self.custody.as_ref().map(|custody| Arc::clone(&custody.holder))
    }

    /// How many are served, to be followed; those that were taken away and are still in use count too.
    pub fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
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

    fn watcher(&self, beginning: Beginning) -> Watcher {
        let swarm = self.engine.swarm().cloned();
        Watcher { traces: Arc::clone(&self.traces), swarm, beginning }
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

    /// Lists a mount until it ends.
    fn keep(&self, mounted: Mounted, now: Now) -> PathBuf {
        let (dir, ended) = (mounted.dir().to_owned(), mounted.ended());
        let following = now.following();
        let showing = Showing {
            now: Arc::new(Mutex::new(now)),
            watcher: self.watcher(Beginning::Mounted),
            quotas: Arc::clone(&self.quotas),
            before: self.before.clone(),
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
            ended.run_until_cancelled(Box::pin(follower.run(following))).await;
        });
        follow
    }

    /// Has nobody take up a mount any more that has ended.
    fn forget_after(&self, noted: Noted, ended: CancellationToken) {
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
            let ended = |_: &PathBuf, entry: &mut Entry| entry.has_ended();
            let mut gone: Vec<Entry> =
                entries.lock().extract_if(.., ended).map(|(_, entry)| entry).collect();
            gone.extend(detached.lock().extract_if(.., |entry| entry.has_ended()));
            // What was read of it is written down, and its holder told: neither under a lock, nor on a thread of the runtime.
            let _ = tokio::task::spawn_blocking(move || drop(gone)).await;
            count.send_replace(entries.lock().len() + detached.lock().len());
        });
    }

    fn recount(&self) {
        self.count.send_replace(self.entries.lock().len() + self.detached.lock().len());
    }

    /// Takes a mount away, if it is the asker's to take; gives how many are left. Whoever asked may leave meanwhile.
    pub async fn unmount(
        self: &Arc<Self>,
        dir: &Path,
        detach: Detach,
        asker: Asker,
    ) -> Result<usize, MountTableError> {
        let (table, dir) = (Arc::clone(self), dir.to_owned());
        let unmounting = async move { table.unmount_now(&dir, detach, asker).await };
        self.works.to_the_end(unmounting).await?
    }

    /// To be run to its end: meanwhile nobody else has the mount.
    async fn unmount_now(
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
            // One that has ended is let go of here.
            let left = (!matches!(result, Ok(Unmounted::Ended))).then_some(entry);
            (left, result)
        });
        let (left, result) = unmounting.await.map_err(|_| MountTableError::Stopping)?;
        if let Err(error) = result {
            self.entries.lock().extend(left.map(|entry| (dir.to_owned(), entry)));
            return Err(error.into());
        }
        if let Some(entry) = left {
            let ended = entry.mounted.ended();
            self.detached.lock().push(entry);
            self.recount_after(ended);
        }
        self.recount();
        Ok(self.entries.lock().len())
    }

    fn take(&self, dir: &Path, asker: Asker) -> Result<Option<Entry>, MountTableError> {
        let mut entries = self.entries.lock();
        if entries.get(dir).is_some_and(|entry| !asker.may_undo(entry.showing.shown().by())) {
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
            let Some(mount) = mount else { return Err(MountTableError::NotMounted(left)) };
            // First: who asks a mount that is silent waits for as long as that is.
            let is_theirs = matches!(asker, Asker::Other(user) if mount.user == Some(user));
            if !is_theirs && !asker.may_undo(Asker::Owner) {
                return Err(MountTableError::NotYours(left));
            }
            let detach = match (served(&left, ANSWER_WITHIN), detach) {
                (Served::Live, _) if mount.is_by_kernel() => detach,
                (Served::Dead, Detach::WhenUnused) => Detach::Remains,
                (Served::Dead | Served::Silent, Detach::Lazily) => detach,
                _ => return Err(MountTableError::NotMounted(left)),
            };
            Ok(unmount(&mount, detach)?)
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
            let device = entry.mounted.device().map(str::to_owned);
            let (dir, survival) = (dir.clone(), entry.mounted.survival().clone());
            let mounted = MountedView { dir, device, survival };
            (mounted, entry.showing.shown(), entry.follow.clone())
        };
        let shown: Vec<_> = wanted.map(of).collect();
        drop(entries);
        let view = |(mounted, shown, follow): (_, Arc<Shown>, Option<Arc<Follow>>)| {
            let follow = follow.and_then(|follow| follow.view(&shown));
            let mut view = shown.view(mounted);
            // Its origin is there again.
            view.away.take_if(|_| follow.as_ref().is_some_and(|follow| follow.looked.is_some()));
            MountView { follow, ..view }
        };
        shown.into_iter().map(view).collect()
    }
}

impl Entry {
    fn has_ended(&self) -> bool {
        self.mounted.ended().is_cancelled()
    }
}
