//! A process's certificate at work: what every new connection is made with.
//!
//! When it is renewed, new connections use the new one; those that there are go on as they are. TLS 1.3 and nothing
//! else; sessions are resumed, so that a host that comes back costs little, and a resumed one is checked again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{
    ClientConfig, CommonState, HandshakeKind, RootCertStore, ServerConfig, version::TLS13,
};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::credentials::Credentials;
use super::names::{Names, Role};
use super::token::Fingerprint;
use super::verify::{Refused, ServerVerifier, Side, check_again, names_in};

/// How long a greeting may take, on either side.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Sessions that are remembered, as a client and as a server.
const SESSIONS: usize = 1024;

/// Bytes that a connection keeps which could not be sent yet.
const SEND_BUFFER: usize = 256 << 10;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// gRPC.
    Grpc,
    /// The piece plane.
    Pieces,
}

impl Plane {
    const ALL: [Self; 2] = [Self::Grpc, Self::Pieces];

    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Grpc => b"h2",
            Self::Pieces => b"dfs-piece/1",
        }
    }
}

/// The certificate in force, shared by everything that makes connections.
pub struct Identity {
    current: RwLock<Arc<Current>>,
    renewed: watch::Sender<u64>,
}

/// A certificate with what is made of it.
struct Current {
    credentials: Credentials,
    clients: [Arc<ClientConfig>; 2],
    servers: [Arc<ServerConfig>; 2],
}

impl Identity {
    /// With these credentials for a start.
    pub fn new(credentials: Credentials) -> Result<Self, rustls::Error> {
        let current = RwLock::new(Arc::new(Current::of(credentials)?));
        Ok(Self { current, renewed: watch::Sender::new(0) })
    }

    /// Uses these from now on.
    pub fn renew(&self, credentials: Credentials) -> Result<(), rustls::Error> {
        let fresh = Arc::new(Current::of(credentials)?);
        *self.current.write() = fresh;
        self.renewed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// How often they were renewed, and every time that they are.
    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.renewed.subscribe()
    }

    /// Looks at the credentials in force.
    pub fn with<T>(&self, look: impl FnOnce(&Credentials) -> T) -> T {
        look(&self.current().credentials)
    }

    /// Who this process is.
    pub fn names(&self) -> Names {
        self.with(|credentials| credentials.names().clone())
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read())
    }

    /// Greets whoever was dialed; who it is.
    pub async fn connect(
        &self,
        stream: TcpStream,
        plane: Plane,
    ) -> io::Result<(client::TlsStream<ReadAhead>, Names)> {
        let current = self.current();
        let stream = connect_with(&current.clients[plane as usize], stream).await?;
        let names = current.names_of(stream.get_ref().1, plane, Side::Server)?;
        Ok((stream, names.ok_or_else(|| other(Refused::NoCertificate))?))
    }

    /// Greets whoever has dialed; who it is, where they said so. Who does not say so may join, and nothing else.
    pub async fn accept(
        &self,
        stream: TcpStream,
        plane: Plane,
    ) -> io::Result<(server::TlsStream<ReadAhead>, Option<Names>)> {
        let current = self.current();
        let acceptor = TlsAcceptor::from(Arc::clone(&current.servers[plane as usize]));
        let limit = |session: &mut rustls::ServerConnection| {
            session.set_buffer_limit(Some(SEND_BUFFER));
        };
        let accepting = acceptor.accept_with(read_ahead(stream), limit);
        let stream = tokio::time::timeout(HANDSHAKE_WITHIN, accepting).await??;
        let names = current.names_of(stream.get_ref().1, plane, Side::Client)?;
        Ok((stream, names))
    }
}

/// Greets a manager that a token leads to. It is told nothing of who is asking.
pub async fn connect_by_token(
    stream: TcpStream,
    fingerprint: Fingerprint,
) -> io::Result<client::TlsStream<ReadAhead>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = ServerVerifier::of_token(fingerprint, Arc::clone(&provider));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(other)?.dangerous();
    let mut config =
        builder.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    config.alpn_protocols = vec![Plane::Grpc.alpn().to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    connect_with(&Arc::new(config), stream).await
}

