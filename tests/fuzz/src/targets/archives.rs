//! Archives: the scan of a tar, streams to unpack, and whatever makes a tree of a file.

use std::fs;
use std::sync::LazyLock;

use dfs_artifact::tar::TarScan;
use dfs_artifact::unpack::{Limits, Unpacker, transform_of};
use dfs_artifact::{Index, ResolveOptions, View, resolve};
use dfs_model::CanonicalUrl;
use dfs_source::{Credentials, FileOptions, Sources, Target};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Steps after which a scan or a stream is said to hang: each takes or gives a byte at least.
const STEPS: usize = 4 << 20;

/// Scans `tar` as if it were fetched.
pub(super) fn scan_tar(tar: &[u8]) {
    let mut scan = TarScan::new(tar.len() as u64);
    let mut steps = 0;
    while let Some(wanted) = scan.wanted() {
        steps += 1;
        assert!(steps <= STEPS && wanted.len() <= 1 << 20, "asks for {wanted:?} at step {steps}");
        let Some(bytes) = tar.get(wanted.start as usize..wanted.end as usize) else { return };
        if scan.feed(bytes).is_err() {
            return;
        }
    }
    // A tar that ends in the middle of its last record is refused here.
    let _ = scan.finish();
}

/// Unpacks `stream`, whose bytes come in pieces.
pub(super) fn unpack(stream: &[u8]) {
    let limits = Limits { length: 8 << 20, ratio: 1000, free: 1 << 20 };
    let unpacker = transform_of(stream).and_then(|transform| Unpacker::new(transform, limits));
    let Some(mut unpacker) = unpacker else { return };
    let mut out = Vec::new();
    for mut piece in stream.chunks(1000) {
        let mut steps = 0;
        loop {
            out.clear();
            match unpacker.step(&mut piece, &mut out) {
                Ok(more) if more || !piece.is_empty() => steps += 1,
                Ok(_) => break,
                Err(_) => return,
            }
            assert!(steps <= STEPS, "the stream never ends");
        }
    }
    // Cut off, perhaps.
    let _ = unpacker.finish();
}

struct Place {
    runtime: Runtime,
    dir: TempDir,
    sources: Sources,
}

/// Where archives lie while they are resolved.
static PLACE: LazyLock<Place> = LazyLock::new(|| Place {
    runtime: Builder::new_current_thread().enable_all().build().expect("threads can be started"),
    dir: TempDir::new().expect("there is room for a file"),
    sources: Sources::builder().file(FileOptions::default()).build().expect("nothing is missing"),
});

