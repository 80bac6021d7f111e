//! A mount against the tree that it shows: random trees, random operations, an agent that dies in between.
//!
//! The tree travels as a tar, which tells all that a file system knows. `MODEL_SEED=n` runs another seed,
//! `MODEL_STEPS=n` longer; what failed once is in [`SEEDS`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, ReadDir};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::{Body, Mount, Origin, wait};
use rustix::fs::{Advice, CWD, FileType, Mode, Timespec, Timestamps};
use rustix::process::{Signal, kill_process};

use crate::support::lanes::{self, Lane};
use crate::support::own::Own;
use crate::support::trees::noise;
use crate::support::{Place, dfctl_at};

/// Run each time.
const SEEDS: [u64; 3] = [1, 2, 3];

const STEPS: u64 = 400;

/// Lengths at which something changes.
const LENGTHS: [usize; 9] = [0, 1, 511, 512, 4096, 65_535, 65_536, 65_537, 1_300_000];

/// Length of a file that lies alone in a content file.
const LARGE: usize = (9 << 20) + 17;

/// What of the tree stays in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stays {
    All,
    /// As much as a quota leaves: parts of files go, again and again.
    Some,
}

impl Stays {
    /// What is said of it when it is mounted.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::All => &[],
            Self::Some => &["--cache-quota", "64MiB"],
        }
    }

    /// Large files: more than the quota holds.
    fn large(self) -> usize {
        match self {
            Self::All => 2,
            Self::Some => 11,
        }
    }
}

/// Numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.next(all.len() as u64) as usize]
    }
}

/// Makes a tree of everything that a tar can carry, with so many large files in it; they are named.
fn plant(root: &Path, chance: &mut Chance, large: usize) -> Vec<PathBuf> {
    fs::create_dir_all(root).unwrap();
    let mut dirs = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for number in 0..120 {
        let dir = chance.of(&dirs).clone();
        let path = dir.join(name(number, chance));
        match chance.next(12) {
            0 | 1 if dirs.len() < 25 => {
                fs::create_dir(&path).unwrap();
                dirs.push(path.clone());
            }
            2 => symlink(
                OsString::from_vec(noise(number, 40).iter().map(|byte| byte | 1).collect()),
                &path,
            )
            .unwrap(),
            3 if !files.is_empty() => fs::hard_link(chance.of(&files), &path).unwrap(),
            4 => {
                let kinds = [FileType::Fifo, FileType::CharacterDevice, FileType::BlockDevice];
                let device = rustix::fs::makedev(7, number as u32);
                rustix::fs::mknodat(CWD, &path, *chance.of(&kinds), Mode::RUSR, device).unwrap();
            }
            5 => {
                let file = File::create(&path).unwrap();
                file.set_len(3 << 20).unwrap();
                file.write_all_at(&noise(number, 5_000), chance.next(300) * 9_000).unwrap();
                files.push(path.clone());
            }
            _ => {
                let length = *chance.of(&LENGTHS) + chance.next(3) as usize;
                fs::write(&path, noise(number, length)).unwrap();
                files.push(path.clone());
            }
        }
        adorn(&path, chance);
    }
    let large = (0..large).map(|number| {
        let path = dirs[number % dirs.len()].join(format!("large {number}"));
        fs::write(&path, noise(1_000 + number as u64, LARGE)).unwrap();
        path.strip_prefix(root).unwrap().to_owned()
    });
    large.collect()
}

/// Short ones, the longest there are, and such that are no text.
fn name(number: u64, chance: &mut Chance) -> OsString {
    let mut name = format!("{number:03}").into_bytes();
    match chance.next(8) {
        0 => name.resize(255, b'n'),
        1 => name.extend(b"\xff\xfe \n\\"),
        2 => name.extend(" ünïcödé".as_bytes()),
        _ => {}
    }
    OsString::from_vec(name)
}

