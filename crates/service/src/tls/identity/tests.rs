use std::net::SocketAddr;

use dfs_model::HostId;
use dfs_peer::digests;
use rustls::version::TLS12;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::enrol::issue_own;
use super::super::request::Host;
use super::super::{Authority, Role, now_ms};
use super::*;
use crate::net::{self, Port, Security};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A cluster that consists of its authority.
pub(crate) struct Cluster(Arc<Authority>);

impl Cluster {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Authority::fleeting().unwrap()))
    }

    /// A new host in this role.
    pub(crate) fn credentials(&self, role: Role) -> (Credentials, HostId) {
        let host = host(role);
        let id = host.identity.host();
        (issue_own(&self.0, &[host], DAY).unwrap(), id)
    }

    pub(crate) fn identity(&self, role: Role) -> (Arc<Identity>, HostId) {
        let (credentials, id) = self.credentials(role);
        (Arc::new(Identity::new(credentials).unwrap()), id)
    }

    pub(crate) fn security(&self, role: Role) -> (Security, HostId) {
        let (identity, id) = self.identity(role);
        (Security::Tls(identity), id)
    }

    fn authority(&self) -> &Authority {
        &self.0
    }
}

pub(crate) fn host(role: Role) -> Host {
    let dir = tempfile::tempdir().unwrap();
    Host { identity: digests::Identity::load_or_create(dir.path()).unwrap(), role }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let ip = [127, 0, 0, 1].into();
    let listener = net::bind("trial", ip, Port::Exactly(0), &Security::Plain).await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

async fn dialed(at: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.connect(at).await.unwrap()
}

/// What both sides say of a greeting; the client's side ends with a byte from the server, by which it knows that it
/// was let in.
async fn greet(
    client: &Identity,
    server: &Identity,
    plane: Plane,
) -> (io::Result<(Names, HandshakeKind)>, io::Result<Option<Names>>) {
    let (listener, at) = listener().await;
    let dialing = async {
        let (mut stream, names) = client.connect(dialed(at).await, plane).await?;
        stream.read_exact(&mut [0]).await?;
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        Ok((names, kind))
    };
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, names) = server.accept(stream, plane).await?;
        stream.write_all(b"!").await?;
        stream.shutdown().await?;
        Ok(names)
    };
    tokio::join!(dialing, accepting)
}

#[tokio::test]
async fn both_sides_learn_who_the_other_one_is() {
    let cluster = Cluster::new();
    let ((node, node_id), (seed, seed_id)) =
        (cluster.identity(Role::Node), cluster.identity(Role::Seed));
    for plane in Plane::ALL {
        let (dialed, accepted) = greet(&node, &seed, plane).await;
        assert!(dialed.unwrap().0.has(seed_id, Role::Seed));
        assert!(accepted.unwrap().unwrap().has(node_id, Role::Node));
    }
}

#[tokio::test]
async fn a_host_that_comes_back_is_resumed_and_known_all_the_same() {
    let cluster = Cluster::new();
    let ((node, id), (seed, _)) = (cluster.identity(Role::Node), cluster.identity(Role::Seed));
    let kind = |dialed: io::Result<(Names, HandshakeKind)>| dialed.unwrap().1;
    let (first, _) = greet(&node, &seed, Plane::Pieces).await;
    assert_eq!(kind(first), HandshakeKind::Full);
    let (second, accepted) = greet(&node, &seed, Plane::Pieces).await;
    assert_eq!(kind(second), HandshakeKind::Resumed);
    assert!(accepted.unwrap().unwrap().has(id, Role::Node));
}

#[tokio::test]
async fn nobody_of_another_cluster_is_believed_by_either_side() {
    let (here, there) = (Cluster::new(), Cluster::new());
    let (dialed, accepted) =
        greet(&here.identity(Role::Node).0, &there.identity(Role::Seed).0, Plane::Pieces).await;
    assert!(dialed.unwrap_err().to_string().contains("certificate"));
    assert!(accepted.is_err());
}

/// Credentials whose time is over. Certificates count in seconds: that of the last one has to be over.
fn over(cluster: &Cluster, role: Role) -> Credentials {
    let credentials = issue_own(cluster.authority(), &[host(role)], Duration::ZERO).unwrap();
    assert!(credentials.has_expired());
    while now_ms() / 1000 <= credentials.validity().not_after_ms / 1000 {
        std::thread::yield_now();
    }
    credentials
}

