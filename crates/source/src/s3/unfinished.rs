//! Uploads under way, written down where a later process finds them: a store keeps the parts of an upload that
//! nobody ends, shows them to nobody and charges for them.
//!
//! One file for each upload, locked as long as its process lives. One that can be locked is of a process that was
//! killed, and its upload nobody's.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use dfs_model::CanonicalUrl;
use serde::{Deserialize, Serialize};

/// Of such a file's name.
const EXTENSION: &str = "upload";

/// Longest file of the kind that is read.
const MAX_BYTES: u64 = 64 * 1024;

/// An upload as it is written down.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// Of which object.
    pub url: CanonicalUrl,
    /// Its name at the store.
    pub id: String,
}

/// What is written down of an upload, kept from others until it is dropped.
pub(super) struct Note {
    path: PathBuf,
    _locked: File,
}

impl Note {
    /// Writes it down in `dir`.
    pub fn of(dir: &Path, begun: &Begun) -> io::Result<Self> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.as_file().lock()?;
        file.write_all(&serde_json::to_vec(begun)?)?;
        let path = file.path().with_extension(EXTENSION);
        let locked = file.persist(&path).map_err(|error| error.error)?;
        Ok(Self { path, _locked: locked })
    }

    /// The upload is over.
    pub fn settle(self) {
        // It may have been removed by somebody else, which is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// What killed processes left in `dir`.
pub(super) fn left_in(dir: &Path) -> io::Result<Vec<(Begun, Note)>> {
    let mut left = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            left.extend(taken(path)?);
        }
    }
    Ok(left)
}

/// One of them; `None` where a process lives that wrote it, or it says nothing.
fn taken(path: PathBuf) -> io::Result<Option<(Begun, Note)>> {
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(None),
        locked => locked?,
    }
    let mut text = Vec::new();
    (&file).take(MAX_BYTES).read_to_end(&mut text)?;
    let begun = serde_json::from_slice(&text).ok();
    Ok(begun.map(|begun| (begun, Note { path, _locked: file })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_nobody_elses_until_its_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let begun = |id: &str| Begun {
            url: CanonicalUrl::parse("s3://lab/a%20b?endpoint=http://h").unwrap(),
            id: id.to_owned(),
        };
        let (one, other) = (
            Note::of(dir.path(), &begun("1")).unwrap(),
            Note::of(dir.path(), &begun("2")).unwrap(),
        );
        assert!(left_in(dir.path()).unwrap().is_empty());
        drop(one);
        let left = left_in(dir.path()).unwrap();
        assert_eq!(left.iter().map(|(begun, _)| &begun.id).collect::<Vec<_>>(), ["1"]);
        left.into_iter().for_each(|(_, note)| note.settle());
        other.settle();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join("x.upload"), b"torn").unwrap();
        assert!(left_in(dir.path()).unwrap().is_empty());
    }
}
