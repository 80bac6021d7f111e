//! A mount in the hands of its holder: handed over before anybody is told of it, taken over by the next agent.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_proto::node::{KeptMount, MountedAt, ShownMount};

use super::table::{self, MountEntry};
use super::{Detach, UnmountError, unmount};
use crate::core::Generation;
use crate::fuse::{Agreed, Ids, Resend};
use crate::holder::{Holder, InKeeping, InKeepingIs, Kept, RECORD_FORMAT, Record};

/// How mounts are kept.
#[derive(Debug, Clone)]
pub struct Custody {
    /// By whom.
    pub holder: Arc<dyn Holder>,
    /// Whether requests that were not answered are sent to the next process.
    pub resend: Resend,
}

/// How one is kept, and what is to be known of it.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// How.
    pub custody: Custody,
    /// What it shows.
    pub shown: ShownMount,
}

impl Keeping {
    /// Hands a mount over that nobody serves yet.
    pub(super) fn begin(
        &self,
        device: &OwnedFd,
        entry: Option<&MountEntry>,
        generation: Generation,
    ) -> io::Result<InKeeping> {
        let record = Record::of(&KeptMount {
            format: RECORD_FORMAT,
            served: false,
            at: entry.map(at),
            capabilities: 0,
            generation: generation.number(),
            shown: Some(self.shown.clone()),
            agents: 1,
            ..KeptMount::default()
        })?;
        let name = next_name();
        let kept =
            Kept { name: name.clone(), device: device.try_clone()?, record: record.try_clone()? };
        self.custody.holder.keep(kept)?;
        let holder = Arc::clone(&self.custody.holder);
        Ok(InKeeping { holder, name, record, what: InKeepingIs::Requests })
    }
}

/// Notes that it is served: from now on it can be taken over.
pub(super) fn served(kept: &InKeeping, agreed: Agreed, ids: Option<&Ids>) -> io::Result<()> {
    let record = kept.record.read()?;
    let (capabilities, files) = (agreed.bits(), ids.map(Ids::to_wire).unwrap_or_default());
    kept.record.write(&KeptMount { served: true, capabilities, files, ..record })
}

/// Notes that another agent serves it: the how manieth.
pub(super) fn resumed(kept: &InKeeping) -> io::Result<u64> {
    let record = kept.record.read()?;
    let agents = record.agents + 1;
    kept.record.write(&KeptMount { agents, ..record })?;
    Ok(agents)
}

/// Names no other mount of any agent of this machine's had since it started.
pub(crate) fn next_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since = since.map_or(0, |since| since.as_nanos());
    format!("{since:x}-{:x}-{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// As it is written down where a mount is.
pub(crate) fn at(entry: &MountEntry) -> MountedAt {
    MountedAt {
        dir: entry.dir.as_os_str().as_bytes().to_vec().into(),
        device: entry.device.clone(),
        name: entry.name.clone(),
    }
}

/// Where it was mounted.
pub(super) fn dir_of(at: &MountedAt) -> PathBuf {
    std::ffi::OsString::from_vec(at.dir.to_vec()).into()
}

/// The line of a mount that is gone on with, and where that is: its own, or whatever the directory is called by now; not one
/// of a part of it that is shown elsewhere, too. Without a line it was taken away lazily.
pub(super) fn own_line(at: &MountedAt) -> (Option<MountEntry>, PathBuf) {
    let dir = dir_of(at);
    let mut lines = entries_of(at).unwrap_or_default();
    lines.retain(|line| line.root == Path::new("/"));
    let own = lines.iter().position(|line| line.dir == dir).unwrap_or(0);
    let entry = (own < lines.len()).then(|| lines.swap_remove(own));
    let dir = entry.as_ref().map_or(dir, |entry| entry.dir.clone());
    (entry, dir)
}

/// What is left of a mount that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// It has no name any more.
    Nothing,
    /// Something, or nobody can tell.
    Something,
}

/// Takes a mount away wherever it is shown.
pub fn take_away(at: &MountedAt) -> Remains {
    let lines = match entries_of(at) {
        Ok(lines) => lines,
        Err(error) => {
            tracing::error!(dir = %dir_of(at).display(), %error, "what is mounted cannot be seen");
            return Remains::Something;
        }
    };
    let mut remains = Remains::Nothing;
    for entry in lines {
        match unmount(&entry, Detach::Lazily) {
            Ok(()) | Err(UnmountError::NotMounted(_)) => {}
            Err(error) => {
                let dir = entry.dir.display();
                tracing::error!(%dir, %error, "a mount could not be taken away");
                remains = Remains::Something;
            }
        }
    }
    remains
}

/// The lines of the mount table that show the mount, in the namespace of this process.
fn entries_of(at: &MountedAt) -> io::Result<Vec<MountEntry>> {
    let all = table::mounts()?;
    // One that died before it could say what number its mount got has none.
    let is_there = |entry: &MountEntry| match &at.device[..] {
        "" => entry.is_by_kernel() && entry.dir == dir_of(at),
        device => entry.device == device,
    };
    let is_it = |entry: &MountEntry| entry.shows_ours() && is_there(entry) && entry.name == at.name;
    Ok(all.into_iter().filter(is_it).collect())
}