fn expired(cluster: &Cluster, role: Role) -> Identity {
    Identity::new(over(cluster, role)).unwrap()
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_is_refused_by_either_side() {
    let cluster = Cluster::new();
    let (node, seed) = (cluster.identity(Role::Node).0, cluster.identity(Role::Seed).0);
    let (dialed, accepted) = greet(&node, &expired(&cluster, Role::Seed), Plane::Grpc).await;
    assert!(dialed.unwrap_err().to_string().contains("expired"));
    assert!(accepted.is_err());
    let (dialed, accepted) = greet(&expired(&cluster, Role::Node), &seed, Plane::Grpc).await;
    assert!(accepted.unwrap_err().to_string().contains("expired"));
    assert!(dialed.is_err(), "the client hears of it before it is served");
}

#[test]
fn a_chain_is_checked_again_for_its_time_and_its_authority() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let provider = aws_lc_rs::default_provider();
    let root = cluster.authority().certificate();
    let check =
        |credentials: &Credentials| check_again(credentials.chain(), root, Side::Client, &provider);
    assert_eq!(check(&cluster.credentials(Role::Node).0), Ok(()));
    assert_eq!(check(&other.credentials(Role::Node).0), Err(Refused::Stale));
    assert_eq!(check(&over(&cluster, Role::Node)), Err(Refused::Stale));
    assert_eq!(check_again(&[], root, Side::Client, &provider), Err(Refused::NoCertificate));
}

/// A client without a certificate, of these versions, that speaks this.
async fn bare(
    at: SocketAddr,
    version: &'static rustls::SupportedProtocolVersion,
    alpn: &[u8],
) -> io::Result<()> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let verifier = Arc::new(Trusting(provider));
    let mut config = builder
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(at.ip().into(), dialed(at).await).await?;
    stream.read_exact(&mut [0]).await.map(drop)
}

/// Believes everything.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a server in this role does not take such a client.
async fn why_not(
    role: Role,
    plane: Plane,
    version: &'static rustls::SupportedProtocolVersion,
    alpn: &[u8],
) -> Option<String> {
    let server = Cluster::new().identity(role).0;
    let (listener, at) = listener().await;
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, names) = server.accept(stream, plane).await?;
        assert_eq!(names, None);
        stream.write_all(b"!").await?;
        stream.shutdown().await
    };
    let (client, accepted) = tokio::join!(bare(at, version, alpn), accepting);
    assert_eq!(client.is_ok(), accepted.is_ok(), "{client:?} {accepted:?}");
    accepted.err().map(|error| error.to_string())
}

#[tokio::test]
async fn old_versions_other_protocols_and_clients_without_certificates_are_refused() {
    let no = async |role, plane, version, alpn: &[u8], word: &str| {
        let why = why_not(role, plane, version, alpn).await;
        assert!(why.as_ref().is_some_and(|why| why.contains(word)), "{why:?}");
    };
    no(Role::Manager, Plane::Grpc, &TLS12, b"h2", "Tls12").await;
    no(Role::Node, Plane::Pieces, &TLS13, b"dfs-piece/1", "certificate").await;
    no(Role::Scheduler, Plane::Grpc, &TLS13, b"h2", "certificate").await;
    no(Role::Manager, Plane::Grpc, &TLS13, b"http/1.1", "protocol").await;
    // A manager lets it in, and knows that it is nobody.
    assert_eq!(why_not(Role::Manager, Plane::Grpc, &TLS13, b"h2").await, None);
}

#[tokio::test]
async fn who_joins_finds_the_manager_by_the_fingerprint_and_nobody_else() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    for (role, token, is_it) in [
        (Role::Manager, &cluster, true),
        (Role::Manager, &other, false),
        (Role::Seed, &cluster, false),
    ] {
        let server = cluster.identity(role).0;
        let (listener, at) = listener().await;
        let accepting = async {
            let (stream, _) = listener.accept().await.unwrap();
            server.accept(stream, Plane::Grpc).await.map(drop)
        };
        let fingerprint = token.authority().fingerprint();
        let connecting = async { connect_by_token(dialed(at).await, fingerprint).await.map(drop) };
        let (connected, _) = tokio::join!(connecting, accepting);
        assert_eq!(connected.is_ok(), is_it, "{role}: {connected:?}");
    }
}

#[tokio::test]
async fn what_is_renewed_is_for_new_connections_and_old_ones_go_on() {
    let cluster = Cluster::new();
    let (seed, _) = cluster.identity(Role::Seed);
    let own = host(Role::Node);
    let node =
        Identity::new(issue_own(cluster.authority(), std::slice::from_ref(&own), DAY).unwrap())
            .unwrap();
    let (listener, at) = listener().await;
    let echoing = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, _) = seed.accept(stream, Plane::Pieces).await.unwrap();
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() {
            stream.write_all(&byte).await.unwrap();
        }
    };
    let story = async {
        let (mut old, _) = node.connect(dialed(at).await, Plane::Pieces).await.unwrap();
        let mut renewals = node.renewals();
        for byte in 1..4 {
            old.write_all(&[byte]).await.unwrap();
            let mut back = [0];
            old.read_exact(&mut back).await.unwrap();
            assert_eq!(back, [byte]);
            let before = node.with(|credentials| credentials.chain()[0].clone());
            let fresh = issue_own(cluster.authority(), std::slice::from_ref(&own), DAY).unwrap();
            node.renew(fresh).unwrap();
            renewals.changed().await.unwrap();
            assert_ne!(node.with(|credentials| credentials.chain()[0].clone()), before);
        }
    };
    tokio::join!(echoing, story);
}
