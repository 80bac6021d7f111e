//! Caches and disks that are smaller than what is read.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::registry::Guard;
use dfs_tests::wait::PATIENCE;
use dfs_tests::{Body, Cluster, Node, Origin, Registry};
use rustix::io::Errno;

use crate::holes::solid;
use crate::support::disk::Disk;
use crate::support::images::{Layout, Packing, here};
use crate::support::lanes::{self, Lane};
use crate::support::own::Own;
use crate::support::trees::{self, noise};
use crate::support::{Agent, Expected, Place, Tmpfs, binaries, until};

/// What the log says of such a cache.
pub const FULL: &str = "the cache is full of what is in use";

/// Bytes of a file that does not fit.
const BIG: usize = 100_000_000;

/// A directory with a file that does not fit into the caches of these tests, and others.
fn source(place: &Place) -> PathBuf {
    let source = place.dir("source");
    trees::put(&source.join("big"), &noise(1, BIG));
    trees::put(&source.join("small"), &noise(2, 300_000));
    trees::put(&source.join("dir/other"), &noise(3, 9_000_000));
    source
}

/// Reads a file forwards, then backwards in pieces that begin and end anywhere.
fn assert_reads(path: &Path, bytes: &[u8]) {
    assert!(fs::read(path).unwrap() == bytes, "{}", path.display());
    let mut file = File::open(path).unwrap();
    let mut end = bytes.len();
    while end > 0 {
        let start = end.saturating_sub(1_234_567);
        file.seek(SeekFrom::Start(start as u64)).unwrap();
        let mut piece = vec![0; end - start];
        file.read_exact(&mut piece).unwrap();
        assert!(piece == bytes[start..end], "{} from {start}", path.display());
        end = start;
    }
}

/// Disk that an agent's cache takes.
fn kept(agent: &Agent) -> u64 {
    on_disk(&agent.data().join("tasks"))
}

