//! A whole tree: into a directory, several files at a time, nothing outside of it. Small files come many in one call.

mod together;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use dfs_model::{Rate, TaskId};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use self::together::turns;
use super::saved::Saved;
use super::single::{cannot_open, cannot_place};
use super::sinks::{Compare, exists};
use super::wanted::member_identity;
use super::{Filter, ReadOptions};
use crate::backend::{
    Backend, Delivery, Entry, EntryKind, FilesRequest, Listed, Missing, ReadRequest, View,
};
use crate::codes;
use crate::commands::inside::{self, answer, interrupted, missing_error, next};
use crate::commands::saving::{Filling, below, directory, file_name_of, name_of, parent_of};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::locator::Locator;
use crate::outdir::{OutDir, Replace};
use crate::output::progress::{Meter, Progress};
use crate::output::{count, files as files_of};
use crate::part::{Identity, sweep_drafts};
use crate::transfer::{Terms, TransferError, pump};

/// Files under way at a time.
const CONCURRENT: usize = 8;

/// Where to, what of it, and what may be replaced.
pub struct Plan {
    /// The directory.
    pub root: PathBuf,
    /// Which files.
    pub filter: Filter,
    /// Whether to replace.
    pub replace: Replace,
}

struct Tree<'a> {
    context: &'a Context,
    backend: Arc<dyn Backend>,
    locator: &'a Locator,
    options: &'a ReadOptions,
    replace: Replace,
    root: Arc<OutDir>,
    index: Option<TaskId>,
    progress: RefCell<Progress<'a>>,
    tally: Tally,
    /// Part files that stay for a later run.
    left: RefCell<Vec<PathBuf>>,
}

#[derive(Default)]
struct Tally {
    files: Cell<u64>,
    bytes: Cell<u64>,
    kept: Cell<u64>,
    unchanged: Cell<u64>,
    failed: Cell<u64>,
    /// Those of them that would fail again.
    lasting: Cell<u64>,
    /// What was told last: many entries may fail of one obstacle.
    told: RefCell<String>,
}

/// Gets it.
pub async fn run(
    context: &Context,
    locator: &Locator,
    options: &ReadOptions,
    plan: Plan,
) -> Result<Outcome, CliError> {
    let begun = Instant::now();
    let backend = inside::backend(context).await?;
    let shown = locator.shown();
    let purpose = options.purpose(locator);
    let opened = answer(context, backend.open(&locator.target, View::Tree, purpose)).await?;
    let artifact = opened.map_err(|failure| CliError::backend("get", &shown, failure))?;
    let (entries, missing) = list(context, &*backend, locator, &plan.filter).await?;
    let resolve = begun.elapsed();
    let made = std::fs::create_dir_all(&plan.root).and_then(|()| OutDir::open(&plan.root));
    let root = made.map_err(|error| CliError::output("write into", &plan.root, &error))?;
    let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
    let total = files.map(|entry| entry.length).fold(0, u64::saturating_add);
    let meter = Meter::new(&plan.root.display().to_string(), Some(total), 0);
    let progress = Progress::new(&context.output, context.settings.progress, meter);
    let tree = Tree {
        context,
        backend,
        locator,
        options,
        replace: plan.replace,
        root: Arc::new(root),
        index: artifact.index.map(|index| index.id),
        progress: RefCell::new(progress),
        tally: Tally::default(),
        left: RefCell::default(),
    };
    tree.write(&entries).await?;
    missing.iter().for_each(|missing| tree.note(Err(missing_error(&shown, missing))));
    tree.progress.borrow_mut().finish();

    let tally = &tree.tally;
    let mut saved = Saved {
        path: Some(plan.root.clone()),
        url: shown.clone(),
        bytes: tally.bytes.get(),
        kept: tally.kept.get(),
        files: Some(tally.files.get()),
        took: begun.elapsed(),
        unchanged: tally.files.get() > 0 && tally.unchanged.get() == tally.files.get(),
        ledger: tree.progress.borrow().meter().ledger(),
        ..Saved::default()
    };
    saved.stages.resolve = resolve;
    saved.stages.waiting = tree.progress.borrow().meter().stood();
    saved.stages.transfer = saved.took.saturating_sub(resolve).saturating_sub(saved.stages.waiting);
    saved.tell(context, locator, options)?;
    match tally.failed.get() {
        0 if saved.unchanged => Ok(Outcome::Nothing),
        0 => Ok(Outcome::Done),
        failed => Err(CliError::new(
            &codes::PARTLY,
            match failed {
                1 => format!("1 entry of {shown} was not saved"),
                failed => format!("{} entries of {shown} were not saved", count(failed)),
            },
        )
        .because("each is named above")
        .hint(match failed == tally.lasting.get() {
            true => "the rest is saved; to leave these out: the same command with --exclude GLOB",
            false => "the same command again: it takes what is missing",
        })),
    }
}

