//! Equal files of several layers: each is pointed at where it lies already, so that its bytes move once.
//!
//! Invariant: a file is pointed only at a place of which the digest of all its bytes was taken while that layer was read.

use std::collections::{HashMap, HashSet};

use crate::index::Index;
use crate::recipe::Recipe;
use crate::tree::{FileData, Location, TreeBuilder};

/// Files from this many bytes on are looked for: a group.
pub(super) const LEAST: u64 = 64 * 1024;

/// Most other layers that one image points into.
const MOST: usize = 16;

/// A content: its digest and its length.
type Content = ([u8; 32], u64);

/// A layer that is whole here, and where its files lie.
pub(super) struct Held {
    /// The task of its tar.
    pub recipe: Recipe,
    files: HashMap<Content, u64>,
}

impl Held {
    /// What a kept index says; `None` where nothing in it can be pointed at.
    pub fn of(index: &Index) -> Option<Self> {
        let recipe = index.spaces().first()?.clone();
        let image = index.image();
        let place = |(nid, digest): (u64, [u8; 32])| {
            let length = image.attr(nid).ok()?.size;
            let extent = image.extent(nid, 0).ok()??;
            let lies_together = extent.space == Some(0) && extent.length == length;
            (lies_together && length >= LEAST).then_some(((digest, length), extent.offset))
        };
        let files: HashMap<_, _> = index.digests().filter_map(place).collect();
        (!files.is_empty()).then_some(Self { recipe, files })
    }
}

fn content(file: &FileData) -> Option<Content> {
    let digest = file.digest.as_deref()?;
    (file.length >= LEAST).then_some((*digest, file.length))
}

/// Points each file at the lowest layer of the image that has the same.
pub(super) fn point_down(tree: &mut TreeBuilder) {
    let mut lowest: HashMap<Content, Location> = HashMap::new();
    for file in tree.files_mut() {
        let Some(content) = content(file) else { continue };
        let found = lowest.entry(content).or_insert(file.location);
        if (file.location.space, file.location.offset) < (found.space, found.offset) {
            *found = file.location;
        }
    }
    for file in tree.files_mut() {
        if let Some(found) = content(file).and_then(|content| lowest.get(&content)) {
            file.location = *found;
        }
    }
}

fn is_new(file: &FileData, new: &[bool]) -> bool {
    new.get(usize::from(file.location.space)).copied().unwrap_or(false)
}

/// Those layers that have most of what is new, at most `room` of them.
pub(super) fn worth(
    tree: &TreeBuilder,
    new: &[bool],
    mut held: Vec<Held>,
    room: usize,
) -> Vec<Held> {
    let files = tree.files().filter(|file| is_new(file, new));
    let mut sought: HashSet<Content> = files.filter_map(content).collect();
    let mut chosen = Vec::new();
    while chosen.len() < MOST.min(room) {
        let gain = |held: &Held| -> u64 {
            let found = sought.iter().filter(|content| held.files.contains_key(*content));
            found.map(|(_, length)| length).sum()
        };
        let gains = held.iter().map(gain).enumerate();
        // Of equals the one that was read last.
        let best = gains.rev().max_by_key(|(_, gain)| *gain).filter(|(_, gain)| *gain > 0);
        let Some((best, _)) = best else { break };
        let best = held.remove(best);
        sought.retain(|content| !best.files.contains_key(content));
        chosen.push(best);
    }
    chosen
}

/// Points what is new at these layers, whose spaces follow the `own` ones of the image.
pub(super) fn point_at(tree: &mut TreeBuilder, new: &[bool], others: &[Held], own: usize) {
    for file in tree.files_mut().filter(|file| is_new(file, new)) {
        let Some(content) = content(file) else { continue };
        let found = others.iter().zip(own..).find_map(|(other, space)| {
            let (offset, space) = (*other.files.get(&content)?, u16::try_from(space).ok()?);
            Some(Location { space, offset })
        });
        file.location = found.unwrap_or(file.location);
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::{CanonicalUrl, TaskKey, TaskKind, Transform, Validator};

    use super::*;
    use crate::recipe::{OriginRecipe, Place};
    use crate::tree::{Content as Node, Meta};

    /// A tree of files: name, digest, length, space, offset.
    fn tree(files: &[(&str, u8, u64, u16, u64)]) -> TreeBuilder {
        let mut tree = TreeBuilder::new();
        for &(name, digest, length, space, offset) in files {
            let location = Location { space, offset };
            let file = FileData { length, location, digest: Some(Box::new([digest; 32])) };
            tree.add(name.as_bytes(), Meta::with_mode(0o644), Node::File(file)).unwrap();
        }
        tree
    }

    fn held(files: &[(u8, u64, u64)]) -> Held {
        let url = CanonicalUrl::parse("oci-blob://h/sha256/00").unwrap();
        let key = TaskKey {
            domain: TaskKey::PUBLIC.into(),
            kind: TaskKind::Blob,
            url: url.clone(),
            headers: Vec::new(),
            validator: Validator::default(),
            transform: Transform::Identity,
        };
        let origin = OriginRecipe::Url { place: Place { url, headers: Vec::new() }, ranges: true };
        let files = files.iter().map(|&(digest, length, at)| (([digest; 32], length), at));
        Held { recipe: Recipe { key, length: Some(1 << 30), origin }, files: files.collect() }
    }

    fn places(tree: &TreeBuilder) -> Vec<(u16, u64)> {
        tree.files().map(|file| (file.location.space, file.location.offset)).collect()
    }

    const BIG: u64 = LEAST;

    #[test]
    fn the_lowest_layer_that_has_it_is_pointed_at() {
        let mut tree = tree(&[
            ("a", 1, BIG, 0, 512),
            ("b", 1, BIG, 1, 1024),
            ("short", 1, BIG - 1, 1, 4096),
            ("other", 2, BIG, 1, 8192),
            ("twice", 2, BIG, 1, 1536),
        ]);
        point_down(&mut tree);
        assert_eq!(places(&tree), [(0, 512), (0, 512), (1, 4096), (1, 1536), (1, 1536)]);
    }

    #[test]
    fn what_is_new_is_pointed_at_the_layers_that_have_most_of_it() {
        let mut tree = tree(&[
            ("old", 1, BIG, 0, 512),
            ("x", 2, BIG, 1, 512),
            ("y", 3, BIG, 1, 1024),
            ("z", 4, BIG, 1, 2048),
            ("longer", 2, BIG + 1, 1, 4096),
        ]);
        let new = [false, true];
        let little = || held(&[(2, BIG, 10), (1, BIG, 20)]);
        let much = || held(&[(2, BIG, 30), (3, BIG, 40)]);
        let nothing = || held(&[(1, BIG, 50)]);
        let chosen = worth(&tree, &new, vec![nothing(), little(), much()], 9);
        assert_eq!(chosen.len(), 1, "what one of them has no other is needed for");
        assert!(
            worth(&tree, &new, vec![much()], 0).is_empty(),
            "there is no room for another space"
        );
        point_at(&mut tree, &new, &chosen, 2);
        assert_eq!(places(&tree), [(0, 512), (2, 30), (2, 40), (1, 2048), (1, 4096)]);
    }
}
