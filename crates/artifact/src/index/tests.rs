use dfs_model::{TaskKind, Transform, Validator};
use proptest::prelude::*;

use super::validate::space_tag;
use super::*;
use crate::erofs::{BlockSize, ImageOptions, Kind, Space, write_image};
use crate::members::Member;
use crate::tree::{Content, DeviceNumber, FileData, Location, Meta, Mtime, TreeBuilder};

fn url(text: &str) -> CanonicalUrl {
    CanonicalUrl::parse(text).unwrap()
}

fn place(text: &str) -> Place {
    Place { url: url(text), headers: vec![("accept".into(), "x/y".into())] }
}

fn recipe(kind: TaskKind, length: u64, etag: String, origin: OriginRecipe) -> Recipe {
    let validator = Validator { etag: Some(etag), length: Some(length), ..Validator::default() };
    let key = TaskKey {
        domain: TaskKey::PUBLIC.into(),
        kind,
        url: url("https://h/d/"),
        headers: Vec::new(),
        validator,
        transform: Transform::Identity,
    };
    Recipe { key, length: Some(length), origin }
}

fn at(place: &str, recipe: Recipe) -> Recipe {
    Recipe { key: TaskKey { url: url(place), ..recipe.key }, ..recipe }
}

fn spaces() -> Vec<Recipe> {
    let member = |path: &str, offset, length| Member {
        path: path.into(),
        offset,
        length,
        validator: Validator { etag: Some("\"1\"".into()), ..Validator::default() },
    };
    let table = MemberTable::new(vec![member("d/a", 0, 5), member("d/b", 4096, 600)]).unwrap();
    let (length, digest) = (table.length(), table.digest());
    let members = OriginRecipe::Members { base: place("https://h/d/"), table: Arc::new(table) };
    let blob = OriginRecipe::Url { place: place("https://h/d/big"), ranges: true };
    vec![
        recipe(TaskKind::Space, length, digest, members),
        at("https://h/d/big", recipe(TaskKind::Blob, 10_000, "\"2\"".into(), blob)),
    ]
}

fn tree() -> TreeBuilder {
    let mut tree = TreeBuilder::new();
    let file = |space, offset, length, digest| {
        Content::File(FileData { length, location: Location { space, offset }, digest })
    };
    let mut meta = Meta { mtime: Mtime { secs: 5, nanos: 6 }, ..Meta::with_mode(0o640) };
    meta.xattrs.insert(b"user.k".to_vec(), b"v".to_vec());
    tree.add(b"d/a", meta.clone(), file(0, 0, 5, Some(Box::new([1; 32])))).unwrap();
    tree.add(b"d/b", meta.clone(), file(0, 4096, 600, None)).unwrap();
    tree.add(b"big", meta.clone(), file(1, 0, 10_000, Some(Box::new([2; 32])))).unwrap();
    tree.add(b"empty", meta.clone(), file(0, 0, 0, None)).unwrap();
    tree.add(b"link", meta.clone(), Content::Symlink(b"d/a".to_vec())).unwrap();
    let null = DeviceNumber { major: 1, minor: 3 };
    tree.add(b"null", meta.clone(), Content::CharDevice(null)).unwrap();
    tree.link(b"d/hard", b"big").unwrap();
    for number in 0..40 {
        let name = format!("many/{number:0>200}");
        tree.add(name.as_bytes(), meta.clone(), Content::Fifo).unwrap();
    }
    tree
}

fn build(tree: &TreeBuilder, recipes: &[Recipe]) -> Vec<u8> {
    let space = |recipe: &Recipe| Space { length: recipe.length.unwrap(), tag: space_tag(recipe) };
    let options = ImageOptions {
        block_size: BlockSize::B4096,
        build_time: Mtime::default(),
        spaces: recipes.iter().map(space).collect(),
    };
    let image = write_image(tree, &options).unwrap();
    write_index(image, url("https://h/d/"), recipes, &LeftOut::default(), None).unwrap()
}

