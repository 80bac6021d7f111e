//! Tars written header by header: all that writers in use write, and what none of them would.

use std::fmt::Write as _;

/// An entry as it stands in a tar.
#[derive(Debug, Clone)]
pub struct Entry {
    pub path: String,
    pub kind: u8,
    pub link: String,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: u64,
    pub device: (u32, u32),
    pub content: Vec<u8>,
    /// What a PAX header in front says of it.
    pub pax: Vec<(String, Vec<u8>)>,
}

impl Entry {
    fn of(kind: u8, path: &str) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        let (link, content, pax) = (String::new(), Vec::new(), Vec::new());
        let (owner, device) = ((0, 0), (0, 0));
        let mtime = 1_600_000_000;
        Self { path: path.to_owned(), kind, link, mode, owner, mtime, device, content, pax }
    }

    pub fn file(path: &str, content: &[u8]) -> Self {
        Self { content: content.to_vec(), ..Self::of(b'0', path) }
    }

    pub fn dir(path: &str) -> Self {
        Self::of(b'5', path)
    }

    pub fn symlink(path: &str, target: &str) -> Self {
        Self { link: target.to_owned(), ..Self::of(b'2', path) }
    }

    pub fn hard_link(path: &str, target: &str) -> Self {
        Self { link: target.to_owned(), ..Self::of(b'1', path) }
    }

    pub fn char_device(path: &str, device: (u32, u32)) -> Self {
        Self { device, ..Self::of(b'3', path) }
    }

    pub fn block_device(path: &str, device: (u32, u32)) -> Self {
        Self { device, ..Self::of(b'4', path) }
    }

    pub fn fifo(path: &str) -> Self {
        Self::of(b'6', path)
    }

    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub fn owner(self, uid: u32, gid: u32) -> Self {
        Self { owner: (uid, gid), ..self }
    }

    pub fn mtime(self, mtime: u64) -> Self {
        Self { mtime, ..self }
    }

    pub fn pax(mut self, name: &str, value: &[u8]) -> Self {
        self.pax.push((name.to_owned(), value.to_vec()));
        self
    }

    pub fn xattr(self, name: &str, value: &[u8]) -> Self {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }
}

/// A tar under way.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// These entries, and the marks at the end.
    pub fn of(entries: &[Entry]) -> Vec<u8> {
        let mut tar = Self::default();
        entries.iter().for_each(|entry| tar.add(entry));
        tar.end()
    }

    pub fn add(&mut self, entry: &Entry) {
        if !entry.pax.is_empty() {
            self.extended(b'x', &entry.pax);
        }
        self.record(entry, entry.content.len());
        self.body(&entry.content);
    }

    /// A header of a file that says nothing of what comes: PAX `g` of all that follow.
    pub fn global(&mut self, said: &[(&str, &str)]) {
        let said = said.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        self.extended(b'g', &said.collect::<Vec<_>>());
    }

    /// A name or target that is too long for a header, as GNU tar writes it.
    pub fn gnu_long(&mut self, kind: u8, text: &str) {
        let entry =
            Entry { kind, ..Entry::file("././@LongLink", &[text.as_bytes(), b"\0"].concat()) };
        self.record(&entry, entry.content.len());
        self.body(&entry.content);
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// What is there, without the marks at the end.
    pub fn cut(self) -> Vec<u8> {
        self.0
    }

    fn extended(&mut self, kind: u8, said: &[(String, Vec<u8>)]) {
        let lines = said.iter().flat_map(|(name, value)| line(name, value));
        let entry = Entry { kind, ..Entry::file("pax", &lines.collect::<Vec<_>>()) };
        self.record(&entry, entry.content.len());
        self.body(&entry.content);
    }

    fn body(&mut self, content: &[u8]) {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn record(&mut self, entry: &Entry, length: usize) {
        let mut header = [0_u8; 512];
        let mut write = |at: usize, most: usize, text: &[u8]| {
            let text = &text[..text.len().min(most)];
            header[at..at + text.len()].copy_from_slice(text);
        };
        let (uid, gid) = entry.owner;
        write(0, 100, entry.path.as_bytes());
        write(100, 8, format!("{:07o}", entry.mode).as_bytes());
        write(108, 8, format!("{uid:07o}").as_bytes());
        write(116, 8, format!("{gid:07o}").as_bytes());
        write(124, 12, format!("{length:011o}").as_bytes());
        write(136, 12, format!("{:011o}", entry.mtime).as_bytes());
        write(148, 8, b"        ");
        write(156, 1, &[entry.kind]);
        write(157, 100, entry.link.as_bytes());
        write(257, 8, b"ustar\x0000");
        write(329, 8, format!("{:07o}", entry.device.0).as_bytes());
        write(337, 8, format!("{:07o}", entry.device.1).as_bytes());
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
    }
}

/// A line of a PAX header, whose length counts itself.
fn line(name: &str, value: &[u8]) -> Vec<u8> {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut head = String::new();
    write!(head, "{length} {name}=").unwrap();
    [head.as_bytes(), value, b"\n"].concat()
}
