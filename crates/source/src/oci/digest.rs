//! Digests as registries write them, `algorithm:hex`, and content held against them.

use std::fmt;
use std::str::FromStr;

use dfs_model::{printable, shortened};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// The digest of a document or a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum ContentDigest {
    /// SHA-256: what all registries have.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl Serialize for ContentDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A digest that cannot be read, or of an algorithm that nobody checks here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a digest: expected sha256: and 64, or sha512: and 128 lower-case hex digits")]
pub struct DigestError(String);

/// Content that is not what its digest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the content is not what was asked for: its digest is {actual} instead of {expected}")]
pub struct Mismatch {
    /// What was asked for.
    pub expected: ContentDigest,
    /// What came.
    pub actual: ContentDigest,
}

/// Holds content against its digest.
pub fn verify(bytes: &[u8], expected: &ContentDigest) -> Result<(), Mismatch> {
    let actual = match expected {
        ContentDigest::Sha256(_) => ContentDigest::sha256(bytes),
        ContentDigest::Sha512(_) => ContentDigest::sha512(bytes),
    };
    let expected = *expected;
    if actual == expected { Ok(()) } else { Err(Mismatch { expected, actual }) }
}

impl ContentDigest {
    /// The SHA-256 of a content.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(bytes).into())
    }

    /// The SHA-512 of a content.
    pub fn sha512(bytes: &[u8]) -> Self {
        Self::Sha512(Sha512::digest(bytes).into())
    }

    /// Name of the algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// The digits without the algorithm.
    pub fn hex(&self) -> String {
        let bytes: &[u8] = match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl FromStr for ContentDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digest = match text.split_once(':') {
            Some(("sha256", digits)) => decode(digits).map(Self::Sha256),
            Some(("sha512", digits)) => decode(digits).map(Self::Sha512),
            _ => None,
        };
        digest.ok_or_else(|| DigestError(printable(&shortened(text, 150))))
    }
}

impl TryFrom<String> for ContentDigest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

fn decode<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(high)? << 4 | value(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_algorithms_read_back_and_hold() {
        // The test vectors of FIPS 180-2 for "abc".
        let short = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let long = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                    2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        for (text, made) in
            [(short, ContentDigest::sha256(b"abc")), (long, ContentDigest::sha512(b"abc"))]
        {
            let digest: ContentDigest = text.parse().unwrap();
            assert_eq!((digest, digest.to_string().as_str()), (made, text));
            assert_eq!(verify(b"abc", &digest), Ok(()));
            let refused = verify(b"abd", &digest).unwrap_err();
            assert_eq!(refused.expected, digest);
            assert_ne!(refused.actual, digest);
        }
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let upper = format!("sha256:{}", "A".repeat(64));
        let short = format!("sha256:{}", "a".repeat(63));
        let long = format!("sha256:{}", "a".repeat(65));
        let crossed = format!("sha512:{}", "a".repeat(64));
        let wide = format!("sha256:{}", "ä".repeat(32));
        let unknown = format!("md5:{}", "a".repeat(32));
        let texts = [&upper, &short, &long, &crossed, &wide, &unknown, "", ":", "sha256", "\x1b:"];
        for text in texts.map(|text| text.to_string()) {
            let error = text.parse::<ContentDigest>().unwrap_err().to_string();
            assert!(!error.contains('\x1b'), "{error:?}");
        }
    }
}
