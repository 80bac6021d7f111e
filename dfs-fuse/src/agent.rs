//! The node agent: what a machine offers its users on top of a piece engine.
//!
//! Opens artifacts, reads and lists them, mounts them, and answers for the cache. The gRPC face on the
//! Unix socket is [`api`]; the same agent runs inside `dfctl` when there is no daemon. Where it dies its mounts wait for
//! the next one ([`crate::holder`]); without a holder they end with it. What was fetched stays in the store.

pub mod api;
mod asker;
mod before;
pub mod cluster;
mod content;
mod damage;
mod filling;
mod follow;
mod images;
mod independent;
pub mod inside;
mod kept;
mod known;
mod lazy;
mod level;
mod mounts;
mod needs;
mod pins;
mod prefetch;
mod pulling;
mod quota;
mod shared;
mod status;
mod traced;
mod traces;
mod walk;
mod works;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dfs_model::ByteSize;
use dfs_peer::engine::{ReadError, Task};
use dfs_peer::host::Host;
use dfs_peer::opener::{Freshness, OpenArtifact, OpenUrlError};
use dfs_peer::store::{Use, UseGuard};
use dfs_source::{Asking, SourceError, Target};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub use self::asker::Asker;
pub use self::before::Away;
pub use self::content::SpaceContent;
use self::damage::Damage;
pub use self::follow::{FollowError, FollowView, Following, Looked, OFTENEST};
pub(crate) use self::images::{BlobTasks, Freed};
pub use self::independent::is_written_down;
pub use self::kept::{Ending, left};
use self::known::Answers;
pub use self::known::{CommandId, Question};
pub use self::mounts::{MountRequest, MountTable, MountTableError};
pub use self::pins::Pins;
pub use self::prefetch::{Mode, PrefetchView, State};
pub use self::status::{CallError, status_of};
use self::works::{Busy, Works};
use crate::mount::Custody;

/// What a question came to; shared by all who wait for it.
type Answered = Result<Arc<OpenArtifact>, Arc<OpenUrlError>>;

/// The answer to come of a question. It goes on while somebody waits for it, whoever asked first.
type Flight = Shared<BoxFuture<'static, Answered>>;

/// A question under way that who asks the same may join.
struct UnderWay {
    number: u64,
    question: Question,
    flight: WeakShared<BoxFuture<'static, Answered>>,
}

/// The questions under way; a number is never used twice.
#[derive(Default)]
struct Flights {
    under_way: Vec<UnderWay>,
    begun: u64,
}

impl Flights {
    /// Joins who ask the same.
    fn join(&mut self, question: &Question) -> Option<Flight> {
        self.under_way.retain(|asked| asked.flight.upgrade().is_some());
        let same = self.under_way.iter().find(|asked| asked.question.is_same(question))?;
        same.flight.upgrade()
    }

    /// Whether it was not forgotten.
    fn is_under_way(&self, number: u64) -> bool {
        self.under_way.iter().any(|asked| asked.number == number)
    }
}

/// How often old answers are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(15);

/// How often something is opened that is taken away before it is in use.
const ATTEMPTS: u32 = 4;

/// How long a task that was taken away may take to be closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// Takes all of an artifact into use; where some of it has gone, that.
fn in_use(opened: &OpenArtifact) -> Result<Vec<UseGuard>, (Task, ReadError)> {
    let tasks = opened.tasks.iter().chain(opened.index.as_ref().map(|index| &index.task));
    let take = |task: &Task| task.in_use(Use::Handle).map_err(|gone| (task.clone(), gone));
    tasks.map(take).collect()
}

/// What an agent is told about itself.
#[derive(Debug, Clone)]
pub struct AgentFacts {
    /// Where it keeps things.
    pub data_dir: PathBuf,
    /// Its cluster as given; empty is solo.
    pub cluster: String,
    /// Disk the cache may take.
    pub capacity: Option<ByteSize>,
    /// Where it listens; nowhere inside of another process.
    pub socket: Option<PathBuf>,
}

struct Inner {
    host: Host,
    facts: AgentFacts,
    mounts: Arc<MountTable>,
    pins: Pins,
    damage: Damage,
    answers: Mutex<Answers>,
    /// Questions under way.
    flights: Mutex<Flights>,
    /// Calls under way, and what they change.
    works: Works,
    /// Fires when another agent is to go on in this one's place.
    handing_over: CancellationToken,
    instance: u64,
}

/// A handle on the agent; cheap to clone.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

