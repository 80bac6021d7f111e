//! Whatever would write is refused, and by the number that says why.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, IFlags, Mode, OFlags, RenameFlags};
use rustix::fs::{Gid, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use super::{LARGE, Lane, in_every_lane};
use crate::support::entries::{self, Holes};
use crate::support::trees::{noise, put};

/// What is tried in a mount, and the answer.
type Attempt = (&'static str, fn(&Path) -> Result<()>, Errno);

const TIMES: Timestamps = {
    let time = Timespec { tv_sec: 1, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
};
const RW: Mode = Mode::RUSR.union(Mode::WUSR);
const NONE: AtFlags = AtFlags::empty();
const LINK: AtFlags = AtFlags::SYMLINK_NOFOLLOW;

fn opened(path: &Path, flags: OFlags) -> Result<()> {
    rustix::fs::open(path, flags, RW).map(drop)
}

fn reader(dir: &Path) -> File {
    File::open(dir.join("f")).unwrap()
}

fn renamed(dir: &Path, to: &str, flags: RenameFlags) -> Result<()> {
    rustix::fs::renameat_with(CWD, dir.join("f"), CWD, dir.join(to), flags)
}

fn node(dir: &Path, kind: FileType) -> Result<()> {
    rustix::fs::mknodat(CWD, dir.join("new"), kind, RW, rustix::fs::makedev(1, 3))
}

#[allow(unsafe_code)]
fn truncated(path: &Path) -> Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends with a zero and outlives the call.
    match unsafe { libc::truncate(path.as_ptr(), 1) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
    }
}

const OPENING: &[Attempt] = &[
    ("O_WRONLY", |dir| opened(&dir.join("f"), OFlags::WRONLY), Errno::ROFS),
    ("O_RDWR", |dir| opened(&dir.join("f"), OFlags::RDWR), Errno::ROFS),
    ("O_APPEND", |dir| opened(&dir.join("f"), OFlags::WRONLY | OFlags::APPEND), Errno::ROFS),
    ("O_TRUNC", |dir| opened(&dir.join("f"), OFlags::TRUNC), Errno::ROFS),
    ("O_CREAT", |dir| opened(&dir.join("new"), OFlags::CREATE), Errno::ROFS),
    (
        "creat",
        |dir| opened(&dir.join("f"), OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC),
        Errno::ROFS,
    ),
    ("O_TMPFILE", |dir| opened(dir, OFlags::TMPFILE | OFlags::RDWR), Errno::ROFS),
    ("O_WRONLY of a directory", |dir| opened(&dir.join("d"), OFlags::WRONLY), Errno::ISDIR),
    (
        "O_EXCL of what is there",
        |dir| opened(&dir.join("f"), OFlags::CREATE | OFlags::EXCL),
        Errno::EXIST,
    ),
];

const NAMES: &[Attempt] = &[
    ("mkdir", |dir| rustix::fs::mkdirat(CWD, dir.join("new"), RW), Errno::ROFS),
    ("mknod of a file", |dir| node(dir, FileType::RegularFile), Errno::ROFS),
    ("mknod of a pipe", |dir| node(dir, FileType::Fifo), Errno::ROFS),
    ("mknod of a device", |dir| node(dir, FileType::CharacterDevice), Errno::ROFS),
    ("mknod of a socket", |dir| node(dir, FileType::Socket), Errno::ROFS),
    (
        "bind",
        |dir| {
            let bound = UnixListener::bind(dir.join("new")).map(drop);
            bound.map_err(|error| Errno::from_io_error(&error).unwrap())
        },
        Errno::ROFS,
    ),
    ("link", |dir| rustix::fs::linkat(CWD, dir.join("f"), CWD, dir.join("new"), NONE), Errno::ROFS),
    (
        "link of an open file",
        |dir| rustix::fs::linkat(reader(dir), c"", CWD, dir.join("new"), AtFlags::EMPTY_PATH),
        Errno::ROFS,
    ),
    ("symlink", |dir| rustix::fs::symlinkat("f", CWD, dir.join("new")), Errno::ROFS),
    ("unlink", |dir| rustix::fs::unlinkat(CWD, dir.join("f"), NONE), Errno::ROFS),
    ("rmdir", |dir| rustix::fs::unlinkat(CWD, dir.join("d"), AtFlags::REMOVEDIR), Errno::ROFS),
    ("rename", |dir| rustix::fs::rename(dir.join("f"), dir.join("new")), Errno::ROFS),
    ("rename over another", |dir| rustix::fs::rename(dir.join("f"), dir.join("g")), Errno::ROFS),
    ("rename of a directory", |dir| rustix::fs::rename(dir.join("d"), dir.join("e")), Errno::ROFS),
    ("RENAME_NOREPLACE", |dir| renamed(dir, "new", RenameFlags::NOREPLACE), Errno::ROFS),
    ("RENAME_EXCHANGE", |dir| renamed(dir, "g", RenameFlags::EXCHANGE), Errno::ROFS),
    ("RENAME_WHITEOUT", |dir| renamed(dir, "new", RenameFlags::WHITEOUT), Errno::ROFS),
    (
        "rename out of it",
        |dir| rustix::fs::rename(dir.join("f"), dir.parent().unwrap().join("out")),
        Errno::XDEV,
    ),
];

const ATTRIBUTES: &[Attempt] = &[
    ("truncate", |dir| truncated(&dir.join("f")), Errno::ROFS),
    ("chmod", |dir| rustix::fs::chmodat(CWD, dir.join("f"), RW, NONE), Errno::ROFS),
    ("fchmod", |dir| rustix::fs::fchmod(reader(dir), RW), Errno::ROFS),
    (
        "chown",
        |dir| rustix::fs::chownat(CWD, dir.join("f"), Some(Uid::ROOT), Some(Gid::ROOT), NONE),
        Errno::ROFS,
    ),
    (
        "lchown",
        |dir| rustix::fs::chownat(CWD, dir.join("l"), Some(Uid::ROOT), None, LINK),
        Errno::ROFS,
    ),
    ("fchown", |dir| rustix::fs::fchown(reader(dir), Some(Uid::ROOT), None), Errno::ROFS),
    ("utimensat", |dir| rustix::fs::utimensat(CWD, dir.join("f"), &TIMES, NONE), Errno::ROFS),
    (
        "utimensat of a link",
        |dir| rustix::fs::utimensat(CWD, dir.join("l"), &TIMES, LINK),
        Errno::ROFS,
    ),
    ("futimens", |dir| rustix::fs::futimens(reader(dir), &TIMES), Errno::ROFS),
    (
        "setxattr",
        |dir| rustix::fs::setxattr(dir.join("f"), "user.new", b"1", XattrFlags::empty()),
        Errno::ROFS,
    ),
    (
        "lsetxattr",
        |dir| rustix::fs::lsetxattr(dir.join("l"), "trusted.new", b"1", XattrFlags::empty()),
        Errno::ROFS,
    ),
    (
        "fsetxattr",
        |dir| rustix::fs::fsetxattr(reader(dir), "user.old", b"1", XattrFlags::REPLACE),
        Errno::ROFS,
    ),
    ("removexattr", |dir| rustix::fs::removexattr(dir.join("f"), "user.old"), Errno::ROFS),
    ("lremovexattr", |dir| rustix::fs::lremovexattr(dir.join("l"), "trusted.x"), Errno::ROFS),
    ("fremovexattr", |dir| rustix::fs::fremovexattr(reader(dir), "user.old"), Errno::ROFS),
    (
        "FS_IOC_SETFLAGS",
        |dir| rustix::fs::ioctl_setflags(reader(dir), IFlags::IMMUTABLE),
        Errno::ROFS,
    ),
];

/// An open file that may be read says so.
const CONTENT: &[Attempt] = &[
    ("write", |dir| rustix::io::write(reader(dir), b"x").map(drop), Errno::BADF),
    ("pwrite", |dir| rustix::io::pwrite(reader(dir), b"x", 0).map(drop), Errno::BADF),
    ("ftruncate", |dir| rustix::fs::ftruncate(reader(dir), 1), Errno::INVAL),
    (
        "fallocate",
        |dir| rustix::fs::fallocate(reader(dir), FallocateFlags::empty(), 0, 100),
        Errno::BADF,
    ),
    (
        "copy_file_range",
        |dir| {
            rustix::fs::copy_file_range(reader(dir), None, reader(dir), Some(&mut 500), 100)
                .map(drop)
        },
        Errno::BADF,
    ),
    ("FICLONE", |dir| rustix::fs::ioctl_ficlone(reader(dir), reader(dir)), Errno::BADF),
];

#[test]
fn whatever_would_write_is_refused_and_nothing_changes() {
    let plant = |root: &Path| {
        put(&root.join("f"), &noise(9, LARGE));
        put(&root.join("g"), b"g");
        xattr::set(root.join("f"), "user.old", b"1").unwrap();
        std::fs::create_dir(root.join("d")).unwrap();
        std::os::unix::fs::symlink("f", root.join("l")).unwrap();
    };
    in_every_lane(plant, |shown, source| {
        let dir = &shown.dir;
        let before = entries::walk(dir);
        for (what, attempt, answer) in [OPENING, NAMES, ATTRIBUTES, CONTENT].concat() {
            assert_eq!(attempt(dir), Err(answer), "{what}");
        }
        // What changes nothing is no reason to refuse; EROFS does not know of it.
        let synced = if shown.is_by_kernel() { Err(Errno::INVAL) } else { Ok(()) };
        assert_eq!(rustix::fs::fsync(reader(dir)), synced);
        rustix::fs::syncfs(reader(dir)).unwrap();
        let after = entries::walk(dir);
        entries::assert_same(&after, &before, Holes::Same);
        // A directory does not say where its files have holes.
        let holes = if shown.lane == Lane::Passthrough { Holes::Unsaid } else { shown.holes() };
        entries::assert_same(&after, &entries::walk(source), holes);
    });
}
