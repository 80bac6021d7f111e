//! `oci://host[:port]/repository[:tag][@digest]` and `oci://host[:port]/repository?blob=digest`: what a container registry
//! has (OCI distribution 1.1, Docker schema 2).
//!
//! A version is named by the digest of its bytes, so it never changes: a tag is asked for once, and what is read then is
//! what its digest names. A manifest is held against it before anything of it is given, a blob as it passes where all of
//! it is read; who reads parts of a blob checks them. Requests go over the web source's own connections, with its
//! retries, counters and pinned reads. A registry says what it wants of who asks; the logins of this process's own user
//! are used for that user only ([`Source::complete`]).

mod access;
mod challenge;
mod config_file;
mod digest;
mod docker_auth;
mod located;
mod login;
mod mirrors;
mod pass;
mod place;
mod plain;
mod platform;
mod provider;
mod push;
mod reference;
mod referrers;
mod registry;
mod stat;
mod whole;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, CanonicalUrl, UrlError, Validator};
use futures::TryStreamExt as _;
use futures::stream::{self, BoxStream, StreamExt as _};

use crate::environment::Environment;
use crate::http::read::read_pinned;
use crate::http::{HttpSource, Web};
use crate::s3::is_anonymous;
use crate::{
    Action, Asking, Attempt, ByteStream, Counters, Credentials, Entry, HttpOptions, Source,
    SourceError, Stat, Target,
};
use access::Access;
pub use digest::{ContentDigest, DigestError, Mismatch, verify};
pub use docker_auth::DockerAuth;
pub use located::{Form, Located, OnDisk, Written};
pub use login::LoginError;
use login::Logins;
pub use mirrors::MirrorsError;
use mirrors::{AnyPlace, Mirror, Mirrors, Places};
pub use pass::{Extent, PASSED_ON, Passed, Sought, login_of};
use plain::PlainHosts;
pub use platform::{Platform, PlatformError};
pub use provider::CredentialProviders;
use provider::Providers;
pub use push::{PushContent, PushFrom, Pusher, Put};
pub use reference::{Named, Reference, is_registry};
pub use referrers::{INDEX_TYPE, Referrer};
use registry::Asker;
pub use whole::Hashing;

/// Names the registries that are asked without TLS, by host or host and port, parted by commas; those of this machine
/// are anyway.
const PLAIN_HTTP: &str = "DFS_OCI_PLAIN_HTTP";

/// Names a file that says which registries have mirrors: `registries.conf` of podman and CRI-O.
const REGISTRIES_CONF: &str = "DFS_REGISTRIES_CONF";

/// Longest manifest, in bytes: what registries take.
pub const MAX_DOCUMENT: usize = 4 << 20;

/// How registries are asked.
#[derive(Debug, Clone, Default)]
pub struct OciOptions {
    /// Where the logins of this process's own user are looked for; nowhere when `None`.
    pub environment: Option<Environment>,
    /// Programs that make logins for this process's own user, before those are looked for.
    pub providers: Option<CredentialProviders>,
    /// Registries that are asked without TLS, by host or host and port; those of this machine are anyway.
    pub plain_http: Vec<String>,
    /// A file that says which registries have mirrors: `registries.conf` of podman and CRI-O.
    pub registries_conf: Option<PathBuf>,
}

impl OciOptions {
    /// The usual ones, with the logins that the environment of this process leads to.
    pub fn of_process() -> Self {
        Self { environment: Some(Environment::of_process()), ..Self::for_others() }
    }

    /// The same for whom only others ask, each with a login of their own.
    pub fn for_others() -> Self {
        let named = std::env::var(PLAIN_HTTP).unwrap_or_default();
        let plain_http = named.split(',').map(str::trim).filter(|name| !name.is_empty());
        let registries_conf = std::env::var_os(REGISTRIES_CONF).filter(|path| !path.is_empty());
        Self {
            plain_http: plain_http.map(str::to_owned).collect(),
            registries_conf: registries_conf.map(PathBuf::from),
            ..Self::default()
        }
    }
}

/// The version that a digest names.
pub fn validator(digest: &ContentDigest, length: Option<u64>) -> Validator {
    Validator { etag: Some(tag_of(digest)), length, ..Validator::default() }
}

