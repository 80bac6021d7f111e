//! Reading what is there, in every way that programs read.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use dfs_fuse::content::MemoryContent;
use dfs_fuse::core::NodeId;
use dfs_fuse::mount::Opens;
use dfs_fuse::tree::{Extent, Kind, MemoryTree, MemoryTreeBuilder, Timestamp, Tree};

use crate::support::{Fixture, noise, number, one_file, read, until};

fn colourful() -> (Arc<MemoryTree>, Vec<Vec<u8>>) {
    let spaces = vec![noise(300_000), noise(70_000)];
    let mut builder = MemoryTreeBuilder::new();
    let data = |space, offset, length| Extent::Data { space, offset, length };
    builder.dir("dir", 0o2751).unwrap();
    builder.dir("dir/deep", 0o700).unwrap();
    builder.dir("empty", 0o755).unwrap();
    let whole = builder.file("dir/whole", 0o644, vec![data(0, 0, 300_000)]).unwrap();
    let parts = vec![data(1, 17, 60_001), Extent::Zero { length: 4097 }, data(0, 5, 131_072)];
    let parts = builder.file("dir/deep/parts", 0o4755, parts).unwrap();
    builder.file("nothing", 0o600, vec![]).unwrap();
    builder.hard_link("dir/deep/again", whole).unwrap();
    builder.symlink("link", b"dir/whole").unwrap();
    builder.symlink("long", &vec![b'x'; 4000]).unwrap();
    builder.special("null", Kind::CharDevice, 0o666, 0x103).unwrap();
    builder.special("disk", Kind::BlockDevice, 0o660, 0x800).unwrap();
    builder.special("pipe", Kind::Fifo, 0o644, 0).unwrap();
    builder.special("socket", Kind::Socket, 0o755, 0).unwrap();
    let name = "n".repeat(255);
    builder.file(&name, 0o444, vec![data(1, 0, 1)]).unwrap();
    for number in 0..700 {
        builder.file(&format!("empty{number}"), 0o644, vec![data(0, number, 10)]).unwrap();
    }
    builder.own(parts, 1000, 2000, Timestamp { seconds: -5, nanoseconds: 123_456_789 });
    builder.own(whole, 7, 8, Timestamp { seconds: 1_700_000_000, nanoseconds: 1 });
    builder.xattr(whole, "user.colour", b"blue").xattr(whole, "trusted.t", &[0, 1, 2]);
    // cap_net_raw, permitted and effective; the kernel reads it before it tells it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    builder.xattr(parts, "security.capability", &capability);
    (Arc::new(builder.build()), spaces)
}

fn bytes_of(tree: &MemoryTree, nid: u64, spaces: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(extent) = tree.extent(nid, bytes.len() as u64).unwrap() {
        match extent {
            Extent::Zero { length } => bytes.resize(bytes.len() + length as usize, 0),
            Extent::Data { space, offset, length } => {
                let at = offset as usize;
                bytes.extend(&spaces[usize::from(space)][at..at + length as usize]);
            }
        }
    }
    bytes
}

fn mode_of(kind: Kind) -> u32 {
    match kind {
        Kind::File => libc::S_IFREG,
        Kind::Directory => libc::S_IFDIR,
        Kind::Symlink => libc::S_IFLNK,
        Kind::CharDevice => libc::S_IFCHR,
        Kind::BlockDevice => libc::S_IFBLK,
        Kind::Fifo => libc::S_IFIFO,
        Kind::Socket => libc::S_IFSOCK,
    }
}

/// Compares everything below `path` with the tree below `nid`; gives the number of names met.
fn compare(path: &Path, tree: &MemoryTree, nid: u64, spaces: &[Vec<u8>]) -> usize {
    let attr = tree.attr(nid).unwrap();
    let meta = path.symlink_metadata().unwrap();
    let node = if nid == tree.root() { NodeId::ROOT.raw() } else { nid };
    let expected = (node, mode_of(attr.kind) | u32::from(attr.permissions));
    assert_eq!((meta.ino(), meta.mode()), expected, "{path:?}");
    assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (attr.uid, attr.gid, attr.nlink.into()));
    assert_eq!(meta.rdev(), u64::from(attr.rdev), "{path:?}");
    let mtime = (attr.mtime.seconds, i64::from(attr.mtime.nanoseconds));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), mtime, "{path:?}");
    assert_eq!(meta.size(), attr.size, "{path:?}");
    let names: Vec<_> = xattr::list(path).unwrap().map(|name| name.as_bytes().to_vec()).collect();
    assert_eq!(names, tree.list_xattr(nid).unwrap(), "{path:?}");
    for name in names {
        let value = xattr::get(path, std::ffi::OsStr::from_bytes(&name)).unwrap();
        assert_eq!(value, tree.xattr(nid, &name).unwrap(), "{path:?}");
    }
    match attr.kind {
        Kind::File => assert!(read(path) == bytes_of(tree, nid, spaces), "{path:?}"),
        Kind::Symlink => {
            let target = std::fs::read_link(path).unwrap();
            assert_eq!(target.as_os_str().as_bytes(), tree.read_link(nid).unwrap());
        }
        Kind::Directory => return 1 + compare_listing(path, tree, nid, spaces),
        Kind::CharDevice | Kind::BlockDevice | Kind::Fifo | Kind::Socket => {}
    }
    1
}

