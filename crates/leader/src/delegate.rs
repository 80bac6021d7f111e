//! A node that leads its neighbours where its scheduler has too many messages.
//!
//! Seen from its scheduler it is one child as any other. For those who come to it it is their scheduler, and beside
//! that the one from whom pieces come: what its engine gets, in the order in which it comes. It is believed in nothing
//! that others have not signed. When it ends, hangs or resigns, those whom it leads go back; what they hold they hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dfs_model::{HostInfo, TaskId, TaskInfo};
use dfs_peer::engine::{Engine, Task};
use dfs_peer::host::Host;
use dfs_peer::swarm::{self, Charge, Swarm};
use dfs_proto::common::Preheating;
use dfs_proto::manager::Role;
use dfs_proto::scheduler::scheduler_server::{Scheduler, SchedulerServer};
use dfs_proto::scheduler::{
    HostMessage, PreheatRequest, ProfileReply, ProfileRequest, ResolveReply, ResolveRequest,
    TasksReply, TasksRequest,
};
use dfs_scheduler::core;
use dfs_service::metrics::Metrics;
use dfs_service::{OnFailure, Tracker};
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Request, Response, Status, Streaming};

use crate::members::{Member, Members};
use crate::metrics::SchedulerMetrics;
use crate::service::Mail;
use crate::{Fill, Handle, Heard, Policy, Pulse, Reception, Seeds, Service};

/// Tasks in which a host leads at a time.
const MOST_TASKS: usize = 16;

/// Largest message taken from a host, as a scheduler takes it.
const MAX_MESSAGE: usize = 32 << 20;

/// How often it is looked whether it can go on.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A delegate that nobody comes to, and that is not told so, ends after so long.
const ALONE_FOR: Duration = Duration::from_secs(30);

/// What a delegate counts, for whoever looks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Led {
    tasks: Arc<AtomicUsize>,
    hosts: Arc<AtomicUsize>,
}

impl Led {
    /// Tasks in which it leads now.
    pub fn tasks(&self) -> usize {
        self.tasks.load(Ordering::Relaxed)
    }

    /// Hosts that it leads now, once for each task.
    pub fn hosts(&self) -> usize {
        self.hosts.load(Ordering::Relaxed)
    }
}

/// One task in which it leads.
struct Leading {
    /// Keeps it open.
    task: Task,
    /// Since when nobody is there.
    alone_since: Option<Instant>,
    hosts: usize,
}

/// Takes the schedulers' charges.
struct Delegate {
    engine: Engine,
    swarm: Swarm,
    handle: Handle,
    leading: HashMap<TaskId, Leading>,
    led: Led,
}

/// Has a host of a cluster take charges; gives what those who come to it talk to, and what there is to count. None where
/// it is in no cluster.
pub fn start(host: &Host, tracker: &Tracker) -> Option<(SchedulerServer<Grpc>, Led)> {
    let swarm = host.engine.swarm()?.clone();
    let charges = swarm.charges()?;
    let members = follow(&swarm, tracker);
    let metrics = SchedulerMetrics::register(&mut Metrics::new());
    let own = Seeds::Own(Arc::new(host.info.clone()), host.engine.clone());
    let me = Arc::clone(host.engine.identity());
    let (service, handle) = Service::new(
        policy(),
        members.clone(),
        own,
        Arc::clone(&me),
        tracker.clone(),
        metrics.clone(),
    );
    let (tasks, stop) = (tracker.tasks().clone(), tracker.token().clone());
    let reception =
        Reception::new(handle.clone(), members, me, metrics, (tasks, stop.clone()), Pulse::Beats);
    tracker.spawn("leading", OnFailure::Report, service.run());
    let led = Led::default();
    let delegate = Delegate {
        engine: host.engine.clone(),
        swarm,
        handle,
        leading: HashMap::new(),
        led: led.clone(),
    };
    tracker.spawn("charges", OnFailure::Report, async move {
        stop.run_until_cancelled(delegate.run(charges)).await;
        Ok::<(), std::convert::Infallible>(())
    });
    let grpc = SchedulerServer::new(Grpc { reception })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    Some((grpc, led))
}

/// It leads by leases, appoints nobody, and forgets soon.
fn policy() -> Policy {
    let usual = core::Limits::default();
    let soon = Duration::from_secs(10);
    let limits = core::Limits {
        delegate_above: 0,
        hearing: Duration::ZERO,
        idle: soon,
        host_lease: soon,
        ..usual
    };
    let swarm = core::Arms::new(Box::new(core::Leases::swarm()), Vec::new());
    Policy { limits, arms: swarm, fill: Fill::Wanted }
}

