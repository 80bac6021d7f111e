//! Certificates are always verified.

use std::io::Write as _;
use std::sync::Arc;

use dfs_source::{HttpOptions, SourceError, Sources};
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::scripted::{Server, file};
use crate::{Client, content, failure, options};

/// A certificate for `name`, its key, and the authority that signed it, in PEM.
pub fn certificate(name: &str) -> (String, String, String) {
    let (leaf, key, authority) = issue(name);
    (leaf.pem(), key.serialize_pem(), authority)
}

fn issue(name: &str) -> (Certificate, KeyPair, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    (leaf, key, authority.pem())
}

/// A server's set-up for `name`, and the PEM of the authority that signed it.
pub fn signed_for(name: &str) -> (Arc<ServerConfig>, String) {
    let (leaf, key, authority) = issue(name);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (Arc::new(config), authority)
}

fn trusting(pem: &str) -> (Client, tempfile::NamedTempFile) {
    trusting_with(pem, options())
}

/// A client that trusts one more authority; the file must live as long as the client is made.
pub fn trusting_with(pem: &str, options: HttpOptions) -> (Client, tempfile::NamedTempFile) {
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(pem.as_bytes()).unwrap();
    let ca_files = vec![ca.path().to_owned()];
    (Client::with(HttpOptions { ca_files, ..options }), ca)
}

#[tokio::test]
async fn an_unknown_authority_is_refused_at_once_and_an_extra_one_trusted() {
    let (config, pem) = signed_for("127.0.0.1");
    let server = Server::start_tls(config, |_, request| file(&content(100), "\"v1\"", request));
    let stranger = Client::new();
    let error = failure(stranger.stat(&server.url("/x")).await);
    assert!(matches!(error, SourceError::Tls { .. }), "{error:?}");
    assert_eq!((stranger.counted().requests, server.requests().len()), (1, 0));

    let (friend, _ca) = trusting(&pem);
    let stat = friend.stat(&server.url("/x")).await.unwrap();
    let got = friend.read(&server.url("/x"), Some((3, 50)), &stat.validator).await.unwrap();
    assert_eq!(got, content(100)[3..50]);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (config, pem) = signed_for("example.org");
    let server = Server::start_tls(config, |_, request| file(&content(100), "\"v1\"", request));
    let (friend, _ca) = trusting(&pem);
    let error = failure(friend.stat(&server.url("/x")).await);
    assert!(matches!(error, SourceError::Tls { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_ca_file_that_holds_no_certificate_is_named() {
    let ca = tempfile::NamedTempFile::new().unwrap();
    for path in [ca.path().to_owned(), "/nonexistent/ca.pem".into()] {
        let options = HttpOptions { ca_files: vec![path.clone()], ..options() };
        let error = failure(Sources::builder().http(options).build());
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}
