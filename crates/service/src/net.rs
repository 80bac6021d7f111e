//! The one place that makes connections and listens for them.
//!
//! Everything between machines goes through TLS 1.3 with the certificates of both sides ([`Security`]); a process
//! without one neither listens where another machine could reach it ([`bind`] refuses) nor dials one. Small frames
//! wait for nobody: `TCP_NODELAY` is on everywhere.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tokio::net::TcpListener;

mod channels;
mod group;
mod grpc;
mod http;
pub(crate) mod incoming;
mod links;
mod local;
pub mod manager;
mod patient;
pub(crate) mod places;
mod seated;
mod security;
mod stream;
mod tunnel;

pub use channels::GrpcChannels;
pub use group::SocketGroup;
pub use grpc::{
    grpc_channel, grpc_channel_by_token, grpc_channel_over, grpc_channel_to, grpc_local_channel,
    grpc_pipe, grpc_server, serve_grpc, serve_grpc_local,
};
pub use http::{is_mirror, serve_http, serve_http_over, upgraded};
pub use links::{TcpLinkAcceptor, TcpLinkDialer};
pub use local::{LocalListener, SocketAccess, published};
pub use places::Serves;
pub use security::{Caller, NotJoined, Peer, Security, Trust};
pub use tunnel::{reached, tunnel};

/// Why a listener could not be made, or an address not be used.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The address can be reached from other machines.
    #[error(
        "refusing to listen on {address} for {service}: others can reach it, and this process has no \
         certificate; join the cluster first (--join JOIN-TOKEN, from `dfctl cluster join-token`), or \
         listen on loopback (127.0.0.1 or ::1)"
    )]
    NotLoopback {
        /// What was to be served.
        service: String,
        /// The address.
        address: IpAddr,
    },
    /// Nobody can reach what would be announced.
    #[error(
        "--listen {0} stands for every address of this machine: name those to announce with --advertise"
    )]
    NothingToAnnounce(IpAddr),
    /// The port is taken, or the address is not this machine's.
    #[error("cannot listen for {service} on {address} (see --port-{service}, --listen)")]
    Bind {
        /// What was to be served.
        service: String,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The Unix socket cannot be made.
    #[error("cannot make the socket {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody answers on the Unix socket.
    #[error("another process answers on {}", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
}

/// Which port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The usual one; a free one if it is taken.
    Usual(u16),
    /// This one and no other; 0 is a free one.
    Exactly(u16),
}

impl Port {
    /// The port that was given, else the usual one.
    pub fn given_or(given: Option<u16>, usual: u16) -> Self {
        given.map_or(Self::Usual(usual), Self::Exactly)
    }
}

/// Listens for `service`, the word for it in messages and in the flag of its port; without certificates on loopback
/// addresses only.
pub async fn bind(
    service: &str,
    ip: IpAddr,
    port: Port,
    security: &Security,
) -> Result<TcpListener, NetError> {
    security.allows(service, ip)?;
    let (first, otherwise) = match port {
        Port::Usual(port) => (port, Some(0)),
        Port::Exactly(port) => (port, None),
    };
    let address = SocketAddr::new(ip, first);
    let bound = match (TcpListener::bind(address).await, otherwise) {
        (Err(error), Some(free)) if error.kind() == io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::new(ip, free)).await
        }
        (bound, _) => bound,
    };
    bound.map_err(|source| NetError::Bind { service: service.to_owned(), address, source })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn an_address_that_others_can_reach_is_refused() {
        let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
        for address in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            IpAddr::V6(mapped),
        ] {
            let bound = bind("pieces", address, Port::Exactly(0), &Security::Plain).await;
            let error = bound.unwrap_err().to_string();
            assert!(error.contains("pieces") && error.contains("--join"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_taken_usual_port_gives_way_and_a_taken_exact_one_does_not() {
        let first = bind("pieces", LOOPBACK, Port::Exactly(0), &Security::Plain).await.unwrap();
        let taken = first.local_addr().unwrap().port();
        let error =
            bind("pieces", LOOPBACK, Port::Exactly(taken), &Security::Plain).await.unwrap_err();
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
        let second = bind("pieces", LOOPBACK, Port::Usual(taken), &Security::Plain).await.unwrap();
        assert_ne!(second.local_addr().unwrap().port(), taken);
    }

    #[test]
    fn a_given_port_is_exact() {
        assert_eq!(Port::given_or(Some(0), 4001), Port::Exactly(0));
        assert_eq!(Port::given_or(None, 4001), Port::Usual(4001));
    }
}

#[cfg(test)]
mod secured_tests;
