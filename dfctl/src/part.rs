//! The part file beside an output: `NAME.dfs-part`, renamed to `NAME` when all of it is there.
//!
//! It holds the bytes at their final offsets and, behind the last one, a mark that says what they are, how
//! many are there from the start and what they hash to. The mark is written after the bytes it counts; whoever
//! goes on from it hashes them again first, so neither a lost page nor another hand gets into the output. What
//! does not hash to it, or is of another version of the content, is begun anew. An output without a known length
//! has no mark and is not kept. A lock keeps two writers apart. Who cuts the file off or puts another in its
//! place while it is written is noticed before it gets its name.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_model::{ByteRange, Digest};
use dfs_peer::hashtree::Cv;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use rustix::process::Gid;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::backend::Entry;
use crate::outdir::{OutDir, Replace, date};

mod hasher;
mod proof;

pub use hasher::Hasher;
use proof::Proof;

/// The end of a part file's name.
pub const SUFFIX: &str = ".dfs-part";

const MARK_BYTES: usize = 512;
const MAGIC: &str = "dfs-part 2 ";
/// How the mark of any format begins.
const ANY_MAGIC: &[u8] = b"dfs-part ";
/// An attribute of part files that have no mark.
const UNMARKED: &str = "user.dfs.part";
const MARK_EVERY: u64 = 1 << 20;
const CHECK_STEP: u64 = 64 << 20;

/// What the bytes of a part file are: the version of the content and which part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Names the version: a task id, or its like for a file inside a tree.
    pub content: String,
    /// Content offset of the first byte.
    pub start: u64,
    /// Bytes wanted, where known.
    pub length: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Mark {
    identity: Identity,
    done: u64,
    /// Of the bytes that are there, as [`Proof::of`] makes it.
    proof: String,
}

/// An output while it is not whole.
pub struct PartFile {
    dir: Arc<OutDir>,
    name: OsString,
    part: OsString,
    file: Arc<File>,
    identity: Identity,
    done: u64,
    proof: Proof,
    marked: u64,
    /// Bytes that the file has, or where its length is not known, at least has.
    size: u64,
    resumed: u64,
    spoilt: bool,
    hasher: Option<Hasher>,
    settled: bool,
}

