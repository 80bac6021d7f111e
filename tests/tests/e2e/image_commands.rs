//! What is said of images, and copies of them in directories and files, read by hands that are not ours.

use std::fs;
use std::path::Path;
use std::process::Command;

use dfs_tests::registry::Guard;
use dfs_tests::{Cluster, Registry};
use serde_json::{Value, json};

use crate::registry::three_layers;
use crate::support::images::{INDEX, Layout, MANIFEST, Packing, here, sha256};
use crate::support::trees::{noise, put, walk};
use crate::support::{Agent, Expected, Place, binaries};

/// An image of three layers in a registry.
fn pushed(place: &Place) -> (Registry, Layout) {
    let mut layout = Layout::new(place.path("made"));
    for layer in three_layers(place) {
        layout.layer(&layer, Packing::Gzip);
    }
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "team/app:v1").unwrap();
    (registry, layout)
}

/// Everything below a directory, by path.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(below) = left.pop() {
        for entry in fs::read_dir(&below).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => {
                    let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                    found.push((name, fs::read(&path).unwrap()));
                }
            }
        }
    }
    found.sort();
    found
}

fn skopeo(words: &[&str]) {
    let output = Command::new("skopeo").arg("--insecure-policy").args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_export_has_the_same_blobs_as_another_programs() {
    let place = Place::new();
    let (registry, layout) = pushed(&place);
    let theirs = place.path("theirs");
    registry.copy("team/app:v1", &format!("oci:{}:v1", theirs.display())).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "agent");
    let ours = place.path("ours");
    let to = format!("oci-layout:{}:v1", ours.display());
    agent.dfctl(&["image", "export", &registry.url("team/app:v1"), &to]).done();
    let blobs = |dir: &Path| files(&dir.join("blobs"));
    assert_eq!(blobs(&ours).len(), 5);
    assert!(blobs(&ours) == blobs(&theirs));
    let named = |dir: &Path| -> Value {
        let index = fs::read(dir.join("index.json")).unwrap();
        serde_json::from_slice::<Value>(&index).unwrap()["manifests"][0]["digest"].clone()
    };
    assert_eq!(named(&ours), named(&theirs));
    // Others read it: a layout, and an archive.
    let back = place.path("back");
    skopeo(&["copy", &format!("oci:{}:v1", ours.display()), &format!("dir:{}", back.display())]);
    let tar = place.path("app.tar");
    let to = format!("docker-archive:{}:team/app:v1", tar.display());
    agent.dfctl(&["image", "export", &registry.url("team/app:v1"), &to]).done();
    let from = format!("docker-archive:{}:team/app:v1", tar.display());
    let unpacked = place.path("unpacked");
    skopeo(&["copy", &from, &format!("oci:{}:v1", unpacked.display())]);
    assert!(Command::new("tar").arg("-tf").arg(&tar).output().unwrap().status.success());
    let member = format!("blobs/{}", layout.layer_digest(0).replace(':', "/"));
    let member = Command::new("tar").arg("-xOf").arg(&tar).arg(member).output().unwrap();
    assert_eq!(sha256(&member.stdout), layout.layer_digest(0));
    // And we do.
    let said = agent.dfctl(&["cat", &format!("{from}!etc/kept")]).done();
    assert_eq!(said.stdout, b"stays");
    // What is there is there.
    let said = agent.dfctl(&["image", "export", &registry.url("team/app:v1"), &from]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("there is something by this name"), "{}", said.stderr);
}

#[test]
fn a_layout_takes_several_images_and_is_not_written_over_something_else() {
    let place = Place::new();
    let (registry, _) = pushed(&place);
    let mut other = Layout::new(place.path("second"));
    let tree = place.dir("tree");
    put(&tree.join("hello"), b"hello");
    other.layer(&tree, Packing::Zstd);
    other.name(other.image(here()));
    registry.push(other.dir(), "team/app:v2").unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = place.path("layout");
    let to = |name: &str| format!("oci-layout:{}:{name}", dir.display());
    for (tag, name) in [("v1", "one"), ("v2", "two"), ("v2", "one")] {
        let from = registry.url(&format!("team/app:{tag}"));
        agent.dfctl(&["image", "export", &from, &to(name)]).done();
    }
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");
    assert_eq!(agent.dfctl(&["cat", &format!("{}!hello", to("one"))]).done().stdout, b"hello");
    let hidden = |name: &str| name.starts_with('.');
    assert!(!files(&dir).iter().any(|(name, _)| hidden(name)), "no drafts are left");
    let mine = place.dir("mine");
    put(&mine.join("file"), b"mine");
    let to = format!("oci-layout:{}:x", mine.display());
    let said = agent.dfctl(&["image", "export", &registry.url("team/app:v1"), &to]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("is no layout"), "{}", said.stderr);
    assert_eq!(files(&mine).len(), 1);
}

/// What `dfctl image ls` says of the image by this name, once.
fn listed(agent: &Agent, url: &str) -> Option<Value> {
    let told = agent.dfctl(&["image", "ls", "--format", "json"]).done().json().unwrap();
    let mut found = told["items"].as_array().unwrap().iter().filter(|one| one["url"] == url);
    let one = found.next().cloned();
    assert!(found.next().is_none(), "{told}");
    one
}

