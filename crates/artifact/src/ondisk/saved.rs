//! What `docker save` wrote before it took to layouts: `manifest.json` names, for each image, its configuration and the tars
//! of its layers. From these the manifest is made that a registry would have.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use dfs_model::{ByteRange, printable, shortened};
use dfs_source::oci::ContentDigest;
use dfs_source::{Attempt, SourceError};
use serde::Deserialize;
use serde_json::json;

use super::files::{Files, Window};
use super::{is_name, none_named};
use crate::image::manifest::MAX_LAYERS;

/// The media type of the manifests that are made.
pub(super) const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// Most images of an archive.
const MAX_IMAGES: usize = 1000;

/// All of an archive.
pub(super) struct Saved {
    images: Vec<SavedImage>,
    /// Where what has a digest lies.
    paths: BTreeMap<ContentDigest, String>,
}

/// One image.
pub(super) struct SavedImage {
    names: Vec<String>,
    /// As a registry would have it.
    pub manifest: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<ContentDigest>>,
}

/// What is being read.
struct Reading<'a> {
    files: &'a Files,
    attempt: &'a Attempt,
    paths: BTreeMap<ContentDigest, String>,
    /// Digests of what is compressed: images share layers.
    hashed: HashMap<ByteRange, ContentDigest>,
}

impl Saved {
    /// Reads what an archive says of its images.
    pub async fn read(files: &Files, attempt: &Attempt) -> Result<Self, SourceError> {
        let (paths, hashed) = (BTreeMap::new(), HashMap::new());
        let mut reading = Reading { files, attempt, paths, hashed };
        let Some(told) = files.document("manifest.json", attempt).await? else {
            let why =
                "it is no archive of images: it has neither an index.json nor a manifest.json";
            return Err(reading.damaged(why.to_owned()));
        };
        let told: Vec<Told> = serde_json::from_slice(&told).map_err(|error| {
            reading.damaged(format!("its manifest.json cannot be read: {error}"))
        })?;
        if told.len() > MAX_IMAGES {
            return Err(reading.damaged(format!("it has more than {MAX_IMAGES} images")));
        }
        let mut images = Vec::with_capacity(told.len());
        for told in told {
            images.push(reading.image(told).await?);
        }
        Ok(Self { images, paths: reading.paths })
    }

    /// The image of a name, or the only one; why there is none.
    pub fn named(&self, name: &str) -> Result<&SavedImage, String> {
        if let ("", [only]) = (name, &self.images[..]) {
            return Ok(only);
        }
        let has_it = |image: &&SavedImage| {
            !name.is_empty() && image.names.iter().any(|there| is_name(there, name))
        };
        let names = || self.images.iter().flat_map(|image| &image.names).map(String::as_str);
        let found = self.images.iter().find(has_it);
        found.ok_or_else(|| none_named(name, self.images.len(), names()))
    }

    /// Where something lies.
    pub fn path_of(&self, digest: &ContentDigest) -> Option<&str> {
        self.paths.get(digest).map(String::as_str)
    }
}

impl Reading<'_> {
    fn damaged(&self, reason: String) -> SourceError {
        SourceError::Damaged { attempt: self.attempt.clone(), reason }
    }

    fn missing(&self, path: &str) -> SourceError {
        let path = printable(&shortened(path, 150));
        self.damaged(format!("its manifest.json names {path}, which is not there"))
    }

    async fn image(&mut self, told: Told) -> Result<SavedImage, SourceError> {
        let config = self.files.document(&told.config, self.attempt).await?;
        let config = config.ok_or_else(|| self.missing(&told.config))?;
        let digest = ContentDigest::sha256(&config);
        self.paths.insert(digest, told.config);
        let rootfs = serde_json::from_slice(&config).map(|config: Config| config.rootfs);
        let rootfs = rootfs.map_err(|error| self.damaged(format!("an image's config: {error}")))?;
        let (diff_ids, paths) =
            (rootfs.diff_ids.unwrap_or_default(), told.layers.unwrap_or_default());
        if diff_ids.len() != paths.len() || paths.len() > MAX_LAYERS {
            let (told, there) = (diff_ids.len(), paths.len());
            let why = format!("an image's config speaks of {told} layers, and it has {there}");
            return Err(self.damaged(why));
        }
        let mut layers = Vec::with_capacity(paths.len());
        for (path, diff_id) in paths.into_iter().zip(diff_ids) {
            layers.push(self.layer(path, diff_id).await?);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "size": config.len(), "digest": digest.to_string() },
            "layers": layers,
        });
        let manifest = Bytes::from(manifest.to_string());
        Ok(SavedImage { names: told.repo_tags.unwrap_or_default(), manifest })
    }

    /// The descriptor of a layer. One that is not compressed is what the configuration says, or nothing is read of it.
    async fn layer(
        &mut self,
        path: String,
        diff_id: ContentDigest,
    ) -> Result<serde_json::Value, SourceError> {
        let window = self.files.open(&path, self.attempt).await?;
        let window = window.ok_or_else(|| self.missing(&path))?;
        let (packing, digest) = match &window.first(4).await?[..] {
            [0x1f, 0x8b, ..] => (".gzip", self.hash(&window).await?),
            [0x28, 0xb5, 0x2f, 0xfd] => (".zstd", self.hash(&window).await?),
            _ => ("", diff_id),
        };
        self.paths.insert(digest, path);
        Ok(json!({
            "mediaType": format!("{LAYER}{packing}"),
            "size": window.range.len(),
            "digest": digest.to_string(),
        }))
    }

    async fn hash(&mut self, window: &Window) -> Result<ContentDigest, SourceError> {
        if let Some(digest) = self.hashed.get(&window.range) {
            return Ok(*digest);
        }
        let digest = window.digest(&ContentDigest::Sha256([0; 32])).await?;
        self.hashed.insert(window.range, digest);
        Ok(digest)
    }
}
