//! A mount is a whole read-only tree: whatever a program can see or try, it finds what it would find in the
//! directory that was packed, by whichever lane the kernel reads it.

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

use dfs_tests::Mount;
use dfs_tests::process::Said;
use rustix::fs::{Access, Advice, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::fs::{Timespec, Timestamps, fadvise};
use rustix::io::Errno;

use crate::support::entries::{self, Holes, listing};
use crate::support::lanes::{self, LANES, Lane};
use crate::support::own::Own;
use crate::support::trees::{noise, put};
use crate::support::{Expected, NOBODY, Place, as_nobody};

/// Long enough to be passed through where it lies in a directory.
const LARGE: usize = 9_000_001;

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
    // What an overlay's upper layer has in place of a name that was removed: here it is what it is.
    node("removed", FileType::CharacterDevice, 0, 0);
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
    // What overlays of users say of their own layers, which this is not.
    set(dir, "user.overlay.opaque", b"y");
    let file = dir.join("file");
    set(&file, "user.empty", b"");
    set(&file, "user.bytes", &noise(2, 2_000));
    set(&file, "user.odd = % name", b"1");
    set(&file, "user.overlay.redirect", b"/elsewhere");
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

/// A directory as it is mounted itself.
fn itself(source: &Path) -> String {
    format!("file://{}/", source.display())
}

/// Those that what is packed can have.
const OF_ARCHIVES: [Lane; 3] = [Lane::Fuse, Lane::Whole, Lane::Lazy];

/// A tree as a lane shows it.
struct Shown {
    lane: Lane,
    dir: PathBuf,
    /// Taken away before the agent is.
    _mounts: Vec<Mount>,
    _own: Own,
}

impl Shown {
    fn of(lane: Lane, url: &str) -> Self {
        println!("by the lane {lane:?}: {url}");
        let place = Place::new();
        place.open_to_others();
        let own = Own::start(place);
        let (dir, mounts) = lanes::mounted(&own, lane, url);
        Self { lane, dir, _mounts: mounts, _own: own }
    }

    /// Whether the kernel shows the index, and not the agent.
    fn is_by_kernel(&self) -> bool {
        self.lane.is_by_kernel()
    }

    /// What it says of files with holes in an archive.
    fn holes(&self) -> Holes {
        if self.is_by_kernel() { Holes::Sought } else { Holes::Same }
    }
}

/// Looks at what is at `url` in these lanes, of an agent of its own each.
fn in_lanes(lanes: &[Lane], url: &str, look: impl Fn(&Shown)) {
    lanes.iter().for_each(|lane| look(&Shown::of(*lane, url)));
}

/// Looks at a tree that `plant` makes, beside what was planted: packed, and as it is, since a large file in it is passed
/// through only there.
fn in_every_lane(plant: impl FnOnce(&Path), look: impl Fn(&Shown, &Path)) {
    let (place, source) = planted(plant);
    in_lanes(&OF_ARCHIVES, &pack(&place, &source, &[]), |shown| look(shown, &source));
    in_lanes(&[Lane::Passthrough], &itself(&source), |shown| look(shown, &source));
}

/// A tree that `plant` makes, with a large file in it: who looks for what is in its archive reads the small ones.
fn planted(plant: impl FnOnce(&Path)) -> (Place, PathBuf) {
    let place = Place::new();
    place.open_to_others();
    let source = place.dir("source");
    put(&source.join("large"), &noise(8, LARGE));
    plant(&source);
    (place, source)
}

#[test]
fn every_entry_of_a_mounted_tar_is_what_was_packed() {
    let (place, source) = planted(plant);
    let url = pack(&place, &source, &[]);
    in_lanes(&OF_ARCHIVES, &url, |shown| {
        entries::assert_same(&entries::walk(&shown.dir), &entries::walk(&source), shown.holes());
        // tar finds so too.
        let mut tar = Command::new("tar");
        tar.args(["--compare", "--numeric-owner", "-f"]).arg(place.path("tree.tar"));
        Said::by(tar.arg("-C").arg(&shown.dir)).unwrap().done();
    });
}

#[test]
fn every_entry_of_a_mounted_compressed_tar_is_what_was_packed() {
    let (place, source) = planted(plant);
    let url = pack(&place, &source, &["--zstd"]);
    // Who looks for what is in it has read all of it.
    in_lanes(&[Lane::Fuse, Lane::Whole], &url, |shown| {
        entries::assert_same(&entries::walk(&shown.dir), &entries::walk(&source), shown.holes());
    });
}

#[test]
fn every_entry_of_a_mounted_tar_of_bsdtar_is_what_was_packed() {
    let (place, source) = planted(plant);
    // It writes fractions of seconds before 1970 as those after it, and names of attributes as no other tar reads them.
    fs::remove_dir_all(source.join("times")).unwrap();
    xattr::remove(source.join("xattrs/file"), "user.odd = % name").unwrap();
    let file = place.path("tree.tar");
    let mut bsdtar = Command::new("bsdtar");
    bsdtar.args(["--format=pax", "--xattrs", "--acls", "-cf"]).arg(&file);
    Said::by(bsdtar.arg("-C").arg(&source).arg(".")).unwrap().done();
    in_lanes(&OF_ARCHIVES, &format!("file://{}", file.display()), |shown| {
        entries::assert_same(&entries::walk(&shown.dir), &entries::walk(&source), shown.holes());
    });
}

#[test]
fn every_entry_of_a_mounted_directory_is_what_is_in_it() {
    let (_place, source) = planted(plant);
    UnixListener::bind(source.join("devices/socket")).unwrap();
    // It comes as it is long.
    fs::remove_file(source.join("sparse/huge")).unwrap();
    in_lanes(&LANES, &itself(&source), |shown| {
        entries::assert_same(&entries::walk(&shown.dir), &entries::walk(&source), Holes::Unsaid);
    });
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
    let (place, source) = planted(lists);
    let may = |dir: &Path| {
        let mut python = as_nobody(Path::new("python3"));
        Said::by(python.args(["-c", MAY]).arg(dir)).unwrap().done().text()
    };
    let wanted = may(&source);
    for name in ["given 110 5", "masked 100 None", "taken 100 None", "group 100 None"] {
        assert!(wanted.contains(name), "{name}: {wanted}");
    }
    let list = |dir: &Path, name: &str| {
        let mut getfacl = Command::new("getfacl");
        Said::by(getfacl.args(["-cnp"]).arg(dir.join(name))).unwrap().done().text()
    };
    let decide = |shown: &Shown| {
        assert_eq!(may(&shown.dir), wanted);
        for name in ["given", "inherits", "inherits/too"] {
            assert_eq!(list(&shown.dir, name), list(&source, name), "{name}");
        }
    };
    in_lanes(&LANES, &itself(&source), decide);
    in_lanes(&OF_ARCHIVES, &pack(&place, &source, &[]), decide);
    // tar says them a second time, in text, where it is not told to keep all attributes: by name those who have one
    // here, who may be others elsewhere.
    fs::remove_file(place.path("tree.tar")).unwrap();
    in_lanes(&OF_ARCHIVES, &pack(&place, &source, &["--xattrs-exclude=*"]), |shown| {
        for name in ["inherits", "inherits/too"] {
            assert_eq!(list(&shown.dir, name), list(&source, name), "{name}");
        }
        assert!(list(&shown.dir, "inherits").contains("user:4242:rwx"));
    });
}

#[test]
fn a_file_with_holes_is_copied_as_one() {
    let (place, source) = planted(sparse);
    in_lanes(&OF_ARCHIVES, &pack(&place, &source, &[]), |shown| {
        // EROFS does not say how little is stored of a file, by which cp would tell.
        let (how, says_blocks) =
            if shown.is_by_kernel() { ("always", false) } else { ("auto", true) };
        let copies = Place::new();
        for name in ["hole", "middle", "many", "huge"] {
            let (file, copy) = (shown.dir.join(name), copies.path(name));
            run("cp", &[&format!("--sparse={how}"), file.to_str().unwrap()], &copy);
            let parts = |path: &Path| entries::parts(&File::open(path).unwrap());
            run("sync", &[], &copy);
            assert_eq!(parts(&copy), parts(&source.join(name)), "{name}");
            let stored: u64 = parts(&copy).iter().map(|(from, to)| to - from).sum();
            let said = file.metadata().unwrap();
            let blocks = if says_blocks { stored } else { said.len() }.div_ceil(512);
            assert_eq!(said.blocks(), blocks, "{name}");
        }
    });
}

#[test]
#[allow(unsafe_code)]
fn a_file_is_mapped_for_all_and_for_one_who_writes_to_his_own_copy() {
    let bytes = noise(3, LARGE);
    in_every_lane(
        |root| put(&root.join("f"), &bytes),
        |shown, _| {
            let file = File::open(shown.dir.join("f")).unwrap();
            // SAFETY: files of a mount never change and are never cut short.
            let shared = unsafe { memmap2::Mmap::map(&file) }.unwrap();
            // SAFETY: as above.
            let mut own = unsafe { memmap2::MmapOptions::new().map_copy(&file) }.unwrap();
            // SAFETY: as above; it is refused anyway.
            let writable = unsafe { memmap2::MmapMut::map_mut(&file) }.unwrap_err();
            assert_eq!(writable.raw_os_error(), Some(Errno::ACCESS.raw_os_error()));
            for at in [0, 65_535, 2_000_000, 9_000_000] {
                own[at] = !bytes[at];
            }
            assert!(shared[..] == bytes[..], "what one writes to a copy nobody else sees");
            assert!(own[65_535] == !bytes[65_535] && own[1..65_535] == bytes[1..65_535]);
            // Also when the pages have gone meanwhile.
            // SAFETY: of a shared mapping nothing is lost.
            unsafe { shared.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) }.unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            assert!(shared[..] == bytes[..]);
        },
    );
}

