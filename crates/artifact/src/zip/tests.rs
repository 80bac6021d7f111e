use proptest::prelude::*;

use super::*;
use crate::parts::{Method, Refusal};

/// A line of a directory.
fn line(name: &str, from: u32, packed: u32, length: u32, method: u16, flags: u16) -> Vec<u8> {
    let mut line = b"PK\x01\x02".to_vec();
    line.extend([20, 3, 20, 0]);
    line.extend(flags.to_le_bytes());
    line.extend(method.to_le_bytes());
    line.extend([0; 4]);
    for number in [7, packed, length] {
        line.extend(number.to_le_bytes());
    }
    line.extend((name.len() as u16).to_le_bytes());
    line.extend([0; 8]);
    line.extend((0o100_644u32 << 16).to_le_bytes());
    line.extend(from.to_le_bytes());
    line.extend(name.as_bytes());
    line
}

fn entry(packed: u32, length: u32, method: u16, flags: u16) -> Entry {
    let line = line("name", 0, packed, length, method, flags);
    let fixed = line.first_chunk().unwrap();
    Entry::parse(fixed, &line[ENTRY_BYTES..], 0).unwrap()
}

/// An end record.
fn end(entries: u16, length: u32, offset: u32, comment: &[u8]) -> Vec<u8> {
    let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
    end.extend([entries.to_le_bytes(), entries.to_le_bytes()].concat());
    end.extend([length.to_le_bytes(), offset.to_le_bytes()].concat());
    end.extend((comment.len() as u16).to_le_bytes());
    end.extend(comment);
    end
}

#[test]
fn the_directory_is_found_behind_programs_and_before_comments_and_rubbish() {
    let lines = line("a", 0, 1, 1, 0, 0);
    let length = lines.len() as u32;
    let found = |before: usize, comment: &[u8], behind: &[u8]| {
        let zip = [vec![b'#'; before + 31], lines.clone(), end(1, length, 31, comment)].concat();
        find_directory(&[zip, behind.to_vec()].concat(), 0)
    };
    let directory = |shift| Directory { at: shift + 31, length: length.into(), entries: 1, shift };
    assert_eq!(found(0, b"", b""), Ok(directory(0)));
    assert_eq!(found(1000, b"a comment", b""), Ok(directory(1000)));
    assert_eq!(found(0, b"PK\x05\x06 is no end record", b""), Ok(directory(0)));
    assert_eq!(found(5, b"", &[0; 300]), Ok(directory(5)));
    assert_eq!(find_directory(&[b'P'; 100], 0), Err(ZipError::NoDirectory));
    let split = [lines, end(1, length, 0, b"")].concat();
    let mut split = split;
    let at = split.len() - 18;
    split[at] = 1;
    assert_eq!(find_directory(&split, 0), Err(ZipError::Split));
}

#[test]
fn the_larger_end_record_is_found_where_it_is() {
    let lines = line("a", 0, 1, 1, 0, 0);
    let length = lines.len() as u64;
    let mut zip = [vec![b'#'; 100], lines].concat();
    let at = zip.len() as u64;
    zip.extend(b"PK\x06\x06");
    zip.extend(44u64.to_le_bytes());
    zip.extend([0; 12]);
    for number in [1u64, 1, length, 100] {
        zip.extend(number.to_le_bytes());
    }
    for named in [at, 5] {
        let mut zip = zip.clone();
        zip.extend(b"PK\x06\x07\0\0\0\0");
        zip.extend(named.to_le_bytes());
        zip.extend([1, 0, 0, 0]);
        zip.extend(end(u16::MAX, u32::MAX, u32::MAX, b""));
        let found = Directory { at: 100, length, entries: 1, shift: 0 };
        assert_eq!(find_directory(&zip, 0), Ok(found));
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    assert_eq!(entry(5, 5, 0, 0).method, Method::Stored);
    assert_eq!(entry(5, 5000, 8, 0).method, Method::Deflated);
    for (entry, why) in [
        (entry(5, 5, 0, 1), Refusal::Encrypted),
        (entry(5, 6, 0, 0), Refusal::Lies),
        (entry(5, u32::MAX, 8, 0), Refusal::Lies),
        (entry(5, 6, 12, 0), Refusal::Method(12)),
        (entry(5, 6, 9999, 0), Refusal::Method(255)),
    ] {
        assert_eq!(entry.method, Method::Refused(why));
    }
}

#[test]
fn members_that_lie_over_each_other_are_refused() {
    let entry = |from, packed| Entry { from, ..entry(packed, packed, 0, 0) };
    let layout = |entries: &[Entry], end| Layout::new(entries, 0, end).map(|_| ());
    assert_eq!(layout(&[entry(0, 10), entry(40, 10)], 80), Ok(()));
    assert_eq!(layout(&[entry(40, 10), entry(0, 10)], 80), Ok(()));
    assert_eq!(layout(&[entry(0, 11), entry(40, 10)], 80), Err(ZipError::Overlap { at: 40 }));
    assert_eq!(layout(&[entry(0, 10), entry(0, 10)], 80), Err(ZipError::Overlap { at: 0 }));
    assert_eq!(layout(&[entry(0, 51)], 80), Err(ZipError::Overlap { at: 80 }));
    // Outside of the zip there is nothing to lie over.
    let outside = [entry(500, 10)];
    let layout = Layout::new(&outside, 0, 80).unwrap();
    assert_eq!(layout.part(0).method, Method::Refused(Refusal::Lies));
}

proptest! {
    #[test]
    fn mutated_zips_are_read_or_refused(
        changes in proptest::collection::vec((0usize..400, any::<u8>()), 1..8),
        cut in 0usize..100,
    ) {
        let lines: Vec<u8> = (0..4).flat_map(|at| line("a/name", at * 50, 10, 20, 8, 0)).collect();
        let length = lines.len() as u32;
        let mut zip = [vec![0; 200], lines, end(4, length, 200, b"c")].concat();
        for (at, byte) in changes {
            let length = zip.len();
            zip[at % length] = byte;
        }
        zip.truncate(zip.len() - cut);
        if let Ok(found) = find_directory(&zip, 0) {
            prop_assert!(found.at + found.length <= zip.len() as u64);
            let lines = &zip[found.at as usize..(found.at + found.length) as usize];
            if let Some(fixed) = lines.first_chunk::<ENTRY_BYTES>() {
                let _ = Entry::rest_bytes(fixed);
                let _ = Entry::parse(fixed, &lines[ENTRY_BYTES..], 0);
            }
        }
    }
}
