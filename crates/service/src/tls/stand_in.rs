//! Certificates in the names of others: what a proxy shows in an origin's place to clients that trust its operator's
//! authority. That authority is made and installed by the operator; its key never leaves this process.

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SanType,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::{Validity, millis, named, serial};
use super::credentials::now_ms;
use super::request::Key;
use crate::private_file;

/// How long a certificate lasts, and for how long it is shown.
const LASTS: Duration = Duration::from_secs(2 * 24 * 3600);
const SHOWN_FOR: Duration = Duration::from_secs(12 * 3600);
/// Clocks of clients may be behind by so much.
const BEHIND: Duration = Duration::from_secs(24 * 3600);

/// Names whose certificates are kept at a time.
const KEPT: usize = 512;

/// How long a greeting may take.
const GREETED_WITHIN: Duration = Duration::from_secs(10);

/// Largest file that is looked at.
const MAX_FILE: u64 = 1 << 20;

/// Longest name of a host.
const MAX_NAME: usize = 253;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An authority that nothing can be signed with.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// A file.
    #[error("cannot read {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// What is in a file.
    #[error("{}: {}", .0.display(), .1)]
    Unusable(PathBuf, String),
}

/// Signs for whoever a client wants to speak to.
pub struct StandIn {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate and those above it.
    above: Vec<CertificateDer<'static>>,
    /// Of all certificates that are shown.
    key: Key,
    shown: Mutex<HashMap<String, (Instant, Arc<ServerConfig>)>>,
}

impl StandIn {
    /// One with the authority of these files, in PEM.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, StandInError> {
        let unusable = |path: &Path, why: &dyn Display| {
            StandInError::Unusable(path.to_owned(), why.to_string())
        };
        let above = CertificateDer::pem_slice_iter(&read(certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable(certificate, &error))?;
        let Some(own) = above.first() else {
            return Err(unusable(certificate, &"it holds no PEM certificate"));
        };
        let pem = read(key)?;
        let pem = str::from_utf8(&pem).map_err(|_| unusable(key, &"it holds no PEM key"))?;
        let pair = KeyPair::from_pem(pem);
        let pair =
            pair.map_err(|error| unusable(key, &format!("it holds no PEM key ({error})")))?;
        let anchor = webpki::anchor_from_trusted_cert(own);
        let anchor = anchor.map_err(|error| unusable(certificate, &error))?;
        if !pair.subject_public_key_info().ends_with(&anchor.subject_public_key_info) {
            let why = format!("it is not the key of {}", certificate.display());
            return Err(unusable(key, &why));
        }
        let issuer = Issuer::from_ca_cert_der(own, pair);
        let issuer = issuer.map_err(|error| unusable(certificate, &error))?;
        let usages = issuer.key_usages();
        if !usages.is_empty() && !usages.contains(&KeyUsagePurpose::KeyCertSign) {
            let why = "it is no certificate authority's: it may not sign others (keyCertSign)";
            return Err(unusable(certificate, &why));
        }
        let own_key = Key::generate().map_err(|error| unusable(key, &error))?;
        let stand_in = Self { issuer, above, key: own_key, shown: Mutex::default() };
        stand_in.made("localhost").map_err(|error| unusable(certificate, &error))?;
        Ok(stand_in)
    }

