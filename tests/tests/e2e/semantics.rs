//! A mount is a whole read-only tree: whatever a program can see or try, it finds what it would find in the
//! directory that was packed.

mod refused;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::process::Said;
use rustix::fs::{Access, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::fs::{Timespec, Timestamps};
use rustix::io::Errno;

use crate::support::entries::{self, Holes, listing};
use crate::support::trees::{noise, put};
use crate::support::{Agent, Expected, NOBODY, Place, as_nobody};

fn run(program: &str, words: &[&str], path: &Path) {
    Said::by(Command::new(program).args(words).arg(path)).unwrap().done();
}

/// A tree of everything that a tar can carry.
fn plant(root: &Path) {
    fs::set_permissions(root, fs::Permissions::from_mode(0o2751)).unwrap();
    put(&root.join("files/empty"), b"");
    for length in [1, 511, 512, 513, 65_536, 65_537, 1_300_001] {
        put(&root.join(format!("files/{length}")), &noise(length, length as usize));
    }
    fs::create_dir_all(root.join("empty")).unwrap();
    let deep: PathBuf = (0..60).map(|depth| format!("depth-{depth}")).collect();
    put(&root.join("deep").join(deep).join("end"), b"deep");
    names(&root.join("names"));
    links(root);
    devices(&root.join("devices"));
    sparse(&root.join("sparse"));
    owners(&root.join("owners"));
    xattrs(&root.join("xattrs"));
    lists(&root.join("lists"));
    times(&root.join("times"));
}

fn names(dir: &Path) {
    let names: [&[u8]; 8] = [
        &[b'n'; 255],
        &[0xff; 255],
        b"\xff\xfe \xc3",
        b"a\nb\tc\\d",
        b"-rf",
        b"...",
        b" ",
        "ünïcödé".as_bytes(),
    ];
    for name in names {
        put(&dir.join(OsString::from_vec(name.to_vec())), name);
    }
}

fn links(root: &Path) {
    let dir = root.join("links");
    put(&dir.join("a/first"), &noise(1, 70_000));
    fs::create_dir_all(dir.join("b")).unwrap();
    for name in ["a/second", "b/third", "z"] {
        fs::hard_link(dir.join("a/first"), dir.join(name)).unwrap();
    }
    symlink("a/first", dir.join("short")).unwrap();
    symlink("x/".repeat(2047) + "y", dir.join("long")).unwrap();
    symlink(OsString::from_vec(b"no\xfftext".to_vec()), dir.join("odd")).unwrap();
    symlink("/nowhere", dir.join("dangling")).unwrap();
    symlink("..", dir.join("up")).unwrap();
    fs::hard_link(dir.join("odd"), dir.join("same link")).unwrap();
}

fn devices(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let node = |name: &str, kind, major, minor| {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::RUSR | Mode::WGRP;
        rustix::fs::mknodat(CWD, dir.join(name), kind, mode, device).unwrap();
    };
    node("null", FileType::CharacterDevice, 1, 3);
    node("last", FileType::CharacterDevice, 4095, 0xf_ffff);
    node("disk", FileType::BlockDevice, 7, 300);
    node("pipe", FileType::Fifo, 0, 0);
}

/// Holes at the beginning, in the middle, at the end; nothing but one; many; at odd places of bytes.
fn sparse(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let file = |name: &str, length: u64, parts: &[(u64, usize)]| {
        let file = File::create(dir.join(name)).unwrap();
        file.set_len(length).unwrap();
        for (at, bytes) in parts {
            file.write_all_at(&noise(*at, *bytes), *at).unwrap();
        }
    };
    file("hole", 1 << 20, &[]);
    file("beginning", 1 << 20, &[(1 << 19, 1 << 19)]);
    file("end", 1 << 20, &[(0, 1 << 19)]);
    file("middle", 3 << 20, &[(0, 4096), ((2 << 20) + 4096, 8192)]);
    file("odd", 900_001, &[(100, 5), (123_456, 7_000), (900_000, 1)]);
    let many: Vec<_> = (0..100).map(|part| (part * 40_960, 4096)).collect();
    file("many", 100 * 40_960, &many);
    // More chunks of 4 KiB than are looked at for one answer.
    file("huge", 300 << 20, &[(290 << 20, 4096)]);
    // The disk knows where they lie once they are there.
    run("sync", &["-f"], dir);
}

fn owners(dir: &Path) {
    for (mode, owner) in
        [(0, 1), (0o4755, 0), (0o2711, 12_345), (0o6777, 3_000_000), (0o640, 4_000_000_000)]
    {
        let path = dir.join(format!("{mode:o}"));
        put(&path, b"x");
        std::os::unix::fs::chown(&path, Some(owner), Some(owner / 2)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(dir.join("sticky")).unwrap();
    fs::set_permissions(dir.join("sticky"), fs::Permissions::from_mode(0o3777)).unwrap();
    symlink("x", dir.join("link")).unwrap();
    std::os::unix::fs::lchown(dir.join("link"), Some(7), Some(8)).unwrap();
}

fn xattrs(dir: &Path) {
    put(&dir.join("file"), b"x");
    symlink("file", dir.join("link")).unwrap();
    let set = |path: &Path, name: &str, value: &[u8]| xattr::set(path, name, value).unwrap();
    set(dir, "user.directory", b"yes");
    let file = dir.join("file");
    set(&file, "user.empty", b"");
    set(&file, "user.bytes", &noise(2, 2_000));
    set(&file, "user.odd = % name", b"1");
    set(&file, "trusted.of.root", b"2");
    set(&dir.join("link"), "trusted.of.a.link", b"3");
    put(&dir.join("capable"), b"x");
    run("setcap", &["cap_net_raw,cap_net_admin+ep"], &dir.join("capable"));
}

/// Files that nobody may read, or not, because of a list.
fn lists(dir: &Path) {
    let file = |name: &str, mode: u32, list: &str| {
        let path = dir.join(name);
        put(&path, name.as_bytes());
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        run("setfacl", &["-m", list], &path);
    };
    file("given", 0o600, &format!("u:{NOBODY}:r"));
    file("masked", 0o600, &format!("u:{NOBODY}:rw,m::-"));
    file("taken", 0o644, &format!("u:{NOBODY}:-"));
    file("group", 0o604, &format!("g:{NOBODY}:-,g:4242:r"));
    run("setfacl", &["-d", "-m", "u:4242:rwx,g:root:rx"], dir);
    fs::create_dir(dir.join("inherits")).unwrap();
    put(&dir.join("inherits/too"), b"x");
}

fn times(dir: &Path) {
    for (name, seconds, nanoseconds) in [
        ("before", -1_000_000_000, 999_999_999),
        ("just before", -1, 1),
        ("zero", 0, 0),
        ("late", 4_102_444_800, 123_456_789),
        ("very late", 13_000_000_000, 5),
    ] {
        put(&dir.join(name), b"x");
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, dir.join(name), &times, AtFlags::empty()).unwrap();
    }
}

/// What tar is told, so that it leaves nothing out.
const ALL: [&str; 6] =
    ["--format=pax", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--numeric-owner"];

fn pack(place: &Place, source: &Path, more: &[&str]) -> String {
    let file = place.path("tree.tar");
    let mut tar = Command::new("tar");
    tar.args(ALL).args(more).arg("-cf").arg(&file).arg("-C").arg(source).arg(".");
    Said::by(&mut tar).unwrap().done();
    format!("file://{}", file.display())
}

/// An agent with a mount of a tree that `plant` makes.
fn mounted(plant: impl FnOnce(&Path)) -> (Place, Agent, PathBuf, PathBuf) {
    let place = Place::new();
    place.open_to_others();
    let source = place.dir("source");
    plant(&source);
    let url = pack(&place, &source, &[]);
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&url, place.dir("mount"));
    (place, agent, dir, source)
}

#[test]
fn every_entry_of_a_mounted_tar_is_what_was_packed() {
    let (place, _agent, dir, source) = mounted(plant);
    entries::assert_same(&entries::walk(&dir), &entries::walk(&source), Holes::Same);
    // tar finds so too.
    let mut tar = Command::new("tar");
    tar.args(["--compare", "--numeric-owner", "-f"]).arg(place.path("tree.tar"));
    Said::by(tar.arg("-C").arg(&dir)).unwrap().done();
}

#[test]
fn every_entry_of_a_mounted_compressed_tar_is_what_was_packed() {
    let place = Place::new();
    let source = place.dir("source");
    plant(&source);
    let url = pack(&place, &source, &["--zstd"]);
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&url, place.dir("mount"));
    entries::assert_same(&entries::walk(&dir), &entries::walk(&source), Holes::Same);
}

#[test]
fn every_entry_of_a_mounted_tar_of_bsdtar_is_what_was_packed() {
    let place = Place::new();
    let source = place.dir("source");
    plant(&source);
    // It writes fractions of seconds before 1970 as those after it, and names of attributes as no other tar reads them.
    fs::remove_dir_all(source.join("times")).unwrap();
    xattr::remove(source.join("xattrs/file"), "user.odd = % name").unwrap();
    let file = place.path("tree.tar");
    let mut bsdtar = Command::new("bsdtar");
    bsdtar.args(["--format=pax", "--xattrs", "--acls", "-cf"]).arg(&file);
    Said::by(bsdtar.arg("-C").arg(&source).arg(".")).unwrap().done();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&format!("file://{}", file.display()), place.dir("mount"));
    entries::assert_same(&entries::walk(&dir), &entries::walk(&source), Holes::Same);
}

