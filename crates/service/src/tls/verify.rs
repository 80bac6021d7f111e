//! What is believed of the other side of a connection.
//!
//! A chain is checked against the one authority of the cluster; what it names is read from the certificate that
//! was checked, and nothing else of it counts: a host is known by its id, not by where it is reached.

use std::sync::Arc;

use dfs_model::HostId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::names::{BadNames, Name, Names, Role};
use super::token::Fingerprint;

/// Why the other side is not who it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It showed none.
    #[error("the other side shows no certificate")]
    NoCertificate,
    /// It cannot be read.
    #[error("the other side's certificate is unreadable")]
    Unreadable,
    /// It is no host's.
    #[error(transparent)]
    Names(#[from] BadNames),
    /// It is not valid any more.
    #[error("the other side's certificate is not valid any more")]
    Stale,
    /// It is somebody else.
    #[error("the certificate there is that of {found}, not of a {expected}")]
    Role {
        /// Who was meant.
        expected: Role,
        /// Who it is.
        found: Names,
    },
    /// It is somebody else in the same role.
    #[error("the certificate there is that of {found}, not of {expected}")]
    Host {
        /// Who was meant.
        expected: Name,
        /// Who it is.
        found: Names,
    },
    /// It speaks something else.
    #[error("the other side speaks another protocol")]
    Protocol,
}

impl Names {
    /// Says no to a certificate that names nobody in this role.
    pub fn expect_role(&self, expected: Role) -> Result<(), Refused> {
        match self.has_role(expected) {
            true => Ok(()),
            false => Err(Refused::Role { expected, found: self.clone() }),
        }
    }

    /// Says no to a certificate that does not name this host in this role.
    pub fn expect(&self, host: HostId, role: Role) -> Result<(), Refused> {
        match self.has(host, role) {
            true => Ok(()),
            false => Err(Refused::Host { expected: Name { host, role }, found: self.clone() }),
        }
    }
}

/// What a certificate names. It was checked before, or is one's own.
pub fn names_in(certificate: &CertificateDer<'_>) -> Result<Names, Refused> {
    let certificate = EndEntityCert::try_from(certificate).map_err(|_| Refused::Unreadable)?;
    let names = certificate.valid_uri_names().map(str::parse);
    Ok(Names::new(names.collect::<Result<Vec<Name>, BadNames>>()?)?)
}

/// As what a certificate is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// By who dials.
    Client,
    /// By who is dialed.
    Server,
}

/// Checks a chain that was checked at an earlier connection: a resumed session shows it again, and its time may be
/// over.
pub fn check_again(
    chain: &[CertificateDer<'_>],
    authority: &CertificateDer<'_>,
    side: Side,
    provider: &CryptoProvider,
) -> Result<(), Refused> {
    let (own, between) = chain.split_first().ok_or(Refused::NoCertificate)?;
    let own = EndEntityCert::try_from(own).map_err(|_| Refused::Unreadable)?;
    let anchor = [anchor_from_trusted_cert(authority).map_err(|_| Refused::Unreadable)?];
    let usage = match side {
        Side::Client => KeyUsage::client_auth(),
        Side::Server => KeyUsage::server_auth(),
    };
    let now = UnixTime::now();
    let algorithms = provider.signature_verification_algorithms.all;
    let checked = own.verify_for_usage(algorithms, &anchor, between, now, usage, None, None);
    checked.map(drop).map_err(|_| Refused::Stale)
}

/// By what a server is known.
#[derive(Debug)]
enum Known {
    /// By the authority that its certificate comes from.
    Authority(RootCertStore),
    /// By the authority that it shows itself, and that a token names.
    Fingerprint(Fingerprint),
}

/// Checks who is dialed. Where they are, or what they are called, does not matter.
#[derive(Debug)]
pub struct ServerVerifier {
    known: Known,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    /// Of the cluster of this authority.
    pub fn of(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Self {
        Self { known: Known::Authority(roots), provider }
    }

    /// Of the manager that a token leads to.
    pub fn of_token(fingerprint: Fingerprint, provider: Arc<CryptoProvider>) -> Self {
        Self { known: Known::Fingerprint(fingerprint), provider }
    }

    fn check(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        roots: &RootCertStore,
        now: UnixTime,
    ) -> Result<Names, Error> {
        let parsed = ParsedCertificate::try_from(own)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, now, algorithms)?;
        names_in(own).map_err(refused)
    }
}

fn refused(reason: Refused) -> Error {
    Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(reason))))
}

/// The authority among what a server shows.
fn authority_in(
    others: &[CertificateDer<'_>],
    fingerprint: Fingerprint,
) -> Result<RootCertStore, Error> {
    let found = others.iter().find(|shown| Fingerprint::of(shown) == fingerprint);
    let found = found.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
    let mut roots = RootCertStore::empty();
    roots.add(found.clone().into_owned())?;
    Ok(roots)
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.known {
            Known::Authority(roots) => self.check(own, others, roots, now).map(drop)?,
            Known::Fingerprint(fingerprint) => {
                let roots = authority_in(others, *fingerprint)?;
                let names = self.check(own, others, &roots, now)?;
                names.expect_role(Role::Manager).map_err(refused)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 and nothing else".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
