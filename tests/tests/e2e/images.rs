//! Images as others unpack them, entry by entry: umoci unpacks the same layout as root, and the two trees are the same.
//!
//! What is compared: names, types, permissions, owners, times, targets, which names are one file, attributes,
//! capabilities, numbers of devices, contents. Decision 34 says what we take from whom where implementations differ.

mod hostile;
mod odd;
mod random;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use dfs_tests::Registry;
use dfs_tests::registry::Guard;

use crate::support::entries::{self, Holes};
use crate::support::images::{Layout, Packing, here};
use crate::support::tars::{Entry, Tar};
use crate::support::{Agent, Place};

/// Where images are pushed and mounted.
struct Scene {
    registry: Registry,
    agent: Agent,
    place: Place,
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
        let agent = Agent::solo(&place, "agent");
        Self { registry, agent, place }
    }

    /// A layout without anything in it.
    fn layout(&self, name: &str) -> Layout {
        Layout::new(self.place.path(name))
    }

    /// The image of these tars, the lowest first, ready to be unpacked and pushed.
    fn image(&self, name: &str, layers: &[Vec<u8>]) -> Layout {
        let mut layout = self.layout(name);
        for layer in layers {
            layout.tar(layer, Packing::Gzip);
        }
        layout.name(layout.image(here()));
        layout
    }

    /// Mounts what a layout has.
    fn mount(&self, layout: &Layout, name: &str) -> PathBuf {
        self.registry.push(layout.dir(), &format!("{name}:1")).unwrap();
        let dir = self.place.path(&format!("mount-{name}"));
        self.agent.mount(&self.registry.url(&format!("{name}:1")), dir)
    }

    /// Mounts and unpacks what a layout has, and compares; where it is mounted.
    #[track_caller]
    fn compare(&self, layout: &Layout, name: &str) -> PathBuf {
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let dir = self.mount(layout, name);
        let shown = entries::walk(&dir);
        let unpacked = layout.unpacked(&self.place.path(&format!("bundle-{name}")));
        let unpacked = entries::walk(&unpacked);
        // A clock may step back by a second between two programs.
        let since = i64::try_from(begun).unwrap() - 1;
        let unpacked = entries::but_for_dates_of_unpacking(unpacked, &shown, since);
        entries::assert_same(&shown, &unpacked, Holes::Unsaid);
        dir
    }

    fn umount(&self, dir: &Path) {
        self.agent.dfctl(&["umount", dir.to_str().unwrap()]);
    }
}

/// A Debian root that mmdebstrap made, which `cargo xtask test` keeps outside of the checkout.
fn debian() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    let root = cache.join("dfs/trixie");
    assert!(root.join("usr/bin/dpkg").exists(), "{root:?}: `cargo xtask test` makes it");
    root
}

/// A layer of what is below `root` at these paths.
fn packed(root: &Path, into: &Path, paths: &[&str]) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.args(["--create", "--format=pax", "--xattrs", "--xattrs-include=*", "--sort=name"]);
    command.args(["--one-file-system", "--numeric-owner", "--file"]).arg(into);
    assert!(command.arg("--directory").arg(root).args(paths).status().unwrap().success());
    fs::read(into).unwrap()
}

#[test]
fn a_root_of_debian_in_several_layers_is_as_it_is_unpacked_and_its_programs_run() {
    let scene = Scene::new();
    let root = debian();
    let below = |tar: &str, paths: &[&str]| packed(&root, &scene.place.path(tar), paths);
    let links = ["bin", "lib", "lib64", "sbin"].into_iter().filter(|name| root.join(name).exists());
    let links: Vec<&str> = links.collect();
    let mut layout = scene.layout("debian");
    layout.tar(&below("usr.tar", &[&["usr"][..], &links[..]].concat()), Packing::Gzip);
    layout.tar(&below("rest.tar", &["etc", "var"]), Packing::Gzip);
    let upper = [
        Entry::dir("usr/share/doc/").mtime(1_700_000_000),
        Entry::file("usr/share/doc/.wh..wh..opq", b""),
        Entry::file("usr/share/doc/README", b"nothing is left here"),
        Entry::file("etc/.wh.issue", b""),
        Entry::file("etc/hostname", b"image\n"),
        Entry::file("usr/bin/ping", b"#!/bin/sh\nexit 0\n").mode(0o755).xattr(
            "security.capability",
            &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        Entry::hard_link("usr/bin/sh-again", "usr/bin/dash"),
    ];
    layout.tar(&Tar::of(&upper), Packing::Gzip);
    layout.name(layout.image(here()));
    let dir = scene.compare(&layout, "debian");
    for program in [
        &["/usr/bin/dpkg", "--version"][..],
        &["/usr/bin/perl", "-v"],
        &["/bin/sh", "-c", "grep -q image /etc/hostname && ls /usr/share/doc"],
        &["/usr/bin/sh-again", "-c", "echo of another layer"],
    ] {
        let output = Command::new("chroot").arg(&dir).args(program).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !output.stdout.is_empty(), "{program:?}: {said}");
    }
}

