//! Contents that were held against their digest once, as a whole. What was seen of them then, the digests of their groups, is
//! kept longer than they are: a part that is read from the origin again is held against that.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dfs_artifact::Origin;
use dfs_artifact::origin::{RequestCount, cut};
use dfs_model::{ByteRange, CanonicalUrl, GroupRange, groups_in};
use dfs_source::{Action, Attempt, ByteStream, SourceError};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;

use crate::hashtree::{Cv, GroupHashing, Shape, group_digest};

const TAG: &[u8; 16] = b"dfs.groups.v1\0\0\0";

/// The digests of all groups of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfirmedGroups {
    length: u64,
    digests: Vec<Cv>,
}

impl ConfirmedGroups {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = TAG.to_vec();
        out.extend(self.length.to_le_bytes());
        out.extend(self.digests.as_flattened());
        out
    }

    /// Reads the encoding; no other bytes are taken.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, digests) = bytes.strip_prefix(TAG)?.split_first_chunk()?;
        let length = u64::from_le_bytes(*length);
        let (digests, rest) = digests.as_chunks();
        let is_all = rest.is_empty() && digests.len() as u64 == groups_in(length);
        is_all.then(|| Self { length, digests: digests.to_vec() })
    }

    /// Bytes in the content.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether `bytes` are this group.
    fn is(&self, group: u64, bytes: &[u8]) -> bool {
        let place = usize::try_from(group).ok();
        let known = place.and_then(|place| self.digests.get(place));
        let digest = group_digest(Shape::new(Some(self.length)), group, bytes).ok();
        known.is_some() && digest.as_ref() == known
    }
}

/// Looks at a content as it is read from its beginning to its end.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Option<ConfirmedGroups>>>);

impl Seen {
    /// The same bytes, of a content of `length`.
    pub fn watch(&self, bytes: ByteStream, length: u64) -> ByteStream {
        let begun = (bytes, Some(GroupHashing::new(length)), self.clone());
        let passing = stream::try_unfold(begun, move |(mut bytes, hashing, seen)| async move {
            let Some(mut hashing) = hashing else { return Ok(None) };
            if let Some(part) = bytes.try_next().await? {
                hashing.update(&part);
                return Ok(Some((part, (bytes, Some(hashing), seen))));
            }
            let digests = hashing.finish();
            *seen.0.lock() = digests.map(|digests| ConfirmedGroups { length, digests });
            Ok(None)
        });
        passing.boxed()
    }

    /// What was seen, where all was.
    pub fn take(&self) -> Option<ConfirmedGroups> {
        self.0.lock().take()
    }
}

/// An origin of which every group is held against what was seen.
pub(super) struct HeldAgainst {
    pub origin: Arc<dyn Origin>,
    pub groups: Arc<ConfirmedGroups>,
    pub url: CanonicalUrl,
}

#[async_trait]
impl Origin for HeldAgainst {
    fn length(&self) -> Option<u64> {
        Some(self.groups.length)
    }

    fn ranges(&self) -> bool {
        self.origin.ranges()
    }

    fn reads_a_task(&self) -> bool {
        self.origin.reads_a_task()
    }

    fn count_in(&self, count: &RequestCount) {
        self.origin.count_in(count);
    }

    fn read_over(&self) -> u64 {
        self.origin.read_over()
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        let length = self.groups.length;
        let whole = ByteRange::new(0, length);
        let wanted = range.unwrap_or(whole).intersection(whole);
        let groups = wanted.groups();
        let around = groups.bytes(length);
        // As it was asked for, where that can be: an origin that knows no ranges is not asked for one.
        let asked = if range.is_some() { Some(around) } else { None };
        let bytes = self.origin.read(asked).await?;
        let attempt = Attempt::new(Action::Read(range), &self.url);
        let held = Holding { bytes, ahead: BytesMut::new(), left: groups, attempt };
        let known = Arc::clone(&self.groups);
        let holding = stream::try_unfold((held, known), |(mut held, known)| async move {
            Ok(held.next(&known).await?.map(|group| (group, (held, known))))
        });
        let wanted = ByteRange::at(wanted.start - around.start, wanted.len());
        Ok(cut(holding.boxed(), wanted))
    }
}

/// Groups that come.
struct Holding {
    bytes: ByteStream,
    ahead: BytesMut,
    left: GroupRange,
    attempt: Attempt,
}

