//! The lasting Ed25519 key of a process: `<data>/identity.key`, 32 secret bytes, mode 0600.
//!
//! It is made at the first start and never replaced: what it signed stays provable. A file that is
//! damaged or readable by others is an error, not a reason for a new key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::{SECRET_KEY_LENGTH, SigningKey};

const FILE_NAME: &str = "identity.key";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system said no.
    #[error("cannot {action} the key {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not a key of this user alone.
    #[error("the key {} {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system gives no random bytes.
    #[error("no random bytes for a new key: {0}")]
    Random(getrandom::Error),
}

/// Loads the key of `data_dir` (private and taken, see [`crate::data_dir`]), or makes it.
pub fn load_or_create(data_dir: &Path) -> Result<SigningKey, IdentityError> {
    let path = data_dir.join(FILE_NAME);
    match File::open(&path) {
        Ok(file) => read(&path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path),
        Err(source) => Err(IdentityError::Io { action: "open", path, source }),
    }
}

fn read(path: &Path, file: File) -> Result<SigningKey, IdentityError> {
    let failed = |source| IdentityError::Io { action: "read", path: path.to_owned(), source };
    let unusable = |reason| IdentityError::Unusable { path: path.to_owned(), reason };
    let status = file.metadata().map_err(failed)?;
    if status.mode() & 0o077 != 0 {
        return Err(unusable("is readable by others"));
    }
    let mut bytes = Vec::with_capacity(SECRET_KEY_LENGTH + 1);
    file.take(SECRET_KEY_LENGTH as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let secret: [u8; SECRET_KEY_LENGTH] =
        bytes.try_into().map_err(|_| unusable("does not have 32 bytes"))?;
    Ok(SigningKey::from_bytes(&secret))
}

/// Written beside, made durable, then renamed: a key that signed anything survives a power cut.
fn create(path: &Path) -> Result<SigningKey, IdentityError> {
    let mut secret = [0; SECRET_KEY_LENGTH];
    getrandom::fill(&mut secret).map_err(IdentityError::Random)?;
    let write = || {
        let partial = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(&secret)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|source| IdentityError::Io {
        action: "create",
        path: path.to_owned(),
        source,
    })?;
    Ok(SigningKey::from_bytes(&secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path()).unwrap();
        let again = load_or_create(dir.path()).unwrap();
        assert_eq!(first.to_bytes(), again.to_bytes());
        let status = fs::metadata(dir.path().join(FILE_NAME)).unwrap();
        assert_eq!(status.mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load_or_create(other.path()).unwrap().to_bytes(), first.to_bytes());
    }

    #[test]
    fn a_damaged_or_readable_key_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        load_or_create(dir.path()).unwrap();
        let whole = fs::read(&path).unwrap();
        for bad in [&whole[..31], &[whole.as_slice(), b"x"].concat()] {
            fs::write(&path, bad).unwrap();
            let error = load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Unusable { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load_or_create(dir.path()).is_err());
    }
}
