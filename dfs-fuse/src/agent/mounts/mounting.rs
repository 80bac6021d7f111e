//! How a mount begins: new, or where an earlier agent left it; served here, or by the kernel.
//!
//! Each way is one course ([`MountTable::begin`]): its reads are watched, what is fetched for it is decided, it is mounted,
//! and from then on it is listed.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dfs_artifact::View;
use dfs_model::ByteSize;
use dfs_peer::engine::ReadError;
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::Verify;
use dfs_proto::node::{KeptMount, MountedAt, ShownMount};
use tokio::runtime::Handle;

use super::shown::{Now, Shown, What, content_of};
use super::trees::{Alone, asked_for, is_whole, tree_of, whole_tree};
use super::{MountTable, MountTableError};
use crate::agent::asker::Asker;
use crate::agent::before::Away;
use crate::agent::content::SpaceContent;
use crate::agent::follow::Following;
use crate::agent::independent::{self, Noted};
use crate::agent::kept;
use crate::agent::known::CommandId;
use crate::agent::lazy::count_missing;
use crate::agent::prefetch::{Mode, Prefetch};
use crate::agent::quota::Quotas;
use crate::agent::traces::Beginning;
use crate::core::{Generation, Left, Owner, Reads, Snapshot};
use crate::holder::Kept;
use crate::lane::{self, Chosen, Lane, Machine, Shape, Wanted};
use crate::mount::{
    self, Audience, Keeping, Missing, MountEntry, MountError, MountOptions, Mounted, Passed,
    Privileges, Programs, decode_nodes,
};
use crate::trace::Recorder;
use crate::tree::Footprint;

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
    /// When its bytes are held against their digests.
    pub verify: Verify,
    /// How often its target is looked up, where it is to show what that names by then.
    pub follow: Option<Duration>,
    /// Who may ask for it again.
    pub command: Option<CommandId>,
}

/// Why a mount of an earlier agent has its lane.
pub(in crate::agent) const KEPT: &str = "as the agent before this one had it";

/// A mount that is about to begin.
pub(in crate::agent) struct Course {
    /// What it shows.
    pub what: What,
    /// What it holds in use of that.
    pub content: Arc<SpaceContent>,
    /// What its readers meet, where that is seen.
    pub reads: Option<Arc<Reads>>,
    /// What the next agent finds of it, where that is to be forgotten with it.
    pub noted: Option<Noted>,
    /// Whether another agent had it before.
    pub beginning: Beginning,
}

/// A mount that has begun.
pub(in crate::agent) struct Begun {
    pub mounted: Mounted,
    /// By which way it is read.
    pub lane: Chosen,
    /// What of the spaces is shown, where that is known by now.
    pub footprint: OnceLock<Option<Footprint>>,
}

impl MountTable {
    /// Mounts. Blocks while the kernel does.
    pub async fn mount(
        self: &Arc<Self>,
        request: MountRequest,
    ) -> Result<PathBuf, MountTableError> {
        let content = self.content(&request.what())?;
        let mut options = request.options();
        options.keeping = self.keeping(kept::shown(&request.what()));
        let (opened, path) = (request.opened.clone(), request.path.clone());
        let looking = tokio::task::spawn_blocking(move || asked_for(&opened, &path));
        let (tree, footprint) = looking.await.map_err(|_| MountTableError::Stopping)??;
        let part = footprint.get().and_then(Option::as_ref);
        let alone = Alone::of(&request.opened, part);
        let shape = self.shape(&request, alone.shape(&request, part)).await?;
        let mut lane = lane::choose(request.lane, &self.machine(), &shape);
        if lane.lane == Lane::Kernel {
            let (asked, used) = (lane.clone(), Arc::clone(&content));
            let mounted = match shape.whole {
                true => self.mount_whole(&request, &options, asked, used).await,
                false => self.mount_lazily(&request, options.clone(), asked, used).await,
            };
            match mounted {
                Err(MountTableError::Mount(MountError::Refused { source, .. })) => {
                    let best = lane::choose(Wanted::Best, &self.machine(), &shape).lane;
                    lane = lane::instead(request.lane, &lane, &source.to_string(), best);
                }
                mounted => return mounted,
            }
        }
        if lane.lane == Lane::Passthrough {
            options.direct = alone.spaces;
        }
        let (what, wanted) = (request.what(), request.lane);
        let (dir, beginning) = (request.dir, Beginning::Mounted);
        let reads = Some(self.counts(&mut options));
        let course = Course { what, content, reads, noted: None, beginning };
        self.begin(course, move |_, content, recorder| {
            options.core.recorder = Some(recorder);
            let mounted = mount::mount(&dir, tree, content, &options)?;
            if let Passed::Refused(why) = mounted.passed() {
                lane = lane::instead(wanted, &lane, why, Lane::Fuse);
            }
            Ok(Begun { mounted, lane, footprint })
        })
        .await
    }

