//! The manager at the gRPC edge: messages in, status codes out.

use dfs_model::HostId;
use dfs_proto::manager::manager_server::Manager;
use dfs_proto::manager::{Member, MemberList, MembersRequest, MembershipRequest, Role};
use dfs_service::net::Caller;
use dfs_service::tls;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::Handle;
use super::service::RenewalError;

/// Lists on the way to one member; a slow one gets the newest later.
const OUTGOING: usize = 2;

/// Serves `dfs.manager.v1.Manager`.
pub struct Grpc {
    handle: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Grpc {
    /// Streams are tasks of `tasks` and end with `stop`.
    pub fn new(handle: Handle, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { handle, tasks, stop }
    }
}

fn status(error: &RenewalError) -> Status {
    match error {
        RenewalError::Rejected(rejected) => Status::permission_denied(rejected.to_string()),
        RenewalError::Failed(error) => Status::unavailable(error.to_string()),
    }
}

/// Nobody joins but as who and what their certificate names.
async fn renew(handle: &Handle, caller: &Caller, request: MembershipRequest) -> Result<(), Status> {
    let role = request.role();
    let host = request.host.ok_or_else(|| Status::invalid_argument("the host is missing"))?;
    let named = HostId::from_slice(&host.id).zip(tls::Role::of_wire(role));
    if let Some((id, role)) = named {
        caller.require(id, &[role])?;
    }
    handle.renew(role, host).await.map_err(|error| status(&error))
}

#[tonic::async_trait]
impl Manager for Grpc {
    type MembershipStream = ReceiverStream<Result<MemberList, Status>>;

    async fn membership(
        &self,
        request: Request<Streaming<MembershipRequest>>,
    ) -> Result<Response<Self::MembershipStream>, Status> {
        let caller = Caller::of(request.extensions());
        let mut renewals = request.into_inner();
        let first = renewals.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("the stream is empty"))?;
        renew(&self.handle, &caller, first).await?;
        let (sender, receiver) = mpsc::channel(OUTGOING);
        let (handle, stop) = (self.handle.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let served = stop.run_until_cancelled(serve(&handle, &caller, renewals, &sender)).await;
            let end = match served {
                Some(Ok(())) => return,
                Some(Err(status)) => status,
                None => Status::unavailable("the manager is stopping"),
            };
            // The member may have gone.
            let _ = sender.try_send(Err(end));
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn members(
        &self,
        request: Request<MembersRequest>,
    ) -> Result<Response<MemberList>, Status> {
        let area = request.into_inner().area;
        let mut list = MemberList::clone(&self.handle.list().borrow());
        // For seeds; those who only look are many.
        list.origin_areas.clear();
        if !area.is_empty() {
            keep_area(&mut list.members, &area);
        }
        Ok(Response::new(list))
    }
}

/// Keeps the members of an area; of a role that has none there, all. Seeds stay wherever they are: what
/// they signed is checked everywhere.
fn keep_area(members: &mut Vec<Member>, area: &str) {
    let is_there = |member: &Member| {
        let location = member.host.as_ref().and_then(|host| host.location.as_ref());
        location.is_some_and(|location| location.area == area)
    };
    let roles: Vec<i32> = members.iter().filter(|m| is_there(m)).map(|m| m.role).collect();
    members.retain(|member| {
        member.role() == Role::Seed || is_there(member) || !roles.contains(&member.role)
    });
}

/// Sends the list now and whenever it changes; renews with every message.
async fn serve(
    handle: &Handle,
    caller: &Caller,
    mut renewals: Streaming<MembershipRequest>,
    out: &mpsc::Sender<Result<MemberList, Status>>,
) -> Result<(), Status> {
    let mut list = handle.list();
    list.mark_changed();
    loop {
        tokio::select! {
            changed = list.changed() => {
                let stopped = || Status::unavailable("the manager is stopping");
                changed.map_err(|_| stopped())?;
                let news = MemberList::clone(&list.borrow_and_update());
                if out.send(Ok(news)).await.is_err() {
                    return Ok(());
                }
            }
            request = renewals.message() => match request? {
                Some(request) => renew(handle, caller, request).await?,
                None => return Ok(()),
            },
        }
    }
}
