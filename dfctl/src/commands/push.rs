//! `dfctl push`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dfs_model::ByteSize;
use dfs_source::oci::{Named, Pusher, Put, Reference};
use dfs_source::{FileOptions, SourceError};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::image::machines;
use super::inside::{Access, answer, interrupted};
use super::sync::of_source_error;
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::locator::Locator;
use crate::output::progress::{Meter, Progress, TICK};
use crate::output::{Record, counted, when};

mod made;

use made::Made;

/// Blobs that are sent at a time.
const AT_ONCE: usize = 3;

/// Put an image, or files, into a registry
///
/// Examples:
///   dfctl push oci-layout:build:v1 oci://localhost:5000/team/app:v1
///   dfctl push model oci://localhost:5000/models/small:1
///
/// SRC is an image in a layout (oci-layout:DIR[:NAME]), an archive (docker-archive:FILE[:NAME]) or a registry, and is put
/// there bit for bit; or a file or directory of this machine, which becomes an artifact of its files. What the registry
/// has is not sent again, an upload that breaks off goes on where it stands, and the tag is put last. Of an image for several
/// kinds of machines all are put there, or the one of --platform. What is about another image is found by that one. Of a
/// registry SRC is read directly, past the cache and the neighbours.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// What to put there: an image, a file, or a directory
    #[arg(value_name = "SRC")]
    source: String,
    /// Where to: oci://HOST[:PORT]/REPOSITORY[:TAG]
    #[arg(value_name = "URL")]
    destination: String,
    #[command(flatten)]
    access: Access,
    /// Another repository of the registry that may have the same blobs: they are not sent, then
    #[arg(long, value_name = "REPOSITORY", env = "DFS_MOUNT_FROM", hide_env_values = true)]
    mount_from: Option<String>,
    /// What the files are, a media type
    #[arg(long, value_name = "TYPE", env = "DFS_ARTIFACT_TYPE", hide_env_values = true)]
    artifact_type: Option<String>,
    /// Something to be said of the files, once or several times
    #[arg(long, value_name = "KEY=VALUE", env = "DFS_ANNOTATION", hide_env_values = true)]
    annotation: Vec<String>,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let begun = Instant::now();
    let destination = args.access.locate_output(context, &args.destination).await?;
    let reference = registry(&destination)?;
    let source = args.access.locate(context, &args.source).await?;
    let machines = machines(&source);
    let sources = context.sources(FileOptions::default()).build();
    let shown = destination.shown();
    let failed = |error: SourceError| CliError::backend("push to", &shown, of_source_error(&error));
    let sources = sources.map_err(failed)?;
    let files = made::Files { kind: args.artifact_type, annotations: &args.annotation };
    let made = answer(context, made::make(&sources, &source, &machines, files)).await??;
    let pusher = sources.pusher(&destination.target).map_err(failed)?;
    // Nothing is sent for a name that it cannot have.
    let digest = made.root(&reference).map_err(|why| {
        CliError::new(&codes::BAD_URL, format!("cannot push {} to {shown}", source.shown()))
            .because(why)
            .hint("the same command with a tag, as in oci://HOST/REPOSITORY:TAG")
    })?;
    let from = args.mount_from.as_deref().or_else(|| made.beside(&reference));
    let mut pushed = put_blobs(context, &pusher, &made, from, &shown).await?;
    answer(context, put_documents(&pusher, &made)).await?.map_err(failed)?;
    pushed.url = reference.manifest(digest).url().to_string();
    pushed.shown = shown;
    pushed.took = begun.elapsed();
    context.output.report("pushed", &pushed, || pushed.line())?;
    Ok(Outcome::Done)
}