fn compare_listing(path: &Path, tree: &MemoryTree, nid: u64, spaces: &[Vec<u8>]) -> usize {
    let mut expected = BTreeMap::new();
    tree.read_dir(nid, 0, &mut |entry| {
        if entry.name != b"." && entry.name != b".." {
            expected.insert(entry.name.to_vec(), entry.nid);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let listed: Vec<_> = std::fs::read_dir(path).unwrap().map(Result::unwrap).collect();
    assert_eq!(listed.len(), expected.len(), "{path:?}");
    listed
        .into_iter()
        .map(|entry| {
            let nid = expected[entry.file_name().as_bytes()];
            let kind = mode_of(tree.attr(nid).unwrap().kind);
            let is_dir = entry.file_type().unwrap().is_dir();
            assert_eq!(is_dir, kind == libc::S_IFDIR);
            compare(&entry.path(), tree, nid, spaces)
        })
        .sum()
}

#[test]
fn a_mount_shows_the_tree_as_it_is() {
    let (tree, spaces) = colourful();
    for opens in [Opens::Silent, Opens::Asked] {
        for missing in [false, true] {
            let content = match missing {
                true => MemoryContent::missing(spaces.clone()),
                false => MemoryContent::cached(spaces.clone()),
            };
            let fixture = Fixture::with(&tree, content, |options| options.opens = opens);
            let met = compare(fixture.mounted.dir(), &tree, tree.root(), &spaces);
            let hard_links = 1;
            assert_eq!(met as u64, tree.totals().inodes + hard_links);
        }
    }
}

#[test]
fn names_that_are_not_there_are_not_found() {
    let (tree, spaces) = colourful();
    let fixture = Fixture::new(&tree, MemoryContent::cached(spaces));
    for name in ["none", "dir/none", "empty/none", "none/none"] {
        for _ in 0..2 {
            assert_eq!(number(fixture.path(name).metadata()), Some(libc::ENOENT), "{name}");
        }
    }
    assert_eq!(number(fixture.path("nothing/x").metadata()), Some(libc::ENOTDIR));
}

#[test]
fn the_filesystem_says_what_it_is_and_how_large() {
    let (tree, spaces) = colourful();
    let fixture = Fixture::new(&tree, MemoryContent::cached(spaces));
    let stat = rustix::fs::statvfs(fixture.mounted.dir()).unwrap();
    assert_eq!(stat.f_files, tree.totals().inodes);
    assert_eq!(stat.f_blocks, tree.totals().bytes.div_ceil(stat.f_frsize));
    assert_eq!((stat.f_bavail, stat.f_namemax), (0, 255));
    let mounts = dfs_fuse::mount::mounts().unwrap();
    let ours = mounts.iter().find(|mount| mount.dir == fixture.mounted.dir()).unwrap();
    assert!(ours.is_ours());
    assert_eq!(ours.name, "https://host/a%20b%2Cc");
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains("fuse.dfs")).unwrap();
    for option in ["ro,", "nosuid", "nodev", "default_permissions", "allow_other"] {
        assert!(line.contains(option), "{option}: {line}");
    }
}

#[test]
fn programs_read_in_every_way() {
    let bytes = noise(3_000_001);
    let tree = one_file(bytes.len());
    let fixture = Fixture::new(&tree, MemoryContent::missing(vec![bytes.clone()]));
    let path = fixture.path("f");
    let cat = Command::new("cat").arg(&path).output().unwrap();
    assert!(cat.status.success() && cat.stdout == bytes);
    // cp uses copy_file_range or sendfile.
    let copy = tempfile::NamedTempFile::new().unwrap();
    assert!(Command::new("cp").arg(&path).arg(copy.path()).status().unwrap().success());
    assert!(read(copy.path()) == bytes);
    let direct = Command::new("dd")
        .args(["iflag=direct", "bs=64k", "status=none"])
        .arg(format!("if={}", path.display()))
        .output()
        .unwrap();
    assert!(direct.status.success() && direct.stdout == bytes);
    let mut end = [9; 100];
    assert_eq!(File::open(&path).unwrap().read_at(&mut end, 2_999_990).unwrap(), 11);
    assert_eq!(end[..11], bytes[2_999_990..]);
    assert_eq!(File::open(&path).unwrap().read_at(&mut end, 3_000_001).unwrap(), 0);
}

#[test]
#[allow(unsafe_code)]
fn a_mapping_shows_the_file() {
    let bytes = noise(1_000_003);
    let tree = one_file(bytes.len());
    let fixture = Fixture::new(&tree, MemoryContent::missing(vec![bytes.clone()]));
    let file = File::open(fixture.path("f")).unwrap();
    // SAFETY: files of a mount never change and are never cut short.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    for at in [999_999, 0, 500_000, 65_536, 65_535] {
        assert_eq!(map[at], bytes[at]);
    }
    assert!(map[..] == bytes[..]);
}

#[test]
fn a_program_runs_from_the_mount() {
    let bytes = std::fs::read("/bin/true").unwrap();
    let tree = one_file(bytes.len());
    let fixture = Fixture::new(&tree, MemoryContent::missing(vec![bytes]));
    assert!(Command::new(fixture.path("f")).status().unwrap().success());
}

#[test]
fn random_small_reads_give_the_files_bytes() {
    let bytes = noise(8_000_001);
    let tree = one_file(bytes.len());
    let fixture = Fixture::new(&tree, MemoryContent::missing(vec![bytes.clone()]));
    let file = File::open(fixture.path("f")).unwrap();
    std::thread::scope(|scope| {
        for seed in 1..5u64 {
            let (file, bytes) = (&file, &bytes);
            scope.spawn(move || {
                let mut at = seed;
                for _ in 0..2000 {
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
                    let offset = (at >> 33) as usize % bytes.len();
                    let mut buf = [0; 777];
                    let got = file.read_at(&mut buf, offset as u64).unwrap();
                    assert_eq!(buf[..got], bytes[offset..(offset + 777).min(bytes.len())]);
                }
            });
        }
    });
}

/// Whether the page of a small file is in the page cache.
#[allow(unsafe_code)]
fn is_cached(path: &Path) -> bool {
    let file = File::open(path).unwrap();
    // SAFETY: files of a mount never change and are never cut short.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    let mut resident = 0_u8;
    // SAFETY: the mapping has one page, of which one byte is told.
    let told = unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), 1, &raw mut resident) };
    assert_eq!(told, 0);
    resident & 1 == 1
}

