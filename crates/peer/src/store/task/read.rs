//! Reading what is here, and what of that is believed.

use bytes::Bytes;
use dfs_model::{ByteRange, GROUP_BYTES, GroupRange};

use super::{Opened, StoreError, StoredTask};
use crate::hashtree::{ContentError, Shape};

/// When bytes are held against their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Once: when they come. What rots in the cache is shown until somebody looks for that.
    #[default]
    Arrivals,
    /// Whenever they are read from the cache, too: what rots is fetched again.
    Reads,
}

impl Verify {
    /// As somebody wants it.
    pub fn wanted(each_read: bool) -> Self {
        if each_read { Self::Reads } else { Self::Arrivals }
    }
}

impl StoredTask {
    /// Reads exactly `range` into `buf`, which is as long. Every group it touches must be here. Where each read is
    /// verified, what is filled in is what was hashed; what does not match is missing from now on.
    pub fn read_at(
        &self,
        range: ByteRange,
        buf: &mut [u8],
        verify: Verify,
    ) -> Result<(), StoreError> {
        let opened = &*self.opened;
        let groups = range.groups();
        let got = buf.len() as u64;
        if got != range.len() || self.length().is_some_and(|length| range.end > length) {
            let source = ContentError::WrongLength { groups, expected: range.len(), got };
            return Err(StoreError::Content { task: opened.id, source });
        }
        loop {
            let before = self.ready_as_of(groups)?;
            opened.presence.note_read(opened.directory.now());
            let read = match verify {
                Verify::Arrivals => opened.read_layers(buf, range.start).map_err(|_| vec![groups]),
                Verify::Reads => opened.read_verified(self.shape(), range, buf),
            };
            // What was taken out meanwhile may have been among them: each round is one that something was.
            if opened.facts.read().taken_out != before {
                continue;
            }
            let Err(bad) = read else { return Ok(()) };
            // A disk error, what has rotted or a file cut short: what was here is not any more.
            opened.doubt_if_cut().map_err(StoreError::write(opened.id, &opened.path))?;
            self.mark_bad(&bad)?;
            let groups = bad.first().copied().unwrap_or(groups);
            return Err(StoreError::Missing { task: opened.id, groups });
        }
    }

    /// As [`StoredTask::read_at`], into bytes of their own, which were verified when they came.
    pub fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        self.read_by(range, Verify::Arrivals)
    }

    /// As [`StoredTask::read_at`], into bytes of their own.
    pub fn read_by(&self, range: ByteRange, verify: Verify) -> Result<Bytes, StoreError> {
        // Before anything is allocated: a hostile range is not here.
        self.ready(range.groups())?;
        let mut buf = vec![0; range.len() as usize];
        self.read_at(range, &mut buf, verify)?;
        Ok(buf.into())
    }
}

impl Opened {
    /// Reads whole groups and holds them against their digests as they were read; fails with those that do not match.
    fn read_verified(
        &self,
        shape: Shape,
        range: ByteRange,
        buf: &mut [u8],
    ) -> Result<(), Vec<GroupRange>> {
        let groups = range.groups();
        let whole = groups.bytes(shape.length().unwrap_or(u64::MAX));
        if whole == range {
            return self.read_groups(shape, groups, buf);
        }
        let mut bytes = vec![0; whole.len() as usize];
        self.read_groups(shape, groups, &mut bytes)?;
        let from = (range.start - whole.start) as usize;
        buf.copy_from_slice(&bytes[from..from + buf.len()]);
        Ok(())
    }

    fn read_groups(
        &self,
        shape: Shape,
        groups: GroupRange,
        buf: &mut [u8],
    ) -> Result<(), Vec<GroupRange>> {
        self.read_layers(buf, groups.first * GROUP_BYTES).map_err(|_| vec![groups])?;
        let parts = groups.iter().zip(buf.chunks(GROUP_BYTES as usize));
        let wrong = parts.filter(|(group, bytes)| !self.matches(shape, *group, bytes));
        let wrong: Vec<_> = wrong.map(|(group, _)| GroupRange::new(group, 1)).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}
