//! What a process holds to prove who it is: a key, the certificate of it, and the authority's own.
//!
//! Kept in the file `certificate.json` of the data directory, readable by its owner only and replaced as a whole.
//! The key of a first request is saved before it is sent: whoever is killed in between asks again with the same
//! token and the same key, and is answered again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dfs_proto::manager;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::authority::Validity;
use super::names::Names;
use super::request::Key;
use super::token::Fingerprint;
use super::verify::names_in;
use crate::config::ServiceAddress;
use crate::private_file::{self, Outlives};

/// The file in the data directory.
const FILE: &str = "certificate.json";
/// The key of a request that was not answered yet.
const PENDING: &str = "certificate-request.json";
const FORMAT: u32 = 1;
/// The longest file that is looked at.
const MAX_FILE: u64 = 1 << 20;
/// Most certificates in a chain, and the longest of them.
const MAX_CHAIN: usize = 4;
const MAX_CERTIFICATE: usize = 16 << 10;

/// Certificates that cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is damaged: move it away, and join again", .0.display())]
    Damaged(PathBuf),
    /// A later release wrote it.
    #[error("{} has format {format}, this release knows {FORMAT}: use the later release", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// No key can be made.
    #[error("no key can be made")]
    Key(#[from] rcgen::Error),
    /// An answer that is no certificate for this key.
    #[error("the certificate that was given is unusable: {0}")]
    Unusable(String),
}

/// A key with its certificate.
pub struct Credentials {
    key: Key,
    chain: Vec<CertificateDer<'static>>,
    authority: CertificateDer<'static>,
    validity: Validity,
    names: Names,
    managers: Vec<ServiceAddress>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Saved {
    format: u32,
    key: Zeroizing<String>,
    chain: Vec<String>,
    authority: String,
    validity: Validity,
    managers: Vec<ServiceAddress>,
}

#[derive(Serialize, Deserialize)]
struct Pending {
    format: u32,
    key: Zeroizing<String>,
}

/// Milliseconds after 1970.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Credentials {
    /// Of what an authority answered to a request for `key`.
    pub fn answered(key: Key, answer: manager::Certificate) -> Result<Self, CredentialsError> {
        let unusable = |why: &str| CredentialsError::Unusable(why.to_owned());
        let sizes = answer.chain.iter().chain([&answer.authority]).map(|der| der.len());
        if answer.chain.len() > MAX_CHAIN || sizes.max().unwrap_or(0) > MAX_CERTIFICATE {
            return Err(unusable("it is too long"));
        }
        let owned = |der: &[u8]| CertificateDer::from(der.to_vec());
        let validity =
            Validity { not_before_ms: answer.not_before_ms, not_after_ms: answer.not_after_ms };
        let chain = answer.chain.iter().map(|der| owned(der)).collect();
        Self::of(key, chain, owned(&answer.authority), validity, Vec::new())
    }

    /// Of its parts.
    pub fn of(
        key: Key,
        chain: Vec<CertificateDer<'static>>,
        authority: CertificateDer<'static>,
        validity: Validity,
        managers: Vec<ServiceAddress>,
    ) -> Result<Self, CredentialsError> {
        let unusable = |why: String| CredentialsError::Unusable(why);
        let own = chain.first().ok_or_else(|| unusable("it is empty".to_owned()))?;
        let names = names_in(own).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { key, chain, authority, validity, names, managers })
    }

    /// The same, which managers were named beside.
    pub fn of_managers(mut self, managers: Vec<ServiceAddress>) -> Self {
        self.managers = managers;
        self
    }

    /// Whether any are kept in `dir`.
    pub fn are_in(dir: &Path) -> bool {
        dir.join(FILE).symlink_metadata().is_ok()
    }

    /// Those kept in `dir`.
    pub fn load(dir: &Path) -> Result<Option<Self>, CredentialsError> {
        let path = dir.join(FILE);
        let Some(saved) = read_private::<Saved>(&path)? else { return Ok(None) };
        if saved.format != FORMAT {
            return Err(CredentialsError::Newer { path, format: saved.format });
        }
        let damaged = || CredentialsError::Damaged(path.clone());
        let key = Key::of_pem(&saved.key).map_err(|_| damaged())?;
        let chain = saved.chain.iter().map(|pem| der_of(pem)).collect::<Option<Vec<_>>>();
        let authority = der_of(&saved.authority);
        let (chain, authority) = chain.zip(authority).ok_or_else(damaged)?;
        let read = Self::of(key, chain, authority, saved.validity, saved.managers);
        read.map(Some).map_err(|_| damaged())
    }

    /// Keeps them in `dir`, in place of those before. Blocks.
    pub fn save(&self, dir: &Path) -> Result<(), CredentialsError> {
        let saved = Saved {
            format: FORMAT,
            key: self.key.pem(),
            chain: self.chain.iter().map(pem_of).collect(),
            authority: pem_of(&self.authority),
            validity: self.validity,
            managers: self.managers.clone(),
        };
        write_private(&dir.join(FILE), &saved)?;
        // Best effort: it is used for nothing once there is a certificate.
        let _ = fs::remove_file(dir.join(PENDING));
        Ok(())
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The certificates that are shown to others, the own one first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// What others' certificates are checked against.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// What join tokens of the same cluster name.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.authority)
    }

    /// Who this process is by them.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// From when to when.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Managers that can renew them.
    pub fn managers(&self) -> &[ServiceAddress] {
        &self.managers
    }

    /// What is left of their time.
    pub fn remaining(&self) -> Duration {
        Duration::from_millis(self.validity.not_after_ms.saturating_sub(now_ms()))
    }

    /// Whether nobody takes them any more.
    pub fn has_expired(&self) -> bool {
        self.remaining().is_zero()
    }
}

