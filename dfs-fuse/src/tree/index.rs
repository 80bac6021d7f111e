//! The tree of an index: an EROFS metadata image.

use std::collections::HashMap;
use std::ops::ControlFlow;

use dfs_artifact::erofs::{self, FormatError, Image};
use dfs_artifact::tree::DeviceNumber;
use parking_lot::Mutex;

use super::{Attr, DirEntry, Extent, Kind, Timestamp, Totals, Tree, TreeError};

/// Entries taken from the image at a time while a directory is listed.
const PORTION: usize = 128;

/// A tree over an image in memory or a mapping of its file.
///
/// A mapped file must be one that is never cut short while it is mapped.
#[derive(Debug)]
pub struct IndexTree<D> {
    image: Image<D>,
    totals: Totals,
    /// How much is stored of files that may have many chunks: to count them takes a while.
    stored: Mutex<HashMap<u64, u64>>,
}

/// Files from this many bytes on may have many chunks.
const LONG: u64 = 16 << 20;

/// So many are remembered.
const REMEMBERED: usize = 1024;

impl<D: AsRef<[u8]> + Send + Sync + 'static> IndexTree<D> {
    /// The tree of `image`; `totals` as the index's facts say.
    pub fn new(image: Image<D>, totals: Totals) -> Self {
        Self { image, totals, stored: Mutex::default() }
    }

    fn stored(&self, nid: u64, size: u64) -> Result<u64, FormatError> {
        if size < LONG {
            return self.image.stored(nid);
        }
        if let Some(known) = self.stored.lock().get(&nid) {
            return Ok(*known);
        }
        let counted = self.image.stored(nid)?;
        let mut stored = self.stored.lock();
        if stored.len() >= REMEMBERED {
            stored.clear();
        }
        stored.insert(nid, counted);
        Ok(counted)
    }

    /// The image.
    pub fn image(&self) -> &Image<D> {
        &self.image
    }
}

