//! A real directory into a tree and a space, and what a tree looks like from outside.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dfs_artifact::erofs::{BlockSize, Image, ImageOptions, Kind, Space, WrittenImage, write_image};
use dfs_artifact::tree::{
    Content, DeviceNumber, FileData, Location, Meta, Mtime, TreeBuilder, Xattrs,
};

/// An image with the file its content lies in.
pub struct Imported {
    pub written: WrittenImage,
    pub image: PathBuf,
    pub devices: Vec<PathBuf>,
}

/// Lays the files of `dir` into one space and writes image and space into `into`.
pub fn import(dir: &Path, into: &Path, block_size: BlockSize) -> Imported {
    let content = into.join("content");
    let mut space = File::create(&content).unwrap();
    let mut tree = TreeBuilder::new();
    let mut links: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut end = 0u64;
    for path in std::iter::once(PathBuf::new()).chain(paths(dir)) {
        let real = dir.join(&path);
        let name = path.as_os_str().as_bytes();
        let stat = real.symlink_metadata().unwrap();
        if !stat.is_dir() && stat.nlink() > 1 {
            if let Some(first) = links.get(&stat.ino()) {
                tree.link(name, first).unwrap();
                continue;
            }
            links.insert(stat.ino(), name.to_vec());
        }
        let mut node = content_of(&real, &stat);
        if let Content::File(data) = &mut node {
            data.location.offset = end.next_multiple_of(block_size.bytes());
            std::io::Seek::seek(&mut space, std::io::SeekFrom::Start(data.location.offset))
                .unwrap();
            std::io::copy(&mut File::open(&real).unwrap(), &mut space).unwrap();
            end = data.location.offset + data.length;
        }
        tree.add(name, meta_of(&real, &stat), node).unwrap();
    }
    finish(&tree, into, block_size, &[(content, end)])
}

/// Writes the image of a tree over content files.
pub fn finish(
    tree: &TreeBuilder,
    into: &Path,
    block_size: BlockSize,
    spaces: &[(PathBuf, u64)],
) -> Imported {
    let space = |(_, length): &(PathBuf, u64)| Space { length: *length, tag: [b'x'; 64] };
    let options = ImageOptions {
        block_size,
        build_time: Mtime { secs: 1_700_000_000, nanos: 5 },
        spaces: spaces.iter().map(space).collect(),
    };
    let written = write_image(tree, &options).unwrap();
    for (path, length) in spaces {
        // The kernel refuses to read a block that a device file ends in.
        let device = File::options().write(true).open(path).unwrap();
        device.set_len(length.next_multiple_of(block_size.bytes())).unwrap();
    }
    let image = into.join("image");
    fs::write(&image, &written.bytes).unwrap();
    let devices = spaces.iter().map(|(path, _)| path.clone()).collect();
    Imported { written, image, devices }
}