/// The libraries of a program, and what loads them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let told = Said::by(Command::new("ldd").arg(program)).unwrap().done().text();
    let words = told.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

#[test]
fn programs_run_in_a_mount_with_libraries_that_lie_in_it() {
    let plant = |root: &Path| {
        for program in ["/bin/bash", "/bin/ls", "/usr/bin/sha256sum"].map(Path::new) {
            for path in libraries(program).iter().map(PathBuf::as_path).chain([program]) {
                let to = root.join(path.strip_prefix("/").unwrap());
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(path, to).unwrap();
            }
        }
    };
    let script = "set -e; /bin/ls -R /; /usr/bin/sha256sum /bin/* /usr/bin/*; : $((6 * 7))";
    let inside = |root: &Path| {
        let mut chroot = Command::new("chroot");
        chroot.arg(root).args(["/bin/bash", "-c", script]).env("LC_ALL", "C");
        Said::by(&mut chroot).unwrap().done().text()
    };
    in_every_lane(plant, |shown, source| {
        let wanted = inside(source);
        assert_eq!(inside(&shown.dir), wanted);
        // Once more from the first page on, of programs and libraries.
        for path in entries::walk(&shown.dir).keys().map(|path| shown.dir.join(path)) {
            if path.is_file() {
                fadvise(File::open(&path).unwrap(), 0, None, Advice::DontNeed).unwrap();
            }
        }
        assert_eq!(inside(&shown.dir), wanted, "after all pages were dropped");
    });
}

