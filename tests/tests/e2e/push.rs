//! What is put into a registry: seen there by hands that are not ours, whatever happens on the way.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dfs_tests::Registry;
use dfs_tests::registry::{Guard, LOGIN};
use serde_json::{Value, json};

use crate::registry::three_layers;
use crate::support::gatekeeper::{Gatekeeper, Verdict};
use crate::support::images::{INDEX, Layout, Packing, here, sha256};
use crate::support::trees::{noise, put};
use crate::support::{Agent, Expected, Place, until};

/// A layout of an image of three layers.
fn image(place: &Place) -> Layout {
    let mut layout = Layout::new(place.path("layout"));
    for (layer, packing) in
        three_layers(place).iter().zip([Packing::Gzip, Packing::Plain, Packing::Zstd])
    {
        layout.layer(layer, packing);
    }
    layout.name(layout.image(here()));
    layout
}

/// What a registry has by a name: its manifest as bytes.
fn manifest_of(registry: &Registry, reference: &str) -> Vec<u8> {
    let raw = registry.inspect(reference).unwrap();
    raw.into_bytes()
}

/// The document that a layout names.
fn named(layout: &Layout) -> (String, Vec<u8>) {
    let index = fs::read(layout.dir().join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let bytes = fs::read(layout.dir().join("blobs").join(digest.replace(':', "/"))).unwrap();
    (digest, bytes)
}

#[test]
fn an_image_of_a_layout_is_in_the_registry_bit_for_bit_and_what_is_there_is_not_sent_again() {
    let place = Place::new();
    let layout = image(&place);
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let agent = Agent::solo(&place, "agent");
    let source = format!("oci-layout:{}", layout.dir().display());
    let url = registry.url("team/app:v1");
    let said = agent.dfctl(&["push", &source, &url, "--format", "json"]).done();
    let told = said.json().unwrap();
    let (digest, bytes) = named(&layout);
    assert_eq!(told["blobs_sent"], 4, "{told}");
    assert!(told["by_digest"].as_str().unwrap().ends_with(&digest), "{told}");
    assert!(manifest_of(&registry, "team/app:v1") == bytes);
    // Others read all of it.
    let copy = place.path("copy");
    registry.copy("team/app:v1", &format!("oci:{}:v1", copy.display())).unwrap();
    // What is not packed, they pack on the way.
    for number in [0, 2] {
        let blob = layout.layer_digest(number).replace(':', "/");
        let blob = |dir: &std::path::Path| fs::read(dir.join("blobs").join(&blob)).unwrap();
        assert!(blob(&copy) == blob(layout.dir()));
    }
    let sent = registry.requests("PATCH", "/blobs/uploads/");
    let said = agent.dfctl(&["push", &source, &registry.url("team/app:v2"), "--format", "json"]);
    let told = said.done().json().unwrap();
    assert_eq!((&told["blobs_sent"], &told["blobs_there"]), (&json!(0), &json!(4)), "{told}");
    // Another repository takes them over.
    let said = agent.dfctl(&["push", &url, &registry.url("other/app:v1"), "--format", "json"]);
    let told = said.done().json().unwrap();
    assert_eq!((&told["blobs_sent"], &told["blobs_mounted"]), (&json!(0), &json!(4)), "{told}");
    let words = ["push", &source, &registry.url("third/app"), "--mount-from", "team/app"];
    agent.dfctl(&words).done();
    assert!(manifest_of(&registry, "third/app:latest") == bytes);
    assert_eq!(registry.requests("PATCH", "/blobs/uploads/"), sent, "nothing was sent again");
}

#[test]
fn nothing_is_sent_for_a_digest_that_the_image_does_not_have() {
    let place = Place::new();
    let layout = image(&place);
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let agent = Agent::solo(&place, "agent");
    let (digest, bytes) = named(&layout);
    let source = format!("oci-layout:{}", layout.dir().display());
    for wrong in [sha256(b"another"), format!("sha512:{}", "0".repeat(128))] {
        let said = agent.dfctl(&["push", &source, &registry.url(&format!("app@{wrong}"))]);
        assert_ne!(said.code, 0);
        assert!(said.stderr.contains(&format!("not {wrong}")), "{}", said.stderr);
        // Nor is an image of the layout pushed that is not there.
        let said = agent.dfctl(&["push", &format!("{source}@{wrong}"), &registry.url("app:v1")]);
        assert_ne!(said.code, 0);
    }
    for method in ["HEAD", "POST", "PATCH", "PUT"] {
        assert_eq!(registry.requests_by("dfs", method, "/v2/app/"), 0, "{method}");
    }
    agent.dfctl(&["push", &source, &registry.url(&format!("app@{digest}"))]).done();
    assert!(manifest_of(&registry, &format!("app@{digest}")) == bytes);
}

#[test]
fn an_image_of_a_registry_that_knows_no_ranges_is_read_once_and_pushed_on() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    // More than two parts.
    put(&tree.join("large"), &noise(12, 20_000_000));
    layout.layer(&tree, Packing::Plain);
    layout.name(layout.image(here()));
    let from = Registry::start(&place.dir("from"), Guard::Nobody).unwrap();
    let to = Registry::start(&place.dir("to"), Guard::Nobody).unwrap();
    from.push(layout.dir(), "app:v1").unwrap();
    let gate = Gatekeeper::before(from.address().parse().unwrap());
    gate.judge(|_| Verdict::Whole);
    let agent = Agent::solo(&place, "agent");
    agent.dfctl(&["push", &gate.url("app:v1"), &to.url("copy:v1")]).done();
    assert!(gate.spoiled() > 0);
    assert!(manifest_of(&to, "copy:v1") == named(&layout).1);
    assert_eq!(from.requests_by("dfs", "GET", &layout.layer_digest(0)), 1);
    assert!(to.requests("PATCH", "/blobs/uploads/") >= 4);
    to.copy("copy:v1", &format!("oci:{}:v1", place.path("back").display())).unwrap();
}

