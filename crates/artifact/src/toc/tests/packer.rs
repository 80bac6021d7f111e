//! A small writer of layers with tables, as those programs lay them out that write real ones.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::image::ContentDigest;
use crate::image::manifest::LayerBlob;
use crate::image::media::LayerType;

const RECORD: usize = 512;
const STARGZ: &str = "containerd.io/snapshot/stargz/toc.digest";

/// What an entry is.
#[derive(Debug, Clone)]
pub enum What {
    Dir,
    File(Vec<u8>),
    Symlink(String),
    Link(String),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// An entry of a layer.
#[derive(Debug, Clone)]
pub struct Item {
    pub name: String,
    pub what: What,
    pub mode: u16,
    pub owner: (u32, u32),
    pub mtime: (i64, u32),
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Item {
    pub fn new(name: &str, what: What) -> Self {
        let (owner, mtime) = ((10, 11), (83, 0));
        Self { name: name.to_owned(), what, mode: 0o640, owner, mtime, xattrs: Vec::new() }
    }

    pub fn file(name: &str, content: &[u8]) -> Self {
        Self::new(name, What::File(content.to_vec()))
    }

    fn kind(&self) -> (u8, &'static str) {
        match &self.what {
            What::Dir => (b'5', "dir"),
            What::File(_) => (b'0', "reg"),
            What::Symlink(_) => (b'2', "symlink"),
            What::Link(_) => (b'1', "hardlink"),
            What::Char(..) => (b'3', "char"),
            What::Block(..) => (b'4', "block"),
            What::Fifo => (b'6', "fifo"),
        }
    }

    fn content(&self) -> &[u8] {
        if let What::File(content) = &self.what { content } else { b"" }
    }

    /// What stands in front of its body.
    fn headers(&self) -> Vec<u8> {
        let mut pax = String::new();
        let mut pairs = Vec::new();
        let (secs, nanos) = self.mtime;
        if nanos > 0 {
            pairs.push(("mtime".to_owned(), format!("{secs}.{nanos:09}").into_bytes()));
        }
        for (name, value) in &self.xattrs {
            pairs.push((format!("SCHILY.xattr.{name}"), value.clone()));
        }
        let mut body = Vec::new();
        for (key, value) in pairs {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|all| all.to_string().len() + rest == *all).unwrap();
            body.extend(format!("{length} {key}=").into_bytes());
            body.extend(value);
            body.push(b'\n');
            pax.push('x');
        }
        let mut out = Vec::new();
        if !pax.is_empty() {
            out.extend(record("pax", b'x', body.len(), "", self));
            out.extend(&body);
            out.resize(out.len().next_multiple_of(RECORD), 0);
        }
        let (kind, _) = self.kind();
        let link = match &self.what {
            What::Symlink(target) | What::Link(target) => target,
            _ => "",
        };
        out.extend(record(&self.name, kind, self.content().len(), link, self));
        out
    }

