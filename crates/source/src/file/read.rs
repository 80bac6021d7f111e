//! Pinned reads of a file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{ByteRange, Validator};
use futures::stream::{self, StreamExt as _};
use rustix::fs::OFlags;

use super::asker::Place;
use super::{blocking, difference, failed, not_a_file, validator_of};
use crate::{Attempt, ByteStream, Counters, SourceError};

/// Bytes read at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// An open file of one version.
pub(super) struct Pinned {
    pub file: File,
    pin: Validator,
    attempt: Attempt,
}

pub(super) async fn read(
    place: Place,
    range: Option<ByteRange>,
    pin: Validator,
    attempt: Attempt,
    counters: Arc<Counters>,
) -> Result<ByteStream, SourceError> {
    let (file, length) = {
        let opening = place.clone();
        place.run(move || Pinned::open(&opening, pin, attempt)).await?
    };
    let range = range.unwrap_or(ByteRange::new(0, length));
    if range.end > length {
        let reason = format!("the range ends beyond the {length} bytes that there are");
        return Err(SourceError::Malformed { attempt: file.attempt.clone(), reason });
    }
    let state = (Arc::new(file), range, counters);
    let stream = stream::try_unfold(state, async |(file, rest, counters)| {
        if rest.is_empty() {
            return Ok(None);
        }
        let part = ByteRange::at(rest.start, rest.len().min(CHUNK_BYTES));
        let reading = Arc::clone(&file);
        let bytes = blocking(move || reading.part(part)).await?;
        counters.received(bytes.len());
        Ok(Some((bytes, (file, ByteRange::new(part.end, rest.end), counters))))
    });
    Ok(stream.boxed())
}

impl Pinned {
    /// Opens a file and its length, if it is the pinned version; what the pin leaves open is pinned
    /// to what is there.
    pub fn open(
        place: &Place,
        pin: Validator,
        attempt: Attempt,
    ) -> Result<(Self, u64), SourceError> {
        let file = place.open(OFlags::empty()).map_err(|error| failed(error, &attempt))?;
        let file = File::from(file);
        let metadata = file.metadata().map_err(|error| failed(error, &attempt))?;
        if !metadata.is_file() {
            return Err(not_a_file(&metadata, &attempt));
        }
        let seen = validator_of(&metadata);
        if let Some(detail) = difference(&pin, &seen) {
            return Err(SourceError::Changed { attempt, detail });
        }
        Ok((Self { file, pin: seen, attempt }, metadata.len()))
    }

    /// Reads a part and only then makes sure that it still is of the pinned version.
    fn part(&self, part: ByteRange) -> Result<Bytes, SourceError> {
        let length = usize::try_from(part.len()).unwrap_or(usize::MAX);
        let mut buffer = vec![0; length];
        let read = self.file.read_exact_at(&mut buffer, part.start);
        self.check()?;
        read.map_err(|error| failed(error, &self.attempt))?;
        Ok(buffer.into())
    }

    /// Makes sure that it still is of the pinned version.
    pub fn check(&self) -> Result<(), SourceError> {
        let metadata = self.file.metadata().map_err(|error| failed(error, &self.attempt))?;
        match difference(&self.pin, &validator_of(&metadata)) {
            Some(detail) => Err(SourceError::Changed { attempt: self.attempt.clone(), detail }),
            None => Ok(()),
        }
    }
}
