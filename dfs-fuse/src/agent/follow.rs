//! Keeps a mount at what its target names: it is looked up now and then, and where it is another version the mount
//! switches to that.
//!
//! One task for each mount that follows. Nobody waits for it: where the target cannot be looked up, or what it names cannot
//! be shown, the mount goes on with what it has, and says so. What the kernel must know for a switch is
//! [`Switcher`]'s business, what the next agent must know lies in the mount's record; here is lost when the
//! target was looked up last.

mod same;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dfs_peer::engine::Engine;
use dfs_peer::error_chain;
use dfs_peer::opener::{Freshness, OpenArtifact, OpenUrlError, Purpose};
use dfs_service::lifecycle::jittered;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::kept;
use super::mounts::{MountTableError, Now, Showing, Shown, tree_of, whole_tree};
use super::prefetch::Prefetch;
use crate::core::{Generation, Snapshot};
use crate::mount::{Next, SwitchError, Switcher};

/// A mount does not look more often.
pub const OFTENEST: Duration = Duration::from_secs(1);

/// Who fails waits longer and longer, to at most so many times as long, and no longer than [`LONGEST`] unless it looks
/// less often anyway.
const TIMES: u32 = 32;
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Where a reader finds that the origin has another version it is looked up at once, but not more often than this.
const OUTDATED: Duration = Duration::from_secs(5);

/// How long a look may take: as long as a listing may that is as large as one can be.
const LOOK: Duration = Duration::from_secs(30 * 60);

/// Who waits for the target to be looked up; more wait to be heard.
const WAITING: usize = 16;

/// How a mount follows, as the next agent must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Following {
    /// How often the target is looked up.
    pub every: Duration,
    /// How often the mount has switched.
    pub switches: u64,
    /// When it did the last time.
    pub switched: Option<SystemTime>,
}

impl Following {
    /// From now on.
    pub fn every(every: Duration) -> Self {
        Self { every, switches: 0, switched: None }
    }

    /// After one more switch.
    fn switched_now(self) -> Self {
        let switched = Some(SystemTime::now());
        Self { switches: self.switches + 1, switched, ..self }
    }
}

