//! The trees of what is mounted, and what their shape allows.

use std::sync::{Arc, OnceLock};

use dfs_artifact::{Index, OriginRecipe, Recipe};
use dfs_model::GroupRange;
use dfs_peer::engine::{ReadError, Task};
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::Verify;

use super::{MountRequest, MountTableError};
use crate::agent::asker::Asker;
use crate::core::Owner;
use crate::lane::Shape;
use crate::mount::Audience;
use crate::tree::{Footprint, IndexTree, PartTree, Totals, Tree};

/// The index's bytes, shared with whoever else reads it.
pub(in crate::agent) struct SharedIndex(Arc<Index>);

impl AsRef<[u8]> for SharedIndex {
    fn as_ref(&self) -> &[u8] {
        self.0.image().data()
    }
}

/// Spaces that are one file each, and of what is shown.
pub(super) struct Alone {
    pub spaces: Vec<u16>,
    bytes: u64,
}

impl Alone {
    /// Those of a part of what is opened, or of all of it.
    pub fn of(opened: &OpenArtifact, part: Option<&Footprint>) -> Self {
        let recipes = opened.index.as_ref().map(|index| index.index.spaces()).unwrap_or_default();
        let image = opened.index.as_ref().map(|index| index.index.image());
        // Of blocks that small are trees of archives, whose files begin anywhere.
        let is_archive = image.is_none_or(|image| image.block_bytes() == 512);
        let is_alone = |recipe: &Recipe| match &recipe.origin {
            OriginRecipe::Url { .. } => !is_archive,
            OriginRecipe::Members { table, .. } => table.count() == 1,
            OriginRecipe::Parts { .. } | OriginRecipe::Chunks { .. } => false,
        };
        let is_shown = |space| part.is_none_or(|part| part.bytes_in(space) > 0);
        let alone = recipes
            .iter()
            .enumerate()
            .filter(|(space, recipe)| is_alone(recipe) && is_shown(*space));
        let alone = alone.filter_map(|(space, recipe)| {
            Some((u16::try_from(space).ok()?, recipe.length.unwrap_or(0)))
        });
        let (spaces, bytes): (_, Vec<u64>) = alone.unzip();
        Self { spaces, bytes: bytes.iter().sum() }
    }

    /// Of what is shown, whatever there is beside it.
    pub fn shape(&self, request: &MountRequest, part: Option<&Footprint>) -> Shape {
        let (files, bytes) = part.map_or_else(
            || {
                let whole = request.opened.describe();
                (whole.files, whole.bytes)
            },
            |part| (part.files, part.bytes),
        );
        Shape {
            files,
            bytes,
            alone: self.spaces.len() as u64,
            alone_bytes: self.bytes,
            whole: false,
            missing: 0,
            room: None,
            foreign: request.by != Asker::Owner,
            part: !request.path.is_empty(),
            private: matches!(request.audience, Audience::Only(_)),
            others: request.owner != Owner::default(),
            limited: request.cache_quota.is_some(),
            verified: request.verify == Verify::Reads,
            follows: request.follow.is_some(),
        }
    }
}

/// Whether every byte of every file is here, and in no doubt; what lies between them, in an archive, need not be. Blocks.
pub(super) fn is_whole(opened: &OpenArtifact) -> bool {
    let all = GroupRange::new(0, u64::MAX);
    if opened.tasks.iter().any(|task| task.stored().put_down(all, u64::MAX).is_err()) {
        return false;
    }
    if opened.tasks.iter().all(|task| task.stored().complete()) {
        return true;
    }
    let footprint = whole_tree(opened).ok().and_then(|tree| Footprint::of(&tree).ok());
    footprint.is_some_and(|footprint| {
        opened.tasks.iter().enumerate().all(|task| shows_whole(&footprint, task))
    })
}

/// Whether every byte of a space is here that is in a footprint, and in no doubt. Blocks.
pub(in crate::agent) fn shows_whole(footprint: &Footprint, (space, task): (usize, &Task)) -> bool {
    let (have, length) = (task.stored().have(), task.length().unwrap_or(0));
    let here: u64 = footprint.within(space, &have, length).map(|run| run.len()).sum();
    let mut ranges = footprint.within(space, &have, length);
    here == footprint.bytes_in(space) && ranges.all(|run| task.stored().ready(run.groups()).is_ok())
}

/// What of a tree is shown, and which of its bytes.
pub(in crate::agent) type Part = (Arc<dyn Tree>, OnceLock<Option<Footprint>>);

pub(in crate::agent) fn tree_of(
    whole: IndexTree<SharedIndex>,
    path: &[u8],
) -> Result<Part, MountTableError> {
    if path.is_empty() {
        return Ok((Arc::new(whole), OnceLock::new()));
    }
    let part = part(whole, path)?;
    let footprint = Footprint::of(&part)?;
    Ok((Arc::new(part), OnceLock::from(Some(footprint))))
}

/// Entries of a tree that may have taken much to be made.
const MANY: u64 = 10_000;

/// What is to be mounted. Of a part it looks at every inode: blocks.
pub(super) fn asked_for(opened: &OpenArtifact, path: &[u8]) -> Result<Part, MountTableError> {
    let whole = whole_tree(opened)?;
    give_back(&whole);
    tree_of(whole, path)
}

/// Gives the system what a large tree took while its index was made.
fn give_back(made: &IndexTree<SharedIndex>) {
    if made.totals().inodes < MANY {
        return;
    }
    dfs_service::allocator::give_back();
}

/// The tree of an index.
pub(in crate::agent) fn whole_tree(
    opened: &OpenArtifact,
) -> Result<IndexTree<SharedIndex>, MountTableError> {
    let index = opened.index.as_ref().ok_or(MountTableError::NoTree)?;
    let of = match opened.target.url.url().scheme() {
        "file" => TreeOf::FileSystem,
        _ => TreeOf::Archive,
    };
    tree_of_index(&index.index, of)
}

/// What a tree was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum TreeOf {
    /// An archive, an image, or a listing.
    Archive,
    /// A directory of this machine.
    FileSystem,
}

/// The tree of an index alone.
pub(in crate::agent) fn tree_of_index(
    index: &Arc<Index>,
    of: TreeOf,
) -> Result<IndexTree<SharedIndex>, MountTableError> {
    let image = dfs_artifact::erofs::Image::open(SharedIndex(Arc::clone(index)))
        .map_err(|error| ReadError::Swarm(error.to_string()))?;
    // Only archives and file systems can carry access control lists; asking costs a request an inode.
    let acls = image.block_bytes() == 512 || of == TreeOf::FileSystem;
    let totals = Totals { inodes: image.inodes(), bytes: index.facts().bytes, acls };
    Ok(IndexTree::new(image, totals))
}

fn part<T: Tree>(tree: T, path: &[u8]) -> Result<PartTree<T>, MountTableError> {
    let none = || MountTableError::NoPath(String::from_utf8_lossy(path).into_owned());
    PartTree::at(tree, path)?.ok_or_else(none)
}
