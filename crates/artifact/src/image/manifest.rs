//! Indexes and manifests, of OCI and of Docker (lists and schema 2): bytes of a registry into what they say, or one
//! clear error. What is not used is not kept.

pub use dfs_source::oci::MAX_DOCUMENT;

use dfs_model::{printable, shortened};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::artifact::{self, ArtifactFile};
use super::media::{DocumentKind, LayerType, is_image_config};
use super::platform::Platform;
use super::{ContentDigest, Mismatch, verify};

/// Most manifests of an index, and files of an artifact.
pub const MAX_DESCRIPTORS: usize = 10_000;
/// Most layers of an image.
pub const MAX_LAYERS: usize = 255;

/// Why a document is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is longer than [`MAX_DOCUMENT`].
    #[error("the {what} has {length} bytes, and the longest that is read has 4194304")]
    TooLong {
        /// Manifest or configuration.
        what: &'static str,
        /// Bytes in it.
        length: u64,
    },
    /// It is not JSON of the right form.
    #[error("the {what} is not what the image specification describes")]
    Form {
        /// Manifest or configuration.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// It is of Docker's first schema.
    #[error(
        "the manifest is of Docker schema 1, which has no digests of layers' content: push the image again"
    )]
    FirstSchema,
    /// It is of a schema that does not exist yet.
    #[error("the manifest is of schema {0}, and 2 is the newest that is known")]
    UnknownSchema(u64),
    /// It is something else.
    #[error("the document is neither an image index nor a manifest: its media type is '{0}'")]
    OtherDocument(String),
    /// It could be taken for either.
    #[error("the document can be taken for an index and for a manifest: neither is believed")]
    Ambiguous,
    /// It has neither manifests nor a configuration.
    #[error("the document has neither manifests, as an index, nor a config, as a manifest")]
    Neither,
    /// It has more of something than is taken.
    #[error("the manifest has {count} {what}, and at most {most} are taken")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A layer that nobody here can read.
    #[error("layer {number} of the image is of media type '{media_type}', which cannot be read")]
    OtherLayer {
        /// Which one, counted from 1.
        number: usize,
        /// What it is.
        media_type: String,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("the {what} has {actual} bytes instead of {expected}")]
    Length {
        /// What it is.
        what: &'static str,
        /// Bytes that were announced.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// A blob is not the one that was asked for.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The configuration contradicts the manifest.
    #[error("the image's config does not belong to its manifest: {0}")]
    Config(String),
    /// A file of an artifact has no name that a tree can hold.
    #[error("file '{name}' of the artifact is refused: {reason}")]
    FileName {
        /// The name, made printable.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Manifests to choose from, by [`super::choose`].
    Index(Vec<Descriptor>),
    /// One image or artifact.
    Manifest(Box<Manifest>),
}

/// What a document says of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: ContentDigest,
    /// Bytes in it.
    pub size: u64,
    /// Where it is besides the registry. Not checked: whoever reads there must.
    #[serde(default, deserialize_with = "or_default")]
    pub urls: Vec<String>,
    /// What a manifest of an index is for.
    pub platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: Annotations,
}

/// What is used of a descriptor's annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Annotations {
    #[serde(rename = "org.opencontainers.image.title")]
    title: Option<String>,
    #[serde(rename = "vnd.docker.reference.type")]
    reference: Option<String>,
    #[serde(rename = "org.opencontainers.image.ref.name")]
    name: Option<String>,
    #[serde(rename = "io.containerd.image.name")]
    full_name: Option<String>,
    #[serde(rename = "containerd.io/snapshot/nydus-bootstrap")]
    bootstrap: Option<String>,
    #[serde(rename = "containerd.io/snapshot/nydus-fs-version")]
    rafs_version: Option<String>,
    #[serde(rename = "containerd.io/snapshot/stargz/toc.digest")]
    stargz_table: Option<String>,
    #[serde(rename = "io.github.containers.zstd-chunked.manifest-checksum")]
    chunked_digest: Option<String>,
    #[serde(rename = "io.github.containers.zstd-chunked.manifest-position")]
    chunked_position: Option<String>,
    #[serde(rename = "io.containers.zstd-chunked.manifest-checksum")]
    elder_chunked_digest: Option<String>,
    #[serde(rename = "io.containers.zstd-chunked.manifest-position")]
    elder_chunked_position: Option<String>,
}

