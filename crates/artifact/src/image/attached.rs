//! Indexes of an image's layers as an artifact of their own, which a registry or a file has beside the image.
//!
//! Its manifest names a blob for each layer, with the layer's digest and what that unpacks to, and is signed as a whole:
//! who may attach something to an image is not who made it. A blob has the index of the layer, and what is kept
//! beside its content. Pure. All that is read is hostile; it is bounded here, and what is in it is checked by who uses it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use dfs_source::oci::ContentDigest;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::manifest::{MAX_DOCUMENT, MAX_LAYERS};
use crate::encoding::{put_bytes, take, take_bytes, take_u64};

/// What such an artifact is.
pub const INDEX_ARTIFACT: &str = "application/vnd.dfs.image.index.v1";
/// What a blob of it is.
pub const LAYER_INDEX: &str = "application/vnd.dfs.layer.index.v1+zstd";
/// Longest blob, and longest that one unpacks to, in bytes.
pub const MAX_BLOB: u64 = 128 << 20;
const MAX_UNPACKED: u64 = 512 << 20;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The configuration of what has none.
pub const EMPTY_CONFIG: &[u8] = b"{}";
const LAYER: &str = "vnd.dfs.layer";
const DIFF_ID: &str = "vnd.dfs.diff-id";
/// Behind it stands who signed.
const SIGNED_BY: &str = "vnd.dfs.signature.ed25519.";
const MAX_SIGNATURES: usize = 64;
/// What is signed begins so: nothing else that such a key signs does.
const CONTEXT: &[u8] = b"dfs image index v1\n";

const TAG: &[u8; 16] = b"dfs.layeridx.v1\0";
const MAX_PARTS: usize = 16;
const MAX_NAME: usize = 64;
const LEVEL: i32 = 9;

/// Why an artifact is none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum AttachedError {
    /// Its manifest.
    #[error("it is no list of indexes: {0}")]
    Manifest(String),
    /// A blob of it.
    #[error("the index of a layer cannot be used: {0}")]
    Blob(&'static str),
    /// Nobody signed it who is believed.
    #[error("no key that is believed has signed it")]
    Unsigned,
    /// A signature that is none.
    #[error("its signature by {0} is wrong")]
    Forged(IndexKey),
}

/// Who may say what is in layers: an Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexKey([u8; 32]);

impl FromStr for IndexKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key = from_hex(text).filter(|key| VerifyingKey::from_bytes(key).is_ok());
        key.map(Self)
            .ok_or_else(|| "a key is 64 hexadecimal digits: an Ed25519 public key".to_owned())
    }
}

impl fmt::Display for IndexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for IndexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for IndexKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IndexKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whoever signs.
pub struct IndexSigner(SigningKey);

impl IndexSigner {
    /// By the 32 bytes of a private key, raw or as 64 hexadecimal digits with an end of line.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let text = || from_hex(std::str::from_utf8(bytes).ok()?.trim_end());
        let secret = <[u8; 32]>::try_from(bytes).ok().or_else(text)?;
        Some(Self(SigningKey::from_bytes(&secret)))
    }

    /// What others check it with.
    pub fn key(&self) -> IndexKey {
        IndexKey(self.0.verifying_key().to_bytes())
    }
}

/// Which attached indexes are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexTrust {
    /// Those that one of these keys has signed.
    pub keys: Vec<IndexKey>,
    /// All in these registries, by host or host and port.
    pub registries: Vec<String>,
}

impl IndexTrust {
    /// Whether any of a registry may be: otherwise none is asked for.
    pub fn may_believe(&self, registry: &str) -> bool {
        !self.keys.is_empty() || self.has(registry)
    }

    fn has(&self, registry: &str) -> bool {
        self.registries.iter().any(|one| one == registry)
    }

