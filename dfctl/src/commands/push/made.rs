//! What is put into a registry: an image as it lies somewhere, or an artifact made of files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dfs_artifact::image::graph::{Graph, Machines};
use dfs_source::oci::{
    ContentDigest, Hashing, Located, Mismatch, Named, PushContent, PushFrom, Reference, validator,
    verify,
};
use dfs_source::{Source, SourceError, Sources, Target};
use futures::TryStreamExt;
use serde_json::{Map, Value, json};

use crate::codes;
use crate::commands::image::parts::{self, Document};
use crate::commands::sync::of_source_error;
use crate::error::CliError;
use crate::locator::Locator;
use crate::output::quoted_path;

/// Most files of an artifact, as many as are read of one.
const MAX_FILES: usize = 10_000;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What files are of which nobody says what they are.
const UNKNOWN: &str = "application/vnd.unknown.artifact.v1";

/// A blob to be put.
pub struct Blob {
    pub digest: ContentDigest,
    pub length: u64,
    pub content: PushContent,
}

/// All that is to be put: documents after what they name.
pub struct Made {
    pub documents: Vec<Document>,
    pub blobs: Vec<Blob>,
    /// Where it is a copy of.
    from: Option<Located>,
}

/// What is said of files.
pub struct Files<'a> {
    pub kind: Option<String>,
    pub annotations: &'a [String],
}

impl Made {
    /// What the name will stand for, where it may stand for it.
    pub fn root(&self, to: &Reference) -> Result<ContentDigest, String> {
        let root = self.documents.last().ok_or("there is no document in it")?;
        match to.named() {
            Named::Manifest(digest) => match verify(&root.bytes, digest) {
                Ok(()) => Ok(*digest),
                Err(Mismatch { actual, .. }) => Err(format!("it is {actual}, not {digest}")),
            },
            Named::Tag(_) | Named::Blob(_) => Ok(root.digest),
        }
    }

    /// Bytes of all blobs.
    pub fn blob_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.length).fold(0, u64::saturating_add)
    }

    /// The repository beside `to` that has all of it.
    pub fn beside(&self, to: &Reference) -> Option<&str> {
        match &self.from {
            Some(Located::Registry(from)) if from.registry() == to.registry() => {
                Some(from.repository())
            }
            _ => None,
        }
    }
}

/// Finds out what is to be put.
pub async fn make(
    sources: &Sources,
    locator: &Locator,
    machines: &Machines,
    files: Files<'_>,
) -> Result<Made, CliError> {
    let shown = locator.shown();
    let unsupported =
        |why: &str| CliError::new(&codes::UNSUPPORTED, format!("cannot push {shown}")).because(why);
    if locator.inner.is_some() {
        return Err(unsupported("an image is put there as it is, not a part of it")
            .hint("dfctl get -r URL!path -o DIR      then: dfctl push DIR oci://…"));
    }
    if let Some(path) = locator.local_path() {
        return of_files(sources, &path, files).await;
    }
    if files.kind.is_some() || !files.annotations.is_empty() {
        return Err(unsupported("an image says itself what it is: these flags are for files"));
    }
    let Ok(located) = Located::of(&locator.target.url) else {
        return Err(unsupported("it is neither an image nor lies on this machine")
            .hint("dfctl get URL -o PATH      then: dfctl push PATH oci://…"));
    };
    let source = sources.for_target(&locator.target);
    let source = source.map_err(|error| parts::failed("read", &shown, error))?;
    let graph = Graph::of(&source, &locator.target, machines).await;
    let graph = graph.map_err(|error| parts::failed("read", &shown, error))?;
    let blobs = graph.blobs.iter().map(|blob| {
        let target = Target { url: located.blob(blob.digest).url(), ..locator.target.clone() };
        let pin = validator(&blob.digest, Some(blob.size));
        let from = PushFrom { source: Arc::clone(&source), target, pin };
        let content = PushContent::At(Box::new(from));
        Blob { digest: blob.digest, length: blob.size, content }
    });
    let blobs = blobs.collect();
    let document = |named: dfs_artifact::image::graph::Named| Document {
        digest: named.digest,
        media_type: named.media_type,
        bytes: named.bytes,
    };
    let documents = graph.documents.into_iter().map(document).collect();
    Ok(Made { documents, blobs, from: Some(located) })
}

