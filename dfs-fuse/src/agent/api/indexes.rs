//! The indexes of an image's layers for others, and those of others.

use bytes::Bytes;
use dfs_artifact::resolve::{IndexedImage, IndexedLayer};
use dfs_peer::engine::Role;
use dfs_proto::node::{ImportIndexesReply, LayerIndexPart};
use dfs_source::Target;
use futures::stream::{self, BoxStream, StreamExt};

use crate::agent::{Agent, CallError, MountTableError};

/// Bytes in one message.
const MESSAGE: usize = 1 << 20;

type Parts = BoxStream<'static, Result<LayerIndexPart, CallError>>;

/// Has them made where they are not known.
pub(super) async fn index(agent: &Agent, target: &Target) -> Result<Parts, CallError> {
    let engine = &agent.host().engine;
    if engine.role() == Role::Node {
        return Err(CallError::NotAlone);
    }
    let IndexedImage { about, layers } =
        engine.index_layers(target).await.map_err(std::sync::Arc::new)?;
    let first = LayerIndexPart {
        about_type: about.media_type,
        about: about.digest.to_string(),
        about_size: about.size,
        ..LayerIndexPart::default()
    };
    let parts = stream::iter(layers).then(encoded).flat_map(|encoded| match encoded {
        Ok((layer, content)) => stream::iter(parts(&layer, &content)).map(Ok).boxed(),
        Err(error) => stream::iter([Err(error)]).boxed(),
    });
    Ok(stream::iter([Ok(first)]).chain(parts).boxed())
}

async fn encoded(layer: IndexedLayer) -> Result<(IndexedLayer, Bytes), CallError> {
    let encoding = tokio::task::spawn_blocking(move || {
        let content = layer.known.encode();
        (layer, content)
    });
    let (layer, content) = encoding.await.map_err(|_| MountTableError::Stopping)?;
    let content = content.map_err(|error| CallError::BadRequest(error.to_string()))?;
    Ok((layer, content.into()))
}

fn parts(layer: &IndexedLayer, content: &Bytes) -> Vec<LayerIndexPart> {
    let steps = (0..content.len()).step_by(MESSAGE);
    let steps = steps.map(|at| content.slice(at..content.len().min(at + MESSAGE)));
    let mut parts: Vec<_> =
        steps.map(|content| LayerIndexPart { content, ..LayerIndexPart::default() }).collect();
    if let Some(first) = parts.first_mut() {
        (first.layer, first.diff_id) = (layer.layer.to_string(), layer.diff_id.to_string());
    }
    parts
}

/// Takes over what lies at `from`.
pub(super) async fn import(
    agent: &Agent,
    target: &Target,
    from: &Target,
) -> Result<ImportIndexesReply, CallError> {
    let engine = &agent.host().engine;
    if engine.role() == Role::Node {
        return Err(CallError::NotAlone);
    }
    let imported = engine.import_indexes(target, from).await.map_err(std::sync::Arc::new)?;
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(ImportIndexesReply {
        layers: number(imported.layers),
        taken: number(imported.taken),
        known: number(imported.known),
    })
}
