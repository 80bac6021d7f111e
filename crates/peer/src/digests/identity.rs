//! Who this host is, from its first start on.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use dfs_model::HostId;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"DFSHOST1";
const BYTES: usize = 8 + HostId::LEN + 32;

/// A host's lasting name and the key that signs its digests.
///
/// Made at the first start and kept in the file `identity` of the data directory, readable by its
/// owner only. Losing it makes the host another host; what it signed stays valid.
#[derive(Clone)]
pub struct Identity {
    host: HostId,
    key: SigningKey,
}

/// The identity cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refuses.
    #[error("cannot {what} the host's identity {path}", path = path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{path} is not a host's identity; move it away to become a new host", path = .0.display())]
    Malformed(PathBuf),
    /// The kernel gives no random bytes.
    #[error("no random bytes for a new identity: {0}")]
    Random(getrandom::Error),
}

impl Identity {
    /// The identity kept in `dir`, made there if there is none. When several processes start at once,
    /// all get the same.
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join("identity");
        match Self::load(&path) {
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut fresh = Zeroizing::new([0; BYTES]);
        fresh[..8].copy_from_slice(MAGIC);
        getrandom::fill(&mut fresh[8..]).map_err(IdentityError::Random)?;
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(IdentityError::Random)?;
        let draft = dir.join(format!("identity.{:016x}", u64::from_le_bytes(number)));
        let outcome = write_private(&draft, fresh.as_slice()).and_then(|()| {
            // A link never replaces: the first of several processes wins, the others read its identity.
            match std::fs::hard_link(&draft, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                outcome => outcome,
            }
        });
        let removed = std::fs::remove_file(&draft);
        let io = |source| IdentityError::Io { what: "write", path: path.clone(), source };
        outcome.map_err(io)?;
        removed.and_then(|()| File::open(dir)?.sync_all()).map_err(io)?;
        Self::load(&path)
    }

    fn load(path: &Path) -> Result<Self, IdentityError> {
        let io = |source| IdentityError::Io { what: "read", path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        let mut bytes = Zeroizing::new([0; BYTES]);
        if metadata.len() != BYTES as u64 {
            return Err(IdentityError::Malformed(path.to_owned()));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            // Volumes mounted with a group of their own widen modes: narrow it again.
            file.set_permissions(Permissions::from_mode(0o600)).map_err(io)?;
        }
        file.read_exact(bytes.as_mut_slice()).map_err(io)?;
        if &bytes[..8] != MAGIC {
            return Err(IdentityError::Malformed(path.to_owned()));
        }
        let host = HostId::from_bytes(super::array(&bytes[8..24]));
        let secret = Zeroizing::new(super::array::<32>(&bytes[24..]));
        Ok(Self { host, key: SigningKey::from_bytes(&secret) })
    }

    /// The host's lasting name.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// What signs its digests.
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// What others check its digests with.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("host", &self.host).finish_non_exhaustive()
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
