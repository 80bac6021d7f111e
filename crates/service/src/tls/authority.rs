//! The cluster's own certificate authority: made by its manager at the first start, kept beside its database.
//!
//! Whoever has the file can make certificates for anybody: it is readable by its owner only, and goes into every
//! backup. When it is lost, every machine has to join again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::credentials::{CredentialsError, now_ms, read_private, write_private};
use super::names::Names;
use super::request::{Key, SigningRequest};
use super::token::Fingerprint;

/// The file in the manager's data directory.
const FILE: &str = "authority.json";
const FORMAT: u32 = 1;

/// How long an authority lasts: longer than a cluster stays as it is.
const YEARS: u64 = 10;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Clocks of other machines may be behind by so much.
const BEHIND: Duration = Duration::from_secs(300);

/// From when to when, in milliseconds after 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Validity {
    /// The first moment.
    pub not_before_ms: u64,
    /// The last one.
    pub not_after_ms: u64,
}

/// A certificate that was signed.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// In DER.
    pub der: CertificateDer<'static>,
    /// How long it lasts.
    pub validity: Validity,
}

/// An authority that cannot be used, or that cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its file.
    #[error(transparent)]
    File(#[from] CredentialsError),
    /// Its time is over.
    #[error(
        "the cluster's certificate authority {} has expired: move the file away to make another one; \
         every machine then joins again",
        .0.display()
    )]
    Expired(PathBuf),
    /// The cryptography refuses.
    #[error("no certificate can be made")]
    Crypto(#[from] rcgen::Error),
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Saved {
    format: u32,
    certificate: String,
    key: Zeroizing<String>,
    validity: Validity,
    common_name: String,
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    validity: Validity,
}

impl Authority {
    /// Whether there is one in `dir`.
    pub fn exists(dir: &Path) -> bool {
        dir.join(FILE).symlink_metadata().is_ok()
    }

    /// The one kept in `dir`, made there if there is none.
    pub fn load_or_create(dir: &Path) -> Result<Self, AuthorityError> {
        let path = dir.join(FILE);
        let saved = match read_private::<Saved>(&path)? {
            Some(saved) if saved.format == FORMAT => saved,
            Some(saved) => {
                return Err(CredentialsError::Newer { path, format: saved.format }.into());
            }
            None => {
                let fresh = Saved::make()?;
                write_private(&path, &fresh)?;
                tracing::info!(file = %path.display(), "made the cluster's certificate authority");
                fresh
            }
        };
        if saved.validity.not_after_ms <= now_ms() {
            return Err(AuthorityError::Expired(path));
        }
        saved.open(&path)
    }

    /// One that is kept nowhere, for tests.
    pub fn fleeting() -> Result<Self, AuthorityError> {
        Saved::make()?.open(Path::new("memory"))
    }

    /// Its certificate: what all others are checked against.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What join tokens name it by.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Signs what was asked, for `lifetime` from now; never beyond its own time.
    pub fn sign(
        &self,
        request: &SigningRequest,
        lifetime: Duration,
    ) -> Result<Certificate, AuthorityError> {
        let now = now_ms();
        let end = now.saturating_add(millis(lifetime)).min(self.validity.not_after_ms);
        let validity =
            Validity { not_before_ms: now.saturating_sub(millis(BEHIND)), not_after_ms: end };
        let params = of_a_host(request.names(), validity)?;
        let der = params.signed_by(request, &self.issuer)?.der().clone();
        Ok(Certificate { der, validity: validity.in_seconds() })
    }
}

impl Validity {
    /// Certificates count in seconds: the end of one is when it really ends.
    fn in_seconds(self) -> Self {
        let cut = |ms: u64| ms / 1000 * 1000;
        Self { not_before_ms: cut(self.not_before_ms), not_after_ms: cut(self.not_after_ms) }
    }

    /// How long it is from the moment at which it was signed: it is dated back.
    pub fn lifetime(&self) -> Duration {
        let whole = self.not_after_ms.saturating_sub(self.not_before_ms);
        Duration::from_millis(whole).saturating_sub(BEHIND)
    }
}

impl Saved {
    fn make() -> Result<Self, AuthorityError> {
        let key = Key::generate()?;
        let number = rand::random::<[u8; 4]>();
        let common_name = format!("dfs cluster {:08x}", u32::from_be_bytes(number));
        let now = now_ms();
        let lasts = DAY * u32::try_from(YEARS * 365).unwrap_or(u32::MAX);
        let validity = Validity {
            not_before_ms: now.saturating_sub(millis(BEHIND)),
            not_after_ms: now.saturating_add(millis(lasts)),
        };
        let params = of_an_authority(&common_name, validity);
        let certificate = params.self_signed(key.pair())?.pem();
        Ok(Self { format: FORMAT, certificate, key: key.pem(), validity, common_name })
    }

    fn open(self, path: &Path) -> Result<Authority, AuthorityError> {
        let damaged = || CredentialsError::Damaged(path.to_owned());
        let certificate = super::credentials::der_of(&self.certificate).ok_or_else(damaged)?;
        let key = KeyPair::from_pem(&self.key).map_err(|_| damaged())?;
        let params = of_an_authority(&self.common_name, self.validity);
        let issuer = Issuer::new(params, key);
        Ok(Authority { issuer, certificate, validity: self.validity })
    }
}

pub(super) fn named(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date(validity.not_before_ms);
    params.not_after = date(validity.not_after_ms);
    params
}

fn of_an_authority(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = named(common_name, validity);
    // It signs hosts and no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn of_a_host(names: &Names, validity: Validity) -> Result<CertificateParams, rcgen::Error> {
    let mut params = named("dfs host", validity);
    params.serial_number = Some(serial());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    for name in names.all() {
        params.subject_alt_names.push(SanType::URI(name.to_string().try_into()?));
    }
    Ok(params)
}

/// Sixteen random bytes, of which the first makes it positive and not zero.
pub(super) fn serial() -> SerialNumber {
    let mut serial = rand::random::<[u8; 16]>();
    serial[0] = serial[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&serial)
}

fn date(ms: u64) -> OffsetDateTime {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_authority_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Authority::exists(dir.path()));
        let first = Authority::load_or_create(dir.path()).unwrap();
        assert!(Authority::exists(dir.path()));
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        let again = Authority::load_or_create(dir.path()).unwrap();
        assert_eq!(first.certificate(), again.certificate());
        let other = Authority::fleeting().unwrap();
        assert_ne!(first.fingerprint(), other.fingerprint());
    }

    #[test]
    fn a_file_that_is_no_authority_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        Authority::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let whole = fs::read_to_string(&path).unwrap();
        for text in ["", "{}", &whole[..whole.len() / 2], &whole.replace("BEGIN", "BEGUN")] {
            fs::write(&path, text).unwrap();
            let error = Authority::load_or_create(dir.path()).err().unwrap();
            assert!(error.to_string().contains(FILE), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, whole.replace("\"format\": 1", "\"format\": 2")).unwrap();
        let error = Authority::load_or_create(dir.path()).err().unwrap();
        assert!(matches!(error, AuthorityError::File(CredentialsError::Newer { .. })), "{error}");
    }

    #[test]
    fn an_authority_whose_time_is_over_signs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut saved = Saved::make().unwrap();
        saved.validity.not_after_ms = now_ms() - 1;
        write_private(&dir.path().join(FILE), &saved).unwrap();
        let error = Authority::load_or_create(dir.path()).err().unwrap();
        assert!(matches!(error, AuthorityError::Expired(_)), "{error}");
    }
}
