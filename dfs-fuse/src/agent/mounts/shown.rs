//! What a mount shows: as it is asked for, as it is served, and as people see it.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use dfs_artifact::{Index, View, erofs};
use dfs_model::{ByteRange, ByteSize, CanonicalUrl, GroupSet, TaskId};
use dfs_peer::engine::{Ledger, Mark, Task};
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::{UseGuard, Verify};
use dfs_peer::swarm::Swarm;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::MountTableError;
use super::trees::whole_tree;
use crate::agent::asker::Asker;
use crate::agent::before::{Away, Before};
use crate::agent::content::SpaceContent;
use crate::agent::follow::{FollowView, Following};
use crate::agent::kept;
use crate::agent::known::CommandId;
use crate::agent::prefetch::{Mode, Prefetch, PrefetchView};
use crate::agent::quota::Quotas;
use crate::agent::shared::Sharing;
use crate::agent::traced::Traced;
use crate::agent::traces::{Beginning, Traces, Watching, subject};
use crate::agent::walk::find;
use crate::core::{Owner, Reads, Seen, Versions};
use crate::lane::Chosen;
use crate::mount::{MountOptions, Survival};
use crate::trace::Place;
use crate::tree::Footprint;

/// Something inside of an artifact.
pub(in crate::agent) struct Meant {
    /// The artifact.
    pub opened: OpenArtifact,
    /// Seen how.
    pub view: View,
    /// Where in its tree; empty is all of it.
    pub path: Vec<u8>,
    /// Keeps all of it here; nothing where a mount does.
    pub _in_use: Vec<UseGuard>,
}

/// What is to be mounted, for whom and how.
pub(in crate::agent) struct What {
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
    /// When its bytes are held against their digests.
    pub verify: Verify,
    /// How it follows its target, where it does.
    pub following: Option<Following>,
    /// Who asked for it, and may do so again.
    pub command: Option<CommandId>,
}

impl What {
    /// The same of another version.
    pub fn of_another_version(&self, opened: OpenArtifact) -> Self {
        let (path, view, by) = (self.path.clone(), self.view, self.by);
        let Self { prefetch, owner, following, cache_quota, verify, command, .. } = *self;
        let away = None;
        Self {
            opened,
            view,
            path,
            by,
            prefetch,
            owner,
            following,
            cache_quota,
            verify,
            command,
            away,
        }
    }

    /// As it is named on the command line.
    pub fn name(&self) -> String {
        shown(&self.opened.target.url, &self.path)
    }

    /// What it allows a mount.
    pub fn limit(&self, options: &mut MountOptions) {
        let core = &mut options.core;
        core.versions = if self.following.is_some() { Versions::Followed } else { Versions::One };
        // What is fetched ahead of readers does not take the place of what they read.
        let most = self.cache_quota.map_or(u64::MAX, |ByteSize(quota)| quota / 4);
        core.read_ahead_bytes = core.read_ahead_bytes.min(most);
    }
}

/// What is mounted.
pub(in crate::agent) struct Shown {
    what: What,
    lane: Chosen,
    /// What of the spaces is shown. Of a whole tree it is found out when somebody wants to know; `None` where its
    /// index does not tell.
    footprint: OnceLock<Option<Footprint>>,
    account: Account,
    prefetch: Prefetch,
    /// What its readers meet, where that is seen.
    reads: Option<Arc<Reads>>,
}

/// Of a mount, whatever it shows.
pub(super) struct MountedView {
    pub dir: PathBuf,
    pub device: Option<String>,
    pub survival: Survival,
}

/// A mount as people see it.
pub struct MountView {
    /// Where.
    pub dir: PathBuf,
    /// `major:minor` that its files show, where it has a name.
    pub device: Option<String>,
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
    /// When its bytes are held against their digests.
    pub verify: Verify,
    /// How it keeps up with its target, where it does.
    pub follow: Option<FollowView>,
}

/// Where it began to be counted where the bytes of a mount come from.
struct Account {
    /// Of each of its spaces.
    marks: Vec<Mark>,
    /// What came of spaces that it shows no more.
    gone: Ledger,
}

