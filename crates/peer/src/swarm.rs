//! This host's side of the conversation with its schedulers.
//!
//! Tasks leave word in an [`Outbox`] that merges what it is told (so it is bounded by the number of
//! tasks, not by the number of events); one session task carries it to the schedulers in batches and
//! brings their decisions back to the tasks. When the process or a scheduler dies nothing is lost that
//! matters: on reconnection the session announces what is held and registers what is under way again.

mod delegates;
mod kept;
mod link;
mod members;
mod messages;
mod outbox;
mod seeds;
mod session;
mod silence;
mod teller;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{
    CanonicalUrl, GroupRange, GroupSet, HostId, HostInfo, Priority, RouteKey, TaskId, TaskInfo,
    TaskKey,
};
use dfs_proto::scheduler::scheduler_client::SchedulerClient;
use dfs_proto::{common, convert, scheduler};
use dfs_source::oci::Platform;
use futures::FutureExt as _;
use futures::stream::{BoxStream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use self::outbox::{Outbox, PeerEnd};
use self::silence::{Silences, silence};
use crate::conductor::{Failure, LeaseEnd};
use crate::dial::Callee;
use crate::engine::{Command, Keyring, Ledger};

pub use self::kept::KeptList;
pub use self::members::Members;

/// Makes gRPC channels; the only way this crate reaches a gRPC server.
pub trait Channels: Send + Sync + 'static {
    /// A lazily connected channel to `callee`.
    fn channel(&self, address: SocketAddr, callee: Callee) -> Channel;
}

/// Where a manager is to be found, shown as people wrote it.
#[async_trait]
pub trait ManagerPlace: fmt::Display + Send + Sync + 'static {
    /// Its addresses as of now; none while they cannot be told.
    async fn addresses(&self) -> Vec<SocketAddr>;
}

/// A number leads to itself.
#[async_trait]
impl ManagerPlace for SocketAddr {
    async fn addresses(&self) -> Vec<SocketAddr> {
        vec![*self]
    }
}

/// Gives the tasks that this host holds, for announcing.
pub trait Holdings: Send + Sync + 'static {
    /// What others may have of these tasks; those of which that is nothing are left out. Blocks.
    fn held(&self, tasks: &[TaskId]) -> Vec<scheduler::Held>;
    /// The tasks in the store that are of such keys, those that were read last first. Blocks.
    fn names(&self, is_asked: &dyn Fn(&TaskKey) -> bool) -> Vec<TaskId>;
}

/// How long a manager may take to name a scheduler. A host that has met none by then goes on by itself.
const MEMBERS_WITHIN: Duration = Duration::from_secs(5);

/// How long a scheduler may take to say what it knows.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// Schedulers asked for one look.
const MAX_ASKED: usize = 64;

/// What one scheduler says when it is asked what it knows.
pub struct Seen {
    /// Its name, for people.
    pub name: String,
    /// What it knows.
    pub answer: Result<scheduler::TasksReply, SwarmError>,
}

/// What a swarm session needs.
pub struct SwarmOptions {
    /// Where the managers are.
    pub managers: Vec<Arc<dyn ManagerPlace>>,
    /// This host, as it announces itself.
    pub host: HostInfo,
    /// Makes connections.
    pub channels: Arc<dyn Channels>,
    /// Learns the seeds' keys.
    pub keyring: Arc<Keyring>,
    /// How long a unary call may take.
    pub call_timeout: Duration,
    /// Where the last member list is kept, of a host that lasts.
    pub kept: Option<KeptList>,
    /// Where others come to that this host leads; none where it leads nobody.
    pub leads_at: Vec<SocketAddr>,
}

/// A scheduler asks this host to lead others, or to lead them no more.
#[derive(Debug, Clone)]
pub enum Charge {
    /// In this task.
    Lead(Box<TaskInfo>),
    /// And no more.
    LeadNoMore(TaskId),
}

/// Charges that wait to be heeded; of more the scheduler hears nothing, and asks others.
const CHARGES: usize = 64;

