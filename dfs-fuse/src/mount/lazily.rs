//! The lane without requests while something is missing: the kernel shows the index and reads the content files, and
//! before it reads one of which not everything is here it asks.
//!
//! The kernel opens the files once, when the mount is made, and never asks about what was not marked by then. So they are
//! marked first, the kernel is asked whether they are, and only then there is a mount. What it asks comes to the
//! holder, which outlives this process and lets nothing through but at an agent's word; the kernel lets everything
//! through once nobody has the group any more, so this process has a hold on it, too. Where the holder is gone the mount is taken
//! away before anything else happens: whoever still reads it gets an error, until nobody uses it.
//!
//! Once every byte that is shown of a file is here the kernel is told not to ask about it any more; once that is so of all
//! files the mount needs nobody ([`super::kernel`]).

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dfs_model::ByteRange;
use dfs_proto::node::{ContentFile, KeptMount, MountedAt};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::net::{Shutdown, shutdown};
use tokio_util::sync::CancellationToken;

use super::kernel::{self, Blobs};
use super::mounted::{Passed, Serving};
use super::table::{MountEntry, Table};
use super::{MountError, MountOptions, Mounted, Survival, keeping, take_away};
use crate::content::Content;
use crate::core::{Core, CoreOptions, FsError};
use crate::fanotify::{Failing, Group, end_of};
use crate::holder::packet::{self, Answered, Outcome, Wanted};
use crate::holder::{Guard, Holder, InKeeping, InKeepingIs, LeftGuard, RECORD_FORMAT, Record};
use crate::tree::SpacesTree;

/// How often it is looked whether a file is whole by now.
const LOOK: Duration = Duration::from_secs(1);

/// Whether something of a mount is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It may be: somebody must be asked before it is read.
    Something,
    /// Every byte that is shown is here.
    Nothing,
}

/// What is known of the bytes of a space that are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Some are not here.
    Missing,
    /// All are here, and some may be damaged.
    InDoubt,
    /// All are here, and in no doubt.
    Whole,
}

/// See [`Ties::seen`].
pub type Sees = dyn Fn(u16) -> Presence + Send + Sync;

/// See [`Ties::settle`].
pub type Settles = dyn Fn(u16) + Send + Sync;

/// See [`Ties::note`].
pub type Notes = dyn Fn(&MountedAt, Missing) -> io::Result<()> + Send + Sync;

/// See [`Ties::ended`].
pub type LetsGo = dyn Fn(&[File]) + Send + Sync;

/// What such a mount needs of its agent.
pub struct Ties {
    /// What is known of a space, without reading any of it.
    pub seen: Box<Sees>,
    /// Leaves nothing of a space in doubt. May hash all of it.
    pub settle: Box<Settles>,
    /// Writes down where it is mounted, for who comes when everybody has died.
    pub note: Box<Notes>,
    /// Nobody uses it any more: its files can be opened as all others.
    pub ended: Box<LetsGo>,
}

/// The bytes of such a mount.
pub struct Spaces {
    /// Where they come from.
    pub content: Arc<dyn Content>,
    /// How many each has, by number.
    pub lengths: Vec<u64>,
    /// Those of which not everything is here, with their files, opened before anybody asked about them.
    pub missing: Vec<(u16, File)>,
}

