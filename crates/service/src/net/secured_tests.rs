//! What is refused where connections are protected, and that it is for the right reason.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use dfs_model::HostId;
use dfs_peer::dial::{Acceptor, Callee, Dialer};
use dfs_peer::error_chain;
use dfs_proto::manager::manager_client::ManagerClient;
use dfs_proto::manager::manager_server::{Manager, ManagerServer};
use dfs_proto::manager::{MemberList, MembersRequest, MembershipRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use super::stream::connected;
use super::*;
use crate::tls::tests::Cluster;
use crate::tls::{Fingerprint, Role};

async fn listener(security: &Security) -> (TcpListener, SocketAddr) {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let listener = bind("trial", ip, Port::Exactly(0), security).await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// Dials the piece plane of a host; what the dialer says, and, if anybody is let in, who.
async fn dial(
    from: &Security,
    to: &Security,
) -> (io::Result<Option<HostId>>, Option<Option<HostId>>) {
    let (listener, at) = listener(to).await;
    let acceptor = TcpLinkAcceptor::new(listener, to.clone()).unwrap();
    let dialing = async {
        let (mut link, peer) = TcpLinkDialer::new(from.clone()).dial(at).await?;
        link.write_all(b"?").await?;
        link.read_exact(&mut [0]).await?;
        Ok(peer.certified)
    };
    let accepting = async {
        let (mut link, peer) = acceptor.accept().await.ok()?;
        link.read_exact(&mut [0]).await.ok()?;
        link.write_all(b"!").await.ok()?;
        link.shutdown().await.ok()?;
        Some(peer.certified)
    };
    let refused = CancellationToken::new();
    let dialing = async {
        let dialed: io::Result<_> = dialing.await;
        if dialed.is_err() {
            refused.cancel();
        }
        dialed
    };
    let (dialed, accepted) = tokio::join!(dialing, refused.run_until_cancelled(accepting));
    (dialed, accepted.flatten())
}

#[tokio::test]
async fn links_are_made_between_hosts_that_have_pieces_and_are_known_by_their_certificates() {
    let cluster = Cluster::new();
    let ((node, node_id), (seed, seed_id)) =
        (cluster.security(Role::Node), cluster.security(Role::Seed));
    let (guest, guest_id) = cluster.security(Role::Guest);
    let (dialed, accepted) = dial(&node, &seed).await;
    assert_eq!((dialed.unwrap(), accepted), (Some(seed_id), Some(Some(node_id))));
    let (dialed, accepted) = dial(&guest, &node).await;
    assert_eq!((dialed.unwrap(), accepted), (Some(node_id), Some(Some(guest_id))));
    let (manager, scheduler) =
        (cluster.security(Role::Manager).0, cluster.security(Role::Scheduler).0);
    for (from, to) in [(&scheduler, &seed), (&node, &scheduler), (&manager, &node)] {
        let (dialed, accepted) = dial(from, to).await;
        assert!(dialed.is_err() && accepted.is_none());
    }
}

#[tokio::test]
async fn who_is_plain_and_who_is_not_have_nothing_to_say_to_each_other() {
    let (node, _) = Cluster::new().security(Role::Node);
    for (from, to) in [(&Security::Plain, &node), (&node, &Security::Plain)] {
        let (listener, at) = listener(to).await;
        let acceptor = TcpLinkAcceptor::new(listener, to.clone()).unwrap();
        let dialing = async {
            let (mut link, _) = TcpLinkDialer::new(from.clone()).dial(at).await?;
            link.write_all(&[0; 64]).await?;
            let mut answer = Vec::new();
            link.read_to_end(&mut answer).await?;
            // An alert is all that a plain dialer hears.
            assert!(answer.first().is_none_or(|kind| *kind == 21), "{answer:?}");
            Err::<(), _>(io::Error::other("nothing was said"))
        };
        let accepting = async {
            // Of a plain acceptor: somebody comes who says no word that it knows, and goes.
            let (link, _) = acceptor.accept().await.unwrap();
            drop(link);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            dialed = dialing => assert!(dialed.is_err()),
            () = accepting => unreachable!(),
        }
    }
}

#[tokio::test]
async fn who_has_no_certificate_reaches_no_other_machine_and_is_told_to_join() {
    let other: SocketAddr = "192.0.2.1:4001".parse().unwrap();
    let error = TcpLinkDialer::default().dial(other).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("--join JOIN-TOKEN"), "{error}");
    let channel = grpc_channel_to(other, Callee::Manager, &Security::Plain);
    let status = ManagerClient::new(channel).members(MembersRequest::default()).await.unwrap_err();
    assert!(error_chain(&status).contains("--join JOIN-TOKEN"), "{}", error_chain(&status));
}

/// Says who calls.
struct Asked;

#[tonic::async_trait]
impl Manager for Asked {
    type MembershipStream = futures::stream::Pending<Result<MemberList, Status>>;

    async fn membership(
        &self,
        _: Request<Streaming<MembershipRequest>>,
    ) -> Result<Response<Self::MembershipStream>, Status> {
        Err(Status::unimplemented("nobody takes part"))
    }

    async fn members(
        &self,
        request: Request<MembersRequest>,
    ) -> Result<Response<MemberList>, Status> {
        let caller = Caller::of(request.extensions());
        caller.require_role(Role::Node)?;
        let host = caller.names().and_then(|names| names.piece_host());
        let cluster_id = host.map(|host| host.as_bytes().to_vec()).unwrap_or_default().into();
        Ok(Response::new(MemberList { cluster_id, ..MemberList::default() }))
    }
}

/// Asks a server in this role, as a callee that may be somebody else.
async fn ask(from: &Security, to: &Security, callee: Callee) -> Result<Vec<u8>, Status> {
    let (listener, at) = listener(to).await;
    let stop = CancellationToken::new();
    let serving =
        serve_grpc(Routes::new(ManagerServer::new(Asked)), listener, to.clone(), stop.clone());
    let asking = async {
        let channel = grpc_channel_to(at, callee, from);
        let answer = ManagerClient::new(channel).members(MembersRequest::default()).await;
        stop.cancel();
        answer
    };
    let (served, answer) = tokio::join!(serving, asking);
    served.unwrap();
    Ok(answer?.into_inner().cluster_id.to_vec())
}

#[tokio::test]
async fn a_request_carries_who_calls_and_is_refused_to_others() {
    let cluster = Cluster::new();
    let (manager, _) = cluster.security(Role::Manager);
    let (node, id) = cluster.security(Role::Node);
    let answer = ask(&node, &manager, Callee::Manager).await.unwrap();
    assert_eq!(answer, id.as_bytes());
    let (seed, _) = cluster.security(Role::Seed);
    let status = ask(&seed, &manager, Callee::Manager).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("not of a node"), "{status}");
    let answer = ask(&Security::Plain, &Security::Plain, Callee::Manager).await.unwrap();
    assert!(answer.is_empty(), "on one machine nobody is asked for a certificate");
}

