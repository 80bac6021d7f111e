mod made;
mod model;

use std::collections::BTreeMap;

use super::*;
use crate::tree::Meta;
use made::{Entry, Made, What, dir, entry, file, layer, link, listing, mark, merged, seen};
use model::Model;
use proptest::prelude::*;

fn listed(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect()
}

/// What two layers make.
fn assert_makes(lower: &[Entry], upper: &[Entry], expected: &[(&str, &str)]) {
    assert_eq!(listing(&[lower, upper]), listed(expected));
}

#[test]
fn what_an_upper_layer_has_is_seen_in_the_place_of_the_lower() {
    assert_makes(
        &[file("a", "1"), file("b", "1"), file("d/x", "1")],
        &[file("b", "2"), file("d/y", "2"), file("e", "2")],
        &[("a", "1"), ("b", "2"), ("d", "d"), ("d/x", "1"), ("d/y", "2"), ("e", "2")],
    );
}

#[test]
fn a_whiteout_hides_what_is_below_and_nothing_beside_it() {
    let lower = [file("a", "1"), file("d/x", "1"), file("d/y", "1"), file("!x", "1")];
    // It stands behind what it hides, and before: neither order matters, in the tar or by name.
    for upper in [
        [mark(".wh.a"), file("a", "2"), mark("d/.wh.x"), mark(".wh.!x"), file("!x", "2")],
        [file("!x", "2"), mark(".wh.!x"), mark("d/.wh.x"), file("a", "2"), mark(".wh.a")],
    ] {
        assert_makes(&lower, &upper, &[("!x", "2"), ("a", "2"), ("d", "d"), ("d/y", "1")]);
    }
}

#[test]
fn a_whiteout_of_a_directory_hides_all_of_it_and_a_new_one_begins_empty() {
    let mut described = dir("d");
    described.mode = 0o700;
    let lower = [described, file("d/e/x", "1"), file("f", "1")];
    assert_makes(&lower, &[mark(".wh.d")], &[("f", "1")]);
    let upper = [file("d/new", "2"), mark(".wh.d")];
    assert_makes(&lower, &upper, &[("d", "d"), ("d/new", "2"), ("f", "1")]);
    let (found, _) = seen(&[layer(&lower), layer(&upper)]);
    // What the hidden one had is not its own.
    assert_eq!(found["d"].mode, 0o755);
}

#[test]
fn an_opaque_directory_shows_only_its_own_layer() {
    let mut described = dir("d");
    described.mode = 0o700;
    let lower = [described, file("d/e/x", "1"), file("d/y", "1"), file("f", "1")];
    let upper = [file("d/!z", "2"), mark("d/.wh..wh..opq"), file("d/e/new", "2")];
    let expected = [("d", "d"), ("d/!z", "2"), ("d/e", "d"), ("d/e/new", "2"), ("f", "1")];
    assert_makes(&lower, &upper, &expected);
    // It is the same directory: nobody described another.
    let (found, _) = seen(&[layer(&lower), layer(&upper)]);
    assert_eq!(found["d"].mode, 0o700);
    assert_makes(&lower, &[mark(".wh..wh..opq")], &[]);
}

#[test]
fn marks_never_show_whatever_they_are() {
    let plnk = [file(".wh..wh.plnk/7.1", "linked"), link("a", ".wh..wh.plnk/7.1")];
    assert_makes(&[file("x", "1")], &plnk, &[("a", "linked"), ("x", "1")]);
    let odd = [
        dir(".wh.d"),
        file(".wh.d/below", "2"),
        entry(".wh.e", What::Fifo),
        mark(".wh."),
        mark(".wh..."),
        mark(".wh..."),
        mark(".wh..wh.aufs"),
        mark("f/.wh.gone"),
        link(".wh.g", "nowhere"),
        link(".wh..wh.x/.wh.f", "nowhere"),
        link("h/.wh..wh..opq", "nowhere"),
    ];
    let lower =
        [file("d/x", "1"), file("e", "1"), file("f/kept", "1"), file("g", "1"), file("h/x", "1")];
    assert_makes(&lower, &odd, &[("f", "d"), ("f/kept", "1"), ("h", "d")]);
    // In the lowest layer there is nothing to hide.
    assert_makes(&odd, &[], &[("f", "d")]);
}

