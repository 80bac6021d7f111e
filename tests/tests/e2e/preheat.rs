//! `dfctl preheat`: what was waited for costs the origin nothing more, whoever comes.

use std::fs;

use dfs_tests::process::Said;
use dfs_tests::registry::Guard;
use dfs_tests::{Body, Cluster, Fault, Origin, Registry};
use serde_json::json;

use crate::support::images::{INDEX, Layout, Packing};
use crate::support::site::{Site, part_in, visitor};
use crate::support::trees;
use crate::support::{Agent, Expected, Place, Running, binaries, until};

const MIB: u64 = 1 << 20;

/// A `.tar.gz` of a directory.
fn pack(dir: &std::path::Path, archive: &std::path::Path) {
    let packed = std::process::Command::new("tar")
        .arg("-czf")
        .arg(archive)
        .arg("-C")
        .arg(dir)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
}

#[test]
fn what_was_preheated_is_got_and_mounted_without_a_request_to_the_origin() {
    let place = Place::new();
    let source = place.dir("source/d");
    let size = trees::varied(&source);
    pack(&source, &place.path("source/a.tar.gz"));
    let origin = Origin::of_directory(&place.path("source")).unwrap();
    origin.put("/f", Body::noise(4, 20 * MIB + 7));
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let at = cluster.address().unwrap();
    let urls = ["/d/", "/f", "/a.tar.gz"].map(|path| origin.url(path));
    let mut command = visitor(&place, at, "own");
    command.args(["preheat", "--wait", "--format", "jsonl"]).args(&urls);
    let said = Said::by(&mut command).unwrap().done();
    let lines: Vec<_> = said.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{}", said.text());
    assert!(lines.iter().all(|line| line.contains("\"complete\":true")), "{}", said.text());
    let sent = origin.counters().body_bytes;
    let archive = fs::metadata(place.path("source/a.tar.gz")).unwrap().len();
    let once = size + 20 * MIB + 7 + archive;
    assert!(sent <= once + once / 20, "each once: {sent} of {once}");

    origin.reset_counters();
    let agent = Agent::of(&cluster, &place, "node");
    let out = place.path("out");
    agent.dfctl(&["get", &urls[1], "-o", place.path("f").to_str().unwrap()]).done();
    agent.dfctl(&["get", "-r", &urls[0], "-o", out.to_str().unwrap()]).done();
    agent.dfctl(&["get", &urls[2], "-o", place.path("a.tgz").to_str().unwrap()]).done();
    trees::assert_same(&out, &source);
    for (number, url) in urls.iter().enumerate() {
        let dir = agent.mount(url, place.path(&format!("mount-{number}")));
        trees::walk(&dir);
    }
    trees::assert_same(&place.path("mount-2"), &source);
    assert_eq!(origin.counters().requests, 0, "{:?}", origin.log());
}

#[test]
fn without_waiting_the_seed_goes_on_by_itself() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(5, 4 * MIB)).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "node");
    let slow = origin.inject(Fault::pace(MIB).on("/f").method("GET"));
    let said = agent.dfctl(&["preheat", &origin.url("/f")]).done();
    assert!(said.text().starts_with("taken on"), "{}", said.text());
    until("the seed has begun", || slow.struck() > 0);
    assert!(origin.counters().body_bytes < 4 * MIB, "it was taken on before all was there");
    slow.lift();
    until("the seed has all of it", || origin.counters().body_bytes >= 4 * MIB);
    let said = agent.dfctl(&["preheat", "--wait", &origin.url("/f")]).done();
    assert!(said.text().starts_with("preheated"), "{}", said.text());
    assert_eq!(origin.counters().body_bytes, 4 * MIB, "one copy");
}

