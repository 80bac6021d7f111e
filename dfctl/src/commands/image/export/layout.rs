//! Into a directory as the image specification has it. A blob has its name once all of it is there; the index, which names
//! the image, is put in place last.
//!
//! Several commands may write into one: what is there already is held against its digest, and the index is read again by whoever puts
//! it in place, while the file that says that it is a layout is locked.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dfs_artifact::image::graph::Named;
use dfs_source::oci::{ContentDigest, Hashing, MAX_DOCUMENT};
use serde_json::{Value, json};

use super::blob_path;
use super::draft::{Draft, is_draft, take_away_left};
use crate::codes;
use crate::error::CliError;

const MARK: &str = "oci-layout";
const INDEX: &str = "index.json";
/// How a layout names an image.
const NAME: &str = "org.opencontainers.image.ref.name";
/// Bytes of what is there that are looked at at a time.
const STEP: usize = 1 << 20;

pub struct LayoutWriter {
    dir: PathBuf,
    /// Says that it is a layout; locked by whoever changes the index.
    mark: File,
    under_way: Option<Draft>,
}

impl LayoutWriter {
    /// A layout, which may be there, or a directory that is new or empty.
    pub fn open(dir: &Path) -> Result<Self, CliError> {
        let failed = |error: io::Error| CliError::output("write into", dir, &error);
        fs::create_dir_all(dir).map_err(failed)?;
        let mut entries = fs::read_dir(dir).map_err(failed)?;
        let is_file = |entry: &fs::DirEntry| !is_draft(&entry.file_name());
        let is_empty = !entries.any(|entry| entry.as_ref().is_ok_and(is_file));
        if !is_empty && !dir.join(MARK).is_file() {
            let what = format!("cannot write a layout into {}", dir.display());
            return Err(CliError::new(&codes::TARGET_EXISTS, what)
                .because("it has files, and is no layout")
                .hint("name a directory that is new"));
        }
        take_away_left(dir);
        let mark = mark_of(dir).map_err(failed)?;
        let writer = Self { dir: dir.to_owned(), mark, under_way: None };
        writer.begin_index().map_err(failed)?;
        Ok(writer)
    }

    /// A run that is cut off leaves a layout, into which the next one goes on.
    fn begin_index(&self) -> io::Result<()> {
        let mut mark = self.locked()?;
        if mark.metadata()?.len() == 0 {
            mark.write_all(br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            mark.sync_all()?;
        }
        match read_index(&self.dir.join(INDEX)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.put(INDEX, empty_index().to_string().as_bytes())?;
            }
            index => drop(index?),
        }
        mark.unlock()
    }

    /// Alone with the index, until it is unlocked or forgotten.
    fn locked(&self) -> io::Result<&File> {
        self.mark.lock()?;
        Ok(&self.mark)
    }

    /// Whether a blob is there, with the content that its name says.
    pub fn has(&self, digest: &ContentDigest, length: u64) -> bool {
        let path = self.dir.join(blob_path(digest));
        let there = fs::symlink_metadata(&path);
        let is_alike = there.is_ok_and(|there| there.is_file() && there.len() == length);
        is_alike && digest_at(&path, digest).is_ok_and(|actual| actual == *digest)
    }

    /// Begins a file that has no name yet.
    pub fn begin(&mut self) -> io::Result<()> {
        self.under_way = Some(Draft::new(&self.dir)?);
        Ok(())
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let none = || io::Error::other("no blob was begun");
        self.under_way.as_mut().ok_or_else(none)?.write_all(bytes)
    }

    /// Gives what was written its name.
    pub fn keep(&mut self, digest: &ContentDigest) -> io::Result<()> {
        let Some(draft) = self.under_way.take() else { return Ok(()) };
        let path = self.dir.join(blob_path(digest));
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        draft.replace(&path)
    }