#[test]
fn a_directory_over_a_directory_gives_it_its_attributes_and_nothing_else_does() {
    let mut lower = dir("d");
    (lower.mode, lower.mtime) = (0o700, 9);
    lower.xattrs = BTreeMap::from([("user.lower".to_owned(), "1".to_owned())]);
    let lower = [lower, file("d/x", "1")];
    let implied = [file("d/y", "2")];
    let (found, _) = seen(&[layer(&lower), layer(&implied)]);
    assert_eq!((found["d"].mode, found["d"].mtime, found["d"].xattrs.len()), (0o700, 9, 1));
    let mut upper = dir("d");
    (upper.mode, upper.mtime) = (0o511, 3);
    upper.xattrs = BTreeMap::from([("user.upper".to_owned(), "2".to_owned())]);
    let (found, _) = seen(&[layer(&lower), layer(&implied), layer(&[upper])]);
    assert_eq!((found["d"].mode, found["d"].mtime), (0o511, 3));
    assert_eq!(found["d"].xattrs, [(b"user.upper".to_vec(), b"2".to_vec())].into());
    assert!(found.contains_key("d/x") && found.contains_key("d/y"));
    // Nobody described the root: it is as new as what is in it.
    assert_eq!((found[""].mode, found[""].mtime), (0o755, 3));
    let mut root = dir("");
    root.mode = 0o711;
    let (found, _) = seen(&[layer(&[root]), layer(&lower)]);
    assert_eq!((found[""].mode, found[""].mtime), (0o711, 77));
}

#[test]
fn another_kind_takes_the_place_of_all_there_was() {
    let symlink = entry("s", What::Symlink("/elsewhere".to_owned()));
    let lower = [file("d/e/x", "1"), file("f", "1"), symlink.clone()];
    let upper = [file("d", "2"), file("f/x", "2"), file("s/x", "2")];
    let expected = [("d", "2"), ("f", "d"), ("f/x", "2"), ("s", "d"), ("s/x", "2")];
    assert_makes(&lower, &upper, &expected);
    let back = [("d", "d"), ("d/e", "d"), ("d/e/x", "1"), ("f", "1"), ("s", "/elsewhere")];
    assert_makes(&upper, &lower, &back);
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let lower = [file("a", "1"), link("b", "a"), link("c", "a")];
    let upper = [file("b", "2"), file("d/x", "2"), link("d/y", "d/x"), mark(".wh.c")];
    let (found, _) = seen(&[layer(&lower), layer(&upper)]);
    let same: Vec<_> = found.iter().map(|(path, seen)| (&path[..], &seen.same_as[..])).collect();
    let expected = [("", ""), ("a", "a"), ("b", "b"), ("d", ""), ("d/x", "d/x"), ("d/y", "d/x")];
    assert_eq!(same, expected);
}

#[test]
fn a_hard_link_to_a_lower_layer_is_one_to_the_same_file() {
    let lower = [file("a", "1"), file("old/b", "1"), dir("d"), file("there/kept", "1")];
    let upper = [
        link("to-a", "a"),
        link("chain", "to-a"),
        link("new/dir/to-b", "old/b"),
        mark("old/.wh.b"),
        link("there", "a"),
        link("a", "a"),
        link("to-d", "d"),
        link("to-nothing", "gone"),
    ];
    let (found, left_out) = seen(&[layer(&lower), layer(&upper)]);
    let same: Vec<_> = found.iter().map(|(path, seen)| (&path[..], &seen.same_as[..])).collect();
    let expected = [
        ("", ""),
        ("a", "a"),
        ("chain", "a"),
        ("d", ""),
        ("new", ""),
        ("new/dir", ""),
        ("new/dir/to-b", "new/dir/to-b"),
        ("old", ""),
        ("there", "a"),
        ("to-a", "a"),
    ];
    assert_eq!(same, expected);
    assert_eq!(found["new/dir/to-b"].text, "1");
    assert_eq!(left_out, ["to-d", "to-nothing"]);
}

