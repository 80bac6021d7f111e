//! The index of a layer by the table of contents that it has: nothing else of the layer is read.

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::ByteRange;
use dfs_source::oci::Located;
use dfs_source::{SourceError, Sources};

use super::layers::{Indexed, Known, Wanted};
use super::{Context, ImageError};
use crate::chunks::ChunkTableError;
use crate::origin::{Forward, Origin, open_origin};
use crate::recipe::{OriginRecipe, Recipe};
use crate::resolve::ResolveError;
use crate::toc::{Announced, TocError};

/// Why a layer is not shown by its table.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("its registry knows no ranges")]
    NoRanges,
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Table(#[from] TocError),
    #[error(transparent)]
    Chunks(#[from] ChunkTableError),
    #[error(transparent)]
    Index(#[from] ImageError),
}

impl Context<'_> {
    /// The index of a layer by its table of contents; `None` where it has none, or one that cannot be used: then all of it is to be
    /// read. It is kept by the table's digest too: whoever names another table of the same layer finds another index.
    pub(super) async fn layer_by_table(
        &self,
        reference: &Located,
        wanted: Wanted<'_>,
        sources: &Sources,
    ) -> Result<Option<Known>, ResolveError> {
        let Some(announced) = Announced::of(wanted.layer) else { return Ok(None) };
        let name = self.name_of(reference, wanted, &announced.name());
        if let Some(known) = self.kept_layer(reference, wanted, &name).await? {
            return Ok(Some(known));
        }
        let blob = self.layer_blob(reference, wanted.layer).await?;
        let url = blob.origin.place().url.clone();
        match self.index_by_table(announced, blob, wanted.number, sources).await {
            Ok(index) => self.keep_layer(wanted, &name, index).await.map(Some),
            Err(error) => {
                tracing::info!(%url, %error, "a layer's table of contents is not used: all of it is read");
                Ok(None)
            }
        }
    }

    /// Past the store: what is read of a blob there is taken for what others pull of it as it is packed.
    async fn index_by_table(
        &self,
        announced: Announced,
        blob: Recipe,
        number: usize,
        sources: &Sources,
    ) -> Result<Bytes, Unusable> {
        if !matches!(blob.origin, OriginRecipe::Url { ranges: true, .. }) {
            return Err(Unusable::NoRanges);
        }
        let origin = open_origin(&blob, sources, self.target.credentials.clone())?;
        let (table, place) = read_table(origin, &announced).await?;
        let making = tokio::task::spawn_blocking(move || {
            let mut layer = announced.layer(&table, place)?;
            let chunks = std::mem::take(&mut layer.chunks);
            let tasks = vec![Recipe::of_chunks(&blob, layer.length, chunks)?];
            let (scanned, links) = layer.scanned();
            Ok(Indexed { scanned, links, tasks, number }.write()?)
        });
        making.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

/// The bytes of a layer's table, and where they stand.
async fn read_table(
    origin: Arc<dyn Origin>,
    announced: &Announced,
) -> Result<(Bytes, ByteRange), Unusable> {
    let first = announced.first();
    let mut reader = Forward::new(origin, first.end);
    let bytes = reader.read(first).await?;
    let place = announced.table(&bytes)?;
    if place.start >= first.start {
        let (start, end) = (place.start - first.start, place.end - first.start);
        let end = bytes.len().min(end as usize);
        return Ok((bytes.slice(end.min(start as usize)..end), place));
    }
    Ok((reader.read(place).await?, place))
}
