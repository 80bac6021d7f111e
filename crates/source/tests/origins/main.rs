//! The adapters against real servers: scripted ones that misbehave, and nginx, Apache and Python as they are.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

mod bucket_keys;
mod bucket_lists;
mod buckets;
mod changes;
mod faults;
mod files;
mod listing;
mod mirrors;
mod moto;
mod on_the_way;
mod providers;
mod redirects;
mod registries;
mod scripted;
mod stats;
mod store;
mod tls;
mod uploads;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use dfs_model::{ByteRange, Validator};
use dfs_source::{
    AccessKeys, ByteStream, CountersSnapshot, Credentials, Entry, FileOptions, HttpOptions,
    RetryPolicy, Source, SourceError, Sources, Target,
};
use futures::StreamExt as _;

/// Options that try again at once and notice a stall soon.
fn options() -> HttpOptions {
    HttpOptions {
        stall_timeout: Duration::from_millis(300),
        retry: RetryPolicy { base: Duration::from_millis(5), ..RetryPolicy::default() },
        ..HttpOptions::default()
    }
}

/// Sources under test and what was asked through them.
struct Client {
    sources: Sources,
    /// Who asks.
    keys: Option<AccessKeys>,
}

impl Client {
    fn new() -> Self {
        Self::with(options())
    }

    fn with(options: HttpOptions) -> Self {
        let sources =
            Sources::builder().http(options).file(FileOptions::default()).build().unwrap();
        Self::over(sources)
    }

    fn over(sources: Sources) -> Self {
        Self { sources, keys: None }
    }

    /// What a URL names, to who asks.
    fn target(&self, url: &str) -> Target {
        match &self.keys {
            Some(keys) => target(url).with_credentials(Credentials::Keys(keys.clone())),
            None => target(url),
        }
    }

    fn source(&self, target: &Target) -> Arc<dyn Source> {
        self.sources.for_target(target).unwrap()
    }

    async fn stat(&self, url: &str) -> Result<dfs_source::Stat, SourceError> {
        let target = self.target(url);
        self.source(&target).stat(&target).await
    }

    async fn open(
        &self,
        url: &str,
        range: Option<(u64, u64)>,
        pin: &Validator,
    ) -> Result<ByteStream, SourceError> {
        let target = self.target(url);
        let range = range.map(|(start, end)| ByteRange::new(start, end));
        self.source(&target).read(&target, range, pin).await
    }

    async fn read(
        &self,
        url: &str,
        range: Option<(u64, u64)>,
        pin: &Validator,
    ) -> Result<Vec<u8>, SourceError> {
        collect(self.open(url, range, pin).await?).await
    }

    async fn list(&self, url: &str) -> Result<Vec<Entry>, SourceError> {
        let target = self.target(url);
        let mut entries = self.source(&target).list(&target);
        let mut all = Vec::new();
        while let Some(entry) = entries.next().await {
            all.push(entry?);
        }
        Ok(all)
    }

    fn counted(&self) -> CountersSnapshot {
        self.sources.counters().snapshot()
    }
}

fn target(url: &str) -> Target {
    Target::parse(url).unwrap()
}

async fn collect(stream: ByteStream) -> Result<Vec<u8>, SourceError> {
    let mut all = Vec::new();
    collect_into(stream, &mut all).await?;
    Ok(all)
}

/// What came before a failure stays in `all`.
async fn collect_into(mut stream: ByteStream, all: &mut Vec<u8>) -> Result<(), SourceError> {
    while let Some(bytes) = stream.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(())
}

/// Bytes in which every position shows.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect()
}

/// A pin by ETag and length.
fn tagged(etag: &str, length: usize) -> Validator {
    Validator { etag: Some(etag.into()), length: Some(length as u64), ..Validator::default() }
}

/// The failure of something that must fail.
fn failure<T>(result: Result<T, SourceError>) -> SourceError {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => error,
    }
}
