mod packer;

use std::collections::BTreeMap;

use dfs_model::{Transform, Validator};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::chunks::ChunkTable;
use crate::image::ContentDigest;
use crate::origin::space_of;
use crate::tar::{ScannedTar, TarScan};
use crate::tree::{Content, NodeId, PendingLink, TreeBuilder};
use crate::unpack::{Limits, Unpacker};
use packer::{Format, Item, Packed, Packer, What};

const FORMATS: [Format; 3] = [Format::Stargz, Format::Chunked, Format::StargzChunked];

/// A layer by its table.
fn by_table(packed: &Packed) -> Result<LayerByTable, TocError> {
    let announced = Announced::of(&packed.blob()).expect("a table is announced");
    let first = announced.first();
    let first = &packed.bytes[first.start as usize..first.end as usize];
    let place = announced.table(first)?;
    announced.layer(&packed.bytes[place.start as usize..place.end as usize], place)
}

/// The same read whole, as its tar.
fn whole(packed: &Packed) -> (Vec<u8>, ScannedTar, Vec<PendingLink>) {
    let is_gzip = packed.format == Format::Stargz;
    let transform = if is_gzip { Transform::Gunzip } else { Transform::Unzstd };
    let mut unpacker = Unpacker::new(transform, Limits::default()).unwrap();
    let (mut input, mut tar) = (&packed.bytes[..], Vec::new());
    while unpacker.step(&mut input, &mut tar).unwrap() || !input.is_empty() {}
    let mut scan = TarScan::new(tar.len() as u64);
    while let Some(wanted) = scan.wanted() {
        scan.feed(&tar[wanted.start as usize..wanted.end as usize]).unwrap();
    }
    let (scanned, links) = scan.finish_layer().unwrap();
    (tar, scanned, links)
}

/// What a tree has at each path: its attributes, its content, and the first path of what it is a hard link to.
fn listing(tree: &TreeBuilder, space: &[u8]) -> BTreeMap<String, String> {
    let (mut found, mut first) = (BTreeMap::new(), BTreeMap::new());
    let mut todo: Vec<(String, NodeId)> = vec![(String::new(), TreeBuilder::ROOT)];
    while let Some((path, id)) = todo.pop() {
        let node = tree.node(id);
        let content = match &node.content {
            Content::File(file) if file.length == 0 => "file of nothing".to_owned(),
            Content::File(file) => {
                let at = file.location.offset as usize;
                let bytes = &space[at..at + file.length as usize];
                format!("file {}", blake3::hash(bytes).to_hex())
            }
            other => format!("{other:?}"),
        };
        let (mode, uid, gid) = (node.mode, node.uid, node.gid);
        let meta = format!("{mode:o} {uid}:{gid} {:?} {:?}", node.mtime, node.xattrs());
        let first = first.entry(id).or_insert_with(|| path.clone());
        found.insert(path.clone(), format!("{content} {meta} {first}"));
        let children = node.children().iter().rev();
        todo.extend(children.map(|(name, &id)| (format!("{path}/{}", name.escape_ascii()), id)));
    }
    found
}

/// What a layer shows by its table and read whole must be the same.
fn assert_same(packed: &Packed) {
    let layer = by_table(packed).unwrap();
    let (tar, scanned, links) = whole(packed);
    let blob_length = packed.bytes.len() as u64;
    let table =
        ChunkTable::new(Validator::default(), blob_length, layer.length, layer.chunks.clone());
    let space = space_of(table.unwrap(), &packed.bytes).unwrap();
    let mut expected = listing(&scanned.tree, &tar);
    expected.remove("/stargz.index.json");
    expected.remove("/.no.prefetch.landmark");
    assert_eq!(listing(&layer.tree, &space), expected);
    assert_eq!((layer.links, layer.left_out), (links, scanned.left_out));
    assert_eq!(layer.newest, scanned.newest);
}

fn content(seed: u8, length: usize) -> Vec<u8> {
    // Holes in the middle, as in images of disks.
    let byte = |at: usize| if at / 10_000 % 3 == 1 { 0 } else { (at % 251) as u8 ^ seed };
    (0..length).map(byte).collect()
}

fn name() -> impl Strategy<Value = String> {
    let element = "[ab<é\"]|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq";
    let path = proptest::collection::vec(element, 1..4).prop_map(|elements| elements.join("/"));
    let odd = prop_oneof![Just("./"), Just("/"), Just(""), Just(""), Just("../"), Just("a/./")];
    (odd, path).prop_map(|(odd, path)| format!("{odd}{path}"))
}

