//! All that a name leads to: documents, and the blobs that they name. What copies an image elsewhere copies these, bit for
//! bit.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use dfs_model::UrlError;
use dfs_source::oci::{Located, digest_of, validator};
use dfs_source::{Source, SourceError, Target, read_short};

use super::manifest::MAX_DOCUMENT;
use super::media::{Distribution, DocumentKind, LayerType};
use super::{
    ContentDigest, Descriptor, Document, Manifest, ManifestError, NoSuchPlatform, Platform, choose,
    parse,
};

/// Indexes within indexes that are followed.
const MAX_DEPTH: usize = 3;
/// Bytes of all documents of one name.
const MAX_DOCUMENTS: u64 = 64 << 20;

/// Of which machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Machines {
    /// All that there is, by the name as it is.
    All,
    /// What is best for one.
    One(Platform),
}

/// A document, as it lies there.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its digest.
    pub digest: ContentDigest,
    /// What it is.
    pub media_type: String,
    /// Its bytes, which are what the digest names.
    pub bytes: Bytes,
    /// What an index says that it is for.
    pub platform: Option<Platform>,
    /// What it names itself, where it is a manifest.
    pub manifest: Option<Manifest>,
}

/// What a name stands for, before a machine is chosen.
#[derive(Debug, Clone)]
pub struct Top {
    /// Its digest.
    pub digest: ContentDigest,
    /// What who has it says that it is.
    pub media_type: Option<String>,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Top {
    /// Reads what `target` names.
    pub async fn of(source: &dyn Source, target: &Target) -> Result<Self, GraphError> {
        let stat = source.stat(target).await?;
        let length = stat.length.unwrap_or_default();
        if length > MAX_DOCUMENT as u64 {
            return Err(ManifestError::TooLong { what: "manifest", length }.into());
        }
        let named = Target { url: stat.url.clone(), ..target.clone() };
        let bytes = read_short(source, &named, &stat.validator, MAX_DOCUMENT as u64).await?;
        let digest = digest_of(&stat.validator).unwrap_or_else(|| ContentDigest::sha256(&bytes));
        Ok(Self { digest, media_type: stat.content_type, bytes })
    }

    /// It, understood.
    pub fn document(&self) -> Result<Document, ManifestError> {
        parse(&self.bytes, self.media_type.as_deref())
    }
}

/// What a name leads to.
#[derive(Debug, Clone)]
pub struct Graph {
    /// What the name stands for.
    pub top: Top,
    /// Those that are named before those that name them. The last one is what was asked for.
    pub documents: Vec<Named>,
    /// Each once, configurations too; without what the registry does not have to give.
    pub blobs: Vec<Descriptor>,
}

/// Why it is not known what a name leads to.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Where it is.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A document.
    #[error(transparent)]
    Document(#[from] ManifestError),
    /// It is for other machines.
    #[error(transparent)]
    Platform(#[from] NoSuchPlatform),
    /// Its indexes lead to indexes.
    #[error("the image's index leads to indexes more than {MAX_DEPTH} deep")]
    Depth,
    /// Its documents are longer than all that is known.
    #[error("the image's documents have more than {MAX_DOCUMENTS} bytes together")]
    TooLong,
}

impl From<UrlError> for GraphError {
    fn from(error: UrlError) -> Self {
        Self::Source(error.into())
    }
}

impl Graph {
    /// Follows what `target` names.
    pub async fn of(
        source: &Arc<dyn Source>,
        target: &Target,
        machines: &Machines,
    ) -> Result<Self, GraphError> {
        let unusable = |reason| UrlError::Unusable { url: target.url.to_string(), reason };
        let located = Located::of(&target.url).map_err(unusable)?;
        let top = Top::of(&**source, target).await?;
        let Top { digest, media_type, bytes } = top.clone();
        let mut first = First { digest, bytes, media_type, platform: None };
        let graph = Self { top, documents: Vec::new(), blobs: Vec::new() };
        let seen = BTreeSet::new();
        let mut following = Following { source, target, located, bytes: 0, seen, graph };
        if let Machines::One(platform) = machines {
            first = following.chosen(first, platform).await?;
        }
        Box::pin(following.document(first, 0)).await?;
        Ok(following.graph)
    }

    /// What was asked for.
    pub fn root(&self) -> Option<&Named> {
        self.documents.last()
    }

    /// Bytes of the blobs.
    pub fn blob_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add)
    }
}

