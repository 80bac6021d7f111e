//! Reading files: at once when the bytes are here, otherwise by fetching them first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_model::{ByteRange, GROUP_BYTES, Priority};
use futures::future::try_join_all;

use super::readahead::{Ahead, Observed, Reader};
use super::{Core, FsError, Inode, NodeId};
use crate::content::{ContentError, ContentErrorClass};
use crate::trace::Recorder;
use crate::tree::{Extent, TreeError};

/// Longest read answered in one piece; longer ones are cut.
pub(crate) const MAX_READ: usize = 1 << 20;

/// How often bytes are fetched again that were evicted before they could be read.
pub(super) const ATTEMPTS: u32 = 3;

/// Steps that a deadline passes in.
const STEPS: u32 = 16;

/// Answer to [`Core::read_now`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// This many bytes were filled in; fewer than asked only at the end of the file.
    Here(usize, Pattern),
    /// Some byte is missing: [`Core::read`] will fetch it.
    Missing(Pattern),
}

/// How a file is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// From front to back.
    Sequential,
    /// Here and there.
    Random,
}

/// A file whose bytes are those of a space as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// The space.
    pub space: u16,
    /// Whether all of them are here, and in no doubt.
    pub is_here: bool,
}

/// Bytes of a space, on group boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) space: u16,
    pub(super) range: ByteRange,
}

