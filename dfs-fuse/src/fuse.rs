//! The kernel adapter: everything of FUSE, and nothing but FUSE.
//!
//! Requests come in on a few threads that read one file descriptor (so that a later daemon can take it
//! over). What is here is answered on that thread from its own buffer; a read of missing bytes goes to
//! the runtime and is answered from there, so that no number of waiting readers holds up another.
//! A tree never changes, so the kernel may keep names, attributes, links and pages for ever; where a mount follows its
//! artifact it is told what to forget ([`notices`]).

mod alone;
mod answer;
mod convert;
mod direct;
mod files;
mod notices;
mod prefill;
mod session;

use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use dfs_model::GROUP_BYTES;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::core::{
    Access, Answer, Core, FsError, MAX_READ, NodeId, Pattern, Place, Read, Room, Seek, Versions,
};
use crate::errno::errno;
use answer::with_buffer;
use convert::{NO_ENTRY, file_attr, file_type, ttl};
use direct::Way;
pub(crate) use direct::{Direct, Ids};
pub(crate) use notices::{Notices, Telling};
use prefill::Prefill;
pub(crate) use session::{Agreed, Began, Beginning, begin};

/// What never changes is valid for ever: 136 years, which every kernel can count.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Requests of read-ahead that the kernel may have under way; its default of 12 starves slow links.
const BACKGROUND: u16 = 512;

/// Reads up to this long, here and there, are worth storing their whole group in the page cache.
const SMALL_READ: usize = 16 << 10;

/// File systems that may lie below the mount for files of theirs to be read through it; one more may lie on top.
const STACKED: u32 = 1;

/// Block size told to programs.
const BLOCK: u32 = 4096;

/// Whether opening costs a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Opens {
    /// The kernel opens files and directories by itself: small files cost a tenth of the time.
    #[default]
    Silent,
    /// Every open is a request, as passthrough needs it.
    Asked,
}

/// Whether the kernel reads some files by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passing {
    /// Those whose content files it is told of.
    Wanted,
    Unwanted,
}

/// Whether requests that a process had taken and not answered when it died are sent to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resend {
    /// Where the kernel does that.
    #[default]
    Auto,
    /// No: each of them fails once.
    Off,
}

/// See the module.
pub(crate) struct Adapter {
    core: Arc<Core>,
    opens: Opens,
    runtime: Handle,
    /// Reads that wait for bytes; each holds the core, which ends them when the mount is stopped.
    waiting: TaskTracker,
    prefill: Arc<OnceLock<Prefill>>,
    passing: Passing,
    direct: Arc<OnceLock<Direct>>,
    /// What was agreed upon with the kernel.
    agreed: Arc<OnceLock<Agreed>>,
    resend: Resend,
}

impl Adapter {
    pub(crate) fn new(core: Arc<Core>, opens: Opens, runtime: Handle) -> Self {
        Self {
            core,
            opens,
            runtime,
            waiting: TaskTracker::new(),
            prefill: Arc::default(),
            passing: Passing::Unwanted,
            direct: Arc::default(),
            agreed: Arc::default(),
            resend: Resend::Auto,
        }
    }

    /// The same, where it is said whether the kernel is to read some files by itself.
    pub(crate) fn passing(self, passing: Passing) -> Self {
        Self { passing, ..self }
    }

    /// Through whom such files are opened, to be set before the session runs.
    pub(crate) fn direct(&self) -> Arc<OnceLock<Direct>> {
        Arc::clone(&self.direct)
    }

    /// The same, where it is said whether requests are sent again.
    pub(crate) fn resending(self, resend: Resend) -> Self {
        Self { resend, ..self }
    }

    /// What stores whole groups in the page cache, to be started once the kernel can be notified.
    pub(crate) fn prefill(&self) -> PrefillSlot {
        PrefillSlot { core: self.core.clone(), slot: self.prefill.clone() }
    }

    /// Answers a read of missing bytes from the runtime.
    fn read_later(&self, node: NodeId, offset: u64, length: usize, after: After, reply: ReplyData) {
        let core = self.core.clone();
        let prefill = self.prefill.clone();
        let mut asked = Asked { reply: Some(reply), core };
        let answer = async move {
            let read = asked.core.read(node, offset, length).await;
            let Some(reply) = asked.reply.take_if(|_| read.is_ok() || !asked.core.is_left()) else {
                return;
            };
            match read {
                Ok(bytes) => {
                    let prefill = prefill.get();
                    after.note(prefill, node, offset, bytes.len());
                    reply.data(&bytes);
                    after.act(prefill, node, offset, bytes.len());
                }
                Err(error) => reply.error(number(&error)),
            }
        };
        self.waiting.spawn_on(answer, &self.runtime);
    }