#[test]
fn a_pulled_image_is_all_here_and_a_mount_of_it_gets_no_byte_from_anywhere() {
    let place = Place::new();
    let (registry, layout) = pushed(&place);
    let url = registry.url("team/app:v1");
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    for agent in [Agent::solo(&place, "solo"), Agent::of(&cluster, &place, "node")] {
        assert_eq!(listed(&agent, &url), None, "nobody has looked at it");
        agent.dfctl(&["ls", &format!("{url}!")]).done();
        let known = listed(&agent, &url).unwrap();
        let (bytes, cached) = (known["bytes"].as_u64().unwrap(), &known["cached_bytes"]);
        assert!(cached.as_u64().unwrap() < bytes || agent.node.name() == "solo", "{known}");
        let pulled = agent.dfctl(&["image", "pull", &url, "--format", "json"]).done();
        let pulled = pulled.json().unwrap();
        assert!(pulled["bytes"].as_u64().unwrap() >= bytes, "{pulled}");
        let from = &pulled["ledger"];
        let named = ["cache", "source"].map(|name| from[name].as_u64().unwrap());
        let parents = from["parents"].as_array().unwrap().iter();
        let parents = parents.map(|parent| parent["bytes"].as_u64().unwrap());
        let sum = named.iter().sum::<u64>() + parents.sum::<u64>();
        assert_eq!(sum, pulled["bytes"].as_u64().unwrap(), "{pulled}");
        let here = listed(&agent, &url).unwrap();
        assert_eq!(here["cached_bytes"], bytes, "{here}");
        assert_eq!((&here["mounts"], &here["pinned"]), (&json!([]), &json!(false)), "{here}");
        assert_eq!(here["platform"], format!("linux/{}", self::here()), "{here}");
        let manifest = layout.image(self::here());
        assert_eq!(
            (&here["digest"], &here["manifest"]),
            (&manifest["digest"], &manifest["digest"])
        );

        let asked = registry.requests("GET", "/blobs/");
        let dir = agent.mount(&url, place.path(&format!("{}-mount", agent.node.name())));
        walk(&dir);
        assert_eq!(registry.requests("GET", "/blobs/"), asked);
        let shown = agent.shown(&dir).unwrap();
        let ledger = &shown["ledger"];
        assert_eq!((&ledger["source"], &ledger["parents"]), (&json!(0), &json!([])), "{shown}");
        let mounted = listed(&agent, &url).unwrap();
        assert_eq!(mounted["mounts"], json!([dir.to_str().unwrap()]), "{mounted}");
        agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
        agent.dfctl(&["image", "pull", "--pin", &url]).done();
        assert_eq!(listed(&agent, &url).unwrap()["pinned"], true);
        let table = agent.dfctl(&["image", "ls"]).done();
        assert!(
            table.text().contains("pinned") && table.text().contains("all"),
            "{}",
            table.text()
        );
        let pins = agent.dfctl(&["cache", "ls", "--pins"]).done();
        assert!(pins.text().contains(&url), "{}", pins.text());
    }
}

#[test]
fn an_image_that_does_not_fit_or_is_not_there_is_not_pulled() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("large"), &noise(5, 80 << 20));
    layout.layer(&tree, Packing::Zstd);
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "app:large").unwrap();
    let agent = Agent::solo_with(&place, "agent", &["--capacity", "64MiB"]);
    let said = agent.dfctl(&["image", "pull", &registry.url("app:large")]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("room"), "{}", said.stderr);
    agent.dfctl(&["image", "pull", &registry.url("app:none")]).fails(3, "DFS-2101");
    agent.dfctl(&["image", "pull", "https://h.test/x"]).fails(2, "DFS-1002");
}

#[test]
fn what_refers_to_an_image_is_found_by_it_also_where_the_registry_keeps_no_account() {
    let place = Place::new();
    let (registry, layout) = pushed(&place);
    let image = layout.image(here());
    let agent = Agent::solo(&place, "agent");
    let attach = |kind: &str| {
        let made = Layout::new(place.path(kind));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": format!("application/vnd.test.{kind}"),
            "config": made.blob("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": [made.blob("text/plain", kind.as_bytes())],
            "subject": image,
            "annotations": { "vnd.test.said": kind },
        });
        made.name(made.blob(MANIFEST, manifest.to_string().as_bytes()));
        let from = format!("oci-layout:{}", made.dir().display());
        agent.dfctl(&["push", &from, &registry.url(&format!("team/app:{kind}"))]).done();
        sha256(manifest.to_string().as_bytes())
    };
    let inspect = || {
        let words = ["image", "inspect", &registry.url("team/app:v1"), "--format", "json"];
        agent.dfctl(&words).done().json().unwrap()["referrers"].clone()
    };
    assert_eq!(inspect(), json!([]));
    let wanted = ["signature", "contents"].map(|kind| (kind, attach(kind)));
    // It is no other thing the second time.
    attach("contents");
    let found = inspect();
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    for ((kind, digest), found) in wanted.iter().zip(found) {
        assert_eq!(found["artifact_type"], format!("application/vnd.test.{kind}"));
        assert_eq!((&found["digest"], &found["about"]), (&json!(digest), &image["digest"]));
        assert_eq!(found["annotations"]["vnd.test.said"], *kind);
    }
    let tag = image["digest"].as_str().unwrap().replace(':', "-");
    assert!(registry.requests("PUT", &format!("/manifests/{tag}")) > 0, "a list kept by hand");
    let said = agent.dfctl(&["image", "inspect", &registry.url("team/app:v1")]).done();
    assert!(said.text().contains("application/vnd.test.signature"), "{}", said.text());
}