/// Owner, mode, time and attributes.
fn adorn(path: &Path, chance: &mut Chance) {
    let of = fs::symlink_metadata(path).unwrap();
    std::os::unix::fs::lchown(path, Some(chance.next(3) as u32), Some(chance.next(3) as u32))
        .unwrap();
    if !of.is_symlink() {
        let mode = if of.is_dir() { 0o700 } else { 0o400 } | chance.next(0o1000) as u32;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    if (of.is_file() || of.is_dir()) && chance.next(3) == 0 {
        xattr::set(path, "user.note", &noise(chance.next(50), chance.next(300) as usize)).unwrap();
    }
    let time = Timespec {
        tv_sec: chance.next(2_000_000_000) as i64,
        tv_nsec: chance.next(1_000_000_000) as i64,
    };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything below `root`, itself among it.
fn all_below(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut at) = (vec![PathBuf::new()], 0);
    while at < found.len() {
        let full = root.join(&found[at]);
        if fs::symlink_metadata(&full).unwrap().is_dir() {
            let entries = fs::read_dir(&full).unwrap();
            let below: BTreeSet<_> =
                entries.map(|entry| found[at].join(entry.unwrap().file_name())).collect();
            found.extend(below);
        }
        at += 1;
    }
    found
}

/// What a program sees of an entry.
fn seen(of: &Metadata) -> (u32, u32, u32, u64, i64, i64, u64, u64) {
    let (size, links) = if of.is_dir() { (0, 0) } else { (of.size(), of.nlink()) };
    (of.mode(), of.uid(), of.gid(), size, of.mtime(), of.mtime_nsec(), links, of.rdev())
}

fn attributes(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let names = xattr::list(path).unwrap();
    names.map(|name| (name.clone(), xattr::get(path, &name).unwrap().unwrap())).collect()
}

/// An origin that has a directory as a tar.
fn packed(place: &Place, source: &Path) -> Origin {
    let file = place.path("tree.tar");
    let words = ["--format=pax", "--xattrs", "--sparse", "--numeric-owner", "-C"];
    let packed =
        Command::new("tar").args(words).arg(source).arg("-cf").arg(&file).arg(".").status();
    assert!(packed.unwrap().success());
    Origin::of("/tree.tar", Body::File(file)).unwrap()
}

struct World {
    // What is mounted goes before the place that it is in.
    _mounts: Vec<Mount>,
    own: Own,
    source: PathBuf,
    dir: PathBuf,
    _origin: Option<Origin>,
    paths: Vec<PathBuf>,
    files: Vec<PathBuf>,
    dirs: Vec<PathBuf>,
    /// Of the files those that do not all fit where not everything stays; the next one of them comes first.
    large: VecDeque<PathBuf>,
    stays: Stays,
    open: Vec<(PathBuf, File)>,
    listings: Vec<(PathBuf, ReadDir, BTreeSet<OsString>)>,
    /// Inodes seen on the mount, by those of the source.
    inodes: BTreeMap<u64, u64>,
    seed: u64,
    done: VecDeque<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let done: Vec<_> = self.done.iter().map(String::as_str).collect();
            eprintln!("MODEL_SEED={}, the last steps:\n  {}", self.seed, done.join("\n  "));
        }
    }
}

impl World {
    fn new(lane: Lane, stays: Stays, seed: u64, chance: &mut Chance) -> Self {
        let own = Own::start(Place::new());
        let source = own.place.dir("source");
        let large = plant(&source, chance, stays.large()).into();
        // Who looks for what is in an archive reads its small files, and of what is in one no file is passed: the directory
        // has them all to come, and each large one in a content file of its own.
        let (url, origin) = match lane {
            Lane::Lazy | Lane::Passthrough => (format!("file://{}/", source.display()), None),
            Lane::Fuse | Lane::Whole => {
                let origin = packed(&own.place, &source);
                (origin.url("/tree.tar"), Some(origin))
            }
        };
        let (dir, mounts) = lanes::mounted_with(&own, lane, stays.words(), &url);
        let paths = all_below(&source);
        let kind = |path: &&PathBuf| fs::symlink_metadata(source.join(path)).unwrap();
        let files = paths.iter().filter(|path| kind(path).is_file()).cloned().collect();
        let dirs = paths.iter().filter(|path| kind(path).is_dir()).cloned().collect();
        let (open, listings, inodes, done) = Default::default();
        let (_origin, _mounts) = (origin, mounts);
        #[rustfmt::skip]
        let world = Self {
            own, source, dir, _mounts, _origin, paths, files, dirs, large, stays, open, listings, inodes, seed, done,
        };
        world
    }

