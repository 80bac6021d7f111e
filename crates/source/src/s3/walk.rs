//! Keys in their order become entries: names are checked, and what no file system can hold is told
//! as such. Pure.
//!
//! A store may hold a key and others below it as if it were a directory. There the directory wins:
//! a file is held back until no key of its own directory can follow.

use super::page::ListedObject;
use super::time::http_date;
use crate::entry::escaped;
use crate::{Entry, EntryKind, check_path};

use dfs_model::Validator;

/// Why a key has no place in a tree.
const NOT_A_PATH: &str = "its key is no path: an empty, '.' or '..' element, a NUL, or too long";
const SHADOWED: &str = "a directory has the same name";
const TOO_DEEP: &str = "it lies below too many directories";

/// Turns one ordered run of keys into entries.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    /// Files whose name every later key begins with so far, each one a beginning of the next.
    held: Vec<Entry>,
}

impl Sorter {
    /// Takes the next object, whose path is `path` below the listed prefix (a marker's ends in a
    /// slash); entries that are certain go to `ready`.
    pub fn take(
        &mut self,
        path: &[u8],
        object: ListedObject,
        depth: usize,
        ready: &mut Vec<Entry>,
    ) {
        self.release(path, ready);
        let (name, marker) = match path.strip_suffix(b"/") {
            Some(name) => (name, true),
            None => (path, false),
        };
        if check_path(name).is_err() {
            return ready.push(unusable(name, NOT_A_PATH));
        }
        if name.iter().filter(|byte| **byte == b'/').count() >= depth {
            return ready.push(unusable(name, TOO_DEEP));
        }
        self.shadow(path, ready);
        let kind = if marker { EntryKind::Directory } else { EntryKind::File };
        // The path was checked above.
        let Ok(entry) = Entry::new(name.to_vec(), kind) else { return };
        let entry = Entry { modified: object.modified, ..entry };
        if marker {
            return ready.push(entry);
        }
        let validator = Validator {
            etag: object.etag.clone(),
            modified: object.modified.and_then(http_date),
            version: None,
            length: object.length,
        };
        // Without a tag nothing says that two answers are one version: the object is asked itself.
        let validator = object.etag.is_some().then_some(validator);
        self.held.push(Entry { length: object.length, validator, ..entry });
    }

    /// Nothing follows in this run; files of which `until`, where the run ends, may still begin a
    /// directory come back.
    pub fn finish(&mut self, until: Option<&[u8]>, ready: &mut Vec<Entry>) -> Vec<Entry> {
        match until {
            Some(until) => {
                self.release(until, ready);
                self.shadow(until, ready);
                std::mem::take(&mut self.held)
            }
            None => {
                ready.append(&mut self.held);
                Vec::new()
            }
        }
    }

    /// Lets go of files that `path` does not begin with: no later key does.
    fn release(&mut self, path: &[u8], ready: &mut Vec<Entry>) {
        let kept = self.held.iter().take_while(|file| path.starts_with(&file.path)).count();
        ready.extend(self.held.drain(kept..));
    }

    /// A file by the name of a directory above `path` gives way to it.
    fn shadow(&mut self, path: &[u8], ready: &mut Vec<Entry>) {
        let is_above = |file: &Entry| path.get(file.path.len()) == Some(&b'/');
        if let Some(at) = self.held.iter().position(is_above) {
            ready.push(shadowed(self.held.remove(at)));
        }
    }
}

/// A file that gives way to a directory.
pub(super) fn shadowed(file: Entry) -> Entry {
    Entry { kind: EntryKind::Unusable(SHADOWED), ..file }
}

fn unusable(name: &[u8], why: &'static str) -> Entry {
    Entry {
        path: escaped(name),
        kind: EntryKind::Unusable(why),
        length: None,
        modified: None,
        validator: None,
        attributes: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn sorted(keys: &[Vec<u8>], until: Option<&[u8]>) -> (Vec<Entry>, Vec<Entry>) {
        let (mut sorter, mut ready) = (Sorter::default(), Vec::new());
        for key in keys {
            let etag = Some("\"e\"".to_owned());
            let object = ListedObject { key: key.clone(), etag, length: Some(1), modified: None };
            sorter.take(key, object, 64, &mut ready);
        }
        let open = sorter.finish(until, &mut ready);
        (ready, open)
    }

    fn names(entries: &[Entry]) -> Vec<String> {
        let shown = |entry: &Entry| {
            let mark = match entry.kind {
                EntryKind::Directory => "/",
                EntryKind::Unusable(_) => "!",
                _ => "",
            };
            format!("{}{mark}", entry.path.escape_ascii())
        };
        let mut names: Vec<_> = entries.iter().map(shown).collect();
        names.sort();
        names
    }

    fn keys(keys: &[&str]) -> Vec<Vec<u8>> {
        keys.iter().map(|key| key.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_directory_wins_over_a_file_of_its_name() {
        let (ready, open) = sorted(&keys(&["a", "a-b", "a/", "a/b", "a0", "b", "b//c"]), None);
        assert_eq!(names(&ready), ["a!", "a-b", "a/", "a/b", "a0", "b", "b%2F%2Fc!"]);
        assert_eq!(open, []);
    }

    #[test]
    fn what_may_still_be_a_directory_beyond_the_run_comes_back() {
        let (ready, open) = sorted(&keys(&["a", "b"]), Some(b"b-x/"));
        assert_eq!((names(&ready), names(&open)), (vec!["a".into()], vec!["b".into()]));
        let (ready, open) = sorted(&keys(&["b"]), Some(b"b/"));
        assert_eq!((names(&ready), open.len()), (vec!["b!".into()], 0));
    }

    proptest! {
        #[test]
        fn every_key_is_told_once_and_no_name_is_file_and_directory(
            found in proptest::collection::btree_set("[ab/.\u{1}-]{1,6}", 0..30),
        ) {
            let found: BTreeSet<Vec<u8>> = found.into_iter().map(String::into_bytes).collect();
            let (ready, open) = sorted(&found.iter().cloned().collect::<Vec<_>>(), None);
            prop_assert!(open.is_empty());
            prop_assert_eq!(ready.len(), found.len());
            let usable = |entry: &&Entry| !matches!(entry.kind, EntryKind::Unusable(_));
            let files: BTreeSet<&[u8]> = ready.iter().filter(usable)
                .filter(|entry| entry.kind == EntryKind::File).map(|entry| &entry.path[..]).collect();
            for entry in &ready {
                prop_assert!(check_path(&entry.path).is_ok());
            }
            for entry in ready.iter().filter(usable) {
                for (at, byte) in entry.path.iter().enumerate() {
                    prop_assert!(*byte != b'/' || !files.contains(&entry.path[..at]));
                }
                prop_assert!(entry.kind == EntryKind::File || !files.contains(&entry.path[..]));
            }
        }
    }
}
