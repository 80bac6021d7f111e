//! A bucket of many objects, one snapshot after the other.

use std::fs;
use std::path::Path;

use dfs_tests::origin::Shelf;
use dfs_tests::{Cluster, Origin};

use crate::support::{Agent, Place, binaries};

const OBJECTS: u64 = 20_000;
const PER_DIRECTORY: u64 = 1000;

/// Objects below the directories of a mount.
fn names(dir: &Path) -> u64 {
    let below = |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    below(dir).map(|inner| below(&inner).count() as u64).sum()
}

#[test]
fn the_next_snapshot_costs_what_differs_for_who_has_the_one_before() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let mut shelf = Shelf::new(OBJECTS, PER_DIRECTORY);
    origin.shelve("/lab", shelf.clone());
    let url = format!("s3://anonymous@lab/?endpoint=http://{}", origin.address());
    let config = place.path("cluster.toml");
    fs::write(&config, "[scheduler]\nresolve-cache = \"0s\"\n").unwrap();
    let extra = ["--config", config.to_str().unwrap()];
    let cluster = Cluster::start_with(&binaries(), place.root(), &extra).unwrap();
    let mut before = Agent::of(&cluster, &place, "before");
    let lists = |origin: &Origin| origin.counters().path("/lab").requests;
    before.mount(&url, place.path("old"));
    let pages = OBJECTS.div_ceil(1000);
    // A look for directories to part the listing at, and a page more for each part.
    assert!(lists(&origin) <= pages + 20, "{} requests for {pages} pages", lists(&origin));
    let whole = before.metric("dfs_node_taken_bytes_total");
    assert!(whole > 100 * OBJECTS, "the index came: {whole} bytes");

    // One more, one less, and one of another version; the agent has forgotten all but its cache.
    before.terminate();
    let (new, changed) = (format!("{}-more", shelf.key(7777)), shelf.key(12_345));
    shelf.put(&new);
    shelf.put(&changed);
    origin.shelve("/lab", shelf.clone());
    before.start_again();
    let old = before.mount(&url, place.path("new"));
    let moved = before.metric("dfs_node_taken_bytes_total");
    assert!(moved > 0 && moved < whole / 20, "{moved} of {whole} bytes moved");
    let late = Agent::of(&cluster, &place, "late");
    let fresh = late.mount(&url, place.path("new-too"));
    let came = late.metric("dfs_node_taken_bytes_total");
    assert!(came >= whole, "who has nothing takes all of it: {came} bytes");
    for dir in [&old, &fresh] {
        assert_eq!(names(dir), OBJECTS + 1);
        for key in [&new, &changed, &shelf.key(0), &shelf.key(OBJECTS - 1)] {
            let body = shelf.object(key).unwrap().body;
            let bytes = body.read(0, body.length().unwrap()).unwrap();
            let read = fs::read(dir.join(key)).unwrap_or_else(|error| {
                let why = xattr::get(dir.join(key), "user.dfs.error").unwrap().unwrap_or_default();
                panic!("{key}: {error}: {}", why.escape_ascii())
            });
            assert!(read == bytes, "{key}");
        }
    }
}
