//! Layers of an image, merged here and laid over one another by the kernel's overlayfs: the same in every entry.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_artifact::erofs::{BlockSize, Image, ImageOptions, Space, write_image};
use dfs_artifact::image::{Layer, merge};
use dfs_artifact::tar::TarScan;
use dfs_artifact::tree::Mtime;
use rustix::fs::{XattrFlags, lsetxattr};

use crate::import::{Seen, assert_same, finish, seen_by_kernel};
use crate::mount::Mounted;
use crate::oracle;
use crate::trees::{make_node, set_time, set_xattr};

const OPAQUE: &str = ".wh..wh..opq";
const PREFIX: &str = ".wh.";

/// A layer as its tar has it, in a directory.
struct Given {
    number: usize,
    dir: PathBuf,
    /// Directories that the tar does not describe.
    implied: Vec<&'static str>,
    /// Hard links to a lower layer: name, target.
    links: Vec<(&'static str, &'static str)>,
}

impl Given {
    fn new(work: &Path, number: usize) -> Self {
        let dir = work.join(format!("given-{number}"));
        fs::create_dir(&dir).unwrap();
        Self { number, dir, implied: Vec::new(), links: Vec::new() }
    }

    fn put(&self, path: &str, bytes: &[u8], mode: u32) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn directory(&self, path: &str, mode: u32) {
        let path = self.dir.join(path);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mark(&self, path: &str) {
        self.put(path, b"", 0o600);
    }

    /// Paths of what is in the layer itself, directories before what is in them.
    fn paths(&self) -> Vec<PathBuf> {
        let linked = self.links.iter().flat_map(|(name, target)| [*name, *target]);
        let linked: BTreeSet<&Path> = linked.map(Path::new).collect();
        let paths = seen_by_kernel(&self.dir).into_keys();
        paths.filter(|path| !linked.contains(path.as_path())).collect()
    }

    /// Gives everything a time of its own, of this layer.
    fn date(&self) {
        for (place, path) in (0..).zip(self.paths().iter().rev()) {
            let secs = 1_600_000_000 + self.number as i64 * 1000 + place;
            set_time(&self.dir.join(path), secs, 5);
        }
    }

    /// The tar of it, without what is implied; a hard link to a lower layer without its target.
    fn tar(&self, into: &Path) {
        for (name, target) in &self.links {
            fs::write(self.dir.join(target), b"in no layer").unwrap();
            fs::hard_link(self.dir.join(target), self.dir.join(name)).unwrap();
        }
        self.date();
        let implied: BTreeSet<&Path> = self.implied.iter().map(Path::new).collect();
        let targets: BTreeSet<&Path> = self.links.iter().map(|(_, to)| Path::new(*to)).collect();
        let names = self.links.iter().map(|(name, _)| Path::new(*name));
        let paths = self.paths();
        let mut listed: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        listed.retain(|path| !implied.contains(path));
        // What is linked to comes first, so that the others are the links.
        listed.extend(targets.iter().copied().chain(names));
        let list: Vec<String> = listed.iter().map(|path| format!("./{}", path.display())).collect();
        let list_file = into.with_extension("list");
        fs::write(&list_file, list.join("\n")).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--create", "--format=pax", "--sparse", "--xattrs", "--xattrs-include=*"]);
        tar.args(["--no-recursion", "--verbatim-files-from", "--file"]).arg(into);
        tar.arg("--directory").arg(&self.dir).arg("--files-from").arg(list_file);
        assert!(tar.status().unwrap().success());
        for target in targets {
            let mut delete = Command::new("tar");
            delete.arg("--delete").arg("--file").arg(into).arg(format!("./{}", target.display()));
            assert!(delete.status().unwrap().success());
            fs::remove_file(self.dir.join(target)).unwrap();
        }
        for (name, _) in &self.links {
            fs::remove_file(self.dir.join(name)).unwrap();
        }
        self.date();
    }

    /// Unpacks it for overlayfs over the directories that were unpacked before.
    fn unpack(&self, into: &Path, lower: &[PathBuf]) {
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--sparse=always"]).arg(&self.dir).arg(into);
        assert!(copy.status().unwrap().success());
        let paths = self.paths();
        for path in paths.iter().rev() {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some(hidden) = name.strip_prefix(PREFIX) else { continue };
            let real = into.join(path);
            fs::remove_file(&real).unwrap();
            let beside = real.with_file_name(hidden);
            if name == OPAQUE {
                opaque(real.parent().unwrap());
            } else if hidden.starts_with(PREFIX) {
                continue;
            } else if beside.is_dir() {
                opaque(&beside);
            } else if !beside.exists() {
                make_node(&beside, rustix::fs::FileType::CharacterDevice, 0, 0);
            }
        }
        for (name, target) in &self.links {
            let there = lower.iter().rev().map(|dir| dir.join(target)).find(|path| path.exists());
            fs::hard_link(there.unwrap(), into.join(name)).unwrap();
        }
        let below = (lower.len() > 1).then(|| overlay(lower));
        let below = below.as_ref().map(Mounted::path).or(lower.last().map(PathBuf::as_path));
        let is_dir =
            |path: &&PathBuf| into.join(path).symlink_metadata().is_ok_and(|stat| stat.is_dir());
        for path in paths.iter().rev().filter(is_dir) {
            let real = into.join(path);
            let implied = self.implied.iter().any(|implied| Path::new(implied) == path);
            let model = match below.map(|below| below.join(path)).filter(|path| path.is_dir()) {
                Some(below) if implied => below,
                _ => self.dir.join(path),
            };
            copy_attributes(&model, &real);
        }
    }
}

fn opaque(dir: &Path) {
    set_xattr(dir, "trusted.overlay.opaque", b"y");
}

fn copy_attributes(from: &Path, to: &Path) {
    let stat = fs::metadata(from).unwrap();
    std::os::unix::fs::chown(to, Some(stat.uid()), Some(stat.gid())).unwrap();
    fs::set_permissions(to, stat.permissions()).unwrap();
    for (name, value) in seen_by_kernel_alone(from).meta.xattrs {
        lsetxattr(to, &name[..], &value, XattrFlags::empty()).unwrap();
    }
    set_time(to, stat.mtime(), stat.mtime_nsec());
}

fn seen_by_kernel_alone(path: &Path) -> Seen {
    seen_by_kernel(path).remove(Path::new("")).unwrap()
}

/// The kernel's overlay of directories, the lowest first.
fn overlay(layers: &[PathBuf]) -> Mounted {
    let top_first = layers.iter().rev().map(|layer| ("lowerdir+", layer.as_path()));
    Mounted::of("overlay", top_first.chain([("source", Path::new("layers"))]))
}

/// Mounts what layers make, with their tars as devices.
fn merged(tars: &[PathBuf], work: &Path) -> Mounted {
    let (mut trees, mut spaces) = (Vec::new(), Vec::new());
    for path in tars {
        let tar = fs::read(path).unwrap();
        let mut scan = TarScan::new(tar.len() as u64);
        while let Some(wanted) = scan.wanted() {
            scan.feed(&tar[wanted.start as usize..wanted.end as usize]).unwrap();
        }
        let (scanned_tar, links) = scan.finish_layer().unwrap();
        assert_eq!((scanned_tar.parts.len(), scanned_tar.left_out.named.len()), (0, 0));
        let space = Space { length: tar.len() as u64, tag: [b'x'; 64] };
        let options = ImageOptions {
            block_size: BlockSize::B512,
            build_time: Mtime::default(),
            spaces: vec![space],
        };
        let image = write_image(&scanned_tar.tree, &options).unwrap();
        let image = Image::open(image.bytes).unwrap();
        trees.push((image, links));
        spaces.push((path.clone(), tar.len() as u64));
    }
    let layers: Vec<Layer<'_, Vec<u8>>> = (0..)
        .zip(&trees)
        .map(|(first_space, (image, links))| Layer { image, first_space, links, digest: &|_| None })
        .collect();
    let tree = merge(&layers).unwrap().tree;
    let imported = finish(&tree, work, BlockSize::B512, &spaces);
    oracle::fsck(&imported.image, &imported.devices);
    Mounted::new(&imported.image, &imported.devices)
}

/// What is seen of a directory, names of one file told by the first of them: how many names the file has is another
/// matter where a layer hides some of them.
fn seen(dir: &Path) -> (BTreeMap<PathBuf, Seen>, BTreeMap<PathBuf, PathBuf>) {
    let mut found = seen_by_kernel(dir);
    let (mut first, mut same) = (HashMap::new(), BTreeMap::new());
    for (path, seen) in &mut found {
        seen.nlink = 0;
        let stat = dir.join(path).symlink_metadata().unwrap();
        if !stat.is_dir() {
            same.insert(path.clone(), first.entry(stat.ino()).or_insert(path.clone()).clone());
        }
    }
    (found, same)
}

fn lowest(work: &Path) -> Given {
    let given = Given::new(work, 0);
    given.put("kept/deep/file", &[1; 5000], 0o644);
    given.put("kept/setuid", b"#!/bin/true", 0o4755);
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&given.dir.join("kept/setuid"), "security.capability", &capability);
    given.put("gone", b"1", 0o644);
    given.put("gone-dir/a/b", b"1", 0o644);
    given.put("emptied/a/b", b"1", 0o644);
    given.put("emptied/c", b"1", 0o644);
    given.put("begun-anew/old", b"1", 0o644);
    given.put("!first", b"1", 0o644);
    given.put("file-to-dir", b"1", 0o644);
    given.put("dir-to-file/x/y", b"1", 0o644);
    given.put("link-me", &[2; 700], 0o640);
    given.put("names/one", b"one file", 0o644);
    for name in ["names/two", "names/three", "names/too"] {
        fs::hard_link(given.dir.join("names/one"), given.dir.join(name)).unwrap();
    }
    given.directory("attributes", 0o700);
    given.put("attributes/below", b"1", 0o600);
    set_xattr(&given.dir.join("attributes"), "user.lower", b"1");
    symlink("kept", given.dir.join("symlink")).unwrap();
    symlink("kept", given.dir.join("symlink-to-dir")).unwrap();
    make_node(&given.dir.join("null"), rustix::fs::FileType::CharacterDevice, 1, 3);
    make_node(&given.dir.join("disk"), rustix::fs::FileType::BlockDevice, 8, 70_000);
    make_node(&given.dir.join("fifo"), rustix::fs::FileType::Fifo, 0, 0);
    let sparse = File::create(given.dir.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[3; 4096], 65_536).unwrap();
    given
}

