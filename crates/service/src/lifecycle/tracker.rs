//! The tasks of one service: who cancels them, and what their failure does.
//!
//! Cancelling is a request: a task watches [`Tracker::token`] and ends in its own order. A panic is
//! a failure like any other.

use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a task may fail with.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// A task that failed.
#[derive(Debug, thiserror::Error)]
#[error("task {task} of {service} failed")]
pub struct TaskFailure {
    /// The service it belonged to.
    pub service: &'static str,
    /// Its name.
    pub task: &'static str,
    /// Why.
    pub source: TaskError,
}

#[derive(Debug, thiserror::Error)]
#[error("it panicked: {0}")]
struct Panicked(String);

/// What the failure of a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The process stops, with this failure as its reason.
    StopProcess,
    /// It is logged.
    Report,
}

/// How long to wait before something is tried again: doubled after every failure. For a task that is started again it is
/// back to the first once a run has lasted as long as the longest wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), max: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row (at least one), before jitter.
    pub fn after(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }
}

/// The tasks of one service. Clones share them.
#[derive(Debug, Clone)]
pub struct Tracker {
    name: &'static str,
    tasks: TaskTracker,
    cancelled: CancellationToken,
    dropped: CancellationToken,
    report: mpsc::Sender<TaskFailure>,
}

impl Tracker {
    pub(super) fn new(name: &'static str, report: mpsc::Sender<TaskFailure>) -> Self {
        Self {
            name,
            tasks: TaskTracker::new(),
            cancelled: CancellationToken::new(),
            dropped: CancellationToken::new(),
            report,
        }
    }

    /// The service's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Cancelled when the service is to stop. Parts that may end earlier take a child of it.
    pub fn token(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// The bare tracker, for a room that keeps its own tasks and takes tracker and token: the
    /// service waits for them, but their failures are theirs to handle and they cannot be dropped.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Runs `work` as a task of this service. Its ending well is no event.
    pub fn spawn<F, E>(&self, task: &'static str, on_failure: OnFailure, work: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError>,
    {
        let tracker = self.clone();
        self.keep(async move {
            let Err(source) = outcome(work).await else { return };
            let failure = TaskFailure { service: tracker.name, task, source };
            match on_failure {
                OnFailure::StopProcess => tracker.stop_process(failure),
                OnFailure::Report => log(&failure, "a task failed"),
            }
        });
    }

    /// Runs what `make` gives as a task, and again after every failure, until it ends well or the
    /// service stops.
    pub fn spawn_restarting<M, F, E>(&self, task: &'static str, backoff: Backoff, mut make: M)
    where
        M: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError>,
    {
        let tracker = self.clone();
        self.keep(async move {
            let mut failures = 0;
            loop {
                let started = Instant::now();
                let Err(source) = outcome(make()).await else { return };
                failures = if started.elapsed() >= backoff.max { 1 } else { failures + 1 };
                let wait = jittered(backoff.after(failures));
                if tracker.cancelled.is_cancelled() {
                    return;
                }
                warn_of_restart(&TaskFailure { service: tracker.name, task, source });
                let pause = tokio::time::sleep(wait);
                if tracker.cancelled.run_until_cancelled(pause).await.is_none() {
                    return;
                }
            }
        });
    }

    fn keep(&self, work: impl Future<Output = ()> + Send + 'static) {
        let dropped = self.dropped.clone();
        self.tasks.spawn(async move {
            dropped.run_until_cancelled(work).await;
        });
    }

    fn stop_process(&self, failure: TaskFailure) {
        // The first failure is the reason; those that follow from it are only told.
        if let Err(
            mpsc::error::TrySendError::Full(failure) | mpsc::error::TrySendError::Closed(failure),
        ) = self.report.try_send(failure)
        {
            log(&failure, "a task failed while the process stops");
        }
    }

    pub(super) fn cancel(&self) {
        self.tasks.close();
        self.cancelled.cancel();
    }

    pub(super) fn drop_tasks(&self) {
        self.dropped.cancel();
    }

    pub(super) async fn finished(&self) {
        self.tasks.wait().await;
    }
}

async fn outcome<F, E>(work: F) -> Result<(), TaskError>
where
    F: Future<Output = Result<(), E>>,
    E: Into<TaskError>,
{
    // What a panic may have left half-done belongs to the task and goes with it.
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result.map_err(Into::into),
        Err(panic) => Err(Panicked(message(panic.as_ref())).into()),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// What goes on all the same.
fn warn_of_restart(failure: &TaskFailure) {
    let error: &(dyn Error + 'static) = failure.source.as_ref();
    tracing::warn!(service = failure.service, task = failure.task, error, "a task starts again");
}

fn log(failure: &TaskFailure, what: &str) {
    let error: &(dyn Error + 'static) = failure.source.as_ref();
    tracing::error!(service = failure.service, task = failure.task, error, "{what}");
}

/// Between half and the whole of `wait`, so that many do not come back together.
pub fn jittered(wait: Duration) -> Duration {
    let share = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    wait.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(5) };
        let waits: Vec<_> = (1..=4).map(|failures| backoff.after(failures).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5]);
        assert_eq!(backoff.after(u32::MAX), backoff.max);
        let wait = jittered(Duration::from_secs(2));
        assert!((Duration::from_secs(1)..=Duration::from_secs(2)).contains(&wait));
    }
}
