//! What makes one index of another: the next snapshot of a listing is nearly the one before.
//!
//! ```text
//! "DFSDELTA" │ format number, u16 │ a zstd frame that refers to the bytes of the base
//! ```
//! Pure. A delta is believed by nobody: whoever applies one compares the result with the digest of the index.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, get_error_name};

const MAGIC: &[u8; 8] = b"DFSDELTA";
/// The format that is written, and the only one read.
pub const FORMAT: u16 = 1;
const HEAD: usize = MAGIC.len() + size_of::<u16>();
const LEVEL: i32 = 3;

/// Why a delta was not made or not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It does not begin as one.
    #[error("it is no delta of an index")]
    NoDelta,
    /// One of a later release.
    #[error("it is of format {0}, which this release does not know")]
    Format(u16),
    /// The codec.
    #[error("it cannot be coded: {0}")]
    Codec(&'static str),
    /// The result is not as long as was said.
    #[error("it makes {found} bytes where {wanted} were announced")]
    Length {
        /// Bytes that it makes.
        found: usize,
        /// Bytes that were announced.
        wanted: usize,
    },
}

fn codec(code: usize) -> DeltaError {
    DeltaError::Codec(get_error_name(code))
}

/// What makes `new` of `base`. Takes about a second per 200 MB.
pub fn diff(base: &[u8], new: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let mut context = CCtx::create();
    // Everything in both can be referred to.
    let window = base.len().max(new.len()).max(1 << 10).ilog2() + 1;
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(window.min(30)),
        CParameter::EnableLongDistanceMatching(true),
        CParameter::ChecksumFlag(false),
    ] {
        context.set_parameter(parameter).map_err(codec)?;
    }
    context.ref_prefix(base).map_err(codec)?;
    let mut out = Vec::with_capacity(HEAD + zstd::zstd_safe::compress_bound(new.len()));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    let mut frame = Vec::with_capacity(zstd::zstd_safe::compress_bound(new.len()));
    context.compress2(&mut frame, new).map_err(codec)?;
    out.extend_from_slice(&frame);
    out.shrink_to_fit();
    Ok(out)
}

/// The index of `length` bytes that `delta` makes of `base`. The caller has bounded `length`.
pub fn patch(base: &[u8], delta: &[u8], length: usize) -> Result<Vec<u8>, DeltaError> {
    let rest = delta.strip_prefix(MAGIC).ok_or(DeltaError::NoDelta)?;
    let (format, frame) = rest.split_first_chunk().ok_or(DeltaError::NoDelta)?;
    let format = u16::from_le_bytes(*format);
    if format != FORMAT {
        return Err(DeltaError::Format(format));
    }
    let mut context = DCtx::create();
    context.ref_prefix(base).map_err(codec)?;
    let mut out = Vec::with_capacity(length);
    let found = context.decompress(&mut out, frame).map_err(codec)?;
    if found != length {
        return Err(DeltaError::Length { found, wanted: length });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn what_is_in_both_costs_next_to_nothing() {
        let base = noise(3 << 20);
        let mut new = base.clone();
        new.splice(1_000_000..1_000_010, b"something else".iter().copied());
        let delta = diff(&base, &new).unwrap();
        assert!(delta.len() < 16 << 10, "{}", delta.len());
        assert_eq!(patch(&base, &delta, new.len()).unwrap(), new);
    }

    #[test]
    fn what_is_none_or_too_long_or_of_later_is_refused() {
        let (base, new) = (noise(1000), noise(2000));
        let delta = diff(&base, &new).unwrap();
        assert_eq!(
            patch(&base, &delta, 2001).unwrap_err(),
            DeltaError::Length { found: 2000, wanted: 2001 }
        );
        assert!(matches!(patch(&base, &delta, 1999), Err(DeltaError::Codec(_))));
        assert_eq!(patch(&base, &delta[1..], 2000), Err(DeltaError::NoDelta));
        let mut later = delta.clone();
        later[8] = 2;
        assert_eq!(patch(&base, &later, 2000), Err(DeltaError::Format(2)));
    }

    #[test]
    fn what_the_first_release_made_is_applied() {
        let base: Vec<u8> = (0..100).collect();
        let made = b"DFSDELTA\x01\x00(\xb5/\xfd qm\x00\x00\x18new\x02\x00\xa1C\x9a\xcf(\x00\x01";
        let new = [&base[..50], b"new", &base[40..]].concat();
        assert_eq!(patch(&base, made, new.len()).unwrap(), new);
    }

    proptest! {
        #[test]
        fn any_two_make_each_other(base: Vec<u8>, new: Vec<u8>) {
            let delta = diff(&base, &new).unwrap();
            prop_assert_eq!(patch(&base, &delta, new.len()).unwrap(), new);
        }

        #[test]
        fn anything_else_is_an_error_and_never_more_than_was_bounded(base: Vec<u8>, delta: Vec<u8>, length in 0usize..10_000) {
            if let Ok(made) = patch(&base, &delta, length) {
                prop_assert_eq!(made.len(), length);
            }
        }
    }
}