/// Everything wanted, with paths relative to what was named.
async fn list(
    context: &Context,
    backend: &dyn Backend,
    locator: &Locator,
    filter: &Filter,
) -> Result<(Vec<Entry>, Vec<Missing>), CliError> {
    let prefix = locator.inner.clone().unwrap_or_default();
    let mut stream = backend.list(&locator.target, &prefix, true);
    let (mut entries, mut missing) = (Vec::new(), Vec::new());
    while let Some(listed) = next(context, &mut stream).await? {
        let listed = listed.map_err(|failure| CliError::backend("list", &locator.shown(), failure));
        let mut entry = match listed? {
            Listed::Entry(entry) => entry,
            Listed::Missing(one) => {
                if filter.may_have(below(&prefix, &one.path).unwrap_or(&one.path)) {
                    missing.push(one);
                }
                continue;
            }
        };
        let Some(path) = below(&prefix, &entry.path) else { continue };
        entry.path = path.to_vec();
        // Directories without a wanted file are not made.
        if filter.has(Path::new(OsStr::from_bytes(&entry.path)))
            || (entry.kind == EntryKind::Directory && filter.is_open())
        {
            entries.push(entry);
        }
    }
    Ok((entries, missing))
}

impl Tree<'_> {
    /// Directories, files, links, and the directories' times last, the deepest first: writing into one changes it.
    async fn write(&self, entries: &[Entry]) -> Result<(), CliError> {
        let of = |kind| entries.iter().enumerate().filter(move |(_, entry)| entry.kind == kind);
        for (_, entry) in of(EntryKind::Directory) {
            self.note(self.directory(&entry.path).map(drop));
        }
        let files = of(EntryKind::File).map(|(number, entry)| (number as u64, entry));
        // What is paced is paced file by file.
        let longest = self.options.limit.is_none().then_some(FilesRequest::LONGEST);
        // The others under way have left their part files by then.
        let taken = self.take_turns(turns(files, longest)).await;
        taken.map_err(|error| self.stopped(error))?;
        for (_, entry) in of(EntryKind::Symlink) {
            self.note(self.link(entry));
        }
        for (_, entry) in of(EntryKind::Other) {
            let what = format!("{} is a device, pipe or socket", self.path_of(entry).display());
            self.note(Err(CliError::new(&codes::UNSUPPORTED, what)));
        }
        self.sweep(entries);
        let mut directories: Vec<_> = of(EntryKind::Directory).map(|(_, entry)| entry).collect();
        directories.sort_by(|a, b| b.path.cmp(&a.path));
        for entry in directories {
            // One that could not be made was reported when it was to be made.
            if let Ok(dir) = self.directory(&entry.path) {
                let path = self.path_of(entry);
                self.note(
                    dir.dress(entry).map_err(|error| CliError::output("finish", &path, &error)),
                );
            }
        }
        Ok(())
    }

    /// Takes away what killed runs left of replacing something here.
    fn sweep(&self, entries: &[Entry]) {
        let dirs: BTreeSet<_> = entries.iter().map(|entry| parent_of(&entry.path)).collect();
        for dir in dirs {
            if let Ok(dir) = self.root.enter(dir) {
                sweep_drafts(&dir);
            }
        }
    }

    fn stopped(&self, error: CliError) -> CliError {
        let (files, left) = (self.tally.files.get(), self.left.borrow());
        let mut error = error.because(format!("{} are saved", files_of(files)));
        for part in left.iter() {
            if !error.names(part) {
                error = error.because(format!("a part is in {}", part.display()));
            }
        }
        if files == 0 && left.is_empty() {
            return error;
        }
        let again = "the same command again: it goes on from there";
        let hint = match error.code == &codes::NO_SPACE {
            true => format!("make room, then {again}; or -o DIR on another disk"),
            false => again.to_owned(),
        };
        error.hint(hint)
    }

    /// One entry's failure is told at once, and the others go on.
    fn note(&self, result: Result<(), CliError>) {
        if let Err(error) = result {
            add(&self.tally.failed, 1);
            let lasts = [&codes::MEMBER_MISSING, &codes::UNSUPPORTED, &codes::UNSAFE_NAME];
            add(&self.tally.lasting, u64::from(lasts.contains(&error.code)));
            if self.tally.told.replace(error.what.clone()) != error.what {
                self.context.output.error(&error);
            }
        }
    }

    fn path_of(&self, entry: &Entry) -> PathBuf {
        self.root.path_of(OsStr::from_bytes(&entry.path))
    }

    fn directory(&self, path: &[u8]) -> Result<OutDir, CliError> {
        directory(&self.root, path)
    }

    fn link(&self, entry: &Entry) -> Result<(), CliError> {
        let path = self.path_of(entry);
        let name = name_of(entry, &path)?;
        let dir = self.directory(parent_of(&entry.path))?;
        dir.symlink(name, entry, self.replace).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&path),
            _ => CliError::output("write", &path, &error),
        })
    }

    async fn file(&self, number: u64, entry: &Entry) -> Result<(), CliError> {
        if self.context.interrupted.is_cancelled() {
            return Err(interrupted());
        }
        let path = self.path_of(entry);
        let name = file_name_of(entry, &path)?;
        let dir = self.directory(parent_of(&entry.path))?;
        let existing = match self.replace {
            Replace::Never => existing(&dir, name, &path)?,
            Replace::Always => None,
        };
        match existing {
            Some(existing) => self.compare(number, entry, &existing, &path).await?,
            None => self.fetch(number, entry, Arc::new(dir), &path).await?,
        }
        add(&self.tally.files, 1);
        add(&self.tally.bytes, entry.length);
        Ok(())
    }

    async fn compare(
        &self,
        number: u64,
        entry: &Entry,
        existing: &File,
        path: &Path,
    ) -> Result<(), CliError> {
        let status = existing.metadata().map_err(|error| CliError::output("read", path, &error))?;
        if status.len() != entry.length {
            return Err(exists(path));
        }
        let mut sink = Compare::new(existing, path);
        let stream = self.backend.read(self.request(entry, 0), Delivery::Stream);
        let compared =
            pump(stream, &mut sink, &self.terms(number, entry.length), &self.progress).await;
        compared.map_err(|error| self.failed(entry, error))?;
        sink.ends_here()?;
        add(&self.tally.unchanged, 1);
        Ok(())
    }

    async fn fetch(
        &self,
        number: u64,
        entry: &Entry,
        dir: Arc<OutDir>,
        path: &Path,
    ) -> Result<(), CliError> {
        let content = member_identity(self.index, &self.inner_path(entry));
        let identity = Identity { content, start: 0, length: Some(entry.length) };
        let part = self.context.open_part(dir, name_of(entry, path)?, identity, Some(entry), None);
        let part = part.map_err(|error| cannot_open(error, path))?;
        let resumed = part.resumed();
        let mut filling = Filling { part: Some(part), left: &self.left };
        if entry.length > resumed {
            self.fill(number, entry, &mut filling, path).await?;
        }
        let Some(part) = filling.part.take() else { return Ok(()) };
        part.finish(Some(entry), self.replace).map_err(|unplaced| cannot_place(&unplaced, path))?;
        add(&self.tally.kept, resumed);
        Ok(())
    }

    /// Gets what is missing of a part file.
    async fn fill(
        &self,
        number: u64,
        entry: &Entry,
        filling: &mut Filling<'_>,
        path: &Path,
    ) -> Result<(), CliError> {
        let Some(part) = &mut filling.part else { return Ok(()) };
        let resumed = part.resumed();
        let delivery = Delivery::File { file: part.file(), origin: 0 };
        let stream = self.backend.read(self.request(entry, resumed), delivery);
        let terms = self.terms(number, entry.length - resumed);
        let failed = |error| self.failed(entry, error);
        filling.fill(stream, (&terms, &self.progress), path, failed).await
    }

    /// The entry's path in the artifact.
    fn inner_path(&self, entry: &Entry) -> Vec<u8> {
        match &self.locator.inner {
            Some(prefix) => [&prefix[..], b"/", &entry.path].concat(),
            None => entry.path.clone(),
        }
    }

    fn request(&self, entry: &Entry, start: u64) -> ReadRequest {
        let request = self.options.request(self.locator, Some(self.inner_path(entry)));
        ReadRequest { start, ..request }
    }

    fn terms(&self, number: u64, expected: u64) -> Terms<'_> {
        // The rate is shared by the files under way.
        let limit = self.options.limit.map(|rate| Rate((rate.0 / CONCURRENT as u64).max(1)));
        Terms {
            file: number,
            task: None,
            expected: Some(expected),
            limit,
            interrupted: &self.context.interrupted,
        }
    }

    fn failed(&self, entry: &Entry, error: TransferError) -> CliError {
        match error {
            TransferError::Sink(error) => error,
            TransferError::Interrupted => interrupted(),
            TransferError::Backend(failure) => {
                let inner = String::from_utf8_lossy(&self.inner_path(entry)).into_owned();
                CliError::backend("get", &format!("{}!{inner}", self.locator.target.url), failure)
            }
        }
    }
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get().saturating_add(more));
}

/// The regular file that has the name already.
fn existing(dir: &OutDir, name: &OsStr, path: &Path) -> Result<Option<File>, CliError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(dir.fd(), name, flags, Mode::empty(), resolve) {
        Ok(fd) => {
            let file = File::from(fd);
            let regular = file.metadata().is_ok_and(|status| status.is_file());
            if regular { Ok(Some(file)) } else { Err(exists(path)) }
        }
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP) => Err(exists(path)),
        Err(error) => Err(CliError::output("read", path, &error.into())),
    }
}
