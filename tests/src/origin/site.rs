//! What an origin has: paths in memory, and directories of this machine served in place.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::content::Body;
use super::request::{encode, listing_date};
use super::shelf::{Object, Shelf};

/// When the first version of anything in memory was modified.
const EPOCH: u64 = 1_790_000_000;

/// A tree of paths; each begins with a slash.
#[derive(Debug, Default)]
pub struct Site {
    entries: BTreeMap<Vec<u8>, Stored>,
    /// Prefixes with a slash at both ends, and the directories behind them.
    directories: BTreeMap<Vec<u8>, PathBuf>,
    /// Buckets by their path, without a slash behind.
    shelves: BTreeMap<Vec<u8>, Arc<Shelf>>,
    versions: u64,
}

#[derive(Debug, Clone)]
struct Stored {
    body: Body,
    version: u64,
}

/// What a path names.
#[derive(Debug)]
pub enum Found {
    /// A file.
    File(File),
    /// A directory's index page.
    Page(String),
    /// A bucket, whose listing depends on how it is asked.
    Shelf(Arc<Shelf>),
    /// A directory named without its slash.
    Elsewhere,
    /// Nothing.
    Nothing,
}

/// A file in one version.
#[derive(Debug, Clone)]
pub struct File {
    /// Its content.
    pub body: Body,
    /// Its ETag, with the quotes.
    pub etag: String,
    /// When it was modified, in seconds since 1970.
    pub modified: u64,
}

/// A row of an index page.
struct Row {
    directory: bool,
    modified: u64,
    length: u64,
}

impl Site {
    /// Sets what is at `path`, as a new version of it.
    pub fn put(&mut self, path: &str, body: Body) {
        self.versions += 1;
        self.entries.insert(path.as_bytes().to_vec(), Stored { body, version: self.versions });
    }

    /// Takes away what is in memory at `path`.
    pub fn remove(&mut self, path: &str) {
        self.entries.remove(path.as_bytes());
    }

    /// Shows `directory` below `prefix`.
    pub fn show(&mut self, prefix: &str, directory: &Path) {
        let prefix = format!("/{}/", prefix.trim_matches('/')).replace("//", "/");
        self.directories.insert(prefix.into_bytes(), directory.to_owned());
    }

    /// Has this bucket at `path` from now on.
    pub fn shelve(&mut self, path: &str, shelf: Shelf) {
        let path = path.trim_end_matches('/').as_bytes().to_vec();
        self.shelves.insert(path, Arc::new(shelf));
    }

    fn on_shelf(&self, path: &[u8]) -> Option<Found> {
        let (name, shelf) = self.shelves.iter().find(|(name, _)| path.starts_with(name))?;
        let key = match &path[name.len()..] {
            b"" | b"/" => return Some(Found::Shelf(Arc::clone(shelf))),
            rest => rest.strip_prefix(b"/")?,
        };
        let object = shelf.object(std::str::from_utf8(key).ok()?);
        Some(object.map_or(Found::Nothing, |Object { body, etag }| {
            Found::File(File { body, etag, modified: EPOCH })
        }))
    }

    /// What is at `path`.
    pub fn find(&self, path: &[u8]) -> io::Result<Found> {
        if let Some(found) = self.on_shelf(path) {
            return Ok(found);
        }
        if let Some(stored) = self.entries.get(path) {
            let (version, modified) = (stored.version, EPOCH + stored.version);
            let etag = format!("\"v{version}-{:x}\"", stored.body.length()?);
            return Ok(Found::File(File { body: stored.body.clone(), etag, modified }));
        }
        if path.ends_with(b"/") {
            let page = self.rows(path)?.map(|rows| page(path, &rows));
            return Ok(page.map_or(Found::Nothing, Found::Page));
        }
        if let Some(real) = self.real(path) {
            let found = Self::at(&real)?;
            if !matches!(found, Found::Nothing) {
                return Ok(found);
            }
        }
        let directory = [path, b"/"].concat();
        Ok(if self.has_below(&directory) { Found::Elsewhere } else { Found::Nothing })
    }