/// A question to the scheduler that came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SwarmError {
    /// No scheduler could be reached.
    #[error("no scheduler: {0}")]
    Unreachable(String),
    /// The scheduler answered with an error.
    #[error("{}", .0.message())]
    Refused(tonic::Status),
    /// The answer makes no sense.
    #[error("the scheduler's answer is unreadable")]
    Malformed(#[from] dfs_proto::convert::BadMessage),
}

/// A handle on the session; cheap to clone.
#[derive(Clone)]
pub struct Swarm {
    outbox: Arc<Outbox>,
    members: watch::Receiver<Arc<Members>>,
    options: Arc<SwarmOptions>,
    charges: Arc<Mutex<Option<mpsc::Receiver<Charge>>>>,
    silences: Arc<Silences>,
    /// Whether no scheduler answered who asked one last.
    is_left_alone: Arc<AtomicBool>,
}

impl Swarm {
    /// Starts the session on `tracker`; it ends with `stop`.
    pub fn start(
        options: SwarmOptions,
        holdings: Arc<dyn Holdings>,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let options = Arc::new(options);
        let outbox = Arc::new(Outbox::default());
        let members = members::follow(Arc::clone(&options), tracker, stop.clone());
        let (charge, charges) = mpsc::channel(CHARGES);
        let session = session::Session::new(
            Arc::clone(&options),
            Arc::clone(&outbox),
            members.clone(),
            holdings,
            charge,
            tracker.clone(),
        );
        tracker.spawn(session.run(stop));
        let charges = Arc::new(Mutex::new(Some(charges)));
        Self {
            outbox,
            members,
            options,
            charges,
            silences: Arc::default(),
            is_left_alone: Arc::default(),
        }
    }

    /// What the scheduler makes of a URL: done once by a seed, for all.
    pub async fn resolve(
        &self,
        route: &RouteKey,
        request: scheduler::ResolveRequest,
    ) -> Result<scheduler::ResolveReply, SwarmError> {
        let answer = self.ask_scheduler(route, request).await;
        let is_alone = matches!(answer, Err(SwarmError::Unreachable(_)));
        self.is_left_alone.store(is_alone, Ordering::Relaxed);
        answer
    }

    async fn ask_scheduler(
        &self,
        route: &RouteKey,
        mut request: scheduler::ResolveRequest,
    ) -> Result<scheduler::ResolveReply, SwarmError> {
        request.host_id = self.options.host.id.as_bytes().to_vec().into();
        request.platform = Platform::here().to_string();
        let mut call = tonic::Request::new(request);
        call.set_timeout(self.options.call_timeout);
        let (scheduler, address) = self.scheduler_for(route).await?;
        let mut client = self.client_of(scheduler, address);
        let silence = self.silences.of((scheduler, address), || silence(client.clone()).boxed());
        tokio::select! {
            reply = client.resolve(call) => Ok(reply.map_err(refused)?.into_inner()),
            () = silence => Err(SwarmError::Unreachable("the scheduler does not answer".to_owned())),
        }
    }

    /// Asks for what readers of something public touch first, or tells it where the request has a profile.
    pub async fn profile(
        &self,
        route: &RouteKey,
        mut request: scheduler::ProfileRequest,
    ) -> Result<Bytes, SwarmError> {
        request.host_id = self.options.host.id.as_bytes().to_vec().into();
        let mut client = self.client_for(route).await?;
        let asked = tokio::time::timeout(LOOK_WITHIN, client.profile(request)).await;
        let late = |_| SwarmError::Unreachable("the scheduler does not answer".to_owned());
        Ok(asked.map_err(late)?.map_err(refused)?.into_inner().profile)
    }

    /// The data centre that this host is in; empty where that is not known.
    pub fn idc(&self) -> &str {
        &self.options.host.location.idc
    }