async fn connect_with(
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> io::Result<client::TlsStream<ReadAhead>> {
    // Sessions are remembered by it; it is not sent, and nothing is concluded from it.
    let name = ServerName::from(stream.peer_addr()?.ip());
    let limit = |session: &mut rustls::ClientConnection| {
        session.set_buffer_limit(Some(SEND_BUFFER));
    };
    let connector = TlsConnector::from(Arc::clone(config));
    let connecting = connector.connect_with(name, read_ahead(stream), limit);
    tokio::time::timeout(HANDSHAKE_WITHIN, connecting).await?
}

/// A connection of which more is read than was asked for: TLS asks for a record at most, and at first for less.
pub type ReadAhead = BufReader<TcpStream>;

/// Bytes that are read at a time: a group of a content, and what is around it.
const READ_AT_A_TIME: usize = 68 << 10;

fn read_ahead(stream: TcpStream) -> ReadAhead {
    BufReader::with_capacity(READ_AT_A_TIME, stream)
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

impl Current {
    fn of(credentials: Credentials) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(credentials.authority().clone())?;
        let client = |plane| client_config(&credentials, &roots, &provider, plane).map(Arc::new);
        let server = |plane| server_config(&credentials, &roots, &provider, plane).map(Arc::new);
        let [grpc, pieces] = Plane::ALL;
        let clients = [client(grpc)?, client(pieces)?];
        let servers = [server(grpc)?, server(pieces)?];
        Ok(Self { credentials, clients, servers })
    }

    /// Who the other side is, now that it was greeted.
    fn names_of(
        &self,
        session: &CommonState,
        plane: Plane,
        side: Side,
    ) -> io::Result<Option<Names>> {
        if session.alpn_protocol() != Some(plane.alpn()) {
            return Err(other(Refused::Protocol));
        }
        let Some(chain) = session.peer_certificates() else { return Ok(None) };
        let own = chain.first().ok_or_else(|| other(Refused::NoCertificate))?;
        if session.handshake_kind() == Some(HandshakeKind::Resumed) {
            let provider = self.clients[0].crypto_provider();
            check_again(chain, self.credentials.authority(), side, provider).map_err(other)?;
        }
        names_in(own).map(Some).map_err(other)
    }
}

fn own_chain(credentials: &Credentials) -> Vec<CertificateDer<'static>> {
    let mut chain = credentials.chain().to_vec();
    // Who joins knows the authority by its fingerprint only.
    if credentials.names().has_role(Role::Manager) {
        chain.push(credentials.authority().clone());
    }
    chain
}

fn own_key(credentials: &Credentials) -> Result<PrivateKeyDer<'static>, rustls::Error> {
    let der = credentials.key().der().to_vec();
    PrivateKeyDer::try_from(der).map_err(|error| rustls::Error::General(error.to_owned()))
}

fn client_config(
    credentials: &Credentials,
    roots: &RootCertStore,
    provider: &Arc<CryptoProvider>,
    plane: Plane,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = ServerVerifier::of(roots.clone(), Arc::clone(provider));
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider));
    let builder = builder.with_protocol_versions(&[&TLS13])?.dangerous();
    let mut config = builder
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(own_chain(credentials), own_key(credentials)?)?;
    config.alpn_protocols = vec![plane.alpn().to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

fn server_config(
    credentials: &Credentials,
    roots: &RootCertStore,
    provider: &Arc<CryptoProvider>,
    plane: Plane,
) -> Result<ServerConfig, rustls::Error> {
    let roots = Arc::new(roots.clone());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let takes_who_joins = plane == Plane::Grpc && credentials.names().has_role(Role::Manager);
    let verifier = match takes_who_joins {
        true => verifier.allow_unauthenticated().build(),
        false => verifier.build(),
    };
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
    let mut config = builder
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own_chain(credentials), own_key(credentials)?)?;
    config.alpn_protocols = vec![plane.alpn().to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    // One is enough for a host that comes back.
    config.send_tls13_tickets = 1;
    Ok(config)
}

#[cfg(test)]
pub(crate) mod tests;
