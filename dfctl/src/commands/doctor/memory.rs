//! Memory that caches take whose agents never came back: without them it is taken until the machine ends.

use std::fs::File;
use std::io;
use std::path::Path;

use dfs_fuse::holder;
use dfs_model::ByteSize;
use dfs_peer::store::{InMemory, closed_memory, in_memory};

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
    let is_left = |place: &InMemory| {
        is_nobodys(&place.dir, &place.data_dir).is_ok_and(|closed| closed.is_some())
    };
    let places = in_memory().into_iter().filter(|place| is_affair(place) && is_left(place));
    places.map(|place| found(place, waiting)).collect()
}

/// Keeps the store of a data directory that lies at a place in memory closed, where nobody works with it nor is on the way
/// back to it. The data directory need not be one that is seen from here: that of a container has a name of its own.
fn is_nobodys(dir: &Path, data_dir: &Path) -> io::Result<Option<Closed>> {
    let Some(memory) = closed_memory(dir)? else { return Ok(None) };
    let closed = |lock| Closed { _memory: memory, _lock: lock };
    match closed_store(data_dir) {
        _ if holder::is_there(data_dir) => Ok(None),
        Ok(lock) => Ok(lock.map(|lock| closed(Some(lock)))),
        // What lies in memory is of no use without it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(closed(None))),
        Err(error) => Err(error),
    }
}

/// A store that nobody opens.
struct Closed {
    _memory: File,
    _lock: Option<File>,
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
    let closed = is_nobodys(dir, data_dir)?;
    let _closed = closed.ok_or_else(|| io::Error::other("an agent works with it"))?;
    std::fs::remove_dir_all(dir)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn what_an_agent_in_a_container_works_with_is_not_nobodys_although_its_directory_is_not_seen() {
        let dir = tempfile::tempdir().unwrap();
        let unseen = dir.path().join("of-a-container");
        assert!(is_nobodys(dir.path(), &unseen).unwrap().is_some());
        let agents = File::open(dir.path()).unwrap();
        flock(&agents, FlockOperation::NonBlockingLockShared).unwrap();
        assert!(is_nobodys(dir.path(), &unseen).unwrap().is_none());
        assert!(give_back(dir.path(), &unseen).is_err() && dir.path().exists());
        drop(agents);
        give_back(dir.path(), &unseen).unwrap();
        assert!(!dir.path().exists());
    }
}
