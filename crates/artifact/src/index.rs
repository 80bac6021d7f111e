//! The index file: an EROFS image and, behind it, what dfs needs to go back to source by itself.
//!
//! ```text
//! EROFS image, whole blocks │ sections, each at a multiple of 8 │ section table │ footer
//! ```
//! The kernel reads the image and ignores the rest. Format numbers name the layout of everything behind
//! the image; a reader takes the ones it knows. Invariant: an [`Index`] that was parsed agrees with
//! itself: every file lies in its space, every space is the task its recipe says.

pub mod delta;
mod sections;
pub(crate) mod validate;

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{CanonicalUrl, TaskKey};
use dfs_source::oci::ContentDigest;
use serde::{Deserialize, Serialize};

use crate::chunks::{ChunkTable, ChunkTableError};
use crate::erofs::{FormatError, Image, WrittenImage};
use crate::members::{MemberTable, MemberTableError};
use crate::parts::{PartTable, PartTableError};
use crate::recipe::{OriginRecipe, Place, Recipe};
use crate::tree::{LeftOut, PendingLink};
use sections::{DIGEST_BYTES, SectionKind, Sections};

pub use sections::{FORMAT, SectionError};

/// What an index says of the artifact it was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What was indexed.
    pub url: CanonicalUrl,
    /// Regular files in the tree, hard links counted once.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Of which image of a registry, or of a layout, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageFacts>,
}

/// What an index says of the image that it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// What the name stood for: a manifest, or a list of them.
    pub digest: ContentDigest,
    /// The manifest.
    pub manifest: ContentDigest,
    /// For which machines it is; `None` of what has a manifest and is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// Everything in the facts section: the facts and the spaces without their tables.
#[derive(Serialize, Deserialize)]
struct FactsSection {
    #[serde(flatten)]
    facts: Facts,
    spaces: Vec<SpaceFacts>,
}

#[derive(Serialize, Deserialize)]
struct SpaceFacts {
    key: TaskKey,
    length: u64,
    place: Place,
    /// `None`: its members are in a section of their own.
    ranges: Option<bool>,
    /// The same of an archive whose parts are in a section of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive_ranges: Option<bool>,
    /// The same of a blob whose chunks are in a section of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chunk_ranges: Option<bool>,
}

