//! The layers of an image as one tree, as overlayfs shows them and the OCI image specification describes it.
//!
//! Layers are applied from the lowest up. Of each, first what it hides is taken out of what is below it
//! ([`Mark`]), so that it never hides what it brings itself, in whatever order; then its entries are put in place; last its
//! hard links to what lower layers have, which were looked up before anything was hidden. Every file keeps the place of its bytes:
//! only the numbers of spaces change. Invariant: no name that is a mark is ever in the tree.
//!
//! Nothing is called by depth, and names, nodes and runs are bounded for all layers together, so that what a hostile
//! image costs is known beforehand.

mod mark;
mod read;

use std::collections::HashMap;

use crate::erofs::{FormatError, Image, Kind, MAX_SPACES, Visit};
use crate::tree::{Content, LeftOut, NodeId, PendingLink, TreeBuilder, TreeError};
use mark::Mark;
use read::Spent;

/// A layer's own tree, as it stands in its tar: marks are ordinary entries in it.
pub struct Layer<'a, D> {
    /// The tree; an implied directory is told from one that was described.
    pub image: &'a Image<D>,
    /// Number that its space 0 gets; its others follow.
    pub first_space: u16,
    /// Hard links to what lower layers have ([`crate::tar::TarScan::finish_layer`]).
    pub links: &'a [PendingLink],
    /// BLAKE3 of the content of a file, by its node, where it is known.
    pub digest: &'a dyn Fn(u64) -> Option<[u8; 32]>,
}

/// What layers make together.
#[derive(Debug)]
pub struct Merged {
    /// The tree; its files lie in the spaces of all layers.
    pub tree: TreeBuilder,
    /// Hard links without a target.
    pub left_out: LeftOut,
}

