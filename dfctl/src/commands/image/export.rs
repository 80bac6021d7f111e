//! `dfctl image export`.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dfs_artifact::image::Platform;
use dfs_artifact::image::graph::{self, Graph, Machines};
use dfs_model::{ByteRange, ByteSize};
use dfs_peer::hashtree::Cv;
use dfs_source::oci::{ContentDigest, Form, Hashing, Located, Named, OnDisk};
use dfs_source::{FileOptions, Target};
use serde_json::{Value, json};

use super::machines;
use super::parts::{bad_answer, failed};
use crate::backend::{Delivery, ReadRequest};
use crate::codes;
use crate::commands::inside::{self, Access, answer, interrupted};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::locator::Locator;
use crate::output::progress::{Meter, Progress};
use crate::output::{Record, counted, printable, when};
use crate::transfer::{Sink, Terms, TransferError, pump};

pub(super) mod archive;
mod draft;
mod layout;

use archive::{ArchiveWriter, Tagged};
use layout::LayoutWriter;

/// Urgency of what is read, as `get` has it.
const PRIORITY: u8 = 2;
/// By what name an image is kept that has none where it comes from.
const USUAL_NAME: &str = "latest";

/// Copy an image out of a registry into a directory or a file
///
/// Examples:
///   dfctl image export oci://localhost:5000/team/app:v1 oci-layout:app:v1
///   dfctl image export oci://localhost:5000/team/app:v1 docker-archive:app.tar
///
/// Layers, configuration and manifests are the registry's, bit for bit, each held against its digest; they are read as all
/// else is, of neighbours and the cache where these have them. A layout may be there already, and have other images; an
/// archive is of one image, as docker load and podman load take it, and is a new file. Of an image for several kinds of machines
/// a layout gets all and an archive the one for this, or both the one of --platform.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// What to copy: oci://HOST[:PORT]/REPOSITORY[:TAG], or an image of a layout or an archive
    #[arg(value_name = "URL")]
    source: String,
    /// Where to: oci-layout:DIR[:NAME] or docker-archive:FILE[:NAME]
    #[arg(value_name = "DEST")]
    destination: String,
    #[command(flatten)]
    access: Access,
}

/// Where blobs and documents are put.
enum Writer {
    Layout(LayoutWriter),
    Archive(ArchiveWriter),
}

impl Writer {
    fn open(place: &OnDisk, path: &Path) -> Result<Self, CliError> {
        match place.form() {
            Form::Layout => LayoutWriter::open(path).map(Self::Layout),
            Form::Archive => ArchiveWriter::open(path).map(Self::Archive),
        }
    }

    fn has(&self, digest: &ContentDigest, length: u64) -> bool {
        match self {
            Self::Layout(layout) => layout.has(digest, length),
            Self::Archive(_) => false,
        }
    }

    fn begin(&mut self, digest: &ContentDigest, length: u64) -> io::Result<()> {
        match self {
            Self::Layout(layout) => layout.begin(),
            Self::Archive(archive) => archive.begin(&blob_path(digest), length),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Layout(layout) => layout.write(bytes),
            Self::Archive(archive) => archive.write(bytes),
        }
    }

    /// What was written is what it should be.
    fn keep(&mut self, digest: &ContentDigest) -> io::Result<()> {
        match self {
            Self::Layout(layout) => layout.keep(digest),
            Self::Archive(archive) => archive.end(),
        }
    }

    fn finish(self, root: &graph::Named, name: &Name) -> io::Result<()> {
        match (self, name) {
            (Self::Layout(layout), Name::InLayout(name)) => layout.finish(root, name),
            (Self::Archive(archive), Name::InArchive(name)) => archive.finish(root, name),
            _ => Err(io::Error::other("the name is for another kind of place")),
        }
    }
}

/// By what name an image is kept.
enum Name {
    InLayout(String),
    InArchive(Tagged),
}

