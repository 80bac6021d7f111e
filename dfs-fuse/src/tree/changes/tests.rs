//! The comparison against one that looks at everything.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::tree::{MemoryTree, MemoryTreeBuilder};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Directory(u16),
    /// Permissions, and which contents in turn; two of the first one are two names of one file.
    File(u16, Vec<u8>),
    Link(u8),
    Marked(u8),
}

type World = BTreeMap<String, Thing>;

/// Bytes of one content, and where it lies.
const LENGTH: u64 = 10;

fn build(world: &World, order: u64) -> MemoryTree {
    let mut paths: Vec<_> = world.keys().collect();
    // Parents first, siblings in any order: numbers say nothing.
    let mixed = |path: &str| blake3::hash(format!("{order}{path}").as_bytes()).as_bytes()[0];
    paths.sort_by_key(|path| (path.split('/').count(), mixed(path)));
    let mut tree = MemoryTreeBuilder::new();
    for path in paths {
        match &world[path] {
            Thing::Directory(mode) => {
                tree.dir(path, *mode).unwrap();
            }
            Thing::File(mode, contents) => {
                let extent = |content: &u8| match content {
                    0 => Extent::Zero { length: LENGTH },
                    at => {
                        Extent::Data { space: 0, offset: u64::from(*at) * LENGTH, length: LENGTH }
                    }
                };
                tree.file(path, *mode, contents.iter().map(extent).collect()).unwrap();
            }
            Thing::Link(target) => {
                tree.symlink(path, &[b'a' + target]).unwrap();
            }
            Thing::Marked(mark) => {
                let nid = tree.file(path, 0o644, Vec::new()).unwrap();
                tree.xattr(nid, "user.mark", &[*mark]);
            }
        }
    }
    tree.build()
}

fn find(tree: &MemoryTree, path: &str) -> u64 {
    let names = path.split('/').filter(|name| !name.is_empty());
    names.fold(tree.root(), |at, name| tree.lookup(at, name.as_bytes()).unwrap().unwrap())
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn is_dir(world: &World, path: &str) -> bool {
    path.is_empty() || matches!(world.get(path), Some(Thing::Directory(_)))
}

fn things() -> impl Strategy<Value = Thing> {
    prop_oneof![
        3 => prop::sample::select(vec![0o755, 0o700]).prop_map(Thing::Directory),
        4 => (prop::sample::select(vec![0o644, 0o600]), prop::collection::vec(0..4u8, 0..3))
            .prop_map(|(mode, contents)| Thing::File(mode, contents)),
        1 => (0..2u8).prop_map(Thing::Link),
        1 => (0..2u8).prop_map(Thing::Marked),
    ]
}

/// Up to three levels of a few names, so that the same path is often there twice.
fn worlds() -> impl Strategy<Value = World> {
    let paths = prop::collection::btree_map("[abc](/[abc](/[ab])?)?", things(), 0..25);
    paths.prop_map(|all| {
        let whole: BTreeMap<_, _> = all;
        let has_parents = |path: &&String| {
            let mut at = parent(path);
            while !at.is_empty() {
                if !matches!(whole.get(at), Some(Thing::Directory(_))) {
                    return false;
                }
                at = parent(at);
            }
            true
        };
        let kept: Vec<_> = whole.keys().filter(has_parents).cloned().collect();
        kept.into_iter().map(|path| (path.clone(), whole[&path].clone())).collect()
    })
}

/// What the one that looks at everything says: names by their directory's path, directories, and paths.
type Expected = (BTreeSet<(String, String)>, BTreeSet<String>, BTreeSet<String>);

fn expected(before: &World, after: &World, known: &BTreeSet<String>) -> Expected {
    let (mut names, mut attributes, mut kept) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::from([String::new()]));
    let was_seen = |dir: &str| {
        let mut at = dir;
        loop {
            if !known.contains(at) || !is_dir(before, at) || !is_dir(after, at) {
                return false;
            }
            if at.is_empty() {
                return true;
            }
            at = parent(at);
        }
    };
    for path in before.keys().chain(after.keys()) {
        if !was_seen(parent(path)) {
            continue;
        }
        let (was, is) = (before.get(path), after.get(path));
        let is_still = match (was, is) {
            (Some(Thing::Directory(_)), Some(Thing::Directory(_))) => true,
            (was, is) => was == is,
        };
        match was {
            Some(_) if !known.contains(path) => {}
            _ if is_still => drop(kept.insert(path.clone())),
            _ => {
                let name = path.rsplit('/').next().unwrap().to_owned();
                names.insert((parent(path).to_owned(), name));
            }
        }
    }
    for dir in before.keys().cloned().chain([String::new()]).filter(|dir| was_seen(dir)) {
        let mode = |world: &World| match world.get(&dir) {
            Some(Thing::Directory(mode)) => *mode,
            _ => 0,
        };
        // The number of directories in it is among its attributes.
        let below = |world: &World| {
            let inside = |path: &&String| parent(path) == dir && is_dir(world, path);
            world.keys().filter(inside).count()
        };
        let has_news = names.iter().any(|(of, _)| *of == dir);
        if has_news || mode(before) != mode(after) || below(before) != below(after) {
            attributes.insert(dir);
        }
    }
    (names, attributes, kept)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_shown_is_what_whoever_looks_at_everything_finds(
        before in worlds(),
        after in worlds(),
        keep in any::<u64>(),
        knows in any::<u64>(),
        order in any::<u64>(),
    ) {
        // Some of what was is so still.
        let drawn = |path: &str, seed: u64| {
            let hash = blake3::hash(format!("{seed}{path}").as_bytes());
            !hash.as_bytes()[0].is_multiple_of(3)
        };
        let mut after = after;
        for (path, thing) in &before {
            if drawn(path, keep) && is_dir(&after, parent(path)) {
                let clashes = is_dir(&after, path) && !matches!(thing, Thing::Directory(_));
                if !clashes {
                    after.insert(path.clone(), thing.clone());
                }
            }
        }
        let known: BTreeSet<String> =
            before.keys().filter(|path| drawn(path, knows)).cloned().chain([String::new()]).collect();
        let (old, new) = (build(&before, order), build(&after, order ^ 1));
        let numbers: BTreeMap<u64, &str> =
            known.iter().map(|path| (find(&old, path), path.as_str())).collect();
        let knows = |nid: u64| numbers.contains_key(&nid);
        let same = |a: Extent, b: Extent| a == b;
        let comparison = Comparison { before: &old, after: &new, known: &knows, same: &same };
        let (mut names, mut attributes) = (BTreeSet::new(), BTreeSet::new());
        let mut twice = false;
        let kept = comparison.run(&mut |change| match change {
            Change::Name { dir, name } => {
                let name = String::from_utf8(name.to_vec()).unwrap();
                twice |= !names.insert((numbers[&dir].to_owned(), name));
            }
            Change::Attributes { dir } => twice |= !attributes.insert(numbers[&dir].to_owned()),
        }).unwrap();
        prop_assert!(!twice);
        let (all_names, all_attributes, all_kept) = expected(&before, &after, &known);
        prop_assert_eq!(names, all_names);
        prop_assert_eq!(attributes, all_attributes);
        let pairs: Unchanged =
            all_kept.iter().map(|path| (find(&old, path), find(&new, path))).collect();
        prop_assert_eq!(kept, pairs);
    }
}

