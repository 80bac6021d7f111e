//! The one hash tree: BLAKE3's own, seen from groups of 64 KiB upwards (design §4).
//!
//! Owns the geometry ([`Shape`]), the digests of groups and the merging of digests, and the proofs by
//! which a receiver of some groups arrives at a digest it already trusts ([`prove`], [`verify`]).
//! Pure: no I/O, no clock.
//!
//! Invariant: a digest is either the chaining value of an aligned subtree *at its offset*, or, for the
//! node that covers the whole content, the finalized BLAKE3 of that content. The two never mix: which
//! one a node has follows from the [`Shape`] alone.

mod digest;
mod hashing;
mod proof;
mod shape;
#[cfg(test)]
mod tests;

pub use digest::{ContentError, fold, group_digest, group_digests, merge};
pub use hashing::GroupHashing;
pub use proof::{Proof, ProofDecodeError, ProveError, VerifyError, prove, verify, verify_bytes};
pub(crate) use proof::{decode_node, encode_node};
pub use shape::{Node, Shape};

/// Digest of a subtree: a chaining value, or the finalized hash at the root.
pub type Cv = [u8; 32];