    /// Lets the seed of what `route` is of fetch all of it; how that goes.
    pub async fn preheat(
        &self,
        route: &RouteKey,
        mut request: scheduler::PreheatRequest,
    ) -> Result<BoxStream<'static, Result<common::Preheating, SwarmError>>, SwarmError> {
        request.platform = Platform::here().to_string();
        let mut client = self.client_for(route).await?;
        let begun = tokio::time::timeout(self.options.call_timeout, client.preheat(request)).await;
        let late = |_| SwarmError::Unreachable("the scheduler does not answer".to_owned());
        let events = begun.map_err(late)?.map_err(refused)?.into_inner();
        Ok(events.map(|event| event.map_err(refused)).boxed())
    }

    /// What every scheduler knows of tasks, for people: each answers for itself, or says why it does not.
    pub async fn look(&self, request: &scheduler::TasksRequest) -> Result<Vec<Seen>, SwarmError> {
        self.until_named().await?;
        let members = self.members.borrow().clone();
        let asking = members.schedulers.iter().take(MAX_ASKED).map(|(host, address)| {
            let mut client = self.client_of(host.id, *address);
            async move {
                let looking = client.tasks(request.clone());
                let answered = tokio::time::timeout(LOOK_WITHIN, looking).await;
                let late = |_| SwarmError::Unreachable("the scheduler does not answer".to_owned());
                let answer = answered.map_err(late).and_then(|answer| answer.map_err(refused));
                let answer = answer.map(tonic::Response::into_inner);
                Seen { name: host.name.clone(), answer }
            }
        });
        Ok(futures::future::join_all(asking).await)
    }

    /// Waits until some scheduler is known.
    async fn until_named(&self) -> Result<(), SwarmError> {
        let mut members = self.members.clone();
        let named = members.wait_for(|members| !members.schedulers.is_empty());
        match tokio::time::timeout(MEMBERS_WITHIN, named).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.nobody_named()),
        }
    }

    fn nobody_named(&self) -> SwarmError {
        let managers: Vec<String> = self.options.managers.iter().map(ToString::to_string).collect();
        SwarmError::Unreachable(format!("the managers at {} name none", managers.join(", ")))
    }

    async fn client_for(&self, route: &RouteKey) -> Result<SchedulerClient<Channel>, SwarmError> {
        let (scheduler, address) = self.scheduler_for(route).await?;
        Ok(self.client_of(scheduler, address))
    }

    fn client_of(&self, scheduler: HostId, address: SocketAddr) -> SchedulerClient<Channel> {
        let channel = self.options.channels.channel(address, Callee::Scheduler(scheduler));
        SchedulerClient::new(channel).max_decoding_message_size(messages::MAX_MESSAGE)
    }

    async fn scheduler_for(&self, route: &RouteKey) -> Result<(HostId, SocketAddr), SwarmError> {
        let mut members = self.members.clone();
        let known = tokio::time::timeout(MEMBERS_WITHIN, async {
            members.wait_for(|members| members.scheduler_for(route).is_some()).await.is_ok()
        });
        if !known.await.unwrap_or(false) {
            return Err(self.nobody_named());
        }
        let scheduler = self.members.borrow().scheduler_for(route);
        scheduler.ok_or_else(|| SwarmError::Unreachable("it left".to_owned()))
    }

    /// The members as last heard.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// Takes leave for good: the schedulers forget this host at once instead of waiting for it to come back. Ends
    /// when they have heard it, or `within` is over.
    pub async fn depart(&self, within: Duration) {
        self.outbox.depart();
        // Whoever did not hear it finds out when the connection ends.
        let _ = tokio::time::timeout(within, self.until_alone()).await;
    }

    /// What schedulers ask of a host that leads; for whoever asks first.
    pub fn charges(&self) -> Option<mpsc::Receiver<Charge>> {
        self.charges.lock().take()
    }

    /// Answers a charge: this host leads, or does not, for a reason. Later: it leads no more.
    pub fn leading(&self, task: &TaskInfo, refusal: Option<String>) {
        self.outbox.leading(task.clone(), refusal);
    }

    /// What the session is waiting for, in words.
    pub fn state(&self) -> String {
        self.outbox.state()
    }

    /// Whether a scheduler is being talked to.
    pub fn is_connected(&self) -> bool {
        self.outbox.is_connected()
    }

    /// Waits until one is.
    pub async fn until_connected(&self) {
        self.outbox.until(|connected| connected > 0).await;
    }

    /// Waits until none is.
    pub async fn until_alone(&self) {
        self.outbox.until(|connected| connected == 0).await;
    }

    pub(crate) fn register(
        &self,
        task: &TaskInfo,
        priority: Priority,
        commands: mpsc::Sender<Command>,
    ) {
        self.outbox.register(task.clone(), priority, commands);
    }

    pub(crate) fn done(
        &self,
        task: TaskId,
        groups: GroupRange,
        parent: Option<HostId>,
        cost: Duration,
    ) {
        self.outbox.done(task, groups, parent, cost);
    }

    /// Groups are here no more.
    pub(crate) fn lost(&self, task: TaskId, groups: GroupRange) {
        self.outbox.lost(task, groups);
    }

    /// A lease is over.
    pub(crate) fn lease_ended(&self, task: TaskId, end: LeaseEnd) {
        self.outbox.lease_ended(task, end);
    }

    /// What is to come in any order, all of it.
    pub(crate) fn want(&self, task: TaskId, groups: &GroupSet) {
        self.outbox.want(task, convert::runs(groups));
    }

    /// What of that a reader reads next.
    pub(crate) fn reads_next(&self, task: TaskId, groups: GroupRange) {
        self.outbox.reads_next(task, groups.into());
    }

    /// Digests that this host has signed for others.
    pub(crate) fn signed(&self, task: TaskId, batch: Bytes) {
        self.outbox.signed(task, batch);
    }

    /// All of it is here; a download has taken so long.
    pub(crate) fn complete(&self, task: TaskId, ledger: Ledger, took: Option<Duration>) {
        self.outbox.ended(task, PeerEnd { reason: None, ledger, took });
    }

    /// A read that found nothing has waited so long.
    pub(crate) fn blocked(&self, task: TaskId, waited: Duration) {
        self.outbox.blocked(task, waited);
    }

    pub(crate) fn gave_up(&self, task: TaskId, reason: String, ledger: Ledger) {
        self.outbox.ended(task, PeerEnd { reason: Some(reason), ledger, took: None });
    }

    pub(crate) fn failed(&self, task: TaskId, groups: GroupRange, host: HostId, why: Failure) {
        self.outbox.failed(task, groups, host, why);
    }

    /// Bytes of a host did not verify.
    pub(crate) fn lied(&self, task: TaskId, groups: GroupRange, host: HostId) {
        self.outbox.lied(task, groups, host);
    }

    pub(crate) fn reschedule(&self, task: TaskId, bad: Vec<HostId>) {
        self.outbox.reschedule(task, bad);
    }

    /// A task is closed here: it takes nothing more, and gives what it has when it is asked.
    /// It may have been opened again since: `closed` tells the two apart.
    pub(crate) fn rest(&self, task: TaskId, provable: &GroupSet, closed: &mpsc::Sender<Command>) {
        self.outbox.rest(task, convert::runs(provable), closed);
    }

    /// A task is gone from here; `closed` where it was open. It may have been opened again since.
    pub(crate) fn leave(&self, task: TaskId, closed: Option<&mpsc::Sender<Command>>) {
        self.outbox.leave(task, closed);
    }
}

/// Whether nobody said so: the connection broke, or time ran out. That was found out on this side, and has a cause.
pub fn is_lost(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// What a scheduler's status means here.
fn refused(status: tonic::Status) -> SwarmError {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::Cancelled => {
            SwarmError::Unreachable(status.message().to_owned())
        }
        _ if is_lost(&status) => SwarmError::Unreachable(status.message().to_owned()),
        _ => SwarmError::Refused(status),
    }
}

/// The route key of a task.
pub fn route_of(task: &TaskKey) -> RouteKey {
    route(&task.domain, &task.url)
}

/// The route key of a URL in a domain.
pub fn route(domain: &str, url: &CanonicalUrl) -> RouteKey {
    RouteKey::of(domain, url)
}