/// A place in a registry.
fn registry(locator: &Locator) -> Result<Reference, CliError> {
    let shown = locator.shown();
    let unusable = |why: String| {
        CliError::new(&codes::BAD_URL, format!("cannot push to {shown}"))
            .because(why)
            .hint("dfctl push SRC oci://HOST/REPOSITORY:TAG")
    };
    if locator.inner.is_some() {
        return Err(unusable("nothing is put into an image that is there".to_owned()));
    }
    let reference = Reference::of(&locator.target.url).map_err(unusable)?;
    match reference.named() {
        Named::Blob(_) => Err(unusable("a blob has no name of its own: name a tag".to_owned())),
        _ if reference.layers().is_some() || reference.platform().is_some() => {
            Err(unusable("it names a part of an image, and all that is named is pushed".to_owned()))
        }
        Named::Tag(_) | Named::Manifest(_) => Ok(reference),
    }
}

async fn put_blobs(
    context: &Context,
    pusher: &Pusher,
    made: &Made,
    from: Option<&str>,
    shown: &str,
) -> Result<Pushed, CliError> {
    let meter = Meter::new(shown, Some(made.blob_bytes()), 0);
    let mut progress = Progress::new(&context.output, context.settings.progress, meter);
    let (moved, pushed) = (AtomicU64::new(0), Pushed::default());
    let count = |bytes: u64| {
        moved.fetch_add(bytes, Ordering::Relaxed);
    };
    let putting = stream::iter(&made.blobs).map(|blob| {
        let (digest, length, count) = (blob.digest, blob.length, &count);
        async move {
            let put = pusher.blob((digest, length), &blob.content, from, count).await?;
            Ok::<_, SourceError>((put, length))
        }
    });
    let mut putting = std::pin::pin!(
        putting
            .buffer_unordered(AT_ONCE)
            .try_fold(pushed, async |pushed, (put, length)| Ok(pushed.with(put, length)))
    );
    let mut ticks = tokio::time::interval(TICK);
    let done = loop {
        tokio::select! {
            biased;
            () = context.interrupted.cancelled() => {
                progress.finish();
                return Err(interrupted().hint("the same command again sends what is missing"));
            }
            done = &mut putting => break done,
            _ = ticks.tick() => match moved.swap(0, Ordering::Relaxed) {
                0 => progress.tick(),
                bytes => progress.moved(bytes),
            },
        }
    };
    progress.moved(moved.swap(0, Ordering::Relaxed));
    progress.finish();
    done.map_err(|error| CliError::backend("push to", shown, of_source_error(&error)))
}

/// What names others comes after them, and the tag is put last: nobody sees half of it.
async fn put_documents(pusher: &Pusher, made: &Made) -> Result<(), SourceError> {
    let Some((root, below)) = made.documents.split_last() else { return Ok(()) };
    for document in below {
        pusher.document(document.digest, &document.media_type, &document.bytes).await?;
    }
    pusher.named(&root.media_type, &root.bytes).await
}

/// What was done.
#[derive(Debug, Default)]
struct Pushed {
    url: String,
    shown: String,
    sent: u64,
    sent_bytes: u64,
    there: u64,
    mounted: u64,
    took: Duration,
}

impl Pushed {
    fn with(mut self, put: Put, length: u64) -> Self {
        match put {
            Put::There => self.there += 1,
            Put::Mounted => self.mounted += 1,
            Put::Sent => {
                self.sent += 1;
                self.sent_bytes += length;
            }
        }
        self
    }

    fn line(&self) -> String {
        let sent = counted(self.sent, "blob", "blobs");
        let (bytes, took) = (ByteSize(self.sent_bytes), when::rough(self.took));
        let spared = match (self.there, self.mounted) {
            (0, 0) => String::new(),
            (there, 0) => format!(", {there} were there"),
            (0, mounted) => format!(", {mounted} taken over"),
            (there, mounted) => format!(", {there} were there, {mounted} taken over"),
        };
        format!(
            "pushed  {}  {sent} sent, {bytes} in {took}{spared}\n        {}",
            self.shown, self.url
        )
    }
}

impl Record for Pushed {
    fn json(&self) -> Value {
        json!({
            "url": self.shown,
            "by_digest": self.url,
            "blobs_sent": self.sent,
            "bytes_sent": self.sent_bytes,
            "blobs_there": self.there,
            "blobs_mounted": self.mounted,
            "seconds": self.took.as_secs_f64(),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.url.clone().into_bytes()
    }
}