/// Why a part file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// Another process writes it.
    #[error("another process is writing {}", .0.display())]
    Busy(PathBuf),
    /// The name is taken by something that is no part file.
    #[error("{} is not a regular file of this user alone", .0.display())]
    Foreign(PathBuf),
    /// The name is taken by a file that no `get` has written.
    #[error("{} is no part file of a get", .0.display())]
    NoPart(PathBuf),
    /// It is a file of this user that has another name too: that of a cache which a killed command left.
    #[error("{} has another name too, as a `get` leaves it that was killed while it had no agent", .0.display())]
    Shared(PathBuf),
    /// Ctrl-C, while what is there was hashed.
    #[error("interrupted while {} was checked", .0.display())]
    Interrupted(PathBuf),
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Somebody else changed the part file while it was written. Travels inside of an [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Tampered {
    /// It has not the bytes any more that were written.
    #[error("somebody cut off its part file while it was written")]
    CutOff,
    /// Its name is that of another file, or of none.
    #[error("somebody removed or replaced its part file while it was written")]
    Replaced,
}

/// Why a file that is all there did not get its name, and where it is kept.
#[derive(Debug)]
pub struct Unplaced {
    /// Why not.
    pub error: io::Error,
    /// Its part file.
    pub kept: Option<PathBuf>,
}

impl PartFile {
    /// Opens or makes the part file of `name` in `dir`, taking over what an earlier run left of the same content.
    /// Reads all of that; as long as it takes, `stop` ends it.
    ///
    /// Those whom the file will be closed to, as it is at its origin, it is closed to from the beginning.
    pub fn open(
        dir: Arc<OutDir>,
        name: &OsStr,
        identity: Identity,
        like: Option<&Entry>,
        digest: Option<Digest>,
        stop: &CancellationToken,
    ) -> Result<Self, PartError> {
        let part = part_name(name);
        let file = open_locked(&dir, &part, like.map_or(Mode::from_raw_mode(0o666), allowed))?;
        if !is_part(&file)? {
            return Err(PartError::NoPart(dir.path_of(&part)));
        }
        if let Some(like) = like {
            close_as(&file, like)?;
        }
        let mut proof = Proof::new(identity.length);
        let mark = read_mark(&file, &identity)?;
        let claimed = mark.as_ref().map_or(0, |mark| mark.done);
        let mut checked = 0;
        while checked < claimed {
            if stop.is_cancelled() {
                return Err(PartError::Interrupted(dir.path_of(&part)));
            }
            checked = claimed.min(checked + CHECK_STEP);
            proof.catch_up(&file, checked)?;
        }
        let done = match mark {
            Some(mark) if proof.of(&file, claimed)? == mark.proof => claimed,
            _ => {
                proof = Proof::new(identity.length);
                file.set_len(0)?;
                0
            }
        };
        if identity.length.is_none() {
            // Where there are no attributes, what a kill leaves has to be removed by hand.
            let _ = rustix::fs::fsetxattr(&file, UNMARKED, b"1", XattrFlags::empty());
        }
        let length = identity.length;
        let size = file.metadata()?.len();
        let mut opened = Self {
            dir,
            name: name.to_owned(),
            part,
            file: Arc::new(file),
            identity,
            done,
            proof,
            marked: done,
            size,
            resumed: done,
            spoilt: done < claimed,
            hasher: digest.map(Hasher::new),
            settled: false,
        };
        if let Some(length) = length {
            room_for(&opened.file, length - done)?;
            // Its place is taken now: on a disk that fills up later it can still be updated.
            opened.mark()?;
        }
        Ok(opened)
    }

    /// Becomes the file at `content`, into which somebody else writes this very content from now on; whether
    /// that was possible. That file must have been written by nobody yet and have no other user.
    pub fn take_over(&mut self, content: &Path) -> io::Result<bool> {
        if self.done > 0 || self.identity.start > 0 || self.identity.length.is_none() {
            return Ok(false);
        }
        // A name that is taken, by whatever, is left alone: then the bytes are copied.
        let draft = draft_name(&self.name);
        let Ok((file, there)) = self.link(content, &draft) else {
            // Another file system, or one without links.
            return Ok(false);
        };
        let own = std::mem::replace(&mut self.file, Arc::new(file));
        let size = std::mem::replace(&mut self.size, there);
        // Marked before it has the name: who is killed in between leaves no part file that the next one does not know.
        let named = self.mark().and_then(|()| {
            let dir = self.dir.fd();
            rustix::fs::renameat(&dir, &draft, &dir, &self.part).map_err(io::Error::from)
        });
        if named.is_err() {
            let content = std::mem::replace(&mut self.file, own);
            self.size = size;
            // As it was found; a mark behind its end is of no meaning to whoever keeps it.
            let _ = content.set_len(there);
            self.unlink_name(&draft);
            return Ok(false);
        }
        Ok(true)
    }

    /// The file at `content` under the name `draft` too: locked, of the group that files have here, and as private
    /// or public as a part file. Also how long it is.
    fn link(&self, content: &Path, draft: &OsStr) -> io::Result<(File, u64)> {
        let dir = self.dir.fd();
        rustix::fs::linkat(rustix::fs::CWD, content, &dir, draft, AtFlags::empty())?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&dir, draft, flags, Mode::empty());
        let ready = opened.map_err(io::Error::from).and_then(|fd| {
            let file = File::from(fd);
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            let status = file.metadata()?;
            // Its own name and this one: an output that was made of it before must not share its bytes.
            if !status.is_file() || status.nlink() != 2 {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let like = self.file.metadata()?;
            if status.gid() != like.gid() {
                rustix::fs::fchown(&file, None, Some(Gid::from_raw(like.gid())))?;
            }
            file.set_permissions(like.permissions())?;
            Ok((file, status.len()))
        });
        if ready.is_err() {
            self.unlink_name(draft);
        }
        ready
    }

    /// Its name for people.
    pub fn path(&self) -> PathBuf {
        self.dir.path_of(&self.part)
    }

    /// The file itself, for a backend that writes into it.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Bytes that are there from the start without a gap.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Bytes taken over from an earlier run.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Whether an earlier run left bytes that were something else by now.
    pub fn was_spoilt(&self) -> bool {
        self.spoilt
    }

    /// Appends the next bytes. One write into the page cache; `bytes` are a chunk off the wire, at most a few MiB.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.identity.length.is_none() {
            self.check_size()?;
        }
        self.file.write_all_at(bytes, self.done)?;
        if let Some(hasher) = self.hasher.as_mut().filter(|hasher| hasher.seen == self.done) {
            hasher.update(bytes);
        }
        self.advance(self.done + bytes.len() as u64)
    }

    /// Somebody else has written the next bytes. `digests` are those of the groups that begin in `range`, where
    /// the part file holds a whole content and the writer knows them: then they are not hashed once more.
    pub fn written(&mut self, range: ByteRange, digests: &[Cv]) -> io::Result<()> {
        if range.start != self.done || range.end < range.start {
            return Err(io::Error::other("ranges of it were written out of order"));
        }
        self.proof.believe(&self.file, range, digests).map_err(cut_off)?;
        self.advance(range.end)
    }

    fn advance(&mut self, done: u64) -> io::Result<()> {
        self.done = done;
        if self.identity.length.is_none() {
            self.size = done;
        }
        if self.done - self.marked >= MARK_EVERY { self.mark() } else { Ok(()) }
    }

    /// Records how far it is.
    fn mark(&mut self) -> io::Result<()> {
        let Some(length) = self.identity.length else { return Ok(()) };
        let done = self.done.min(length);
        let proof = self.proof.of(&self.file, done).map_err(cut_off)?;
        let mark = Mark { identity: self.identity.clone(), done, proof };
        let mut block = format!("{MAGIC}{}", serde_json::to_string(&mark)?).into_bytes();
        block.resize(MARK_BYTES, b'\n');
        // The mark makes a file that was cut off as long as before: what is missing would not be missed.
        self.check_size()?;
        self.file.write_all_at(&block[..MARK_BYTES], length)?;
        self.size = self.size.max(length + MARK_BYTES as u64);
        self.marked = self.done;
        Ok(())
    }

    /// Nobody has cut it off.
    fn check_size(&self) -> io::Result<()> {
        let there = self.file.metadata()?.len();
        if there < self.size { Err(io::Error::other(Tampered::CutOff)) } else { Ok(()) }
    }

    /// Whether its name is still its own.
    fn has_its_name(&self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        Ok(is_at(&self.dir, &self.part, &own))
    }

    /// The digest of all bytes, of the kind asked for at the beginning.
    pub fn digest(&mut self) -> io::Result<Option<Digest>> {
        let Some(mut hasher) = self.hasher.take() else { return Ok(None) };
        hasher.catch_up(&self.file, self.done).map_err(cut_off)?;
        Ok(Some(hasher.finish()))
    }

    /// BLAKE3 of all bytes, read back.
    pub fn blake3(&self) -> io::Result<[u8; 32]> {
        let mut hasher = Hasher::new(Digest::Blake3([0; 32]));
        hasher.catch_up(&self.file, self.done).map_err(cut_off)?;
        match hasher.finish() {
            Digest::Blake3(bytes) | Digest::Sha256(bytes) => Ok(bytes),
        }
    }

    /// Puts the whole file in place under its name. Where that cannot be, it is kept for a later run.
    pub fn finish(mut self, dress: Option<&Entry>, replace: Replace) -> Result<(), Unplaced> {
        match self.place(dress, replace) {
            Ok(()) => {
                self.settled = true;
                Ok(())
            }
            Err(error) => Err(Unplaced { error, kept: self.keep() }),
        }
    }

    fn place(&mut self, dress: Option<&Entry>, replace: Replace) -> io::Result<()> {
        self.check_size()?;
        if !self.has_its_name()? {
            return Err(io::Error::other(Tampered::Replaced));
        }
        self.file.set_len(self.done)?;
        self.size = self.done;
        // Nothing to take away, as a rule.
        let _ = rustix::fs::fremovexattr(&self.file, UNMARKED);
        if let Some(entry) = dress {
            rustix::fs::fchmod(&self.file, entry.permissions())?;
            date(&self.file, entry)?;
        }
        let flags = match replace {
            Replace::Always => RenameFlags::empty(),
            Replace::Never => RenameFlags::NOREPLACE,
        };
        let dir = self.dir.fd();
        match rustix::fs::renameat_with(&dir, &self.part, &dir, &self.name, flags) {
            // Some network file systems know no flags; the name was free when this began.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::renameat(&dir, &self.part, &dir, &self.name)?;
            }
            other => other?,
        }
        Ok(())
    }

    /// Leaves it for a later run if there is anything worth it; says where.
    pub fn keep(mut self) -> Option<PathBuf> {
        self.settled = true;
        self.settle().then(|| self.path())
    }

    /// Leaves it with a mark, or takes it away; whether it is left.
    fn settle(&mut self) -> bool {
        let worth_it = self.done > 0 && self.identity.length.is_some();
        let left = worth_it && self.has_its_name().unwrap_or(false) && self.mark().is_ok();
        if !left {
            self.unlink();
        }
        left
    }

    /// Takes it away.
    pub fn remove(mut self) {
        self.settled = true;
        self.unlink();
    }

    fn unlink(&self) {
        // What somebody else has put there is theirs.
        if self.has_its_name().unwrap_or(false) {
            self.unlink_name(&self.part);
        }
    }

    fn unlink_name(&self, name: &OsStr) {
        // It may have been removed by somebody else, which is as good.
        let _ = rustix::fs::unlinkat(self.dir.fd(), name, AtFlags::empty());
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.settled {
            self.settle();
        }
    }
}