#[test]
fn small_files_are_there_before_who_reads_them_in_order_comes_to_them() {
    let bytes = noise(200_000);
    let mut builder = MemoryTreeBuilder::new();
    for at in 0..200 {
        let extent = Extent::Data { space: 0, offset: at * 1000, length: 900 };
        builder.file(&format!("f{at:03}"), 0o644, vec![extent]).unwrap();
    }
    let content = MemoryContent::cached(vec![bytes.clone()]);
    let fixture = Fixture::new(&Arc::new(builder.build()), content);
    let paths: Vec<_> = (0..200).map(|at| fixture.path(&format!("f{at:03}"))).collect();
    // The kernel takes nothing of what it does not know.
    assert!(paths.iter().all(|path| path.metadata().is_ok_and(|meta| meta.len() == 900)));
    for path in &paths[..3] {
        assert!(!is_cached(path), "{path:?}");
        read(path);
    }
    until("the next ones are there", || paths[3..7].iter().all(|path| is_cached(path)));
    assert!(!is_cached(&paths[7]), "nobody is told yet that they go on");
    for (at, path) in paths.iter().enumerate() {
        assert!(read(path) == bytes[at * 1000..][..900], "{path:?}");
    }
}

#[test]
fn several_mounts_live_in_one_process() {
    let first = noise(100_000);
    let second: Vec<u8> = first.iter().rev().copied().collect();
    let tree = one_file(first.len());
    let one = Fixture::new(&tree, MemoryContent::missing(vec![first.clone()]));
    let two = Fixture::new(&tree, MemoryContent::missing(vec![second.clone()]));
    assert!(read(&one.path("f")) == first && read(&two.path("f")) == second);
    drop(one);
    assert!(read(&two.path("f")) == second);
}
