//! Parts of streams, read from the checkpoints that were made while they were unpacked.

use std::time::Duration;

use bytes::Bytes;
use dfs_model::ByteRange;
use flate2::Compression;

use super::*;
use crate::unpack::blocks::Bits;
use crate::unpack::checkpoints::{Checkpoint, Entry, Runs};
use crate::unpack::marker::Spacing;

/// Close enough that short contents have some.
const CLOSE: Spacing = Spacing { content: 50_000, packed: 20_000, start: 10_000, passed: 5000 };

/// How contents are packed.
#[derive(Debug, Clone, Copy)]
enum Packer {
    /// A member for each part, by level.
    Members(u32),
    /// One member, flushed between parts as those do that pack in parallel.
    Flushed(u32),
    /// A frame for each part, by level.
    Frames(i32),
    /// One frame that does not name its length.
    OneFrame(i32),
    /// Frames with others between that are to be skipped.
    Parallel(i32),
}

impl Packer {
    fn transform(self) -> Transform {
        match self {
            Self::Members(_) | Self::Flushed(_) => Transform::Gunzip,
            Self::Frames(_) | Self::OneFrame(_) | Self::Parallel(_) => Transform::Unzstd,
        }
    }

    fn pack(self, parts: &[Vec<u8>]) -> Vec<u8> {
        match self {
            Self::Members(level) => parts.iter().flat_map(|part| member(part, level)).collect(),
            Self::Flushed(level) => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), Compression::new(level));
                for part in parts {
                    encoder.write_all(part).unwrap();
                    encoder.flush().unwrap();
                }
                encoder.finish().unwrap()
            }
            Self::Frames(level) => {
                parts.iter().flat_map(|part| zstd::bulk::compress(part, level).unwrap()).collect()
            }
            Self::OneFrame(level) => zstd::stream::encode_all(&*parts.concat(), level).unwrap(),
            Self::Parallel(level) => {
                let frame = |part: &Vec<u8>| {
                    let frame = zstd::bulk::compress(part, level).unwrap();
                    let length = (frame.len() as u32).to_le_bytes();
                    [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], &length, &frame].concat()
                };
                parts.iter().flat_map(frame).collect()
            }
        }
    }
}

