//! Images that lie on the machine: layouts of the image specification and archives of docker, as others wrote them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use dfs_tests::process::Said;
use dfs_tests::registry::Guard;
use dfs_tests::{Cluster, Registry};
use serde_json::Value;

use crate::commands::lend;
use crate::registry::three_layers;
use crate::support::entries::{self, Holes};
use crate::support::images::{Layout, Packing, here, sha256};
use crate::support::trees::{noise, put};
use crate::support::{Agent, Expected, NOBODY, Place, as_user, binaries};

/// An image of three layers in a registry, and copies of it that skopeo wrote.
struct Copies {
    registry: Registry,
    layout: String,
    archive: String,
}

impl Copies {
    fn of(place: &Place) -> Self {
        let mut layout = Layout::new(place.path("made"));
        for layer in three_layers(place) {
            layout.layer(&layer, Packing::Gzip);
        }
        layout.name(layout.image(here()));
        let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
        registry.push(layout.dir(), "team/app:v1").unwrap();
        let (layout, archive) = (place.path("layout"), place.path("app.tar"));
        let (layout, archive) = (layout.to_str().unwrap(), archive.to_str().unwrap());
        registry.copy("team/app:v1", &format!("oci:{layout}:v1")).unwrap();
        registry.copy("team/app:v1", &format!("docker-archive:{archive}:team/app:v1")).unwrap();
        Self { registry, layout: layout.to_owned(), archive: archive.to_owned() }
    }
}

#[test]
fn an_image_is_the_same_in_a_registry_a_layout_and_an_archive() {
    let place = Place::new();
    let Copies { registry, layout, archive } = Copies::of(&place);
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "agent");
    let from_registry = agent.mount(&registry.url("team/app:v1"), place.path("from-registry"));
    let source = entries::walk(&from_registry);
    assert!(source.len() > 20, "{}", source.len());
    for (number, name) in [
        format!("oci-layout:{layout}:v1"),
        format!("oci-layout:{layout}"),
        format!("docker-archive:{archive}:team/app:v1"),
        format!("docker-archive:{archive}"),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = agent.mount(&name, place.path(&format!("from-{number}")));
        entries::assert_same(&entries::walk(&dir), &source, Holes::Unsaid);
    }
}

#[test]
fn commands_look_into_layouts_and_archives_with_an_agent_and_without() {
    let place = Place::new();
    let Copies { layout, archive, .. } = Copies::of(&place);
    let large = noise(5, 3_000_000);
    let agent = Agent::solo(&place, "agent");
    for name in [format!("oci-layout:{layout}:v1"), format!("docker-archive:{archive}")] {
        for solo in [false, true] {
            let dfctl = |words: &[&str]| match solo {
                true => agent.dfctl(&[&["--solo"][..], words].concat()),
                false => agent.dfctl(words),
            };
            let said = dfctl(&["cat", &format!("{name}!etc/kept")]).done();
            assert_eq!(said.stdout, b"stays", "{name}");
            let said = dfctl(&["ls", &format!("{name}!opaque")]).done();
            let listed = String::from_utf8(said.stdout).unwrap();
            assert!(listed.contains("opaque/above") && !listed.contains("below"), "{listed}");
            let out = place.path(if solo { "solo" } else { "by-agent" });
            dfctl(&["get", &format!("{name}!large"), "-o", out.to_str().unwrap()]).done();
            assert!(fs::read(&out).unwrap() == large);
            fs::remove_file(out).unwrap();
            let manifest: Value =
                serde_json::from_slice(&dfctl(&["cat", &name]).done().stdout).unwrap();
            assert_eq!(manifest["layers"].as_array().unwrap().len(), 3);
            dfctl(&["stat", &name]).done();
        }
    }
    let said = agent.dfctl(&["ls", &format!("oci-layout:{layout}:v2!etc")]);
    assert!(said.stderr.contains("no image by the name 'v2': it has v1"), "{}", said.stderr);
    let said = agent.dfctl(&["stat", &format!("docker-archive:{layout}")]);
    assert!(said.stderr.contains("oci-layout:DIR"), "{}", said.stderr);
}

#[test]
fn a_layout_with_another_byte_or_a_way_out_is_one_error_and_nothing_is_mounted() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("hello"), &noise(7, 300_000));
    layout.layer(&tree, Packing::Gzip);
    layout.name(layout.image(here()));
    let name = format!("oci-layout:{}", layout.dir().display());
    let blob = layout.dir().join("blobs").join(layout.layer_digest(0).replace(':', "/"));
    let good = fs::read(&blob).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("mount");
    let refused = |reason: &str| {
        let said = agent.dfctl(&["mount", &name, dir.to_str().unwrap()]);
        assert_ne!(said.code, 0);
        assert!(said.stderr.contains(reason), "{}", said.stderr);
        assert_eq!(agent.shown(&dir), None);
    };
    let mut other = good.clone();
    other[200_000] ^= 1;
    put(&blob, &other);
    refused(&format!("is {}, not {}", sha256(&other), sha256(&good)));
    put(&blob, &good[..good.len() - 1]);
    refused("bytes");
    put(&place.path("outside"), &good);
    fs::remove_file(&blob).unwrap();
    symlink(place.path("outside"), &blob).unwrap();
    refused("a link in it leads out of");
    fs::remove_file(&blob).unwrap();
    refused("not found");
    put(&blob, &good);
    let dir = agent.mount(&name, place.path("well"));
    assert!(fs::read(dir.join("hello")).unwrap() == noise(7, 300_000));
}

#[test]
fn images_on_a_disk_are_read_with_the_rights_of_who_asks() {
    let place = Place::new();
    place.open_to_others();
    let exported = place.dir("exported");
    let mut layout = Layout::new(exported.join("layout"));
    let tree = place.dir("tree");
    put(&tree.join("hello"), b"hello");
    layout.layer(&tree, Packing::Gzip);
    layout.name(layout.image(here()));
    let private = Layout::new(place.path("private"));
    fs::copy(layout.dir().join("index.json"), private.dir().join("index.json")).unwrap();
    let group = NOBODY.to_string();
    let words = ["--export", exported.to_str().unwrap(), "--socket-group", &group];
    let agent = Agent::solo_with(&place, "agent", &words);
    fs::set_permissions(agent.data(), fs::Permissions::from_mode(0o711)).unwrap();
    let dfctl = lend(&place, "dfctl");
    let by_nobody = |words: &[&str]| {
        let mut command = as_user(NOBODY, &dfctl);
        command.arg("--socket").arg(agent.socket()).args(words);
        Said::by(&mut command).unwrap()
    };
    let name = |dir: &Path| format!("oci-layout:{}!hello", dir.display());
    assert_eq!(by_nobody(&["cat", &name(layout.dir())]).done().stdout, b"hello");
    let said = by_nobody(&["cat", &name(private.dir())]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("exported to other users"), "{}", said.stderr);
    // What nobody may not read is not read for them, also where it is in the cache already.
    let mine = Layout::new(exported.join("mine"));
    for part in ["index.json", "blobs"] {
        let mut copying = Command::new("cp");
        copying.arg("-r").arg(layout.dir().join(part)).arg(mine.dir());
        assert!(copying.status().unwrap().success());
    }
    let closed = fs::Permissions::from_mode(0o600);
    fs::set_permissions(mine.dir().join("index.json"), closed).unwrap();
    assert_eq!(agent.dfctl(&["cat", &name(mine.dir())]).done().stdout, b"hello");
    by_nobody(&["cat", &name(mine.dir())]).fails(4, "DFS-2103");
}
