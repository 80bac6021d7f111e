//! Small files of a tree: many in one call, each written whole and named once it is.
//!
//! A file that is not whole has no name: nothing is left of it by whoever is killed, and nothing to be resumed. One
//! that replaces another has a draft's name for a moment, whole. What cannot be had or written this way is got by
//! itself, as a large file is.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{CONCURRENT, Tree, add, existing};
use crate::backend::{Entry, FilesEvent, FilesRequest};
use crate::commands::get::sinks::exists;
use crate::commands::inside::interrupted;
use crate::commands::saving::{directory, file_name_of, is_final, parent_of};
use crate::error::CliError;
use crate::outdir::{OutDir, Replace, date};
use crate::output::progress::TICK;
use crate::part::{draft_name, part_name};

/// Directories that are kept open from file to file, by each of those that write.
const DIRECTORIES: usize = 16;

/// A file and its number.
type Numbered<'e> = (u64, &'e Entry);

/// What is got at a time.
pub(super) enum Turn<'e> {
    /// A file by itself.
    Alone(Numbered<'e>),
    /// Several small ones.
    Together(Vec<Numbered<'e>>),
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placed {
    Written,
    /// It was there, the same.
    Unchanged,
    /// It is to be got by itself.
    Not,
}

/// Files no longer than `longest` together, as many as one request may name, the others alone.
pub(super) fn turns<'e>(
    files: impl Iterator<Item = Numbered<'e>>,
    longest: Option<u64>,
) -> Vec<Turn<'e>> {
    let (mut turns, mut small, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (number, entry) in files {
        if longest.is_none_or(|longest| entry.length > longest) {
            turns.push(Turn::Alone((number, entry)));
            continue;
        }
        if small.len() >= FilesRequest::MOST || bytes + entry.length > FilesRequest::MOST_BYTES {
            turns.push(Turn::Together(std::mem::take(&mut small)));
            bytes = 0;
        }
        bytes += entry.length;
        small.push((number, entry));
    }
    match small[..] {
        [] => {}
        [only] => turns.push(Turn::Alone(only)),
        _ => turns.push(Turn::Together(small)),
    }
    turns
}

impl Tree<'_> {
    /// Gets them, some at a time. Each failure is told, but one after which going on makes no sense.
    pub(super) async fn take_turns(&self, turns: Vec<Turn<'_>>) -> Result<(), CliError> {
        let mut waiting = VecDeque::from(turns);
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < CONCURRENT
                && let Some(turn) = waiting.pop_front()
            {
                under_way.push(Box::pin(self.turn(turn)));
            }
            let Some(left) = under_way.next().await else { return Ok(()) };
            left?.into_iter().rev().for_each(|file| waiting.push_front(Turn::Alone(file)));
        }
    }

    /// Those that are left are to be got by themselves.
    async fn turn<'e>(&self, turn: Turn<'e>) -> Result<Vec<Numbered<'e>>, CliError> {
        match turn {
            Turn::Alone(file) => self.alone(file).await.map(|()| Vec::new()),
            Turn::Together(files) => self.together(files).await,
        }
    }

    async fn alone(&self, (number, entry): Numbered<'_>) -> Result<(), CliError> {
        match self.file(number, entry).await {
            Err(error) if is_final(&error) => Err(error),
            result => {
                self.note(result);
                Ok(())
            }
        }
    }

    async fn together<'e>(&self, files: Vec<Numbered<'e>>) -> Result<Vec<Numbered<'e>>, CliError> {
        let request = FilesRequest {
            target: self.locator.target.clone(),
            paths: files.iter().map(|(_, entry)| self.inner_path(entry)).collect(),
            priority: self.options.priority,
        };
        let mut stream = self.backend.read_files(request);
        // Which of several the account is of.
        let first = files.first().map_or(0, |(number, _)| *number);
        let mut left: Vec<_> = files.into_iter().map(Some).collect();
        let mut alone = Vec::new();
        let mut placing = Placing::new(&self.root, self.replace);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let event = tokio::select! {
                biased;
                () = self.context.interrupted.cancelled() => return Err(interrupted()),
                event = stream.next() => event,
                _ = ticks.tick() => {
                    self.progress.borrow_mut().tick();
                    continue;
                }
            };
            match event {
                Some(Ok(FilesEvent::Files(came))) => {
                    let asked =
                        |(at, content): (usize, _)| Some((left.get_mut(at)?.take()?, content));
                    let came = came.into_iter().filter_map(asked).collect();
                    let left_over;
                    (placing, left_over) = self.place(placing, came).await?;
                    alone.extend(left_over);
                }
                Some(Ok(FilesEvent::Progress { ledger, waiting_for })) => {
                    self.progress.borrow_mut().heard(first, ledger, waiting_for);
                }
                Some(Ok(FilesEvent::End { ledger })) => {
                    self.progress.borrow_mut().settle(first, &ledger);
                    break;
                }
                // Those that are left go on by themselves, or tell why not.
                Some(Err(_)) | None => break,
            }
        }
        alone.extend(left.into_iter().flatten());
        Ok(alone)
    }

    /// Writes what came; gives those that are to be got by themselves.
    async fn place<'e>(
        &self,
        mut placing: Placing,
        came: Vec<(Numbered<'e>, Option<Bytes>)>,
    ) -> Result<(Placing, Vec<Numbered<'e>>), CliError> {
        let whole = |entry: &Entry, content: &Option<Bytes>| {
            content.clone().filter(|content| content.len() as u64 == entry.length)
        };
        let jobs: Vec<_> = came
            .iter()
            .map(|((_, entry), content)| (Entry::clone(entry), whole(entry, content)))
            .collect();
        let writing = tokio::task::spawn_blocking(move || {
            let place = |(entry, content): (Entry, Option<Bytes>)| match content {
                Some(content) => placing.place(&entry, &content),
                None => Ok(Placed::Not),
            };
            let placed: Vec<_> = jobs.into_iter().map(place).collect();
            (placing, placed)
        });
        let root = self.root.path_of(OsStr::new(""));
        let (placing, placed) =
            writing.await.map_err(|error| CliError::output("write into", &root, &error.into()))?;
        let (mut alone, mut last) = (Vec::new(), Ok(()));
        for ((file, _), placed) in came.into_iter().zip(placed) {
            match placed {
                Ok(Placed::Not) => alone.push(file),
                Ok(placed) => self.is_placed(file.1, placed),
                // What came besides is saved all the same.
                Err(error) if is_final(&error) => last = Err(error),
                Err(error) => self.note(Err(error)),
            }
        }
        last.map(|()| (placing, alone))
    }

    fn is_placed(&self, entry: &Entry, placed: Placed) {
        self.progress.borrow_mut().moved(entry.length);
        add(&self.tally.files, 1);
        add(&self.tally.bytes, entry.length);
        add(&self.tally.unchanged, u64::from(placed == Placed::Unchanged));
    }
}