/// Why bytes that were written cannot be read back, if that is because the file ends before them.
fn cut_off(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::other(Tampered::CutOff),
        _ => error,
    }
}

/// What stands at this path once it is whole, where the path is that of a part file or of a draft of one.
pub fn whole_of(part: &[u8]) -> Option<&[u8]> {
    let whole = split_draft(part).map_or(part, |(part, _)| part).strip_suffix(SUFFIX.as_bytes())?;
    (!whole.is_empty() && !whole.ends_with(b"/")).then_some(whole)
}

/// What stands before a number at the end, and the number.
fn split_draft(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, number) = name.split_at(name.len() - digits);
    Some((before.strip_suffix(b".").filter(|_| digits > 0)?, number))
}

/// Whether a process made this draft that is not there any more.
fn is_abandoned(name: &[u8]) -> bool {
    let Some((_, number)) = split_draft(name).filter(|_| whole_of(name).is_some()) else {
        return false;
    };
    let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
    let pid = number.and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH))
}

/// Takes away the drafts in a directory that killed processes of this user left. As good as it goes: they are in
/// nobody's way.
pub fn sweep_drafts(dir: &OutDir) {
    let entries = rustix::fs::Dir::read_from(dir.fd()).into_iter().flatten().flatten();
    for entry in entries {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if is_abandoned(name.as_bytes()) && is_own(dir, name) {
            let _ = sweep(dir, name);
        }
    }
}