#[test]
fn the_null_device_of_overlayfs_is_a_device() {
    let null = entry("a", What::Char(0, 0));
    let (found, _) = seen(&[layer(&[file("a", "1")]), layer(&[null])]);
    assert_eq!(
        (found["a"].kind, &found["a"].text[..]),
        (Kind::CharDevice, "DeviceNumber { major: 0, minor: 0 }")
    );
}

#[test]
fn files_keep_their_holes_and_their_bytes_in_the_spaces_of_their_layers() {
    let whole = "w".repeat(512);
    let holes = |text: &str| {
        [
            entry("aligned", What::Sparse(2048, 1024, text.repeat(512))),
            entry("odd", What::Sparse(9000, 100, text.repeat(10))),
            entry("all", What::Sparse(4096, 4096, String::new())),
        ]
    };
    let lower = [&[file("kept", &whole)][..], &holes("a")].concat();
    let upper = [&[file("plain", "p")][..], &holes("b")].concat();
    let Merged { tree, left_out } = merged(&[layer(&lower), layer(&upper)]);
    assert_eq!(left_out, LeftOut::default());
    let content = |path: &[u8]| &tree.node(tree.find(path).unwrap()).content;
    assert!(matches!(content(b"kept"), Content::File(data) if data.location.space == 0));
    assert!(matches!(content(b"plain"), Content::File(data) if data.location.space == 2));
    let space = |path| match content(path) {
        Content::Sparse(file) => file.runs().iter().map(|run| run.location.space).collect(),
        other => panic!("{other:?}"),
    };
    let spaces: [Vec<u16>; 3] = [space(b"aligned"), space(b"odd"), space(b"all")];
    assert_eq!(spaces, [vec![2], vec![3], vec![]]);
    let (found, _) = seen(&[layer(&lower), layer(&upper)]);
    assert_eq!(found["aligned"].text.trim_matches('\0'), "b".repeat(512));
    assert_eq!(found["odd"].text.trim_matches('\0'), "b".repeat(10));
    assert_eq!((found["all"].text.len(), found["odd"].text.len()), (4096, 9000));
}

fn bare<'a>(made: &'a Made, first_space: u16) -> Layer<'a, Vec<u8>> {
    Layer { image: &made.image, first_space, links: &made.links, digest: &|_| None }
}

#[test]
fn more_spaces_than_a_tree_has_are_refused() {
    let made = layer(&[file("a", "1")]);
    assert!(merge(&[bare(&made, 254)]).is_ok());
    assert_eq!(merge(&[bare(&made, 255)]).unwrap_err(), MergeError::TooManySpaces);
    assert!(merge::<Vec<u8>>(&[]).is_ok());
}

#[test]
fn a_broken_layer_is_named() {
    let made = layer(&[file("a", "1"), file("b", "2")]);
    let mut bytes = made.image.data().clone();
    let root = bytes.windows(2).rposition(|window| window == b"ab").unwrap();
    bytes[root] = b'/';
    // It has no checksum any more.
    bytes[1024 + 8] &= !1;
    let broken = Image::open(bytes).unwrap();
    let layers = [bare(&made, 0), Layer { image: &broken, ..bare(&made, 2) }];
    let refused = merge(&layers).unwrap_err();
    assert!(matches!(refused, MergeError::Image { layer: 2, .. }), "{refused:?}");
}

#[test]
fn directories_that_links_imply_are_counted_too() {
    let deep = vec!["d"; 30_000].join("/");
    let pending =
        |number| PendingLink { path: format!("{number}/{deep}/x").into(), target: b"a".to_vec() };
    let links: Vec<PendingLink> = (0..300).map(pending).collect();
    let (lower, upper) = (layer(&[file("a", "1")]), layer(&[]));
    let made = |links| merge(&[bare(&lower, 0), Layer { links, ..bare(&upper, 2) }]);
    assert!(made(&links[..1]).is_ok());
    assert_eq!(made(&links).unwrap_err(), MergeError::TooMuch("entries"));
}

