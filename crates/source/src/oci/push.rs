//! Puts into a registry: blobs in parts, from where an upload that broke off stands; then what names them.
//!
//! Nothing that is put is seen before a manifest names it, so an upload that ends half-way leaves nothing but what the
//! registry forgets by itself. A registry that lost an upload is given all of it again, a few times.

mod following;

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{ByteRange, Validator};
use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use url::Url;

use following::Following;

use super::registry::Asker;
use super::whole::other_content;
use super::{ContentDigest, Mismatch, Named, OciSource, verify};
use crate::http::exchange::{Answer, Ask};
use crate::{Action, Attempt, Source, SourceError, Target};

/// Bytes that are sent at a time, and held in memory for it.
const PART_BYTES: u64 = 8 << 20;
/// The longest part that a registry may ask for as its shortest.
const MAX_PART_BYTES: u64 = 64 << 20;
/// How often an upload is begun anew that the registry does not know any more.
const MAX_LOST: u32 = 5;
/// What a registry says of the shortest part that it takes.
const MIN_PART: &str = "oci-chunk-min-length";

/// Who puts something into a repository.
pub struct Pusher {
    asker: Asker,
    attempt: Attempt,
}

/// Bytes to be put.
pub enum PushContent {
    /// These.
    Bytes(Bytes),
    /// Those of one version of something that lies elsewhere.
    At(Box<PushFrom>),
}

/// One version of something that lies elsewhere.
pub struct PushFrom {
    /// Who reads it.
    pub source: Arc<dyn Source>,
    /// Where it is.
    pub target: Target,
    /// Which version.
    pub pin: Validator,
}

/// What became of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The repository had it.
    There,
    /// The registry had it in another repository.
    Mounted,
    /// Its bytes were sent.
    Sent,
}

/// Where an upload stands.
enum Stage {
    /// It has not begun, or is not known any more.
    Nothing,
    /// Something broke: it is to be asked how far it came.
    Unsure(Url),
    /// What lies before the offset is there.
    At(Url, u64),
}

/// The upload of one blob.
struct Upload<'a> {
    pusher: &'a Pusher,
    digest: ContentDigest,
    length: u64,
    content: &'a PushContent,
    /// What is read of it, where it lies elsewhere.
    following: Option<Following>,
    from: Option<&'a str>,
    part: u64,
    lost: u32,
}

impl OciSource {
    /// Who puts into the repository that `target` names. The tag, or the digest, of it is that of what is put last.
    pub fn pusher(&self, target: &Target) -> Result<Pusher, SourceError> {
        let attempt = Attempt::new(Action::Write, &target.url);
        let asker = self.asker(target)?;
        if let Named::Blob(_) = asker.reference.named() {
            let reason = "a blob is named by what it holds: name a tag".to_owned();
            return Err(super::unusable(&target.url, reason));
        }
        Ok(Pusher { asker, attempt })
    }
}

