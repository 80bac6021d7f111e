//! The piece plane's links over plain TCP.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use dfs_peer::dial::{Acceptor, Dialer, Link, PeerAddress};
use tokio::net::{TcpListener, TcpSocket};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an acceptor rests when the process has no file descriptors or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Makes links over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpLinkDialer;

#[async_trait]
impl Dialer for TcpLinkDialer {
    /// Connects within five seconds; callers usually give up earlier.
    async fn dial(&self, addr: SocketAddr) -> io::Result<Box<dyn Link>> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(addr)).await??;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Takes links over TCP.
#[derive(Debug)]
pub struct TcpLinkAcceptor {
    listener: TcpListener,
    local: SocketAddr,
}

impl TcpLinkAcceptor {
    /// Takes what comes to `listener`, from [`bind`](super::bind).
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        let local = listener.local_addr()?;
        Ok(Self { listener, local })
    }
}

#[async_trait]
impl Acceptor for TcpLinkAcceptor {
    async fn accept(&self) -> io::Result<(Box<dyn Link>, PeerAddress)> {
        let (stream, socket) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if is_exhaustion(&error) {
                    // The caller tries again at once and would spin until somebody closes a file.
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                return Err(error);
            }
        };
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), PeerAddress::plain(socket)))
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        vec![self.local]
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::{Port, bind};

    #[tokio::test]
    async fn a_dialed_link_carries_bytes_both_ways() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listener = bind("pieces", ip, Port::Exactly(0)).await.unwrap();
        let acceptor = TcpLinkAcceptor::new(listener).unwrap();
        let address = acceptor.local_addrs()[0];
        let (dialed, accepted) = tokio::join!(TcpLinkDialer.dial(address), acceptor.accept());
        let (mut near, (mut far, peer)) = (dialed.unwrap(), accepted.unwrap());
        assert!(peer.socket.ip().is_loopback() && peer.certified.is_none());
        let mut bytes = [0; 4];
        near.write_all(b"ping").await.unwrap();
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
        far.write_all(b"pong").await.unwrap();
        near.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"pong");
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listener = bind("pieces", ip, Port::Exactly(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = TcpLinkDialer.dial(address).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
