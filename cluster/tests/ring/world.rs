//! Machines in simulated time.
//!
//! Each has a runtime of its own on a paused clock, and is let run for a moment of simulated time after the other. A
//! moment ends when nothing is left to be done in it: work on threads is waited for, and takes no simulated time.
//! What crashes loses its runtime, whatever that was doing; what freezes is not let run, and finds out at once how
//! late it is.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dfs_service::data_dir::private_dir;
use dfs_service::{Lifecycle, Tracker};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tracing::Span;

use crate::network::{Card, Network};

/// How long a moment is while something is on its way, and while nothing is.
const MOMENT: Duration = Duration::from_millis(1);
const QUIET_MOMENT: Duration = Duration::from_millis(10);

/// What a crash waits for of the work on threads, in real time.
const CRASH_WITHIN: Duration = Duration::from_secs(60);

/// How long a machine may take to stop as it should.
pub const STOP_WITHIN: Duration = Duration::from_secs(8);

/// Simulated milliseconds, for the log.
pub static NOW: AtomicU64 = AtomicU64::new(0);

/// Number of a machine.
pub type Which = usize;

/// A machine that runs what a `T` says.
pub struct Machine<T> {
    /// For people.
    pub name: String,
    /// Where it is.
    pub ip: IpAddr,
    /// Its disk.
    pub dir: PathBuf,
    /// What runs there; nothing after a crash.
    pub running: Option<Running<T>>,
    /// Whether it is not let run.
    is_frozen: bool,
    /// Most tasks that it had.
    pub most_tasks: usize,
}

/// A machine's process.
pub struct Running<T> {
    /// What can be seen of it.
    pub face: T,
    runtime: Runtime,
    lifecycle: Lifecycle,
    epoch: Instant,
    since: Duration,
    span: Span,
}

/// What a process is made of while it starts.
pub struct Start<'a> {
    /// Its disk.
    pub dir: &'a Path,
    /// Its way to the others.
    pub card: Arc<Card>,
    /// Its services.
    pub lifecycle: &'a mut Lifecycle,
}

impl Start<'_> {
    /// One more service.
    pub fn service(&mut self, name: &'static str) -> Tracker {
        self.lifecycle.service(name)
    }
}

impl<T> Running<T> {
    /// Lets it run until then.
    fn run_to(&self, now: Duration) {
        let _entered = self.span.enter();
        run(&self.runtime, self.epoch + (now - self.since));
    }

    /// Begins something in it.
    pub fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let _entered = self.span.enter();
        self.runtime.spawn(work)
    }

    /// Tasks that it has.
    pub fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }
}

/// Lets what has a runtime do all that there is to do until then.
fn run(runtime: &Runtime, until: Instant) {
    runtime.block_on(async { tokio::time::sleep_until(until).await });
}

/// All machines.
pub struct World<T> {
    /// What connects them.
    pub network: Network,
    /// By number.
    pub machines: Vec<Machine<T>>,
    /// What time it is.
    pub now: Duration,
    disks: tempfile::TempDir,
}

impl<T> World<T> {
    /// One without machines.
    pub fn new(network: Network) -> Self {
        NOW.store(0, Ordering::Relaxed);
        // Nothing here is about disks that are slow.
        let disks = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let disks = disks.expect("a directory for disks");
        Self { network, machines: Vec::new(), now: Duration::ZERO, disks }
    }

    /// One more machine, on which nothing runs.
    pub fn add(&mut self, name: &str) -> Which {
        let number = self.machines.len();
        let ip = Ipv4Addr::new(10, 0, 0, u8::try_from(number + 1).expect("few machines"));
        let dir = private_dir(&self.disks.path().join(name)).expect("a disk of its own");
        self.machines.push(Machine {
            name: name.to_owned(),
            ip: ip.into(),
            dir,
            running: None,
            is_frozen: false,
            most_tasks: 0,
        });
        number
    }