/// The digest that names a version, where one does.
pub fn digest_of(validator: &Validator) -> Option<ContentDigest> {
    validator.etag.as_deref()?.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// The name of what is behind a URL: of a blob of a registry its registry and digest, of anything else the URL itself.
pub fn content_name(url: &CanonicalUrl) -> CanonicalUrl {
    let named = Reference::of(url).ok().and_then(|reference| reference.content_name());
    named.unwrap_or_else(|| url.clone())
}

/// For which machine something is asked for, where that decides what it is: of an image whose URL names none. `asker` is the
/// machine of who asks, as it says.
pub fn platform_asked(url: &CanonicalUrl, asker: &str) -> Option<Platform> {
    let reference = Reference::of(url).ok()?;
    let is_open = reference.platform().is_none() && !matches!(reference.named(), Named::Blob(_));
    asker.parse().ok().filter(|_| is_open)
}

/// The digest in the name of a blob.
pub fn named_digest(name: &CanonicalUrl) -> Option<ContentDigest> {
    let digest = name.url().path().strip_prefix('/').filter(|_| is_content_name(name))?;
    digest.replacen('/', ":", 1).parse().ok()
}

/// Whether a URL is such a name, which nothing is read from.
pub fn is_content_name(url: &CanonicalUrl) -> bool {
    url.url().scheme() == reference::CONTENT
}

fn tag_of(digest: &ContentDigest) -> String {
    format!("\"{digest}\"")
}

/// A target as the user of `environment` means it: with their login for its registry, where it has none itself. A
/// program that keeps it may be asked, and is waited for.
pub async fn as_meant_in(environment: &Environment, target: Target) -> Result<Target, LoginError> {
    let Ok(reference) = Reference::of(&target.url) else { return Ok(target) };
    let credentials = match &target.credentials {
        Credentials::None => login::find(environment, &reference).await?.unwrap_or_default(),
        given => given.clone(),
    };
    Ok(target.with_credentials(credentials))
}

/// Container registries.
pub struct OciSource {
    access: Arc<Access>,
    mirrors: Arc<Mirrors>,
    /// To mirrors, as nobody: each is asked once.
    at_mirrors: Arc<Access>,
}

impl OciSource {
    /// A source with its own connections.
    pub fn new(
        options: OciOptions,
        http: HttpOptions,
        counters: Arc<Counters>,
    ) -> Result<Self, SourceError> {
        Self::over(options, HttpSource::new(http, counters)?.web())
    }

    /// A source over the connections of another.
    pub(crate) fn over(options: OciOptions, web: Arc<Web>) -> Result<Self, SourceError> {
        let providers = options.providers.as_ref().map(Providers::read).transpose();
        let providers = providers.map_err(LoginError::into_source)?.unwrap_or_default();
        let logins = options.environment.map(|environment| Logins::new(environment, providers));
        let mirrors = options.registries_conf.as_deref().map(Mirrors::read).transpose();
        let mirrors =
            mirrors.map_err(|error| SourceError::setup("the access to registries", error));
        let mirrors = mirrors?.unwrap_or_default();
        let plain = PlainHosts::new(&options.plain_http);
        let once = Arc::new(web.asking_once());
        Ok(Self {
            access: Arc::new(Access::new(web, plain.clone(), logins)),
            mirrors: Arc::new(mirrors),
            at_mirrors: Arc::new(Access::new(once, plain, None)),
        })
    }

    fn places(&self, target: &Target) -> Result<(Reference, Places), SourceError> {
        if !target.headers.is_empty() {
            return Err(unusable(
                &target.url,
                "a registry takes no headers of one's own".to_owned(),
            ));
        }
        let reference = reference(target)?;
        let places = self.mirrors.places(&reference);
        let places = places.map_err(|reason| unusable(&target.url, reason))?;
        Ok((reference, places))
    }

    /// Who asks at the registry itself.
    fn asker(&self, target: &Target) -> Result<Asker, SourceError> {
        Ok(self.askers(target)?.1)
    }

    /// Who asks at its mirrors, for nobody in particular, and at the registry itself.
    #[expect(clippy::type_complexity, reason = "each mirror with who asks it")]
    fn askers(&self, target: &Target) -> Result<(Vec<(Arc<Mirror>, Asker)>, Asker), SourceError> {
        let (reference, places) = self.places(target)?;
        let at_mirror = |(mirror, at)| {
            let (access, reference) = (Arc::clone(&self.at_mirrors), reference.clone());
            (mirror, Asker { access, reference, at, login: Credentials::None })
        };
        let mirrors = places.mirrors.into_iter().map(at_mirror).collect();
        let (access, login) = (Arc::clone(&self.access), target.credentials.clone());
        Ok((mirrors, Asker { access, reference, at: places.location, login }))
    }

    /// Something that was read of a repository is not what it should be: what its mirrors gave of it is doubted. Whether it may
    /// be right when it is read again.
    pub fn doubt_mirrors(&self, target: &Target) -> bool {
        reference(target).is_ok_and(|reference| self.mirrors.doubt(&reference))
    }

    /// All of a blob was held against a digest by who read it, and is right: nothing of it is doubted.
    pub fn proved(&self, target: &Target) {
        if let Ok(blob) = reference(target) {
            self.mirrors.proved(&blob);
        }
    }

    async fn document(
        &self,
        target: &Target,
        pin: &Validator,
        attempt: &Attempt,
    ) -> Result<Bytes, SourceError> {
        let (mirrors, asker) = self.askers(target)?;
        for (mirror, at_mirror) in mirrors {
            match at_mirror.document(pin, attempt).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => mirror.failed(&at_mirror.reference, &error),
            }
        }
        asker.document(pin, attempt).await
    }

    /// A blob, or a range of it. What comes short of a mirror is held against its digest before any of it is given; of what is long,
    /// the end is an error where it is something else.
    async fn blob(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        pin: &Validator,
        digest: ContentDigest,
    ) -> Result<ByteStream, SourceError> {
        let attempt = Attempt::new(Action::Read(range), &target.url);
        let (mirrors, location) = self.askers(target)?;
        let is_mirrored = !mirrors.is_empty();
        let all = pin.length.map(|length| ByteRange::new(0, length));
        let is_whole = range.is_none() || range == all;
        let anywhere = AnyPlace::new(mirrors, location.clone());
        let givers = anywhere.givers();
        let bytes = read_pinned(Box::new(anywhere), range, pin, attempt.clone()).await?;
        if !is_whole {
            return Ok(bytes);
        }
        let is_short = pin.length.is_some_and(|length| length <= MAX_DOCUMENT as u64);
        if !is_mirrored || !is_short {
            let doubted = givers.clone();
            let doubting = move |error: &SourceError| {
                if matches!(error, SourceError::Malformed { .. }) {
                    doubted.lied();
                }
            };
            let bytes = whole::verified(bytes, digest, attempt, move || givers.proved());
            return Ok(bytes.inspect_err(doubting).boxed());
        }
        let parts: Vec<Bytes> = bytes.try_collect().await?;
        let short = Bytes::from(parts.concat());
        if verify(&short, &digest).is_ok() {
            givers.proved();
            return Ok(stream::once(async { Ok(short) }).boxed());
        }
        givers.lied();
        let bytes = read_pinned(Box::new(location), range, pin, attempt.clone()).await?;
        Ok(whole::verified(bytes, digest, attempt, || {}))
    }
}

