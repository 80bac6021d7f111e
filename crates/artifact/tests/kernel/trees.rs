//! Trees of real files: equal through the writer, the kernel's mount and the reader.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use dfs_artifact::erofs::{BlockSize, Image};
use dfs_artifact::tree::{Content, FileData, Location, Meta, TreeBuilder};
use rustix::fs::{
    CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev, mknodat, utimensat,
};

use crate::import::{assert_same, finish, import, seen_by_kernel, seen_by_reader};
use crate::mount::Mounted;
use crate::oracle;

const BLOCKS: [BlockSize; 2] = [BlockSize::B512, BlockSize::B4096];

fn assert_survives(dir: &Path) {
    let original = seen_by_kernel(dir);
    for block_size in BLOCKS {
        let work = oracle::workspace();
        let imported = import(dir, work.path(), block_size);
        oracle::fsck(&imported.image, &imported.devices);
        let mounted = Mounted::new(&imported.image, &imported.devices);
        assert_same(&original, &seen_by_kernel(mounted.path()));
        let image = Image::open(imported.written.bytes).unwrap();
        assert_same(&original, &seen_by_reader(&image, &imported.devices));
    }
}

#[test]
fn the_oracle_complains_of_a_broken_image() {
    let work = oracle::workspace();
    let mut imported = finish(&TreeBuilder::new(), work.path(), BlockSize::B4096, &[]);
    imported.written.bytes[1024 + 36] ^= 1;
    fs::write(&imported.image, &imported.written.bytes).unwrap();
    assert!(oracle::complaint(&imported.image, &[]).is_some());
}

#[test]
fn a_real_directory_survives_writer_kernel_and_reader() {
    let dir = ["/usr/share/perl", "/usr/share/perl5", "/usr/share/zoneinfo", "/usr/share"];
    let dir = dir.into_iter().map(Path::new).find(|dir| dir.is_dir()).unwrap();
    assert_survives(dir);
}

fn put(path: &Path, bytes: &[u8], mode: u32) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn make_node(path: &Path, kind: FileType, major: u32, minor: u32) {
    let mode = Mode::from_raw_mode(0o620);
    mknodat(CWD, path, kind, mode, makedev(major, minor)).unwrap();
}

pub fn set_time(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

pub fn odd_attributes(dir: &Path) {
    put(&dir.join("empty"), b"", 0o000);
    put(&dir.join("setuid"), b"#!/bin/true", 0o6755);
    fs::create_dir(dir.join("sticky")).unwrap();
    fs::set_permissions(dir.join("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    put(&dir.join("owned"), &[7; 4096], 0o640);
    std::os::unix::fs::chown(dir.join("owned"), Some(70_000), Some(4_000_000_000)).unwrap();
    put(&dir.join("old"), &[8; 4097], 0o644);
    set_time(&dir.join("old"), -86_400, 123_456_789);
    put(&dir.join("late"), &[9; 511], 0o644);
    set_time(&dir.join("late"), 5_000_000_000, 999_999_999);
    put(&dir.join("tagged"), &[1; 513], 0o644);
    set_xattr(&dir.join("tagged"), "user.comment", b"a value");
    set_xattr(&dir.join("tagged"), "user.long", &[b'x'; 2000]);
    set_xattr(&dir.join("tagged"), "user.empty", b"");
    set_xattr(&dir.join("tagged"), "trusted.overlay.opaque", b"y");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&dir.join("tagged"), "security.capability", &capability);
    set_xattr(&dir.join("sticky"), "user.on-a-directory", &[0, 1, 2]);
    // Version 2; user::rw-, user:1000:r--, group::r--, mask::r--, other::---.
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, !0), (2, 4, 1000), (4, 4, !0), (0x10, 4, !0), (0x20, 0, !0)];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        acl.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
        acl.extend(id.to_le_bytes());
    }
    set_xattr(&dir.join("owned"), "system.posix_acl_access", &acl);
    set_xattr(&dir.join("sticky"), "system.posix_acl_default", &acl);
}

pub fn odd_names(dir: &Path) {
    fs::create_dir_all(dir.join("deep/er/and/deeper")).unwrap();
    put(&dir.join("deep/er/and/deeper/file"), b"x", 0o644);
    put(&dir.join(OsStr::from_bytes(&[0xff, 0xfe, b'\n', 1])), b"bytes", 0o644);
    for first in [b'!', b'-', b'.', b'~', 0x80] {
        let name = [&[first][..], &[b'n'; 254]].concat();
        put(&dir.join(OsStr::from_bytes(&name)), &[first], 0o644);
    }
    fs::hard_link(dir.join("owned"), dir.join("deep/link-1")).unwrap();
    fs::hard_link(dir.join("owned"), dir.join("deep/er/link-2")).unwrap();
    symlink("owned", dir.join("symlink")).unwrap();
    symlink("/".repeat(4095), dir.join("long-symlink")).unwrap();
    symlink("t".repeat(300), dir.join("symlink-300")).unwrap();
    symlink("t".repeat(3000), dir.join("symlink-3000")).unwrap();
    symlink(OsStr::from_bytes(&[0xff; 10]), dir.join("symlink-bytes")).unwrap();
    make_node(&dir.join("null"), FileType::CharacterDevice, 1, 3);
    make_node(&dir.join("disk"), FileType::BlockDevice, 259, 70_000);
    make_node(&dir.join("fifo"), FileType::Fifo, 0, 0);
    make_node(&dir.join("socket"), FileType::Socket, 0, 0);
}

