//! How the connections of a process are protected, and who is at their other end.
//!
//! A process that has a certificate uses TLS on every connection, also on loopback. One that has none reaches, and is
//! reached from, its own machine only. Unix sockets and pipes inside a process need neither.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use dfs_model::HostId;
use dfs_peer::dial::{Callee, PeerAddress};
use tonic::{Extensions, Status};

use super::NetError;
use super::places::Who;
use super::stream::{Stream, connected};
use crate::tls::{self, Names, Plane, Role};

/// How the connections of a process are protected.
#[derive(Clone, Default)]
pub enum Security {
    /// Not at all: its own machine only.
    #[default]
    Plain,
    /// By TLS with certificates of both sides.
    Tls(Arc<tls::Identity>),
}

impl Security {
    /// Whether the process has a certificate.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether listening there is allowed.
    pub fn allows(&self, service: &str, ip: std::net::IpAddr) -> Result<(), NetError> {
        match self {
            Self::Plain if !ip.to_canonical().is_loopback() => {
                Err(NetError::NotLoopback { service: service.to_owned(), address: ip })
            }
            Self::Plain | Self::Tls(_) => Ok(()),
        }
    }

    /// Connects and greets; who is there.
    pub(super) async fn connect(&self, address: SocketAddr, plane: Plane) -> io::Result<Stream> {
        match self {
            Self::Plain if !address.ip().to_canonical().is_loopback() => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, NotJoined(address)))
            }
            Self::Plain => Ok(Stream::plain(connected(address).await?, address)),
            Self::Tls(identity) => {
                let (stream, names) = identity.connect(connected(address).await?, plane).await?;
                let trust = Trust::Certified(Arc::new(names));
                Ok(Stream::tls(stream, Peer { address, trust }))
            }
        }
    }
}

/// Another machine is not reached without a certificate.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is another machine, and this one has no certificate: join the cluster first \
     (`dfctl cluster join-token` there, --join JOIN-TOKEN here)"
)]
pub struct NotJoined(pub SocketAddr);

/// What is known of the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// It is on this machine, and nothing is protected.
    Plain,
    /// It shows no certificate: it may join, and nothing else.
    Anonymous,
    /// It is who its certificate names.
    Certified(Arc<Names>),
}

/// Who calls: in the extensions of every gRPC request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// Who is there.
    pub trust: Trust,
}

/// Who calls a gRPC service: what later checks of rights begin with.
#[derive(Debug, Clone)]
pub struct Caller(Option<Peer>);

impl Caller {
    /// Of a request. One that comes from no other machine comes from this process, or from its user.
    pub fn of(extensions: &Extensions) -> Self {
        Self(extensions.get().cloned())
    }

    /// What its certificate names, where there are certificates.
    pub fn names(&self) -> Option<&Names> {
        match self.0.as_ref().map(|peer| &peer.trust) {
            Some(Trust::Certified(names)) => Some(names),
            None | Some(Trust::Plain | Trust::Anonymous) => None,
        }
    }

    /// Where it calls from.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.as_ref().map(|peer| peer.address)
    }

    /// Refuses a caller that is not this host in one of these roles.
    pub fn require(&self, host: HostId, roles: &[Role]) -> Result<(), Status> {
        self.check(|names| {
            let is_one = roles.iter().any(|role| names.has(host, *role));
            let first = roles.first().filter(|_| !is_one);
            first.and_then(|role| names.expect(host, *role).err())
        })
    }

    /// Refuses a caller of whom no certificate says that it belongs to the cluster, in whatever role.
    pub fn require_member(&self) -> Result<(), Status> {
        self.check(|_| None)
    }

    /// Refuses a caller that has not this role.
    pub fn require_role(&self, role: Role) -> Result<(), Status> {
        self.check(|names| names.expect_role(role).err())
    }

    fn check(&self, objection: impl FnOnce(&Names) -> Option<tls::Refused>) -> Result<(), Status> {
        match self.0.as_ref().map(|peer| &peer.trust) {
            None | Some(Trust::Plain) => Ok(()),
            Some(Trust::Anonymous) => Err(no_certificate()),
            Some(Trust::Certified(names)) => match objection(names) {
                None => Ok(()),
                Some(refused) => Err(Status::permission_denied(refused.to_string())),
            },
        }
    }
}

/// What somebody without a certificate is told.
pub(super) fn no_certificate() -> Status {
    Status::unauthenticated("this needs a certificate of the cluster: join it first")
}

impl Trust {
    /// Refuses whoever is not the service that was meant.
    pub(super) fn expect(&self, callee: &Callee) -> Result<(), tls::Refused> {
        let names = match self {
            Self::Plain => return Ok(()),
            Self::Anonymous => return Err(tls::Refused::NoCertificate),
            Self::Certified(names) => names,
        };
        match *callee {
            Callee::Manager => names.expect_role(Role::Manager),
            Callee::Scheduler(host) => names.expect(host, Role::Scheduler),
            Callee::Seed(host) => names.expect(host, Role::Seed),
            Callee::Delegate(host) => names.expect(host, Role::Node),
        }
    }
}

impl Peer {
    /// The host that its certificate names, where it names one.
    pub(super) fn host(&self) -> Option<Who> {
        match &self.trust {
            Trust::Certified(names) => names.all().first().map(|name| Who::Host(name.host)),
            Trust::Plain | Trust::Anonymous => None,
        }
    }

    /// The same as the far end of a link of the piece plane.
    pub(super) fn of_pieces(&self) -> Result<PeerAddress, tls::Refused> {
        let socket = self.address;
        match &self.trust {
            Trust::Plain => Ok(PeerAddress::plain(socket)),
            Trust::Anonymous => Err(tls::Refused::NoCertificate),
            Trust::Certified(names) => {
                let refused =
                    || tls::Refused::Role { expected: Role::Node, found: Names::clone(names) };
                let host = names.piece_host().ok_or_else(refused)?;
                Ok(PeerAddress { socket, certified: Some(host) })
            }
        }
    }
}