#[test]
fn an_image_for_several_machines_is_put_whole_or_for_one() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("hello"), b"hello");
    layout.layer(&tree, Packing::Gzip);
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let mut manifest = layout.image(architecture);
        manifest["platform"] = json!({ "os": "linux", "architecture": architecture });
        manifests.push(manifest);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    layout.name(layout.blob(INDEX, index.to_string().as_bytes()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let agent = Agent::solo(&place, "agent");
    let source = format!("oci-layout:{}", layout.dir().display());
    agent.dfctl(&["push", &source, &registry.url("app:all")]).done();
    assert!(manifest_of(&registry, "app:all") == index.to_string().into_bytes());
    let words = ["push", &source, &registry.url("one:arm"), "--platform", "linux/arm64"];
    agent.dfctl(&words).done();
    assert_eq!(sha256(&manifest_of(&registry, "one:arm")), manifests[1]["digest"]);
    let words = ["push", &source, &registry.url("one:other"), "--platform", "linux/s390x"];
    let said = agent.dfctl(&words);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("no image for linux/s390x"), "{}", said.stderr);
}

#[test]
fn files_become_an_artifact_of_which_they_come_back() {
    let place = Place::new();
    let model = place.dir("model");
    let weights = noise(9, 20_000_000);
    put(&model.join("weights/part-1.bin"), &weights);
    put(&model.join("config.json"), b"{}");
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let agent = Agent::solo(&place, "agent");
    let url = registry.url("models/small:1");
    let model = model.to_str().unwrap();
    let words = ["--artifact-type", "application/vnd.test.model", "--annotation", "a.b=c=d"];
    agent.dfctl(&[&["push", model, &url][..], &words].concat()).done();
    let manifest: Value =
        serde_json::from_slice(&manifest_of(&registry, "models/small:1")).unwrap();
    assert_eq!(manifest["artifactType"], "application/vnd.test.model");
    assert_eq!(manifest["annotations"]["a.b"], "c=d");
    // 20 MB go in three parts.
    assert!(registry.requests("PATCH", "/blobs/uploads/") >= 4);
    let dir = agent.mount(&url, place.path("mount"));
    assert!(fs::read(dir.join("weights/part-1.bin")).unwrap() == weights);
    assert_eq!(fs::read(dir.join("config.json")).unwrap(), b"{}");
    let one = place.path("one.txt");
    put(&one, b"one");
    agent.dfctl(&["push", one.to_str().unwrap(), &registry.url("one")]).done();
    let said = agent.dfctl(&["cat", &format!("{}!one.txt", registry.url("one"))]).done();
    assert_eq!(said.stdout, b"one");
    // The same files make the same artifact.
    let again = registry.url("models/again:1");
    agent.dfctl(&[&["push", model, &again][..], &words].concat()).done();
    let digest = |reference: &str| sha256(&manifest_of(&registry, reference));
    assert_eq!(digest("models/again:1"), digest("models/small:1"));
}

#[test]
fn what_cannot_be_put_is_said_before_anything_is_sent() {
    let place = Place::new();
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let agent = Agent::solo(&place, "agent");
    let (dir, empty) = (place.dir("dir"), place.dir("empty"));
    std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
    let url = registry.url("app");
    for (source, to, said) in [
        (dir.to_str().unwrap(), &url, "files alone"),
        (empty.to_str().unwrap(), &url, "there is no file in it"),
        (dir.to_str().unwrap(), &"https://127.0.0.1/x".to_owned(), "oci://HOST/REPOSITORY"),
        ("https://127.0.0.1/x", &url, "neither an image nor lies on this machine"),
    ] {
        let told = agent.dfctl(&["push", source, to]);
        assert_ne!(told.code, 0);
        assert!(told.stderr.contains(said), "{}", told.stderr);
    }
    assert_eq!(registry.requests("POST", "/"), 0);
}

