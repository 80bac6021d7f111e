//! Everything that a program can see of a tree, entry by entry, and the comparison of two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, RawDir, SeekFrom};
use rustix::io::Errno;

/// What is seen of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    kind: FileType,
    mode: u32,
    owner: (u32, u32),
    device: u64,
    modified: (i64, i64),
    /// Nothing of a directory whose file system does not count.
    names: Option<u64>,
    /// The first path that leads to the same inode.
    first: PathBuf,
    target: Option<PathBuf>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
    content: Option<Content>,
}

/// What is seen of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub length: u64,
    pub digest: blake3::Hash,
    /// Where it has bytes, as lseek(2) tells.
    pub parts: Vec<(u64, u64)>,
    /// Whether less is stored than it is long.
    pub is_sparse: bool,
}

impl Seen {
    /// What is seen of a regular file.
    pub fn content(&self) -> Option<&Content> {
        self.content.as_ref()
    }
}

/// How a directory lists an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: OsString,
    pub kind: FileType,
    pub inode: u64,
    /// Where a listing goes on behind it.
    pub next: u64,
}

/// The entries of a directory from a place on, `.` and `..` among them.
pub fn listing(dir: &File, from: u64) -> Vec<Listed> {
    rustix::fs::seek(dir, SeekFrom::Start(from)).unwrap();
    let mut room = [MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(dir, &mut room);
    let mut listed = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        listed.push(Listed {
            name: OsStr::from_bytes(entry.file_name().to_bytes()).to_owned(),
            kind: entry.file_type(),
            inode: entry.ino(),
            next: entry.next_entry_cookie(),
        });
    }
    listed
}

/// Whether directories list the numbers of inodes that entries have themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inodes {
    /// They do.
    Listed,
    /// An overlay lists those of its layers.
    OfLayers,
}

/// Everything at and below `root`.
pub fn walk(root: &Path) -> BTreeMap<PathBuf, Seen> {
    walk_where(root, Inodes::Listed)
}

