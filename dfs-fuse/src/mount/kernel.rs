//! The lane without a process: the kernel's own EROFS shows the index, and reads the content files.
//!
//! Only of a tree whose every byte is here: nobody would fetch what is missing, and the kernel would show zeros. What it
//! shows lives as long as it is mounted, whatever becomes of any process; the files are open in the kernel. It may be
//! used when it is not in the table any more: taken away lazily, bound to another directory, in another namespace. Until nobody
//! does its content is in use here.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::node::MountedAt;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use tokio_util::sync::CancellationToken;

use super::lazily::by_descriptor;
use super::mounted::Serving;
use super::table::{self, MountEntry, Table};
use super::{
    MountError, MountOptions, Mounted, Privileges, Programs, Survival, keeping, take_away,
};
use crate::content::Content;
use crate::fanotify::end_of;

/// Files that the kernel reads: absolute names, that lead to them as long as they are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blobs {
    /// The index.
    pub index: PathBuf,
    /// The content of the spaces, by number.
    pub spaces: Vec<PathBuf>,
}

/// Mounts the tree of `blobs`, all of whose bytes are there. `note` is told of the mount before it is made, without its
/// device, and after it.
pub fn by_kernel(
    dir: &Path,
    (blobs, content): (&Blobs, Arc<dyn Content>),
    options: &MountOptions,
    note: &dyn Fn(&MountedAt) -> io::Result<()>,
) -> Result<Mounted, MountError> {
    let point = super::point(dir, options)?;
    let refused = |source| MountError::Refused { dir: point.dir.clone(), source };
    // First: what is mounted must be found again.
    let mut table = Table::open().map_err(refused)?;
    let planned = planned(&point.dir, blobs);
    note(&keeping::at(&planned)).map_err(refused)?;
    let mount = open(blobs, options).map_err(refused)?;
    let used = Used { until: end_of(&by_descriptor(&mount)).map_err(refused)?, content };
    // The name of the directory's handle is a link.
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(&mount, "", rustix::fs::CWD, point.target(), flags)
        .map_err(|error| refused(error.into()))?;
    let found = found(&mut table, &planned).and_then(|entry| {
        note(&keeping::at(&entry))?;
        mounted(entry, Some(used))
    });
    found.map_err(|source| {
        // Best effort: the error that matters is the first. Nothing goes that lies below it or over it.
        take_away(&keeping::at(&planned));
        refused(source)
    })
}

/// The line of what was just mounted.
pub(super) fn found(table: &mut Table, planned: &MountEntry) -> io::Result<MountEntry> {
    let entry = table.mounted_at(&planned.dir)?;
    let entry = entry.filter(|entry| entry.kind == KIND && entry.name == planned.name);
    entry.ok_or_else(|| io::Error::other("it is not in the mount table"))
}

/// A mount that the kernel serves since before this process, and that shows `content`.
pub fn adopt(entry: MountEntry, content: Arc<dyn Content>) -> io::Result<Mounted> {
    // Where something else covers it nobody tells when it ends.
    let is_it = table::mounted_at(&entry.dir)?.is_some_and(|found| found.device == entry.device);
    let until = is_it.then(|| end_of(&entry.dir).ok()).flatten();
    mounted(entry, until.map(|until| Used { until, content }))
}

/// A content that the kernel reads.
struct Used {
    /// Can be read once it does not any more.
    until: OwnedFd,
    content: Arc<dyn Content>,
}

fn mounted(entry: MountEntry, used: Option<Used>) -> io::Result<Mounted> {
    let ended = CancellationToken::new();
    watch(entry.clone(), ended.clone(), used)?;
    Ok(Mounted {
        dir: entry.dir.clone(),
        entry: Some(entry),
        ended,
        survival: Survival::Independent,
        serving: Serving::ByKernel,
        whole: None,
    })
}

/// How long to wait where the kernel does not tell of changes.
const PAUSE: Duration = Duration::from_secs(1);

/// The type of the filesystem.
pub(super) const KIND: &str = "erofs";

/// What will be in the table, as far as it is known before.
pub(super) fn planned(dir: &Path, blobs: &Blobs) -> MountEntry {
    MountEntry {
        id: 0,
        parent: 0,
        only_id: None,
        dir: dir.to_owned(),
        root: PathBuf::from("/"),
        device: String::new(),
        kind: KIND.to_owned(),
        name: blobs.index.to_string_lossy().into_owned(),
        user: None,
    }
}

/// Mounts it, nowhere yet.
pub(super) fn open(blobs: &Blobs, options: &MountOptions) -> io::Result<impl AsFd> {
    let context = fsopen(KIND, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", &blobs.index)?;
    for space in &blobs.spaces {
        fsconfig_set_string(&context, "device", space)?;
    }
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    if options.privileges == Privileges::Inert {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    if options.programs == Programs::AreRefused {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Has `ended` fire when the mount is not in the table any more, and lets go of what it uses when nobody uses it.
fn watch(entry: MountEntry, ended: CancellationToken, used: Option<Used>) -> io::Result<()> {
    // Opened before the first look: whatever changes after it wakes the thread.
    let changes = File::open("/proc/self/mountinfo")?;
    std::thread::Builder::new().name("dfs-mount".to_owned()).spawn(move || {
        while !ended.is_cancelled() && !matches!(table::still_there(&entry), Ok(None)) {
            let mut asked = [PollFd::new(&changes, PollFlags::PRI)];
            // A table that cannot be looked at tells nothing: it is looked at again when it changes.
            if poll(&mut asked, None).is_err() {
                std::thread::park_timeout(PAUSE);
            }
        }
        ended.cancel();
        let Some(Used { until, content }) = used else { return };
        while poll(&mut [PollFd::new(&until, PollFlags::IN)], None).is_err() {
            std::thread::park_timeout(PAUSE);
        }
        drop(content);
    })?;
    Ok(())
}
