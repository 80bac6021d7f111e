//! Back to source: one trait, one file per kind of origin.
//!
//! A [`Source`] answers three questions about a URL — what is it ([`Source::stat`]), what bytes
//! does one pinned version of it hold ([`Source::read`]), what lies below it ([`Source::list`]) —
//! and never mixes two versions (design §3.2). [`Sources`] picks the adapter by scheme.
//!
//! What an origin sends is hostile until checked: every name of an [`Entry`], every length, every
//! header. Credentials travel in [`Credentials`] and are sent to the origin they were given for,
//! never to another one; no error, log line or `Debug` shows them. Nothing is kept on disk: when
//! the process dies here, only the request in flight is lost.

mod activity;
mod counters;
mod credentials;
mod entry;
mod environment;
mod error;
mod file;
mod http;
mod index_json;
mod index_page;
mod level;
mod merge;
pub mod oci;
mod pace;
mod program;
mod retry;
pub mod s3;
mod short;
mod sources;
mod stat;
mod target;
mod write;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, Validator};
use futures::stream::{self, BoxStream, StreamExt as _};

pub use activity::Activity;
pub use counters::{Counters, CountersSnapshot};
pub use credentials::{AccessKeys, Credentials, LocalUser, Secret};
pub use entry::{
    Attributes, Entry, EntryKind, ListLimits, MAX_NAME_BYTES, MAX_PATH_BYTES, PathError,
    SpecialKind, check_path,
};
pub use environment::Environment;
pub use error::{Action, Attempt, Cause, SourceError};
pub use file::{FileOptions, FileSource};
pub use http::{
    HttpOptions, HttpSource, IsAsked, PassedAnswer, ProxyOptions, Reach, Relay, Unreached,
    any_origin, is_nobodys, is_same_version, look_up,
};
pub use index_json::{NoJsonListing, parse_json_listing};
pub use index_page::{IndexPageError, Link, parse_index_page};
pub use merge::merge_ranges;
pub use oci::{OciOptions, OciSource};
pub use pace::{Pace, Question};
pub use retry::RetryPolicy;
pub use s3::{S3Options, S3Source};
pub use short::read_short;
pub use sources::{Sources, SourcesBuilder};
pub use stat::{Stat, StatKind, Timestamp};
pub use target::Target;
pub use write::{Content, Existing, TakenBack, WriteOptions};

/// Bytes as they come.
pub type ByteStream = BoxStream<'static, Result<Bytes, SourceError>>;

/// On whose behalf an origin is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// The user that this process belongs to: what is theirs may be used.
    Own,
    /// Somebody else.
    Other,
}

/// One kind of origin.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The target as it is meant here: with the place that this process's configuration says, and,
    /// for its own user, with the credentials that it finds. Done once, before anything else; a
    /// complete target means the same on every host.
    async fn complete(&self, target: &Target, _asking: Asking) -> Result<Target, SourceError> {
        Ok(target.clone())
    }

    /// Length, validator, content type. One request where the origin tells enough in its answer,
    /// one more where it does not.
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

    /// Everything below a directory, as it is found. Where directories are things of their own, one
    /// comes before what lies in it; an object store has none, and tells one only where an object
    /// stands for it, at any time.
    fn list(&self, target: &Target) -> BoxStream<'static, Result<Entry, SourceError>>;

    /// Of a container registry: what is about the manifest of this digest in the repository that `target` names, of one
    /// kind or of any. Whoever may write there says so.
    async fn referrers(
        &self,
        _target: &Target,
        _digest: &oci::ContentDigest,
        _kind: Option<&str>,
    ) -> Result<Vec<oci::Referrer>, SourceError> {
        Ok(Vec::new())
    }

    /// What only a file system knows of a directory itself, and when it was last changed.
    async fn described(
        &self,
        _target: &Target,
    ) -> Result<Option<(Timestamp, Attributes)>, SourceError> {
        Ok(None)
    }

    /// What lies right in the directory `below` of a directory (in that one itself where it is empty), in any order;
    /// the paths are those that [`Self::list`] gives. What is not there has nothing in it, or is an error.
    fn list_level(
        &self,
        target: &Target,
        below: &[u8],
    ) -> BoxStream<'static, Result<Entry, SourceError>> {
        level::of_all(self.list(target), below)
    }

    /// The same as of [`Self::list`] in one order, for who compares two places: that of the bytes of the paths, a
    /// directory's with a slash behind it. What cannot be an entry is told wherever it is found.
    fn list_in_order(&self, target: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        let error = SourceError::Malformed {
            attempt: Attempt::new(Action::List, &target.url),
            reason: "this kind of origin lists nothing in order".to_owned(),
        };
        stream::once(async { Err(error) }).boxed()
    }

    /// Puts `content` where `target` says, all of it or nothing: whoever looks sees what was there
    /// before or what is there after. Tells the new version as far as the origin does.
    async fn write(
        &self,
        target: &Target,
        _content: Content,
        _options: &WriteOptions,
    ) -> Result<Validator, SourceError> {
        Err(write::read_only(Action::Write, target))
    }

    /// Makes `target` a copy of the version of `from` that `pin` names, without its bytes passing
    /// here. `None`: this cannot be done, read and write instead.
    async fn copy(
        &self,
        _from: &Target,
        _pin: &Validator,
        _target: &Target,
        _options: &WriteOptions,
    ) -> Result<Option<Validator>, SourceError> {
        Ok(None)
    }

    /// Takes `target` away; that it was not there is no failure. A directory must be empty.
    async fn delete(&self, target: &Target, _options: &WriteOptions) -> Result<(), SourceError> {
        Err(write::read_only(Action::Delete, target))
    }

    /// Takes back what processes that were killed left half-written below `target`.
    async fn take_back(&self, _target: &Target) -> TakenBack {
        TakenBack::default()
    }

    /// Waits for what goes on when a call was dropped: an origin being told to forget half a write.
    async fn settle(&self) {}
}