#[test]
fn a_very_deep_layer_is_merged_without_a_call_for_each_level() {
    const DEPTH: usize = 16_000;
    let path = vec!["d"; DEPTH].join("/");
    let mut tree = TreeBuilder::new();
    tree.add(path.as_bytes(), Meta::with_mode(0o600), Content::Fifo).unwrap();
    let options = crate::erofs::ImageOptions {
        block_size: crate::erofs::BlockSize::B4096,
        build_time: crate::tree::Mtime::default(),
        spaces: Vec::new(),
    };
    let image = crate::erofs::write_image(&tree, &options).unwrap();
    let image = Image::open(image.bytes).unwrap();
    let whiteout = layer(&[mark("d/d/.wh.d")]);
    let deep = || Layer { image: &image, first_space: 0, links: &[], digest: &|_| None };
    let Merged { tree, .. } = merge(&[deep(), deep(), bare(&whiteout, 0), deep()]).unwrap();
    assert!(tree.contains(path.as_bytes()));
    assert_eq!(tree.node_count(), 2 * DEPTH);
}

const NAMES: [&str; 14] = [
    "a",
    "a",
    "b",
    "b",
    "c",
    "!x",
    ".wh.a",
    ".wh.a",
    ".wh.b",
    ".wh.!x",
    ".wh..wh..opq",
    ".wh..wh.plnk",
    ".wh.",
    ".wh...",
];

fn path() -> impl Strategy<Value = String> {
    let name = proptest::sample::select(&NAMES[..]);
    let below = proptest::sample::select(&NAMES[..6]);
    (proptest::collection::vec(below, 0..3), name).prop_map(|(mut parents, name)| {
        parents.push(name);
        parents.join("/")
    })
}

fn what() -> impl Strategy<Value = What> {
    let text = || "[a-z]{1,3}";
    prop_oneof![
        3 => Just(What::Directory),
        3 => text().prop_map(What::File),
        1 => Just(What::File(String::new())),
        1 => (0u64..3, text()).prop_map(|(at, text)| What::Sparse(4096, at * 512, text)),
        1 => text().prop_map(|target| What::Symlink(format!("/{target}"))),
        1 => (0u32..2, 0u32..2).prop_map(|(major, minor)| What::Char(major, minor)),
        1 => Just(What::Block(8, 300)),
        1 => Just(What::Fifo),
        2 => path().prop_map(What::Link),
    ]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let path = prop_oneof![12 => path(), 1 => Just(String::new())];
    let xattrs = proptest::collection::btree_map("user\\.[ab]", "[x-z]{0,2}", 0..2);
    (path, what(), 0u16..0o7777, 0u32..3, 0i64..100, xattrs).prop_map(
        |(path, what, mode, uid, mtime, xattrs)| {
            let what = if path.is_empty() { What::Directory } else { what };
            Entry { path, what, mode, uid, mtime, xattrs }
        },
    )
}

/// Entries of which each has its own name and nothing lies below what is no directory; links come last.
fn any_layer() -> impl Strategy<Value = Vec<Entry>> {
    proptest::collection::vec(any_entry(), 0..14).prop_map(|entries| {
        let by_path: BTreeMap<String, Entry> =
            entries.iter().map(|entry| (entry.path.clone(), entry.clone())).collect();
        let blocked = |entry: &Entry| {
            let ends = entry.path.match_indices('/').map(|(at, _)| &entry.path[..at]);
            ends.filter_map(|path| by_path.get(path)).any(|above| above.what != What::Directory)
        };
        // As they came, so that directories stand before and behind what is in them.
        let mut kept: Vec<Entry> = Vec::new();
        for entry in entries.iter().filter(|entry| by_path[&entry.path] == **entry) {
            if !blocked(entry) && !kept.contains(entry) {
                kept.push(entry.clone());
            }
        }
        kept.sort_by_key(|entry| matches!(entry.what, What::Link(_)));
        kept
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn layers_make_what_the_naive_way_makes(layers in proptest::collection::vec(any_layer(), 1..5)) {
        let mut model = Model::default();
        layers.iter().for_each(|entries| model.apply(entries));
        let made: Vec<Made> = layers.iter().map(|entries| layer(entries)).collect();
        let (found, _) = seen(&made);
        prop_assert_eq!(found, model.seen());
    }
}
