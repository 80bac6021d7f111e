//! containerd's Snapshots service: the edge where requests become calls, and errors the codes by which containerd goes.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;

use dfs_peer::error_chain;
use dfs_proto::snapshots::snapshots_server::Snapshots;
use dfs_proto::snapshots::{
    self as wire, CleanupRequest, CommitSnapshotRequest, ListSnapshotsRequest,
    ListSnapshotsResponse, MountsRequest, MountsResponse, Nothing, PrepareSnapshotRequest,
    PrepareSnapshotResponse, RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse,
    UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest, UsageResponse,
    ViewSnapshotRequest, ViewSnapshotResponse,
};
use futures::Stream;
use futures::stream::{self, StreamExt};
use tonic::{Code, Request, Response, Status};

use super::store::{Info, Kind};
use super::{Prepared, SnapshotError, Snapshotter};

/// Snapshots told in one message.
const AT_ONCE: usize = 100;

const SECOND: i64 = 1_000_000_000;

fn failed(error: SnapshotError) -> Status {
    let code = match &error {
        SnapshotError::NotFound(_) => Code::NotFound,
        SnapshotError::AlreadyExists(_) => Code::AlreadyExists,
        SnapshotError::OtherKind { .. } | SnapshotError::HasChildren(_) => Code::FailedPrecondition,
        SnapshotError::Invalid(_) => Code::InvalidArgument,
        SnapshotError::Image(_) | SnapshotError::Stopping => Code::Unavailable,
        SnapshotError::Database(_)
        | SnapshotError::Newer { .. }
        | SnapshotError::Directory { .. } => Code::Unknown,
    };
    Status::new(code, error_chain(&error))
}

fn labels(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    labels.into_iter().collect()
}

fn time(ns: i64) -> Option<wire::Time> {
    let nanos = i32::try_from(ns.rem_euclid(SECOND)).unwrap_or(0);
    Some(wire::Time { seconds: ns.div_euclid(SECOND), nanos })
}

impl From<Info> for wire::Info {
    fn from(info: Info) -> Self {
        let kind = match info.kind {
            Kind::View => wire::Kind::View,
            Kind::Active => wire::Kind::Active,
            Kind::Committed => wire::Kind::Committed,
        };
        Self {
            name: info.name,
            parent: info.parent,
            kind: kind.into(),
            created_at: time(info.created_ns),
            updated_at: time(info.updated_ns),
            labels: info.labels.into_iter().collect(),
        }
    }
}

/// That something is there already is an error to containerd, and how it learns it.
fn usable(prepared: Result<Prepared, SnapshotError>) -> Result<Vec<wire::Mount>, SnapshotError> {
    match prepared? {
        Prepared::Usable(mounts) => Ok(mounts),
        Prepared::Known(name) => Err(SnapshotError::AlreadyExists(name)),
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Snapshots for Snapshotter {
    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Answer<PrepareSnapshotResponse> {
        let PrepareSnapshotRequest { key, parent, labels: given, .. } = request.into_inner();
        let prepared = self.prepare(Kind::Active, key, parent, labels(given)).await;
        let mounts = usable(prepared).map_err(failed)?;
        Ok(Response::new(PrepareSnapshotResponse { mounts }))
    }

    async fn view(&self, request: Request<ViewSnapshotRequest>) -> Answer<ViewSnapshotResponse> {
        let ViewSnapshotRequest { key, parent, labels: given, .. } = request.into_inner();
        let prepared = self.prepare(Kind::View, key, parent, labels(given)).await;
        let mounts = usable(prepared).map_err(failed)?;
        Ok(Response::new(ViewSnapshotResponse { mounts }))
    }

    async fn mounts(&self, request: Request<MountsRequest>) -> Answer<MountsResponse> {
        let mounts = self.mounts(request.into_inner().key).await.map_err(failed)?;
        Ok(Response::new(MountsResponse { mounts }))
    }

    async fn commit(&self, request: Request<CommitSnapshotRequest>) -> Answer<Nothing> {
        let CommitSnapshotRequest { name, key, labels: given, .. } = request.into_inner();
        self.commit(key, name, labels(given)).await.map_err(failed)?;
        Ok(Response::new(Nothing {}))
    }

    async fn remove(&self, request: Request<RemoveSnapshotRequest>) -> Answer<Nothing> {
        self.remove(request.into_inner().key).await.map_err(failed)?;
        Ok(Response::new(Nothing {}))
    }

    async fn stat(&self, request: Request<StatSnapshotRequest>) -> Answer<StatSnapshotResponse> {
        let info = self.info(request.into_inner().key).await.map_err(failed)?;
        Ok(Response::new(StatSnapshotResponse { info: Some(info.into()) }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Answer<UpdateSnapshotResponse> {
        let UpdateSnapshotRequest { info, update_mask, .. } = request.into_inner();
        let given = info.unwrap_or_default();
        let to = Info {
            name: given.name,
            parent: given.parent,
            kind: Kind::Committed,
            created_ns: 0,
            updated_ns: 0,
            labels: labels(given.labels),
        };
        let paths = update_mask.unwrap_or_default().paths;
        let info = self.update(to, paths).await.map_err(failed)?;
        Ok(Response::new(UpdateSnapshotResponse { info: Some(info.into()) }))
    }

    type ListStream = Pin<Box<dyn Stream<Item = Result<ListSnapshotsResponse, Status>> + Send>>;

    async fn list(&self, request: Request<ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let infos = self.list(request.into_inner().filters).await.map_err(failed)?;
        let infos = stream::iter(infos).map(wire::Info::from).chunks(AT_ONCE);
        Ok(Response::new(infos.map(|info| Ok(ListSnapshotsResponse { info })).boxed()))
    }

    async fn usage(&self, request: Request<UsageRequest>) -> Answer<UsageResponse> {
        let usage = self.usage(request.into_inner().key).await.map_err(failed)?;
        Ok(Response::new(UsageResponse { size: usage.size, inodes: usage.inodes }))
    }

    async fn cleanup(&self, _: Request<CleanupRequest>) -> Answer<Nothing> {
        self.clean_up().await.map_err(failed)?;
        Ok(Response::new(Nothing {}))
    }
}
