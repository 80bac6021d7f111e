//! The layers of an image over one another: an index that is made once for each list of layers, whatever the tags and
//! repositories that have it.

use std::collections::{BTreeSet, HashMap};

use dfs_model::{TaskKey, TaskKind, Validator};
use dfs_source::oci::{ContentDigest, Located, named_digest};
use dfs_source::{SourceError, Sources, Target};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::OnceCell;

use super::attached::Believed;
use super::equal::{self, Held};
use super::layers::{Known, Wanted};
use super::{AT_ONCE, Context, ImageError};
use crate::erofs::{BlockSize, MAX_SPACES};
use crate::image::manifest::LayerBlob;
use crate::image::{Layer, merge};
use crate::index::{ImageFacts, Index, IndexError};
use crate::recipe::Recipe;
use crate::resolve::{Artifact, Planned, ResolveError};
use crate::toc::Announced;

/// Number of how layers become an index: what was kept by another one is made again.
const FORMAT: &str = "layers.1";

/// Layers over one another, the lowest first, and what each must unpack to.
pub(super) struct Stack<'a> {
    pub reference: &'a Located,
    pub layers: &'a [LayerBlob],
    pub diff_ids: &'a [ContentDigest],
    /// The image that they are.
    pub of: ImageFacts,
    /// What is attached to it and believed, once somebody wants it.
    pub believed: OnceCell<Option<Believed>>,
}

impl<'a> Stack<'a> {
    pub fn new(
        reference: &'a Located,
        layers: &'a [LayerBlob],
        diff_ids: &'a [ContentDigest],
        of: ImageFacts,
    ) -> Self {
        Self { reference, layers, diff_ids, of, believed: OnceCell::new() }
    }
}

/// The layers that there are, each once, and which of them each layer is: an image may have one several times.
pub(super) fn distinct<'a>(stack: &Stack<'a>) -> (Vec<Wanted<'a>>, Vec<usize>) {
    let (mut places, mut distinct) = (HashMap::new(), Vec::new());
    let layers = (1..).zip(stack.layers.iter().zip(stack.diff_ids));
    let order = layers.map(|(number, (layer, diff_id))| {
        *places.entry((layer.blob.digest, *diff_id)).or_insert_with(|| {
            distinct.push(Wanted { number, layer, diff_id: *diff_id });
            distinct.len() - 1
        })
    });
    let order = order.collect();
    (distinct, order)
}

