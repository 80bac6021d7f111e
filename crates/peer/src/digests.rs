//! Signed digests: the word of the peer that fetched a task from its source (design §3.1).
//!
//! Owns the batch of digests, its one canonical encoding, the Ed25519 signature over it, and the
//! [`Identity`] that signs. A batch is bound to its task, its signer and the content's length, so it
//! cannot be replayed for another. The encoding starts with a format number; what is not canonical is
//! refused, so that equal batches have equal bytes.

mod appointment;
mod identity;
#[cfg(test)]
mod tests;

pub use appointment::{Appointment, AppointmentError, MOST_APPOINTED, Office};
pub use identity::{Identity, IdentityError};

use dfs_model::{HostId, TaskId};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::hashtree::{Cv, Node, Shape, decode_node, encode_node};

/// Separates these signatures from any other use of the key.
const CONTEXT: &[u8] = b"dfs.digests.v1\0";
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 1 + TaskId::LEN + HostId::LEN + 1 + 8 + 2;
const NODE_BYTES: usize = 39;
const SIGNATURE_BYTES: usize = 64;

/// Digests of some nodes of one task's tree, as their signer found them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestBatch {
    /// Whose tree.
    pub task: TaskId,
    /// Who vouches for it.
    pub signer: HostId,
    /// Bytes in the content, once known.
    pub length: Option<u64>,
    /// Canonical nodes of that content and their digests, ascending by node when signed.
    pub entries: Vec<(Node, Cv)>,
}

/// A batch with its signer's signature. Not trusted before [`SignedDigests::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDigests {
    batch: DigestBatch,
    signature: [u8; SIGNATURE_BYTES],
}

/// A batch that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestsError {
    /// Made by a newer release.
    #[error("digests have format {0}, known is {FORMAT}")]
    Format(u8),
    /// Cut off, or followed by other bytes.
    #[error("a batch of digests is {got} bytes long where {expected} were expected")]
    WrongLength {
        /// Bytes that its head announces.
        expected: usize,
        /// Bytes that there are.
        got: usize,
    },
    /// More than a batch may hold.
    #[error("{0} digests in one batch, at most {max} are allowed", max = DigestBatch::MAX_ENTRIES)]
    TooMany(usize),
    /// Not a node of the content, not under its canonical name, repeated or out of order.
    #[error("{0} is repeated, out of order, or not a node of the content")]
    BadNode(Node),
    /// A field that has one canonical form has another.
    #[error("the length of a batch of digests is not in canonical form")]
    NotCanonical,
    /// Nobody known.
    #[error("the signer {0} of digests is not known")]
    UnknownSigner(HostId),
    /// The signature is not the signer's over these bytes.
    #[error("digests of task {task} are not signed by {signer}")]
    BadSignature {
        /// Whose tree.
        task: TaskId,
        /// Who is said to have signed.
        signer: HostId,
    },
}

impl DigestBatch {
    /// The most digests in one batch.
    pub const MAX_ENTRIES: usize = 4096;

    /// Brings the entries into order and signs. Refuses what a receiver would refuse.
    pub fn sign(mut self, key: &SigningKey) -> Result<SignedDigests, DigestsError> {
        self.entries.sort_unstable();
        self.entries.dedup();
        self.check()?;
        let signature = key.sign(&self.message()).to_bytes();
        Ok(SignedDigests { batch: self, signature })
    }

    fn check(&self) -> Result<(), DigestsError> {
        if self.entries.len() > Self::MAX_ENTRIES {
            return Err(DigestsError::TooMany(self.entries.len()));
        }
        let shape = Shape::new(self.length);
        let mut last = None;
        for (node, _) in &self.entries {
            if shape.canonical(*node) != Some(*node) || last.is_some_and(|last| last >= *node) {
                return Err(DigestsError::BadNode(*node));
            }
            last = Some(*node);
        }
        Ok(())
    }

    fn message(&self) -> Vec<u8> {
        let mut message = CONTEXT.to_vec();
        self.encode(&mut message);
        message
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(HEAD_BYTES + self.entries.len() * NODE_BYTES + SIGNATURE_BYTES);
        out.push(FORMAT);
        out.extend_from_slice(self.task.as_bytes());
        out.extend_from_slice(self.signer.as_bytes());
        out.push(u8::from(self.length.is_some()));
        out.extend_from_slice(&self.length.unwrap_or(0).to_le_bytes());
        let count = u16::try_from(self.entries.len()).expect("checked against MAX_ENTRIES");
        out.extend_from_slice(&count.to_le_bytes());
        for (node, cv) in &self.entries {
            encode_node(*node, cv, out);
        }
    }
}

impl SignedDigests {
    /// The longest encoding.
    pub const MAX_BYTES: usize =
        HEAD_BYTES + DigestBatch::MAX_ENTRIES * NODE_BYTES + SIGNATURE_BYTES;

    /// What is signed, or said to be.
    pub fn batch(&self) -> &DigestBatch {
        &self.batch
    }

    /// The canonical bytes: format, task, signer, length, digests, signature.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.batch.encode(&mut out);
        out.extend_from_slice(&self.signature);
        out
    }

    /// Reads exactly one batch. Sizes are checked before anything is allocated; the signature is not.
    pub fn decode(bytes: &[u8]) -> Result<Self, DigestsError> {
        let wrong = |expected| DigestsError::WrongLength { expected, got: bytes.len() };
        if bytes.first().is_some_and(|format| *format != FORMAT) {
            return Err(DigestsError::Format(bytes[0]));
        }
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(wrong(HEAD_BYTES))?;
        let count = usize::from(u16::from_le_bytes(array(&head[58..60])));
        if count > DigestBatch::MAX_ENTRIES {
            return Err(DigestsError::TooMany(count));
        }
        if rest.len() != count * NODE_BYTES + SIGNATURE_BYTES {
            return Err(wrong(HEAD_BYTES + count * NODE_BYTES + SIGNATURE_BYTES));
        }
        let length = match (head[49], u64::from_le_bytes(array(&head[50..58]))) {
            (0, 0) => None,
            (1, length) => Some(length),
            _ => return Err(DigestsError::NotCanonical),
        };
        let (entries, signature) = rest.split_at(count * NODE_BYTES);
        let batch = DigestBatch {
            task: TaskId::from_bytes(array(&head[1..33])),
            signer: HostId::from_bytes(array(&head[33..49])),
            length,
            entries: entries.chunks_exact(NODE_BYTES).map(decode_node).collect(),
        };
        batch.check()?;
        Ok(Self { batch, signature: array(signature) })
    }

    /// Who is said to have signed an encoded batch, of which nothing else is looked at.
    pub(crate) fn signer_of(encoded: &[u8]) -> Option<HostId> {
        let signer = encoded.get(33..49)?;
        Some(HostId::from_bytes(array(signer)))
    }

    /// Checks the signature against the signer's registered key, which `lookup` finds.
    pub fn verify(
        &self,
        lookup: impl Fn(&HostId) -> Option<[u8; 32]>,
    ) -> Result<&DigestBatch, DigestsError> {
        let DigestBatch { task, signer, .. } = self.batch;
        let key = lookup(&signer).ok_or(DigestsError::UnknownSigner(signer))?;
        let bad = |_| DigestsError::BadSignature { task, signer };
        let key = VerifyingKey::from_bytes(&key).map_err(bad)?;
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&self.batch.message(), &signature).map_err(bad)?;
        Ok(&self.batch)
    }
}

/// The bytes of a field cut out by constant bounds.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the bounds of the field are constants of its length")
}
