//! Tables that streams bring with them.

use dfs_model::ByteRange;

use super::seeking::{content, read};
use super::*;
use crate::unpack::contents::{Contents, ContentsError};

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

/// A layer whose files begin members or frames of their own, and its table's rows.
struct Layer {
    pack: fn(&[u8]) -> Vec<u8>,
    stream: Vec<u8>,
    rows: Vec<String>,
}

/// What lies between the files: headers and padding.
const BETWEEN: [u8; 700] = [b'h'; 700];

impl Layer {
    fn new(pack: fn(&[u8]) -> Vec<u8>) -> Self {
        Self { pack, stream: pack(&BETWEEN), rows: vec![r#"{"type":"dir","name":"d/"}"#.into()] }
    }

    /// A file whose pieces are members of their own.
    fn file(mut self, name: &str, content: &[u8], piece: usize) -> Self {
        for (number, bytes) in content.chunks(piece).enumerate() {
            let kind = if number == 0 { "reg" } else { "chunk" };
            let size = if number == 0 { content.len() } else { 0 };
            let (at, offset, length) = (self.stream.len(), number * piece, bytes.len());
            self.rows.push(format!(
                r#"{{"type":"{kind}","name":"{name}","size":{size},"offset":{at},"chunkOffset":{offset},"chunkSize":{length},"chunkDigest":"sha256:{number}"}}"#
            ));
            self.stream.extend((self.pack)(&[bytes, &BETWEEN].concat()));
        }
        self
    }

    fn row(mut self, row: &str) -> Self {
        self.rows.push(row.to_owned());
        self
    }

    fn json(&self) -> String {
        format!(r#"{{"version":1,"entries":[{}]}}"#, self.rows.join(","))
    }

    fn stargz(mut self) -> Vec<u8> {
        let (json, at) = (self.json(), self.stream.len());
        let mut tar = vec![0; 512];
        tar[..17].copy_from_slice(b"stargz.index.json");
        tar[124..136].copy_from_slice(format!("{:011o}\0", json.len()).as_bytes());
        tar.extend(json.as_bytes());
        tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
        self.stream.extend(gzip(&tar));
        self.stream.extend(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0");
        self.stream.extend(format!("{at:016x}STARGZ").bytes());
        self.stream.extend(b"\x01\0\0\xff\xff\0\0\0\0\0\0\0\0");
        self.stream
    }

    fn chunked(mut self) -> Vec<u8> {
        let (json, at) = (self.json(), self.stream.len() as u64 + 8);
        let table = zstd(json.as_bytes());
        let numbers = [at, table.len() as u64, json.len() as u64, 1, 0, 0, 0];
        let mut footer: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        footer.extend(b"GNUlInUx");
        self.stream.extend(skipped(0x184d_2a50, &table));
        self.stream.extend(skipped(0x184d_2a50, &footer));
        self.stream
    }
}

fn contents_of(layer: &[u8]) -> Result<Option<Contents>, ContentsError> {
    let tail = &layer[layer.len().saturating_sub(contents::TAIL)..];
    let Some(found) = contents::find(tail, layer.len() as u64)? else { return Ok(None) };
    let table = &layer[found.range.start as usize..found.range.end as usize];
    found.contents(&found.json(table)?).map(Some)
}

/// The bytes of each file, as its pieces are read from the layer.
fn files_of(layer: &[u8]) -> Vec<(String, Vec<u8>)> {
    let contents = contents_of(layer).unwrap().unwrap();
    let checkpoints = Checkpoints::decode(contents.checkpoints.encode()).unwrap();
    let bytes = |file: &contents::File| {
        let mut bytes = vec![0; file.length as usize];
        for piece in &file.pieces {
            let range = ByteRange::at(piece.at, piece.length);
            let got = read(&checkpoints, layer, range, 1000).unwrap();
            bytes[piece.offset as usize..][..got.len()].copy_from_slice(&got);
        }
        (file.path.clone(), bytes)
    };
    contents.files.iter().map(bytes).collect()
}

#[test]
fn files_are_read_from_the_members_that_a_table_of_contents_names() {
    let (long, short) = (content(1, 100_000, 900), content(2, 700, 0));
    let layer = |pack| Layer::new(pack).file("d/long", &long, 30_000).file("short", &short, 1000);
    let expected = vec![("d/long".to_owned(), long.clone()), ("short".to_owned(), short.clone())];
    assert_eq!(files_of(&layer(gzip).stargz()), expected);
    assert_eq!(files_of(&layer(zstd).chunked()), expected);
    // All are ordinary streams as well.
    let whole = plain(Transform::Unzstd, &layer(zstd).chunked()).unwrap();
    assert!(whole.starts_with(&BETWEEN) && whole.len() > 100_700);
    let stargz = layer(gzip).stargz();
    let found = contents_of(&stargz).unwrap().unwrap();
    // What lies between the pieces is passed over.
    let all = ByteRange::at(0, found.checkpoints.length());
    assert_eq!(
        read(&found.checkpoints, &stargz, all, 1000).unwrap(),
        [long.clone(), short].concat()
    );
    assert_eq!(found.files[0].pieces[1].digest.as_deref(), Some("sha256:1"));
    assert_eq!(found.checkpoints.count(), 5);
    assert_eq!(contents_of(&gzip(&long)), Ok(None));
    assert_eq!(contents_of(b""), Ok(None));
}

#[test]
fn holes_and_members_of_many_files_are_where_the_table_says() {
    let mut layer = Layer::new(gzip);
    let at = layer.stream.len();
    layer.stream.extend(gzip(b"onetwo__three"));
    let layer = layer
        .row(&format!(r#"{{"type":"reg","name":"b","size":5,"offset":{at},"innerOffset":8}}"#))
        .row(&format!(r#"{{"type":"reg","name":"a","size":6,"offset":{at},"chunkSize":3}}"#))
        .row(r#"{"type":"chunk","name":"a","chunkOffset":3,"chunkSize":3,"chunkType":"zeros"}"#)
        .row(r#"{"type":"reg","name":"empty","digest":"sha256:0"}"#)
        .row(r#"{"type":"hardlink","name":"l","linkName":"a"}"#);
    let expected = [("b".to_owned(), b"three".to_vec()), ("a".to_owned(), b"one\0\0\0".to_vec())];
    assert_eq!(files_of(&layer.stargz()), expected);
}

#[test]
fn tables_of_contents_that_contradict_themselves_are_refused() {
    let refused = |row: &str| contents_of(&Layer::new(gzip).row(row).stargz()).unwrap_err();
    for row in [
        r#"{"type":"reg","name":"a","size":5,"offset":1,"chunkSize":6}"#,
        r#"{"type":"reg","name":"a","size":5,"offset":1,"chunkSize":6},{"type":"chunk","offset":2}"#,
        r#"{"type":"reg","name":"a","size":5,"offset":1,"chunkSize":4}"#,
        r#"{"type":"reg","name":"a","size":5,"offset":1,"chunkOffset":1}"#,
        r#"{"type":"reg","name":"a","size":5,"offset":1,"chunkType":"odd"}"#,
        r#"{"type":"chunk","name":"a","offset":1,"chunkSize":4}"#,
    ] {
        assert!(matches!(refused(row), ContentsError::Table(_)), "{row}");
    }
    for row in [
        r#"{"type":"reg","name":"a","size":5,"offset":1000000}"#,
        r#"{"type":"reg","name":"a","size":5,"offset":1,"innerOffset":18446744073709551615}"#,
    ] {
        assert_eq!(refused(row), ContentsError::Checkpoints(CheckpointError::Order), "{row}");
    }
    for row in [r#"{"type":"reg","name":"a","size":-5}"#, "{}", "["] {
        assert!(matches!(refused(row), ContentsError::Json(_)), "{row}");
    }
    // Refused before it is read: it is no JSON either.
    let many = "{".repeat(1 << 20);
    assert!(matches!(refused(&many), ContentsError::Table(_)));
    let mut far = Layer::new(gzip).stargz();
    let digits = far.len() - 35;
    far[digits] = b'f';
    assert_eq!(contents_of(&far), Err(ContentsError::Bounds));
}

proptest! {
    #[test]
    fn mutated_tables_of_streams_are_read_or_refused(
        places in proptest::collection::vec((0.0..1.0, any::<u8>()), 1..4),
    ) {
        let bytes = content(1, 3000, 900);
        let layer = |pack| Layer::new(pack).file("a", &bytes, 1000);
        let parts = [bytes.clone(), bytes.clone()];
        let streams = [layer(gzip).stargz(), layer(zstd).chunked(), seekable(&parts, true)];
        for mut stream in streams {
            for &(place, byte) in &places {
                let from = stream.len().saturating_sub(300);
                let at = from + (place * (stream.len() - from) as f64) as usize;
                stream[at] = byte;
            }
            let _ = seek_table_of(&stream);
            if let Ok(Some(contents)) = contents_of(&stream) {
                let again = Checkpoints::decode(contents.checkpoints.encode());
                prop_assert_eq!(again, Ok(contents.checkpoints));
            }
        }
    }
}