/// Why a mount does not show what its target names.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The target cannot be looked up.
    #[error(transparent)]
    Open(#[from] OpenUrlError),
    /// It was not looked up in time.
    #[error("the target was not looked up within {} minutes", LOOK.as_secs() / 60)]
    Late,
    /// What it names cannot be shown.
    #[error(transparent)]
    Mount(#[from] MountTableError),
    /// The mount cannot switch.
    #[error(transparent)]
    Switch(#[from] SwitchError),
}

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// The target names what is shown.
    Same,
    /// It named something else, which is shown now.
    Switched,
}

type Outcome = Result<Looked, Arc<FollowError>>;

/// What all followers of an agent did.
#[derive(Debug, Default)]
pub struct FollowCounts {
    /// Switches.
    pub switches: AtomicU64,
    /// Times that a target could not be looked up, or what it names not be shown.
    pub failures: AtomicU64,
}

/// How a mount keeps up, for whoever wants to know.
#[derive(Debug, Clone)]
pub struct FollowView {
    /// How it follows.
    pub following: Following,
    /// When its target was looked up last with success.
    pub looked: Option<SystemTime>,
    /// Why it could not be, and since when.
    pub failing: Option<(SystemTime, String)>,
    /// Versions that are in use beside the one that is shown.
    pub earlier: usize,
    /// Whether the target names one version.
    pub never_changes: bool,
}

#[derive(Debug, Default)]
struct Seen {
    looked: Option<SystemTime>,
    failing: Option<(SystemTime, String)>,
}

/// A handle on the follower of a mount.
pub struct Follow {
    seen: Mutex<Seen>,
    switcher: Switcher,
    asking: mpsc::Sender<Asker>,
}

/// Who waits for what comes of a look.
type Asker = oneshot::Sender<Outcome>;

impl Follow {
    /// What is to be seen of it, of a mount that shows `shown`.
    pub(super) fn view(&self, shown: &Shown) -> Option<FollowView> {
        let following = shown.what().following?;
        let Seen { looked, failing } = &*self.seen.lock();
        Some(FollowView {
            following,
            looked: *looked,
            failing: failing.clone(),
            earlier: self.switcher.earlier(),
            never_changes: names_one_version(&shown.what().opened),
        })
    }

    /// Looks the target up now. `None` where the mount ends.
    pub async fn look_now(&self) -> Option<Outcome> {
        let (answer, answered) = oneshot::channel();
        self.asking.send(answer).await.ok()?;
        answered.await.ok()
    }

    fn note(&self, outcome: &Outcome) {
        let mut seen = self.seen.lock();
        match outcome {
            Ok(_) => *seen = Seen { looked: Some(SystemTime::now()), failing: None },
            Err(error) => {
                let since = seen.failing.take().map_or_else(SystemTime::now, |(since, _)| since);
                seen.failing = Some((since, error_chain(&**error)));
            }
        }
    }
}

/// Whether a target names one version and no other ever: it is of an object store's version.
fn names_one_version(opened: &OpenArtifact) -> bool {
    let url = opened.target.url.url();
    url.scheme() == "s3" && url.query_pairs().any(|(name, _)| name == "versionId")
}

/// See the module.
pub(super) struct Follower {
    pub engine: Engine,
    pub showing: Showing,
    pub counts: Arc<FollowCounts>,
    switcher: Switcher,
    follow: Arc<Follow>,
    reasons: Reasons,
}

impl Follower {
    /// One that has `showing` follow its target by `switcher`.
    pub fn new(
        engine: Engine,
        showing: Showing,
        counts: Arc<FollowCounts>,
        switcher: Switcher,
    ) -> Self {
        let (asking, asked) = mpsc::channel(WAITING);
        let (seen, by) = (Mutex::default(), switcher.clone());
        let follow = Arc::new(Follow { seen, switcher: by, asking });
        let reasons = Reasons { asked, is_outdated: false };
        Self { engine, showing, counts, switcher, follow, reasons }
    }

    /// What others have of it.
    pub fn handle(&self) -> Arc<Follow> {
        Arc::clone(&self.follow)
    }

    /// Follows. Does not end by itself.
    pub async fn run(mut self, following: Following) {
        let mut failures = 0;
        loop {
            let askers = self.rest(wait(following.every, failures), failures).await;
            let freshness = self.reasons.freshness(&askers, following.every);
            let outcome = self.look(freshness).await.map_err(Arc::new);
            self.follow.note(&outcome);
            failures = if outcome.is_ok() { 0 } else { failures + 1 };
            self.reasons.is_outdated &= outcome.is_err();
            match &outcome {
                Ok(Looked::Same) => {}
                Ok(Looked::Switched) => drop(self.counts.switches.fetch_add(1, Ordering::Relaxed)),
                Err(_) => drop(self.counts.failures.fetch_add(1, Ordering::Relaxed)),
            }
            for asker in askers {
                // Who does not wait any more need not be told.
                let _ = asker.send(outcome.clone());
            }
        }
    }

    /// Waits until there is a reason to look; who is to be told what comes of it.
    async fn rest(&mut self, time: Duration, failures: u32) -> Vec<Asker> {
        let begun = Instant::now();
        let soon = if failures == 0 { OUTDATED.min(time) } else { time };
        loop {
            let switcher = &self.switcher;
            let reason = self.reasons.next(begun + time, begun + soon, move || switcher.outdated());
            tokio::select! {
                askers = reason => return askers,
                () = switcher.released() => self.note_released().await,
            }
        }
    }

    async fn note_released(&self) {
        let switcher = self.switcher.clone();
        let noted = tokio::task::spawn_blocking(move || switcher.note_released()).await;
        if let Ok(Err(error)) = noted {
            // The next agent holds on to what nobody uses.
            tracing::warn!(%error, "what a mount has let go is not written down");
        }
    }

    async fn look(&self, freshness: Freshness) -> Result<Looked, FollowError> {
        let before = self.showing.shown();
        let what = before.what();
        let opening =
            self.engine.open_url(&what.opened.target, what.view, freshness, Purpose::Look);
        let opened = timeout(LOOK, opening).await.map_err(|_| FollowError::Late)??;
        let index_of = |opened: &OpenArtifact| opened.index.as_ref().map(|index| index.task.id());
        if index_of(&opened) == index_of(&what.opened) {
            return Ok(Looked::Same);
        }
        let (showing, switcher) = (self.showing.clone(), self.switcher.clone());
        let switching = tokio::task::spawn_blocking(move || show(&showing, &switcher, opened));
        switching.await.map_err(|_| MountTableError::Stopping)??;
        Ok(Looked::Switched)
    }
}

/// Why a target is looked up, beside that it is time.
struct Reasons {
    /// Who wants to know.
    asked: mpsc::Receiver<Asker>,
    /// Whether a reader found that the origin has another version, and it was not looked up with success since.
    is_outdated: bool,
}

impl Reasons {
    /// Resolves when it is time (`due`), `soon` where a reader finds that the origin has another version, or at once when
    /// somebody wants to know: with all who do by now.
    async fn next<F: Future<Output = ()>>(
        &mut self,
        due: Instant,
        soon: Instant,
        outdated: impl Fn() -> F,
    ) -> Vec<Asker> {
        let first = loop {
            tokio::select! {
                () = sleep_until(due) => break None,
                () = sleep_until(soon), if self.is_outdated => break None,
                () = outdated(), if !self.is_outdated => self.is_outdated = true,
                Some(asker) = self.asked.recv() => break Some(asker),
            }
        };
        let mut askers = Vec::from_iter(first);
        // One look is enough for all of them.
        while let Ok(asker) = self.asked.try_recv() {
            askers.push(asker);
        }
        askers
    }

    /// How old an answer may be.
    fn freshness(&self, askers: &[Asker], every: Duration) -> Freshness {
        match askers {
            [] if !self.is_outdated => Freshness::Within(every / 2),
            _ => Freshness::Asked,
        }
    }
}

/// How long it waits after so many failures in a row: about as long as it should, never longer.
fn wait(every: Duration, failures: u32) -> Duration {
    let times = 1_u32.checked_shl(failures).unwrap_or(TIMES).min(TIMES);
    jittered(every.saturating_mul(times).min(LONGEST.max(every)))
}

/// Has a mount show `opened`. Blocks.
fn show(showing: &Showing, switcher: &Switcher, opened: OpenArtifact) -> Result<(), FollowError> {
    let before = showing.shown();
    let mut what = before.what().of_another_version(opened);
    what.following = what.following.map(Following::switched_now);
    let whole = whole_tree(&what.opened)?;
    let content = showing.content(&what)?;
    let (tree, footprint) = tree_of(whole, &what.path)?;
    let watching = showing.watch(&what)?;
    let prefetch = Prefetch::new(what.prefetch, Arc::clone(watching.watched()), &content);
    let snapshot = Snapshot {
        // It gets its own.
        generation: Generation::FIRST,
        tree,
        content: content.clone(),
        recorder: Some(Arc::clone(watching.watched().recorder())),
    };
    let same = same::bytes(&before.what().opened, &what.opened);
    let generation = switcher.show(Next { snapshot, shown: kept::shown(&what), same: &same })?;
    tracing::info!(url = %what.opened.target.url, generation = generation.number(), "a mount switched");
    let shown = before.of_another_version(what, footprint, prefetch);
    // The run of what was shown ends.
    drop(showing.put(Now::new(shown, content, watching)));
    if let Err(error) = showing.remember() {
        tracing::warn!(%error, "what a mount switched to is not remembered");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_looks_less_often_and_nobody_never() {
        let minute = Duration::from_secs(60);
        let within = |failures, least: Duration, most: Duration| {
            let waits = (0..100).map(|_| wait(minute, failures));
            waits.into_iter().all(|wait| wait >= least && wait <= most)
        };
        assert!(within(0, minute / 2, minute));
        assert!(within(1, minute, 2 * minute));
        assert!(within(200, LONGEST / 2, LONGEST));
        let seldom = Duration::from_secs(24 * 3600);
        assert!(wait(seldom, 7) <= seldom && wait(seldom, 7) >= seldom / 2);
    }

    fn reasons() -> (mpsc::Sender<Asker>, Reasons) {
        let (asking, asked) = mpsc::channel(WAITING);
        (asking, Reasons { asked, is_outdated: false })
    }

    #[tokio::test]
    async fn whoever_asks_before_a_look_begins_is_told_what_comes_of_that() {
        let (asking, mut reasons) = reasons();
        let later = Instant::now() + LOOK;
        for _ in 0..3 {
            asking.try_send(oneshot::channel().0).unwrap();
        }
        let askers = reasons.next(later, later, std::future::pending::<()>).await;
        assert_eq!(askers.len(), 3, "one look for all of them");
        let minute = Duration::from_secs(60);
        assert_eq!(reasons.freshness(&askers, minute), Freshness::Asked);
        assert_eq!(reasons.freshness(&[], minute), Freshness::Within(minute / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_reader_found_is_remembered_until_the_target_was_looked_up() {
        let (_asking, mut reasons) = reasons();
        let found = tokio::sync::Notify::new();
        found.notify_one();
        let (now, minute) = (Instant::now(), Duration::from_secs(60));
        let next = async |reasons: &mut Reasons, due, soon| {
            let askers = reasons.next(due, soon, || found.notified()).await;
            assert!(askers.is_empty());
            Instant::now() - now
        };
        // Something else happened first.
        let second = Duration::from_secs(1);
        assert_eq!(next(&mut reasons, now + second, now + OUTDATED).await, second);
        assert!(reasons.is_outdated);
        assert_eq!(reasons.freshness(&[], minute), Freshness::Asked, "no earlier answer will do");
        assert_eq!(next(&mut reasons, now + minute, now + OUTDATED).await, OUTDATED);
        reasons.is_outdated = false;
        assert_eq!(next(&mut reasons, now + minute, now + OUTDATED).await, minute);
    }
}