/// Makes a tree of a file with these bytes. What comes of it is an index that all nodes accept.
pub(super) fn resolve_one(bytes: &[u8]) {
    let Place { runtime, dir, sources } = &*PLACE;
    let path = dir.path().join("archive");
    fs::write(&path, bytes).expect("there is room for a file");
    let url = CanonicalUrl::parse(&format!("file://{}", path.display())).expect("it is a path");
    let target = Target { url, headers: Vec::new(), credentials: Credentials::default() };
    let options = ResolveOptions::default();
    let resolved = runtime.block_on(resolve(sources, &target, View::Tree, &options));
    if let Ok(artifact) = resolved
        && let Some(index) = artifact.index
    {
        Index::parse(index.bytes).expect("what was written is sound");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = tars();
    seeds.extend(compressed());
    seeds.push(zip());
    seeds
}

/// One record of a tar.
fn record(name: &str, kind: u8, size: usize, link: &str) -> [u8; 512] {
    let mut record = [0; 512];
    let mut put =
        |at: usize, text: &str| record[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0001750\0");
    put(116, "0001750\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "14000000000\0");
    put(148, "        ");
    put(157, link);
    put(257, "ustar\x0000");
    record[156] = kind;
    let sum: u32 = record.iter().map(|&byte| u32::from(byte)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    record
}

fn entry(name: &str, kind: u8, content: &[u8], link: &str) -> Vec<u8> {
    let mut entry = record(name, kind, content.len(), link).to_vec();
    entry.extend(content);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

/// The records of an extended header: each begins with its own length.
fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let line = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let digits = if rest.len() < 9 { 1 } else { 2 };
        format!("{}{rest}", rest.len() + digits)
    };
    records.iter().map(line).collect::<String>().into_bytes()
}

/// Tars of all kinds of entries: plain, PAX, GNU.
pub(super) fn tars() -> Vec<Vec<u8>> {
    let end = vec![0; 1024];
    let plain = [
        entry("d/", b'5', b"", ""),
        entry("d/a", b'0', b"content", ""),
        entry("d/l", b'2', b"", "a"),
        entry("d/h", b'1', b"", "d/a"),
        entry("null", b'3', b"", ""),
        end.clone(),
    ];
    let times = pax(&[("path", "d/long/name"), ("SCHILY.xattr.user.k", "v"), ("mtime", "1.5")]);
    let sparse = pax(&[
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "s.dat"),
        ("GNU.sparse.realsize", "8192"),
    ]);
    let extended = [
        entry("g", b'g', &pax(&[("comment", "here")]), ""),
        entry("x", b'x', &times, ""),
        entry("short", b'0', &[7; 700], ""),
        entry("x", b'x', &sparse, ""),
        entry("s", b'0', &[b"1\n4096\n5\n".as_slice(), &[0; 503], b"bytes"].concat(), ""),
        end.clone(),
    ];
    let long = [
        entry("././@LongLink", b'L', "n/".repeat(90).as_bytes(), ""),
        entry("n", b'0', b"x", ""),
        entry("././@LongLink", b'K', "t/".repeat(90).as_bytes(), ""),
        entry("l", b'2', b"", "t"),
        end,
    ];
    vec![plain.concat(), extended.concat(), long.concat()]
}

/// Streams of both kinds: stored and packed blocks, two members, a frame to skip.
pub(super) fn compressed() -> Vec<Vec<u8>> {
    // `printf 'hello hello hello hello\n' | gzip -n`, then stored by hand, then both.
    let packed = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcbH\xcd\xc9\xc9W\xc8@'\xb9\0\0\x88Y\x0b\x18\0\0\0";
    let stored = b"\x1f\x8b\x08\x08\0\0\0\0\0\xffname\0\x01\x03\0\xfc\xffabc\xc2A$5\x03\0\0\0";
    // A raw block of three bytes in a frame that names its length, and a frame to skip in front of it.
    let frame = b"\x28\xb5\x2f\xfd\x20\x03\x19\0\0abc";
    let skipped = b"\x50\x2a\x4d\x18\x04\0\0\0skip";
    vec![
        packed.to_vec(),
        [&stored[..], packed].concat(),
        frame.to_vec(),
        [&skipped[..], frame].concat(),
    ]
}

/// A zip of a directory and a stored file.
fn zip() -> Vec<u8> {
    let fixed = |signature: &[u8], made: &[u8], name: &str, length: u32| {
        let crc: u32 = if length > 0 { 0x3524_41c2 } else { 0 };
        let mut fixed = [signature, made, &[20, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        for number in [crc, length, length] {
            fixed.extend(number.to_le_bytes());
        }
        fixed.extend([name.len() as u8, 0, 0, 0]);
        fixed
    };
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in [("d/", ""), ("d/a", "abc")] {
        let at = zip.len() as u32;
        let length = content.len() as u32;
        zip.extend(fixed(b"PK\x03\x04", b"", name, length));
        zip.extend([name.as_bytes(), content.as_bytes()].concat());
        directory.extend(fixed(b"PK\x01\x02", &[20, 3], name, length));
        directory.extend([0; 6]);
        directory.extend((0o100_644_u32 << 16).to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, length) = (zip.len() as u32, directory.len() as u32);
    zip.extend(directory);
    zip.extend(b"PK\x05\x06\0\0\0\0\x02\0\x02\0");
    zip.extend([length.to_le_bytes(), at.to_le_bytes()].concat());
    zip.extend([0; 2]);
    zip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_sound() {
        let names = |bytes: &[u8]| {
            let mut scan = TarScan::new(bytes.len() as u64);
            while let Some(wanted) = scan.wanted() {
                scan.feed(&bytes[wanted.start as usize..wanted.end as usize]).unwrap();
            }
            scan.finish().unwrap().left_out.count
        };
        assert!(tars().iter().all(|tar| names(tar) == 0));
    }
}