#[test]
fn an_index_gives_back_tree_tasks_and_digests() {
    let bytes = build(&tree(), &spaces());
    assert_eq!(bytes, build(&tree(), &spaces()), "the same input gives the same bytes");
    let index = Index::parse(bytes).unwrap();
    assert_eq!(index.spaces(), spaces());
    assert_eq!((index.facts().files, index.facts().bytes), (4, 10_605));
    let image = index.image();
    let dir = image.lookup(image.root(), b"d").unwrap().unwrap();
    let nid = |name: &[u8]| image.lookup(dir, name).unwrap().unwrap();
    assert_eq!(index.digest(nid(b"a")), Some([1; 32]));
    assert_eq!(index.digest(nid(b"hard")), Some([2; 32]));
    assert_eq!(index.digest(nid(b"b")), None);
    assert_eq!(image.attr(nid(b"hard")).unwrap().nlink, 2);
    let extent = image.extent(nid(b"b"), 100).unwrap().unwrap();
    assert_eq!((extent.space, extent.offset, extent.length), (Some(0), 4196, 500));
}

#[test]
fn a_space_that_is_read_elsewhere_than_its_task_is_is_refused() {
    let digest = format!("sha256/{}", "a".repeat(64));
    let content = format!("oci-blob://r.test/{digest}");
    let blob = |host: &str| format!("oci://{host}/app?blob={}", digest.replace('/', ":"));
    let stated = |place: &str| OriginRecipe::Url { place: self::place(place), ranges: true };
    for (name, read, is_taken) in [
        ("https://h/d/big", "https://h/d/big", true),
        ("https://h/d/big", "https://evil/d/big", false),
        (&content, &blob("r.test"), true),
        (&content, &blob("evil.test"), false),
        (&content, &content, false),
    ] {
        let recipe = at(name, recipe(TaskKind::Blob, 10_000, "\"2\"".into(), stated(read)));
        let spaces = [spaces().remove(0), recipe];
        let parsed = Index::parse(build(&tree(), &spaces));
        assert_eq!(parsed.is_ok(), is_taken, "{name} {read} {parsed:?}");
    }
}

#[test]
fn an_index_over_other_spaces_is_the_one_that_would_have_been_made_over_them() {
    let others: Vec<Recipe> = spaces()
        .into_iter()
        .map(|recipe| {
            let key = TaskKey { domain: "private".into(), ..recipe.key };
            Recipe { key, ..recipe }
        })
        .collect();
    let theirs = Index::parse(build(&tree(), &spaces())).unwrap();
    let rebound = theirs.rebound(url("https://h/d/"), &others).unwrap();
    assert_eq!(rebound, build(&tree(), &others));
    assert_eq!(Index::parse(rebound).unwrap().spaces(), others);
    // Spaces that are not fit for it make no index.
    let short = at("https://h/d/big", Recipe { length: Some(9_000), ..others[1].clone() });
    let unfit = theirs.rebound(url("https://h/d/"), &[others[0].clone(), short]).unwrap();
    assert!(Index::parse(unfit).is_err());
    let fewer = theirs.rebound(url("https://h/d/"), &others[..1]).unwrap();
    assert!(Index::parse(fewer).is_err());
}

#[test]
fn a_directory_reads_on_from_any_cookie() {
    let index = Index::parse(build(&tree(), &spaces())).unwrap();
    let image = index.image();
    let dir = image.lookup(image.root(), b"many").unwrap().unwrap();
    let all = image.read_dir(dir, 0, 1000).unwrap();
    assert_eq!(all.len(), 42);
    assert!(all.iter().is_sorted_by(|a, b| a.name < b.name && a.cookie < b.cookie));
    for (number, entry) in all.iter().enumerate() {
        assert_eq!(image.read_dir(dir, entry.cookie, 1000).unwrap(), all[number + 1..]);
    }
    assert_eq!(image.read_dir(dir, u64::MAX, 1).unwrap(), []);
    assert_eq!(image.read_dir(dir, 0, 2).unwrap(), all[..2]);
}