    /// Greets a client over `stream` as `host`, a name or an address.
    pub async fn accept<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config_of(host, Instant::now())?;
        let greeting = TlsAcceptor::from(config).accept(stream);
        tokio::time::timeout(GREETED_WITHIN, greeting).await?
    }

    fn config_of(&self, host: &str, now: Instant) -> io::Result<Arc<ServerConfig>> {
        let mut shown = self.shown.lock();
        if let Some((_, config)) = shown.get(host).filter(|(since, _)| is_fresh(*since, now)) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.made(host).map_err(io::Error::other)?);
        if shown.len() >= KEPT {
            shown.retain(|_, (since, _)| is_fresh(*since, now));
        }
        if shown.len() >= KEPT {
            let oldest = shown.iter().min_by_key(|(_, (since, _))| *since);
            let oldest = oldest.map(|(host, _)| host.clone());
            oldest.and_then(|host| shown.remove(&host));
        }
        shown.insert(host.to_owned(), (now, Arc::clone(&config)));
        Ok(config)
    }

    fn made(&self, host: &str) -> Result<ServerConfig, BoxError> {
        let params = of_an_origin(host)?;
        let leaf = params.signed_by(self.key.pair(), &self.issuer)?.der().clone();
        let chain = [leaf].into_iter().chain(self.above.iter().cloned()).collect();
        let key = PrivatePkcs8KeyDer::from(self.key.der().to_vec());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::Pkcs8(key))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn is_fresh(since: Instant, now: Instant) -> bool {
    now.duration_since(since) < SHOWN_FOR
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, StandInError> {
    let failed = |error| StandInError::File(path.to_owned(), error);
    let bytes = private_file::read(path, MAX_FILE).map_err(failed)?;
    bytes.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

fn of_an_origin(host: &str) -> Result<CertificateParams, BoxError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = match bare.parse::<IpAddr>() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) if bare.len() > MAX_NAME => return Err("no host has such a name".into()),
        Err(_) => SanType::DnsName(bare.to_owned().try_into()?),
    };
    let now = now_ms();
    let validity = Validity {
        not_before_ms: now.saturating_sub(millis(BEHIND)),
        not_after_ms: now.saturating_add(millis(LASTS)),
    };
    let mut params = named("dfs proxy", validity);
    params.serial_number = Some(serial());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![name];
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{BasicConstraints, DnType};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tempfile::TempDir;
    use tokio_rustls::TlsConnector;

    use super::*;

    /// An operator's authority in files: directory, certificate, key.
    fn authority(usages: Vec<KeyUsagePurpose>) -> (TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "Ünïted Tests");
        params.distinguished_name.push(DnType::CommonName, "the operator");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = usages;
        let (certificate_at, key_at) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
        fs::write(&certificate_at, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&key_at, key.serialize_pem()).unwrap();
        (dir, certificate_at, key_at)
    }

    /// How a client that trusts the certificate in a file is greeted by the name that it asks for.
    async fn greeted(
        stand_in: &StandIn,
        trusted: &Path,
        host: &str,
        asked: &str,
    ) -> io::Result<()> {
        let mut roots = RootCertStore::empty();
        let pem = fs::read(trusted).unwrap();
        roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(asked.to_owned()).unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let (accepted, connected) = tokio::join!(
            stand_in.accept(host, far),
            TlsConnector::from(Arc::new(client)).connect(name, near)
        );
        connected.map(drop).and(accepted.map(drop))
    }

    #[tokio::test]
    async fn whoever_trusts_the_operator_is_greeted_by_the_name_they_asked_for() {
        let usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let (_dir, certificate, key) = authority(usages);
        let stand_in = StandIn::load(&certificate, &key).unwrap();
        for (host, asked) in [
            ("origin.test", "origin.test"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "::1"),
            ("xn--bcher-kva.test", "xn--bcher-kva.test"),
        ] {
            greeted(&stand_in, &certificate, host, asked).await.unwrap();
        }
        assert!(greeted(&stand_in, &certificate, "a.test", "b.test").await.is_err());
        let (_other_dir, other, _) = authority(Vec::new());
        assert!(greeted(&stand_in, &other, "a.test", "a.test").await.is_err());
    }

    #[test]
    fn certificates_are_kept_for_a_while_and_never_too_many() {
        let (_dir, certificate, key) = authority(Vec::new());
        let stand_in = StandIn::load(&certificate, &key).unwrap();
        let (now, host) = (Instant::now(), "a.test");
        let first = stand_in.config_of(host, now).unwrap();
        assert!(Arc::ptr_eq(&first, &stand_in.config_of(host, now).unwrap()));
        let later = now + SHOWN_FOR;
        assert!(!Arc::ptr_eq(&first, &stand_in.config_of(host, later).unwrap()));
        for number in 0..KEPT + 10 {
            stand_in.config_of(&format!("{number}.test"), later).unwrap();
        }
        assert_eq!(stand_in.shown.lock().len(), KEPT);
        for bad in ["a b\u{fc}", &"x".repeat(300)] {
            assert!(stand_in.config_of(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_nothing_can_be_signed_with_is_refused_and_said_so() {
        let (dir, certificate, key) = authority(Vec::new());
        let (_other_dir, _, other_key) = authority(Vec::new());
        let (_leaf_dir, leaf, leaf_key) = authority(vec![KeyUsagePurpose::DigitalSignature]);
        let none = dir.path().join("none");
        let said = |certificate, key| match StandIn::load(certificate, key) {
            Ok(_) => panic!("it is taken"),
            Err(error) => error.to_string(),
        };
        assert!(said(&certificate, &other_key).contains("it is not the key of"));
        assert!(said(&leaf, &leaf_key).contains("keyCertSign"));
        assert!(said(&none, &key).contains("cannot read"));
        assert!(said(&key, &key).contains("no PEM certificate"));
        assert!(said(&certificate, &certificate).contains("no PEM key"));
    }
}
