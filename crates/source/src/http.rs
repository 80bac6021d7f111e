//! `http://` and `https://`: stat, pinned reads, listings of index pages.
//!
//! The client never follows a redirect by itself, never asks for compressed bytes and always
//! verifies certificates. Every answer is compared with the pinned version before one of its bytes
//! is passed on, and every request is counted.

pub(crate) mod body;
mod client;
pub(crate) mod exchange;
pub(crate) mod headers;
mod list;
mod passed;
mod proxy;
mod reach;
pub(crate) mod read;
mod redirect;
mod relay;
mod stat;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_model::{ByteRange, Validator};
use futures::stream::BoxStream;

pub use passed::{PassedAnswer, is_same_version};
pub use proxy::ProxyOptions;
pub use reach::{IsAsked, Reach, Unreached, any_origin, is_nobodys, look_up};
pub use relay::Relay;

use crate::level::Levels;
use crate::retry::Retrier;
use crate::{
    ByteStream, Counters, Entry, ListLimits, RetryPolicy, Source, SourceError, Stat, Target,
};

/// How web origins are asked.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// PEM files of certificate authorities that are trusted beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// Longest time to connect, TLS handshake included.
    pub connect_timeout: Duration,
    /// Longest time from a request to the head of its answer.
    pub answer_timeout: Duration,
    /// Longest time without a byte once the answer has begun; then the rest is asked for again.
    pub stall_timeout: Duration,
    /// Longest time of one whole stat, read or index page with all its attempts; `None` leaves it
    /// to the caller.
    pub total_timeout: Option<Duration>,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Unused connections kept for each host.
    pub idle_connections: usize,
    /// Redirects followed for one request.
    pub redirects: usize,
    /// How failures are tried again.
    pub retry: RetryPolicy,
    /// Bounds of a listing.
    pub listing: ListLimits,
    /// Proxies on the way.
    pub proxy: ProxyOptions,
    /// Which addresses may be asked.
    pub reach: Reach,
    /// What dfs calls itself; nothing where it is empty.
    pub user_agent: String,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            ca_files: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(15),
            total_timeout: None,
            idle_timeout: Duration::from_secs(90),
            idle_connections: 32,
            redirects: 10,
            retry: RetryPolicy::default(),
            listing: ListLimits::default(),
            proxy: ProxyOptions::default(),
            reach: Reach::default(),
            user_agent: concat!("dfs/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl HttpOptions {
    /// The usual ones, with the proxies that the environment of this process names.
    pub fn of_process() -> Self {
        Self { proxy: ProxyOptions::of_process(), ..Self::default() }
    }
}

/// Web origins. Keeps connections alive for all who share it.
pub struct HttpSource(Arc<Web>);

/// What every request needs.
pub(crate) struct Web {
    client: reqwest::Client,
    pub options: HttpOptions,
    pub retrier: Retrier,
    pub counters: Arc<Counters>,
}

impl HttpSource {
    /// A source with its own connections; fails when a CA file cannot be read.
    pub fn new(options: HttpOptions, counters: Arc<Counters>) -> Result<Self, SourceError> {
        Ok(Self(Arc::new(Web::new(options, counters)?)))
    }

    /// The connections, for another adapter that speaks HTTP.
    pub(crate) fn web(&self) -> Arc<Web> {
        Arc::clone(&self.0)
    }
}

impl Web {
    pub fn new(options: HttpOptions, counters: Arc<Counters>) -> Result<Self, SourceError> {
        let client = client::build(&options)?;
        let retrier = Retrier::new(options.retry, Arc::clone(&counters));
        Ok(Self { client, options, retrier, counters })
    }

    /// The same connections for what is asked elsewhere when it fails.
    pub fn asking_once(&self) -> Self {
        let retry = RetryPolicy { attempts: 1, ..self.options.retry };
        let options = HttpOptions { retry, ..self.options.clone() };
        let counters = Arc::clone(&self.counters);
        let retrier = Retrier::new(retry, Arc::clone(&counters));
        Self { client: self.client.clone(), options, retrier, counters }
    }
}

#[async_trait]
impl Source for HttpSource {
    async fn stat(&self, target: &Target) -> Result<Stat, SourceError> {
        self.0.stat(target).await
    }

    async fn read(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        pin: &Validator,
    ) -> Result<ByteStream, SourceError> {
        read::read(Arc::clone(&self.0), target, range, pin).await
    }

    fn list(&self, target: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        list::list(Arc::clone(&self.0), target.clone(), Levels::All)
    }

    fn list_level(
        &self,
        target: &Target,
        below: &[u8],
    ) -> BoxStream<'static, Result<Entry, SourceError>> {
        list::list(Arc::clone(&self.0), target.clone(), Levels::In(below.to_vec()))
    }
}
