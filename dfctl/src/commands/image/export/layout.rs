//! Into a directory as the image specification has it. A blob has its name once all of it is there; the index, which names
//! the image, is put in place last.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dfs_artifact::image::graph::{Graph, Named};
use dfs_source::oci::{ContentDigest, MAX_DOCUMENT};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::blob_path;
use crate::codes;
use crate::error::CliError;

const MARK: &str = "oci-layout";
const INDEX: &str = "index.json";
/// How a layout names an image.
const NAME: &str = "org.opencontainers.image.ref.name";

pub struct LayoutWriter {
    dir: PathBuf,
    /// The index that is there.
    index: Value,
    under_way: Option<NamedTempFile>,
}

impl LayoutWriter {
    /// A layout, which may be there, or a directory that is new or empty.
    pub fn open(dir: &Path) -> Result<Self, CliError> {
        let failed = |error: io::Error| CliError::output("write into", dir, &error);
        fs::create_dir_all(dir).map_err(failed)?;
        let is_empty = fs::read_dir(dir).map_err(failed)?.next().is_none();
        if !is_empty && !dir.join(MARK).is_file() {
            let what = format!("cannot write a layout into {}", dir.display());
            return Err(CliError::new(&codes::TARGET_EXISTS, what)
                .because("it has files, and is no layout")
                .hint("name a directory that is new"));
        }
        let index = match read_index(&dir.join(INDEX)) {
            Ok(index) => index,
            Err(error) if error.kind() == io::ErrorKind::NotFound => empty_index(),
            Err(error) => return Err(failed(error)),
        };
        let writer = Self { dir: dir.to_owned(), index, under_way: None };
        if is_empty {
            // A run that is cut off leaves a layout, into which the next one goes on.
            let mark = writer.put(MARK, br#"{"imageLayoutVersion":"1.0.0"}"#);
            let named = mark.and_then(|()| writer.put(INDEX, writer.index.to_string().as_bytes()));
            named.map_err(failed)?;
        }
        Ok(writer)
    }

    /// Whether a blob is there. What has its name has its content: it was held against it when it was written.
    pub fn has(&self, digest: &ContentDigest, length: u64) -> bool {
        let there = fs::symlink_metadata(self.dir.join(blob_path(digest)));
        there.is_ok_and(|there| there.is_file() && there.len() == length)
    }

    /// Begins a file that has no name yet.
    pub fn begin(&mut self) -> io::Result<()> {
        self.under_way = Some(self.draft()?);
        Ok(())
    }

    fn draft(&self) -> io::Result<NamedTempFile> {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(0o644);
        tempfile::Builder::new().prefix(".dfs-").permissions(mode).tempfile_in(&self.dir)
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let none = || io::Error::other("no blob was begun");
        self.under_way.as_mut().ok_or_else(none)?.write_all(bytes)
    }

    /// Gives what was written its name.
    pub fn keep(&mut self, digest: &ContentDigest) -> io::Result<()> {
        let Some(file) = self.under_way.take() else { return Ok(()) };
        let path = self.dir.join(blob_path(digest));
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        // What has the name is believed to have the content, also after a power cut.
        file.as_file().sync_data()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Names the image, in place of what had the name.
    pub fn finish(mut self, graph: &Graph, name: &str) -> io::Result<()> {
        let Some(root) = graph.root() else { return Ok(()) };
        let entry = named(root, name);
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "its index.json is no index");
        let manifests = self.index.get_mut("manifests").and_then(Value::as_array_mut);
        let manifests = manifests.ok_or_else(broken)?;
        manifests.retain(|manifest| manifest["annotations"][NAME] != name);
        manifests.push(entry);
        self.put(INDEX, self.index.to_string().as_bytes())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.draft()?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.dir.join(name)).map(drop).map_err(|error| error.error)
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