fn all_known(_: u64) -> bool {
    true
}

#[test]
fn a_file_of_several_names_is_never_taken_for_what_it_was() {
    let tree = || {
        let mut tree = MemoryTreeBuilder::new();
        let file = tree.file("a", 0o644, Vec::new()).unwrap();
        tree.hard_link("b", file).unwrap();
        tree.build()
    };
    let (old, new) = (tree(), tree());
    let same = |a: Extent, b: Extent| a == b;
    let comparison = Comparison { before: &old, after: &new, known: &all_known, same: &same };
    let mut shown = 0;
    let kept = comparison.run(&mut |_| shown += 1).unwrap();
    assert_eq!((kept.len(), shown), (1, 3), "both names, and the directory");
}

#[test]
fn bytes_that_nobody_can_tell_the_same_are_others() {
    let world = World::from([("f".to_owned(), Thing::File(0o644, vec![1, 2]))]);
    let (old, new) = (build(&world, 0), build(&world, 0));
    let same = |_: Extent, _: Extent| false;
    let comparison = Comparison { before: &old, after: &new, known: &all_known, same: &same };
    let mut shown = Vec::new();
    comparison.run(&mut |change| shown.push(matches!(change, Change::Name { .. }))).unwrap();
    assert_eq!(shown, [true, false]);
}

#[test]
fn a_directory_of_two_names_is_a_damaged_index() {
    let mut tree = MemoryTreeBuilder::new();
    let dir = tree.dir("a", 0o755).unwrap();
    tree.link("b", dir).unwrap();
    let (old, new) = (tree.clone().build(), tree.build());
    let same = |a: Extent, b: Extent| a == b;
    let comparison = Comparison { before: &old, after: &new, known: &all_known, same: &same };
    assert!(matches!(comparison.run(&mut |_| ()), Err(TreeError::Corrupt(_))));
}
