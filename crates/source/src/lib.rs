//! Back to source: one trait, one file per kind of origin.
//!
//! A [`Source`] answers three questions about a URL — what is it ([`Source::stat`]), what bytes does
//! one pinned version of it hold ([`Source::read`]), what lies below it ([`Source::list`]) — and never
//! mixes two versions (design §3.2). [`Sources`] picks the adapter by scheme.

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, CanonicalUrl, Validator};
use futures::stream::BoxStream;

/// What a person names, with what is needed to ask for it. `Debug` and `Display` never show secrets.
#[derive(Clone)]
pub struct Target {
    /// Where it is; never carries credentials.
    pub url: CanonicalUrl,
    /// Headers that change content; lower-case names, sorted; part of the task's identity.
    pub headers: Vec<(String, String)>,
    /// Who asks; never part of an identity.
    pub credentials: Credentials,
}

/// Bytes as they come.
pub type ByteStream = BoxStream<'static, Result<Bytes, SourceError>>;

/// One kind of origin.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Length, validator, content type. One request.
    async fn stat(&self, target: &Target) -> Result<Stat, SourceError>;

    /// The bytes of `range` (all of it when `None`) of exactly the version `pin` names; fails with
    /// [`SourceError::Changed`] when the origin has another. The stream yields exactly
    /// the bytes of the range, or an error.
    async fn read(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        pin: &Validator,
    ) -> Result<ByteStream, SourceError>;

    /// Everything below a directory, depth first, as it is found.
    fn list(&self, target: &Target) -> BoxStream<'static, Result<Entry, SourceError>>;
}
