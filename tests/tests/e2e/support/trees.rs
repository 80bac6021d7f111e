//! Directories to serve, and the comparison of one directory with another.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Bytes that repeat nowhere near each other and differ from seed to seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes `bytes` to `path`, with the directories on the way.
pub fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A directory of every size that is laid out in its own way, names that need escaping included; gives its bytes.
pub fn varied(root: &Path) -> u64 {
    let mut total = 0;
    let mut add = |name: &str, length: usize| {
        put(&root.join(name), &noise(total + name.len() as u64, length));
        total += length as u64;
    };
    add("empty", 0);
    add("one", 1);
    add("group", 65_536);
    add("group and one", 65_537);
    add("packed/1 MiB", 1 << 20);
    add("shared/above.bin", (1 << 20) + 1);
    add("shared/four.bin", 4_000_000);
    add("own/large.bin", (9 << 20) + 123);
    add("names/with space & ampersand", 300);
    add("names/100% <plain>", 301);
    add("names/ünïcödé", 302);
    add("names/q?x#y;z", 303);
    for number in 0..40 {
        add(&format!("many/{}/{number:03}", number % 3), 1_000 + number * 977);
    }
    total
}

/// What one entry of a tree is; bytes by their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A directory.
    Directory,
    /// A file: its length and the digest of its bytes.
    File(u64, blake3::Hash),
    /// A symbolic link and what it holds.
    Link(PathBuf),
    /// Anything else.
    Other,
}

impl Found {
    /// Whether it is one with bytes.
    pub fn is_file(&self) -> bool {
        self.length().is_some()
    }

    /// Bytes in it, of a file.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::File(length, _) => Some(*length),
            _ => None,
        }
    }
}

/// Everything below `root`, by relative path; every byte is read.
pub fn walk(root: &Path) -> BTreeMap<PathBuf, Found> {
    let mut found = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        let listed = fs::read_dir(root.join(&dir));
        for entry in listed.unwrap_or_else(|error| panic!("cannot list {dir:?}: {error}")) {
            let path = dir.join(entry.unwrap().file_name());
            let full = root.join(&path);
            let kind = fs::symlink_metadata(&full).unwrap().file_type();
            let what = if kind.is_dir() {
                left.push(path.clone());
                Found::Directory
            } else if kind.is_symlink() {
                Found::Link(fs::read_link(&full).unwrap())
            } else if kind.is_file() {
                let bytes = fs::read(&full);
                let bytes = bytes.unwrap_or_else(|error| panic!("cannot read {path:?}: {error}"));
                Found::File(bytes.len() as u64, blake3::hash(&bytes))
            } else {
                Found::Other
            };
            found.insert(path, what);
        }
    }
    found
}

/// Fails unless both trees hold the same names with the same bytes.
pub fn assert_same(shown: &Path, source: &Path) {
    let (shown_tree, source_tree) = (walk(shown), walk(source));
    for (path, what) in &source_tree {
        assert_eq!(shown_tree.get(path), Some(what), "{} in {}", path.display(), shown.display());
    }
    let surplus: Vec<_> =
        shown_tree.keys().filter(|path| !source_tree.contains_key(*path)).collect();
    assert!(surplus.is_empty(), "only in {}: {surplus:?}", shown.display());
}

/// Fails unless every entry has the same permissions and time of change in both trees.
pub fn assert_same_attributes(shown: &Path, source: &Path) {
    for path in walk(source).keys() {
        let of = |root: &Path| {
            let meta = fs::symlink_metadata(root.join(path)).unwrap();
            // The permissions of a link mean nothing.
            let mode = if meta.is_symlink() { 0 } else { meta.permissions().mode() };
            (mode, meta.uid(), meta.gid(), meta.mtime(), meta.nlink().min(2))
        };
        let (mode, uid, gid, mtime, _) = of(shown);
        let (wanted_mode, wanted_uid, wanted_gid, wanted_mtime, _) = of(source);
        let wanted = (wanted_mode, wanted_uid, wanted_gid, wanted_mtime);
        assert_eq!((mode, uid, gid, mtime), wanted, "{}", path.display());
    }
}

/// A tree with everything that only a file system or an archive can tell: links, modes, programs.
pub fn rich(root: &Path) {
    put(&root.join("bin/true"), &fs::read("/bin/true").unwrap());
    put(&root.join("bin/hello"), b"#!/bin/sh\necho hello from $(basename \"$0\") $1\n");
    put(&root.join("data/a.bin"), &noise(7, 2_500_000));
    put(&root.join("data/private"), b"for the owner only\n");
    put(&root.join("data/empty"), b"");
    let mode = |name: &str, mode: u32| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("bin/true", 0o755);
    mode("bin/hello", 0o755);
    mode("data/private", 0o600);
    symlink("../data/a.bin", root.join("bin/link-to-data")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    symlink("data", root.join("link-to-directory")).unwrap();
    fs::hard_link(root.join("data/a.bin"), root.join("data/a-again.bin")).unwrap();
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