    fn step(&mut self, chance: &mut Chance) {
        match chance.next(40) {
            0..5 => self.open(chance),
            5..15 => self.read(chance),
            15..17 => self.close(chance),
            17..20 => self.map(chance),
            20..26 => self.look(chance),
            26..28 => self.list(chance),
            28..31 => self.list_on(chance),
            31..33 => self.whole(chance),
            33..36 => self.drop_pages(chance),
            36..38 => self.absent(chance),
            38 => self.evict(),
            _ => self.kill(),
        }
    }

    fn note(&mut self, what: &str, path: &Path) {
        if self.done.len() >= 30 {
            self.done.pop_front();
        }
        self.done.push_back(format!("{what} {path:?}"));
    }

    fn open(&mut self, chance: &mut Chance) {
        let path = chance.of(&self.files).clone();
        self.note("open", &path);
        let file = File::open(self.dir.join(&path)).unwrap();
        self.open.push((path, file));
        if self.open.len() > 40 {
            self.open.swap_remove(0);
        }
    }

    fn read(&mut self, chance: &mut Chance) {
        let Some(at) = (!self.open.is_empty()).then(|| chance.next(self.open.len() as u64)) else {
            return;
        };
        let path = self.open[at as usize].0.clone();
        let length = self.source.join(&path).metadata().unwrap().len();
        let offset = chance.next(length + 10_000);
        let most = *chance.of(&[100, 5_000, 70_000, 400_000]);
        let wanted = chance.next(most) as usize;
        self.note(&format!("read {wanted} at {offset} of"), &path);
        let mut shown = vec![0xee; wanted];
        let read = self.open[at as usize].1.read_at(&mut shown, offset).unwrap();
        let model = fs::read(self.source.join(&path)).unwrap();
        let start = (offset as usize).min(model.len());
        let model = &model[start..(start + wanted).min(model.len())];
        assert!(read <= model.len() && shown[..read] == model[..read], "other bytes");
        assert_eq!(read, model.len(), "a short read");
    }

    fn close(&mut self, chance: &mut Chance) {
        if !self.open.is_empty() {
            let at = chance.next(self.open.len() as u64) as usize;
            let (path, _) = self.open.swap_remove(at);
            self.note("close", &path);
        }
    }

    #[allow(unsafe_code)]
    fn map(&mut self, chance: &mut Chance) {
        let path = chance.of(&self.files).clone();
        self.note("map", &path);
        let file = File::open(self.dir.join(&path)).unwrap();
        if file.metadata().unwrap().len() > 0 {
            // SAFETY: files of a mount never change and are never cut short.
            let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
            assert!(map[..] == fs::read(self.source.join(&path)).unwrap()[..], "other bytes");
        }
    }

    fn look(&mut self, chance: &mut Chance) {
        let path = chance.of(&self.paths).clone();
        self.look_at(&path);
    }

    fn look_at(&mut self, path: &Path) {
        self.note("look at", path);
        let (shown, source) = (self.dir.join(path), self.source.join(path));
        let (is, model) =
            (fs::symlink_metadata(&shown).unwrap(), fs::symlink_metadata(&source).unwrap());
        assert_eq!(seen(&is), seen(&model));
        let known = *self.inodes.entry(model.ino()).or_insert(is.ino());
        assert_eq!(known, is.ino(), "an inode is another one, or two are one");
        if model.is_symlink() {
            assert_eq!(fs::read_link(&shown).unwrap(), fs::read_link(&source).unwrap());
        }
        if model.is_file() || model.is_dir() {
            assert_eq!(attributes(&shown), attributes(&source));
        }
    }

    fn list(&mut self, chance: &mut Chance) {
        let path = chance.of(&self.dirs).clone();
        self.note("list", &path);
        let listing = fs::read_dir(self.dir.join(&path)).unwrap();
        let names = fs::read_dir(self.source.join(&path)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name()).collect();
        self.listings.push((path, listing, names));
    }

    /// Goes on with a listing: some more names, or all that are left.
    fn list_on(&mut self, chance: &mut Chance) {
        let Some((path, mut listing, mut names)) = self.listings.pop() else { return };
        self.note("list on", &path);
        let count = *chance.of(&[1, 3, usize::MAX]);
        for entry in listing.by_ref().take(count) {
            assert!(names.remove(&entry.unwrap().file_name()), "a name twice, or of nothing");
        }
        match count {
            usize::MAX => assert!(names.is_empty(), "not listed: {names:?}"),
            _ => self.listings.push((path, listing, names)),
        }
    }