/// Disk that a directory takes.
pub fn on_disk(dir: &Path) -> u64 {
    let said = Command::new("du").args(["-s", "-B1"]).arg(dir).output();
    let text = String::from_utf8(said.unwrap().stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn assert_said(agent: &Agent) {
    let log = agent.log();
    assert!(log.contains(FULL), "{log}");
}

#[test]
fn a_mount_reads_files_that_are_larger_than_the_cache() {
    let place = Place::new();
    let source = source(&place);
    let agent = Agent::solo_with(&place, "agent", &["--capacity", "64MiB"]);
    let url = format!("file://{}", source.display());
    let dir = agent.mount(&url, place.dir("mount"));
    assert_reads(&dir.join("big"), &fs::read(source.join("big")).unwrap());
    trees::assert_same(&dir, &source);
    let kept = kept(&agent);
    assert!((50 << 20..=65 << 20).contains(&kept), "{kept} bytes are kept");
    assert_said(&agent);
    let said = agent.dfctl(&["mounts", "--format", "json"]).done().json().unwrap();
    let shown = said["items"].as_array().unwrap();
    let shown = shown.iter().find(|mount| mount["dir"] == *dir.to_str().unwrap()).unwrap();
    let read = shown["ledger"]["source"].as_u64().unwrap();
    assert!(read >= BIG as u64, "{read} bytes: what was read and not kept is told too");
}

#[test]
fn commands_read_a_file_that_is_larger_than_the_cache() {
    let place = Place::new();
    let bytes = noise(5, BIG);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo_with(&place, "agent", &["--capacity", "64MiB"]);
    let (url, out) = (origin.url("/f"), place.dir("out").join("f"));
    let get = ["get", &url, "-o", out.to_str().unwrap()];
    let said = agent.dfctl(&[&get[..], &["--format", "json"]].concat()).done();
    assert!(fs::read(&out).unwrap() == bytes);
    let ledger = &said.json().unwrap()["ledger"];
    assert_eq!(ledger["source"], BIG as u64, "{ledger}");
    // What was under way when the cache was full may come twice: a run of one request, as a rule much less.
    let sent = origin.counters().body_bytes;
    assert!(sent <= BIG as u64 + (16 << 20), "{sent} bytes left the origin");
    assert!(agent.dfctl(&["cat", &url]).done().stdout == bytes);
    // What was kept did not come again.
    assert!(origin.counters().body_bytes < sent + BIG as u64 - (50 << 20));
    assert!(kept(&agent) <= 65 << 20);
    // Idle now: it makes room for something else.
    let other = Origin::of("/g", Body::bytes(noise(6, 30_000_000))).unwrap();
    let out = place.path("out/g");
    agent.dfctl(&["get", &other.url("/g"), "-o", out.to_str().unwrap()]).done();
    assert_eq!(agent.cached(30_000_000), 30_000_000);
}

#[test]
fn a_full_disk_below_the_cache_stops_nobody() {
    let place = Place::new();
    let source = source(&place);
    let disk = Tmpfs::mount(place.dir("disk"), 24 << 20);
    let agent = Agent::solo_in(disk.path(), "agent");
    let url = format!("file://{}", source.display());
    let dir = agent.mount(&url, place.dir("mount"));
    assert_reads(&dir.join("big"), &fs::read(source.join("big")).unwrap());
    trees::assert_same(&dir, &source);
    assert_said(&agent);
    drop(agent);
    drop(disk);
}

#[test]
fn on_a_full_disk_the_kernel_is_told_of_an_error_and_reads_on_once_there_is_room() {
    let machine = Place::new();
    let disk = Disk::new(&machine);
    let data = disk.path().join("data");
    let own = Own::start_in(Place::new(), data.to_str().unwrap());
    let bytes = solid(1, 40 << 20);
    let origin = Origin::of("/d/f", Body::bytes(bytes.clone())).unwrap();
    let (dir, _mounts) = lanes::mounted(&own, Lane::Lazy, &origin.url("/d/"));
    let path = dir.join("f");
    let read = |at: usize| {
        let file = File::open(&path)?;
        // What the mount's own page cache has is not what is asked for.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        let mut piece = vec![0; 1 << 20];
        file.read_exact_at(&mut piece, (at as u64) << 20)?;
        assert!(piece == bytes[at << 20..][..1 << 20], "at {at} MiB");
        Ok::<_, std::io::Error>(())
    };
    read(0).unwrap();
    let others = disk.path().join("others");
    let mut filler = File::create(&others).unwrap();
    for piece in [1 << 20, 4096] {
        while filler.write_all(&vec![7; piece]).is_ok() {}
    }
    drop(filler);
    let refused: Vec<_> = (0..40).filter_map(|at| read(at).err()).collect();
    assert!(!refused.is_empty(), "there was room for all of it");
    for error in refused {
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    }
    fs::remove_file(others).unwrap();
    until("there is room", || (0..40).all(|at| read(at).is_ok()));
    assert_eq!(own.shown(&dir).unwrap()["lane"], "kernel");
}

#[test]
fn on_a_disk_of_any_size_reads_are_right_or_say_that_there_is_no_room() {
    let place = Place::new();
    let bytes = noise(8, 3_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let url = origin.url("/f");
    let (mut refused, mut given) = (0, 0);
    for pages in (1..1000).step_by(61) {
        let disk = Tmpfs::mount(place.dir(&format!("disk-{pages}")), pages * 4096);
        let mut node = Node::spawn(&binaries(), disk.path(), "agent", None, &[]).unwrap();
        if node.wait_ready().is_err() {
            let ended = node.process_mut().wait_ended(PATIENCE).unwrap();
            assert_eq!(ended.code(), Some(7), "{pages} pages: {}", node.process().log());
            continue;
        }
        let agent = Agent::around(node);
        let output = place.path("out");
        let words = ["get", &url, "--force", "-o", output.to_str().unwrap()];
        let said = agent.dfctl(&words);
        match said.code {
            0 => assert!(fs::read(&output).unwrap() == bytes, "{pages} pages"),
            code => assert_eq!(code, 7, "{pages} pages: {}", said.stderr),
        }
        refused += usize::from(said.code == 7);
        given += usize::from(said.code == 0);
        disk.resize(64 << 20);
        agent.dfctl(&words).done();
        assert!(fs::read(&output).unwrap() == bytes, "{pages} pages, and then room");
    }
    eprintln!("{refused} refused, {given} given");
    assert!(given > 0);
}

#[test]
fn a_seed_with_a_small_cache_serves_nodes_with_small_ones() {
    let place = Place::new();
    let bytes = noise(7, BIG);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let config = place.path("cluster.toml");
    fs::write(&config, "[seed]\ncapacity = \"64MiB\"\n").unwrap();
    let extra = ["--config", config.to_str().unwrap()];
    let cluster = Cluster::start_with(&binaries(), &place.dir("cluster"), &extra).unwrap();
    let small = ["--capacity", "64MiB"];
    let agents: Vec<_> =
        ["a", "b"].into_iter().map(|name| Agent::of_with(&cluster, &place, name, &small)).collect();
    let mounts: Vec<_> = agents
        .iter()
        .map(|agent| {
            agent.mount(&origin.url("/f"), place.dir(&format!("on-{}", agent.node.name())))
        })
        .collect();
    for dir in &mounts {
        assert_reads(&dir.join("f"), &bytes);
    }
    for agent in &agents {
        assert!(agent.log().contains(FULL), "{}", agent.log());
    }
    // It says that it is full where all of it is wanted just then, or makes room.
    let kept = on_disk(&place.dir("cluster"));
    assert!((1 << 20..70 << 20).contains(&kept), "the seed keeps {kept} bytes");
    let from_parents: u64 =
        agents.iter().map(|agent| agent.metric("dfs_node_source_bytes_total")).sum();
    assert_eq!(from_parents, 0, "the seed alone reads the origin");
}

#[test]
fn another_tree_can_be_looked_into_while_the_cache_is_full() {
    let place = Place::new();
    let source = source(&place);
    let agent = Agent::solo_with(&place, "agent", &["--capacity", "64MiB"]);
    let dir = agent.mount(&format!("file://{}", source.display()), place.dir("mount"));
    fs::read(dir.join("big")).unwrap();
    assert_said(&agent);
    let other = place.dir("other");
    trees::varied(&other);
    let second = agent.mount(&format!("file://{}", other.display()), place.dir("second"));
    trees::assert_same(&second, &other);
}

#[test]
fn what_was_evicted_gives_its_disk_back() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let disk = Tmpfs::mount(place.dir("disk"), 20 << 20);
    let agent = Agent::solo_in(disk.path(), "agent");
    for (name, length) in [("/kept", 12 << 20), ("/large", 60 << 20)] {
        let body = Body::noise(7, length);
        origin.put(name, body.clone());
        let said = agent.dfctl(&["cat", &origin.url(name)]).done();
        assert!(said.stdout == body.read(0, length).unwrap(), "{name}");
    }
    assert_eq!(agent.cached(12 << 20), 0, "it had to go");
    let open = format!("/proc/{}/fd", agent.node.process().pid());
    until("what went is closed", || {
        let links =
            fs::read_dir(&open).unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        !links.into_iter().any(|link| link.to_string_lossy().ends_with("content (deleted)"))
    });
}

#[test]
fn a_disk_that_somebody_else_filled_takes_new_files_in_place_of_idle_ones() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let disk = Tmpfs::mount(place.dir("disk"), 24 << 20);
    let agent = Agent::solo_in(disk.path(), "agent");
    let cat = |name: &str, seed| {
        let body = Body::noise(seed, 1 << 20);
        origin.put(name, body.clone());
        let said = agent.dfctl(&["cat", &origin.url(name)]).done();
        assert!(said.stdout == body.read(0, 1 << 20).unwrap(), "{name}");
    };
    let mut filler = File::create(disk.path().join("filler")).unwrap();
    let mut fill = || while filler.write_all(&[7; 4096]).is_ok() {};
    (1..=8).for_each(|n| cat(&format!("/idle-{n}"), n));
    fill();
    let said = agent.dfctl(&["cache", "gc"]);
    // Housekeeping may have been there before.
    assert!([0, 9].contains(&said.code), "{}", said.stderr);
    assert!(free(disk.path()) > 0, "a little is left for others");
    fill();
    cat("/new", 9);
    assert!(listed(&agent).len() < 9, "idle ones went");
}

#[test]
fn a_small_disk_full_of_what_is_mounted_has_room_to_look_into_and_get_something_else() {
    let place = Place::new();
    let disk = Tmpfs::mount(place.dir("disk"), 100 << 20);
    let agent = Agent::solo_in(disk.path(), "agent");
    let source = source(&place);
    let dir = agent.mount(&format!("file://{}", source.display()), place.dir("mount"));
    assert_reads(&dir.join("big"), &fs::read(source.join("big")).unwrap());
    trees::assert_same(&dir, &source);
    assert!(free(disk.path()) > 0, "some is left");
    let bytes = noise(7, 5_000_000);
    let origin = Origin::of("/other/f", Body::bytes(bytes.clone())).unwrap();
    assert!(agent.dfctl(&["ls", &origin.url("/other/")]).done().text().contains(" f"));
    let output = place.path("out");
    agent.dfctl(&["get", &origin.url("/other/f"), "-o", output.to_str().unwrap()]).done();
    assert!(fs::read(&output).unwrap() == bytes);
    let told =
        || -> u64 { listed(&agent).iter().map(|task| task["disk_bytes"].as_u64().unwrap()).sum() };
    // It is counted while it still comes and goes.
    until("it is said to take no more than a disk of 100 MiB", || told() <= 100 << 20);
}

/// Bytes that a file system has free.
fn free(dir: &Path) -> u64 {
    let disk = rustix::fs::statvfs(dir).unwrap();
    disk.f_bavail * disk.f_frsize
}

/// The tasks that an agent keeps.
fn listed(agent: &Agent) -> Vec<serde_json::Value> {
    let said = agent.dfctl(&["cache", "ls", "--format", "json"]).done().json().unwrap();
    said["items"].as_array().unwrap().clone()
}

#[test]
fn what_the_cache_is_said_to_take_is_what_the_disk_gives() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let agent = Agent::solo(&place, "agent");
    for (n, length) in [1, 4097, 70_000, 300_000, 3_000_000].into_iter().enumerate() {
        origin.put(&format!("/{n}"), Body::noise(1, length));
        agent.dfctl(&["cat", &origin.url(&format!("/{n}"))]).done();
    }
    let listed = listed(&agent);
    assert_eq!(listed.len(), 5);
    for task in listed {
        let id = task["task"]["id"].as_str().unwrap();
        let dir = agent.data().join("tasks").join(&id[..2]).join(id);
        let took = on_disk(&dir);
        assert_eq!(task["disk_bytes"].as_u64(), Some(took), "{task}");
    }
}

