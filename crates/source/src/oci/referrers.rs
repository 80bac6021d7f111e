//! What else in a repository is about a manifest: signatures, lists of contents, indexes (OCI distribution 1.1).
//!
//! A registry that keeps account of it is asked; of one that does not, a tag named after the digest leads to a list that
//! those who push keep by hand. What such a list says is the word of whoever may push to the repository, and no
//! more: neither its order nor that it has everything can be relied on.

use std::collections::BTreeMap;

use bytes::Bytes;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue, LINK};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::push::Pusher;
use super::reference::Reference;
use super::registry::Asker;
use super::{ContentDigest, MAX_DOCUMENT};
use crate::http::exchange::{Answer, Ask};
use crate::{Attempt, SourceError};

/// Media type of a list of manifests.
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// By what a registry says that it keeps account of what a manifest is about.
const SUBJECT: &str = "oci-subject";
/// Pages that are read of one list, and descriptors of it that are taken.
const MAX_PAGES: usize = 32;
const MAX_REFERRERS: usize = 4096;
/// How often a list is written again that somebody else wrote meanwhile.
const MAX_WRITES: usize = 5;
/// Longest algorithm and digits in the name of a list.
const MAX_ALGORITHM: usize = 32;
const MAX_DIGITS: usize = 64;

/// Something that is about a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// What kind of document it is.
    #[serde(default)]
    pub media_type: String,
    /// Its manifest.
    pub digest: ContentDigest,
    /// Bytes of that.
    pub size: u64,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What its maker says of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "present")]
    pub annotations: BTreeMap<String, String>,
    /// What else a list says of it, which stays there.
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// `null` is none.
fn present<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list of them.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    #[serde(default)]
    schema_version: u8,
    #[serde(default)]
    media_type: String,
    #[serde(default, deserialize_with = "present_list")]
    manifests: Vec<Referrer>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

fn present_list<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Referrer>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a document says that it is about, and what it is.
struct Subject {
    about: ContentDigest,
    own: Referrer,
}

impl Subject {
    /// Of a document that is about another; `None` of all others.
    fn of(media_type: &str, bytes: &Bytes) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Said {
            subject: Option<Named>,
            artifact_type: Option<String>,
            config: Option<Typed>,
            annotations: Option<BTreeMap<String, String>>,
        }
        #[derive(Deserialize)]
        struct Named {
            digest: ContentDigest,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed {
            media_type: Option<String>,
        }
        let said: Said = serde_json::from_slice(bytes).ok()?;
        let filled = |kind: &String| !kind.is_empty();
        let config = said.config.and_then(|config| config.media_type);
        let own = Referrer {
            media_type: media_type.to_owned(),
            digest: ContentDigest::sha256(bytes),
            size: bytes.len() as u64,
            artifact_type: said.artifact_type.filter(filled).or(config.filter(filled)),
            annotations: said.annotations.unwrap_or_default(),
            rest: BTreeMap::new(),
        };
        Some(Self { about: said.subject?.digest, own })
    }
}

/// The tag of the list that is kept by hand of what is about `digest`.
fn list_tag(digest: &ContentDigest) -> String {
    let digits = digest.hex();
    let (algorithm, most) = (digest.algorithm(), digits.len().min(MAX_DIGITS));
    format!("{}-{}", &algorithm[..algorithm.len().min(MAX_ALGORITHM)], &digits[..most])
}

impl Asker {
    /// What is about the manifest of this digest, of one kind or of any.
    pub async fn referrers(
        &self,
        digest: &ContentDigest,
        kind: Option<&str>,
        attempt: &Attempt,
    ) -> Result<Vec<Referrer>, SourceError> {
        let mut found = match self.told(digest, kind, attempt).await? {
            Some(found) => found,
            None => self.listed(digest, attempt).await?.manifests,
        };
        found.truncate(MAX_REFERRERS);
        // A registry may not filter, and may list the same twice over its pages.
        let is_wanted =
            |one: &Referrer| kind.is_none_or(|kind| one.artifact_type.as_deref() == Some(kind));
        let mut seen = std::collections::HashSet::new();
        found.retain(|one| is_wanted(one) && seen.insert(one.digest));
        Ok(found)
    }

