//! Tars of GNU tar, bsdtar and Python, against `tar --extract`.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use rustix::fs::{
    CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev, mknodat, utimensat,
};

use crate::import::{assert_same, seen_by_kernel};
use crate::seen::{python, run, seen, without_directories, work};

fn gnu_tar(dir: &Path, file: &Path, options: &[&str]) {
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(file).args(options).arg("--directory").arg(dir);
    run(tar.arg("."));
}

/// What `tar` unpacks is what is seen.
fn assert_as_unpacked(file: &Path) {
    let out = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--numeric-owner", "--same-permissions", "--xattrs"]);
    tar.arg("--delay-directory-restore");
    run(tar.arg("--xattrs-include=*").arg("--file").arg(file).arg("--directory").arg(out.path()));
    let unpacked = without_directories(seen_by_kernel(out.path()));
    assert_same(&unpacked, &without_directories(seen(file)));
}

fn set_time(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn node(path: &Path, kind: FileType, device: (u32, u32)) {
    let mode = Mode::from_raw_mode(0o620);
    mknodat(CWD, path, kind, mode, makedev(device.0, device.1)).unwrap();
}

/// What every dialect can say.
fn plain_things(dir: &Path) {
    fs::create_dir_all(dir.join("a/b/c")).unwrap();
    fs::write(dir.join("a/b/c/file"), vec![1; 5000]).unwrap();
    fs::write(dir.join("empty"), b"").unwrap();
    fs::write(dir.join("odd"), b"x").unwrap();
    fs::set_permissions(dir.join("odd"), fs::Permissions::from_mode(0o6751)).unwrap();
    std::os::unix::fs::chown(dir.join("empty"), Some(1234), Some(65_000)).unwrap();
    fs::hard_link(dir.join("odd"), dir.join("a/other-name")).unwrap();
    symlink("a/b", dir.join("link")).unwrap();
    symlink("/nowhere/../at all", dir.join("dangling")).unwrap();
    for path in ["a/b/c/file", "empty", "odd", "link", "dangling", "a/b/c", "a/b", "a"] {
        set_time(&dir.join(path), 1_600_000_000 + path.len() as i64, 0);
    }
}

/// What only some can.
fn long_things(dir: &Path) {
    let deep = dir.join("d".repeat(120)).join("e".repeat(130));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f".repeat(255)), b"deep").unwrap();
    symlink("t".repeat(900), dir.join("long-link")).unwrap();
    fs::hard_link(deep.join("f".repeat(255)), dir.join("hard-to-long")).unwrap();
    std::os::unix::fs::chown(dir.join("long-link"), Some(4_000_000_000), None).ok();
    std::os::unix::fs::lchown(dir.join("hard-to-long"), Some(4_000_000_000), Some(3)).unwrap();
    for path in [deep.join("f".repeat(255)), dir.join("long-link"), deep] {
        set_time(&path, 1_500_000_000, 0);
    }
}

fn special_things(dir: &Path) {
    node(&dir.join("pipe"), FileType::Fifo, (0, 0));
    node(&dir.join("null"), FileType::CharacterDevice, (1, 3));
    node(&dir.join("disk"), FileType::BlockDevice, (259, 300));
    for path in ["pipe", "null", "disk"] {
        set_time(&dir.join(path), 1_400_000_000, 0);
    }
}

/// Files with holes at the beginning, in the middle, at the end, and nothing else.
fn holes(dir: &Path) {
    let pieces: [(&str, u64, &[u64]); 5] = [
        ("begins", 300_000, &[200_000]),
        ("between", 1 << 20, &[0, 500_000, 900_000]),
        ("ends", 10 << 20, &[4096]),
        ("nothing", 5_000_001, &[]),
        ("many", 8 << 20, &[0, 131_072, 262_144, 524_288, 1 << 20, 2 << 20, 3 << 20, 4 << 20]),
    ];
    for (name, length, places) in pieces {
        let file = File::create(dir.join(name)).unwrap();
        file.set_len(length).unwrap();
        for at in places {
            file.write_all_at(&[7; 5000], *at).unwrap();
        }
        drop(file);
        set_time(&dir.join(name), 1_300_000_000, 0);
    }
}

#[test]
fn every_format_of_gnu_tar_reads_as_it_unpacks() {
    for format in ["v7", "oldgnu", "gnu", "ustar", "posix"] {
        let (_work, dir, file) = work();
        plain_things(&dir);
        if format != "v7" {
            special_things(&dir);
        }
        if matches!(format, "oldgnu" | "gnu" | "posix") {
            long_things(&dir);
        }
        gnu_tar(&dir, &file, &[&format!("--format={format}")]);
        assert_as_unpacked(&file);
    }
}

#[test]
fn holes_of_every_format_read_as_they_unpack_and_lie_nowhere() {
    let formats: [&[&str]; 4] = [
        &["--format=oldgnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ];
    for format in formats {
        let (_work, dir, file) = work();
        holes(&dir);
        gnu_tar(&dir, &file, &[format, &["--sparse"]].concat());
        assert!(file.metadata().unwrap().len() < 300_000, "the tar has no holes");
        assert_as_unpacked(&file);
        // The tar is the only space: nothing else is ever fetched.
        let artifact = crate::seen::artifact(&file).unwrap();
        assert_eq!(artifact.tasks.len(), 1);
    }
}

#[test]
fn attributes_and_exact_times_of_pax_read_as_they_unpack() {
    let (_work, dir, file) = work();
    plain_things(&dir);
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(dir.join(path), name, value, XattrFlags::empty()).unwrap();
    };
    set("odd", "user.comment", b"a value");
    set("odd", "user.binary", &[0, 1, b'\n', b'=', 255]);
    set("odd", "user.a=b%c", b"odd name");
    set("a/b", "user.on-a-directory", &[b'x'; 3000]);
    set("odd", "trusted.overlay.opaque", b"y");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set("empty", "security.capability", &capability);
    set_time(&dir.join("empty"), -86_400, 123_456_789);
    set_time(&dir.join("odd"), 5_000_000_000, 999_999_999);
    gnu_tar(&dir, &file, &["--format=posix", "--xattrs", "--xattrs-include=*"]);
    assert_as_unpacked(&file);
}

#[test]
fn names_of_any_bytes_and_global_headers_read_as_they_unpack() {
    use std::os::unix::ffi::OsStrExt as _;
    let (_work, dir, file) = work();
    for name in [&[0xff, 0xfe, b'\n', 1][..], b"-rf", b"a b\tc", "ü".as_bytes(), b"..."] {
        let path = dir.join(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, name).unwrap();
        set_time(&path, 1_000_000_000, 0);
    }
    let global = "--pax-option=globexthdr.name=/tmp/g,comment=of all,delete=atime,delete=ctime";
    gnu_tar(&dir, &file, &["--format=posix", global]);
    assert_as_unpacked(&file);
}

#[test]
fn an_archive_that_was_added_to_reads_as_it_unpacks() {
    let (_work, dir, file) = work();
    plain_things(&dir);
    gnu_tar(&dir, &file, &["--format=gnu"]);
    fs::write(dir.join("empty"), b"no longer").unwrap();
    fs::write(dir.join("new"), b"new").unwrap();
    fs::remove_file(dir.join("link")).unwrap();
    fs::create_dir(dir.join("link")).unwrap();
    fs::write(dir.join("link/now-a-directory"), b"1").unwrap();
    fs::remove_dir_all(dir.join("a/b")).unwrap();
    for path in ["empty", "new", "link/now-a-directory", "link", "a"] {
        set_time(&dir.join(path), 1_700_000_000, 0);
    }
    let mut append = Command::new("tar");
    append.arg("--append").arg("--file").arg(&file).arg("--directory").arg(&dir);
    run(append.args(["./empty", "./new", "./link"]));
    assert_as_unpacked(&file);
}

#[test]
fn tars_of_bsdtar_read_as_they_unpack() {
    for format in ["v7", "ustar", "pax", "gnutar"] {
        let (_work, dir, file) = work();
        plain_things(&dir);
        if matches!(format, "pax" | "gnutar") {
            long_things(&dir);
        }
        if format == "pax" {
            // Only this one has holes and attributes.
            holes(&dir);
            let path = dir.join("odd");
            rustix::fs::lsetxattr(&path, "user.k", b"v", XattrFlags::empty()).unwrap();
        }
        let mut bsdtar = Command::new("bsdtar");
        bsdtar.arg("-c").arg("--format").arg(format).arg("-f").arg(&file).arg("-C").arg(&dir);
        run(bsdtar.args(["--read-sparse", "."]));
        assert_as_unpacked(&file);
    }
}

#[test]
fn tars_of_python_read_as_they_unpack() {
    let program = "
import sys, tarfile
format = getattr(tarfile, sys.argv[3].rsplit('/', 1)[1])
with tarfile.open(sys.argv[2], 'w', format=format) as tar:
    tar.add(sys.argv[1], arcname='.')
";
    for format in ["USTAR_FORMAT", "GNU_FORMAT", "PAX_FORMAT"] {
        let (_work, dir, file) = work();
        plain_things(&dir);
        special_things(&dir);
        if format != "USTAR_FORMAT" {
            long_things(&dir);
        }
        python(program, &[&dir, &file, &Path::new("/").join(format)]);
        assert_as_unpacked(&file);
    }
}

#[derive(Debug, Clone)]
enum Thing {
    File(Vec<u8>, u32),
    Directory(u32),
    Link(String),
    Hard(usize),
    Pipe,
}

fn thing() -> impl Strategy<Value = Thing> {
    let mode = (0u32..0o1000).prop_map(|mode| mode | 0o400);
    prop_oneof![
        3 => (proptest::collection::vec(any::<u8>(), 0..3000), mode.clone())
            .prop_map(|(bytes, mode)| Thing::File(bytes, mode)),
        2 => mode.prop_map(|mode| Thing::Directory(mode | 0o700)),
        1 => "[a-z./]{1,120}".prop_map(Thing::Link),
        1 => any::<usize>().prop_map(Thing::Hard),
        1 => Just(Thing::Pipe),
    ]
}

/// Makes the things below `dir`; names that are taken, and parents that are no directories, are passed over.
fn grow(dir: &Path, things: &[(Vec<String>, Thing, i64)]) {
    let mut files = Vec::new();
    let mut made = Vec::new();
    for (path, thing, time) in things {
        let path = dir.join(path.join("/"));
        let parent = path.parent().unwrap();
        if path.symlink_metadata().is_ok() || fs::create_dir_all(parent).is_err() {
            continue;
        }
        match thing {
            Thing::File(bytes, mode) => {
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                files.push(path.clone());
            }
            Thing::Directory(mode) => {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Thing::Link(target) => symlink(target, &path).unwrap(),
            Thing::Hard(number) if !files.is_empty() => {
                fs::hard_link(&files[number % files.len()], &path).unwrap();
            }
            Thing::Hard(_) => continue,
            Thing::Pipe => node(&path, FileType::Fifo, (0, 0)),
        }
        made.push((path, *time));
    }
    for (path, time) in made.iter().rev() {
        set_time(path, *time, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]

    #[test]
    fn any_tree_comes_back_through_gnu_tar(
        things in proptest::collection::vec(
            (proptest::collection::vec("[a-c]{1,2}|[x-z]{101}", 1..4), thing(), 0i64..4_000_000_000),
            0..20,
        ),
        format in prop_oneof![Just("gnu"), Just("oldgnu"), Just("posix")],
    ) {
        let (_work, dir, file) = work();
        grow(&dir, &things);
        gnu_tar(&dir, &file, &[&format!("--format={format}"), "--sort=name"]);
        let original = without_directories(seen_by_kernel(&dir));
        let seen = without_directories(seen(&file));
        prop_assert!(original.keys().eq(seen.keys()), "the names differ");
        for (path, entry) in &original {
            let mut other = seen[path].meta.clone();
            // GNU headers have whole seconds only; directories made on the way have the time of the test.
            if format != "posix" {
                other.mtime.nanos = entry.meta.mtime.nanos;
            }
            prop_assert_eq!(&entry.meta, &other, "{}", path.display());
            prop_assert_eq!((&entry.what, entry.bytes, entry.nlink),
                (&seen[path].what, seen[path].bytes, seen[path].nlink));
        }
    }
}
