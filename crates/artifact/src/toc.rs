//! Tables of contents that some image builders put at the end of a layer: eStargz (gzip) and zstd:chunked.
//!
//! A table names the entries of the layer's tar, and where each piece of a file begins a member or frame of its own, so that it is
//! had without what lies before. It is read only where the image's manifest has its digest ([`Announced`]), and only where it has a
//! digest of every piece: what is shown by it is as sure as the manifest. What it says makes a tree by the rules of tars.
//! All of it is pure and bounded, and hostile until it is checked.

mod announced;
mod footer;
mod layer;
mod pieces;
mod rows;

pub use announced::Announced;
pub use layer::LayerByTable;

use crate::image::Mismatch;
use crate::placing::TooMuch;
use crate::unpack::UnpackError;

/// Why a table of contents is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TocError {
    /// The layer does not end as one that has a table.
    #[error("the layer does not end in the place of its table of contents")]
    NoFooter,
    /// The place that is named for it cannot be one.
    #[error("the layer's table of contents lies outside of it, or is too long")]
    Bounds,
    /// It cannot be unpacked.
    #[error("the layer's table of contents cannot be unpacked: {0}")]
    Unpack(#[from] UnpackError),
    /// It is not the one that the manifest names.
    #[error("the layer's table of contents is another one than the image's manifest says: {0}")]
    Other(#[from] Mismatch),
    /// It is not what it should be.
    #[error("the layer's table of contents is not one: {0}")]
    Table(&'static str),
    /// Its JSON is none.
    #[error("the layer's table of contents is not JSON as it should be: {0}")]
    Json(String),
    /// More than an index can hold.
    #[error("the layer's table of contents has more {0} than an index can hold")]
    TooMuch(&'static str),
}

impl From<TooMuch> for TocError {
    fn from(TooMuch(what): TooMuch) -> Self {
        Self::TooMuch(what)
    }
}

#[cfg(test)]
mod tests;
