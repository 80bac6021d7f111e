//! The roles, each added to the process it runs in.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use dfs_model::{HostInfo, HostKind};
use dfs_peer::dial::Callee;
use dfs_peer::digests::Identity;
use dfs_peer::error_chain;
use dfs_peer::host::Network;
use dfs_peer::swarm::KeptList;
use dfs_proto::manager::Role as MemberRole;
use dfs_proto::manager::admin_server::AdminServer;
use dfs_proto::manager::enrolment_server::EnrolmentServer;
use dfs_proto::manager::manager_server::ManagerServer;
use dfs_proto::scheduler::scheduler_server::SchedulerServer;
use dfs_proto::{common, convert};
use dfs_service::admin::Readiness;
use dfs_service::config::ServiceAddress;
use dfs_service::data_dir::DataDir;
use dfs_service::metrics::Metrics;
use dfs_service::net::{
    self, GrpcChannels, LocalListener, Security, SocketAccess, TcpLinkAcceptor, TcpLinkDialer,
};
use dfs_service::tls::Authority;
use dfs_service::tls::enrol::Keeper;
use dfs_service::{OnFailure, Tracker, process};
use tokio::sync::watch;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Channel;

use super::secure::Secured;
use super::{Error, Told, listen};
use crate::manager::{Desk, Registrar};
use crate::membership::{self, Members};
use crate::metrics::{ManagerMetrics, SchedulerMetrics, SeedMetrics};
use crate::{manager, scheduler, seed};

/// Largest message taken from a host: an announcement of all it holds.
const MAX_MESSAGE: usize = 32 << 20;

/// What the services of one process share while they are put together. A further role adds itself
/// as the others do: routes here, tasks in a tracker of its own.
pub(super) struct Site {
    pub(super) told: Told,
    pub(super) host: HostInfo,
    pub(super) routes: RoutesBuilder,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    identity: Arc<Identity>,
    security: Security,
    authority: Option<Arc<Authority>>,
    keeper: Option<Keeper>,
    grpc: Vec<SocketAddr>,
    manager: Channel,
    kept: KeptList,
}

impl Site {
    /// One whose gRPC services are at `at`.
    pub(super) fn new(told: Told, secured: Secured, at: SocketAddr) -> Result<Self, Error> {
        let Secured { security, authority, keeper, identity, managers } = secured;
        let manager = match managers.first() {
            Some(manager) => net::grpc_channel(manager, Callee::Manager, &security),
            None => net::grpc_channel_to(at, Callee::Manager, &security),
        };
        let advertised = match told.own.advertise.is_empty() {
            true => vec![told.shared.listen],
            false => told.own.advertise.clone(),
        };
        Ok(Self {
            host: describe(&told.shared, &identity),
            kept: KeptList::in_dir(&told.own.data_dir),
            grpc: advertised.into_iter().map(|ip| SocketAddr::new(ip, at.port())).collect(),
            told,
            identity: Arc::new(identity),
            security,
            authority,
            keeper,
            manager,
            routes: RoutesBuilder::default(),
            metrics: Metrics::new(),
            readiness: Readiness::default(),
        })
    }

    /// Renews the process's certificate for as long as it runs.
    pub(super) fn keep_certificate(&mut self, tracker: &Tracker) {
        if let Some(keeper) = self.keeper.take() {
            keeper.start(tracker);
        }
    }

    /// The manager.
    pub(super) async fn add_manager(
        &mut self,
        data_dir: &DataDir,
        tracker: Tracker,
    ) -> Result<(), Error> {
        let metrics = ManagerMetrics::register(&mut self.metrics);
        let members = &self.told.own.members;
        let check = self.readiness.check("manager");
        let opening = manager::Service::open(members, data_dir.path(), metrics.clone(), check);
        let (service, handle) = opening.await?;
        let stop = tracker.token().clone();
        let lifetime = members.certificate_lifetime;
        let registrar = self.authority.clone();
        let registrar = registrar.map(|own| Registrar::new(&handle, own, lifetime, metrics));
        if let Some(registrar) = registrar.clone() {
            let enrolment = EnrolmentServer::new(registrar);
            self.routes.add_service(enrolment.max_decoding_message_size(manager::MAX_REQUEST));
        }
        self.open_desk(registrar, data_dir, &tracker);
        let grpc = manager::Grpc::new(handle, tracker.tasks().clone(), stop.clone());
        self.routes.add_service(ManagerServer::new(grpc));
        tracker.spawn("members", OnFailure::StopProcess, service.run(stop));
        Ok(())
    }