impl Agent {
    /// An agent over a running host; its mounts are kept so when it dies.
    pub fn new(host: Host, facts: AgentFacts, custody: Option<Custody>) -> Self {
        let works = Works::default();
        let mounts = Arc::new(MountTable::new(custody, &facts, &host, works.clone()));
        let pins = Pins::in_dir(&facts.data_dir);
        let (answers, flights) = (Mutex::default(), Mutex::default());
        let handing_over = CancellationToken::new();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let instance = since.as_nanos() as u64;
        let inner = Inner {
            host,
            facts,
            mounts,
            pins,
            damage: Damage::default(),
            answers,
            flights,
            works,
            handing_over,
            instance,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Another number each time that an agent is started.
    pub fn instance(&self) -> u64 {
        self.inner.instance
    }

    /// The host below.
    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    /// What it was told about itself.
    pub fn facts(&self) -> &AgentFacts {
        &self.inner.facts
    }

    /// What was found damaged.
    fn damage(&self) -> &Damage {
        &self.inner.damage
    }

    /// What is mounted.
    pub fn mounts(&self) -> &Arc<MountTable> {
        &self.inner.mounts
    }

    /// The target as it is meant here, see [`dfs_source::Source::complete`].
    pub async fn complete(
        &self,
        target: &Target,
        asking: Asking,
    ) -> Result<Target, Arc<OpenUrlError>> {
        let completed = async {
            let source = self.inner.host.engine.sources().for_target(target)?;
            source.complete(target, asking).await
        };
        completed.await.map_err(|error: SourceError| Arc::new(error.into()))
    }

    /// Opens what a target names. An answer of a moment ago is used again, and those who ask the same at the
    /// same time wait for one answer.
    pub async fn open(&self, question: &Question) -> Result<Arc<OpenArtifact>, Arc<OpenUrlError>> {
        let opened = self.find_or_ask(question).await?;
        // Whoever waited with others is one of those it was given to.
        self.inner.answers.lock().give(question, &opened, Instant::now());
        Ok(opened)
    }

    /// Opens what a target names, and has `take` put it to use: what is taken away before it is in use is opened again.
    async fn put_to_use<T, E: From<Arc<OpenUrlError>>>(
        &self,
        question: &Question,
        take: impl Fn(Arc<OpenArtifact>) -> Result<Result<T, (Task, ReadError)>, E>,
    ) -> Result<Result<T, ReadError>, E> {
        for _ in 1..ATTEMPTS {
            match take(self.open(question).await?)? {
                Ok(used) => return Ok(Ok(used)),
                // Nobody is given it any more once it is closed.
                Err((task, _)) => drop(tokio::time::timeout(CLOSED_WITHIN, task.closed()).await),
            }
        }
        Ok(take(self.open(question).await?)?.map_err(|(_, error)| error))
    }

    /// Opens what a target names: nothing of it goes as long as what comes with it lives.
    pub(crate) async fn hold(
        &self,
        question: &Question,
    ) -> Result<Result<(Arc<OpenArtifact>, Vec<UseGuard>), ReadError>, Arc<OpenUrlError>> {
        self.put_to_use(question, |opened| {
            let held = in_use(&opened);
            Ok(held.map(|guards| (opened, guards)))
        })
        .await
    }

    fn find_or_ask(&self, question: &Question) -> Flight {
        let mut flights = self.inner.flights.lock();
        // Before it joins others: what they will be told may be another version than the command's.
        if let Some(opened) = self.inner.answers.lock().get(question, Instant::now()) {
            return std::future::ready(Ok(opened)).boxed().shared();
        }
        if let Some(flight) = flights.join(question) {
            return flight;
        }
        flights.begun += 1;
        let (agent, asked, number) = (self.clone(), question.clone(), flights.begun);
        let flight = async move { agent.ask(asked, number).await }.boxed().shared();
        let under_way = |flight| UnderWay { number, question: question.clone(), flight };
        flights.under_way.extend(flight.downgrade().map(under_way));
        flight
    }

    async fn ask(&self, question: Question, number: u64) -> Answered {
        let gone = self.inner.answers.lock().is_gone(&question.target.url);
        let freshness = if gone { Freshness::Asked } else { Freshness::Usual };
        let engine = &self.inner.host.engine;
        let opened =
            engine.open_url(&question.target, question.view, freshness, question.purpose).await?;
        let opened = Arc::new(opened);
        // What was forgotten meanwhile was asked too early to be news; who waits for it has it all the same.
        let flights = self.inner.flights.lock();
        if flights.is_under_way(number) {
            self.inner.answers.lock().put(&question, Arc::clone(&opened), Instant::now());
        }
        Ok(opened)
    }

    /// Takes note that the version known of a target is gone: the next question about it goes to the origin,
    /// except those of commands under way.
    pub fn forget(&self, target: &Target) {
        let mut flights = self.inner.flights.lock();
        flights.under_way.retain(|asked| asked.question.target.url != target.url);
        self.inner.answers.lock().forget(&target.url);
    }

    /// Lets go of old answers now and then, so that what they hold can be closed, and of all that nobody is using
    /// when files run out; has written down what was read, and the cluster told; and makes whole what is pinned. Never ends
    /// by itself.
    pub async fn keep_house(&self) {
        tokio::join!(self.prune_answers(), self.save_traces(), self.keep_pins());
    }

    async fn save_traces(&self) {
        loop {
            tokio::time::sleep(HOUSEKEEPING).await;
            let agent = self.clone();
            // It fails with the runtime, and then with this.
            let _ = tokio::task::spawn_blocking(move || agent.mounts().traces().save()).await;
            self.mounts().traces().tell().await;
        }
    }

    async fn prune_answers(&self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(HOUSEKEEPING) => self.inner.answers.lock().prune(Instant::now()),
                () = self.inner.host.engine.taken_away() => self.inner.answers.lock().prune_closed(),
                () = self.inner.host.engine.out_of_files() => self.inner.answers.lock().prune_unused(Instant::now()),
            }
        }
    }

    /// Waits until nothing is mounted and no call is under way, for `quiet` at a stretch.
    pub async fn idle_for(&self, quiet: Duration) {
        let mut busy = self.inner.works.busy();
        let mut mounted = self.inner.mounts.count();
        loop {
            let is_idle = *busy.borrow_and_update() == 0 && *mounted.borrow_and_update() == 0;
            tokio::select! {
                _ = busy.changed() => {}
                _ = mounted.changed() => {}
                () = tokio::time::sleep(quiet), if is_idle => return,
            }
        }
    }

    pub(crate) fn enter(&self) -> Busy {
        self.inner.works.enter()
    }

    /// What changes something runs to its end in these.
    fn works(&self) -> &Works {
        &self.inner.works
    }
}