/// Where a blob lies in a layout.
pub(super) fn blob_path(digest: &ContentDigest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let begun = Instant::now();
    let place = destination(&args.destination)?;
    let path = place.path().map_err(|error| CliError::new(&codes::BAD_URL, error.to_string()))?;
    let locator = args.access.locate(context, &args.source).await?;
    let wanted = match (machines(&locator), place.form()) {
        (Machines::All, Form::Archive) => Machines::One(Platform::here()),
        (wanted, _) => wanted,
    };
    let (located, shown) = (located(&locator)?, locator.shown());
    let name = name_of(&place, &located)?;
    let sources = context.sources(FileOptions::default()).build();
    let source = sources.and_then(|sources| sources.for_target(&locator.target));
    let source = source.map_err(|error| failed("export", &shown, error))?;
    let graph = answer(context, Graph::of(&source, &locator.target, &wanted)).await?;
    let graph = graph.map_err(|error| failed("export", &shown, error))?;
    let Some(root) = graph.root() else { return Ok(Outcome::Nothing) };
    let cannot_write = |error: io::Error| CliError::output("write", &path, &error);
    let mut writer = Writer::open(&place, &path)?;
    let copied = copy_blobs(context, &locator, &located, &graph, &mut writer, &path).await?;
    for document in &graph.documents {
        writer.begin(&document.digest, document.bytes.len() as u64).map_err(cannot_write)?;
        writer.write(&document.bytes).map_err(cannot_write)?;
        writer.keep(&document.digest).map_err(cannot_write)?;
    }
    writer.finish(root, &name).map_err(cannot_write)?;
    let exported = Exported {
        url: shown,
        path,
        digest: root.digest,
        blobs: graph.blobs.len() as u64,
        bytes: graph.blob_bytes(),
        copied,
        took: begun.elapsed(),
    };
    context.output.report("exported", &exported, || exported.line())?;
    Ok(Outcome::Done)
}

fn destination(text: &str) -> Result<OnDisk, CliError> {
    let locator = Locator::parse(text, &[])?;
    let unusable = || {
        CliError::new(&codes::BAD_URL, format!("cannot export to {}", locator.shown()))
            .because("it is neither a layout nor an archive")
            .hint("dfctl image export URL oci-layout:DIR:NAME")
    };
    match Located::of(&locator.target.url) {
        Ok(Located::OnDisk(place)) if locator.inner.is_none() => match place.named() {
            Named::Tag(_) => Ok(place),
            Named::Manifest(_) | Named::Blob(_) => Err(unusable()),
        },
        _ => Err(unusable()),
    }
}

fn located(locator: &Locator) -> Result<Located, CliError> {
    let shown = locator.shown();
    let unusable =
        |why: String| CliError::new(&codes::BAD_URL, format!("cannot export {shown}")).because(why);
    if locator.inner.is_some() {
        return Err(unusable("an image is copied as it is, not a part of it".to_owned())
            .hint("dfctl get -r URL!path -o DIR"));
    }
    let located = Located::of(&locator.target.url);
    let located = located.map_err(unusable)?;
    match located.named() {
        Named::Blob(_) => Err(unusable("it is a blob, not an image".to_owned())
            .hint("dfctl get URL?blob=DIGEST -o FILE")),
        _ if located.layers().is_some() => {
            Err(unusable("it names some of an image's layers, and all are copied".to_owned()))
        }
        Named::Tag(_) | Named::Manifest(_) => Ok(located),
    }
}

/// The name that was given, or the one that it has.
fn name_of(place: &OnDisk, from: &Located) -> Result<Name, CliError> {
    let given = |named: &Named| match named {
        Named::Tag(name) if !name.is_empty() => Some(name.clone()),
        _ => None,
    };
    let own = || given(from.named()).unwrap_or_else(|| USUAL_NAME.to_owned());
    let wanted = given(place.named());
    if place.form() == Form::Layout {
        return Ok(Name::InLayout(wanted.unwrap_or_else(own)));
    }
    let tagged = match (wanted, from) {
        (Some(name), _) => Tagged::of(&name).map_err(|why| {
            let what = format!("no image can have the name {} in an archive", printable(&name));
            let hint = "dfctl image export URL docker-archive:FILE:REPOSITORY:TAG";
            CliError::new(&codes::BAD_URL, what).because(why).hint(hint)
        })?,
        (None, Located::Registry(reference)) => {
            let (registry, repository) = (reference.registry(), reference.repository());
            let name = format!("{registry}/{repository}:{}", own());
            Tagged::of(&name).unwrap_or(Tagged::Bare(own()))
        }
        // What a layout calls it may be a tag alone.
        (None, Located::OnDisk(_)) => match own() {
            name if name.contains(['/', ':']) => {
                Tagged::of(&name).unwrap_or(Tagged::Bare(USUAL_NAME.to_owned()))
            }
            tag => Tagged::Bare(tag),
        },
    };
    Ok(Name::InArchive(tagged))
}

