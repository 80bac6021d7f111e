use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::chunks::{ChunkDigest, Codec};
use crate::image::manifest::{Contents, RafsLayers};
use crate::image::{Document, parse};
use crate::tar::TarScan;

/// What nydus-image made, as `tests/rafs/make.py` packed it.
const KEPT: &[u8] = include_bytes!("../../../../tests/rafs/images.tar.zst");

/// The layout of images in it.
struct Kept {
    tar: Vec<u8>,
    tree: TreeBuilder,
}

impl Kept {
    fn unpacked() -> Self {
        let tar = zstd::decode_all(KEPT).unwrap();
        let mut scan = TarScan::new(tar.len() as u64);
        while let Some(wanted) = scan.wanted() {
            scan.feed(&tar[wanted.start as usize..wanted.end as usize]).unwrap();
        }
        let tree = scan.finish().unwrap().tree;
        Self { tar, tree }
    }

    fn file(&self, path: &str) -> Bytes {
        let id = self.tree.find(path.as_bytes()).unwrap_or_else(|| panic!("{path}"));
        let Content::File(file) = &self.tree.node(id).content else { panic!("{path}") };
        let at = file.location.offset as usize;
        Bytes::copy_from_slice(&self.tar[at..at + file.length as usize])
    }

    fn blob(&self, digest: &ContentDigest) -> Bytes {
        self.file(&format!("images/blobs/{}/{}", digest.algorithm(), digest.hex()))
    }

    fn layers(&self, image: &str) -> RafsLayers {
        let index: Value = serde_json::from_slice(&self.file("images/index.json")).unwrap();
        let mut named = index["manifests"].as_array().unwrap().iter();
        let is_it = |one: &&Value| one["annotations"]["org.opencontainers.image.ref.name"] == image;
        let digest = named.find(is_it).unwrap()["digest"].as_str().unwrap();
        let bytes = self.blob(&digest.parse().unwrap());
        let Document::Manifest(manifest) = parse(&bytes, None).unwrap() else { panic!("{image}") };
        let Contents::Rafs(layers) = manifest.contents().unwrap() else { panic!("{image}") };
        *layers
    }

    fn bootstrap(&self, image: &str) -> Bytes {
        let layer = self.layers(image).bootstrap;
        bootstrap_in(self.blob(&layer.digest)).unwrap()
    }
}

fn parsed(image: &str) -> Rafs {
    Rafs::parse(Kept::unpacked().bootstrap(image)).unwrap()
}

fn refused(bytes: Vec<u8>) -> String {
    Rafs::parse(bytes.into()).unwrap_err().to_string()
}

#[test]
fn blobs_are_layers_and_chunks_are_as_they_were_packed() {
    let kept = Kept::unpacked();
    for (image, blobs, codec) in [
        ("none-blake3", 1, Codec::Stored),
        ("lz4-sha256", 2, Codec::Lz4),
        ("zstd-blake3", 2, Codec::Zstd),
    ] {
        let rafs = Rafs::parse(kept.bootstrap(image)).unwrap();
        let layers = kept.layers(image);
        assert_eq!(layers.version.as_deref(), Some("6"));
        let there: BTreeSet<_> = layers.blobs.iter().map(|blob| blob.digest).collect();
        let named: BTreeSet<_> = rafs.blobs.iter().map(|blob| blob.digest).collect();
        assert_eq!(named, there, "{image}");
        assert_eq!(rafs.blobs.len(), blobs);
        let mut codecs = BTreeSet::new();
        for blob in &rafs.blobs {
            assert!(blob.packed_end() <= kept.blob(&blob.digest).len() as u64);
            for chunk in &blob.chunks {
                codecs.insert(format!("{:?}", chunk.codec));
                let is_blake3 = matches!(chunk.digest, ChunkDigest::Blake3(_));
                assert_eq!(is_blake3, image.ends_with("blake3"));
            }
        }
        assert!(codecs.contains(&format!("{codec:?}")), "{codecs:?}");
    }
}

#[test]
fn chunks_that_stand_there_as_they_are_have_the_digests_that_are_told() {
    let kept = Kept::unpacked();
    let rafs = Rafs::parse(kept.bootstrap("none-blake3")).unwrap();
    let blob = &rafs.blobs[0];
    let bytes = kept.blob(&blob.digest);
    assert!(blob.chunks.len() > 500);
    for chunk in &blob.chunks {
        let place = chunk.extent();
        let body = &bytes[place.start as usize..place.end as usize];
        assert_eq!(chunk.digest, chunk.digest.like(body));
    }
}

#[test]
fn files_of_the_same_chunks_lie_at_the_same_place_and_others_in_runs() {
    let rafs = parsed("none-blake3");
    let content = |path: &str| &rafs.tree.node(rafs.tree.find(path.as_bytes()).unwrap()).content;
    let Content::File(one) = content("chunks/one") else { panic!("it is in one piece") };
    assert_eq!(one.length, 5 * 4096);
    assert_eq!(content("chunks/one"), content("chunks/again"));
    let Content::Sparse(backwards) = content("chunks/backwards") else { panic!("one piece") };
    let runs: Vec<_> = backwards.runs().iter().map(|run| run.location.offset).collect();
    let block = |number: u64| one.location.offset + number * 4096;
    assert_eq!(runs, [block(4), block(3), block(2), block(1), block(0)]);
    let Content::File(empty) = content("lengths/0") else { panic!("a file") };
    assert_eq!(empty.length, 0);
    // Runs of one file may lie in several blobs.
    let rafs = parsed("lz4-sha256");
    let spaces: BTreeSet<u16> = (0..rafs.tree.node_count())
        .filter_map(|id| match &rafs.tree.node(id).content {
            Content::File(file) if file.length > 0 => Some(file.location.space),
            _ => None,
        })
        .collect();
    assert_eq!(spaces, BTreeSet::from([0, 1]));
}