    /// What a directory is listed as: where the mount switches, what it was when it was opened.
    fn listed_as(&self, handle: FileHandle) -> Option<Place> {
        (self.core.versions() == Versions::Followed).then(|| Place::from_raw(handle.0))
    }
}

/// A read that waits for its answer. Where another process goes on with the mount it is asked again: no answer is
/// given then, also where this is dropped with the runtime.
struct Asked {
    reply: Option<ReplyData>,
    core: Arc<Core>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.core.is_left() {
            std::mem::forget(self.reply.take());
        }
    }
}

/// Starts the [`Prefill`] of a mount.
pub(crate) struct PrefillSlot {
    core: Arc<Core>,
    slot: Arc<OnceLock<Prefill>>,
}

impl PrefillSlot {
    pub(crate) fn start(self, telling: Telling) -> io::Result<()> {
        // A second start would find the slot taken; the first one is as good.
        let _ = self.slot.set(Prefill::start(self.core, telling)?);
        Ok(())
    }
}

/// What to do when a read is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Nothing,
    /// Its group is stored, where something of it was not asked for.
    StoreGroup {
        asked: usize,
    },
}

impl After {
    fn of(pattern: Pattern, length: usize) -> Self {
        match pattern {
            Pattern::Random if length <= SMALL_READ => Self::StoreGroup { asked: length },
            Pattern::Random | Pattern::Sequential => Self::Nothing,
        }
    }

    /// Before its answer: whoever has that may read the next file, and files are noted in the order of reads.
    fn note(self, prefill: Option<&Prefill>, node: NodeId, offset: u64, answered: usize) {
        let (Self::StoreGroup { asked }, Some(prefill)) = (self, prefill) else { return };
        if offset == 0 && answered < asked {
            prefill.was_read(node);
        }
    }

    /// After its answer, which nothing is to hold up.
    fn act(self, prefill: Option<&Prefill>, node: NodeId, offset: u64, answered: usize) {
        let (Self::StoreGroup { asked }, Some(prefill)) = (self, prefill) else { return };
        // What ends a file in its last group leaves nothing there.
        if answered == asked || !offset.is_multiple_of(GROUP_BYTES) {
            prefill.offer(node, offset);
        }
    }
}

/// Has the kernel read the content file that it calls `id`.
#[allow(unsafe_code)]
fn open_direct(reply: ReplyOpen, id: u32) {
    // SAFETY: the id was made for this mount, and lives as long as the mount: the guard gives it back below instead of
    // closing it.
    let backing = unsafe { reply.wrap_backing(id) };
    reply.opened_passthrough(FileHandle(0), FopenFlags::FOPEN_NOFLUSH, &backing);
    let _ = backing.into_raw();
}

fn number(error: &FsError) -> Errno {
    Errno::from_i32(errno(error))
}

fn node(ino: INodeNo) -> NodeId {
    NodeId::from_raw(ino.0)
}