/// An artifact of the files at `path`.
async fn of_files(sources: &Sources, path: &Path, files: Files<'_>) -> Result<Made, CliError> {
    let annotations = annotations(files.annotations)?;
    let found = found_at(path)?;
    let empty = Bytes::from_static(b"{}");
    let config = ContentDigest::sha256(&empty);
    let mut blobs = BTreeMap::new();
    let length = empty.len() as u64;
    let content = PushContent::Bytes(empty);
    blobs.insert(config, Blob { digest: config, length, content });
    let mut layers = Vec::with_capacity(found.len());
    for (title, path) in found {
        let failed = |error: SourceError| {
            CliError::backend("read", &quoted_path(&path), of_source_error(&error))
        };
        let target = Target::of_path(&path).map_err(|error| failed(error.into()))?;
        let source = sources.for_target(&target).map_err(failed)?;
        let blob = hashed(source, target).await.map_err(failed)?;
        layers.push(json!({
            "mediaType": "application/octet-stream",
            "digest": blob.digest.to_string(),
            "size": blob.length,
            "annotations": { "org.opencontainers.image.title": title },
        }));
        blobs.insert(blob.digest, blob);
    }
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": files.kind.as_deref().unwrap_or(UNKNOWN),
        "config": { "mediaType": EMPTY, "digest": config.to_string(), "size": length },
        "layers": layers,
    });
    if !annotations.is_empty() {
        manifest["annotations"] = Value::Object(annotations);
    }
    let (media_type, bytes) = (MANIFEST.to_owned(), Bytes::from(manifest.to_string()));
    let digest = ContentDigest::sha256(&bytes);
    let documents = vec![Document { digest, media_type, bytes }];
    Ok(Made { documents, blobs: blobs.into_values().collect(), from: None })
}

fn annotations(given: &[String]) -> Result<Map<String, Value>, CliError> {
    let pair = |text: &String| {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| {
            let what = "something given with --annotation has no KEY=VALUE";
            CliError::new(&codes::USAGE, what).hint("--annotation org.example.version=3")
        })?;
        Ok((key.to_owned(), Value::from(value)))
    };
    given.iter().map(pair).collect()
}

/// Files by the names that they will have, in the order of these.
fn found_at(path: &Path) -> Result<BTreeMap<String, PathBuf>, CliError> {
    let mut found = BTreeMap::new();
    let unreadable = |path: &Path, error: &std::io::Error| CliError::output("read", path, error);
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_dir() {
        let name = path.file_name().unwrap_or_default();
        found.insert(title(Path::new(name))?, path.to_owned());
        return Ok(found);
    }
    let mut left = vec![path.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).map_err(|error| unreadable(&dir, &error))? {
            let entry = entry.map_err(|error| unreadable(&dir, &error))?;
            let kind = entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?;
            let below = entry.path();
            match () {
                () if kind.is_dir() => left.push(below),
                () if kind.is_file() => {
                    let name = below.strip_prefix(path).unwrap_or(&below);
                    found.insert(title(name)?, below.clone());
                }
                () => {
                    let what = format!("cannot push {}", quoted_path(&below));
                    return Err(CliError::new(&codes::UNSUPPORTED, what)
                        .because("an artifact has files alone, no links, sockets or devices"));
                }
            }
            if found.len() > MAX_FILES {
                let what = format!("cannot push {}", quoted_path(path));
                return Err(CliError::new(&codes::UNSUPPORTED, what)
                    .because(format!("an artifact has at most {MAX_FILES} files"))
                    .hint("tar -cf FILES.tar DIR      then: dfctl push FILES.tar oci://…"));
            }
        }
    }
    if found.is_empty() {
        let what = format!("cannot push {}", quoted_path(path));
        return Err(CliError::new(&codes::UNSUPPORTED, what).because("there is no file in it"));
    }
    Ok(found)
}

fn title(path: &Path) -> Result<String, CliError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let what = format!("cannot push {}", quoted_path(path));
        CliError::new(&codes::UNSUPPORTED, what).because("its name is not UTF-8")
    })
}

/// A file by its digest, of the version that it has now.
async fn hashed(source: Arc<dyn Source>, target: Target) -> Result<Blob, SourceError> {
    let stat = source.stat(&target).await?;
    let mut bytes = source.read(&target, None, &stat.validator).await?;
    let mut hashing = Hashing::like(&ContentDigest::Sha256([0; 32]));
    let mut length = 0;
    while let Some(part) = bytes.try_next().await? {
        hashing.update(&part);
        length += part.len() as u64;
    }
    let content = PushContent::At(Box::new(PushFrom { source, target, pin: stat.validator }));
    Ok(Blob { digest: hashing.finish(), length, content })
}