/// A document that was read.
struct First {
    /// By which it is named: it has one for each algorithm.
    digest: ContentDigest,
    bytes: Bytes,
    media_type: Option<String>,
    platform: Option<Platform>,
}

struct Following<'a> {
    source: &'a Arc<dyn Source>,
    target: &'a Target,
    located: Located,
    bytes: u64,
    seen: BTreeSet<ContentDigest>,
    graph: Graph,
}

impl Following<'_> {
    /// The manifest that is best for a machine.
    async fn chosen(&self, mut first: First, platform: &Platform) -> Result<First, GraphError> {
        for _ in 0..MAX_DEPTH {
            let Document::Index(named) = parse(&first.bytes, first.media_type.as_deref())? else {
                return Ok(first);
            };
            first = self.read(choose(&named, platform)?).await?;
        }
        Err(GraphError::Depth)
    }

    async fn read(&self, descriptor: &Descriptor) -> Result<First, GraphError> {
        if descriptor.size > MAX_DOCUMENT as u64 {
            let length = descriptor.size;
            return Err(ManifestError::TooLong { what: "manifest", length }.into());
        }
        let target =
            Target { url: self.located.manifest(descriptor.digest).url(), ..self.target.clone() };
        let pin = validator(&descriptor.digest, Some(descriptor.size));
        let bytes = read_short(&**self.source, &target, &pin, MAX_DOCUMENT as u64).await?;
        descriptor.verify("manifest", &bytes)?;
        let media_type = Some(descriptor.media_type.clone()).filter(|kind| !kind.is_empty());
        let (digest, platform) = (descriptor.digest, descriptor.platform.clone());
        Ok(First { digest, bytes, media_type, platform })
    }

    /// Takes a document, after what it names.
    async fn document(&mut self, first: First, depth: usize) -> Result<(), GraphError> {
        if depth > MAX_DEPTH {
            return Err(GraphError::Depth);
        }
        let First { digest, bytes, media_type, platform } = first;
        if !self.seen.insert(digest) {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > MAX_DOCUMENTS {
            return Err(GraphError::TooLong);
        }
        let (manifest, shape) = match parse(&bytes, media_type.as_deref())? {
            Document::Manifest(manifest) => {
                self.blobs_of(&manifest);
                (Some(*manifest), "application/vnd.oci.image.manifest.v1+json")
            }
            Document::Index(named) => {
                for descriptor in &named {
                    self.below(descriptor, depth).await?;
                }
                (None, "application/vnd.oci.image.index.v1+json")
            }
        };
        let told = own_type(&bytes).or(media_type);
        let media_type = told.unwrap_or_else(|| shape.to_owned());
        self.graph.documents.push(Named { digest, media_type, bytes, platform, manifest });
        Ok(())
    }

    async fn below(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(), GraphError> {
        let kind = &descriptor.media_type;
        if !kind.is_empty() && DocumentKind::of(kind).is_none() {
            self.blob(descriptor);
            return Ok(());
        }
        let first = self.read(descriptor).await?;
        Box::pin(self.document(first, depth + 1)).await
    }

    fn blobs_of(&mut self, manifest: &Manifest) {
        let is_foreign = |layer: &&Descriptor| {
            LayerType::of(&layer.media_type)
                .is_some_and(|layer| layer.distribution == Distribution::Foreign)
        };
        self.blob(&manifest.config);
        manifest
            .layers
            .iter()
            .filter(|layer| !is_foreign(layer))
            .for_each(|layer| self.blob(layer));
    }

    fn blob(&mut self, descriptor: &Descriptor) {
        if self.seen.insert(descriptor.digest) {
            self.graph.blobs.push(descriptor.clone());
        }
    }
}

/// What a document says that it is.
fn own_type(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Told {
        media_type: Option<String>,
    }
    let told: Told = serde_json::from_slice(bytes).ok()?;
    told.media_type.filter(|told| !told.is_empty())
}