    /// Whether this one of `registry` is believed.
    pub fn check(&self, registry: &str, attached: &Attached) -> Result<(), AttachedError> {
        if self.has(registry) {
            return Ok(());
        }
        let signed = attached.signatures.iter().find(|(key, _)| self.keys.contains(key));
        let (key, signature) = signed.ok_or(AttachedError::Unsigned)?;
        let verifying =
            VerifyingKey::from_bytes(&key.0).map_err(|_| AttachedError::Forged(*key))?;
        let is_right = verifying.verify_strict(&message(&attached.layers), signature);
        is_right.map_err(|_| AttachedError::Forged(*key))
    }
}

/// A blob with the index of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedLayer {
    /// The layer, as it is packed.
    pub layer: ContentDigest,
    /// What that unpacks to.
    pub diff_id: ContentDigest,
    /// The blob.
    pub blob: ContentDigest,
    /// Bytes of it.
    pub size: u64,
}

/// The manifest of an artifact with indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its layers.
    pub layers: Vec<AttachedLayer>,
    signatures: Vec<(IndexKey, Signature)>,
}

/// What an artifact is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// What kind of document it is.
    pub media_type: String,
    /// The manifest of the image.
    pub digest: ContentDigest,
    /// Bytes of that.
    pub size: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: u8,
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    config: RawBlob,
    layers: Vec<RawBlob>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBlob {
    media_type: String,
    digest: ContentDigest,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// The manifest of these, about an image, signed where somebody signs. The same input gives the same bytes.
pub fn manifest(about: &About, layers: &[AttachedLayer], signer: Option<&IndexSigner>) -> Bytes {
    let blob = |layer: &AttachedLayer| RawBlob {
        media_type: LAYER_INDEX.to_owned(),
        digest: layer.blob,
        size: layer.size,
        annotations: BTreeMap::from([
            (LAYER.to_owned(), layer.layer.to_string()),
            (DIFF_ID.to_owned(), layer.diff_id.to_string()),
        ]),
    };
    let signature = signer.map(|signer| {
        let signature = signer.0.sign(&message(layers)).to_bytes();
        (format!("{SIGNED_BY}{}", signer.key()), to_hex(&signature))
    });
    let raw = RawManifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        artifact_type: INDEX_ARTIFACT.to_owned(),
        config: RawBlob {
            media_type: EMPTY.to_owned(),
            digest: ContentDigest::sha256(EMPTY_CONFIG),
            size: EMPTY_CONFIG.len() as u64,
            annotations: BTreeMap::new(),
        },
        layers: layers.iter().map(blob).collect(),
        annotations: signature.into_iter().collect(),
    };
    let mut json = serde_json::to_value(raw).expect("it has text and numbers only");
    json["subject"] = serde_json::to_value(about).expect("it has text and numbers only");
    json.to_string().into()
}

impl Attached {
    /// Reads the manifest of an artifact.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttachedError> {
        let bad = |why: &str| AttachedError::Manifest(why.to_owned());
        if bytes.len() > MAX_DOCUMENT {
            return Err(bad("it is too long"));
        }
        let raw: RawManifest = serde_json::from_slice(bytes)
            .map_err(|error| AttachedError::Manifest(error.to_string()))?;
        if raw.artifact_type != INDEX_ARTIFACT {
            return Err(bad("it says that it is something else"));
        }
        if raw.layers.len() > MAX_LAYERS {
            return Err(bad("it has more layers than any image"));
        }
        let layer = |blob: &RawBlob| {
            let named = |name: &str| blob.annotations.get(name)?.parse().ok();
            let is_known = blob.media_type == LAYER_INDEX && blob.size <= MAX_BLOB;
            let (layer, diff_id) = (named(LAYER)?, named(DIFF_ID)?);
            is_known.then_some(AttachedLayer { layer, diff_id, blob: blob.digest, size: blob.size })
        };
        let layers: Option<Vec<_>> = raw.layers.iter().map(layer).collect();
        let layers = layers.ok_or_else(|| bad("a layer of it is none, or too long"))?;
        let signature = |(name, value): (&String, &String)| {
            let key = name.strip_prefix(SIGNED_BY)?.parse().ok()?;
            Some((key, Signature::from_bytes(&from_hex(value)?)))
        };
        let signatures = raw.annotations.iter().filter_map(signature).take(MAX_SIGNATURES);
        Ok(Self { layers, signatures: signatures.collect() })
    }

    /// The index of a layer that unpacks to this.
    pub fn find(&self, layer: &ContentDigest, diff_id: &ContentDigest) -> Option<&AttachedLayer> {
        self.layers.iter().find(|one| (&one.layer, &one.diff_id) == (layer, diff_id))
    }
}

