//! What moves between versions of an image, and between images that have layers in common (decision 33).

use std::fs;
use std::path::{Path, PathBuf};

use dfs_tests::registry::Guard;
use dfs_tests::{Cluster, Registry};
use serde_json::Value;

use crate::support::images::{Layout, Packing, here};
use crate::support::ledger::Account;
use crate::support::trees::{noise, put};
use crate::support::{Agent, Expected, Place, binaries};

/// Files of the layer that is built anew, and bytes of each.
const FILES: usize = 100;
const FILE_BYTES: usize = 90_000;

/// A layer of files, in which the first `changed` of them are others.
fn built(place: &Place, name: &str, changed: usize) -> PathBuf {
    let dir = place.dir(name);
    for number in 0..FILES {
        let seed = number as u64 + if number < changed { 10_000 } else { 0 };
        put(&dir.join(format!("app/part-{number:03}")), &noise(seed, FILE_BYTES));
    }
    dir
}

/// Bytes of the files of a mount, all of which are read.
fn read_all(dir: &Path, changed: usize) -> u64 {
    let mut bytes = fs::read(dir.join("base/large")).unwrap().len();
    for number in 0..FILES {
        let seed = number as u64 + if number < changed { 10_000 } else { 0 };
        let read = fs::read(dir.join(format!("app/part-{number:03}"))).unwrap();
        assert!(read == noise(seed, FILE_BYTES), "part {number}");
        bytes += read.len();
    }
    bytes as u64
}

/// How often a layer was asked for as a whole or in part, by whoever does not push.
fn fetched(registry: &Registry, layout: &Layout, layer: usize) -> usize {
    let blob = layout.layer_digest(layer);
    registry.requests("GET", &blob) - registry.requests_by("skopeo", "GET", &blob)
}

/// Mounts, reads everything, and takes the mount away: bytes read, and those of them that had to move.
fn seen(agent: &Agent, url: &str, dir: PathBuf, changed: usize) -> (u64, u64) {
    let dir = agent.mount(url, dir);
    let bytes = read_all(&dir, changed);
    let account = Account::of_mount(agent);
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    (bytes, account.source + account.seed + account.peers)
}

#[test]
fn a_layer_built_anew_moves_what_differs_in_it_and_a_tag_of_the_same_layers_nothing() {
    let place = Place::new();
    let base = place.dir("base-layer");
    put(&base.join("base/large"), &noise(77, 1_000_000));
    let mut first = Layout::new(place.path("first"));
    first.layer(&base, Packing::Gzip).layer(&built(&place, "one", 0), Packing::Gzip);
    first.name(first.image(here()));
    let mut second = Layout::new(place.path("second"));
    second.layer(&base, Packing::Gzip).layer(&built(&place, "two", 1), Packing::Gzip);
    second.name(second.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(first.dir(), "team/app:1").unwrap();
    registry.push(second.dir(), "team/app:2").unwrap();
    second.label("third");
    second.name(second.image(here()));
    registry.push(second.dir(), "team/app:3").unwrap();

    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = ["a", "b"].map(|name| Agent::of(&cluster, &place, name));
    let mount = |agent: &Agent, tag: &str, changed| {
        let dir = place.path(&format!("mount-{}-{tag}", agent.node.name()));
        seen(agent, &registry.url(&format!("team/app:{tag}")), dir, changed)
    };
    for agent in &agents {
        let (bytes, moved) = mount(agent, "1", 0);
        assert!(moved >= bytes, "{moved} of {bytes}: all of it is new");
    }
    for agent in &agents {
        let (bytes, moved) = mount(agent, "2", 1);
        assert!(moved * 100 <= bytes * 3, "{moved} of {bytes}");
        assert!(moved >= FILE_BYTES as u64, "{moved}: what differs must move");
    }
    for (layout, layer) in [(&first, 0), (&first, 1), (&second, 1)] {
        assert_eq!(fetched(&registry, layout, layer), 1, "layer {layer} leaves the registry once");
    }
    let layers = registry.requests("GET", "/blobs/");
    for agent in &agents {
        let (_, moved) = mount(agent, "3", 1);
        assert_eq!(moved, 0);
    }
    assert_eq!(registry.requests("GET", "/blobs/") - layers, 1, "its config alone");
}

#[test]
fn repositories_of_a_registry_share_layers_and_each_is_read_where_it_was_named() {
    let place = Place::new();
    let base = place.dir("base-layer");
    put(&base.join("base/large"), &noise(77, 1_000_000));
    let mut layout = Layout::new(place.path("layout"));
    layout.layer(&base, Packing::Gzip).layer(&built(&place, "one", 0), Packing::Gzip);
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "team/app:1").unwrap();
    registry.push(layout.dir(), "other/app:1").unwrap();
    let agent = Agent::solo(&place, "agent");
    let (bytes, _) = seen(&agent, &registry.url("team/app:1"), place.path("mount-1"), 0);
    let (again, moved) = seen(&agent, &registry.url("other/app:1"), place.path("mount-2"), 0);
    assert_eq!((again, moved), (bytes, 0));
    for layer in [0, 1] {
        assert_eq!(fetched(&registry, &layout, layer), 1);
    }
    let listed = agent.dfctl(&["task", "ls", "--format", "json"]).json().unwrap();
    let tasks = listed["items"].as_array().unwrap().iter().map(|item| &item["task"]);
    let digest = layout.layer_digest(1).replacen(':', "/", 1);
    let name = format!("oci-blob://{}/{digest}", registry.address());
    let place = registry.url(&format!("team/app?blob={}", layout.layer_digest(1)));
    let is_it = |task: &&Value| task["name"] == name.as_str() && task["kind"] == "blob";
    let blobs: Vec<_> = tasks.filter(is_it).collect();
    assert!(!blobs.is_empty(), "{listed}");
    assert!(blobs.iter().all(|task| task["url"] == place.as_str()), "{listed}");
}

