//! `dfctl image index`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dfs_artifact::image::attached::{AttachedLayer, EMPTY_CONFIG, IndexSigner, manifest};
use dfs_artifact::image::graph::Named;
use dfs_artifact::image::{Document, parse};
use dfs_model::ByteSize;
use dfs_source::oci::{ContentDigest, PushContent, Reference};
use dfs_source::{FileOptions, SourceError, SourcesBuilder, Target};
use serde_json::{Value, json};

use super::export::archive::{ArchiveWriter, Tagged};
use super::export::blob_path;
use crate::backend::{Failure, FailureClass, Imported, LayerIndexes};
use crate::codes;
use crate::commands::inside::{self, Access, answer};
use crate::commands::sync::of_source_error;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::locator::Locator;
use crate::output::{Record, counted, quoted_path, when};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// By what name a file has the indexes.
const NAME: &str = "index";
/// Longest file with a key.
const MAX_KEY: u64 = 128;

/// Make the indexes of an image's layers for others, or take theirs
///
/// Examples:
///   dfctl image index oci://localhost:5000/team/app:v1 --push --sign key
///   dfctl image index oci://localhost:5000/team/app:v1 -o app.index
///   dfctl image index oci://localhost:5000/team/app:v1 --import app.index
///
/// Who mounts an image reads each of its layers as a whole once, to know what is in it. With an index nobody does: what is
/// read is fetched in parts, also of compressed layers. A layer that is not indexed yet is read for it.
///
/// With --push they are attached to the image in its registry. Agents and seeds use what is attached only where it is signed
/// by a key that they were given (--index-key), or lies in a registry that they believe (--index-registry). KEYFILE has the 32
/// bytes of an Ed25519 private key, raw or in hexadecimal digits; what is signed says which public key belongs to it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["output", "push", "import"])))]
pub struct Args {
    /// Which: oci://HOST[:PORT]/REPOSITORY[:TAG]
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    access: Access,
    /// Write them into this file, which is new
    #[arg(short, long, value_name = "FILE", env = "DFS_OUTPUT", hide_env_values = true)]
    output: Option<PathBuf>,
    /// Attach them to the image in its registry
    #[arg(long, env = "DFS_PUSH", hide_env_values = true)]
    push: bool,
    /// Sign them with the private key in this file
    #[arg(long, value_name = "KEYFILE", env = "DFS_SIGN", hide_env_values = true)]
    sign: Option<PathBuf>,
    /// Have the node agent take them from this file, believed as they are
    #[arg(long, value_name = "FILE", env = "DFS_IMPORT", hide_env_values = true,
          conflicts_with_all = ["output", "push", "sign"])]
    import: Option<PathBuf>,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let begun = Instant::now();
    let locator = args.access.locate(context, &args.url).await?;
    let shown = locator.shown();
    let reference = registry(&locator)?;
    if let Some(file) = &args.import {
        return import(context, &locator, file).await;
    }
    let signer = args.sign.as_deref().map(signer).transpose()?;
    // A name that it cannot have is said before the layers are read.
    let archive = args.output.as_deref().map(Archive::open).transpose()?;
    let backend = inside::backend(context).await?;
    let indexed = answer(context, backend.index_image(&locator.target)).await?;
    let indexed = indexed.map_err(|failure| refused(&shown, failure))?;
    let made = Made::of(&indexed, signer.as_ref());
    if let Some(archive) = archive {
        made.write(archive)?;
    }
    let pushed = match args.push {
        true => {
            let target = Target { url: made.place(&reference).url(), ..locator.target.clone() };
            let sources = context.sources(FileOptions::default());
            answer(context, made.push(sources, &target)).await?.map_err(|error| {
                CliError::backend("push indexes to", &shown, of_source_error(&error))
            })?;
            Some(target.url.to_string())
        }
        false => None,
    };
    let told = Told {
        url: shown,
        image: indexed.about.digest,
        layers: made.layers.len() as u64,
        bytes: made.layers.iter().map(|layer| layer.size).sum(),
        path: args.output,
        pushed,
        signed_by: signer.map(|signer| signer.key().to_string()),
        took: begun.elapsed(),
    };
    context.output.report("indexed", &told, || told.line())?;
    Ok(Outcome::Done)
}