fn what() -> impl Strategy<Value = What> {
    let length =
        prop_oneof![Just(0usize), 1usize..2000, 1usize..90_000, Just(20_000), Just(40_000)];
    prop_oneof![
        3 => Just(What::Dir),
        5 => (any::<u8>(), length).prop_map(|(seed, length)| What::File(content(seed, length))),
        1 => name().prop_map(What::Symlink),
        2 => name().prop_map(What::Link),
        1 => (0u32..5000, 0u32..70_000).prop_map(|(major, minor)| What::Char(major, minor)),
        1 => (0u32..5000, 0u32..70_000).prop_map(|(major, minor)| What::Block(major, minor)),
        1 => Just(What::Fifo),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let xattr = prop_oneof![Just("user.a"), Just("user.b%3D"), Just("security.x"), Just("odd.x")];
    let value = proptest::collection::vec(any::<u8>(), 0..20);
    let xattrs = proptest::collection::btree_map(xattr, value, 0..3);
    let meta = (0u16..0o10000, (0u32..3_000_000, 0u32..99), (1i64..2_000_000, any::<bool>()));
    (name(), what(), meta, xattrs).prop_map(|(name, what, (mode, owner, time), xattrs)| {
        let mtime = (time.0, if time.1 { 120_000_005 } else { 0 });
        let xattrs = xattrs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Item { name, what, mode, owner: (owner.0 % 2_097_151, owner.1), mtime, xattrs }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_layer_is_the_same_by_its_table_and_by_its_tar(
        items in proptest::collection::vec(item(), 0..25),
        format in prop_oneof![Just(Format::Stargz), Just(Format::Chunked), Just(Format::StargzChunked)],
        piece in prop_oneof![Just(30_000usize), Just(10_000usize)],
        full in prop_oneof![Just(0usize), Just(50_000usize)],
    ) {
        let full = if format == Format::Stargz { full } else { 0 };
        let mut packer = Packer::new(format, piece, full);
        items.iter().for_each(|item| packer.add(item));
        assert_same(&packer.finish());
    }

    #[test]
    fn mutated_tables_are_read_or_refused(
        places in proptest::collection::vec((0.0..1.0, any::<u8>()), 1..4),
        stargz: bool,
    ) {
        let items = [Item::file("a", &content(1, 40_000)), Item::new("d", What::Dir)];
        let format = if stargz { Format::Stargz } else { Format::Chunked };
        let mut packer = Packer::of(format, &items);
        let json = json!({"version": 1, "entries": packer.rows}).to_string();
        let mut json = json.into_bytes();
        for (place, byte) in places {
            let at = (place * json.len() as f64) as usize;
            json[at] = byte % 0x80;
        }
        let json = String::from_utf8(json).unwrap();
        let packed = packer.finish_with(&json);
        let length = packed.bytes.len() as u64;
        if let Ok(layer) = by_table(&packed)
            && let Ok(table) = ChunkTable::new(Validator::default(), length, layer.length, layer.chunks)
            && table.length() < 1 << 20
        {
            // Whatever it says, bytes are those of a digest or none.
            let _ = space_of(table, &packed.bytes);
        }
    }
}

#[test]
fn what_is_announced_is_found_in_layers_of_the_right_kind() {
    for format in FORMATS {
        let packed = Packer::of(format, &[Item::file("a", b"1")]).finish();
        assert!(Announced::of(&packed.blob()).is_some());
        let names = Announced::of(&packed.blob()).unwrap().name();
        assert!(names.starts_with(" table.1 sha256:"), "{names}");
        for other in [json!({}), json!({"containerd.io/snapshot/stargz/toc.digest": "sha256:1"})] {
            let packed = Packed { annotations: other, ..Packer::of(format, &[]).finish() };
            assert_eq!(Announced::of(&packed.blob()), None);
        }
    }
    let digest = ContentDigest::sha256(b"").to_string();
    for position in ["1:2:3", "1:2:3:2", "0:2:3:1", "1:0:3:1", "1:999999:3:1", "x:2:3:1", ""] {
        let annotations = json!({
            "io.github.containers.zstd-chunked.manifest-checksum": digest,
            "io.github.containers.zstd-chunked.manifest-position": position,
        });
        let packed = Packed { annotations, ..Packer::of(Format::Chunked, &[]).finish() };
        assert_eq!(Announced::of(&packed.blob()), None, "{position}");
    }
}

#[test]
fn a_table_that_is_not_the_one_that_is_announced_is_refused() {
    for format in FORMATS {
        let packed = Packer::of(format, &[Item::file("a", b"1")]).finish();
        let mut other = Packer::of(format, &[Item::file("b", b"1")]).finish();
        for (name, value) in packed.annotations.as_object().unwrap() {
            if value.as_str().unwrap().starts_with("sha256:") {
                other.annotations[name] = value.clone();
            }
        }
        assert!(matches!(by_table(&other), Err(TocError::Other(_))), "{format:?}");
    }
    let mut far = Packer::of(Format::Stargz, &[]).finish();
    let digits = far.bytes.len() - 35;
    far.bytes[digits] = b'f';
    assert_eq!(by_table(&far).unwrap_err(), TocError::Bounds);
    far.bytes[digits] = b'g';
    assert_eq!(by_table(&far).unwrap_err(), TocError::NoFooter);
    far.bytes.truncate(30);
    assert_eq!(by_table(&far).unwrap_err(), TocError::NoFooter);
}

#[test]
fn what_is_of_the_format_and_not_of_the_image_is_not_shown() {
    let items =
        [Item::file(".no.prefetch.landmark", b"\x0f"), Item::file("d/.no.prefetch.landmark", b"1")];
    let stargz = by_table(&Packer::of(Format::Stargz, &items).finish()).unwrap();
    assert!(!stargz.tree.contains(b".no.prefetch.landmark"));
    assert!(stargz.tree.contains(b"d/.no.prefetch.landmark"));
    let chunked = by_table(&Packer::of(Format::Chunked, &items).finish()).unwrap();
    assert!(chunked.tree.contains(b".no.prefetch.landmark"));
}

#[test]
fn tables_that_contradict_themselves_are_refused() {
    let refused = |row: &str| {
        let json = format!(r#"{{"version":1,"entries":[{row}]}}"#);
        by_table(&Packer::of(Format::Stargz, &[Item::file("x", b"1")]).finish_with(&json))
    };
    let digest = ContentDigest::sha256(b"").to_string();
    let reg =
        |rest: &str| format!(r#"{{"type":"reg","name":"a","size":5,"digest":"{digest}",{rest}}}"#);
    assert!(refused(&reg(r#""offset":1"#)).is_ok());
    for row in [
        reg(r#""offset":1,"chunkSize":6"#),
        reg(r#""offset":1,"chunkSize":6"#) + r#",{"type":"chunk","offset":2}"#,
        reg(r#""offset":1,"chunkSize":4"#),
        reg(r#""offset":1,"chunkOffset":1"#),
        reg(r#""offset":1,"chunkType":"odd""#),
        reg(r#""offset":1,"chunkDigest":"md5:1""#),
        reg(r#""offset":1000000"#),
        reg(r#""offset":1,"innerOffset":18446744073709551615"#),
        reg(r#""offset":1,"innerOffset":16777212"#),
        reg(r#""offset":1,"modtime":"yesterday""#),
        reg(r#""offset":1,"xattrs":{"user.a":"="}"#),
        reg(r#""offset":1"#).replace(&digest, ""),
        r#"{"type":"chunk","name":"a","offset":1,"chunkSize":4}"#.to_owned(),
        r#"{"type":"door","name":"a"}"#.to_owned(),
        "{\"type\":\"dir\",\"name\":\"a\u{fffd}\"}".to_owned(),
        r#"{"type":"symlink","name":"a","linkName":"\ufffd"}"#.to_owned(),
    ] {
        let error = refused(&row).unwrap_err();
        assert!(matches!(error, TocError::Table(_)), "{row}: {error}");
    }
    for row in [r#"{"type":"reg","name":"a","size":-5}"#, "{}", "["] {
        assert!(matches!(refused(row), Err(TocError::Json(_))), "{row}");
    }
    // Refused before it is read: it is no JSON either.
    let many = "{".repeat(1 << 20);
    assert_eq!(refused(&many).unwrap_err(), TocError::TooMuch("entries"));
}

#[test]
fn a_table_of_nothing_but_zeros_is_taken_for_a_bomb() {
    let zeros = |length: u64| {
        let row = json!({"type": "reg", "name": "a", "size": length, "chunkType": "zeros"});
        let json = json!({"version": 1, "entries": [row]}).to_string();
        by_table(&Packer::of(Format::Chunked, &[]).finish_with(&json))
    };
    assert_eq!(zeros(1 << 30).unwrap().length, 1 << 30);
    assert!(matches!(zeros(1 << 31), Err(TocError::Unpack(_))));
    assert_eq!(zeros(1 << 50).unwrap_err(), TocError::TooMuch("bytes"));
}

#[test]
fn what_is_fetched_for_a_piece_does_not_grow_with_what_follows() {
    let mut items = vec![Item::file("a", b"1")];
    // What is not in files lies behind it in its member.
    items.extend((0..20_000).map(|number| Item::new(&format!("{number}"), What::Dir)));
    items.push(Item::file("b", b"2"));
    let packed = Packer::of(Format::Stargz, &items).finish();
    let layer = by_table(&packed).unwrap();
    let most = crate::chunks::most_packed(1) as u32;
    assert!(layer.chunks[1].from - layer.chunks[0].from > u64::from(most));
    assert_eq!(layer.chunks[0].packed, most);
    assert_same(&packed);
}
