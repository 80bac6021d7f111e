//! One file: to its name, or as a stream.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_model::{ByteSize, Digest};

use super::saved::Saved;
use super::sinks::{Compare, IntoDevice, IntoPart, IntoStdout, exists};
use super::wanted::Wanted;
use super::{Destination, ReadOptions};
use crate::backend::{Backend, Delivery, FailureClass};
use crate::codes;
use crate::commands::inside;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::locator::Locator;
use crate::outdir::{OutDir, Replace};
use crate::output::ledger::Stages;
use crate::output::progress::{Meter, Progress};
use crate::output::{quoted_path, shell_quoted};
use crate::part::{Hasher, Identity, PartError, PartFile, Unplaced, sweep_drafts};
use crate::transfer::{Received, Sink, Terms, TransferError, pump};

/// A transfer under way: what every step of it needs.
struct Job<'a> {
    context: &'a Context,
    backend: Arc<dyn Backend>,
    locator: &'a Locator,
    options: &'a ReadOptions,
    wanted: Wanted,
    begun: Instant,
    resolve: Duration,
}

/// Reads to the standard output or a device.
pub async fn to_stream(
    context: &Context,
    locator: &Locator,
    options: &ReadOptions,
    destination: Destination,
) -> Result<Outcome, CliError> {
    // How the command is called when it fails.
    let verb = if matches!(destination, Destination::Stdout) { "read" } else { "get" };
    let job = Job::begin(context, locator, options, verb).await?;
    let hasher = options.digest.map(Hasher::new);
    let (received, digest, path) = match destination {
        Destination::Device(file, path) => {
            let mut sink = IntoDevice { context, file, path, hasher };
            let received = job.receive(&mut sink, verb).await?;
            (received, sink.hasher.map(Hasher::finish), Some(sink.path))
        }
        Destination::Stdout | Destination::File(_) => {
            let mut sink = IntoStdout { context, hasher };
            let received = job.receive(&mut sink, verb).await?;
            context.output.flush()?;
            (received, sink.hasher.map(Hasher::finish), None)
        }
    };
    job.check_digest(digest)?;
    let saved = Saved { path, ..job.saved(received) };
    saved.tell(context, locator, options)?;
    Ok(Outcome::Done)
}

/// Gets into the file at `path`.
pub async fn to_file(
    context: &Context,
    locator: &Locator,
    options: &ReadOptions,
    path: &Path,
    replace: Replace,
) -> Result<Outcome, CliError> {
    let opened = OutDir::of_file(path);
    let (dir, name) =
        opened.map_err(|error| CliError::output("write into the directory of", path, &error))?;
    let job = Job::begin(context, locator, options, "get").await?;
    if replace == Replace::Never
        && let Some(existing) = existing(path)?
    {
        let saved = job.compare(&existing, path).await?;
        saved.tell(context, locator, options)?;
        return Ok(Outcome::Nothing);
    }
    let identity = Identity {
        content: job.wanted.content.clone(),
        start: job.wanted.request.start,
        length: job.wanted.length,
    };
    let like = job.wanted.entry.as_ref();
    sweep_drafts(&dir);
    let part = context.open_part(Arc::new(dir), &name, identity, like, options.digest);
    let part = part.map_err(|error| cannot_open(error, path))?;
    let mut saved = Box::pin(job.fill(part, replace, path)).await?;
    saved.path = Some(path.to_owned());
    saved.took = job.begun.elapsed();
    saved.tell(context, locator, options)?;
    Ok(Outcome::Done)
}

/// The file that has the output's name already.
fn existing(path: &Path) -> Result<Option<File>, CliError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.symlink_metadata() {
            // A link that leads nowhere: writing through it is nobody's wish.
            Ok(_) => Err(exists(path)),
            Err(_) => Ok(None),
        },
        Err(error) => Err(CliError::output("read", path, &error)),
    }
}

