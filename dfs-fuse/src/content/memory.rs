//! Content in memory, and what makes it slow or failing: the three that tests of everything above use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_model::{ByteRange, GroupSet, Priority, TaskId, groups_in};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Content, ContentError, ContentErrorClass};

/// Spaces in memory; groups become present when they are fetched.
#[derive(Clone)]
pub struct MemoryContent {
    state: Arc<State>,
}

struct State {
    spaces: Vec<Space>,
    fetches: Mutex<Vec<Fetch>>,
    streams: Mutex<Vec<(u16, ByteRange)>>,
}

struct Space {
    bytes: Vec<u8>,
    present: Mutex<GroupSet>,
}

type Fetch = (u16, ByteRange, Priority);

impl MemoryContent {
    /// Spaces of which every group is present.
    pub fn cached(spaces: Vec<Vec<u8>>) -> Self {
        Self::with(spaces, |bytes| GroupSet::full(groups_in(bytes.len() as u64)))
    }

    /// Spaces of which no group is present.
    pub fn missing(spaces: Vec<Vec<u8>>) -> Self {
        Self::with(spaces, |_| GroupSet::new())
    }

    fn with(spaces: Vec<Vec<u8>>, present: impl Fn(&[u8]) -> GroupSet) -> Self {
        let spaces = spaces
            .into_iter()
            .map(|bytes| Space { present: Mutex::new(present(&bytes)), bytes })
            .collect();
        Self {
            state: Arc::new(State { spaces, fetches: Mutex::default(), streams: Mutex::default() }),
        }
    }

    /// Forgets the groups of `range`, as a full store does.
    pub fn evict(&self, space: u16, range: ByteRange) {
        if let Ok(space) = self.space(space) {
            space.present.lock().remove_range(space.clip(range).groups());
        }
    }

    /// The fetches that found something missing, in order.
    pub fn fetches(&self) -> Vec<(u16, ByteRange, Priority)> {
        self.state.fetches.lock().clone()
    }

    /// What readers were said to read next, in order.
    pub fn streams(&self) -> Vec<(u16, ByteRange)> {
        self.state.streams.lock().clone()
    }

    fn space(&self, space: u16) -> Result<&Space, ContentError> {
        self.state.spaces.get(usize::from(space)).ok_or_else(|| {
            ContentError::new(ContentErrorClass::Io, format!("there is no space {space}"))
        })
    }
}

impl Space {
    fn clip(&self, range: ByteRange) -> ByteRange {
        range.intersection(ByteRange::new(0, self.bytes.len() as u64))
    }

    fn has(&self, range: ByteRange) -> bool {
        self.present.lock().contains_all(self.clip(range).groups())
    }
}

impl Content for MemoryContent {
    fn try_read(
        &self,
        space: u16,
        offset: u64,
        buf: &mut [u8],
    ) -> Option<Result<(), ContentError>> {
        let space = match self.space(space) {
            Ok(space) => space,
            Err(error) => return Some(Err(error)),
        };
        let range = ByteRange::at(offset, buf.len() as u64);
        if space.clip(range) != range {
            let reason = format!("{range} is beyond the end of the space");
            return Some(Err(ContentError::new(ContentErrorClass::Io, reason)));
        }
        if !space.has(range) {
            return None;
        }
        buf.copy_from_slice(&space.bytes[range.start as usize..range.end as usize]);
        Some(Ok(()))
    }

    fn present(&self, space: u16, range: ByteRange) -> bool {
        self.space(space).is_ok_and(|space| space.has(range))
    }

    fn fetch(
        &self,
        space: u16,
        range: ByteRange,
        priority: Priority,
    ) -> BoxFuture<'static, Result<(), ContentError>> {
        let content = self.clone();
        async move {
            let found = content.space(space)?;
            let groups = found.clip(range).groups();
            let mut present = found.present.lock();
            if !present.contains_all(groups) {
                content.state.fetches.lock().push((space, range, priority));
                present.insert_range(groups);
            }
            Ok(())
        }
        .boxed()
    }

    fn reads_next(&self, space: u16, range: ByteRange) {
        self.state.streams.lock().push((space, range));
    }

    fn length(&self, space: u16) -> Option<u64> {
        self.space(space).ok().map(|space| space.bytes.len() as u64)
    }

    fn cached(&self, space: u16, range: ByteRange) -> Vec<ByteRange> {
        let Ok(space) = self.space(space) else { return Vec::new() };
        let range = space.clip(range);
        let present = space.present.lock();
        let runs = present.present_in(range.groups());
        runs.map(|run| run.bytes(space.bytes.len() as u64).intersection(range)).collect()
    }

    fn task(&self, space: u16) -> Option<TaskId> {
        let mut id = [0; TaskId::LEN];
        id[..2].copy_from_slice(&space.to_be_bytes());
        self.space(space).is_ok().then(|| TaskId::from_bytes(id))
    }
}

type Fetching = BoxFuture<'static, Result<(), ContentError>>;