    /// Its row without pieces.
    fn row(&self) -> Value {
        let mut row = json!({"type": self.kind().1, "name": self.name, "mode": self.mode,
            "uid": self.owner.0, "gid": self.owner.1, "modtime": time(self.mtime)});
        if !self.content().is_empty() {
            row["size"] = self.content().len().into();
            row["digest"] = ContentDigest::sha256(self.content()).to_string().into();
        }
        match &self.what {
            What::Symlink(target) | What::Link(target) => row["linkName"] = target.clone().into(),
            What::Char(major, minor) | What::Block(major, minor) => {
                (row["devMajor"], row["devMinor"]) = ((*major).into(), (*minor).into());
            }
            _ => {}
        }
        for (name, value) in &self.xattrs {
            row["xattrs"][name] = STANDARD.encode(value).into();
        }
        row
    }
}

fn time((secs, nanos): (i64, u32)) -> String {
    // Days are all that tests need of a calendar.
    let (day, second) = (secs / 86_400 + 1, secs % 86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("1970-01-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

fn record(name: &str, kind: u8, size: usize, link: &str, item: &Item) -> Vec<u8> {
    let mut record = vec![0; RECORD];
    let mut put =
        |at: usize, text: &str| record[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{:07o}", item.mode));
    put(108, &format!("{:07o}", item.owner.0));
    put(116, &format!("{:07o}", item.owner.1));
    put(124, &format!("{size:011o}"));
    put(136, &format!("{:011o}", item.mtime.0));
    put(148, "        ");
    put(157, link);
    put(257, "ustar\x0000");
    if let What::Char(major, minor) | What::Block(major, minor) = item.what {
        put(329, &format!("{major:07o}"));
        put(337, &format!("{minor:07o}"));
    }
    record[156] = kind;
    let sum: u32 = record.iter().map(|&byte| u32::from(byte)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    record
}

/// Who writes the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Stargz,
    /// As containers/storage writes it.
    Chunked,
    /// As ctr-remote writes it: laid out as eStargz.
    StargzChunked,
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn skipped(inner: &[u8]) -> Vec<u8> {
    [&[0x50, 0x2a, 0x4d, 0x18], &(inner.len() as u32).to_le_bytes(), inner].concat()
}

/// A layer as it grows.
pub struct Packer {
    format: Format,
    /// Longest piece.
    piece: usize,
    /// Unpacked bytes from which on a member takes no further piece.
    full: usize,
    stream: Vec<u8>,
    /// What of the tar is not packed yet.
    ahead: Vec<u8>,
    pub rows: Vec<Value>,
}

/// A layer, and what its descriptor says.
#[derive(Debug)]
pub struct Packed {
    pub bytes: Vec<u8>,
    pub annotations: Value,
    pub format: Format,
}

impl Packer {
    pub fn new(format: Format, piece: usize, full: usize) -> Self {
        let (stream, ahead, rows) = (Vec::new(), Vec::new(), Vec::new());
        Self { format, piece, full, stream, ahead, rows }
    }

    pub fn of(format: Format, items: &[Item]) -> Self {
        let mut packer = Self::new(format, 30_000, 0);
        items.iter().for_each(|item| packer.add(item));
        packer
    }

    fn close(&mut self) {
        if self.ahead.is_empty() {
            return;
        }
        let ahead = std::mem::take(&mut self.ahead);
        self.stream.extend(match self.format {
            Format::Stargz => gzip(&ahead),
            Format::Chunked | Format::StargzChunked => zstd::bulk::compress(&ahead, 1).unwrap(),
        });
    }

    pub fn add(&mut self, item: &Item) {
        self.ahead.extend(item.headers());
        let (content, mut row) = (item.content().to_vec(), item.row());
        let pieces: Vec<&[u8]> = content.chunks(self.piece).collect();
        let count = pieces.len();
        for (number, piece) in pieces.into_iter().enumerate() {
            if self.ahead.len() >= self.full {
                self.close();
            }
            row["offset"] = self.stream.len().into();
            row["innerOffset"] = self.ahead.len().into();
            row["chunkOffset"] = (number * self.piece).into();
            let is_told = self.format == Format::Chunked || piece.len() == self.piece;
            if is_told && (count > 1 || self.format != Format::Chunked) {
                row["chunkSize"] = piece.len().into();
            }
            if count > 1 || self.format != Format::Chunked {
                row["chunkDigest"] = ContentDigest::sha256(piece).to_string().into();
            }
            if self.format == Format::Chunked && count > 1 && piece.iter().all(|&byte| byte == 0) {
                row["chunkType"] = "zeros".into();
            }
            self.ahead.extend(piece);
            if self.format == Format::Chunked {
                self.close();
            }
            let next = json!({"type": "chunk", "name": item.name});
            self.rows.push(std::mem::replace(&mut row, next));
        }
        if count == 0 {
            self.rows.push(row);
        }
        self.ahead
            .resize(self.ahead.len() + content.len().next_multiple_of(RECORD) - content.len(), 0);
    }

    pub fn finish(mut self) -> Packed {
        let json = json!({"version": 1, "entries": self.rows}).to_string();
        self.finish_with(&json)
    }

    /// Ends it with another table than its own.
    pub fn finish_with(&mut self, json: &str) -> Packed {
        let annotations = match self.format {
            Format::Stargz => self.finish_stargz(json),
            Format::Chunked => self.finish_chunked(json, "io.github.containers", b"GNUlInUx", 7),
            Format::StargzChunked => self.finish_chunked(json, "io.containers", b"GnUlInUx", 4),
        };
        let bytes = std::mem::take(&mut self.stream);
        Packed { bytes, annotations, format: self.format }
    }

    fn finish_stargz(&mut self, json: &str) -> Value {
        self.close();
        let at = self.stream.len();
        let table = Item { mtime: (0, 0), ..Item::file("stargz.index.json", json.as_bytes()) };
        self.ahead.extend(table.headers());
        self.ahead.extend(json.as_bytes());
        self.ahead.resize(self.ahead.len().next_multiple_of(RECORD) + 2 * RECORD, 0);
        self.close();
        self.stream.extend(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0");
        self.stream.extend(format!("{at:016x}STARGZ").bytes());
        self.stream.extend(b"\x01\0\0\xff\xff\0\0\0\0\0\0\0\0");
        let digest = ContentDigest::sha256(json.as_bytes()).to_string();
        json!({STARGZ: digest})
    }

    fn finish_chunked(&mut self, json: &str, who: &str, magic: &[u8], numbers: usize) -> Value {
        self.ahead.resize(self.ahead.len() + 2 * RECORD, 0);
        self.close();
        let (table, at) =
            (zstd::bulk::compress(json.as_bytes(), 1).unwrap(), self.stream.len() + 8);
        let place = [at, table.len(), json.len(), 1, 0, 0, 0];
        let mut footer: Vec<u8> =
            place[..numbers].iter().flat_map(|number| (*number as u64).to_le_bytes()).collect();
        footer.extend(magic);
        self.stream.extend(skipped(&table));
        self.stream.extend(skipped(&footer));
        let digest = ContentDigest::sha256(&table).to_string();
        let position = format!("{at}:{}:{}:1", table.len(), json.len());
        let name = |what: &str| format!("{who}.zstd-chunked.manifest-{what}");
        let mut annotations = json!({name("checksum"): digest, name("position"): position});
        if self.format == Format::StargzChunked {
            annotations[STARGZ] = ContentDigest::sha256(json.as_bytes()).to_string().into();
        }
        annotations
    }
}

impl Packed {
    /// The layer as a manifest has it.
    pub fn blob(&self) -> LayerBlob {
        let compression = if self.format == Format::Stargz { "gzip" } else { "zstd" };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar+{compression}");
        let layer_type = LayerType::of(&media_type).unwrap();
        let blob = json!({"mediaType": media_type, "size": self.bytes.len(),
            "digest": ContentDigest::sha256(&self.bytes).to_string(),
            "annotations": self.annotations});
        LayerBlob { blob: serde_json::from_value(blob).unwrap(), layer_type }
    }
}
