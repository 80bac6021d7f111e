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
/// Most layers of all of them together, each counted once.
const MAX_LAYERS_IN_ALL: usize = 10_000;

/// All of an archive. What images share is there once, and manifests are made when they are asked for.
pub(super) struct Saved {
    images: Vec<SavedImage>,
    layers: Vec<Layer>,
    /// Where what has a digest lies.
    paths: BTreeMap<ContentDigest, String>,
}

/// One image.
pub(super) struct SavedImage {
    names: Vec<String>,
    /// That of its manifest.
    digest: ContentDigest,
    config: (ContentDigest, usize),
    /// By their numbers.
    layers: Vec<u32>,
}

/// A layer, as an image says that it is.
struct Layer {
    digest: ContentDigest,
    length: u64,
    packing: Packing,
}

#[derive(Clone, Copy)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A file of a layer that was looked at.
#[derive(Clone, Copy)]
struct Seen {
    length: u64,
    packing: Packing,
    /// Of what is compressed.
    digest: Option<ContentDigest>,
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
    layers: Vec<Layer>,
    /// Layers by what they are: images share them.
    numbers: HashMap<ContentDigest, u32>,
    /// Files of layers by their paths, each opened once.
    seen: HashMap<String, Seen>,
    /// The same by where they lie: several paths may lead to one.
    hashed: HashMap<ByteRange, ContentDigest>,
}

impl Saved {
    /// Reads what an archive says of its images.
    pub async fn read(files: &Files, attempt: &Attempt) -> Result<Self, SourceError> {
        let mut reading = Reading {
            files,
            attempt,
            paths: BTreeMap::new(),
            layers: Vec::new(),
            numbers: HashMap::new(),
            seen: HashMap::new(),
            hashed: HashMap::new(),
        };
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
        let Reading { paths, layers, .. } = reading;
        Ok(Self { images, layers, paths })
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

    /// The image whose manifest has this digest.
    pub fn by_digest(&self, digest: &ContentDigest) -> Option<&SavedImage> {
        self.images.iter().find(|image| image.digest == *digest)
    }

    /// The manifest of an image, as a registry would have it.
    pub fn manifest(&self, image: &SavedImage) -> Bytes {
        let layers = image.layers.iter().filter_map(|number| self.layers.get(*number as usize));
        manifest(image.config, layers)
    }

    /// Where something lies.
    pub fn path_of(&self, digest: &ContentDigest) -> Option<&str> {
        self.paths.get(digest).map(String::as_str)
    }
}

fn manifest<'a>(
    (config, size): (ContentDigest, usize),
    layers: impl Iterator<Item = &'a Layer>,
) -> Bytes {
    let descriptor = |layer: &Layer| {
        let packing = match layer.packing {
            Packing::Plain => "",
            Packing::Gzip => ".gzip",
            Packing::Zstd => ".zstd",
        };
        json!({
            "mediaType": format!("{LAYER}{packing}"),
            "size": layer.length,
            "digest": layer.digest.to_string(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "size": size, "digest": config.to_string() },
        "layers": layers.map(descriptor).collect::<Vec<_>>(),
    });
    Bytes::from(manifest.to_string())
}

impl Reading<'_> {
    fn damaged(&self, reason: String) -> SourceError {
        SourceError::Damaged { attempt: self.attempt.clone(), reason }
    }

    fn too_many(&self) -> SourceError {
        let (what, limit) = ("layers in an archive of images", MAX_LAYERS_IN_ALL as u64);
        SourceError::TooLarge { attempt: self.attempt.clone(), what, limit }
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
        let config = (digest, config.len());
        let found = layers.iter().filter_map(|number| self.layers.get(*number as usize));
        let digest = ContentDigest::sha256(&manifest(config, found));
        Ok(SavedImage { names: told.repo_tags.unwrap_or_default(), digest, config, layers })
    }

    /// The number of a layer. One that is not compressed is what the configuration says, or nothing is read of it.
    async fn layer(&mut self, path: String, diff_id: ContentDigest) -> Result<u32, SourceError> {
        let seen = match self.seen.get(&path) {
            Some(seen) => *seen,
            None => self.look_at(&path).await?,
        };
        let digest = seen.digest.unwrap_or(diff_id);
        if let Some(number) = self.numbers.get(&digest) {
            return Ok(*number);
        }
        if self.layers.len() == MAX_LAYERS_IN_ALL {
            return Err(self.too_many());
        }
        let number = self.layers.len() as u32;
        let Seen { length, packing, .. } = seen;
        self.layers.push(Layer { digest, length, packing });
        self.numbers.insert(digest, number);
        self.paths.insert(digest, path);
        Ok(number)
    }

    async fn look_at(&mut self, path: &str) -> Result<Seen, SourceError> {
        let window = self.files.open(path, self.attempt).await?;
        let window = window.ok_or_else(|| self.missing(path))?;
        let packing = match &window.first(4).await?[..] {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
            _ => Packing::Plain,
        };
        let digest = match packing {
            Packing::Plain => None,
            Packing::Gzip | Packing::Zstd => Some(self.hash(&window).await?),
        };
        let seen = Seen { length: window.range.len(), packing, digest };
        if self.seen.len() == MAX_LAYERS_IN_ALL {
            return Err(self.too_many());
        }
        self.seen.insert(path.to_owned(), seen);
        Ok(seen)
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
