//! `s3://bucket/key` and `s3://bucket/prefix/`: any store that speaks S3.
//!
//! Requests are signed here (Signature version 4) and go over the web source's own connections, with
//! its retries, counters and pinned reads; `If-Match` binds every read to one version. A URL means
//! the same to everybody: AWS, unless `?endpoint=` names another store. Who asks is never a matter of
//! the URL, and the keys of this process's own user are used for that user only
//! ([`Source::complete`]).

mod chain;
mod list;
mod ordered;
mod page;
mod place;
mod read;
mod refusal;
mod sign;
mod stat;
mod store;
pub(crate) mod time;
mod unfinished;
mod walk;
mod write;
mod xml;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use dfs_model::{ByteRange, CanonicalUrl, UrlError, Validator};
use futures::stream::BoxStream;
use url::Url;

use crate::http::read::read_pinned;
use crate::http::{HttpSource, Web};
use crate::{
    Action, Asking, Attempt, ByteStream, Content, Counters, Credentials, Entry, HttpOptions,
    Source, SourceError, Stat, TakenBack, Target, WriteOptions,
};
use chain::Chain;
pub use chain::{Environment, Profile, ProfileError};
pub use page::{ListedObject, ObjectPage, parse_object_page};
pub use place::AddressStyle;
use place::Place;
use store::Store;
pub(crate) use store::is_anonymous;

/// Nobody's keys can be used, because of `cause`.
fn no_access(cause: impl std::error::Error + Send + Sync + 'static) -> SourceError {
    SourceError::setup("the access to object stores", cause)
}

/// How object stores are asked.
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    /// The store that a URL without `?endpoint=` means to this process's user; AWS when `None`.
    pub endpoint: Option<String>,
    /// The region of buckets of which nothing else is known.
    pub region: Option<String>,
    /// How buckets become part of an address.
    pub style: AddressStyle,
    /// Where the keys of this process's own user are looked for; nowhere when `None`.
    pub environment: Option<Environment>,
    /// A directory where uploads under way are written down for [`Source::take_back`]; nowhere when `None`.
    pub unfinished: Option<PathBuf>,
}

impl S3Options {
    /// The usual ones, with the keys that the environment of this process leads to.
    pub fn of_process() -> Self {
        Self { environment: Some(Environment::of_process()), ..Self::default() }
    }
}

/// Object stores.
pub struct S3Source {
    store: Arc<Store>,
    endpoint: Option<Url>,
}

impl S3Source {
    /// A source with its own connections.
    pub fn new(
        options: S3Options,
        http: HttpOptions,
        counters: Arc<Counters>,
    ) -> Result<Self, SourceError> {
        Self::over(options, HttpSource::new(http, counters)?.web())
    }

    /// A source over the connections of another.
    pub(crate) fn over(options: S3Options, web: Arc<Web>) -> Result<Self, SourceError> {
        let profile = match &options.environment {
            Some(environment) => Profile::of(environment).map_err(no_access)?,
            None => Profile::default(),
        };
        let endpoint = options.endpoint.or_else(|| profile.endpoint.clone());
        let endpoint = endpoint.map(|text| place::endpoint(&text)).transpose();
        let endpoint = endpoint.map_err(|reason| no_access(ProfileError::Endpoint { reason }))?;
        let style = match options.style {
            AddressStyle::Auto => profile.style,
            chosen => chosen,
        };
        let region = options.region.or_else(|| profile.region.clone());
        let chain = options
            .environment
            .map(|environment| Chain::new(environment, profile, region.clone(), Arc::clone(&web)));
        let store = Store::new(web, region, style, chain, options.unfinished);
        Ok(Self { store: Arc::new(store), endpoint })
    }

    /// The URL with the store that this process's user means, where it names none.
    fn with_store(&self, url: &CanonicalUrl) -> Result<CanonicalUrl, SourceError> {
        let named = url.url().query_pairs().any(|(name, _)| name == "endpoint");
        match &self.endpoint {
            Some(endpoint) if !named => {
                Ok(at_store(url, endpoint.as_str(), self.store.region.as_deref())?)
            }
            _ => Ok(url.clone()),
        }
    }
}

/// The same place in the store at `endpoint`.
fn at_store(
    url: &CanonicalUrl,
    endpoint: &str,
    region: Option<&str>,
) -> Result<CanonicalUrl, dfs_model::UrlError> {
    let mut at = url.url().clone();
    at.query_pairs_mut().append_pair("endpoint", endpoint.trim_end_matches('/'));
    let named = url.url().query_pairs().any(|(name, _)| name == "region");
    if let Some(region) = region.filter(|_| !named) {
        at.query_pairs_mut().append_pair("region", region);
    }
    CanonicalUrl::new(at)
}

