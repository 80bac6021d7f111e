//! A digest that is made while bytes come, or of those that came before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use dfs_model::Digest;
use sha2::Digest as _;

const HASH_CHUNK: usize = 1 << 20;

enum Algorithm {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
}

/// A digest in the making.
pub struct Hasher {
    algorithm: Algorithm,
    pub(super) seen: u64,
}

impl Hasher {
    /// Of the same kind as `like`.
    pub fn new(like: Digest) -> Self {
        let algorithm = match like {
            Digest::Blake3(_) => Algorithm::Blake3(Box::default()),
            Digest::Sha256(_) => Algorithm::Sha256(sha2::Sha256::new()),
        };
        Self { algorithm, seen: 0 }
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.algorithm {
            Algorithm::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Algorithm::Sha256(hasher) => hasher.update(bytes),
        }
        self.seen += bytes.len() as u64;
    }

    /// Reads on in `file` up to `end`.
    pub fn catch_up(&mut self, file: &File, end: u64) -> io::Result<()> {
        let mut buffer = vec![0; HASH_CHUNK];
        while self.seen < end {
            let want = usize::try_from(end - self.seen).unwrap_or(HASH_CHUNK).min(HASH_CHUNK);
            file.read_exact_at(&mut buffer[..want], self.seen)?;
            self.update(&buffer[..want]);
        }
        Ok(())
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        match self.algorithm {
            Algorithm::Blake3(hasher) => Digest::Blake3(*hasher.finalize().as_bytes()),
            Algorithm::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
        }
    }
}
