//! The whole index checked once, so that what is mounted is known to be a tree.

use std::collections::HashSet;

use super::{Index, IndexError};
use crate::erofs::{FormatError, Kind};
use crate::recipe::{OriginRecipe, Recipe};

impl Index {
    pub(super) fn validate(&self) -> Result<(), IndexError> {
        for (number, recipe) in (0u16..).zip(&self.spaces) {
            self.validate_space(number, recipe)?;
        }
        self.validate_digests()?;
        self.validate_tree()
    }

    fn validate_space(&self, number: u16, recipe: &Recipe) -> Result<(), IndexError> {
        let length = recipe.length.unwrap_or_default();
        let (tag, blocks) =
            self.image.space(number).ok_or(IndexError::Contradiction("a space is missing"))?;
        if tag != space_tag(recipe) {
            return Err(IndexError::Contradiction("a space is another task than its recipe's"));
        }
        if !recipe.is_read_at_its_place() {
            return Err(IndexError::Contradiction("a space is read elsewhere than its task is"));
        }
        if blocks != length.div_ceil(self.image.block_bytes()) {
            return Err(IndexError::Contradiction("a space is of another length than its recipe"));
        }
        let table = match &recipe.origin {
            OriginRecipe::Members { table, .. } => Some((table.digest(), table.length())),
            OriginRecipe::Parts { table, .. } => Some((table.digest(), table.length())),
            OriginRecipe::Chunks { table, .. } => Some((table.digest(), table.length())),
            OriginRecipe::Url { .. } => None,
        };
        let etag = recipe.key.validator.etag.as_ref();
        if table.is_some_and(|(digest, of_table)| etag != Some(&digest) || of_table != length) {
            return Err(IndexError::Contradiction("the table of a space is not its task's"));
        }
        Ok(())
    }

    fn validate_digests(&self) -> Result<(), IndexError> {
        let table = &self.image.data().as_ref()[self.digests.clone()];
        let nids = table.chunks_exact(super::DIGEST_BYTES);
        let nids = nids.map(|entry| u64::from_le_bytes(*entry.first_chunk().expect("40 bytes")));
        if !nids.is_sorted_by(|a, b| a < b) {
            return Err(IndexError::Contradiction("its digests are out of order"));
        }
        Ok(())
    }

    fn validate_tree(&self) -> Result<(), IndexError> {
        let image = &self.image;
        let (mut files, mut bytes) = (0u64, 0u64);
        // Inodes may overlap each other's chunks in a hostile image: all chunks together must fit it.
        let mut chunks = image.length() / 8;
        let mut xattr_bytes = 4 * image.length();
        let mut seen = HashSet::new();
        image.xattrs(image.root())?;
        for visit in image.walk() {
            let visit = visit?;
            let corrupt = |what| IndexError::from(FormatError::Corrupt { nid: visit.nid, what });
            let attr = image.attr(visit.nid)?;
            if attr.kind != visit.kind {
                return Err(corrupt("it is of another kind than its name says"));
            }
            if attr.kind != Kind::Directory && !seen.insert(visit.nid) {
                continue;
            }
            let xattrs = image.xattrs(visit.nid)?;
            let cost = xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum();
            let left = xattr_bytes.checked_sub(cost);
            xattr_bytes = left.ok_or_else(|| corrupt("its attributes repeat others"))?;
            match attr.kind {
                Kind::Symlink => drop(image.read_link(visit.nid)?),
                Kind::File => {
                    files += 1;
                    bytes = bytes.saturating_add(attr.size);
                    self.validate_file(visit.nid, &mut chunks)?;
                }
                _ => {}
            }
        }
        if (files, bytes) != (self.facts.files, self.facts.bytes) {
            return Err(IndexError::Contradiction("it counts other files than it has"));
        }
        Ok(())
    }

    fn validate_file(&self, nid: u64, chunks: &mut u64) -> Result<(), IndexError> {
        let corrupt = |what| IndexError::from(FormatError::Corrupt { nid, what });
        let mut at = 0;
        while let Some(extent) = self.image.extent(nid, at)? {
            *chunks = chunks.checked_sub(1).ok_or_else(|| corrupt("it has too many chunks"))?;
            if let Some(space) = extent.space {
                let length = self.spaces[usize::from(space)].length.unwrap_or_default();
                if extent.offset + extent.length > length {
                    return Err(corrupt("a file ends behind its space"));
                }
            }
            at += extent.length;
        }
        Ok(())
    }
}

/// What a space's device slot is tagged with: the task id in hexadecimal digits.
pub(crate) fn space_tag(recipe: &Recipe) -> [u8; 64] {
    let mut tag = [0; 64];
    let id = recipe.key.id().to_string();
    tag[..id.len()].copy_from_slice(id.as_bytes());
    tag
}