/// The same, where it is said what is listed.
pub fn walk_where(root: &Path, inodes: Inodes) -> BTreeMap<PathBuf, Seen> {
    let (mut paths, mut left) = (BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(path) = left.pop() {
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        if meta.is_dir() {
            let listed = listing(&File::open(&full).unwrap(), 0);
            for Listed { name, kind, inode, .. } in listed {
                if name == "." || name == ".." {
                    assert_eq!(kind, FileType::Directory, "{name:?} of {path:?}");
                    continue;
                }
                let below = fs::symlink_metadata(full.join(&name)).unwrap();
                let own = if inodes == Inodes::Listed { below.ino() } else { inode };
                let is = (FileType::from_raw_mode(below.mode()), own);
                assert_eq!((kind, inode), is, "{name:?} is listed in {path:?} as something else");
                left.push(path.join(name));
            }
        }
        assert!(paths.insert(path.clone(), meta).is_none(), "{path:?} is listed twice");
    }
    let mut first = BTreeMap::new();
    let seen = paths.iter().map(|(path, meta)| {
        let first = first.entry(meta.ino()).or_insert_with(|| path.clone()).clone();
        (path.clone(), seen(&root.join(path), meta, first))
    });
    seen.collect()
}

fn seen(full: &Path, meta: &Metadata, first: PathBuf) -> Seen {
    let kind = FileType::from_raw_mode(meta.mode());
    let is_link = kind == FileType::Symlink;
    let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    Seen {
        kind,
        // The permissions of a link mean nothing.
        mode: if is_link { 0 } else { meta.mode() & 0o7777 },
        owner: (meta.uid(), meta.gid()),
        device: if is_device { meta.rdev() } else { 0 },
        modified: (meta.mtime(), meta.mtime_nsec()),
        names: Some(meta.nlink()).filter(|names| !(meta.is_dir() && *names == 1)),
        first,
        target: is_link.then(|| fs::read_link(full).unwrap()),
        xattrs: xattrs(full),
        content: meta.is_file().then(|| content(full, meta)),
    }
}

fn xattrs(full: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let names = xattr::list(full).unwrap_or_else(|error| panic!("{full:?}: {error}"));
    names
        .map(|name| {
            let value = xattr::get(full, &name).unwrap();
            let value = value.unwrap_or_else(|| panic!("{name:?} is listed of {full:?} only"));
            (name, value)
        })
        .collect()
}

fn content(full: &Path, meta: &Metadata) -> Content {
    let bytes = fs::read(full).unwrap_or_else(|error| panic!("{full:?}: {error}"));
    assert_eq!(bytes.len() as u64, meta.len(), "{full:?} is as long as it says");
    Content {
        length: meta.len(),
        digest: blake3::hash(&bytes),
        parts: parts(&File::open(full).unwrap()),
        is_sparse: meta.blocks() < meta.len() / 512,
    }
}

/// Where a file has bytes: the beginnings and ends.
pub fn parts(file: &File) -> Vec<(u64, u64)> {
    let (mut parts, mut at) = (Vec::new(), 0);
    loop {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => {
                at = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap();
                parts.push((data, at));
            }
            Err(Errno::NXIO) => return parts,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A tree as who unpacks it dates it: a directory that an archive does not describe, and in which things are put and taken
/// away, has the time of that, or where it is the root the epoch. Such times, from `since` on, are those of `shown`.
pub fn but_for_dates_of_unpacking(
    unpacked: BTreeMap<PathBuf, Seen>,
    shown: &BTreeMap<PathBuf, Seen>,
    since: i64,
) -> BTreeMap<PathBuf, Seen> {
    let dated = |(path, mut seen): (PathBuf, Seen)| {
        let is_root = path.as_os_str().is_empty() && seen.modified == (0, 0);
        let is_of_unpacking = seen.modified.0 >= since || is_root;
        let other = shown.get(&path).filter(|other| other.kind == FileType::Directory);
        if let Some(other) = other.filter(|_| is_of_unpacking && seen.kind == FileType::Directory) {
            seen.modified = other.modified;
        }
        (path, seen)
    };
    unpacked.into_iter().map(dated).collect()
}

/// The same below the root, as if nothing had several names: an overlay has a root of its own, and breaks hard links.
pub fn each_alone(tree: BTreeMap<PathBuf, Seen>) -> BTreeMap<PathBuf, Seen> {
    let alone = |seen| Seen { names: None, first: PathBuf::new(), ..seen };
    let below = tree.into_iter().filter(|(path, _)| !path.as_os_str().is_empty());
    below.map(|(path, seen)| (path, alone(seen))).collect()
}

/// What is compared of two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holes {
    /// Also where files have holes.
    Same,
    /// Also where files have holes, but not how much is stored of them.
    Sought,
    /// Not where files have holes: what carried them does not say that.
    Unsaid,
}

/// Fails unless both trees have the same entries, which look the same.
#[track_caller]
pub fn assert_same(
    shown: &BTreeMap<PathBuf, Seen>,
    source: &BTreeMap<PathBuf, Seen>,
    holes: Holes,
) {
    let names = |tree: &BTreeMap<PathBuf, Seen>| tree.keys().cloned().collect::<BTreeSet<_>>();
    let (is, should) = (names(shown), names(source));
    assert_eq!(is, should);
    for (path, wanted) in source {
        let mut seen = shown[path].clone();
        seen.names = seen.names.and(wanted.names);
        let mut wanted = Seen { names: wanted.names.and(seen.names), ..wanted.clone() };
        for content in [&mut seen.content, &mut wanted.content].into_iter().flatten() {
            match holes {
                Holes::Same => {}
                Holes::Sought => content.is_sparse = false,
                Holes::Unsaid => (content.parts, content.is_sparse) = (Vec::new(), false),
            }
        }
        assert_eq!(seen, wanted, "{path:?}");
    }
}