/// Copies what is not there yet; how many bytes that were.
async fn copy_blobs(
    context: &Context,
    locator: &Locator,
    located: &Located,
    graph: &Graph,
    writer: &mut Writer,
    path: &Path,
) -> Result<u64, CliError> {
    let shown = locator.shown();
    let backend = inside::backend(context).await?;
    let meter = Meter::new(&shown, Some(graph.blob_bytes()), 0);
    let progress = RefCell::new(Progress::new(&context.output, context.settings.progress, meter));
    let mut copied = 0;
    for (number, blob) in (0..).zip(&graph.blobs) {
        if writer.has(&blob.digest, blob.size) {
            progress.borrow_mut().moved(blob.size);
            continue;
        }
        let target = Target { url: located.blob(blob.digest).url(), ..locator.target.clone() };
        let begun = writer.begin(&blob.digest, blob.size);
        begun.map_err(|error| CliError::output("write", path, &error))?;
        let hashing = Hashing::like(&blob.digest);
        let mut sink = IntoWriter { writer: &mut *writer, path, hashing, left: blob.size };
        let terms = Terms {
            file: number,
            task: None,
            expected: Some(blob.size),
            limit: None,
            interrupted: &context.interrupted,
        };
        let stream = backend.read(whole(target), Delivery::Stream);
        let received = Box::pin(pump(stream, &mut sink, &terms, &progress)).await;
        let actual = sink.hashing.finish();
        received.map_err(|error| stopped(&shown, error))?;
        if actual != blob.digest {
            let why = format!("a blob of it is {actual}, not {}", blob.digest);
            return Err(bad_answer("export", &shown, why));
        }
        writer.keep(&blob.digest).map_err(|error| CliError::output("write", path, &error))?;
        copied += blob.size;
    }
    progress.borrow_mut().finish();
    Ok(copied)
}

fn whole(target: Target) -> ReadRequest {
    ReadRequest { target, path: None, start: 0, end: None, priority: PRIORITY, limit: None }
}

fn stopped(shown: &str, error: TransferError) -> CliError {
    match error {
        TransferError::Sink(error) => error,
        TransferError::Backend(failure) => CliError::backend("export", shown, failure),
        TransferError::Interrupted => interrupted(),
    }
}

/// Writes a blob, never more than it has.
struct IntoWriter<'a> {
    writer: &'a mut Writer,
    path: &'a Path,
    hashing: Hashing,
    left: u64,
}

impl Sink for IntoWriter<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        let left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            bad_answer("export", "the image", "a blob has more bytes than its manifest says".into())
        })?;
        self.left = left;
        self.hashing.update(bytes);
        self.writer.write(bytes).map_err(|error| CliError::output("write", self.path, &error))
    }

    fn written(&mut self, _range: ByteRange, _digests: &[Cv]) -> Result<(), CliError> {
        Err(CliError::new(&codes::UNEXPECTED, "bytes were written to a file that nobody gave"))
    }
}

/// What was done.
struct Exported {
    url: String,
    path: PathBuf,
    digest: ContentDigest,
    blobs: u64,
    bytes: u64,
    copied: u64,
    took: Duration,
}

impl Exported {
    fn line(&self) -> String {
        let (blobs, took) = (counted(self.blobs, "blob", "blobs"), when::rough(self.took));
        let path = self.path.display();
        let there = self.bytes.saturating_sub(self.copied);
        let there = match there {
            0 => String::new(),
            there => format!(", {} of it were there", ByteSize(there)),
        };
        format!("exported  {path}  {blobs}, {} in {took}{there}", ByteSize(self.bytes))
    }
}

impl Record for Exported {
    fn json(&self) -> Value {
        json!({
            "url": self.url,
            "path": self.path.to_string_lossy(),
            "digest": self.digest.to_string(),
            "blobs": self.blobs,
            "bytes": self.bytes,
            "copied_bytes": self.copied,
            "seconds": self.took.as_secs_f64(),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.path.as_os_str().as_encoded_bytes().to_vec()
    }
}
