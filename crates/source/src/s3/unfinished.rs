//! Uploads under way, written down where a later process finds them: a store keeps the parts of an upload that
//! nobody ends, shows them to nobody and charges for them.
//!
//! One file for each upload, locked as long as its process lives. One that can be locked is of a process that was
//! killed, and its upload nobody's.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dfs_model::CanonicalUrl;
use serde::{Deserialize, Serialize};

/// Of such a file's name.
const EXTENSION: &str = "upload";

/// Of one that is being written.
const DRAFT: &str = "upload-draft";

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
    /// Writes it down in `dir`. Blocks.
    pub fn of(dir: &Path, begun: &Begun) -> io::Result<Self> {
        let suffix = format!(".{DRAFT}");
        let mut file = tempfile::Builder::new().suffix(&suffix).tempfile_in(dir)?;
        file.as_file().try_lock()?;
        file.write_all(&serde_json::to_vec(begun)?)?;
        let path = file.path().with_extension(EXTENSION);
        let locked = file.persist(&path).map_err(|error| error.error)?;
        Ok(Self { path, _locked: locked })
    }

    /// The upload is over. Blocks.
    pub fn settle(self) {
        // It may have been removed by somebody else, which is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// What killed processes left in `dir`; what they left there that says nothing is removed. Blocks.
pub(super) fn left_in(dir: &Path) -> io::Result<Vec<(Begun, Note)>> {
    let mut left = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == EXTENSION || end == DRAFT) {
            // What cannot be opened or locked says nothing of the others.
            left.extend(open(&path).and_then(|file| taken(path, file)).ok().flatten());
        }
    }
    Ok(left)
}

/// Some file systems lock only what is open for writing.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// One of them; `None` where a process lives that wrote it, where that is over by now, or it says nothing.
fn taken(path: PathBuf, file: File) -> io::Result<Option<(Begun, Note)>> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(None),
        locked => locked?,
    }
    if file.metadata()?.nlink() == 0 {
        return Ok(None);
    }
    let mut text = Vec::new();
    (&file).take(MAX_BYTES).read_to_end(&mut text)?;
    let is_whole = path.extension().is_some_and(|end| end == EXTENSION);
    let begun = serde_json::from_slice(&text).ok().filter(|_| is_whole);
    let note = Note { path, _locked: file };
    match begun {
        Some(begun) => Ok(Some((begun, note))),
        None => {
            note.settle();
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(id: &str) -> Begun {
        let url = CanonicalUrl::parse("s3://lab/a%20b?endpoint=http://h").unwrap();
        Begun { url, id: id.to_owned() }
    }

    #[test]
    fn what_is_under_way_is_nobody_elses_until_its_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
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
    }

    #[test]
    fn what_says_nothing_is_removed_and_hides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(Note::of(dir.path(), &begun("1")).unwrap());
        fs::write(dir.path().join("torn.upload"), b"torn").unwrap();
        fs::write(dir.path().join("killed.upload-draft"), b"{}").unwrap();
        // Nobody can open it as a file.
        fs::create_dir(dir.path().join("0.upload")).unwrap();
        // Of others.
        fs::write(dir.path().join("seen"), b"mine").unwrap();
        let left = left_in(dir.path()).unwrap();
        assert_eq!(left.iter().map(|(begun, _)| &*begun.id).collect::<Vec<_>>(), ["1"]);
        left.into_iter().for_each(|(_, note)| note.settle());
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["0.upload", "seen"]);
    }

    #[test]
    fn what_is_over_before_it_could_be_locked_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let note = Note::of(dir.path(), &begun("1")).unwrap();
        let path = note.path.clone();
        let file = open(&path).unwrap();
        note.settle();
        assert!(taken(path, file).unwrap().is_none());
    }
}