fn registry(locator: &Locator) -> Result<Reference, CliError> {
    let reference = Reference::of(&locator.target.url).ok();
    let named = reference.filter(|reference| {
        locator.inner.is_none()
            && reference.layers().is_none()
            && reference.content_name().is_none()
    });
    named.ok_or_else(|| {
        CliError::new(&codes::BAD_URL, format!("{} names no image of a registry", locator.shown()))
            .hint("dfctl image index oci://HOST/REPOSITORY:TAG -o FILE")
    })
}

fn refused(shown: &str, failure: Failure) -> CliError {
    let is_in_cluster = failure.class == FailureClass::Unsupported;
    let error = CliError::backend("index", shown, failure);
    match is_in_cluster {
        true => error.hint("dfctl --solo image index …      reads the layers here, alone"),
        false => error,
    }
}

/// Who signs, by a file with a private key.
fn signer(path: &Path) -> Result<IndexSigner, CliError> {
    let unusable = || {
        CliError::new(&codes::USAGE, format!("cannot sign with {}", quoted_path(path)))
            .hint("head -c 32 /dev/urandom > key      makes one, to be kept secret")
    };
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_KEY).read_to_end(&mut bytes));
    read.map_err(|error| unusable().caused_by(&error))?;
    let signer = IndexSigner::read(&bytes);
    zeroize::Zeroize::zeroize(&mut bytes);
    signer.ok_or_else(|| unusable().because("it has neither 32 bytes nor 64 hexadecimal digits"))
}

async fn import(context: &Context, locator: &Locator, file: &Path) -> Result<Outcome, CliError> {
    let shown = locator.shown();
    let text = file.to_str().map(|path| format!("docker-archive:{path}"));
    let from = text.map(|text| Locator::parse(&text, &[])).transpose()?.ok_or_else(|| {
        CliError::new(&codes::BAD_URL, format!("{} is not UTF-8", quoted_path(file)))
    })?;
    let backend = context.resident_backend()?;
    let imported = answer(context, backend.import_indexes(&locator.target, &from.target)).await?;
    let imported = imported.map_err(|failure| refused(&shown, failure))?;
    let Imported { layers, taken, known } = imported;
    if taken + known == 0 && layers > 0 {
        let what = format!("no index of {} is of a layer of {shown}", quoted_path(file));
        return Err(CliError::new(&codes::BAD_ANSWER, what)
            .hint("dfctl explain DFS-2113      the agent's log says more of each layer"));
    }
    let told = Taken { url: shown, imported };
    context.output.report("imported", &told, || told.line())?;
    Ok(if taken > 0 { Outcome::Done } else { Outcome::Nothing })
}

/// A file that is to have the indexes.
struct Archive {
    path: PathBuf,
    writer: ArchiveWriter,
}

impl Archive {
    fn open(path: &Path) -> Result<Self, CliError> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let writer = ArchiveWriter::open(&path)?;
        Ok(Self { path, writer })
    }
}

/// An artifact with the indexes, as it lies in a registry or a file.
struct Made {
    manifest: Bytes,
    layers: Vec<AttachedLayer>,
    blobs: Vec<(ContentDigest, Bytes)>,
}

impl Made {
    fn of(indexed: &LayerIndexes, signer: Option<&IndexSigner>) -> Self {
        let layers = indexed.layers.iter().map(|one| AttachedLayer {
            layer: one.layer,
            diff_id: one.diff_id,
            blob: ContentDigest::sha256(&one.content),
            size: one.content.len() as u64,
        });
        let layers: Vec<_> = layers.collect();
        let manifest = manifest(&indexed.about, &layers, signer);
        let empty = Bytes::from_static(EMPTY_CONFIG);
        let contents = indexed.layers.iter().map(|one| one.content.clone()).chain([empty]);
        let blobs = contents.map(|content| (ContentDigest::sha256(&content), content)).collect();
        Self { manifest, layers, blobs }
    }