/// A target as the user of `environment` means it, without asking anybody but a program of theirs that makes keys,
/// which is waited for: the store and the keys that variables and profile name, where the target itself has none.
pub async fn as_meant_in(
    environment: &Environment,
    target: Target,
) -> Result<Target, ProfileError> {
    if target.url.url().scheme() != "s3" {
        return Ok(target);
    }
    let profile = Profile::of(environment)?;
    let named = target.url.url().query_pairs().any(|(name, _)| name == "endpoint");
    let url = match &profile.endpoint {
        Some(endpoint) if !named => {
            let endpoint = place::endpoint(endpoint);
            let endpoint = endpoint.map_err(|reason| ProfileError::Endpoint { reason })?;
            at_store(&target.url, endpoint.as_str(), profile.region.as_deref())
                .map_err(|error| ProfileError::Endpoint { reason: error.to_string() })?
        }
        _ => target.url.clone(),
    };
    let credentials = match target.credentials {
        Credentials::None => profile.own_keys().await?.map_or(Credentials::None, Credentials::Keys),
        given => given,
    };
    Ok(Target { url, headers: target.headers, credentials })
}

#[async_trait]
impl Source for S3Source {
    async fn complete(&self, target: &Target, asking: Asking) -> Result<Target, SourceError> {
        let attempt = Attempt::new(Action::Stat, &target.url);
        let url = self.with_store(&target.url)?;
        let credentials = match &target.credentials {
            Credentials::Basic { user, password } if is_anonymous(user, password.expose()) => {
                Credentials::None
            }
            Credentials::None if asking == Asking::Own => {
                // Never to a store that is not this user's: a URL may name any.
                let unusable = |reason| UrlError::Unusable { url: url.to_string(), reason };
                let place = Place::parse(&url).map_err(unusable)?;
                match &self.store.chain {
                    Some(chain) if place.endpoint == self.endpoint => {
                        let keys = chain.keys(&attempt).await?;
                        keys.map_or(Credentials::None, Credentials::Keys)
                    }
                    _ => Credentials::None,
                }
            }
            given => given.clone(),
        };
        Ok(Target { url, credentials, ..target.clone() })
    }

    async fn stat(&self, target: &Target) -> Result<Stat, SourceError> {
        let attempt = Attempt::new(Action::Stat, &target.url);
        let asker = self.store.asker(target, &attempt)?;
        let web = &self.store.web;
        web.counters.stat();
        web.bounded(&attempt, asker.stat(&attempt)).await
    }

    async fn read(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        pin: &Validator,
    ) -> Result<ByteStream, SourceError> {
        let attempt = Attempt::new(Action::Read(range), &target.url);
        let asker = self.store.asker(target, &attempt)?;
        read_pinned(Box::new(asker), range, pin, attempt).await
    }

    fn list(&self, target: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        let attempt = Attempt::new(Action::List, &target.url);
        list::list(self.store.asker(target, &attempt), attempt)
    }

    fn list_level(
        &self,
        target: &Target,
        below: &[u8],
    ) -> BoxStream<'static, Result<Entry, SourceError>> {
        let attempt = Attempt::new(Action::List, &target.url);
        ordered::level(self.store.asker(target, &attempt), below, attempt)
    }

    fn list_in_order(&self, target: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        let attempt = Attempt::new(Action::List, &target.url);
        ordered::list(self.store.asker(target, &attempt), attempt)
    }

    async fn write(
        &self,
        target: &Target,
        content: Content,
        options: &WriteOptions,
    ) -> Result<Validator, SourceError> {
        let attempt = Attempt::new(Action::Write, &target.url);
        let asker = self.store.asker(target, &attempt)?;
        write::write(&asker, content, options, &attempt).await
    }

    async fn copy(
        &self,
        from: &Target,
        pin: &Validator,
        target: &Target,
        options: &WriteOptions,
    ) -> Result<Option<Validator>, SourceError> {
        let attempt = Attempt::new(Action::Copy, &target.url);
        if from.url.url().scheme() != "s3" || from.credentials != target.credentials {
            return Ok(None);
        }
        let from = self.store.asker(from, &attempt)?;
        let asker = self.store.asker(target, &attempt)?;
        write::copy(&from, pin, &asker, options.existing, &attempt).await
    }

    async fn delete(&self, target: &Target, _options: &WriteOptions) -> Result<(), SourceError> {
        let attempt = Attempt::new(Action::Delete, &target.url);
        write::delete(&self.store.asker(target, &attempt)?, &attempt).await
    }

    async fn take_back(&self, target: &Target) -> TakenBack {
        let attempt = Attempt::new(Action::Delete, &target.url);
        match self.store.asker(target, &attempt) {
            Ok(asker) => write::take_back(&asker, &attempt).await,
            Err(_) => TakenBack::default(),
        }
    }

    async fn settle(&self) {
        self.store.aborts.wait().await;
    }
}
