//! Bodies: bytes in memory, a file, or noise of any length that costs no memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The content of one path of an origin.
#[derive(Debug, Clone)]
pub enum Body {
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// Noise: the same for the same seed, incompressible, of any length.
    Noise {
        /// Tells one noise from another.
        seed: u64,
        /// Bytes in it.
        length: u64,
    },
    /// A file, opened anew for every answer.
    File(PathBuf),
}

impl Body {
    /// Bytes in memory.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(bytes.into().into())
    }

    /// `length` bytes of the noise `seed`.
    pub fn noise(seed: u64, length: u64) -> Self {
        Self::Noise { seed, length }
    }

    /// Bytes in it.
    pub fn length(&self) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::Noise { length, .. } => Ok(*length),
            Self::File(path) => Ok(path.metadata()?.len()),
        }
    }

    /// The bytes from `start` to `end`, for comparing with what came out.
    ///
    /// # Errors
    /// The file's; also when the range is not in the content.
    pub fn read(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.open()?.read_exact_at(start, &mut bytes)?;
        Ok(bytes)
    }

    /// Opens it for reading at positions.
    pub fn open(&self) -> io::Result<Opened> {
        Ok(match self {
            Self::Bytes(bytes) => Opened::Bytes(Arc::clone(bytes)),
            Self::Noise { seed, length } => Opened::Noise { seed: *seed, length: *length },
            Self::File(path) => Opened::of_file(path)?,
        })
    }
}

/// A body being read.
#[derive(Debug)]
pub enum Opened {
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// Noise.
    Noise {
        /// Which.
        seed: u64,
        /// Bytes in it.
        length: u64,
    },
    /// A file of this length when it was opened.
    File(File, u64),
}

impl Opened {
    fn of_file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self::File(file, length))
    }

    /// Bytes in it.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Noise { length, .. } | Self::File(_, length) => *length,
        }
    }

    /// Fills `buffer` with what stands at `offset`.
    pub fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
            }
            Self::Noise { seed, .. } => fill(*seed, offset, buffer),
            Self::File(file, _) => file.read_exact_at(buffer, offset)?,
        }
        Ok(())
    }
}

/// The noise `seed` from `offset` on: every eight bytes are a hash of their place.
pub fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    let skip = (offset % 8) as usize;
    let mut word = offset / 8;
    let head = ((8 - skip) % 8).min(buffer.len());
    let (first, rest) = buffer.split_at_mut(head);
    if head > 0 {
        first.copy_from_slice(&hash(seed, word).to_le_bytes()[skip..skip + head]);
        word += 1;
    }
    for chunk in rest.chunks_mut(8) {
        chunk.copy_from_slice(&hash(seed, word).to_le_bytes()[..chunk.len()]);
        word += 1;
    }
}

/// SplitMix64.
pub(super) fn hash(seed: u64, word: u64) -> u64 {
    let mut z = seed.wrapping_add(word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_a_noise_is_the_same_as_in_the_whole() {
        let body = Body::noise(7, 100);
        let whole = body.read(0, 100).unwrap();
        for start in 0..100 {
            for end in start..=100 {
                let part = body.read(start, end).unwrap();
                assert_eq!(part, whole[start as usize..end as usize], "{start}..{end}");
            }
        }
        assert!(body.read(50, 101).is_err());
        assert_ne!(Body::noise(8, 100).read(0, 100).unwrap(), whole);
    }
}