    /// What the registry tells; `None` where it keeps no account of it.
    async fn told(
        &self,
        digest: &ContentDigest,
        kind: Option<&str>,
        attempt: &Attempt,
    ) -> Result<Option<Vec<Referrer>>, SourceError> {
        let mut page = self.url()?;
        page.set_path(&format!("/v2/{}/referrers/{digest}", self.at.reference.repository()));
        if let Some(kind) = kind {
            page.query_pairs_mut().append_pair("artifactType", kind);
        }
        let (mut found, mut pages) = (Vec::new(), 0);
        loop {
            let asking = || self.page(page.clone(), attempt);
            let Some((list, next)) = self.access.web.retrier.run(asking).await? else {
                return Ok((pages > 0).then_some(found));
            };
            found.extend(list.manifests);
            pages += 1;
            match next.filter(|_| found.len() < MAX_REFERRERS && pages < MAX_PAGES) {
                Some(next) => page = next,
                // What may be beyond is not known.
                None => return Ok(Some(found)),
            }
        }
    }

    /// A page, and where the next one is.
    async fn page(
        &self,
        url: Url,
        attempt: &Attempt,
    ) -> Result<Option<(List, Option<Url>)>, SourceError> {
        let mut ask = Ask::whole();
        ask.headers.insert(ACCEPT, HeaderValue::from_static(INDEX_TYPE));
        let mut answer = self.exchange_at(url, &ask, attempt).await?;
        match answer.status() {
            200 => {}
            // What does not know the question answers in any of these words.
            400 | 404 | 405 | 501 => return Ok(None),
            _ => return Err(self.refusal(&answer, attempt)),
        }
        let next = next_page(answer.headers(), &answer.url);
        // A page elsewhere would be asked without what lets it pass, and could be anybody's.
        let next = next.filter(|next| self.url().is_ok_and(|own| own.origin() == next.origin()));
        Ok(Some((self.list(&mut answer, attempt).await?, next)))
    }

    async fn list(&self, answer: &mut Answer, attempt: &Attempt) -> Result<List, SourceError> {
        let bytes = self.access.web.gather(&mut answer.response, MAX_DOCUMENT, attempt).await?;
        let list: Result<List, _> = serde_json::from_slice(&bytes);
        list.map_err(|error| SourceError::Malformed {
            attempt: attempt.clone(),
            reason: format!("the list of what refers to it cannot be read: {error}"),
        })
    }

    /// What the list says that is kept by hand; nothing where there is none.
    async fn listed(&self, digest: &ContentDigest, attempt: &Attempt) -> Result<List, SourceError> {
        let named = self.tag(&list_tag(digest));
        let asking = || async {
            let ask = Self::of_any_kind(Ask::whole());
            let mut answer = named.exchange(&ask, attempt).await?;
            match answer.status() {
                200 => named.list(&mut answer, attempt).await,
                404 => Ok(List::default()),
                _ => Err(named.refusal(&answer, attempt)),
            }
        };
        self.access.web.retrier.run(asking).await
    }
}

/// The page behind one, by its head.
fn next_page(head: &HeaderMap, from: &Url) -> Option<Url> {
    let links = head.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let mut links = links.flat_map(|links| links.split(','));
    links.find_map(|link| {
        let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = rest.split(';').any(|word| {
            matches!(word.trim().to_ascii_lowercase().as_str(), "rel=\"next\"" | "rel=next")
        });
        if is_next { from.join(target).ok() } else { None }
    })
}

