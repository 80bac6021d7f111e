//! Indexes of trees, as a node takes them from strangers.

use std::sync::Arc;

use dfs_artifact::erofs::{BlockSize, Image, ImageOptions, Kind, Space, write_image};
use dfs_artifact::index::write_index;
use dfs_artifact::tree::{Content, FileData, LeftOut, Location, Meta, TreeBuilder};
use dfs_artifact::{Index, Member, MemberTable, OriginRecipe, Place, Recipe};
use dfs_model::{CanonicalUrl, TaskKey, TaskKind, Transform, Validator};

/// Bytes of the digest at the end, and of the image length in front of it.
const DIGEST: usize = 32;
const LENGTH: usize = 8;
/// Where a superblock has the bits that say whether it carries a checksum.
const FEATURES: usize = 1024 + 8;

/// Opens the index of a stranger; what passes all checks can be looked through to the last byte.
pub(super) fn open_index(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    unseal(&mut bytes);
    // Its digest is right: who made it is who lies.
    if let Some(digest_at) = bytes.len().checked_sub(DIGEST)
        && let Some(length) = digest_at.checked_sub(LENGTH)
        && let Some(image) = bytes[length..digest_at].first_chunk().copied()
        && let Some(sections) = bytes.get(u64::from_le_bytes(image) as usize..digest_at)
    {
        let digest = blake3::hash(sections);
        bytes[digest_at..].copy_from_slice(digest.as_bytes());
    }
    if let Ok(index) = Index::parse(bytes.to_vec()) {
        let walked = index.image().walk().try_for_each(|visit| {
            let visit = visit?;
            let _ = index.digest(visit.nid);
            look(index.image(), visit.nid, visit.kind)
        });
        walked.expect("what was checked can be read");
    }
}

/// Opens an image alone; anything may be wrong with it, and is said.
pub(super) fn open_image(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    unseal(&mut bytes);
    let Ok(image) = Image::open(bytes) else { return };
    for visit in image.walk() {
        let Ok(visit) = visit else { return };
        let _ = look(&image, visit.nid, visit.kind);
    }
}

/// Takes away the checksum that would keep everything else from being looked at.
fn unseal(bytes: &mut [u8]) {
    if let Some(bits) = bytes.get_mut(FEATURES) {
        *bits &= !1;
    }
}

fn look<D: AsRef<[u8]> + Send + Sync + 'static>(
    image: &Image<D>,
    nid: u64,
    kind: Kind,
) -> Result<(), dfs_artifact::erofs::FormatError> {
    let attr = image.attr(nid)?;
    image.xattrs(nid)?;
    match kind {
        Kind::Symlink => drop(image.read_link(nid)?),
        Kind::Directory => drop(image.lookup(nid, b"a")?),
        Kind::File => {
            for offset in [0, attr.size / 2, attr.size.saturating_sub(1)] {
                image.extent(nid, offset)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn tree() -> TreeBuilder {
    let file = |offset, length| {
        let location = Location { space: 0, offset };
        Content::File(FileData { length, location, digest: Some(Box::new([1; 32])) })
    };
    let mut meta = Meta::with_mode(0o644);
    meta.xattrs.insert(b"user.k".to_vec(), b"v".to_vec());
    let mut tree = TreeBuilder::new();
    let mut add = |path: &[u8], content| tree.add(path, meta.clone(), content);
    let added = [
        add(b"d/a", file(0, 5)),
        add(b"d/b", file(4096, 600)),
        add(b"d/empty", file(0, 0)),
        add(b"link", Content::Symlink(b"d/a".to_vec())),
    ];
    assert!(added.iter().all(Result::is_ok), "the tree is sound");
    tree.link(b"hard", b"d/a").expect("the tree is sound");
    tree
}

fn recipe() -> Recipe {
    let member = |path: &str, offset, length| Member {
        path: path.into(),
        offset,
        length,
        validator: Validator { etag: Some("\"1\"".into()), ..Validator::default() },
    };
    let table = MemberTable::new(vec![member("d/a", 0, 5), member("d/b", 4096, 600)]);
    let table = Arc::new(table.expect("members ascend"));
    let url = CanonicalUrl::parse("https://host/dir/").expect("it is an address");
    let (length, etag) = (table.length(), Some(table.digest()));
    let key = TaskKey {
        domain: TaskKey::PUBLIC.into(),
        kind: TaskKind::Space,
        url: url.clone(),
        headers: Vec::new(),
        validator: Validator { etag, length: Some(length), ..Validator::default() },
        transform: Transform::Identity,
    };
    let base = Place { url, headers: Vec::new() };
    Recipe { key, length: Some(length), origin: OriginRecipe::Members { base, table } }
}

pub(super) fn images() -> Vec<Vec<u8>> {
    let options = |block_size| ImageOptions {
        block_size,
        build_time: Default::default(),
        spaces: vec![Space { tag: [b'a'; 64], length: 5000 }],
    };
    [BlockSize::B512, BlockSize::B4096]
        .map(|size| write_image(&tree(), &options(size)).expect("the tree is sound").bytes)
        .to_vec()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let recipe = recipe();
    let url = recipe.key.url.clone();
    // A space is tagged with the id of its task.
    let mut tag = [0; 64];
    tag.copy_from_slice(recipe.key.id().to_string().as_bytes());
    let options = ImageOptions {
        block_size: BlockSize::B512,
        build_time: Default::default(),
        spaces: vec![Space { tag, length: 4696 }],
    };
    let image = write_image(&tree(), &options).expect("the tree is sound");
    let mut left_out = LeftOut::default();
    left_out.add(b"d/gone", "404".to_owned());
    vec![write_index(image, url, &[recipe], &left_out, None).expect("it is sound")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_sound() {
        seeds().into_iter().for_each(|index| drop(Index::parse(index).unwrap()));
        images()
            .into_iter()
            .for_each(|image| assert_eq!(Image::open(image).unwrap().walk().count(), 6));
    }
}
