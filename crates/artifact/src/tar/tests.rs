use proptest::prelude::*;

use super::*;
use crate::erofs::{BlockSize, Image, ImageOptions, Space, write_image};

/// A ustar header with the right sum.
fn record(name: &str, kind: u8, size: u64, link: &str) -> Vec<u8> {
    let mut record = vec![0; RECORD];
    record[..name.len()].copy_from_slice(name.as_bytes());
    record[100..108].copy_from_slice(b"0000640\0");
    record[108..116].copy_from_slice(b"0000012\0");
    record[116..124].copy_from_slice(b"0000013\0");
    record[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    record[136..148].copy_from_slice(b"00000000123\0");
    record[156] = kind;
    record[157..157 + link.len()].copy_from_slice(link.as_bytes());
    record[257..265].copy_from_slice(b"ustar\x0000");
    record[148..156].copy_from_slice(b"        ");
    let sum: u32 = record.iter().map(|&byte| u32::from(byte)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    record
}

fn entry(name: &str, kind: u8, body: &[u8], link: &str) -> Vec<u8> {
    let mut entry = record(name, kind, body.len() as u64, link);
    entry.extend_from_slice(body);
    entry.resize(entry.len().next_multiple_of(RECORD), 0);
    entry
}

fn file(name: &str, body: &[u8]) -> Vec<u8> {
    entry(name, b'0', body, "")
}

fn scan(tar: &[u8]) -> Result<(TreeBuilder, Mtime), TarError> {
    let mut scan = TarScan::new(tar.len() as u64);
    while let Some(wanted) = scan.wanted() {
        assert!(wanted.len() <= 1 << 20);
        let (start, end) = (wanted.start as usize, wanted.end as usize);
        scan.feed(tar.get(start..end).unwrap_or_default())?;
    }
    scan.finish()
}

/// Paths of the tree, with what the files hold.
fn listing(parts: &[Vec<u8>]) -> Vec<(String, String)> {
    let mut tar = parts.concat();
    tar.resize(tar.len() + 2 * RECORD, 0);
    let (tree, build_time) = scan(&tar).unwrap();
    let space = Space { length: tar.len() as u64, tag: [0; 64] };
    let options = ImageOptions { block_size: BlockSize::B512, build_time, spaces: vec![space] };
    let image = Image::open(write_image(&tree, &options).unwrap().bytes).unwrap();
    let text = |nid| {
        let Ok(extent) = image.extent(nid, 0) else { return String::new() };
        let place =
            extent.map(|extent| extent.offset as usize..(extent.offset + extent.length) as usize);
        String::from_utf8(tar[place.unwrap_or(0..0)].to_vec()).unwrap()
    };
    let visits = image.walk().map(Result::unwrap);
    visits.map(|visit| (String::from_utf8(visit.path).unwrap(), text(visit.nid))).collect()
}

fn listed(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect()
}

#[test]
fn absolute_and_dotted_names_become_relative() {
    let tar = [file("/abs", b"1"), file("./a//./b", b"2"), entry("./", b'5', b"", "")];
    assert_eq!(listing(&tar), listed(&[("a", ""), ("a/b", "2"), ("abs", "1")]));
}

#[test]
fn names_that_climb_are_refused() {
    for name in ["../a", "a/../../b", "a/.."] {
        assert!(matches!(scan(&file(name, b"")), Err(TarError::Entry { .. })), "{name}");
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let tar = [
        file("a", b"old"),
        file("d/x", b"x"),
        file("a", b"new"),
        entry("d", b'5', b"", ""),
        file("s", b"file"),
        entry("s", b'2', b"", "a"),
        file("gone/below", b"1"),
        file("gone", b"now a file"),
    ];
    let expected = [("a", "new"), ("d", ""), ("d/x", "x"), ("gone", "now a file"), ("s", "")];
    assert_eq!(listing(&tar), listed(&expected));
}

#[test]
fn hard_links_share_and_missing_targets_are_refused() {
    let tar = [file("a", b"1"), entry("b", b'1', b"", "./a"), entry("a", b'1', b"", "a")];
    assert_eq!(listing(&tar), listed(&[("a", "1"), ("b", "1")]));
    let missing = scan(&entry("b", b'1', b"", "a"));
    assert!(matches!(missing, Err(TarError::Entry { source: TreeError::BadLink { .. }, .. })));
}

#[test]
fn long_names_come_from_the_header_before() {
    let long = "n".repeat(200);
    let link = "l".repeat(200);
    let pax = format!("210 path={}\n", "p".repeat(200));
    assert_eq!(pax.len(), 210);
    let tar = [
        entry("././@LongLink", b'L', format!("{long}\0").as_bytes(), ""),
        entry("././@LongLink", b'K', format!("{link}\0").as_bytes(), ""),
        entry("short", b'2', b"", "short"),
        entry("PaxHeaders/x", b'x', pax.as_bytes(), ""),
        file("short", b"body"),
        file("short", b"again"),
    ];
    let pax_name = "p".repeat(200);
    let expected = [(long.as_str(), ""), (pax_name.as_str(), "body"), ("short", "again")];
    assert_eq!(listing(&tar), listed(&expected));
}

#[test]
fn what_is_cut_off_or_broken_is_an_error() {
    let whole = file("a", &[7; 1000]);
    assert!(scan(&whole).is_ok(), "end marks may be missing");
    assert!(matches!(scan(&whole[..1511]), Err(TarError::Truncated { .. })));
    assert!(scan(&whole[..1512]).is_ok(), "the padding may be missing");
    assert!(matches!(scan(&whole[..100]), Err(TarError::Truncated { .. })));
    let mut broken = whole;
    broken[0] = b'b';
    assert!(matches!(scan(&broken), Err(TarError::Corrupt { .. })));
    let sparse = scan(&entry("s", b'S', b"", ""));
    assert!(matches!(sparse, Err(TarError::Unsupported { .. })));
    let extension = scan(&record("x", b'x', 2 << 20, ""));
    assert_eq!(extension.err(), Some(TarError::TooMuch("extended headers")));
}

#[test]
fn the_magic_test_knows_tars_from_others() {
    assert!(is_tar(&file("a", b"")));
    assert!(!is_tar(&[0; RECORD]));
    assert!(!is_tar(b"ustar"));
    let mut other = vec![b'x'; RECORD];
    other[257..262].copy_from_slice(b"ustar");
    assert!(!is_tar(&other));
}

proptest! {
    #[test]
    fn mutated_tars_are_scanned_or_refused(
        changes in proptest::collection::vec((0usize..6000, any::<u8>()), 1..6),
        cut in 0usize..6000,
    ) {
        let pax = b"13 path=a/bc\n30 mtime=1234567890.123456789\n";
        let mut tar = [
            entry("x", b'x', pax, ""), file("a", b"body"), entry("l", b'1', b"", "a/bc"),
            entry("././@LongLink", b'L', b"long\0", ""), file("b", &[1; 700]),
        ].concat();
        for (at, byte) in changes {
            let length = tar.len();
            tar[at % length] = byte;
            // The sum is made right again, so that the fields behind it are reached.
            let start = at % length / RECORD * RECORD;
            let record = &mut tar[start..start + RECORD];
            record[148..156].copy_from_slice(b"        ");
            let sum: u32 = record.iter().map(|&byte| u32::from(byte)).sum();
            record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        tar.truncate(tar.len().saturating_sub(cut % 600));
        let _ = scan(&tar);
    }
}
