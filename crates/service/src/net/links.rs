//! The piece plane's links over TCP.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use dfs_peer::dial::{Acceptor, Dialer, Link, PeerAddress};
use tokio::net::TcpListener;

use super::incoming::Incoming;
use super::security::Security;
use crate::tls::Plane;

/// Makes links over TCP.
#[derive(Clone, Default)]
pub struct TcpLinkDialer {
    security: Security,
}

impl TcpLinkDialer {
    /// Links that are protected so.
    pub fn new(security: Security) -> Self {
        Self { security }
    }
}

#[async_trait]
impl Dialer for TcpLinkDialer {
    /// Connects and greets within ten seconds; callers usually give up earlier.
    async fn dial(&self, addr: SocketAddr) -> io::Result<(Box<dyn Link>, PeerAddress)> {
        let stream = self.security.connect(addr, Plane::Pieces).await?;
        let peer = stream.peer().of_pieces().map_err(io::Error::other)?;
        Ok((Box::new(stream), peer))
    }
}

/// Takes links over TCP.
pub struct TcpLinkAcceptor {
    incoming: Incoming,
    local: SocketAddr,
}

impl TcpLinkAcceptor {
    /// Takes what comes to `listener`, from [`bind`](super::bind), protected so.
    pub fn new(listener: TcpListener, security: Security) -> io::Result<Self> {
        let local = listener.local_addr()?;
        Ok(Self { incoming: Incoming::new(listener, security, Plane::Pieces), local })
    }
}

#[async_trait]
impl Acceptor for TcpLinkAcceptor {
    async fn accept(&self) -> io::Result<(Box<dyn Link>, PeerAddress)> {
        loop {
            let stream = self.incoming.next().await?;
            match stream.get_ref().peer().of_pieces() {
                Ok(peer) => return Ok((Box::new(stream), peer)),
                Err(error) => {
                    tracing::debug!(from = %stream.get_ref().peer().address, %error, "a link is refused");
                }
            }
        }
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        vec![self.local]
    }
}
