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
use dfs_peer::store::{Lent, Verify};
use dfs_proto::node::{KeptMount, ShownMount};
use tokio::runtime::Handle;

use super::content::SpaceContent;
use super::independent::{self, Noted};
use super::kept;
use super::mounts::{
    Begun, Course, KEPT, MountRequest, MountTable, MountTableError, What, shows_whole, whole_tree,
};
use super::traces::Beginning;
use crate::core::Reads;
use crate::holder::LeftGuard;
use crate::lane::{self, Chosen, Lane};
use crate::mount::{self, MountError, MountOptions, Presence, Spaces, Ties, next_name};
use crate::tree::Footprint;

impl MountTable {
    /// Mounts what is not all here so that the kernel asks before it reads.
    pub(super) async fn mount_lazily(
        self: &Arc<Self>,
        request: &MountRequest,
        mut options: MountOptions,
        lane: Chosen,
        content: Arc<SpaceContent>,
    ) -> Result<PathBuf, MountTableError> {
        let (dir, name, lent) = (request.dir.clone(), next_name(), self.lent());
        let (noted, shown) = (self.records().named(&name), kept::shown(&request.what()));
        let reads = self.counts_some(&mut options);
        let course = guarded(request.what(), content, reads, noted.clone(), Beginning::Mounted);
        self.begin(course, move |what, content, recorder| {
            let blobs = independent::blobs(&what.opened, &content, &dir)?;
            options.core.recorder = Some(recorder);
            let missing = missing(&what.opened)?;
            let files = missing.iter().map(|(_, file)| file.try_clone());
            let files = files.collect::<Result<Vec<_>, _>>().map_err(refused(&dir))?;
            let ties = ties(&what.opened, &shown, &noted, &lent)?;
            lend(&lent, &files).map_err(refused(&dir))?;
            let spaces = spaces(&what.opened, content, missing);
            let mounted = mount::lazily(&dir, name, &blobs, spaces, ties, &options);
            let mounted = mounted.inspect_err(|_| {
                noted.forget();
                take_back(&lent, &files);
            })?;
            Ok(Begun { mounted, lane, footprint: OnceLock::new() })
        })
        .await
    }

    /// Has those reads counted about which the kernel asks: of what is here it asks nobody, sooner or later.
    fn counts_some(&self, options: &mut MountOptions) -> Arc<Reads> {
        let reads = self.counts(options);
        reads.some_are_unseen();
        reads
    }

    /// That what comes is written where the kernel reads it.
    fn writes_as_read(&self) -> io::Result<()> {
        if self.is_layered() { Err(io::Error::other(lane::LAYERED)) } else { Ok(()) }
    }

    /// Goes on with one that an earlier agent left, and that shows `opened`. Its files are lent already.
    pub(super) async fn resume_lazily(
        self: &Arc<Self>,
        left: LeftGuard,
        record: KeptMount,
        opened: OpenArtifact,
    ) -> Result<PathBuf, MountTableError> {
        let content = Arc::new(SpaceContent::of(&opened, None, Verify::Arrivals)?);
        let at = record.at.clone().unwrap_or_default();
        let dir = PathBuf::from(OsStr::from_bytes(&at.dir));
        self.writes_as_read()
            .and_then(|()| are_the_same(&opened, &record))
            .and_then(|()| content.end_on_groups().map_err(io::Error::other))
            .map_err(refused(&dir))?;
        let (noted, lent) = (self.records().named(&left.guard.name), self.lent());
        let shown = record.shown.clone().unwrap_or_default();
        let what = kept::what(opened, &shown);
        let mut options = MountOptions::new(what.name(), Handle::current());
        options.keeping = self.keeping(shown.clone());
        let reads = self.counts_some(&mut options);
        let course = guarded(what, content, reads, noted.clone(), Beginning::Resumed);
        self.begin(course, move |what, content, recorder| {
            options.core.recorder = Some(recorder);
            let spaces = spaces(&what.opened, content, Vec::new());
            let ties = ties(&what.opened, &shown, &noted, &lent)?;
            let mounted = mount::resume_lazily(left, &record, spaces, ties, &options)?;
            let lane = Chosen { lane: Lane::Kernel, why: KEPT.to_owned() };
            Ok(Begun { mounted, lane, footprint: OnceLock::new() })
        })
        .await
    }
}

/// It is written down as `noted` for as long as it is there.
fn guarded(
    what: What,
    content: Arc<SpaceContent>,
    reads: Arc<Reads>,
    noted: Noted,
    beginning: Beginning,
) -> Course {
    Course { what, content, reads: Some(reads), noted: Some(noted), beginning }
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

/// What is known of the bytes of a space that are in a footprint.
fn seen(footprint: &Footprint, (space, task): (usize, &Task)) -> Presence {
    let (stored, length) = (task.stored(), task.length().unwrap_or(0));
    if stored.complete() {
        return Presence::Whole;
    }
    let have = stored.have();
    // Most of the time there is less: the rest takes longer.
    if have.len() < footprint.bytes_in(space).div_ceil(GROUP_BYTES) {
        return Presence::Missing;
    }
    let here: Vec<_> = footprint.within(space, &have, length).collect();
    if here.iter().map(|run| run.len()).sum::<u64>() < footprint.bytes_in(space) {
        return Presence::Missing;
    }
    match here.iter().any(|run| stored.is_in_doubt(run.groups())) {
        true => Presence::InDoubt,
        false => Presence::Whole,
    }
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
    let footprint = Arc::new(footprint);
    let (settled, settles) = (tasks.clone(), Arc::clone(&footprint));
    Ok(Ties {
        seen: Box::new(move |space| {
            let task = tasks.get(usize::from(space));
            task.map_or(Presence::Missing, |task| seen(&footprint, (space.into(), task)))
        }),
        settle: Box::new(move |space| {
            let task = settled.get(usize::from(space));
            task.map(|task| shows_whole(&settles, (space.into(), task)));
        }),
        note: Box::new(move |at, missing| noted.note(at, &shown, missing)),
        ended: Box::new(move |files| take_back(&lent, files)),
    })
}

/// Has the store open none of the files anew: all of them, or none.
pub(super) fn lend(lent: &Lent, files: &[File]) -> io::Result<()> {
    for (at, file) in files.iter().enumerate() {
        if let Err(error) = file.try_clone().and_then(|file| lent.lend(file)) {
            take_back(lent, &files[..at]);
            return Err(error);
        }
    }
    Ok(())
}

fn take_back(lent: &Lent, files: &[File]) {
    for file in files {
        // One that cannot be looked at stays lent, which does no harm.
        let _ = lent.take_back(file);
    }
}
