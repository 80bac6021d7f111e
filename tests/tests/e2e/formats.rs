//! What earlier releases stored is used by this one: `tests/formats/N.tar.zst` is kept for ever, and a release that
//! stores anything in another form adds the next number.
//!
//! A fixture holds the data of a cluster (`cluster/`) and of a node in it (`node/`), both stopped in order, and the
//! part file of an interrupted `get` (`out/`). What they keep was fetched from an address that is always the same.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::{Body, Cluster, Origin, wait};

use crate::support::{Agent, Expected, Place, binaries, until};

/// Part of every URL in the fixtures.
const ORIGIN: &str = "127.23.42.99:18423";

/// The number of what this release writes.
const NEWEST: u32 = 1;

/// The file that is only there in part.
const LARGE: usize = 3_000_000;
const FILES: [(&str, usize); 4] =
    [("/tree/a", 70_000), ("/tree/sub/b", 5000), ("/one", 200_000), ("/large", LARGE)];

fn text(path: &str, length: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|line| format!("line {line} of {path}\n").into_bytes());
    lines.take(length).collect()
}

/// The same files in the same versions as when the fixtures were made.
fn origin() -> Origin {
    let address: SocketAddr = ORIGIN.parse().unwrap();
    // Another test may have the address now.
    let origin =
        wait::find("the address is free", wait::PATIENCE, || Origin::start_at(address).ok());
    let origin = origin.unwrap();
    for (path, length) in FILES {
        origin.put(path, Body::bytes(text(path, length)));
    }
    origin
}

fn fixture(number: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("formats/{number}.tar.zst"))
}

fn tar(words: &[&str], archive: &Path, dir: &Path) {
    let mut tar = Command::new("tar");
    tar.args(words).arg(archive).arg("-C").arg(dir).args(["cluster", "node", "out"]);
    assert!(tar.status().unwrap().success(), "{tar:?}");
}

fn get(agent: &Agent, origin: &Origin, out: &Path) {
    let words = ["get", "--force", &origin.url("/one"), "-o", out.to_str().unwrap()];
    agent.dfctl(&words).done();
    assert!(fs::read(out).unwrap() == text("/one", 200_000));
}

fn assert_tree(dir: &Path) {
    for (path, length) in &FILES[..2] {
        let file = dir.join(path.strip_prefix("/tree/").unwrap());
        assert!(fs::read(file).unwrap() == text(path, *length), "{path}");
    }
}

#[test]
#[ignore = "writes the fixture of this release, for one that stores something in another form"]
fn write() {
    let (place, origin) = (Place::new(), origin());
    let mut cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let mut agent = Agent::of(&cluster, &place, "node");
    get(&agent, &origin, &place.path("whole"));
    assert_tree(&agent.mount(&origin.url("/tree/"), place.path("mount")));
    agent.dfctl(&["umount", place.path("mount").to_str().unwrap()]).done();
    let (alone, out) = (Agent::solo(&place, "alone"), place.dir("out").join("large"));
    let words = ["get", &origin.url("/large"), "-o", out.to_str().unwrap(), "--limit", "512KiB/s"];
    let getting = alone.dfctl_start(&words);
    let part = out.with_file_name("large.dfs-part");
    until("some of it is there", || fs::metadata(&part).is_ok_and(|part| part.blocks() > 1200));
    getting.interrupt().fails(130, "DFS-1130");
    agent.terminate();
    cluster.process_mut().terminate().unwrap();
    let archive = fixture(NEWEST);
    fs::create_dir_all(archive.parent().unwrap()).unwrap();
    tar(&["--zstd", "-S", "-cf"], &archive, place.root());
}

#[test]
fn what_earlier_releases_kept_is_used() {
    for number in 1..=NEWEST {
        let (place, origin) = (Place::new(), origin());
        tar(&["--zstd", "-xf"], &fixture(number), place.root());
        let cluster = Cluster::start(&binaries(), place.root()).unwrap();
        let agent = Agent::of(&cluster, &place, "node");
        let listed = |agent: &Agent| {
            let kept = agent.dfctl(&["task", "ls", "--format", "json"]).done();
            kept.text().lines().count()
        };
        let kept = listed(&agent);
        assert!(kept >= 3, "{kept} tasks are known");
        agent.dfctl(&["cache", "verify"]).done();
        get(&agent, &origin, &place.path("whole"));
        assert_tree(&agent.mount(&origin.url("/tree/"), place.path("mount")));
        let fresh = Agent::of(&cluster, &place, "fresh");
        get(&fresh, &origin, &place.path("again"));
        assert_tree(&fresh.mount(&origin.url("/tree/"), place.path("mount-too")));
        assert_eq!(origin.counters().body_bytes, 0, "all of it was there: {:?}", origin.log());
        assert!(listed(&agent) >= kept, "nothing was lost");

        let alone = Agent::solo(&place, "alone");
        let out = place.path("out/large");
        alone.dfctl(&["get", &origin.url("/large"), "-o", out.to_str().unwrap()]).done();
        assert!(fs::read(&out).unwrap() == text("/large", LARGE));
        let sent = origin.counters().body_bytes;
        assert!(
            sent > 0 && sent < LARGE as u64,
            "the part file was gone on from: {sent} bytes came"
        );
    }
}