    fn at(real: &Path) -> io::Result<Found> {
        let status = match real.symlink_metadata() {
            Ok(status) => status,
            Err(error) if is_absence(&error) => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        if status.is_dir() {
            return Ok(Found::Elsewhere);
        }
        if !status.is_file() {
            return Ok(Found::Nothing);
        }
        let (seconds, nanos) = (status.mtime(), status.mtime_nsec());
        let etag = format!("\"{seconds:x}.{nanos:x}-{:x}\"", status.len());
        let modified = u64::try_from(seconds).unwrap_or(0);
        Ok(Found::File(File { body: Body::File(real.to_owned()), etag, modified }))
    }

    fn has_below(&self, directory: &[u8]) -> bool {
        let mut names = self.entries.keys().chain(self.directories.keys());
        names.any(|name| name.starts_with(directory))
    }

    /// Where the served directories have `path`; never outside of them.
    fn real(&self, path: &[u8]) -> Option<PathBuf> {
        let (prefix, directory) =
            self.directories.iter().rev().find(|(prefix, _)| path.starts_with(prefix))?;
        let inside = Path::new(OsStr::from_bytes(&path[prefix.len()..]));
        let plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
        let hostile = path.contains(&0) || !plain;
        (!hostile).then(|| directory.join(inside))
    }

    /// Members of a directory; `None` when it is none. Links and special files are not shown: they
    /// may lead anywhere.
    fn rows(&self, path: &[u8]) -> io::Result<Option<BTreeMap<Vec<u8>, Row>>> {
        let mut rows = BTreeMap::new();
        let mut there = path == b"/" || self.has_below(path);
        if let Some(real) = self.real(path).filter(|real| is_real_directory(real)) {
            there = true;
            for entry in fs::read_dir(real)? {
                let entry = entry?;
                // Gone since it was listed.
                let Ok(status) = entry.metadata() else { continue };
                if !status.is_dir() && !status.is_file() {
                    continue;
                }
                let modified = u64::try_from(status.mtime()).unwrap_or(0);
                let row = Row { directory: status.is_dir(), modified, length: status.len() };
                rows.insert(entry.file_name().as_bytes().to_vec(), row);
            }
        }
        for (name, stored) in &self.entries {
            let Some(rest) = name.strip_prefix(path) else { continue };
            let modified = EPOCH + stored.version;
            insert_below(&mut rows, rest, modified, stored.body.length()?);
        }
        for name in self.directories.keys() {
            if let Some(rest) = name.strip_prefix(path).filter(|rest| !rest.is_empty()) {
                insert_below(&mut rows, rest, EPOCH, 0);
            }
        }
        Ok(there.then_some(rows))
    }
}

/// The first element of a path that lies below the listed directory.
fn insert_below(rows: &mut BTreeMap<Vec<u8>, Row>, rest: &[u8], modified: u64, length: u64) {
    let name = rest.split(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    let directory = name.len() < rest.len();
    if name.is_empty() {
        return;
    }
    rows.insert(name, Row { directory, modified, length });
}

/// What has a symbolic link on its way is somewhere else than it seems; only the last step is
/// looked at, the steps before are never linked to by a page.
fn is_real_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|status| status.is_dir())
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The page that nginx's autoindex writes with exact sizes.
fn page(path: &[u8], rows: &BTreeMap<Vec<u8>, Row>) -> String {
    let shown = escape(&String::from_utf8_lossy(path));
    let mut page = format!(
        "<html>\r\n<head><title>Index of {shown}</title></head>\r\n<body>\r\n\
         <h1>Index of {shown}</h1><hr><pre><a href=\"../\">../</a>\r\n"
    );
    // Directories first, as nginx does.
    let directories = rows.iter().filter(|(_, row)| row.directory);
    for (name, row) in directories.chain(rows.iter().filter(|(_, row)| !row.directory)) {
        let slash = if row.directory { "/" } else { "" };
        let text = escape(&String::from_utf8_lossy(name));
        let size = if row.directory { "-".to_owned() } else { row.length.to_string() };
        // A name with a colon would read as a scheme; the encoding takes care of that.
        page.push_str(&format!(
            "<a href=\"{}{slash}\">{text}{slash}</a>{:pad$} {} {size:>19}\r\n",
            encode(name),
            "",
            listing_date(row.modified),
            pad = 50usize.saturating_sub(text.chars().count()),
        ));
    }
    page + "</pre><hr></body>\r\n</html>\r\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(site: &Site, path: &str) -> String {
        match site.find(path.as_bytes()).unwrap() {
            Found::Page(page) => page,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn memory_and_directories_are_one_tree() {
        let real = tempfile::tempdir().unwrap();
        fs::create_dir(real.path().join("sub")).unwrap();
        fs::write(real.path().join("sub/f"), "1234567").unwrap();
        std::os::unix::fs::symlink("/etc", real.path().join("out")).unwrap();
        let mut site = Site::default();
        site.put("/a/b/c", Body::bytes("x"));
        site.show("/a/real", real.path());
        let top = page_of(&site, "/a/");
        assert!(top.contains("<a href=\"b/\">") && top.contains("<a href=\"real/\">"), "{top}");
        let below = page_of(&site, "/a/real/");
        assert!(below.contains("<a href=\"sub/\">") && !below.contains("out"), "{below}");
        assert!(page_of(&site, "/a/real/sub/").contains("                   7\r\n"));
        assert!(matches!(site.find(b"/a").unwrap(), Found::Elsewhere));
        assert!(matches!(site.find(b"/a/real/sub").unwrap(), Found::Elsewhere));
        for missing in ["/x", "/x/", "/a/real/../../etc/passwd", "/a/real/out", "/a/real/no/"] {
            assert!(matches!(site.find(missing.as_bytes()).unwrap(), Found::Nothing), "{missing}");
        }
    }

    #[test]
    fn a_new_version_has_a_new_tag() {
        let mut site = Site::default();
        let tag = |site: &Site| match site.find(b"/f").unwrap() {
            Found::File(file) => file.etag,
            other => panic!("{other:?}"),
        };
        site.put("/f", Body::bytes("x"));
        let before = tag(&site);
        assert_eq!(before, tag(&site));
        site.put("/f", Body::bytes("y"));
        assert_ne!(before, tag(&site));
        site.remove("/f");
        assert!(matches!(site.find(b"/f").unwrap(), Found::Nothing));
    }
}
