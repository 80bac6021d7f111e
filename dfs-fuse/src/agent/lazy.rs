//! Mounts of the kernel's of which something is missing: what they need of the agent, and how the next one goes on with
//! them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use dfs_model::GROUP_BYTES;
use dfs_peer::engine::{ReadError, Task};
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::Lent;
use dfs_proto::node::{KeptMount, ShownMount};
use tokio::runtime::Handle;

use super::content::SpaceContent;
use super::independent::{self, Noted};
use super::kept;
use super::mounts::{
    KEPT, MountRequest, MountTable, MountTableError, Shown, shown, shows_whole, whole_tree,
};
use super::prefetch::Prefetch;
use super::traces::Beginning;
use crate::holder::LeftGuard;
use crate::lane::{self, Chosen, Lane};
use crate::mount::{self, MountError, MountOptions, Spaces, Ties, next_name};
use crate::tree::Footprint;

impl MountTable {
    /// Mounts what is not all here so that the kernel asks before it reads.
    pub(super) async fn mount_lazily(
        &self,
        request: &MountRequest,
        mut options: MountOptions,
        lane: Chosen,
        content: Arc<SpaceContent>,
    ) -> Result<PathBuf, MountTableError> {
        let (dir, what) = (request.dir.clone(), request.what());
        let (name, lent, in_use) = (next_name(), self.lent(), Arc::clone(&content));
        let noted = self.records().named(&name);
        let (watcher, kept_so) = (self.watcher(Beginning::Mounted), noted.clone());
        let mounting = tokio::task::spawn_blocking(move || {
            let blobs = independent::blobs(&what.opened)?;
            let watching = watcher.watch(&what)?;
            let prefetch = Prefetch::new(what.prefetch, Arc::clone(watching.watched()), &content);
            options.core.recorder = Some(Arc::clone(watching.watched().recorder()));
            let missing = missing(&what.opened)?;
            let files = missing.iter().map(|(_, file)| file.try_clone());
            let files = files.collect::<Result<Vec<_>, _>>().map_err(refused(&dir))?;
            lend(&lent, &files).map_err(refused(&dir))?;
            let spaces = spaces(&what.opened, content, missing);
            let ties = ties(&what.opened, &kept::shown(&what), &noted, &lent)?;
            match mount::lazily(&dir, name, &blobs, spaces, ties, &options) {
                Ok(mounted) => {
                    let shown = Shown::new(what, OnceLock::new(), lane, prefetch, None);
                    Ok((mounted, shown, watching))
                }
                Err(error) => {
                    noted.forget();
                    take_back(&lent, &files);
                    Err(MountTableError::from(error))
                }
            }
        });
        let (mounted, shown, watching) =
            mounting.await.map_err(|_| MountTableError::Stopping)??;
        self.forget_after(kept_so, mounted.ended());
        Ok(self.keep(mounted, shown, in_use, watching))
    }

    /// That what comes is written where the kernel reads it.
    fn writes_as_read(&self) -> io::Result<()> {
        if self.is_layered() { Err(io::Error::other(lane::LAYERED)) } else { Ok(()) }
    }

    /// Goes on with one that an earlier agent left, and that shows `opened`. Its files are lent already.
    pub(super) async fn resume_lazily(
        &self,
        left: LeftGuard,
        record: KeptMount,
        opened: OpenArtifact,
    ) -> Result<PathBuf, MountTableError> {
        let content = Arc::new(SpaceContent::of(&opened, None)?);
        let at = record.at.clone().unwrap_or_default();
        let dir = PathBuf::from(OsStr::from_bytes(&at.dir));
        self.writes_as_read()
            .and_then(|()| are_the_same(&opened, &record))
            .map_err(refused(&dir))?;
        let in_use = Arc::clone(&content);
        let noted = self.records().named(&left.guard.name);
        let shown_so = record.shown.clone().unwrap_or_default();
        let name = shown(&opened.target.url, &shown_so.path);
        let what = kept::what(opened, &shown_so);
        let mut options = MountOptions::new(name, Handle::current());
        options.keeping = self.keeping(shown_so.clone());
        let (watcher, kept_so, lent) =
            (self.watcher(Beginning::Resumed), noted.clone(), self.lent());
        let resuming = tokio::task::spawn_blocking(move || {
            let watching = watcher.watch(&what)?;
            let prefetch = Prefetch::new(what.prefetch, Arc::clone(watching.watched()), &content);
            options.core.recorder = Some(Arc::clone(watching.watched().recorder()));
            let spaces = spaces(&what.opened, content, Vec::new());
            let ties = ties(&what.opened, &shown_so, &noted, &lent)?;
            let mounted = mount::resume_lazily(left, &record, spaces, ties, &options)?;
            let lane = Chosen { lane: Lane::Kernel, why: KEPT.to_owned() };
            let shown = Shown::new(what, OnceLock::new(), lane, prefetch, None);
            Ok::<_, MountTableError>((mounted, shown, watching))
        });
        let (mounted, shown, watching) =
            resuming.await.map_err(|_| MountTableError::Stopping)??;
        self.forget_after(kept_so, mounted.ended());
        Ok(self.keep(mounted, shown, in_use, watching))
    }
}