    /// Names the image, in place of what had the name.
    pub fn finish(self, root: &Named, name: &str) -> io::Result<()> {
        let entry = named(root, name);
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "its index.json is no index");
        let mark = self.locked()?;
        let mut index = read_index(&self.dir.join(INDEX))?;
        let manifests = index.get_mut("manifests").and_then(Value::as_array_mut);
        let manifests = manifests.ok_or_else(broken)?;
        manifests.retain(|manifest| manifest["annotations"][NAME] != name);
        manifests.push(entry);
        self.put(INDEX, index.to_string().as_bytes())?;
        mark.unlock()
    }

    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut draft = Draft::new(&self.dir)?;
        draft.write_all(bytes)?;
        draft.replace(&self.dir.join(name))
    }
}

/// The file that says that it is a layout, which is never put in the place of another.
fn mark_of(dir: &Path) -> io::Result<File> {
    let path = dir.join(MARK);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    match opened {
        // To lock it, one need not be able to change it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(&path),
        opened => opened,
    }
}

fn digest_at(path: &Path, like: &ContentDigest) -> io::Result<ContentDigest> {
    let (mut file, mut step) = (File::open(path)?, vec![0; STEP]);
    let mut hashing = Hashing::like(like);
    loop {
        match file.read(&mut step)? {
            0 => return Ok(hashing.finish()),
            length => hashing.update(&step[..length]),
        }
    }
}

/// The descriptor of what has a name.
pub fn named(root: &Named, name: &str) -> Value {
    let mut entry = json!({
        "mediaType": root.media_type,
        "digest": root.digest.to_string(),
        "size": root.bytes.len(),
        "annotations": { NAME: name },
    });
    if let Some(platform) = &root.platform {
        entry["platform"] = json!({ "os": platform.os, "architecture": platform.architecture });
        if let Some(variant) = &platform.variant {
            entry["platform"]["variant"] = variant.as_str().into();
        }
    }
    entry
}

/// An index without any image.
pub fn empty_index() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [],
    })
}

fn read_index(path: &Path) -> io::Result<Value> {
    if fs::metadata(path)?.len() > MAX_DOCUMENT as u64 {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "its index.json is too long"));
    }
    let index: Value = serde_json::from_slice(&fs::read(path)?)?;
    match index["manifests"].is_array() {
        true => Ok(index),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "its index.json is no index")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn root(bytes: &'static [u8]) -> Named {
        let (digest, bytes) = (ContentDigest::sha256(bytes), Bytes::from_static(bytes));
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
        Named { digest, media_type, bytes, platform: None, manifest: None }
    }

    fn names(dir: &Path) -> Vec<String> {
        let index = read_index(&dir.join(INDEX)).unwrap();
        let manifests = index["manifests"].as_array().unwrap();
        let name = |manifest: &Value| manifest["annotations"][NAME].as_str().unwrap().to_owned();
        manifests.iter().map(name).collect()
    }

    #[test]
    fn names_that_are_given_at_once_are_all_there() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("layout");
        let expected: Vec<String> = (0..32).map(|number| format!("v{number}")).collect();
        std::thread::scope(|scope| {
            for name in &expected {
                scope.spawn(|| {
                    let mut writer = LayoutWriter::open(&dir).unwrap();
                    let digest = ContentDigest::sha256(name.as_bytes());
                    writer.begin().unwrap();
                    writer.write(name.as_bytes()).unwrap();
                    writer.keep(&digest).unwrap();
                    assert!(writer.has(&digest, name.len() as u64));
                    writer.finish(&root(b"{}"), name).unwrap();
                });
            }
        });
        let mut found = names(&dir);
        found.sort_by_key(|name| name[1..].parse::<u32>().unwrap());
        assert_eq!(found, expected);
        let left = fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.file_name());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, ["blobs", INDEX, MARK]);
    }

    #[test]
    fn what_has_a_name_and_another_content_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let writer = LayoutWriter::open(dir.path()).unwrap();
        let digest = ContentDigest::sha256(b"right");
        let path = dir.path().join(blob_path(&digest));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for (content, is_there) in [(b"right".as_slice(), true), (b"wrong", false), (b"", false)] {
            fs::write(&path, content).unwrap();
            assert_eq!(writer.has(&digest, 5), is_there, "{content:?}");
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(!writer.has(&digest, 5));
    }
}