/// The key of a first request: the one that is waiting for its answer, else a new one, saved before it is used.
pub fn pending_key(dir: &Path) -> Result<Key, CredentialsError> {
    let path = dir.join(PENDING);
    if let Ok(Some(Pending { format: FORMAT, key })) = read_private(&path)
        && let Ok(key) = Key::of_pem(&key)
    {
        return Ok(key);
    }
    let key = Key::generate()?;
    write_private(&path, &Pending { format: FORMAT, key: key.pem() })?;
    Ok(key)
}

/// The one certificate in a text.
pub(super) fn der_of(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

fn pem_of(certificate: &CertificateDer<'static>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// What a file holds; `None` where there is no file.
pub(super) fn read_private<T: DeserializeOwned>(
    path: &Path,
) -> Result<Option<T>, CredentialsError> {
    let failed = |source| CredentialsError::Io { action: "read", path: path.to_owned(), source };
    let Some(text) = private_file::read(path, MAX_FILE).map_err(failed)? else { return Ok(None) };
    let read = serde_json::from_slice(&text);
    read.map(Some).map_err(|_| CredentialsError::Damaged(path.to_owned()))
}

/// Puts a file in place of the one before, whole or not at all, for its owner only.
pub(super) fn write_private<T: Serialize>(path: &Path, what: &T) -> Result<(), CredentialsError> {
    let failed = |source| CredentialsError::Io { action: "write", path: path.to_owned(), source };
    let text = serde_json::to_vec_pretty(what).map(Zeroizing::new);
    let text = text.map_err(|error| failed(error.into()))?;
    private_file::replace(path, &text, Outlives::Power).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::identity::tests::Cluster;
    use super::super::names::Role;
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Credentials::load(dir.path()).unwrap().is_none());
        let managers: Vec<ServiceAddress> = vec!["manager.example:4000".parse().unwrap()];
        let (made, _) = Cluster::new().credentials(Role::Node);
        let made = made.of_managers(managers.clone());
        made.save(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let loaded = Credentials::load(dir.path()).unwrap().unwrap();
        assert_eq!(loaded.names(), made.names());
        assert_eq!((loaded.chain(), loaded.authority()), (made.chain(), made.authority()));
        assert_eq!((loaded.validity(), loaded.managers()), (made.validity(), &managers[..]));
        assert_eq!(loaded.key().pem(), made.key().pem());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        Cluster::new().credentials(Role::Node).0.save(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let whole = fs::read_to_string(&path).unwrap();
        for text in ["", "{}", &whole[..whole.len() / 2], &whole.replace("MI", "!!")] {
            fs::write(&path, text).unwrap();
            let error = Credentials::load(dir.path()).err().unwrap().to_string();
            assert!(error.contains(FILE) && error.contains("join again"), "{error}");
        }
        fs::write(&path, whole.replace("\"format\": 1", "\"format\": 9")).unwrap();
        let error = Credentials::load(dir.path()).err().unwrap();
        assert!(matches!(error, CredentialsError::Newer { format: 9, .. }), "{error}");
    }

    #[test]
    fn the_key_of_a_request_is_the_same_until_it_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let first = pending_key(dir.path()).unwrap();
        assert_eq!(first.pem(), pending_key(dir.path()).unwrap().pem());
        Cluster::new().credentials(Role::Node).0.save(dir.path()).unwrap();
        assert_ne!(first.pem(), pending_key(dir.path()).unwrap().pem());
    }

    #[test]
    fn an_answer_that_is_no_certificate_is_refused() {
        let answer = manager::Certificate::default();
        assert!(Credentials::answered(Key::generate().unwrap(), answer).is_err());
        let long = manager::Certificate {
            chain: vec![vec![0; MAX_CERTIFICATE + 1].into()],
            ..manager::Certificate::default()
        };
        let error = Credentials::answered(Key::generate().unwrap(), long).err().unwrap();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