#[test]
fn every_entry_of_a_mounted_directory_is_what_is_in_it() {
    let place = Place::new();
    let source = place.dir("source");
    plant(&source);
    UnixListener::bind(source.join("devices/socket")).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&format!("file://{}/", source.display()), place.dir("mount"));
    entries::assert_same(&entries::walk(&dir), &entries::walk(&source), Holes::Unsaid);
}

/// What a user who is not root may do with each entry below the directory; one line for each.
const MAY: &str = r#"
import os, sys
os.chdir(sys.argv[1])
for top, below, files in sorted(os.walk(".")):
    for name in sorted(files):
        path = os.path.join(top, name)
        may = "".join(str(int(os.access(path, mode))) for mode in (os.F_OK, os.R_OK, os.X_OK))
        try:
            with open(path, "rb") as file: read = len(file.read())
        except PermissionError: read = None
        print(path, may, read)
"#;

#[test]
fn access_control_lists_decide_on_a_mount_as_they_do_where_they_were_made() {
    let (place, agent, packed, source) = mounted(lists);
    // tar says them a second time, in text, where it is not told to keep all attributes.
    fs::remove_file(place.path("tree.tar")).unwrap();
    let text = pack(&place, &source, &["--xattrs-exclude=*"]);
    let text = agent.mount(&text, place.dir("text"));
    let itself = format!("file://{}/", source.display());
    let itself = agent.mount(&itself, place.dir("itself"));
    let may = |dir: &Path| {
        let mut python = as_nobody(Path::new("python3"));
        Said::by(python.args(["-c", MAY]).arg(dir)).unwrap().done().text()
    };
    let wanted = may(&source);
    for name in ["given 110 5", "masked 100 None", "taken 100 None", "group 100 None"] {
        assert!(wanted.contains(name), "{name}: {wanted}");
    }
    for dir in [&packed, &text, &itself] {
        assert_eq!(may(dir), wanted, "{}", dir.display());
    }
    for name in ["given", "inherits", "inherits/too"] {
        let list = |dir: &Path| {
            let mut getfacl = Command::new("getfacl");
            Said::by(getfacl.args(["-cnp"]).arg(dir.join(name))).unwrap().done().text()
        };
        assert_eq!(list(&text), list(&source));
    }
}