/// The bootstrap of an image with a number in it changed.
fn changed(image: &str, at: impl Fn(&[u8]) -> usize, change: impl Fn(u32) -> u32) -> Vec<u8> {
    let mut bytes = Kept::unpacked().bootstrap(image).to_vec();
    let at = at(&bytes);
    let was = u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    bytes[at..at + 4].copy_from_slice(&change(was).to_le_bytes());
    bytes
}

fn in_first_blob(field: usize) -> impl Fn(&[u8]) -> usize {
    move |bytes| Tables::find(bytes).unwrap().blobs.start + field
}

fn in_first_chunk(field: usize) -> impl Fn(&[u8]) -> usize {
    move |bytes| Tables::find(bytes).unwrap().chunks.start + field
}

#[test]
fn what_nobody_here_reads_is_named() {
    for (image, reason) in [
        ("v5", "RAFS v5, and only v6"),
        ("v5-unsaid", "RAFS v5, and only v6"),
        ("oci-ref", "(an OCI reference)"),
    ] {
        let said = refused(Kept::unpacked().bootstrap(image).to_vec());
        assert!(said.contains(reason), "{said}");
    }
    for (features, reason) in [
        (0x80, "small chunks packed together"),
        (0x100, "encrypted blobs"),
        (0x40, "tars for blobs"),
        (0x4000, "features that are not known here (0x4000)"),
    ] {
        let said = refused(changed("zstd-blake3", in_first_blob(84), |was| was | features));
        assert!(said.contains(reason), "{said}");
    }
    for (flags, reason) in [(0x04, "encrypted"), (0x08, "batches"), (0x02, "flags that are not")] {
        let said = refused(changed("zstd-blake3", in_first_chunk(36), |was| was | flags));
        assert!(said.contains(reason), "{said}");
    }
    assert!(refused(Vec::new()).contains("no RAFS v6"));
    assert!(refused(vec![0; 10_000]).contains("no RAFS v6"));
    let plain = changed("zstd-blake3", |_| 1032, |was| was & !0x4000_0000);
    assert!(refused(plain).contains("without what RAFS adds"));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let refused = |at: usize, change: fn(u32) -> u32| {
        let said = refused(changed("none-blake3", |_| at, change));
        assert!(said.starts_with("the bootstrap"), "{said}");
    };
    let kept = Kept::unpacked().bootstrap("none-blake3");
    let Tables { blobs, chunks, .. } = Tables::find(&kept).unwrap();
    // Another offset of the table of chunks, more of them, another size.
    refused(1152 + 24, |at| at + 80);
    refused(1152 + 32, |length| length + 80);
    refused(1152 + 20, |size| size * 2);
    refused(1152 + 20, |size| size + 1);
    // Of the blob: its name, its number, its digests, its compressor, its length.
    refused(blobs.start, |_| u32::from_le_bytes(*b"none"));
    refused(blobs.start + 64, |number| number + 1);
    refused(blobs.start + 76, |_| 9);
    refused(blobs.start + 80, |_| 2);
    refused(blobs.start + 96, |_| 4096);
    // Of a chunk: its blob, its lengths, its place.
    refused(chunks.start + 32, |_| 1);
    refused(chunks.start + 36, |flags| flags ^ 1);
    refused(chunks.start + 40, |packed| packed - 1);
    refused(chunks.start + 44, |_| 0);
    refused(chunks.start + 56, |offset| offset + 1);
    refused(chunks.start + 56, |offset| offset ^ 4096);
    refused(chunks.start + 60, |_| 1);
}

#[test]
fn a_file_that_lies_where_no_chunk_is_is_refused() {
    // The last chunk goes, and with it what a file is made of.
    let bytes = changed("none-blake3", |_| 1152 + 32, |length| length - 80);
    let said = refused(bytes);
    assert!(said.contains("where no chunk is"), "{said}");
}

#[test]
fn a_layer_without_a_bootstrap_is_refused() {
    let empty = [0; 1024];
    assert!(matches!(bootstrap_in(Bytes::copy_from_slice(&empty)), Err(RafsError::NoBootstrap)));
    assert!(matches!(bootstrap_in(Bytes::from_static(&[1; 100])), Err(RafsError::Tar(_))));
    let kept = Kept::unpacked();
    let layer = kept.blob(&kept.layers("none-blake3").bootstrap.digest);
    let cut = layer.slice(..layer.len() / 2);
    assert!(matches!(bootstrap_in(cut), Err(RafsError::Unpack(_))));
}

#[test]
fn damaged_bootstraps_are_read_or_refused() {
    let kept = Kept::unpacked();
    for image in ["none-blake3", "lz4-sha256", "zstd-blake3"] {
        let good = kept.bootstrap(image);
        for seed in 0..400u64 {
            let mut bytes = good.to_vec();
            let mut hash = blake3::Hasher::new();
            let mut numbers = hash.update(&seed.to_le_bytes()).finalize_xof();
            let mut next = || {
                let mut number = [0; 8];
                numbers.fill(&mut number);
                u64::from_le_bytes(number)
            };
            for _ in 0..1 + next() % 8 {
                let at = next() as usize % bytes.len();
                bytes[at] = next() as u8;
            }
            bytes.truncate(if seed % 7 == 0 { next() as usize % good.len() } else { good.len() });
            let Ok(rafs) = Rafs::parse(bytes.into()) else { continue };
            check_places(&rafs.tree, &rafs.blobs).unwrap();
        }
    }
}