#[test]
fn hundreds_of_names_of_one_program_are_one_file_over_layers_too() {
    let scene = Scene::new();
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.expect("busybox-static is there, `cargo xtask test` installs it");
    let listed = Command::new(busybox).arg("--list").output().unwrap();
    let applets = String::from_utf8(listed.stdout).unwrap();
    let applets: Vec<&str> = applets.lines().filter(|name| *name != "busybox").collect();
    assert!(applets.len() > 200, "{}", applets.len());
    let (first, second) = applets.split_at(applets.len() / 2);
    let program = fs::read(busybox).unwrap();
    let mut base = vec![
        Entry::dir("bin/"),
        Entry::dir("etc/"),
        Entry::file("bin/busybox", &program).mode(0o755),
        Entry::file("etc/alpine-release", b"3.22\n"),
    ];
    let named = |name: &&str| Entry::hard_link(&format!("bin/{name}"), "bin/busybox");
    base.extend(first.iter().map(named));
    // A link to a link, and to a name that goes away in the same layer.
    let mut upper: Vec<Entry> = second.iter().map(named).collect();
    upper.push(Entry::hard_link("bin/of-a-link", &format!("bin/{}", first[0])));
    upper.push(Entry::file(&format!("bin/.wh.{}", first[1]), b""));
    let layout = scene.image("busybox", &[Tar::of(&base), Tar::of(&upper)]);
    let dir = scene.compare(&layout, "busybox");
    let output = Command::new("chroot").arg(&dir).args(["/bin/echo", "here"]).output().unwrap();
    assert_eq!(output.stdout, b"here\n");
}

#[test]
fn what_a_layer_hides_is_hidden_in_whatever_order_it_says_so() {
    let scene = Scene::new();
    let base = Tar::of(&[
        Entry::dir("d/"),
        Entry::dir("d/e/"),
        Entry::file("d/a", b"a"),
        Entry::file("d/e/b", b"b"),
        Entry::dir("o/"),
        Entry::file("o/below", b"below"),
        Entry::dir("o/deep/"),
        Entry::file("o/deep/below", b"below"),
        Entry::dir("f/"),
        Entry::file("f/inside", b"inside"),
        Entry::file("g", b"a file"),
        Entry::symlink("s", "d"),
    ]);
    let said = [
        Entry::file("d/.wh.e", b""),
        Entry::dir("d/e/").mode(0o700),
        Entry::file("d/e/new", b"new"),
        Entry::file("o/.wh..wh..opq", b""),
        Entry::dir("o/").mode(0o711),
        Entry::file("o/above", b"above"),
        Entry::file(".wh.f", b""),
        Entry::file(".wh.nothing", b""),
        Entry::file(".wh.g", b""),
        Entry::dir("g/"),
        Entry::file("g/now", b"a directory"),
        Entry::file(".wh.s", b""),
    ];
    // Each rotation, and each of it backwards as far as directories come before what is in them.
    for turn in 0..said.len() {
        let mut order = said.to_vec();
        order.rotate_left(turn);
        order.sort_by_key(|entry| !(entry.kind == b'5' && turn % 2 == 0));
        let before = |name: &str| order.iter().position(|entry| entry.path == name).unwrap();
        let is_sound = [("d/e/", "d/e/new"), ("o/", "o/above"), ("g/", "g/now")]
            .iter()
            .all(|(dir, inside)| before(dir) < before(inside));
        if !is_sound {
            continue;
        }
        let layout = scene.image(&format!("order-{turn}"), &[base.clone(), Tar::of(&order)]);
        let dir = scene.compare(&layout, &format!("order-{turn}"));
        scene.umount(&dir);
    }
}

#[test]
fn what_takes_the_place_of_something_else_is_all_that_is_there() {
    let scene = Scene::new();
    let kinds = |path: &str| {
        vec![
            vec![Entry::file(path, b"a file")],
            vec![Entry::dir(&format!("{path}/")), Entry::file(&format!("{path}/in"), b"inside")],
            vec![Entry::symlink(path, "elsewhere")],
            vec![Entry::fifo(path)],
            vec![Entry::char_device(path, (1, 3))],
            vec![Entry::block_device(path, (7, 200))],
            vec![Entry::hard_link(path, "anchor")],
        ]
    };
    let (mut base, mut over) = (vec![Entry::file("anchor", b"anchor")], Vec::new());
    let count = kinds("x").len();
    for was in 0..count {
        for is in 0..count {
            let path = format!("{was}-becomes-{is}");
            base.extend(kinds(&path)[was].clone());
            over.extend(kinds(&path)[is].clone());
        }
    }
    let layout = scene.image("replaced", &[Tar::of(&base), Tar::of(&over)]);
    scene.compare(&layout, "replaced");
}
