//! What a manifest says of the table of a layer, and the table by that.

use dfs_model::{ByteRange, Transform};

use super::{LayerByTable, TocError, footer};
use crate::image::manifest::LayerBlob;
use crate::image::media::Compression;
use crate::image::{ContentDigest, verify};
use crate::unpack::{Limits, unpack_all};

/// Longest compressed table, in bytes.
pub(super) const LONGEST: u64 = 64 << 20;
/// What a table may unfold to.
const UNFOLDED: Limits = Limits { length: 128 << 20, ratio: 250, free: 32 << 20 };
/// Bytes of the end of an eStargz layer that are looked at: most tables lie in them.
const TAIL: u64 = 128 * 1024;
/// Name of the table in the tar of an eStargz layer.
pub(super) const TABLE_NAME: &[u8] = b"stargz.index.json";
/// The type of a zstd:chunked table: that of eStargz's.
const TABLE_TYPE: u64 = 1;

/// A table that a manifest names, by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    digest: ContentDigest,
    place: Place,
    /// Bytes of the layer.
    length: u64,
    /// Whether it was written as eStargz is, however it is packed.
    is_stargz: bool,
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where the footer of eStargz says. The digest is of the JSON.
    Footer,
    /// Here. The digest is of the compressed table.
    Here(ByteRange),
}

impl Announced {
    /// The table of a layer, where its descriptor names one.
    pub fn of(layer: &LayerBlob) -> Option<Self> {
        let (blob, length) = (&layer.blob, layer.blob.size);
        let (digest, place) = match layer.layer_type.compression {
            Compression::None => return None,
            Compression::Gzip => (blob.stargz_table()?, Place::Footer),
            Compression::Zstd => {
                let (digest, position) = blob.chunked_table()?;
                (digest, Place::Here(position_of(position, length)?))
            }
        };
        let is_stargz = blob.stargz_table().is_some();
        Some(Self { digest: digest.parse().ok()?, place, length, is_stargz })
    }

    /// What of the name of an index that was made by it tells that.
    pub fn name(&self) -> String {
        format!(" table.1 {}", self.digest)
    }

    /// The bytes of the layer that are to be read first.
    pub fn first(&self) -> ByteRange {
        match self.place {
            Place::Footer => ByteRange::new(self.length.saturating_sub(TAIL), self.length),
            Place::Here(range) => range,
        }
    }

    /// Where the table is, by the bytes of [`Self::first`].
    pub fn table(&self, first: &[u8]) -> Result<ByteRange, TocError> {
        match self.place {
            Place::Footer => footer::table(first, self.length),
            Place::Here(range) => Ok(range),
        }
    }

    /// The tree of the layer, from the bytes of its table, which lies at `place`. Blocks.
    pub fn layer(&self, table: &[u8], place: ByteRange) -> Result<LayerByTable, TocError> {
        let layer = LayerByTable::read(&self.json(table)?, self.transform(), place.start)?;
        Ok(if self.is_stargz { layer.without_landmarks() } else { layer })
    }

    /// What the layer is unpacked by.
    fn transform(&self) -> Transform {
        match self.place {
            Place::Footer => Transform::Gunzip,
            Place::Here(_) => Transform::Unzstd,
        }
    }

    /// The JSON of the table, once it was held against its digest.
    fn json(&self, table: &[u8]) -> Result<Vec<u8>, TocError> {
        if let Place::Here(_) = self.place {
            verify(table, &self.digest)?;
            return Ok(unpack_all(Transform::Unzstd, UNFOLDED, table)?);
        }
        let json = in_tar(unpack_all(Transform::Gunzip, UNFOLDED, table)?)?;
        verify(&json, &self.digest)?;
        Ok(json)
    }
}

/// `offset:length:unpacked length:type`, in a layer of `length` bytes.
fn position_of(text: &str, length: u64) -> Option<ByteRange> {
    let mut numbers = text.split(':').map(|number| number.parse::<u64>().ok());
    let mut number = || numbers.next().flatten();
    let (start, packed, _, kind) = (number()?, number()?, number()?, number()?);
    let end = start.checked_add(packed).filter(|&end| end <= length)?;
    let is_sound = kind == TABLE_TYPE && start > 0 && (1..=LONGEST).contains(&packed);
    is_sound.then_some(ByteRange::new(start, end))
}

/// The table of eStargz is a file of the tar, behind a header of one record.
fn in_tar(mut tar: Vec<u8>) -> Result<Vec<u8>, TocError> {
    let length = || {
        let name = tar.get(..100)?.split(|&byte| byte == 0).next();
        let digits = std::str::from_utf8(tar.get(124..136)?).ok()?;
        let digits = digits.trim_matches(['\0', ' ']);
        usize::from_str_radix(digits, 8).ok().filter(|_| name == Some(TABLE_NAME))
    };
    let length = length().filter(|&length| length <= tar.len().saturating_sub(512));
    let length = length.ok_or(TocError::Table("its tar does not begin with it"))?;
    tar.drain(..512);
    tar.truncate(length);
    Ok(tar)
}
