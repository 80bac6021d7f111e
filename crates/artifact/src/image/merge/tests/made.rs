//! Layers made as tars and scanned as they are, and what is seen of the tree that they make.

use std::collections::{BTreeMap, HashMap};

use crate::erofs::{BlockSize, Image, ImageOptions, Kind, Space, WrittenImage, write_image};
use crate::image::merge::{Layer, Merged, merge};
use crate::tar::{RECORD, ScannedTar, TarScan};
use crate::tree::{Mtime, PendingLink, TreeBuilder, Xattrs};

/// What an entry of a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Directory,
    File(String),
    /// Length, and where which bytes are.
    Sparse(u64, u64, String),
    Symlink(String),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Link(String),
}

/// An entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Of the root: nothing.
    pub path: String,
    pub what: What,
    pub mode: u16,
    pub uid: u32,
    pub mtime: i64,
    pub xattrs: BTreeMap<String, String>,
}

/// An entry with attributes as most have them.
pub fn entry(path: &str, what: What) -> Entry {
    Entry { path: path.to_owned(), what, mode: 0o640, uid: 5, mtime: 77, xattrs: BTreeMap::new() }
}

pub fn file(path: &str, text: &str) -> Entry {
    entry(path, What::File(text.to_owned()))
}

pub fn dir(path: &str) -> Entry {
    entry(path, What::Directory)
}

pub fn link(path: &str, target: &str) -> Entry {
    entry(path, What::Link(target.to_owned()))
}

/// An empty file that says something of lower layers.
pub fn mark(path: &str) -> Entry {
    file(path, "")
}

fn header(entry: &Entry, kind: u8, size: usize, link: &str) -> Vec<u8> {
    let mut record = vec![0; RECORD];
    let name = format!("./{}", entry.path);
    record[..name.len()].copy_from_slice(name.as_bytes());
    let mut octal = |at: usize, digits: usize, value: i64| {
        record[at..at + digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
    };
    octal(100, 7, i64::from(entry.mode));
    octal(108, 7, i64::from(entry.uid));
    octal(116, 7, 0);
    octal(124, 11, size as i64);
    octal(136, 11, entry.mtime);
    if let What::Char(major, minor) | What::Block(major, minor) = entry.what {
        octal(329, 7, i64::from(major));
        octal(337, 7, i64::from(minor));
    }
    record[156] = kind;
    record[157..157 + link.len()].copy_from_slice(link.as_bytes());
    record[257..265].copy_from_slice(b"ustar\x0000");
    record[148..156].copy_from_slice(b"        ");
    let sum: u32 = record.iter().map(|&byte| u32::from(byte)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    record
}

fn push(tar: &mut Vec<u8>, header: Vec<u8>, body: &[u8]) {
    tar.extend(header);
    tar.extend(body);
    tar.resize(tar.len().next_multiple_of(RECORD), 0);
}

fn pax(entry: &Entry) -> Vec<u8> {
    let mut records: Vec<(String, String)> = Vec::new();
    for (name, value) in &entry.xattrs {
        records.push((format!("SCHILY.xattr.{name}"), value.clone()));
    }
    if let What::Sparse(length, at, text) = &entry.what {
        records.push(("GNU.sparse.size".to_owned(), length.to_string()));
        records.push(("GNU.sparse.map".to_owned(), format!("{at},{}", text.len())));
    }
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let digits = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap();
        body.extend(format!("{} {key}={value}\n", rest + digits).into_bytes());
    }
    body
}

/// The tar of a layer.
fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        let extended = pax(entry);
        if !extended.is_empty() {
            push(&mut tar, header(entry, b'x', extended.len(), ""), &extended);
        }
        let (kind, body, link) = match &entry.what {
            What::Directory => (b'5', "", ""),
            What::File(text) | What::Sparse(_, _, text) => (b'0', text.as_str(), ""),
            What::Symlink(target) => (b'2', "", target.as_str()),
            What::Char(..) => (b'3', "", ""),
            What::Block(..) => (b'4', "", ""),
            What::Fifo => (b'6', "", ""),
            What::Link(target) => (b'1', "", target.as_str()),
        };
        push(&mut tar, header(entry, kind, body.len(), link), body.as_bytes());
    }
    tar.resize(tar.len() + 2 * RECORD, 0);
    tar
}

/// A layer's own tree.
pub struct Made {
    pub image: Image<Vec<u8>>,
    pub links: Vec<PendingLink>,
    /// Its bytes, and those that are put together of them.
    spaces: [Vec<u8>; 2],
    digests: HashMap<u64, [u8; 32]>,
}

pub fn layer(entries: &[Entry]) -> Made {
    let tar = tar(entries);
    let mut scan = TarScan::new(tar.len() as u64);
    while let Some(wanted) = scan.wanted() {
        scan.feed(&tar[wanted.start as usize..wanted.end as usize]).unwrap();
    }
    let (scanned, links) = scan.finish_layer().unwrap();
    let ScannedTar { tree, parts, parts_length, .. } = scanned;
    let mut together = vec![0; parts_length as usize];
    for part in &parts {
        let (from, to, length) = (part.from as usize, part.offset as usize, part.length as usize);
        together[to..to + length].copy_from_slice(&tar[from..from + length]);
    }
    let spaces = [tar, together];
    let image = Image::open(written(&tree, &spaces).bytes).unwrap();
    let mut digests = HashMap::new();
    for visit in image.walk().map(Result::unwrap).filter(|visit| visit.kind == Kind::File) {
        let content = content(&image, visit.nid, &spaces);
        digests.insert(visit.nid, *blake3::hash(&content).as_bytes());
    }
    Made { image, links, spaces, digests }
}