impl Account {
    /// It begins now.
    fn begin(opened: &OpenArtifact) -> Self {
        Self { marks: opened.tasks.iter().map(Task::mark).collect(), gone: Ledger::default() }
    }

    /// That of a mount that shows another version than `before`.
    fn go_on(before: &Shown, opened: &OpenArtifact) -> Self {
        let was = |task: &Task| before.space_of(&task.id()).map(usize::from);
        let mark_of = |task: &Task| {
            let known = was(task).and_then(|space| before.account.marks.get(space).cloned());
            known.unwrap_or_else(|| task.mark())
        };
        let marks = opened.tasks.iter().map(mark_of).collect();
        let is_gone = |task: &Task| !opened.tasks.iter().any(|other| other.id() == task.id());
        let mut gone = before.account.gone.clone();
        for (space, task) in before.what.opened.tasks.iter().enumerate() {
            if is_gone(task) {
                gone += &before.came(space, task, before.here(space, task));
            }
        }
        Self { marks, gone }
    }
}

impl Shown {
    pub fn new(
        what: What,
        footprint: OnceLock<Option<Footprint>>,
        lane: Chosen,
        prefetch: Prefetch,
        reads: Option<Arc<Reads>>,
    ) -> Arc<Self> {
        let account = Account::begin(&what.opened);
        Arc::new(Self { what, lane, footprint, account, prefetch, reads })
    }

    /// What the mount shows next.
    pub fn of_another_version(
        &self,
        what: What,
        footprint: OnceLock<Option<Footprint>>,
        prefetch: Prefetch,
    ) -> Arc<Self> {
        let account = Account::go_on(self, &what.opened);
        let (lane, reads) = (self.lane.clone(), self.reads.clone());
        Arc::new(Self { what, lane, footprint, account, prefetch, reads })
    }

    /// Which space of it a task is.
    pub fn space_of(&self, task: &TaskId) -> Option<u16> {
        let space = self.what.opened.tasks.iter().position(|own| own.id() == *task)?;
        u16::try_from(space).ok()
    }

    /// What it is.
    pub fn what(&self) -> &What {
        &self.what
    }

    /// By which way it is read.
    pub fn lane(&self) -> &Chosen {
        &self.lane
    }

    /// Whose it is.
    pub fn by(&self) -> Asker {
        self.what.by
    }

    /// Whether this user may be told of it.
    pub fn is_for(&self, asker: Asker) -> bool {
        asker.may_see_mount(self.what.by, &self.what.opened)
    }

    /// The artifact, and where in it lies what is at `path` of the mount.
    pub fn within(&self, path: &[u8]) -> Meant {
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
        let (opened, view) = (self.what.opened.clone(), self.what.view);
        Meant { opened, view, path: joined, _in_use: Vec::new() }
    }

    /// It, as what is known of its reads is asked for.
    pub fn traced(&self, dir: PathBuf) -> Traced {
        Traced { dir: Some(dir), opened: self.what.opened.clone(), path: self.what.path.clone() }
    }

    /// Where all that it shows lies. Blocks.
    pub fn places(&self) -> Vec<Place> {
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

    /// Where these bytes of a space came from.
    fn came(&self, space: usize, task: &Task, here: Vec<ByteRange>) -> Ledger {
        let mark = self.account.marks.get(space);
        mark.map_or_else(Ledger::default, |mark| task.account_since(mark, here))
    }

    pub(super) fn view(&self, mounted: MountedView) -> MountView {
        let MountedView { dir, device, survival } = mounted;
        let mut ledger = self.account.gone.clone();
        let mut cached = 0;
        for (space, task) in self.what.opened.tasks.iter().enumerate() {
            let here = self.here(space, task);
            cached += here.iter().map(|run| run.len()).sum::<u64>();
            ledger += &self.came(space, task, here);
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
            device,
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
            verify: self.what.verify,
            follow: None,
        }
    }
}

/// What a mount shows at a time.
pub(in crate::agent) struct Now {
    shown: Arc<Shown>,
    /// Keeps its bytes from being evicted, also where nobody in this process reads them.
    content: Arc<SpaceContent>,
    /// Ends what is fetched for it.
    _prefetching: Option<DropGuard>,
    /// Its run ends after it.
    _watching: Watching,
}

impl Now {
    /// Where nothing is fetched for it yet.
    pub fn new(shown: Arc<Shown>, content: Arc<SpaceContent>, watching: Watching) -> Self {
        Self { shown, content, _prefetching: None, _watching: watching }
    }

