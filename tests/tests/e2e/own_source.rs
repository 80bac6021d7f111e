//! A site's own dfs (`examples/own-source`): its source serves mounts and swarms as ours do.

use std::fs;
use std::os::unix::fs::symlink;

use dfs_tests::{Binaries, Body, Cluster, Dfctl, Node};

use crate::support::servers::Redis;
use crate::support::{Agent, Expected, Place, binary};

/// The three programs of the site, which are one binary under three names.
fn site(place: &Place) -> Binaries {
    let dir = place.dir("site");
    for name in ["dfctl", "dfs-fuse", "dfs-cluster"] {
        symlink(binary("own-source"), dir.join(name)).unwrap();
    }
    Binaries::in_dir(dir)
}

#[test]
fn a_source_of_a_sites_own_is_mounted_and_asked_once_for_all_nodes() {
    let place = Place::new();
    let redis = Redis::start(&place);
    let model = Body::noise(7, 9_000_001).read(0, 9_000_001).unwrap();
    redis.set("models/small/weights", &model);
    redis.set("models/small/card", b"a model");
    redis.set("models/empty", b"");
    redis.set("elsewhere", b"not below");
    let programs = site(&place);
    let cluster = Cluster::start(&programs, place.root()).unwrap();
    let url = redis.url("models/");
    let nodes: Vec<Agent> = ["a", "b", "c"]
        .map(|name| Node::start(&programs, place.root(), name, Some(cluster.address().unwrap())))
        .into_iter()
        .map(|node| Agent::around(node.unwrap()))
        .collect();
    let before = redis.bytes_sent();
    std::thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| {
                let mount = node.mount(&url, place.path(&format!("mount-{}", node.node.name())));
                assert!(fs::read(mount.join("small/weights")).unwrap() == model);
                assert_eq!(fs::read(mount.join("small/card")).unwrap(), b"a model");
                assert_eq!(fs::read(mount.join("empty")).unwrap(), b"");
                assert!(!mount.join("elsewhere").exists());
            });
        }
    });
    let sent = redis.bytes_sent() - before;
    let content = model.len() as u64;
    assert!((content..content + content / 50).contains(&sent), "{sent} of {content} bytes");
}

#[test]
fn a_value_that_changes_under_its_readers_is_an_error_and_never_a_mixture() {
    let place = Place::new();
    let redis = Redis::start(&place);
    redis.set("value", &vec![b'a'; 12_000_000]);
    let programs = site(&place);
    let node = Agent::around(Node::start(&programs, place.root(), "a", None).unwrap());
    let url = redis.url("value");
    let mount = node.mount(&url, place.path("mount"));
    redis.set("value", &vec![b'b'; 12_000_000]);
    let error = fs::read(mount.join("value")).unwrap_err();
    assert!(error.raw_os_error().is_some(), "{error}");
    let said = node.dfctl(&["cat", &url]);
    assert!(said.done().stdout.iter().all(|byte| *byte == b'b'));
}

#[test]
fn what_no_program_knows_is_named_with_what_is_known() {
    let place = Place::new();
    let said = Dfctl::new(&site(&place)).solo(["ls", "ipfs://host/x"]).unwrap();
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("redis"), "{said:?}");
}