impl<D: AsRef<[u8]> + Send + Sync + 'static> Tree for IndexTree<D> {
    fn root(&self) -> u64 {
        self.image.root()
    }

    fn attr(&self, nid: u64) -> Result<Attr, TreeError> {
        let attr = self.image.attr(nid).map_err(|error| refused(nid, error))?;
        Ok(Attr {
            ino: nid,
            kind: kind(attr.kind),
            permissions: attr.mode,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.device.map_or(0, encode_device),
            size: attr.size,
            stored: self.stored(nid, attr.size).map_err(|error| refused(nid, error))?,
            mtime: Timestamp { seconds: attr.mtime.secs, nanoseconds: attr.mtime.nanos },
        })
    }

    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<u64>, TreeError> {
        self.image.lookup(parent, name).map_err(|error| refused(parent, error))
    }

    fn read_dir(
        &self,
        nid: u64,
        mut cookie: u64,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        loop {
            let portion = self.image.read_dir(nid, cookie, PORTION);
            let portion = portion.map_err(|error| refused(nid, error))?;
            for entry in &portion {
                cookie = entry.cookie;
                let shown =
                    DirEntry { name: &entry.name, nid: entry.nid, kind: kind(entry.kind), cookie };
                if visit(shown).is_break() {
                    return Ok(());
                }
            }
            if portion.len() < PORTION {
                return Ok(());
            }
        }
    }

    fn read_link(&self, nid: u64) -> Result<Vec<u8>, TreeError> {
        self.image.read_link(nid).map_err(|error| match error {
            FormatError::WrongKind { .. } => TreeError::NotASymlink(nid),
            error => refused(nid, error),
        })
    }

    fn xattr(&self, nid: u64, name: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        self.image.xattr(nid, name).map_err(|error| refused(nid, error))
    }

    fn list_xattr(&self, nid: u64) -> Result<Vec<Vec<u8>>, TreeError> {
        let xattrs = self.image.xattrs(nid).map_err(|error| refused(nid, error))?;
        Ok(xattrs.into_keys().collect())
    }

    fn extent(&self, nid: u64, offset: u64) -> Result<Option<Extent>, TreeError> {
        let extent = self.image.extent(nid, offset).map_err(|error| match error {
            FormatError::WrongKind { .. } => TreeError::NotAFile(nid),
            error => refused(nid, error),
        })?;
        Ok(extent.map(|erofs::Extent { space, offset, length }| match space {
            Some(space) => Extent::Data { space, offset, length },
            None => Extent::Zero { length },
        }))
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// What the image's refusal means where a directory or any inode was asked for.
fn refused(nid: u64, error: FormatError) -> TreeError {
    match error {
        FormatError::WrongKind { .. } => TreeError::NotADirectory(nid),
        error => TreeError::Corrupt(error.to_string()),
    }
}

fn kind(kind: erofs::Kind) -> Kind {
    match kind {
        erofs::Kind::Directory => Kind::Directory,
        erofs::Kind::File => Kind::File,
        erofs::Kind::Symlink => Kind::Symlink,
        erofs::Kind::CharDevice => Kind::CharDevice,
        erofs::Kind::BlockDevice => Kind::BlockDevice,
        erofs::Kind::Fifo => Kind::Fifo,
        erofs::Kind::Socket => Kind::Socket,
    }
}

/// The kernel's 32-bit form: the minor number's low byte, twelve bits of major, the rest of minor.
fn encode_device(device: DeviceNumber) -> u32 {
    device.minor & 0xff | (device.major & 0xfff) << 8 | (device.minor & !0xff) << 12
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dfs_artifact::erofs::{BlockSize, ImageOptions, Space, write_image};
    use dfs_artifact::tree::{
        Content, FileData, Location, Meta, Mtime, Run, SparseFile, TreeBuilder,
    };

    use super::*;

    fn image() -> IndexTree<Vec<u8>> {
        let mut builder = TreeBuilder::new();
        let mut meta = Meta::with_mode(0o640);
        meta.xattrs = BTreeMap::from([(b"user.a".to_vec(), b"1".to_vec())]);
        meta.mtime = Mtime { secs: -5, nanos: 7 };
        let location = Location { space: 0, offset: 4096 };
        let file = Content::File(FileData { length: 5000, location, digest: None });
        builder.add(b"d/f", meta, file).unwrap();
        let runs = [Run { at: 8192, length: 4096, location }];
        let holes = Content::Sparse(SparseFile::new(20_000, runs).unwrap());
        builder.add(b"d/holes", Meta::with_mode(0o600), holes).unwrap();
        let hole = Content::Sparse(SparseFile::new(5_000, []).unwrap());
        builder.add(b"d/hole", Meta::with_mode(0o600), hole).unwrap();
        for number in 0..300 {
            let target = Content::Symlink(b"../d/f".to_vec());
            builder
                .add(format!("many/{number}").as_bytes(), Meta::with_mode(0o777), target)
                .unwrap();
        }
        let options = ImageOptions {
            block_size: BlockSize::B4096,
            build_time: Mtime::default(),
            spaces: vec![Space { length: 9096, tag: [0; 64] }],
        };
        let image = Image::open(write_image(&builder, &options).unwrap().bytes).unwrap();
        let inodes = image.inodes();
        IndexTree::new(image, Totals { inodes, bytes: 5000, acls: false })
    }

    #[test]
    fn an_index_answers_as_a_tree() {
        let tree = image();
        let folder = tree.lookup(tree.root(), b"d").unwrap().unwrap();
        let file = tree.lookup(folder, b"f").unwrap().unwrap();
        let attr = tree.attr(file).unwrap();
        assert_eq!((attr.permissions, attr.size, attr.ino), (0o640, 5000, file));
        assert_eq!(attr.mtime, Timestamp { seconds: -5, nanoseconds: 7 });
        assert_eq!(tree.xattr(file, b"user.a").unwrap(), Some(b"1".to_vec()));
        assert_eq!(tree.list_xattr(file).unwrap(), [b"user.a".to_vec()]);
        let mut bytes = 0;
        while let Some(extent) = tree.extent(file, bytes).unwrap() {
            let Extent::Data { space: 0, offset, .. } = extent else { panic!("{extent:?}") };
            assert_eq!(offset, 4096 + bytes);
            bytes += extent.length();
        }
        assert_eq!(bytes, 5000);
        assert_eq!(tree.lookup(folder, b"g"), Ok(None));
        assert_eq!(tree.lookup(file, b"g"), Err(TreeError::NotADirectory(file)));
        assert_eq!(tree.read_link(file), Err(TreeError::NotASymlink(file)));
        assert_eq!(tree.extent(folder, 0), Err(TreeError::NotAFile(folder)));
        assert!(matches!(tree.attr(1 << 40), Err(TreeError::Corrupt(_))));
    }

    #[test]
    fn holes_are_not_stored() {
        let tree = image();
        let folder = tree.lookup(tree.root(), b"d").unwrap().unwrap();
        let of = |name: &[u8]| {
            let attr = tree.attr(tree.lookup(folder, name).unwrap().unwrap()).unwrap();
            (attr.size, attr.stored)
        };
        assert_eq!(of(b"f"), (5000, 5000));
        assert_eq!(of(b"holes"), (20_000, 4096));
        assert_eq!(of(b"hole"), (5_000, 0));
        let file = tree.lookup(folder, b"holes").unwrap().unwrap();
        let lengths =
            [0, 8192, 9000, 12_288].map(|at| tree.extent(file, at).unwrap().unwrap().length());
        assert_eq!(lengths, [8192, 4096, 12_288 - 9000, 20_000 - 12_288]);
    }

    #[test]
    fn a_long_directory_is_listed_whole_from_any_cookie() {
        let tree = image();
        let folder = tree.lookup(tree.root(), b"many").unwrap().unwrap();
        let from = |cookie| {
            let mut seen = Vec::new();
            tree.read_dir(folder, cookie, &mut |entry| {
                seen.push((entry.name.to_vec(), entry.cookie));
                ControlFlow::Continue(())
            })
            .unwrap();
            seen
        };
        let all = from(0);
        assert_eq!(all.len(), 302);
        for (at, (_, cookie)) in all.iter().enumerate() {
            assert_eq!(from(*cookie), all[at + 1..]);
        }
    }

    #[test]
    fn devices_are_numbered_as_the_kernel_does() {
        assert_eq!(encode_device(DeviceNumber { major: 1, minor: 3 }), 0x103);
        assert_eq!(encode_device(DeviceNumber { major: 0xabc, minor: 0x12345 }), 0x123a_bc45);
    }
}