fn written(tree: &TreeBuilder, spaces: &[Vec<u8>]) -> WrittenImage {
    let space = |bytes: &Vec<u8>| Space { length: bytes.len() as u64, tag: [0; 64] };
    let spaces = spaces.iter().map(space).collect();
    let build_time = Mtime::default();
    write_image(tree, &ImageOptions { block_size: BlockSize::B512, build_time, spaces }).unwrap()
}

fn content(image: &Image<Vec<u8>>, nid: u64, spaces: &[Vec<u8>]) -> Vec<u8> {
    let (mut content, mut at) = (Vec::new(), 0);
    while let Some(extent) = image.extent(nid, at).unwrap() {
        let (start, length) = (extent.offset as usize, extent.length as usize);
        match extent.space {
            Some(space) => content.extend(&spaces[usize::from(space)][start..start + length]),
            None => content.resize(content.len() + length, 0),
        }
        at += extent.length;
    }
    content
}

/// Merges layers, each with two spaces.
pub fn merged(layers: &[Made]) -> Merged {
    let digest = |number: usize| move |nid: u64| layers[number].digests.get(&nid).copied();
    let digests: Vec<_> = (0..layers.len()).map(digest).collect();
    let layer = |(made, digest)| {
        let (made, digest): (&Made, &dyn Fn(u64) -> Option<[u8; 32]>) = (made, digest);
        (made, digest)
    };
    let pairs = layers.iter().zip(digests.iter().map(|digest| digest as &dyn Fn(u64) -> _));
    let layers: Vec<Layer<'_, Vec<u8>>> = (0u16..)
        .zip(pairs.map(layer))
        .map(|(number, (made, digest))| Layer {
            image: &made.image,
            first_space: 2 * number,
            links: &made.links,
            digest,
        })
        .collect();
    merge(&layers).unwrap()
}

/// Everything that can be told of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: Kind,
    pub mode: u16,
    pub uid: u32,
    pub mtime: i64,
    pub xattrs: Xattrs,
    /// Bytes of a file, target of a link, numbers of a device.
    pub text: String,
    /// Of what is no directory: the first of its names.
    pub same_as: String,
}

/// The tree that layers make, by paths, and the names of what was left out.
pub fn seen(layers: &[Made]) -> (BTreeMap<String, Seen>, Vec<String>) {
    let Merged { tree, left_out } = merged(layers);
    let spaces: Vec<Vec<u8>> = layers.iter().flat_map(|layer| layer.spaces.clone()).collect();
    let written = written(&tree, &spaces);
    let image = Image::open(written.bytes).unwrap();
    let digests: HashMap<u64, [u8; 32]> = written.digests.into_iter().collect();
    let mut nodes = vec![(String::new(), image.root())];
    nodes.extend(image.walk().map(|visit| {
        let visit = visit.unwrap();
        (String::from_utf8(visit.path).unwrap(), visit.nid)
    }));
    let mut first: HashMap<u64, (String, u32)> = HashMap::new();
    let mut found = BTreeMap::new();
    for (path, nid) in nodes {
        let attr = image.attr(nid).unwrap();
        let text = match attr.kind {
            Kind::File => {
                let content = content(&image, nid, &spaces);
                // Only files with holes have none.
                if let Some(digest) = digests.get(&nid) {
                    assert_eq!(digest, blake3::hash(&content).as_bytes(), "{path}");
                } else {
                    assert!(content.contains(&0), "{path} lost its digest");
                }
                String::from_utf8(content).unwrap()
            }
            Kind::Symlink => String::from_utf8(image.read_link(nid).unwrap()).unwrap(),
            _ => attr.device.map(|device| format!("{device:?}")).unwrap_or_default(),
        };
        let names = first.entry(nid).or_insert_with(|| (path.clone(), 0));
        names.1 += 1;
        let same_as = if attr.kind == Kind::Directory { String::new() } else { names.0.clone() };
        let xattrs = image.xattrs(nid).unwrap();
        let (mode, uid, mtime) = (attr.mode, attr.uid, attr.mtime.secs);
        found.insert(path, Seen { kind: attr.kind, mode, uid, mtime, xattrs, text, same_as });
    }
    for (nid, (path, names)) in first {
        let attr = image.attr(nid).unwrap();
        assert!(attr.kind == Kind::Directory || attr.nlink == names, "names of {path}");
    }
    let named = left_out.named.into_iter().map(|left| String::from_utf8(left.path).unwrap());
    (found, named.collect())
}

/// Paths below the root that layers make, with what files hold, `d` being a directory.
pub fn listing(layers: &[&[Entry]]) -> Vec<(String, String)> {
    let layers: Vec<Made> = layers.iter().map(|entries| layer(entries)).collect();
    let shown = |seen: &Seen| match seen.kind {
        Kind::Directory => "d".to_owned(),
        _ => seen.text.clone(),
    };
    let (found, _) = seen(&layers);
    found.iter().skip(1).map(|(path, seen)| (path.clone(), shown(seen))).collect()
}