/// Files of an image whose one layer is three times as long as a cache, and bytes of each.
const PARTS: u64 = 12;
const PART_BYTES: usize = 16 << 20;

/// A registry with that image, and where it is.
fn large_image(place: &Place, packing: Packing) -> (Registry, String) {
    let tree = place.dir("tree");
    for number in 0..PARTS {
        trees::put(&tree.join(format!("part-{number}")), &noise(100 + number, PART_BYTES));
    }
    let mut layout = Layout::new(place.path("layout"));
    layout.layer(&tree, packing);
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "app:v1").unwrap();
    let url = registry.url("app:v1");
    (registry, url)
}

/// From the last file to the first: nothing is where the reading of the layer has just been.
fn reads_backwards(dir: &Path) {
    for number in (0..PARTS).rev() {
        let read = fs::read(dir.join(format!("part-{number}"))).unwrap();
        assert!(read == noise(100 + number, PART_BYTES), "part {number}");
    }
}

#[test]
fn an_image_whose_layer_is_three_times_as_long_as_the_cache_is_read_right() {
    for packing in [Packing::Gzip, Packing::Plain, Packing::Zstd] {
        let place = Place::new();
        let (_registry, url) = large_image(&place, packing);
        let agent = Agent::solo_with(&place, "agent", &["--capacity", "64MiB"]);
        let dir = agent.mount(&url, place.path("mount"));
        reads_backwards(&dir);
        let kept = kept(&agent);
        assert!(kept <= 65 << 20, "{kept} bytes are kept");
    }
}

#[test]
fn a_seed_with_a_small_cache_shows_nodes_an_image_of_a_longer_layer() {
    let place = Place::new();
    let (_registry, url) = large_image(&place, Packing::Gzip);
    let config = place.path("cluster.toml");
    fs::write(&config, "[seed]\ncapacity = \"64MiB\"\n").unwrap();
    let extra = ["--config", config.to_str().unwrap()];
    let cluster = Cluster::start_with(&binaries(), &place.dir("cluster"), &extra).unwrap();
    let agent = Agent::of_with(&cluster, &place, "agent", &["--capacity", "64MiB"]);
    let dir = agent.mount(&url, place.path("mount"));
    reads_backwards(&dir);
    let kept = on_disk(&place.dir("cluster"));
    assert!(kept < 70 << 20, "the seed keeps {kept} bytes");
}