#[test]
fn a_file_with_holes_is_copied_as_one() {
    let (place, _agent, dir, source) = mounted(sparse);
    for name in ["hole", "middle", "many", "huge"] {
        let copy = place.path(name);
        let words = ["--sparse=auto", dir.join(name).to_str().unwrap()].map(str::to_owned);
        run("cp", &words.each_ref().map(String::as_str), &copy);
        let parts = |path: &Path| entries::parts(&File::open(path).unwrap());
        run("sync", &[], &copy);
        assert_eq!(parts(&copy), parts(&source.join(name)), "{name}");
        let stored: u64 = parts(&copy).iter().map(|(from, to)| to - from).sum();
        assert_eq!(dir.join(name).metadata().unwrap().blocks(), stored / 512, "{name}");
    }
}

#[test]
#[allow(unsafe_code)]
fn a_file_is_mapped_for_all_and_for_one_who_writes_to_his_own_copy() {
    let bytes = noise(3, 3_000_001);
    let (_place, _agent, dir, _source) = mounted(|root| put(&root.join("f"), &bytes));
    let file = File::open(dir.join("f")).unwrap();
    // SAFETY: files of a mount never change and are never cut short.
    let shared = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    // SAFETY: as above.
    let mut own = unsafe { memmap2::MmapOptions::new().map_copy(&file) }.unwrap();
    // SAFETY: as above; it is refused anyway.
    let writable = unsafe { memmap2::MmapMut::map_mut(&file) }.unwrap_err();
    assert_eq!(writable.raw_os_error(), Some(Errno::ACCESS.raw_os_error()));
    for at in [0, 65_535, 2_000_000, 3_000_000] {
        own[at] = !bytes[at];
    }
    assert!(shared[..] == bytes[..], "what one writes to a copy nobody else sees");
    assert!(own[65_535] == !bytes[65_535] && own[1..65_535] == bytes[1..65_535]);
    // Also when the pages have gone meanwhile.
    // SAFETY: of a shared mapping nothing is lost.
    unsafe { shared.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) }.unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert!(shared[..] == bytes[..]);
}