/// Why there is no part file for the output at `path`.
pub fn cannot_open(error: PartError, path: &Path) -> CliError {
    let what = format!("cannot write {}", path.display());
    match error {
        PartError::Io(error) => CliError::output("write", path, &error),
        PartError::Interrupted(_) => CliError::new(&codes::INTERRUPTED, what).caused_by(&error),
        PartError::Busy(_) => CliError::new(&codes::OUTPUT_BUSY, what).caused_by(&error),
        PartError::Foreign(ref part) | PartError::NoPart(ref part) => {
            CliError::new(&codes::OUTPUT_FAILED, what)
                .caused_by(&error)
                .hint(format!("rm {}", quoted_path(part)))
        }
        PartError::Shared(ref part) => {
            let part = quoted_path(part);
            CliError::new(&codes::OUTPUT_FAILED, what).caused_by(&error).hint(format!(
                "the same command with the --data-dir of the one that was killed, or begin anew: rm {part}"
            ))
        }
    }
}

impl<'a> Job<'a> {
    async fn begin(
        context: &'a Context,
        locator: &'a Locator,
        options: &'a ReadOptions,
        verb: &str,
    ) -> Result<Self, CliError> {
        let begun = Instant::now();
        let backend = inside::backend(context).await?;
        let wanted = Wanted::find(context, &*backend, locator, options, verb).await?;
        Ok(Self { context, backend, locator, options, wanted, begun, resolve: begun.elapsed() })
    }

    /// Reads everything wanted into a sink that keeps nothing.
    async fn receive(&self, sink: &mut dyn Sink, verb: &str) -> Result<Received, CliError> {
        let received = self.transfer(sink, 0, Delivery::Stream).await;
        received.map_err(|error| self.failed(verb, error, None))
    }

    async fn transfer(
        &self,
        sink: &mut dyn Sink,
        kept: u64,
        delivery: Delivery,
    ) -> Result<Received, TransferError> {
        let name = self.locator.file_name().unwrap_or_else(|| self.locator.shown());
        let meter = Meter::new(&name, self.wanted.length, kept);
        let mode = self.context.settings.progress;
        let progress = RefCell::new(Progress::new(&self.context.output, mode, meter));
        let terms = Terms {
            file: 0,
            task: self.wanted.task,
            expected: self.wanted.length.map(|length| length.saturating_sub(kept)),
            limit: self.options.limit,
            interrupted: &self.context.interrupted,
        };
        let mut request = self.wanted.request.clone();
        request.start += kept;
        let stream = self.backend.read(request, delivery);
        let received = Box::pin(pump(stream, sink, &terms, &progress)).await;
        progress.borrow_mut().finish();
        received
    }

    /// Compares an existing file with the content instead of replacing it.
    async fn compare(&self, existing: &File, path: &Path) -> Result<Saved, CliError> {
        let unreadable = |error: io::Error| CliError::output("read", path, &error);
        let length = existing.metadata().map_err(unreadable)?.len();
        if let Some(wanted) = self.wanted.length.filter(|wanted| *wanted != length) {
            let why = format!("it has {length} bytes, the content {wanted}");
            return Err(exists(path).because(why));
        }
        let mut saved = Saved {
            path: Some(path.to_owned()),
            url: self.locator.shown(),
            bytes: length,
            unchanged: true,
            ..Saved::default()
        };
        if let Some(digest) = self.options.digest {
            let mut hasher = Hasher::new(digest);
            hasher.catch_up(existing, length).map_err(unreadable)?;
            if hasher.finish() != digest {
                return Err(exists(path).because("its digest is not the one given with --digest"));
            }
            saved.kept = length;
            saved.matches = Some(digest);
        } else {
            let mut sink = Compare::new(existing, path);
            let received = self.receive(&mut sink, "compare").await?;
            sink.ends_here()?;
            saved.ledger = received.ledger;
            saved.blake3 = received.blake3.filter(|_| self.wanted.whole);
        }
        saved.took = self.begun.elapsed();
        Ok(saved)
    }

    /// Fills the part file, checks it and puts it in place.
    async fn fill(
        &self,
        mut part: PartFile,
        replace: Replace,
        path: &Path,
    ) -> Result<Saved, CliError> {
        let resumed = part.resumed();
        let origin = self.wanted.request.start;
        let delivery = Delivery::File { file: part.file(), origin };
        let mut sink = IntoPart { part: &mut part, origin, is_whole: self.wanted.whole };
        let received = match self.transfer(&mut sink, resumed, delivery).await {
            Ok(received) => received,
            Err(error) => return Err(self.leave(part, error)),
        };
        let checking = Instant::now();
        let unreadable = |error: io::Error| CliError::output("read back", path, &error);
        let digest = part.digest().map_err(unreadable)?;
        if let Err(error) = self.check_digest(digest) {
            part.remove();
            return Err(error);
        }
        // What was taken over came through no verification of this run.
        if let (Some(blake3), true, true) = (received.blake3, self.wanted.whole, resumed > 0)
            && part.blake3().map_err(unreadable)? != blake3
        {
            part.remove();
            return Err(damaged(path));
        }
        part.finish(self.wanted.entry.as_ref(), replace)
            .map_err(|unplaced| cannot_place(&unplaced, path))?;
        let mut saved = self.saved(received);
        saved.kept = resumed;
        saved.bytes += resumed;
        saved.stages.finish = checking.elapsed();
        Ok(saved)
    }

