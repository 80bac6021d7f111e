//! The part file beside an output: `NAME.dfs-part`, renamed to `NAME` when all of it is there.
//!
//! It holds the bytes at their final offsets and, behind the last one, a mark that says what they are and how
//! many are there from the start without a gap. The mark is written after the bytes it counts, so after a
//! kill the same boot of the machine may take them over (the page cache is still right); after a reboot, or
//! for another version of the content, the part begins anew. An output without a known length has no mark and
//! is not kept. A lock keeps two writers apart.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_model::{ByteRange, Digest};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::process::Gid;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::backend::Entry;
use crate::outdir::{OutDir, Replace, date};

/// The end of a part file's name.
pub const SUFFIX: &str = ".dfs-part";

const MARK_BYTES: usize = 512;
const MAGIC: &str = "dfs-part 1 ";
const MARK_EVERY: u64 = 16 << 20;
const HASH_CHUNK: usize = 1 << 20;

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
    boot: String,
}

/// An output while it is not whole.
pub struct PartFile {
    dir: Arc<OutDir>,
    name: OsString,
    part: OsString,
    file: Arc<File>,
    identity: Identity,
    boot: String,
    done: u64,
    /// Written ahead of `done`, by a backend that writes in any order; ascending, apart.
    ahead: Vec<ByteRange>,
    marked: u64,
    resumed: u64,
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
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl PartFile {
    /// Opens or makes the part file of `name` in `dir`, taking over what an earlier run left of the same content.
    pub fn open(
        dir: Arc<OutDir>,
        name: &OsStr,
        identity: Identity,
        digest: Option<Digest>,
    ) -> Result<Self, PartError> {
        let part = part_name(name);
        let file = open_locked(&dir, &part)?;
        let boot = boot_id();
        let done = match read_mark(&file, &identity, &boot)? {
            Some(done) => done,
            None => {
                file.set_len(0)?;
                0
            }
        };
        let length = identity.length;
        let mut opened = Self {
            dir,
            name: name.to_owned(),
            part,
            file: Arc::new(file),
            identity,
            boot,
            done,
            ahead: Vec::new(),
            marked: done,
            resumed: done,
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
        let mut draft = self.part.clone();
        draft.push(format!(".{}", std::process::id()));
        let Ok(file) = self.link(content, &draft) else {
            // Another file system, or one without links.
            return Ok(false);
        };
        let renamed = rustix::fs::renameat(self.dir.fd(), &draft, self.dir.fd(), &self.part);
        if renamed.is_err() {
            self.unlink_name(&draft);
            return Ok(false);
        }
        self.file = Arc::new(file);
        self.mark()?;
        Ok(true)
    }

    /// The file at `content` under the name `draft` too: locked, of the group that files have here, and as private
    /// or public as a part file.
    fn link(&self, content: &Path, draft: &OsStr) -> io::Result<File> {
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
            Ok(file)
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

    /// Appends the next bytes. One write into the page cache; `bytes` are a chunk off the wire, at most a few MiB.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.done)?;
        if let Some(hasher) = self.hasher.as_mut().filter(|hasher| hasher.seen == self.done) {
            hasher.update(bytes);
        }
        self.advance(self.done + bytes.len() as u64)
    }

    /// Somebody else has written this range of the file.
    pub fn written(&mut self, range: ByteRange) -> io::Result<()> {
        if range.end <= self.done {
            return Ok(());
        }
        let at = self.ahead.partition_point(|known| known.start < range.start);
        self.ahead.insert(at, range);
        let mut done = self.done;
        self.ahead.retain(|known| {
            let joins = known.start <= done;
            if joins {
                done = done.max(known.end);
            }
            !joins
        });
        self.advance(done)
    }

    fn advance(&mut self, done: u64) -> io::Result<()> {
        self.done = done;
        if self.done - self.marked >= MARK_EVERY { self.mark() } else { Ok(()) }
    }

    /// Records how far it is.
    fn mark(&mut self) -> io::Result<()> {
        let Some(length) = self.identity.length else { return Ok(()) };
        let mark = Mark {
            identity: self.identity.clone(),
            done: self.done.min(length),
            boot: self.boot.clone(),
        };
        let mut block = format!("{MAGIC}{}", serde_json::to_string(&mark)?).into_bytes();
        block.resize(MARK_BYTES, b'\n');
        self.file.write_all_at(&block[..MARK_BYTES], length)?;
        self.marked = self.done;
        Ok(())
    }

    /// The digest of all bytes, of the kind asked for at the beginning.
    pub fn digest(&mut self) -> io::Result<Option<Digest>> {
        let Some(mut hasher) = self.hasher.take() else { return Ok(None) };
        hasher.catch_up(&self.file, self.done)?;
        Ok(Some(hasher.finish()))
    }

    /// BLAKE3 of all bytes, read back.
    pub fn blake3(&self) -> io::Result<[u8; 32]> {
        let mut hasher = Hasher::new(Digest::Blake3([0; 32]));
        hasher.catch_up(&self.file, self.done)?;
        match hasher.finish() {
            Digest::Blake3(bytes) | Digest::Sha256(bytes) => Ok(bytes),
        }
    }

    /// Puts the whole file in place under its name.
    pub fn finish(mut self, dress: Option<&Entry>, replace: Replace) -> io::Result<()> {
        self.file.set_len(self.done)?;
        if let Some(entry) = dress {
            let mode = Mode::from_raw_mode(entry.mode & 0o777);
            rustix::fs::fchmod(&self.file, mode)?;
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
        drop(dir);
        self.settled = true;
        Ok(())
    }

    /// Leaves it for a later run if there is anything worth it; says where.
    pub fn keep(mut self) -> Option<PathBuf> {
        self.settled = true;
        let worth_it = self.done > 0 && self.identity.length.is_some();
        if worth_it && self.mark().is_ok() {
            return Some(self.path());
        }
        self.unlink();
        None
    }

    /// Takes it away.
    pub fn remove(mut self) {
        self.settled = true;
        self.unlink();
    }

    fn unlink(&self) {
        self.unlink_name(&self.part);
    }

    fn unlink_name(&self, name: &OsStr) {
        // It may have been removed by somebody else, which is as good.
        let _ = rustix::fs::unlinkat(self.dir.fd(), name, AtFlags::empty());
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let worth_it = self.done > 0 && self.identity.length.is_some();
        if !worth_it || self.mark().is_err() {
            self.unlink();
        }
    }
}

/// `NAME.dfs-part`; a name too long for that is shortened and told apart by its hash.
fn part_name(name: &OsStr) -> OsString {
    let mut part = name.as_bytes().to_vec();
    if part.len() + SUFFIX.len() > 255 {
        let hash = blake3::hash(&part).to_hex();
        part.truncate(200);
        part.extend_from_slice(format!("-{}", &hash[..16]).as_bytes());
    }
    part.extend_from_slice(SUFFIX.as_bytes());
    OsStr::from_bytes(&part).to_owned()
}

fn open_locked(dir: &OutDir, part: &OsStr) -> Result<File, PartError> {
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // A finished writer may rename the file between our open and our lock: then the name is free again.
    for _ in 0..4 {
        let fd = match rustix::fs::openat(dir.fd(), part, flags, Mode::from_raw_mode(0o666)) {
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
        if !status.is_file() || status.nlink() > 1 || status.uid() != own {
            return Err(PartError::Foreign(dir.path_of(part)));
        }
        let there = rustix::fs::statat(dir.fd(), part, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|there| there.st_ino == status.ino() && there.st_dev == status.dev()) {
            return Ok(file);
        }
    }
    Err(PartError::Busy(dir.path_of(part)))
}

/// How much of this content the file holds, if its mark says so.
fn read_mark(file: &File, identity: &Identity, boot: &str) -> io::Result<Option<u64>> {
    let Some(length) = identity.length else { return Ok(None) };
    if length.checked_add(MARK_BYTES as u64) != Some(file.metadata()?.len()) {
        return Ok(None);
    }
    let mut block = [0; MARK_BYTES];
    file.read_exact_at(&mut block, length)?;
    let mark = std::str::from_utf8(&block).ok().and_then(|text| text.strip_prefix(MAGIC));
    let mark: Option<Mark> = mark.and_then(|text| serde_json::from_str(text.trim_end()).ok());
    let same =
        mark.filter(|mark| mark.identity == *identity && mark.boot == boot && mark.done <= length);
    Ok(same.map(|mark| mark.done))
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

/// Changes with every boot; empty (no part is ever taken over) where the kernel does not say.
fn boot_id() -> String {
    let mut text = String::new();
    let read = File::open("/proc/sys/kernel/random/boot_id")
        .and_then(|file| file.take(64).read_to_string(&mut text));
    match read {
        Ok(_) => text.trim().to_owned(),
        Err(_) => format!("unknown-{}", std::process::id()),
    }
}

enum Algorithm {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
}

/// A digest in the making.
pub struct Hasher {
    algorithm: Algorithm,
    seen: u64,
}

impl Hasher {
    /// Of the same kind as `like`.
    pub fn new(like: Digest) -> Self {
        let algorithm = match like {
            Digest::Blake3(_) => Algorithm::Blake3(Box::default()),
            Digest::Sha256(_) => Algorithm::Sha256(sha2::Sha256::new()),
        };
        Self { algorithm, seen: 0 }
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.algorithm {
            Algorithm::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Algorithm::Sha256(hasher) => hasher.update(bytes),
        }
        self.seen += bytes.len() as u64;
    }

    /// Reads on in `file` up to `end`.
    pub fn catch_up(&mut self, file: &File, end: u64) -> io::Result<()> {
        let mut buffer = vec![0; HASH_CHUNK];
        while self.seen < end {
            let want = usize::try_from(end - self.seen).unwrap_or(HASH_CHUNK).min(HASH_CHUNK);
            file.read_exact_at(&mut buffer[..want], self.seen)?;
            self.update(&buffer[..want]);
        }
        Ok(())
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        match self.algorithm {
            Algorithm::Blake3(hasher) => Digest::Blake3(*hasher.finalize().as_bytes()),
            Algorithm::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn identity(content: &str, length: u64) -> Identity {
        Identity { content: content.into(), start: 0, length: Some(length) }
    }

    fn open(dir: &Path, content: &str, length: u64) -> Result<PartFile, PartError> {
        let dir = Arc::new(OutDir::open(dir).unwrap());
        PartFile::open(dir, OsStr::new("x"), identity(content, length), None)
    }

    fn names(dir: &Path) -> Vec<OsString> {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_part_becomes_the_file_that_somebody_else_fills() {
        let (place, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let content = cache.path().join("content");
        let filling = File::create(&content).unwrap();
        let mut part = open(place.path(), "a", 6).unwrap();
        assert!(part.take_over(&content).unwrap());
        filling.write_all_at(b"abc", 0).unwrap();
        part.written(ByteRange::new(0, 3)).unwrap();
        drop(part);
        let foreign = open(place.path(), "a", 6).err();
        assert!(
            matches!(foreign, Some(PartError::Foreign(_))),
            "while the content has a name of its own"
        );
        std::fs::remove_file(&content).unwrap();
        let mut part = open(place.path(), "a", 6).unwrap();
        assert_eq!(part.resumed(), 3);
        assert!(!part.take_over(&content).unwrap(), "what came is not given up");
        part.append(b"def").unwrap();
        part.finish(None, Replace::Never).unwrap();
        assert_eq!(std::fs::read(place.path().join("x")).unwrap(), b"abcdef");
        assert_eq!(names(place.path()), ["x"]);
    }

    #[test]
    fn a_file_of_the_user_is_not_in_the_way_and_stays() {
        let (place, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let content = cache.path().join("content");
        File::create(&content).unwrap();
        let taken = place.path().join(format!("x{SUFFIX}.{}", std::process::id()));
        std::fs::write(&taken, b"mine").unwrap();
        let mut part = open(place.path(), "a", 6).unwrap();
        assert!(!part.take_over(&content).unwrap());
        assert_eq!(std::fs::read(&taken).unwrap(), b"mine");
    }

    #[test]
    fn a_file_that_became_an_output_becomes_no_other() {
        let (place, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let content = cache.path().join("content");
        File::create(&content).unwrap();
        let dir = Arc::new(OutDir::open(place.path()).unwrap());
        let another = |name| PartFile::open(dir.clone(), OsStr::new(name), identity("a", 1), None);
        let (mut first, mut second) = (another("x").unwrap(), another("y").unwrap());
        assert!(first.take_over(&content).unwrap());
        assert!(!second.take_over(&content).unwrap());
        assert!(!second.take_over(&cache.path().join("gone")).unwrap());
        drop((first, second));
        assert_eq!(names(place.path()), [] as [OsString; 0]);
    }

    #[test]
    fn a_part_becomes_the_file_and_leaves_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let mut part = open(place.path(), "a", 6).unwrap();
        part.append(b"abc").unwrap();
        part.append(b"def").unwrap();
        part.mark().unwrap();
        part.finish(None, Replace::Never).unwrap();
        assert_eq!(names(place.path()), ["x"]);
        assert_eq!(std::fs::read(place.path().join("x")).unwrap(), b"abcdef");
    }

    #[test]
    fn the_same_content_is_resumed_and_another_one_is_not() {
        let place = tempfile::tempdir().unwrap();
        let mut part = open(place.path(), "a", 6).unwrap();
        part.append(b"abc").unwrap();
        assert_eq!(part.keep(), Some(place.path().join("x.dfs-part")));
        let part = open(place.path(), "a", 6).unwrap();
        assert_eq!((part.done(), part.resumed()), (3, 3));
        drop(part);
        assert_eq!(open(place.path(), "b", 6).unwrap().done(), 0);
        assert_eq!(names(place.path()), Vec::<OsString>::new(), "an empty part is not kept");
    }

    #[test]
    fn a_part_of_another_boot_is_not_trusted() {
        let place = tempfile::tempdir().unwrap();
        let mut part = open(place.path(), "a", 6).unwrap();
        part.append(b"abc").unwrap();
        part.boot = "another".into();
        part.keep();
        assert_eq!(open(place.path(), "a", 6).unwrap().done(), 0);
    }

    #[test]
    fn a_digest_covers_what_was_taken_over() {
        let place = tempfile::tempdir().unwrap();
        for like in [Digest::Sha256([0; 32]), Digest::Blake3([0; 32])] {
            let dir = Arc::new(OutDir::open(place.path()).unwrap());
            let mut part =
                PartFile::open(dir.clone(), OsStr::new("x"), identity("a", 6), Some(like)).unwrap();
            part.append(b"abc").unwrap();
            part.keep().unwrap();
            let mut part =
                PartFile::open(dir, OsStr::new("x"), identity("a", 6), Some(like)).unwrap();
            part.append(b"def").unwrap();
            let mut whole = Hasher::new(like);
            whole.update(b"abcdef");
            assert_eq!(part.digest().unwrap(), Some(whole.finish()));
            part.remove();
        }
    }

    #[test]
    fn ranges_written_in_any_order_count_when_the_gap_closes() {
        let place = tempfile::tempdir().unwrap();
        let mut part = open(place.path(), "a", 40).unwrap();
        part.written(ByteRange::new(10, 20)).unwrap();
        part.written(ByteRange::new(30, 40)).unwrap();
        assert_eq!(part.done(), 0);
        part.written(ByteRange::new(0, 10)).unwrap();
        assert_eq!(part.done(), 20);
        part.written(ByteRange::new(20, 30)).unwrap();
        assert_eq!(part.done(), 40);
        assert!(part.ahead.is_empty());
    }

    #[test]
    fn two_writers_are_kept_apart() {
        let place = tempfile::tempdir().unwrap();
        let _first = open(place.path(), "a", 6).unwrap();
        assert!(matches!(open(place.path(), "a", 6), Err(PartError::Busy(_))));
    }

    #[test]
    fn a_planted_part_file_is_refused_and_untouched() {
        let place = tempfile::tempdir().unwrap();
        let victim = place.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        let part = place.path().join("x.dfs-part");
        std::os::unix::fs::symlink(&victim, &part).unwrap();
        assert!(matches!(open(place.path(), "a", 6), Err(PartError::Foreign(_))));
        std::fs::remove_file(&part).unwrap();
        std::fs::hard_link(&victim, &part).unwrap();
        assert!(matches!(open(place.path(), "a", 6), Err(PartError::Foreign(_))));
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn a_file_that_appeared_meanwhile_is_not_replaced() {
        let place = tempfile::tempdir().unwrap();
        let mut part = open(place.path(), "a", 3).unwrap();
        part.append(b"new").unwrap();
        std::fs::write(place.path().join("x"), "old").unwrap();
        let error = part.finish(None, Replace::Never).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(place.path().join("x")).unwrap(), b"old");
    }

    #[test]
    fn the_longest_names_have_part_files_too() {
        let long = OsString::from("é".repeat(127));
        assert!(part_name(&long).len() <= 255);
        assert_ne!(part_name(&long), part_name(&OsString::from(format!("{}e", "é".repeat(127)))));
    }
}