/// The libraries of a program, and what loads them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let told = Said::by(Command::new("ldd").arg(program)).unwrap().done().text();
    let words = told.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

#[test]
fn programs_run_in_a_mount_with_libraries_that_lie_in_it() {
    let (_place, _agent, dir, source) = mounted(|root| {
        for program in ["/bin/bash", "/bin/ls", "/usr/bin/sha256sum"].map(Path::new) {
            for path in libraries(program).iter().map(PathBuf::as_path).chain([program]) {
                let to = root.join(path.strip_prefix("/").unwrap());
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(path, to).unwrap();
            }
        }
    });
    let script = "set -e; /bin/ls -R /; /usr/bin/sha256sum /bin/* /usr/bin/*; : $((6 * 7))";
    let inside = |root: &Path| {
        let mut chroot = Command::new("chroot");
        chroot.arg(root).args(["/bin/bash", "-c", script]).env("LC_ALL", "C");
        Said::by(&mut chroot).unwrap().done().text()
    };
    assert_eq!(inside(&dir), inside(&source));
}

#[test]
#[allow(unsafe_code)]
fn bytes_are_spliced_and_sent_out_of_a_mount() {
    let bytes = noise(4, 2_345_678);
    let (_place, _agent, dir, _source) = mounted(|root| put(&root.join("f"), &bytes));
    let file = File::open(dir.join("f")).unwrap();
    let sent = |send: &(dyn Fn(&UnixStream) + Sync)| {
        let (from, mut to) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            // The other end is at its end when this one is gone.
            scope.spawn(move || send(&from));
            let mut all = Vec::new();
            to.read_to_end(&mut all).unwrap();
            all
        })
    };
    let by_sendfile = sent(&|to| {
        let mut offset = 1_000;
        while rustix::fs::sendfile(to, &file, Some(&mut offset), 1 << 20).unwrap() > 0 {}
    });
    assert!(by_sendfile == bytes[1_000..]);
    let by_splice = sent(&|to| {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut offset = 70_001;
        loop {
            // SAFETY: the descriptors are open, the offset is this function's own.
            let moved = unsafe {
                libc::splice(
                    file.as_raw_fd(),
                    &raw mut offset,
                    writer.as_raw_fd(),
                    std::ptr::null_mut(),
                    1 << 16,
                    0,
                )
            };
            assert!(moved >= 0);
            if moved == 0 {
                break;
            }
            let mut part = vec![0; moved as usize];
            (&reader).read_exact(&mut part).unwrap();
            std::io::Write::write_all(&mut &*to, &part).unwrap();
        }
    });
    assert!(by_splice == bytes[70_001..]);
}

#[test]
fn reads_past_the_page_cache_begin_and_end_anywhere() {
    let bytes = noise(5, 1_500_007);
    let (_place, _agent, dir, _source) = mounted(|root| put(&root.join("f"), &bytes));
    let flags = OFlags::RDONLY | OFlags::DIRECT;
    let file = File::from(rustix::fs::open(dir.join("f"), flags, Mode::empty()).unwrap());
    let mut room = vec![0; (1 << 20) + 8192];
    let aligned = room.as_ptr().align_offset(4096);
    for (offset, length) in [
        (0, 4096),
        (4096, 1 << 20),
        (1 << 20, 1 << 20),
        (1, 4096),
        (4095, 777),
        (65_535, 2),
        (1_499_999, 4096),
        (1_500_006, 1),
        (1_500_007, 4096),
    ] {
        // Memory may lie anywhere too.
        for start in [aligned, aligned + 13] {
            let part = &mut room[start..start + length];
            let read = file.read_at(part, offset as u64).unwrap();
            let wanted = &bytes[offset..(offset + length).min(bytes.len())];
            assert!(part[..read] == *wanted, "{length} bytes at {offset}: {read}");
        }
    }
}

#[allow(unsafe_code)]
fn lock(file: &File, operation: i32, kind: i32) -> Result<i32, Errno> {
    let (kind, whence) = (kind as i16, libc::SEEK_SET as i16);
    let (l_start, l_len, l_pid) = (100, 50, 0);
    let mut lock = libc::flock { l_type: kind, l_whence: whence, l_start, l_len, l_pid };
    // SAFETY: the descriptor is open, the structure is the one that these operations take.
    match unsafe { libc::fcntl(file.as_raw_fd(), operation, &raw mut lock) } {
        0 => Ok(i32::from(lock.l_type)),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
    }
}