    fn whole(&mut self, chance: &mut Chance) {
        let path = chance.of(&self.files).clone();
        self.read_whole(&path);
    }

    fn read_whole(&mut self, path: &Path) {
        self.note("read all of", path);
        let shown = fs::read(self.dir.join(path)).unwrap();
        assert!(shown == fs::read(self.source.join(path)).unwrap(), "other bytes");
    }

    /// What is read next the agent is asked for.
    fn drop_pages(&mut self, chance: &mut Chance) {
        let path = chance.of(&self.files).clone();
        self.drop_pages_of(&path);
    }

    fn drop_pages_of(&mut self, path: &Path) {
        self.note("forget the pages of", path);
        let file = File::open(self.dir.join(path)).unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }

    fn absent(&mut self, chance: &mut Chance) {
        let path = chance.of(&self.dirs).join(OsStr::from_bytes(b"\xf0 is not there"));
        self.note("miss", &path);
        let missed = fs::symlink_metadata(self.dir.join(&path));
        assert_eq!(missed.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }

    /// Has something go: of what is mounted that is only what a quota takes.
    fn evict(&mut self) {
        if self.stays == Stays::Some {
            self.large.rotate_left(1);
            let path = self.large[0].clone();
            self.drop_pages_of(&path);
            return self.read_whole(&path);
        }
        self.note("evict", Path::new(""));
        let said = dfctl_at(&self.own.socket, &["cache", "gc", "--target", "0"]);
        // It may be on its way back, or have died as it was asked.
        let is_gone = ["DFS-4101", "DFS-4103"].iter().any(|code| said.stderr.contains(code));
        assert!(said.code == 0 || said.code == 9 || is_gone, "{}", said.stderr);
    }

    fn kill(&mut self) {
        self.note("kill the agent", Path::new(""));
        // One that is killed before it goes on with its mounts is started later each time.
        let answers = || dfctl_at(&self.own.socket, &["mounts"]).code == 0;
        wait::until("it goes on with its mounts", answers).unwrap();
        kill_process(self.own.agent(), Signal::KILL).unwrap();
    }
}

fn follow(lane: Lane, stays: Stays, seed: u64, steps: u64) {
    let mut chance = Chance(seed);
    let mut world = World::new(lane, stays, seed, &mut chance);
    for _ in 0..steps {
        world.step(&mut chance);
    }
    for path in world.paths.clone() {
        world.look_at(&path);
    }
    world.open.clear();
    for path in world.files.clone() {
        world.drop_pages_of(&path);
        world.read_whole(&path);
    }
    if lane == Lane::Passthrough {
        lanes::wait_until_passed(&world.own, &world.dir);
    }
    if stays == Stays::Some {
        let freed = || world.own.metric("dfs_node_quota_freed_bytes_total");
        wait::until("parts of files went", || freed().is_some_and(|freed| freed > 0)).unwrap();
    }
}

#[test]
fn a_mount_shows_what_its_tree_has_whatever_befalls_its_agent() {
    follow_all(Lane::Fuse, Stays::All);
}

#[test]
fn a_mount_that_may_not_keep_all_shows_what_its_tree_has() {
    follow_all(Lane::Fuse, Stays::Some);
}

#[test]
fn a_mount_whose_large_files_the_kernel_reads_shows_what_its_tree_has() {
    follow_all(Lane::Passthrough, Stays::All);
}

#[test]
fn a_mount_without_an_agent_shows_what_its_tree_has() {
    follow_all(Lane::Whole, Stays::All);
}

#[test]
fn a_mount_whose_reads_wait_in_the_kernel_shows_what_its_tree_has() {
    follow_all(Lane::Lazy, Stays::All);
}

fn follow_all(lane: Lane, stays: Stays) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let steps = number("MODEL_STEPS").unwrap_or(STEPS);
    match number("MODEL_SEED") {
        Some(seed) => follow(lane, stays, seed, steps),
        None => SEEDS.into_iter().for_each(|seed| follow(lane, stays, seed, steps)),
    }
}