/// What happens to fetches on their way.
pub trait Passage: Send + Sync + 'static {
    /// What becomes of a fetch.
    fn pass(&self, fetch: Fetching) -> Fetching;
}

/// Content whose fetches go through a passage.
pub struct Behind<C, P> {
    inner: C,
    passage: Arc<P>,
}

impl<C: Clone, P> Clone for Behind<C, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), passage: Arc::clone(&self.passage) }
    }
}

impl<C: Content, P: Passage> Content for Behind<C, P> {
    fn try_read(
        &self,
        space: u16,
        offset: u64,
        buf: &mut [u8],
    ) -> Option<Result<(), ContentError>> {
        self.inner.try_read(space, offset, buf)
    }

    fn present(&self, space: u16, range: ByteRange) -> bool {
        self.inner.present(space, range)
    }

    fn fetch(&self, space: u16, range: ByteRange, priority: Priority) -> Fetching {
        self.passage.pass(self.inner.fetch(space, range, priority))
    }

    fn length(&self, space: u16) -> Option<u64> {
        self.inner.length(space)
    }

    fn cached(&self, space: u16, range: ByteRange) -> Vec<ByteRange> {
        self.inner.cached(space, range)
    }

    fn task(&self, space: u16) -> Option<TaskId> {
        self.inner.task(space)
    }
}

/// Lets no fetch pass before it is opened.
pub struct Gate {
    open: watch::Sender<bool>,
    asked: AtomicU64,
}

impl Passage for Gate {
    fn pass(&self, fetch: Fetching) -> Fetching {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut gate = self.open.subscribe();
        async move {
            let opened = gate.wait_for(|open| *open).await.is_ok();
            if !opened {
                let reason = "the gate was taken away";
                return Err(ContentError::new(ContentErrorClass::Io, reason));
            }
            fetch.await
        }
        .boxed()
    }
}

/// Content behind a gate.
pub type SlowContent<C> = Behind<C, Gate>;

impl<C: Content> SlowContent<C> {
    /// `inner` behind a closed gate.
    pub fn new(inner: C) -> Self {
        let gate = Gate { open: watch::Sender::new(false), asked: AtomicU64::new(0) };
        Self { inner, passage: Arc::new(gate) }
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.passage.open.send_replace(true);
    }

    /// Number of fetches that came to the gate.
    pub fn asked(&self) -> u64 {
        self.passage.asked.load(Ordering::SeqCst)
    }
}

/// Fails every fetch with one error until it is healed.
pub struct Failing {
    error: Mutex<Option<ContentError>>,
    failed: AtomicU64,
}

impl Passage for Failing {
    fn pass(&self, fetch: Fetching) -> Fetching {
        let Some(error) = self.error.lock().clone() else { return fetch };
        self.failed.fetch_add(1, Ordering::SeqCst);
        futures::future::ready(Err(error)).boxed()
    }
}

/// Content that cannot be fetched.
pub type FailingContent<C> = Behind<C, Failing>;

impl<C: Content> FailingContent<C> {
    /// `inner`, failing with `error`.
    pub fn new(inner: C, error: ContentError) -> Self {
        let failing = Failing { error: Mutex::new(Some(error)), failed: AtomicU64::new(0) };
        Self { inner, passage: Arc::new(failing) }
    }

    /// Fails no more.
    pub fn heal(&self) {
        *self.passage.error.lock() = None;
    }

    /// Number of fetches that failed.
    pub fn failed(&self) -> u64 {
        self.passage.failed.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::GROUP_BYTES;

    use super::*;

    #[test]
    fn what_was_fetched_is_there_and_nothing_else() {
        let content = MemoryContent::missing(vec![vec![7; 3 * GROUP_BYTES as usize - 5]]);
        let mut buf = [0; 10];
        assert_eq!(content.try_read(0, GROUP_BYTES, &mut buf), None);
        let range = ByteRange::new(GROUP_BYTES, 9 * GROUP_BYTES);
        content.fetch(0, range, Priority::Demand).now_or_never().unwrap().unwrap();
        assert_eq!(content.try_read(0, GROUP_BYTES, &mut buf), Some(Ok(())));
        assert_eq!(buf, [7; 10]);
        let here = content.cached(0, ByteRange::new(0, u64::MAX));
        assert_eq!(here, [ByteRange::new(GROUP_BYTES, 3 * GROUP_BYTES - 5)]);
        assert_eq!(content.fetches().len(), 1);
        content.fetch(0, range, Priority::Demand).now_or_never().unwrap().unwrap();
        assert_eq!(content.fetches().len(), 1);
    }

    #[test]
    fn beyond_the_end_is_an_error_not_a_panic() {
        let content = MemoryContent::cached(vec![vec![1; 10]]);
        for (space, offset) in [(0, 5), (0, u64::MAX - 3), (9, 0)] {
            let answer = content.try_read(space, offset, &mut [0; 8]);
            assert!(matches!(answer, Some(Err(_))), "{space} {offset}: {answer:?}");
        }
    }
}