/// Mounts the tree of `blobs`. The mount is called `name` in its holder's hands.
pub fn lazily(
    dir: &Path,
    name: String,
    blobs: &Blobs,
    spaces: Spaces,
    ties: Ties,
    options: &MountOptions,
) -> Result<Mounted, MountError> {
    let point = super::point(dir, options)?;
    let refused = |source| MountError::Refused { dir: point.dir.clone(), source };
    let keeping = options.keeping.as_ref();
    let keeping = keeping.ok_or_else(|| refused(io::Error::other("nobody guards it")))?;
    // First: what is mounted must be found again.
    let mut table = Table::open().map_err(refused)?;
    let planned = kernel::planned(&point.dir, blobs);
    let core = core_of(&spaces, options);
    let (numbers, files): (Vec<u16>, Vec<File>) = spaces.missing.into_iter().unzip();
    let prepared = || {
        let group = marked(&files)?;
        (ties.note)(&keeping::at(&planned), Missing::Something)?;
        let mount = kernel::open(blobs, options)?;
        let ended = end_of(&by_descriptor(&mount))?;
        let record = Record::of(&KeptMount {
            format: RECORD_FORMAT,
            at: Some(keeping::at(&planned)),
            shown: Some(keeping.shown.clone()),
            files: to_wire(&numbers, &files)?,
            agents: 1,
            lazy: true,
            ..KeptMount::default()
        })?;
        Ok((mount, Guard { name, group, ended, record, contents: files }))
    };
    let (mount, guard) = prepared().map_err(refused)?;
    let holder = Arc::clone(&keeping.custody.holder);
    let line = guard.try_clone().and_then(|guard| holder.guard(guard)).map_err(refused)?;
    let kept = Arc::new(in_keeping(holder, &guard).map_err(refused)?);
    let placed = place(&mount, &point.target(), &mut table, &planned).and_then(|entry| {
        let at = keeping::at(&entry);
        (ties.note)(&at, Missing::Something)?;
        let record = guard.record.read()?;
        guard.record.write(&KeptMount { served: true, at: Some(at), ..record })?;
        serve(core, (guard, line), numbers, kept.clone(), ties).map(|parts| (entry, parts))
    });
    drop(mount);
    let (entry, (serving, ended, whole)) = placed.map_err(|source| {
        // Best effort: the error that matters is the first.
        kept.end();
        take_away(&keeping::at(&planned));
        refused(source)
    })?;
    let survival = Survival::Kept { by: kept, resends: true };
    let (dir, entry) = (entry.dir.clone(), Some(entry));
    Ok(Mounted { dir, entry, ended, survival, serving, whole: Some(whole) })
}

/// Goes on with a mount that another process has served, and that its record describes.
pub fn resume_lazily(
    left: LeftGuard,
    record: &KeptMount,
    spaces: Spaces,
    ties: Ties,
    options: &MountOptions,
) -> Result<Mounted, MountError> {
    let at = record.at.clone().unwrap_or_default();
    let (entry, dir) = keeping::own_line(&at);
    let refused = |source| MountError::Refused { dir: dir.clone(), source };
    let lost = || refused(io::Error::other("nobody guards it"));
    let keeping = options.keeping.as_ref().ok_or_else(lost)?;
    let (guard, line) = (left.guard, left.line);
    let kept = in_keeping(Arc::clone(&keeping.custody.holder), &guard).map_err(refused)?;
    let kept = Arc::new(kept);
    let numbers = record.files.iter().map(|file| u16::try_from(file.space).unwrap_or(u16::MAX));
    let core = core_of(&spaces, options);
    let served = serve(core, (guard, line), numbers.collect(), kept.clone(), ties);
    let (serving, ended, whole) = served.map_err(refused)?;
    let survival = Survival::Kept { by: kept, resends: true };
    Ok(Mounted { dir, entry, ended, survival, serving, whole: Some(whole) })
}

/// Lets go of a guarded mount that nobody can go on with: whoever still reads it gets an error.
pub fn abandon_guarded(guard: &Guard, holder: &dyn Holder) {
    // First: nothing is shown from here on that is not here.
    let _ = holder.close(&guard.name);
    let at = guard.record.read().ok().and_then(|record| record.at).unwrap_or_default();
    take_away(&at);
}

/// A name that leads to what a descriptor is of.
pub(super) fn by_descriptor(of: &impl AsFd) -> PathBuf {
    Path::new("/proc/self/fd").join(of.as_fd().as_raw_fd().to_string())
}

fn in_keeping(holder: Arc<dyn Holder>, guard: &Guard) -> io::Result<InKeeping> {
    let (name, record) = (guard.name.clone(), guard.record.try_clone()?);
    Ok(InKeeping { holder, name, record, what: InKeepingIs::Reads })
}

/// Gives the mount its name, and finds it.
fn place(
    mount: &impl AsFd,
    target: &Path,
    table: &mut Table,
    planned: &MountEntry,
) -> io::Result<MountEntry> {
    // The name of the directory's handle is a link.
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(mount, "", rustix::fs::CWD, target, flags)?;
    kernel::found(table, planned)
}

/// A core that knows the spaces as files.
fn core_of(spaces: &Spaces, options: &MountOptions) -> Arc<Core> {
    let (tree, content) = (SpacesTree::new(spaces.lengths.clone()), Arc::clone(&spaces.content));
    let core = CoreOptions { ..options.core.clone() };
    Arc::new(Core::new(Arc::new(tree), content, core, options.runtime.clone()))
}