#[test]
fn locks_of_all_kinds_hold() {
    let (_place, _agent, dir, _source) = mounted(|root| put(&root.join("f"), &noise(6, 1_000)));
    let open = || File::open(dir.join("f")).unwrap();
    let (one, other) = (open(), open());
    // Who may not write may not lock others out, but learns that somebody reads.
    for set in [libc::F_SETLK, libc::F_OFD_SETLK] {
        assert_eq!(lock(&one, set, libc::F_WRLCK), Err(Errno::BADF));
        lock(&one, set, libc::F_RDLCK).unwrap();
        lock(&other, libc::F_OFD_SETLK, libc::F_RDLCK).unwrap();
        lock(&other, libc::F_OFD_SETLK, libc::F_UNLCK).unwrap();
        let held = || lock(&other, libc::F_OFD_GETLK, libc::F_WRLCK).unwrap();
        assert_eq!(held(), libc::F_RDLCK);
        lock(&one, set, libc::F_UNLCK).unwrap();
        assert_eq!(held(), libc::F_UNLCK);
    }
    let exclusive = FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&one, exclusive).unwrap();
    assert_eq!(rustix::fs::flock(&other, exclusive), Err(Errno::WOULDBLOCK));
    let mut flock = Command::new("flock");
    flock.args(["--nonblock", "--conflict-exit-code", "9"]).arg(dir.join("f")).arg("true");
    Said::by(&mut flock).unwrap().exits(9);
    drop(one);
    Said::by(&mut flock).unwrap().done();
}

#[test]
fn a_mount_says_that_it_is_full_and_that_nothing_can_be_written() {
    let (_place, _agent, dir, source) = mounted(|root| {
        links(root);
        owners(&root.join("owners"));
        put(&root.join("file"), &noise(7, 3_000_000));
    });
    let told = rustix::fs::statvfs(&dir).unwrap();
    let seen = entries::walk(&source);
    let inodes: BTreeSet<_> =
        seen.keys().map(|path| fs::symlink_metadata(source.join(path)).unwrap().ino()).collect();
    assert_eq!(told.f_files, inodes.len() as u64);
    let bytes = 3_000_000 + 70_000 + 5;
    assert_eq!(told.f_blocks, (bytes as u64).div_ceil(told.f_frsize));
    assert_eq!((told.f_bfree, told.f_bavail, told.f_ffree, told.f_namemax), (0, 0, 0, 255));
    assert!(told.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let access = |path: &str, access| {
        let flags = [AtFlags::empty(), AtFlags::EACCESS];
        flags.map(|flags| rustix::fs::accessat(CWD, dir.join(path), access, flags))
    };
    for path in ["file", "links/a", "."] {
        assert_eq!(access(path, Access::EXISTS | Access::READ_OK), [Ok(()); 2], "{path}");
        assert_eq!(access(path, Access::WRITE_OK), [Err(Errno::ROFS); 2], "{path}");
    }
    assert_eq!(access("file", Access::EXEC_OK), [Err(Errno::ACCESS); 2]);
    assert_eq!(access("owners/4755", Access::EXEC_OK), [Ok(()); 2]);
    assert_eq!(access("links/none", Access::EXISTS), [Err(Errno::NOENT); 2]);
}

#[test]
fn a_huge_directory_is_listed_from_any_place_again_and_again() {
    const ENTRIES: usize = 25_000;
    let (_place, _agent, dir, _source) = mounted(|root| {
        let dir = root.join("huge");
        fs::create_dir(&dir).unwrap();
        (0..ENTRIES).for_each(|number| drop(File::create(dir.join(format!("f{number}"))).unwrap()));
    });
    let mut huge = File::open(dir.join("huge")).unwrap();
    let all = listing(&huge, 0);
    let names: BTreeSet<_> = all.iter().map(|entry| &entry.name).collect();
    assert_eq!((all.len(), names.len()), (ENTRIES + 2, ENTRIES + 2));
    // From many places, in an order of its own, each time to a different end.
    for step in 0..12 {
        let at = step * 7_919 % all.len();
        let again = listing(&huge, all[at].next);
        assert!(again == all[at + 1..], "from {at}");
    }
    huge.seek(SeekFrom::Start(0)).unwrap();
    assert!(listing(&huge, 0) == all, "from its beginning");
    // Whoever opens it later is told the same places.
    let later = File::open(dir.join("huge")).unwrap();
    assert!(listing(&later, all[12_345].next) == all[12_346..]);
}