    /// Mounts by `how`, which blocks and is given what is shown, its content and who watches its reads; and has it listed
    /// until it ends. Whoever asked for it may leave meanwhile: it is mounted all the same, and listed.
    pub(in crate::agent) async fn begin<How>(
        self: &Arc<Self>,
        course: Course,
        how: How,
    ) -> Result<PathBuf, MountTableError>
    where
        How: FnOnce(&What, Arc<SpaceContent>, Arc<Recorder>) -> Result<Begun, MountTableError>,
        How: Send + 'static,
    {
        let table = Arc::clone(self);
        let beginning = Box::pin(async move { table.begin_now(course, how).await });
        self.works.to_the_end(beginning).await?
    }

    /// To be run to its end: meanwhile nobody else knows of the mount.
    async fn begin_now<How>(&self, course: Course, how: How) -> Result<PathBuf, MountTableError>
    where
        How: FnOnce(&What, Arc<SpaceContent>, Arc<Recorder>) -> Result<Begun, MountTableError>,
        How: Send + 'static,
    {
        let Course { what, content, reads, noted, beginning } = course;
        let (watcher, in_use) = (self.watcher(beginning), Arc::clone(&content));
        let mounting = tokio::task::spawn_blocking(move || {
            let watching = watcher.watch(&what)?;
            let prefetch = Prefetch::new(what.prefetch, Arc::clone(watching.watched()), &content);
            let recorder = Arc::clone(watching.watched().recorder());
            let Begun { mounted, lane, footprint } = how(&what, content, recorder)?;
            let shown = Shown::new(what, footprint, lane, prefetch, reads);
            Ok::<_, MountTableError>((mounted, shown, watching))
        });
        let (mounted, shown, watching) =
            mounting.await.map_err(|_| MountTableError::Stopping)??;
        if let Some(noted) = noted {
            self.forget_after(noted, mounted.ended());
        }
        Ok(self.keep(mounted, Now::new(shown, in_use, watching)))
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

    /// With what is here of it, as far as its lane goes by that.
    async fn shape(
        &self,
        request: &MountRequest,
        mut shape: Shape,
    ) -> Result<Shape, MountTableError> {
        let wants_kernel = request.lane == Wanted::Lane(Lane::Kernel);
        // It takes a look at every file, so for nothing else.
        if wants_kernel && self.machine().cannot_show(&Shape { whole: true, ..shape }).is_none() {
            let opened = request.opened.clone();
            let looking =
                tokio::task::spawn_blocking(move || (is_whole(&opened), count_missing(&opened)));
            let looked = looking.await;
            shape.room = self.engine.store().room_for_content();
            (shape.whole, shape.missing) = looked.map_err(|_| MountTableError::Stopping)?;
        }
        Ok(shape)
    }

    /// Mounts what is all here without the agent.
    async fn mount_whole(
        self: &Arc<Self>,
        request: &MountRequest,
        options: &MountOptions,
        lane: Chosen,
        content: Arc<SpaceContent>,
    ) -> Result<PathBuf, MountTableError> {
        let (dir, options, noted) = (request.dir.clone(), options.clone(), self.records.next());
        let course = Course::without_agent(request.what(), content, noted.clone());
        let shown = kept::shown(&request.what());
        self.begin(course, move |what, content, _| {
            let blobs = independent::blobs(&what.opened, &content, &dir)?;
            let note = |at: &MountedAt| noted.note(at, &shown, Missing::Nothing);
            let mounted = mount::by_kernel(&dir, (&blobs, content), &options, &note);
            let mounted = mounted.inspect_err(|_| noted.forget())?;
            Ok(Begun { mounted, lane, footprint: OnceLock::new() })
        })
        .await
    }

    /// Takes up a mount that the kernel serves since an earlier agent, and that shows `opened`.
    pub(in crate::agent) async fn adopt(
        self: &Arc<Self>,
        entry: MountEntry,
        noted: Noted,
        shown: &ShownMount,
        opened: OpenArtifact,
    ) -> Result<PathBuf, MountTableError> {
        let what = kept::what(opened, shown);
        let content = self.content(&what)?;
        content.end_on_groups().map_err(ReadError::from)?;
        let course = Course::without_agent(what, content, noted);
        self.begin(course, |_, content, _| {
            let dir = entry.dir.clone();
            let mounted = mount::adopt(entry, content);
            let mounted = mounted.map_err(|source| MountError::Refused { dir, source })?;
            let lane = Chosen { lane: Lane::Kernel, why: KEPT.to_owned() };
            Ok(Begun { mounted, lane, footprint: OnceLock::new() })
        })
        .await
    }

    /// Goes on with a mount that an earlier agent left, and that shows `opened`.
    pub(in crate::agent) async fn resume(
        self: &Arc<Self>,
        left: Kept,
        record: KeptMount,
        (generation, opened): (Generation, OpenArtifact),
        earlier: Vec<(Generation, OpenArtifact)>,
    ) -> Result<PathBuf, MountTableError> {
        let shown = record.shown.clone().unwrap_or_default();
        let what = kept::what(opened, &shown);
        let content = self.content(&what)?;
        let mut options = MountOptions::new(what.name(), Handle::current());
        options.core.owner = what.owner;
        options.core.generation = generation;
        what.limit(&mut options);
        options.keeping = self.keeping(shown);
        let (reads, beginning) = (Some(self.counts(&mut options)), Beginning::Resumed);
        let quotas = Arc::clone(&self.quotas);
        let course = Course { what, content, reads, noted: None, beginning };
        self.begin(course, move |what, content, recorder| {
            options.core.left = Some(left_of(&left, &record, what, earlier, &quotas)?);
            let (tree, footprint) = tree_of(whole_tree(&what.opened)?, &what.path)?;
            options.core.recorder = Some(recorder);
            let mounted = mount::resume(left, &record, tree, content, &options)?;
            let lane = match mounted.passed() {
                Passed::Through => Lane::Passthrough,
                Passed::Unasked | Passed::Refused(_) => Lane::Fuse,
            };
            let lane = Chosen { lane, why: KEPT.to_owned() };
            Ok(Begun { mounted, lane, footprint })
        })
        .await
    }

    /// Has the reads of a mount counted, and its directories say who serves it.
    pub(in crate::agent) fn counts(&self, options: &mut MountOptions) -> Arc<Reads> {
        options.core.reads = self.reads.begin();
        options.core.socket.clone_from(&self.socket);
        Arc::clone(&options.core.reads)
    }

    pub(in crate::agent) fn keeping(&self, shown: ShownMount) -> Option<Keeping> {
        Some(Keeping { custody: self.custody.clone()?, shown })
    }
}

impl Course {
    /// Nobody sees what is read of it, and nothing is missing.
    fn without_agent(what: What, content: Arc<SpaceContent>, noted: Noted) -> Self {
        let what = What { prefetch: Mode::Off, ..what };
        Self { what, content, reads: None, noted: Some(noted), beginning: Beginning::Mounted }
    }
}

/// What an earlier agent left of a mount beside what it shows.
fn left_of(
    left: &Kept,
    record: &KeptMount,
    what: &What,
    earlier: Vec<(Generation, OpenArtifact)>,
    quotas: &Arc<Quotas>,
) -> Result<Left, MountTableError> {
    let snapshot = |(generation, opened): &(Generation, OpenArtifact)| {
        let (tree, _) = tree_of(whole_tree(opened)?, &what.path)?;
        let content = content_of(quotas, opened, what)?;
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

impl MountRequest {
    pub(in crate::agent) fn what(&self) -> What {
        What {
            opened: self.opened.clone(),
            view: self.view,
            path: self.path.clone(),
            by: self.by,
            prefetch: self.prefetch,
            owner: self.owner,
            away: self.away.clone(),
            cache_quota: self.cache_quota,
            verify: self.verify,
            following: self.follow.map(Following::every),
            command: self.command,
        }
    }

    fn options(&self) -> MountOptions {
        let what = self.what();
        let mut options = MountOptions::new(what.name(), Handle::current());
        options.audience = self.audience;
        options.privileges = self.privileges;
        options.programs = self.programs;
        options.core.owner = self.owner;
        what.limit(&mut options);
        options.mount_point_of = self.by.mounts_on_own();
        options.way.clone_from(&self.way);
        options.in_sight = Some(self.data_dir.clone());
        let url = self.opened.target.url.url();
        let is_followed = self.follow.is_some() && url.scheme() == "file";
        options.follows = is_followed.then(|| url.to_file_path().ok()).flatten();
        options
    }
}