fn unusable(url: &CanonicalUrl, reason: String) -> SourceError {
    UrlError::Unusable { url: url.to_string(), reason }.into()
}

fn reference(target: &Target) -> Result<Reference, SourceError> {
    Reference::of(&target.url).map_err(|reason| unusable(&target.url, reason))
}

#[async_trait]
impl Source for OciSource {
    async fn complete(&self, target: &Target, asking: Asking) -> Result<Target, SourceError> {
        let reference = reference(target)?;
        let credentials = match (&target.credentials, &self.access.logins) {
            (Credentials::Basic { user, password }, _) if is_anonymous(user, password.expose()) => {
                Credentials::None
            }
            (Credentials::None, Some(logins)) if asking == Asking::Own => {
                let found = logins.find(&reference, None).await.map_err(LoginError::into_source)?;
                found.unwrap_or_default()
            }
            (given, _) => given.clone(),
        };
        Ok(Target { url: reference.url(), credentials, ..target.clone() })
    }

    async fn stat(&self, target: &Target) -> Result<Stat, SourceError> {
        let attempt = Attempt::new(Action::Stat, &target.url);
        let (mirrors, asker) = self.askers(target)?;
        let web = &self.access.web;
        web.counters.stat();
        let asking = async {
            // Who shows a login is judged by the registry.
            for (mirror, at_mirror) in mirrors.iter().filter(|_| target.credentials.is_none()) {
                match at_mirror.stat(&attempt).await {
                    Ok(stat) => return Ok(stat),
                    Err(error) => mirror.failed(&at_mirror.reference, &error),
                }
            }
            asker.stat(&attempt).await
        };
        web.bounded(&attempt, asking).await
    }

    async fn read(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        pin: &Validator,
    ) -> Result<ByteStream, SourceError> {
        let attempt = Attempt::new(Action::Read(range), &target.url);
        let Named::Blob(digest) = *reference(target)?.named() else {
            let web = &self.access.web;
            web.counters.read();
            let bytes = web.bounded(&attempt, self.document(target, pin, &attempt)).await?;
            let bytes = part(bytes, range, &attempt)?;
            return Ok(stream::once(async { Ok(bytes) }).boxed());
        };
        if digest_of(pin).is_some_and(|pinned| pinned != digest) {
            let detail = "it is named by another digest".to_owned();
            return Err(SourceError::Changed { attempt, detail });
        }
        self.blob(target, range, pin, digest).await
    }

    async fn referrers(
        &self,
        target: &Target,
        digest: &ContentDigest,
        kind: Option<&str>,
    ) -> Result<Vec<Referrer>, SourceError> {
        let attempt = Attempt::new(Action::List, &target.url);
        let (_, asker) = self.askers(target)?;
        self.access.web.bounded(&attempt, asker.referrers(digest, kind, &attempt)).await
    }

    fn list(&self, target: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        let error = SourceError::Malformed {
            attempt: Attempt::new(Action::List, &target.url),
            reason: "a registry is not listed: name a repository and a tag".to_owned(),
        };
        stream::once(async { Err(error) }).boxed()
    }
}

fn part(bytes: Bytes, range: Option<ByteRange>, attempt: &Attempt) -> Result<Bytes, SourceError> {
    let all = ByteRange::new(0, bytes.len() as u64);
    let range = range.unwrap_or(all);
    if range.end > all.end {
        let reason = format!("the range ends beyond the {} bytes that there are", all.end);
        return Err(SourceError::Malformed { attempt: attempt.clone(), reason });
    }
    Ok(bytes.slice(range.start as usize..range.end as usize))
}