#[test]
fn an_upload_that_breaks_off_or_is_refused_for_a_while_goes_on_and_nothing_half_done_is_seen() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("large"), &noise(3, 30_000_000));
    layout.layer(&tree, Packing::Plain);
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let gate = Gatekeeper::before(registry.address().parse().unwrap());
    let agent = Agent::solo(&place, "agent");
    let source = format!("oci-layout:{}", layout.dir().display());
    let patches = AtomicUsize::new(0);
    let others = Arc::new(AtomicUsize::new(0));
    let begun = Arc::clone(&others);
    gate.judge(move |asked| match asked.method.as_str() {
        "PATCH" => match patches.fetch_add(1, Ordering::SeqCst) {
            1 => Verdict::CutRequest(3_000_000),
            3 => Verdict::LoseAnswer,
            5 => Verdict::Answer("503 Service Unavailable", Vec::new(), Vec::new()),
            _ => Verdict::Pass,
        },
        "POST" | "PUT" => match begun.fetch_add(1, Ordering::SeqCst) {
            0 | 3 => Verdict::Answer("429 Too Many Requests", Vec::new(), Vec::new()),
            2 => Verdict::LoseAnswer,
            _ => Verdict::Pass,
        },
        _ => Verdict::Pass,
    });
    agent.dfctl(&["push", &source, &gate.url("app:v1")]).done();
    assert!(gate.spoiled() >= 6, "{}", gate.spoiled());
    let (_, bytes) = named(&layout);
    assert!(manifest_of(&registry, "app:v1") == bytes);
    registry.copy("app:v1", &format!("oci:{}:v1", place.path("copy").display())).unwrap();

    // One that goes on being refused is one error, and no tag.
    gate.judge(|asked| match asked.method.as_str() {
        "PATCH" => Verdict::Answer("500 Internal Server Error", Vec::new(), Vec::new()),
        _ => Verdict::Pass,
    });
    let said = agent.dfctl(&["push", &source, &gate.url("fresh:v1")]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("status 500"), "{}", said.stderr);
    assert!(registry.inspect("fresh:v1").is_err(), "nothing has the name");
    gate.open();
    agent.dfctl(&["push", &source, &gate.url("fresh:v1")]).done();
    assert!(manifest_of(&registry, "fresh:v1") == bytes);
}

#[test]
fn a_push_that_was_killed_goes_on_with_what_is_there_when_it_is_taken_up_again() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    for (number, length) in [500_000, 700_000, 30_000_000].into_iter().enumerate() {
        let tree = place.dir(&format!("tree-{number}"));
        put(&tree.join(format!("file-{number}")), &noise(number as u64, length));
        layout.layer(&tree, Packing::Plain);
    }
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let gate = Gatekeeper::before(registry.address().parse().unwrap());
    let agent = Agent::solo(&place, "agent");
    let source = format!("oci-layout:{}", layout.dir().display());
    let url = gate.url("app:v1");
    // The large layer comes no further than its first part.
    let large = Arc::new(AtomicUsize::new(0));
    let parts = Arc::clone(&large);
    gate.judge(move |asked| {
        let length = asked.header("content-length").and_then(|length| length.parse().ok());
        let is_large =
            asked.method == "PATCH" && length.is_some_and(|length: u64| length > 1 << 20);
        match is_large && parts.fetch_add(1, Ordering::SeqCst) > 0 {
            true => Verdict::CutRequest(2_000_000),
            false => Verdict::Pass,
        }
    });
    let pushing = agent.dfctl_start(&["push", &source, &url]);
    let done = || registry.requests_by("dfs", "PUT", "/blobs/uploads/");
    until("the small layers are there, and a part of the large one", || {
        done() >= 2 && large.load(Ordering::SeqCst) > 1
    });
    pushing.kill();
    assert!(registry.inspect("app:v1").is_err(), "nothing has the name");
    gate.open();
    let there = done();
    let told = agent.dfctl(&["push", &source, &url, "--format", "json"]).done().json().unwrap();
    assert_eq!(told["blobs_there"], there, "{told}");
    assert_eq!(told["blobs_sent"], 4 - there, "{told}");
    let (_, bytes) = named(&layout);
    assert!(manifest_of(&registry, "app:v1") == bytes);
    registry.copy("app:v1", &format!("oci:{}:v1", place.path("copy").display())).unwrap();
}

#[test]
fn who_may_not_write_is_told_so_and_who_has_a_login_may() {
    let place = Place::new();
    let layout = image(&place);
    let registry = Registry::start(place.root(), Guard::Password).unwrap();
    let docker = place.dir("docker");
    let login = json!({ "username": LOGIN.0, "password": LOGIN.1 });
    let logins = json!({ "auths": { registry.address(): login } });
    put(&docker.join("config.json"), logins.to_string().as_bytes());
    let agent = Agent::solo(&place, "agent");
    let source = format!("oci-layout:{}", layout.dir().display());
    let push = |docker: &std::path::Path| {
        let mut command = agent.node.dfctl_command().unwrap();
        command.args(["push", &source, &registry.url("team/app:v1")]);
        command.env("DOCKER_CONFIG", docker);
        dfs_tests::process::Said::by(&mut command).unwrap()
    };
    let said = push(&place.dir("nowhere"));
    assert_ne!(said.code, 0);
    let told = format!("docker login {}", registry.address());
    assert!(said.stderr.contains(&told), "{}", said.stderr);
    push(&docker).done();
    let (_, bytes) = named(&layout);
    assert!(manifest_of(&registry, "team/app:v1") == bytes);
}