/// Takes away what a run left that was killed, unless somebody writes it, or may; whether it is gone.
pub fn sweep(dir: &OutDir, part: &OsStr) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // Locked until it is gone.
    let _file = match rustix::fs::openat(dir.fd(), part, flags, Mode::empty()) {
        Ok(fd) => {
            let file = File::from(fd);
            let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
            if locked.is_err() || !is_at(dir, part, &file.metadata()?) {
                return Ok(false);
            }
            Some(file)
        }
        Err(Errno::NOENT) => return Ok(false),
        // One of another user's may be written; who made one that they may not read is done with it.
        Err(Errno::ACCESS) if !is_own(dir, part) => return Ok(false),
        Err(Errno::LOOP | Errno::ACCESS | Errno::NXIO) => None,
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::unlinkat(dir.fd(), part, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(false),
        swept => Ok(swept.map(|()| true)?),
    }
}

/// `NAME.dfs-part`; a name too long for that is shortened and told apart by its hash.
pub fn part_name(name: &OsStr) -> OsString {
    with_end(name, SUFFIX)
}

/// `NAME.dfs-part.PID`: what this process alone makes, to take the place of `NAME` or of its part file.
pub fn draft_name(name: &OsStr) -> OsString {
    with_end(name, &format!("{SUFFIX}.{}", std::process::id()))
}