/// Answers an attribute in the two-step way of getxattr(2) and listxattr(2).
fn reply_value(result: Result<Vec<u8>, FsError>, size: u32, reply: ReplyXattr) {
    let value = match result {
        Ok(value) => value,
        Err(error) => return reply.error(number(&error)),
    };
    match u32::try_from(value.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(&value),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Both name the nearest value they take when they refuse one.
        let most = MAX_READ as u32;
        let _ = config.set_max_write(most).or_else(|nearest| config.set_max_write(nearest));
        let _ = config.set_max_readahead(most).or_else(|most| config.set_max_readahead(most));
        let _ = config.set_max_background(BACKGROUND);
        let mut wanted = vec![
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ];
        if self.core.totals().acls {
            wanted.push(InitFlags::FUSE_POSIX_ACL);
        }
        if self.passing == Passing::Wanted && config.set_max_stack_depth(STACKED).is_ok() {
            wanted.push(InitFlags::FUSE_PASSTHROUGH);
        }
        let mut agreed = match self.resend {
            Resend::Auto => config.capabilities() & InitFlags::FUSE_HAS_RESEND,
            Resend::Off => InitFlags::empty(),
        };
        for flag in wanted {
            // An older kernel that lacks one is slower, not wrong.
            if config.add_capabilities(flag).is_ok() {
                agreed |= flag;
            }
        }
        // A kernel that finds the versions too far apart asks twice, with the same flags.
        let _ = self.agreed.set(Agreed::from(agreed));
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.core.lookup(node(parent), name.as_bytes()) {
            Ok(Answer { value, validity }) => {
                // Node 0 is a name known not to exist, which the kernel remembers.
                let attr = value.map_or(NO_ENTRY, |entry| file_attr(&entry.attr));
                reply.entry(&ttl(validity), &attr, Generation(0));
            }
            Err(error) => reply.error(number(&error)),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, lookups: u64) {
        self.core.forget(node(ino), lookups);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.core.stat(node(ino)) {
            Ok(Answer { value, validity }) => reply.attr(&ttl(validity), &file_attr(&value)),
            Err(error) => reply.error(number(&error)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.core.read_link(node(ino)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(number(&error)),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let direct = self.direct.get();
        if self.opens == Opens::Silent && direct.is_none() {
            return reply.error(Errno::ENOSYS);
        }
        let access = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => Access::Read,
            OpenAccMode::O_WRONLY | OpenAccMode::O_RDWR => Access::Write,
        };
        let way = self.core.open(node(ino), access).and_then(|()| match direct {
            Some(direct) => direct.open(node(ino)),
            None => Ok(Way::Cached(FileHandle(0))),
        });
        let kept = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
        match way {
            Ok(Way::Cached(handle)) => reply.opened(handle, kept),
            Ok(Way::Direct(id)) => open_direct(reply, id),
            Err(error) => reply.error(number(&error)),
        }
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(direct) = self.direct.get() {
            direct.release(node(ino), fh);
        }
        reply.ok();
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = size as usize;
        if length > MAX_READ {
            // A short answer would read as the end of the file, that is, as zeros.
            return reply.error(Errno::EIO);
        }
        let node = node(ino);
        with_buffer(length, |buffer| {
            match self.core.read_now(node, offset, buffer) {
                Ok(Read::Here(filled, pattern)) => {
                    let (after, prefill) = (After::of(pattern, length), self.prefill.get());
                    after.note(prefill, node, offset, filled);
                    reply.data(&buffer[..filled]);
                    after.act(prefill, node, offset, filled);
                }
                Ok(Read::Missing(pattern)) => {
                    self.read_later(node, offset, length, After::of(pattern, length), reply);
                }
                // The next agent is asked again.
                Err(_) if self.core.is_left() => std::mem::forget(reply),
                Err(error) => reply.error(number(&error)),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let switches = self.core.versions() == Versions::Followed;
        if self.opens == Opens::Silent && !switches {
            return reply.error(Errno::ENOSYS);
        }
        // A listing that the kernel keeps would be one of several snapshots.
        let kept = match switches {
            false => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR,
            true => FopenFlags::empty(),
        };
        match self.core.open_dir(node(ino)) {
            Ok(opened) => reply.opened(FileHandle(opened.raw()), kept),
            Err(error) => reply.error(number(&error)),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        if let Some(opened) = self.listed_as(fh) {
            self.core.close_dir(opened);
        }
        reply.ok();
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = self.core.read_dir(node(ino), self.listed_as(fh), offset, &mut |listed| {
            let attr = &listed.entry.attr;
            let name = OsStr::from_bytes(listed.name);
            let full = reply.add(INodeNo(attr.ino), listed.cookie, file_type(attr.kind), name);
            if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match listing {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(number(&error)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listing = self.core.look_up_all(node(ino), self.listed_as(fh), offset, &mut |listed| {
            let attr = file_attr(&listed.entry.attr);
            let (name, ttl) = (OsStr::from_bytes(listed.name), ttl(listed.validity));
            match reply.add(attr.ino, listed.cookie, name, &ttl, &attr, Generation(0)) {
                true => Room::None,
                false => Room::Found,
            }
        });
        match listing {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(number(&error)),
        }
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let totals = self.core.totals();
        let blocks = totals.bytes.div_ceil(u64::from(BLOCK));
        reply.statfs(blocks, 0, 0, totals.inodes, 0, BLOCK, 255, BLOCK);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_value(self.core.get_xattr(node(ino), name.as_bytes()), size, reply);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let joined = self
            .core
            .list_xattr(node(ino))
            .map(|names| names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect());
        reply_value(joined, size, reply);
    }

    fn access(&self, _req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let write = mask.contains(AccessFlags::W_OK);
        let access = if write { Access::Write } else { Access::Read };
        match self.core.access(node(ino), access) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(number(&error)),
        }
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        // The others the kernel answers itself.
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        match self.core.seek(node(ino), offset, what) {
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(error) => reply.error(number(&error)),
        }
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    // From here on: what would change something. The kernel refuses most of it before it comes here,
    // because the mount is read-only; a mount that root made writable by force still is not.

    fn setattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _link_name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _newparent: INodeNo,
        _newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _newparent: INodeNo,
        _newname: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }
}
