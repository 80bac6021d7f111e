//! From the first service to a clean exit.
//!
//! Services start in the order in which they are named and stop in reverse: each is cancelled, then
//! waited for, then dropped. They share one deadline, and each may use an equal share of what the
//! ones before it left, so that a stubborn one cannot take the time of the store below it. The process stops at SIGTERM
//! or SIGINT (at SIGHUP too where it was started at a terminal, which is closed then), when a task that it cannot live
//! without fails, or when it is asked to; a SIGTERM or SIGINT while it stops ends the wait at once.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use rustix::process::{self, Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

mod notify;
mod threads;
mod tracker;

pub use notify::{NotifyError, notify, notify_at};
pub use tracker::{Backoff, OnFailure, TaskError, TaskFailure, Tracker, jittered};

/// How a process ended otherwise than cleanly.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// A task failed that the process cannot live without.
    #[error("stopped because of a failure")]
    Failed(#[from] TaskFailure),
    /// Services did not stop within the deadline and were dropped.
    #[error("not stopped within {deadline:?}: {}", services.join(", "))]
    StillRunning {
        /// The services, in the order in which they were asked.
        services: Vec<&'static str>,
        /// What they had in all.
        deadline: Duration,
    },
    /// A second signal came while the process was stopping.
    #[error("interrupted while stopping")]
    Interrupted,
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
}

/// The services of a process, in order.
#[derive(Debug)]
pub struct Lifecycle {
    services: Vec<Tracker>,
    signals: Signals,
    failures: mpsc::Receiver<TaskFailure>,
    report: mpsc::Sender<TaskFailure>,
    asked: CancellationToken,
    failed: CancellationToken,
    deadline: Duration,
}

/// Asks the process to stop, from anywhere in it.
#[derive(Debug, Clone)]
pub struct Stopper(CancellationToken);

impl Stopper {
    /// Stops the process as a signal would.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

enum End {
    Signal(&'static str),
    Failure(TaskFailure),
    Asked,
}

impl Lifecycle {
    /// From now on signals are received; those that come before [`run`](Self::run) end it at its
    /// start. Stopping all services may take `deadline` together. Needs a runtime.
    pub fn new(deadline: Duration) -> Result<Self, LifecycleError> {
        raise_open_files();
        let (report, failures) = mpsc::channel(1);
        Ok(Self {
            services: Vec::new(),
            signals: Signals::listen().map_err(LifecycleError::Signals)?,
            failures,
            report,
            asked: CancellationToken::new(),
            failed: CancellationToken::new(),
            deadline,
        })
    }

    /// The next service: stopped before all that were named earlier. Its tasks go into the tracker.
    pub fn service(&mut self, name: &'static str) -> Tracker {
        let tracker = Tracker::new(name, self.report.clone());
        self.services.push(tracker.clone());
        tracker
    }

    /// Fires before the services are stopped where that is for a failure, and nobody has asked for it.
    pub fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }

    /// A handle to end [`run`](Self::run).
    pub fn stopper(&self) -> Stopper {
        Stopper(self.asked.clone())
    }

    /// Says that the process is ready (to systemd, if it listens), waits for a reason to stop, and
    /// stops. `Ok` after a signal or a request, if everything stopped in time.
    pub async fn run(mut self) -> Result<(), LifecycleError> {
        tell("READY=1");
        let end = self.end().await;
        tell("STOPPING=1");
        match end {
            End::Signal(name) => tracing::info!(signal = name, "stopping"),
            End::Asked => tracing::info!("stopping as asked"),
            End::Failure(failure) => {
                if let Err(error) = self.fail().await {
                    tracing::warn!(%error, "the failed process did not stop cleanly either");
                }
                return Err(failure.into());
            }
        }
        self.stop().await
    }

    async fn end(&mut self) -> End {
        tokio::select! {
            biased;
            Some(failure) = self.failures.recv() => End::Failure(failure),
            name = self.signals.next() => End::Signal(name),
            () = self.asked.cancelled() => End::Asked,
        }
    }

    /// Stops what was started so far, because something failed: the start, or what the process cannot live without.
    pub async fn fail(self) -> Result<(), LifecycleError> {
        self.failed.cancel();
        self.stop().await
    }

    /// Stops what was started so far, in reverse.
    pub async fn stop(mut self) -> Result<(), LifecycleError> {
        let until = Instant::now() + self.deadline;
        let mut late = Vec::new();
        while let Some(service) = self.services.pop() {
            let now = Instant::now();
            let left = u32::try_from(self.services.len() + 1).unwrap_or(u32::MAX);
            let share = until.saturating_duration_since(now) / left;
            tokio::select! {
                stopped = service.stop(now + share) => {
                    if !stopped {
                        late.push(service.name());
                    }
                }
                () = self.signals.again() => return Err(LifecycleError::Interrupted),
            }
        }
        if late.is_empty() {
            return Ok(());
        }
        Err(LifecycleError::StillRunning { services: late, deadline: self.deadline })
    }
}

/// Takes as many open files as the process may have: every open task holds some, and shells give 1024.
pub fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the number of open files stays as it was");
    }
}

/// A runtime with so many workers, or fewer where the control group allows few threads: some are left for mounts and
/// helpers.
pub fn runtime(workers: usize) -> tokio::runtime::Builder {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let share = threads::share_of(workers);
    runtime.worker_threads(share.workers).max_blocking_threads(share.blocking).enable_all();
    runtime
}

/// Runs a process's `main` on a runtime of its own. Returns when `main` does: what still runs then
/// (a blocking call, a task outside of any tracker) is left behind, so that the exit is at once.
pub fn block_on<F: Future>(main: F) -> io::Result<F::Output> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = runtime(cores).build()?;
    let output = runtime.block_on(main);
    runtime.shutdown_background();
    Ok(output)
}

fn tell(state: &str) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, state, "the service manager was not told");
    }
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    is_at_terminal: bool,
}

impl Signals {
    /// From now on what others take for "read your configuration again" or "write down how you are" ends nothing.
    fn listen() -> io::Result<Self> {
        let others = [process::Signal::VTALARM, process::Signal::PROF, process::Signal::POWER]
            .map(|signal| SignalKind::from_raw(signal.as_raw()));
        let users = [SignalKind::user_defined1(), SignalKind::user_defined2()];
        for kind in [SignalKind::alarm(), SignalKind::io()].into_iter().chain(users).chain(others) {
            // The handler stays for as long as the process.
            drop(signal(kind)?);
        }
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            is_at_terminal: io::stdin().is_terminal(),
        })
    }

    /// Somebody insists. A terminal that is closed tells that more than once.
    async fn again(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => if self.is_at_terminal {
                    return "SIGHUP";
                },
            }
            tracing::info!("SIGHUP changes nothing: the configuration is read at the start");
        }
    }
}

impl Tracker {
    /// Cancels the tasks and waits for them; those that are not done at `until` are dropped and
    /// the answer is false.
    async fn stop(&self, until: Instant) -> bool {
        self.cancel();
        if timeout_at(until, self.finished()).await.is_ok() {
            return true;
        }
        self.drop_tasks();
        self.finished().await;
        false
    }
}

#[cfg(test)]
mod tests;