/// One image or artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it says of itself.
    pub config: Descriptor,
    /// Its layers, the lowest first, or its files.
    pub layers: Vec<Descriptor>,
    /// What it is, where it is no image.
    pub artifact_type: Option<String>,
}

/// What a manifest is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// Layers of a file system, the lowest first.
    Image(Vec<LayerBlob>),
    /// A file system as Nydus keeps it.
    Rafs(Box<RafsLayers>),
    /// Files: a chart, a model, a module.
    Artifact {
        /// What it is, as its maker says: a media type.
        kind: String,
        /// Its files, by ascending paths.
        files: Vec<ArtifactFile>,
    },
}

/// What an image is made of that Nydus made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RafsLayers {
    /// The layer that says what is in the others.
    pub bootstrap: Descriptor,
    /// The version of its format, where the manifest tells.
    pub version: Option<String>,
    /// Blobs in which files may lie.
    pub blobs: Vec<Descriptor>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// The blob, as it is compressed.
    pub blob: Descriptor,
    /// How that is, and where it may be had.
    pub layer_type: LayerType,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u64,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    artifact_type: Option<String>,
}

/// Takes `null` for nothing, as many writers have it.
fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a bounded document of this form.
pub(super) fn read<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, ManifestError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(ManifestError::TooLong { what, length: bytes.len() as u64 });
    }
    serde_json::from_slice(bytes).map_err(|source| ManifestError::Form { what, source })
}

/// Text of a document made fit for a message.
pub(super) fn shown(text: &str) -> String {
    printable(&shortened(text, 200))
}

/// Reads an index or a manifest. `served_as` is the media type that it came with, if any: what the document says
/// of itself comes first, and the two must not contradict each other.
pub fn parse(bytes: &[u8], served_as: Option<&str>) -> Result<Document, ManifestError> {
    let raw: RawDocument = read("manifest", bytes)?;
    match raw.schema_version {
        2 => {}
        1 => return Err(ManifestError::FirstSchema),
        other => return Err(ManifestError::UnknownSchema(other)),
    }
    match raw.kind(served_as)? {
        DocumentKind::Index => raw.index(),
        DocumentKind::Manifest => raw.manifest(),
    }
}

impl RawDocument {
    /// What it is, so that nobody else can take it for anything else: CVE-2021-41190.
    fn kind(&self, served_as: Option<&str>) -> Result<DocumentKind, ManifestError> {
        let has_manifests = self.manifests.is_some();
        let has_config = self.config.is_some() || self.layers.is_some();
        let shape = match (has_manifests, has_config) {
            (true, true) => return Err(ManifestError::Ambiguous),
            (true, false) => Some(DocumentKind::Index),
            (false, true) => Some(DocumentKind::Manifest),
            (false, false) => None,
        };
        let told = match self.media_type.as_deref().filter(|told| !told.is_empty()) {
            Some(told) => {
                let other = || ManifestError::OtherDocument(shown(told));
                Some(DocumentKind::of(told).ok_or_else(other)?)
            }
            None => None,
        };
        let served = served_as.and_then(DocumentKind::of);
        let mut views = [told, served, shape].into_iter().flatten();
        let first = views.next().ok_or(ManifestError::Neither)?;
        if views.any(|view| view != first) {
            return Err(ManifestError::Ambiguous);
        }
        Ok(first)
    }

    fn index(self) -> Result<Document, ManifestError> {
        let manifests = self.manifests.unwrap_or_default();
        check_count("manifests", manifests.len(), MAX_DESCRIPTORS)?;
        Ok(Document::Index(manifests))
    }

    fn manifest(self) -> Result<Document, ManifestError> {
        let config = self.config.ok_or(ManifestError::Neither)?;
        let layers = self.layers.unwrap_or_default();
        check_count("layers", layers.len(), MAX_DESCRIPTORS)?;
        let artifact_type = self.artifact_type.filter(|kind| !kind.is_empty());
        Ok(Document::Manifest(Box::new(Manifest { config, layers, artifact_type })))
    }
}

fn check_count(what: &'static str, count: usize, most: usize) -> Result<(), ManifestError> {
    if count > most { Err(ManifestError::TooMany { what, count, most }) } else { Ok(()) }
}

