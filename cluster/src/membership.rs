//! A process's place in the cluster: it joins the manager, renews its lease, and follows the list.
//!
//! While no manager answers, the last list stands, also over a restart, and joining goes on being tried.

use std::sync::Arc;
use std::time::Duration;

pub use dfs_leader::members::{MAX_NAMED, Member, Members};
use dfs_peer::swarm::KeptList;
use dfs_proto::common;
use dfs_proto::manager::manager_client::ManagerClient;
use dfs_proto::manager::{MembershipRequest, Role};
use dfs_service::{Backoff, Tracker};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

/// The format of the messages that are sent.
const FORMAT: u32 = 1;

/// Longest pause between attempts to join: well within a lease.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(3) };

/// How long a list that is kept is waited for.
const SAVE_WITHIN: Duration = Duration::from_secs(1);

/// Joins as `role` and keeps at it as tasks of `tracker`; gives the list: until it is heard the one that was kept, if any.
pub fn follow(
    manager: Channel,
    me: common::Host,
    role: Role,
    kept: Option<KeptList>,
    tracker: &Tracker,
) -> watch::Receiver<Arc<Members>> {
    let first = kept.as_ref().and_then(KeptList::load).map(|list| Members::read(list).0);
    let (sender, receiver) = watch::channel(Arc::new(first.unwrap_or_default()));
    let sender = Arc::new(sender);
    let stop = tracker.token().clone();
    tracker.spawn_restarting("membership", RETRY, move || {
        let request = MembershipRequest {
            host: Some(me.clone()),
            role: role.into(),
            format: FORMAT,
            known_version: sender.borrow().version,
        };
        attend(manager.clone(), request, Arc::clone(&sender), kept.clone(), stop.clone())
    });
    receiver
}

/// One stream to the manager, until it breaks or `stop`.
async fn attend(
    manager: Channel,
    mut request: MembershipRequest,
    members: Arc<watch::Sender<Arc<Members>>>,
    kept: Option<KeptList>,
    stop: CancellationToken,
) -> Result<(), Status> {
    let (renewals, outgoing) = mpsc::channel(1);
    // The mailbox is empty: this cannot fail.
    let _ = renewals.try_send(request.clone());
    let mut client = ManagerClient::new(manager);
    let joining = client.membership(ReceiverStream::new(outgoing));
    let Some(joined) = stop.run_until_cancelled(joining).await else { return Ok(()) };
    let mut lists = joined?.into_inner();
    let mut pause = Duration::from_secs(1);
    // Lists that come often must not put off a renewal: each who is dropped for that would make another one.
    let mut due = Instant::now() + pause;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            list = lists.message() => {
                let ended = || Status::unavailable("the manager ended the stream");
                let list = list?.ok_or_else(ended)?;
                pause = Duration::from_millis((list.lease_ms / 3).max(10).into());
                due = due.min(Instant::now() + pause);
                let heard = list.clone();
                let (list, unreadable) = Members::read(list);
                if unreadable > 0 {
                    tracing::warn!(unreadable, "members that cannot be read are left out");
                }
                request.known_version = list.version;
                members.send_replace(Arc::new(list));
                if let Some(kept) = kept.clone() {
                    // A disk that is slow must not put off a renewal; without it the list before stays.
                    let saving = tokio::task::spawn_blocking(move || kept.save(&heard));
                    let _ = tokio::time::timeout(SAVE_WITHIN, saving).await;
                }
            }
            () = tokio::time::sleep_until(due) => {
                due = Instant::now() + pause;
                let ended = |_| Status::unavailable("the stream to the manager is closed");
                renewals.send(request.clone()).await.map_err(ended)?;
            }
        }
    }
}