    /// Leaves what came for the next run, unless it is of a version that is no more.
    fn leave(&self, part: PartFile, error: TransferError) -> CliError {
        let gone = matches!(&error, TransferError::Backend(failure)
            if failure.class == FailureClass::OriginChanged);
        let done = part.done();
        if gone {
            part.remove();
            return self.failed("get", error, None);
        }
        let full = matches!(&error, TransferError::Backend(failure)
            if failure.class == FailureClass::OutputFull);
        let at = part.path();
        let kept = part.keep();
        let failed = self.failed("get", error, kept.as_deref().map(|part| (part, done)));
        if full && kept.is_none() {
            return failed.because(format!("there was no room for {}", at.display()));
        }
        failed
    }

    fn saved(&self, received: Received) -> Saved {
        let took = self.begun.elapsed();
        let after_first = took.saturating_sub(self.resolve).saturating_sub(received.first_byte);
        Saved {
            url: self.locator.shown(),
            bytes: received.bytes,
            took,
            blake3: received.blake3.filter(|_| self.wanted.whole),
            matches: self.options.digest,
            stages: Stages {
                resolve: self.resolve,
                first_byte: received.first_byte,
                waiting: received.stood,
                transfer: after_first.saturating_sub(received.stood),
                finish: Duration::ZERO,
            },
            ledger: received.ledger,
            ..Saved::default()
        }
    }

    fn failed(&self, verb: &str, error: TransferError, part: Option<(&Path, u64)>) -> CliError {
        let shown = self.locator.shown();
        let error = match error {
            TransferError::Sink(error) => error,
            TransferError::Backend(failure) => CliError::backend(verb, &shown, failure),
            TransferError::Interrupted => {
                CliError::new(&codes::INTERRUPTED, format!("interrupted while getting {shown}"))
            }
        };
        let Some((part, done)) = part else { return error };
        let of = self.wanted.length.map(|length| format!(" of {}", ByteSize(length)));
        let of = of.unwrap_or_default();
        let again = "the same command again: it goes on from there";
        let hint = match error.code == &codes::NO_SPACE {
            true => format!("make room, then {again}; or -o PATH on another disk"),
            false => again.to_owned(),
        };
        error.because(format!("{}{of} are in {}", ByteSize(done), part.display())).hint(hint)
    }

    fn check_digest(&self, got: Option<Digest>) -> Result<(), CliError> {
        match (self.options.digest, got) {
            (Some(wanted), Some(got)) if wanted != got => {
                let shown = self.locator.shown();
                let what = format!("{shown} is not what --digest names");
                Err(CliError::new(&codes::DIGEST_MISMATCH, what)
                    .because(format!("wanted {wanted}"))
                    .because(format!("got    {got}"))
                    .hint(format!("dfctl stat {}", shell_quoted(&shown))))
            }
            _ => Ok(()),
        }
    }
}

/// The part file of the output at `path` held something else.
pub fn damaged(path: &Path) -> CliError {
    let what = format!("cannot resume {}: its part file was damaged", path.display());
    CliError::new(&codes::PART_CORRUPT, what)
        .because("it is removed")
        .hint("the same command again")
}

/// Why a whole part file could not get its name.
pub fn cannot_place(unplaced: &Unplaced, path: &Path) -> CliError {
    let error = match unplaced.error.kind() {
        io::ErrorKind::AlreadyExists => {
            let what = format!("{} appeared meanwhile and is not replaced", path.display());
            CliError::new(&codes::TARGET_EXISTS, what)
                .hint("the same command with --force to replace it")
        }
        _ => CliError::output("write", path, &unplaced.error),
    };
    match &unplaced.kept {
        Some(part) => error.because(format!("all that was to be written is in {}", part.display())),
        None => error,
    }
}