#[test]
fn an_image_is_preheated_for_the_machines_that_are_named_or_for_all() {
    let place = Place::new();
    let layout = Layout::new(place.path("layout"));
    let of = |architecture: &str| {
        let tree = place.dir(&format!("tree-{architecture}"));
        trees::put(&tree.join("hello"), format!("of {architecture}").as_bytes());
        let mut layout = layout.clone();
        let mut named = layout.layer(&tree, Packing::Gzip).image(architecture);
        named["platform"] = json!({ "os": "linux", "architecture": architecture });
        (named, layout.layer_digest(0))
    };
    let images = ["amd64", "arm64", "s390x"].map(of);
    let manifests: Vec<_> = images.iter().map(|(named, _)| named).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    layout.name(layout.blob(INDEX, index.to_string().as_bytes()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "app:all").unwrap();
    let fetched = || images.each_ref().map(|(_, layer)| registry.sent(200, layer).len());

    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "node");
    let url = registry.url("app:all");
    agent.dfctl(&["preheat", "--wait", &url, "--platform", "linux/s390x"]).done();
    assert_eq!(fetched(), [0, 0, 1]);
    let said = agent.dfctl(&["preheat", "--wait", &url, "--platform", "all"]).done();
    assert_eq!(said.text().matches("preheated").count(), 3, "{}", said.text());
    assert_eq!(fetched(), [1, 1, 1]);
    for architecture in ["amd64", "arm64", "s390x"] {
        let platform = format!("linux/{architecture}");
        let hello = format!("{url}!hello");
        let said = agent.dfctl(&["cat", &hello, "--platform", &platform]).done();
        assert_eq!(said.stdout, format!("of {architecture}").as_bytes());
    }
    assert_eq!(fetched(), [1, 1, 1], "each once");
}

#[test]
fn what_cannot_be_preheated_is_told() {
    let place = Place::new();
    let origin = Origin::of("/closed", Body::noise(6, 1000)).unwrap();
    origin.put("/large", Body::noise(7, 100 * MIB));
    let refused = origin.inject(Fault::status(403).on("/closed"));
    let config = place.path("cluster.toml");
    fs::write(&config, "[seed]\ncapacity = \"64MiB\"\n").unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let cluster = Cluster::start_with(&binaries(), place.root(), &config).unwrap();
    let agent = Agent::of(&cluster, &place, "node");
    let preheat = |path: &str| agent.dfctl(&["preheat", "--wait", &origin.url(path)]);
    preheat("/none").fails(3, "DFS-2101");
    preheat("/closed").fails(4, "DFS-2103");
    assert!(refused.struck() > 0);
    let said = preheat("/large").fails(7, "DFS-4120");
    assert!(said.stderr.contains("no room"), "{}", said.stderr);
    assert!(origin.counters().path("/large").body_bytes < MIB, "nothing of it is begun");
    let alone = Agent::solo(&place, "alone");
    alone.dfctl(&["preheat", &origin.url("/large")]).fails(5, "DFS-4119");
    let file = place.path("file");
    trees::put(&file, b"ten bytes!");
    agent.dfctl(&["preheat", file.to_str().unwrap()]).fails(1, "DFS-2107");
}

#[test]
fn another_seed_takes_over_when_one_is_lost() {
    let place = Place::new();
    let body = Body::noise(8, 24 * MIB);
    let origin = Origin::of("/f", body).unwrap();
    let mut site = Site::start(&place);
    let at = site.manager.address("grpc").unwrap();
    let mut other = part_in(&place, "seed-2", "seed", Some(at));
    until("the manager knows all", || {
        site.manager.metric("dfs_manager_members").is_ok_and(|members| members >= 3.0)
    });
    let slow = origin.inject(Fault::pace(4 * MIB).on("/f"));
    let mut command = visitor(&place, at, "own");
    command.args(["preheat", "--wait", &origin.url("/f")]);
    let waiting = Running::start(command);
    origin.wait_in_flight("/f", MIB).unwrap();
    let has_begun =
        |seed: &dfs_tests::Process| seed.metric("dfs_seed_source_bytes_total").unwrap() > 0.0;
    until("one of them has begun", || has_begun(&site.seed) || has_begun(&other));
    if has_begun(&site.seed) {
        site.seed.kill()
    } else {
        other.kill()
    }
    slow.lift();
    let said = waiting.wait().done();
    assert!(
        slow.struck() > 0 && said.stderr.contains("another seed takes over"),
        "{}",
        said.stderr
    );
    origin.reset_counters();
    let mut command = visitor(&place, at, "own");
    command.args(["get", &origin.url("/f"), "-o"]).arg(place.path("out"));
    Said::by(&mut command).unwrap().done();
    assert_eq!(origin.counters().requests, 0);
}
