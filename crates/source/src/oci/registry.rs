//! One request to a registry: with what lets it pass, and asked again with something newer where that has ended. No other
//! retry here.

use std::sync::Arc;

use async_trait::async_trait;
use dfs_model::{CanonicalUrl, Validator};
use reqwest::header::{ACCEPT, HeaderValue, WWW_AUTHENTICATE};
use url::Url;

use super::access::{Access, denied};
use super::place::Place;
use super::reference::{Named, Reference};
use super::{ContentDigest, challenge};
use crate::http::Web;
use crate::http::exchange::{Answer, Ask, Condition};
use crate::http::read::Readable;
use crate::{Attempt, Credentials, SourceError, Target};

/// Media types of what a reference may name.
const DOCUMENTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Something in a registry, and who asks for it.
#[derive(Clone)]
pub(super) struct Asker {
    pub access: Arc<Access>,
    /// As it is named.
    pub reference: Reference,
    /// As it is asked for: perhaps of another registry.
    pub at: Place,
    pub login: Credentials,
}

impl Asker {
    /// The same of a manifest beside it.
    pub fn manifest(&self, digest: ContentDigest) -> Self {
        let (reference, at) =
            (self.reference.manifest(digest), self.at.of(|at| at.manifest(digest)));
        Self { reference, at, ..self.clone() }
    }

    /// The same of what a tag beside it names.
    pub fn tag(&self, tag: &str) -> Self {
        let (reference, at) = (self.reference.tag(tag), self.at.of(|at| at.tag(tag)));
        Self { reference, at, ..self.clone() }
    }

    /// The same of a blob beside it.
    pub fn blob(&self, digest: ContentDigest) -> Self {
        let (reference, at) = (self.reference.blob(digest), self.at.of(|at| at.blob(digest)));
        Self { reference, at, ..self.clone() }
    }

    /// Where it is asked for.
    pub fn url(&self) -> Result<Url, SourceError> {
        let url = self.at.url(&self.at.reference.path(), &self.access.plain)?;
        Ok(url.url().clone())
    }

    /// One answer, of the registry or of where it sends on to.
    pub async fn exchange(&self, ask: &Ask, attempt: &Attempt) -> Result<Answer, SourceError> {
        self.exchange_at(self.url()?, ask, attempt).await
    }

    /// The same at another place that has to do with it. Elsewhere than at the registry nothing shows who asks.
    pub async fn exchange_at(
        &self,
        url: Url,
        ask: &Ask,
        attempt: &Attempt,
    ) -> Result<Answer, SourceError> {
        if url.origin() != self.url()?.origin() {
            let target = Target::new(CanonicalUrl::new(url)?);
            return self.access.web.exchange(&target, ask, attempt).await;
        }
        let mut login = self.login.clone();
        let mut known = self.access.known(&self.at, &login);
        let mut may_renew = true;
        loop {
            let credentials = match &known {
                Some(granted) => granted.credentials.clone(),
                // A user's name and password go only to who asks for them.
                None if matches!(login, Credentials::Basic { .. }) => Credentials::None,
                None => login.clone(),
            };
            let target = Target { credentials, ..Target::new(CanonicalUrl::new(url.clone())?) };
            let answer = self.access.web.exchange(&target, ask, attempt).await?;
            let is_its_own = answer.url.origin() == url.origin();
            if answer.status() != 401 || !is_its_own {
                return Ok(answer);
            }
            let headers = answer.headers().get_all(WWW_AUTHENTICATE);
            let challenges =
                challenge::parse(headers.iter().filter_map(|value| value.to_str().ok()));
            drop(answer);
            let asking = (&self.at, &login);
            let granted = self.access.grant(asking, &challenges, known.as_ref(), attempt).await;
            let was_granted = known.is_some();
            match granted {
                // What was granted this moment and is refused all the same is no use again.
                Ok(Some(granted)) if !was_granted || may_renew => {
                    may_renew &= !was_granted;
                    known = Some(granted);
                }
                Ok(_) | Err(SourceError::NotPermitted { .. }) if may_renew => {
                    may_renew = false;
                    match self.renewed(&login).await? {
                        Some(newer) => (login, known) = (newer, None),
                        None => return Err(denied(&self.at.reference, &login, 401, attempt)),
                    }
                }
                Ok(_) => return Err(denied(&self.at.reference, &login, 401, attempt)),
                Err(error) => return Err(error),
            }
        }
    }

    /// A newer login in place of one that came from this user's own.
    async fn renewed(&self, login: &Credentials) -> Result<Option<Credentials>, SourceError> {
        let Some(logins) = self.access.logins.as_ref().filter(|logins| logins.gave(login)) else {
            return Ok(None);
        };
        let found = logins.find(&self.reference, Some(login)).await;
        let found = found.map_err(|error| error.into_source())?;
        Ok(found.filter(|found| found != login))
    }

    /// What an unwelcome answer means.
    pub fn refusal(&self, answer: &Answer, attempt: &Attempt) -> SourceError {
        match answer.status() {
            status @ (401 | 403) => denied(&self.at.reference, &self.login, status, attempt),
            _ => answer.refusal(attempt),
        }
    }

    /// The same request for a manifest, of whatever kind it is.
    pub fn of_any_kind(mut ask: Ask) -> Ask {
        ask.headers.insert(ACCEPT, HeaderValue::from_static(DOCUMENTS));
        ask
    }
}

/// A blob, read as any file on the web: what names it is its version.
#[async_trait]
impl Readable for Asker {
    fn web(&self) -> &Web {
        &self.access.web
    }

    /// Where it really lies it has other tags, or none.
    fn condition(&self, _pin: &Validator) -> Option<Condition> {
        None
    }

    async fn ask(&self, ask: &Ask, attempt: &Attempt) -> Result<Answer, SourceError> {
        let mut answer = self.exchange(ask, attempt).await?;
        if matches!(answer.status(), 401 | 403) {
            return Err(self.refusal(&answer, attempt));
        }
        if let Named::Blob(digest) = self.reference.named() {
            answer.tag(&super::tag_of(digest), attempt)?;
        }
        Ok(answer)
    }
}