fn refused(dir: &std::path::Path) -> impl Fn(std::io::Error) -> MountError {
    let dir = dir.to_owned();
    move |source| MountError::Refused { dir: dir.clone(), source }
}

/// The spaces of which not every byte is here, with the files that the store has open.
fn missing(opened: &OpenArtifact) -> Result<Vec<(u16, File)>, MountTableError> {
    let missing = (0..).zip(&opened.tasks).filter(|(_, task)| !task.stored().complete());
    let with_file = missing.map(|(space, task): (u16, &Task)| {
        let length = task
            .length()
            .ok_or_else(|| ReadError::Swarm("a file of it has no known length yet".to_owned()))?;
        // The kernel finds nothing behind its end.
        task.stored().set_length(length).map_err(ReadError::from)?;
        let file = task.stored().content_file().try_clone();
        let gone = |error: std::io::Error| ReadError::Swarm(error.to_string());
        Ok((space, file.map_err(gone)?))
    });
    with_file.collect()
}

/// That what is missing is written into the very files that the kernel reads: the store may lie elsewhere by now.
fn are_the_same(opened: &OpenArtifact, record: &KeptMount) -> io::Result<()> {
    for read in &record.files {
        let task = usize::try_from(read.space).ok().and_then(|space| opened.tasks.get(space));
        let file = task.map(|task| task.stored().content_file().metadata()).transpose()?;
        if file.is_none_or(|file| (file.dev(), file.ino()) != (read.device, read.inode)) {
            return Err(io::Error::other("the cache has other files than the kernel reads"));
        }
    }
    Ok(())
}

/// How many content files a tree has of which not every byte is here.
pub(super) fn count_missing(opened: &OpenArtifact) -> usize {
    opened.tasks.iter().filter(|task| !task.stored().complete()).count()
}

fn spaces(opened: &OpenArtifact, content: Arc<SpaceContent>, missing: Vec<(u16, File)>) -> Spaces {
    let lengths = opened.tasks.iter().map(|task| task.length().unwrap_or(0)).collect();
    Spaces { content, lengths, missing }
}

fn ties(
    opened: &OpenArtifact,
    shown: &ShownMount,
    noted: &Noted,
    lent: &Lent,
) -> Result<Ties, MountTableError> {
    let footprint = Footprint::of(&whole_tree(opened)?)?;
    let (tasks, shown) = (opened.tasks.clone(), shown.clone());
    let (noted, lent) = (noted.clone(), lent.clone());
    Ok(Ties {
        is_whole: Box::new(move |space| {
            tasks.get(usize::from(space)).is_some_and(|task| {
                let stored = task.stored();
                let enough = footprint.bytes_in(space.into()).div_ceil(GROUP_BYTES);
                stored.complete()
                    // Most of the time it is not: the rest takes longer.
                    || stored.have().len() >= enough
                        && shows_whole(&footprint, (space.into(), task))
            })
        }),
        note: Box::new(move |at, missing| noted.note(at, &shown, missing)),
        ended: Box::new(move |files| take_back(&lent, files)),
    })
}

/// Has the store open none of the files anew.
pub(super) fn lend(lent: &Lent, files: &[File]) -> std::io::Result<()> {
    files.iter().try_for_each(|file| lent.lend(file.try_clone()?))
}

fn take_back(lent: &Lent, files: &[File]) {
    for file in files {
        // One that cannot be looked at stays lent, which does no harm.
        let _ = lent.take_back(file);
    }
}