impl Descriptor {
    /// Holds a blob against what is said of it.
    pub fn verify(&self, what: &'static str, bytes: &[u8]) -> Result<(), ManifestError> {
        let (expected, actual) = (self.size, bytes.len() as u64);
        if expected != actual {
            return Err(ManifestError::Length { what, expected, actual });
        }
        Ok(verify(bytes, &self.digest)?)
    }

    /// The name that its maker gave it. Hostile until it is checked.
    pub fn title(&self) -> Option<&str> {
        self.annotations.title.as_deref()
    }

    /// The names that a layout has for it: what the image specification has, then what docker and containerd add.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = [&self.annotations.name, &self.annotations.full_name];
        names.into_iter().filter_map(|name| name.as_deref()).filter(|name| !name.is_empty())
    }

    /// Whether it is the layer of an image that says what is in all others, as Nydus marks it.
    fn is_bootstrap(&self) -> bool {
        self.annotations.bootstrap.as_deref() == Some("true")
    }

    /// The digest of the table of contents that an eStargz layer has.
    pub fn stargz_table(&self) -> Option<&str> {
        self.annotations.stargz_table.as_deref()
    }

    /// The digest of the table of contents that a zstd:chunked layer has, and where that is: as containers/storage names them,
    /// or as it and others did first.
    pub fn chunked_table(&self) -> Option<(&str, &str)> {
        let Annotations { chunked_digest, chunked_position, .. } = &self.annotations;
        let Annotations { elder_chunked_digest, elder_chunked_position, .. } = &self.annotations;
        let elder = || elder_chunked_digest.as_deref().zip(elder_chunked_position.as_deref());
        chunked_digest.as_deref().zip(chunked_position.as_deref()).or_else(elder)
    }

    /// Whether a manifest of an index says something of another one, instead of being an image.
    pub fn is_attestation(&self) -> bool {
        let unknown = |platform: &Platform| platform.is_unknown();
        self.annotations.reference.is_some() || self.platform.as_ref().is_some_and(unknown)
    }
}

impl Manifest {
    /// What it is of. An image has the configuration of one and layers that are tars; where none of them is, it is a
    /// signature or an attestation that has the configuration of an image only to be taken by old registries.
    pub fn contents(&self) -> Result<Contents, ManifestError> {
        if is_image_config(&self.config.media_type)
            && let Some(rafs) = self.rafs()
        {
            check_count("layers", self.layers.len(), MAX_LAYERS)?;
            return Ok(Contents::Rafs(Box::new(rafs)));
        }
        let is_layer = |layer: &Descriptor| LayerType::of(&layer.media_type).is_some();
        let of_image = self.layers.is_empty() || self.layers.iter().any(is_layer);
        if is_image_config(&self.config.media_type) && of_image {
            check_count("layers", self.layers.len(), MAX_LAYERS)?;
            let layers = (1..).zip(&self.layers).map(|(number, blob)| layer(number, blob));
            return Ok(Contents::Image(layers.collect::<Result<_, _>>()?));
        }
        let kind = self.artifact_type.as_ref().unwrap_or(&self.config.media_type).clone();
        Ok(Contents::Artifact { kind, files: artifact::files(&self.layers)? })
    }

    /// The layers of an image that Nydus made.
    fn rafs(&self) -> Option<RafsLayers> {
        let is_bootstrap = |layer: &&Descriptor| layer.is_bootstrap();
        let bootstrap = self.layers.iter().find(is_bootstrap)?.clone();
        let version = bootstrap.annotations.rafs_version.as_deref().map(shown);
        let blobs = self.layers.iter().filter(|layer| !layer.is_bootstrap()).cloned().collect();
        Some(RafsLayers { bootstrap, version, blobs })
    }
}

fn layer(number: usize, blob: &Descriptor) -> Result<LayerBlob, ManifestError> {
    let media_type = || shown(&blob.media_type);
    let other = || ManifestError::OtherLayer { number, media_type: media_type() };
    let layer_type = LayerType::of(&blob.media_type).ok_or_else(other)?;
    Ok(LayerBlob { blob: blob.clone(), layer_type })
}

#[cfg(test)]
pub(super) mod tests;
