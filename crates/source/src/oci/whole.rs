//! A whole content held against its digest as it passes.

use dfs_model::{printable, shortened};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256, Sha512};

use super::ContentDigest;
use crate::{Attempt, ByteStream, SourceError};

/// A digest that grows with what passes.
pub struct Hashing(Kind);

enum Kind {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hashing {
    /// Of nothing yet, by the algorithm of `digest`.
    pub fn like(digest: &ContentDigest) -> Self {
        Self(match digest {
            ContentDigest::Sha256(_) => Kind::Sha256(Sha256::new()),
            ContentDigest::Sha512(_) => Kind::Sha512(Sha512::new()),
        })
    }

    /// Takes what comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Kind::Sha256(hash) => hash.update(bytes),
            Kind::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all that passed.
    pub fn finish(self) -> ContentDigest {
        match self.0 {
            Kind::Sha256(hash) => ContentDigest::Sha256(hash.finalize().into()),
            Kind::Sha512(hash) => ContentDigest::Sha512(hash.finalize().into()),
        }
    }
}

/// The same bytes; in place of their end an error where they are not what `digest` names. Where they are, `proved` is called at
/// their end.
pub(super) fn verified(
    bytes: ByteStream,
    digest: ContentDigest,
    attempt: Attempt,
    proved: impl Fn() + Send + 'static,
) -> ByteStream {
    let begun = (bytes, Some((Hashing::like(&digest), proved)));
    let passing = stream::try_unfold(begun, move |(mut bytes, hashing)| {
        let attempt = attempt.clone();
        async move {
            let Some((mut hashing, proved)) = hashing else { return Ok(None) };
            if let Some(part) = bytes.try_next().await? {
                hashing.update(&part);
                return Ok(Some((part, (bytes, Some((hashing, proved))))));
            }
            match hashing.finish() {
                actual if actual == digest => {
                    proved();
                    Ok(None)
                }
                actual => Err(other_content(&actual.to_string(), &digest, attempt)),
            }
        }
    });
    passing.boxed()
}

/// The registry, or somebody on the way, gave another content.
pub(super) fn other_content(actual: &str, digest: &ContentDigest, attempt: Attempt) -> SourceError {
    let actual = printable(&shortened(actual, 150));
    let reason = format!("the content that came is {actual}, not {digest}");
    SourceError::Malformed { attempt, reason }
}