impl Core {
    /// Fills `buf` with the file's bytes from `offset`, if they are all here.
    ///
    /// Never waits for the network; starts read-ahead where the reader's pattern asks for it.
    pub fn read_now(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<Read, FsError> {
        let inode = &self.inode(node)?;
        let range = ByteRange::at(offset, buf.len() as u64);
        let pattern = self.observe(inode, range)?;
        match inode.copy_out(offset, buf, inode.snapshot.recorder.as_deref()) {
            Ok(Some(length)) => {
                self.options.reads.gave(length);
                Ok(Read::Here(length, pattern))
            }
            // Counted once it is answered.
            Ok(None) => Ok(Read::Missing(pattern)),
            Err(error) => {
                self.options.reads.failed();
                Err(self.failed(inode, range, error))
            }
        }
    }

    /// Takes note of a read, and starts read-ahead where the reader's pattern asks for it.
    pub(super) fn observe(&self, inode: &Inode, range: ByteRange) -> Result<Pattern, FsError> {
        match self.streams.observe(inode.key(), range, Instant::now()) {
            Observed::Random => Ok(Pattern::Random),
            Observed::Striding(places) => {
                for place in places {
                    self.read_ahead(inode, Ahead { news: place, stream: None })?;
                }
                Ok(Pattern::Random)
            }
            Observed::Advancing(ahead) => {
                if let Some(ahead) = ahead {
                    self.read_ahead(inode, ahead)?;
                }
                Ok(Pattern::Sequential)
            }
        }
    }

    /// The space whose bytes a file's are from the first to the last; `None` of any other file, and an empty one.
    pub fn whole(&self, node: NodeId) -> Result<Option<Whole>, FsError> {
        let inode = &self.inode(node)?;
        let Inode { snapshot, nid, .. } = inode;
        let Some(Extent::Data { space, offset: 0, .. }) = snapshot.tree.extent(*nid, 0)? else {
            return Ok(None);
        };
        let size = snapshot.tree.attr(*nid)?.size;
        if snapshot.content.length(space) != Some(size) {
            return Ok(None);
        }
        let mut at = 0;
        while at < size {
            match inode.extent(at, size - at)? {
                Some(Extent::Data { space: same, offset, length })
                    if same == space && offset == at =>
                {
                    at += length;
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(Whole { space, is_here: snapshot.content.is_whole(space) }))
    }

    /// Fills `buf` as [`Core::read_now`] does, without regarding it as a reader's doing.
    pub fn peek(
        &self,
        node: NodeId,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<Option<usize>, FsError> {
        self.inode(node)?.copy_out(offset, buf, None)
    }

    /// Reads at most `length` bytes (1 MiB at most) from `offset`, fetching what is missing.
    ///
    /// Ends at the deadline at the latest. The reason of a failure is kept for `user.dfs.error`.
    pub async fn read(&self, node: NodeId, offset: u64, length: usize) -> Result<Vec<u8>, FsError> {
        let wait = self.options.reads.wait();
        let read = self.read_in_time(node, offset, length).await;
        drop(wait);
        match &read {
            Ok(bytes) => self.options.reads.gave(bytes.len()),
            Err(_) => self.options.reads.failed(),
        }
        read
    }

    async fn read_in_time(
        &self,
        node: NodeId,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, FsError> {
        let inode = &self.inode(node)?;
        let length = length.min(MAX_READ);
        let range = ByteRange::at(offset, length as u64);
        if let Some(error) = self.failures.echo(inode.key(), range, Instant::now()) {
            return Err(error.into());
        }
        let _waiting = self.streams.waits(inode.key(), range);
        let result = tokio::select! {
            biased;
            () = self.stopping.cancelled() => return Err(FsError::Stopping),
            result = self.fetch_and_read(inode, range) => result,
            () = at_work_for(self.options.deadline) => Err(self.too_late(range)),
        };
        match result {
            Ok(bytes) => {
                self.failures.healed(inode.key(), range);
                Ok(bytes)
            }
            Err(error) => Err(self.failed(inode, range, error)),
        }
    }

    async fn fetch_and_read(&self, inode: &Inode, range: ByteRange) -> Result<Vec<u8>, FsError> {
        let _turn = self.waiting.acquire().await.map_err(|_| FsError::Stopping)?;
        for _ in 0..ATTEMPTS {
            let parts = inode.missing_parts(range)?;
            let content = &inode.snapshot.content;
            let fetches = parts
                .into_iter()
                .map(|part| content.fetch(part.space, part.range, Priority::Demand));
            if let Err(error) = try_join_all(fetches).await {
                return inode.read_around(range, error).await;
            }
            let mut bytes = vec![0; range.len() as usize];
            let recorder = inode.snapshot.recorder.as_deref();
            if let Some(length) = inode.copy_out(range.start, &mut bytes, recorder)? {
                bytes.truncate(length);
                return Ok(bytes);
            }
        }
        let reason = format!(
            "bytes {range} were evicted, or found damaged, {ATTEMPTS} times before they were read"
        );
        let error = ContentError::new(ContentErrorClass::Io, reason);
        inode.read_around(range, error).await
    }

    /// Has a file fetched that is read without this process and was found damaged, and says so.
    pub(crate) fn mend(&self, node: NodeId, space: u16) -> FsError {
        let reason = "it was found damaged, and is fetched again: try again in a moment";
        let error = ContentError::new(ContentErrorClass::Integrity, reason);
        let inode = match self.inode(node) {
            Ok(inode) => inode,
            Err(stale) => return stale,
        };
        let content = &inode.snapshot.content;
        let whole = ByteRange::new(0, content.length(space).unwrap_or(0));
        // Once at a time, however often it is opened.
        if self.mending.lock().insert(inode.key()) {
            let (fetch, key) = (content.fetch(space, whole, Priority::Demand), inode.key());
            let (stopping, deadline) = (self.stopping.clone(), self.options.deadline);
            let mending = Arc::clone(&self.mending);
            let mend = async move {
                // Who opens it next sees how it went.
                tokio::select! {
                    _ = fetch => {}
                    () = at_work_for(deadline) => {}
                    () = stopping.cancelled() => {}
                }
                mending.lock().remove(&key);
            };
            self.tracker.spawn_on(mend, &self.runtime);
        }
        self.failed(&inode, whole, error.into())
    }

    /// Starts fetching what a reader of a file will want, as far as the budget reaches.
    fn read_ahead(&self, inode: &Inode, ahead: Ahead) -> Result<(), FsError> {
        let (priority, reader) = match ahead.stream {
            // As much as this may take as long as it takes.
            Some((stream, reader)) => {
                inode.tell_stream(stream)?;
                (Priority::Bulk, Some(reader))
            }
            None => (Priority::ReadAhead, None),
        };
        for part in inode.missing_parts(ahead.news)? {
            let Ok(groups) = u32::try_from(part.range.groups().count) else { return Ok(()) };
            let Ok(budget) = self.ahead.clone().try_acquire_many_owned(groups) else {
                return Ok(());
            };
            let fetch = inode.snapshot.content.fetch(part.space, part.range, priority);
            let given_up = self.given_up(reader.clone());
            let stopping = self.stopping.clone();
            let fetch_unless_stopped = async move {
                // A failure is not reported here: the read that wants these bytes will meet it.
                tokio::select! {
                    _ = fetch => {}
                    () = given_up => {}
                    () = stopping.cancelled() => {}
                }
                drop(budget);
            };
            self.tracker.spawn_on(fetch_unless_stopped, &self.runtime);
        }
        Ok(())
    }

    /// Resolves when nothing should be fetched ahead any more for somebody: for who reads on, once it has not been seen
    /// for a while, for others at the deadline.
    fn given_up(&self, reader: Option<Arc<Reader>>) -> impl Future<Output = ()> + use<> {
        let (streams, deadline) = (Arc::clone(&self.streams), self.options.deadline);
        let patience = self.options.reader_gone;
        async move {
            let Some(reader) = reader else { return tokio::time::sleep(deadline).await };
            loop {
                let away = streams.away(&reader, Instant::now());
                match patience.checked_sub(away) {
                    None | Some(Duration::ZERO) => return reader.withdrawn(),
                    Some(left) => tokio::time::sleep(left).await,
                }
            }
        }
    }

    pub(super) fn too_late(&self, range: ByteRange) -> FsError {
        let seconds = self.options.deadline.as_secs_f32();
        let reason = format!("bytes {range} of the file did not arrive within {seconds} s");
        ContentError::new(ContentErrorClass::Timeout, reason).into()
    }

    /// Remembers why a read failed.
    pub(super) fn failed(&self, inode: &Inode, range: ByteRange, error: FsError) -> FsError {
        let reason = match &error {
            FsError::Content(error) => error.clone(),
            FsError::Tree(error @ TreeError::Corrupt(_)) => {
                ContentError::new(ContentErrorClass::Integrity, error.to_string())
            }
            _ => return error,
        };
        let is_outdated = reason.class == ContentErrorClass::OriginChanged;
        if is_outdated && inode.snapshot.generation == self.generation() {
            self.outdated.notify_one();
        }
        self.failures.record(inode.key(), range, &reason, Instant::now());
        error
    }
}

impl Inode {
    /// Has what follows of a file come before what is behind it.
    fn tell_stream(&self, stream: ByteRange) -> Result<(), FsError> {
        if let Some(Extent::Data { space, offset, length }) =
            self.extent(stream.start, stream.len())?
        {
            self.snapshot.content.reads_next(space, ByteRange::at(offset, length));
        }
        Ok(())
    }

    /// Reads what is healthy in groups that cannot be fetched; fails with `error` where there is no such.
    async fn read_around(&self, range: ByteRange, error: ContentError) -> Result<Vec<u8>, FsError> {
        let mut bytes = Vec::with_capacity(range.len() as usize);
        let mut at = range.start;
        while at < range.end {
            let Some(extent) = self.extent(at, range.end - at)? else { break };
            at += extent.length();
            match extent {
                Extent::Zero { length } => bytes.resize(bytes.len() + length as usize, 0),
                Extent::Data { space, offset, length } => {
                    let around =
                        self.snapshot.content.read_around(space, ByteRange::at(offset, length));
                    match around.await {
                        Some(read) => bytes.extend_from_slice(&read?),
                        None => return Err(error.into()),
                    }
                }
            }
        }
        Ok(bytes)
    }

    /// Copies bytes that are here; `None` when any of them is not. The recorder is told of the first of those, too.
    fn copy_out(
        &self,
        offset: u64,
        buf: &mut [u8],
        recorder: Option<&Recorder>,
    ) -> Result<Option<usize>, FsError> {
        if buf.is_empty() {
            // What is no file is none either where nothing is read of it.
            self.snapshot.tree.extent(self.nid, offset)?;
        }
        let mut filled = 0;
        while filled < buf.len() {
            let wanted = (buf.len() - filled) as u64;
            let Some(extent) = self.extent(offset.saturating_add(filled as u64), wanted)? else {
                break;
            };
            let part = &mut buf[filled..filled + extent.length() as usize];
            match extent {
                Extent::Zero { .. } => part.fill(0),
                Extent::Data { space, offset, length } => {
                    if let Some(recorder) = recorder {
                        recorder.touch(space, ByteRange::at(offset, length));
                    }
                    match self.snapshot.content.try_read(space, offset, part) {
                        None => return Ok(None),
                        Some(answer) => answer?,
                    }
                }
            }
            filled += extent.length() as usize;
        }
        Ok(Some(filled))
    }

    /// The extent at `offset`, at most `length` bytes of it; a tree that answers with nothing lies.
    pub(super) fn extent(&self, offset: u64, length: u64) -> Result<Option<Extent>, FsError> {
        let Some(extent) = self.snapshot.tree.extent(self.nid, offset)? else { return Ok(None) };
        if extent.length() == 0 {
            let reason = format!("inode {} has an empty extent at {offset}", self.nid);
            return Err(TreeError::Corrupt(reason).into());
        }
        Ok(Some(extent.clip(0, length)))
    }

    /// Where the missing bytes of a file's range lie: whole groups, neighbours joined.
    pub(super) fn missing_parts(&self, range: ByteRange) -> Result<Vec<Part>, FsError> {
        let mut parts: Vec<Part> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let Some(extent) = self.extent(at, range.end - at)? else { break };
            at += extent.length();
            let Extent::Data { space, offset, length } = extent else { continue };
            if self.snapshot.content.present(space, ByteRange::at(offset, length)) {
                continue;
            }
            let part = Part { space, range: whole_groups(ByteRange::at(offset, length)) };
            match parts.last_mut() {
                Some(last) if last.joins(part) => {
                    last.range.end = last.range.end.max(part.range.end)
                }
                _ => parts.push(part),
            }
        }
        Ok(parts)
    }
}

/// Resolves once this process has been at work for so long: while it is stopped, or the machine sleeps, nobody could
/// have fetched anything, and all of that counts as one step.
pub(super) async fn at_work_for(time: Duration) {
    for _ in 0..STEPS {
        tokio::time::sleep(time / STEPS).await;
    }
}

impl Part {
    fn joins(&self, next: Self) -> bool {
        let touching = next.range.start >= self.range.start && next.range.start <= self.range.end;
        self.space == next.space && touching
    }
}

fn whole_groups(range: ByteRange) -> ByteRange {
    let groups = range.groups();
    ByteRange::at(groups.first * GROUP_BYTES, groups.count.saturating_mul(GROUP_BYTES))
}