    /// Starts a process on a machine where none runs. Its start takes no time.
    pub fn boot(&mut self, which: Which, start: impl AsyncFnOnce(&mut Start<'_>) -> T) {
        let machine = &mut self.machines[which];
        assert!(machine.running.is_none(), "{} runs already", machine.name);
        self.network.light(machine.ip);
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let span = tracing::info_span!("machine", name = machine.name);
        let entered = span.enter();
        let card = self.network.of(machine.ip);
        let (face, lifecycle, epoch) = runtime.block_on(async {
            let epoch = Instant::now();
            let mut lifecycle = Lifecycle::new(STOP_WITHIN).expect("signals");
            let mut starting = Start { dir: &machine.dir, card, lifecycle: &mut lifecycle };
            let face = start(&mut starting).await;
            (face, lifecycle, epoch)
        });
        drop(entered);
        machine.is_frozen = false;
        machine.running = Some(Running { face, runtime, lifecycle, epoch, since: self.now, span });
    }

    /// Ends a process at once.
    pub fn crash(&mut self, which: Which) {
        let machine = &mut self.machines[which];
        let Some(Running { face, runtime, lifecycle, span, .. }) = machine.running.take() else {
            return;
        };
        let _entered = span.enter();
        self.network.close(machine.ip);
        let within = runtime.enter();
        drop((face, lifecycle));
        drop(within);
        runtime.shutdown_timeout(CRASH_WITHIN);
    }

    /// Takes the power from a machine: nobody hears of its end.
    pub fn cut_power(&mut self, which: Which) {
        self.network.darken(self.machines[which].ip);
        self.crash(which);
    }

    /// Lets a machine not run until [`thaw`](Self::thaw).
    pub fn freeze(&mut self, which: Which) {
        self.machines[which].is_frozen = true;
    }

    /// Lets a frozen machine run again.
    pub fn thaw(&mut self, which: Which) {
        let machine = &mut self.machines[which];
        if !std::mem::take(&mut machine.is_frozen) {
            return;
        }
        let Some(running) = &machine.running else { return };
        let _entered = running.span.enter();
        let late = self.now - running.since;
        running.runtime.block_on(async {
            let late = (running.epoch + late).saturating_duration_since(Instant::now());
            tokio::time::advance(late).await;
        });
    }

    /// Stops a process as it should; whether it did in time, and the tasks that are left of it.
    pub fn stop(&mut self, which: Which) -> Result<usize, String> {
        let machine = &mut self.machines[which];
        let Some(running) = machine.running.take() else { return Ok(0) };
        let Running { face, runtime, lifecycle, epoch, since, span } = running;
        let entered = span.enter();
        let stopping = runtime.spawn(async move { lifecycle.stop().await });
        drop(entered);
        // What can be seen of it may hold what its services wait for.
        let within = runtime.enter();
        drop(face);
        drop(within);
        let until = self.now + STOP_WITHIN + Duration::from_secs(1);
        let stopped = |runtime: &Runtime| runtime.metrics().num_alive_tasks() == 0;
        while self.now < until && !(stopping.is_finished() && stopped(&runtime)) {
            self.step();
            let _entered = span.enter();
            run(&runtime, epoch + (self.now - since));
        }
        let machine = &self.machines[which];
        self.network.close(machine.ip);
        let left = runtime.metrics().num_alive_tasks();
        let ended = match stopping.is_finished() {
            true => runtime.block_on(stopping).map_err(|error| error.to_string()),
            false => Err("it does not stop".to_owned()),
        };
        runtime.shutdown_timeout(CRASH_WITHIN);
        match ended {
            Ok(Ok(())) => Ok(left),
            Ok(Err(error)) => Err(format!("{}: {error}", machine.name)),
            Err(error) => Err(format!("{}: {error}", machine.name)),
        }
    }

    /// One moment.
    pub fn step(&mut self) {
        let next = self.network.advance(self.now);
        let quiet = next.map_or(QUIET_MOMENT, |next| next.saturating_sub(self.now));
        self.now += quiet.clamp(MOMENT, QUIET_MOMENT);
        NOW.store(u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.network.advance(self.now);
        for machine in self.machines.iter_mut().filter(|machine| !machine.is_frozen) {
            if let Some(running) = &machine.running {
                running.run_to(self.now);
                machine.most_tasks = machine.most_tasks.max(running.tasks());
            }
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    /// What can be seen of what runs on a machine.
    pub fn face(&self, which: Which) -> Option<&T> {
        self.machines[which].running.as_ref().map(|running| &running.face)
    }

    /// Where a machine is.
    pub fn ip(&self, which: Which) -> IpAddr {
        self.machines[which].ip
    }
}