impl Pusher {
    /// Puts a blob where it is not there yet. `from` is another repository of the registry that may have it; `moved` hears of
    /// bytes that the registry took.
    pub async fn blob(
        &self,
        (digest, length): (ContentDigest, u64),
        content: &PushContent,
        from: Option<&str>,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<Put, SourceError> {
        let from = from.filter(|from| *from != self.asker.at.reference.repository());
        let mut upload = Upload {
            pusher: self,
            digest,
            length,
            content,
            following: None,
            from,
            part: PART_BYTES,
            lost: 0,
        };
        let retrier = &self.asker.access.web.retrier;
        let (mut retry, mut stage, mut told) = (retrier.begin(), Stage::Nothing, 0);
        loop {
            let at = match &stage {
                Stage::Nothing => None,
                Stage::Unsure(url) | Stage::At(url, _) => Some(url.clone()),
            };
            match upload.step(stage).await {
                Ok(Ok(put)) => {
                    moved(length.saturating_sub(told));
                    return Ok(put);
                }
                Ok(Err(next)) => {
                    if let Stage::At(_, offset) = &next
                        && *offset > told
                    {
                        moved(*offset - told);
                        retry.progress((*offset - told) as usize, tokio::time::Instant::now());
                        told = *offset;
                    }
                    stage = next;
                }
                Err(error) => {
                    retrier.pause(&mut retry, error).await?;
                    stage = at.map_or(Stage::Nothing, Stage::Unsure);
                }
            }
        }
    }

    /// Puts a document by its digest.
    pub async fn document(
        &self,
        digest: ContentDigest,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<(), SourceError> {
        self.put_document(&self.asker.manifest(digest), media_type, bytes).await
    }

    /// Puts the document that all this was for, by the name that it is to have.
    pub async fn named(&self, media_type: &str, bytes: &Bytes) -> Result<(), SourceError> {
        self.put_document(&self.asker, media_type, bytes).await
    }

    /// Puts a document, and has it found by what it is about.
    async fn put_document(
        &self,
        asker: &Asker,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<(), SourceError> {
        let told = self.put(asker, media_type, bytes).await?;
        self.refer(media_type, bytes, &told).await
    }

    pub(super) fn asker(&self) -> &Asker {
        &self.asker
    }

    pub(super) fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// The head of the registry's answer.
    pub(super) async fn put(
        &self,
        asker: &Asker,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<HeaderMap, SourceError> {
        if let Named::Manifest(named) = asker.reference.named()
            && let Err(Mismatch { actual, .. }) = verify(bytes, named)
        {
            return Err(other_content(&actual.to_string(), named, self.attempt.clone()));
        }
        let putting = || async {
            let mut ask = Ask::new(Method::PUT);
            ask.headers.insert(CONTENT_TYPE, self.header(media_type)?);
            ask.body = bytes.clone();
            let answer = asker.exchange(&ask, &self.attempt).await?;
            match answer.status() {
                200..=202 => Ok(answer.headers().clone()),
                _ => Err(self.refused(answer).await),
            }
        };
        self.asker.access.web.retrier.run(putting).await
    }

    fn header(&self, text: &str) -> Result<HeaderValue, SourceError> {
        HeaderValue::from_str(text)
            .map_err(|_| self.malformed(format!("'{}' is no media type", text.escape_default())))
    }

    fn malformed(&self, reason: String) -> SourceError {
        SourceError::Malformed { attempt: self.attempt.clone(), reason }
    }

    /// What a refusal means, with the registry's own words where it has some.
    async fn refused(&self, mut answer: Answer) -> SourceError {
        const MAX_WORDS: usize = 64 << 10;
        let status = answer.status();
        let told = self.asker.refusal(&answer, &self.attempt);
        if !(400..500).contains(&status) || told.is_transient() || matches!(status, 401 | 403) {
            return told;
        }
        let web = &self.asker.access.web;
        let words = web.gather(&mut answer.response, MAX_WORDS, &self.attempt).await;
        let words = words.ok().and_then(|bytes| said(&bytes)).unwrap_or_default();
        self.malformed(format!("the registry refuses it with status {status}{words}"))
    }

    /// Where an upload goes on, as an answer says.
    fn location(&self, answer: &Answer) -> Result<Url, SourceError> {
        let bad = |reason: &str| self.malformed(format!("the registry sends to {reason}"));
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location =
            location.ok_or_else(|| bad("nowhere: there is no Location in its answer"))?;
        let mut url = answer.url.join(location).map_err(|_| bad("something that is no URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("a place that has a user in its URL"));
        }
        let own = self.asker.url()?;
        let place = |url: &Url| (url.host_str().map(str::to_owned), url.port());
        if url.scheme() != own.scheme() && place(&url) == place(&own) {
            // Behind what speaks TLS for it, a registry does not know by which scheme it was asked.
            let _ = url.set_scheme(own.scheme());
        }
        let is_plain = place(&url) == place(&own) || self.asker.access.plain.has(url.authority());
        match url.scheme() {
            "https" => Ok(url),
            // Who is asked over TLS sends nobody to what is plain here, such as services of this machine.
            "http" if own.scheme() == "http" && is_plain => Ok(url),
            _ => Err(bad("a place that is not asked over TLS")),
        }
    }
}

/// The messages of a registry's answer.
fn said(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Said {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let said: Said = serde_json::from_slice(bytes).ok()?;
    let one = said.errors.first()?;
    let text = format!("{} {}", one.code, one.message);
    Some(format!(": {}", dfs_model::printable(&dfs_model::shortened(text.trim(), 300))))
}

impl Upload<'_> {
    /// One request, and what comes next; or what became of the blob.
    async fn step(&mut self, stage: Stage) -> Result<Result<Put, Stage>, SourceError> {
        match stage {
            Stage::Nothing if self.is_there().await? => Ok(Ok(Put::There)),
            Stage::Nothing => self.begin().await,
            Stage::Unsure(url) => self.look(url).await.map(Err),
            Stage::At(url, offset) if offset < self.length => self.send(url, offset).await,
            Stage::At(url, _) => self.finish(url).await,
        }
    }

    fn asker(&self) -> &Asker {
        &self.pusher.asker
    }

    async fn ask(&self, url: Url, ask: &Ask) -> Result<Answer, SourceError> {
        self.asker().exchange_at(url, ask, &self.pusher.attempt).await
    }

    async fn is_there(&self) -> Result<bool, SourceError> {
        let asker = self.asker().blob(self.digest);
        let answer = asker.exchange(&Ask::head(), &self.pusher.attempt).await?;
        match answer.status() {
            200 => Ok(true),
            404 => Ok(false),
            // A store that it sends on to may have signed its URL for GET alone.
            _ if answer.url.origin() != self.asker().url()?.origin() => Ok(true),
            _ => Err(self.pusher.refused(answer).await),
        }
    }

    /// Has the registry take it from another repository, or begins to send it.
    async fn begin(&mut self) -> Result<Result<Put, Stage>, SourceError> {
        let mut url = self.asker().url()?;
        url.set_path(&format!("/v2/{}/blobs/uploads/", self.asker().at.reference.repository()));
        if let Some(from) = self.from {
            let digest = self.digest.to_string();
            url.query_pairs_mut().append_pair("mount", &digest).append_pair("from", from);
        }
        let answer = match self.ask(url, &Ask::new(Method::POST)).await {
            // Who may not read the other repository may write to this one.
            Err(SourceError::NotPermitted { .. }) if self.from.take().is_some() => {
                return Ok(Err(Stage::Nothing));
            }
            answer => answer?,
        };
        match answer.status() {
            201 if self.from.is_some() => return Ok(Ok(Put::Mounted)),
            202 => {}
            // Nobody asked for the other repository by name: without it the registry may take the blob itself.
            400..=428 if self.from.take().is_some() => return Ok(Err(Stage::Nothing)),
            _ => return Err(self.pusher.refused(answer).await),
        }
        let shortest = answer.headers().get(MIN_PART).and_then(|value| value.to_str().ok());
        let shortest: u64 = shortest.and_then(|value| value.trim().parse().ok()).unwrap_or(0);
        if shortest > MAX_PART_BYTES {
            let reason = format!("the registry takes no parts below {shortest} bytes");
            return Err(self.pusher.malformed(reason));
        }
        self.part = PART_BYTES.max(shortest);
        Ok(Err(Stage::At(self.pusher.location(&answer)?, 0)))
    }

    async fn send(&mut self, url: Url, offset: u64) -> Result<Result<Put, Stage>, SourceError> {
        let range = ByteRange::at(offset, self.part.min(self.length - offset));
        let bytes = self.part_of(range).await?;
        let mut ask = Ask::new(Method::PATCH);
        self.describe(&mut ask, bytes, range)?;
        let answer = self.ask(url.clone(), &ask).await?;
        match answer.status() {
            201 | 202 | 204 => {
                let next = self.pusher.location(&answer)?;
                match reached(answer.headers()).unwrap_or(range.end) {
                    there if there > range.end => {
                        Err(self.pusher.malformed("the registry has more than was sent".into()))
                    }
                    // None of the part: what became of it only a look tells.
                    there if there <= offset => self.again(Stage::Unsure(next)).map(Err),
                    there => Ok(Err(Stage::At(next, there))),
                }
            }
            // By what is there, it goes on at another place.
            416 => self.again(Stage::Unsure(url)).map(Err),
            404 => self.again(Stage::Nothing).map(Err),
            405 | 501 if offset == 0 => self.send_whole(url).await,
            _ => Err(self.pusher.refused(answer).await),
        }
    }

    /// What is to be sent next. It is read in order, and again where it is to be sent again.
    async fn part_of(&mut self, range: ByteRange) -> Result<Bytes, SourceError> {
        let from = match self.content {
            PushContent::Bytes(bytes) => {
                return Ok(bytes.slice(range.start as usize..range.end as usize));
            }
            PushContent::At(from) => from,
        };
        let there = self.following.take().filter(|following| following.at == range.start);
        let mut following = match there {
            Some(following) => following,
            None => from.follow(range.start, self.length).await?,
        };
        let bytes = following.take(range.len()).await?;
        if bytes.len() as u64 != range.len() {
            let reason = format!("there are {} bytes where {} were", bytes.len(), range.len());
            return Err(self.pusher.malformed(reason));
        }
        // What is wrong with all of it shows at its end.
        if range.end < self.length || following.next(1).await?.is_none() {
            self.following = Some(following);
            return Ok(bytes);
        }
        Err(self.pusher.malformed(format!("there are more than {} bytes", self.length)))
    }

    fn describe(&self, ask: &mut Ask, bytes: Bytes, range: ByteRange) -> Result<(), SourceError> {
        let stream = HeaderValue::from_static("application/octet-stream");
        ask.headers.insert(CONTENT_TYPE, stream);
        let range = format!("{}-{}", range.start, range.end.saturating_sub(1));
        ask.headers.insert(CONTENT_RANGE, self.pusher.header(&range)?);
        ask.body = bytes;
        Ok(())
    }

    /// To a registry that takes no parts.
    async fn send_whole(&mut self, url: Url) -> Result<Result<Put, Stage>, SourceError> {
        if self.length > MAX_PART_BYTES {
            let reason = "the registry takes no parts, and this is too long to be sent at once";
            return Err(self.pusher.malformed(reason.to_owned()));
        }
        let bytes = self.part_of(ByteRange::new(0, self.length)).await?;
        let mut ask = Ask::new(Method::PUT);
        let stream = HeaderValue::from_static("application/octet-stream");
        ask.headers.insert(CONTENT_TYPE, stream);
        ask.body = bytes;
        let answer = self.ask(self.with_digest(url), &ask).await?;
        match answer.status() {
            201 | 204 => Ok(Ok(Put::Sent)),
            _ => Err(self.pusher.refused(answer).await),
        }
    }

    fn with_digest(&self, mut url: Url) -> Url {
        url.query_pairs_mut().append_pair("digest", &self.digest.to_string());
        url
    }

    async fn finish(&mut self, url: Url) -> Result<Result<Put, Stage>, SourceError> {
        let answer = self.ask(self.with_digest(url.clone()), &Ask::new(Method::PUT)).await?;
        match answer.status() {
            201 | 204 => Ok(Ok(Put::Sent)),
            416 => self.again(Stage::Unsure(url)).map(Err),
            404 => self.again(Stage::Nothing).map(Err),
            _ => Err(self.pusher.refused(answer).await),
        }
    }

    /// Asks how far the upload came.
    async fn look(&mut self, url: Url) -> Result<Stage, SourceError> {
        let answer = self.ask(url.clone(), &Ask::whole()).await?;
        match answer.status() {
            200..=204 => {
                let next = match answer.headers().contains_key(LOCATION) {
                    true => self.pusher.location(&answer)?,
                    false => url,
                };
                match reached(answer.headers()) {
                    Some(there) if there <= self.length => Ok(Stage::At(next, there)),
                    // Some say 0-0 of nothing, and of one byte.
                    _ => self.again(Stage::Nothing),
                }
            }
            400..=428 => self.again(Stage::Nothing),
            _ => Err(self.pusher.refused(answer).await),
        }
    }

    /// The registry has lost something.
    fn again(&mut self, stage: Stage) -> Result<Stage, SourceError> {
        self.lost += 1;
        if self.lost > MAX_LOST {
            let reason = format!("the registry lost the upload of {} again and again", self.digest);
            return Err(self.pusher.malformed(reason));
        }
        Ok(stage)
    }
}

/// Bytes that are there, by the header `Range: 0-LAST`; `None` where that says nothing.
fn reached(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?.trim();
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (first.trim() == "0" && last > 0).then(|| last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read_of_a_header() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_static(text));
            reached(&headers)
        };
        assert_eq!(of("0-1023"), Some(1024));
        assert_eq!(of("bytes=0-7"), Some(8));
        for unsaid in ["0-0", "5-7", "0-", "x", "0-x"] {
            assert_eq!(of(unsaid), None, "{unsaid}");
        }
        assert_eq!(reached(&HeaderMap::new()), None);
    }
}