/// A group that asks about all of the files.
fn marked(files: &[File]) -> io::Result<Group> {
    let group = Group::new()?;
    files.iter().try_for_each(|file| group.mark(file.as_fd()))?;
    are_marked(&group, files)?;
    Ok(group)
}

/// That the kernel will ask about each of the files whoever opens it from now on.
fn are_marked(group: &Group, files: &[File]) -> io::Result<()> {
    let marked = group.marked()?;
    for file in files {
        if !marked.contains(&file.metadata()?.ino()) {
            return Err(io::Error::other("the kernel would not ask before it reads a file of it"));
        }
    }
    Ok(())
}

fn to_wire(spaces: &[u16], files: &[File]) -> io::Result<Vec<ContentFile>> {
    let wire = |(space, file): (&u16, &File)| {
        let of = file.metadata()?;
        let (device, inode) = (of.dev(), of.ino());
        Ok(ContentFile { space: u32::from(*space), id: 0, device, inode })
    };
    spaces.iter().zip(files).map(wire).collect()
}

type Parts = (Serving, CancellationToken, CancellationToken);

/// Serves a mount until nobody uses it any more.
fn serve(
    core: Arc<Core>,
    (guard, line): (Guard, OwnedFd),
    spaces: Vec<u16>,
    kept: Arc<InKeeping>,
    ties: Ties,
) -> io::Result<Parts> {
    let (ended, whole) = (CancellationToken::new(), CancellationToken::new());
    let inodes = guard.group.marked()?;
    let is_marked = |file: &File| Ok(inodes.contains(&file.metadata()?.ino()));
    let marked = guard.contents.iter().map(is_marked).collect::<io::Result<Vec<_>>>()?;
    let marked = (0..spaces.len()).filter(|at| marked.get(*at).is_some_and(|is| *is));
    let marked = Marked::new(marked.collect());
    let ties = Arc::new(ties);
    let server = Server {
        core: Arc::clone(&core),
        guard,
        answers: answers_to(&line)?,
        line,
        spaces,
        marked,
        kept,
        ties,
        ended: ended.clone(),
        whole: whole.clone(),
    };
    let (alive, session) = channel();
    std::thread::Builder::new().name("dfs-mount".to_owned()).spawn(move || {
        server.run();
        drop(alive);
    })?;
    let passed = Passed::Unasked;
    Ok((Serving::Here { core, session, passed, notices: None }, ended, whole))
}

/// What gives a holder answers as they come.
fn answers_to(line: &OwnedFd) -> io::Result<Sender<Answered>> {
    let (answers, to_send) = channel();
    let out = line.try_clone()?;
    let thread = std::thread::Builder::new().name("dfs-answers".to_owned());
    thread.spawn(move || say(&out, &to_send))?;
    Ok(answers)
}

fn say(line: &OwnedFd, answers: &Receiver<Answered>) {
    while let Ok(answered) = answers.recv() {
        if packet::send(line, &answered, &[]).is_err() {
            // Who listens at this end hears that it is over.
            let _ = shutdown(line, Shutdown::Both);
            return;
        }
    }
}

/// How serving ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody uses the mount any more.
    Unused,
    /// Its holder is gone, or was told to let nothing through any more.
    Unguarded,
    /// All of it is here, and the kernel asks about nothing any more.
    Whole,
}

struct Server {
    core: Arc<Core>,
    guard: Guard,
    line: OwnedFd,
    /// Which space each of the files is.
    spaces: Vec<u16>,
    marked: Marked,
    answers: Sender<Answered>,
    kept: Arc<InKeeping>,
    ties: Arc<Ties>,
    ended: CancellationToken,
    whole: CancellationToken,
}

impl Server {
    fn run(mut self) {
        let end = self.serve();
        if end == End::Unguarded {
            self.take_away();
        }
        let Self { guard, kept, ties, ended, .. } = self;
        let Guard { group, ended: unused, contents, .. } = guard;
        if end == End::Whole {
            // What was asked before that and answered by nobody the kernel reads once nobody has the group.
            drop(group);
            wait_for(&unused);
        }
        (ties.ended)(&contents);
        kept.end();
        ended.cancel();
    }