impl Holding {
    /// The next group, once it turned out to be the right one.
    async fn next(&mut self, known: &ConfirmedGroups) -> Result<Option<Bytes>, SourceError> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let group = GroupRange::new(self.left.first, 1);
        let bytes = group.bytes(known.length);
        let length = usize::try_from(bytes.len()).unwrap_or(usize::MAX);
        while self.ahead.len() < length {
            match self.bytes.try_next().await? {
                Some(more) => self.ahead.extend_from_slice(&more),
                None => {
                    let received = bytes.start + self.ahead.len() as u64;
                    let attempt = self.attempt.clone();
                    return Err(SourceError::Truncated { attempt, received, cause: None });
                }
            }
        }
        let content = self.ahead.split_to(length).freeze();
        if !known.is(group.first, &content) {
            let reason = format!(
                "the {length} bytes at {} are not those that were there when all of it was held against its digest",
                bytes.start
            );
            return Err(SourceError::Malformed { attempt: self.attempt.clone(), reason });
        }
        self.left = GroupRange::new(group.first + 1, self.left.count - 1);
        Ok(Some(content))
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::GROUP_BYTES;

    use super::*;

    /// A content of three groups and a bit, read in steps that are no groups.
    struct Content(Bytes);

    #[async_trait]
    impl Origin for Content {
        fn length(&self) -> Option<u64> {
            Some(self.0.len() as u64)
        }

        fn ranges(&self) -> bool {
            true
        }

        async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
            let range = range.unwrap_or(ByteRange::new(0, self.0.len() as u64));
            let wanted = self.0.slice(range.start as usize..range.end as usize);
            let parts: Vec<_> = wanted.chunks(10_000).map(Bytes::copy_from_slice).collect();
            Ok(stream::iter(parts).map(Ok).boxed())
        }
    }

    fn content() -> Bytes {
        (0..3 * GROUP_BYTES + 5).map(|at| (at * 31 % 251) as u8).collect()
    }

    async fn all(bytes: ByteStream) -> Result<Vec<u8>, SourceError> {
        let parts: Vec<Bytes> = bytes.try_collect().await?;
        Ok(parts.concat())
    }

    async fn confirmed(content: &Bytes) -> ConfirmedGroups {
        let (seen, length) = (Seen::default(), content.len() as u64);
        let passing = Content(content.clone()).read(None).await.unwrap();
        assert_eq!(all(seen.watch(passing, length)).await.unwrap(), *content);
        let groups = seen.take().unwrap();
        assert_eq!(ConfirmedGroups::decode(&groups.encode()), Some(groups.clone()));
        groups
    }

    fn held(content: Bytes, groups: &ConfirmedGroups) -> HeldAgainst {
        let url = CanonicalUrl::parse("oci://r.test/a?blob=x").unwrap();
        HeldAgainst { origin: Arc::new(Content(content)), groups: Arc::new(groups.clone()), url }
    }

    #[tokio::test]
    async fn what_is_as_it_was_is_given_by_any_range() {
        let content = content();
        let held = held(content.clone(), &confirmed(&content).await);
        assert_eq!(all(held.read(None).await.unwrap()).await.unwrap(), content);
        let length = content.len() as u64;
        for (start, end) in [(0, 1), (5, 70_000), (65_536, 131_072), (length - 3, length), (7, 7)] {
            let read = held.read(Some(ByteRange::new(start, end))).await.unwrap();
            assert_eq!(all(read).await.unwrap(), content[start as usize..end as usize]);
        }
    }

    #[tokio::test]
    async fn of_a_group_with_another_byte_nothing_is_given() {
        let content = content();
        let groups = confirmed(&content).await;
        let mut altered = content.to_vec();
        altered[70_000] ^= 1;
        let held = held(altered.into(), &groups);
        let given: Vec<_> = held.read(None).await.unwrap().collect().await;
        let right: Vec<_> = given.iter().map_while(|part| part.as_ref().ok().cloned()).collect();
        assert_eq!(right.concat(), content[..GROUP_BYTES as usize]);
        assert!(matches!(given.last(), Some(Err(SourceError::Malformed { .. }))));
        let other = held.read(Some(ByteRange::new(140_000, 150_000))).await.unwrap();
        assert_eq!(all(other).await.unwrap(), content[140_000..150_000]);
        let cut = self::held(content.slice(..100_000), &groups).read(None).await.unwrap();
        assert!(matches!(all(cut).await, Err(SourceError::Truncated { .. })));
    }

    #[tokio::test]
    async fn what_was_not_read_to_its_end_is_not_confirmed_and_what_is_cut_off_is_no_encoding() {
        let content = content();
        let seen = Seen::default();
        let passing = Content(content.slice(..70_000)).read(None).await.unwrap();
        all(seen.watch(passing, content.len() as u64)).await.unwrap();
        assert_eq!(seen.take(), None);
        let encoded = confirmed(&content).await.encode();
        for end in [0, 16, 20, encoded.len() - 1] {
            assert_eq!(ConfirmedGroups::decode(&encoded[..end]), None);
        }
        assert_eq!(ConfirmedGroups::decode(&[&encoded[..], &[0]].concat()), None);
    }
}