fn middle(work: &Path) -> Given {
    let mut given = Given::new(work, 1);
    given.mark(".wh.gone");
    given.mark(".wh.gone-dir");
    given.mark(".wh.!first");
    given.mark(&format!("emptied/{OPAQUE}"));
    given.put("emptied/a/new", b"2", 0o644);
    given.mark(".wh.begun-anew");
    given.put("begun-anew/new", b"2", 0o644);
    given.put("file-to-dir/x", b"2", 0o644);
    given.put("dir-to-file", b"2", 0o644);
    given.put("kept/deep/more", &[4; 513], 0o644);
    given.put("names/two", b"another", 0o644);
    given.mark("names/.wh.three");
    given.directory("attributes", 0o511);
    set_xattr(&given.dir.join("attributes"), "user.upper", b"2");
    given.put("symlink-to-dir/x", b"2", 0o644);
    given.mark(".wh..wh.aufs");
    fs::write(given.dir.join(".wh.link-me"), b"").unwrap();
    given.links.push(("linked", "link-me"));
    given.implied.extend(["kept", "kept/deep", "emptied", "names"]);
    given
}

fn top(work: &Path) -> Given {
    let mut given = Given::new(work, 2);
    given.put("gone", b"back again", 0o644);
    given.put("gone-dir/other", b"3", 0o644);
    given.put("attributes/above", b"3", 0o644);
    given.mark("file-to-dir/.wh.x");
    given.mark(".wh.null");
    given.mark("names/.wh.never-was");
    given.put("kept/deep/file", b"3", 0o600);
    given.implied.extend(["attributes", "file-to-dir", "names", "kept/deep", "kept"]);
    given
}

#[test]
fn layers_make_what_overlayfs_shows_of_them() {
    let work = oracle::workspace();
    let (mut tars, mut unpacked): (Vec<PathBuf>, Vec<PathBuf>) = (Vec::new(), Vec::new());
    for (number, given) in (0..).zip([lowest, middle, top]) {
        let given = given(work.path());
        let tar = work.path().join(format!("layer-{number}.tar"));
        given.tar(&tar);
        let into = work.path().join(format!("unpacked-{number}"));
        given.unpack(&into, &unpacked);
        tars.push(tar);
        unpacked.push(into);
    }
    let kernels = overlay(&unpacked);
    let ours = merged(&tars, work.path());
    let ((expected, expected_same), (found, found_same)) =
        (seen(kernels.path()), seen(ours.path()));
    // Layers were laid over one another at all, and names of one file are told.
    let there = |path: &str| expected.contains_key(Path::new(path));
    assert!(there("kept/deep/more") && there("linked") && !there("link-me") && !there("!first"));
    assert_eq!(expected_same[Path::new("names/too")], Path::new("names/one"));
    assert_same(&expected, &found);
    assert_eq!(expected_same, found_same);
}
