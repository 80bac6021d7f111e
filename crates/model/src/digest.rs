//! Content digests as people and registries write them: `algorithm:hex`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::decode_hex;

/// The digest of some whole content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Digest {
    /// BLAKE3, the digest dfs itself uses.
    Blake3([u8; 32]),
    /// SHA-256, the digest most publishers state.
    Sha256([u8; 32]),
}

/// A digest that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a digest: expected sha256:<64 hex digits> or blake3:<64 hex digits>")]
pub struct DigestParseError(String);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes) = match self {
            Self::Blake3(bytes) => ("blake3", bytes),
            Self::Sha256(bytes) => ("sha256", bytes),
        };
        write!(f, "{name}:")?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || DigestParseError(text.chars().take(100).collect());
        let (name, hex) = text.split_once(':').ok_or_else(bad)?;
        let mut bytes = [0; 32];
        decode_hex(hex, &mut bytes).ok_or_else(bad)?;
        match name.to_ascii_lowercase().as_str() {
            "blake3" => Ok(Self::Blake3(bytes)),
            "sha256" => Ok(Self::Sha256(bytes)),
            _ => Err(bad()),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_algorithms_read_back_and_others_are_refused() {
        for digest in [Digest::Blake3([7; 32]), Digest::Sha256([0xfe; 32])] {
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
        assert!("md5:00".parse::<Digest>().is_err());
        assert!("sha256:12".parse::<Digest>().is_err());
    }
}