/// All that arrives at the other end of a socket.
fn sent(send: impl FnOnce(&UnixStream) + Send) -> Vec<u8> {
    let (from, mut to) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        // The other end is at its end when this one is gone.
        scope.spawn(move || send(&from));
        let mut all = Vec::new();
        to.read_to_end(&mut all).unwrap();
        all
    })
}

#[allow(unsafe_code)]
fn splice_all(file: &File, mut offset: i64, mut to: &UnixStream) {
    let (reader, writer) = std::io::pipe().unwrap();
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
            return;
        }
        let mut part = vec![0; moved as usize];
        (&reader).read_exact(&mut part).unwrap();
        std::io::Write::write_all(&mut to, &part).unwrap();
    }
}

#[test]
fn bytes_are_spliced_and_sent_out_of_a_mount() {
    let bytes = noise(4, LARGE);
    in_every_lane(
        |root| put(&root.join("f"), &bytes),
        |shown, _| {
            let file = File::open(shown.dir.join("f")).unwrap();
            let by_sendfile = sent(|to| {
                let mut offset = 1_000;
                while rustix::fs::sendfile(to, &file, Some(&mut offset), 1 << 20).unwrap() > 0 {}
            });
            assert!(by_sendfile == bytes[1_000..]);
            let by_splice = sent(|to| splice_all(&file, 70_001, to));
            assert!(by_splice == bytes[70_001..]);
        },
    );
}