    /// Where people on this machine get join tokens: a socket in the data directory, which is theirs alone. Without
    /// it, as where its name is too long, the manager does everything else.
    fn open_desk(&self, registrar: Option<Registrar>, data_dir: &DataDir, tracker: &Tracker) {
        let socket = data_dir.path().join(manager::SOCKET);
        let listener = match LocalListener::bind(&socket, SocketAccess::Owner) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(error = %error_chain(&error), "there will be no join tokens");
                return;
            }
        };
        let managers = self.grpc.iter().copied().map(ServiceAddress::from).collect();
        let desk = AdminServer::new(Desk::new(registrar, managers));
        let (routes, stop) = (Routes::new(desk), tracker.token().clone());
        let serving = net::serve_grpc_local(routes, listener, stop);
        tracker.spawn("desk", OnFailure::Report, serving);
    }

    /// A scheduler.
    pub(super) fn add_scheduler(&mut self, tracker: Tracker) {
        let metrics = SchedulerMetrics::register(&mut self.metrics);
        let members = self.join(&self.host, MemberRole::Scheduler, "scheduler", &tracker);
        let (tasks, stop) = (tracker.tasks().clone(), tracker.token().clone());
        let options = self.told.own.scheduler.clone();
        let settings = scheduler::Settings {
            remember: options.resolve_cache,
            keep: options.resolve_kept,
            timeout: options.resolve_timeout,
            area: self.told.shared.area.clone(),
        };
        let channels = Arc::new(GrpcChannels::new(self.security.clone()));
        let resolver = scheduler::Resolver::new(
            settings,
            members.clone(),
            channels.clone(),
            metrics.clone(),
            tracker.clone(),
        );
        let (service, handle) = scheduler::Service::new(
            options.policy(),
            members.clone(),
            scheduler::Seeds::Listed(channels),
            Arc::clone(&self.identity),
            tracker.clone(),
            metrics.clone(),
        );
        let me = Arc::clone(&self.identity);
        let reception = scheduler::Reception::new(
            handle,
            members,
            me,
            metrics,
            (tasks, stop),
            scheduler::Pulse::Silent,
        );
        let grpc = SchedulerServer::new(scheduler::Grpc::new(reception, resolver))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        self.routes.add_service(grpc);
        tracker.spawn("scheduling", OnFailure::StopProcess, service.run());
    }

    /// A seed; says where it serves pieces.
    pub(super) async fn add_seed(
        &mut self,
        data_dir: &DataDir,
        tracker: Tracker,
    ) -> Result<SocketAddr, Error> {
        let (told, port) = (&self.told, self.told.own.port_pieces);
        let (listener, at) = listen("pieces", &told.shared, port, 4002, &self.security).await?;
        let acceptor = TcpLinkAcceptor::new(listener, self.security.clone());
        let acceptor = acceptor.map_err(process::Error::from)?;
        let advertise = told.own.advertise.iter().map(|ip| SocketAddr::new(*ip, at.port()));
        let given = seed::Given {
            name: format!("seed@{}", self.host.name),
            location: self.host.location.clone(),
            sources: self.told.extensions.sources(),
            network: Network {
                dialer: Arc::new(TcpLinkDialer::new(self.security.clone())),
                acceptor: Some(Arc::new(acceptor)),
                channels: Arc::new(GrpcChannels::new(self.security.clone())),
                advertise: advertise.collect(),
                leads_at: Vec::new(),
            },
        };
        let seed = seed::Service::start(&self.told.own.seed, given, data_dir, &tracker)?;
        SeedMetrics::install(&mut self.metrics, seed.host().clone());
        self.routes.add_service(seed.grpc());
        seed.follow(self.join(&seed.host().info, MemberRole::Seed, "seed", &tracker));
        Ok(at)
    }

    /// Joins the manager in a role, whose readiness is to know the other members.
    fn join(
        &self,
        host: &HostInfo,
        role: MemberRole,
        name: &'static str,
        tracker: &Tracker,
    ) -> watch::Receiver<Arc<Members>> {
        let mut me = common::Host::from(host);
        me.grpc = self.grpc.iter().copied().map(Into::into).collect();
        debug_assert!(convert::grpc_addresses(&me).is_ok());
        let (manager, kept) = (self.manager.clone(), self.kept.clone());
        let members = membership::follow(manager, me, role, Some(kept), tracker);
        let (check, stop) = (self.readiness.check(name), tracker.token().clone());
        let mut heard = members.clone();
        tracker.spawn("readiness", OnFailure::Report, async move {
            let is_known = |members: &Arc<Members>| !members.cluster_id.is_empty();
            let waited = stop.run_until_cancelled(heard.wait_for(is_known)).await;
            if waited.is_some_and(|waited| waited.is_ok()) {
                check.ready();
                stop.cancelled().await;
            }
            Ok::<(), Infallible>(())
        });
        members
    }
}

/// This process as a host of the cluster.
fn describe(options: &process::Options, identity: &Identity) -> HostInfo {
    HostInfo {
        id: identity.host(),
        kind: HostKind::Node,
        name: options.host_name(),
        location: options.location(),
        addresses: Vec::new(),
        public_key: identity.public_key(),
        upload_slots: 0,
    }
}