    /// How it follows its target, where it does.
    pub fn following(&self) -> Option<Following> {
        self.shown.what.following
    }
}

/// What a mount shows now, and what it takes to have it show something else.
#[derive(Clone)]
pub(in crate::agent) struct Showing {
    pub(super) now: Arc<Mutex<Now>>,
    pub(super) watcher: Watcher,
    pub(super) quotas: Arc<Quotas>,
    pub(super) before: Before,
    pub(super) ended: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) runtime: Handle,
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

    /// Takes note of what is shown, for the time when its origin is away. Blocks.
    pub fn remember(&self) -> io::Result<()> {
        let shown = self.shown();
        let what = shown.what();
        self.before.note(&what.opened.target, what.view, &kept::shown(what))
    }

    /// What it holds in use of what it shows next.
    pub fn content(&self, what: &What) -> Result<Arc<SpaceContent>, MountTableError> {
        content_of(&self.quotas, &what.opened, what)
    }

    /// Something else is shown, for which is fetched from now on; what it was.
    pub fn put(&self, next: Now) -> Now {
        let before = std::mem::replace(&mut *self.now.lock(), next);
        self.fetch();
        before
    }

    /// Fetches for what is shown, until it is another or the mount ends.
    pub(super) fn fetch(&self) {
        let mut now = self.now.lock();
        let (stop, shown) = (self.ended.child_token(), Arc::clone(&now.shown));
        let until = stop.clone();
        let fetching = async move {
            until.run_until_cancelled(shown.prefetch.run(&shown)).await;
        };
        self.tasks.spawn_on(fetching, &self.runtime);
        if let Some(quota) = now.content.quota() {
            let kept = Arc::clone(quota).keep(Arc::downgrade(&now.content));
            // Whoever still reads an earlier version is held to it, too.
            let ended = self.ended.clone();
            let keeping = async move {
                ended.run_until_cancelled(kept).await;
            };
            self.tasks.spawn_on(keeping, &self.runtime);
        }
        now._prefetching = Some(stop.drop_guard());
    }
}

/// Has the reads of a mount recorded.
#[derive(Clone)]
pub(super) struct Watcher {
    pub(super) traces: Arc<Traces>,
    pub(super) swarm: Option<Swarm>,
    pub(super) beginning: Beginning,
}

impl Watcher {
    /// Blocks.
    pub fn watch(&self, what: &What) -> Result<Watching, MountTableError> {
        let subject = subject(&what.opened, &what.path).ok_or(MountTableError::NoTree)?;
        let lengths = what.opened.tasks.iter().map(Task::length);
        let sharing = Sharing::of(self.swarm.as_ref(), &what.opened);
        Ok(self.traces.watch(subject, lengths, self.beginning, sharing))
    }
}

/// What is held in use of what is shown.
pub(super) fn content_of(
    quotas: &Arc<Quotas>,
    opened: &OpenArtifact,
    what: &What,
) -> Result<Arc<SpaceContent>, MountTableError> {
    let enter = |limit| {
        for task in &opened.tasks {
            task.stored().can_take_out().map_err(MountTableError::NoQuota)?;
        }
        let tasks = opened.tasks.iter().map(Task::id).collect();
        Ok::<_, MountTableError>(quotas.enter(limit, tasks))
    };
    let quota = what.cache_quota.map(enter).transpose()?;
    Ok(Arc::new(SpaceContent::of(opened, quota, what.verify)?))
}

/// What is mounted, as it is named on the command line.
pub(in crate::agent) fn shown(url: &CanonicalUrl, path: &[u8]) -> String {
    match path {
        b"" => url.to_string(),
        path => format!("{url}!{}", String::from_utf8_lossy(path)),
    }
}
