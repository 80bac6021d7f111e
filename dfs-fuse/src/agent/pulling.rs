//! All that an image shows, fetched into the cache while somebody waits for it.
//!
//! It is what a mount of it would read, and nothing else that its layers have: what upper ones hide stays where it is. Who
//! goes away ends it; what came stays, as anything that was read.

use std::sync::Arc;
use std::time::Duration;

use dfs_model::{ByteRange, Priority};
use dfs_peer::engine::{Ledger, Mark, Task};
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::{StoreError, UseGuard};
use dfs_proto::node::PullProgress;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::api::views::ledger;
use super::needs::{Needed, Needs};
use super::{Agent, CallError, MountTableError};

/// Bytes that are waited for at a time, and how many such waits there are at once.
const STEP: u64 = 16 << 20;
const AT_ONCE: usize = 6;

/// How often it is told how it goes.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// A task, what of it is wanted, and where its account begins.
struct Wanted {
    task: Task,
    needed: Needed,
    mark: Mark,
}

/// What is fetched; nothing of it goes meanwhile.
struct Pull {
    wanted: Vec<Wanted>,
    bytes: u64,
    _opened: Arc<OpenArtifact>,
    _in_use: Vec<UseGuard>,
}

impl Pull {
    fn of(
        needs: Needs,
        opened: Arc<OpenArtifact>,
        in_use: Vec<UseGuard>,
    ) -> Result<Self, CallError> {
        let index = opened.index.iter().map(|index| &index.task);
        let all: Vec<Task> = opened.tasks.iter().chain(index).cloned().collect();
        let wanted = |needed: &Needed| {
            let task = all.iter().find(|task| task.id() == needed.task)?.clone();
            Some(Wanted { mark: task.mark(), task, needed: needed.clone() })
        };
        let wanted: Option<Vec<_>> = needs.tasks.iter().map(wanted).collect();
        let wanted = wanted.ok_or(MountTableError::NoTree)?;
        Ok(Self { wanted, bytes: needs.bytes(), _opened: opened, _in_use: in_use })
    }

    /// Fetches all of it.
    async fn fetch(&self, agent: &Agent) -> Result<(), CallError> {
        let fetching: Vec<_> = self.wanted.iter().flat_map(Wanted::steps).collect();
        let fetching = fetching
            .into_iter()
            .map(|(task, range)| async move { task.ensure(range, Priority::Bulk).await });
        let fetching = stream::iter(fetching).buffer_unordered(AT_ONCE);
        fetching.try_for_each(async |()| Ok(())).await?;
        // What went past a full store is not here.
        match self.wanted.iter().find(|wanted| wanted.here() < wanted.needed.bytes()) {
            None => Ok(()),
            Some(wanted) => {
                let store = agent.host().engine.store();
                let (task, dir) = (wanted.task.id(), store.place().to_owned());
                Err(StoreError::NoSpace { task, dir, limit: store.capacity() }.into())
            }
        }
    }

    fn progress(&self, complete: bool) -> PullProgress {
        let mut all = Ledger::default();
        self.wanted.iter().for_each(|wanted| all += &wanted.account());
        PullProgress {
            bytes: self.bytes,
            cached_bytes: self.wanted.iter().map(Wanted::here).sum(),
            ledger: Some(ledger(&all)),
            complete,
        }
    }
}

impl Wanted {
    /// What is waited for, one after the other.
    fn steps(&self) -> Vec<(Task, ByteRange)> {
        let runs = self.needed.groups.ranges().map(|run| run.bytes(self.needed.length));
        runs.flat_map(steps).map(|range| (self.task.clone(), range)).collect()
    }

    fn here(&self) -> u64 {
        self.needed.within(&self.task.stored().have()).map(|run| run.len()).sum()
    }

    fn account(&self) -> Ledger {
        self.task.account_since(&self.mark, self.needed.within(&self.task.stored().have()))
    }
}

fn steps(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let begins = (range.start..range.end).step_by(usize::try_from(STEP).unwrap_or(usize::MAX));
    begins.map(move |start| ByteRange::new(start, (start + STEP).min(range.end)))
}

/// How it goes, until all of it is here or cannot be had.
type Progress = BoxStream<'static, Result<PullProgress, CallError>>;

/// A pull under way: whoever waits again would have let go of what is asked for.
type Fetching = BoxFuture<'static, Result<(), CallError>>;

impl Agent {
    /// Fetches all that a mount of it would show.
    pub(super) async fn pull(
        &self,
        opened: Arc<OpenArtifact>,
        in_use: Vec<UseGuard>,
    ) -> Result<Progress, CallError> {
        let looked_at = Arc::clone(&opened);
        let looking = tokio::task::spawn_blocking(move || Needs::of(&looked_at, b""));
        let needs = looking.await.map_err(|_| MountTableError::Stopping)??;
        self.pins().check_room(&self.host().engine, &self.facts().data_dir, &needs)?;
        let pull = Arc::new(Pull::of(needs, opened, in_use)?);
        let (agent, fetched) = (self.clone(), Arc::clone(&pull));
        let fetching: Fetching = async move { fetched.fetch(&agent).await }.boxed();
        let first = pull.progress(false);
        let rest = stream::unfold(Some((pull, fetching)), async |under_way| {
            let (pull, mut fetching) = under_way?;
            match tokio::time::timeout(TELL_EVERY, &mut fetching).await {
                Err(_) => Some((Ok(pull.progress(false)), Some((pull, fetching)))),
                Ok(Ok(())) => Some((Ok(pull.progress(true)), None)),
                Ok(Err(error)) => Some((Err(error), None)),
            }
        });
        Ok(stream::iter([Ok(first)]).chain(rest).boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_waited_for_in_steps_that_have_all_of_it() {
        for (start, end) in [(0, 0), (5, 6), (1, STEP), (1, STEP + 1), (7, 3 * STEP + 9)] {
            let range = ByteRange::new(start, end);
            let all: Vec<_> = steps(range).collect();
            let mut at = start;
            for step in &all {
                assert_eq!(step.start, at);
                assert!(step.len() <= STEP && !step.is_empty());
                at = step.end;
            }
            assert_eq!(at, end);
        }
    }
}
