//! The joint between the piece plane and the machinery that makes connections.
//!
//! The piece plane takes a [`Dialer`] and an [`Acceptor`] and connects nowhere else; the processes bring
//! the plain and the TLS ones, a simulator brings its own. What a link carries is not trusted because of
//! how it was made: identities come from [`PeerAddress::certified`] or, without certificates, from the
//! hello, and bytes are verified whoever sent them.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use dfs_model::HostId;
use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(test)]
pub(crate) mod memory;

/// One bidirectional byte stream to another host.
pub trait Link: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Link for T {}

/// Makes links to other hosts.
#[async_trait]
pub trait Dialer: Send + Sync {
    /// Connects to `addr`, and says who is there; the caller bounds the wait.
    async fn dial(&self, addr: SocketAddr) -> io::Result<(Box<dyn Link>, PeerAddress)>;
}

/// Takes links that other hosts make.
#[async_trait]
pub trait Acceptor: Send + Sync {
    /// The next link and who is at its other end. An error concerns this one attempt: callers go on.
    async fn accept(&self) -> io::Result<(Box<dyn Link>, PeerAddress)>;

    /// Where it listens, for announcing.
    fn local_addrs(&self) -> Vec<SocketAddr>;
}

/// The service that a gRPC channel is to lead to. Whoever else is there is refused where there are certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Callee {
    /// A manager of the cluster.
    Manager,
    /// This scheduler.
    Scheduler(HostId),
    /// This seed.
    Seed(HostId),
    /// This node, which leads others.
    Delegate(HostId),
}

/// The far end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress {
    /// Where the link comes from.
    pub socket: SocketAddr,
    /// The host its certificate names; `None` on links without certificates.
    pub certified: Option<HostId>,
}

impl PeerAddress {
    /// An end that showed no certificate.
    pub fn plain(socket: SocketAddr) -> Self {
        Self { socket, certified: None }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}
