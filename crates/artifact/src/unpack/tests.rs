use std::io::Write as _;

use proptest::prelude::*;

use super::*;

mod seeking;
mod tables;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new()
        .filename("a name")
        .comment("a comment")
        .extra([1, 2, 3])
        .write(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

/// Unpacks in portions of input as they may come.
fn unpacked(
    transform: Transform,
    input: &[u8],
    portion: usize,
    limits: Limits,
) -> Result<Vec<u8>, UnpackError> {
    let mut unpacker = Unpacker::new(transform, limits).unwrap();
    let mut out = Vec::new();
    for mut input in input.chunks(portion) {
        loop {
            let had = out.len();
            let more = unpacker.step(&mut input, &mut out)?;
            assert!(out.len() - had <= STEP);
            if !more && input.is_empty() {
                break;
            }
        }
    }
    unpacker.finish().map(|()| out)
}

fn plain(transform: Transform, input: &[u8]) -> Result<Vec<u8>, UnpackError> {
    unpacked(transform, input, 10_000, Limits::default())
}

#[test]
fn what_stands_behind_the_last_member_is_passed_over() {
    let members = [gzip(b"one"), gzip(b"two")].concat();
    for behind in [&b""[..], &[0; 1000], b"rubbish", &[0x1f, 7, 7]] {
        let input = [&members[..], behind].concat();
        assert_eq!(plain(Transform::Gunzip, &input).unwrap(), b"onetwo");
    }
}

#[test]
fn frames_that_are_to_be_skipped_are() {
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"meta"].concat();
    let input = [skipped.clone(), zstd(b"one"), skipped, zstd(b"two")].concat();
    assert_eq!(transform_of(&input), Some(Transform::Unzstd));
    assert_eq!(plain(Transform::Unzstd, &input).unwrap(), b"onetwo");
}

#[test]
fn what_is_cut_off_or_broken_is_an_error() {
    for (transform, whole) in
        [(Transform::Gunzip, gzip(&[7; 5000])), (Transform::Unzstd, zstd(&[7; 5000]))]
    {
        for cut in [0, 5, whole.len() / 2, whole.len() - 1] {
            assert_eq!(plain(transform, &whole[..cut]), Err(UnpackError::Truncated), "{cut}");
        }
        let mut broken = whole.clone();
        broken[0] ^= 1;
        assert!(matches!(plain(transform, &broken), Err(UnpackError::Corrupt(_))));
    }
    let mut sum = gzip(b"text");
    let at = sum.len() - 8;
    sum[at] ^= 1;
    assert!(matches!(plain(Transform::Gunzip, &sum), Err(UnpackError::Corrupt(_))));
}

#[test]
fn bombs_are_refused_before_they_unfold() {
    let zeros = vec![0; 4 << 20];
    for (transform, bomb) in [(Transform::Gunzip, gzip(&zeros)), (Transform::Unzstd, zstd(&zeros))]
    {
        let ratio = Limits { ratio: 20, free: 1 << 20, ..Limits::default() };
        let refused = unpacked(transform, &bomb, 1 << 20, ratio).unwrap_err();
        let UnpackError::Bomb { output, .. } = refused else { panic!("{refused}") };
        assert!(output.0 <= (1 << 20) + STEP as u64);
        let length = Limits { length: 1 << 20, ..Limits::default() };
        let refused = unpacked(transform, &bomb, 1 << 20, length);
        assert!(matches!(refused, Err(UnpackError::Bomb { .. })));
        assert_eq!(plain(transform, &bomb).unwrap(), zeros);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_members_in_any_portions_give_what_was_packed(
        members in proptest::collection::vec((any::<u8>(), 0usize..600_000, any::<bool>()), 1..4),
        portion in 1usize..5000,
    ) {
        let contents: Vec<Vec<u8>> = members
            .iter()
            .map(|&(seed, length, flat)| {
                let byte = |at: usize| if flat { seed } else { (at as u8).wrapping_mul(seed) ^ (at >> 8) as u8 };
                (0..length).map(byte).collect()
            })
            .collect();
        for (transform, pack) in
            [(Transform::Gunzip, gzip as fn(&[u8]) -> Vec<u8>), (Transform::Unzstd, zstd)]
        {
            let packed: Vec<u8> = contents.iter().flat_map(|content| pack(content)).collect();
            prop_assert_eq!(transform_of(&packed), Some(transform));
            let out = unpacked(transform, &packed, portion, Limits::default()).unwrap();
            prop_assert!(out == contents.concat());
        }
    }

    #[test]
    fn mutated_streams_are_unpacked_or_refused(at in 0usize..3000, byte: u8) {
        let content: Vec<u8> = (0..20_000u32).flat_map(u32::to_le_bytes).collect();
        for (transform, mut packed) in
            [(Transform::Gunzip, gzip(&content)), (Transform::Unzstd, zstd(&content))]
        {
            let length = packed.len();
            packed[at % length] = byte;
            let limits = Limits { length: 1 << 20, ..Limits::default() };
            let _ = unpacked(transform, &packed, 777, limits);
        }
    }
}
