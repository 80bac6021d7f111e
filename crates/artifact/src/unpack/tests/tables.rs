//! Tables that streams bring with them.

use dfs_model::ByteRange;

use super::seeking::{content, read};
use super::*;

fn skipped(magic: u32, inner: &[u8]) -> Vec<u8> {
    [&magic.to_le_bytes()[..], &(inner.len() as u32).to_le_bytes(), inner].concat()
}

/// A stream in zstd's seekable format, with sums or without.
fn seekable(parts: &[Vec<u8>], sums: bool) -> Vec<u8> {
    let (mut stream, mut entries) = (Vec::new(), Vec::new());
    for part in parts {
        let frame = zstd(part);
        entries.extend((frame.len() as u32).to_le_bytes());
        entries.extend((part.len() as u32).to_le_bytes());
        entries.extend(&[0; 4][..if sums { 4 } else { 0 }]);
        stream.extend(frame);
    }
    entries.extend((parts.len() as u32).to_le_bytes());
    entries.push(if sums { 0x80 } else { 0 });
    entries.extend(0x8f92_eab1u32.to_le_bytes());
    stream.extend(skipped(0x184d_2a5e, &entries));
    stream
}

fn seek_table_of(stream: &[u8]) -> Result<Option<Checkpoints>, CheckpointError> {
    let Some(footer) = stream.last_chunk() else { return Ok(None) };
    let Some(range) = seek_table::find(footer, stream.len() as u64)? else { return Ok(None) };
    let table = &stream[range.start as usize..range.end as usize];
    seek_table::read(table, stream.len() as u64).map(Some)
}

#[test]
fn frames_that_the_seekable_format_names_are_read_one_by_one() {
    let parts: Vec<_> = (0..5).map(|seed| content(seed, 300_000, 900)).collect();
    let whole = parts.concat();
    for sums in [false, true] {
        let stream = seekable(&parts, sums);
        let table = seek_table_of(&stream).unwrap().unwrap();
        assert_eq!((table.count(), table.length()), (5, whole.len() as u64));
        for start in (0..1_400_000).step_by(70_000) {
            let got = read(&table, &stream, ByteRange::at(start, 100_000), 5000).unwrap();
            assert!(got == whole[start as usize..][..100_000]);
        }
        let plan = table.covering(ByteRange::at(350_000, 10)).unwrap();
        assert!(plan.compressed.start > 0 && plan.skip == 50_000);
    }
    assert_eq!(seek_table_of(&zstd(&whole)), Ok(None));
}

#[test]
fn a_seek_table_that_does_not_fit_its_stream_is_refused() {
    let stream = seekable(&[content(1, 5000, 900), content(2, 5000, 0)], false);
    let end = stream.len();
    let with = |at: usize, byte: u8| {
        let mut stream = stream.clone();
        stream[at] = byte;
        seek_table_of(&stream)
    };
    assert!(with(0, 0).unwrap().is_some());
    // The magic number, the descriptor, how many frames, the length of one, the frame that is skipped.
    assert_eq!(with(end - 1, 0), Ok(None));
    assert_eq!(with(end - 5, 4), Err(CheckpointError::Encoding));
    assert_eq!(with(end - 8, 0xff), Err(CheckpointError::Order));
    assert_eq!(with(end - 6, 0xff), Err(CheckpointError::TooLong));
    assert_eq!(with(end - 9, 1), Err(CheckpointError::Encoding));
    assert_eq!(with(end - 25, 0xff), Err(CheckpointError::Order));
    assert_eq!(with(end - 33, 0x5d), Err(CheckpointError::Encoding));
    assert_eq!(seek_table_of(&stream[1..]), Err(CheckpointError::Order));
}

proptest! {
    #[test]
    fn mutated_tables_of_streams_are_read_or_refused(
        places in proptest::collection::vec((0.0..1.0, any::<u8>()), 1..4),
    ) {
        let bytes = content(1, 3000, 900);
        let mut stream = seekable(&[bytes.clone(), bytes], true);
        for (place, byte) in places {
            let from = stream.len().saturating_sub(300);
            let at = from + (place * (stream.len() - from) as f64) as usize;
            stream[at] = byte;
        }
        if let Ok(Some(table)) = seek_table_of(&stream) {
            let again = Checkpoints::decode(table.encode());
            prop_assert_eq!(again, Ok(table));
        }
    }
}