/// Puts whole files into a directory, on a thread that may block.
struct Placing {
    root: Arc<OutDir>,
    replace: Replace,
    /// Those of the last files, by their path below the root: most of the next ones go there too.
    dirs: VecDeque<(Vec<u8>, OutDir)>,
}

impl Placing {
    fn new(root: &Arc<OutDir>, replace: Replace) -> Self {
        Self { root: Arc::clone(root), replace, dirs: VecDeque::new() }
    }

    fn place(&mut self, entry: &Entry, content: &[u8]) -> Result<Placed, CliError> {
        let path = self.root.path_of(OsStr::from_bytes(&entry.path));
        let name = file_name_of(entry, &path)?;
        let replace = self.replace;
        let dir = self.directory(parent_of(&entry.path))?;
        if replace == Replace::Never
            && let Some(existing) = existing(dir, name, &path)?
        {
            return compare(&existing, content, &path);
        }
        alone_unless_full(write(dir, name, entry, content, replace), &path)
    }

    fn directory(&mut self, path: &[u8]) -> Result<&OutDir, CliError> {
        let known = self.dirs.iter().position(|(known, _)| known == path);
        if let Some(known) = known {
            return Ok(&self.dirs[known].1);
        }
        let dir = directory(&self.root, path)?;
        self.dirs.truncate(DIRECTORIES - 1);
        self.dirs.push_front((path.to_vec(), dir));
        Ok(&self.dirs[0].1)
    }
}

