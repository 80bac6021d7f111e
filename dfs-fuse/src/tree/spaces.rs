//! Spaces as files without names: for who knows of reads only where in a space they are.

use std::ops::ControlFlow;

use super::{Attr, DirEntry, Extent, Kind, Timestamp, Totals, Tree, TreeError};

/// The inode number of space 0; the others follow.
const FIRST: u64 = 2;

/// See the module.
#[derive(Debug, Clone)]
pub struct SpacesTree {
    lengths: Vec<u64>,
}

impl SpacesTree {
    /// Of spaces of these lengths, by number.
    pub fn new(lengths: Vec<u64>) -> Self {
        Self { lengths }
    }

    /// The inode number of a space.
    pub fn nid(space: u16) -> u64 {
        FIRST + u64::from(space)
    }

    fn file(&self, nid: u64) -> Result<(u16, u64), TreeError> {
        let space = nid.checked_sub(FIRST).and_then(|space| u16::try_from(space).ok());
        let found = space.and_then(|space| Some((space, *self.lengths.get(usize::from(space))?)));
        found.ok_or(TreeError::NotAFile(nid))
    }
}

impl Tree for SpacesTree {
    fn root(&self) -> u64 {
        FIRST - 1
    }

    fn attr(&self, nid: u64) -> Result<Attr, TreeError> {
        let size = self.file(nid)?.1;
        Ok(Attr {
            ino: nid,
            kind: Kind::File,
            permissions: 0o400,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size,
            stored: size,
            mtime: Timestamp::default(),
        })
    }

    fn lookup(&self, _parent: u64, _name: &[u8]) -> Result<Option<u64>, TreeError> {
        Ok(None)
    }

    fn read_dir(
        &self,
        _nid: u64,
        _cookie: u64,
        _visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        Ok(())
    }

    fn read_link(&self, nid: u64) -> Result<Vec<u8>, TreeError> {
        Err(TreeError::NotASymlink(nid))
    }

    fn xattr(&self, _nid: u64, _name: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        Ok(None)
    }

    fn list_xattr(&self, _nid: u64) -> Result<Vec<Vec<u8>>, TreeError> {
        Ok(Vec::new())
    }

    fn extent(&self, nid: u64, offset: u64) -> Result<Option<Extent>, TreeError> {
        let (space, length) = self.file(nid)?;
        let left = length.saturating_sub(offset);
        Ok((left > 0).then_some(Extent::Data { space, offset, length: left }))
    }

    fn totals(&self) -> Totals {
        let bytes = self.lengths.iter().sum();
        Totals { inodes: self.lengths.len() as u64, bytes, acls: false }
    }
}