/// The member list as whoever leads sees it.
fn follow(swarm: &Swarm, tracker: &Tracker) -> watch::Receiver<Arc<Members>> {
    let mut heard = swarm.members();
    let (sender, members) = watch::channel(Arc::new(listed(&heard.borrow_and_update())));
    let stop = tracker.token().clone();
    tracker.tasks().spawn(async move {
        while let Some(Ok(())) = stop.run_until_cancelled(heard.changed()).await {
            let now = Arc::new(listed(&heard.borrow_and_update()));
            sender.send_replace(now);
        }
    });
    members
}

fn listed(members: &swarm::Members) -> Members {
    let member = |role| {
        move |(host, grpc): &(HostInfo, std::net::SocketAddr)| Member {
            role,
            host: Arc::new(host.clone()),
            grpc: *grpc,
        }
    };
    let seeds = members.seeds.iter().map(member(Role::Seed));
    Members {
        version: members.version,
        cluster_id: members.cluster_id.clone(),
        all: members.schedulers.iter().map(member(Role::Scheduler)).chain(seeds).collect(),
        ..Members::default()
    }
}

impl Delegate {
    async fn run(mut self, mut charges: mpsc::Receiver<Charge>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                charge = charges.recv() => match charge {
                    Some(Charge::Lead(task)) => {
                        let refusal = self.lead(&task).await.err();
                        self.swarm.leading(&task, refusal.map(str::to_owned));
                    }
                    Some(Charge::LeadNoMore(task)) => self.lead_no_more(task).await,
                    None => return,
                },
                _ = look.tick(), if !self.leading.is_empty() => self.look().await,
            }
            self.led.tasks.store(self.leading.len(), Ordering::Relaxed);
            let hosts = self.leading.values().map(|leading| leading.hosts).sum();
            self.led.hosts.store(hosts, Ordering::Relaxed);
        }
    }

    /// Leads in a task that it takes itself, unless it cannot.
    async fn lead(&mut self, info: &TaskInfo) -> Result<(), &'static str> {
        if self.leading.len() >= MOST_TASKS {
            return Err("it leads in many tasks already");
        }
        let task = self.engine.held(&info.id).await.ok_or("it does not take it")?;
        if task.lacks_room() {
            return Err("its cache is full");
        }
        self.handle.send(Mail::Lead(info.id)).await.map_err(|_| "it is stopping")?;
        tracing::info!(task = %info.id.short(), "leads its neighbours");
        task.lead();
        self.leading.insert(info.id, Leading { task, alone_since: None, hosts: 0 });
        Ok(())
    }

    async fn lead_no_more(&mut self, id: TaskId) {
        let Some(leading) = self.leading.remove(&id) else { return };
        tracing::info!(task = %id.short(), "leads its neighbours no more");
        leading.task.lead_no_more();
        // Where nobody leads any more nobody is led.
        let _ = self.handle.send(Mail::LeadNoMore(id)).await;
    }

    /// Whoever cannot bring anything, or leads nobody, leads no more.
    async fn look(&mut self) {
        let mut ends = Vec::new();
        for (id, leading) in &mut self.leading {
            leading.hosts = self.handle.count_led(*id).await.unwrap_or_default();
            let now = Instant::now();
            leading.alone_since = match leading.hosts {
                0 => leading.alone_since.or(Some(now)),
                _ => None,
            };
            let is_alone = leading.alone_since.is_some_and(|since| now >= since + ALONE_FOR);
            if leading.task.lacks_room() && !leading.task.is_complete() {
                ends.push((leading.task.info().clone(), "its cache is full"));
            } else if is_alone {
                ends.push((leading.task.info().clone(), "nobody comes to it"));
            }
        }
        for (info, why) in ends {
            self.lead_no_more(info.id).await;
            self.swarm.leading(&info, Some(why.to_owned()));
        }
    }
}

/// What those whom it leads talk to: their streams, and nothing else of a scheduler.
pub struct Grpc {
    reception: Reception,
}

/// Who asks a delegate for what only a scheduler does.
fn no_scheduler() -> Status {
    Status::unimplemented("this node leads its neighbours, and is no scheduler")
}

#[tonic::async_trait]
impl Scheduler for Grpc {
    type AttendStream = Heard;
    type PreheatStream = BoxStream<'static, Result<Preheating, Status>>;

    async fn resolve(
        &self,
        _request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveReply>, Status> {
        Err(no_scheduler())
    }

    async fn preheat(
        &self,
        _request: Request<PreheatRequest>,
    ) -> Result<Response<Self::PreheatStream>, Status> {
        Err(no_scheduler())
    }

    async fn profile(
        &self,
        _request: Request<ProfileRequest>,
    ) -> Result<Response<ProfileReply>, Status> {
        Err(no_scheduler())
    }

    async fn attend(
        &self,
        request: Request<Streaming<HostMessage>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        self.reception.attend(request).await
    }

    async fn tasks(&self, request: Request<TasksRequest>) -> Result<Response<TasksReply>, Status> {
        self.reception.tasks(request).await
    }
}