    /// Where it is beside the image.
    fn place(&self, image: &Reference) -> Reference {
        image.manifest(ContentDigest::sha256(&self.manifest))
    }

    async fn push(&self, sources: SourcesBuilder, target: &Target) -> Result<(), SourceError> {
        let pusher = sources.build()?.pusher(target)?;
        for (digest, content) in &self.blobs {
            let (length, content) = (content.len() as u64, PushContent::Bytes(content.clone()));
            pusher.blob((*digest, length), &content, None, &|_| ()).await?;
        }
        pusher.named(MANIFEST, &self.manifest).await
    }

    /// As an archive that has nothing else.
    fn write(&self, Archive { path, writer: mut archive }: Archive) -> Result<(), CliError> {
        let failed = |error: io::Error| CliError::output("write", &path, &error);
        let manifest = (ContentDigest::sha256(&self.manifest), self.manifest.clone());
        for (digest, content) in self.blobs.iter().chain([&manifest]) {
            archive.begin(&blob_path(digest), content.len() as u64).map_err(failed)?;
            archive.write(content).map_err(failed)?;
            archive.end().map_err(failed)?;
        }
        archive.finish(&self.named(), &Tagged::Bare(NAME.to_owned())).map_err(failed)
    }

    fn named(&self) -> Named {
        let manifest = match parse(&self.manifest, Some(MANIFEST)) {
            Ok(Document::Manifest(manifest)) => Some(*manifest),
            _ => None,
        };
        Named {
            digest: ContentDigest::sha256(&self.manifest),
            media_type: MANIFEST.to_owned(),
            bytes: self.manifest.clone(),
            platform: None,
            manifest,
        }
    }
}

/// What was made.
struct Told {
    url: String,
    image: ContentDigest,
    layers: u64,
    bytes: u64,
    path: Option<PathBuf>,
    pushed: Option<String>,
    signed_by: Option<String>,
    took: Duration,
}

impl Told {
    fn line(&self) -> String {
        let layers = counted(self.layers, "layer", "layers");
        let (bytes, took) = (ByteSize(self.bytes), when::rough(self.took));
        let mut lines = vec![format!("indexed  {}  {layers}, {bytes} in {took}", self.url)];
        lines.extend(self.path.as_ref().map(|path| format!("file     {}", quoted_path(path))));
        lines.extend(self.pushed.as_ref().map(|url| format!("pushed   {url}")));
        lines.extend(self.signed_by.as_ref().map(|key| format!("key      {key}")));
        lines.join("\n")
    }
}

impl Record for Told {
    fn json(&self) -> Value {
        json!({
            "url": self.url,
            "image": self.image.to_string(),
            "layers": self.layers,
            "bytes": self.bytes,
            "path": self.path.as_ref().map(|path| path.to_string_lossy()),
            "pushed": self.pushed,
            "signed_by": self.signed_by,
            "seconds": self.took.as_secs_f64(),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.url.as_bytes().to_vec()
    }
}

/// What was taken.
struct Taken {
    url: String,
    imported: Imported,
}

impl Taken {
    fn line(&self) -> String {
        let Imported { layers, taken, known } = self.imported;
        let of = counted(u64::from(layers), "layer", "layers");
        let known = match known {
            0 => String::new(),
            known => format!(", {known} were known"),
        };
        format!("imported  {}  indexes of {taken} of {of}{known}", self.url)
    }
}

impl Record for Taken {
    fn json(&self) -> Value {
        let Imported { layers, taken, known } = self.imported;
        json!({ "url": self.url, "layers": layers, "taken": taken, "known": known })
    }

    fn name(&self) -> Vec<u8> {
        self.url.as_bytes().to_vec()
    }
}
