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
    summed(&mut record);
    record
}

/// Makes the sum right.
fn summed(record: &mut [u8]) {
    record[148..156].copy_from_slice(b"        ");
    let sum: u32 = record[..RECORD].iter().map(|&byte| u32::from(byte)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
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

fn scan(tar: &[u8]) -> Result<ScannedTar, TarError> {
    let mut scan = TarScan::new(tar.len() as u64);
    while let Some(wanted) = scan.wanted() {
        assert!(wanted.len() <= 1 << 20);
        let (start, end) = (wanted.start as usize, wanted.end as usize);
        scan.feed(tar.get(start..end).unwrap_or_default())?;
    }
    scan.finish()
}

fn ended(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = parts.concat();
    tar.resize(tar.len() + 2 * RECORD, 0);
    tar
}

/// Space 1, as whoever reads the origin puts it together.
fn put_together(tar: &[u8], scanned: &ScannedTar) -> Vec<u8> {
    let mut space = vec![0; scanned.parts_length as usize];
    for part in &scanned.parts {
        let (from, to, length) = (part.from as usize, part.offset as usize, part.length as usize);
        space[to..to + length].copy_from_slice(&tar[from..from + length]);
    }
    space
}

/// Paths of the tree, with what the files hold.
fn listing(parts: &[Vec<u8>]) -> Vec<(String, String)> {
    contents(&ended(parts))
}

fn contents(tar: &[u8]) -> Vec<(String, String)> {
    let scanned = scan(tar).unwrap();
    let spaces = [tar.to_vec(), put_together(tar, &scanned)];
    let space = |bytes: &Vec<u8>| Space { length: bytes.len() as u64, tag: [0; 64] };
    let options = ImageOptions {
        block_size: BlockSize::B512,
        build_time: scanned.newest,
        spaces: spaces.iter().map(space).collect(),
    };
    let image = write_image(&scanned.tree, &options).unwrap();
    let image = Image::open(image.bytes).unwrap();
    let text = |nid| {
        let (mut text, mut at) = (Vec::new(), 0);
        while let Ok(Some(extent)) = image.extent(nid, at) {
            let (start, length) = (extent.offset as usize, extent.length as usize);
            match extent.space {
                Some(space) => text.extend(&spaces[usize::from(space)][start..start + length]),
                None => text.resize(text.len() + length, b'_'),
            }
            at += extent.length;
        }
        String::from_utf8(text).unwrap()
    };
    let visits = image.walk().map(Result::unwrap);
    visits.map(|visit| (String::from_utf8(visit.path).unwrap(), text(visit.nid))).collect()
}

/// Paths that were left out.
fn left_out(parts: &[Vec<u8>]) -> Vec<String> {
    let skipped = scan(&ended(parts)).unwrap().left_out.named;
    skipped.into_iter().map(|entry| String::from_utf8(entry.path).unwrap()).collect()
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
fn names_that_climb_are_left_out() {
    let tar = [file("../a", b""), file("a/../../b", b""), file("a/..", b""), file("c", b"3")];
    assert_eq!(listing(&tar), listed(&[("c", "3")]));
    assert_eq!(left_out(&tar), ["../a", "a/../../b", "a/.."]);
}

#[test]
fn planted_links_lead_nowhere_outside() {
    let link = |name: &str, target: &str| entry(name, b'2', b"", target);
    let tar = [
        entry("d", b'5', b"", ""),
        link("inside", "./d"),
        link("up", "../outside"),
        link("root", "/"),
        link("round", "round"),
        link("nowhere", "gone"),
        file("inside/f", b"1"),
        file("up/f", b"2"),
        file("root/f", b"3"),
        file("round/f", b"4"),
        file("nowhere/f", b"5"),
        entry("hard", b'1', b"", "inside/f"),
        entry("outside", b'1', b"", "up/x"),
    ];
    let expected = [
        ("d", ""),
        ("d/f", "1"),
        ("hard", "1"),
        ("inside", ""),
        ("nowhere", ""),
        ("root", ""),
        ("round", ""),
        ("up", ""),
    ];
    assert_eq!(listing(&tar), listed(&expected));
    assert_eq!(left_out(&tar), ["up/f", "root/f", "round/f", "nowhere/f", "outside"]);
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
        file("was", b"a file"),
        file("was/below", b"2"),
        file("too", b"a file"),
        entry("too/", b'5', b"", ""),
    ];
    let expected = [
        ("a", "new"),
        ("d", ""),
        ("d/x", "x"),
        ("gone", "now a file"),
        ("s", ""),
        ("too", ""),
        ("was", ""),
        ("was/below", "2"),
    ];
    assert_eq!(listing(&tar), listed(&expected));
}

#[test]
fn hard_links_share_also_with_what_comes_later() {
    let link = |name: &str, target: &str| entry(name, b'1', b"", target);
    let tar = [
        link("early", "later"),
        file("a", b"1"),
        link("b", "./a"),
        link("a", "a"),
        file("later", b"2"),
        link("taken", "later-still"),
        file("taken", b"own"),
        file("later-still", b"3"),
        entry("d", b'5', b"", ""),
        link("to-d", "d"),
        link("gone", "nothing"),
        link("circle", "circle"),
        link("out", "../a"),
    ];
    let expected = [
        ("a", "1"),
        ("b", "1"),
        ("d", ""),
        ("early", "2"),
        ("later", "2"),
        ("later-still", "3"),
        ("taken", "own"),
    ];
    assert_eq!(listing(&tar), listed(&expected));
    assert_eq!(left_out(&tar), ["to-d", "out", "gone", "circle"]);
}

#[test]
fn a_layer_keeps_links_to_what_it_does_not_have() {
    let link = |name: &str, target: &str| entry(name, b'1', b"", target);
    let tar = ended(&[
        file("a", b"1"),
        link("b", "a"),
        link("early", "later"),
        link("./low", "/usr/bin/x"),
        link("same", "same"),
        link("taken", "gone"),
        file("taken", b"own"),
        link("out", "../a"),
        file("later", b"2"),
    ]);
    let mut scan = TarScan::new(tar.len() as u64);
    while let Some(wanted) = scan.wanted() {
        scan.feed(&tar[wanted.start as usize..wanted.end as usize]).unwrap();
    }
    let (scanned, links) = scan.finish_layer().unwrap();
    let pending =
        |path: &str, target: &str| PendingLink { path: path.into(), target: target.into() };
    assert_eq!(links, [pending("low", "usr/bin/x"), pending("same", "same")]);
    assert!(scanned.tree.contains(b"early") && !scanned.tree.contains(b"low"));
    assert_eq!(
        scanned.left_out.named.iter().map(|left| &left.path[..]).collect::<Vec<_>>(),
        [b"out"]
    );
    assert!(matches!(TarScan::new(512).finish_layer(), Err(TarError::Truncated { .. })));
}

#[test]
fn directories_that_are_only_implied_are_told_from_others() {
    let tar = ended(&[file("implied/x", b""), entry("said", b'5', b"", ""), file("said/x", b"")]);
    let scanned = scan(&tar).unwrap();
    let spaces = vec![Space { length: tar.len() as u64, tag: [0; 64] }];
    let options = ImageOptions { block_size: BlockSize::B512, build_time: scanned.newest, spaces };
    let image = Image::open(write_image(&scanned.tree, &options).unwrap().bytes).unwrap();
    let implied = |name: &[u8]| {
        let nid = image.lookup(image.root(), name).unwrap().unwrap();
        image.is_implied(nid).unwrap()
    };
    assert_eq!((implied(b"implied"), implied(b"said")), (true, false));
    assert!(image.is_implied(image.root()).unwrap());
}

/// A PAX header of these records.
fn pax(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = key.len() + value.len() + 3;
        let digits = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap();
        format!("{} {key}={value}\n", rest + digits)
    };
    let body: String = records.iter().map(record).collect();
    entry("PaxHeaders/x", kind, body.as_bytes(), "")
}

#[test]
fn global_headers_hold_until_they_are_taken_back() {
    let tar = ended(&[
        pax(b'g', &[("mtime", "5.5"), ("comment", "no entry's"), ("hdrcharset", "BINARY")]),
        file("a", b""),
        pax(b'x', &[("mtime", "7"), ("path", "b")]),
        file("other", b""),
        pax(b'g', &[("mtime", "")]),
        file("c", b""),
    ]);
    let scanned = scan(&tar).unwrap();
    let image = ImageOptions {
        block_size: BlockSize::B512,
        build_time: scanned.newest,
        spaces: Vec::new(),
    };
    let image = Image::open(write_image(&scanned.tree, &image).unwrap().bytes).unwrap();
    let mtime = |name: &[u8]| {
        let nid = image.lookup(image.root(), name).unwrap().unwrap();
        image.attr(nid).unwrap().mtime
    };
    assert_eq!(mtime(b"a"), Mtime { secs: 5, nanos: 500_000_000 });
    assert_eq!(mtime(b"b"), Mtime { secs: 7, nanos: 0 });
    assert_eq!(mtime(b"c"), Mtime { secs: 0o123, nanos: 0 });
}

#[test]
fn files_with_holes_read_the_same_in_every_format() {
    let (first, second) = ("a".repeat(512), "b".repeat(100));
    let body = [first.as_bytes(), second.as_bytes()].concat();
    let expected = format!("{}{first}{}{second}", "_".repeat(1024), "_".repeat(512));
    let length = expected.len().to_string();
    let length = length.as_str();
    let map = "1024,512,2048,100";
    let pieces = [
        ("GNU.sparse.offset", "1024"),
        ("GNU.sparse.numbytes", "512"),
        ("GNU.sparse.offset", "2048"),
        ("GNU.sparse.numbytes", "100"),
    ];
    let mut text = b"3\n1024\n512\n2048\n100\n2148\n0\n".to_vec();
    text.resize(RECORD, 0);
    let name = ("GNU.sparse.name", "sparse");
    let formats = [
        [pax(b'x', &[&[("GNU.sparse.size", length)][..], &pieces].concat()), file("sparse", &body)],
        [
            pax(b'x', &[("GNU.sparse.size", length), name, ("GNU.sparse.map", map)]),
            file("GNUSparseFile.0/sparse", &body),
        ],
        [
            pax(
                b'x',
                &[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    name,
                    ("GNU.sparse.realsize", length),
                ],
            ),
            file("GNUSparseFile.0/sparse", &[text, body.clone()].concat()),
        ],
        [Vec::new(), old_gnu(&body, expected.len(), &[(1024, 512), (2048, 100)])],
    ];
    for format in formats {
        let tar = [format.concat(), file("after", b"z")];
        assert_eq!(listing(&tar), listed(&[("after", "z"), ("sparse", &expected)]));
    }
}

/// A number of twelve bytes: octal, or GNU's base 256.
fn number(number: usize) -> [u8; 12] {
    let mut field = [0; 12];
    match number {
        0..0o100_000_000_000 => field[..11].copy_from_slice(format!("{number:011o}").as_bytes()),
        _ => {
            field[0] = 0x80;
            field[4..].copy_from_slice(&number.to_be_bytes());
        }
    }
    field
}

/// An old GNU file of type `S`, with its map in as many records as it takes.
fn old_gnu(body: &[u8], length: usize, pieces: &[(usize, usize)]) -> Vec<u8> {
    let mut header = record("sparse", b'S', body.len() as u64, "");
    header[257..265].copy_from_slice(b"ustar  \0");
    header[483..495].copy_from_slice(&number(length));
    let put = |record: &mut [u8], at: usize, pieces: &[(usize, usize)]| {
        for (place, (offset, length)) in pieces.iter().enumerate() {
            let entry = [number(*offset), number(*length)].concat();
            record[at + 24 * place..][..24].copy_from_slice(&entry);
        }
    };
    let (inside, behind) = pieces.split_at(pieces.len().min(4));
    put(&mut header, 386, inside);
    header[482] = u8::from(!behind.is_empty());
    summed(&mut header);
    let mut tar = header;
    let mut rest = behind.chunks(21).peekable();
    while let Some(pieces) = rest.next() {
        let mut record = vec![0; RECORD];
        put(&mut record, 0, pieces);
        record[504] = u8::from(rest.peek().is_some());
        tar.extend(record);
    }
    tar.extend(body);
    tar.resize(tar.len().next_multiple_of(RECORD), 0);
    tar
}

#[test]
fn holes_that_no_chunk_fits_are_put_together_in_a_space_of_their_own() {
    let pieces: Vec<(usize, usize)> = (0..60).map(|at| (at * 1000 + 3, at + 1)).collect();
    let body: Vec<u8> =
        pieces.iter().flat_map(|&(at, length)| vec![b'a' + (at % 26) as u8; length]).collect();
    let mut expected = vec![0; 100_000];
    for &(at, length) in &pieces {
        expected[at..at + length].fill(b'a' + (at % 26) as u8);
    }
    let tar = ended(&[old_gnu(&body, expected.len(), &pieces)]);
    let scanned = scan(&tar).unwrap();
    assert_eq!(scanned.parts.len(), pieces.len());
    let shown = contents(&tar).remove(0).1.replace('_', "\0");
    assert!(shown.as_bytes() == expected, "the content differs");
}

#[test]
fn maps_that_lie_are_refused() {
    let refused = |tar: Vec<u8>| matches!(scan(&ended(&[tar])), Err(TarError::Corrupt { .. }));
    assert!(refused(old_gnu(&[1; 10], 100, &[(0, 20)])), "more bytes than there are");
    assert!(refused(old_gnu(&[1; 10], 100, &[(50, 5), (0, 5)])), "out of order");
    assert!(refused(old_gnu(&[1; 10], 100, &[(95, 10)])), "behind the end");
    let text = |text: &str| {
        let header = pax(b'x', &[("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "9")]);
        [header, file("f", &[text.as_bytes(), &[b'0'; 600]].concat())].concat()
    };
    assert!(refused(text("x\n")));
    assert!(refused(text("123456789012345678901234567890")));
    let endless = old_gnu(&[], 1 << 30, &vec![(0, 0); 1000]);
    assert!(scan(&ended(&[endless])).is_ok());
    let huge: Vec<(usize, usize)> = (0..400).map(|at| ((at << 40) + 1, 1)).collect();
    let much = scan(&ended(&[old_gnu(&[1; 400], 400 << 40, &huge)]));
    assert_eq!(much.err(), Some(TarError::TooMuch("scattered bytes")));
}

#[test]
fn other_dialects_are_read() {
    let mut v7 = record("v7", b'0', 1, "");
    v7[257..].fill(0);
    v7[156] = 0;
    summed(&mut v7);
    assert!(is_tar(&v7));
    v7.extend([b'7'; RECORD]);
    let mut prefixed = record("name", b'0', 0, "");
    prefixed[345..348].copy_from_slice(b"dir");
    summed(&mut prefixed);
    let mut star = prefixed.clone();
    star[476..500].copy_from_slice(b"00000000123 00000000123 ");
    star[508..].copy_from_slice(b"tar\0");
    star[..4].copy_from_slice(b"same");
    summed(&mut star);
    let mut gnu = record("gnu", b'0', 0, "");
    gnu[257..265].copy_from_slice(b"ustar  \0");
    gnu[345..356].copy_from_slice(b"00000000123");
    gnu[108..116].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
    summed(&mut gnu);
    let mut large = record("large", b'0', 0, "");
    large[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    summed(&mut large);
    large.extend([b'L'; RECORD]);
    large[RECORD..RECORD + 2].copy_from_slice(b"22");
    let unknown = [entry("unknown", b'Z', b"u", ""), entry("volume", b'V', b"", "")].concat();
    let tar = [v7, prefixed, star, gnu, large, unknown, entry("old/", b'0', b"", "")];
    let expected = [
        ("dir", ""),
        ("dir/name", ""),
        ("dir/same", ""),
        ("gnu", ""),
        ("large", "22"),
        ("old", ""),
        ("unknown", "u"),
        ("v7", "7"),
    ];
    assert_eq!(listing(&tar), listed(&expected));
}

#[test]
fn what_stands_behind_the_end_marks_is_nobodys() {
    let end = vec![0; 2 * RECORD];
    let tar = [file("a", b"1"), end, file("b", b"2"), vec![7; 100]].concat();
    assert_eq!(contents(&tar), listed(&[("a", "1")]));
}

#[test]
fn parts_of_other_volumes_are_refused_plainly() {
    let said = |tar: Vec<u8>| scan(&tar).unwrap_err().to_string();
    let why = "the tar has a part of another volume's file at byte";
    assert!(said(entry("m", b'M', b"rest", "")).starts_with(why));
    let pax = pax(b'x', &[("GNU.volume.offset", "100")]);
    assert!(said(pax).starts_with(why));
}

#[test]
fn memory_is_bounded_by_what_may_be_in_an_index() {
    let mut scan = TarScan::new(u64::MAX);
    let (header, body) = (record("././@LongLink", b'K', MAX_EXTENSION, ""), vec![b't'; 1 << 20]);
    let link = entry("link", b'2', b"", "");
    let mut rounds = 0;
    let refused = loop {
        let taken = scan.feed(&header).and_then(|()| scan.feed(&body));
        if let Err(error) = taken.and_then(|()| scan.feed(&link)) {
            break error;
        }
        rounds += 1;
    };
    assert_eq!(refused, TarError::TooMuch("extended headers"));
    assert_eq!(rounds, MAX_EXTENSIONS / MAX_EXTENSION);
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
            old_gnu(&[2; 30], 5000, &[(0, 10), (99, 20)]),
        ].concat();
        for (at, byte) in changes {
            let length = tar.len();
            tar[at % length] = byte;
            // The sum is made right again, so that the fields behind it are reached.
            let start = at % length / RECORD * RECORD;
            summed(&mut tar[start..start + RECORD]);
        }
        tar.truncate(tar.len().saturating_sub(cut % 600));
        let _ = scan(&tar);
    }
}