fn member(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Text of a few words, or noise where `words` is 0.
pub(super) fn content(seed: u64, length: usize, words: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut number = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out = Vec::with_capacity(length + 16);
    while out.len() < length {
        match words {
            0 => out.extend(number().to_le_bytes()),
            _ => out.extend(format!("word{} ", (number() >> 20) % words).bytes()),
        }
    }
    out.truncate(length);
    out
}

/// Unpacks in portions and makes checkpoints.
fn marked(
    transform: Transform,
    packed: &[u8],
    portion: usize,
    marker: Marker,
) -> Result<(Vec<u8>, Checkpoints), UnpackError> {
    let mut unpacker = Unpacker::marked(transform, Limits::default(), marker).unwrap();
    let mut out = Vec::new();
    for mut input in packed.chunks(portion) {
        while unpacker.step(&mut input, &mut out)? || !input.is_empty() {}
    }
    unpacker.finish()?;
    Ok((out, unpacker.take_checkpoints().unwrap()))
}

/// Reads a range of the content from nothing but the bytes that its plans name.
pub(super) fn read(
    table: &Checkpoints,
    packed: &[u8],
    mut range: ByteRange,
    portion: usize,
) -> Result<Vec<u8>, UnpackError> {
    let mut out = Vec::new();
    while !range.is_empty() {
        let plan = table.covering(range).unwrap();
        let ByteRange { start, end } = plan.compressed;
        let mut resumed = Resumed::new(&plan, Limits::default())?;
        let had = out.len();
        for mut input in packed[start as usize..end as usize].chunks(portion) {
            while resumed.step(&mut input, &mut out)? || !input.is_empty() {}
        }
        resumed.finish()?;
        assert_eq!((out.len() - had) as u64, plan.length);
        range.start += plan.length;
    }
    Ok(out)
}

fn packers() -> impl Strategy<Value = Packer> {
    prop_oneof![
        (0u32..=9).prop_map(Packer::Members),
        (0u32..=9).prop_map(Packer::Flushed),
        (1i32..=12).prop_map(Packer::Frames),
        (1i32..=12).prop_map(Packer::OneFrame),
        (1i32..=12).prop_map(Packer::Parallel),
    ]
}

fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let words = prop_oneof![Just(0u64), 1u64..5, Just(5000)];
    let part = (any::<u64>(), 0usize..150_000, words);
    proptest::collection::vec(
        part.prop_map(|(seed, length, words)| content(seed, length, words)),
        1..6,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_range_read_from_its_checkpoint_is_that_of_the_content(
        parts in parts(),
        packer in packers(),
        portion in prop_oneof![1usize..20, 20usize..20_000],
        ranges in proptest::collection::vec((0.0..1.0, 1u64..70_000), 12),
    ) {
        let (whole, packed) = (parts.concat(), packer.pack(&parts));
        let marker = Marker::new(CLOSE, 1 << 20);
        let (out, table) = marked(packer.transform(), &packed, portion, marker).unwrap();
        prop_assert!(out == whole);
        prop_assert_eq!(table.length(), whole.len() as u64);
        let table = Checkpoints::decode(table.encode()).unwrap();
        for (place, length) in ranges {
            let start = (place * whole.len() as f64) as u64;
            let range = ByteRange::at(start, length).intersection(ByteRange::at(0, table.length()));
            let got = read(&table, &packed, range, portion).unwrap();
            prop_assert!(got == whole[range.start as usize..range.end as usize]);
        }
        let all = ByteRange::at(0, table.length());
        prop_assert!(read(&table, &packed, all, 10_000).unwrap() == whole);
    }

    #[test]
    fn whoever_makes_checkpoints_takes_and_refuses_what_others_do(
        parts in parts(),
        packer in packers(),
        place in 0.0..1.0,
        byte: u8,
        portion in 100usize..20_000,
    ) {
        let mut packed = packer.pack(&parts);
        let at = (place * packed.len() as f64) as usize;
        packed[at] = byte;
        let plain = unpacked(packer.transform(), &packed, portion, Limits::default());
        let marker = Marker::new(CLOSE, 1 << 20);
        let marked = marked(packer.transform(), &packed, portion, marker);
        prop_assert_eq!(plain, marked.map(|(out, _)| out));
    }

    #[test]
    fn hostile_tables_are_refused_or_lead_nowhere_else(
        changes in proptest::collection::vec((0.0..1.0, any::<u8>()), 1..4),
        cut in 0usize..200,
        start in 0u64..200_000,
    ) {
        let (packed, table) = sample();
        let mut bytes = table.encode();
        for (place, byte) in changes {
            let at = (place * bytes.len() as f64) as usize;
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut.saturating_sub(100));
        let Ok(table) = Checkpoints::decode(bytes.clone()) else { return Ok(()) };
        prop_assert_eq!(table.encode(), bytes);
        let Some(plan) = table.covering(ByteRange::at(start, 5000)) else { return Ok(()) };
        let limits = Limits { length: 1 << 20, ..Limits::default() };
        let Ok(mut resumed) = Resumed::new(&plan, limits) else { return Ok(()) };
        let ByteRange { start, end } = plan.compressed;
        let Some(mut input) = packed.get(start as usize..end as usize) else { return Ok(()) };
        let mut out = Vec::new();
        while let Ok(more) = resumed.step(&mut input, &mut out) && (more || !input.is_empty()) {}
        prop_assert!(out.len() as u64 <= plan.length);
    }
}

/// A stream with checkpoints of both kinds.
fn sample() -> (Vec<u8>, Checkpoints) {
    let packed =
        [member(&content(1, 150_000, 0), 6), member(&content(2, 200_000, 900), 6)].concat();
    let marker = Marker::new(CLOSE, 1 << 20);
    let (_, table) = marked(Transform::Gunzip, &packed, 1000, marker).unwrap();
    assert!(table.points[1..].iter().any(|point| point.entry == Entry::Start));
    assert!(table.points.iter().any(|point| matches!(point.entry, Entry::Block { .. })));
    assert!(table.points.iter().any(|point| point.entry == Entry::Passed));
    (packed, table)
}

#[test]
fn a_read_in_the_middle_needs_little_of_the_stream() {
    for (words, least) in [(0, 5), (5000, 3)] {
        let whole = content(7, 12 << 20, words);
        let packed = member(&whole, 6);
        let (_, table) = marked(Transform::Gunzip, &packed, 64 << 10, Marker::default()).unwrap();
        assert!(table.count() >= least, "{} checkpoints", table.count());
        let bytes = table.encode().len() as f64 / packed.len() as f64;
        assert!(bytes < 0.02, "the table is {bytes} of the stream");
        for start in (0..whole.len() as u64 - (64 << 10)).step_by(1 << 20) {
            let range = ByteRange::at(start, 64 << 10);
            let plan = table.covering(range).unwrap();
            let passed = plan.compressed.len();
            assert!(passed <= 3 << 20, "{passed} bytes for 64 KiB");
            let got = read(&table, &packed, range, 100_000).unwrap();
            assert!(got == whole[start as usize..][..64 << 10]);
        }
    }
}

#[test]
fn a_single_frame_is_not_seekable_and_many_are() {
    let parts: Vec<_> = (0..8).map(|seed| content(seed, 300_000, 900)).collect();
    for (packer, count) in [(Packer::OneFrame(3), 1), (Packer::Frames(3), 8)] {
        let packed = packer.pack(&parts);
        let mut unpacker =
            Unpacker::with_checkpoints(packer.transform(), Limits::default()).unwrap();
        let (mut input, mut out) = (&packed[..], Vec::new());
        while unpacker.step(&mut input, &mut out).unwrap() || !input.is_empty() {}
        let table = unpacker.take_checkpoints().unwrap();
        assert_eq!((table.count(), table.is_seekable()), (count, count > 1));
        assert_eq!(table.compressed_length(), packed.len() as u64);
    }
}

#[test]
fn a_frame_that_does_not_fit_in_a_step_is_read_to_its_end() {
    // Both frames are taken at once, but a byte of the second finds no room: the decoder gives one back then.
    let parts = [content(1, 136_900, 1), content(2, STEP - 136_899, 1)];
    let packed = Packer::Frames(1).pack(&parts);
    let marker = Marker::new(CLOSE, 1 << 20);
    let (whole, table) = marked(Transform::Unzstd, &packed, 63, marker).unwrap();
    for start in (0..whole.len() as u64 - 10).step_by(1000) {
        let got = read(&table, &packed, ByteRange::at(start, 10), 63).unwrap();
        assert_eq!(got, whole[start as usize..][..10]);
    }
}

#[test]
fn a_stream_that_is_cut_has_no_checkpoints() {
    let parts = [content(1, 100_000, 900)];
    for packer in [Packer::Members(6), Packer::Frames(3)] {
        let packed = packer.pack(&parts);
        for cut in [0, 1, 20, packed.len() / 2, packed.len() - 1, packed.len()] {
            let mut unpacker =
                Unpacker::with_checkpoints(packer.transform(), Limits::default()).unwrap();
            let (mut input, mut out) = (&packed[..cut], Vec::new());
            while unpacker.step(&mut input, &mut out).unwrap() || !input.is_empty() {}
            let has_ended = cut == packed.len();
            assert_eq!(unpacker.take_checkpoints().is_some(), has_ended, "{cut}");
        }
        let mut unasked = Unpacker::new(packer.transform(), Limits::default()).unwrap();
        let (mut input, mut out) = (&packed[..], Vec::new());
        while unasked.step(&mut input, &mut out).unwrap() || !input.is_empty() {}
        assert!(unasked.finish().is_ok() && unasked.take_checkpoints().is_none());
    }
}

#[test]
fn what_stands_behind_the_content_is_no_part_of_the_table() {
    let whole = content(1, 300_000, 900);
    let packed = member(&whole, 6);
    for behind in [&[0; 1000][..], b"\x1f\x8brubbish", b"rubbish"] {
        let stream = [&packed[..], behind].concat();
        let marker = Marker::new(CLOSE, 1 << 20);
        let (_, table) = marked(Transform::Gunzip, &stream, 777, marker).unwrap();
        assert_eq!(table.compressed_length(), packed.len() as u64);
        assert!(table.points.iter().all(|point| point.packed < packed.len() as u64));
        let end = ByteRange::new(299_000, 300_000);
        assert_eq!(read(&table, &stream, end, 100).unwrap(), whole[299_000..]);
        assert_eq!(table.covering(ByteRange::new(299_000, 300_001)), None);
        assert_eq!(table.covering(ByteRange::new(5, 5)), None);
    }
    let (_, empty) = marked(Transform::Gunzip, &member(b"", 6), 5, Marker::default()).unwrap();
    assert_eq!((empty.count(), empty.length()), (0, 0));
    assert_eq!(Checkpoints::decode(empty.encode()).unwrap(), empty);
}

#[test]
fn a_table_takes_no_more_memory_than_it_may() {
    let parts: Vec<_> = (0..6).map(|seed| content(seed, 400_000, seed % 2)).collect();
    for packer in [Packer::Members(6), Packer::Flushed(6), Packer::Parallel(1)] {
        let packed = packer.pack(&parts);
        let marker = |most| Marker::new(CLOSE, most);
        let (_, all) = marked(packer.transform(), &packed, 5000, marker(1 << 30)).unwrap();
        let most = all.encode().len() / 3;
        let (_, table) = marked(packer.transform(), &packed, 5000, marker(most)).unwrap();
        assert!(table.encode().len() <= most + 64, "{packer:?}");
        assert!(table.points.len() < all.points.len(), "{packer:?}");
        let range = ByteRange::new(2_000_000, 2_010_000);
        let got = read(&table, &packed, range, 3000).unwrap();
        assert!(got == parts.concat()[2_000_000..2_010_000]);
    }
}

#[test]
fn a_table_that_promises_too_much_meets_the_limits_of_bombs() {
    let packed = member(&vec![0; 4 << 20], 9);
    let points = vec![Checkpoint { packed: 0, at: 0, entry: Entry::Start }];
    let lengths = (packed.len() as u64, 1 << 40);
    let table = Checkpoints::new(Transform::Gunzip, Runs::On, lengths, points).unwrap();
    let plan = table.covering(ByteRange::at(1 << 39, 10)).unwrap();
    let limits = Limits { length: 1 << 20, ..Limits::default() };
    let mut resumed = Resumed::new(&plan, limits).unwrap();
    let (mut input, mut out) = (&packed[..], Vec::new());
    let error = loop {
        match resumed.step(&mut input, &mut out) {
            Ok(more) => assert!(more && out.is_empty()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, UnpackError::Bomb { .. }));
}

/// A table of a stream of 100 bytes, 1000 unpacked.
fn table_of(points: Vec<Checkpoint>) -> Result<Checkpoints, CheckpointError> {
    Checkpoints::new(Transform::Gunzip, Runs::On, (100, 1000), points)
}

fn start(packed: u64, at: u64) -> Checkpoint {
    Checkpoint { packed, at, entry: Entry::Start }
}

fn passed(packed: u64, at: u64) -> Checkpoint {
    Checkpoint { packed, at, entry: Entry::Passed }
}

fn block(packed: u64, at: u64, window: &[u8]) -> Checkpoint {
    let (bits, window) = (Bits { count: 3, value: 5 }, Bytes::copy_from_slice(window));
    Checkpoint { packed, at, entry: Entry::Block { bits, window } }
}

#[test]
fn places_that_do_not_ascend_within_the_stream_are_refused() {
    assert!(table_of(vec![start(0, 0), block(10, 100, b""), start(99, 999)]).is_ok());
    for points in [
        vec![],
        vec![start(0, 1)],
        vec![block(0, 0, b"")],
        vec![passed(0, 0)],
        vec![start(0, 0), start(10, 100), start(10, 200)],
        vec![start(0, 0), start(10, 100), start(20, 100)],
        vec![start(0, 0), start(10, 100), start(9, 200)],
        vec![start(0, 0), start(100, 500)],
        vec![start(0, 0), start(50, 1000)],
    ] {
        assert_eq!(table_of(points.clone()), Err(CheckpointError::Order), "{points:?}");
    }
}

#[test]
fn the_encoding_is_frozen_and_no_other_bytes_are_taken() {
    let table = table_of(vec![start(0, 0), block(10, 100, b"window"), passed(50, 500)]).unwrap();
    let bytes = table.encode();
    let expected = [
        &b"dfs.seek.v1\0\0\0\0\0\x01\0"[..],
        &[100, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        &[0; 17],
        &[10, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 4, 5, 6, 0, 0, 0],
        b"window",
        &[50, 0, 0, 0, 0, 0, 0, 0, 0xf4, 1, 0, 0, 0, 0, 0, 0, 9],
    ];
    assert_eq!(bytes, expected.concat());
    assert_eq!(Checkpoints::decode(bytes.clone()).unwrap(), table);
    let changed = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        bytes
    };
    // A version, a transform, a count, bits that are not there, a long window, something behind.
    let (tag, count, bits, window) = (10, 40, 76, 80);
    for broken in [
        changed(tag, b'2'),
        changed(16, 0),
        changed(count, 0xff),
        changed(bits - 1, 10),
        changed(bits, 8),
        changed(window, 0xff),
        [&bytes[..], b"x"].concat(),
        bytes[..bytes.len() - 1].to_vec(),
        Vec::new(),
    ] {
        assert_eq!(Checkpoints::decode(broken.clone()), Err(CheckpointError::Encoding));
    }
    let long = table_of(vec![start(0, 0), block(10, 100, &[0; 33 << 10])]).unwrap();
    assert_eq!(Checkpoints::decode(long.encode()), Err(CheckpointError::Encoding));
    assert_eq!(Checkpoints::decode(vec![0; 65 << 20]), Err(CheckpointError::TooLong));
}

#[test]
fn windows_that_are_none_are_refused_where_they_are_used() {
    let longer = zstd::bulk::compress(&[0; (32 << 10) + 1], 1).unwrap();
    for window in [&b"no frame"[..], &longer] {
        let table = table_of(vec![start(0, 0), block(10, 100, window)]).unwrap();
        let plan = table.covering(ByteRange::new(100, 101)).unwrap();
        let refused = Resumed::new(&plan, Limits::default());
        assert!(matches!(refused.map(|_| ()), Err(UnpackError::Corrupt(_))));
    }
}

/// What checkpoints cost. `cargo test --release -p dfs-artifact -- --ignored --nocapture what_checkpoints_cost`
#[test]
#[ignore = "prints figures of 100 MB of this machine's programs"]
fn what_checkpoints_cost() {
    let mut whole = Vec::new();
    let mut dirs = vec![std::path::PathBuf::from("/usr")];
    while let Some(dir) = dirs.pop().filter(|_| whole.len() < 100_000_000) {
        let mut entries: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap()).collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => dirs.push(entry.path()),
                kind if kind.is_file() => whole.extend(std::fs::read(entry.path()).unwrap()),
                _ => {}
            }
        }
    }
    whole.truncate(100_000_000);
    let noise = content(1, 100_000_000, 0);
    let zstd: Vec<Vec<u8>> = whole.chunks(4 << 20).map(<[u8]>::to_vec).collect();
    for (name, packer, parts) in [
        ("programs, gzip -6", Packer::Members(6), vec![whole]),
        ("noise, gzip -6", Packer::Members(6), vec![noise]),
        ("programs, zstd -3 in frames of 4 MiB", Packer::Frames(3), zstd),
    ] {
        figures(name, packer.transform(), &packer.pack(&parts));
    }
}

