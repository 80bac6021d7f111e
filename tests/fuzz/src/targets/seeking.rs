//! Tables by which compressed streams are read in the middle: our own, and those that streams bring with them.

use dfs_artifact::ChunkTable;
use dfs_artifact::image::manifest::Contents;
use dfs_artifact::image::{Document, parse};
use dfs_artifact::toc::{Announced, LayerByTable};
use dfs_artifact::unpack::{Checkpoints, Limits, Resumed, Unpacker, seek_table, transform_of};
use dfs_model::{ByteRange, Transform, Validator};

use super::archives::compressed;

/// What a range of a mutated table may unfold to.
const LIMITS: Limits = Limits { length: 1 << 20, ratio: 1000, free: 1 << 20 };

/// Reads a table, and what it says of a stream that is the table itself.
pub(super) fn checkpoints(bytes: &[u8]) {
    let Ok(table) = Checkpoints::decode(bytes.to_vec()) else { return };
    assert_eq!(table.encode(), bytes);
    let middle = table.length() / 2;
    for start in [0, middle, table.length().saturating_sub(1)] {
        let Some(plan) = table.covering(ByteRange::at(start, 1)) else { continue };
        let Ok(mut resumed) = Resumed::new(&plan, LIMITS) else { continue };
        let (mut input, mut out) = (bytes, Vec::new());
        while let Ok(more) = resumed.step(&mut input, &mut out) {
            assert!(out.len() <= 1, "more came than was asked for");
            if !more && input.is_empty() {
                break;
            }
        }
    }
}

/// Looks for tables at the end of a layer.
pub(super) fn layer(bytes: &[u8]) {
    let length = bytes.len() as u64;
    let inside = |range: ByteRange| &bytes[range.start as usize..range.end as usize];
    if let Some(footer) = bytes.last_chunk()
        && let Ok(Some(range)) = seek_table::find(footer, length)
        && let Ok(table) = seek_table::read(inside(range), length)
    {
        assert_eq!(Checkpoints::decode(table.encode()), Ok(table));
    }
    let announced = announced(length);
    if let Ok(range) = announced.table(inside(announced.first())) {
        assert!(announced.layer(inside(range), range).is_err(), "its digest is of nothing");
    }
}

/// What a manifest says of an eStargz layer of so many bytes, whose table is nothing.
fn announced(length: u64) -> Announced {
    let nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json",
        "digest":"{nothing}","size":0}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip",
        "digest":"{nothing}","size":{length},
        "annotations":{{"containerd.io/snapshot/stargz/toc.digest":"{nothing}"}}}}]}}"#
    );
    let Ok(Document::Manifest(manifest)) = parse(manifest.as_bytes(), None) else {
        panic!("it is a manifest");
    };
    let Ok(Contents::Image(layers)) = manifest.contents() else { panic!("it is of an image") };
    Announced::of(&layers[0]).expect("it has a table")
}

/// Takes it for a table of contents.
pub(super) fn toc(bytes: &[u8]) {
    const END: u64 = 1 << 20;
    for packed in [Transform::Gunzip, Transform::Unzstd] {
        let Ok(layer) = LayerByTable::read(bytes, packed, END) else { continue };
        let table = ChunkTable::new(Validator::default(), END, layer.length, layer.chunks);
        assert!(table.is_ok(), "what is taken lies inside");
    }
}

pub(super) fn tocs() -> Vec<Vec<u8>> {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let rows = format!(
        r#"{{"type":"dir","name":"d","mode":493,"modtime":"2020-01-01T00:00:00Z","xattrs":{{"user.a":"YQ=="}}}},
        {{"type":"reg","name":"d/a","size":9,"offset":12,"chunkSize":5,"chunkDigest":"{digest}"}},
        {{"type":"chunk","name":"d/a","offset":40,"chunkOffset":5,"chunkDigest":"{digest}"}},
        {{"type":"reg","name":"b","size":3,"offset":12,"innerOffset":5,"digest":"{digest}"}},
        {{"type":"hardlink","name":"c","linkName":"d/a"}},
        {{"type":"char","name":"e","devMajor":1,"devMinor":3}}"#
    );
    vec![format!(r#"{{"version":1,"entries":[{rows}]}}"#).into_bytes()]
}

/// Tables of small streams, and one of a place between two blocks.
pub(super) fn tables() -> Vec<Vec<u8>> {
    let table = |stream: Vec<u8>| {
        let transform = transform_of(&stream).expect("they are compressed");
        let mut unpacker =
            Unpacker::with_checkpoints(transform, LIMITS).expect("they are compressed");
        let (mut input, mut out) = (&stream[..], Vec::new());
        while unpacker.step(&mut input, &mut out).expect("they are sound") || !input.is_empty() {}
        unpacker.take_checkpoints().expect("they are whole").encode()
    };
    let between = [
        &b"dfs.seek.v1\0\0\0\0\0\x01\0"[..],
        &[100, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        &[0; 17],
        &[10, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 4, 5, 12, 0, 0, 0],
        // A frame of three bytes.
        b"\x28\xb5\x2f\xfd\x20\x03\x19\0\0abc",
        &[50, 0, 0, 0, 0, 0, 0, 0, 0xf4, 1, 0, 0, 0, 0, 0, 0, 9],
    ];
    compressed().into_iter().map(table).chain([between.concat()]).collect()
}

/// Layers that end in a table of each kind.
pub(super) fn layers() -> Vec<Vec<u8>> {
    let [gzip, frame] = [0, 2].map(|kind| compressed().swap_remove(kind));
    let skipped = |magic: u8, inner: &[u8]| {
        [&[magic, 0x2a, 0x4d, 0x18][..], &(inner.len() as u32).to_le_bytes(), inner].concat()
    };
    let entries = [frame.len() as u8, 0, 0, 0, 3, 0, 0, 0].repeat(2);
    let entries = [&entries[..], &[2, 0, 0, 0, 0, 0xb1, 0xea, 0x92, 0x8f]].concat();
    let seekable = [&frame[..], &frame, &skipped(0x5e, &entries)].concat();
    let digits = format!("{:016x}STARGZ", gzip.len());
    let begin = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0";
    let end = b"\x01\0\0\xff\xff\0\0\0\0\0\0\0\0";
    let stargz = [&gzip[..], &gzip, begin, digits.as_bytes(), end].concat();
    vec![seekable, stargz]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_sound() {
        assert!(tables().iter().all(|table| Checkpoints::decode(table.clone()).is_ok()));
        assert!(LayerByTable::read(&tocs()[0], Transform::Gunzip, 100).is_ok());
        let [seekable, stargz] = layers().try_into().unwrap();
        let footer = seekable.last_chunk().unwrap();
        let range = seek_table::find(footer, seekable.len() as u64).unwrap().unwrap();
        let table = &seekable[range.start as usize..];
        assert_eq!(seek_table::read(table, seekable.len() as u64).unwrap().length(), 6);
        assert!(announced(stargz.len() as u64).table(&stargz).is_ok());
    }
}