/// Whether what is there is the same.
fn compare(existing: &File, content: &[u8], path: &Path) -> Result<Placed, CliError> {
    let failed = |error: io::Error| CliError::output("read", path, &error);
    if existing.metadata().map_err(failed)?.len() != content.len() as u64 {
        return Err(exists(path));
    }
    let mut there = vec![0; content.len()];
    match existing.read_exact_at(&mut there, 0) {
        Ok(()) if there == content => Ok(Placed::Unchanged),
        Ok(()) => Err(exists(path)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(exists(path)),
        Err(error) => Err(failed(error)),
    }
}

/// On a full disk no other file goes on either; of anything else, getting it by itself may do, or tells why not.
fn alone_unless_full(written: io::Result<Placed>, path: &Path) -> Result<Placed, CliError> {
    match written.map_err(|error| CliError::output("write", path, &error)) {
        Err(error) if !is_final(&error) => Ok(Placed::Not),
        placed => placed,
    }
}

/// Writes a file that has no name and gives it one. Not where an earlier run left a part file.
fn write(
    dir: &OutDir,
    name: &OsStr,
    entry: &Entry,
    content: &[u8],
    replace: Replace,
) -> io::Result<Placed> {
    if rustix::fs::statat(dir.fd(), part_name(name), AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Ok(Placed::Not);
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(entry.mode & 0o666 | 0o600);
    let file = File::from(rustix::fs::openat(dir.fd(), c".", flags, mode)?);
    file.write_all_at(content, 0)?;
    rustix::fs::fchmod(&file, entry.permissions())?;
    date(&file, entry)?;
    link(&file, dir, name, replace)?;
    Ok(Placed::Written)
}

/// Gives the file its name. What it replaces is there until then.
fn link(file: &File, dir: &OutDir, name: &OsStr, replace: Replace) -> rustix::io::Result<()> {
    let own = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let link = |name| rustix::fs::linkat(CWD, &own, dir.fd(), name, AtFlags::SYMLINK_FOLLOW);
    match link(name) {
        Err(Errno::EXIST) if replace == Replace::Always => {}
        linked => return linked,
    }
    // A draft that is there, by whomever, is left alone.
    let draft = draft_name(name);
    link(&draft)?;
    let renamed = rustix::fs::renameat(dir.fd(), &draft, dir.fd(), name);
    if renamed.is_err() {
        // It may have been removed by somebody else, which is as good.
        let _ = rustix::fs::unlinkat(dir.fd(), &draft, AtFlags::empty());
    }
    renamed
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::backend::EntryKind;
    use crate::backend::fake::entry;

    fn shape(turns: &[Turn<'_>]) -> Vec<usize> {
        let count = |turn: &Turn<'_>| match turn {
            Turn::Alone(_) => 0,
            Turn::Together(files) => files.len(),
        };
        turns.iter().map(count).collect()
    }

    fn of(lengths: &[u64], longest: Option<u64>) -> Vec<usize> {
        let files = lengths.iter().map(|length| entry("f", EntryKind::File, *length));
        let files: Vec<_> = files.collect();
        shape(&turns((0..).zip(&files), longest))
    }

    #[test]
    fn small_files_go_together_up_to_what_a_request_may_name() {
        assert_eq!(of(&[1, 2, 0], Some(100)), [3]);
        assert_eq!(of(&[1, 101, 2], Some(100)), [0, 2]);
        assert_eq!(of(&[1], Some(100)), [0], "one needs no company");
        assert_eq!(of(&[1, 2, 3], None), [0, 0, 0]);
        assert_eq!(of(&[], Some(100)), [0_usize; 0]);
        assert_eq!(of(&[1; FilesRequest::MOST + 2], Some(100)), [FilesRequest::MOST, 2]);
        let third = FilesRequest::MOST_BYTES / 3;
        assert_eq!(of(&[third; 5], Some(third)), [3, 2]);
    }

    fn placed(
        root: &Path,
        replace: Replace,
        entry: &Entry,
        content: &[u8],
    ) -> Result<Placed, CliError> {
        Placing::new(&Arc::new(OutDir::open(root).unwrap()), replace).place(entry, content)
    }

    #[test]
    fn a_whole_file_has_its_name_mode_and_time_and_nothing_else_is_left() {
        let place = tempfile::tempdir().unwrap();
        let like =
            Entry { mode: 0o440, mtime: (1_000_000_000, 7), ..entry("a/f", EntryKind::File, 3) };
        let put = |content: &[u8]| placed(place.path(), Replace::Never, &like, content);
        assert_eq!(put(b"abc").unwrap(), Placed::Written);
        let path = place.path().join("a/f");
        let status = path.metadata().unwrap();
        assert_eq!((status.mode() & 0o7777, status.nlink()), (0o440, 1));
        assert_eq!((status.mtime(), status.mtime_nsec()), (1_000_000_000, 7));
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert_eq!(put(b"abc").unwrap(), Placed::Unchanged);
        for other in [&b"abd"[..], b"ab", b"abcd"] {
            assert_eq!(put(other).unwrap_err().code, &crate::codes::TARGET_EXISTS);
        }
        let there = std::fs::read_dir(place.path().join("a")).unwrap().count();
        assert_eq!((there, std::fs::read(&path).unwrap()), (1, b"abc".to_vec()));
    }

    #[test]
    fn what_may_be_replaced_is_replaced_whole_and_a_link_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let (file, old) = (place.path().join("f"), place.path().join("old"));
        std::fs::write(&old, "old").unwrap();
        std::fs::hard_link(&old, &file).unwrap();
        let like = Entry { mode: 0o440, ..entry("f", EntryKind::File, 3) };
        let put = || placed(place.path(), Replace::Always, &like, b"new").unwrap();
        for _ in 0..2 {
            assert_eq!(put(), Placed::Written);
            let status = file.symlink_metadata().unwrap();
            assert_eq!((status.mode() & 0o7777, status.nlink()), (0o440, 1));
            assert_eq!(std::fs::read(&file).unwrap(), b"new");
            assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2);
            std::fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink(outside.path(), &file).unwrap();
        }
        assert_eq!(std::fs::read(&old).unwrap(), b"old", "its other name is another file's");
        assert_eq!(outside.path().metadata().unwrap().len(), 0);
    }

    #[test]
    fn what_cannot_be_replaced_or_is_to_be_resumed_is_left_to_who_can() {
        let place = tempfile::tempdir().unwrap();
        let like = entry("f", EntryKind::File, 3);
        let put = |replace| placed(place.path(), replace, &like, b"new").unwrap();
        std::fs::create_dir(place.path().join("f")).unwrap();
        assert_eq!(put(Replace::Always), Placed::Not);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
        std::fs::remove_dir(place.path().join("f")).unwrap();
        // Somebody else's draft.
        let draft = place.path().join(draft_name(OsStr::new("f")));
        std::fs::write(place.path().join("f"), "old").unwrap();
        std::fs::write(&draft, "theirs").unwrap();
        assert_eq!(put(Replace::Always), Placed::Not);
        assert_eq!(std::fs::read(place.path().join("f")).unwrap(), b"old");
        assert_eq!(std::fs::read(&draft).unwrap(), b"theirs");
        std::fs::remove_file(&draft).unwrap();
        std::fs::remove_file(place.path().join("f")).unwrap();
        std::fs::write(place.path().join("f.dfs-part"), "begun").unwrap();
        assert_eq!((put(Replace::Never), put(Replace::Always)), (Placed::Not, Placed::Not));
        assert!(!place.path().join("f").exists());
    }

    #[test]
    fn only_a_full_disk_ends_it() {
        let failed = |errno: Errno| alone_unless_full(Err(errno.into()), Path::new("f"));
        for errno in [Errno::PERM, Errno::OPNOTSUPP, Errno::EXIST, Errno::NOENT, Errno::IO] {
            assert_eq!(failed(errno).unwrap(), Placed::Not, "{errno}");
        }
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert_eq!(failed(errno).unwrap_err().code, &crate::codes::NO_SPACE, "{errno}");
        }
    }

    #[test]
    fn nothing_is_put_where_a_link_leads_or_a_part_file_belongs() {
        let place = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), place.path().join("d")).unwrap();
        for path in ["d/f", "../f", "f.dfs-part", "a/../f"] {
            let like = entry(path, EntryKind::File, 1);
            let refused = placed(place.path(), Replace::Always, &like, b"x").unwrap_err();
            assert_eq!(refused.code, &crate::codes::UNSAFE_NAME, "{path}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