#[test]
fn a_layout_that_was_damaged_or_left_half_written_is_made_whole() {
    let place = Place::new();
    let (registry, layout) = pushed(&place);
    let agent = Agent::solo(&place, "agent");
    let dir = place.path("layout-of-ours");
    let to = format!("oci-layout:{}:v1", dir.display());
    let export = || agent.dfctl(&["image", "export", &registry.url("team/app:v1"), &to]).done();
    export();
    let right = files(&dir);
    // Another content of the same length by the same name, and what a killed command left.
    let layer = dir.join("blobs").join(layout.layer_digest(0).replace(':', "/"));
    let mut bytes = fs::read(&layer).unwrap();
    bytes[100] ^= 1;
    fs::write(&layer, bytes).unwrap();
    put(&dir.join(".dfs-export-left"), b"half of a layer");
    export();
    assert!(files(&dir) == right);
    // The same beside an archive.
    let tars = place.dir("tars");
    put(&tars.join(".dfs-export-left"), b"half of an archive");
    let tar = tars.join("app.tar");
    let archive = |name: &str| format!("docker-archive:{}{name}", tar.display());
    let tags = |from: &str, name: &str| -> Value {
        agent.dfctl(&["image", "export", from, &archive(name)]).done();
        assert_eq!(files(&tars).len(), 1, "no drafts are left");
        let mut command = Command::new("tar");
        let said = command.arg("-xOf").arg(&tar).arg("manifest.json").output().unwrap();
        fs::remove_file(&tar).unwrap();
        let manifest: Value = serde_json::from_slice(&said.stdout).unwrap();
        manifest[0]["RepoTags"].clone()
    };
    let (address, from) = (registry.address(), registry.url("team/app:v1"));
    assert_eq!(tags(&from, ""), json!([format!("{address}/team/app:v1")]));
    assert_eq!(tags(&from, ":app"), json!(["docker.io/library/app:latest"]));
    assert_eq!(tags(&from, ":h.test/app:2"), json!(["h.test/app:2"]));
    // A layout says a tag alone: nobody knows of what.
    assert_eq!(tags(&to, ""), json!([]));
    let said = agent.dfctl(&["image", "export", &from, &archive(":Not a name")]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("no image can have the name"), "{}", said.stderr);
}

#[test]
fn what_an_image_is_made_of_is_said_as_the_registry_has_it() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("hello"), b"hello");
    layout.layer(&tree, Packing::Gzip);
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64", "s390x"] {
        let mut manifest = layout.image(architecture);
        manifest["platform"] = json!({ "os": "linux", "architecture": architecture });
        manifests.push(manifest);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    let index = index.to_string();
    layout.name(layout.blob(INDEX, index.as_bytes()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "app:all").unwrap();
    let agent = Agent::solo(&place, "agent");
    let names = [registry.url("app:all"), format!("oci-layout:{}", layout.dir().display())];
    for name in names {
        let words = ["image", "inspect", &name, "--platform", "linux/s390x", "--format", "json"];
        let told = agent.dfctl(&words).done().json().unwrap();
        assert_eq!(told["digest"], sha256(index.as_bytes()), "{told}");
        assert_eq!(told["manifest"], manifests[2]["digest"], "{told}");
        assert_eq!(told["platforms"].as_array().unwrap().len(), 3, "{told}");
        assert_eq!(told["config"]["architecture"], "s390x", "{told}");
        assert_eq!(told["layers"][0]["digest"], layout.layer_digest(0), "{told}");
        let said = agent.dfctl(&["image", "inspect", &name]).done();
        let lines = String::from_utf8(said.stdout).unwrap();
        let here = format!("runs on   linux/{}", here());
        assert!(lines.contains(&here) && lines.contains("for       linux/s390x"), "{lines}");
    }
    assert_eq!(registry.requests("GET", &layout.layer_digest(0)), 0, "no layer was read");
    // Of either command: what the tag stands for, and the index and the manifest by their digests.
    assert_eq!(registry.requests_by("dfs", "HEAD", "/manifests/"), 2);
    // This registry keeps no account of what is about them: either is asked for its list.
    let lists = registry.requests_by("dfs", "GET", "/manifests/sha256-");
    assert_eq!((registry.requests_by("dfs", "GET", "/manifests/") - lists, lists), (4, 4));
    let words = ["image", "inspect", &registry.url("app:all"), "--platform", "linux/riscv64"];
    let said = agent.dfctl(&words);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("no image for linux/riscv64"), "{}", said.stderr);
}
