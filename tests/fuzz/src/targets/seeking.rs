//! Tables by which compressed streams are read in the middle: our own, and those that streams bring with them.

use dfs_artifact::unpack::{
    Checkpoints, Limits, Resumed, Unpacker, contents, seek_table, transform_of,
};
use dfs_model::ByteRange;

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
    let tail = &bytes[bytes.len().saturating_sub(contents::TAIL)..];
    if let Ok(Some(found)) = contents::find(tail, length)
        && let Ok(json) = found.json(inside(found.range))
        && let Ok(contents) = found.contents(&json)
    {
        let table = contents.checkpoints;
        let pieces = contents.files.iter().flat_map(|file| &file.pieces);
        for piece in pieces.take(1000) {
            let range = ByteRange::at(piece.at, piece.length);
            assert!(table.covering(range).is_some_and(|plan| plan.length == piece.length));
        }
        assert_eq!(Checkpoints::decode(table.encode()), Ok(table));
    }
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
    let json = br#"{"version":1,"entries":[{"type":"reg","name":"a","size":3,"offset":12}]}"#;
    let head = [0x28, 0xb5, 0x2f, 0xfd, 0x20, json.len() as u8];
    let block = ((json.len() as u32) << 3 | 1).to_le_bytes();
    let table = [&head[..], &block[..3], json].concat();
    let numbers = [2 * frame.len() as u64 + 8, table.len() as u64, json.len() as u64, 1, 0, 0, 0];
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let footer = skipped(0x50, &[&numbers[..], b"GNUlInUx"].concat());
    let chunked = [&frame[..], &frame, &skipped(0x50, &table), &footer].concat();
    let entries = [frame.len() as u8, 0, 0, 0, 3, 0, 0, 0].repeat(2);
    let entries = [&entries[..], &[2, 0, 0, 0, 0, 0xb1, 0xea, 0x92, 0x8f]].concat();
    let seekable = [&frame[..], &frame, &skipped(0x5e, &entries)].concat();
    let digits = format!("{:016x}STARGZ", gzip.len());
    let begin = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0";
    let end = b"\x01\0\0\xff\xff\0\0\0\0\0\0\0\0";
    let stargz = [&gzip[..], &gzip, begin, digits.as_bytes(), end].concat();
    vec![chunked, seekable, stargz]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_sound() {
        assert!(tables().iter().all(|table| Checkpoints::decode(table.clone()).is_ok()));
        let [chunked, seekable, stargz] = layers().try_into().unwrap();
        let tail = |layer: &[u8]| layer[layer.len().saturating_sub(contents::TAIL)..].to_vec();
        let found = contents::find(&tail(&chunked), chunked.len() as u64).unwrap().unwrap();
        let range = found.range.start as usize..found.range.end as usize;
        let json = found.json(&chunked[range]).unwrap();
        assert_eq!(found.contents(&json).unwrap().files.len(), 1);
        let footer = seekable.last_chunk().unwrap();
        let range = seek_table::find(footer, seekable.len() as u64).unwrap().unwrap();
        let table = &seekable[range.start as usize..];
        assert_eq!(seek_table::read(table, seekable.len() as u64).unwrap().length(), 6);
        assert!(contents::find(&tail(&stargz), stargz.len() as u64).unwrap().is_some());
    }
}
