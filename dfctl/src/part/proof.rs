//! What the bytes of a part file hash to, made while they come.
//!
//! It is BLAKE3 over the digests of the groups that are there, each as it stands in the hash tree of the content,
//! and over the bytes behind the last of them. A writer that knows those digests hands them over, so that nothing
//! is hashed twice; all others are read back.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use dfs_model::{ByteRange, GROUP_BYTES, groups_in};
use dfs_peer::hashtree::{Cv, Shape, group_digest};

/// The digest so far.
pub struct Proof {
    shape: Shape,
    groups: u64,
    chain: blake3::Hasher,
}

impl Proof {
    /// Of a content of this length, before its first byte.
    pub fn new(length: Option<u64>) -> Self {
        Self { shape: Shape::new(length), groups: 0, chain: blake3::Hasher::new() }
    }

    /// Takes the digests of the groups that begin in `range` from whoever wrote them; unless there is one of each.
    pub fn believe(&mut self, file: &File, range: ByteRange, digests: &[Cv]) -> io::Result<()> {
        let (first, end) = (range.start.div_ceil(GROUP_BYTES), self.whole_groups(range.end));
        if first < self.groups || end.checked_sub(first) != Some(digests.len() as u64) {
            return Ok(());
        }
        self.catch_up(file, range.start.next_multiple_of(GROUP_BYTES).min(range.end))?;
        digests.iter().for_each(|digest| self.take(digest));
        Ok(())
    }

    /// Of the first `end` bytes of `file`; no fewer than at any time before.
    pub fn of(&mut self, file: &File, end: u64) -> io::Result<String> {
        self.catch_up(file, end)?;
        let begins = (self.groups * GROUP_BYTES).min(end);
        let mut behind = vec![0; usize::try_from(end - begins).map_err(io::Error::other)?];
        file.read_exact_at(&mut behind, begins)?;
        let mut chain = self.chain.clone();
        chain.update(&behind);
        Ok(chain.finalize().to_hex().to_string())
    }

    /// Hashes the groups that end before `end` and are not taken in yet.
    pub fn catch_up(&mut self, file: &File, end: u64) -> io::Result<()> {
        let mut buffer = vec![0; GROUP_BYTES as usize];
        while self.groups < self.whole_groups(end) {
            let bytes = self.shape.group_bytes(self.groups).unwrap_or_default();
            file.read_exact_at(&mut buffer[..bytes], self.groups * GROUP_BYTES)?;
            let digest = group_digest(self.shape, self.groups, &buffer[..bytes]);
            self.take(&digest.map_err(io::Error::other)?);
        }
        Ok(())
    }

    /// How many groups end before `end`.
    fn whole_groups(&self, end: u64) -> u64 {
        match self.shape.length() {
            Some(length) if end >= length => groups_in(length),
            _ => end / GROUP_BYTES,
        }
    }

    fn take(&mut self, digest: &Cv) {
        self.chain.update(digest);
        self.groups += 1;
    }
}