#[test]
fn reads_past_the_page_cache_begin_and_end_anywhere() {
    let bytes = noise(5, LARGE);
    in_every_lane(
        |root| put(&root.join("f"), &bytes),
        |shown, _| {
            let flags = OFlags::RDONLY | OFlags::DIRECT;
            let opened = rustix::fs::open(shown.dir.join("f"), flags, Mode::empty());
            if shown.is_by_kernel() {
                // EROFS reads other files by way of the page cache only, and says so.
                assert_eq!(opened.unwrap_err(), Errno::INVAL);
                return;
            }
            let file = File::from(opened.unwrap());
            let mut room = vec![0; (1 << 20) + 8192];
            let aligned = room.as_ptr().align_offset(4096);
            for (offset, length) in [
                (0, 4096),
                (4096, 1 << 20),
                (1 << 20, 1 << 20),
                (1, 4096),
                (4095, 777),
                (65_535, 2),
                (LARGE - 8, 4096),
                (LARGE - 1, 1),
                (LARGE, 4096),
            ] {
                // Memory may lie anywhere too.
                for start in [aligned, aligned + 13] {
                    let part = &mut room[start..start + length];
                    let read = match file.read_at(part, offset as u64) {
                        // What is passed through is read as the disk has it read.
                        Err(error)
                            if shown.lane == Lane::Passthrough
                                && (start != aligned || (offset | length) % 4096 != 0) =>
                        {
                            assert_eq!(error.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
                            continue;
                        }
                        read => read.unwrap(),
                    };
                    let wanted = &bytes[offset..(offset + length).min(bytes.len())];
                    assert!(part[..read] == *wanted, "{length} bytes at {offset}: {read}");
                }
            }
        },
    );
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
    in_every_lane(
        |root| put(&root.join("f"), &noise(6, LARGE)),
        |shown, _| {
            let open = || File::open(shown.dir.join("f")).unwrap();
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
            flock.args(["--nonblock", "--conflict-exit-code", "9"]);
            flock.arg(shown.dir.join("f")).arg("true");
            Said::by(&mut flock).unwrap().exits(9);
            drop(one);
            Said::by(&mut flock).unwrap().done();
        },
    );
}

#[test]
fn a_mount_says_that_it_is_full_and_that_nothing_can_be_written() {
    let plant = |root: &Path| {
        links(root);
        owners(&root.join("owners"));
        put(&root.join("file"), &noise(7, 3_000_000));
    };
    in_every_lane(plant, |shown, source| {
        let dir = &shown.dir;
        let told = rustix::fs::statvfs(dir).unwrap();
        let seen = entries::walk(source);
        let inode = |path| fs::symlink_metadata(source.join(path)).unwrap().ino();
        let inodes: BTreeSet<_> = seen.keys().map(inode).collect();
        let bytes = (LARGE + 3_000_000 + 70_000 + 5) as u64;
        assert_eq!(told.f_files - told.f_ffree, inodes.len() as u64);
        assert_eq!((told.f_bfree, told.f_bavail, told.f_namemax), (0, 0, 255));
        if shown.is_by_kernel() {
            // The content files and the index, and no end of inodes.
            assert!(told.f_blocks >= bytes.div_ceil(told.f_frsize));
        } else {
            assert_eq!((told.f_blocks, told.f_ffree), (bytes.div_ceil(told.f_frsize), 0));
        }
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
    });
}

#[test]
fn a_huge_directory_is_listed_from_any_place_again_and_again() {
    const ENTRIES: usize = 25_000;
    let plant = |root: &Path| {
        let dir = root.join("huge");
        fs::create_dir(&dir).unwrap();
        (0..ENTRIES).for_each(|number| drop(File::create(dir.join(format!("f{number}"))).unwrap()));
    };
    in_every_lane(plant, |shown, _| {
        let dir = shown.dir.join("huge");
        let mut huge = File::open(&dir).unwrap();
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
        let later = File::open(&dir).unwrap();
        assert!(listing(&later, all[12_345].next) == all[12_346..]);
    });
}