#[test]
fn what_is_not_of_the_wanted_kind_is_an_error() {
    let index = Index::parse(build(&tree(), &spaces())).unwrap();
    let image = index.image();
    let file = image.lookup(image.root(), b"big").unwrap().unwrap();
    assert!(matches!(image.read_dir(file, 0, 1), Err(FormatError::WrongKind { .. })));
    assert!(matches!(image.lookup(file, b"x"), Err(FormatError::WrongKind { .. })));
    assert!(matches!(image.read_link(file), Err(FormatError::WrongKind { .. })));
    assert!(matches!(image.extent(image.root(), 0), Err(FormatError::WrongKind { .. })));
    for nid in [0, 1, 1 << 20, u64::MAX, u64::MAX / 32] {
        assert!(image.attr(nid).is_err() || image.attr(nid).unwrap().nid == nid);
    }
}

#[test]
fn an_index_of_other_tasks_than_its_recipes_is_refused() {
    let mut others = spaces();
    let mut bytes = build(&tree(), &others);
    let start = Index::open(bytes.clone()).unwrap().image().length() as usize;
    others[1].key.domain = "tenant".into();
    let forged = build(&tree(), &others);
    // The image of one, the sections of the other.
    bytes.truncate(start);
    bytes.extend_from_slice(&forged[start..]);
    assert!(matches!(Index::parse(bytes), Err(IndexError::Contradiction(_))));
}

#[test]
fn changed_sections_and_newer_formats_are_refused() {
    let bytes = build(&tree(), &spaces());
    let start = Index::open(bytes.clone()).unwrap().image().length() as usize;
    for at in (start..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(matches!(Index::open(changed), Err(IndexError::Sections(_))), "{at}");
    }
    for cut in [1, 32, 64, bytes.len() - start] {
        let cut = bytes[..bytes.len() - cut].to_vec();
        assert!(matches!(Index::open(cut), Err(IndexError::Sections(_))));
    }
}

/// Asks everything of an image; only the absence of panics and of endless loops counts.
fn exercise<D: AsRef<[u8]> + Send + Sync + 'static>(image: &Image<D>) {
    for nid in 0..image.length() / 32 {
        let Ok(attr) = image.attr(nid) else { continue };
        let _ = (image.xattrs(nid), image.xattr(nid, b"user.k"), image.read_link(nid));
        let _ =
            (image.lookup(nid, b"a"), image.read_dir(nid, 0, 100), image.read_dir(nid, 4097, 9));
        for at in [0, 1, 4095, 4096, attr.size.saturating_sub(1), attr.size, u64::MAX] {
            let extent = image.extent(nid, at);
            assert!(extent.is_err() || attr.kind == Kind::File);
        }
    }
    let entries = image.walk().take_while(Result::is_ok).count() as u64;
    assert!(entries <= image.length());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn mutated_images_are_read_or_refused(
        changes in proptest::collection::vec((1400usize..16_000, any::<u8>()), 1..12),
    ) {
        let mut bytes = build(&tree(), &spaces());
        // Behind the superblock, which has a checksum of its own.
        let clear = 1024 + 8;
        bytes[clear] &= !1;
        for (at, byte) in changes {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        let _ = Index::parse(bytes.clone());
        if let Ok(image) = Image::open(bytes) {
            exercise(&image);
        }
    }

    #[test]
    fn mutated_superblocks_are_read_or_refused(at in 1024usize..1408, byte: u8, cut in 0usize..20_000) {
        let mut bytes = build(&tree(), &spaces());
        bytes[at] = byte;
        bytes[1024 + 8] &= !1;
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        if let Ok(image) = Image::open(bytes) {
            exercise(&image);
        }
    }
}
