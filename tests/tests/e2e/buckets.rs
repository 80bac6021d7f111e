//! Buckets of a real store, through the real programs.

use std::fs;

use dfs_tests::{Bucket, Cluster};

use crate::support::trees::{self, noise};
use crate::support::{Agent, Expected, Place, binaries};

#[test]
fn a_cluster_mounts_a_prefix_and_the_store_is_asked_once() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("big.bin"), &noise(1, 3 << 20));
    for name in ["a", "sub/b", "sub/deeper/c"] {
        trees::put(&source.join(name), &noise(name.len() as u64, 30_000));
    }
    let store = Bucket::start(place.root()).unwrap();
    store.fill("run/", &source).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = [Agent::of(&cluster, &place, "a"), Agent::of(&cluster, &place, "b")];
    for agent in &agents {
        let dir =
            agent.mount(&store.url("run/"), place.path(&format!("mount-{}", agent.node.name())));
        for name in ["big.bin", "a", "sub/b", "sub/deeper/c"] {
            assert!(
                fs::read(dir.join(name)).unwrap() == fs::read(source.join(name)).unwrap(),
                "{name}"
            );
        }
    }
    // A key to see that it is a prefix, and all of them; a small object once, whoever reads it.
    assert_eq!(store.requests("GET /lab/?"), 2);
    for name in ["a", "sub/b", "sub/deeper/c"] {
        assert_eq!(store.requests(&format!("GET /lab/run/{name} ")), 1, "{name}");
    }
    assert_eq!(store.requests("HEAD "), 0);
}

#[test]
fn keys_of_who_asks_open_a_bucket_and_are_told_to_nobody() {
    let place = Place::new();
    let store = Bucket::start(place.root()).unwrap();
    let file = place.path("file");
    trees::put(&file, &noise(3, 200_000));
    store.put("secret/file", &file).unwrap();
    let keys = store.lock().unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.path("out");
    let mut get = agent.node.dfctl_command().unwrap();
    get.args(["get", "s3://lab/secret/file", "-o"]).arg(&out);
    get.env("AWS_ACCESS_KEY_ID", &keys.id).env("AWS_SECRET_ACCESS_KEY", &keys.secret);
    get.env("AWS_ENDPOINT_URL_S3", store.endpoint());
    dfs_tests::process::Said::by(&mut get).unwrap().done();
    assert!(fs::read(&out).unwrap() == fs::read(&file).unwrap());

    let wrong = place.path("wrong");
    let mut get = agent.node.dfctl_command().unwrap();
    get.args(["get", "s3://lab/secret/file", "--endpoint", &store.endpoint(), "-o"]).arg(&wrong);
    get.env("AWS_ACCESS_KEY_ID", &keys.id).env("AWS_SECRET_ACCESS_KEY", "wrong");
    let said = dfs_tests::process::Said::by(&mut get).unwrap().fails(4, "DFS-2103");
    assert!(
        said.stderr.contains("the store answered 403 SignatureDoesNotMatch"),
        "{}",
        said.stderr
    );
    assert!(!wrong.exists());

    let mut everything = agent.log();
    for words in [&["task", "ls", "--format", "json"][..], &["cache", "ls", "--format", "json"]] {
        everything += &String::from_utf8_lossy(&agent.dfctl(words).stdout);
    }
    assert!(everything.contains("secret/file") && !everything.contains(&keys.secret));
}
