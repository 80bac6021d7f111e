//! What the kernel is told to forget, and asked whether it knows.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::alone::Alone;
use crate::core::{NodeId, Stale};

/// `FUSE_NOTIFY_INVAL_INODE`, `FUSE_NOTIFY_INVAL_ENTRY` and `FUSE_NOTIFY_STORE`, where an answer has its error.
const INVAL_INODE: i32 = 2;
const INVAL_ENTRY: i32 = 3;
const STORE: i32 = 4;

/// Bytes of what every notice begins with.
const HEAD: usize = 16;

/// The way to tell the kernel what it knows of a mount and is not so any more.
#[derive(Debug, Clone)]
pub(crate) struct Notices(Arc<OwnedFd>);

impl Notices {
    /// To the mount behind `device`.
    pub fn new(device: OwnedFd) -> Self {
        Self(Arc::new(device))
    }

    /// Begins to tell it something.
    pub fn begin(&self) -> io::Result<Telling> {
        let alone = Alone::begin(self.0.as_fd())?;
        Ok(Telling { alone, _device: Arc::clone(&self.0) })
    }
}

/// Tells the kernel of a mount what it is to forget, and gives it what it may have.
///
/// A call waits for what others look up in the same directory or read in the same pages, which this process answers
/// meanwhile: it is not for the threads that do.
pub(crate) struct Telling {
    alone: Alone,
    _device: Arc<OwnedFd>,
}

impl Telling {
    /// Has it forget something; what it does not know is no error.
    pub fn forget(&self, stale: Stale<'_>) -> io::Result<()> {
        match self.alone.tell(notice(stale)) {
            // It is not known, or a directory that is no directory for it any more.
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            told => Ok(told?),
        }
    }

    /// Whether it knows a node; and of all that it was told of in that directory before this, if it is one.
    pub fn knows(&self, node: NodeId) -> io::Result<bool> {
        // Of what it knows it forgets the attributes, which costs a request.
        match self.alone.tell(notice(Stale::Attributes(node))) {
            Err(Errno::NOENT) => return Ok(false),
            told => told?,
        }
        // Nothing has this name: it only waits for those who are told of others.
        self.forget(Stale::Name(node, b"."))?;
        Ok(true)
    }

    /// Gives it bytes of a file, at most those of a group, for its page cache.
    pub fn store(&self, node: NodeId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        Ok(self.alone.tell(stored(node, offset, bytes))?)
    }
}

/// As the kernel reads it.
fn notice(stale: Stale<'_>) -> Vec<u8> {
    let mut notice = vec![0; HEAD];
    let mut of_inode = |node: NodeId, offset: i64| {
        notice.extend(node.raw().to_ne_bytes());
        // To the end, where the offset is one.
        notice.extend([offset, 0].map(i64::to_ne_bytes).as_flattened());
        INVAL_INODE
    };
    let kind = match stale {
        Stale::Attributes(node) => of_inode(node, -1),
        Stale::Pages(node) => of_inode(node, 0),
        Stale::Name(dir, name) => {
            notice.extend(dir.raw().to_ne_bytes());
            // Longer ones than an index has the kernel refuses.
            let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
            notice.extend([length, 0].map(u32::to_ne_bytes).as_flattened());
            notice.extend(name.iter().chain(&[0]));
            INVAL_ENTRY
        }
    };
    headed(notice, kind)
}

/// The same of bytes to keep.
fn stored(node: NodeId, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut notice = vec![0; HEAD];
    notice.extend([node.raw(), offset].map(u64::to_ne_bytes).as_flattened());
    notice.extend([bytes.len() as u32, 0].map(u32::to_ne_bytes).as_flattened());
    notice.extend(bytes);
    headed(notice, STORE)
}

/// With how long it is and what it is at its head; it answers no request.
fn headed(mut notice: Vec<u8>, kind: i32) -> Vec<u8> {
    let length = notice.len() as u32;
    notice[..4].copy_from_slice(&length.to_ne_bytes());
    notice[4..8].copy_from_slice(&kind.to_ne_bytes());
    notice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_as_long_as_it_says_and_of_what_it_is_about() {
        let words = |stale| {
            let notice = notice(stale);
            let (words, rest) = notice.as_chunks::<8>();
            let words: Vec<_> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
            (words, rest.to_vec())
        };
        let head = |length: u64, kind: u64| length | kind << 32;
        let node = NodeId::from_raw(7);
        let attributes = vec![head(40, 2), 0, 7, u64::MAX, 0];
        assert_eq!(words(Stale::Attributes(node)), (attributes, vec![]));
        assert_eq!(words(Stale::Pages(node)), (vec![head(40, 2), 0, 7, 0, 0], vec![]));
        let name = (vec![head(36, 3), 0, 7, 3], b"abc\0".to_vec());
        assert_eq!(words(Stale::Name(node, b"abc")), name);
        let stored = stored(node, 4096, b"12345678");
        let (words, rest) = stored.as_chunks::<8>();
        let words: Vec<_> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        assert_eq!(words[..5], [head(48, 4), 0, 7, 4096, 8]);
        assert_eq!(
            (words.len(), stored[40..].as_ref(), rest),
            (6, b"12345678".as_ref(), [].as_ref())
        );
    }
}
