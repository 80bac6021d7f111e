//! What a reference names: its digest, its length; and a manifest itself.

use bytes::Bytes;
use dfs_model::Validator;
use reqwest::header::HeaderMap;

use super::registry::Asker;
use super::whole::other_content;
use super::{ContentDigest, MAX_DOCUMENT, Named, digest_of, validator, verify};
use crate::http::exchange::Ask;
use crate::http::headers;
use crate::{Attempt, SourceError, Stat, StatKind};

/// How a registry names what it sends.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// What one answer tells.
struct Seen {
    digest: ContentDigest,
    length: Option<u64>,
    content_type: Option<String>,
    ranges: Option<bool>,
}

impl Asker {
    pub async fn stat(&self, attempt: &Attempt) -> Result<Stat, SourceError> {
        let retrier = &self.access.web.retrier;
        let seen = match *self.reference.named() {
            Named::Blob(digest) => {
                let seen = retrier.ask(|| self.look_at_blob(digest, attempt)).await?;
                match seen.ranges.is_some() && seen.length.is_some() {
                    true => seen,
                    false => retrier.ask(|| self.probe_blob(digest, attempt)).await?,
                }
            }
            Named::Tag(_) | Named::Manifest(_) => {
                retrier.ask(|| self.look_at_document(attempt)).await?
            }
        };
        Ok(Stat {
            length: seen.length,
            validator: validator(&seen.digest, seen.length),
            content_type: seen.content_type,
            ranges: seen.ranges.unwrap_or(false),
            kind: StatKind::File,
            url: self.reference.url(),
            unpinned: false,
            modified: None,
            max_age: None,
        })
    }

    async fn look_at_blob(
        &self,
        digest: ContentDigest,
        attempt: &Attempt,
    ) -> Result<Seen, SourceError> {
        let answer = self.exchange(&Ask::head(), attempt).await?;
        let head = answer.headers();
        match answer.status() {
            200 => Ok(Seen {
                digest,
                length: headers::content_length(head),
                content_type: headers::content_type(head),
                ranges: headers::accepts_ranges(head),
            }),
            // A store that it sends on to may have signed its URL for GET alone.
            400 | 403 | 405 | 501 => {
                Ok(Seen { digest, length: None, content_type: None, ranges: None })
            }
            _ => Err(self.refusal(&answer, attempt)),
        }
    }

    /// Asks for the first byte: the answer's status is the proof of ranges.
    async fn probe_blob(
        &self,
        digest: ContentDigest,
        attempt: &Attempt,
    ) -> Result<Seen, SourceError> {
        let answer = self.exchange(&Ask::range(0, Some(0)), attempt).await?;
        let head = answer.headers();
        let content_type = headers::content_type(head);
        let (length, ranges) = match answer.status() {
            206 => (headers::content_range(head).and_then(|part| part.total), true),
            200 => (headers::content_length(head), false),
            416 => (Some(0), true),
            _ => return Err(self.refusal(&answer, attempt)),
        };
        Ok(Seen { digest, length, content_type, ranges: Some(ranges) })
    }

    async fn look_at_document(&self, attempt: &Attempt) -> Result<Seen, SourceError> {
        let answer = self.exchange(&Self::of_any_kind(Ask::head()), attempt).await?;
        let head = answer.headers();
        match answer.status() {
            200 => {
                let told = told_digest(head).filter(|_| headers::content_length(head).is_some());
                let Some(digest) = told else { return self.read_to_see(attempt).await };
                self.is_named(digest, attempt)?;
                let (length, content_type) =
                    (headers::content_length(head), headers::content_type(head));
                Ok(Seen { digest, length, content_type, ranges: None })
            }
            400 | 405 | 501 => self.read_to_see(attempt).await,
            _ => Err(self.refusal(&answer, attempt)),
        }
    }

    /// Where HEAD does not tell it.
    async fn read_to_see(&self, attempt: &Attempt) -> Result<Seen, SourceError> {
        let (bytes, content_type) = self.get_document(attempt).await?;
        let digest = match *self.reference.named() {
            Named::Manifest(digest) => digest,
            _ => ContentDigest::sha256(&bytes),
        };
        hold(&bytes, digest, attempt)?;
        Ok(Seen { digest, length: Some(bytes.len() as u64), content_type, ranges: None })
    }

    /// A manifest is asked for by the digest that names its version, if that is known.
    fn is_named(&self, digest: ContentDigest, attempt: &Attempt) -> Result<(), SourceError> {
        match self.reference.named() {
            Named::Manifest(named) if *named != digest => {
                Err(other_content(&digest.to_string(), named, attempt.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The manifest of this version, all of it.
    pub async fn document(&self, pin: &Validator, attempt: &Attempt) -> Result<Bytes, SourceError> {
        let pinned = digest_of(pin);
        if let Some(digest) = pinned {
            self.is_named(digest, attempt)?;
        }
        let exactly = match pinned {
            Some(digest) => self.manifest(digest),
            None => self.clone(),
        };
        let asking = || exactly.get_document(attempt);
        let (bytes, _) = self.access.web.retrier.run(asking).await?;
        if let Named::Manifest(digest) = *exactly.reference.named() {
            hold(&bytes, digest, attempt)?;
        }
        Ok(bytes)
    }

    async fn get_document(
        &self,
        attempt: &Attempt,
    ) -> Result<(Bytes, Option<String>), SourceError> {
        let mut answer = self.exchange(&Self::of_any_kind(Ask::whole()), attempt).await?;
        if answer.status() != 200 {
            return Err(self.refusal(&answer, attempt));
        }
        let content_type = headers::content_type(answer.headers());
        let length = headers::content_length(answer.headers());
        let web = &self.access.web;
        let bytes = web.gather(&mut answer.response, MAX_DOCUMENT, attempt).await?;
        if length.is_some_and(|length| length != bytes.len() as u64) {
            let (attempt, received) = (attempt.clone(), bytes.len() as u64);
            return Err(SourceError::Truncated { attempt, received, cause: None });
        }
        Ok((bytes, content_type))
    }
}

fn hold(bytes: &[u8], digest: ContentDigest, attempt: &Attempt) -> Result<(), SourceError> {
    verify(bytes, &digest)
        .map_err(|error| other_content(&error.actual.to_string(), &digest, attempt.clone()))
}

/// The digest that a registry tells; one that cannot be read is none.
fn told_digest(head: &HeaderMap) -> Option<ContentDigest> {
    head.get(CONTENT_DIGEST)?.to_str().ok()?.trim().parse().ok()
}
