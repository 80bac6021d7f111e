//! Mounts that the kernel serves alone: written down on disk before they are made, and taken up by the next agent before
//! it evicts anything. No credentials are among what is written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dfs_peer::engine::Task;
use dfs_peer::error_chain;
use dfs_peer::opener::OpenArtifact;
use dfs_proto::convert;
use dfs_proto::node::{KeptMount, MountedAt, ShownMount};
use dfs_service::private_file::{self, Outlives};

use super::mounts::MountTableError;
use super::{Agent, kept};
use crate::holder::RECORD_FORMAT;
use crate::mount::{Blobs, MountEntry, mounts};

/// Longest record that is read.
const RECORD_BYTES: u64 = 256 << 10;

/// Records that are read at a start.
const RECORDS: usize = 4096;

/// What an agent has mounted so, a file each.
pub(super) struct Records(PathBuf);

impl Records {
    /// Those below an agent's data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("mounts"))
    }

    /// Writes down what is mounted `at` a place.
    pub fn note(&self, at: &MountedAt, shown: &ShownMount) -> io::Result<()> {
        let record = KeptMount {
            format: RECORD_FORMAT,
            served: true,
            at: Some(at.clone()),
            shown: Some(kept::without_credentials(shown)),
            ..KeptMount::default()
        };
        fs::create_dir_all(&self.0)?;
        let name = blake3::hash(&at.dir).to_hex();
        let bytes = convert::encode_kept_mount(&record);
        private_file::replace(&self.0.join(&name[..32]), &bytes, Outlives::Process)
    }

    /// All of them; what cannot be read is left where it is.
    fn all(&self) -> Vec<(PathBuf, KeptMount)> {
        let Ok(files) = fs::read_dir(&self.0) else { return Vec::new() };
        let paths = files.flatten().take(RECORDS).map(|file| file.path());
        let read = paths.filter_map(|path| {
            let bytes = private_file::read(&path, RECORD_BYTES).ok().flatten()?;
            let record = convert::decode_kept_mount(&bytes).ok()?;
            (record.format == RECORD_FORMAT).then_some((path, record))
        });
        read.collect()
    }
}

/// The files that the kernel reads of a tree.
pub(super) fn blobs(opened: &OpenArtifact) -> Result<Blobs, MountTableError> {
    let index = opened.index.as_ref().ok_or(MountTableError::NoTree)?;
    let file = |task: &Task| {
        let path = task.stored().content_path();
        // The kernel opens them by name, from wherever.
        path.canonicalize().unwrap_or(path)
    };
    let spaces = opened.tasks.iter().map(file).collect();
    Ok(Blobs { index: file(&index.task), spaces })
}

impl Agent {
    /// Takes up what the kernel serves since an earlier agent.
    pub(super) async fn adopt_mounts(&self) {
        let records = Records::of(&self.facts().data_dir);
        let looking = tokio::task::spawn_blocking(move || {
            let table = mounts().unwrap_or_default();
            let found = records.all().into_iter().filter_map(|(path, record)| {
                let at = record.at.clone().unwrap_or_default();
                let Some(entry) = line_of(&table, &at) else {
                    // Not mounted any more, or it never came to that.
                    let _ = fs::remove_file(path);
                    return None;
                };
                Some((entry, record))
            });
            found.collect::<Vec<_>>()
        });
        for (entry, record) in looking.await.unwrap_or_default() {
            let dir = entry.dir.clone();
            let adopted = match self.open_again(&record).await {
                Ok(opened) => {
                    let shown = record.shown.unwrap_or_default();
                    let adopting = self.mounts().adopt(entry, &shown, opened).await;
                    adopting.map(drop).map_err(|error| error_chain(&error))
                }
                Err(error) => Err(error_chain(&error)),
            };
            if let Err(error) = adopted {
                // Its readers need nobody; what they have open stays theirs.
                tracing::error!(dir = %dir.display(), error, "a mount of the kernel's is not known");
            }
        }
    }
}

/// The line of a mount in the table: by its device where that is known, else by its directory.
fn line_of(table: &[MountEntry], at: &MountedAt) -> Option<MountEntry> {
    let is_it = |entry: &&MountEntry| {
        let same = match &*at.device {
            "" => entry.dir.as_os_str().as_encoded_bytes() == &at.dir[..],
            device => entry.device == device,
        };
        same && entry.shows_ours() && !entry.is_ours() && entry.name == at.name
    };
    table.iter().find(is_it).cloned()
}
