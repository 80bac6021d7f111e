//! A network in memory for tests: links are pipes with a bounded buffer, faults are switched by address.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::{Acceptor, Dialer, Link, PeerAddress};

/// Bytes a link holds before its writer has to wait.
pub(crate) const PIPE_BYTES: usize = 64 << 10;

type Accepted = (DuplexStream, PeerAddress);

/// All listeners, by address.
#[derive(Clone, Default)]
pub(crate) struct MemoryNetwork {
    listeners: Arc<Mutex<HashMap<SocketAddr, mpsc::UnboundedSender<Accepted>>>>,
    black_holes: Arc<Mutex<HashSet<SocketAddr>>>,
    dials: Arc<AtomicUsize>,
}

impl MemoryNetwork {
    /// Listens at `addr`, replacing who listened there before.
    pub(crate) fn listen(&self, addr: SocketAddr) -> MemoryAcceptor {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners.lock().insert(addr, sender);
        MemoryAcceptor { addr, incoming: tokio::sync::Mutex::new(receiver) }
    }

    /// Refuses dials to `addr` from now on.
    pub(crate) fn refuse(&self, addr: SocketAddr) {
        self.listeners.lock().remove(&addr);
    }

    /// Lets dials to `addr` hang for ever.
    pub(crate) fn swallow(&self, addr: SocketAddr) {
        self.black_holes.lock().insert(addr);
    }

    /// Dials so far, whatever became of them.
    pub(crate) fn dials(&self) -> usize {
        self.dials.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Dialer for MemoryNetwork {
    async fn dial(&self, addr: SocketAddr) -> io::Result<(Box<dyn Link>, PeerAddress)> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        if self.black_holes.lock().contains(&addr) {
            std::future::pending::<()>().await;
        }
        let listener = self.listeners.lock().get(&addr).cloned();
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let from = PeerAddress::plain(SocketAddr::from(([127, 0, 0, 1], 9)));
        listener.send((far, from)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok((Box::new(near), PeerAddress::plain(addr)))
    }
}

/// The listening end of one address.
pub(crate) struct MemoryAcceptor {
    addr: SocketAddr,
    incoming: tokio::sync::Mutex<mpsc::UnboundedReceiver<Accepted>>,
}

#[async_trait]
impl Acceptor for MemoryAcceptor {
    async fn accept(&self) -> io::Result<(Box<dyn Link>, PeerAddress)> {
        let (link, from) = match self.incoming.lock().await.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        };
        Ok((Box::new(link), from))
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        vec![self.addr]
    }
}