#[tokio::test]
async fn nobody_acts_as_a_manager_scheduler_or_seed_who_is_none() {
    let cluster = Cluster::new();
    let (node, _) = cluster.security(Role::Node);
    let (other, other_id) = cluster.security(Role::Node);
    let (scheduler, scheduler_id) = cluster.security(Role::Scheduler);
    for (server, callee) in [
        (&other, Callee::Manager),
        (&other, Callee::Scheduler(other_id)),
        (&other, Callee::Seed(other_id)),
        (&scheduler, Callee::Seed(scheduler_id)),
        (&scheduler, Callee::Scheduler(other_id)),
    ] {
        let status = ask(&node, server, callee).await.unwrap_err();
        assert!(error_chain(&status).contains("the certificate there is that of"), "{status:?}");
    }
    assert!(ask(&node, &scheduler, Callee::Scheduler(scheduler_id)).await.is_ok());
}

/// Asks a manager whose certificate somebody without one knows by its fingerprint.
async fn by_token(asking: impl AsyncFnOnce(&Cluster, SocketAddr, Fingerprint)) {
    let cluster = Cluster::new();
    let (manager, _) = cluster.security(Role::Manager);
    let Security::Tls(identity) = &manager else { unreachable!() };
    let fingerprint = identity.with(crate::tls::Credentials::fingerprint);
    let (listener, at) = listener(&manager).await;
    let stop = CancellationToken::new();
    let serving =
        serve_grpc(Routes::new(ManagerServer::new(Asked)), listener, manager.clone(), stop.clone());
    let asking = async {
        asking(&cluster, at, fingerprint).await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(serving, asking);
    served.unwrap();
}

#[tokio::test]
async fn who_shows_no_certificate_may_join_and_nothing_else() {
    by_token(async |_, at, fingerprint| {
        let channel = grpc_channel_by_token(&at.into(), fingerprint);
        let asked = ManagerClient::new(channel.clone()).members(MembersRequest::default()).await;
        assert_eq!(asked.unwrap_err().code(), Code::Unauthenticated);
        let mut joining = dfs_proto::manager::enrolment_client::EnrolmentClient::new(channel);
        // It reaches the services, of which this one is not there.
        let joined = joining.join(dfs_proto::manager::JoinRequest::default()).await;
        assert_eq!(joined.unwrap_err().code(), Code::Unimplemented);
    })
    .await;
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let cluster = Cluster::new();
    let ((node, node_id), (seed, _)) = (cluster.security(Role::Node), cluster.security(Role::Seed));
    let (listener, at) = listener(&seed).await;
    let acceptor = Arc::new(TcpLinkAcceptor::new(listener, seed.clone()).unwrap());
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(connected(at).await.unwrap());
    }
    let dialing = async {
        let (mut link, _) = TcpLinkDialer::new(node.clone()).dial(at).await.unwrap();
        link.write_all(b"?").await.unwrap();
    };
    let (accepted, ()) = tokio::join!(acceptor.accept(), dialing);
    assert_eq!(accepted.unwrap().1.certified, Some(node_id));
}

#[tokio::test]
async fn who_greets_without_a_certificate_and_asks_nothing_keeps_nobody_out() {
    by_token(async |cluster, at, fingerprint| {
        let mut idle = Vec::new();
        for _ in 0..20 {
            let stream = connected(at).await.unwrap();
            let mut stream = crate::tls::connect_by_token(stream, fingerprint).await.unwrap();
            stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
            idle.push(stream);
        }
        let (node, _) = cluster.security(Role::Node);
        let channel = grpc_channel_to(at, Callee::Manager, &node);
        ManagerClient::new(channel).members(MembersRequest::default()).await.unwrap();
        // It has not spoken: its time runs out, although it has greeted. Nothing else is waited for from here on.
        tokio::time::pause();
        let mut said = Vec::new();
        let ending = idle[0].read_to_end(&mut said);
        let ended = tokio::time::timeout(3 * places::SILENT_FOR, ending).await;
        assert!(ended.is_ok(), "it is not closed");
    })
    .await;
}