fn paths(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(dir.join(&at)).unwrap() {
            let entry = entry.unwrap();
            let path = at.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

fn meta_of(path: &Path, stat: &Metadata) -> Meta {
    Meta {
        mode: (stat.mode() & 0o7777) as u16,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime: Mtime { secs: stat.mtime(), nanos: stat.mtime_nsec() as u32 },
        xattrs: xattrs_of(path),
    }
}

fn xattrs_of(path: &Path) -> Xattrs {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let key = CString::new(name).unwrap();
            let length = rustix::fs::lgetxattr(path, key.as_c_str(), &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

fn content_of(path: &Path, stat: &Metadata) -> Content {
    let kind = stat.file_type();
    let number = || DeviceNumber {
        major: rustix::fs::major(stat.rdev()),
        minor: rustix::fs::minor(stat.rdev()),
    };
    if kind.is_dir() {
        Content::Directory
    } else if kind.is_symlink() {
        Content::Symlink(fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec())
    } else if kind.is_char_device() {
        Content::CharDevice(number())
    } else if kind.is_block_device() {
        Content::BlockDevice(number())
    } else if kind.is_fifo() {
        Content::Fifo
    } else if kind.is_socket() {
        Content::Socket
    } else {
        let location = Location { space: 0, offset: 0 };
        Content::File(FileData { length: stat.len(), location, digest: None })
    }
}

/// Everything that can be told of one entry, its name apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub meta: Meta,
    pub nlink: u64,
    pub what: Content,
    pub bytes: Option<[u8; 32]>,
}

/// A directory as the system calls show it; the bytes of files by their digest.
pub fn seen_by_kernel(dir: &Path) -> BTreeMap<PathBuf, Seen> {
    let root = std::iter::once(PathBuf::new());
    let see = |path: PathBuf| {
        let real = dir.join(&path);
        let stat = real.symlink_metadata().unwrap();
        let bytes = stat.is_file().then(|| *blake3::hash(&fs::read(&real).unwrap()).as_bytes());
        let (meta, what) = (meta_of(&real, &stat), content_of(&real, &stat));
        (path, Seen { meta, nlink: stat.nlink(), what, bytes })
    };
    root.chain(paths(dir)).map(see).collect()
}

/// An image as the reader shows it, the bytes taken from the content files.
pub fn seen_by_reader<D: AsRef<[u8]> + Send + Sync + 'static>(
    image: &Image<D>,
    devices: &[PathBuf],
) -> BTreeMap<PathBuf, Seen> {
    let contents: Vec<Vec<u8>> = devices.iter().map(|path| fs::read(path).unwrap()).collect();
    let mut nodes = vec![(PathBuf::new(), image.root())];
    for visit in image.walk() {
        let visit = visit.unwrap();
        nodes.push((PathBuf::from(std::ffi::OsStr::from_bytes(&visit.path)), visit.nid));
    }
    nodes.into_iter().map(|(path, nid)| (path, seen_node(image, nid, &contents))).collect()
}

fn seen_node<D: AsRef<[u8]> + Send + Sync + 'static>(
    image: &Image<D>,
    nid: u64,
    contents: &[Vec<u8>],
) -> Seen {
    let attr = image.attr(nid).unwrap();
    let meta = Meta {
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        mtime: attr.mtime,
        xattrs: image.xattrs(nid).unwrap(),
    };
    for (name, value) in &meta.xattrs {
        assert_eq!(image.xattr(nid, name).unwrap().as_ref(), Some(value));
    }
    let mut bytes = None;
    let what = match attr.kind {
        Kind::Directory => Content::Directory,
        Kind::Symlink => Content::Symlink(image.read_link(nid).unwrap()),
        Kind::CharDevice => Content::CharDevice(attr.device.unwrap()),
        Kind::BlockDevice => Content::BlockDevice(attr.device.unwrap()),
        Kind::Fifo => Content::Fifo,
        Kind::Socket => Content::Socket,
        Kind::File => {
            let mut hasher = blake3::Hasher::new();
            let mut at = 0;
            while let Some(extent) = image.extent(nid, at).unwrap() {
                at += extent.length;
                let Some(space) = extent.space else {
                    hasher.update(&vec![0; extent.length as usize]);
                    continue;
                };
                let start = extent.offset as usize;
                let content = &contents[usize::from(space)];
                hasher.update(&content[start..start + extent.length as usize]);
            }
            assert_eq!(at, attr.size);
            bytes = Some(*hasher.finalize().as_bytes());
            let location = Location { space: 0, offset: 0 };
            Content::File(FileData { length: attr.size, location, digest: None })
        }
    };
    Seen { meta, nlink: u64::from(attr.nlink), what, bytes }
}

/// The two agree in every entry; the first difference is named.
pub fn assert_same(left: &BTreeMap<PathBuf, Seen>, right: &BTreeMap<PathBuf, Seen>) {
    assert!(left.keys().eq(right.keys()), "the names differ");
    for (path, seen) in left {
        assert_eq!(Some(seen), right.get(path), "{}", path.display());
    }
}