    fn serve(&mut self) -> End {
        let mut look = Instant::now();
        loop {
            if look <= Instant::now() {
                if self.is_whole() {
                    return End::Whole;
                }
                look = Instant::now() + LOOK;
            }
            let (unused, line) = (&self.guard.ended, &self.line);
            let mut asked = [unused, line].map(|at| PollFd::new(at, PollFlags::IN));
            let until = look.saturating_duration_since(Instant::now()).try_into().ok();
            if poll(&mut asked, until.as_ref()).is_err() {
                continue;
            }
            if !asked[0].revents().is_empty() {
                return End::Unused;
            }
            if !asked[1].revents().is_empty() {
                match packet::receive::<Wanted>(&self.line) {
                    Ok(Some((wanted, _))) => self.fetch(wanted),
                    Ok(None) | Err(_) if self.is_guarded_still() => {}
                    // It may just have been told that it is not needed.
                    Ok(None) | Err(_) if !self.core.is_stopping() && self.is_whole() => {
                        return End::Whole;
                    }
                    Ok(None) | Err(_) => return End::Unguarded,
                }
            }
        }
    }

    /// Whether its holder is there all the same, and tells of reads again. What the earlier line was to be told is told at
    /// this one: all that waits is asked for once more.
    fn is_guarded_still(&mut self) -> bool {
        let line = self.kept.holder.line(&self.kept.name);
        let renewed = line.and_then(|line| Some((answers_to(&line).ok()?, line)));
        let is_guarded = renewed.is_some();
        if let Some((answers, line)) = renewed {
            tracing::warn!(name = self.guard.name, "the holder of a mount hung, and goes on");
            (self.answers, self.line) = (answers, line);
        }
        is_guarded
    }

    /// Has the bytes of a read fetched, and says how that went.
    fn fetch(&self, wanted: Wanted) {
        let Wanted { number, file, offset, count } = wanted;
        let (core, answers) = (Arc::clone(&self.core), self.answers.clone());
        let Some(space) = self.spaces.get(file as usize).copied() else {
            // Nobody knows what to fetch, and nobody else answers.
            let _ = answers.send(Answered { number, outcome: Outcome::Failed });
            return;
        };
        self.core.spawn(async move {
            let range = ByteRange::at(offset, count);
            let outcome = match core.obtain(SpacesTree::nid(space), range).await {
                Ok(()) => Outcome::Here,
                // It is the next one's to answer.
                Err(_) if core.is_left() => return,
                Err(FsError::Stopping) => Outcome::Failed,
                Err(error) => {
                    tracing::warn!(space, %range, %error, "a read of a mount fails");
                    Outcome::Failed
                }
            };
            // Where nobody listens the mount is being taken away.
            let _ = answers.send(Answered { number, outcome });
        });
    }

    /// Has the kernel not ask any more about what is whole; whether all of it is, and its holder has let go of it.
    fn is_whole(&mut self) -> bool {
        if self.core.is_left() {
            return false;
        }
        self.marked.unmark(&self.guard, &self.spaces, &self.ties);
        let needs_nobody = self.marked.files.is_empty() && self.needs_nobody().is_ok();
        if needs_nobody {
            tracing::info!(name = self.guard.name, "all of a mount is here: it needs nobody");
            self.whole.cancel();
        }
        needs_nobody
    }

    /// Notes that the kernel serves it alone from now on.
    fn needs_nobody(&self) -> io::Result<()> {
        let at = self.guard.record.read()?.at.unwrap_or_default();
        (self.ties.note)(&at, Missing::Nothing)?;
        self.kept.holder.let_go(&self.kept.name)
    }

    /// Takes the mount away at once, and has every read of it fail until nobody uses it any more. As long as this process
    /// has the group the kernel lets nothing through.
    fn take_away(&mut self) {
        if !self.core.is_stopping() {
            tracing::error!(name = self.guard.name, "a mount lost its holder: it is taken away");
        }
        let at = self.guard.record.read().ok().and_then(|record| record.at).unwrap_or_default();
        take_away(&at);
        self.core.stop();
        self.ended.cancel();
        let Self { guard, marked, spaces, ties, .. } = self;
        let mut failing = Failing::begin(&guard.group, guard.ended.as_fd(), &guard.name);
        let mut looked = Instant::now();
        while failing.goes_on() {
            if looked.elapsed() >= LOOK {
                // Others may show the same files, all of which are here by now.
                marked.unmark(guard, spaces, ties);
                looked = Instant::now();
            }
        }
    }
}

