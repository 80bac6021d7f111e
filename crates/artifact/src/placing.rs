//! Where the entries of an archive go in the tree: later ones take the place of earlier ones, nothing leaves the
//! tree, and what no tree can hold is left out and named, as `tar` and
//! `unzip` do. Memory is bounded by limits.

mod scattered;

pub(crate) use scattered::Scattered;

use crate::tree::{Content, LeftOut, Meta, Mtime, PendingLink, SparseFile, TreeBuilder};

/// Most entries, parents that are only implied included.
pub(crate) const MAX_ENTRIES: usize = 8_000_000;
/// Most bytes of names, link targets and attributes together.
pub(crate) const MAX_TEXT: u64 = 1 << 30;
/// Most indexes of the chunks of files with holes together.
pub(crate) const MAX_SPARSE_CHUNKS: u64 = 16 << 20;

/// Longest space: what 32-bit addresses of blocks of 512 bytes reach.
pub(crate) const MAX_SPACE: u64 = (u32::MAX as u64 - 1) << 9;

/// More than an index can hold of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuch(pub &'static str);

/// The tree as it grows.
#[derive(Debug, Default)]
pub(crate) struct Placing {
    pub tree: TreeBuilder,
    pub scattered: Scattered,
    pub left_out: LeftOut,
    pub newest: Mtime,
    /// Hard links to what was not there yet.
    waiting: Vec<PendingLink>,
    /// Entries seen, whatever became of them.
    entries: usize,
    text: u64,
    chunks: u64,
}

impl Placing {
    /// Puts an entry at its place.
    pub fn put(&mut self, path: &[u8], meta: Meta, content: Content) -> Result<(), TooMuch> {
        let xattrs = meta.xattrs.iter().map(|(name, value)| name.len() + value.len());
        let link = if let Content::Symlink(target) = &content { target.len() } else { 0 };
        self.admit(path.len() + link + xattrs.sum::<usize>())?;
        let Some(path) = self.real(path) else { return Ok(()) };
        // A directory keeps what is in it.
        let directory = matches!(content, Content::Directory);
        if !directory || !self.tree.is_directory(&path) {
            self.tree.remove(&path);
        }
        self.tree.clear_way(&path);
        let mtime = meta.mtime;
        match self.tree.add(&path, meta, content) {
            Ok(()) => self.newest = self.newest.max(mtime),
            Err(error) => self.skip(&path, error.to_string()),
        }
        Ok(())
    }

    /// Puts a file with holes at its place.
    pub fn put_sparse(&mut self, path: &[u8], meta: Meta, file: SparseFile) -> Result<(), TooMuch> {
        let file = self.scattered.place(file)?;
        self.chunks = self.chunks.saturating_add(Scattered::chunks(&file));
        if self.chunks > MAX_SPARSE_CHUNKS {
            return Err(TooMuch("holes"));
        }
        self.put(path, meta, Content::Sparse(file))
    }

    /// Adds a further name; one of what does not come before it waits for the end.
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TooMuch> {
        self.admit(path.len() + target.len())?;
        let Some(path) = self.real(path) else { return Ok(()) };
        let Some(target) = relative(target).and_then(|target| self.tree.follow(&target)) else {
            self.skip(&path, "it is a hard link to outside of the archive".to_owned());
            return Ok(());
        };
        if path == target && self.tree.contains(&path) {
            return Ok(());
        }
        if self.tree.contains(&target) {
            self.link_now(&path, &target);
        } else {
            self.waiting.push(PendingLink { path, target });
        }
        Ok(())
    }

    fn link_now(&mut self, path: &[u8], target: &[u8]) {
        if self.tree.is_directory(target) {
            self.skip(path, "it is a hard link to a directory".to_owned());
            return;
        }
        self.tree.remove(path);
        self.tree.clear_way(path);
        if let Err(error) = self.tree.link(path, target) {
            self.skip(path, error.to_string());
        }
    }

    /// Settles what had to wait: names that nothing else took and whose targets came.
    pub fn finish(&mut self) {
        for link in self.finish_layer() {
            self.skip(&link.path, "it is a hard link to what is not in the archive".to_owned());
        }
    }

    /// Does the same for a layer: what has no target in it may have one in a lower layer.
    pub fn finish_layer(&mut self) -> Vec<PendingLink> {
        let mut pending = Vec::new();
        for link in std::mem::take(&mut self.waiting) {
            if self.tree.contains(&link.path) {
                continue;
            }
            if link.path != link.target && self.tree.contains(&link.target) {
                self.link_now(&link.path, &link.target);
            } else {
                pending.push(link);
            }
        }
        self.tree.date_implicit_directories();
        pending
    }

    /// Where a path of the archive leads.
    fn real(&mut self, path: &[u8]) -> Option<Vec<u8>> {
        let Some(plain) = relative(path) else {
            self.skip(path, "a '..' in its name leads out of the archive".to_owned());
            return None;
        };
        if plain.is_empty() {
            return Some(plain);
        }
        let real = self.tree.follow(&plain);
        if real.is_none() {
            self.skip(path, "it lies behind a symbolic link that is not followed".to_owned());
        }
        real
    }

    /// Leaves an entry out.
    pub fn skip(&mut self, path: &[u8], reason: String) {
        self.left_out.add(path, reason);
    }

    fn admit(&mut self, text: usize) -> Result<(), TooMuch> {
        self.entries += 1;
        self.text += text as u64;
        if self.entries.max(self.tree.node_count()) > MAX_ENTRIES {
            return Err(TooMuch("entries"));
        }
        if self.text > MAX_TEXT {
            return Err(TooMuch("names and attributes"));
        }
        Ok(())
    }
}

/// A path as an archive has it, made relative: leading slashes, `.` and empty elements go; `None` for one
/// that climbs.
pub(crate) fn relative(path: &[u8]) -> Option<Vec<u8>> {
    let elements = path.split(|&byte| byte == b'/');
    let elements: Vec<&[u8]> = elements.filter(|element| !matches!(*element, b"" | b".")).collect();
    (!elements.contains(&&b".."[..])).then(|| elements.join(&b'/'))
}