#[test]
fn every_kind_of_entry_with_odd_names_and_attributes_survives() {
    let dir = tempfile::tempdir().unwrap();
    odd_attributes(dir.path());
    odd_names(dir.path());
    assert_survives(dir.path());
}

#[test]
fn a_directory_of_a_hundred_thousand_entries_is_found_through() {
    let mut tree = TreeBuilder::new();
    let name = |number: u32| format!("d/entry-{number:06}-{:x}", number % 977).into_bytes();
    for number in 0..100_000 {
        let location = Location { space: 0, offset: 0 };
        let data = FileData { length: 1, location, digest: None };
        tree.add(&name(number), Meta::with_mode(0o644), Content::File(data)).unwrap();
    }
    for block_size in BLOCKS {
        let work = oracle::workspace();
        let content = work.path().join("content");
        fs::write(&content, b"!").unwrap();
        let imported = finish(&tree, work.path(), block_size, &[(content, 1)]);
        oracle::fsck(&imported.image, &imported.devices);
        let mounted = Mounted::new(&imported.image, &imported.devices);
        assert_eq!(fs::read_dir(mounted.path().join("d")).unwrap().count(), 100_000);
        let image = Image::open(imported.written.bytes).unwrap();
        let dir = image.lookup(image.root(), b"d").unwrap().unwrap();
        for number in (0..100_000).step_by(997) {
            let path = name(number);
            let through_kernel = mounted.path().join(OsStr::from_bytes(&path));
            assert_eq!(fs::read(through_kernel).unwrap(), b"!");
            let found = image.lookup(dir, &path[2..]).unwrap().unwrap();
            assert_eq!(image.attr(found).unwrap().size, 1);
        }
        assert_eq!(image.lookup(dir, b"entry-0").unwrap(), None);
        assert_eq!(image.lookup(dir, b"zzz").unwrap(), None);
    }
}

#[test]
fn a_file_above_four_gigabytes_is_one_extent_and_reads_at_both_ends() {
    const LENGTH: u64 = (5 << 30) + 123;
    let work = oracle::workspace();
    let content = work.path().join("content");
    let mut space = File::create(&content).unwrap();
    space.seek(SeekFrom::Start(8192)).unwrap();
    space.write_all(b"first").unwrap();
    space.write_all_at(b"last", 8192 + LENGTH - 4).unwrap();
    let mut tree = TreeBuilder::new();
    let location = Location { space: 0, offset: 8192 };
    let data = FileData { length: LENGTH, location, digest: Some(Box::new([7; 32])) };
    tree.add(b"big", Meta::with_mode(0o644), Content::File(data)).unwrap();
    let spaces = [(content, 8192 + LENGTH)];
    let imported = finish(&tree, work.path(), BlockSize::B512, &spaces);
    assert!(oracle::dump(&imported.image).contains("Filesystem blocksize"));
    let mounted = Mounted::new(&imported.image, &imported.devices);
    let mut file = File::open(mounted.path().join("big")).unwrap();
    let mut first = [0; 5];
    file.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first");
    file.seek(SeekFrom::End(-4)).unwrap();
    let mut last = Vec::new();
    file.read_to_end(&mut last).unwrap();
    assert_eq!(last, b"last");
    let image = Image::open(imported.written.bytes).unwrap();
    let nid = image.lookup(image.root(), b"big").unwrap().unwrap();
    assert_eq!(imported.written.digests, [(nid, [7; 32])]);
    let extent = image.extent(nid, LENGTH - 4).unwrap().unwrap();
    assert_eq!((extent.space, extent.offset, extent.length), (Some(0), 8192 + LENGTH - 4, 4));
    assert_eq!(image.extent(nid, 0).unwrap().unwrap().length, LENGTH);
    assert_eq!(image.extent(nid, LENGTH).unwrap(), None);
}

#[test]
fn files_in_the_last_of_256_spaces_are_read_by_the_kernel() {
    let work = oracle::workspace();
    let mut tree = TreeBuilder::new();
    let mut spaces = Vec::new();
    for number in 0..256u16 {
        let content = work.path().join(format!("content-{number}"));
        fs::write(&content, number.to_string()).unwrap();
        let length = number.to_string().len() as u64;
        let location = Location { space: number, offset: 0 };
        let data = FileData { length, location, digest: None };
        let name = format!("file-{number}");
        tree.add(name.as_bytes(), Meta::with_mode(0o644), Content::File(data)).unwrap();
        spaces.push((content, length));
    }
    let imported = finish(&tree, work.path(), BlockSize::B4096, &spaces);
    oracle::fsck(&imported.image, &imported.devices);
    let mounted = Mounted::new(&imported.image, &imported.devices);
    for number in [0, 1, 127, 255] {
        let read = fs::read_to_string(mounted.path().join(format!("file-{number}")));
        assert_eq!(read.unwrap(), number.to_string());
    }
}