/// Waits until a descriptor can be read.
fn wait_for(descriptor: &OwnedFd) {
    let mut asked = [PollFd::new(descriptor, PollFlags::IN)];
    // A poll that fails tells nothing.
    while poll(&mut asked, None).is_err() || asked[0].revents().is_empty() {}
}

/// Those of the files that the kernel asks about.
struct Marked {
    files: BTreeSet<usize>,
    /// What is in doubt of them is hashed on a thread of its own: it may be all, and nobody who reads waits for that.
    settling: Option<JoinHandle<()>>,
    /// Nobody wants to know any more.
    is_over: Arc<AtomicBool>,
}

impl Marked {
    fn new(files: BTreeSet<usize>) -> Self {
        Self { files, settling: None, is_over: Arc::default() }
    }

    /// Has the kernel not ask any more about what is whole now, and has what is in doubt settled.
    fn unmark(&mut self, guard: &Guard, spaces: &[u16], ties: &Arc<Ties>) {
        let mut in_doubt = Vec::new();
        self.files.retain(|at| match (ties.seen)(spaces[*at]) {
            Presence::Missing => true,
            Presence::InDoubt => {
                in_doubt.push(spaces[*at]);
                true
            }
            Presence::Whole => guard.group.unmark(guard.contents[*at].as_fd()).is_err(),
        });
        let is_settling = self.settling.as_ref().is_some_and(|settling| !settling.is_finished());
        if in_doubt.is_empty() || is_settling {
            return;
        }
        let (ties, is_over) = (Arc::clone(ties), Arc::clone(&self.is_over));
        let settle = move || {
            let left = in_doubt.into_iter().take_while(|_| !is_over.load(Relaxed));
            left.for_each(|space| (ties.settle)(space));
        };
        let thread = std::thread::Builder::new().name("dfs-settle".to_owned());
        // Where there is no thread for it now there may be one the next time.
        self.settling = thread.spawn(settle).ok();
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_kernel_would_not_ask_about_keeps_all_of_it_from_being_mounted() {
        let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let group = Group::new().unwrap();
        group.mark(files[0].as_fd()).unwrap();
        assert!(are_marked(&group, &files[..1]).is_ok());
        let late = are_marked(&group, &files).unwrap_err();
        assert!(late.to_string().contains("would not ask"), "{late}");
        // Marked as they are before there is a mount.
        are_marked(&marked(&files).unwrap(), &files).unwrap();
    }

    #[test]
    fn who_serves_a_mount_does_not_wait_until_what_is_in_doubt_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let files = vec![tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let guard = Guard {
            name: "mount".to_owned(),
            group: super::marked(&files).unwrap(),
            ended: end_of(dir.path()).unwrap(),
            record: Record::of(&KeptMount::default()).unwrap(),
            contents: files,
        };
        let (let_go, held) = channel::<()>();
        let held = std::sync::Mutex::new(held);
        // The second one takes long.
        let (is_settled, has_begun) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
        let settled = Arc::clone(&is_settled);
        let ties = Arc::new(Ties {
            seen: Box::new(move |space| match (space, is_settled.load(Relaxed)) {
                (0, _) | (_, true) => Presence::Whole,
                (_, false) => Presence::InDoubt,
            }),
            settle: Box::new(move |space| {
                assert!(space == 1 && !has_begun.swap(true, Relaxed), "once, of what is in doubt");
                held.lock().unwrap().recv().unwrap();
                settled.store(true, Relaxed);
            }),
            note: Box::new(|_, _| Ok(())),
            ended: Box::new(|_| {}),
        });
        let mut marked = Marked::new(BTreeSet::from([0, 1]));
        let spaces = [0, 1];
        // It comes back although nobody can tell yet.
        (0..3).for_each(|_| marked.unmark(&guard, &spaces, &ties));
        assert_eq!((marked.files.len(), guard.group.marked().unwrap().len()), (1, 1));
        let_go.send(()).unwrap();
        while !marked.files.is_empty() {
            std::thread::yield_now();
            marked.unmark(&guard, &spaces, &ties);
        }
        assert!(guard.group.marked().unwrap().is_empty());
    }
}