/// What is signed: what each layer unpacks to, and the digest of all that is said of it.
fn message(layers: &[AttachedLayer]) -> Vec<u8> {
    let mut message = CONTEXT.to_vec();
    for AttachedLayer { layer, diff_id, blob, size } in layers {
        message.extend(format!("{layer} {diff_id} {blob} {size}\n").into_bytes());
    }
    message
}

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerIndex {
    /// Its index.
    pub index: Bytes,
    /// What is kept beside its content, each by what it is and its format.
    pub beside: Vec<AttachedPart>,
}

/// Something that is kept beside a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedPart {
    /// What it is, and its format.
    pub kind: String,
    /// It.
    pub content: Bytes,
}

impl LayerIndex {
    /// As a blob, where it is none that all would refuse. The same input gives the same bytes.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let beside = self.beside.iter().map(|one| (one.kind.as_bytes(), &one.content));
        for (name, content) in std::iter::once((&b""[..], &self.index)).chain(beside) {
            put_bytes(&mut plain, name);
            plain.extend((content.len() as u64).to_le_bytes());
            plain.extend_from_slice(content);
        }
        let packed = zstd::bulk::compress(&plain, LEVEL)?;
        if plain.len() as u64 > MAX_UNPACKED || (TAG.len() + packed.len()) as u64 > MAX_BLOB {
            let why = "the index of a layer is longer than anybody takes";
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
        }
        Ok([TAG, &packed[..]].concat())
    }

    /// Reads a blob. Nothing that is in it is checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, AttachedError> {
        let bad = AttachedError::Blob;
        let packed = bytes.strip_prefix(TAG).ok_or(bad("it is none, or of a later version"))?;
        let plain = Bytes::from(unpacked(packed)?);
        let (mut rest, mut parts) = (&plain[..], Vec::new());
        while !rest.is_empty() {
            let part = part(&plain, &mut rest).ok_or(bad("it is cut off"))?;
            parts.push(part);
            if parts.len() > MAX_PARTS {
                return Err(bad("it has too many parts"));
            }
        }
        let mut parts = parts.into_iter();
        let first = parts.next().filter(|first| first.kind.is_empty());
        let index = first.ok_or(bad("it has no index"))?.content;
        Ok(Self { index, beside: parts.collect() })
    }
}

fn part(plain: &Bytes, rest: &mut &[u8]) -> Option<AttachedPart> {
    let name = take_bytes(rest).filter(|name| name.len() <= MAX_NAME)?;
    let kind = std::str::from_utf8(name).ok()?.to_owned();
    let length = usize::try_from(take_u64(rest)?).ok()?;
    Some(AttachedPart { kind, content: plain.slice_ref(take(rest, length)?) })
}

/// One frame that says how long it is beforehand: as much is taken for it, and no more comes.
fn unpacked(packed: &[u8]) -> Result<Vec<u8>, AttachedError> {
    let bad = AttachedError::Blob;
    let told = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    let length = told.ok_or(bad("it does not say how long it is"))?;
    if length > MAX_UNPACKED {
        return Err(bad("it unpacks to more than any"));
    }
    let length = usize::try_from(length).map_err(|_| bad("it unpacks to more than any"))?;
    let plain = zstd::bulk::decompress(packed, length);
    plain.ok().filter(|plain| plain.len() == length).ok_or(bad("it does not unpack"))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly so many bytes in lower-case digits: one key, or signature, has one spelling.
fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests;
