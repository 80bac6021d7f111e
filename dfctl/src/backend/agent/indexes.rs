//! The indexes of an image's layers, off the wire.

use bytes::BytesMut;
use dfs_artifact::image::attached::{About, MAX_BLOB};
use dfs_proto::node::LayerIndexPart;

use super::missing;
use crate::backend::{Failure, LayerIndexBlob, LayerIndexes};

/// Most layers.
const MAX_LAYERS: usize = 255;

/// What came so far.
#[derive(Default)]
pub struct Gathered {
    about: Option<About>,
    layers: Vec<LayerIndexBlob>,
    /// Of the last layer.
    content: BytesMut,
}

impl Gathered {
    /// Takes the next part.
    pub fn take(&mut self, part: LayerIndexPart) -> Result<(), Failure> {
        if self.about.is_none() {
            let digest = part.about.parse().map_err(|_| missing("index.about"))?;
            let (media_type, size) = (part.about_type, part.about_size);
            self.about = Some(About { media_type, digest, size });
            return Ok(());
        }
        if !part.layer.is_empty() {
            self.end();
            let layer = part.layer.parse().map_err(|_| missing("index.layer"))?;
            let diff_id = part.diff_id.parse().map_err(|_| missing("index.diff_id"))?;
            if self.layers.len() == MAX_LAYERS {
                return Err(missing("index.layers"));
            }
            self.layers.push(LayerIndexBlob { layer, diff_id, content: Default::default() });
        }
        let length = self.content.len() + part.content.len();
        if self.layers.is_empty() || length as u64 > MAX_BLOB {
            return Err(missing("index.content"));
        }
        self.content.extend_from_slice(&part.content);
        Ok(())
    }

    fn end(&mut self) {
        if let Some(last) = self.layers.last_mut() {
            last.content = self.content.split().freeze();
        }
    }

    /// All of it.
    pub fn finish(mut self) -> Result<LayerIndexes, Failure> {
        self.end();
        let about = self.about.ok_or_else(|| missing("index.about"))?;
        Ok(LayerIndexes { about, layers: self.layers })
    }
}