impl Context<'_> {
    /// The tree that these layers make together.
    pub(super) async fn layers(
        &self,
        stack: &Stack<'_>,
        sources: &Sources,
    ) -> Result<Artifact, ResolveError> {
        let Stack { reference, layers, .. } = *stack;
        let name = self.name_of_stack(stack);
        let own = layers.iter().map(|layer| layer.blob.digest).collect();
        let kept = match &name {
            Some(name) => self.kept_stack((reference, &stack.of), name, &own).await?,
            None => None,
        };
        if let Some(artifact) = kept {
            return Ok(artifact);
        }
        let (distinct, order) = distinct(stack);
        let reading = distinct.into_iter().map(|layer| self.layer(stack, layer, sources));
        let reading: Vec<_> = reading.collect();
        let read: Vec<Known> = stream::iter(reading).buffered(AT_ONCE).try_collect().await?;
        let held = match &name {
            Some(name) if read.iter().any(|layer| layer.is_new) => self.held(name, &own).await,
            _ => Vec::new(),
        };
        // A large image takes seconds.
        let merging = tokio::task::spawn_blocking(move || lay_over(&read, &order, &held));
        let merged = merging.await;
        let merged = merged.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let Laid { mut planned, new, others } = merged.map_err(|error| self.image_error(error))?;
        let others = self.readable(reference, others).await;
        equal::point_at(&mut planned.tree, &new, &others, planned.tasks.len());
        planned.tasks.extend(others.into_iter().map(|other| other.recipe));
        for task in &mut planned.tasks {
            relocate(task, reference);
        }
        planned.image = Some(stack.of.clone());
        self.finish_and_keep(planned, name.as_ref()).await
    }

    /// Writes the index of a stack, and keeps it by its name.
    pub(super) async fn finish_and_keep(
        &self,
        planned: Planned,
        name: Option<&TaskKey>,
    ) -> Result<Artifact, ResolveError> {
        let artifact = self.finish(planned).await?;
        if let (Some(opener), Some(name), Some(index)) =
            (&self.options.opener, name, &artifact.index)
        {
            opener.keep(name, index.bytes.clone()).await;
        }
        Ok(artifact)
    }

    /// By what the index over these layers is found again.
    fn name_of_stack(&self, stack: &Stack<'_>) -> Option<TaskKey> {
        let Stack { reference, layers, diff_ids, .. } = *stack;
        let lines = layers.iter().zip(diff_ids);
        let lines = lines.map(|(layer, diff_id)| {
            let table = Announced::of(layer).map_or_else(String::new, |table| table.name());
            format!("{} {diff_id}{table}\n", layer.blob.digest)
        });
        self.name_of_list(reference, &lines.collect::<String>(), FORMAT)
    }

    /// By what the index is found again that was made of this list in such a way; none of an image on a disk, whose rights
    /// are those of files.
    pub(super) fn name_of_list(
        &self,
        reference: &Located,
        list: &str,
        format: &str,
    ) -> Option<TaskKey> {
        let list = ContentDigest::sha256(list.as_bytes());
        let version = Validator { version: Some(format.to_owned()), ..Validator::default() };
        let key = self.key(TaskKind::Index, &self.target, version);
        Some(TaskKey { url: reference.layers_name(&list)?, ..key })
    }

    /// The index over the same layers that was made before; `None` where there is none, or what it points into cannot be
    /// read here.
    pub(super) async fn kept_stack(
        &self,
        (reference, of): (&Located, &ImageFacts),
        name: &TaskKey,
        own: &BTreeSet<ContentDigest>,
    ) -> Result<Option<Artifact>, ResolveError> {
        let Some(opener) = &self.options.opener else { return Ok(None) };
        let Some(bytes) = opener.kept(name).await else { return Ok(None) };
        let Ok(index) = Index::open(bytes) else { return Ok(None) };
        let digests = index.spaces().iter().filter_map(|space| named_digest(&space.key.url));
        let (mine, others): (BTreeSet<_>, BTreeSet<_>) =
            digests.partition(|digest| own.contains(digest));
        if !self.is_public(reference) {
            self.ask_for(reference, &mine).await?;
        }
        if self.ask_for(reference, &others).await.is_err_and(|error| is_gone(&error)) {
            return Ok(None);
        }
        let (url, reference, of) = (self.url(), reference.clone(), of.clone());
        let telling = tokio::task::spawn_blocking(move || {
            let mut tasks = index.spaces().to_vec();
            tasks.iter_mut().for_each(|task| relocate(task, &reference));
            let bytes = index.retold(url, of, &tasks)?;
            Ok::<_, IndexError>((bytes, tasks, index.left_out().clone()))
        });
        let told = telling.await;
        let told = told.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        // One that cannot be told anew is made anew.
        Ok(told.ok().map(|(bytes, tasks, left_out)| self.built(bytes, tasks, left_out)))
    }

    /// Asks the registry whether it gives these blobs of the repository to who asks here.
    pub(super) async fn ask_for(
        &self,
        reference: &Located,
        digests: &BTreeSet<ContentDigest>,
    ) -> Result<(), SourceError> {
        let targets = digests.iter().map(|digest| self.blob_target(reference, digest));
        let targets: Vec<Target> = targets.collect();
        let asking: Vec<_> = targets.iter().map(|target| self.source.stat(target)).collect();
        stream::iter(asking).buffered(AT_ONCE).try_for_each(async |_| Ok(())).await
    }

    /// Other layers of the registry that are whole here.
    async fn held(&self, name: &TaskKey, own: &BTreeSet<ContentDigest>) -> Vec<Index> {
        let Some(opener) = &self.options.opener else { return Vec::new() };
        let kept = opener.layers(name).await.into_iter();
        let is_other = |index: &Index| {
            let digest = index.spaces().first().and_then(|space| named_digest(&space.key.url));
            digest.is_some_and(|digest| !own.contains(&digest))
        };
        kept.filter(is_other).collect()
    }

    /// Those that the registry gives to who asks, in the repository that was named: what is not here any more one day
    /// is read there.
    async fn readable(&self, reference: &Located, others: Vec<Held>) -> Vec<Held> {
        let asking = others.into_iter().map(|other| async {
            let digest = named_digest(&other.recipe.key.url)?;
            let asked = self.ask_for(reference, &BTreeSet::from([digest])).await;
            asked.is_ok().then_some(other)
        });
        let asking: Vec<_> = asking.collect();
        stream::iter(asking).buffered(AT_ONCE).filter_map(async |other| other).collect().await
    }
}

/// Whether a registry says that it gives a blob to nobody, or not to who asks. One that says nothing may have it: what it is
/// needed for shows it.
fn is_gone(error: &SourceError) -> bool {
    matches!(error, SourceError::NotFound { .. } | SourceError::NotPermitted { .. })
}

/// Has a task read in the repository that was named, wherever it was seen first.
fn relocate(task: &mut Recipe, reference: &Located) {
    if let Some(digest) = named_digest(&task.key.url) {
        task.origin.relocate(reference.blob(digest).url());
    }
}

/// Layers over one another.
struct Laid {
    planned: Planned,
    /// Of each space, whether its layer was read now.
    new: Vec<bool>,
    /// Other layers in which equal files lie.
    others: Vec<Held>,
}

/// Lays layers over one another in this order, the lowest first. Blocks.
fn lay_over(read: &[Known], order: &[usize], held: &[Index]) -> Result<Laid, ImageError> {
    let mut first_spaces = Vec::with_capacity(read.len());
    let mut new = Vec::new();
    for layer in read {
        first_spaces.push(u16::try_from(new.len()).unwrap_or(u16::MAX));
        new.resize(new.len() + usize::from(layer.index.image().spaces()), layer.is_new);
    }
    let digests: Vec<_> =
        read.iter().map(|layer| move |nid: u64| layer.index.digest(nid)).collect();
    let layers = order.iter().map(|&place| Layer {
        image: read[place].index.image(),
        first_space: first_spaces[place],
        links: read[place].index.links(),
        digest: &digests[place],
    });
    let merged = merge(&layers.collect::<Vec<_>>())?;
    let times = read.iter().map(|layer| layer.index.image().build_time());
    let build_time = times.max().unwrap_or_default();
    let (mut tree, mut left_out, mut tasks) = (merged.tree, merged.left_out, Vec::new());
    for layer in read {
        left_out.join(layer.index.left_out().clone());
        tasks.extend_from_slice(layer.index.spaces());
    }
    equal::point_down(&mut tree);
    let room = MAX_SPACES.saturating_sub(tasks.len());
    let others = equal::worth(&tree, &new, held.iter().filter_map(Held::of).collect(), room);
    let block_size = BlockSize::B512;
    let planned = Planned { tree, block_size, build_time, tasks, left_out, image: None };
    Ok(Laid { planned, new, others })
}
