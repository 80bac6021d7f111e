//! Bytes for somebody who reads them elsewhere: the kernel, from the files that the content writes them to.

use std::time::Instant;

use dfs_model::{ByteRange, Priority};
use futures::future::try_join_all;

use super::node::Place;
use super::read::{ATTEMPTS, at_work_for};
use super::{Core, FsError, Inode, NodeId};
use crate::content::{ContentError, ContentErrorClass};
use crate::tree::Extent;

impl Core {
    /// Has what is missing of `range` of the file `nid` fetched; what lies beyond the file's end is ignored.
    ///
    /// When this succeeds who reads the content's files directly finds all of it as it should be. Ends at the deadline at
    /// the latest.
    pub(crate) async fn obtain(&self, nid: u64, range: ByteRange) -> Result<(), FsError> {
        let snapshot = self.snapshots.current();
        let node = NodeId::from_raw(Place { generation: snapshot.generation, nid }.raw());
        let inode = &Inode { snapshot, nid, node };
        let range = range.intersection(ByteRange::new(0, inode.snapshot.tree.attr(nid)?.size));
        self.observe(inode, range)?;
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Err(FsError::Stopping),
            obtained = self.obtain_in_place(inode, range) => obtained,
            () = at_work_for(self.options.deadline) => {
                self.options.reads.failed();
                Err(self.failed(inode, range, self.too_late(range)))
            }
        }
    }

    async fn obtain_in_place(&self, inode: &Inode, range: ByteRange) -> Result<(), FsError> {
        let (reads, length) = (&self.options.reads, range.len() as usize);
        // What is in doubt is hashed first, and waits for its turn with that.
        if inode.is_sound(range).await? {
            reads.gave(length);
            return Ok(());
        }
        // The kernel asks once more on its own account: the read was counted.
        if let Some(error) = self.failures.echo(inode.key(), range, Instant::now()) {
            return Err(error.into());
        }
        let (_waiting, _counted) = (self.streams.waits(inode.key(), range), reads.wait());
        match self.fetch_in_place(inode, range).await {
            Ok(()) => {
                reads.gave(length);
                self.failures.healed(inode.key(), range);
                Ok(())
            }
            Err(error) => {
                reads.failed();
                Err(self.failed(inode, range, error))
            }
        }
    }

    async fn fetch_in_place(&self, inode: &Inode, range: ByteRange) -> Result<(), FsError> {
        let _turn = self.waiting.acquire().await.map_err(|_| FsError::Stopping)?;
        let content = &inode.snapshot.content;
        for _ in 0..ATTEMPTS {
            let fetches = inode.missing_parts(range)?.into_iter();
            let fetches =
                fetches.map(|part| content.fetch(part.space, part.range, Priority::Demand));
            try_join_all(fetches).await?;
            if inode.is_sound(range).await? {
                return Ok(());
            }
        }
        let reason = format!("bytes {range} were found damaged {ATTEMPTS} times");
        Err(ContentError::new(ContentErrorClass::Integrity, reason).into())
    }
}

impl Inode {
    /// Whether all of it is here and in no doubt. The recorder is told of it.
    async fn is_sound(&self, range: ByteRange) -> Result<bool, FsError> {
        let mut at = range.start;
        while at < range.end {
            let Some(extent) = self.extent(at, range.end - at)? else { break };
            at += extent.length();
            let Extent::Data { space, offset, length } = extent else { continue };
            let part = ByteRange::at(offset, length);
            if let Some(recorder) = &self.snapshot.recorder {
                recorder.touch(space, part);
            }
            if !self.snapshot.content.is_sound(space, part).await {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dfs_model::GROUP_BYTES;

    use super::*;
    use crate::content::{Content, FailingContent, MemoryContent};
    use crate::core::CoreOptions;
    use crate::tree::SpacesTree;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    fn core(content: impl Content, lengths: &[u64], runtime: &tokio::runtime::Runtime) -> Core {
        let tree = Arc::new(SpacesTree::new(lengths.to_vec()));
        Core::new(tree, Arc::new(content), CoreOptions::default(), runtime.handle().clone())
    }

    #[test]
    fn what_is_obtained_is_there_and_nothing_far_from_it() {
        let runtime = runtime();
        let lengths = [10 * GROUP_BYTES, 5 * GROUP_BYTES + 3];
        let content = MemoryContent::missing(lengths.map(|length| vec![7; length as usize]).into());
        let core = core(content.clone(), &lengths, &runtime);
        let obtain = |space, range| runtime.block_on(core.obtain(SpacesTree::nid(space), range));
        let wanted = ByteRange::new(GROUP_BYTES + 5, 2 * GROUP_BYTES + 1);
        obtain(0, wanted).unwrap();
        assert!(content.present(0, wanted) && !content.present(0, ByteRange::at(0, 1)));
        // What the kernel asks for goes to the end of a block.
        obtain(1, ByteRange::at(5 * GROUP_BYTES, 4096)).unwrap();
        obtain(1, ByteRange::new(9 * GROUP_BYTES, u64::MAX)).unwrap();
        assert!(!content.present(1, ByteRange::at(4 * GROUP_BYTES, 1)));
        obtain(1, ByteRange::new(0, u64::MAX)).unwrap();
        assert!(content.present(1, ByteRange::new(0, lengths[1])));
        assert!(obtain(2, wanted).is_err(), "there is no such space");
        assert_eq!(content.fetches().len(), 3, "what is here is not fetched again");
    }

    #[test]
    fn what_cannot_be_had_is_an_error_and_is_remembered_a_moment() {
        let runtime = runtime();
        let error = ContentError::new(ContentErrorClass::Io, "no route to the origin");
        let content = FailingContent::new(MemoryContent::missing(vec![vec![1; 9]]), error.clone());
        let core = core(content, &[GROUP_BYTES], &runtime);
        for _ in 0..2 {
            let range = ByteRange::at(0, 4096);
            let failed = runtime.block_on(core.obtain(SpacesTree::nid(0), range)).unwrap_err();
            assert_eq!(failed, FsError::Content(error.clone()));
        }
        core.stop();
        let range = ByteRange::at(0, 4096);
        assert!(runtime.block_on(core.obtain(SpacesTree::nid(0), range)).is_err());
    }
}