fn with_end(name: &OsStr, end: &str) -> OsString {
    let mut name = name.as_bytes().to_vec();
    if name.len() + end.len() > 255 {
        let hash = blake3::hash(&name).to_hex();
        name.truncate(200);
        name.extend_from_slice(format!("-{}", &hash[..16]).as_bytes());
    }
    name.extend_from_slice(end.as_bytes());
    OsStr::from_bytes(&name).to_owned()
}

/// The most that a part file of it may permit.
fn allowed(like: &Entry) -> Mode {
    like.permissions() | Mode::RUSR | Mode::WUSR
}

/// Closes one that an earlier run made to those whom the file itself will be closed to.
fn close_as(file: &File, like: &Entry) -> io::Result<()> {
    let open = Mode::from_raw_mode(rustix::fs::fstat(file)?.st_mode & 0o777);
    if !allowed(like).contains(open) {
        rustix::fs::fchmod(file, open & allowed(like))?;
    }
    Ok(())
}

fn open_locked(dir: &OutDir, part: &OsStr, allowed: Mode) -> Result<File, PartError> {
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // A finished writer may rename the file between our open and our lock: then the name is free again.
    for _ in 0..4 {
        let mode = allowed & Mode::from_raw_mode(0o666);
        let fd = match rustix::fs::openat(dir.fd(), part, flags, mode) {
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => {
                return Err(PartError::Foreign(dir.path_of(part)));
            }
            other => other.map_err(io::Error::from)?,
        };
        let file = File::from(fd);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(PartError::Busy(dir.path_of(part))),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let status = file.metadata()?;
        let own = rustix::process::geteuid().as_raw();
        if !status.is_file() || status.uid() != own {
            return Err(PartError::Foreign(dir.path_of(part)));
        }
        if status.nlink() > 1 {
            return Err(PartError::Shared(dir.path_of(part)));
        }
        if is_at(dir, part, &status) {
            return Ok(file);
        }
    }
    Err(PartError::Busy(dir.path_of(part)))
}

/// Whether `name` leads to the file of this status.
fn is_at(dir: &OutDir, name: &OsStr, status: &Metadata) -> bool {
    let there = rustix::fs::statat(dir.fd(), name, AtFlags::SYMLINK_NOFOLLOW);
    there.is_ok_and(|there| there.st_ino == status.ino() && there.st_dev == status.dev())
}

/// Whether `name` is that of something that this user made.
fn is_own(dir: &OutDir, name: &OsStr) -> bool {
    let there = rustix::fs::statat(dir.fd(), name, AtFlags::SYMLINK_NOFOLLOW);
    there.is_ok_and(|there| there.st_uid == rustix::process::geteuid().as_raw())
}

/// Whether a `get` wrote this file, or nobody anything yet.
fn is_part(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    if length == 0 || rustix::fs::fgetxattr(file, UNMARKED, &mut [0_u8; 1]).is_ok() {
        return Ok(true);
    }
    let Some(at) = length.checked_sub(MARK_BYTES as u64) else { return Ok(false) };
    let mut begins = [0; ANY_MAGIC.len()];
    file.read_exact_at(&mut begins, at)?;
    Ok(begins == ANY_MAGIC)
}

/// What the mark says, if it is there and of this content.
fn read_mark(file: &File, identity: &Identity) -> io::Result<Option<Mark>> {
    let Some(length) = identity.length else { return Ok(None) };
    if length.checked_add(MARK_BYTES as u64) != Some(file.metadata()?.len()) {
        return Ok(None);
    }
    let mut block = [0; MARK_BYTES];
    file.read_exact_at(&mut block, length)?;
    let mark = std::str::from_utf8(&block).ok().and_then(|text| text.strip_prefix(MAGIC));
    let mark: Option<Mark> = mark.and_then(|text| serde_json::from_str(text.trim_end()).ok());
    Ok(mark.filter(|mark| mark.identity == *identity && mark.done <= length))
}

/// Fails early when the file system says that it cannot hold `bytes` more.
fn room_for(file: &File, bytes: u64) -> io::Result<()> {
    let Ok(stat) = rustix::fs::fstatvfs(file) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if stat.f_blocks > 0 && bytes > free {
        return Err(Errno::NOSPC.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