/// Packings of which a part can be read alone.
const IN_PARTS: [Packing; 3] = [Packing::Gzip, Packing::Members, Packing::Frames];

/// An image of a layer of one file and one of many, in a registry.
fn two_layers(place: &Place, packing: Packing) -> (Registry, Layout) {
    let base = place.dir("base-layer");
    put(&base.join("base/large"), &noise(77, 1_000_000));
    let mut layout = Layout::new(place.path("layout"));
    layout.layer(&base, packing).layer(&built(place, "one", 0), packing);
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "team/app:1").unwrap();
    (registry, layout)
}

#[test]
fn a_kept_layer_that_was_evicted_is_read_by_ranges_and_not_as_a_whole_again() {
    for packing in IN_PARTS {
        let place = Place::new();
        let (registry, layout) = two_layers(&place, packing);
        let agent = Agent::solo(&place, "agent");
        let url = registry.url("team/app:1");
        seen(&agent, &url, place.path("mount-1"), 0);
        assert!(agent.forget_contents() >= 2);
        let digest = layout.layer_digest(1);
        let whole = || registry.sent(200, &digest).len();
        assert_eq!(whole(), 1, "{packing:?}: it was read as a whole once");
        let dir = agent.mount(&url, place.path("mount-2"));
        assert!(fs::read(dir.join("app/part-050")).unwrap() == noise(50, FILE_BYTES));
        let parts = registry.sent(206, &digest);
        let all = layout.layer_bytes(1);
        let is_part = |part: &u64| *part < all;
        assert!(!parts.is_empty() && parts.iter().all(is_part), "{packing:?}: {parts:?} of {all}");
        read_all(&dir, 0);
        assert_eq!(whole(), 1, "{packing:?}: and never again");
    }
}

/// Has an agent lose all that it keeps but the indexes over lists of layers, or these too; how many of them there were.
fn forget(agent: &Agent, merged_too: bool) -> usize {
    let listed = agent.dfctl(&["task", "ls", "--format", "json"]).done().json().unwrap();
    let tasks = listed["items"].as_array().unwrap().iter().map(|item| &item["task"]);
    let is_merged =
        |task: &Value| task["name"].as_str().is_some_and(|name| name.starts_with("oci-layers://"));
    let (merged, others): (Vec<_>, Vec<_>) = tasks.partition(|task| is_merged(task));
    let gone = others.iter().chain(merged.iter().filter(|_| merged_too));
    for task in gone {
        agent.dfctl(&["task", "rm", "--yes", task["id"].as_str().unwrap()]).done();
    }
    merged.len()
}

#[test]
fn layers_that_were_laid_over_one_another_for_a_tag_are_not_for_another_of_the_same() {
    let place = Place::new();
    let (registry, mut layout) = two_layers(&place, Packing::Gzip);
    layout.label("second");
    layout.name(layout.image(here()));
    registry.push(layout.dir(), "other/app:2").unwrap();
    let agent = Agent::solo(&place, "agent");
    seen(&agent, &registry.url("team/app:1"), place.path("mount-1"), 0);
    let whole = || [0, 1].map(|layer| registry.sent(200, &layout.layer_digest(layer)).len());
    let mount = |name: &str| {
        let before = whole();
        let dir = agent.mount(&registry.url("other/app:2"), place.path(name));
        assert_eq!(fs::read_dir(dir.join("app")).unwrap().count(), FILES);
        let after = whole();
        read_all(&dir, 0);
        agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
        [0, 1].map(|layer| after[layer] - before[layer])
    };
    // Without an index of any layer, each has to be read as a whole to be merged again.
    assert_eq!(forget(&agent, false), 1);
    assert_eq!(mount("mount-2"), [0, 0], "what they show together is known");
    assert_eq!(forget(&agent, true), 1);
    assert_eq!(mount("mount-3"), [1, 1], "and would not be otherwise");
}
