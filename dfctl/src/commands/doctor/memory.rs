//! Memory that caches take whose agents never came back: without them it is taken until the machine ends.

use std::io;
use std::path::Path;

use dfs_fuse::holder;
use dfs_model::ByteSize;
use dfs_peer::store::{InMemory, in_memory};

use super::Finding;
use super::mending::{Step, closed_store};
use crate::codes;
use crate::output::{printable, quoted_path};

/// Whether some mount waits for its agent: what it shows may lie there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Some,
    None,
}

/// Looks at what the cache of `data_dir` keeps in shared memory, and those of this user whose data directories are gone. Blocks.
pub(super) fn look(data_dir: Option<&Path>, waiting: Waiting) -> Vec<Finding> {
    let own = data_dir.and_then(|dir| dir.canonicalize().ok());
    let is_affair = |place: &InMemory| {
        own.as_ref() == Some(&place.data_dir) || place.data_dir.symlink_metadata().is_err()
    };
    let is_left =
        |place: &InMemory| is_nobodys(&place.data_dir).is_ok_and(|closed| closed.is_some());
    let places = in_memory().into_iter().filter(|place| is_affair(place) && is_left(place));
    places.map(|place| found(place, waiting)).collect()
}

/// Keeps the store of a data directory closed, where nobody works with it nor is on the way back to it.
pub(super) fn is_nobodys(data_dir: &Path) -> io::Result<Option<Closed>> {
    match closed_store(data_dir) {
        _ if holder::is_there(data_dir) => Ok(None),
        Ok(lock) => Ok(lock.map(|lock| Closed { _lock: Some(lock) })),
        // What lies in memory is of no use without it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Closed { _lock: None })),
        Err(error) => Err(error),
    }
}

/// A store that nobody opens.
pub(super) struct Closed {
    _lock: Option<std::fs::File>,
}

fn found(place: InMemory, waiting: Waiting) -> Finding {
    let InMemory { dir, data_dir, bytes } = place;
    let text = format!(
        "{} of memory are taken by the cache of {}, with which nobody works",
        ByteSize(bytes),
        printable(&data_dir.display().to_string())
    );
    let finding = Finding::warn("memory", &codes::LEFT_MEMORY, text);
    match waiting {
        Waiting::None => {
            finding.hint("dfctl doctor --fix").mended_by(vec![Step::Memory(dir, data_dir)])
        }
        // It may be this one's.
        Waiting::Some => {
            finding.hint(format!("dfs-fuse --data-dir {} goes on with it", quoted_path(&data_dir)))
        }
    }
}

/// Gives the memory back, if it is still nobody's.
pub(super) fn give_back(dir: &Path, data_dir: &Path) -> io::Result<()> {
    let closed = is_nobodys(data_dir)?;
    let _closed = closed.ok_or_else(|| io::Error::other("an agent works with it"))?;
    std::fs::remove_dir_all(dir)
}