/// Time that this thread has been on a processor.
fn busy() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap()
}

fn figures(name: &str, transform: Transform, packed: &[u8]) {
    let run = |mut unpacker: Unpacker| {
        let (begin, mut bytes, mut out) = (busy(), 0, Vec::new());
        for mut input in packed.chunks(64 << 10) {
            loop {
                out.clear();
                let more = unpacker.step(&mut input, &mut out).unwrap();
                bytes += out.len();
                if !more && input.is_empty() {
                    break;
                }
            }
        }
        println!("{name}: {:.0} MB/s", bytes as f64 / 1e6 / (busy() - begin).as_secs_f64());
        unpacker.take_checkpoints()
    };
    let mut table = None;
    for _ in 0..3 {
        run(Unpacker::new(transform, Limits::default()).unwrap());
        table = run(Unpacker::with_checkpoints(transform, Limits::default()).unwrap());
    }
    let table = table.unwrap();
    let (begin, mut passed) = (busy(), 0);
    let ranges: Vec<_> = (0..200).map(|n| ByteRange::at(n * 490_000, 64 << 10)).collect();
    for &range in &ranges {
        passed += table.covering(range).unwrap().compressed.len();
        read(&table, packed, range, 64 << 10).unwrap();
    }
    println!(
        "{name}: {} checkpoints, {} bytes of {} ({:.2} %); 64 KiB take {} KiB of it and {:.1} ms",
        table.count(),
        table.encode().len(),
        packed.len(),
        100.0 * table.encode().len() as f64 / packed.len() as f64,
        passed / 200 / 1024,
        (busy() - begin).as_secs_f64() * 1000.0 / 200.0,
    );
}