/// Why layers make no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The index of a layer cannot be read.
    #[error("layer {layer} of the image cannot be merged")]
    Image {
        /// Which one, counted from 1, the lowest.
        layer: usize,
        /// Why.
        #[source]
        source: FormatError,
    },
    /// The index of a layer has an entry that no tree can hold.
    #[error("layer {layer} of the image cannot be merged")]
    Entry {
        /// Which one, counted from 1, the lowest.
        layer: usize,
        /// Why.
        #[source]
        source: TreeError,
    },
    /// More devices than an index can have.
    #[error("the image's layers lie in more than the 256 spaces of one tree")]
    TooManySpaces,
    /// More than an index can hold.
    #[error("the image has more {0} than an index can hold")]
    TooMuch(&'static str),
}

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Image(#[from] FormatError),
    #[error(transparent)]
    Entry(#[from] TreeError),
    #[error("more {0} than an index can hold")]
    TooMuch(&'static str),
}

impl Fault {
    fn of(self, layer: usize) -> MergeError {
        match self {
            Self::Image(source) => MergeError::Image { layer, source },
            Self::Entry(source) => MergeError::Entry { layer, source },
            Self::TooMuch(what) => MergeError::TooMuch(what),
        }
    }
}

/// Lays layers over one another, the first being the lowest. A directory that none of them describes has mode 0755 and the
/// newest time of what is in it.
pub fn merge<D: AsRef<[u8]> + Send + Sync + 'static>(
    layers: &[Layer<'_, D>],
) -> Result<Merged, MergeError> {
    let mut merge = Merge::default();
    for (number, layer) in (1..).zip(layers) {
        let spaces = usize::from(layer.first_space) + usize::from(layer.image.spaces());
        if spaces > MAX_SPACES {
            return Err(MergeError::TooManySpaces);
        }
        merge.apply(layer).map_err(|fault| fault.of(number))?;
    }
    merge.tree.date_implicit_directories();
    Ok(Merged { tree: merge.tree, left_out: merge.left_out })
}

/// The tree as it grows, and what was spent on it.
#[derive(Default)]
struct Merge {
    tree: TreeBuilder,
    left_out: LeftOut,
    spent: Spent,
}

/// The directories that a walk is in: the length of the path to each, and its node in the tree, where it has one.
struct Trail(Vec<(usize, Option<NodeId>)>);

impl Trail {
    fn new() -> Self {
        Self(vec![(0, Some(TreeBuilder::ROOT))])
    }

    /// Goes to where a visited entry lies: its directory and its name.
    fn go<'v>(&mut self, visit: &'v Visit) -> (Option<NodeId>, &'v [u8]) {
        let slash = visit.path.iter().rposition(|&byte| byte == b'/');
        let (above, name) = slash.map_or((0, 0), |at| (at, at + 1));
        while self.0.pop_if(|(length, _)| *length > above).is_some() {}
        (self.0.last().and_then(|(_, dir)| *dir), &visit.path[name..])
    }

    /// Goes on into the directory that was visited last.
    fn enter(&mut self, visit: &Visit, dir: Option<NodeId>) {
        self.0.push((visit.path.len(), dir));
    }
}

impl Merge {
    fn apply<D: AsRef<[u8]> + Send + Sync + 'static>(
        &mut self,
        layer: &Layer<'_, D>,
    ) -> Result<(), Fault> {
        let links = self.look_up(layer.links)?;
        self.hide(layer.image)?;
        self.hide_by_links(layer.links);
        self.add(layer)?;
        for (path, node) in links {
            if let Err(error) = self.tree.link_node(path, node) {
                self.left_out.add(path, error.to_string());
            }
        }
        Ok(())
    }

    /// The nodes of lower layers that links of this one name, and its own links to them.
    fn look_up<'l>(&mut self, links: &'l [PendingLink]) -> Result<Vec<(&'l [u8], NodeId)>, Fault> {
        let mut known: HashMap<&[u8], NodeId> = HashMap::new();
        let mut found = Vec::new();
        for PendingLink { path, target } in links {
            // It may imply all the directories on its way.
            let elements = path.split(|&byte| byte == b'/').count();
            self.spent.entries(elements, path.len() + target.len())?;
            if path.split(|&byte| byte == b'/').any(|name| Mark::of(name).is_some()) {
                continue;
            }
            let below = || self.tree.find(&self.tree.follow(target)?);
            match known.get(&target[..]).copied().or_else(below) {
                Some(node) if !matches!(self.tree.node(node).content, Content::Directory) => {
                    known.insert(path, node);
                    found.push((&path[..], node));
                }
                Some(_) => self.left_out.add(path, "it is a hard link to a directory".to_owned()),
                None => {
                    let reason = "it is a hard link to what is in no layer below it";
                    self.left_out.add(path, reason.to_owned());
                }
            }
        }
        Ok(found)
    }

    /// Takes what a layer hides out of what is below it.
    fn hide<D: AsRef<[u8]> + Send + Sync + 'static>(
        &mut self,
        image: &Image<D>,
    ) -> Result<(), Fault> {
        let mut trail = Trail::new();
        for visit in image.walk() {
            let visit = visit?;
            let (dir, name) = trail.go(&visit);
            let mark = Mark::of(name);
            if let (Some(dir), Some(mark)) = (dir, mark) {
                self.obey(dir, mark);
            }
            if visit.kind == Kind::Directory {
                let dir = dir.filter(|_| mark.is_none());
                trail.enter(&visit, dir.and_then(|dir| self.tree.directory_in(dir, name)));
            }
        }
        Ok(())
    }

    /// Does the same for marks that are hard links to nothing: their names alone count.
    fn hide_by_links(&mut self, links: &[PendingLink]) {
        for PendingLink { path, .. } in links {
            let mut names = path.rsplit(|&byte| byte == b'/');
            let Some(mark) = names.next().and_then(Mark::of) else { continue };
            if names.any(|name| Mark::of(name).is_some()) {
                continue;
            }
            let above = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            if let Some(dir) = self.tree.find(&path[..above]) {
                self.obey(dir, mark);
            }
        }
    }

    fn obey(&mut self, dir: NodeId, mark: Mark<'_>) {
        match mark {
            Mark::Opaque => self.tree.clear(dir),
            Mark::Hides(hidden) => self.tree.remove_in(dir, hidden),
            Mark::Nothing => {}
        }
    }

    /// Puts the entries of a layer over what is below it.
    fn add<D: AsRef<[u8]> + Send + Sync + 'static>(
        &mut self,
        layer: &Layer<'_, D>,
    ) -> Result<(), Fault> {
        let image = layer.image;
        let root = image.attr(image.root())?;
        if !image.is_implied(image.root())? {
            self.tree.describe_root(layer.meta(&root, &mut self.spent)?)?;
        }
        // Nodes of the tree by those of the layer, where these have several names.
        let mut shared = HashMap::new();
        let mut trail = Trail::new();
        for visit in image.walk() {
            let visit = visit?;
            let (dir, name) = trail.go(&visit);
            let node = match dir.filter(|_| Mark::of(name).is_none()) {
                Some(dir) => Some(self.put(layer, dir, name, &visit, &mut shared)?),
                None => None,
            };
            if visit.kind == Kind::Directory {
                trail.enter(&visit, node);
            }
        }
        Ok(())
    }

    fn put<D: AsRef<[u8]> + Send + Sync + 'static>(
        &mut self,
        layer: &Layer<'_, D>,
        dir: NodeId,
        name: &[u8],
        visit: &Visit,
        shared: &mut HashMap<u64, NodeId>,
    ) -> Result<NodeId, Fault> {
        self.spent.entries(1, name.len())?;
        let attr = layer.image.attr(visit.nid)?;
        if attr.kind != visit.kind {
            let what = "it is of another kind than its name says";
            return Err(FormatError::Corrupt { nid: visit.nid, what }.into());
        }
        if layer.image.is_implied(visit.nid)? {
            return Ok(self.tree.imply_in(dir, name)?);
        }
        if let Some(&node) = shared.get(&visit.nid) {
            self.tree.link_in(dir, name, node)?;
            return Ok(node);
        }
        let meta = layer.meta(&attr, &mut self.spent)?;
        let content = layer.content(&attr, &mut self.spent)?;
        let node = self.tree.put_in(dir, name, meta, content)?;
        if attr.kind != Kind::Directory && attr.nlink > 1 {
            shared.insert(visit.nid, node);
        }
        Ok(node)
    }
}

#[cfg(test)]
mod tests;