impl Pusher {
    /// Sees to it that a document that was put is found by what it is about. `told` is what the registry answered to it.
    pub(super) async fn refer(
        &self,
        media_type: &str,
        bytes: &Bytes,
        told: &HeaderMap,
    ) -> Result<(), SourceError> {
        let Some(Subject { about, own }) = Subject::of(media_type, bytes) else { return Ok(()) };
        if told.contains_key(SUBJECT) {
            return Ok(());
        }
        let (asker, attempt) = (self.asker(), self.attempt());
        for _ in 0..MAX_WRITES {
            let mut list = asker.listed(&about, attempt).await?;
            if list.manifests.contains(&own) {
                return Ok(());
            }
            list.manifests.retain(|one| one.digest != own.digest);
            list.manifests.push(own.clone());
            let list = List { schema_version: 2, media_type: INDEX_TYPE.to_owned(), ..list };
            let bytes = serde_json::to_vec(&list).map_err(|error| SourceError::Malformed {
                attempt: attempt.clone(),
                reason: error.to_string(),
            })?;
            let named = asker.tag(&list_tag(&about));
            self.put(&named, INDEX_TYPE, &bytes.into()).await?;
            // Somebody else may have written theirs in its place.
        }
        let listed = asker.listed(&about, attempt).await?;
        if listed.manifests.contains(&own) {
            return Ok(());
        }
        let reason = format!("others write the list {} at the same time", list_tag(&about));
        Err(SourceError::Malformed { attempt: attempt.clone(), reason })
    }
}

impl Reference {
    /// What a tag of the same repository names.
    pub(super) fn tag(&self, tag: &str) -> Self {
        self.beside(super::Named::Tag(tag.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_a_digest_has_a_name_that_is_a_tag() {
        let digest = ContentDigest::sha256(b"x");
        assert_eq!(list_tag(&digest), format!("sha256-{}", digest.hex()));
        let long = ContentDigest::sha512(b"x");
        assert_eq!(list_tag(&long), format!("sha512-{}", &long.hex()[..64]));
    }

    #[test]
    fn the_next_page_is_where_the_head_says() {
        let from = Url::parse("https://h/v2/a/referrers/x?n=1").unwrap();
        let next = |link: &str| {
            let mut head = HeaderMap::new();
            head.insert(LINK, link.parse().unwrap());
            next_page(&head, &from).map(|url| url.to_string())
        };
        let at = |url: &str| Some(url.to_owned());
        assert_eq!(next("</v2/a?last=2>; rel=\"next\""), at("https://h/v2/a?last=2"));
        assert_eq!(next("</x>; rel=prev, <?p=3>;rel=next"), at("https://h/v2/a/referrers/x?p=3"));
        assert_eq!(next("</x>; rel=\"prev\""), None);
        assert_eq!(next("/x; rel=next"), None);
    }

    #[test]
    fn a_document_says_what_it_is_about_and_what_it_is() {
        let about = ContentDigest::sha256(b"image");
        let of = |json: String| Subject::of("m/t", &json.into());
        let said = of(format!(
            r#"{{"subject":{{"digest":"{about}"}},"config":{{"mediaType":"c/t"}},"annotations":{{"a":"b"}}}}"#
        ));
        let said = said.unwrap();
        assert_eq!((said.about, said.own.artifact_type.as_deref()), (about, Some("c/t")));
        assert_eq!(said.own.annotations["a"], "b");
        let named = of(format!(
            r#"{{"artifactType":"a/t","subject":{{"digest":"{about}"}},"config":{{"mediaType":"c/t"}}}}"#
        ));
        assert_eq!(named.unwrap().own.artifact_type.as_deref(), Some("a/t"));
        for none in ["{}", "[]", r#"{"subject":null}"#, r#"{"subject":{"digest":"x"}}"#] {
            assert!(of(none.to_owned()).is_none(), "{none}");
        }
    }

    #[test]
    fn lists_of_others_are_read_and_what_is_none_is_not() {
        let digest = ContentDigest::sha256(b"x");
        let list =
            format!(r#"{{"manifests":[{{"digest":"{digest}","size":3,"annotations":null}}]}}"#);
        let list: List = serde_json::from_str(&list).unwrap();
        assert_eq!((list.manifests[0].digest, list.manifests[0].size), (digest, 3));
        assert!(
            serde_json::from_str::<List>(r#"{"manifests":null}"#).unwrap().manifests.is_empty()
        );
        assert!(serde_json::from_str::<List>(r#"{"manifests":[{"size":3}]}"#).is_err());
    }
}
