//! The scheduler at the gRPC edge: what a URL is, beside the streams of hosts.

use dfs_leader::{Heard, Reception};
use dfs_model::HostId;
use dfs_proto::scheduler::scheduler_server::Scheduler;
use dfs_proto::scheduler::{
    HostMessage, PreheatRequest, ProfileReply, ProfileRequest, ResolveReply, ResolveRequest,
    TasksReply, TasksRequest,
};
use dfs_service::net::Caller;
use dfs_service::tls::Role;
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming};

use super::profiles::Profiles;
use super::{Resolver, preheat};

/// Serves `dfs.scheduler.v1.Scheduler`.
pub struct Grpc {
    reception: Reception,
    resolver: Resolver,
    profiles: Mutex<Profiles>,
}

impl Grpc {
    /// Hosts are taken at `reception`; `resolver` knows what URLs are.
    pub fn new(reception: Reception, resolver: Resolver) -> Self {
        Self { reception, resolver, profiles: Mutex::default() }
    }
}

#[tonic::async_trait]
impl Scheduler for Grpc {
    type AttendStream = Heard;

    async fn resolve(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveReply>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        if let Some(host) = HostId::from_slice(&request.host_id) {
            caller.require(host, &[Role::Node, Role::Guest, Role::Seed])?;
        }
        self.resolver.resolve(request).await.map(Response::new)
    }

    type PreheatStream = preheat::Events;

    async fn preheat(
        &self,
        request: Request<PreheatRequest>,
    ) -> Result<Response<Self::PreheatStream>, Status> {
        preheat::begin(self.resolver.clone(), request.into_inner()).await.map(Response::new)
    }

    async fn profile(
        &self,
        request: Request<ProfileRequest>,
    ) -> Result<Response<ProfileReply>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let host = HostId::from_slice(&request.host_id);
        let host = host.ok_or_else(|| Status::invalid_argument("who asks is not said"))?;
        caller.require(host, &[Role::Node, Role::Guest])?;
        self.profiles.lock().answer(request).map(Response::new)
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