/// Why an index is not taken or made.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The image in it.
    #[error(transparent)]
    Image(#[from] FormatError),
    /// What stands behind the image.
    #[error(transparent)]
    Sections(#[from] SectionError),
    /// A member table in it.
    #[error("space {space} of the index is corrupt")]
    Members {
        /// Which space.
        space: u16,
        /// Why.
        #[source]
        source: MemberTableError,
    },
    /// A part table in it.
    #[error("space {space} of the index is corrupt")]
    Parts {
        /// Which space.
        space: u16,
        /// Why.
        #[source]
        source: PartTableError,
    },
    /// A chunk table in it.
    #[error("space {space} of the index is corrupt")]
    Chunks {
        /// Which space.
        space: u16,
        /// Why.
        #[source]
        source: ChunkTableError,
    },
    /// The facts cannot be read or written.
    #[error("the facts of the index are corrupt")]
    Facts(#[source] serde_json::Error),
    /// Parts contradict each other.
    #[error("the index contradicts itself: {0}")]
    Contradiction(&'static str),
}

/// An index over its bytes.
#[derive(Debug)]
pub struct Index {
    image: Image<Bytes>,
    facts: Facts,
    spaces: Vec<Recipe>,
    /// Where the digests stand in the file.
    digests: std::ops::Range<usize>,
    left_out: LeftOut,
    links: Vec<PendingLink>,
}

/// Makes an index of an image and the recipes of its spaces, in their order.
pub fn write_index(
    image: WrittenImage,
    url: CanonicalUrl,
    spaces: &[Recipe],
    left_out: &LeftOut,
    of: Option<ImageFacts>,
) -> Result<Vec<u8>, IndexError> {
    let facts = Facts { url, files: image.files, bytes: image.content_bytes, image: of };
    write(image, facts, spaces, left_out, &[])
}

/// The same of a layer of an image: `links` are those to what lower layers have.
pub fn write_layer_index(
    image: WrittenImage,
    url: CanonicalUrl,
    spaces: &[Recipe],
    left_out: &LeftOut,
    links: &[PendingLink],
) -> Result<Vec<u8>, IndexError> {
    let facts = Facts { url, files: image.files, bytes: image.content_bytes, image: None };
    write(image, facts, spaces, left_out, links)
}

fn write(
    image: WrittenImage,
    facts: Facts,
    spaces: &[Recipe],
    left_out: &LeftOut,
    links: &[PendingLink],
) -> Result<Vec<u8>, IndexError> {
    let digests: Vec<u8> = image
        .digests
        .iter()
        .flat_map(|(nid, digest)| nid.to_le_bytes().into_iter().chain(*digest))
        .collect();
    assemble(image.bytes, facts, spaces, &digests, left_out, links)
}

fn assemble(
    image: Vec<u8>,
    facts: Facts,
    spaces: &[Recipe],
    digests: &[u8],
    left_out: &LeftOut,
    links: &[PendingLink],
) -> Result<Vec<u8>, IndexError> {
    let described = spaces.iter().map(SpaceFacts::of).collect::<Option<Vec<_>>>();
    let spaces_described =
        described.ok_or(IndexError::Contradiction("a space has no length beforehand"))?;
    let section = FactsSection { facts, spaces: spaces_described };
    let section = serde_json::to_vec(&section).map_err(IndexError::Facts)?;
    let tables = spaces.iter().map(|recipe| match &recipe.origin {
        OriginRecipe::Members { table, .. } => table.encoded().len(),
        _ => 0,
    });
    let mut out = sections::Writer::new(image, tables.sum());
    out.add(SectionKind::Facts, 0, &section);
    for (number, recipe) in spaces.iter().enumerate() {
        match &recipe.origin {
            OriginRecipe::Members { table, .. } => {
                out.add(SectionKind::Members, number as u32, table.encoded());
            }
            OriginRecipe::Parts { table, .. } => {
                out.add(SectionKind::Parts, number as u32, &table.encode());
            }
            OriginRecipe::Chunks { table, .. } => {
                out.add(SectionKind::Chunks, number as u32, &table.encode());
            }
            OriginRecipe::Url { .. } => {}
        }
    }
    out.add(SectionKind::Digests, 0, digests);
    if left_out.count > 0 {
        let section = serde_json::to_vec(left_out).map_err(IndexError::Facts)?;
        out.add(SectionKind::LeftOut, 0, &section);
    }
    if !links.is_empty() {
        let section = serde_json::to_vec(links).map_err(IndexError::Facts)?;
        out.add(SectionKind::Links, 0, &section);
    }
    Ok(out.finish())
}

impl SpaceFacts {
    fn of(recipe: &Recipe) -> Option<Self> {
        let (key, length, place) =
            (recipe.key.clone(), recipe.length?, recipe.origin.place().clone());
        let plain =
            Self { key, length, place, ranges: None, archive_ranges: None, chunk_ranges: None };
        Some(match &recipe.origin {
            OriginRecipe::Url { ranges, .. } => Self { ranges: Some(*ranges), ..plain },
            OriginRecipe::Members { .. } => plain,
            OriginRecipe::Parts { ranges, .. } => Self { archive_ranges: Some(*ranges), ..plain },
            OriginRecipe::Chunks { ranges, .. } => Self { chunk_ranges: Some(*ranges), ..plain },
        })
    }
}

impl Index {
    /// Takes the bytes of an index and checks all of it: the whole tree is walked once.
    pub fn parse(data: impl Into<Bytes>) -> Result<Self, IndexError> {
        let index = Self::open(data)?;
        index.validate()?;
        Ok(index)
    }

    /// Takes the bytes of an index that was parsed before and not changed since: the tree is not
    /// walked, every access stays checked.
    pub fn open(data: impl Into<Bytes>) -> Result<Self, IndexError> {
        let data = data.into();
        let image = Image::open(data.clone())?;
        let bytes = &data[..];
        let start = usize::try_from(image.length()).expect("the image lies in memory");
        let sections = Sections::read(bytes, start)?;
        let facts = sections.find(SectionKind::Facts, 0).ok_or(SectionError::Missing("facts"))?;
        let facts: FactsSection = serde_json::from_slice(facts).map_err(IndexError::Facts)?;
        if facts.spaces.len() != usize::from(image.spaces()) {
            return Err(IndexError::Contradiction("image and facts count different spaces"));
        }
        let mut spaces = Vec::with_capacity(facts.spaces.len());
        for (number, space) in (0u16..).zip(facts.spaces) {
            spaces.push(read_space(&data, &sections, number, space)?);
        }
        let digests = sections.place(SectionKind::Digests, 0).unwrap_or(0..0);
        if digests.len() % DIGEST_BYTES != 0 {
            return Err(IndexError::Contradiction("its digests are cut off"));
        }
        let left_out = match sections.find(SectionKind::LeftOut, 0) {
            Some(section) => serde_json::from_slice(section).map_err(IndexError::Facts)?,
            None => LeftOut::default(),
        };
        let links = match sections.find(SectionKind::Links, 0) {
            Some(section) => serde_json::from_slice(section).map_err(IndexError::Facts)?,
            None => Vec::new(),
        };
        Ok(Self { facts: facts.facts, spaces, digests, left_out, links, image })
    }

    /// The tree.
    pub fn image(&self) -> &Image<Bytes> {
        &self.image
    }

    /// What it was made from.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The tasks that the spaces are, by their numbers.
    pub fn spaces(&self) -> &[Recipe] {
        &self.spaces
    }

    /// What the origin has and the tree lacks.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Of a layer of an image: hard links to what lower layers have.
    pub fn links(&self) -> &[PendingLink] {
        &self.links
    }

    /// The same index of the same tree, as that of another image, its spaces read by these recipes: of the same tasks.
    pub fn retold(
        &self,
        url: CanonicalUrl,
        image: ImageFacts,
        spaces: &[Recipe],
    ) -> Result<Vec<u8>, IndexError> {
        let data = self.image.data();
        let length = usize::try_from(self.image.length()).expect("the image lies in memory");
        let digests = data.get(self.digests.clone()).unwrap_or_default();
        let facts = Facts { url, image: Some(image), ..self.facts.clone() };
        assemble(data[..length].to_vec(), facts, spaces, digests, &self.left_out, &self.links)
    }

    /// The same index over these spaces in place of its own, as if it had been made over them. What that is must be
    /// parsed anew: they may not be fit for it.
    pub fn rebound(&self, url: CanonicalUrl, spaces: &[Recipe]) -> Result<Vec<u8>, IndexError> {
        let tags: Vec<_> = spaces.iter().map(validate::space_tag).collect();
        let digests = self.image.data().get(self.digests.clone()).unwrap_or_default();
        let facts = Facts { url, image: None, ..self.facts.clone() };
        let image = self.image.retagged(&tags);
        assemble(image, facts, spaces, digests, &self.left_out, &self.links)
    }

    /// Files whose digests the index knows: their nodes, ascending, and BLAKE3 of their contents.
    pub fn digests(&self) -> impl Iterator<Item = (u64, [u8; 32])> {
        let table = self.image.data().as_ref().get(self.digests.clone()).unwrap_or_default();
        table.chunks_exact(DIGEST_BYTES).filter_map(|entry| {
            let (nid, digest) = entry.split_first_chunk()?;
            Some((u64::from_le_bytes(*nid), *digest.first_chunk()?))
        })
    }

    /// BLAKE3 of a file's content, where the index knows it.
    pub fn digest(&self, nid: u64) -> Option<[u8; 32]> {
        let table = self.image.data().as_ref().get(self.digests.clone())?;
        let (mut low, mut high) = (0, table.len() / DIGEST_BYTES);
        while low < high {
            let middle = usize::midpoint(low, high);
            let entry = table.get(middle * DIGEST_BYTES..)?;
            let there = u64::from_le_bytes(*entry.first_chunk()?);
            match there.cmp(&nid) {
                std::cmp::Ordering::Equal => return entry.get(8..)?.first_chunk().copied(),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

fn read_space(
    data: &Bytes,
    sections: &Sections<'_>,
    number: u16,
    space: SpaceFacts,
) -> Result<Recipe, IndexError> {
    let SpaceFacts { key, length, place, ranges, archive_ranges, chunk_ranges } = space;
    let section =
        |kind, what| sections.find(kind, u32::from(number)).ok_or(SectionError::Missing(what));
    let origin = match (ranges, archive_ranges, chunk_ranges) {
        (Some(ranges), _, _) => OriginRecipe::Url { place, ranges },
        (None, None, Some(ranges)) => {
            let table = ChunkTable::decode(section(SectionKind::Chunks, "chunk table")?);
            let table = table.map_err(|source| IndexError::Chunks { space: number, source })?;
            OriginRecipe::Chunks { place, ranges, table: Arc::new(table) }
        }
        (None, Some(ranges), _) => {
            let table = PartTable::decode(section(SectionKind::Parts, "part table")?);
            let table = table.map_err(|source| IndexError::Parts { space: number, source })?;
            OriginRecipe::Parts { place, ranges, table: Arc::new(table) }
        }
        (None, None, None) => {
            let table =
                MemberTable::decode(data.slice_ref(section(SectionKind::Members, "member table")?));
            let table = table.map_err(|source| IndexError::Members { space: number, source })?;
            OriginRecipe::Members { base: place, table: Arc::new(table) }
        }
    };
    Ok(Recipe { key, length: Some(length), origin })
}

#[cfg(test)]
mod tests;
