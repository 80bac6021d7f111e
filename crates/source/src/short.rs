//! What is short enough to be held in memory, as a whole.

use bytes::{Bytes, BytesMut};
use dfs_model::Validator;
use futures::TryStreamExt as _;

use crate::{Action, Attempt, Source, SourceError, Target};

/// All of the version that `pin` names; an error where more than `limit` bytes of it come, whatever was said before.
pub async fn read_short(
    source: &dyn Source,
    target: &Target,
    pin: &Validator,
    limit: u64,
) -> Result<Bytes, SourceError> {
    let mut parts = source.read(target, None, pin).await?;
    let mut all = BytesMut::new();
    while let Some(part) = parts.try_next().await? {
        if all.len() as u64 + part.len() as u64 > limit {
            let attempt = Attempt::new(Action::Read(None), &target.url);
            return Err(SourceError::TooLarge { attempt, what: "bytes", limit });
        }
        all.extend_from_slice(&part);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use dfs_model::{ByteRange, CanonicalUrl};
    use futures::stream::{self, BoxStream, StreamExt as _};

    use super::*;
    use crate::{ByteStream, Entry, Stat};

    /// Gives these parts, and then for ever the last one where it never ends.
    struct Parts {
        parts: Vec<&'static [u8]>,
        is_endless: bool,
    }

    #[async_trait]
    impl Source for Parts {
        async fn stat(&self, _target: &Target) -> Result<Stat, SourceError> {
            unreachable!("nobody asks what it is")
        }

        async fn read(
            &self,
            _target: &Target,
            _range: Option<ByteRange>,
            _pin: &Validator,
        ) -> Result<ByteStream, SourceError> {
            let parts = stream::iter(self.parts.clone());
            let rest = stream::repeat(*self.parts.last().unwrap());
            let rest = rest.take(if self.is_endless { usize::MAX } else { 0 });
            Ok(parts.chain(rest).map(|part| Ok(Bytes::from_static(part))).boxed())
        }

        fn list(&self, _target: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
            stream::empty().boxed()
        }
    }

    #[tokio::test]
    async fn what_comes_is_held_up_to_its_limit_and_no_further() {
        let target = Target::new(CanonicalUrl::parse("oci://h.test/a:1").unwrap());
        let read = async |is_endless, limit| {
            let source = Parts { parts: vec![b"abc", b"", b"de"], is_endless };
            read_short(&source, &target, &Validator::default(), limit).await
        };
        assert_eq!(read(false, 5).await.unwrap(), "abcde");
        for (is_endless, limit) in [(false, 4), (false, 0), (true, 5), (true, 1 << 20)] {
            let error = read(is_endless, limit).await.unwrap_err();
            let is_told =
                matches!(error, SourceError::TooLarge { limit: told, .. } if told == limit);
            assert!(is_told, "{limit}: {error}");
        }
    }
}
